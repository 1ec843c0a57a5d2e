"""What `bundler pack --check-load` does with the bundle that it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bundler
from bundler.cli.output import Bars, tell_leak
from bundler.errors import BundlerError
from bundler.loading import Loaded
from bundler.report import loaded
from bundler.request import Wanted


def rehearsed(
    bundle: Path,
    wanted: Sequence[Wanted],
    *,
    python: str | None,
    trust_code: bool,
    jobs: int | None,
    quiet: bool,
) -> tuple[list[BundlerError], dict[str, Any]]:
    """What is wrong with `bundle`, and what --json says of it; each model is told of, as it comes.

    The arguments are those of `bundler.rehearse`; `quiet`: nothing is told.
    """

    def tell_loaded(result: Loaded) -> None:
        if not quiet:
            print(loaded(result), flush=True)

    try:
        trial = bundler.rehearse(
            bundle,
            wanted,
            python=python,
            trust_code=trust_code,
            jobs=jobs,
            on_load=tell_loaded,
            on_leak=tell_leak,
            progress=Bars(),
        )
    except BundlerError as error:
        return [error], {"loads": False}
    return trial.faults, trial.to_json()
