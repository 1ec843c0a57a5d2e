"""What no misfortune at any call that changes the disk does to a cache, as a table.

Each command is run once for each such call and each misfortune, which is struck by it there; then
all that can be found must be whole, and the next run must finish the work. The tests do the same
with some of the calls. All of it takes about half an hour.
"""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from signal import SIGINT, SIGTERM
from tempfile import TemporaryDirectory

from disk_calls import KILL, At, Commands, Refuse, Send, Tear
from loopback_hub import LoopbackHub
from power_cut import Disk, State
from unlucky import SCENES, Scene, unpacking

_SCENES: dict[str, Callable[[Commands, Path, LoopbackHub], Scene]] = {
    **SCENES,
    **{
        f"unpacking, link mode {mode}": partial(unpacking, options=("--link-mode", mode))
        for mode in ("hardlink", "symlink", "copy")
    },
    "unpacking, no links": partial(unpacking, env={"HF_HUB_DISABLE_SYMLINKS": "1"}),
}
_MISFORTUNES = {
    "killed": partial(At, verdict=KILL),
    "killed in the middle of a write": partial(At, verdict=Tear()),
    "interrupted": partial(At, verdict=Send(SIGINT)),
    "ended": partial(At, verdict=Send(SIGTERM)),
    "no space from there on": partial(At, verdict=Refuse(errno.ENOSPC), lasting=True),
    "a disk that fails from there on": partial(At, verdict=Refuse(errno.EIO), lasting=True),
}


def main() -> None:
    """Try all of it, and print a table and every fault; exits with 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Plain)
    parser.add_argument("scene", nargs="*", metavar="SCENE", help=f"of {', '.join(_SCENES)}")
    chosen = parser.parse_args().scene or [*_SCENES]
    print("| command | calls | misfortune | struck | faults |\n| --- | --- | --- | --- | --- |")
    faults = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bundler-kill-points-")))
        hub = stack.enter_context(LoopbackHub())
        commands = stack.enter_context(Commands(folder))
        for name in chosen:
            scene = _SCENES[name](commands, folder / name, hub)
            for misfortune, tried in _tried(scene):
                found = [f"{name}, {misfortune}, {fault}" for fault in tried if fault]
                row = (name, scene.calls, misfortune, len(tried), len(found))
                print(f"| {' | '.join(map(str, row))} |", flush=True)
                faults += found
    for fault in faults:
        print(fault, file=sys.stderr)
    sys.exit(bool(faults))


class _Plain(argparse.RawDescriptionHelpFormatter):
    pass


def _tried(scene: Scene) -> Iterator[tuple[str, list[str]]]:
    """Each misfortune, and what came of it at each call: a fault, or nothing."""
    for name, strike in _MISFORTUNES.items():
        yield name, [*_struck(scene, strike)]
    if scene.arguments[0] != "pack":
        yield "a power cut", [*_cut(scene)]


def _struck(scene: Scene, strike: Callable[[int], At]) -> Iterator[str]:
    for number in range(scene.calls):
        at = strike(number)
        ran = scene.run(at)
        if len(at.calls) == number + 1:  # Threads come in any order: there may be fewer calls.
            is_told = ran.code < 0 or (ran.code == 0) == (ran.err == "")
            fault = _fault(scene) if is_told else f"exit code {ran.code}: {ran.err}"
            yield f"call {number}, {at.calls[-1]}: {fault}" if fault else ""


def _cut(scene: Scene) -> Iterator[str]:
    scene.reset()
    disk = Disk(scene.folder)
    scene.again(disk.note)
    seen: set[State] = set()
    for number in range(disk.calls + 1):
        for state in disk.states(number, journal=True):
            if state not in seen:
                seen.add(state)
                state.put(scene.folder)
                fault = _fault(scene)
                yield f"call {number}: {fault}" if fault else ""


def _fault(scene: Scene) -> str:
    """What is wrong with what is left, or with what the next run makes of it."""
    try:
        scene.assert_sound()
        scene.finish()
    except AssertionError as fault:
        return str(fault)[:300]
    return ""


if __name__ == "__main__":
    main()
