"""What two bundles, manifests or inventories do not have in common."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bundler.digest import Blob
from bundler.listing import Listing
from bundler.manifest import FileEntry, Snapshot
from bundler.spec import spec_of


@dataclass(frozen=True, slots=True)
class FileDifference:
    """A file that is another in each, or in one alone: None stands for the other."""

    path: str
    before: Blob | None
    after: Blob | None


@dataclass(frozen=True, slots=True)
class ModelDifference:
    """A model of which something differs; None stands for the side that does not have it."""

    before: Snapshot | None
    after: Snapshot | None
    files: tuple[FileDifference, ...]

    @property
    def snapshot(self) -> Snapshot:
        """The model as one side has it, the later one if both do."""
        snapshot = self.after or self.before
        assert snapshot is not None
        return snapshot

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, for programs."""
        snapshot = self.snapshot
        return {
            "source": snapshot.source,
            "name": snapshot.name,
            "revision": snapshot.revision,
            "layout": snapshot.layout,
            "spec": spec_of(snapshot.source, snapshot.name, snapshot.revision),
            "before": _side(self.before),
            "after": _side(self.after),
            "files": [
                {"path": file.path, "before": _blob(file.before), "after": _blob(file.after)}
                for file in self.files
            ],
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs. `models`: None if one side tells nothing of models."""

    models: tuple[ModelDifference, ...] | None
    before: frozenset[Blob]
    """What the first has alone."""
    after: frozenset[Blob]
    """What the second has alone."""
    both: frozenset[Blob]

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, for programs. Sizes in bytes."""
        return {
            "models": None if self.models is None else [m.to_json() for m in self.models],
            "before": _amount(self.before),
            "after": _amount(self.after),
            "both": _amount(self.both),
        }


def difference(before: Listing, after: Listing) -> Difference:
    """What `before` and `after` do not have in common: models, commits, files and blobs."""
    models = None
    if before.manifest is not None and after.manifest is not None:
        models = tuple(_models(before.manifest.snapshots, after.manifest.snapshots))
    return Difference(
        models, before.blobs - after.blobs, after.blobs - before.blobs, before.blobs & after.blobs
    )


def _models(before: Iterable[Snapshot], after: Iterable[Snapshot]) -> Iterable[ModelDifference]:
    ours, theirs = ({s.rank: s for s in side} for side in (before, after))
    for key in sorted({*ours, *theirs}):
        one, other = ours.get(key), theirs.get(key)
        files = tuple(_files(one.files if one else (), other.files if other else ()))
        commits = {s.commit_hash if s else None for s in (one, other)}
        if files or len(commits) > 1 or one is None or other is None:
            yield ModelDifference(one, other, files)


def _files(before: Iterable[FileEntry], after: Iterable[FileEntry]) -> Iterable[FileDifference]:
    ours, theirs = ({str(e.path): e.blob for e in side} for side in (before, after))
    for path in sorted({*ours, *theirs}):
        if ours.get(path) != theirs.get(path):
            yield FileDifference(path, ours.get(path), theirs.get(path))


def _side(snapshot: Snapshot | None) -> dict[str, Any] | None:
    if snapshot is None:
        return None
    return {
        "commit_hash": snapshot.commit_hash,
        "files": len(snapshot.files),
        "size": snapshot.size,
    }


def _blob(blob: Blob | None) -> dict[str, Any] | None:
    return None if blob is None else {"digest": str(blob.digest), "size": blob.size}


def _amount(blobs: frozenset[Blob]) -> dict[str, int]:
    return {"blobs": len(blobs), "size": sum(blob.size for blob in blobs)}
