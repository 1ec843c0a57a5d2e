"""The only writer into a target: whole files below their root, every prefix of the work valid.

Everything is first built as it will stand, verified and synced, in a staging folder that no
library looks into. Only when all of it is there do things move to their places, each by one rename:
a folder that is new appears with all that is in it. So a run that fails has changed nothing, and
one that is killed leaves either the state before, or one from which running again goes on without
redoing verified work.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from bundler.digest import COPY_SIZE, Blob, Digest, Readable, VerifiedReader, digest_of
from bundler.direct_io import DirectWriter, write_all
from bundler.errors import DamagedError, TargetError
from bundler.folders import STAGING, Folders, not_too_deep
from bundler.layouts.placement import File
from bundler.lock import take_lock
from bundler.new_folder import remove_empty
from bundler.permission import told
from bundler.progress import Progress
from bundler.relative import RelativePath
from bundler.sharing import LinkMode, clone, hard_link
from bundler.survey import Survey, links_wanted

_TREE = STAGING / "tree"
"""Holds what is built, at the paths that it will have below the root."""
_BLOBS = STAGING / "blobs"
"""Holds what is built by and by: what another run left, and what is shared with a cache."""
_LARGE = 1 << 20
"""Bytes; smaller files are synced together at the end, which is quicker."""
_OF_DISKS = (errno.EIO, errno.ENOSPC, errno.EDQUOT)
"""Why a link may fail to be made where links are possible; what else may be said where they are
not, differs from one file system to the next."""


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
        self._stack = ExitStack()
        self._places: dict[Digest, RelativePath] = {}
        """The path of a blob that is wanted: the first, if it is to stand at several."""
        self._staged: dict[Digest, int] = {}
        """When each blob that is staged was changed, in nanoseconds."""
        self._left: set[Digest] = set()
        """Those that another run staged, and that are where it left them."""
        self._pointed: dict[Digest, tuple[Path, int]] = {}
        self._shared: dict[Digest, bool] = {}
        """Blobs that share their space with a cache; whether they are clones, not hard links."""
        self._unsynced: list[RelativePath] = []
        """Paths of files that are built and may not be on disk."""

    def __enter__(self) -> Target:
        """Make the root, take the lock, see what an earlier run left. Raises TargetError.

        Waits as long as another process has the lock.
        """
        with self._stack:
            # What a disk lacks is told before there is more of it again.
            with told(self.root, "--root"):
                self._folders = self._stack.enter_context(self._locked_folders())
                self._stack.push(self._clean_up)
                with not_too_deep(self.root / STAGING):
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
        self._stack.__exit__(kind, error, traceback)

    def _clean_up(self, kind: type[BaseException] | None, *_: object) -> None:
        # After an error everything is as before; an interrupted run is continued from what is here.
        if kind is not None and not issubclass(kind, Exception):
            return
        with suppress(OSError, TargetError):
            if (self.root / STAGING).is_dir() and not (self.root / STAGING).is_symlink():
                self._folders.remove_all(STAGING)
            self._folders.remove_if_empty(STAGING.parent)
        if kind is not None:
            remove_empty(self._folders.made)

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
        """Keep what a killed run staged, as far as it is whole; believe no name."""
        self._folders.handle(STAGING)  # Refuses a link in its place.
        size = sum(os.fstat(file.fileno()).st_size for _, _, file in self._found())
        with self._progress.start("checking what an interrupted run left", size) as meter:
            for folder, name, file in self._found():
                digest = digest_of(file, meter.add)
                if digest not in self._left:
                    blobs = self._folders.handle(_BLOBS)
                    os.rename(name, digest.hex, src_dir_fd=folder, dst_dir_fd=blobs)
                    self._staged[digest] = os.fstat(file.fileno()).st_mtime_ns
                    self._left.add(digest)
        kept = {_BLOBS.name, *(digest.hex for digest in self._left)}
        for above in (STAGING, _BLOBS):
            for name in set(os.listdir(self._folders.handle(above))) - kept:
                self._folders.remove_all(above / name)

    def _found(self) -> Iterator[tuple[int, str, BinaryIO]]:
        """Every regular file in the staging folder: its folder's handle, its name, and open."""
        for _, folders, names, folder in os.fwalk(".", dir_fd=self._folders.handle(STAGING)):
            folders.sort()  # What is moved among the blobs meanwhile is not come by again.
            for name in names:
                state = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISREG(state.st_mode):
                    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                    handle = os.open(name, flags, dir_fd=folder)
                    with open(handle, "rb", buffering=0) as file:
                        yield folder, name, file

    def _probe_links(self) -> bool:
        folder = self._folders.handle(_BLOBS)
        try:
            os.symlink("probe", "probe", dir_fd=folder)
        except OSError as error:
            if error.errno in _OF_DISKS:
                raise
            return False
        os.unlink("probe", dir_fd=folder)
        return True

    def expect(self, files: Iterable[File]) -> None:
        """The files that will stand here: blobs are written where the first of theirs belongs."""
        for file in files:
            self._places.setdefault(file.blob.digest, file.path)

    def has(self, blob: Blob) -> bool:
        """Whether `blob` is staged, by this run or one that was killed, or pointed to."""
        return blob.digest in self._staged or blob.digest in self._pointed

    def staged_mtime_ns(self, blob: Blob) -> int:
        """The time of change of a staged blob, in nanoseconds; it keeps it where it is placed."""
        if blob.digest in self._pointed:
            return self._pointed[blob.digest][1]
        return self._staged[blob.digest]

    def copy(self, blob: Blob, content: Readable) -> None:
        """Stage a blob from `content`, which must verify itself.

        Raises what it raises, and TargetError.
        """
        file = StagedFile(self, blob)
        try:
            while data := content.read(COPY_SIZE):
                file.write(memoryview(data))
        except BaseException:
            file.abandon()
            raise
        file.close()

    def create(self, blob: Blob) -> int:
        """A new file to write `blob` to, where it is expected. Raises OSError."""
        return self._folders.create(self._staged_at(blob))

    def note(self, blob: Blob, mtime_ns: int) -> None:
        """The file made by `create` holds `blob`, and was changed last at this time."""
        if blob.size < _LARGE:
            self._unsynced.append(self._places[blob.digest])
        self._staged[blob.digest] = mtime_ns

    def share(self, blob: Blob, source: Path, mode: LinkMode) -> None:
        """Take in a blob that the file `source` holds, by `mode`; not for symbolic links.

        Raises DamagedError if a copy turns out otherwise, TargetError if `mode` cannot be done.
        """
        with told(self.root, "--checkpoints"), open(source, "rb", buffering=0) as content:
            if mode.shares(blob.size):
                if mode in (LinkMode.AUTO, LinkMode.CLONE) and self._clone(blob, content):
                    return
                if mode in (LinkMode.AUTO, LinkMode.HARDLINK) and self._hard_link(blob, source):
                    return
                if mode is not LinkMode.AUTO:
                    raise TargetError(
                        f"the disk of {self.root} cannot share files with the cache by "
                        f"{mode.value}: use --link-mode auto"
                    )
            self.copy(blob, VerifiedReader(content, blob, str(source)))

    def take(self, blob: Blob, source: Path, git_sha1: str | None = None) -> bool:
        """Take in a blob that the file `source` of this machine may hold; whether it does.

        A large one is cloned, else hard-linked where nobody else may write to it, else copied. What
        is staged then is compared, byte by byte, and gone again if it is something else.
        `git_sha1` is as in `Verifier`. Raises TargetError.
        """
        try:
            handle = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return False
        with told(self.root, "--root"), open(handle, "rb", buffering=0) as content:
            if os.fstat(content.fileno()).st_size != blob.size:
                return False
            shares = LinkMode.AUTO.shares(blob.size)
            try:
                if shares and (self._clone(blob, content) or self._own_link(blob, source, content)):
                    with self.open(blob) as staged:
                        _read_all(VerifiedReader(staged, blob, str(source), git_sha1))
                else:
                    self.copy(blob, VerifiedReader(content, blob, str(source), git_sha1))
            except DamagedError:
                self.drop(blob)
                return False
        return True

    def drop(self, blob: Blob) -> None:
        """Take back what was begun of a blob, so that it can be staged from elsewhere."""
        with suppress(FileNotFoundError):
            self._folders.remove(self._staged_at(blob))
        self._staged.pop(blob.digest, None)
        self._shared.pop(blob.digest, None)

    def _own_link(self, blob: Blob, source: Path, content: BinaryIO) -> bool:
        """Hard-link a file, unless somebody else could write to it."""
        state = os.fstat(content.fileno())
        is_own = state.st_uid == os.geteuid() and not state.st_mode & stat.S_IWOTH
        return is_own and self._hard_link(blob, source)

    def _clone(self, blob: Blob, content: BinaryIO) -> bool:
        place = self._staged_at(blob)
        with self._folders.new_file(place) as file:
            if clone(content, file):
                self._shared[blob.digest] = True
                self._staged[blob.digest] = os.fstat(file.fileno()).st_mtime_ns
                return True
        self._folders.remove(place)
        return False

    def _hard_link(self, blob: Blob, source: Path) -> bool:
        place = self._staged_at(blob)
        real = os.path.realpath(source)
        if not hard_link(real, place.name, self._folders.handle(place.parent)):
            return False
        self._shared[blob.digest] = False
        self._staged[blob.digest] = os.stat(real).st_mtime_ns
        self._unsynced.append(self._places[blob.digest])
        return True

    def point(self, blob: Blob, path: Path, mtime_ns: int) -> None:
        """Let the files of `blob` be links to `path`, where it stands or will stand."""
        self._pointed[blob.digest] = (path, mtime_ns)

    def pointed(self, blob: Blob) -> Path | None:
        """Where the links that the files of `blob` will be lead to, if they will be links."""
        return self._pointed[blob.digest][0] if blob.digest in self._pointed else None

    def open(self, blob: Blob) -> BinaryIO:
        """A staged blob, for reading; the caller closes it."""
        return self._folders.open(self._staged_at(blob))

    def staged_path(self, blob: Blob) -> Path:
        """Where a staged blob is until it is published."""
        return self.root / self._staged_at(blob)

    def _staged_at(self, blob: Blob) -> RelativePath:
        """Where a blob is in the staging folder, or is to be written."""
        if blob.digest in self._left:
            return _BLOBS / blob.digest.hex
        return _TREE / self._places[blob.digest]

    def build(self, work: Survey) -> None:
        """Build all of `work` as it will stand, and make it outlast a loss of power."""
        with told(self.root, "--root"):
            for file in work.files:
                self._build_file(file)
            for link in work.links:
                self._folders.symlink(link.text, _TREE / link.path)
            for text in work.texts:
                with self._folders.new_file(_TREE / text.path) as draft:
                    draft.write(text.content.encode())
            self._folders.sync(self._unsynced, _TREE)
            self._unsynced.clear()

    def publish(self, work: Survey) -> None:
        """Make all of `work` visible, after `build`: files, then links, then texts."""
        with told(self.root, "--root"):
            files, links, texts = self._tops(work)
            self._show(files)
            self._show(links)
            for absent in work.absent:
                self._folders.remove(absent.path)
            for text in texts:
                self._show([text])

    def _tops(self, work: Survey) -> tuple[list[RelativePath], ...]:
        """What is to be moved from the staging folder, in order: new folders as a whole."""
        moved: dict[RelativePath, None] = {}
        steps = []
        top_new = cache(self._top_new)  # Asked for each path, and the same for all in one folder.
        for placements in (work.files, work.links, work.texts):
            tops = {top_new(p.path.parent) or p.path: None for p in placements}
            steps.append([top for top in tops if top not in moved])
            moved |= tops
        return tuple(steps)

    def _build_file(self, file: File) -> None:
        blob = file.blob
        if blob.digest in self._pointed:
            target = os.path.realpath(self._pointed[blob.digest][0])
            text = os.path.relpath(target, os.path.realpath(self.root / file.path.parent))
            self._folders.symlink(text, _TREE / file.path)
        elif blob.digest in self._left:
            self._folders.move_new(self._staged_at(blob), _TREE / file.path)
            self._left.remove(blob.digest)
            self._unsynced.append(file.path)  # Whoever left it may have been killed before that.
        elif file.path == self._places[blob.digest]:
            return  # There it is.
        elif self._shared.get(blob.digest) is False:
            self._folders.link(self._staged_at(blob), _TREE / file.path)
        else:
            with self.open(blob) as source, self._folders.new_file(_TREE / file.path) as copy:
                if not (blob.digest in self._shared and clone(source, copy)):
                    shutil.copyfileobj(source, copy, COPY_SIZE)
                copy.flush()
                mtime_ns = self._staged[blob.digest]
                os.utime(copy.fileno(), ns=(mtime_ns, mtime_ns))

    def _top_new(self, folder: RelativePath) -> RelativePath | None:
        """The highest folder on the way to `folder`, itself included, that is not there yet."""
        for above in reversed((folder, *folder.parents)):
            if not os.path.lexists(self.root / above):
                return above
        return None

    def _show(self, paths: Iterable[RelativePath]) -> None:
        for path in paths:
            self._folders.rename(_TREE / path, path)
        self._folders.sync()


def _read_all(content: Readable) -> None:
    """Read on to the end."""
    while content.read(COPY_SIZE):
        pass


class StagedFile:
    """A blob while it is written to where the target expects it: an `extraction.Outlet`."""

    def __init__(self, target: Target, blob: Blob) -> None:
        self._target = target
        self._blob = blob
        self._told = told(target.root, "--root")
        with self._told:
            self._file = target.create(blob)
            self._direct = DirectWriter(self._file) if blob.size >= _LARGE else None
            self._size = 0

    def write(self, data: memoryview) -> None:
        with self._told:
            if self._direct is not None:
                self._direct.write(data)
            else:
                write_all(self._file, data, self._size)
                self._size += len(data)

    def close(self) -> None:
        try:
            with self._told:
                if self._direct is not None:
                    self._direct.finish()
                    os.fsync(self._file)
                self._target.note(self._blob, os.fstat(self._file).st_mtime_ns)
        finally:
            os.close(self._file)

    def abandon(self) -> None:
        os.close(self._file)
        with suppress(OSError):  # What made it fail has been told.
            self._target.drop(self._blob)
