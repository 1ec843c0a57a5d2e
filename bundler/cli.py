"""The command line: arguments in, progress shown, errors to exit codes. No business here."""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, BinaryIO

import typer
from tqdm import tqdm

import bundler
from bundler.digest import Digest
from bundler.env_file import ENV_FILE
from bundler.environment import find_roots
from bundler.errors import (
    EXIT_CODES,
    INTERRUPTED,
    BundlerError,
    DamagedError,
    Faults,
    FormatError,
    RequestError,
    amount,
)
from bundler.manifest import MAX_MANIFEST_SIZE, Manifest
from bundler.progress import Meter, Silent
from bundler.sharing import LinkMode

app = typer.Typer(
    help="Pack models into one bundle where there is a network; unpack it where there is none, "
    "and they load.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_SHOWN_FAULTS = 20
_EPILOG = "Exit codes: " + " · ".join(f"{code} {text}" for code, text in EXIT_CODES.items())

Json = Annotated[
    bool, typer.Option("--json", help="One JSON document on stdout.", envvar="BUNDLER_JSON")
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Tell what would be done, and stop.", envvar="BUNDLER_DRY_RUN"),
]
NoCode = Annotated[
    bool,
    typer.Option(
        "--no-code",
        help="Refuse models with files that run as code when they are loaded.",
        envvar="BUNDLER_NO_CODE",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        metavar="N",
        min=1,
        max=64,
        help="Threads for zstd; by default one for each processor, at most 8.",
        envvar="BUNDLER_JOBS",
    ),
]
Store = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="The folder that keeps downloads; by default ~/.cache/bundler.",
        envvar="BUNDLER_STORE",
    ),
]
Bundle = Annotated[
    str,
    typer.Argument(metavar="BUNDLE", show_default=False, help="A bundle, or - for standard input."),
]
ExpectedDigest = Annotated[
    str | None,
    typer.Option(
        "--digest",
        metavar="sha256:…",
        help="The id that pack printed: any other bundle is refused.",
        envvar="BUNDLER_DIGEST",
    ),
]


@app.command(epilog=_EPILOG)
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
    requests: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="REQUEST.toml",
            help="A file with models = [SPEC, …]; repeatable.",
            envvar="BUNDLER_FROM",
        ),
    ] = None,
    locked: Annotated[
        Path | None,
        typer.Option(
            metavar="MANIFEST",
            help="Exactly the commits and content of a bundle, or of what inspect --json prints.",
            envvar="BUNDLER_LOCKED",
        ),
    ] = None,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The bundle to write, or - for standard output.",
            envvar="BUNDLER_OUTPUT",
        ),
    ] = "bundle.tar.zst",
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
    store: Store = None,
    level: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            max=19,
            help="Compression, 1 (fast) to 19 (small).",
            envvar="BUNDLER_LEVEL",
        ),
    ] = 3,
    jobs: Jobs = None,
    dry_run: DryRun = False,
    json_: Json = False,
) -> None:
    """Download models and write them into one bundle.

    All models are resolved before anything is downloaded. Interrupted, it goes on where it was
    when the same command is given again.
    """
    from bundler import report
    from bundler.packing import default_store
    from bundler.planning import PackPlan
    from bundler.request import Wanted, read_request
    from bundler.selection import Selection
    from bundler.upstream import Upstream

    wanted = [Wanted(spec) for spec in [*(models or []), *(specs or [])]]
    for path in requests or []:
        wanted += read_request(path)
    selection = Selection(tuple(include or ()), tuple(exclude or ()), all_files)
    folder = _folder(store, "--store") or default_store()
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
        "store": folder,
        "closed": not no_closure,
        "locked": _manifest(locked),
        "code": not no_code,
        "progress": _Bars(),
    }
    if dry_run:
        plan = bundler.plan_pack(wanted, **request)
        if json_:
            _print_json(plan.to_json())
        tell(plan)
        return
    if output == "-" and json_:
        raise RequestError("--json and -o - both want standard output: name a file with -o")
    replaced = output != "-" and Path(output).is_file()
    packed = bundler.pack(
        wanted,
        _standard_output() if output == "-" else Path(output),
        **request,
        level=level,
        jobs=jobs,
        on_plan=tell,
    )
    if json_:
        _print_json(packed.to_json())
        return
    for line in report.packed(packed):
        print(line, file=words)
    instead = ", in place of the file that was there" if replaced else ""
    print(f"wrote {packed.path or 'standard output'}: {amount(packed.size)}{instead}", file=words)
    print(f"id {packed.digest}", file=words)
    print(f"downloads are kept in {folder}; bundler store --clear empties it", file=words)
    if packed.path is not None:
        print(
            "next: carry the bundle over, and on the other machine\n"
            f"    bundler unpack {quote(packed.path.name)} && source offline.env"
        )


