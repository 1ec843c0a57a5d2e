"""Fixtures for all tests."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import NOWHERE
from disk_calls import At, Commands, NotSupportedError
from hypothesis import HealthCheck, settings
from loopback_hub import LoopbackHub
from loopback_proxy import LoopbackProxy
from loopback_web import LoopbackWeb
from network_trace import tracing
from shared import set_place
from target import air_gap_command
from unlucky import SCENES, Scene

# In the background a shell lets the tests ignore these, and so would what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# For machines that have other work to do, and for runs that can be repeated.
settings.register_profile(
    "bundler", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("bundler")


@pytest.fixture(scope="session", autouse=True)
def _place_of_what_is_shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The folder of the whole run: under pytest-xdist, that above the one of this process."""
    mine = tmp_path_factory.getbasetemp()
    set_place((mine.parent if hasattr(request.config, "workerinput") else mine) / "shared")


@pytest.fixture(autouse=True)
def _no_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries of whoever runs the tests have downloaded nothing."""
    for name in ("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(name, "/nowhere")


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    """An empty hub on the loopback address."""
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture
def tls_hub() -> Iterator[LoopbackHub]:
    """The same over https, with certificates from an authority that only its `ca_file` names."""
    with LoopbackHub(tls=True) as hub:
        yield hub


@pytest.fixture
def web() -> Iterator[LoopbackWeb]:
    """The other hosts that models come from, empty, on the loopback address."""
    with LoopbackWeb() as web:
        yield web


@pytest.fixture
def proxy() -> Iterator[LoopbackProxy]:
    """A proxy that takes everybody, and knows no hosts but this one."""
    with LoopbackProxy() as proxy:
        yield proxy


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the test's own process nothing but the loopback address."""
    for name in ("HF_TOKEN", "HF_ENDPOINT", "ALL_PROXY", "SSL_CERT_FILE", *NOWHERE):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in NOWHERE.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system with the options given, and gives its folder."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        mounted = os.path.ismount(folder)
        command = ["mount", "-t", "tmpfs", "-o", f"{'remount,' * mounted}{options}"]
        process = subprocess.run([*command, "tmpfs", str(folder)], stderr=subprocess.DEVNULL)
        if process.returncode:
            pytest.skip("mounting a file system is not allowed here")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path | None]]:
    """Makes a file system in a sparse file, mounts it, and gives its folder; None if it cannot."""
    image, folder = tmp_path / "image", tmp_path / "mounted"
    folder.mkdir()

    def mount(make: str, mount: str) -> Path | None:
        with open(image, "wb") as file:
            file.truncate(64 << 20)
        for command in (f"{make} {image}", f"{mount} {image} {folder}"):
            try:
                subprocess.run(command.split(), capture_output=True, check=True)
            except (FileNotFoundError, subprocess.CalledProcessError):
                return None
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def fat(mounted: Callable[..., Path | None]) -> Path:
    """A folder with FAT in clusters of 32 KiB, as on a large stick."""
    folder = mounted("mkfs.vfat -s 64", "mount -t vfat -o loop")
    if folder is None:
        pytest.skip("FAT cannot be mounted here")
    return folder


@pytest.fixture
def case_blind(mounted: Callable[..., Path | None]) -> Path:
    """A folder that can hold links, in which names that differ in case alone are one."""
    folder = mounted("mkfs.ext4 -q -O casefold", "mount -o loop")
    if folder is not None:
        (folder / "f").mkdir()
        subprocess.run(["chattr", "+F", str(folder / "f")], check=True)
        return folder / "f"
    folder = mounted("mkntfs -F -Q -q", "lowntfs-3g -o ignore_case")
    if folder is None:
        pytest.skip("no file system that is blind to case can be mounted here")
    return folder


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Runs commands whose every call that changes the disk can be attended to."""
    with Commands(tmp_path_factory.mktemp("home")) as found:
        try:
            found.run("--version", decide=At())
        except NotSupportedError as error:
            pytest.skip(f"calls cannot be attended to here: {error}")
        yield found


@pytest.fixture
def scene(
    request: pytest.FixtureRequest, commands: Commands, tmp_path: Path, hub: LoopbackHub
) -> Scene:
    """The scene of a name, for tests that are given one indirectly."""
    return SCENES[request.param](commands, tmp_path, hub)


@pytest.fixture(scope="session")
def air_gap() -> tuple[str, ...]:
    """What runs a command on a machine without a network."""
    command = air_gap_command()
    if command is None:
        pytest.skip("this system refuses unshare -n")
    return command


@pytest.fixture(scope="module")
def tracer(air_gap: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """What keeps the calls that network_trace.network_calls reads; empty if it cannot be had."""
    command = tracing(tmp_path_factory.mktemp("trace") / "calls")
    try:
        works = subprocess.run([*air_gap, *command, "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return ()
    return command if works.returncode == 0 else ()
