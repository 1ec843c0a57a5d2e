"""Ctrl-C and SIGTERM at any call: it stops at once and tidily; and two commands never mix."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import pytest
from command import NOWHERE, Ran, run, start
from disk_calls import At, Call, Commands, Send, Verdict
from loopback import Fault
from loopback_hub import LoopbackHub
from trees import Tree, tree
from unlucky import HUB, Scene, merging, packing, removing

AT_ONCE = 5.0
"""Seconds: one, on a machine that may have other work to do."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAID = "bundler: interrupted; the same command goes on from here\n"


class Interrupted(At):
    """Sends a signal with the call of a number, and notes when."""

    def __init__(self, number: int, sent: signal.Signals) -> None:
        super().__init__(number, Send(sent))
        self.since = 0.0

    def __call__(self, call: Call) -> Verdict:
        verdict = super().__call__(call)
        if isinstance(verdict, Send):
            self.since = time.monotonic()
        return verdict


@pytest.mark.parametrize(
    ("scene", "every"),
    [("merging", 2), ("unpacking", 19), ("removing", 3), ("packing", 3)],
    indirect=["scene"],
    ids=lambda value: str(value),
)
def test_at_any_call_it_stops_at_once_and_tidily(scene: Scene, every: int) -> None:
    faults = {}
    for number in range(0, scene.calls, every):
        at = Interrupted(number, SIGNALS[number // every % 2])
        ran = scene.run(at)
        if not at.since:
            break  # Threads come in any order: this time there were fewer calls.
        try:
            assert time.monotonic() - at.since < AT_ONCE
            assert (ran.code, ran.err) == (130, SAID)
            assert [path for path in tree(scene.folder) if fnmatch(path, "*.bundler-part")] == []
            scene.assert_sound()
            scene.finish()
        except AssertionError as fault:
            faults[f"{number}: {at.calls[-1]}"] = str(fault)[:600]
    assert not faults, "\n".join(f"{at}\n    {fault}" for at, fault in faults.items())


def stopped(process: subprocess.Popen[bytes], sent: signal.Signals) -> tuple[float, Ran]:
    """How long it takes a command to end when a signal is sent, and how it ends."""
    since = time.monotonic()
    process.send_signal(sent)
    out, err = process.communicate(timeout=30)
    return time.monotonic() - since, Ran(process.returncode, out.decode(), err.decode(), out)


def until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline


class TestLongWork:
    """What takes long does not keep anybody waiting."""

    @pytest.mark.parametrize("sent", SIGNALS)
    @pytest.mark.parametrize("asked", ["/api/models/", "config.json", "xet-bridge"])
    def test_a_hub_that_does_not_answer(
        self, asked: str, sent: signal.Signals, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        hub.add("acme/tiny", {"config.json": b"{}", "model.safetensors": bytes(3_000_000)})
        hub.faults.append(Fault(asked, times=99, cut=0, stall=True))
        env = {**NOWHERE, "HF_ENDPOINT": hub.url}
        with start("pack", "acme/tiny", "-o", "b", home=tmp_path, env=env) as process:
            until(lambda: any(asked in request.path for request in hub.requests), process)
            seconds, ran = stopped(process, sent)
        assert seconds < AT_ONCE
        assert (ran.code, ran.err) == (130, SAID)
        assert [path.name for path in tmp_path.iterdir() if path.name != ".cache"] == []

    @pytest.mark.parametrize("sent", SIGNALS)
    def test_content_that_takes_long_to_compress(
        self, sent: signal.Signals, tmp_path: Path
    ) -> None:
        (tmp_path / "x.pth").write_bytes(os.urandom(1 << 20) * 100)
        command = ("pack", "file:x.pth", "-o", "b", "--level", 19)
        draft = tmp_path / ".b.bundler-part"
        with start(*command, home=tmp_path) as process:
            until(lambda: draft.exists() and draft.stat().st_size > 0, process)
            seconds, ran = stopped(process, sent)
        assert seconds < AT_ONCE
        assert (ran.code, ran.err) == (130, SAID)
        assert not draft.exists()
        assert not (tmp_path / "b").exists()


class Holding(At):
    """Does something while the command waits with the first call, from a number on, that fits."""

    def __init__(
        self, number: int, meanwhile: Callable[[], None], fits: Callable[[Call], bool]
    ) -> None:
        super().__init__()
        self._number = number
        self._meanwhile = meanwhile
        self._fits = fits
        self._is_done = False

    def __call__(self, call: Call) -> Verdict:
        if len(self.calls) >= self._number and not self._is_done and self._fits(call):
            self._is_done = True
            self._meanwhile()
        return super().__call__(call)


def writes_the_bundle(call: Call) -> bool:
    return call.name == "write" and call.paths[0].name == ".bundle.tar.zst.bundler-part"


def anything(_: Call) -> bool:
    return True


def notes(call: Call) -> bool:
    """Whether it writes a receipt."""
    return call.name == "write" and ".bundler" in call.paths[0].parts


def notes_nothing(call: Call) -> bool:
    return all(".bundler" not in path.parts for path in call.paths)


def refused(ran: Ran, said: str) -> None:
    assert (ran.code, ran.err.count("\n")) == (6, 1), ran.err
    assert f"another bundler {said}" in ran.err


def remove_meanwhile(scene: Scene) -> None:
    """Try to remove what is being unpacked."""
    command = ("remove", "org/tiny", "--root", ".")
    ran = run(*command, home=scene.folder, cwd=scene.folder)
    if "has installed nothing" not in ran.err:  # Before the first receipt.
        refused(ran, f"is writing to {scene.folder / HUB}")


def without_receipts(found: Tree) -> Tree:
    return {path: entry for path, entry in found.items() if "/.bundler/" not in path}


class TestTwoAtOnce:
    """Whatever one has got to, the other waits, or says that somebody else is at work."""

    def test_a_removal_leaves_an_unpack_alone(
        self, commands: Commands, tmp_path: Path, hub: LoopbackHub
    ) -> None:
        scene = merging(commands, tmp_path, hub)
        remove = partial(remove_meanwhile, scene)
        for number in range(4, scene.calls - 12, 9):
            assert scene.run(Holding(number, remove, notes_nothing)).code == 0
            scene.assert_finished()

    def test_a_removal_leaves_a_receipt_that_is_being_written_alone(
        self, commands: Commands, tmp_path: Path, hub: LoopbackHub
    ) -> None:
        scene = merging(commands, tmp_path, hub)
        assert scene.run(Holding(0, partial(remove_meanwhile, scene), notes)).code == 0
        scene.assert_finished()

    def test_an_unpack_waits_for_a_removal_or_finds_all_there(
        self, commands: Commands, tmp_path: Path, hub: LoopbackHub
    ) -> None:
        scene = removing(commands, tmp_path, hub)
        new = tmp_path / "bundles/new"
        second: list[subprocess.Popen[bytes]] = []
        waited = []

        def unpack() -> None:
            options = ("--root", ".", "--checkpoints", "plain", "--only", "org/tiny")
            second[:] = [start("unpack", new, *options, home=tmp_path, cwd=scene.folder)]
            err = second[0].stderr
            assert err
            waited.append(b"waiting for another bundler" in err.readline())

        for number in range(3, 50, 9):
            assert scene.run(Holding(number, unpack, anything)).code == 0
            with second[0] as process:
                assert process.communicate(timeout=30)[1] == b""
            assert process.returncode == 0
            expected = scene.before if waited[-1] else scene.after
            assert without_receipts(tree(scene.folder)) == without_receipts(expected)
        assert waited.count(True) > 2

    def test_a_bundle_is_written_by_one_and_a_store_used_by_one(
        self, commands: Commands, tmp_path: Path, hub: LoopbackHub
    ) -> None:
        scene = packing(commands, tmp_path, hub)
        env = dict(scene.env)

        def same_store() -> None:
            *command, _ = scene.arguments
            ran = run(*command, "store", home=tmp_path, cwd=scene.folder, env=env)
            refused(ran, f"uses the store {scene.folder / 'store'}")

        def same_output() -> None:
            *command, _ = scene.arguments
            ran = run(*command, tmp_path / "mine", home=tmp_path, cwd=scene.folder, env=env)
            refused(ran, "is writing")

        for number in (20, 40):
            assert scene.run(Holding(number, same_store, anything)).code == 0
            scene.assert_finished()
        assert scene.run(Holding(0, same_output, writes_the_bundle)).code == 0
        scene.assert_finished()