@app.command(epilog=_EPILOG)
def unpack(
    bundle_: Bundle,
    root: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Put all below DIR: DIR/huggingface, DIR/torch, DIR/insightface, DIR/checkpoints.",
            envvar="BUNDLER_ROOT",
        ),
    ] = None,
    hf_home: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="The Hugging Face home; by default HF_HOME, else ~/.cache/huggingface.",
            envvar="BUNDLER_HF_HOME",
        ),
    ] = None,
    torch_home: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="The torch home; by default TORCH_HOME, else ~/.cache/torch.",
            envvar="BUNDLER_TORCH_HOME",
        ),
    ] = None,
    insightface_root: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="The folder of insightface; by default ~/.insightface.",
            envvar="BUNDLER_INSIGHTFACE_ROOT",
        ),
    ] = None,
    checkpoints: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Also lay models and single files out plainly, as DIR/NAME/ and DIR/FILE.",
            envvar="BUNDLER_CHECKPOINTS",
        ),
    ] = None,
    link_mode: Annotated[
        LinkMode,
        typer.Option(
            help="How files of 1 MiB and more get into --checkpoints: auto clones them from the "
            "cache where the disk can, else hard-links, else copies.",
            envvar="BUNDLER_LINK_MODE",
        ),
    ] = LinkMode.AUTO,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC",
            help="Only this model, by the words it was packed or is shown with; repeatable.",
            envvar="BUNDLER_ONLY",
        ),
    ] = None,
    env: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="The file to source afterwards, for bash, zsh, dash and fish.",
            envvar="BUNDLER_ENV",
        ),
    ] = Path(ENV_FILE),
    digest: ExpectedDigest = None,
    no_code: NoCode = False,
    jobs: Jobs = None,
    dry_run: DryRun = False,
    json_: Json = False,
) -> None:
    """Rebuild the caches that libraries read, and write offline.env.

    What is there already is kept, and nothing becomes visible before it is verified. Interrupted,
    it goes on where it was when the same command is given again.
    """
    from bundler import report

    roots = find_roots(
        root=_folder(root, "--root"),
        hf_home=_folder(hf_home, "--hf-home"),
        torch_home=_folder(torch_home, "--torch-home"),
        insightface=_folder(insightface_root, "--insightface-root"),
        checkpoints=_folder(checkpoints, "--checkpoints"),
    )
    source = _source(bundle_)
    how: dict[str, Any] = {
        "roots": roots,
        "only": only or (),
        "checkpoints": checkpoints is not None,
        "env": env,
        "digest": _digest(digest),
        "link_mode": link_mode,
        "code": not no_code,
        "progress": _Bars(),
    }
    if dry_run:
        result = bundler.plan_unpack(source, **how)
    else:
        result = bundler.unpack(source, **how, jobs=jobs)
    if json_:
        _print_json(result.to_json())
        return
    print(report.unpacked(result, done=not dry_run))
    if dry_run:
        return
    if result.env_replaced:
        print(
            f"note: {result.env} led to other places before, and what is there is no longer found "
            "through it: unpack to the same --root, or keep two files with --env"
        )
    for note in report.usage(result):
        print(f"note: {note}")
    env_file = quote(str(result.env))
    print(f"next, in every shell that runs the models (dash: . {env_file}):")
    print(f"    source {env_file}")


@app.command(epilog=_EPILOG)
def inspect(bundle_: Bundle, digest: ExpectedDigest = None, json_: Json = False) -> None:
    """Show what a bundle holds.

    Reads only its beginning. --json prints the manifest, byte for byte: its sha256 is the id.
    """
    from bundler import report

    inspection = bundler.inspect(_source(bundle_), digest=_digest(digest))
    if json_:
        sys.stdout.buffer.write(inspection.manifest_bytes)
    else:
        print(report.inspected(inspection))
    if inspection.fault:
        raise DamagedError(f"{bundle_}: {inspection.fault}")


