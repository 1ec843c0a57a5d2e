"""`bundler verify`."""

from __future__ import annotations

import bundler
from bundler.cli.options import Bundle, ExpectedDigest, Jobs, Json, parsed_digest, source
from bundler.cli.output import Bars, print_json, tell
from bundler.errors import DamagedError, amount

_SHOWN_FAULTS = 20


def verify(
    bundle_: Bundle, digest: ExpectedDigest = None, jobs: Jobs = None, json_: Json = False
) -> None:
    """Compare every digest of a bundle.

    Names each bad member, and tells what is whole in a bundle that was cut short.
    """
    from bundler import report

    result = bundler.verify(
        source(bundle_), digest=parsed_digest(digest), jobs=jobs, progress=Bars()
    )
    if json_:
        print_json(result.to_json())
    for fault in result.faults[:_SHOWN_FAULTS]:
        tell(fault.message)
    if result.faults:
        raise DamagedError(
            f"{report.counted(len(result.faults), 'fault')} in {bundle_}, "
            f"{report.counted(result.checked, 'blob')} right: copy the bundle again"
        )
    if not json_:
        print(f"all {report.counted(result.checked, 'blob')} ({amount(result.size)}) are right")
        print(f"id {result.digest}")
