"""The folder of insightface: `models/<pack>/*.onnx` (insightface/app/face_analysis.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bundler.errors import shown
from bundler.layouts.placement import File, Placement
from bundler.manifest import Snapshot
from bundler.names import relative_path
from bundler.relative import RelativePath


class InsightFace:
    """Layout `insightface`."""

    name = "insightface"
    root = "insightface"

    def place(
        self, snapshot: Snapshot, can_link: Callable[[RelativePath], bool]
    ) -> Iterator[Placement]:
        pack = relative_path(snapshot.name)
        if len(pack.parts) != 1:
            raise ValueError(f"{shown(snapshot.name)} is not the name of a pack")
        for entry in snapshot.files:
            yield File("models" / pack / entry.path, entry.blob)
