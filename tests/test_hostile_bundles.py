"""Bundles made to do harm, or harmed on their way: refused in one line, and nothing changes."""

from __future__ import annotations

import gzip
import json
import re
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from bundle_builder import (
    COMMIT_HASH,
    END,
    FILES,
    Entry,
    Pipe,
    assembled,
    blob,
    blob_name,
    entries_of,
    file_record,
    frame,
    good_bundle,
    header,
    manifest_of,
    member,
    model_record,
    padded,
    parts_of,
    raw_frame,
    seek_table,
    tree_of,
)

import bundler
from bundler.errors import BundlerError, DamagedError, FormatError

Build = Callable[[], bytes]
Refusal = type[BundlerError] | tuple[type[BundlerError], ...]

MANIFEST = manifest_of(model_record())
PARTS = parts_of(MANIFEST)
CONFIG, VOCAB, WEIGHTS = FILES.values()
LARGE = 1 << 20
FRAME_SIZE = 4 << 20
EXBIBYTE = 1 << 60
PETABYTE = 10**15


def unpack(bundle: Path | Pipe, folder: Path) -> bundler.Unpacked:
    """Unpack below `folder`."""
    folder.mkdir(exist_ok=True)
    roots = bundler.find_roots(root=folder / "t")
    return bundler.unpack(bundle, roots=roots, env=folder / "offline.env")


def written(content: bytes, folder: Path) -> Path:
    """The path of a bundle file with `content`."""
    path = folder / "bundle.tar.zst"
    path.write_bytes(content)
    return path


def assert_plain(message: str) -> None:
    """One line of moderate length that no terminal takes for a command."""
    assert message
    assert message.isprintable()
    assert len(message) <= 1000


# Not bundles, and copies that went wrong.


def cut(size: int) -> Build:
    """The first `size` bytes of a good bundle; all but the last if negative."""
    return lambda: good_bundle()[:size]


