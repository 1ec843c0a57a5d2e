"""What the command line tells about the difference of two bundles, as text."""

from __future__ import annotations

from collections.abc import Iterator

from bundler.comparison import Difference, FileDifference, ModelDifference
from bundler.digest import Blob
from bundler.errors import amount
from bundler.manifest import Snapshot
from bundler.spec import spec_of
from bundler.wording import counted, printable

_SHOWN = 20
"""Files of a model that are told."""


def differing(found: Difference, before: str, after: str) -> str:
    """What differs between two files of these names."""
    lines = [line for model in found.models or () for line in _model(model, before, after)]
    if not (lines or found.before or found.after):
        lines.append("no difference")
    lines += [
        f"only in {before}: {_amount(found.before)}",
        f"only in {after}: {_amount(found.after)}",
        f"in both: {_amount(found.both)}",
    ]
    return printable("\n".join(lines))


def _model(model: ModelDifference, before: str, after: str) -> Iterator[str]:
    snapshot = model.snapshot
    name = spec_of(snapshot.source, snapshot.name, snapshot.revision)
    if snapshot.layout == "hf-datasets":
        name += " (prepared)"
    if model.before is None or model.after is None:
        size = f"{counted(len(snapshot.files), 'file')}, {amount(snapshot.size)}"
        yield f"{name} ({_commit(snapshot)}) only in {after if model.after else before}: {size}"
        return
    yield f"{name}: {_commit(model.before)} -> {_commit(model.after)}"
    yield from (f"    {_file(file)}" for file in model.files[:_SHOWN])
    if len(model.files) > _SHOWN:
        yield f"    and {len(model.files) - _SHOWN:,} more files, which --json lists"


def _file(file: FileDifference) -> str:
    if file.before is None:
        return f"added: {file.path} ({amount(file.after.size if file.after else None)})"
    if file.after is None:
        return f"gone: {file.path} ({amount(file.before.size)})"
    return f"changed: {file.path} ({amount(file.before.size)} -> {amount(file.after.size)})"


def _commit(snapshot: Snapshot) -> str:
    return (snapshot.commit_hash or "no commit")[:12]


def _amount(blobs: frozenset[Blob]) -> str:
    return f"{counted(len(blobs), 'blob')}, {amount(sum(blob.size for blob in blobs))}"
