"""A bundle against its digests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundler.archive import BundleReader, BundleSource, open_bundle
from bundler.digest import Blob, Digest
from bundler.errors import BundlerError, DamagedError, FormatError, UnavailableError
from bundler.manifest import Manifest
from bundler.members import Member
from bundler.progress import Progress, Silent
from bundler.repairing import mends
from bundler.trust import Trust
from bundler.volumes import Ask

if TYPE_CHECKING:
    from bundler.keys import PublicKey


@dataclass(frozen=True, slots=True)
class BadMember:
    """One bad member of a bundle, and the files of models that it is; or one bad volume."""

    member: str
    message: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verification:
    """What verifying found: `checked` blobs of `size` bytes in all are right, `faults` are not."""

    digest: Digest
    checked: int
    size: int
    faults: tuple[BadMember, ...]
    bad_volumes: tuple[str, ...] = ()
    """The file names of volumes that are among the faults: with other copies of these it is right,
    as far as can be told."""
    missing_volumes: tuple[str, ...] = ()
    """Those of them that are not here at all."""
    signer: PublicKey | None = None
    """The trusted key that has signed the bundle, if one had to."""
    needed: Manifest | None = None
    """That of a bundle which would repair this one, if something is wrong with it."""
    mended: tuple[str, ...] = ()
    """The names of the bundle's files that were damaged or lost, and are right now."""

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, for programs."""
        return {
            "bundle": str(self.digest),
            "signed_by": None if self.signer is None else self.signer.hint,
            "checked": self.checked,
            "size": self.size,
            "faults": [
                {"member": fault.member, "message": fault.message, "files": list(fault.files)}
                for fault in self.faults
            ],
            "bad_volumes": list(self.bad_volumes),
            "missing_volumes": list(self.missing_volumes),
            "mended": list(self.mended),
        }


def verify(
    bundle: BundleSource,
    *,
    digest: Digest | None = None,
    trusted: Trust | None = None,
    repairs: Sequence[BundleSource] = (),
    jobs: int | None = None,
    ask: Ask | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Read all of `bundle` and compare every blob, and every volume, with its digest.

    Faults are collected, a volume that is missing among them. `digest` is the bundle's id, if known
    from elsewhere; `trusted`: whose bundles are taken, by default anybody's; `repairs`: other
    bundles, in which what is bad here may be good; `ask` as in `unpack`. Raises as `open_bundle`
    does if not even the manifest can be read or trusted.
    """
    with open_bundle(bundle, digest, trusted, ask=ask, hashed=True, whole=False) as reader:
        faults = []
        straight = False
        try:
            reader.check_end()
        except DamagedError as error:
            # What was copied of it is worth knowing: read without the table, as far as it goes.
            faults.append(BadMember("the bundle as a whole", str(error)))
            straight = True
        faulty = _Faulty()
        total = sum(member.blob.size for member in reader.members)
        with (progress or Silent()).start("verifying", total) as meter:
            try:
                reader.extract(faulty, jobs=jobs, count=meter.add, straight=straight)
            except DamagedError as error:
                if not faults and not faulty.messages:
                    faults.append(BadMember("the bundle as a whole", str(error)))
        bad = _bad_members(reader, faulty.messages)
        for repair in repairs:
            for blob in _good_in(repair, reader.manifest, bad, jobs, progress or Silent()):
                del bad[blob]
        if repairs and not bad:
            faults.clear()
        right = [member.blob for member in reader.members if member.blob not in bad]
        size = sum(blob.size for blob in right)
        # Of a bundle that is mended as a whole, it does not matter where it is damaged.
        volumes = {} if repairs and not bad else reader.volume_faults()
        if volumes:
            faults = [BadMember(name, str(error)) for name, error in volumes.items()]
        faults += bad.values()
        needed = None
        if faults:
            good = [blob for blob in reader.manifest.blobs() if blob not in bad]
            needed = reader.manifest.without(good, {reader.digest, *reader.manifest.builds_on})
        missing = tuple(n for n, fault in volumes.items() if isinstance(fault, UnavailableError))
        return Verification(
            reader.digest, len(right), size, tuple(faults), tuple(volumes), missing,
            reader.signer, needed,
        )  # fmt: skip


