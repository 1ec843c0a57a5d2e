"""The wheels that a package needs on other machines, brought by pip."""

from __future__ import annotations

import email
import os
import platform
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from bundler.digest import Digest
from bundler.errors import RequestError, UnavailableError

_OLDEST = (3, 10)
_NO_NETWORK = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|Max retries|ProxyError|"
    r"Connection(Error|Refused| broken| refused| reset)|Temporary failure in name"
)


@dataclass(frozen=True, slots=True)
class _Platform:
    """How pip, and how Python there, calls a platform."""

    tags: tuple[str, ...]
    """Of wheels, the best first."""
    system: str
    sys_platform: str
    machine: str


def _linux(machine: str, oldest: int) -> _Platform:
    # Those for the C library of 2012 come first; 2.28 is of 2018.
    minors = [*range(17, oldest - 1, -1), *range(18, 29)]
    legacy = ["manylinux2014", *(["manylinux2010", "manylinux1"] if machine == "x86_64" else [])]
    tags = [*(f"manylinux_2_{minor}" for minor in minors), *legacy, "linux"]
    return _Platform(tuple(f"{tag}_{machine}" for tag in tags), "Linux", "linux", machine)


def _macos(machine: str, versions: Sequence[str]) -> _Platform:
    kinds = (machine, "universal2")
    tags = tuple(f"macosx_{version}_{kind}" for version in versions for kind in kinds)
    return _Platform(tags, "Darwin", "darwin", machine)