@app.command(epilog=_EPILOG)
def verify(
    bundle_: Bundle, digest: ExpectedDigest = None, jobs: Jobs = None, json_: Json = False
) -> None:
    """Compare every digest of a bundle.

    Names each bad member, and tells what is whole in a bundle that was cut short.
    """
    from bundler import report

    result = bundler.verify(_source(bundle_), digest=_digest(digest), jobs=jobs, progress=_Bars())
    if json_:
        _print_json(result.to_json())
    for fault in result.faults[:_SHOWN_FAULTS]:
        _tell(fault.message)
    if result.faults:
        raise DamagedError(
            f"{report.counted(len(result.faults), 'fault')} in {bundle_}, "
            f"{report.counted(result.checked, 'blob')} right: copy the bundle again"
        )
    if not json_:
        print(f"all {report.counted(result.checked, 'blob')} ({amount(result.size)}) are right")
        print(f"id {result.digest}")


@app.command("store", epilog=_EPILOG)
def show_store(
    clear: Annotated[
        bool,
        typer.Option("--clear", help="Drop everything that is kept.", envvar="BUNDLER_CLEAR"),
    ] = False,
    store: Store = None,
    json_: Json = False,
) -> None:
    """Show what pack keeps of its downloads, or drop it.

    What the libraries' caches have too takes no space of its own where the disk can share it.
    """
    from bundler import report
    from bundler.packing import open_store

    usage = open_store(_folder(store, "--store"), clear=clear)
    if json_:
        _print_json(usage.to_json())
    else:
        print(report.kept(usage, cleared=clear))


def _version(wanted: bool) -> None:
    if wanted:
        print(f"bundler {bundler.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def run(arguments: list[str]) -> int:
    """Run the command line with `arguments` and return its exit code; KeyboardInterrupt passes."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = app(arguments or ["--help"], standalone_mode=False)
    except BundlerError as error:
        _tell(str(error))
        if isinstance(error, Faults) and error.note:
            _tell(error.note)
        return error.exit_code
    except typer.TyperException as error:
        # What the option parser complains of, on one line; only its own classes can word it.
        worded = getattr(error, "format_message", error.__str__)()
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "bundler"
        _tell(f"{' '.join(worded.split())} (see {command} --help)")
        return RequestError.exit_code
    except SystemExit:  # typer's way to pass on a BrokenPipeError
        raise BrokenPipeError from None
    if code == INTERRUPTED:  # typer's way to pass on a KeyboardInterrupt
        raise KeyboardInterrupt
    return 0


def _tell(message: str) -> None:
    from bundler.report import printable

    for line in message.splitlines():
        print(f"bundler: {printable(line)}", file=sys.stderr)


def _source(name: str) -> str | BinaryIO:
    return sys.stdin.buffer if name == "-" else name


def _standard_output() -> BinaryIO:
    if sys.stdout.isatty():
        raise RequestError("a bundle is not for a terminal: redirect it, or name a file with -o")
    return sys.stdout.buffer


def _folder(text: str | None, option: str) -> Path | None:
    """The folder that an option names; an empty one comes from a variable that is not set."""
    if text == "":
        raise RequestError(f"{option} is empty: name a folder")
    return None if text is None else Path(text)


def _manifest(path: Path | None) -> Manifest | None:
    """The manifest in a file, or of a bundle; its id is nobody's business here."""
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_MANIFEST_SIZE + 1)
        if content.startswith(ZSTD_MAGIC):
            return bundler.inspect(path).manifest
        return Manifest.from_bytes(content)
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    except FormatError as error:
        raise RequestError(
            f"{path} is not a manifest: write what bundler inspect --json prints ({error})"
        ) from None


def _digest(text: str | None) -> Digest | None:
    try:
        return None if text is None else Digest.parse(f"sha256:{text.removeprefix('sha256:')}")
    except ValueError as error:
        raise RequestError(f"--digest: {error}") from None


def _print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, ensure_ascii=False, indent=1))


class _Bars:
    """Progress as bars on stderr, if that is a terminal."""

    def start(self, what: str, total: int, done: int = 0) -> Meter:
        return _Bar(what, total, done) if total else Silent().start(what, total)

    def say(self, text: str) -> None:
        from bundler.report import printable

        tqdm.write(f"bundler: {printable(text)}", file=sys.stderr)


class _Bar:
    def __init__(self, what: str, total: int, done: int) -> None:
        self._bar = tqdm(
            desc=what,
            total=total,
            initial=done,
            unit="B",
            unit_scale=True,
            file=sys.stderr,
            disable=None,  # tqdm's word for "unless it is a terminal"
            leave=False,
        )
        self._lock = threading.Lock()

    def add(self, amount: int) -> None:
        with self._lock:
            self._bar.update(amount)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
