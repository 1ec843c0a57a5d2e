"""`bundler inspect`."""

from __future__ import annotations

import sys

import bundler
from bundler.cli.asking import asker
from bundler.cli.options import Bundle, ExpectedDigest, Json, parsed_digest, source
from bundler.errors import DamagedError


def inspect(bundle_: Bundle, digest: ExpectedDigest = None, json_: Json = False) -> None:
    """Show what a bundle holds.

    Reads only its beginning. --json prints the manifest, byte for byte: its sha256 is the id.
    """
    from bundler import report

    inspection = bundler.inspect(source(bundle_), digest=parsed_digest(digest), ask=asker())
    if json_:
        sys.stdout.buffer.write(inspection.manifest_bytes)
    else:
        print(report.inspected(inspection))
    if inspection.fault:
        raise DamagedError(f"{', '.join(bundle_)}: {inspection.fault}")
