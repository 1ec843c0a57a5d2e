"""bundler itself, in a folder that goes beside a bundle to machines that have neither."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bundler.digest import Digest
from bundler.errors import TargetError
from bundler.new_folder import sync_file, sync_folder
from bundler.own_wheel import write_own_wheel
from bundler.permission import told
from bundler.stick import INSTALLER
from bundler.unpacker import write_unpacker
from bundler.wheels import Target, Wheel, fetch_wheels, targets_of

_LIST = "SHA256SUMS"
_TITLE = "# bundler, to install beside the bundle "


@dataclass(frozen=True, slots=True)
class Carried:
    """What is in such a folder, or would be. Sizes in bytes."""

    folder: Path
    wheels: tuple[Wheel, ...]
    targets: tuple[Target, ...]
    size: int
    digest: Digest
    """Of the folder's list of digests."""

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, for programs."""
        return {
            "folder": str(self.folder),
            "size": self.size,
            "digest": str(self.digest),
            "targets": [str(target) for target in self.targets],
            "wheels": [
                {
                    "name": wheel.path.name,
                    "size": wheel.size,
                    "digest": str(wheel.digest),
                    "targets": [str(target) for target in wheel.targets],
                }
                for wheel in self.wheels
            ],
        }


@dataclass(frozen=True, slots=True)
class Carriage:
    """For which machines, and whether signatures are to be checked there."""

    targets: tuple[Target, ...]
    signed: bool = False

    @classmethod
    def of(cls, pythons: str | None, platforms: str | None, *, signed: bool = False) -> Carriage:
        """As `targets_of` has it. Raises RequestError."""
        return cls(targets_of(pythons, platforms), signed)


def check_place(bundle: Path) -> None:
    """Raise TargetError if something else is where the folder beside `bundle` goes."""
    folder = bundle.parent / INSTALLER
    if os.path.lexists(folder) and (folder.is_symlink() or not _is_own(folder)):
        raise TargetError(f"{folder} is there, and not bundler's: move it away")


def plan_carry(carriage: Carriage, bundle: Path) -> Carried:
    """What `carry` would put beside `bundle`: it is brought, looked at, and dropped again."""
    with TemporaryDirectory() as folder:
        return _filled(Path(folder), carriage, bundle, "")


def carry(carriage: Carriage, bundle: Path, digest: Digest) -> Carried:
    """Put the folder beside `bundle`, whose id is `digest`; one that was there is replaced.

    Raises RequestError, UnavailableError (no wheel, no network) and TargetError; then what was
    there is there still.
    """
    check_place(bundle)
    folder = bundle.parent / INSTALLER
    new, old = (folder.with_name(f".{INSTALLER}.bundler-{what}") for what in ("part", "old"))
    with told(folder, "--output"):
        for left in (new, old):  # By a run that was killed.
            shutil.rmtree(left, ignore_errors=True)
        try:
            new.mkdir()
            carried = _filled(new, carriage, bundle, str(digest))
            if folder.exists():
                os.rename(folder, old)
            os.rename(new, folder)
            sync_folder(folder.parent)
        finally:
            for left in (new, old):
                shutil.rmtree(left, ignore_errors=True)
    return carried


def _is_own(folder: Path) -> bool:
    try:
        with open(folder / _LIST, encoding="utf-8") as file:
            return file.readline().startswith(_TITLE)
    except (OSError, UnicodeError):
        return False


def _filled(folder: Path, carriage: Carriage, bundle: Path, digest: str) -> Carried:
    """Write all of it to `folder`, and have it on disk."""
    made = folder / "wheels"
    made.mkdir()
    extras = {"sign"} if carriage.signed else set()
    with TemporaryDirectory() as own:
        wheels = fetch_wheels(write_own_wheel(Path(own)), extras, carriage.targets, made)
    write_unpacker(folder / "unpack.pyz")
    script = Path(__file__).with_name("install.sh").read_text("utf-8")
    targets = " ".join(map(str, carriage.targets))
    (folder / "install.sh").write_text(script.replace("@TARGETS@", targets), "utf-8")
    (folder / "requirements.txt").write_text(requirements(wheels, carriage.targets), "utf-8")
    rest = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in (folder / "install.sh", folder / "requirements.txt", folder / "unpack.pyz")
    }
    digests = {name: Digest.of(content) for name, content in rest.items()}
    digests |= {f"wheels/{wheel.path.name}": wheel.digest for wheel in wheels}
    lines = [f"{digests[name].hex}  {name}\n" for name in sorted(digests)]
    content = "".join([f"{_TITLE}{digest}\n", *lines]).encode()
    (folder / _LIST).write_bytes(content)
    for name in (*digests, _LIST):
        sync_file(folder / name)
    sync_folder(made)
    sync_folder(folder)
    size = sum(map(len, rest.values())) + sum(wheel.size for wheel in wheels) + len(content)
    return Carried(
        bundle.parent / INSTALLER, tuple(wheels), carriage.targets, size, Digest.of(content)
    )


def requirements(wheels: Sequence[Wheel], targets: Collection[Target]) -> str:
    """What pip is to install, with the digests that it compares (`--require-hashes`)."""
    by_version: dict[tuple[str, str], list[Wheel]] = defaultdict(list)
    for wheel in wheels:
        by_version[wheel.name, wheel.version].append(wheel)
    return "".join(_pinned(*key, found, targets) for key, found in sorted(by_version.items()))


def _pinned(name: str, version: str, wheels: Sequence[Wheel], targets: Collection[Target]) -> str:
    needed_by = sorted({target for wheel in wheels for target in wheel.targets})
    markers = " or ".join(target.marker for target in needed_by)
    where = "" if len(needed_by) == len(targets) else f" ; {markers}"
    hashes = [f"    --hash={digest}" for digest in sorted({str(w.digest) for w in wheels})]
    return " \\\n".join([f"{name}=={version}{where}", *hashes]) + "\n"
