"""Upstream files -> verified bytes in the store: all at once, of each what is missing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from posixpath import basename
from urllib.parse import urlsplit

from bundler.arrival import Adoption, Arrival, Download, compared, named, or_elsewhere
from bundler.digest import COPY_SIZE, Blob, Digest, Stream, VerifiedReader
from bundler.errors import BundlerError, DamagedError, Faults, RequestError, TargetError
from bundler.origin import Key
from bundler.parallel import each_in_threads
from bundler.patience import Patience
from bundler.progress import Progress
from bundler.remote import SMALL, ModelFile, RemoteFile, content_identity
from bundler.sharing import SHARED_FROM
from bundler.store import BlobStore
from bundler.web import Web, WebFile

PARALLEL = 8
"""Requests and downloads under way at once."""
MOST_KEPT = 1000
"""Small files of this machine that the store keeps; of more, all are read where they are."""


def file_at(
    url: str, web: Web, digest: Digest | None = None, sha256_prefix: str = ""
) -> tuple[RemoteFile, str]:
    """The file at `url`, called as its path ends, and its media type. Raises as `web` does.

    `digest`, `sha256_prefix`: what is known of the content, as in `RemoteFile`; with neither, all
    of it must be of one time.
    """
    heading = web.heading((url,))
    known_by = digest.hex if digest else sha256_prefix
    mark = "" if known_by else heading.mark
    is_known = bool(known_by or mark)
    origin = WebFile(
        web,
        (url,),
        identity=content_identity(digest, None) or f"{url} {known_by or mark} {heading.size}",
        mark=mark,
        size=heading.size,
        resumes=is_known,
        gives_parts=is_known,
    )
    file = RemoteFile(
        path=basename(urlsplit(url).path),
        origin=origin,
        size=heading.size,
        digest=digest,
        sha256_prefix=sha256_prefix,
    )
    return file, heading.media_type


def found(file: RemoteFile, store: BlobStore) -> Blob | None:
    """The blob that `file` is, if `store` has it whole and as upstream describes it."""
    if file.digest is not None and file.size is not None:
        promised = Blob(file.digest, file.size)
        return promised if store.has(promised) else None
    # Without any mark nothing tells whether the content is that of another time: fetched anew.
    blob = store.find(file.origin.identity) if file.origin.resumes else None
    if (
        blob
        and file.size in (None, blob.size)
        and file.digest in (None, blob.digest)
        and blob.digest.hex.startswith(file.sha256_prefix)
    ):
        return blob
    return None


def fetch_all(
    wanted: Sequence[ModelFile],
    store: BlobStore,
    progress: Progress,
    patience: Patience,
) -> dict[Key, Blob]:
    """Bring what is wanted into `store`: the blobs, by the keys of their files.

    What the store has is not asked for, and of the rest only what is missing. All is tried before
    a fault is told, and what has arrived is kept. Raises Faults: UnavailableError for what cannot
    be had after several tries, DamagedError for what arrives otherwise than promised, twice,
    TargetError if the store cannot be written.
    """
    # Of very many, to read each again is quicker than to keep it, or to look whether it was kept.
    lends = sum(_is_small(file) for _, file in wanted if file.places_here) > MOST_KEPT
    blobs = {
        file.key: blob
        for _, file in wanted
        if not (lends and _is_small(file) and file.places_here) and (blob := found(file, store))
    }
    faults: dict[Key, BundlerError] = {}
    stop = threading.Event()
    pool = ThreadPoolExecutor(PARALLEL, "download")
    try:
        missing = [item for item in wanted if item.file.key not in blobs]
        copied = [item for item in missing if item.file.places_here]
        with progress.start("reading", sum(file.size or 0 for _, file in copied)) as meter:

            def adopt(group: Sequence[ModelFile], count: Callable[[int], None]) -> None:
                for item in group:
                    adoption = Adoption(item, store, meter, stop, progress.say, lends)
                    adoption.take(count)
                    _settle([adoption], blobs, faults)

            each_in_threads(_grouped(copied), adopt, None, meter.add)
        settled = blobs.keys() | faults.keys()
        missing = [item for item in missing if item.file.key not in settled]
        total = sum(file.size or 0 for _, file in missing)
        begun = {f.key: store.partial(f.origin.identity, f.size) for _, f in missing}
        left = sum(unfinished.left for unfinished in begun.values())
        store.check_space(left)
        with progress.start("downloading", total, total - left) as meter:
            for _ in range(2):  # What arrived damaged is fetched anew, once.
                downloads = [
                    Download(item, store, meter, stop, patience, begun[item.file.key])
                    for item in missing
                ]
                fetches = [partial(d.fetch, part) for d in downloads for part in d.parts()]
                list(pool.map(lambda fetch: fetch(), fetches))
                _settle(downloads, blobs, faults)
                missing = [d.item for d in downloads if isinstance(d.fault, DamagedError)]
                if stop.is_set():
                    break
    finally:
        # Not waited for: a thread may hang in a read from a network that does not answer.
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
    if faults:
        came = all(isinstance(fault, RequestError) for fault in faults.values())
        note = "" if came else _kept(wanted, blobs, store)
        raise Faults(_told(faults.values()), note)
    return blobs


def missing_size(file: RemoteFile, store: BlobStore) -> int:
    """Bytes of `file` that are not on this machine even in part."""
    if file.places_here or found(file, store) is not None:
        return 0
    return store.partial(file.origin.identity, file.size).left


def small_content(item: ModelFile, patience: Patience, store: BlobStore | None = None) -> bytes:
    """All of a file of at most SMALL bytes, from `store` if it is there.

    Raises UnavailableError, or DamagedError if it arrives otherwise than promised, twice.
    """
    file = item.file
    blob = found(file, store) if store else None
    if store and blob:
        with suppress(DamagedError), store.open(blob) as stored:
            return VerifiedReader(stored, blob, item.what).read()

    def attempt(open_: Callable[[int], Stream]) -> bytes:
        content = b""
        with closing(open_(0)) as body:
            while len(content) <= SMALL and (data := body.read(COPY_SIZE)):
                content += data
        compared(content, item)
        return content

    for copy in file.places_here:
        with suppress(DamagedError, RequestError):
            return attempt(copy.open)
    fetch = partial(or_elsewhere, file, partial(attempt, file.origin.open))
    with named(item.what):
        try:
            return patience.insist(fetch)
        except DamagedError:
            return patience.insist(fetch)


def _is_small(file: RemoteFile) -> bool:
    return file.size is not None and file.size < SHARED_FROM


def _grouped(items: Sequence[ModelFile]) -> list[list[ModelFile]]:
    """Large files each by itself, and small ones together: threads with short work wait a lot."""
    large = [[item] for item in items if not _is_small(item.file)]
    small = [item for item in items if _is_small(item.file)]
    return [small, *large]


def _settle(
    arrivals: Sequence[Arrival], blobs: dict[Key, Blob], faults: dict[Key, BundlerError]
) -> None:
    """Sort out what has come of `arrivals`; later news count."""
    for arrival in arrivals:
        key = arrival.file.key
        if arrival.blob is not None:
            blobs[key] = arrival.blob
            faults.pop(key, None)
        elif arrival.fault is not None:
            faults[key] = arrival.fault


def _told(faults: Iterable[BundlerError]) -> list[BundlerError]:
    """The faults in order; of those of the store one, which has stopped all and is told by each."""
    ordered = sorted(faults, key=str)
    own = [fault for fault in ordered if isinstance(fault, TargetError)]
    return [*(fault for fault in ordered if fault not in own), *own[:1]]


def _kept(wanted: Sequence[ModelFile], blobs: dict[Key, Blob], store: BlobStore) -> str:
    """What there is to say when not all could be had."""
    here = sum(file.key in blobs for _, file in wanted)
    if not here or all(file.is_here for _, file in wanted):
        return ""
    return f"{here:,} of {len(wanted):,} files are in {store.root}: what came is not fetched again"
