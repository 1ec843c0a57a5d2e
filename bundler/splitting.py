"""A bundle written in volumes, which take their names when all of them are whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bundler.digest import Blob, Digest
from bundler.direct_io import DirectWriter
from bundler.disk import entries, start_of
from bundler.errors import FormatError
from bundler.file_limit import file_limit
from bundler.new_folder import sync_folder
from bundler.split_size import SplitSize, too_many
from bundler.volume_list import (
    LIST_SUFFIX,
    MAX_LIST_SIZE,
    MAX_VOLUMES,
    VolumeList,
    split_name,
    volume_name,
)
from bundler.whole_file import draft_of, held_draft

Check = Callable[[Sequence[tuple[Path, Blob]]], None]
"""Is told of the files that were written and synced, before they get their names."""


@contextmanager
def split_file(
    path: Path, size: SplitSize, bundle: Digest, check: Check | None = None
) -> Iterator[Splitter]:
    """Where to write the bundle with the id `bundle`: volumes beside `path`, or the file itself.

    They take their names when all are whole and on disk, and the list last; an older bundle of the
    same name, whole or in volumes, goes. Until then they are drafts, held by one process at a time;
    those of a killed one are removed.

    Raises OSError; TargetError if another process writes there; RequestError if there are too many;
    and what `check` does.
    """
    with held_draft(path) as (draft, _):
        remove_volume_drafts(path)
        volumes = Splitter(path, size, file_limit(path.parent) if size == "auto" else size)
        try:
            yield volumes
            volumes.finish()
            content = VolumeList(bundle, tuple(volumes.written)).to_bytes(path.name)
            draft.write(content)
            draft.flush()
            os.fsync(draft.fileno())
            if check is not None:
                check([*volumes.drafts(), (draft_of(path), Blob.of(content))])
            _publish(path, len(volumes.written), whole=volumes.is_whole)
        except BaseException:
            volumes.abandon()
            with suppress(OSError):
                remove_volume_drafts(path)
            raise


def remove_volume_drafts(path: Path) -> None:
    """Remove what killed runs left of volumes of `path`, whose draft must be held."""
    for draft in entries(path.parent):
        name = draft.name[1:].removesuffix(".bundler-part")
        numbered = split_name(name)
        if numbered and numbered[0] == path.name and draft == draft_of(path.with_name(name)):
            os.unlink(draft)


def _publish(path: Path, count: int, *, whole: bool) -> None:
    """Give drafts their names; whatever is there in between is no list of other volumes."""
    names = [path.with_name(volume_name(path.name, number)) for number in range(count)]
    list_path = path.with_name(path.name + LIST_SUFFIX)
    for name in reversed(_further(path, 0 if whole else count, list_path)):
        name.unlink(missing_ok=True)
    list_path.unlink(missing_ok=True)
    for name in names:
        os.replace(draft_of(name), path if whole else name)
    if whole:
        os.unlink(draft_of(path))
    else:
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
        os.replace(draft_of(path), list_path)
    sync_folder(path.parent)


def _further(path: Path, count: int, list_path: Path) -> Sequence[Path]:
    """The volumes of an older bundle from the number `count` on."""
    listed = 0
    with suppress(OSError, FormatError):
        listed = len(VolumeList.from_bytes(start_of(list_path, MAX_LIST_SIZE + 1)).volumes)
    found = []
    for number in range(count, MAX_VOLUMES):
        name = path.with_name(volume_name(path.name, number))
        if number >= listed and not name.is_file():
            break
        found.append(name)
    return found


class Splitter:
    """Writes drafts of volumes of `size` bytes beside `path`, one after the other."""

    def __init__(self, path: Path, wanted: SplitSize, size: int) -> None:
        self.written: list[Blob] = []
        """Those that are whole and on disk."""
        self._path = path
        self._may_be_whole = wanted == "auto"
        self._size = size
        self._filled = 0
        self._file: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether what is written is no volume, after all, but the bundle."""
        return self._may_be_whole and len(self.written) == 1

    def drafts(self) -> Iterator[tuple[Path, Blob]]:
        """The file of each that is written, and what is in it."""
        for number, volume in enumerate(self.written):
            yield draft_of(self._path.with_name(volume_name(self._path.name, number))), volume

    def write(self, data: bytes, /) -> None:
        """Append `data`. Raises OSError, and RequestError if it takes too many volumes."""
        rest = memoryview(data)
        while rest:
            if self._file is None:
                self._begin()
            piece = rest[: self._size - self._filled]
            self._direct.write(piece)
            self._sha256.update(piece)
            self._filled += len(piece)
            rest = rest[len(piece) :]
            if self._filled == self._size:
                self.finish()

    def finish(self) -> None:
        """End the volume that is being written, if any. Raises OSError."""
        if self._file is not None:
            self._direct.finish()
            os.fsync(self._file)
            self.abandon()
            self.written.append(Blob(Digest(self._sha256.hexdigest()), self._filled))
            self._filled = 0

    def abandon(self) -> None:
        """Close what is open."""
        if self._file is not None:
            os.close(self._file)
        self._file = None

    def _begin(self) -> None:
        number = len(self.written)
        if number == MAX_VOLUMES:
            raise too_many(self._size)
        draft = draft_of(self._path.with_name(volume_name(self._path.name, number)))
        # Never what somebody else has put there.
        self._file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._direct = DirectWriter(self._file)
        self._sha256 = hashlib.sha256()
