"""Snapshots -> what there is to do below each root, and doing it."""

from __future__ import annotations

import io
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from bundler.archive import BundleReader
from bundler.code import code_of, refuse_code
from bundler.digest import Blob, Digest
from bundler.environment import Roots
from bundler.errors import FormatError, RequestError, TargetError, shown
from bundler.folders import STAGING
from bundler.history import settled, with_moves
from bundler.known import Known
from bundler.layouts import LAYOUTS, layout_of
from bundler.layouts.flat import Flat, plain_forms
from bundler.layouts.hf_cache import HuggingFaceCache
from bundler.layouts.placement import Absent, Placement, Sealed
from bundler.manifest import Snapshot
from bundler.names import folders_above
from bundler.permission import check_permission
from bundler.place import Target, has_staging
from bundler.progress import Progress
from bundler.provenance import Provenance
from bundler.receipt import Receipt
from bundler.receipt_folder import receipt_folder, receipt_path, write_receipt
from bundler.relative import RelativePath
from bundler.sharing import LinkMode
from bundler.space import check_space
from bundler.staging import share, stage, taking_space
from bundler.survey import Survey, can_link, links_wanted, redirected

_HUB = HuggingFaceCache.root
"""The name of the root in which a repository may be known by several names."""
_ROOTS = {layout.root for layout in LAYOUTS}
_FREE = {"datasets", "insightface", "checkpoints"}
"""The names of all roots, and of those below which a bundle says itself what is called how."""
_PLAIN = Flat.root
"""The name of the root that may share what the others hold."""


@dataclass(frozen=True, slots=True)
class How:
    """What the user said about the way to install."""

    checkpoints: bool
    """Whether models and single files go into plain folders, too."""
    link_mode: LinkMode
    code: bool
    jobs: int | None
    keep_refs: bool


def install(
    reader: BundleReader,
    snapshots: Sequence[Snapshot],
    roots: Roots,
    known: Known,
    how: How,
    progress: Progress,
    repairs: Sequence[BundleReader] = (),
) -> dict[str, Survey]:
    """Do what there is to do below each root; the result tells what it was.

    `repairs`: bundles to take from what `reader` does not have as it should be.
    """
    forms = [_Form(snapshot, snapshot) for snapshot in snapshots]
    if how.checkpoints:
        forms += [_Form(model, form) for model, form in plain_forms(snapshots)]
    with ExitStack() as stack:
        by_root = _by_root(forms)
        targets = {name: Target(roots.path(name), progress) for name in by_root}
        for name in sorted(targets):  # For all in one order: no two wait for each other.
            stack.enter_context(targets[name])
        if any(target.waited for target in targets.values()):
            known = known.afresh()  # What was waited for has been noted.
        work = {}
        for name, target in targets.items():
            # Again, now that nobody else writes there; what was read is not read twice.
            placements = _placements(by_root[name], target.root, target.links)
            found = known.survey(name, placements, progress)
            work[name] = settled(
                found, roots.kept_as(name), reader.digest, known.receipts, how.keep_refs
            )
        check_space(
            {
                target.root: [
                    file
                    for file in taking_space(name, work, roots, how.link_mode)
                    if not target.has(file.blob)
                ]
                for name, target in targets.items()
            }
        )
        stage(reader, work, targets, how.jobs, progress, known, repairs)
        share(work, roots, targets, how.link_mode, progress)
        if not how.code:
            check_code(snapshots, work, roots, targets)
        for name, target in targets.items():
            target.build(work[name])
        # Before anything becomes visible: after a kill, it tells what is bundler's own, and what
        # refs said that have been moved.
        origins = Provenance(known.receipts, work, targets, roots)
        stands = ((form.model, form.root, form.stands) for form in forms)
        receipt = Receipt(reader.digest, origins.models(stands))
        pending = with_moves(receipt, work, roots, pending=True)
        moved = with_moves(receipt, work, roots, pending=False)
        write_receipt(roots.hf_home, pending, progress)
        for name, target in targets.items():
            target.publish(work[name])
        if pending != moved:
            write_receipt(roots.hf_home, moved, progress)
    return work


def is_left(
    bundle: Digest,
    snapshots: Sequence[Snapshot],
    work: Mapping[str, Survey],
    roots: Roots,
    known: Known,
) -> bool:
    """Whether there is something to write for `work`; TargetError if it may not be written."""
    if known.all_of(bundle, snapshots, work) and not any(
        has_staging(roots.path(name)) for name in work
    ):
        return False
    folders = [
        roots.path(name) / folder
        for name, found in work.items()
        for folder in (*sorted(found.folders), STAGING)
    ]
    try:
        check_permission([*folders, receipt_path(roots.hf_home, bundle).parent], "--root")
    except TargetError:
        if all(found.is_done for found in work.values()):
            return False  # All is there, and it only cannot be noted.
        raise
    return True


