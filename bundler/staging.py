"""Blobs that some root lacks -> its staging folder: from the bundle, repairs, or what is here."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import cache

from bundler.archive import BundleReader
from bundler.digest import Blob, Digest, VerifiedReader
from bundler.environment import Roots
from bundler.errors import DamagedError
from bundler.known import Known
from bundler.layouts.flat import Flat
from bundler.layouts.placement import File
from bundler.members import Member
from bundler.parallel import Count
from bundler.place import StagedFile, Target
from bundler.progress import Progress
from bundler.repairing import mends
from bundler.sharing import LinkMode
from bundler.space import same_disk
from bundler.survey import Survey
from bundler.taking import check_mended, take

_PLAIN = Flat.root
"""The name of the root that may share what the others hold."""


def check_lacking(
    reader: BundleReader,
    work: Mapping[str, Survey],
    known: Known,
    repairs: Sequence[BundleReader] = (),
) -> None:
    """Raise TargetError if what the bundle lacks is not here either, as far as names tell."""
    if not reader.manifest.absent:
        return
    absent = frozenset(reader.manifest.absent)
    lacking = {blob for _, blob in _to_bring(work) if blob.digest in absent}
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
    manifest = reader.manifest
    first: dict[Digest, Target] = {}
    others: list[tuple[Target, Blob]] = []
    for name, blob in _to_bring(work):
        target = targets.get(name)
        if target is None or target.has(blob):
            continue
        if first.setdefault(blob.digest, target) is not target:
            others.append((target, blob))
    for name, target in targets.items():
        target.expect(work[name].files)
    if not first.keys().isdisjoint(manifest.absent):
        lacking = {entry.blob for _, entry in manifest.lacking() if entry.blob.digest in first}
        gone = [*take(manifest, first, known.places_of(lacking), progress)]
        check_mended(reader, gone, repairs)
    size = sum(member.blob.size for member in reader.members if member.blob.digest in first)
    staging = _Staging(first, goes_on=bool(repairs))
    with progress.start("unpacking", size) as meter:
        staging.extract(reader, first, jobs, meter.add)
    for repair in repairs:
        mended = mends(repair, manifest, staging.missing(manifest.blobs()))
        with progress.start("repairing", sum(blob.size for blob in mended.values())) as meter:
            staging.extract(repair, mended, jobs, meter.add)
    staging.finish(manifest.blobs())
    for other, blob in others:
        if not other.has(blob):
            with first[blob.digest].open(blob) as copy:
                other.copy(blob, VerifiedReader(copy, blob, str(blob.digest)))


class _Staging:
    """Takes blobs in where they are missing: an `extraction.Receiver`."""

    def __init__(self, wanted: Mapping[Digest, Target], *, goes_on: bool) -> None:
        """`goes_on`: what is bad in one bundle may be good in the next."""
        self._wanted = wanted
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
        return StagedFile(self._wanted[member.blob.digest], member.blob)

    def refuse(self, _: Member, error: DamagedError) -> None:
        self._error = self._error or error
        if not self._goes_on:
            raise DamagedError(
                f"{error}: nothing was installed; copy the bundle again "
                "(bundler verify names everything that is damaged)"
            )

    def missing(self, blobs: Iterable[Blob]) -> Iterator[Blob]:
        """Those of `blobs` that are wanted, and were good in no bundle so far."""
        return (
            blob
            for blob in blobs
            if blob.digest in self._wanted and not self._wanted[blob.digest].has(blob)
        )

    def finish(self, blobs: Iterable[Blob]) -> None:
        """Raise DamagedError if some of `blobs` that are wanted were good in no bundle."""
        if any(self.missing(blobs)):
            raise DamagedError(
                f"{self._error or 'a file is missing'}, and --repair does not bring it: nothing "
                "was installed; pack again for what bundler verify --request writes"
            )


def _to_bring(work: Mapping[str, Survey]) -> Iterator[tuple[str, Blob]]:
    """Each blob that a file below a root needs, and no cache can give, with the root's name."""
    in_caches = _in_caches(work)
    for name, survey in work.items():
        for file in survey.files:
            if not (name == _PLAIN and file.blob.digest in in_caches):
                yield name, file.blob


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


def share(
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
