"""How libraries keep files: one module for each cache layout, none of which touches a disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from bundler.errors import FormatError, shown
from bundler.layouts.flat import Flat
from bundler.layouts.hf_cache import HuggingFaceCache
from bundler.layouts.hf_datasets import HuggingFaceDatasets
from bundler.layouts.insightface import InsightFace
from bundler.layouts.placement import Placement
from bundler.layouts.torch_hub import TorchCheckpoints, TorchHub
from bundler.manifest import Snapshot
from bundler.relative import RelativePath


class Layout(Protocol):
    """`name` stands in manifests; `root` is the name of the root that paths start from."""

    @property
    def name(self) -> str: ...

    @property
    def root(self) -> str: ...

    def place(
        self, snapshot: Snapshot, can_link: Callable[[RelativePath], bool]
    ) -> Iterator[Placement]:
        """What must stand where for `snapshot` to be found, paths below the root.

        `can_link` tells whether a link may stand at a path: not on a file system without links,
        and not where a real file or folder is already. Pure apart from asking it. Raises
        ValueError if the snapshot does not fit the layout.
        """


LAYOUTS: tuple[Layout, ...] = (
    HuggingFaceCache(),
    HuggingFaceDatasets(),
    TorchHub(),
    TorchCheckpoints(),
    InsightFace(),
    Flat(),
)


def layout_of(snapshot: Snapshot) -> Layout:
    """The layout that the manifest names. Raises FormatError if this version has no such layout."""
    for layout in LAYOUTS:
        if layout.name == snapshot.layout:
            return layout
    raise FormatError(
        f"{shown(snapshot.name)} is kept in the layout {shown(snapshot.layout)}, which this "
        "bundler does not know: use a newer bundler, or leave it out with --only"
    )