_NEWER = ("11_0", "12_0", "13_0")
_OLDER = ("10_9", "10_10", "10_11", "10_12", "10_13", "10_14", "10_15", "10_16")
PLATFORMS: Mapping[str, _Platform] = {
    "linux-x86_64": _linux("x86_64", 5),
    "linux-aarch64": _linux("aarch64", 17),
    "macos-arm64": _macos("arm64", _NEWER),
    "macos-x86_64": _macos("x86_64", _OLDER + _NEWER),
}
"""What wheels can be brought for; Linux is one with glibc 2.28 or newer, macOS 13 or newer."""


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """A kind of machine: the version of its Python, such as 3.11, and one of PLATFORMS."""

    python: str
    platform: str

    def __str__(self) -> str:
        return f"{self.python}-{self.platform}"

    @property
    def words(self) -> str:
        """The same, for people."""
        return f"Python {self.python} on {self.platform}"

    @property
    def marker(self) -> str:
        """What is true on such machines alone, as requirements have it (PEP 508)."""
        about = PLATFORMS[self.platform]
        return (
            f'(python_version == "{self.python}" and sys_platform == "{about.sys_platform}" '
            f'and platform_machine == "{about.machine}")'
        )

    @property
    def environment(self) -> dict[str, str]:
        """What markers of requirements ask for, as it is there."""
        about = PLATFORMS[self.platform]
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": about.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": about.system,
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": about.sys_platform,
        }


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel that was brought; `size` in bytes, `targets` are those that need it."""

    path: Path
    name: str
    version: str
    size: int
    digest: Digest
    targets: tuple[Target, ...]


def targets_of(pythons: str | None, platforms: str | None) -> tuple[Target, ...]:
    """All kinds of machines with one of `pythons` and one of `platforms`, in lists with commas.

    None stands for what runs here. Raises RequestError, also if there is no pip to bring wheels.
    """
    if find_spec("pip") is None:
        raise RequestError(f"pip brings the wheels, and is not here: {sys.executable} -m ensurepip")
    here = f"{sys.platform}-{platform.machine()}".replace("darwin", "macos")
    chosen = _listed(platforms or here)
    versions = _listed(pythons or f"{sys.version_info[0]}.{sys.version_info[1]}")
    for name in chosen:
        if name not in PLATFORMS:
            raise RequestError(f"no platform is called {name}: name one of {', '.join(PLATFORMS)}")
    for version in versions:
        if not re.fullmatch(r"3\.\d{1,3}", version) or int(version[2:]) < _OLDEST[1]:
            raise RequestError(f"{version} is no Python that bundler runs on: 3.10, 3.11 and so on")
    return tuple(sorted({Target(version, name) for version in versions for name in chosen}))


def _listed(text: str) -> list[str]:
    return [part for part in re.split(r"[,\s]+", text) if part]


def fetch_wheels(
    wheel: Path, extras: Collection[str], targets: Sequence[Target], folder: Path
) -> list[Wheel]:
    """Bring `wheel` and all that it needs, with `extras`, on each of `targets` to `folder`.

    Sorted by name. pip resolves and brings them, as it is configured here. Raises UnavailableError
    for what cannot be had.
    """
    needed_by: dict[str, list[Target]] = defaultdict(list)
    for target in targets:
        with TemporaryDirectory(dir=folder) as some:
            for path in _fetched(wheel, extras, target, Path(some)):
                needed_by[path.name].append(target)
                os.replace(path, folder / path.name)
    return [_wheel(folder / name, needed_by[name]) for name in sorted(needed_by)]


def _wheel(path: Path, targets: Sequence[Target]) -> Wheel:
    name, version, _, _ = parse_wheel_filename(path.name)
    content = path.read_bytes()
    return Wheel(path, name, str(version), len(content), Digest.of(content), tuple(targets))


def _fetched(
    wheel: Path, extras: Collection[str], target: Target, folder: Path
) -> Collection[Path]:
    """The wheels of one target, in `folder`.

    pip chooses wheels for it, but asks itself what is needed only on some machines (`tomli` before
    Python 3.11), so it is told what is missing until nothing is.
    """
    more: set[str] = set()
    chosen = f"{wheel}[{','.join(sorted(extras))}]" if extras else str(wheel)
    while True:
        _download([chosen, *sorted(more)], target, folder)
        found = {parse_wheel_filename(path.name)[0]: path for path in folder.iterdir()}
        root = parse_wheel_filename(wheel.name)[0]
        needed: set[str] = set()
        missing: set[str] = set()
        todo = [(str(root), frozenset(extras))]
        seen = set(todo)
        while todo:
            name, wanted = todo.pop()
            needed.add(name)
            for requirement in _requirements(found[canonicalize_name(name)], wanted, target):
                step = (str(canonicalize_name(requirement.name)), frozenset(requirement.extras))
                if step[0] not in found:
                    requirement.marker = None
                    missing.add(str(requirement))
                elif step not in seen:
                    seen.add(step)
                    todo.append(step)
        if not missing:
            return [path for name, path in found.items() if name in needed]
        if missing <= more:
            raise UnavailableError(f"pip does not bring {', '.join(missing)} for {target.words}")
        more |= missing
        for path in found.values():  # With more to think of, pip may choose other versions.
            path.unlink()


def _requirements(wheel: Path, extras: Collection[str], target: Target) -> Iterator[Requirement]:
    """What `wheel` with `extras` needs there."""
    with ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n))
        about = email.message_from_bytes(archive.read(name))
    for text in about.get_all("Requires-Dist", []):
        requirement = Requirement(text)
        there = [{**target.environment, "extra": extra} for extra in ("", *extras)]
        if requirement.marker is None or any(map(requirement.marker.evaluate, there)):
            yield requirement


def _download(requirements: Sequence[str], target: Target, folder: Path) -> None:
    tags = [word for tag in PLATFORMS[target.platform].tags for word in ("--platform", tag)]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input"),
            *("--disable-pip-version-check", "--only-binary", ":all:", "--implementation", "cp"),
            *("--python-version", target.python, *tags, "--dest", str(folder), *requirements),
        ],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode:
        lines = done.stdout.splitlines()
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        if _NO_NETWORK.search(done.stdout):
            raise UnavailableError(
                "pip reaches no index to bring bundler's wheels from: check the network, or pip's "
                "own settings (pip config list)"
            )
        said = (errors or lines or [f"it ended with {done.returncode}"])[-1]
        raise UnavailableError(f"pip brings no wheels for {target.words}: {said}")
