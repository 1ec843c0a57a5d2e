"""Snapshots -> what there is to do below each root, and doing it."""

from __future__ import annotations

import io
import os
from collections import defaultdict
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

from bundler.archive import BundleReader
from bundler.code import code_of, refuse_code
from bundler.digest import Blob, Digest, VerifiedReader
from bundler.environment import Roots
from bundler.errors import DamagedError, FormatError, RequestError, TargetError, shown
from bundler.folders import STAGING
from bundler.history import settled, with_moves
from bundler.layouts import layout_of
from bundler.layouts.flat import plain_forms
from bundler.layouts.placement import File, Placement
from bundler.manifest import Snapshot
from bundler.members import Member
from bundler.names import folders_above
from bundler.parallel import Count
from bundler.permission import check_permission
from bundler.place import StagedFile, Target, has_staging
from bundler.progress import Progress
from bundler.provenance import Provenance
from bundler.receipt import (
    Receipt,
    key_of,
    read_receipts,
    receipt_folder,
    receipt_path,
    write_receipt,
)
from bundler.relative import RelativePath
from bundler.repairing import mends
from bundler.sharing import SHARED_FROM, LinkMode
from bundler.space import check_space, same_disk
from bundler.stock import places_of
from bundler.survey import Survey, can_link, links_wanted, redirected, survey
from bundler.taking import check_mended, take

_NEVER = -1
"""No file was changed at this time."""
_HUB = "hub"
"""The name of the root in which a repository may be known by several names."""
_ROOTS = ("hub", "torch", "datasets", "insightface", "checkpoints")
_FREE = {"datasets", "insightface", "checkpoints"}
"""The names of all roots, and of those below which a bundle says itself what is called how."""
_PLAIN = "checkpoints"
"""The name of the root that may share what the others hold."""


@dataclass(frozen=True, slots=True)
class How:
    """What the user said about the way to install."""

    link_mode: LinkMode
    code: bool
    jobs: int | None
    keep_refs: bool


def install(
    reader: BundleReader,
    snapshots: Sequence[Snapshot],
    placed: Sequence[Snapshot],
    roots: Roots,
    known: Known,
    how: How,
    progress: Progress,
    repairs: Sequence[BundleReader] = (),
) -> dict[str, Survey]:
    """Do what there is to do below each root; the result tells what it was.

    `placed`: `snapshots`, and what of them goes into plain folders too. `repairs`: bundles to take
    from what `reader` does not have as it should be.
    """
    with ExitStack() as stack:
        by_root = _by_root(placed)
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
        _share(work, roots, targets, how.link_mode, progress)
        if not how.code:
            check_code(snapshots, work, roots, targets)
        for name, target in targets.items():
            target.build(work[name])
        # Before anything becomes visible: after a kill, it tells what is bundler's own, and what
        # refs said that have been moved.
        plain = plain_forms(snapshots) if len(placed) > len(snapshots) else []
        forms = [*((snapshot, snapshot) for snapshot in snapshots), *plain]
        origins = Provenance(known.receipts, work, targets, roots)
        receipt = Receipt(reader.digest, origins.models(_by_model(forms, targets)))
        pending = with_moves(receipt, work, roots, pending=True)
        moved = with_moves(receipt, work, roots, pending=False)
        write_receipt(roots.hf_home, pending)
        for name, target in targets.items():
            target.publish(work[name])
        if pending != moved:
            write_receipt(roots.hf_home, moved)
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


def _by_root(snapshots: Sequence[Snapshot]) -> dict[str, list[Snapshot]]:
    """The snapshots below each root; plain folders come last, since they may lead into caches."""
    by_root: dict[str, list[Snapshot]] = defaultdict(list)
    for snapshot in snapshots:
        by_root[layout_of(snapshot).root].append(snapshot)
    return dict(sorted(by_root.items(), key=lambda item: item[0] == _PLAIN))


def _placements(snapshots: Sequence[Snapshot], root: Path, links: bool) -> Iterator[Placement]:
    for snapshot in snapshots:
        try:
            yield from layout_of(snapshot).place(snapshot, can_link(root, links))
        except ValueError as error:
            raise FormatError(f"the manifest of this bundle is refused: {error}") from None


def _by_model(
    forms: Iterable[tuple[Snapshot, Snapshot]], targets: Mapping[str, Target]
) -> Iterator[tuple[Snapshot, str, Placement]]:
    """All that stands for each model, in each of its forms, with the name of the root."""
    for snapshot, form in forms:
        name = layout_of(form).root
        placements: Iterable[Placement] = _placements(
            [form], targets[name].root, targets[name].links
        )
        if name == _HUB:
            placements = redirected(targets[name].root, placements)
        for placement in placements:
            yield snapshot, name, placement


