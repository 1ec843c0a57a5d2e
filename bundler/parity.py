"""Parity files beside a bundle, written by the program par2."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bundler.disk import entries
from bundler.errors import DamagedError, RequestError, TargetError, amount, shown
from bundler.new_folder import sync_file, sync_folder
from bundler.permission import told
from bundler.progress import Progress
from bundler.space import free_space
from bundler.volume_list import LIST_SUFFIX, split_name

_BLOCK_SIZE, _BLOCKS = 4096, 2000
"""Bytes of a block at the least, and about how many a large bundle has: any byte costs a block."""
_FILE_SIZE, _MOST_FILES = 1_000_000_000, 31
"""Bytes of a parity file, so that FAT takes it, unless that makes more files than par2 writes."""
# A packet that describes a file, in "Parity Volume Set Specification 2.0".
_DESCRIPTION = re.compile(rb"PAR2\0PKT(.{8}).{32}PAR 2\.0\0FileDesc", re.DOTALL)
_SIZE = struct.Struct("<Q")
_NAME_AT, _LONGEST, _PIECE = 56, 1 << 10, 1 << 22


def parsed_share(text: str) -> int:
    """How many hundredths of a bundle its parity files are to have. Raises RequestError."""
    found = re.fullmatch(r"([1-9][0-9]?|100) ?%?", text, re.ASCII)
    if found is None:
        raise RequestError(f"--parity {text} is no share: say 5%, or another from 1% to 100%")
    return int(found[1])


def require_program() -> None:
    """Raise RequestError if there is no par2."""
    if shutil.which("par2") is None:
        raise RequestError("parity files need the program par2: apt install par2")


def parity_files(bundle: Path, folder: Path | None = None) -> list[Path]:
    """Those that are called after `bundle`, beside it or in another folder."""
    name = re.compile(re.escape(bundle.name) + r"(\.vol[0-9]+\+[0-9]+)?\.par2", re.ASCII)
    return [p for p in entries(folder or bundle.parent) if name.fullmatch(p.name) and p.is_file()]


def remove_parity(bundle: Path) -> None:
    """Remove what would mend an older bundle of this name. Raises OSError."""
    for path in parity_files(bundle):
        path.unlink()


def write_parity(
    bundle: Path, share: int, progress: Progress, check: Callable[[Sequence[Path]], None]
) -> tuple[str, ...]:
    """Write parity files of `share` hundredths beside a whole bundle, or all its volumes.

    `check` is told of them before they take their names, which are given back. Raises TargetError.
    """
    files = parts(bundle)
    sizes = [*map(os.path.getsize, files)]
    block = -(-max(_BLOCK_SIZE, sum(sizes) // _BLOCKS) // 4) * 4
    blocks = -(-sum(-(-size // block) for size in sizes) * share // 100)
    size = blocks * block
    count = min(1 + size // _FILE_SIZE, _MOST_FILES)
    with told(bundle.parent, "--output"), work_folder(bundle) as work:
        check_space(bundle, size, "write its parity files")
        progress.say(f"par2 writes {amount(size)} of parity, which takes a while")
        options = ["-u", f"-n{count}", f"-s{block}", f"-c{blocks}", f"-B{bundle.parent}"]
        code = par2(work, "unlimited", "create", *options, "--", index(bundle, work), *files)
        made = parity_files(bundle, work)
        if code or not made:
            raise TargetError(f"{bundle} was written, without parity: par2 ended with {code}")
        check(made)
        publish(made, bundle.parent)
    return tuple(path.name for path in made)


def parts(bundle: Path) -> list[Path]:
    """The files of a bundle: itself, or its volumes and their list."""
    if bundle.is_file():
        return [bundle]
    beside = [path for path in entries(bundle.parent) if path.is_file()]
    volumes = [p for p in beside if _is_volume(p.name, bundle)]
    return volumes + [p for p in beside if p.name == bundle.name + LIST_SUFFIX]


def _is_volume(name: str, bundle: Path) -> bool:
    return (split_name(name) or ("", 0))[0] == bundle.name


def check_described(bundle: Path, parity: Sequence[Path], most: int) -> None:
    """Raise DamagedError if the parity files tell of files that `bundle` has not, or of many bytes.

    par2 writes whatever file they tell of. `most`: what all may have, in bytes. Raises OSError.
    """
    found = {told for path in parity for told in _described(path)}
    names = {os.fsdecode(told[_NAME_AT:].rstrip(b"\0")) for told in found}
    whole = {bundle.name, bundle.name + LIST_SUFFIX}
    for name in sorted(names):
        if name not in whole and not _is_volume(name, bundle):
            raise DamagedError(
                f"the parity files of {bundle} have par2 write {shown(name)}, which is no file of "
                "it: copy it again, with the name that it had"
            )
    size = sum(_SIZE.unpack_from(told, _NAME_AT - _SIZE.size)[0] for told in found)
    if size > most:
        raise DamagedError(
            f"the parity files of {bundle} have par2 write more than it and they can have: "
            "copy it again"
        )


def _described(path: Path) -> Iterator[bytes]:
    """What a parity file tells of files: an id, two checksums, the size, and the name, as it is.

    par2 looks for packets at every byte. One that is longer than those of any bundle has no name.
    """
    rest = b""
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            content = rest + piece
            for found in _DESCRIPTION.finditer(content):
                start, end = found.end(), found.start() + _SIZE.unpack(found[1])[0]
                if end - found.start() > _LONGEST:
                    yield content[start : start + _NAME_AT].ljust(_NAME_AT, b"\0")
                elif start + _NAME_AT <= end <= len(content):
                    yield content[start:end]
            rest = content[-_LONGEST:]


@contextmanager
def work_folder(bundle: Path) -> Iterator[Path]:
    """A folder beside a bundle; that of a killed run is emptied. Raises OSError."""
    work = bundle.with_name(f".{bundle.name}.bundler-parity")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(0o700)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def check_space(bundle: Path, size: int, what: str) -> None:
    """Raise TargetError if so many bytes, which it takes to do `what`, are not free there."""
    if (free := free_space(bundle.parent)) < size:
        raise TargetError(
            f"{bundle.parent} has {amount(free)} free, and to {what} takes {amount(size)}: "
            "free some space, or take the bundle to another disk"
        )


def index(bundle: Path, work: Path) -> Path:
    """By which par2 finds the parity files, or the first of them if that is lost."""
    index = work / f"{bundle.name}.par2"
    return next(iter([] if index.exists() else parity_files(bundle, work)), index)


def par2(folder: Path, limit: str, *arguments: Path | str) -> int:
    """Run it, quietly, in `folder`; no file it writes gets more than `limit` blocks of 512 bytes.

    Gives its exit code: as sh has it, of signals 128 more.
    """
    shell = ["/bin/sh", "-c", f'ulimit -f {limit} && exec par2 "$@"', "par2"]
    command, *rest = arguments
    return subprocess.run(
        [*shell, command, "-q", "-q", *rest],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    ).returncode


def publish(files: Sequence[Path], folder: Path) -> None:
    """Move files that are whole into `folder`, when they are on disk."""
    for path in files:
        sync_file(path)
    for path in files:
        os.replace(path, folder / path.name)
    sync_folder(folder)
