"""What `bundler pack --with-bundler` puts beside the bundle that it wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bundler.errors import RequestError, amount
from bundler.wording import counted, printable

if TYPE_CHECKING:  # No command must import what another needs.
    from bundler.carrying import Carriage, Carried
    from bundler.packing import Packed

WithBundler = Annotated[
    bool,
    typer.Option(
        "--with-bundler",
        help="Also put bundler itself beside the bundle, in the folder bundler-install, with all "
        "it needs: pip brings the wheels. With --sign, what checks signatures too.",
        envvar="BUNDLER_WITH_BUNDLER",
    ),
]
WithPython = Annotated[
    str | None,
    typer.Option(
        metavar="VERSION,…",
        help="The versions of Python there, such as 3.10,3.12; by default this one.",
        envvar="BUNDLER_WITH_PYTHON",
    ),
]
WithPlatform = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,…",
        help="linux-x86_64, linux-aarch64 (glibc 2.28 or newer), macos-arm64, macos-x86_64 (13 or "
        "newer); by default this one.",
        envvar="BUNDLER_WITH_PLATFORM",
    ),
]


def carriage_of(
    with_bundler: bool, pythons: str | None, platforms: str | None, *, output: str, signed: bool
) -> Carriage | None:
    """What these options ask for; None for nothing. Raises RequestError and TargetError."""
    if not with_bundler:
        if pythons or platforms:
            raise RequestError("--with-python and --with-platform are for --with-bundler: add it")
        return None
    place = place_of(output)
    if output == "-" or (place.exists() and not place.is_file()):
        raise RequestError("--with-bundler goes beside a file: name one for the bundle with -o")
    from bundler.carrying import Carriage, check_place

    check_place(place)
    return Carriage.of(pythons, platforms, signed=signed)


def place_of(output: str) -> Path:
    """Where the bundle is to be, or in a folder, where it gets a name of its own, might be."""
    return Path(output, "bundle.tar.zst") if Path(output).is_dir() else Path(output)


def would_carry(carriage: Carriage, bundle: Path, *, quiet: bool) -> dict[str, Any]:
    """Tell what would go beside `bundle`, unless `quiet`; the same as plain values."""
    from bundler.carrying import plan_carry

    planned = plan_carry(carriage, bundle)
    for line in [] if quiet else _lines(planned, done=False):
        print(line)
    return planned.to_json()


def carry_beside(carriage: Carriage, bundle: Packed, *, quiet: bool) -> Carried:
    """Put bundler beside a finished bundle, and tell it unless `quiet`. Raises as `carry` does."""
    from bundler.carrying import carry

    assert bundle.path is not None
    carried = carry(carriage, bundle.path, bundle.digest)
    for line in [] if quiet else _lines(carried, done=True):
        print(line)
    return carried


def _lines(carried: Carried, *, done: bool) -> Iterator[str]:
    """What was brought (`done`) or would be."""
    verb = "wrote" if done else "would write"
    wheels = counted(len(carried.wheels), "wheel")
    whom = ", ".join(target.words for target in carried.targets)
    yield printable(f"{verb} {carried.folder}: {amount(carried.size)}, {wheels} for {whom}")
    for wheel in [] if done else carried.wheels:
        yield f"    {wheel.name} {wheel.version}, {amount(wheel.size)}"
    if done:
        yield f"sha256sum of its list, SHA256SUMS: {carried.digest.hex}"


def steps(bundle: Packed, carried: Carried | None) -> Iterator[str]:
    """What to do with a finished bundle."""
    assert bundle.path is not None
    name = quote(bundle.path.name)
    what = f"{name}.* (sha256sum -c compares)" if bundle.volumes else "the bundle"
    if bundle.signature is not None and not bundle.volumes:
        what += f" with {quote(bundle.signature.name)}"
    if carried is not None:
        what += f" and {carried.folder.name}"
    where = ", where all volumes are (or name all their folders)" if bundle.volumes else ""
    yield f"next: carry {what} over, and on the other machine{where}"
    if carried is not None:
        yield f"    sh {carried.folder.name}/install.sh"
    whole = f"DAMAGED --repair {name}" if bundle.repairs else name
    yield f"    bundler unpack {whole} && source offline.env"
