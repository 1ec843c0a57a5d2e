"""`bundler check`."""

from __future__ import annotations

from typing import Annotated

import typer

import bundler
from bundler.cli.options import (
    HfHome,
    InsightfaceRoot,
    Jobs,
    Json,
    PythonOfLibraries,
    Requests,
    Root,
    TorchHome,
    TrustCode,
    roots_of,
    wanted_models,
)
from bundler.cli.output import Bars, print_json, tell_leak
from bundler.errors import Faults


def check(
    specs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SPEC", help="A model, by the words it was packed with.", show_default=False
        ),
    ] = None,
    requests: Requests = None,
    root: Root = None,
    hf_home: HfHome = None,
    torch_home: TorchHome = None,
    insightface_root: InsightfaceRoot = None,
    digests: Annotated[
        bool,
        typer.Option(
            "--hash",
            help="Compare every byte, too, of files whose hash is known.",
            envvar="BUNDLER_HASH",
        ),
    ] = False,
    load: Annotated[
        bool,
        typer.Option(
            "--load",
            help="Load each model, too, in a process without a network, and tell what it takes.",
            envvar="BUNDLER_LOAD",
        ),
    ] = False,
    python: PythonOfLibraries = None,
    trust_code: TrustCode = False,
    jobs: Jobs = None,
    json_: Json = False,
) -> None:
    """Tell whether models would load here, without a network.

    Looks at the caches that programs started in this shell would read, whoever filled them, and at
    the shell's variables; with --root and the like at those folders alone. Exits with 0 only if all
    is there: as the first line of a job.
    """
    from bundler import report
    from bundler.loading import Loaded, Trial

    named = any((root, hf_home, torch_home, insightface_root))
    roots = roots_of(root, hf_home, torch_home, insightface_root) if named else None
    bars = Bars()
    wanted = wanted_models(specs or [], requests)
    result = bundler.check(wanted, roots=roots, digests=digests, jobs=jobs, progress=bars)
    if not json_:
        print(report.checked(result, compared=digests))
    loads: list[Loaded] = []
    if load:
        for loaded in bundler.load_models(
            result, python=python, trust_code=trust_code, on_leak=tell_leak, progress=bars
        ):
            loads.append(loaded)
            if not json_:
                print(report.loaded(loaded), flush=True)
    trial = Trial(result, tuple(loads))
    if json_:
        print_json(trial.to_json())
    if trial.faults:
        raise Faults(trial.faults)