def cut_in(part: int) -> Build:
    """A good bundle up to the middle of one of its frames."""
    lengths = [length for length, _, _ in entries_of(PARTS)]
    return cut(sum(lengths[:part]) + lengths[part] // 2)


def flipped_in(part: int) -> Build:
    """A good bundle with a byte flipped in the middle of one of its frames."""

    def build() -> bytes:
        whole = frame(PARTS[part])
        middle = len(whole) // 2
        bad = whole[:middle] + bytes([whole[middle] ^ 0x40]) + whole[middle + 1 :]
        return assembled(PARTS, {part: bad}, seek_table(entries_of(PARTS)))

    return build


def flipped_name() -> bytes:
    """A flip that leaves the manifest valid: only the checksum of its frame tells."""
    other = PARTS[0].replace(b"org/model", b"org/nodel")
    return assembled(PARTS, {0: raw_frame(other, promised=PARTS[0])})


def without_manifest() -> bytes:
    return frame(member("config.json", CONFIG) + END)


ACCIDENTS: dict[str, tuple[Build, Refusal]] = {
    "empty file": (lambda: b"", FormatError),
    "text file": (lambda: b"version https://git-lfs.github.com/spec/v1\n" * 20, FormatError),
    "gzip file": (lambda: gzip.compress(member("manifest.json", MANIFEST)), FormatError),
    "tar without compression": (lambda: b"".join(PARTS), FormatError),
    "tar.zst without a manifest": (without_manifest, FormatError),
    "tar.zst that is empty": (lambda: frame(END), FormatError),
    "cut in the manifest": (cut_in(0), DamagedError),
    "cut in the first blob": (cut_in(1), DamagedError),
    "cut in the last blob": (cut_in(3), DamagedError),
    "cut between two blobs": (cut(sum(e[0] for e in entries_of(PARTS[:2]))), DamagedError),
    "cut after the manifest": (cut(entries_of(PARTS)[0][0]), DamagedError),
    "cut before the end of the tar": (cut(sum(e[0] for e in entries_of(PARTS[:4]))), DamagedError),
    "flipped in the manifest": (flipped_in(0), DamagedError),
    "flipped in the name of a model": (flipped_name, DamagedError),
    "flipped in the first blob": (flipped_in(1), DamagedError),
    "flipped in the last blob": (flipped_in(3), DamagedError),
    "something after the end": (lambda: good_bundle() + b"more", DamagedError),
    "two bundles in one file": (lambda: good_bundle() * 2, DamagedError),
}


# A tar that says something else than the manifest.


def with_parts(*parts: bytes) -> Build:
    """A bundle of these parts after its manifest."""
    return lambda: assembled([PARTS[0], *parts])


def with_second(header: bytes) -> Build:
    """A bundle whose second blob has another header."""
    _, first, second, third, end = PARTS
    return with_parts(first, header + second[512:], third, end)


def pax_record(path: str) -> bytes:
    """A pax header that would give the next member another path."""
    length = len(f"path={path}\n") + 3
    record = f"{length} path={path}\n".encode()
    return header("././@PaxHeader", len(record), tarfile.XHDTYPE) + padded(record)


def absolute(name: str) -> str:
    """Where an attack with an absolute path would leave something: below the folder of the test."""
    return str(Path.cwd() / name)


NAME = blob_name(VOCAB)
SIZE = len(VOCAB)
MEMBERS: dict[str, tuple[Build, Refusal]] = {
    "member above the root": (with_second(header("../../evil", SIZE)), DamagedError),
    "member with an absolute path": (
        lambda: with_second(header(absolute("evil"), SIZE))(),
        DamagedError,
    ),
    "member without a digest": (with_second(header("blobs/sha256/x", SIZE)), DamagedError),
    "member with the digest of another": (with_second(header(blob_name(b""), SIZE)), DamagedError),
    "symbolic link": (with_second(header(NAME, 0, tarfile.SYMTYPE, "/etc/passwd")), DamagedError),
    "hard link": (with_second(header(NAME, 0, tarfile.LNKTYPE, "../../evil")), DamagedError),
    "symbolic link with content": (
        with_second(header(NAME, SIZE, tarfile.SYMTYPE, "../../evil")),
        DamagedError,
    ),
    "character device": (with_second(header(NAME, SIZE, tarfile.CHRTYPE)), DamagedError),
    "block device": (with_second(header(NAME, SIZE, tarfile.BLKTYPE)), DamagedError),
    "fifo": (with_second(header(NAME, SIZE, tarfile.FIFOTYPE)), DamagedError),
    "folder": (with_second(header(NAME, SIZE, tarfile.DIRTYPE)), DamagedError),
    "sparse file": (with_second(header(NAME, SIZE, tarfile.GNUTYPE_SPARSE)), DamagedError),
    "longer member": (with_second(header(NAME, SIZE + 1)), DamagedError),
    "shorter member": (with_second(header(NAME, SIZE - 1)), DamagedError),
    "member of 8 EiB": (with_second(header(NAME, 8 * EXBIBYTE)), DamagedError),
    "zeros for a header": (with_second(bytes(512)), DamagedError),
    "pax header before a member": (
        with_parts(PARTS[1], pax_record("../../evil") + PARTS[2], *PARTS[3:]),
        DamagedError,
    ),
    "pax header before the manifest": (
        lambda: assembled([pax_record("../../evil") + PARTS[0], *PARTS[1:]]),
        FormatError,
    ),
    "members in another order": (
        with_parts(PARTS[2], PARTS[1], PARTS[3], PARTS[4]),
        DamagedError,
    ),
    "missing first member": (with_parts(*PARTS[2:]), DamagedError),
    "missing last member": (with_parts(PARTS[1], PARTS[2], PARTS[4]), DamagedError),
    "extra member after the last": (with_parts(*PARTS[1:4], blob(b"more"), END), DamagedError),
    "extra member before the first": (with_parts(blob(b"more"), *PARTS[1:]), DamagedError),
    "extra member after the end": (with_parts(*PARTS[1:], member("x", b"x"), END), DamagedError),
    "same member twice": (with_parts(*PARTS[1:4], PARTS[3], END), DamagedError),
    "manifest twice": (with_parts(*PARTS), DamagedError),
    "no end of the tar": (with_parts(*PARTS[1:4]), DamagedError),
    "other content of the same size": (
        with_parts(PARTS[1], PARTS[2], member(blob_name(WEIGHTS), WEIGHTS[::-1]), END),
        DamagedError,
    ),
    "empty file that is not what its digest says": (
        lambda: assembled(
            [
                member(
                    "manifest.json",
                    manifest_of(model_record(files=[file_record("a", b"a", size=0)])),
                ),
                header(blob_name(b"a"), 0),
                END,
            ]
        ),
        DamagedError,
    ),
}


# Compression that claims or brings more than it should.


def with_frame(number: int, other: bytes) -> Build:
    """A bundle with another frame in the place of one of its own, and a table that fits."""
    return lambda: assembled(PARTS, {number: other})


def with_manifest_header(header: bytes, *parts: bytes) -> Build:
    """A bundle that starts with `header` where that of its manifest belongs."""
    return lambda: assembled([header, *parts])


ZEROS = bytes(FRAME_SIZE)
BOMBS: dict[str, tuple[Build, Refusal]] = {
    "blob that claims 1 PB": (
        with_frame(2, raw_frame(PARTS[2], claimed_size=PETABYTE)),
        DamagedError,
    ),
    "manifest that claims 1 PB": (
        with_frame(0, raw_frame(PARTS[0], claimed_size=PETABYTE)),
        (DamagedError, FormatError),
    ),
    "blob that grows": (
        with_parts(PARTS[1], PARTS[2] + ZEROS[: FRAME_SIZE - len(PARTS[2])], *PARTS[3:]),
        DamagedError,
    ),
    "zeros without end after the last blob": (with_parts(*PARTS[1:], *[ZEROS] * 8), DamagedError),
    "zeros without end for a manifest": (lambda: assembled([ZEROS] * 8), FormatError),
    "manifest of 64 MiB of zeros": (
        with_manifest_header(header("manifest.json", 64 << 20), *[ZEROS] * 16, END),
        FormatError,
    ),
    "manifest of more than 64 MiB": (
        with_manifest_header(header("manifest.json", (64 << 20) + 1), *[ZEROS] * 16, END),
        FormatError,
    ),
    "manifest of 10 GB": (
        with_manifest_header(header("manifest.json", 10 * 10**9), *[ZEROS] * 16, END),
        FormatError,
    ),
    "manifest of a negative size": (
        with_manifest_header(header("manifest.json", -1), MANIFEST, END),
        FormatError,
    ),
    "manifest that is a link": (
        with_manifest_header(
            header("manifest.json", len(MANIFEST), tarfile.SYMTYPE, "/etc/passwd"), MANIFEST, END
        ),
        FormatError,
    ),
}


# Manifests that are no JSON, or not what this version reads.


def with_manifest(content: bytes, contents: Sequence[bytes] = tuple(FILES.values())) -> Build:
    """A bundle that is right but for what its manifest says."""
    return lambda: assembled(parts_of(content, contents))


def nested(opening: str, closing: str) -> bytes:
    depth = 200_000
    return (opening * depth + closing * depth).encode()


def version(text: str) -> bytes:
    return b'{"format_version": %s, "snapshots": []}' % text.encode()


DOCUMENTS: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"config.json",
    "JSON and more": MANIFEST + b"{}",
    "not UTF-8": MANIFEST.replace(b"org/model", b"org/m\xffdel"),
    "UTF-16": MANIFEST.decode().encode("utf-16"),
    "a list": b"[]",
    "null": b"null",
    "deep lists": nested("[", "]"),
    "deep objects": nested('{"a":', "}"),
    "deep lists in a field that is not known": manifest_of(model_record()).replace(
        b'"snapshots"', b'"more": ' + nested("[", "]") + b', "snapshots"'
    ),
    "the same key twice": MANIFEST.replace(b'"name"', b'"name": "org/other", "name"'),
    "NaN": MANIFEST.replace(b'"size": %d' % SIZE, b'"size": NaN'),
    "NaN in a field that is not known": manifest_of(model_record(), more=float("nan")),
    "infinity": MANIFEST.replace(b'"size": %d' % SIZE, b'"size": Infinity'),
    "an integer of 5,000 digits": version("9" * 5000),
    "no format version": json.dumps({"snapshots": [model_record()]}).encode(),
    "format version 3": manifest_of(model_record(), format_version=3),
    "format version 0": manifest_of(model_record(), format_version=0),
    "format version of 4,000 digits": version("9" * 4000),
    "format version true": manifest_of(model_record(), format_version=True),
    "format version 1.0": manifest_of(model_record(), format_version=1.0),
    "format version as text": manifest_of(model_record(), format_version="1"),
    "no snapshots": b'{"format_version": 1}',
    "snapshots as an object": manifest_of(snapshots={}),
    "a snapshot that is text": manifest_of(snapshots=["org/model"]),
}


