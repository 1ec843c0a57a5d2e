"""The only writer into a target: whole files below their root, every prefix of the work valid.

Blobs are first collected, verified and synced, in a staging folder that no library looks into. Only
when all of them are there do they move, by rename, to where they belong; then links, then texts
that make the rest visible. So a run that fails has changed nothing, and one that is killed leaves
either the state before, or a state from which running again goes on without redoing verified work.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import BinaryIO

from bundler.digest import COPY_SIZE, Blob, Digest, Readable, digest_of
from bundler.errors import BundlerError, TargetError
from bundler.folders import Folders
from bundler.layouts.placement import File
from bundler.progress import Progress
from bundler.survey import Survey, links_wanted
from bundler.whole_file import told

STAGING = PurePosixPath(".locks/bundler")
"""`.locks` is the one folder that scanners of a Hugging Face cache skip."""
_PART = ".part"


class Target:
    """One root while it is written to. A context manager: it belongs to one process at a time."""

    def __init__(self, root: Path, progress: Progress) -> None:
        self.root = root
        self.links = True
        """Whether the file system can hold links. Known inside the context."""
        self._progress = progress
        self._new_folders = [folder for folder in (root, *root.parents) if not folder.exists()]
        self._stack = ExitStack()
        self._staged: dict[Digest, int] = {}

    def __enter__(self) -> Target:
        """Make the root, take the lock, see what an earlier run left. Raises TargetError."""
        with told(self.root, "--root"), self._stack:
            self._folders = self._stack.enter_context(Folders(self.root))
            self._lock()
            self._take_over()
            self.links = links_wanted() and self._probe_links()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # After an error everything is as before; an interrupted run is continued from what is here.
        if kind is None or issubclass(kind, BundlerError):
            with told(self.root, "--root"):
                for name in os.listdir(self._staging):
                    os.unlink(name, dir_fd=self._staging)
            _remove_if_empty(self.root / STAGING, self.root / STAGING.parent)
            if kind is not None:
                _remove_if_empty(*self._new_folders)
        self._stack.close()

    @property
    def _staging(self) -> int:
        return self._folders.handle(STAGING)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._folders.handle(PurePosixPath()), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TargetError(
                f"another bundler is writing to {self.root}: wait until it is done"
            ) from None
        except OSError:
            pass  # A network file system that cannot lock folders: then nobody can be told apart.

    def _take_over(self) -> None:
        """Keep what a killed run staged, as far as it is whole; believe no name."""
        blobs = {}
        for name in os.listdir(self._staging):
            state = os.stat(name, dir_fd=self._staging, follow_symlinks=False)
            if stat.S_ISREG(state.st_mode) and not name.endswith(_PART):
                blobs[name] = state.st_size
            else:
                os.unlink(name, dir_fd=self._staging)
        left = "checking what an interrupted run left"
        with self._progress.start(left, sum(blobs.values())) as meter:
            for name, size in blobs.items():
                with open(name, "rb", buffering=0, opener=self._opener_for_reading) as file:
                    digest = digest_of(file, meter.add)
                if name == digest.hex:
                    self._staged[digest] = size
                else:
                    os.unlink(name, dir_fd=self._staging)

    def _probe_links(self) -> bool:
        try:
            os.symlink("probe", "probe", dir_fd=self._staging)
        except OSError:
            return False
        os.unlink("probe", dir_fd=self._staging)
        return True

    def has(self, blob: Blob) -> bool:
        """Whether `blob` is staged, by this run or one that was killed."""
        return self._staged.get(blob.digest) == blob.size

    def mtime_ns(self, file: File, *, staged: bool) -> int:
        """When `file` was last changed: where it is staged, which it keeps, or where it stands."""
        with told(self.root, "--root"):
            if staged:
                return os.stat(file.blob.digest.hex, dir_fd=self._staging).st_mtime_ns
            return (self.root / file.path).stat().st_mtime_ns

    def stage(self, blob: Blob, content: Readable, count: Callable[[int], None]) -> None:
        """Take in a blob, counting its bytes.

        `content` must verify itself. Raises what it raises, and TargetError.
        """
        name = blob.digest.hex
        with (
            told(self.root, "--root"),
            open(name + _PART, "wb", buffering=0, opener=self._opener) as file,
        ):
            while data := content.read(COPY_SIZE):
                _write_all(file.fileno(), data)
                count(len(data))
            os.fsync(file.fileno())
            os.rename(name + _PART, name, src_dir_fd=self._staging, dst_dir_fd=self._staging)
        self._staged[blob.digest] = blob.size

    def open(self, blob: Blob) -> BinaryIO:
        """A staged blob, for reading; the caller closes it."""
        return open(blob.digest.hex, "rb", opener=self._opener_for_reading)

    def publish(self, work: Survey) -> None:
        """Make everything in `work` visible: files, links, and texts when these are on disk."""
        with told(self.root, "--root"):
            self._publish_files(work.files)
            for link in work.links:
                os.symlink(link.text, "link", dir_fd=self._staging)
                self._folders.rename(STAGING / "link", link.path)
            for absent in work.absent:
                self._folders.remove(absent.path)
            self._folders.sync()
            for text in work.texts:
                self._write(text.content.encode(), "text")
                self._folders.rename(STAGING / "text", text.path)
                self._folders.sync()

    def _publish_files(self, files: Iterable[File]) -> None:
        last = {file.blob.digest: file for file in files}
        for file in files:
            name = file.blob.digest.hex
            if file is not last[file.blob.digest]:
                self._duplicate(name, "copy")
                name = "copy"
            self._folders.rename(STAGING / name, file.path)
        self._folders.sync()

    def _duplicate(self, name: str, copy: str) -> None:
        with (
            open(name, "rb", opener=self._opener_for_reading) as source,
            open(copy, "wb", opener=self._opener) as file,
        ):
            while data := source.read(COPY_SIZE):
                file.write(data)
            file.flush()
            time = os.fstat(source.fileno()).st_mtime_ns
            os.utime(file.fileno(), ns=(time, time))
            os.fsync(file.fileno())

    def _write(self, content: bytes, name: str) -> None:
        with open(name, "wb", opener=self._opener) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def _opener(self, name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW, 0o644, dir_fd=self._staging)

    def _opener_for_reading(self, name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=self._staging)


def _remove_if_empty(*folders: Path) -> None:
    for folder in folders:
        with suppress(OSError):
            os.rmdir(folder)


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
