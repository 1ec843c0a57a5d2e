"""What a bundle set when it was unpacked before: unpacking it again is to be no step back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bundler.digest import Digest
from bundler.environment import Roots
from bundler.receipt import Receipt, read_receipts
from bundler.survey import Survey


def settled(work: Survey, root: str, bundle: Digest, roots: Roots, keep_refs: bool) -> Survey:
    """`work` without the moves that are not to be made below the root of that name.

    A ref that `bundle` set before, and something else has moved since, stays: that was a step
    forward. `keep_refs`: all stay. Raises TargetError.
    """
    if not work.moves:
        return work
    if keep_refs:
        return work.keeping({move.path for move in work.moves})
    set_before = {
        path
        for receipt in read_receipts(roots.hf_home)
        if receipt.bundle == bundle
        for place, path in (*receipt.texts, *receipt.links)
        if place == roots.kept_as(root)
    }
    return work.keeping(set_before)


def without_moves(receipt: Receipt, work: Mapping[str, Survey], roots: Roots) -> Receipt:
    """`receipt` before anything was moved, by the surveys of each root."""
    to_move = {
        (roots.kept_as(name), move.path)
        for name, survey in work.items()
        for move in survey.moves
        if not move.is_kept
    }
    return replace(
        receipt,
        links=tuple(link for link in receipt.links if link not in to_move),
        texts=tuple(text for text in receipt.texts if text not in to_move),
    )
