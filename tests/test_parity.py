"""Parity files of par2: written beside a bundle, and what they put right, or leave as it is."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from command import Ran, run
from disk_calls import Call, Commands, Refuse, Verdict

import bundler

pytestmark = pytest.mark.skipif(shutil.which("par2") is None, reason="par2 is not installed")
WEIGHTS = os.urandom(300_000)
NAME = "b.tar.zst"


def pack(folder: Path, *options: object) -> Ran:
    """Pack a folder with two files into `folder`, by default with a tenth of parity."""
    model = folder / "model"
    model.mkdir(exist_ok=True)
    (model / "a.bin").write_bytes(WEIGHTS)
    (model / "b.bin").write_bytes(WEIGHTS[::-1])
    parity = () if "--parity" in options else ("--parity", "10%")
    output = () if "-o" in options else ("-o", NAME)
    done = run("pack", "file:model", *parity, *output, *options, home=folder)
    assert (done.code, done.err.count("\n")) == (0, 1), done.err
    assert "par2 writes" in done.err
    return done


def content(folder: Path) -> Mapping[str, bytes]:
    """The files in a folder, with those that nobody is to see."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def flip(path: Path, *offsets: int) -> None:
    damaged = bytearray(path.read_bytes())
    for offset in offsets:
        damaged[offset] ^= 1
    path.write_bytes(damaged)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 5_000)


def flip_alone(path: Path) -> None:
    flip(path, 200_000)
    path.with_name(f"{NAME}.par2").unlink()


