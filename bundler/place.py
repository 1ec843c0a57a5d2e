"""The only writer into a target: whole files below their root, every prefix of the work valid.

Blobs are first collected, verified and synced, in a staging folder that no library looks into. When
all of them are there, everything else is built beside them as it will stand. Only then do things
move to their places, each by one rename: a folder that is new appears with all that is in it.
So a run that fails has changed nothing, and one that is killed leaves either the state before, or
one from which running again goes on without redoing verified work.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import BinaryIO

from bundler.digest import COPY_SIZE, Blob, Digest, Readable, VerifiedReader, digest_of
from bundler.errors import BundlerError, TargetError
from bundler.folders import STAGING, Folders
from bundler.layouts.placement import File
from bundler.lock import take_lock
from bundler.permission import told
from bundler.progress import Progress
from bundler.sharing import LinkMode, clone, hard_link
from bundler.survey import Survey, links_wanted

_BLOBS = STAGING / "blobs"
_TREE = STAGING / "tree"
"""Holds what is built, at the paths that it will have below the root."""
_PART = ".part"
_LARGE = 1 << 20
"""Bytes; smaller blobs are synced together at the end, which is quicker."""


def has_staging(root: Path) -> bool:
    """Whether a run that was killed left something below `root`, if only an empty folder.

    What one that is under way has there does not count.
    """
    try:
        left = os.listdir(root / STAGING.parent)
        if left and STAGING.name not in left:
            return False
        handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        take_lock(handle)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


class Target:
    """One root while it is written to. A context manager: it belongs to one process at a time."""

    def __init__(self, root: Path, progress: Progress) -> None:
        self.root = root
        self.links = True
        """Whether the file system can hold links. Known inside the context."""
        self.waited = False
        """Whether another process wrote here until now."""
        self._progress = progress
        self._new_folders = [folder for folder in (root, *root.parents) if not folder.exists()]
        self._stack = ExitStack()
        self._staged: dict[Digest, int] = {}
        self._pointed: dict[Digest, tuple[Path, int]] = {}
        self._shared: dict[Digest, bool] = {}
        """Blobs that share their space with a cache; whether they are clones, not hard links."""
        self._unsynced: list[str] = []

    def __enter__(self) -> Target:
        """Make the root, take the lock, see what an earlier run left. Raises TargetError.

        Waits as long as another process has the lock.
        """
        with told(self.root, "--root"), self._stack:
            self._folders = self._stack.enter_context(self._locked_folders())
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
        with self._stack:
            if kind is None or issubclass(kind, BundlerError):
                shutil.rmtree(self.root / STAGING, ignore_errors=True)
                _remove_if_empty(self.root / STAGING.parent)
                if kind is not None:
                    _remove_if_empty(*self._new_folders)

    @property
    def _blobs(self) -> int:
        return self._folders.handle(_BLOBS)

    def _locked_folders(self) -> Folders:
        """The folders below the root, which nobody else writes to as long as they are open."""
        while True:
            with ExitStack() as stack:
                folders = stack.enter_context(Folders(self.root))
                folders.lock(on_wait=self._tell_of_waiting)
                # Whoever had the lock may have failed, and removed the root that he had made.
                if folders.is_there:
                    stack.pop_all()
                    return folders

    def _tell_of_waiting(self) -> None:
        self.waited = True
        self._progress.say(f"waiting for another bundler, which is writing to {self.root}")

    def _take_over(self) -> None:
        """Keep the blobs that a killed run staged, as far as they are whole; believe no name."""
        self._folders.handle(STAGING)  # Refuses a link in its place.
        for entry in os.scandir(self.root / STAGING):
            if entry.name == _BLOBS.name:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
        blobs = {}
        for name in os.listdir(self._blobs):
            state = os.stat(name, dir_fd=self._blobs, follow_symlinks=False)
            if stat.S_ISREG(state.st_mode) and not name.endswith(_PART):
                blobs[name] = state.st_size
            else:
                os.unlink(name, dir_fd=self._blobs)
        left = "checking what an interrupted run left"
        with self._progress.start(left, sum(blobs.values())) as meter:
            for name, size in blobs.items():
                with open(name, "rb", buffering=0, opener=self._opener) as file:
                    digest = digest_of(file, meter.add)
                if name == digest.hex:
                    self._staged[digest] = size
                else:
                    os.unlink(name, dir_fd=self._blobs)

    def _probe_links(self) -> bool:
        try:
            os.symlink("probe", f"probe{_PART}", dir_fd=self._blobs)
        except OSError:
            return False
        os.unlink(f"probe{_PART}", dir_fd=self._blobs)
        return True

    def has(self, blob: Blob) -> bool:
        """Whether `blob` is staged, by this run or one that was killed, or pointed to."""
        return self._staged.get(blob.digest) == blob.size or blob.digest in self._pointed

    def staged_mtime_ns(self, blob: Blob) -> int:
        """The time of change of a staged blob, in nanoseconds; it keeps it where it is placed."""
        if blob.digest in self._pointed:
            return self._pointed[blob.digest][1]
        with told(self.root, "--root"):
            return os.stat(blob.digest.hex, dir_fd=self._blobs).st_mtime_ns

    def stage(self, blob: Blob, content: Readable, count: Callable[[int], None]) -> None:
        """Take in a blob, counting its bytes; `sync` makes it last.

        `content` must verify itself. Raises what it raises, and TargetError.
        """
        name = blob.digest.hex
        with (
            told(self.root, "--root"),
            open(name + _PART, "wb", opener=self._opener) as file,
        ):
            while data := content.read(COPY_SIZE):
                file.write(data)
                count(len(data))
            file.flush()
            if blob.size >= _LARGE:
                os.fsync(file.fileno())
            else:
                self._unsynced.append(name)
            os.rename(name + _PART, name, src_dir_fd=self._blobs, dst_dir_fd=self._blobs)
        self._staged[blob.digest] = blob.size

    def share(self, blob: Blob, source: Path, mode: LinkMode) -> None:
        """Take in a blob that the file `source` holds, by `mode`; not for symbolic links.

        Raises DamagedError if a copy turns out otherwise, TargetError if `mode` cannot be done.
        """
        name = blob.digest.hex
        with told(self.root, "--checkpoints"):
            real = os.path.realpath(source)
            cloned = linked = False
            if mode.shares(blob.size):
                if mode in (LinkMode.AUTO, LinkMode.CLONE):
                    with (
                        open(real, "rb", buffering=0) as content,
                        open(name + _PART, "wb", opener=self._opener) as file,
                    ):
                        cloned = clone(content, file)
                if cloned:
                    os.rename(name + _PART, name, src_dir_fd=self._blobs, dst_dir_fd=self._blobs)
                elif mode in (LinkMode.AUTO, LinkMode.HARDLINK):
                    linked = hard_link(real, name, self._blobs)
                if not (cloned or linked) and mode is not LinkMode.AUTO:
                    raise TargetError(
                        f"the disk of {self.root} cannot share files with the cache by "
                        f"{mode.value}: use --link-mode auto"
                    )
            if cloned or linked:
                self._staged[blob.digest] = blob.size
                self._shared[blob.digest] = cloned
                self._unsynced.append(name)
                return
            with open(real, "rb", buffering=0) as content:
                self.stage(blob, VerifiedReader(content, blob, real), lambda _: None)

    def point(self, blob: Blob, path: Path, mtime_ns: int) -> None:
        """Let the files of `blob` be links to `path`, where it stands or will stand."""
        self._pointed[blob.digest] = (path, mtime_ns)

    def pointed(self, blob: Blob) -> Path | None:
        """Where the links that the files of `blob` will be lead to, if they will be links."""
        return self._pointed[blob.digest][0] if blob.digest in self._pointed else None

    def sync(self) -> None:
        """Make all that was staged outlast a loss of power."""
        with told(self.root, "--root"):
            for name in self._unsynced:
                with open(name, "rb", opener=self._opener) as file:
                    os.fsync(file.fileno())
            self._unsynced.clear()
            os.fsync(self._blobs)

    def open(self, blob: Blob) -> BinaryIO:
        """A staged blob, for reading; the caller closes it."""
        return open(blob.digest.hex, "rb", opener=self._opener)

    def staged_path(self, blob: Blob) -> Path:
        """Where a staged blob is until it is published."""
        return self.root / _BLOBS / blob.digest.hex

    def publish(self, work: Survey) -> None:
        """Make everything in `work` visible: files, then links, then texts."""
        with told(self.root, "--root"):
            files, links, texts = self._build(work)
            self._folders.sync()
            self._show(files)
            self._show(links)
            for absent in work.absent:
                self._folders.remove(absent.path)
            for text in texts:
                self._show([text])

    def _build(self, work: Survey) -> tuple[list[PurePosixPath], ...]:
        """Build all of `work` in the staging folder; what is to be moved from there, in order."""
        last = {file.blob.digest: file for file in work.files}
        for file in work.files:
            self._build_file(file, is_last=file is last[file.blob.digest])
        for link in work.links:
            parent = self._folders.handle((_TREE / link.path).parent)
            os.symlink(link.text, link.path.name, dir_fd=parent)
        for text in work.texts:
            with self._folders.new_file(_TREE / text.path) as draft:
                draft.write(text.content.encode())
        moved: dict[PurePosixPath, None] = {}
        steps = []
        top_new = cache(self._top_new)  # Asked for each path, and the same for all in one folder.
        for placements in (work.files, work.links, work.texts):
            tops = {top_new(p.path.parent) or p.path: None for p in placements}
            steps.append([top for top in tops if top not in moved])
            moved |= tops
        return tuple(steps)

    def _build_file(self, file: File, *, is_last: bool) -> None:
        name, path = file.blob.digest.hex, _TREE / file.path
        if file.blob.digest in self._pointed:
            target = os.path.realpath(self._pointed[file.blob.digest][0])
            text = os.path.relpath(target, os.path.realpath(self.root / file.path.parent))
            os.symlink(text, path.name, dir_fd=self._folders.handle(path.parent))
            return
        cloned = self._shared.get(file.blob.digest)
        if not is_last and cloned is not False:
            with self.open(file.blob) as source, self._folders.new_file(path) as copy:
                if not (cloned and clone(source, copy)):
                    shutil.copyfileobj(source, copy, COPY_SIZE)
                time = os.fstat(source.fileno()).st_mtime_ns
                copy.flush()
                os.utime(copy.fileno(), ns=(time, time))
            return
        parent = os.dup(self._folders.handle(path.parent))
        try:
            # A second name, so that the staged blob outlives a kill before the end.
            os.link(name, path.name, src_dir_fd=self._blobs, dst_dir_fd=parent)
        except FileExistsError:
            raise  # Two names that this file system takes for one.
        except OSError:
            os.rename(name, path.name, src_dir_fd=self._blobs, dst_dir_fd=parent)
        finally:
            os.close(parent)

    def _top_new(self, folder: PurePosixPath) -> PurePosixPath | None:
        """The highest folder on the way to `folder`, itself included, that is not there yet."""
        for above in reversed((folder, *folder.parents)):
            if not os.path.lexists(self.root / above):
                return above
        return None

    def _show(self, paths: Iterable[PurePosixPath]) -> None:
        for path in paths:
            self._folders.rename(_TREE / path, path)
        self._folders.sync()

    def _opener(self, name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW, 0o666, dir_fd=self._blobs)


def _remove_if_empty(*folders: Path) -> None:
    for folder in folders:
        with suppress(OSError):
            os.rmdir(folder)
