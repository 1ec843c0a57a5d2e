"""What need not be read again below the roots, and where content stands that need not come."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from bundler.digest import Blob, Digest
from bundler.environment import Roots
from bundler.layouts.flat import Flat
from bundler.layouts.placement import Placement
from bundler.manifest import Snapshot
from bundler.progress import Progress
from bundler.receipt import key_of
from bundler.receipt_folder import read_receipts
from bundler.relative import RelativePath
from bundler.sharing import SHARED_FROM
from bundler.stock import places_of
from bundler.survey import Survey, survey

_NEVER = -1
"""No file was changed at this time."""
_PLAIN = Flat.root
"""The name of the root in which small files may be edited."""


class Known:
    """What need not be read again: what receipts vouch for, and what this run has read."""

    def __init__(self, roots: Roots, *, digests: bool = False) -> None:
        """`digests`: receipts vouch for nothing, every byte is read again."""
        self._roots = roots
        self._digests = digests
        self._files: dict[str, dict[RelativePath, tuple[Blob, int]]] = defaultdict(dict)
        """By what `Roots.kept_as` gives, and path."""
        self.receipts = tuple(read_receipts(roots.hf_home))
        for receipt in self.receipts:
            for model in receipt.models:
                for file in model.files:
                    mtime_ns = _NEVER if digests else file.mtime_ns
                    self._files[file.root][file.path] = (file.blob, mtime_ns)

    def afresh(self) -> Known:
        """The same, by the receipts that there are now."""
        return Known(self._roots, digests=self._digests)

    def places_of(self, blobs: Collection[Blob]) -> Mapping[Digest, Sequence[Path]]:
        """Where on the target `blobs` may be, by names and sizes."""
        return places_of(blobs, self._roots, self.receipts) if blobs else {}

    def survey(self, root: str, placements: Iterable[Placement], progress: Progress) -> Survey:
        """What there is to do below the root of that name."""
        files = self._files[self._roots.kept_as(root)]

        def trusted(path: RelativePath, blob: Blob, mtime_ns: int) -> bool:
            return files.get(path) == (blob, mtime_ns)

        def edited(path: RelativePath, blob: Blob) -> bool:
            # Small files of plain folders are there to be edited; large ones break.
            installed, _ = files.get(path, (None, 0))
            return root == _PLAIN and blob.size < SHARED_FROM and installed == blob

        return survey(
            self._roots.path(root),
            placements,
            trusted,
            progress,
            edited=edited,
            makes_links=root == _PLAIN,
        )

    def add(self, root: str, work: Survey) -> None:
        """Note what a survey of the root of that name found to be right."""
        files = self._files[self._roots.kept_as(root)]
        for file in work.wanted_files:
            if file.path in work.present:
                files[file.path] = (file.blob, work.present[file.path])

    def all_of(
        self, bundle: Digest, snapshots: Sequence[Snapshot], work: Mapping[str, Survey]
    ) -> bool:
        """Whether nothing is left to do for `snapshots`, and a receipt of `bundle` says so."""
        models = [m for r in self.receipts if r.bundle == bundle for m in r.models]
        done = {key_of(model) for model in models if not model.is_pending}
        installed: dict[str, set[RelativePath]] = defaultdict(set)
        for model in models:
            for file in model.files:
                installed[file.root].add(file.path)
        return all(key_of(snapshot) in done for snapshot in snapshots) and all(
            survey.is_done
            and all(
                file.path in installed[self._roots.kept_as(root)]
                for file in survey.wanted_files
                if file.path not in survey.edited
            )
            for root, survey in work.items()
        )
