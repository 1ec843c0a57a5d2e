"""Loading models in a child process without a network: the proof that no look at files can give."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from bundler.checking import Check
from bundler.documents import MALFORMED
from bundler.errors import BundlerError, RequestError, TrustError, UnavailableError, shown
from bundler.progress import Progress, Silent
from bundler.read_only import offline
from bundler.ways import Way, ways

_PROGRAM = Path(__file__).with_name("load_program.py")
_MAX_OUTPUT = 1 << 18
"""Bytes of what libraries say that are kept: the last ones."""
# torch/serialization.py: the first makes every torch.load refuse what is more than tensors,
# torchvision's and torch.hub's too, which would run it.
_ONLY_TENSORS, _ANYTHING = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


@dataclass(frozen=True, slots=True)
class Loaded:
    """One model that a library has loaded, or has tried to."""

    spec: str
    library: str
    """With its version, where it could be asked."""
    what: str = ""
    seconds: float = 0.0
    """Of loading; importing the library does not count."""
    parameters: int | None = None
    made_up: Sequence[str] = ()
    """Names of weights that are in no file, which the library filled with random numbers."""
    attempts: Mapping[str, int] = field(default_factory=dict)
    """How often which host was wanted, as in `AirGap.attempts`."""
    fault: BundlerError | None = None
    """What to tell the user if it did not load."""
    output: str = ""
    """The end of what the libraries said."""

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, for programs."""
        return {
            "spec": self.spec,
            "library": self.library,
            "what": self.what or None,
            "seconds": round(self.seconds, 3),
            "parameters": self.parameters,
            "made_up": list(self.made_up),
            "attempts": dict(self.attempts),
            "error": None if self.fault is None else str(self.fault),
            "output": self.output if self.fault is not None else None,
        }


@dataclass(frozen=True, slots=True)
class Trial:
    """Models that were looked at, and then loaded, those that looked as if they would."""

    check: Check
    loads: tuple[Loaded, ...] = ()

    @property
    def faults(self) -> list[BundlerError]:
        """All that keeps something from loading, to be told to the user; none if all loads."""
        faults: list[BundlerError] = [fault.kind(str(fault)) for fault in self.check.faults]
        return faults + [loaded.fault for loaded in self.loads if loaded.fault is not None]

    def to_json(self) -> dict[str, Any]:
        """The same, and all that is well, as plain values, for programs."""
        loads = {"loads": not self.faults, "loaded": [loaded.to_json() for loaded in self.loads]}
        return self.check.to_json() | loads


def load_models(
    check: Check,
    *,
    python: str | None = None,
    trust_code: bool = False,
    folder: Path = Path(),
    left_out: Mapping[str, Collection[str]] | None = None,
    on_leak: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Iterator[Loaded]:
    """Load each model that `check` was asked for and found no fault with, one after the other.

    Each in a process of its own, started in `folder` in the environment of `check.roots`, without
    a network. `python`: the interpreter that has the libraries, by default this one. `trust_code`:
    run what models bring along; without, those that need it are not loaded, and it is said so.
    `left_out`: by commit hash, files that the user did not want and programs look for. `on_leak`
    gets, at most once, the reason why only Python programs are kept off the network.

    A process that never ends is waited for; it ends with this one at the latest. No other thread
    may be running. Raises RequestError if `python` cannot be run.
    """
    python = program_path(sys.executable if python is None else python)
    environ = offline(os.environ, check.roots)
    if not trust_code:
        environ = {**environ, _ONLY_TENSORS: "1"}
        environ.pop(_ANYTHING, None)
    for model in check.models:
        if model.needed_by or model.faults:
            continue
        omitted = (left_out or {}).get(model.commit_hash or "", ())
        for way in ways(model, check.roots, trust_code=trust_code, left_out=omitted):
            if way.code and not trust_code:
                yield Loaded(model.spec, way.library, fault=_untrusted(model.spec))
                continue
            with (progress or Silent()).start(f"loading {model.spec}", model.size):
                loaded, leak = _load(model.spec, way, python, environ, folder)
            if leak is not None and on_leak is not None:
                on_leak(leak)
                on_leak = None
            yield loaded


def program_path(python: str) -> str:
    """The absolute path of a program: processes are started in other folders.

    Raises RequestError if there is none.
    """
    path = shutil.which(python)
    if path is None:
        raise RequestError(f"there is no program {shown(python)}: --python wants a Python's path")
    return os.path.abspath(path)


def _load(
    spec: str, way: Way, python: str, environ: Mapping[str, str], folder: Path
) -> tuple[Loaded, str | None]:
    """What came of it, and why the process was not cut off, if it was not."""
    from bundler.air_gap import AirGap  # Here: most checks load nothing.

    command = [python, "-B", str(_PROGRAM), json.dumps({"way": way.library, **way.arguments})]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, AirGap() as gap:
        # The pipe to it says by its end that we are gone.
        process = gap.start(
            command, environ, cwd=folder, stdin=subprocess.PIPE, stdout=out, stderr=err,
            start_new_session=True,
        )  # fmt: skip
        try:
            process.wait()
        finally:
            # Also what it has started and left behind.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if process.stdin is not None:
                process.stdin.close()
        output = _end(err)
        loaded = Loaded(spec, way.library, attempts=gap.attempts(), output=output)
        return _told(loaded, _end(out), process.returncode, python), gap.fault


def _end(file: BinaryIO) -> str:
    file.seek(max(0, file.seek(0, os.SEEK_END) - _MAX_OUTPUT))
    return file.read().decode(errors="replace")


def _told(loaded: Loaded, out: str, code: int, python: str) -> Loaded:
    """`loaded` with the answer of the process, its last line; without one, with how it ended."""
    try:
        answer = json.loads((out.splitlines() or [""])[-1])
        parameters = answer["parameters"]
        loaded = replace(
            loaded,
            library=str(answer["library"]),
            what=str(answer["what"]),
            seconds=float(answer["seconds"]),
            parameters=None if parameters is None else int(parameters),
            made_up=[str(name) for name in answer["made_up"]],
        )
        absent, refused, error = answer["absent"], answer["refused"], answer["error"]
    except MALFORMED:
        return replace(loaded, fault=_broken(loaded, _ending(code, loaded.output)))
    if absent:
        why = f"{shown(absent)} is not installed for {python}"
        cure = "install it there, or name a Python that has it by --python"
        fault: BundlerError = UnavailableError(f"{loaded.spec} was not loaded: {why}: {cure}")
    elif refused:
        fault = _untrusted(loaded.spec)
    elif error:
        fault = _broken(loaded, shown(error, 300))
    else:
        return loaded
    return replace(loaded, fault=fault)


def _ending(code: int, output: str) -> str:
    """How a process ended that gave no answer."""
    if code == -signal.SIGKILL:
        return "its process was killed, as the system does with one that takes all memory"
    if code < 0:
        return f"its process crashed: {signal.strsignal(-code) or f'signal {-code}'}"
    last = next(reversed(output.split("\n")[:-1]), "").strip()
    said = f", saying {shown(last, 300)}" if last else ""
    return f"its process ended too early, with exit code {code}{said}"


def _broken(loaded: Loaded, why: str) -> BundlerError:
    cure = "--json has all that it said; pack it again, or the version of the library it wants"
    return UnavailableError(f"{loaded.spec} does not load with {loaded.library}: {why} ({cure})")


def _untrusted(spec: str) -> BundlerError:
    return TrustError(
        f"{spec} was not loaded, since it brings code of its own: --trust-code runs it"
    )