DAMAGE: Mapping[str, Callable[[Path], object]] = {
    "a flipped byte": lambda path: flip(path, 200_000),
    "a flipped byte of the manifest": lambda path: flip(path, 40),
    "a flipped first byte": lambda path: flip(path, 0),
    "a cut end": cut,
    "more at the end": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "a flipped byte, and the first parity file lost": flip_alone,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_bundle_is_mended(tmp_path: Path, damage: str) -> None:
    pack(tmp_path)
    right = (tmp_path / NAME).read_bytes()
    DAMAGE[damage](tmp_path / NAME)
    assert run("verify", NAME, home=tmp_path).code in (4, 5)
    kept = content(tmp_path)
    done = run("verify", NAME, "--mend", home=tmp_path)
    assert (done.code, done.err) == (0, f"bundler: par2 mends {NAME}, which takes a while\n")
    assert f"mended: {NAME}\n" in done.out
    assert content(tmp_path) == {**kept, NAME: right}
    again = run("verify", NAME, "--mend", "--json", home=tmp_path)
    assert (again.code, again.err, json.loads(again.out)["mended"]) == (0, "", [])


MENDS = "; --mend puts right what is damaged or lost, as far as the parity files beside it go\n"


@pytest.mark.parametrize("damage", DAMAGE)
def test_of_a_damaged_bundle_it_is_told_that_it_can_be_mended(tmp_path: Path, damage: str) -> None:
    pack(tmp_path)
    DAMAGE[damage](tmp_path / NAME)
    done = run("verify", NAME, home=tmp_path)
    assert (done.code in (4, 5), done.err.endswith(MENDS)) == (True, True), done.err
    for path in tmp_path.glob("*.par2"):
        path.unlink()
    assert "--mend" not in run("verify", NAME, home=tmp_path).err


VOLUMES: Mapping[str, Callable[[Path], None]] = {
    "a lost volume": lambda folder: (folder / f"{NAME}.001").unlink(),
    "a damaged volume": lambda folder: flip(folder / f"{NAME}.001", 7),
    "a lost first volume": lambda folder: (folder / f"{NAME}.000").unlink(),
    "a cut volume": lambda folder: os.truncate(folder / f"{NAME}.001", 10),
}


@pytest.mark.parametrize("damage", VOLUMES)
def test_a_volume_is_mended(tmp_path: Path, damage: str) -> None:
    pack(tmp_path, "--split-size", 150_000, "--parity", "40%")
    right = content(tmp_path)
    others = {path.name: path.stat().st_ino for path in tmp_path.glob("b.*")}
    VOLUMES[damage](tmp_path)
    done = run("verify", ".", home=tmp_path)
    assert (done.code in (3, 4), done.err.endswith(MENDS)) == (True, True), done.err
    done = run("verify", ".", "--mend", "--json", home=tmp_path)
    bad = f"{NAME}.000" if "first" in damage else f"{NAME}.001"
    assert (done.code, json.loads(done.out)["mended"]) == (0, [bad]), done.err
    assert content(tmp_path) == right
    new = {p.name for p in tmp_path.glob("b.*") if p.stat().st_ino != others[p.name]}
    assert new <= {bad}


def test_a_lost_list_of_volumes_comes_back_with_a_volume(tmp_path: Path) -> None:
    pack(tmp_path, "--split-size", 150_000)
    right = content(tmp_path)
    (tmp_path / f"{NAME}.volumes").unlink()
    flip(tmp_path / f"{NAME}.001", 7)
    done = run("verify", f"{NAME}.000", "--mend", home=tmp_path)
    assert (done.code, content(tmp_path)) == (0, right), done.err


def no_parity(folder: Path) -> None:
    flip(folder / NAME, 200_000)
    for path in folder.glob("*.par2"):
        path.unlink()


def that_are_none(folder: Path) -> None:
    flip(folder / NAME, 9)
    for path in folder.glob("*.par2"):
        path.write_bytes(b"PAR2")


MAIN, DESCRIPTION = b"PAR 2.0\0Main\0\0\0\0", b"PAR 2.0\0FileDesc"


def packets(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """What kinds of packets are in a parity file, and what is in them."""
    content = path.read_bytes()
    while content:
        (size,) = struct.unpack_from("<Q", content, 8)
        yield content[48:64], content[64:size]
        content = content[size:]


def packet(of: bytes, kind: bytes, body: bytes) -> bytes:
    """One of the set `of`, as a parity file has it."""
    signed = of + kind + body
    size = struct.pack("<Q", 32 + len(signed))
    return b"PAR2\0PKT" + size + hashlib.md5(signed).digest() + signed


def that_name_another_place(folder: Path) -> None:
    """Parity files whose target is two folders higher up."""
    pack(folder, "--parity", "100%")
    flip(folder / NAME, 200_000)
    for path in folder.glob("*.par2"):
        named = [(k, b.replace(NAME.encode(), b"../../e.z")) for k, b in packets(path)]
        assert any(b"../../e.z" in body for _, body in named)
        (of,) = {hashlib.md5(body).digest() for kind, body in named if kind == MAIN}
        path.write_bytes(b"".join(packet(of, kind, body) for kind, body in named))


def that_have(size: int, *names: bytes, before: int = 0) -> Callable[[Path], None]:
    """Parity files, after `before` other bytes, of a bundle and of files that nobody has."""

    def damage(folder: Path) -> None:
        flip(folder / NAME, 200_000)
        more = {}
        for name in names:
            told = hashlib.md5().digest() + struct.pack("<Q", size) + name + bytes(-len(name) % 4)
            more[hashlib.md5(told).digest()] = hashlib.md5().digest() + told
        for path in folder.glob("*.par2"):
            kept = [(kind, body) for kind, body in packets(path) if kind != MAIN]
            (main,) = {body for kind, body in packets(path) if kind == MAIN}
            ids = sorted([main[12:28], *more], key=lambda each: each[::-1])
            main = main[:8] + struct.pack("<I", len(ids)) + b"".join(ids)
            kept = [
                *((DESCRIPTION, each + told) for each, told in more.items()),
                (MAIN, main),
                *kept,
            ]
            of = hashlib.md5(main).digest()
            path.write_bytes(bytes(before) + b"".join(packet(of, *each) for each in kept))

    return damage


NOT_MENDED: Mapping[str, tuple[Callable[[Path], None], str]] = {
    "more damage than parity": (
        lambda folder: flip(folder / NAME, *range(0, 500_000, 500)), "are not enough to mend it"
    ),
    "no parity files": (no_parity, "has no parity files beside it"),
    "parity files that are none": (that_are_none, "are not enough to mend it"),
    "parity files that name another place": (
        that_name_another_place, "have par2 write '../../e.z'"
    ),
    "parity files of many more files": (
        that_have(0, *(f"{n:03}".encode() for n in range(300))), "have par2 write '000'"
    ),
    "parity files of one more, after much that is none": (
        that_have(0, b"000", before=(1 << 22) - 60), "have par2 write '000'"
    ),
    "parity files of one with a long name": (that_have(0, b"long/" * 800), "have par2 write ''"),
    "parity files of more volumes than there can be": (
        that_have(100_000, *(f"{NAME}.{n:03}".encode() for n in range(9))),
        "have par2 write more than",
    ),
}  # fmt: skip


def watched(folder: Path) -> tuple[dict[str, str], Path]:
    """In which environment par2 is watched; where it is written what it leaves in its folder."""
    program, written = folder / "bin" / "par2", folder / "written"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\n{shutil.which("par2")} "$@"\ncode=$?\nls >>{written}\nexit $code\n'
    )
    program.chmod(0o755)
    written.touch()
    return {"PATH": f"{program.parent}:{os.environ['PATH']}"}, written


@pytest.mark.parametrize("case", NOT_MENDED)
def test_what_cannot_be_mended_stays_as_it_is(tmp_path: Path, case: str) -> None:
    folder = tmp_path / "deep" / "folder"
    folder.mkdir(parents=True)
    pack(folder)
    damage, message = NOT_MENDED[case]
    damage(folder)
    before = content(folder)
    env, written = watched(tmp_path)
    done = run("verify", NAME, "--mend", home=folder, env=env)
    said = [line for line in done.err.splitlines() if "takes a while" not in line]
    assert (done.code, len(said)) == (4, 1), done.err
    assert message in said[0]
    assert content(folder) == before
    assert {p.name for p in folder.iterdir() if p.is_dir()} == {"model", ".cache"}
    assert [p.name for p in tmp_path.rglob("*") if p.name == "e.z"] == []
    assert set(written.read_text().split()) <= {*before, f"{NAME}.1"}


def test_parity_of_another_bundle_puts_it_in_no_place(tmp_path: Path) -> None:
    pack(tmp_path)
    mine = (tmp_path / NAME).read_bytes()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model").mkdir()
    (tmp_path / "other" / "model" / "c.bin").write_bytes(b"more")
    pack(tmp_path / "other", "--parity", "100%")
    for path in tmp_path.glob("*.par2"):
        path.unlink()
    for path in (tmp_path / "other").glob("*.par2"):
        path.rename(tmp_path / path.name)
    flip(tmp_path / NAME, len(mine) // 2)
    before = content(tmp_path)
    done = run("verify", NAME, "--mend", home=tmp_path)
    assert (done.code, content(tmp_path)) == (4, before)
    assert "is not the bundle as it was" in done.err


def test_where_no_links_can_be_copies_are_mended(tmp_path: Path, commands: Commands) -> None:
    pack(tmp_path, "--split-size", 150_000, "--parity", "40%")
    right = content(tmp_path)
    flip(tmp_path / f"{NAME}.001", 7)

    def no_links(call: Call) -> Verdict:
        return Refuse(errno.EPERM) if call.name.startswith("symlink") else None

    done = commands.run("verify", NAME, "--mend", cwd=tmp_path, decide=no_links)
    assert (done.code, content(tmp_path)) == (0, right)
    assert f"mended: {NAME}.001\n" in done.out


def test_a_signed_bundle_is_still_signed_when_it_is_mended(tmp_path: Path) -> None:
    keys = bundler.write_key_pair(tmp_path / "key")
    signed = ("--sign", keys.private)
    pack(tmp_path, *signed)
    flip(tmp_path / NAME, 200_000)
    done = run("verify", NAME, "--mend", "--verify-key", keys.public, home=tmp_path)
    assert (done.code, "signed by" in done.out) == (0, True), done.err
    assert run("verify", NAME, "--verify-key", keys.public, home=tmp_path).code == 0


def test_onto_a_stick_parity_goes_too(tmp_path: Path) -> None:
    (tmp_path / "usb").mkdir()
    done = pack(tmp_path, "-o", "usb/", "--json", "--parity", 5)
    document = json.loads(done.out)
    assert document["safe_to_remove"]
    assert document["parity"] == sorted(p.name for p in (tmp_path / "usb").glob("*.par2"))
    assert "model.tar.zst.par2" in document["parity"]


@pytest.mark.parametrize("options", [(), ("--split-size", 150_000)], ids=["whole", "volumes"])
def test_an_older_bundles_parity_goes_with_it(tmp_path: Path, options: tuple[object, ...]) -> None:
    pack(tmp_path, "--parity", "100%")
    (tmp_path / f"{NAME}.par2.txt").write_text("mine")
    (tmp_path / "model" / "c.bin").write_bytes(b"more")
    assert run("pack", "file:model", "-o", NAME, *options, home=tmp_path).code == 0
    assert [path.name for path in tmp_path.glob("*.par2*")] == [f"{NAME}.par2.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pack", "x", "--parity", "0%"), "--parity 0% is no share"),
        (("pack", "x", "--parity", "101%"), "--parity 101% is no share"),
        (("pack", "x", "--parity", "5.5"), "--parity 5.5 is no share"),
        (("pack", "x", "--parity", "5%", "-o", "-"), "name a file with -o"),
        (("pack", "x", "--parity", "5%", "-o", "/dev/null"), "parity files go beside a file"),
        (("verify", "--mend"), "--mend is for a bundle"),
        (("verify", "-", "--mend"), "--mend is for files"),
        (("verify", "x", "--mend", "--repair", "y"), "goes without --repair"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = run(*arguments, home=tmp_path)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert message in done.err


@pytest.mark.parametrize(
    "arguments",
    [("pack", "file:none", "--parity", "5%"), ("verify", "b.tar.zst", "--mend")],
    ids=["pack", "verify"],
)
def test_without_par2_it_says_how_to_install_it(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(*arguments, home=tmp_path, env={"PATH": str(tmp_path)})
    message = "bundler: parity files need the program par2: apt install par2\n"
    assert (done.code, done.err) == (2, message)
