"""The only writer into a target: whole files below their root, every prefix of the work valid.

Blobs are first collected, verified and synced, in a staging folder that no library looks into. Only
when all of them are there do they move, by rename, to where they belong; then links, then texts
that make the rest visible. So a run that fails has changed nothing, and one that is killed leaves
either the state before, or a state from which running again goes on without redoing verified work.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import BinaryIO

from bundler.digest import COPY_SIZE, Blob, Digest, Readable
from bundler.errors import BundlerError, FormatError, TargetError, shown
from bundler.folders import Folders
from bundler.layouts.placement import Absent, File, Link, Placement, Text
from bundler.progress import Progress

STAGING = PurePosixPath(".locks/bundler")
"""`.locks` is the one folder that scanners of a Hugging Face cache skip."""
_PART = ".part"

Trusted = Callable[[PurePosixPath, Blob, int], bool]
"""Whether a path below the root held a blob when its time of change (ns) was this one."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What there is to do below one root. Sizes in bytes."""

    wanted: tuple[Placement, ...]
    """All that must stand there; the rest of the fields tell what does not yet."""
    files: tuple[File, ...]
    links: tuple[Link, ...]
    texts: tuple[Text, ...]
    absent: tuple[Absent, ...]
    present: int
    """Files and links that stand there already."""
    present_size: int

    @property
    def blobs(self) -> dict[Digest, Blob]:
        """What must be read from the bundle."""
        return {file.blob.digest: file.blob for file in self.files}

    @property
    def size(self) -> int:
        """Space that the files to write take."""
        return sum(file.blob.size for file in self.files)


def links_wanted() -> bool:
    """Whether links may be made at all: huggingface_hub/constants.py has the variable."""
    disabled = os.environ.get("HF_HUB_DISABLE_SYMLINKS", "").upper()
    return disabled not in {"1", "ON", "YES", "TRUE"}


def can_link(root: Path, links: bool) -> Callable[[PurePosixPath], bool]:
    """What `Layout.place` asks: may a link stand at a path below `root`?"""

    def at(path: PurePosixPath) -> bool:
        there = root / path
        return links and (there.is_symlink() or not there.exists())

    return at


def survey(
    root: Path,
    placements: Iterable[Placement],
    trusted: Trusted,
    progress: Progress,
) -> Survey:
    """Compare `placements` with what stands below `root`; reads only.

    A file of the right size counts as present if `trusted` says so, else if its content has the
    right digest. Raises FormatError if two placements contradict each other, TargetError if
    something stands in the way.
    """
    with _told(root):
        wanted = _without_contradictions(_redirected(root, placement) for placement in placements)
        _check_obstacles(root, wanted)
        files = [p for p in wanted if isinstance(p, File)]
        blobs = {file.path: file.blob for file in files}
        present = _present_files(root, files, trusted, progress)
        links = [p for p in wanted if isinstance(p, Link)]
        missing_links = tuple(p for p in links if not _link_stands(root, p, blobs.get(p.target)))
        return Survey(
            wanted=tuple(wanted),
            files=tuple(file for file in files if file.path not in present),
            links=missing_links,
            texts=tuple(_missing_texts(root, [p for p in wanted if isinstance(p, Text)])),
            absent=tuple(p for p in wanted if isinstance(p, Absent) and _hides(root / p.path)),
            present=len(present) + len(links) - len(missing_links),
            present_size=sum(blob.size for blob in present.values()),
        )


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
        with _told(self.root), self._stack:
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
            with _told(self.root):
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
                    digest = _digest_of(file, meter.add)
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
        with _told(self.root):
            if staged:
                return os.stat(file.blob.digest.hex, dir_fd=self._staging).st_mtime_ns
            return (self.root / file.path).stat().st_mtime_ns

    def stage(self, blob: Blob, content: Readable, count: Callable[[int], None]) -> None:
        """Take in a blob, counting its bytes.

        `content` must verify itself. Raises what it raises, and TargetError.
        """
        name = blob.digest.hex
        with _told(self.root), open(name + _PART, "wb", buffering=0, opener=self._opener) as file:
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
        with _told(self.root):
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


def write_text(path: Path, content: str) -> None:
    """Put a small file at `path`, whole or not at all; folders are made. Raises TargetError."""
    draft = path.with_name(f".{path.name}{_PART}")
    with _told(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(draft, "w", encoding="utf-8") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)


def _redirected(root: Path, placement: Placement) -> Placement:
    """The placement where an alias in the cache leads it.

    An earlier bundle may have stored this repository under its other name, and have made the
    folder that we would write to a link to that one: then that is where to write. Only a link to
    a real folder beside it counts; any other is refused when it is opened.
    """
    folder = PurePosixPath(placement.path.parts[0])
    if len(placement.path.parts) == 1 or not (root / folder).is_symlink():
        return placement
    other = PurePosixPath(os.readlink(root / folder))
    beside = len(other.parts) == 1 and other.name != ".."
    if not beside or (root / other).is_symlink() or not (root / other).is_dir():
        return placement

    def moved(path: PurePosixPath) -> PurePosixPath:
        return other / path.relative_to(folder) if folder in path.parents else path

    if isinstance(placement, File):
        return File(moved(placement.path), placement.blob)
    if isinstance(placement, Link):
        return Link(moved(placement.path), moved(placement.target))
    if isinstance(placement, Text):
        return Text(moved(placement.path), placement.content, placement.merge)
    return Absent(moved(placement.path))


