"""`bundler pack`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

import bundler
from bundler.cli.asking import asker
from bundler.cli.carry import (
    WithBundler,
    WithPlatform,
    WithPython,
    carriage_of,
    carry_beside,
    place_of,
    steps,
    would_carry,
)
from bundler.cli.options import (
    DryRun,
    Jobs,
    Json,
    NoCode,
    PythonOfLibraries,
    Requests,
    Store,
    TrustCode,
    folder,
    wanted_models,
)
from bundler.cli.output import Bars, print_json
from bundler.cli.password import password_of
from bundler.errors import BundlerError, Faults, FormatError, RequestError

if TYPE_CHECKING:
    from bundler.keys import PrivateKey
    from bundler.listing import Listing
    from bundler.manifest import Manifest


def pack(
    specs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SPEC",
            help="org/name[@revision], timm:NAME, torchvision:NAME, torchhub:OWNER/REPO#ENTRY, "
            "sentence-transformers:NAME, insightface:NAME, dataset:ORG/NAME, https://HOST/FILE, "
            "file:PATH.",
            show_default=False,
        ),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--models",
            metavar="SPEC...",
            help="Models to pack; the same as naming them without the option.",
            envvar="BUNDLER_MODELS",
        ),
    ] = None,
    requests: Requests = None,
    locked: Annotated[
        Path | None,
        typer.Option(
            metavar="MANIFEST",
            help="Exactly the commits and content of a bundle, or of what inspect --json prints.",
            envvar="BUNDLER_LOCKED",
        ),
    ] = None,
    since: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="What the target has already stays out, by what bundler inventory writes there, "
            "or by an earlier bundle or its manifest; repeatable.",
            envvar="BUNDLER_SINCE",
        ),
    ] = None,
    needed: Annotated[
        Path | None,
        typer.Option(
            "--for",
            metavar="FILE",
            help="Exactly what bundler verify --request wrote: what repairs a damaged bundle.",
            envvar="BUNDLER_FOR",
        ),
    ] = None,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|DIR",
            help="The bundle to write, or - for standard output. In a folder that is there, as a "
            "stick is, it gets the name of the models, is read back, and README.txt beside it.",
            envvar="BUNDLER_OUTPUT",
        ),
    ] = "bundle.tar.zst",
    split_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Write volumes of so many bytes, FILE.000, FILE.001, … and a list, FILE.volumes: "
            "4GB, 700MB, 4GiB; auto: only if the file system of FILE cannot hold it whole (FAT). "
            "cat FILE.[0-9]* joins them. For a folder, auto is the default.",
            envvar="BUNDLER_SPLIT_SIZE",
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Only these files of each repository; repeatable.",
            envvar="BUNDLER_INCLUDE",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Not these files; repeatable, and stronger than --include.",
            envvar="BUNDLER_EXCLUDE",
        ),
    ] = None,
    all_files: Annotated[
        bool,
        typer.Option(
            "--all-files",
            help="Every file, also the same weights in other formats.",
            envvar="BUNDLER_ALL_FILES",
        ),
    ] = False,
    no_closure: Annotated[
        bool,
        typer.Option(
            "--no-closure",
            help="Not what the models need from other repositories.",
            envvar="BUNDLER_NO_CLOSURE",
        ),
    ] = False,
    no_code: NoCode = False,
    everything: Annotated[
        bool,
        typer.Option(
            "--everything",
            help="All that the libraries' caches on this machine hold; --offline.",
            envvar="BUNDLER_EVERYTHING",
        ),
    ] = False,
    offline: Annotated[
        bool,
        typer.Option(
            "--offline",
            help="Ask nothing of a network: pack what the libraries' caches here have.",
            envvar="BUNDLER_OFFLINE",
        ),
    ] = False,
    endpoints: Annotated[
        list[str] | None,
        typer.Option(
            "--endpoint",
            metavar="URL",
            help="A hub to ask, after HF_ENDPOINT; repeatable, in order, but one that does not "
            "answer goes last. Without any, https://huggingface.co.",
            envvar="BUNDLER_ENDPOINT",
        ),
    ] = None,
    mirrors: Annotated[
        list[str] | None,
        typer.Option(
            "--mirror",
            metavar="FROM=TO",
            help="Where to look first for what is at FROM, such as https://github.com; repeatable.",
            envvar="BUNDLER_MIRROR",
        ),
    ] = None,
    token_for: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST",
            help="A host of an --endpoint or --mirror that your token goes to as well; repeatable.",
            envvar="BUNDLER_TOKEN_FOR",
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="Without a byte for so long, a connection counts as broken; making one may take "
            "10 at most.",
            envvar="BUNDLER_TIMEOUT",
        ),
    ] = 30,
    retries: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Tries without a new byte before a file is given up.",
            envvar="BUNDLER_RETRIES",
        ),
    ] = 8,
    sign: Annotated[
        Path | None,
        typer.Option(
            metavar="KEY.pem",
            help="Sign the bundle with this private key, in a file beside it, BUNDLE.sig; the "
            "key's password, if it has one, comes from BUNDLER_KEY_PASSWORD or the terminal.",
            envvar="BUNDLER_SIGN",
        ),
    ] = None,
    parity: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT",
            help="Write parity files beside the bundle too, 1% to 100% of its size, by which "
            "bundler verify --mend puts a damaged one right; the program par2 writes them.",
            envvar="BUNDLER_PARITY",
        ),
    ] = None,
    check_load: Annotated[
        bool,
        typer.Option(
            "--check-load",
            help="Unpack the bundle beside itself when it is written, load each model without a "
            "network, and remove that again.",
            envvar="BUNDLER_CHECK_LOAD",
        ),
    ] = False,
    python: PythonOfLibraries = None,
    trust_code: TrustCode = False,
    with_bundler: WithBundler = False,
    with_python: WithPython = None,
    with_platform: WithPlatform = None,
    store: Store = None,
    level: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=19,
            help="Compression, 1 (fast) to 19 (small); by default 1 for files of 1 MiB and more, "
            "since weights get no smaller by more, and 4 for others.",
            envvar="BUNDLER_LEVEL",
        ),
    ] = None,
    jobs: Jobs = None,
    dry_run: DryRun = False,
    json_: Json = False,
) -> None:
    """Download models and write them into one bundle.

    All models are resolved before anything is downloaded. Interrupted, it goes on where it was
    when the same command is given again.
    """
    from bundler import report
    from bundler.destination import Destination
    from bundler.packing import default_store
    from bundler.planning import PackPlan
    from bundler.selection import Selection
    from bundler.split_size import parsed_size
    from bundler.upstream import Upstream

    wanted = wanted_models([*(models or []), *(specs or [])], requests)
    selection = Selection(tuple(include or ()), tuple(exclude or ()), all_files)
    kept = folder(store, "--store") or default_store()
    volume_size = None if split_size is None else parsed_size(split_size)
    if output == "-" and volume_size is not None:
        raise RequestError("standard output cannot be split: name a file with -o")
    share = _share(parity, output)
    # Where the bundle itself goes to stdout, words go to stderr.
    words = sys.stderr if output == "-" else sys.stdout

    def tell(plan: PackPlan) -> None:
        if not json_:
            print(report.planned(plan), file=words)

    upstream = Upstream(
        endpoints=tuple(endpoints or ()),
        mirrors=tuple(mirrors or ()),
        token_for=tuple(token_for or ()),
        timeout=timeout,
        retries=retries,
        offline=offline or everything,
    )
    request: dict[str, Any] = {
        "selection": selection,
        "upstream": upstream,
        "everything": everything,
        "store": kept,
        "closed": not no_closure,
        "locked": None if locked is None else _manifest(locked, "bundler inspect --json prints"),
        "since": _listings(since),
        "code": not no_code,
        "progress": Bars(),
    }
    carriage = carriage_of(
        with_bundler, with_python, with_platform, output=output, signed=sign is not None
    )
    if needed is not None:
        if locked is not None or since or wanted or everything:
            raise RequestError(
                "--for says exactly what to pack: leave out models, --everything, --locked, --since"
            )
        request["needed"] = _manifest(needed, "bundler verify --request wrote")
    if dry_run:
        place = None if output == "-" else Destination(output, volume_size, request["progress"])
        plan = bundler.plan_pack(wanted, **request)
        tell(plan)
        if place is not None:
            place.expect(plan, kept, share or 0)
        document = plan.to_json()
        if carriage is not None:
            document["install"] = would_carry(carriage, place_of(output), quiet=json_)
        if json_:
            print_json(document)
        return
    if check_load:
        _check_loadable(output, python, whole=not request["since"] and needed is None)
    if output == "-" and json_:
        raise RequestError("--json and -o - both want standard output: name a file with -o")
    key = _signing_key(sign, output)
    replaced = output != "-" and Path(output).is_file()
    packed = bundler.pack(
        wanted,
        _standard_output() if output == "-" else output,
        **request,
        split_size=volume_size,
        sign=key,
        parity=share,
        level=level,
        jobs=jobs,
        on_plan=tell,
    )
    document = packed.to_json()
    if not json_:
        for line in report.packed(packed, kept, key=key, parity=share, replaced=replaced):
            print(line, file=words)
    if packed.path is None:
        return
    faults: list[BundlerError] = []
    note = ""
    carried = None
    if check_load:
        from bundler.cli.rehearsal import rehearsed

        chosen = [replace(item, selection=item.selection or selection) for item in wanted]
        faults, loads = rehearsed(
            packed.path,
            () if everything else chosen,
            python=python,
            trust_code=trust_code,
            jobs=jobs,
            quiet=json_,
        )
        note = f"{packed.path} was written, but was not seen to load: see above"
        document |= loads
    if carriage is not None and not faults:
        try:
            carried = carry_beside(carriage, packed, quiet=json_)
            document["install"] = carried.to_json()
        except BundlerError as error:
            faults = [error]
            note = f"{packed.path} was written, but bundler itself is not beside it"
    if packed.safe_to_remove and (check_load or carriage is not None):
        from bundler.stick import leave_readme, settle

        leave_readme(packed.path, repairs=packed.repairs)
        settle(packed.path.parent)  # That was put there since, or was and is gone again.
    if json_:
        print_json(document)
    elif packed.safe_to_remove:
        print(f"safe to remove: {packed.path.parent}")
    if faults:
        raise Faults(faults, note)
    if not json_:
        for line in steps(packed, carried):
            print(line)


def _check_loadable(output: str, python: str | None, *, whole: bool) -> None:
    """Raise RequestError if --check-load could not do its work: now, not when all is packed."""
    if output == "-":
        raise RequestError("--check-load needs a bundle to read: name a file with -o")
    if not whole:
        raise RequestError("--check-load needs all of a model: pack without --since and --for")
    if python is not None:
        from bundler.loading import program_path

        program_path(python)


def _listings(paths: list[Path] | None) -> list[Listing]:
    """What is in the files of --since."""
    if not paths:
        return []
    from bundler.listing import read_listing

    ask = asker()
    return [read_listing(path, ask=ask) for path in paths]


def _signing_key(path: Path | None, output: str) -> PrivateKey | None:
    """The key to sign with, asked for its password before anything is downloaded."""
    if path is None:
        return None
    if output == "-":
        raise RequestError("--sign writes a file beside the bundle: name a file for that with -o")
    from bundler.keys import PrivateKey

    return PrivateKey.read(path, lambda: password_of(path))


def _share(parity: str | None, output: str) -> int | None:
    """The share of --parity, of which is sure that it can be written."""
    if parity is None:
        return None
    if output == "-":
        raise RequestError("--parity writes files beside the bundle: name a file with -o")
    from bundler.parity import parsed_share, require_program

    require_program()
    return parsed_share(parity)


def _standard_output() -> BinaryIO:
    if sys.stdout.isatty():
        raise RequestError("a bundle is not for a terminal: redirect it, or name a file with -o")
    return sys.stdout.buffer


def _manifest(path: Path, what: str) -> Manifest:
    """The manifest in a file, or of a bundle; its id is nobody's business here.

    `what`: what should be there.
    """
    from bundler.archive import ZSTD_MAGIC
    from bundler.manifest import Manifest
    from bundler.manifest_rules import MAX_MANIFEST_SIZE
    from bundler.volume_files import find_volumes

    if find_volumes([path]) is not None:
        return bundler.inspect(path, ask=asker()).manifest
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_MANIFEST_SIZE + 1)
        if content.startswith(ZSTD_MAGIC):
            return bundler.inspect(path).manifest
        return Manifest.from_bytes(content)
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    except FormatError as error:
        raise RequestError(f"{path} is not a manifest: name what {what} ({error})") from None
