"""What a bundle set when it was unpacked before: unpacking it again is to be no step back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from bundler.digest import Digest
from bundler.environment import Roots
from bundler.receipt import InstalledPointer, Receipt
from bundler.survey import Survey


def settled(
    work: Survey, root: str, bundle: Digest, receipts: Iterable[Receipt], keep_refs: bool
) -> Survey:
    """`work` without the moves that are not to be made below the root that receipts call `root`.

    A ref that `bundle` set before, and something else has moved since, stays: that was a step
    forward. `keep_refs`: all stay. One that `bundle` was to move when it was killed is moved.
    """
    if not work.moves:
        return work
    if keep_refs:
        return work.keeping({move.path for move in work.moves})
    set_before = {
        pointer.path
        for receipt in receipts
        if receipt.bundle == bundle
        for model in receipt.models
        for pointer in (*model.texts, *model.links)
        if pointer.root == root and not pointer.pending
    }
    return work.keeping(set_before)


def with_moves(
    receipt: Receipt, work: Mapping[str, Survey], roots: Roots, *, pending: bool
) -> Receipt:
    """`receipt` without the refs and branches that stay, by the surveys of each root.

    `pending`: those that do not are still to be moved.
    """
    moves = {
        (roots.kept_as(name), move.path): move
        for name, survey in work.items()
        for move in survey.moves
    }
    if not moves:
        return receipt

    def settled_ones(pointers: tuple[InstalledPointer, ...]) -> tuple[InstalledPointer, ...]:
        return tuple(
            replace(pointer, pending=pending and pointer.place in moves)
            for pointer in pointers
            if pointer.place not in moves or not moves[pointer.place].is_kept
        )

    models = (
        replace(m, links=settled_ones(m.links), texts=settled_ones(m.texts)) for m in receipt.models
    )
    return replace(receipt, models=tuple(models))