def _without_contradictions(placements: Iterable[Placement]) -> list[Placement]:
    """Each path once; FormatError if two things want to stand at it, or one below another."""
    by_path: dict[PurePosixPath, Placement] = {}
    for placement in placements:
        other = by_path.setdefault(placement.path, placement)
        if _meaning(other) != _meaning(placement):
            raise FormatError(f"the bundle puts two different things at {shown(placement.path)}")
    for path in by_path:
        for folder in path.parents:
            if folder in by_path:
                raise FormatError(
                    f"the bundle makes {shown(folder)} both a folder and something else"
                )
    return list(by_path.values())


def _check_obstacles(root: Path, wanted: Iterable[Placement]) -> None:
    """Raise TargetError if a link or a file stands where a folder is needed, before any change."""
    needed = {
        folder
        for placement in wanted
        if not isinstance(placement, Absent) or _hides(root / placement.path)
        for folder in placement.path.parents
    }
    for folder in sorted(needed, key=lambda folder: len(folder.parts)):
        path = root / folder
        if folder.parts and os.path.lexists(path) and (path.is_symlink() or not path.is_dir()):
            raise TargetError(f"{path} is a link or a file where a folder belongs: move it away")


def _hides(marker: Path) -> bool:
    """Whether a marker is there; a folder of that name marks nothing."""
    return marker.is_symlink() or marker.is_file()


def _meaning(placement: Placement) -> object:
    if isinstance(placement, Text):
        return (Text, placement.content)
    return placement


def _present_files(
    root: Path, files: Iterable[File], trusted: Trusted, progress: Progress
) -> dict[PurePosixPath, Blob]:
    present = {}
    doubtful = []
    for file in files:
        try:
            state = (root / file.path).stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if stat.S_ISDIR(state.st_mode):
            raise TargetError(f"{root / file.path} is a folder where a file belongs: move it away")
        if not stat.S_ISREG(state.st_mode) or state.st_size != file.blob.size:
            continue
        if trusted(file.path, file.blob, state.st_mtime_ns):
            present[file.path] = file.blob
        else:
            doubtful.append(file)
    total = sum(file.blob.size for file in doubtful)
    with progress.start("checking what is there", total) as meter:
        for file in doubtful:
            with open(root / file.path, "rb", buffering=0) as content:
                if _digest_of(content, meter.add) == file.blob.digest:
                    present[file.path] = file.blob
    return present


def _digest_of(content: Readable, count: Callable[[int], None]) -> Digest:
    sha256 = hashlib.sha256()
    while data := content.read(COPY_SIZE):
        sha256.update(data)
        count(len(data))
    return Digest(sha256.hexdigest())


def _link_stands(root: Path, link: Link, blob: Blob | None) -> bool:
    """Whether the link is there, or another one that leads to the same content."""
    path = root / link.path
    if not path.is_symlink():
        return False
    if os.readlink(path) == link.text:
        return True
    if blob is None:
        if path.is_dir() and path.resolve() != (root / link.target).resolve():
            raise TargetError(f"{path} is a link to another folder: move it away")
        return path.is_dir()
    if not path.is_file() or path.stat().st_size != blob.size:
        return False
    with open(path, "rb", buffering=0) as content:
        return _digest_of(content, lambda _: None) == blob.digest


def _missing_texts(root: Path, texts: Iterable[Text]) -> Iterator[Text]:
    for text in texts:
        try:
            before = (root / text.path).read_text("utf-8")
        except (FileNotFoundError, NotADirectoryError):
            yield text
            continue
        except UnicodeDecodeError:
            before = ""
        except IsADirectoryError:
            raise TargetError(
                f"{root / text.path} is a folder where a file belongs: move it away"
            ) from None
        after = text.content
        if text.merge is not None:
            after = text.merge(before, lambda path: (root / path).exists())
        if after != before:
            yield Text(text.path, after)


def _remove_if_empty(*folders: Path) -> None:
    for folder in folders:
        with suppress(OSError):
            os.rmdir(folder)


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


@contextmanager
def _told(where: Path) -> Iterator[None]:
    """Say what the user can do about a refusal of the file system at or below `where`."""
    try:
        yield
    except OSError as error:
        path = error.filename if isinstance(error.filename, str) else ""
        place = where / path if path else where
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"no space left in {where}: free some, or unpack elsewhere with --root"
        elif error.errno == errno.EFBIG:
            message = f"{where} cannot hold a file that large: use another file system than FAT"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            message = f"not allowed to write to {place}: choose another folder with --root"
        else:
            message = f"cannot write to {place}: {error.strerror}"
        raise TargetError(message) from None