# Manifests with one model that asks for too much.

PATHS: dict[str, str] = {
    "empty": "",
    "absolute": "/etc/cron.d/evil",
    "above the root": "../../evil",
    "above the root from inside": "sub/../../../../evil",
    "dot": "./config.json",
    "two slashes": "sub//vocab.txt",
    "slash at the end": "sub/",
    "backslashes": "..\\..\\evil",
    "drive": "C:/evil",
    "drive in a later component": "sub/C:/evil",
    "network share": "\\\\server\\share\\evil",
    "device": "aux.txt",
    "nul": "a\0b",
    "newline": "a\nb",
    "escape sequence": "\x1b]0;evil\x07",
    "lone surrogate": "a\ud800b",
    "component of 256 bytes": "x" * 256,
    "path of 4097 bytes": "x/" * 2048 + "x",
    "above the root and a million characters long": "../" * 333_333 + "evil",
    "a device and a million characters long": "x/" * 500_000 + "aux",
}
ETAGS: dict[str, object] = {
    "slash": "../../evil",
    "slash inside": "a/b",
    "backslash": "a\\b",
    "dotdot": "..",
    "leading dot": ".hidden",
    "empty": "",
    "quotes": '"abc"',
    "newline": "abc\n",
    "too long": "a" * 300,
    "a million characters": "a" * 1_000_000,
    "number": 5,
}
SIZES: dict[str, object] = {
    "negative": -1,
    "beyond 2**53": 2**53 + 1,
    "beyond 2**63": 2**63,
    "of 4,000 digits": int("9" * 4000),
    "fraction": float(SIZE),
    "text": str(SIZE),
    "true": True,
    "absent": None,
}
DIGESTS: dict[str, object] = {
    "path": "sha256:../../evil",
    "in capitals": file_record("", VOCAB)["digest"].upper(),
    "of another algorithm": "md5:d41d8cd98f00b204e9800998ecf8427e",
    "without an algorithm": file_record("", VOCAB)["digest"][7:],
    "number": 5,
    "absent": None,
}
FIELDS: dict[str, dict[str, object]] = {
    "name with three parts": {"name": "a/b/c"},
    "name with dotdot": {"name": "../evil"},
    "name that is dotdot": {"name": ".."},
    "name that is absolute": {"name": "/evil"},
    "name with an empty part": {"name": "org/"},
    "name with a backslash": {"name": "org\\model"},
    "name with an escape sequence": {"name": "org/\x1b[31mmodel"},
    "name with a newline": {"name": "org/model\nbundler: all is well"},
    "name with a lone surrogate": {"name": "org/\udc80"},
    "name that is empty": {"name": ""},
    "name that is a number": {"name": 5},
    "name that is absent": {"name": None},
    "name of a million characters": {"name": "x" * 1_000_000},
    "name of a million characters and no hash": {"name": "x" * 1_000_000, "commit_hash": "x"},
    "commit hash of a million characters": {"commit_hash": "x" * 1_000_000},
    "kind of a million characters": {"kind": "x" * 1_000_000},
    "layout of a million characters": {"layout": "x" * 1_000_000},
    "layout that is not known, and a name that turns the direction of text": {
        "layout": "hf-cache-2",
        "name": "org/\u202emodel",
    },
    "alias with dotdot": {"aliases": ["../evil"]},
    "alias that is absolute": {"aliases": ["/evil"]},
    "alias with three parts": {"aliases": ["a/b/c"]},
    "alias with a newline": {"aliases": ["a\nb"]},
    "alias that is the name": {"aliases": ["org/model"]},
    "alias that is no text": {"aliases": [5]},
    "aliases that are text": {"aliases": "older"},
    "commit hash with dotdot": {"commit_hash": "../../evil"},
    "commit hash of 39 digits": {"commit_hash": COMMIT_HASH[:-1]},
    "commit hash of 41 digits": {"commit_hash": COMMIT_HASH + "0"},
    "commit hash in capitals": {"commit_hash": COMMIT_HASH.upper()},
    "commit hash with a newline": {"commit_hash": COMMIT_HASH + "\n"},
    "commit hash absent": {"commit_hash": None},
    "revision with dotdot": {"revision": "../../x"},
    "revision that is absolute": {"revision": "/evil"},
    "revision with a newline": {"revision": "main\n"},
    "revision that is a device": {"revision": "nul"},
    "revision absent": {"revision": None},
    "kind with dotdot": {"kind": "../../evil"},
    "kind that is not known": {"kind": "kernel"},
    "kind absent": {"kind": None},
    "source with an escape sequence": {"source": "\x1b[2J"},
    "source absent": {"source": None},
    "license with an escape sequence": {"license": "\x1b[2J"},
    "layout that is not known": {"layout": "hf-cache-2"},
    "layout with dotdot": {"layout": "../evil"},
    "layout absent": {"layout": None},
    "files absent": {"files": None},
    "a file that is text": {"files": ["config.json"]},
    "omitted that is text": {"omitted": "x"},
    "omitted with an escape sequence": {"omitted": [{"path": "\x1b[2J", "reason": "x"}]},
    "omitted with a negative size": {"omitted": [{"path": "x", "size": -1, "reason": "x"}]},
    "the same path twice": {
        "files": [file_record("a", CONFIG), file_record("a", VOCAB), file_record("b", WEIGHTS)]
    },
    "the same path and content twice": {
        "files": [
            file_record("a", CONFIG),
            file_record("a", CONFIG),
            file_record("b", VOCAB),
            file_record("c", WEIGHTS),
        ]
    },
    "a file that is a folder too": {
        "files": [file_record("a", CONFIG), file_record("a/b", VOCAB), file_record("b", WEIGHTS)]
    },
    "two sizes for one digest": {
        "files": [
            file_record("a", CONFIG),
            file_record("b", VOCAB),
            file_record("c", VOCAB, size=SIZE + 1),
            file_record("d", WEIGHTS),
        ]
    },
    "two contents for one etag": {
        "files": [
            file_record("a", CONFIG, etag="same"),
            file_record("b", VOCAB, etag="same"),
            file_record("c", WEIGHTS),
        ]
    },
}


