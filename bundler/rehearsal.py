"""What the target will do with a fresh bundle, done here: unpack it, look, and load."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bundler.checking import check
from bundler.environment import Roots, find_roots
from bundler.loading import Loaded, Trial, load_models
from bundler.manifest import Snapshot
from bundler.permission import told
from bundler.progress import Progress
from bundler.request import Wanted
from bundler.selection import EXCLUDED
from bundler.spec import Spec, spec_of, words_for
from bundler.unpacking import unpack


def rehearse(
    bundle: Path | str,
    wanted: Sequence[str | Wanted] = (),
    *,
    python: str | None = None,
    trust_code: bool = False,
    jobs: int | None = None,
    on_load: Callable[[Loaded], None] | None = None,
    on_leak: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Trial:
    """Unpack `bundle` into a folder beside it, load what is in it without a network, clean up.

    `wanted`: what it was packed for, by default all that is in it. `jobs`: threads of the unpack.
    `on_load` gets each result when it is there; the rest as in `load_models`. Raises as `unpack`
    and `load_models` do; that a model does not load is in the result.
    """
    bundle = Path(bundle).absolute()
    folder = bundle.with_name(f".{bundle.name}.bundler-load")
    shutil.rmtree(folder, ignore_errors=True)  # One that a killed run left.
    with told(folder, "-o"):
        folder.mkdir(0o700)  # Nobody is meant to find what is in it.
    try:
        roots = find_roots(root=folder / "caches")
        snapshots = unpack(bundle, roots=roots, env=None, jobs=jobs, progress=progress).snapshots
        started_in = folder / "empty"
        started_in.mkdir()
        models = [_on_target(item, roots) for item in wanted or _packed(snapshots)]
        result = check(models, roots=roots, folder=started_in, jobs=jobs)
        loads = []
        for loaded in load_models(
            result, python=python, trust_code=trust_code, folder=started_in,
            left_out=_left_out(snapshots), on_leak=on_leak, progress=progress,
        ):  # fmt: skip
            loads.append(loaded)
            if on_load is not None:
                on_load(loaded)
        return Trial(result, tuple(loads))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _packed(snapshots: Sequence[Snapshot]) -> Iterator[str]:
    """What somebody may have asked for who packed these: not what only another one needs."""
    needs = {str(Spec.parse(need)) for snapshot in snapshots for need in snapshot.needs}
    specs = [
        snapshot.specs or (spec_of(snapshot.source, snapshot.name, snapshot.revision),)
        for snapshot in snapshots
        if needs.isdisjoint(words_for(snapshot))
    ]
    yield from dict.fromkeys(spec for some in specs for spec in some)


def _on_target(model: str | Wanted, roots: Roots) -> Wanted:
    """The same, said of what was unpacked and not of where it came from."""
    wanted = Wanted(model) if isinstance(model, str) else model
    spec = Spec.parse(wanted.spec)
    if spec.scheme != "file":
        return wanted
    name = os.path.basename(os.path.abspath(os.path.expanduser(spec.rest)))
    return replace(wanted, spec=f"file:{roots.checkpoints / name}")


def _left_out(snapshots: Sequence[Snapshot]) -> Mapping[str, Sequence[str]]:
    """The files that the user excluded of each commit."""
    return {
        snapshot.commit_hash: [item.path for item in snapshot.omitted if item.reason == EXCLUDED]
        for snapshot in snapshots
        if snapshot.commit_hash
    }
