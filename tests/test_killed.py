"""Killed at any call that changes the disk: all is whole, and the next run finishes the work."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from itertools import chain, count
from pathlib import Path

import pytest
from bundle_builder import CountingFile
from command import command_environment
from disk_calls import KILL, At, Commands, Tear
from loopback_hub import LoopbackHub
from unlucky import ONLINE, Scene, bundle_of, merging

import bundler

LARGE = {f"model-{n}.safetensors": os.urandom(1_100_000) for n in range(6)}
JOBS = 2
PATHS = {hashlib.sha256(content).hexdigest(): path for path, content in ONLINE.items()}
FETCHED = PATHS.keys()
BEGINNING = 300_000
"""Bytes that are read of every bundle, to learn what is in it; less than a model."""
LOOKS = re.compile(
    r"newfstatat|l?stat|fstat|statfs|fstatfs|readlink(at)?|f?access(at)?2?|getcwd|getdents64|chdir"
    r"|execve|close|dup[23]?|fcntl|flock|lseek|fadvise64|p?read(64|v)?|poll|epoll_\w+|mmap|ioctl"
    r"|uname|pipe2?|eventfd2"
)
"""Calls with a path or a handle that change nothing."""
CALLED = {
    "openat": "open", "pwrite64": "write", "ftruncate": "truncate", "fchmod": "chmod",
    "mkdirat": "mkdir", "renameat": "rename", "linkat": "link", "symlinkat": "symlink",
    "unlinkat": "unlink", "fdatasync": "fsync", "utimensat": "utime", "renameat2": "rename",
    "copy_file_range": "write", "sendfile": "write", "fchmodat": "chmod",
}  # fmt: skip
"""What calls are named in `disk_calls`, if otherwise than by the kernel."""


def changes(line: str) -> str | None:
    """The name of a call that strace has seen change the disk."""
    match = re.match(r"\d+ +(\w+)\((.*)", line)
    # The end of a call that another thread had interrupted, or a lock between processes.
    if match is None or '"/dev/shm/sem.' in line:
        return None
    name, arguments = match[1], match[2]
    if name in ("open", "openat") and not re.search("O_CREAT|O_TRUNC|O_TMPFILE", arguments):
        return None
    to_mapped = name == "mmap" and re.search("PROT_WRITE, MAP_SHARED, .*/case/", arguments)
    clones = name == "ioctl" and "FICLONE" in arguments
    to_people = name == "write" and re.match(r"\d+<(pipe|socket|anon_inode|/dev/)", arguments)
    if to_people or (LOOKS.fullmatch(name) and not to_mapped and not clones):
        return None
    return "rmdir" if "AT_REMOVEDIR" in arguments else CALLED.get(name, name)


def whole_files(folder: Path) -> set[str]:
    """The digests of all files below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def asked_for(digest: str, hub: LoopbackHub) -> bool:
    """Whether the hub was asked for the content of the file with this digest."""
    return any(r.method == "GET" and r.path.endswith(f"/{PATHS[digest]}") for r in hub.requests)


@pytest.mark.parametrize(
    ("scene", "every"),
    [("merging", 1), ("unpacking", 5), ("removing", 1), ("removing all", 4), ("packing", 2)],
    indirect=["scene"],
    ids=lambda value: str(value),
)
def test_what_was_there_loads_and_running_again_finishes(
    scene: Scene, every: int, hub: LoopbackHub
) -> None:
    killed, faults = 0, {}
    fetched_once = set()
    # Of the end, where receipts and folders go, nothing is left out. Threads come in any order, so
    # there may be fewer calls than the first time, or more.
    numbers = sorted({*range(0, scene.calls, every), *range(scene.calls - 6, scene.calls)})
    for number in chain(numbers, count(scene.calls)):
        for verdict in (KILL, Tear()):
            at = At(number, verdict)
            ran = scene.run(at)
            if ran.code == 0:
                break
            killed += 1
            try:
                assert ran.code == -9
                scene.assert_sound()
                fetched = FETCHED & whole_files(scene.folder / "store/blobs")
                hub.requests.clear()
                scene.finish()
                assert not [file for file in fetched if asked_for(file, hub)]
                fetched_once |= fetched
            except AssertionError as fault:
                faults[f"{number}: {at.calls[-1]}"] = str(fault)
            if at.calls[-1].size < 2:
                break
        if ran.code == 0 and number >= scene.calls:
            break
    assert not faults, "\n".join(f"{at}\n    {fault}" for at, fault in faults.items())
    assert killed > 0.9 * scene.calls / every
    assert fetched_once == (FETCHED if scene.arguments[0] == "pack" else set())


def test_strace_sees_no_other_calls_change_the_disk(
    commands: Commands, tmp_path: Path, hub: LoopbackHub
) -> None:
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    scene = merging(commands, tmp_path, hub)
    seen = At()
    assert scene.run(seen).code == 0
    scene.reset()
    log = tmp_path / "log"
    process = subprocess.run(
        ["strace", "-f", "-qq", "-y", "-s", "999", "-o", str(log), "-e", "trace=%file,%desc,sync",
         sys.executable, "-m", "bundler", *map(str, scene.arguments)],
        env={**command_environment(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=scene.folder, capture_output=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    scene.assert_finished()
    changing = Counter(filter(None, map(changes, log.read_text().splitlines())))
    assert changing == Counter(call.name for call in seen.calls)


def test_what_was_unpacked_is_not_unpacked_again(commands: Commands, tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "bundles", "large", {"org/large": LARGE})
    content = bundle.read_bytes()
    sizes = {hashlib.sha256(data).hexdigest(): len(data) for data in LARGE.values()}
    arguments = ("unpack", bundle, "--root", ".", "--jobs", JOBS)
    (tmp_path / "all").mkdir()
    everything = At()
    assert commands.run(*arguments, cwd=tmp_path / "all", decide=everything).code == 0
    spared = []
    for number in range(0, len(everything.calls), 7):
        case = tmp_path / str(number)
        case.mkdir()
        assert commands.run(*arguments, cwd=case, decide=At(number, KILL)).code == -9
        here = whole_files(case) & sizes.keys()
        file = CountingFile(content)
        bundler.unpack(file, roots=bundler.find_roots({}, root=case), env=None)
        # What was being written has no name yet that tells that it is whole.
        sure = max(0, len(here) - JOBS)
        assert file.count < len(content) - sure * 1_100_000 + BEGINNING
        spared.append(sure)
        shutil.rmtree(case)
    assert max(spared) == len(LARGE) - JOBS
