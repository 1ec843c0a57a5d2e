"""The only remover below a root: what makes things visible first, every prefix of the work valid.

A folder of which everything goes vanishes by one rename, into a staging folder that no library
looks into, so that none of them ever sees half of it.
"""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from bundler.disk import names_in
from bundler.folders import STAGING, Folders
from bundler.names import folders_above
from bundler.permission import told
from bundler.relative import RelativePath

_REMOVED = STAGING / "removed"
_REF, _LINK, _FILE, _LISTING, _BLOB = range(5)
"""What single paths are, in the order in which they go."""


@dataclass(frozen=True, slots=True)
class Work:
    """What to do below one root; all paths are below it."""

    texts: Mapping[RelativePath, str]
    """Small files to write anew."""
    links: Mapping[RelativePath, str]
    """Links to turn."""
    gone: Set[RelativePath]
    """Files and links to remove."""
    at_end: Set[RelativePath]
    """Files to remove if nothing is beside them then."""
    places: Set[RelativePath]
    """Paths whose folders are to be removed if they are empty then."""


class Clearing:
    """One root while something is taken out of it; the counterpart of `place.Target`.

    A context manager: it belongs to one process at a time.
    """

    def __init__(self, root: Path) -> None:
        """`root` must be there."""
        self.root = root

    def __enter__(self) -> Clearing:
        """Take the lock. Raises TargetError."""
        with told(self.root, "--root"), ExitStack() as stack:
            self._folders = stack.enter_context(Folders(self.root))
            self._folders.lock()
            stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._folders.__exit__(*error)

    def clear(self, work: Work) -> None:
        """Do `work`. Raises TargetError; doing it again finishes what was begun."""
        with told(self.root, "--root"):
            try:
                self._clear(work)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self._clear(self._with_room(work))

    def _clear(self, work: Work) -> None:
        self._empty_staging()
        drafts = (_REMOVED / str(number) for number in count())
        whole = _whole_folders(self.root, work.gone)
        steps = self._steps(path for path in work.gone if whole.isdisjoint(path.parents))
        for path, text in work.texts.items():
            draft = next(drafts)
            with self._folders.new_file(draft) as file:
                file.write(text.encode())
            self._folders.rename(draft, path)
        self._remove(steps[_REF])
        for path, text in work.links.items():
            draft = next(drafts)
            self._folders.symlink(text, draft)
            self._folders.rename(draft, path)
        self._remove(steps[_LINK])
        for folder in sorted(whole):
            self._folders.take_out(folder, next(drafts))
        self._folders.sync()
        for step in (_FILE, _LISTING, _BLOB):
            self._remove(steps[step])
        self._empty_staging()
        self._remove_empty(work)
        self._folders.sync()

    def _with_room(self, work: Work) -> Work:
        """What is left of `work` when as much of it is done as can be without any room.

        On a disk that is full to the last name nothing can be made, not even to move things to. So
        refs are written over, and the rest goes from where it stands: first what leads to others.
        """
        self._empty_staging()
        stale = {path for path, text in work.texts.items() if not self._write_over(path, text)}
        there = (p for p in {*stale, *work.links, *work.gone} if os.path.lexists(self.root / p))
        steps = self._steps(there)
        for step in sorted(steps):
            self._remove(steps[step])
        texts = {path: text for path, text in work.texts.items() if path in stale}
        return replace(work, texts=texts, gone=frozenset())

    def _write_over(self, path: RelativePath, text: str) -> bool:
        """Let a file of the same length, such as a ref, say `text`; False if there is none."""
        content = text.encode()
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            file = os.open(path.name, flags, dir_fd=self._folders.handle(path.parent))
        except FileNotFoundError:
            return False
        try:
            fits = os.fstat(file).st_size == len(content)
            if fits:
                os.pwrite(file, content, 0)
                os.fsync(file)
        finally:
            os.close(file)
        return fits

    def _steps(self, paths: Iterable[RelativePath]) -> dict[int, list[RelativePath]]:
        """The paths by the step in which they go."""
        steps: dict[int, list[RelativePath]] = defaultdict(list)
        for path in sorted(paths):
            steps[_step(self.root, path)].append(path)
        return steps

    def _remove(self, paths: Iterable[RelativePath]) -> None:
        for path in paths:
            self._folders.remove(path)
        self._folders.sync()

    def _remove_empty(self, work: Work) -> None:
        for folder in reversed(_real_folders(self.root, work.places)):
            beside = {folder / name for name in names_in(self.root / folder)}
            if beside and beside <= work.at_end:
                self._remove(beside)
            self._folders.remove_if_empty(folder)

    def _empty_staging(self) -> None:
        """Drop what was taken out, now or by a run that was killed."""
        if os.path.lexists(self.root / _REMOVED):
            self._folders.remove_all(_REMOVED)
        for folder in (STAGING, STAGING.parent):
            self._folders.remove_if_empty(folder)


def _real_folders(root: Path, paths: Iterable[RelativePath]) -> list[RelativePath]:
    """The folders on the way to `paths`, the outer ones first, as far as no link is on the way."""
    real: dict[RelativePath, None] = {}
    for folder in sorted(folders_above(paths), key=lambda folder: len(folder.parts)):
        above = folder.parent
        is_reached = not above.parts or above in real
        if is_reached and (root / folder).is_dir() and not (root / folder).is_symlink():
            real[folder] = None
    return list(real)


def _step(root: Path, path: RelativePath) -> int:
    """When a path is to go: what makes others visible first, what others lead to last."""
    if path.parts[1:2] == ("refs",):
        return _REF
    if (root / path).is_symlink():
        return _LINK
    if path.parts[1:2] == ("trees",):
        return _LISTING  # Until then it tells a reader that files are missing.
    return _BLOB if path.parts[1:2] == ("blobs",) else _FILE


def _whole_folders(root: Path, gone: Set[RelativePath]) -> set[RelativePath]:
    """The highest folders below `root` that hold nothing but what goes."""
    going: set[RelativePath] = set()
    for folder in sorted(folders_above(gone), key=lambda path: len(path.parts), reverse=True):
        with os.scandir(root / folder) as entries:
            paths = [folder / entry.name for entry in entries]
        if all(path in gone or path in going for path in paths):
            going.add(folder)
    return {folder for folder in going if going.isdisjoint(folder.parents)}
