"""A bundle against its digests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bundler.archive import BundleSource, open_bundle
from bundler.digest import Digest
from bundler.errors import DamagedError
from bundler.members import Member
from bundler.progress import Progress, Silent
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
    signer: PublicKey | None = None
    """The trusted key that has signed the bundle, if one had to."""

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
        }


def verify(
    bundle: BundleSource,
    *,
    digest: Digest | None = None,
    trusted: Trust | None = None,
    jobs: int | None = None,
    ask: Ask | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Read all of `bundle` and compare every blob, and every volume, with its digest.

    Faults are collected. `digest` is the bundle's id, if known from elsewhere; `trusted`: whose
    bundles are taken, by default anybody's; `ask` as in `unpack`. Raises as `open_bundle` does if
    not even the manifest can be read or trusted.
    """
    with open_bundle(bundle, digest, trusted, ask=ask, hashed=True) as reader:
        files: dict[Digest, list[str]] = defaultdict(list)
        for snapshot in reader.manifest.snapshots:
            for entry in snapshot.files:
                files[entry.blob.digest].append(f"{entry.path} of {snapshot.name}")
        faults = []
        straight = False
        try:
            reader.check_end()
        except DamagedError as error:
            # What was copied of it is worth knowing: read without the table, as far as it goes.
            faults.append(BadMember("the bundle as a whole", str(error)))
            straight = True
        faulty = _Faulty(files)
        total = sum(member.blob.size for member in reader.members)
        with (progress or Silent()).start("verifying", total) as meter:
            try:
                reader.extract(faulty, jobs=jobs, count=meter.add, straight=straight)
            except DamagedError as error:
                if not faults and not faulty.members:
                    faults.append(BadMember("the bundle as a whole", str(error)))
        right = [member.blob for member in reader.members if member.start not in faulty.members]
        size = sum(blob.size for blob in right)
        volumes = reader.volume_faults()
        if volumes:
            faults = [BadMember(name, str(error)) for name, error in volumes.items()]
        faults += faulty.members.values()
        return Verification(
            reader.digest, len(right), size, tuple(faults), tuple(volumes), reader.signer
        )


class _Faulty:
    """Takes note of the members that are not as they should be, and needs no content."""

    def __init__(self, files: Mapping[Digest, Sequence[str]]) -> None:
        self._files = files
        self.members: dict[int, BadMember] = {}

    def open(self, _: Member) -> None:
        pass

    def refuse(self, member: Member, error: DamagedError) -> None:
        files = tuple(self._files[member.blob.digest])
        self.members[member.start] = BadMember(member.name, str(error), files)
