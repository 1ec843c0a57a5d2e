"""A damaged bundle put right by the parity files beside it."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from bundler.disk import state_at
from bundler.errors import DamagedError, RequestError, TargetError
from bundler.parity import (
    check_described,
    check_space,
    index,
    par2,
    parity_files,
    parts,
    publish,
    work_folder,
)
from bundler.progress import Progress
from bundler.trust import signature_path
from bundler.volume_files import VolumeFiles, find_volumes
from bundler.volume_list import LIST_SUFFIX, volume_name


def place_to_mend(paths: Sequence[Path]) -> Path:
    """Where the bundle that `paths` mean is, or would be if it were whole. Raises RequestError."""
    files = find_volumes(paths)
    if files is None:
        return Path(os.path.realpath(paths[0]))
    folders = {Path(os.path.realpath(folder)) for folder in files.folders}
    place = folders.pop() / files.base
    if folders or place.exists():
        raise RequestError("--mend needs one bundle with its parity in one folder: copy it there")
    return place


def mend(bundle: Path, check: Callable[[Path], object], progress: Progress) -> tuple[str, ...]:
    """Put files in place of damaged or lost ones of a bundle at `place_to_mend`; their names.

    `check` raises if the mended bundle, in a folder beside it, is not right; then, and for every
    other error, nothing has changed. Raises DamagedError if there is not enough parity, and
    TargetError.
    """
    parity, present = parity_files(bundle), parts(bundle)
    if not parity:
        raise DamagedError(
            f"{bundle} is damaged, and has no parity files beside it ({bundle.name}.par2): "
            "copy it again"
        )
    whole = bundle.is_file()
    # Of a file that is cut, no more can come back than there is parity.
    size = sum(map(os.path.getsize, [*present, *parity]))
    try:
        check_described(bundle, parity, size)
        with work_folder(bundle) as work:
            linked = _takes_links(work)
            check_space(bundle, size if linked else 2 * size, "mend it")
            for path in (*present, *parity):
                _bring(path, work, linked)
            before = {path.name: os.lstat(work / path.name).st_ino for path in present}
            progress.say(f"par2 mends {bundle.name}, which takes a while")
            code = par2(work, str(-(-size // 512)), "repair", "--", index(bundle, work))
            if code:
                raise DamagedError(
                    f"the parity files of {bundle} are not enough to mend it (par2 ended with "
                    f"{code}): copy it again"
                )
            if (signature := signature_path(bundle)).is_file():
                _bring(signature, work, linked)
            check(work / bundle.name if whole else work / (bundle.name + LIST_SUFFIX))
            names = [bundle.name] if whole else _listed(bundle.name, work)
            states = {name: os.lstat(work / name) for name in names}
            mended = [n for n in names if stat.S_ISREG(states[n].st_mode)]
            mended = [n for n in mended if states[n].st_ino != before.get(n)]
            publish([work / name for name in mended], bundle.parent)
    except OSError as error:
        raise TargetError(
            f"cannot mend {bundle}: {error.strerror}; copy it and its parity files elsewhere"
        ) from None
    return tuple(mended)


def _listed(base: str, folder: Path) -> list[str]:
    """The names of the volumes that the list in `folder` has, and its own."""
    found = VolumeFiles(base, [folder]).list
    assert found is not None
    return [*(volume_name(base, n) for n in range(len(found.volumes))), base + LIST_SUFFIX]


def _takes_links(folder: Path) -> bool:
    try:
        os.symlink("nowhere", folder / "link")
    except OSError:  # As FAT.
        return False
    os.unlink(folder / "link")
    return True


def _bring(path: Path, work: Path, linked: bool) -> None:
    """Have a file in `work`, in place of what par2 may have put there."""
    place = work / path.name
    if state_at(place) is not None:
        os.unlink(place)
    if linked:
        os.symlink(path, place)
    else:
        shutil.copyfile(path, place)
