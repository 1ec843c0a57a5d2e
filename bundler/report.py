"""What the command line tells about plans and bundles, as text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from bundler.errors import amount
from bundler.inspection import Inspection
from bundler.manifest import Omission, Snapshot
from bundler.remote import RemoteSnapshot
from bundler.selection import weight_formats
from bundler.unpacking import Unpacked

if TYPE_CHECKING:  # Unpacking must not import what packing needs.
    from bundler.packing import PackPlan

_SHOWN = 6
"""Names of left-out files that are shown for one reason."""


def printable(text: str) -> str:
    """`text` without anything that a terminal would obey; lines are kept."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def counted(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def planned(plan: PackPlan) -> str:
    """What a pack will bring."""
    lines = []
    for snapshot in plan.snapshots:
        size = sum(file.size or 0 for file in snapshot.files)
        lines += [
            _title(snapshot),
            f"    {counted(len(snapshot.files), 'file')}, {amount(size)}",
            *_left_out(snapshot.omitted),
        ]
    lines.append(
        f"in all: {amount(plan.missing_size)} to download, "
        f"{amount(plan.size)} in the bundle before compression"
    )
    return printable("\n".join(lines))


def inspected(inspection: Inspection) -> str:
    """What a bundle holds."""
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
        if snapshot.omitted:
            notes += [f"{_name(snapshot)}:", *_left_out(snapshot.omitted)]
    lines = [*_table(rows), *notes]
    lines.append(f"{amount(inspection.size)} unpacked, id {inspection.digest}")
    return printable("\n".join(lines))


def unpacked(result: Unpacked, *, done: bool) -> str:
    """What an unpack did (`done`) or would do."""
    lines = []
    for snapshot in result.snapshots:
        files = counted(len(snapshot.files), "file")
        lines += [_title(snapshot), f"    {files}, {amount(snapshot.size)}"]
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
    if not done:
        lines.append(f"{amount(result.written_size)} needed, {amount(result.free_size)} free")
    return printable("\n".join(lines))


def _name(snapshot: Snapshot | RemoteSnapshot) -> str:
    name = snapshot.name
    if snapshot.kind not in (None, "model"):
        name = f"{snapshot.kind}:{name}"
    return name if snapshot.revision in (None, "main") else f"{name}@{snapshot.revision}"


def _title(snapshot: Snapshot | RemoteSnapshot) -> str:
    parts = [_name(snapshot)]
    if snapshot.commit_hash:
        parts.append(f"({snapshot.commit_hash[:12]})")
    if snapshot.aliases:
        parts.append(f"= {', '.join(snapshot.aliases)}")
    if snapshot.license:
        parts.append(f"licence {snapshot.license}")
    return " ".join(parts)


def _left_out(omitted: Sequence[Omission]) -> Iterator[str]:
    by_reason: dict[str, list[Omission]] = defaultdict(list)
    for item in omitted:
        by_reason[item.reason].append(item)
    for reason, items in by_reason.items():
        names = ", ".join(item.path for item in items[:_SHOWN])
        more = f" and {len(items) - _SHOWN:,} more" if len(items) > _SHOWN else ""
        size = sum(item.size or 0 for item in items)
        yield f"    left out: {names}{more} ({reason}, {amount(size)})"


def _table(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
