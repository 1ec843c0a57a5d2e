"""`bundler unpack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import bundler
from bundler.cli.asking import asker
from bundler.cli.options import (
    Bundle,
    DryRun,
    ExpectedDigest,
    HfHome,
    InsightfaceRoot,
    Jobs,
    Json,
    NoCode,
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
from bundler.sharing import LinkMode
from bundler.shells import ENV_FILE, ENV_FILES, EnvFormat


def unpack(
    bundle_: Bundle,
    root: Root = None,
    hf_home: HfHome = None,
    torch_home: TorchHome = None,
    insightface_root: InsightfaceRoot = None,
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
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"The file to source afterwards; by default {ENV_FILE}, or docker.env and so on, "
            "by --env-format.",
            envvar="BUNDLER_ENV",
        ),
    ] = None,
    keep_refs: Annotated[
        bool,
        typer.Option(
            "--keep-refs",
            help="Leave branches and tags that lead to a snapshot which is there; what is new is "
            "then found by its commit hash.",
            envvar="BUNDLER_KEEP_REFS",
        ),
    ] = False,
    digests: Annotated[
        bool,
        typer.Option(
            "--hash",
            help="Compare every byte of what is there, also where size and time of change are as "
            "when it was unpacked.",
            envvar="BUNDLER_HASH",
        ),
    ] = False,
    env_format: Annotated[
        EnvFormat,
        typer.Option(
            help="Who reads that file: sh is for bash, zsh, dash and fish.",
            envvar="BUNDLER_ENV_FORMAT",
        ),
    ] = EnvFormat.SH,
    digest: ExpectedDigest = None,
    verify_keys: VerifyKeys = None,
    signature: SignatureFile = None,
    repairs: Repairs = None,
    no_code: NoCode = False,
    jobs: Jobs = None,
    dry_run: DryRun = False,
    json_: Json = False,
) -> None:
    """Rebuild the caches that libraries read, and write offline.env.

    What is there already is kept, and nothing becomes visible before it is verified. Interrupted,
    it goes on where it was when the same command is given again.
    """
    from bundler import outcome

    roots = roots_of(root, hf_home, torch_home, insightface_root, checkpoints)
    bundle_source = source(bundle_)
    how: dict[str, Any] = {
        "roots": roots,
        "only": only or (),
        "checkpoints": checkpoints is not None,
        "env": env or ENV_FILES[env_format],
        "env_format": env_format,
        "digest": parsed_digest(digest),
        "trusted": required_trust(verify_keys, signature),
        "link_mode": link_mode,
        "code": not no_code,
        "keep_refs": keep_refs,
        "digests": digests,
        "ask": asker(),
        "repairs": repairs or (),
        "progress": Bars(),
    }
    if dry_run:
        result = bundler.plan_unpack(bundle_source, **how)
    else:
        result = bundler.unpack(bundle_source, **how, jobs=jobs)
    if json_:
        print_json(result.to_json())
        return
    for line in outcome.unpacked(result, env_format, done=not dry_run):
        print(line)
