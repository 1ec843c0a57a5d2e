"""Options that several commands have, and what their values mean."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from bundler.environment import Roots, find_roots
from bundler.errors import RequestError

if TYPE_CHECKING:  # No command must import what another needs.
    from bundler.digest import Digest
    from bundler.request import Wanted
    from bundler.trust import Trust

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
        help="Threads; by default one for each processor, at most 8.",
        envvar="BUNDLER_JOBS",
    ),
]
Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="DIR",
        help="The folder that keeps downloads; by default ~/.cache/bundler.",
        envvar="BUNDLER_STORE",
    ),
]
Requests = Annotated[
    list[Path] | None,
    typer.Option(
        "--from",
        metavar="REQUEST.toml",
        help="A file with models = [SPEC, …]; repeatable.",
        envvar="BUNDLER_FROM",
    ),
]
Root = Annotated[
    str | None,
    typer.Option(
        "--root",
        metavar="DIR",
        help="All below DIR: DIR/huggingface, DIR/torch, DIR/insightface, DIR/checkpoints.",
        envvar="BUNDLER_ROOT",
    ),
]
HfHome = Annotated[
    str | None,
    typer.Option(
        "--hf-home",
        metavar="DIR",
        help="The Hugging Face home; by default HF_HOME, else ~/.cache/huggingface.",
        envvar="BUNDLER_HF_HOME",
    ),
]
TorchHome = Annotated[
    str | None,
    typer.Option(
        "--torch-home",
        metavar="DIR",
        help="The torch home; by default TORCH_HOME, else ~/.cache/torch.",
        envvar="BUNDLER_TORCH_HOME",
    ),
]
InsightfaceRoot = Annotated[
    str | None,
    typer.Option(
        "--insightface-root",
        metavar="DIR",
        help="The folder of insightface; by default ~/.insightface.",
        envvar="BUNDLER_INSIGHTFACE_ROOT",
    ),
]
PythonOfLibraries = Annotated[
    str | None,
    typer.Option(
        "--python",
        metavar="PATH",
        help="The Python that has the libraries, to load with; by default the one of bundler.",
        envvar="BUNDLER_PYTHON",
    ),
]
TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code",
        help="Run the code that models bring along when they are loaded to see whether they load.",
        envvar="BUNDLER_TRUST_CODE",
    ),
]
Bundle = Annotated[
    list[str],
    typer.Argument(
        metavar="BUNDLE...",
        show_default=False,
        help="A bundle, or - for standard input; of one in volumes its folder, or all its folders.",
    ),
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
VerifyKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--verify-key",
        metavar="PUB.pem|DIR",
        help="Take a bundle only if this public key has signed it, or one of those in a folder "
        "(*.pem); repeatable.",
        envvar="BUNDLER_TRUSTED_KEYS",
    ),
]
SignatureFile = Annotated[
    str | None,
    typer.Option(
        "--signature",
        metavar="FILE",
        help="The signature to check; by default the file beside the bundle, BUNDLE.sig.",
        envvar="BUNDLER_SIGNATURE",
    ),
]

Repairs = Annotated[
    list[Path] | None,
    typer.Option(
        "--repair",
        metavar="BUNDLE",
        help="Another bundle, to take from what this one has damaged or lost; repeatable.",
        envvar="BUNDLER_REPAIR",
    ),
]


def source(names: Sequence[str]) -> Sequence[str] | BinaryIO:
    """What the arguments BUNDLE name. Raises RequestError."""
    if "" in names:  # Of a variable that is not set; to a path it would be the folder one is in.
        raise RequestError("the name of the bundle is empty: name a file")
    if "-" not in names:
        return names
    if len(names) > 1:
        raise RequestError("standard input is one whole bundle: name nothing beside -")
    return sys.stdin.buffer


def trust(keys: list[str] | None, signature: str | None) -> Trust | None:
    """What the options --verify-key and --signature say of whom to trust; None is for anybody."""
    if not keys:
        return None
    if "" in keys:
        raise RequestError("--verify-key is empty: name a public key, or a folder of them")
    from bundler.trust import Trust

    return Trust.read(keys, signature)


def required_trust(keys: list[str] | None, signature: str | None) -> Trust | None:
    """The same where a signature that is not checked is of no use."""
    if signature is not None and not keys:
        raise RequestError("--signature needs the key to check it with: --verify-key PUB.pem")
    return trust(keys, signature)


def folder(text: str | None, option: str) -> Path | None:
    """The folder that an option names; an empty one comes from a variable that is not set."""
    if text == "":
        raise RequestError(f"{option} is empty: name a folder")
    return None if text is None else Path(text)


def wanted_models(specs: Iterable[str], requests: Iterable[Path] | None) -> list[Wanted]:
    """The models of `specs`, then those that the files of --from list. Raises RequestError."""
    from bundler.request import Wanted, read_request

    listed = (read_request(path) for path in requests or ())
    return [*map(Wanted, specs), *chain.from_iterable(listed)]


def parsed_digest(text: str | None) -> Digest | None:
    """The value of --digest. Raises RequestError."""
    if text is None:
        return None
    from bundler.digest import Digest

    try:
        return Digest.parse(f"sha256:{text.removeprefix('sha256:')}")
    except ValueError as error:
        raise RequestError(f"--digest: {error}") from None


def roots_of(
    root: str | None,
    hf_home: str | None,
    torch_home: str | None,
    insightface_root: str | None,
    checkpoints: str | None = None,
) -> Roots:
    """The folders that the options of these names choose. Raises RequestError."""
    return find_roots(
        root=folder(root, "--root"),
        hf_home=folder(hf_home, "--hf-home"),
        torch_home=folder(torch_home, "--torch-home"),
        insightface=folder(insightface_root, "--insightface-root"),
        checkpoints=folder(checkpoints, "--checkpoints"),
    )
