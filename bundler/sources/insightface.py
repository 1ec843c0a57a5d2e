"""insightface's model packs, by the names that `FaceAnalysis` takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from bundler.catalogues import nearest
from bundler.download import file_at
from bundler.errors import RequestError, UnavailableError
from bundler.patience import TransientError
from bundler.remote import RemoteFile, RemoteSnapshot, Repositories
from bundler.web import Web

PACKS = ("antelopev2", "buffalo_l", "buffalo_m", "buffalo_s", "buffalo_sc")
_RELEASES = (
    # insightface/utils/storage.py: of version 2, and of those up to 0.7.
    "https://github.com/deepinsight/insightface/releases/download/model-zoo",
    "https://github.com/deepinsight/insightface/releases/download/v0.7",
)


class InsightFace:
    """Specs `insightface:pack`."""

    scheme = "insightface"

    def resolve(self, rest: str, hub: Repositories, web: Web) -> Iterator[RemoteSnapshot]:
        if rest not in PACKS:
            raise RequestError(
                f"{rest} is no pack of insightface that bundler knows: {nearest(rest, PACKS)} "
                f"(it knows {', '.join(PACKS)})"
            )
        if web.kept is not None:
            yield web.kept.pack(rest)
            return
        yield RemoteSnapshot(
            source=self.scheme,
            name=rest,
            layout="insightface",
            files=(_release(f"{rest}.zip", web),),
            inside=_inside,
        )


def _release(name: str, web: Web) -> RemoteFile:
    """The archive `name`, from the first release that has it. Raises UnavailableError."""
    faults = []
    for release in _RELEASES:
        url = f"{release}/{name}"
        try:
            return file_at(url, web)[0]
        except TransientError:
            raise  # It may be there all the same.
        except UnavailableError as error:
            faults.append(error)
    raise faults[0]


def _inside(member: str) -> str | None:
    """Models stand side by side: some packs are zipped with a folder around them.

    insightface/app/face_analysis.py looks for `models/<pack>/*.onnx` and no deeper.
    """
    path = PurePosixPath(member)
    # A folder of the Finder's own copies, whose names end alike.
    return path.name if path.suffix == ".onnx" and "__MACOSX" not in path.parts else None
