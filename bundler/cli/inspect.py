"""`bundler inspect`."""

from __future__ import annotations

import sys

import bundler
from bundler.cli.asking import asker
from bundler.cli.options import (
    Bundle,
    ExpectedDigest,
    Json,
    SignatureFile,
    VerifyKeys,
    parsed_digest,
    source,
    trust,
)
from bundler.cli.output import harmless_json
from bundler.errors import DamagedError


def inspect(
    bundle_: Bundle,
    digest: ExpectedDigest = None,
    verify_keys: VerifyKeys = None,
    signature: SignatureFile = None,
    json_: Json = False,
) -> None:
    """Show what a bundle holds, and who signed it.

    Reads only its beginning. --json prints the manifest, byte for byte (but to a terminal only what
    does no harm there): its sha256 is the id.
    """
    from bundler import report

    inspection = bundler.inspect(
        source(bundle_),
        digest=parsed_digest(digest),
        trusted=trust(verify_keys, signature),
        signature=signature,
        ask=asker(),
    )
    if json_ and sys.stdout.isatty():
        print(harmless_json(inspection.manifest_bytes.decode()))
    elif json_:
        sys.stdout.buffer.write(inspection.manifest_bytes)
    else:
        print(report.inspected(inspection))
    if inspection.fault:
        raise DamagedError(f"{', '.join(bundle_)}: {inspection.fault}")
