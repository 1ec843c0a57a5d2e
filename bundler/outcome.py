"""What is told of an unpack and of a verification: by the command line, and by unpack.pyz."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bundler.complaint import tell
from bundler.errors import DamagedError, UnavailableError, amount
from bundler.wording import counted, printable

if TYPE_CHECKING:
    from bundler.shells import EnvFormat
    from bundler.unpacking import Unpacked
    from bundler.verification import Verification

SHOWN_FAULTS = 20
"""So many are told one by one."""


def unpacked(result: Unpacked, form: EnvFormat, *, done: bool) -> Iterator[str]:
    """What was unpacked, or (not `done`) would be; what is worth knowing of it; what to do next."""
    from bundler import report

    yield report.unpacked(result, done=done)
    for note in report.moves(result, done=done):
        yield f"note: {note}"
    if not done:
        return
    if result.env_replaced:
        yield (
            f"note: {result.env} led to other places before, and what is there is no longer found "
            "through it: unpack to the same --root, or keep two files with --env"
        )
    for note in report.usage(result):
        yield f"note: {note}"
    if result.env is None or result.env_roots is None:
        return
    from bundler.next_steps import next_steps

    for note in report.read_only(result.env_roots):
        yield f"note: {note}"
    for line in next_steps(form, result.env, result.env_roots):
        yield printable(line)


def advice(result: Verification) -> str:
    """What to do about a bundle with faults."""
    return f"copy {'the volumes named' if result.bad_volumes else 'the bundle'} again"


def check_verified(result: Verification, name: str, advice: str) -> None:
    """Tell what is wrong in the bundle of that name, if anything is, and raise.

    UnavailableError if a volume is missing, else DamagedError.
    """
    for fault in result.faults[:SHOWN_FAULTS]:
        tell(fault.message)
    if result.faults:
        kind = UnavailableError if result.missing_volumes else DamagedError
        raise kind(
            f"{counted(len(result.faults), 'fault')} in {name}, "
            f"{counted(result.checked, 'blob')} right: {advice}"
        )


def verified(result: Verification) -> Iterator[str]:
    """What was found of a bundle without faults."""
    yield f"all {counted(result.checked, 'blob')} ({amount(result.size)}) are right"
    if result.signer is not None:
        yield printable(f"signed by {result.signer}")
    yield f"id {result.digest}"
