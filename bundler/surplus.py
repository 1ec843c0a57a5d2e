"""What stands for some models and for nothing else: reads only, decides what is to go."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bundler.content import holds
from bundler.disk import PYTHON_CACHE, names_in
from bundler.environment import Roots
from bundler.filled import places_below
from bundler.layouts.hf_cache import listed, listing
from bundler.progress import Progress
from bundler.receipt import InstalledFile, InstalledModel, InstalledPointer, Place
from bundler.relative import RelativePath

_CHANGED = "it was changed since"
_IN_USE = "another snapshot leads to it"
_BELOW_LINK = "a folder above it is a link now"


@dataclass
class Surplus:
    """What is to be done so that some models are gone, and what must be left as it is."""

    texts: dict[Place, str] = field(default_factory=dict)
    """Small files to write anew, with what they will say."""
    links: dict[Place, str] = field(default_factory=dict)
    """Links to turn, with what they will say."""
    gone: set[Place] = field(default_factory=set)
    """Files, links and texts to remove."""
    at_end: set[Place] = field(default_factory=set)
    """Texts to remove if nothing else is left beside them."""
    kept: dict[Place, str] = field(default_factory=dict)
    """What bundler put there, and why it stays all the same."""
    freed: int = 0
    """Bytes on the disk that go with `gone`."""


def surplus(
    chosen: Sequence[InstalledModel],
    staying: Sequence[InstalledModel],
    roots: Roots,
    progress: Progress,
) -> Surplus:
    """What of `chosen` nothing else uses, and is as bundler put it there.

    `staying`: all other models that are installed. Raises OSError.
    """
    search = _Search(chosen, staying, roots)
    # In this order: which blobs are in use, and what a listing names, depends on what goes.
    search.links()
    search.files(progress)
    search.texts()
    search.compiled()
    search.found.freed = search.freed()
    return search.found


class _Search:
    def __init__(
        self, chosen: Sequence[InstalledModel], staying: Sequence[InstalledModel], roots: Roots
    ) -> None:
        self.found = Surplus()
        self._roots = roots
        self._chosen = chosen
        self._used = {place for model in staying for place in model.places}
        self._named = self._used | {place for model in chosen for place in model.places}
        self._claims = _said((*model.links, *model.texts) for model in staying)
        self._below_link: dict[Place, bool] = {}
        self._linked: dict[Place, set[RelativePath]] = {}
        self._foreign: dict[Place, bool] = {}

    def _path(self, place: Place) -> Path:
        return self._roots.kept_at(place[0]) / place[1]

    def _is_out_of_reach(self, place: Place) -> bool:
        """Whether a folder on the way is a link now, which is not followed; noted if so."""
        if self._has_link_above(place):
            self.found.kept[place] = _BELOW_LINK
        return place in self.found.kept

    def _has_link_above(self, place: Place) -> bool:
        folder = place[0], place[1].parent
        if not folder[1].parts:
            return False
        if folder not in self._below_link:
            is_link = self._has_link_above(folder) or self._path(folder).is_symlink()
            self._below_link[folder] = is_link
        return self._below_link[folder]

    def links(self) -> None:
        """What becomes of the links."""
        for place, texts in _said(model.links for model in self._chosen).items():
            path = self._path(place)
            if not os.path.lexists(path) or self._is_out_of_reach(place):
                continue
            said = os.readlink(path) if path.is_symlink() else None
            leads = _leads_below(path.parent)
            settled = self._settle(place, said, texts, leads, self.found.links)
            if not settled and place not in self._used:
                self.found.kept[place] = _CHANGED

    def texts(self) -> None:
        """What becomes of refs, listings and the like."""
        for place, texts in _said(model.texts for model in self._chosen).items():
            path = self._path(place)
            if not os.path.lexists(path) or self._is_out_of_reach(place):
                continue
            try:
                said = path.read_text("utf-8")
            except UnicodeDecodeError:
                said = ""
            repository = place[0], RelativePath(place[1].parts[0])
            if place[1].parts[1:2] == ("trees",):
                self._shorten(place, said, texts[None])
            elif None in texts:
                if texts[None] is None and said == "" and place not in self._used:
                    self.found.at_end.add(place)
            elif not self._is_in_foreign_use(repository, said):
                # One that somebody has moved since is theirs.
                leads = _leads_below(self._path(repository) / "snapshots")
                self._settle(place, said, texts, leads, self.found.texts)

    def _settle(
        self,
        place: Place,
        said: str | None,
        texts: Mapping[str | None, str | None],
        leads: Callable[[str], bool],
        turned: dict[Place, str],
    ) -> bool:
        """Decide on a link or a ref that says `said`; False if that is nothing bundler wrote.

        `texts`: what the models that go have it say, and what it said before. `leads`: whether a
        text leads to something. It is turned back to what other models want, or to what was there.
        """
        claims = self._claims.get(place, {})
        if said in claims:
            return True
        if said not in texts:
            return False
        before = texts[said]
        if before == said:
            return True
        candidates = [text for text in (*claims, before) if text is not None]
        goal = next(filter(leads, candidates), None)
        if goal is not None:
            turned[place] = goal
        elif place not in self._used:
            self.found.gone.add(place)
        return True

    def _shorten(self, place: Place, said: str, before: str | None) -> None:
        """Take what goes out of a listing, and what bundler added to it."""
        content = RelativePath(place[1].parts[0]) / "snapshots" / place[1].stem
        now, earlier = listed(said) or {}, listed(before or "") or {}
        left = {}
        for path, entry in now.items():
            listed_place = place[0], content / path
            if listed_place in self.found.gone or not self._path(listed_place).exists():
                continue
            if listed_place in self._used or listed_place not in self._named:
                left[path] = entry
            elif path in earlier:
                left[path] = earlier[path]
        if left and before is not None and left == earlier:
            if before != said:
                self.found.texts[place] = before
        elif left and left != now:
            self.found.texts[place] = listing(left)
        elif not left:
            self.found.gone.add(place)

    def _is_in_foreign_use(self, repository: Place, commit: str) -> bool:
        """Whether something that no receipt names is in a snapshot: somebody came to use it."""
        if commit not in names_in(self._path(repository) / "snapshots"):
            return False
        folder = repository[0], repository[1] / "snapshots" / commit
        if folder not in self._foreign:
            below = places_below(folder, self._path(folder))
            self._foreign[folder] = any(place not in self._named for place in below)
        return self._foreign[folder]

    def files(self, progress: Progress) -> None:
        """What becomes of the files; those that may have been changed are read."""
        doubtful = []
        own = {f.place: f for model in self._chosen for f in model.files if not f.found}
        for place, file in own.items():
            path = self._path(place)
            if place in self._used or not os.path.lexists(path) or self._is_out_of_reach(place):
                continue
            if self._is_linked(place):
                self.found.kept[place] = _IN_USE
            elif path.is_symlink() and not path.exists() and _is_own_link(file, path):
                self.found.gone.add(place)
            else:
                state = path.stat()
                if (
                    not stat.S_ISREG(state.st_mode)
                    or state.st_size != file.blob.size
                    or (path.is_symlink() and not _is_own_link(file, path))
                ):
                    self.found.kept[place] = _CHANGED
                elif state.st_mtime_ns == file.mtime_ns:
                    self.found.gone.add(place)
                else:
                    doubtful.append(file)
        total = sum(file.blob.size for file in doubtful)
        with progress.start("checking what is there", total) as meter:
            for file in doubtful:
                if holds(self._path(file.place), file.blob, meter.add):
                    self.found.gone.add(file.place)
                else:
                    self.found.kept[file.place] = _CHANGED

    def _is_linked(self, place: Place) -> bool:
        """Whether it is a blob of a hub cache that a snapshot which stays leads to."""
        root, path = place
        if root != "hub" or path.parts[1:2] != ("blobs",):
            return False
        repository = root, RelativePath(path.parts[0])
        if repository not in self._linked:
            self._linked[repository] = set(self._led_to(repository))
        return path in self._linked[repository]

    def _led_to(self, repository: Place) -> Iterator[RelativePath]:
        """What the links of the snapshots of `repository` that stay lead to."""
        base = os.path.realpath(self._roots.kept_at(repository[0]))
        folder = repository[0], repository[1] / "snapshots"
        for place in places_below(folder, self._path(folder)):
            path = self._path(place)
            if place in self.found.gone or not path.is_symlink():
                continue
            text = os.readlink(path)
            if os.path.isabs(text):
                yield RelativePath(os.path.relpath(os.path.realpath(text), base))
            else:
                yield place[1].led_to(text)

    def compiled(self) -> None:
        """Add what Python compiled of the code that goes."""
        stems: dict[Place, set[str]] = defaultdict(set)
        for root, path in self.found.gone:
            if root == "torch" and path.suffix == ".py":
                stems[root, path.parent / PYTHON_CACHE].add(path.stem)
        for (root, folder), names in stems.items():
            for name in names_in(self._path((root, folder))):
                if name.endswith(".pyc") and name.partition(".")[0] in names:
                    self.found.gone.add((root, folder / name))

    def freed(self) -> int:
        """Bytes of the files of which every name goes."""
        names: dict[tuple[int, int], int] = defaultdict(int)
        freed = 0
        for place in self.found.gone:
            state = self._path(place).lstat()
            if not stat.S_ISREG(state.st_mode):
                continue
            names[state.st_dev, state.st_ino] += 1
            if names[state.st_dev, state.st_ino] == state.st_nlink:
                freed += state.st_size
        return freed


def _said(
    pointers: Iterable[Iterable[InstalledPointer]],
) -> dict[Place, dict[str | None, str | None]]:
    """What links and texts say where, and what each of them said before."""
    said: dict[Place, dict[str | None, str | None]] = defaultdict(dict)
    for some in pointers:
        for pointer in some:
            said[pointer.place][pointer.text] = pointer.before
    return said


def _leads_below(folder: Path) -> Callable[[str], bool]:
    """Whether a text leads to something from `folder`; hub's readers take a ref as it is."""
    return lambda text: bool(text) and (folder / text).exists()


def _is_own_link(file: InstalledFile, path: Path) -> bool:
    """Whether bundler may have made the link: only plain folders get some, and relative ones."""
    return file.root.startswith("/") and not os.path.isabs(os.readlink(path))