class Known:
    """What need not be read again: what receipts vouch for, and what this run has read."""

    def __init__(self, roots: Roots, *, digests: bool = False) -> None:
        """`digests`: receipts vouch for nothing, every byte is read again."""
        self._roots = roots
        self._digests = digests
        self._files: dict[tuple[str, RelativePath], tuple[Blob, int]] = {}
        self._installed: dict[Digest, set[object]] = defaultdict(set)
        self.receipts = tuple(read_receipts(roots.hf_home))
        for receipt in self.receipts:
            installed = self._installed[receipt.bundle]
            for model in receipt.models:
                if not model.is_pending:
                    installed.add(key_of(model))
                for file in model.files:
                    self._files[file.place] = (file.blob, _NEVER if digests else file.mtime_ns)
                    installed.add(file.place)

    def afresh(self) -> Known:
        """The same, by the receipts that there are now."""
        return Known(self._roots, digests=self._digests)

    def places_of(self, blobs: Collection[Blob]) -> Mapping[Digest, Sequence[Path]]:
        """Where on the target `blobs` may be, by names and sizes."""
        return places_of(blobs, self._roots, self.receipts) if blobs else {}

    def survey(self, root: str, placements: Iterable[Placement], progress: Progress) -> Survey:
        """What there is to do below the root of that name."""
        key = self._roots.kept_as(root)

        def trusted(path: RelativePath, blob: Blob, mtime_ns: int) -> bool:
            return self._files.get((key, path)) == (blob, mtime_ns)

        def edited(path: RelativePath, blob: Blob) -> bool:
            # Small files of plain folders are there to be edited; large ones break.
            installed, _ = self._files.get((key, path), (None, 0))
            return root == _PLAIN and blob.size < SHARED_FROM and installed == blob

        return survey(
            self._roots.path(root),
            placements,
            trusted,
            progress,
            edited=edited,
            makes_links=root == _PLAIN,
            follow_aliases=root == _HUB,
        )

    def add(self, root: str, work: Survey) -> None:
        """Note what a survey of the root of that name found to be right."""
        root = self._roots.kept_as(root)
        for file in work.wanted_files:
            if file.path in work.present:
                self._files[root, file.path] = (file.blob, work.present[file.path])

    def all_of(
        self, bundle: Digest, snapshots: Sequence[Snapshot], work: Mapping[str, Survey]
    ) -> bool:
        """Whether nothing is left to do for `snapshots`, and a receipt of `bundle` says so."""
        installed = self._installed[bundle]
        return all(key_of(snapshot) in installed for snapshot in snapshots) and all(
            survey.is_done
            and all(
                (self._roots.kept_as(root), file.path) in installed
                for file in survey.wanted_files
                if file.path not in survey.edited
            )
            for root, survey in work.items()
        )


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
    by_root = _by_root(snapshots)
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


def check_lacking(
    reader: BundleReader,
    work: Mapping[str, Survey],
    known: Known,
    repairs: Sequence[BundleReader] = (),
) -> None:
    """Raise TargetError if what the bundle lacks is not here either, as far as names tell."""
    in_caches = _in_caches(work)
    absent = frozenset(reader.manifest.absent)
    lacking = {
        blob
        for name, survey in work.items()
        for blob in survey.blobs.values()
        if blob.digest in absent and not (name == _PLAIN and blob.digest in in_caches)
    }
    places = known.places_of(lacking)
    check_mended(reader, [blob for blob in lacking if blob.digest not in places], repairs)