def with_model(**fields: object) -> Build:
    """A bundle with one model that is right but for `fields`."""
    return with_manifest(manifest_of(model_record(**fields)))


def with_file(**fields: object) -> Build:
    """A bundle whose second file is right but for `fields`."""
    second = file_record("sub/vocab.txt", VOCAB, **fields)
    files = [file_record("config.json", CONFIG), second, file_record("weights.bin", WEIGHTS)]
    return with_model(files=files)


# Models that want to stand at the same place.


def two_models(second: dict[str, object], first: Mapping[str, object] = {}) -> Build:
    """A bundle with the usual model, but for `first`, and another one."""
    other = model_record({"a": b"a", "b": b"b"}, **{"commit_hash": "f" * 40, **second})
    manifest = manifest_of(model_record(**first), other)
    return with_manifest(manifest, [*FILES.values(), b"a", b"b"])


CONFLICTS: dict[str, Build] = {
    "two names for one folder": two_models({"name": "org--model"}),
    "the same model twice": two_models({}),
    "the same model and commit twice": two_models({"revision": "dev"}, {"commit_hash": "f" * 40}),
    "an alias that is another model": two_models({"name": "org/other", "aliases": ["org/model"]}),
    "a revision below another": two_models({"revision": "main/x"}),
}


def refused() -> list[Any]:
    """Every bundle that is refused alike from a file and from a pipe."""
    tables: dict[str, dict[str, tuple[Build, Refusal]]] = {
        "accident": ACCIDENTS,
        "tar": MEMBERS,
        "bomb": BOMBS,
        "manifest": {k: (with_manifest(v), FormatError) for k, v in DOCUMENTS.items()},
        "path": {k: (with_file(path=v), FormatError) for k, v in PATHS.items()},
        "etag": {k: (with_file(etag=v), FormatError) for k, v in ETAGS.items()},
        "size": {k: (with_file(size=v), FormatError) for k, v in SIZES.items()},
        "digest": {k: (with_file(digest=v), FormatError) for k, v in DIGESTS.items()},
        "model": {k: (with_model(**v), FormatError) for k, v in FIELDS.items()},
        "conflict": {k: (v, FormatError) for k, v in CONFLICTS.items()},
    }
    return [
        pytest.param(build, refusal, id=f"{table}: {name}".replace(" ", "_"))
        for table, cases in tables.items()
        for name, (build, refusal) in cases.items()
    ]


