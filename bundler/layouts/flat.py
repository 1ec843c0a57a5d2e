"""Plain folders, as `from_pretrained("./checkpoints/name")` and `torch.load` want them.

<name>/…        the files of a model
<file>          a single file
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from bundler.layouts.placement import File, Placement
from bundler.manifest import FileEntry, Snapshot
from bundler.names import relative_path
from bundler.relative import RelativePath


class Flat:
    """Layout `flat`. A snapshot of one file that is called as the snapshot is no folder."""

    name = "flat"
    root = "checkpoints"

    def place(
        self, snapshot: Snapshot, can_link: Callable[[RelativePath], bool]
    ) -> Iterator[Placement]:
        name = relative_path(snapshot.name)
        is_file = [entry.path for entry in snapshot.files] == [name]
        for entry in snapshot.files:
            yield File(name if is_file else name / entry.path, entry.blob)


def flattened(snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    """The models and single files among `snapshots` once more, in the layout `flat`."""
    return [form for _, form in plain_forms(snapshots)]


def plain_forms(snapshots: Sequence[Snapshot]) -> list[tuple[Snapshot, Snapshot]]:
    """The same, each with the snapshot that it is a form of.

    A model is called by the last part of its name. Where two share that, both are called
    `org--name`; where two revisions of one are there, all but `main` are called `name@revision`.
    No two things get one name: `file:` folders keep theirs, and others give way.
    """
    taken = {snapshot.name for snapshot in snapshots if snapshot.layout == Flat.name}
    models = [s for s in snapshots if s.layout == "hf-cache" and s.kind == "model"]
    sharing = Counter(_last(name) for name in {s.name for s in models})
    revisions = Counter(s.name for s in models)
    flat: list[tuple[Snapshot, Snapshot]] = []
    for snapshot in snapshots:
        if snapshot.layout == "torch-checkpoints":
            flat += [(snapshot, _single_file(snapshot, entry, taken)) for entry in snapshot.files]
        elif snapshot.layout == "hf-cache" and snapshot.kind == "model":
            names = [_dashed(snapshot.name)]
            if sharing[_last(snapshot.name)] == 1:
                names.insert(0, _last(snapshot.name))
            revised = [f"{name}@{_dashed(snapshot.revision or '')}" for name in names]
            if revisions[snapshot.name] > 1 and snapshot.revision != "main":
                names = []
            commit = f"{_dashed(snapshot.name)}@{snapshot.commit_hash}"
            name = _free([*names, *revised, commit], taken)
            flat.append((snapshot, replace(snapshot, name=name, layout=Flat.name)))
    return flat


def _single_file(snapshot: Snapshot, entry: FileEntry, taken: set[str]) -> Snapshot:
    name = _free([entry.path.name, _dashed(snapshot.name.partition("://")[2])], taken)
    renamed = FileEntry(RelativePath(name), entry.blob, entry.etag)
    return replace(snapshot, name=name, layout=Flat.name, files=(renamed,))


def _free(names: Sequence[str], taken: set[str]) -> str:
    """The first of `names` that is not taken; the last one if all are, for others to refuse."""
    name = next((name for name in names if name not in taken), names[-1])
    taken.add(name)
    return name


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _dashed(name: str) -> str:
    return name.replace("/", "--")