def stage(
    reader: BundleReader,
    work: Mapping[str, Survey],
    targets: Mapping[str, Target],
    jobs: int | None,
    progress: Progress,
    known: Known,
    repairs: Sequence[BundleReader] = (),
) -> None:
    """Bring every blob that some root lacks, and no cache can give it, into its staging folder.

    What the bundle lacks comes first, from what is here; what it has bad or not, from `repairs`.
    """
    missing: dict[Digest, list[Target]] = defaultdict(list)
    blobs = {}
    in_caches = _in_caches(work)
    for name, target in targets.items():
        for blob in work[name].blobs.values():
            if not target.has(blob) and not (name == _PLAIN and blob.digest in in_caches):
                missing[blob.digest].append(target)
                blobs[blob.digest] = blob
    for name, target in targets.items():
        target.expect(work[name].files)
    first = {digest: targets_of[0] for digest, targets_of in missing.items()}
    lacking = {blobs[digest] for digest in reader.manifest.absent if digest in first}
    places = known.places_of(lacking)
    gone = [*take(reader.manifest, first, places, progress)]
    check_mended(reader, gone, repairs)
    carried = [m.blob for m in reader.members if m.blob.digest in first]
    with progress.start("unpacking", sum(blob.size for blob in carried)) as meter:
        staging = _Staging(first, goes_on=bool(repairs))
        staging.extract(reader, first, jobs, meter.add)
    for repair in repairs:
        mended = mends(
            repair, reader.manifest, (b for b in blobs.values() if not first[b.digest].has(b))
        )
        with progress.start("repairing", sum(blob.size for blob in mended.values())) as meter:
            staging.extract(repair, mended, jobs, meter.add)
    staging.finish(blobs.values())
    for digest, targets_of in missing.items():
        for other in targets_of[1:]:
            with targets_of[0].open(blobs[digest]) as copy:
                other.copy(blobs[digest], VerifiedReader(copy, blobs[digest], str(digest)))


class _Staging:
    """Takes blobs in where they are missing: an `extraction.Receiver`."""

    def __init__(self, missing: Mapping[Digest, Target], *, goes_on: bool) -> None:
        """`goes_on`: what is bad in one bundle may be good in the next."""
        self._missing = missing
        self._goes_on = goes_on
        self._error: DamagedError | None = None

    def extract(
        self, reader: BundleReader, wanted: Container[Digest], jobs: int | None, count: Count
    ) -> None:
        """Take what is `wanted` from a bundle. Raises DamagedError, unless it `goes_on`."""
        if self._goes_on:
            error = reader.salvage(self, wanted, jobs=jobs, count=count)
            self._error = self._error or error
        else:
            reader.extract(self, wanted, jobs=jobs, count=count)

    def open(self, member: Member) -> StagedFile:
        return StagedFile(self._missing[member.blob.digest], member.blob)

    def refuse(self, _: Member, error: DamagedError) -> None:
        self._error = self._error or error
        if not self._goes_on:
            raise DamagedError(
                f"{error}: nothing was installed; copy the bundle again "
                "(bundler verify names everything that is damaged)"
            )

    def finish(self, blobs: Iterable[Blob]) -> None:
        """Raise DamagedError if some of `blobs` were good in no bundle."""
        if not all(self._missing[blob.digest].has(blob) for blob in blobs):
            raise DamagedError(
                f"{self._error or 'a file is missing'}, and --repair does not bring it: nothing "
                "was installed; pack again for what bundler verify --request writes"
            )


def _in_caches(work: Mapping[str, Survey]) -> dict[Digest, tuple[str, File]]:
    """What caches hold or will hold, of which plain folders get a share: root and file."""
    if _PLAIN not in work:
        return {}
    return {
        file.blob.digest: (name, file)
        for name, survey in work.items()
        if name != _PLAIN
        for file in survey.wanted_files
    }


def _share(
    work: Mapping[str, Survey],
    roots: Roots,
    targets: Mapping[str, Target],
    link_mode: LinkMode,
    progress: Progress,
) -> None:
    """Give plain folders what caches have, by `link_mode`."""
    in_caches = _in_caches(work)
    plain = targets.get(_PLAIN)
    if plain is None:
        return
    wanted = [b for b in work[_PLAIN].blobs.values() if b.digest in in_caches and not plain.has(b)]
    with progress.start("sharing with plain folders", sum(blob.size for blob in wanted)) as meter:
        for blob in wanted:
            name, file = in_caches[blob.digest]
            place = roots.path(name) / file.path
            is_there = file.path in work[name].present
            source = place if is_there else targets[name].staged_path(blob)
            if link_mode is LinkMode.SYMLINK and link_mode.shares(blob.size):
                plain.point(blob, place, source.stat().st_mtime_ns)
            else:
                plain.share(blob, source, link_mode)
            meter.add(blob.size)


def taking_space(
    name: str, work: Mapping[str, Survey], roots: Roots, link_mode: LinkMode
) -> list[File]:
    """The files to write below the root of that name that share their space with no others."""
    in_caches = _in_caches(work) if name == _PLAIN else {}
    is_beside = cache(lambda other: same_disk(roots.path(name), roots.path(other)))
    return [
        file
        for file in work[name].files
        if not (
            file.blob.digest in in_caches
            and link_mode.shares(file.blob.size)
            and (link_mode is LinkMode.SYMLINK or is_beside(in_caches[file.blob.digest][0]))
        )
    ]


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