# Seek tables that lie: only whoever reads a file looks at them.


def with_table(change: Callable[[list[Entry]], list[Entry]]) -> Build:
    """A good bundle with other lines in its table."""
    return lambda: assembled(PARTS, table=seek_table(change(entries_of(PARTS))))


def moved(compressed: int, content: int) -> Build:
    """A table that counts so many bytes of the second frame to the third."""

    def change(entries: list[Entry]) -> list[Entry]:
        (c1, s1, x1), (c2, s2, x2) = entries[1:3]
        entries[1:3] = [(c1 - compressed, s1 - content, x1), (c2 + compressed, s2 + content, x2)]
        return entries

    return with_table(change)


def other_line(number: int, compressed: int = 0, content: int = 0) -> Build:
    """A table with one line that tells other sizes."""

    def change(entries: list[Entry]) -> list[Entry]:
        old_compressed, old_content, checksum = entries[number]
        entries[number] = (compressed or old_compressed, content or old_content, checksum)
        return entries

    return with_table(change)


def table(**lies: int) -> Build:
    return lambda: assembled(PARTS, table=seek_table(entries_of(PARTS), **lies))


ONLY_IN_FILES: dict[str, Build] = {
    "last byte missing": cut(-1),
    "cut before the table": lambda: assembled(PARTS, table=b""),
    "cut in the table": cut(-20),
    "no line": lambda: assembled(PARTS, table=seek_table([])),
    "a line less": with_table(lambda entries: entries[:-1]),
    "a line more": with_table(lambda entries: [*entries, entries[-1]]),
    "lines in another order": with_table(lambda entries: entries[::-1]),
    "every line twice": with_table(lambda entries: entries * 2),
    "frames that start too early": moved(1, 0),
    "frames that start too late": moved(-1, 0),
    "content that starts too early": moved(0, 1),
    "content that starts a block late": moved(0, -512),
    "frames that overlap": other_line(2, compressed=entries_of(PARTS)[2][0] + 20),
    "frame of no bytes": other_line(2, compressed=1),
    "frame of 4 GB": other_line(2, compressed=2**32 - 1),
    "content of 4 GB": other_line(2, content=2**32 - 1),
    "content that is too long": other_line(2, content=FRAME_SIZE),
    "content that is too short": other_line(2, content=512),
    "count of 0": table(count=0),
    "count of one more": table(count=len(PARTS) + 1),
    "count of 2**27": table(count=2**27),
    "count of 2**32-1": table(count=2**32 - 1),
    "length of 0": table(length=0),
    "length of 4 GB": table(length=2**32 - 1),
    "reserved bits": table(descriptor=0xFC),
}


