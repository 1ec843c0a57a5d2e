"""What of an installation is bundler's own, and what stood there before: facts for its receipt."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from itertools import chain
from pathlib import Path

from bundler.digest import Blob
from bundler.disk import is_link
from bundler.environment import Roots
from bundler.layouts.placement import File, Link, Placement, Text
from bundler.manifest import Snapshot
from bundler.permission import told
from bundler.place import Target
from bundler.receipt import (
    InstalledFile,
    InstalledModel,
    InstalledPointer,
    Key,
    Place,
    Receipt,
    key_of,
)
from bundler.relative import RelativePath
from bundler.survey import Survey

_CACHES = ("hub", "torch")
"""Names of the roots that links in plain folders may lead into."""


class _Parts:
    """What stands for one model, each place once."""

    def __init__(self) -> None:
        self.files: dict[str, dict[RelativePath, InstalledFile]] = defaultdict(dict)
        self.links: dict[str, dict[RelativePath, InstalledPointer]] = defaultdict(dict)
        """Both by root and path."""
        self.texts: dict[Place, InstalledPointer] = {}


class Provenance:
    """Compares what is to be published with what stands there, and with what receipts say of it."""

    def __init__(
        self,
        receipts: Iterable[Receipt],
        work: Mapping[str, Survey],
        targets: Mapping[str, Target],
        roots: Roots,
    ) -> None:
        """`work`: what is to be done below each root, staged in `targets`, by the root's name."""
        self._work = work
        self._targets = targets
        self._roots = roots
        self._kept_as = cache(roots.kept_as)
        self._own: set[Place] = set()
        self._before: dict[Place, dict[str | None, str | None]] = {}
        for receipt in receipts:
            for model in receipt.models:
                self._own |= {file.place for file in model.files if not file.found}
                for pointer in (*model.links, *model.texts):
                    known = self._before.setdefault(pointer.place, {})
                    known[pointer.text] = pointer.before
        self._to_write = {
            name: {placement.path for placement in chain[File | Link](todo.files, todo.links)}
            for name, todo in work.items()
        }
        """Paths of files and links, by the root's name."""

    def models(
        self, placed: Iterable[tuple[Snapshot, str, Iterable[Placement]]]
    ) -> tuple[InstalledModel, ...]:
        """What is installed once all is published; `placed`: snapshot, root's name, placements.

        Raises TargetError if what stands there cannot be read.
        """
        models: dict[Key, InstalledModel] = {}
        parts: dict[Key, _Parts] = defaultdict(_Parts)
        for snapshot, name, placements in placed:
            key = key_of(snapshot)
            models.setdefault(key, _model(snapshot))
            with told(self._roots.path(name), "--root"):
                self._add(parts[key], name, placements)
        return tuple(
            replace(
                model,
                files=tuple(chain.from_iterable(f.values() for f in parts[key].files.values())),
                links=tuple(chain.from_iterable(f.values() for f in parts[key].links.values())),
                texts=tuple(parts[key].texts.values()),
            )
            for key, model in models.items()
        )

    def _add(self, parts: _Parts, name: str, placements: Iterable[Placement]) -> None:
        for placement in placements:
            if isinstance(placement, File):
                for file in self._files(name, placement):
                    parts.files[file.root].setdefault(file.path, file)
            elif isinstance(placement, Link):
                link = self._link(name, placement)
                parts.links[link.root][link.path] = link
            elif isinstance(placement, Text):
                text = self._text(name, placement)
                parts.texts[text.place] = text

    def _files(self, name: str, file: File) -> Iterable[InstalledFile]:
        """The file, and the one that it leads to if it is a link out of a plain folder."""
        work, target = self._work[name], self._targets[name]
        if file.path in work.edited:
            return
        time = work.present.get(file.path)
        if time is None:
            time = target.staged_mtime_ns(file.blob)
        installed = self._file(name, file.path, file.blob, time)
        yield installed
        if name not in _CACHES:
            leads_to: str | Path | None
            if file.path not in work.present:
                leads_to = target.pointed(file.blob)
            else:
                link = os.path.join(target.root, file.path)
                leads_to = link if is_link(link) else None
            if leads_to is not None:
                yield from self._in_cache(leads_to, installed)

    def _in_cache(self, place: str | Path, plain: InstalledFile) -> Iterable[InstalledFile]:
        """What a link in a plain folder leads to: without it, the plain file would be none."""
        real = Path(os.path.realpath(place))
        for name in _CACHES:
            root = Path(os.path.realpath(self._roots.path(name)))
            if root in real.parents:
                path = RelativePath(real.relative_to(root))
                yield self._file(name, path, plain.blob, plain.mtime_ns)

    def _file(self, name: str, path: RelativePath, blob: Blob, mtime_ns: int) -> InstalledFile:
        root = self._kept_as(name)
        found = (root, path) not in self._own and not self._is_to_write(name, path)
        return InstalledFile(root, path, blob, mtime_ns, found)

    def _link(self, name: str, link: Link) -> InstalledPointer:
        place = self._kept_as(name), link.path
        there = os.path.join(self._roots.path(name), link.path)
        now = os.readlink(there) if is_link(there) else None
        if now is not None and not self._is_to_write(name, link.path):
            return InstalledPointer(*place, now, self._before_of(place, now))
        # One that led nowhere, or astray, is nothing to go back to; an earlier branch is.
        before = self._before_of(place, now) if link.moved_from else None
        return InstalledPointer(*place, link.text, before)

    def _is_to_write(self, name: str, path: RelativePath) -> bool:
        return path in self._to_write.get(name, ())

    def _text(self, name: str, text: Text) -> InstalledPointer:
        place = self._kept_as(name), text.path
        try:
            now = (self._roots.path(name) / text.path).read_text("utf-8")
        except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
            now = None
        content = text.content if text.merge is None else None
        return InstalledPointer(*place, content, self._before_of(place, now))

    def _before_of(self, place: Place, now: str | None) -> str | None:
        """What stood at `place` before bundler came, where `now` stands there."""
        known = self._before.get(place, {})
        return known[None] if None in known else known.get(now, now)


def _model(snapshot: Snapshot) -> InstalledModel:
    return InstalledModel(
        source=snapshot.source,
        name=snapshot.name,
        layout=snapshot.layout,
        kind=snapshot.kind,
        aliases=snapshot.aliases,
        specs=snapshot.specs,
        needs=snapshot.needs,
        revision=snapshot.revision,
        commit_hash=snapshot.commit_hash,
        size=snapshot.size,
    )
