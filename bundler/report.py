"""What the command line tells about plans and bundles, as text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.code import code_by_name
from bundler.environment import Roots
from bundler.errors import amount
from bundler.layouts.flat import flattened
from bundler.manifest import Code, Omission, Snapshot
from bundler.names import plain_text
from bundler.read_only import lacks_places
from bundler.spec import spec_of
from bundler.wording import counted, printable, table

if TYPE_CHECKING:  # No command must import what another needs.
    from bundler.checking import Check
    from bundler.inspection import Inspection
    from bundler.keys import PrivateKey
    from bundler.loading import Loaded
    from bundler.packing import Packed
    from bundler.planning import PackPlan
    from bundler.remote import RemoteSnapshot
    from bundler.store import Usage
    from bundler.unpacking import Unpacked

_SHOWN = 6
"""Names of left-out files that are shown for one reason."""


def planned(plan: PackPlan) -> str:
    """What a pack will bring."""
    lines = []
    for snapshot in plan.snapshots:
        sizes = [file.size for file in snapshot.files]
        size = None if None in sizes else sum(size or 0 for size in sizes)
        what = "archive" if snapshot.inside else "file"
        lines += [
            _title(snapshot),
            f"    {counted(len(snapshot.files), what)}, {amount(size)}",
            *_needs(snapshot),
            *_left_out(snapshot.omitted),
            *_code(snapshot),
        ]
    lines += [f"note: {note}" for note in plan.notes]
    unknown = any(file.size is None for s in plan.snapshots for file in s.files)
    at_least = "at least " if unknown else ""
    lines.append(
        f"in all: {at_least}{amount(plan.missing_size)} to download, "
        f"{at_least}{amount(plan.size)} in the bundle before compression"
    )
    if plan.there:
        lines.append(f"saved by what is there already: {amount(plan.saved_size)}")
    return printable("\n".join(lines))


def packed(
    result: Packed, store: Path, *, key: PrivateKey | None, parity: int | None, replaced: bool
) -> Iterator[str]:
    """What a finished pack has to say beside what was planned.

    `store` keeps the downloads; `key` has signed; `parity`: of so many hundredths, parity files are
    beside the bundle; `replaced`: another file was in its place.
    """
    for snapshot in result.manifest.snapshots:
        # What names tell was said with the plan.
        lines = [*_code(snapshot, [item for item in snapshot.code if "pickle" in item.reason])]
        yield from map(printable, [f"{_name(snapshot)}:", *lines] if lines else [])
    for note in result.notes:
        yield f"note: {printable(note)}"
    if result.manifest.absent:
        blobs = counted(len(result.manifest.absent), "blob")
        yield f"left out, since it is there already: {blobs}, {amount(result.saved_size)}"
    in_volumes = f" in {counted(result.volumes, 'volume')}" if result.volumes else ""
    instead = ", in place of the file that was there" if replaced else ""
    place = result.path or "standard output"
    yield f"wrote {place}: {amount(result.size)}{in_volumes}{instead}"
    if result.safe_to_remove:
        yield "read back from there: every byte is as it was written"
    yield f"id {result.digest}"
    if key is not None:
        yield f"signed in {result.signature}, by key {key.hint}"
    if result.parity:
        yield f"parity of {parity}% in {counted(len(result.parity), 'file')} beside it, *.par2"
    yield f"downloads are kept in {store}; bundler store --clear empties it"


def kept(usage: Usage, *, cleared: bool) -> str:
    """What a store holds, or held."""
    blobs = f"{counted(usage.blobs, 'blob')}, {amount(usage.size)}"
    unfinished = f"{counted(usage.unfinished, 'unfinished download')}, "
    unfinished += amount(usage.unfinished_size)
    verb = "dropped from" if cleared else "in"
    return printable(f"{verb} {usage.folder}: {blobs}; {unfinished}")


def usage(result: Unpacked) -> Iterator[str]:
    """What is left as it was, and how to find what was unpacked where its name is not enough."""
    for name, work in result.work.items():
        for path in sorted(work.edited):
            yield printable(f"{result.roots.path(name) / path} was edited, and is left as it is")
    for snapshot in result.snapshots:
        root = result.roots.insightface
        if snapshot.layout == "insightface" and root != Path("~/.insightface").expanduser():
            yield f'FaceAnalysis(name="{printable(snapshot.name)}", root="{root}")'
    if "checkpoints" in result.work:
        flat = [s for s in result.snapshots if s.layout == "flat"] + flattened(result.snapshots)
        names = ", ".join(sorted(printable(snapshot.name) for snapshot in flat))
        yield f"plain folders and files in {result.roots.checkpoints}: {names}"


def moves(result: Unpacked, *, done: bool) -> Iterator[str]:
    """Which refs and branches lead to another commit than before, or stay where they are."""
    told = [move for work in result.work.values() for move in work.moves]
    # One name may be found in two folders, that of the model and that of an alias.
    for title, before, after, is_kept in dict.fromkeys(
        (move.title, move.before[:12], move.after[:12], move.is_kept) for move in told
    ):
        if is_kept:
            line = f"{title} stays at {before}; the bundle's {after} loads by its commit hash"
        else:
            verb = "moved" if done else "moves"
            line = f"{title} {verb} from {before} to {after}; the old snapshot still loads by its "
            line += "commit hash"
        yield printable(line)


def read_only(roots: Roots) -> Iterator[str]:
    """What libraries write elsewhere since they cannot write to the caches at `roots`."""
    moved = {"HF_MODULES_CACHE": roots.modules, "HF_DATASETS_CACHE": roots.dataset_links}
    places = " and ".join(f"{name}={place}" for name, place in moved.items() if place)
    if places:
        caches = roots.datasets if roots.modules is None else roots.hf_home
        yield printable(f"{caches} is read-only for this user, who gets {places}")
    if lacks_places(roots):
        yield printable(
            f"{roots.hf_home} is read-only for this user, and so is ~/.cache: models that bring "
            "code, and datasets, load only with XDG_CACHE_HOME set to a folder to write to"
        )


def inspected(inspection: Inspection) -> str:
    """What a bundle holds."""
    from bundler.selection import weight_formats  # Which no other command needs here.

    rows = [("commit", "files", "size", "licence", "formats", "layout", "model")]
    notes: list[str] = []
    for snapshot in inspection.manifest.snapshots:
        rows.append(
            (
                (snapshot.commit_hash or "-")[:12],
                f"{len(snapshot.files):,}",
                amount(snapshot.size),
                snapshot.license or "-",
                " ".join(weight_formats(entry.path for entry in snapshot.files)) or "-",
                snapshot.layout,
                _name(snapshot),  # Last: it may be as long as it likes.
            )
        )
        if snapshot.aliases:
            notes.append(f"{snapshot.name} is also found as {', '.join(snapshot.aliases)}")
        more = [*_needs(snapshot), *_left_out(snapshot.omitted), *_code(snapshot)]
        if snapshot.specs:
            notes.append(f"{_name(snapshot)} was asked for as {', '.join(snapshot.specs)}")
        if more:
            notes += [f"{_name(snapshot)}:", *more]
    lines = [*table(rows), *notes]
    if inspection.signer is not None:
        lines.append(f"signed by {inspection.signer}")
    elif inspection.claimed_key is not None:
        named = f"key {plain_text(inspection.claimed_key)}" if inspection.claimed_key else "no key"
        lines.append(f"signature not checked: it names {named} (--verify-key PUB.pem)")
    manifest = inspection.manifest
    if manifest.absent:
        lacking = counted(len(manifest.absent), "blob")
        size = amount(sum(entry.blob.size for _, entry in manifest.lacking()))
        lines.append(f"brings no {lacking} ({size}) that must be where it is unpacked")
        lines += [f"builds on the bundle {digest}" for digest in manifest.builds_on]
    lines.append(f"{amount(inspection.size)} unpacked, id {inspection.digest}")
    return printable("\n".join(lines))


def unpacked(result: Unpacked, *, done: bool) -> str:
    """What an unpack did (`done`) or would do."""
    lines = []
    for snapshot in result.snapshots:
        files = counted(len(snapshot.files), "file")
        lines += [
            _title(snapshot),
            f"    {files}, {amount(snapshot.size)}",
            *_code(snapshot),
        ]
    for name, work in result.work.items():
        if work.files:
            files = f"{counted(len(work.files), 'file')} ({amount(work.size)})"
            lines.append(
                f"{result.roots.path(name)}: {files} {'written' if done else 'to write'}, "
                f"{amount(work.present_size)} there already"
            )
        else:
            present = amount(work.present_size)
            lines.append(f"{result.roots.path(name)}: everything is there already ({present})")
    if result.signer is not None:
        lines.append(f"signed by {result.signer}")
    if not done:
        lines.append(f"{amount(result.written_size)} needed, {amount(result.free_size)} free")
    return printable("\n".join(lines))


def checked(result: Check, *, compared: bool) -> str:
    """What was found of each model; faults are told elsewhere."""
    lines = []
    for model in result.models:
        commit = f" ({model.commit_hash[:12]})" if model.commit_hash else ""
        needed = f", needed by {model.needed_by}" if model.needed_by else ""
        files = f"{counted(len(model.files), 'file')}, {amount(model.size)}"
        intact = compared and all(len(f.promises) == len(f.files) for f in model.found)
        state = f"{'intact' if intact else 'complete'}, {files}"
        lines.append(f"{model.spec}{commit}{needed}: {'would fail' if model.faults else state}")
        lines += [f"note: {plain_text(note)}" for note in model.notes]
    return printable("\n".join(lines))


def loaded(result: Loaded) -> str:
    """What a model took to load, or that it did not."""
    if result.fault is not None:
        lines = [f"{result.spec}: was not loaded"]
    else:
        size = "" if result.parameters is None else f", {counted(result.parameters, 'parameter')}"
        took = f"in {result.seconds:.1f} s"
        lines = [f"{result.spec}: loads with {result.library} {took}, {result.what}{size}"]
    if result.made_up:
        names = ", ".join(result.made_up[:_SHOWN]) + ", …" * (len(result.made_up) > _SHOWN)
        number = counted(len(result.made_up), "weight")
        lines.append(f"note: {number} of {result.spec} made up at random, in no file: {names}")
    for host, times in result.attempts.items():
        lines.append(f"note: {result.spec} tried to reach {host} ({counted(times, 'time')})")
    return printable("\n".join(lines))


def tried(attempts: Mapping[str, int], *, cut_off: bool) -> Iterator[str]:
    """Who was wanted in an air gap; where nothing cuts off all programs, only some are known."""
    for host, times in attempts.items():
        yield f"tried to reach the network: {host} ({counted(times, 'time')})"
    if not attempts:
        yield f"no attempt {'' if cut_off else 'of a Python program '}to reach the network"


def _name(snapshot: Snapshot | RemoteSnapshot) -> str:
    spec = spec_of(snapshot.source, snapshot.name, snapshot.revision)
    return f"{spec} (prepared)" if snapshot.layout == "hf-datasets" else spec


def _title(snapshot: Snapshot | RemoteSnapshot) -> str:
    parts = [_name(snapshot)]
    if snapshot.commit_hash:
        parts.append(f"({snapshot.commit_hash[:12]})")
    if snapshot.aliases:
        parts.append(f"= {', '.join(snapshot.aliases)}")
    if snapshot.license:
        parts.append(f"licence {snapshot.license}")
    return " ".join(parts)


def _needs(snapshot: Snapshot | RemoteSnapshot) -> Iterator[str]:
    if snapshot.needs:
        yield f"    needs: {', '.join(snapshot.needs)}"


def _code(
    snapshot: Snapshot | RemoteSnapshot, found: Sequence[Code] | None = None
) -> Iterator[str]:
    """What runs when the model is loaded, by the reason that it does."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for item in code_by_name(snapshot) if found is None else found:
        by_reason[item.reason].append(item.path)
    for reason, paths in by_reason.items():
        more = f" and {len(paths) - _SHOWN:,} more" if len(paths) > _SHOWN else ""
        yield f"    code: {', '.join(paths[:_SHOWN])}{more} ({reason})"


def _left_out(omitted: Sequence[Omission]) -> Iterator[str]:
    by_reason: dict[str, list[Omission]] = defaultdict(list)
    for item in omitted:
        by_reason[item.reason].append(item)
    for reason, items in by_reason.items():
        names = ", ".join(item.path for item in items[:_SHOWN])
        more = f" and {len(items) - _SHOWN:,} more" if len(items) > _SHOWN else ""
        size = sum(item.size or 0 for item in items)
        yield f"    left out: {names}{more} ({reason}, {amount(size)})"
