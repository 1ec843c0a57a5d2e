"""What a bundle lacks, taken from what is on the target."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from bundler.archive import BundleReader
from bundler.digest import Blob, Digest
from bundler.errors import TargetError, amount
from bundler.manifest import Manifest
from bundler.place import Target
from bundler.progress import Progress
from bundler.repairing import mends
from bundler.wording import counted

_SHOWN = 3


def take(
    manifest: Manifest,
    wanted: Mapping[Digest, Target],
    places: Mapping[Digest, Sequence[Path]],
    progress: Progress,
) -> Iterator[Blob]:
    """Stage, each in its target, what is `wanted` of all that `manifest` lacks, from its `places`.

    Gives those of which no place has the right bytes. Raises TargetError.
    """
    lacking = [e.blob for _, e in manifest.lacking() if e.blob.digest in wanted]
    git_names = manifest.git_names()
    with progress.start("taking what is here", sum(blob.size for blob in lacking)) as meter:
        for blob in lacking:
            target = wanted[blob.digest]
            git_sha1 = git_names.get(blob.digest)
            if not any(target.take(blob, path, git_sha1) for path in places.get(blob.digest, ())):
                yield blob
            meter.add(blob.size)


def check_mended(
    reader: BundleReader, gone: Sequence[Blob], repairs: Iterable[BundleReader]
) -> None:
    """Raise TargetError if `gone`, which the bundle lacks and the target too, is in no repair."""
    for repair in repairs:
        mended = mends(repair, reader.manifest, gone)
        gone = [blob for blob in gone if blob.digest not in mended]
    if gone:
        raise _refusal(reader.manifest, gone)


def _refusal(manifest: Manifest, gone: Iterable[Blob]) -> TargetError:
    """That `gone`, of what `manifest` lacks, is not here; and what to do."""
    digests = {blob.digest for blob in gone}
    lacking = [(s, e) for s, e in manifest.lacking() if e.blob.digest in digests]
    size = sum(entry.blob.size for _, entry in lacking)
    named = ", ".join(f"{entry.path} of {s.name}" for s, entry in lacking[:_SHOWN])
    more = f" and {len(lacking) - _SHOWN:,} more" if len(lacking) > _SHOWN else ""
    ids = manifest.builds_on
    others = f" and {len(ids) - 1:,} more" if len(ids) > 1 else ""
    first = f"the bundle {ids[0]}{others}" if ids else "the bundles that brought it"
    return TargetError(
        f"this bundle leaves out what should be here, and {counted(len(lacking), 'file')} "
        f"({amount(size)}) of that are missing or damaged: {named}{more}; unpack {first} to the "
        "same place before it, or pack without --since"
    )
