"""A plan -> everything in the store, and the manifest of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from bundler.archive_writer import may_lack_names
from bundler.code import HUBCONF, wants_hubconf
from bundler.digest import Blob
from bundler.download import fetch_all
from bundler.errors import (
    BundlerError,
    DamagedError,
    Faults,
    FormatError,
    RequestError,
    UnavailableError,
)
from bundler.layouts import layout_of
from bundler.layouts.flat import flattened
from bundler.layouts.placement import Placement
from bundler.lending import Lending
from bundler.locked import absent, pinned
from bundler.manifest import Code, FileEntry, Manifest, Snapshot
from bundler.names import plain_text, relative_path
from bundler.origin import Key
from bundler.patience import Patience
from bundler.permission import told
from bundler.planning import PackPlan, contents
from bundler.prepared import PREPARED, can_prepare, prepare
from bundler.progress import Progress
from bundler.remote import ModelFile, RemoteSnapshot
from bundler.since import Since
from bundler.store import WORK, BlobStore
from bundler.survey import without_contradictions
from bundler.zip_archive import from_zip


def gather(
    plan: PackPlan,
    locked: Manifest | None,
    since: Since,
    store: BlobStore,
    lending: Lending,
    progress: Progress,
    patience: Patience,
) -> tuple[Manifest, tuple[str, ...]]:
    """Bring everything in `plan` into `store`; the manifest of it, and what there is to say.

    `locked`: the manifest that must come of it. `since`: what is left out. `lending`: what is lent
    from where it is, and may be in the manifest by a stand-in. Raises Faults, after all has been
    tried, or RequestError, UnavailableError, DamagedError, TargetError.
    """
    snapshots = _brought(plan, locked, store, lending, progress, patience)
    prepared, notes = _prepared(snapshots, locked, since, store, progress)
    if locked is not None:
        faults = list(absent(locked, store, since))
        if faults:
            raise Faults(faults)
        return since.left_out(locked), notes
    _check_places((*snapshots, *prepared))
    with told(store.root, "--store"):
        looked_at = [_with_code(s, since) for s in (*snapshots, *prepared)]
    manifest = since.left_out(Manifest.of(looked_at))
    if lending.stand_ins and not may_lack_names(manifest):
        unnamed = lending.recall_unnamed()
        blobs = fetch_all([*unnamed.values()], store, progress, patience)
        names = {stand_in: blobs[item.file.key].digest for stand_in, item in unnamed.items()}
        manifest = manifest.renamed(names)
    return manifest, notes


def _brought(
    plan: PackPlan,
    locked: Manifest | None,
    store: BlobStore,
    lending: Lending,
    progress: Progress,
    patience: Patience,
) -> list[Snapshot]:
    """The snapshots of `plan` with the blobs of their files, which are in the store or lent."""
    zipped = [snapshot for snapshot in plan.snapshots if snapshot.inside is not None]
    archives = fetch_all(list(contents(zipped)), store, progress, patience)
    with ExitStack() as stack:
        try:
            remote = _taken_apart(plan.snapshots, archives, store, stack, locked=locked is not None)
            if locked is not None:
                planned = [s for s in locked.snapshots if s.layout != PREPARED]
                remote = [pinned(r, s) for r, s in zip(remote, planned, strict=True)]
            wanted = [item for item in contents(remote) if item.file.key not in plan.there]
            blobs = _fetched(wanted, lending, store, progress, patience)
            blobs.update(plan.there)
        except BundlerError as error:
            if _has_damage(error):
                for blob in archives.values():
                    store.discard(blob)  # It may be that one, and the next run asks for it anew.
            raise
    return [_snapshot(snapshot, blobs) for snapshot in remote]


def _fetched(
    wanted: Sequence[ModelFile],
    lending: Lending,
    store: BlobStore,
    progress: Progress,
    patience: Patience,
) -> dict[Key, Blob]:
    """The blobs of what is wanted, in the store or lent, by the keys of their files."""
    lent = lending.lend(wanted)
    wanted = [item for item in wanted if item.file.key not in lent]
    try:
        blobs = fetch_all(wanted, store, progress, patience)
    except Faults as faults:
        try:
            fetch_all(lending.end(), store, progress, patience)  # What else there is to tell.
        except Faults as more:
            told = {str(error): error for error in (*faults.errors, *more.errors)}
            raise Faults([told[said] for said in sorted(told)], faults.note) from None
        raise
    blobs.update(lent)
    blobs.update(fetch_all(lending.recall_alike(blobs.values()), store, progress, patience))
    return blobs


def _check_places(snapshots: Sequence[Snapshot]) -> None:
    """Raise RequestError if two things would have to stand in one place on the target."""
    by_root: dict[str, list[Placement]] = defaultdict(list)
    for snapshot in (*snapshots, *flattened(snapshots)):
        layout = layout_of(snapshot)
        by_root[layout.root] += layout.place(snapshot, lambda _: True)
    for placements in by_root.values():
        try:
            without_contradictions(placements)
        except FormatError as error:
            said = str(error).removeprefix("the bundle")
            raise RequestError(f"this bundle{said}: pack them into two bundles") from None


def _taken_apart(
    snapshots: Sequence[RemoteSnapshot],
    archives: Mapping[Key, Blob],
    store: BlobStore,
    open_files: ExitStack,
    *,
    locked: bool,
) -> list[RemoteSnapshot]:
    """The snapshots with what is inside of archives as files of their own."""
    apart = []
    for snapshot in snapshots:
        if snapshot.inside is not None:
            blob = archives[snapshot.files[0].key]
            needs_hubconf = wants_hubconf(snapshot)
            archive = open_files.enter_context(store.open(blob))
            snapshot = from_zip(snapshot, archive, blob.digest)
            if needs_hubconf and all(file.path != HUBCONF for file in snapshot.files):
                raise UnavailableError(
                    f"{snapshot.name} has no {HUBCONF}: torch.hub cannot load anything from it"
                )
            if not snapshot.files and not locked:
                raise RequestError(f"the archive of {snapshot.name} has none of the files wanted")
        apart.append(snapshot)
    return apart


def _has_damage(error: BundlerError) -> bool:
    faults = error.errors if isinstance(error, Faults) else (error,)
    return any(isinstance(fault, DamagedError) for fault in faults)


def _snapshot(remote: RemoteSnapshot, blobs: dict[Key, Blob]) -> Snapshot:
    return Snapshot(
        source=remote.source,
        name=remote.name,
        layout=remote.layout,
        files=tuple(
            FileEntry(relative_path(file.path), blobs[file.key], file.etag) for file in remote.files
        ),
        kind=remote.kind,
        aliases=remote.aliases,
        revision=remote.revision,
        commit_hash=remote.commit_hash,
        license=remote.license,
        omitted=tuple(replace(item, path=plain_text(item.path)) for item in remote.omitted),
        specs=remote.specs,
        needs=remote.needs,
    )


def _prepared(
    snapshots: Sequence[Snapshot],
    locked: Manifest | None,
    since: Since,
    store: BlobStore,
    progress: Progress,
) -> tuple[list[Snapshot], tuple[str, ...]]:
    """The datasets among `snapshots` in the form that `load_dataset` reads, where that can be made.

    Not to be had is no error: the files are carried all the same, and the second value says so.
    """
    if locked is not None and not any(absent(locked, store, since)):
        return [], ()
    made, notes = [], []
    datasets = [s for s in snapshots if s.kind == "dataset" and s.layout == "hf-cache"]
    for snapshot in datasets if can_prepare() else ():
        with (
            progress.start(f"preparing {snapshot.name}", snapshot.size),
            told(store.root, "--store"),
            TemporaryDirectory(dir=store.root, prefix=WORK) as work,
        ):
            source, target = Path(work, "files"), Path(work, "cache")
            for entry in snapshot.files:
                link = source / entry.path
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(store.path(entry.blob))
            files = {}
            try:
                for name in snapshot.names:  # Each is looked for in a folder of its own.
                    for path in prepare(name, source, target):
                        files[path] = store.take(target / path)
            except UnavailableError as error:
                notes.append(f"{snapshot.name}: only its files, not its prepared form ({error})")
                continue
            configs = {path.parts[1] for path in files}
            if len(configs) > 1:
                notes.append(
                    f"{snapshot.name} has several configs: offline, load_dataset needs one of "
                    f"their names too ({', '.join(sorted(configs))})"
                )
            entries = tuple(FileEntry(path, blob) for path, blob in files.items())
            made.append(replace(snapshot, layout=PREPARED, files=entries, omitted=()))
    return made, tuple(notes)


def _with_code(snapshot: Snapshot, since: Since) -> Snapshot:
    code = [
        Code(plain_text(item.path), plain_text(item.reason)) for item in since.code_of(snapshot)
    ]
    return replace(snapshot, code=tuple(code))
