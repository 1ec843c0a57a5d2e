"""What the command line tells about what is installed, as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bundler.errors import amount
from bundler.receipt import key_of
from bundler.wording import counted, printable, table

if TYPE_CHECKING:  # No command must import what another needs.
    from bundler.audit import InstalledFault, InstalledVerification
    from bundler.inventory import Inventory
    from bundler.removal import Removal

_SHOWN = 20
"""Files of one kind that are told."""


def inventoried(inventory: Inventory) -> str:
    """What is installed, bundle by bundle."""
    if not inventory.standings:
        return printable(f"bundler has installed nothing below {inventory.roots.hf_home}")
    lines: list[str] = []
    roots: dict[str, None] = {}
    for bundle, standings in inventory.by_bundle().items():
        rows = [("commit", "size", "whole", "revision", "layout", "model")]
        for standing in standings:
            model = standing.model
            missing = f"{len(standing.missing):,} missing"
            rows.append(
                (
                    (model.commit_hash or "-")[:12],
                    amount(model.size),
                    "yes" if standing.is_whole else missing,
                    model.revision or "-",
                    model.layout,
                    f"{model.spec}{''.join(f' = {alias}' for alias in model.aliases)}",
                )
            )
            places = {root for root, _ in model.places}
            roots |= dict.fromkeys(str(inventory.roots.kept_at(root)) for root in sorted(places))
        lines += [str(bundle), *(f"  {line}" for line in table(rows))]
    lines.append(f"{amount(inventory.size)} in {', '.join(roots)}")
    if not all(standing.is_whole for standing in inventory.standings):
        lines.append("bundler verify names what is missing, and what puts it right")
    return printable("\n".join(lines))


def faulty(fault: InstalledFault) -> str:
    """One fault, and what puts it right."""
    return f"{fault.path} of {', '.join(fault.models)} is {fault.problem}: {fault.mend}"


def verified(result: InstalledVerification) -> Iterator[str]:
    """What is right, and what is no fault but may be of interest."""
    if not result.faults:
        yield f"all {counted(result.checked, 'installed file')} ({amount(result.size)}) are right"
    for note in result.notes[:_SHOWN]:
        yield printable(f"note: {note}")
    for path in result.foreign[:_SHOWN]:
        yield printable(f"note: {path} is not of bundler")
    more = max(len(result.foreign) - _SHOWN, 0) + max(len(result.notes) - _SHOWN, 0)
    if more:
        yield f"note: and {more:,} more, which --json lists"


def removed(removal: Removal, *, done: bool) -> Iterator[str]:
    """What a removal did (`done`) or would do."""
    verb = "is removed" if done else "would be removed"
    for key, model in {key_of(model): model for _, model in removal.models}.items():
        commit = f" ({model.commit_hash[:12]})" if model.commit_hash else ""
        stays = "stays: another bundle has it too"
        yield printable(f"{model.spec}{commit} {stays if key in removal.staying else verb}")
    kept = list(removal.kept.items())
    for path, reason in kept[:_SHOWN]:
        yield printable(f"note: {path} stays: {reason}")
    if len(kept) > _SHOWN:
        yield f"note: and {len(kept) - _SHOWN:,} more, which --json lists"
    files = counted(removal.removed, "file")
    verb = "removed" if done else "to remove"
    yield f"{files} {verb}, {amount(removal.freed)} {'freed' if done else 'to free'}"