def verify_and_mend(
    bundle: Sequence[Path | str],
    *,
    digest: Digest | None = None,
    trusted: Trust | None = None,
    jobs: int | None = None,
    ask: Ask | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Verify the bundle that these paths mean, and mend it by its parity files if it is not right.

    The rest as in `verify`. Nothing has changed if it raises: RequestError without par2, and as
    `verify` and `mend` do, DamagedError also if what they mend is not this bundle.
    """
    from bundler.mending import mend, place_to_mend
    from bundler.parity import require_program

    require_program()
    known = digest
    try:
        result = verify(
            bundle, digest=digest, trusted=trusted, jobs=jobs, ask=ask, progress=progress
        )
    except (DamagedError, FormatError, UnavailableError):
        pass  # If the list of volumes can be read, the id is in it.
    else:
        if not result.faults:
            return result
        known = result.digest
    place = place_to_mend([*map(Path, bundle)])
    found: list[Verification] = []

    def check(copy: Path) -> None:
        fault = None
        try:
            found.append(verify(copy, digest=known, trusted=trusted, jobs=jobs, progress=progress))
        except BundlerError as error:
            fault = error
        if fault or found[0].faults:
            raise DamagedError(
                f"what the parity files of {place} give is not the bundle as it was: copy it again"
            )

    mended = mend(place, check, progress or Silent())
    return replace(found[0], mended=mended)


def _good_in(
    repair: BundleSource,
    manifest: Manifest,
    bad: Iterable[Blob],
    jobs: int | None,
    progress: Progress,
) -> list[Blob]:
    """Those of the blobs `bad` of a manifest that the bundle `repair` has as they should be."""
    with open_bundle(repair, whole=False) as reader:
        mended = mends(reader, manifest, bad)
        found = _Found()
        with progress.start("verifying", sum(blob.size for blob in mended.values())) as meter:
            reader.salvage(found, mended, jobs=jobs, count=meter.add)
        return found.blobs


class _Found:
    """Takes note of the blobs that are as they should be."""

    def __init__(self) -> None:
        self.blobs: list[Blob] = []

    def open(self, member: Member) -> _Whole:
        return _Whole(self.blobs, member.blob)

    def refuse(self, member: Member, error: DamagedError) -> None:
        pass


class _Whole:
    """Adds a blob to a list when all of it has come."""

    def __init__(self, blobs: list[Blob], blob: Blob) -> None:
        self._blobs = blobs
        self._blob = blob

    def write(self, data: memoryview) -> None:
        pass

    def close(self) -> None:
        self._blobs.append(self._blob)

    def abandon(self) -> None:
        pass


class _Faulty:
    """Takes note of what is wrong with members, and needs no content."""

    def __init__(self) -> None:
        self.messages: dict[int, str] = {}
        """By where the member starts."""

    def open(self, _: Member) -> None:
        pass

    def refuse(self, member: Member, error: DamagedError) -> None:
        self.messages[member.start] = str(error)


def _bad_members(reader: BundleReader, messages: Mapping[int, str]) -> dict[Blob, BadMember]:
    """What is wrong with which blobs, by `messages` about the members that start at these bytes."""
    bad = [member for member in reader.members if member.start in messages]
    files: dict[Digest, list[str]] = {member.blob.digest: [] for member in bad}
    for snapshot in reader.manifest.snapshots if bad else ():
        for entry in snapshot.files:
            if entry.blob.digest in files:
                files[entry.blob.digest].append(f"{entry.path} of {snapshot.name}")
    return {m.blob: BadMember(m.name, messages[m.start], tuple(files[m.blob.digest])) for m in bad}
