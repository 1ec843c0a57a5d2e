"""Which files are the volumes of a split bundle, in the folders that somebody has named."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from bundler.digest import Digest
from bundler.disk import entries, start_of
from bundler.errors import DamagedError, FormatError, RequestError
from bundler.volume_list import (
    LIST_SUFFIX,
    MAX_LIST_SIZE,
    VolumeList,
    in_words,
    split_name,
    volume_name,
)


class VolumeFiles:
    """The files of one split bundle. Folders may come and go, as sticks do.

    `base` is the name that the bundle would have if it were whole; `list` says what volumes there
    are, and is None if there is no list in any of `folders`.
    """

    def __init__(self, base: str, folders: Sequence[Path]) -> None:
        """Look for the list. Raises FormatError if it is none, or not the same in all folders."""
        self.base = base
        self.folders = folders
        self.list: VolumeList | None = None
        self._list_path: Path | None = None
        self._equal: set[tuple[Path, Path]] = set()
        """What was compared."""
        self.look_again()

    def numbers(self) -> list[int]:
        """Which volumes are here now, counted from 0."""
        found = {split_name(p.name) for folder in self.folders for p in entries(folder)}
        numbers = sorted(item[1] for item in found if item is not None and item[0] == self.base)
        return [number for number in numbers if any(self._candidates(number))]

    def path(self, number: int) -> Path | None:
        """The file of a volume, if it is here now.

        Raises DamagedError if there are two with different content.
        """
        found = [*self._candidates(number)]
        for other in found[1:]:
            if (found[0], other) not in self._equal and not _equal(found[0], other):
                raise DamagedError(
                    f"{self.words([number])} is there twice, with different content: {found[0]} "
                    f"and {other}: leave out the one that sha256sum -c finds wrong"
                )
            self._equal.add((found[0], other))
        return found[0] if found else None

    def check_id(self, found: Digest) -> None:
        """Raise FormatError if the list is of another bundle than `found`, by the manifest."""
        if self.list is not None and self.list.bundle != found:
            raise FormatError(
                f"{self.words([0])} is of another bundle than the list of volumes: "
                f"{str(found)[:15]}…, not {str(self.list.bundle)[:15]}…"
            )

    def words(self, numbers: Sequence[int]) -> str:
        """These volumes, as a user knows them."""
        return in_words(numbers, self.base, len(self.list.volumes) if self.list else None)

    def look_again(self) -> None:
        """Read the lists that are here now; raises as the class does."""
        for folder in self.folders:
            path = folder / (self.base + LIST_SUFFIX)
            if not os.path.isfile(path):
                continue
            try:
                found = VolumeList.from_bytes(start_of(path, MAX_LIST_SIZE + 1))
            except OSError as error:
                raise RequestError(f"cannot open {path}: {error.strerror}") from None
            except FormatError as error:
                raise FormatError(f"{path} {error}") from None
            if self.list is None:
                self.list, self._list_path = found, path
            elif found.bundle != self.list.bundle:
                raise FormatError(
                    f"{path} is of another bundle than {self._list_path}: "
                    f"{str(found.bundle)[:15]}…, not {str(self.list.bundle)[:15]}…"
                )
            elif found != self.list:
                raise FormatError(
                    f"{path} and {self._list_path} cut the same bundle in different places: "
                    "their volumes do not go together"
                )

    def _candidates(self, number: int) -> Iterator[Path]:
        paths = (folder / volume_name(self.base, number) for folder in self.folders)
        return (path for path in paths if os.path.isfile(path))


def find_volumes(paths: Sequence[Path]) -> VolumeFiles | None:
    """The volumes that `paths` mean; None for one path that is anything else.

    A path is a folder, a volume, a list of volumes, or the name of a bundle that was split.
    Raises RequestError if the paths do not mean one bundle, and as `VolumeFiles` does.
    """
    if not paths:
        raise RequestError("no bundle is named")
    named: set[str] = set()
    folders = []
    for path in paths:
        if path.is_dir():
            folders.append(path)
            continue
        base = _bundle_of(path, several=len(paths) > 1)
        if base is None:
            if len(paths) == 1:
                return None
            if path.exists():
                raise RequestError(f"{path} is no volume: a whole bundle is named alone")
            raise RequestError(f"cannot open {path}: there is no such file")
        named.add(base)
        folders.append(path.parent)
    folders = list(dict.fromkeys(folders))
    named = named or _bundles_in(folders)
    if len(named) > 1:
        some = ", ".join(sorted(named)[:5]) + ", …" * (len(named) > 5)
        raise RequestError(f"there are volumes of several bundles, name one of them: {some}")
    return VolumeFiles(named.pop(), folders)


def _bundle_of(path: Path, several: bool) -> str | None:
    """The name of the bundle of which `path` is a part, or which it would be if it were whole."""
    numbered = split_name(path.name)
    base = numbered[0] if numbered else path.name.removesuffix(LIST_SUFFIX)
    if not path.exists():
        bases = {base for _, base in _volumes_in(path.parent)}
        return next((name for name in (path.name, base) if name in bases), None)
    if base == path.name:
        return None
    if several or numbered is None or numbered[1] == 0:
        return base
    # A whole bundle may be called like this, too.
    beside = (volume_name(base, 0), base + LIST_SUFFIX)
    return base if any(path.with_name(name).exists() for name in beside) else None


def _bundles_in(folders: Sequence[Path]) -> set[str]:
    """The names of the bundles of which there are volumes in `folders`."""
    found = [item for folder in folders for item in _volumes_in(folder)]
    # Other files may end in digits, too.
    named = {base for name, base in found if name.endswith(LIST_SUFFIX)}
    named = named or {base for _, base in found}
    if not named:
        raise RequestError(f"{folders[0]} is a folder: name the bundle in it")
    for folder in folders:
        for base in sorted(named):
            if (folder / base).is_file():
                raise RequestError(f"{folder} has {base} whole and in volumes: name one of them")
    return named


def _volumes_in(folder: Path) -> Iterator[tuple[str, str]]:
    """The names of volumes and lists in a folder, and of which bundle they are."""
    for path in entries(folder):
        if path.name.endswith(LIST_SUFFIX):
            yield path.name, path.name.removesuffix(LIST_SUFFIX)
        elif numbered := split_name(path.name):
            yield path.name, numbered[0]


def _equal(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other) or filecmp.cmp(one, other, shallow=False)
    except OSError as error:
        raise DamagedError(f"{error.filename} cannot be read: {error.strerror}") from None
