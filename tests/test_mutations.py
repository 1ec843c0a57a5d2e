"""Whatever a bundle was changed into: it is refused and nothing is written, or it does no harm."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from bundle_builder import Pipe
from hypothesis import given, settings
from hypothesis import strategies as st
from limits import IN_MEMORY, little_memory
from mutated_bundles import mutated_bundles
from promises import check_unpack
from trees import tree

import bundler
from bundler.errors import BundlerError

EXAMPLES = int(os.environ.get("EX", "100"))
CHANGED = {
    "manifest": ("document",),
    "tar": ("members",),
    "frames": ("parts", "frames"),
    "table": ("entries", "table"),
}
"""What is changed, one at a time."""
MOST_MEMORY = 1 << 30
"""Bytes of address space that unpacking these bundles, of some kilobytes, may add."""


@pytest.fixture(autouse=True, scope="module")
def no_room_for_what_is_claimed() -> Iterator[None]:
    """Whoever believes a bundle that claims to be large runs out of memory."""
    with little_memory(MOST_MEMORY):
        yield


@pytest.mark.parametrize("layers", CHANGED.values(), ids=CHANGED)
def test_a_change_is_refused_or_does_no_harm(layers: tuple[str, ...]) -> None:
    @settings(max_examples=EXAMPLES)
    @given(mutated_bundles(layers), st.booleans(), st.booleans())
    def run(content: bytes, checkpoints: bool, code: bool) -> None:
        check_unpack(content, checkpoints=checkpoints, code=code)

    run()


@settings(max_examples=EXAMPLES)
@given(mutated_bundles(), st.booleans(), st.booleans())
def test_changes_of_several_kinds_are_refused_or_do_no_harm(
    content: bytes, checkpoints: bool, code: bool
) -> None:
    check_unpack(content, checkpoints=checkpoints, code=code)


@settings(max_examples=EXAMPLES)
@given(mutated_bundles(("document",)), st.booleans())
def test_what_was_installed_is_verified_known_and_removed_again(
    content: bytes, checkpoints: bool
) -> None:
    with TemporaryDirectory(dir=IN_MEMORY) as name:
        roots = bundler.find_roots(root=Path(name))

        def plan() -> bundler.Unpacked:
            return bundler.plan_unpack(
                io.BytesIO(content), roots=roots, env=None, checkpoints=checkpoints
            )

        try:
            done = bundler.unpack(Pipe(content), roots=roots, env=None, checkpoints=checkpoints)
        except BundlerError:
            return
        assert plan().written_size == 0
        assert all(work.is_done for work in plan().work.values())
        assert bundler.verify_installed(roots).faults == ()
        assert all(standing.is_whole for standing in bundler.installed(roots).standings)
        before = tree(Path(name))
        bundler.unpack(Pipe(content), roots=roots, env=None, checkpoints=checkpoints)
        assert tree(Path(name)) == before
        bundler.remove([str(done.digest)], roots=roots)
        assert [n for n, (kind, _, _) in tree(Path(name)).items() if kind != "folder"] == []
