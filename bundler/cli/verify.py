"""`bundler verify`."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

import bundler
from bundler import outcome
from bundler.cli.asking import asker
from bundler.cli.options import (
    ExpectedDigest,
    HfHome,
    InsightfaceRoot,
    Jobs,
    Json,
    Repairs,
    Root,
    SignatureFile,
    TorchHome,
    VerifyKeys,
    parsed_digest,
    required_trust,
    roots_of,
    source,
)
from bundler.cli.output import Bars, print_json
from bundler.complaint import tell
from bundler.environment import Roots
from bundler.errors import (
    BundlerError,
    DamagedError,
    FormatError,
    RequestError,
    UnavailableError,
    amount,
)
from bundler.wording import counted

if TYPE_CHECKING:
    from bundler.digest import Digest
    from bundler.manifest import Manifest
    from bundler.trust import Trust


def verify(
    context: typer.Context,
    bundle_: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[BUNDLE]...",
            show_default=False,
            help="A bundle, or - for standard input; of one in volumes its folder, or all its "
            "folders. By default all that is installed here.",
        ),
    ] = None,
    digest: ExpectedDigest = None,
    verify_keys: VerifyKeys = None,
    signature: SignatureFile = None,
    root: Root = None,
    hf_home: HfHome = None,
    torch_home: TorchHome = None,
    insightface_root: InsightfaceRoot = None,
    repairs: Repairs = None,
    mend: Annotated[
        bool,
        typer.Option(
            "--mend",
            help="Put a damaged bundle, or its damaged and lost volumes, right by the parity files "
            "beside it, of pack --parity.",
            envvar="BUNDLER_MEND",
        ),
    ] = False,
    request: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where to write what is damaged or missing, if anything is: for pack --for.",
            envvar="BUNDLER_REQUEST",
        ),
    ] = None,
    jobs: Jobs = None,
    json_: Json = False,
) -> None:
    """Compare every digest of a bundle, or of what is installed.

    Names each bad member and volume, and tells what is whole in a bundle that was cut short.
    Without a bundle, names each installed file that is missing or changed, and what puts it right.
    """
    expected = parsed_digest(digest)
    if bundle_:
        trusted = required_trust(verify_keys, signature)
        if mend and (repairs or "-" in bundle_):
            raise RequestError("--mend is for files, and goes without --repair")
        _verify_bundle(bundle_, expected, trusted, repairs or [], mend, request, jobs, json_)
    elif expected is not None:
        raise RequestError("--digest is the id of a bundle: name the bundle")
    elif _was_typed(context, "verify_keys") or _was_typed(context, "signature"):
        raise RequestError("--verify-key and --signature are for a bundle: name the bundle")
    elif _was_typed(context, "repairs"):
        raise RequestError("--repair is for a bundle: name the bundle")
    elif _was_typed(context, "mend"):
        raise RequestError("--mend is for a bundle: name the bundle")
    else:
        roots = roots_of(root, hf_home, torch_home, insightface_root)
        _verify_installed(roots, request, jobs, json_)


def _was_typed(context: typer.Context, option: str) -> bool:
    """Whether an option is on the command line, and does not come from a variable set for all."""
    where = context.get_parameter_source(option)
    return where is not None and where.name == "COMMANDLINE"


def _requested(needed: Manifest | None, request: Path | None, advice: str) -> str:
    """What to do, after it was written down what is needed."""
    if request is None or needed is None:
        return advice
    from bundler.whole_file import write_text

    write_text(request, needed.to_bytes().decode(), "--request")
    size = amount(sum(entry.blob.size for _, entry in needed.carried()))
    return f"bundler pack --for {quote(str(request))} packs what is needed ({size})"


def _mending(names: list[str]) -> str:
    """How to do without what is damaged, to be added to the advice if there are parity files."""
    from bundler.mending import place_to_mend
    from bundler.parity import parity_files

    with suppress(BundlerError):  # Not even the place of the bundle is clear.
        if "-" not in names and parity_files(place_to_mend([*map(Path, names)])):
            return (
                "; --mend puts right what is damaged or lost, as far as the parity files beside "
                "it go"
            )
    return ""


def _verify_bundle(
    names: list[str],
    digest: Digest | None,
    trusted: Trust | None,
    repairs: list[Path],
    mend: bool,
    request: Path | None,
    jobs: int | None,
    json_: bool,
) -> None:
    bundle = source(names)
    verified = (
        partial(bundler.verify_and_mend, names)
        if mend
        else partial(bundler.verify, bundle, repairs=repairs)
    )
    try:
        result = verified(digest=digest, trusted=trusted, jobs=jobs, ask=asker(), progress=Bars())
    except (DamagedError, FormatError, UnavailableError) as error:
        raise type(error)(f"{error}{'' if mend else _mending(names)}") from None
    if json_:
        print_json(result.to_json())
    advice = ""
    if result.faults:
        advice = _requested(result.needed, request, outcome.advice(result)) + _mending(names)
    outcome.check_verified(result, ", ".join(names), advice)
    if not json_:
        for line in outcome.verified(result):
            print(line)
        if result.mended:
            print(f"mended: {', '.join(result.mended)}")


def _verify_installed(roots: Roots, request: Path | None, jobs: int | None, json_: bool) -> None:
    from bundler import installed_report

    result = bundler.verify_installed(roots, jobs=jobs, progress=Bars())
    if json_:
        print_json(result.to_json())
    else:
        for line in installed_report.verified(result):
            print(line)
    for fault in result.faults[: outcome.SHOWN_FAULTS]:
        tell(installed_report.faulty(fault))
    if result.faults:
        raise DamagedError(
            f"{counted(len(result.faults), 'fault')} in what is installed, "
            f"{counted(result.checked, 'file')} right: "
            + _requested(result.needed, request, "unpack again as told")
        )
