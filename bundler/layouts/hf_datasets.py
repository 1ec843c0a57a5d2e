"""The cache of the datasets library: tables in Arrow form, ready to be mapped into memory.

Without a network `load_dataset("org/name")` reads this and nothing else
(datasets/packaged_modules/cache/cache.py); the paths are those that the library itself made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bundler.layouts.placement import File, Placement
from bundler.manifest import Snapshot
from bundler.relative import RelativePath


class HuggingFaceDatasets:
    """Layout `hf-datasets`."""

    name = "hf-datasets"
    root = "datasets"

    def place(
        self, snapshot: Snapshot, can_link: Callable[[RelativePath], bool]
    ) -> Iterator[Placement]:
        for entry in snapshot.files:
            yield File(entry.path, entry.blob)
