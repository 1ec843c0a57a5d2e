"""A machine without a network, and how tests bring models to it and load them there.

target = carry(hub, ["acme/plain"], folder, air_gap)
found = target.load("hub_files.py", listed({"main": ["model", "acme/plain", None]}))
found["main"]                               # what a program of `loaders` printed about it
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command import command_environment, run
from kinds import Interpreter
from loopback_hub import LoopbackHub

LOADERS = Path(__file__).parent / "loaders"
UNDER_OFFLINE_ENV = ("bash", "-c", '. ./offline.env && exec "$@"', "bash")
# What may be left over on a target from another set-up; offline.env must win over all of it.
LEFTOVERS = {
    "HF_HUB_OFFLINE": "0",
    "TRANSFORMERS_OFFLINE": "0",
    "HF_DATASETS_OFFLINE": "0",
    "HF_HOME": "/nowhere",
    "HF_ENDPOINT": "http://127.0.0.1:9",
    "HF_DATASETS_CACHE": "/nowhere",
    "HUGGINGFACE_HUB_CACHE": "/nowhere",
    "SENTENCE_TRANSFORMERS_HOME": "/nowhere",
    "TORCH_HOME": "/nowhere",
    "TRANSFORMERS_CACHE": "/nowhere",
}

Wanted = Mapping[str, Sequence[str | None]]


@dataclass(frozen=True)
class Target:
    """A machine behind an air gap, with caches and an offline.env that bundler made there."""

    home: Path
    air_gap: tuple[str, ...]

    @property
    def hub_cache(self) -> Path:
        """The cache that huggingface_hub reads, if unpacked by carry."""
        return self.home / "caches" / "huggingface" / "hub"

    def run(
        self,
        *arguments: object,
        interpreter: Interpreter | None = None,
        before: Sequence[str] = (),
        tracer: Sequence[str] = (),
    ) -> Any:
        """The JSON that Python prints as its last line, run under offline.env, by nobody's hand.

        `before` runs the rest in some other way, outside of the tracer.
        """
        interpreter = interpreter or Interpreter()
        command = [*tracer, interpreter.python, *map(str, arguments)]
        process = subprocess.run(
            [*self.air_gap, *before, *UNDER_OFFLINE_ENV, *command],
            cwd=self.home,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "PYTHONPATH": interpreter.path,
                **LEFTOVERS,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        return json.loads(process.stdout.splitlines()[-1])

    def load(self, loader: str, *arguments: str, **options: Any) -> dict[str, Any]:
        """What a program of `loaders` says to every case."""
        found: dict[str, Any] = self.run(LOADERS / loader, *arguments, **options)
        return found

    def unpack(self, *arguments: object) -> Any:
        """What `bundler unpack` with these arguments says that it did."""
        process = subprocess.run(
            [
                *self.air_gap,
                *(sys.executable, "-m", "bundler", "unpack", "--json"),
                *map(str, arguments),
            ],
            cwd=self.home,
            env=command_environment(self.home),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        return json.loads(process.stdout)


def air_gap_command() -> tuple[str, ...] | None:
    """What runs a command on a machine without a network, if the system allows that to anybody."""
    for command in (("unshare", "-n"), ("unshare", "-rn")):
        try:
            if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
                return command
        except FileNotFoundError:
            break
    return None


def listed(wanted: Wanted) -> str:
    """The cases as programs of `loaders` take them that are told names and revisions."""
    return json.dumps([[case, *arguments] for case, arguments in wanted.items()])


def carry(
    hub: LoopbackHub,
    specs: Sequence[str],
    folder: Path,
    air_gap: tuple[str, ...],
    mirrors: Sequence[str] = (),
) -> Target:
    """Pack `specs` of the hub in one home, and unpack them in another that has no network."""
    online, target = folder / "online", Target(folder / "offline", air_gap)
    online.mkdir()
    target.home.mkdir()
    bundle = target.home / "bundle.tar.zst"
    through = [argument for mirror in mirrors for argument in ("--mirror", mirror)]
    packed = run(
        *("pack", "--models", *specs, "-o", bundle, *through),
        home=online,
        env={"HF_ENDPOINT": hub.url},
    )
    assert packed.code == 0, packed.err
    target.unpack(bundle.name, "--root", "caches")
    return target
