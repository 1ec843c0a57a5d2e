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
    forward. `keep_refs`: all stay.
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
        if pointer.root == root
    }
    return work.keeping(set_before)


def without_moves(
    receipt: Receipt, work: Mapping[str, Survey], roots: Roots, *, kept: bool
) -> Receipt:
    """`receipt` without the refs and branches that were not moved, by the surveys of each root.

    `kept`: those that stay; else also those that are still to be moved.
    """
    unmoved = {
        (roots.kept_as(name), move.path)
        for name, survey in work.items()
        for move in survey.moves
        if move.is_kept or not kept
    }

    def left(pointers: tuple[InstalledPointer, ...]) -> tuple[InstalledPointer, ...]:
        return tuple(pointer for pointer in pointers if pointer.place not in unmoved)

    models = (replace(m, links=left(m.links), texts=left(m.texts)) for m in receipt.models)
    return replace(receipt, models=tuple(models))
