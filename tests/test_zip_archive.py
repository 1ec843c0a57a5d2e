"""Models that come as zip archives: hostile ones end in one line, odd but good ones are packed."""

from __future__ import annotations

import bz2
import hashlib
import io
import resource
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from command import Ran, start
from loopback_web import LoopbackWeb
from trees import stamps

import bundler
from bundler.errors import BundlerError

Build = Callable[[], bytes]

RELEASE = "https://github.com/deepinsight/insightface/releases/download/model-zoo/buffalo_s.zip"
SPEC = "insightface:buffalo_s"
REPOSITORY = "acme/hubs"
CODE = b"dependencies = []\n"
WEIGHTS = bytes(range(256)) * 40
TOP = "acme-hubs-0123456"
MOST_MEMORY = 250 << 20
"""Bytes that a pack of these archives may take; without any it takes some 100 MB."""
FAR_MORE_MEMORY = 300 << 20

CENTRAL, LOCAL, END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"
REGULAR, LINK, DEVICE, FIFO = 0o100644, 0o120777, 0o020666, 0o010644


def zipped(
    members: Iterable[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED, mode: int = REGULAR
) -> bytes:
    """An archive of members in this order; a name may come twice."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", method) as writer:
        for name, content in members:
            info = zipfile.ZipInfo("x")
            info.filename = info.orig_filename = name  # As it is: the class would tidy it up.
            info.compress_type = method
            info.external_attr = mode << 16
            with writer.open(info, "w") as member:
                member.write(content)
    return archive.getvalue()


def one(name: str = "a.onnx", content: bytes = WEIGHTS, **options: int) -> bytes:
    """An archive of one member."""
    return zipped([(name, content)], **options)


def with_field(archive: bytes, offset: int, form: str, *values: int, local: int = -1) -> bytes:
    """The same with another field in its only directory entry, and at `local` in the header."""
    changed = bytearray(archive)
    struct.pack_into(form, changed, archive.index(CENTRAL) + offset, *values)
    if local >= 0:
        struct.pack_into(form, changed, local, *values)
    return bytes(changed)


def with_directory(archive: bytes, directory: bytes, count: int) -> bytes:
    """The same with another directory of so many entries."""
    start, end = archive.index(CENTRAL), archive.rindex(END)
    tail = bytearray(archive[end:])
    struct.pack_into("<HHI", tail, 8, count, count, len(directory))
    return archive[:start] + directory + bytes(tail)


def with_offset(offset: int) -> bytes:
    """An archive that says in 64 bits where its member is."""
    archive = one()
    entry = bytearray(archive[archive.index(CENTRAL) : archive.rindex(END)])
    struct.pack_into("<H", entry, 30, 12)
    struct.pack_into("<I", entry, 42, 0xFFFFFFFF)
    return with_directory(archive, bytes(entry) + struct.pack("<HHQ", 1, 8, offset), 1)


def with_two_names_for_one_member() -> bytes:
    archive = one()
    entry = archive[archive.index(CENTRAL) : archive.rindex(END)]
    return with_directory(archive, entry + entry.replace(b"a.onnx", b"b.onnx"), 2)


def with_one_name_for_two_members(name: str) -> bytes:
    other = "/".join(["O" * len(part) for part in name.split("/")])
    return zipped([(name, b"1"), (other, b"2")]).replace(other.encode(), name.encode())


def one_inside_the_other() -> bytes:
    """An archive whose first member, stored, is as long as all of it with the second."""
    inner = one("b.onnx")
    whole = zipped(
        [("a.onnx", inner[: inner.index(CENTRAL)]), ("b.onnx", WEIGHTS)], zipfile.ZIP_STORED
    )
    changed = bytearray(whole)
    second = whole.rindex(CENTRAL)
    struct.pack_into("<I", changed, second + 42, whole.index(LOCAL, 1))
    return bytes(changed)


def flipped(archive: bytes, position: int) -> bytes:
    """The same with other bytes from `position` on."""
    bad = bytes(byte ^ 0xFF for byte in archive[position : position + 8])
    return archive[:position] + bad + archive[position + 8 :]


def with_long_directory(size: int) -> bytes:
    """An archive whose list of members is so long, and tells so where few look.

    The fields in which it counts its members say what a list's end begins with: whoever looks for
    the last end finds one that has no size.
    """
    archive = one()
    entry = bytearray(archive[archive.index(CENTRAL) : archive.rindex(END)])
    struct.pack_into("<HHH", entry, 28, 1, 0xFFFF, 0xFFFF)
    longest = bytes(entry[:46]) + b"x" + bytes(2 * 0xFFFF)
    long = bytearray(with_directory(archive, longest * (size // len(longest)), 1))
    struct.pack_into("<4s", long, len(long) - 22 + 8, END)
    return bytes(long)


def bzip2_bomb() -> bytes:
    """An archive that declares 8 MiB, and of which a few hundred bytes become all memory at once.

    Its sums are right up to where it ends by its own word: only the memory tells.
    """
    packer = bz2.BZ2Compressor()
    piece, pieces = bytes(4 << 20), FAR_MORE_MEMORY // (4 << 20)
    content = b"".join(packer.compress(piece) for _ in range(pieces)) + packer.flush()
    declared = 8 << 20
    archive = one(content=bytes(declared), method=zipfile.ZIP_BZIP2)
    directory, end = archive.index(CENTRAL), archive.rindex(END)
    head, entry = bytearray(archive[:36]), bytearray(archive[directory:end])
    struct.pack_into("<I", head, 18, len(content))
    struct.pack_into("<I", entry, 20, len(content))
    tail = bytearray(archive[end:])
    struct.pack_into("<I", tail, 16, len(head) + len(content))
    return bytes(head) + content + bytes(entry) + bytes(tail)


def pack(
    web: LoopbackWeb, home: Path, spec: str, selection: bundler.Selection = bundler.Selection()
) -> None:
    """Pack `spec` from the loopback web into `home`/bundle.tar.zst."""
    bundler.pack(
        [spec],
        home / "bundle.tar.zst",
        selection=selection,
        upstream=bundler.Upstream(mirrors=tuple(web.mirrors)),
        store=home / "store",
    )


def pack_in_little_memory(web: LoopbackWeb, home: Path, spec: str) -> Ran:
    """The same by the command line."""
    mirrors = [argument for mirror in web.mirrors for argument in ("--mirror", mirror)]
    options = ["--store", home / "store", "-o", home / "bundle.tar.zst"]
    with start("pack", spec, *mirrors, *options, home=home) as process:
        resource.prlimit(process.pid, resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
        out, err = process.communicate(timeout=120)
    return Ran(process.returncode, out.decode(), err.decode(), out)


def blobs(store: Path) -> dict[str, bytes]:
    """The whole files in a store, by their names."""
    return {path.name: path.read_bytes() for path in store.glob("blobs/sha256/*")}


def assert_true_store(store: Path) -> None:
    """Everything in the store is what its name says."""
    found = blobs(store)
    assert found == {hashlib.sha256(content).hexdigest(): content for content in found.values()}


def packed(bundle: Path, folder: Path) -> dict[str, bytes]:
    """The files in a bundle of one snapshot, by path, as an unpack verifies them."""
    roots = bundler.find_roots({}, root=folder)
    (snapshot,) = bundler.unpack(bundle, roots=roots, env=None).snapshots
    name = {"torch-hub": "torch", "insightface": "insightface"}[snapshot.layout]
    top = {
        "torch-hub": f"hub/{snapshot.name.replace('/', '_')}_{snapshot.commit_hash}",
        "insightface": f"models/{snapshot.name}",
    }[snapshot.layout]
    base = roots.path("torch" if name == "torch" else name) / top
    return {
        path.relative_to(base).as_posix(): path.read_bytes()
        for path in base.rglob("*")
        if path.is_file()
    }


def refusal(web: LoopbackWeb, home: Path, spec: str) -> BundlerError:
    """Why `spec` is not packed; checks that nothing comes of it."""
    with pytest.raises(BundlerError) as caught:
        pack(web, home, spec)
    assert_plain(str(caught.value))
    assert_nothing_made(home)
    return caught.value


def assert_plain(message: str) -> None:
    """One line of moderate length."""
    assert message
    assert "\n" not in message
    assert len(message) <= 1000


def assert_nothing_made(home: Path) -> None:
    """There is no bundle, and nothing false in the store."""
    assert not (home / "bundle.tar.zst").exists()
    assert_true_store(home / "store")


# Members that would go elsewhere, or be something else than files.

NAMES: dict[str, str] = {
    "above the root": "../../evil.onnx",
    "above the root from inside": f"{TOP}/../../evil.onnx",
    "absolute": "/etc/evil.onnx",
    "dot": "./evil.onnx",
    "two slashes": "a//evil.onnx",
    "backslashes": "..\\..\\evil.onnx",
    "backslash in a name": f"{TOP}/a\\evil.onnx",
    "drive": "C:/evil.onnx",
    "drive in a later component": f"{TOP}/C:evil.onnx",
    "network share": "\\\\server\\share\\evil.onnx",
    "device": f"{TOP}/aux.onnx",
    "device in a folder": f"{TOP}/con/evil.onnx",
    "newline": f"{TOP}/a\nbundler: all is well.onnx",
    "escape sequence": f"{TOP}/\x1b]0;evil\x07.onnx",
    "component of 256 bytes": f"{TOP}/{'x' * 251}.onnx",
    "path of many components": "x/" * 100 + "evil.onnx",
    "path of 5,000 bytes": "/".join(["x" * 99] * 50) + ".onnx",
    "folder above the root": "../evil/",
    "folder at the root": "/",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("kind", ["pack", "code"])
def test_a_name_that_leads_elsewhere_is_refused(
    kind: str, name: str, web: LoopbackWeb, tmp_path: Path
) -> None:
    good = f"{TOP}/hubconf.py" if kind == "code" else "good.onnx"
    content = zipped([(good, CODE), (name, b"" if name.endswith("/") else b"evil")])
    assert refusal(web, tmp_path, serve(web, kind, content)).exit_code == 2
    assert set(blobs(tmp_path / "store").values()) <= {content}


def serve(web: LoopbackWeb, kind: str, archive: bytes) -> str:
    """Let the web have an archive, of a repository's code or of a pack; gives the spec for it."""
    if kind == "code":
        commit = web.add_repository(REPOSITORY, {"hubconf.py": CODE})
        web.add(f"https://github.com/{REPOSITORY}/zipball/{commit}", archive)
        return f"torchhub:{REPOSITORY}"
    web.add(RELEASE, archive)
    return SPEC


HOSTILE: dict[str, tuple[str, Build]] = {
    "symbolic link": ("pack", lambda: one(content=b"/etc/passwd", mode=LINK)),
    "symbolic link in code": ("code", lambda: one(f"{TOP}/hubconf.py", b"../x", mode=LINK)),
    "device": ("pack", lambda: one(mode=DEVICE)),
    "fifo": ("pack", lambda: one(mode=FIFO)),
    "encrypted": ("pack", lambda: with_field(one(), 8, "<H", 1, local=6)),
    "strongly encrypted": ("pack", lambda: with_field(one(), 8, "<H", 0x41, local=6)),
    "two of one name": ("pack", lambda: with_one_name_for_two_members("a.onnx")),
    "two of one name in code": (
        "code",
        lambda: with_one_name_for_two_members(f"{TOP}/hubconf.py"),
    ),
    "two of one name without their folders": (
        "pack",
        lambda: zipped([("a.onnx", b"1"), ("sub/a.onnx", b"2")]),
    ),
    "two of one name in two top folders": (
        "code",
        lambda: zipped([(f"{TOP}/hubconf.py", CODE), ("other/hubconf.py", b"evil")]),
    ),
    "file and folder of one name": (
        "code",
        lambda: zipped([(f"{TOP}/hubconf.py", CODE), (f"{TOP}/x", b"1"), (f"{TOP}/x/y", b"2")]),
    ),
    "nothing wanted in it": ("pack", lambda: one("readme.txt")),
    "nothing in it": ("pack", lambda: zipped([])),
}


@pytest.mark.parametrize(("kind", "build"), HOSTILE.values(), ids=HOSTILE)
def test_an_archive_that_nobody_makes_for_good_is_refused(
    kind: str, build: Build, web: LoopbackWeb, tmp_path: Path
) -> None:
    assert refusal(web, tmp_path, serve(web, kind, build())).exit_code in (2, 4)


DAMAGED: dict[str, Build] = {
    "no archive": lambda: b"<html>a page that explains what is wrong</html>" * 10,
    "no bytes": lambda: b"",
    "cut in the content": lambda: one()[:100],
    "cut in the directory": lambda: one()[:-30],
    "cut before the last byte": lambda: one()[:-1],
    "without its beginning": lambda: one()[50:],
    "declares less than it holds": lambda: with_field(one(), 24, "<I", 50),
    "declares more than it holds": lambda: with_field(one(), 24, "<I", len(WEIGHTS) + 5),
    "another checksum": lambda: with_field(one(), 16, "<I", 0),
    "other content": lambda: flipped(one(method=zipfile.ZIP_STORED), 1000),
    "deflated content that is none": lambda: flipped(one(), 60),
    "a method that is not known": lambda: with_field(one(), 10, "<H", 97, local=8),
    "a newer format": lambda: with_field(one(), 6, "<H", 99, local=4),
    "another name in its header": lambda: one().replace(b"a.onnx", b"b.onnx", 1),
    "a name that is not UTF-8": lambda: one("é.onnx").replace("é".encode(), b"\xff\xfe"),
    "a member beyond the end": lambda: with_offset(1 << 40),
    "a member beyond 2**63": lambda: with_offset(1 << 63),
    "a member beyond every number": lambda: with_offset((1 << 64) - 1),
    "two names for one member": with_two_names_for_one_member,
    "broken LZMA": lambda: flipped(one(method=zipfile.ZIP_LZMA), 60),
    "broken bzip2": lambda: flipped(one(method=zipfile.ZIP_BZIP2), 50),
    "a directory of another size": lambda: one().replace(END, END + b"\1\1", 1),
}


@pytest.mark.parametrize("build", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_archive_is_refused(build: Build, web: LoopbackWeb, tmp_path: Path) -> None:
    assert refusal(web, tmp_path, serve(web, "pack", build())).exit_code in (2, 4)


BOMBS: dict[str, Build] = {
    "one member of zeros": lambda: one(content=bytes(200 << 20)),
    "many members of zeros": (lambda: zipped([(f"{n}.onnx", bytes(10 << 20)) for n in range(20)])),
    "a size that is not true": lambda: with_field(one(), 24, "<I", 0xFFFFFFF0),
    "bytes that become many at once": bzip2_bomb,
    "members without end": (
        lambda: zipped([("a.onnx", b"1"), *((str(n), b"") for n in range(100_000))], method=0)
    ),
}


@pytest.mark.parametrize("build", BOMBS.values(), ids=BOMBS)
def test_a_bomb_does_not_fill_the_memory(build: Build, web: LoopbackWeb, tmp_path: Path) -> None:
    ran = pack_in_little_memory(web, tmp_path, serve(web, "pack", build()))
    assert_plain(ran.err.rstrip("\n"))
    assert ran.code in (2, 4)
    assert_nothing_made(tmp_path)


def test_a_list_of_members_is_not_read_if_it_is_too_long_wherever_it_says_so(
    web: LoopbackWeb, tmp_path: Path
) -> None:
    ran = pack_in_little_memory(web, tmp_path, serve(web, "pack", with_long_directory(33 << 20)))
    assert_plain(ran.err.rstrip("\n"))
    assert (ran.code, "its list of members has more than" in ran.err) == (4, True), ran.err
    assert_nothing_made(tmp_path)


def test_a_member_inside_another_is_refused_or_is_what_it_says(
    web: LoopbackWeb, tmp_path: Path
) -> None:
    archive = one_inside_the_other()
    with suppress(BundlerError):
        pack(web, tmp_path, serve(web, "pack", archive))
    assert set(blobs(tmp_path / "store").values()) <= {archive, WEIGHTS, first_of(archive)}


def first_of(archive: bytes) -> bytes:
    """The content of the first member."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return opened.read(opened.infolist()[0])


@pytest.mark.parametrize("name", ["newline", "escape sequence", "above the root"])
def test_the_command_line_tells_it_in_one_line(name: str, web: LoopbackWeb, tmp_path: Path) -> None:
    spec = serve(web, "pack", one(NAMES[name]))
    ran = pack_in_little_memory(web, tmp_path, spec)
    assert ran.code == 2
    assert ran.err.removesuffix("\n").isprintable()
    assert [word for word in ("buffalo_s", "--exclude") if word not in ran.err] == []
    assert_nothing_made(tmp_path)


# Archives that are odd, and good.


def streamed(members: Mapping[str, bytes]) -> bytes:
    """An archive written to a pipe: sizes and checksums stand behind the content."""

    class Unseekable(io.RawIOBase):
        def __init__(self) -> None:
            self.content = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: object, /) -> int:
            self.content += memoryview(data)  # type: ignore[arg-type]
            return memoryview(data).nbytes  # type: ignore[arg-type]

    pipe = Unseekable()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as writer:
        for name, content in members.items():
            writer.writestr(name, content)
    return bytes(pipe.content)


def in_64_bits(name: str, content: bytes) -> bytes:
    archive = io.BytesIO()
    with (
        zipfile.ZipFile(archive, "w") as writer,
        writer.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member,
    ):
        member.write(content)
    return archive.getvalue()


GOOD: dict[str, tuple[str, Build, dict[str, bytes]]] = {
    "stored": ("pack", lambda: one(method=zipfile.ZIP_STORED), {"a.onnx": WEIGHTS}),
    "deflated": ("pack", one, {"a.onnx": WEIGHTS}),
    "without modes": ("pack", lambda: one(mode=0), {"a.onnx": WEIGHTS}),
    "executable": ("pack", lambda: one(mode=0o100755), {"a.onnx": WEIGHTS}),
    "with setuid": ("pack", lambda: one(mode=0o104755), {"a.onnx": WEIGHTS}),
    "in a folder": (
        "pack",
        lambda: zipped([("buffalo_s/", b""), ("buffalo_s/a.onnx", WEIGHTS)]),
        {"a.onnx": WEIGHTS},
    ),
    "with what a Mac adds": (
        "pack",
        lambda: zipped([("a.onnx", WEIGHTS), ("__MACOSX/._a.onnx", b"1"), (".DS_Store", b"2")]),
        {"a.onnx": WEIGHTS},
    ),
    "of one file without content": (
        "pack",
        lambda: zipped([("a.onnx", WEIGHTS), ("empty.onnx", b"")]),
        {"a.onnx": WEIGHTS, "empty.onnx": b""},
    ),
    "with something behind it": ("pack", lambda: one() + b"garbage", {"a.onnx": WEIGHTS}),
    "with something before it": ("pack", lambda: b"#!/bin/sh\n" + one(), {"a.onnx": WEIGHTS}),
    "streamed": ("pack", lambda: streamed({"a.onnx": WEIGHTS}), {"a.onnx": WEIGHTS}),
    "in 64 bits": ("pack", lambda: in_64_bits("a.onnx", WEIGHTS), {"a.onnx": WEIGHTS}),
    "highly compressible, but small": (
        "pack",
        lambda: one(content=bytes(15 << 20)),
        {"a.onnx": bytes(15 << 20)},
    ),
    "equal files": (
        "pack",
        lambda: zipped([("a.onnx", WEIGHTS), ("b.onnx", WEIGHTS)]),
        {"a.onnx": WEIGHTS, "b.onnx": WEIGHTS},
    ),
    "code in folders with odd names": (
        "code",
        lambda: zipped(
            [
                (f"{TOP}/", b""),
                (f"{TOP}/hubconf.py", CODE),
                (f"{TOP}/sub folder/", b""),
                (f"{TOP}/sub folder/ä ñ 日本 & #.py", b"1"),
                (f"{TOP}/__init__.py", b""),
            ]
        ),
        {"hubconf.py": CODE, "sub folder/ä ñ 日本 & #.py": b"1", "__init__.py": b""},
    ),
    "streamed code": (
        "code",
        lambda: streamed({f"{TOP}/hubconf.py": CODE, f"{TOP}/empty": b""}),
        {"hubconf.py": CODE, "empty": b""},
    ),
}


@pytest.mark.parametrize(("kind", "build", "files"), GOOD.values(), ids=GOOD)
def test_an_odd_but_good_archive_is_packed(
    kind: str, build: Build, files: dict[str, bytes], web: LoopbackWeb, tmp_path: Path
) -> None:
    pack(web, tmp_path, serve(web, kind, build()))
    assert packed(tmp_path / "bundle.tar.zst", tmp_path / "t") == files
    assert_true_store(tmp_path / "store")


def test_files_of_an_archive_are_never_executable_on_the_target(
    web: LoopbackWeb, tmp_path: Path
) -> None:
    pack(web, tmp_path, serve(web, "pack", one(mode=0o104755)))
    packed(tmp_path / "bundle.tar.zst", tmp_path / "t")
    (model,) = (tmp_path / "t").rglob("*.onnx")
    assert model.stat().st_mode & 0o7111 == 0


class TestLinksInRepositories:
    """git keeps symbolic links, which a bundle cannot carry."""

    @pytest.fixture
    def spec(self, web: LoopbackWeb) -> str:
        web.add_repository(
            REPOSITORY, {"hubconf.py": CODE, "a/b.txt": b"1"}, links={"c": "a/b.txt"}
        )
        return f"torchhub:{REPOSITORY}"

    def test_are_told_with_what_to_do(self, spec: str, web: LoopbackWeb, tmp_path: Path) -> None:
        error = refusal(web, tmp_path, spec)
        assert error.exit_code == 2
        assert [word for word in ("/c'", "--exclude") if word not in str(error)] == []

    @pytest.mark.parametrize(
        "selection",
        [bundler.Selection(exclude=("c",)), bundler.Selection(include=("hub*",))],
        ids=["exclude", "include"],
    )
    def test_can_be_left_out(
        self, selection: bundler.Selection, spec: str, web: LoopbackWeb, tmp_path: Path
    ) -> None:
        pack(web, tmp_path, spec, selection)
        found = packed(tmp_path / "bundle.tar.zst", tmp_path / "t")
        assert found["hubconf.py"] == CODE
        assert "c" not in found


def test_the_commit_of_a_short_hash_is_the_one_that_the_archive_names(
    web: LoopbackWeb, tmp_path: Path
) -> None:
    commit = web.add_repository(REPOSITORY, {"hubconf.py": CODE})
    pack(web, tmp_path, f"torchhub:{REPOSITORY}:{commit[:7]}")
    (snapshot,) = bundler.inspect(tmp_path / "bundle.tar.zst").manifest.snapshots
    assert (snapshot.revision, snapshot.commit_hash) == (commit[:7], commit)


def test_an_archive_is_fetched_and_its_files_are_stored_once(
    web: LoopbackWeb, tmp_path: Path
) -> None:
    spec = serve(web, "pack", zipped([("a.onnx", WEIGHTS), ("b.onnx", WEIGHTS[::-1])]))
    pack(web, tmp_path, spec)
    assert {WEIGHTS, WEIGHTS[::-1]} <= set(blobs(tmp_path / "store").values())
    before = stamps(tmp_path / "store/blobs")
    plan = bundler.plan_pack(
        [spec], upstream=bundler.Upstream(mirrors=tuple(web.mirrors)), store=tmp_path / "store"
    )
    assert plan.missing_size == 0
    pack(web, tmp_path, spec)
    assert stamps(tmp_path / "store/blobs") == before