@dataclass(frozen=True, slots=True)
class _Form:
    """A model in a layout that it is put in: that of the manifest, or plain folders."""

    model: Snapshot
    snapshot: Snapshot
    """The same in this layout."""
    stands: list[Placement] = field(default_factory=list)
    """All that is to stand for it. Kept, since to make it again would take its memory again."""

    @property
    def root(self) -> str:
        """The name of the root that it is put below."""
        return layout_of(self.snapshot).root


def _by_root(forms: Iterable[_Form]) -> dict[str, list[_Form]]:
    """The forms below each root; plain folders come last, since they may lead into caches."""
    by_root: dict[str, list[_Form]] = defaultdict(list)
    for form in forms:
        by_root[form.root].append(form)
    return dict(sorted(by_root.items(), key=lambda item: item[0] == _PLAIN))


def _placements(forms: Iterable[_Form], root: Path, links: bool) -> Iterator[Placement]:
    """What each form needs below its root; what is to stand there is noted in the form."""
    for form in forms:
        placements: Iterable[Placement] = _placed(form.snapshot, root, links)
        if form.root == _HUB:
            placements = redirected(root, placements)
        for placement in placements:
            if not isinstance(placement, (Absent, Sealed)):
                form.stands.append(placement)
            yield placement


def _placed(snapshot: Snapshot, root: Path, links: bool) -> Iterator[Placement]:
    try:
        yield from layout_of(snapshot).place(snapshot, can_link(root, links))
    except ValueError as error:
        raise FormatError(f"the manifest of this bundle is refused: {error}") from None


def survey_all(
    bundle: Digest,
    snapshots: Sequence[Snapshot],
    roots: Roots,
    known: Known,
    keep_refs: bool,
    progress: Progress,
) -> dict[str, Survey]:
    """What there is to do below each root, by its name.

    Raises RequestError if two are one folder, or plain folders are to be inside a cache.
    """
    work = {}
    places: dict[Path, str] = {}
    by_root = _by_root(_Form(snapshot, snapshot) for snapshot in snapshots)
    for name in by_root:
        other = places.setdefault(roots.path(name).resolve(), name)
        if other != name:
            raise RequestError(
                f"{roots.path(name)} cannot be two folders at once, that of {other} and that of "
                f"{name}: name another one"
            )
    for place, name in places.items():
        if name != _PLAIN and place in roots.path(_PLAIN).resolve().parents and _PLAIN in by_root:
            raise RequestError(
                f"{roots.path(_PLAIN)} is inside {roots.path(name)}, which is a cache: name "
                "another folder with --checkpoints"
            )
    for name, members in by_root.items():
        root = roots.path(name)
        placements = _placements(members, root, links_wanted())
        found = known.survey(name, placements, progress)
        known.add(name, found)
        work[name] = settled(found, roots.kept_as(name), bundle, known.receipts, keep_refs)
    return work


def check_apart(work: Mapping[str, Survey], roots: Roots, env: Path | None) -> None:
    """Raise FormatError if something would stand where another root, receipts or `env` do.

    Where one root is inside another, what is kept below free names could pass for what is not.
    """
    own = [receipt_folder(roots.hf_home).parent, *map(roots.path, _ROOTS), *([env] if env else [])]
    places = [Path(os.path.realpath(place)) for place in own]
    for name in work.keys() & _FREE:
        root = Path(os.path.realpath(roots.path(name)))
        inner = {RelativePath(p.relative_to(root)) for p in places if root in p.parents}
        above = folders_above(inner)
        for placement in work[name].wanted if inner else ():
            path = placement.path
            if path in above or not inner.isdisjoint((path, *path.parents)):
                raise FormatError(
                    f"the bundle puts something at {shown(roots.path(name) / path)}, where "
                    "something else is kept: unpack to places that are not inside each other"
                )


def check_code(
    snapshots: Sequence[Snapshot],
    work: Mapping[str, Survey],
    roots: Roots,
    targets: Mapping[str, Target],
) -> None:
    """Raise TrustError if the content of a model holds code, whatever the manifest says."""
    places = {
        file.blob.digest: roots.path(name) / file.path
        for name, survey in work.items()
        for file in survey.wanted_files
        if file.path in survey.present
    }

    def open_blob(blob: Blob) -> BinaryIO:
        if blob.digest in places:
            return open(places[blob.digest], "rb")
        staged = [target for target in targets.values() if target.has(blob)]
        # Neither: a file that the user has edited, which is left as it is.
        return staged[0].open(blob) if staged else io.BytesIO()

    refuse_code(snapshots, lambda snapshot: code_of(snapshot, open_blob))
