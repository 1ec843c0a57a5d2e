"""A bundle against its digests."""

from __future__ import annotations

from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from bundler.archive import BundleSource, open_bundle
from bundler.digest import COPY_SIZE, Digest
from bundler.errors import DamagedError
from bundler.progress import Progress, Silent


@dataclass(frozen=True, slots=True)
class Fault:
    """One bad member of a bundle, and the files of models that it is."""

    member: str
    message: str
    files: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.message + (f" ({', '.join(self.files)})" if self.files else "")


@dataclass(frozen=True, slots=True)
class Verification:
    """What verifying found: `checked` blobs of `size` bytes are right, unless `faults` says so."""

    digest: Digest
    checked: int
    size: int
    faults: tuple[Fault, ...]

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, for programs."""
        return {
            "bundle": str(self.digest),
            "checked": self.checked,
            "size": self.size,
            "faults": [
                {"member": fault.member, "message": fault.message, "files": list(fault.files)}
                for fault in self.faults
            ],
        }


def verify(
    bundle: BundleSource,
    *,
    digest: Digest | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Read all of `bundle` and compare every blob with its digest; faults are collected.

    `digest` is the bundle's id, if known from elsewhere. Raises as `BundleReader` does if not even
    the manifest can be read.
    """
    with open_bundle(bundle, digest) as reader:
        used_by: dict[Digest, list[str]] = defaultdict(list)
        for snapshot in reader.manifest.snapshots:
            for entry in snapshot.files:
                used_by[entry.blob.digest].append(f"{entry.path} of {snapshot.name}")
        faults = []
        members = list(reader.members())
        size = sum(member.blob.size for member in members)
        with (progress or Silent()).start("verifying", size) as meter:
            try:
                with closing(reader.blobs(jobs=jobs)) as blobs:
                    for member, content in blobs:
                        try:
                            while data := content.read(COPY_SIZE):
                                meter.add(len(data))
                        except DamagedError as error:
                            files = tuple(used_by[member.blob.digest])
                            faults.append(Fault(member.name, str(error), files))
            except DamagedError as error:
                faults.append(Fault("the bundle as a whole", str(error)))
        return Verification(reader.digest, len(members), size, tuple(faults))
