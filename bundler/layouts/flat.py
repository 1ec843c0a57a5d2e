"""Plain folders, as `from_pretrained("./checkpoints/name")` and `torch.load` want them.

<name>/…        the files of a model
<file>          a single file
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from bundler.layouts.placement import File, Placement
from bundler.manifest import Snapshot
from bundler.names import relative_path


class Flat:
    """Layout `flat`. A snapshot of one file that is called as the snapshot is no folder."""

    name = "flat"
    root = "checkpoints"

    def place(
        self, snapshot: Snapshot, can_link: Callable[[PurePosixPath], bool]
    ) -> Iterator[Placement]:
        name = relative_path(snapshot.name)
        is_file = [entry.path for entry in snapshot.files] == [name]
        for entry in snapshot.files:
            yield File(name if is_file else name / entry.path, entry.blob)


def flattened(snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    """The models and single files among `snapshots` once more, in the layout `flat`.

    A model is called by the last part of its name. Where two models share that, both are called
    `org--name`; where two revisions of one do, all but `main` are called `name@revision`.
    """
    models = [s for s in snapshots if s.layout == "hf-cache" and s.kind == "model"]
    files = [s for s in snapshots if s.layout == "torch-checkpoints"]
    # A name is taken once, by whatever has it.
    last = Counter(_last(name) for name in {s.name for s in models})
    last.update(s.name for s in snapshots if s.layout == Flat.name)
    revisions = Counter(s.name for s in models)
    flat = []
    for snapshot in models:
        name = _last(snapshot.name)
        if last[name] > 1:
            name = snapshot.name.replace("/", "--")
        if revisions[snapshot.name] > 1 and snapshot.revision not in (None, "main"):
            name = f"{name}@{snapshot.revision}".replace("/", "--")
        flat.append(replace(snapshot, name=name, layout=Flat.name))
    for snapshot in files:
        flat += [
            replace(snapshot, name=entry.path.name, layout=Flat.name, files=(entry,))
            for entry in snapshot.files
        ]
    return flat


def _last(name: str) -> str:
    return name.rpartition("/")[2]