@pytest.fixture(autouse=True)
def deep_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand so deep that what climbs out is still found."""
    folder = tmp_path / "some" / "where" / "deep"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)


def test_the_builder_of_these_bundles_can_also_make_a_good_one(tmp_path: Path) -> None:
    unpack(written(good_bundle(), tmp_path), tmp_path)
    snapshot = tmp_path / f"t/huggingface/hub/models--org--model/snapshots/{COMMIT_HASH}"
    assert {path: (snapshot / path).read_bytes() for path in FILES} == FILES


@pytest.mark.parametrize(("build", "refusal"), refused())
def test_it_is_refused_and_nothing_is_written(
    build: Build, refusal: Refusal, tmp_path: Path
) -> None:
    path = written(build(), tmp_path)
    before = tree_of(tmp_path)
    with pytest.raises(refusal) as caught:
        unpack(path, tmp_path)
    assert_plain(str(caught.value))
    assert tree_of(tmp_path) == before


@pytest.mark.parametrize(("build", "refusal"), refused())
def test_it_is_refused_from_a_pipe_too(build: Build, refusal: Refusal, tmp_path: Path) -> None:
    with pytest.raises(refusal) as caught:
        unpack(Pipe(build()), tmp_path)
    assert_plain(str(caught.value))
    assert tree_of(tmp_path) == {}


@pytest.mark.parametrize(("build", "refusal"), refused())
def test_what_stood_there_before_stands_as_it_did(
    build: Build, refusal: Refusal, tmp_path: Path
) -> None:
    earlier = manifest_of(model_record({"old.bin": b"old"}, revision="v1", commit_hash="e" * 40))
    unpack(Pipe(assembled(parts_of(earlier, [b"old"]))), tmp_path)
    before = tree_of(tmp_path)
    with pytest.raises(refusal):
        unpack(Pipe(build()), tmp_path)
    assert tree_of(tmp_path) == before


@pytest.mark.parametrize(
    "build", [pytest.param(v, id=k.replace(" ", "_")) for k, v in ONLY_IN_FILES.items()]
)
def test_a_seek_table_that_lies_is_damage(build: Build, tmp_path: Path) -> None:
    path = written(build(), tmp_path)
    before = tree_of(tmp_path)
    with pytest.raises(DamagedError) as caught:
        unpack(path, tmp_path)
    assert_plain(str(caught.value))
    assert tree_of(tmp_path) == before


@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
def test_a_flip_of_any_byte_is_refused_or_does_no_harm(piped: bool, tmp_path: Path) -> None:
    content = good_bundle()
    unpack(Pipe(content), tmp_path / "right")
    right = tree_of(tmp_path / "right/t")
    for position in range(len(content)):
        bad = content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
        folder = tmp_path / str(position)
        folder.mkdir()
        try:
            unpack(Pipe(bad) if piped else written(bad, tmp_path), folder)
        except BundlerError as error:
            assert_plain(str(error))
            assert tree_of(folder) == {}, f"byte {position}"
        else:
            assert tree_of(folder / "t") == right, f"byte {position}"


def test_a_bundle_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    content = good_bundle()
    folder = tmp_path / "target"
    for size in range(len(content)):
        with pytest.raises(BundlerError) as caught:
            unpack(written(content[:size], tmp_path), folder)
        assert_plain(str(caught.value))
        assert tree_of(folder) == {}, f"{size} bytes"


@pytest.mark.parametrize(
    ("build", "words"),
    [
        pytest.param(
            with_manifest(DOCUMENTS["format version 3"]),
            ["format version 3", "newer bundler"],
            id="a_newer_format",
        ),
        pytest.param(
            with_model(layout="hf-cache-2"), ["hf-cache-2", "newer bundler"], id="a_newer_layout"
        ),
        pytest.param(cut(-1), ["copy it again"], id="a_copy_without_its_end"),
        pytest.param(with_file(path="../evil"), ["org/model", "../evil"], id="a_bad_path"),
        pytest.param(lambda: b"", ["not a bundle"], id="an_empty_file"),
    ],
)
def test_the_message_says_what_to_do_or_where_to_look(
    build: Build, words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(BundlerError) as caught:
        unpack(written(build(), tmp_path), tmp_path)
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_path_that_this_file_system_cannot_hold_is_refused(tmp_path: Path) -> None:
    too_deep = "/".join(["x" * 255] * 16)
    with pytest.raises(BundlerError) as caught:
        unpack(written(with_file(path=too_deep)(), tmp_path), tmp_path)
    assert_plain(str(caught.value))
    assert not (tmp_path / "offline.env").exists()
    assert tree_of(tmp_path / "t") == {}


def test_fields_that_are_not_known_are_ignored(tmp_path: Path) -> None:
    record = model_record(more={"deep": [1, None, 2.5, "\x1b"]}, size=5)
    record["files"][0]["mode"] = 0o777
    content = assembled(parts_of(manifest_of(record, created="today", more=[{}])))
    unpack(Pipe(content), tmp_path / "more")
    unpack(Pipe(good_bundle()), tmp_path / "plain")
    hub = "t/huggingface/hub"
    assert tree_of(tmp_path / "more" / hub) == tree_of(tmp_path / "plain" / hub) != {}


# Verifying tells everything that is wrong, and where.


def verified(content: bytes, folder: Path) -> bundler.Verification:
    return bundler.verify(written(content, folder))


def names_of(verification: bundler.Verification) -> dict[str, tuple[str, ...]]:
    """The bad members, with the files that each of them is."""
    return {fault.member: fault.files for fault in verification.faults}


def large_parts() -> tuple[list[bytes], list[bytes]]:
    """Three large contents, and a bundle of them."""
    contents = [bytes([number]) * LARGE for number in range(3)]
    files = {f"part-{number}.bin": content for number, content in enumerate(contents)}
    return contents, parts_of(manifest_of(model_record(files)), contents)


def test_verifying_finds_no_fault_in_a_good_bundle(tmp_path: Path) -> None:
    verification = verified(good_bundle(), tmp_path)
    assert verification.faults == ()
    assert verification.checked == len(FILES)
    assert verification.size == sum(map(len, FILES.values()))


def test_verifying_names_the_bad_member_and_every_file_that_it_is(tmp_path: Path) -> None:
    other = model_record({"same.txt": VOCAB}, name="org/other", commit_hash="f" * 40)
    parts = parts_of(manifest_of(model_record(), other))
    parts[2] = member(blob_name(VOCAB), VOCAB[::-1])
    assert names_of(verified(assembled(parts), tmp_path)) == {
        blob_name(VOCAB): ("sub/vocab.txt of org/model", "same.txt of org/other")
    }


@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
def test_verifying_reports_every_blob_with_other_bytes(piped: bool, tmp_path: Path) -> None:
    contents, parts = large_parts()
    for number in (0, 2):
        parts[1 + number] = member(blob_name(contents[number]), b"\xff" * LARGE)
    content = assembled(parts)
    verification = bundler.verify(Pipe(content) if piped else written(content, tmp_path))
    assert names_of(verification) == {
        blob_name(contents[0]): ("part-0.bin of org/model",),
        blob_name(contents[2]): ("part-2.bin of org/model",),
    }


def test_verifying_reports_every_blob_that_cannot_be_decompressed(tmp_path: Path) -> None:
    contents, parts = large_parts()
    bad = {}
    for number in (1, 2):
        whole = frame(parts[number])
        bad[number] = whole[:-4] + bytes(byte ^ 0xFF for byte in whole[-4:])
    content = assembled(parts, bad)
    assert names_of(verified(content, tmp_path)) == {
        blob_name(contents[0]): ("part-0.bin of org/model",),
        blob_name(contents[1]): ("part-1.bin of org/model",),
    }


def test_every_fault_that_verifying_tells_is_one_plain_line(tmp_path: Path) -> None:
    for build, _ in [*ACCIDENTS.values(), *MEMBERS.values()]:
        try:
            faults = [str(fault) for fault in verified(build(), tmp_path).faults]
        except BundlerError as error:
            faults = [str(error)]
        assert faults
        for fault in faults:
            assert_plain(fault)


def test_a_flip_of_any_byte_is_found_by_verifying_or_does_no_harm(tmp_path: Path) -> None:
    content = good_bundle()
    right = verified(content, tmp_path)
    for position in range(len(content)):
        bad = content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
        try:
            verification = verified(bad, tmp_path)
        except BundlerError as error:
            assert_plain(str(error))
        else:
            assert verification.faults or verification == right, f"byte {position}"


def test_verifying_tells_that_the_end_is_missing(tmp_path: Path) -> None:
    faults = verified(good_bundle()[:-1], tmp_path).faults
    assert [re.search("copy it again", fault.message) is not None for fault in faults] == [True]
