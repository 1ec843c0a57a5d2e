"""What stands below a root, compared with what should: reads only, decides what there is to do."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from bundler.content import holds
from bundler.digest import Blob, Digest
from bundler.disk import is_link, names_in, states_below
from bundler.environment import TRUE
from bundler.errors import FormatError, TargetError, shown
from bundler.folders import ALIKE, STAGING
from bundler.layouts.placement import Absent, File, Link, Placement, Sealed, Text
from bundler.moves import Move, moves_of
from bundler.names import folders_above
from bundler.permission import told
from bundler.progress import Progress
from bundler.relative import RelativePath

Edited = Callable[[RelativePath, Blob], bool]
"""Whether a file below the root, which is not that blob, may be one that the user has edited."""
Trusted = Callable[[RelativePath, Blob, int], bool]
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
    present: Mapping[RelativePath, int]
    """When each file that stands there was last changed, in nanoseconds, before it was read."""
    edited: frozenset[RelativePath] = frozenset()
    """Files that were put there and have been changed since, on purpose: they are left alone."""
    moves: tuple[Move, ...] = ()
    """Refs and branches that lead to another commit."""

    @property
    def present_size(self) -> int:
        """Of the files that stand there."""
        return sum(file.blob.size for file in self.wanted_files if file.path in self.present)

    @property
    def wanted_files(self) -> Iterator[File]:
        """The files among all that is wanted."""
        return (placement for placement in self.wanted if isinstance(placement, File))

    @property
    def blobs(self) -> dict[Digest, Blob]:
        """What must be read from the bundle."""
        return {file.blob.digest: file.blob for file in self.files}

    @property
    def is_done(self) -> bool:
        """Whether all that is wanted stands there."""
        return not (self.files or self.links or self.texts or self.absent)

    @property
    def size(self) -> int:
        """Space that the files to write take."""
        return sum(file.blob.size for file in self.files)

    @property
    def folders(self) -> set[RelativePath]:
        """Where something is to be put, replaced or removed."""
        changed: tuple[Placement, ...] = (*self.files, *self.links, *self.texts, *self.absent)
        return {placement.path.parent for placement in changed}

    def keeping(self, paths: Collection[RelativePath]) -> Survey:
        """The same, but that those of the moves at `paths` are not made, and no longer wanted."""
        moves = tuple(replace(move, is_kept=move.path in paths) for move in self.moves)
        kept = {move.path for move in moves if move.is_kept}
        return replace(
            self,
            wanted=tuple(p for p in self.wanted if p.path not in kept),
            links=tuple(link for link in self.links if link.path not in kept),
            texts=tuple(text for text in self.texts if text.path not in kept),
            moves=moves,
        )


def links_wanted() -> bool:
    """Whether links may be made at all: huggingface_hub/constants.py has the variable."""
    disabled = os.environ.get("HF_HUB_DISABLE_SYMLINKS", "").upper()
    return disabled not in TRUE


def can_link(root: Path, links: bool) -> Callable[[RelativePath], bool]:
    """What `Layout.place` asks: may a link stand at a path below `root`?"""
    state_of = states_below(root)

    def at(path: RelativePath) -> bool:
        state = state_of(path)
        return links if state is None else stat.S_ISLNK(state.st_mode)

    return at


def survey(
    root: Path,
    placements: Iterable[Placement],
    trusted: Trusted,
    progress: Progress,
    *,
    edited: Edited = lambda _path, _blob: False,
    makes_links: bool = False,
) -> Survey:
    """Compare `placements` with what stands below `root`; reads only.

    A file of the right size counts as present if `trusted` says so, else if its content has the
    right digest. `edited` tells which others are to be left alone. `makes_links`: files here may be
    links that bundler made. Raises FormatError if two placements contradict each other, TargetError
    if something stands in the way.
    """
    with told(root, "--root"):
        state_of = states_below(root)
        # Most markers are not there, and then there is nothing to do about them.
        placements = (
            p for p in placements if not isinstance(p, Absent) or _hides(state_of(p.path))
        )
        found = without_contradictions(placements)
        _check_obstacles(root, found)
        absent = tuple(p for p in found if isinstance(p, Absent))
        wanted = tuple(p for p in found if not isinstance(p, Absent))
        files = [p for p in wanted if isinstance(p, File)]
        present, kept = _present_files(root, files, trusted, edited, makes_links, progress)
        stands = present.keys() | kept
        missing_files = tuple(file for file in files if file.path not in stands)
        for sealed in (p for p in wanted if isinstance(p, Sealed)):
            _check_sealed(root, sealed, (file.path for file in missing_files))
        links = [p for p in wanted if isinstance(p, Link)]
        blobs = cache(lambda: {file.path: file.blob for file in files})  # Hardly ever asked for.
        missing_links = tuple(p for p in links if not _link_stands(root, p, blobs))
        texts = tuple(_missing_texts(root, [p for p in wanted if isinstance(p, Text)]))
        _check_names(root, (*missing_files, *missing_links, *texts))
        return Survey(
            wanted=wanted,
            files=missing_files,
            links=missing_links,
            texts=texts,
            absent=absent,
            present=present,
            edited=kept,
            moves=tuple(moves_of(root, missing_links, texts)),
        )


def redirected(root: Path, placements: Iterable[Placement]) -> Iterator[Placement]:
    """The placements where an alias in the cache leads them.

    An earlier bundle may have stored this repository under its other name, and have made the
    folder that we would write to a link to that one: then that is where to write.
    """
    homes: dict[str, RelativePath] = {}
    for placement in placements:
        folder, _, inner = placement.path.partition("/")
        if inner and folder not in homes:
            homes[folder] = _home(root, folder)
        if not inner or homes[folder] == folder:
            yield placement
            continue
        home = homes[folder]
        moved = replace(placement, path=home / placement.path.relative_to(folder))
        if isinstance(moved, Link) and moved.target.parts[0] == folder:
            moved = replace(moved, target=home / moved.target.relative_to(folder))
        yield moved


def _home(root: Path, folder: str) -> RelativePath:
    """The folder itself, or the real one beside it that it is a link to; no other link counts."""
    if (root / folder).is_symlink():
        target = os.readlink(root / folder)
        beside = "/" not in target and target not in (".", "..")
        if beside and (root / target).is_dir() and not (root / target).is_symlink():
            return RelativePath(target)
    return RelativePath(folder)


def without_contradictions(placements: Iterable[Placement]) -> list[Placement]:
    """Each path once; FormatError if two things want to stand at it, or one below another."""
    by_path: dict[RelativePath, Placement] = {}
    sealed = []
    ours = STAGING.parts[0]
    for placement in placements:
        if isinstance(placement, Sealed):
            sealed.append(placement)
            continue
        # In any case of letters: some file systems take them for one.
        if placement.path.partition("/")[0].lower() == ours:
            raise FormatError(
                f"the bundle puts something at {shown(placement.path)}, which is ours"
            )
        other = by_path.setdefault(placement.path, placement)
        if other is not placement and _meaning(other) != _meaning(placement):
            raise FormatError(f"the bundle puts two different things at {shown(placement.path)}")
    for folder in by_path.keys() & folders_above(by_path):
        raise FormatError(f"the bundle makes {shown(folder)} both a folder and something else")
    return [*by_path.values(), *sealed]


def _check_obstacles(root: Path, wanted: Iterable[Placement]) -> None:
    """Raise TargetError if a link or a file stands where a folder is needed, before any change."""
    needed = folders_above(placement.path for placement in wanted)
    for folder in sorted(needed, key=lambda folder: len(folder.parts)):
        path = root / folder
        if os.path.lexists(path) and (path.is_symlink() or not path.is_dir()):
            raise TargetError(f"{path} is a link or a file where a folder belongs: move it away")


def _hides(state: os.stat_result | None) -> bool:
    """Whether a marker is there; a folder of that name marks nothing."""
    return state is not None and (stat.S_ISLNK(state.st_mode) or stat.S_ISREG(state.st_mode))


def _meaning(placement: Placement) -> object:
    if isinstance(placement, Text):
        return (Text, placement.content)
    return placement


def _present_files(
    root: Path,
    files: Iterable[File],
    trusted: Trusted,
    edited: Edited,
    makes_links: bool,
    progress: Progress,
) -> tuple[dict[RelativePath, int], frozenset[RelativePath]]:
    """The files that stand there with their times of change, and those that were edited.

    Raises TargetError if something else stands there that may be somebody's own.
    """
    state_of = states_below(root)
    present: dict[RelativePath, int] = {}
    others: list[File] = []
    doubtful: dict[File, int] = {}
    for file in files:
        state = state_of(file.path)
        if state is None:
            continue
        path = os.path.join(root, file.path)
        if stat.S_ISLNK(state.st_mode):
            try:
                state = os.stat(path)
            except (FileNotFoundError, NotADirectoryError):
                # Bundler's own links, which may lead into a cache that is gone, are relative ones.
                if os.path.isabs(os.readlink(path)) or not makes_links:
                    others.append(file)
                continue
        if stat.S_ISDIR(state.st_mode):
            raise TargetError(f"{path} is a folder where a file belongs: move it away")
        if not stat.S_ISREG(state.st_mode) or state.st_size != file.blob.size:
            others.append(file)
        elif trusted(file.path, file.blob, state.st_mtime_ns):
            present[file.path] = state.st_mtime_ns
        else:
            doubtful[file] = state.st_mtime_ns
    total = sum(file.blob.size for file in doubtful)
    with progress.start("checking what is there", total) as meter:
        for file, mtime_ns in doubtful.items():
            if holds(root / file.path, file.blob, meter.add):
                present[file.path] = mtime_ns
            else:
                others.append(file)
    kept = frozenset(file.path for file in others if edited(file.path, file.blob))
    in_the_way = [f.path for f in others if not f.by_content and f.path not in kept]
    if in_the_way:
        others_too = len(in_the_way) - 1
        more = f" (and {others_too} more so)" if others_too else ""
        raise TargetError(
            f"{root / in_the_way[0]} is there, with other content than the bundle has for it"
            f"{more}: move it away, or unpack elsewhere"
        )
    return present, kept


def _check_names(root: Path, changed: Iterable[Placement]) -> None:
    """Raise TargetError if what one of these would replace has another name."""
    state_of = states_below(root)

    @cache
    def names_of(folder: str) -> frozenset[str]:
        return frozenset(names_in(root / folder))

    for path in (placement.path for placement in changed):
        folder, _, name = path.rpartition("/")
        if state_of(path) is not None and name not in names_of(folder):
            raise TargetError(
                f"the file system of {root} takes {root / path} and what is there for one, {ALIKE}"
            )


def _check_sealed(root: Path, sealed: Sealed, missing: Iterable[RelativePath]) -> None:
    """Raise TargetError if the folder is there without some of the files that belong into it."""
    folder = root / sealed.path
    if folder.is_dir() and any(sealed.path in path.parents for path in missing):
        raise TargetError(
            f"{folder} is there, with other content than the bundle has for it: move it away, "
            "or unpack elsewhere"
        )


def _link_stands(root: Path, link: Link, blobs: Callable[[], Mapping[RelativePath, Blob]]) -> bool:
    """Whether the link is there, or another one that leads to the same content.

    `blobs`: those that are wanted, by their paths.
    """
    there = os.path.join(root, link.path)
    if not is_link(there):
        return False
    if os.readlink(there) == link.text:
        return True
    path = Path(there)
    if link.moved_from:
        if re.fullmatch(link.moved_from, os.readlink(path)):
            return False
        raise TargetError(f"{path} is a link to another folder: move it away")
    blob = blobs().get(link.target)
    if blob is None:
        if path.is_dir() and path.resolve() != (root / link.target).resolve():
            raise TargetError(f"{path} is a link to another folder: move it away")
        return path.is_dir()
    return path.is_file() and holds(path, blob)


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
        if text.merge is not None and before != after:
            after = text.merge(before, lambda path: (root / path).exists())
        if after != before:
            yield replace(text, content=after)
