"""The bundle file: what stands where in it, and how little of it has to be read."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
import zstandard
from bundle_builder import (
    COMMIT_HASH,
    Collected,
    CountingFile,
    Pipe,
    blob_name,
    file_record,
    frame,
    header,
    manifest_of,
    member,
    model_record,
    tree_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_source import MemorySource
from test_frames import content_of, lines_of

import bundler
from bundler.archive import open_bundle
from bundler.archive_writer import Levels, write_bundle
from bundler.checksum import Checksums
from bundler.digest import Blob, Digest
from bundler.errors import DamagedError, FormatError, RequestError, TrustError
from bundler.extraction import Outlet
from bundler.manifest import FileEntry, Manifest, Snapshot
from bundler.members import LARGE, Member
from bundler.relative import RelativePath
from bundler.seek_table import PIECE_SIZE

SMALL, EMPTY, LARGEST_SMALL = b"small", b"", b"s" * (LARGE - 1)
FIRST_LARGE, SECOND_LARGE = b"L" * LARGE, b"M" * (2 * LARGE + 1)
CONTENTS = [SECOND_LARGE, SMALL, FIRST_LARGE, EMPTY, LARGEST_SMALL]
"""In the order of the manifest."""
IN_ORDER = [SMALL, EMPTY, LARGEST_SMALL, SECOND_LARGE, FIRST_LARGE]
"""In the order of the file: small ones, then large ones."""

needs_zstd = pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd on this system")


def manifest_for(contents: Iterable[bytes]) -> Manifest:
    files = tuple(
        FileEntry(RelativePath(f"file-{number}"), Blob.of(content))
        for number, content in enumerate(contents)
    )
    return Manifest.of(
        [Snapshot("hf", "org/model", "hf-cache", files, "model", (), "main", COMMIT_HASH)]
    )


def bundle_of(contents: Iterable[bytes] = CONTENTS, level: int = 3, jobs: int = 2) -> bytes:
    by_digest = {Digest.of(content): content for content in contents}
    out = io.BytesIO()
    write_bundle(
        out,
        manifest_for(contents),
        lambda blob: io.BytesIO(by_digest[blob.digest]),
        lambda _: None,
        levels=Levels.all(level),
        jobs=jobs,
    )
    return out.getvalue()


def read_all(bundle: io.BytesIO, wanted: set[Digest] | None = None) -> list[bytes]:
    """The content of every wanted blob, in the order of the file."""
    collected = Collected()
    with open_bundle(bundle) as reader:
        reader.extract(collected, wanted)
        assert set(collected.finished) == collected.contents.keys()
        assert not collected.refused
        return [bytes(collected.contents[m]) for m in reader.members if m in collected.contents]


def test_the_manifest_comes_first_then_small_blobs_then_large_ones_in_its_order() -> None:
    with tarfile.open(fileobj=io.BytesIO(content_of(bundle_of()))) as tar:
        assert tar.getnames() == ["manifest.json", *map(blob_name, IN_ORDER)]
        assert [member.size for member in tar.getmembers()[1:]] == [
            len(content) for content in IN_ORDER
        ]


def test_a_header_is_one_block_that_tells_nothing_of_the_packing_machine() -> None:
    content = content_of(bundle_of())
    position = 0
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for info in tar:
            assert info.offset == position
            assert info.offset_data == position + 512
            assert (info.mtime, info.uid, info.gid) == (0, 0, 0)
            assert (info.uname, info.gname, info.isreg()) == ("", "", True)
            assert content[position + 257 : position + 265] == b"ustar  \0", "a GNU header"
            position = info.offset_data + -(-info.size // 512) * 512
    assert content[position:] == bytes(1024)


def test_a_blob_of_more_than_8_gib_still_has_a_header_of_one_block() -> None:
    record = file_record("huge.bin", b"huge", size=9 << 30)
    tar = member("manifest.json", manifest_of(model_record(files=[record])))
    bundle = frame(tar + header(blob_name(b"huge"), 9 << 30) + b"its first bytes")

    class FirstBytes:
        def open(self, member: Member) -> Outlet:
            return self

        def write(self, data: memoryview) -> None:
            written.append(bytes(data))

        def refuse(self, member: Member, error: DamagedError) -> None:
            raise error

        def close(self) -> None:
            raise AssertionError("it is not whole")

        def abandon(self) -> None:
            abandoned.append(True)

    written: list[bytes] = []
    abandoned: list[bool] = []
    with open_bundle(Pipe(bundle)) as reader, pytest.raises(DamagedError, match="ends too early"):
        reader.extract(FirstBytes())
    assert written == [b"its first bytes"]
    assert abandoned == [True]


def test_the_manifest_starts_a_frame_and_so_does_the_content_of_each_large_blob() -> None:
    stream = bundle_of()
    starts, position = [], 0
    for line in lines_of(stream):
        starts.append(position)
        position += line.content_size
    manifest_size = 512 + -(-len(manifest_for(CONTENTS).to_bytes()) // 512) * 512
    with tarfile.open(fileobj=io.BytesIO(content_of(stream))) as tar:
        offsets = {info.name: info.offset_data for info in tar}
    second, first = offsets[blob_name(SECOND_LARGE)], offsets[blob_name(FIRST_LARGE)]
    assert starts == [
        0,
        manifest_size,
        second - 512,
        *(second + part * PIECE_SIZE for part in range(3)),
        second + len(SECOND_LARGE),
        first - 512,
        first,
        first + len(FIRST_LARGE),
    ]


def test_the_same_models_give_the_same_bytes_whatever_the_number_of_threads() -> None:
    assert bundle_of(jobs=1) == bundle_of(jobs=1) == bundle_of(jobs=5)


def test_the_id_is_the_digest_of_the_manifest_and_does_not_depend_on_the_level() -> None:
    with open_bundle(io.BytesIO(bundle_of(level=1))) as fast:
        assert fast.digest == Digest.of(manifest_for(CONTENTS).to_bytes())
        assert fast.manifest == manifest_for(CONTENTS)
    with open_bundle(io.BytesIO(bundle_of(level=9))) as small:
        assert small.digest == fast.digest


@needs_zstd
def test_zstd_accepts_it(tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.zst"
    path.write_bytes(bundle_of())
    subprocess.run(["zstd", "-q", "-t", path], check=True)
    decompressed = subprocess.run(["zstd", "-dc", path], check=True, capture_output=True).stdout
    assert decompressed == content_of(bundle_of())


@needs_zstd
def test_tar_lists_and_extracts_it(tmp_path: Path) -> None:
    path, folder = tmp_path / "bundle.tar.zst", tmp_path / "out"
    path.write_bytes(bundle_of())
    folder.mkdir()
    listed = subprocess.run(
        ["tar", "--zstd", "-tf", path], check=True, capture_output=True, text=True
    )
    assert listed.stdout.splitlines() == ["manifest.json", *map(blob_name, IN_ORDER)]
    assert listed.stderr == ""
    subprocess.run(["tar", "--zstd", "-xf", path, "-C", folder], check=True)
    assert tree_of(folder) == {
        "manifest.json": manifest_for(CONTENTS).to_bytes(),
        **{blob_name(content): content for content in CONTENTS},
    }


def test_every_blob_comes_back_in_the_order_of_the_file() -> None:
    assert read_all(io.BytesIO(bundle_of())) == IN_ORDER


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param([], id="nothing"),
        pytest.param([SMALL], id="the_first"),
        pytest.param([FIRST_LARGE], id="the_last"),
        pytest.param([SMALL, LARGEST_SMALL, FIRST_LARGE], id="with_gaps"),
        pytest.param([EMPTY, SECOND_LARGE], id="an_empty_one_and_a_large_one"),
        pytest.param(IN_ORDER, id="all"),
    ],
)
def test_a_pipe_gives_the_same_as_a_file(wanted: list[bytes]) -> None:
    digests = {Digest.of(content) for content in wanted}
    assert read_all(io.BytesIO(bundle_of()), digests) == wanted
    assert read_all(Pipe(bundle_of()), digests) == wanted


def test_a_real_pipe_is_read_to_its_end() -> None:
    reading, writing = os.pipe()
    bundle = bundle_of()

    def feed() -> None:
        with open(writing, "wb") as out:
            out.write(bundle)

    feeder = threading.Thread(target=feed)
    feeder.start()
    with open(reading, "rb") as source, open_bundle(source) as reader:
        collected = Collected()
        reader.extract(collected, {Digest.of(SMALL)})
        assert source.read() == b""
    feeder.join()
    assert [*collected.contents.values()] == [SMALL]


def test_a_pipe_is_read_to_its_end_even_if_all_is_installed_already(tmp_path: Path) -> None:
    roots = bundler.find_roots(root=tmp_path)
    bundle = bundle_of([noise(0)])
    for _ in range(2):
        pipe = Pipe(bundle)
        bundler.unpack(pipe, roots=roots, env=None)
        assert pipe.read() == b""


@pytest.mark.parametrize("readable", [0, 100])
def test_a_medium_that_fails_is_not_taken_for_another_kind_of_file(readable: int) -> None:
    class Failing(Pipe):
        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            if not data:
                raise OSError(errno.EIO, "Input/output error")
            return data

    with pytest.raises(DamagedError, match="Input/output error"):
        bundler.inspect(Failing(bundle_of()[:readable]))


def noise(number: int, size: int = 3 << 20) -> bytes:
    """Content that does not shrink."""
    return random.Random(number).randbytes(size)


def test_a_few_blobs_of_a_file_cost_only_the_frames_they_stand_in() -> None:
    contents = [noise(number) for number in range(10)]
    file = CountingFile(bundle_of(contents, level=1))
    wanted = {Digest.of(contents[2]), Digest.of(contents[7])}
    assert read_all(file, wanted) == [contents[2], contents[7]]
    assert file.count < 2 * len(contents[0]) + LARGE


def test_inspecting_a_big_bundle_reads_less_than_a_megabyte() -> None:
    file = CountingFile(bundle_of([noise(number) for number in range(10)], level=1))
    inspection = bundler.inspect(file)
    assert len(inspection.manifest.snapshots[0].files) == 10
    assert inspection.size == 30 << 20
    assert file.count < 1_000_000


def test_inspecting_does_not_mind_that_the_rest_is_missing() -> None:
    stream = bundle_of()
    first = lines_of(stream)[0].frame
    assert bundler.inspect(io.BytesIO(first)).manifest == manifest_for(CONTENTS)


def test_another_bundle_than_expected_is_not_trusted() -> None:
    right = bundler.inspect(io.BytesIO(bundle_of())).digest
    assert bundler.inspect(io.BytesIO(bundle_of()), digest=right).digest == right
    with pytest.raises(TrustError):
        bundler.inspect(io.BytesIO(bundle_of()), digest=Digest.of(b""))


def test_the_expected_id_is_compared_before_the_manifest_is_parsed() -> None:
    nonsense = b"not JSON at all"
    bundle = frame(member("manifest.json", nonsense))
    with pytest.raises(TrustError):
        bundler.inspect(io.BytesIO(bundle), digest=Digest.of(b""))
    with pytest.raises(FormatError):
        bundler.inspect(io.BytesIO(bundle), digest=Digest.of(nonsense))


@pytest.mark.parametrize("name", ["missing.tar.zst", "."], ids=["missing", "folder"])
def test_a_path_that_is_no_file_is_a_wrong_request(name: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"^[^\n]+$"):
        bundler.inspect(tmp_path / name)


def test_a_blob_that_changed_while_packing_is_not_written_as_if_it_were_right() -> None:
    with pytest.raises(DamagedError):
        write_bundle(
            io.BytesIO(),
            manifest_for([SMALL]),
            lambda _: io.BytesIO(SMALL[::-1]),
            lambda _: None,
        )


@pytest.mark.parametrize(
    "now",
    [SECOND_LARGE[:-1] + b"x", SECOND_LARGE[:LARGE], b"x" + SECOND_LARGE[1:]],
    ids=["its end", "its length", "its start"],
)
def test_a_large_blob_that_was_compared_a_moment_ago_is_not_written_changed(now: bytes) -> None:
    checksums = Checksums()
    checksums.update(SECOND_LARGE)
    known = checksums.finish()
    wanted = Blob.of(SECOND_LARGE)
    contents = {Blob.of(FIRST_LARGE): FIRST_LARGE, wanted: now}
    with pytest.raises(DamagedError):
        write_bundle(
            io.BytesIO(),
            manifest_for([SECOND_LARGE, FIRST_LARGE]),
            lambda blob: io.BytesIO(contents[blob]),
            lambda _: None,
            checksums=lambda blob: known if blob == wanted else None,
        )


@given(st.lists(st.integers(0, 2 * PIECE_SIZE), max_size=4))
@settings(max_examples=20, deadline=None)
def test_checksums_are_those_of_the_frames_however_the_content_comes(sizes: list[int]) -> None:
    content = bytes(range(251)) * (sum(sizes) // 251 + 1)
    checksums, position = Checksums(), 0
    for size in sizes:
        checksums.update(content[position : position + size])
        position += size
    zstd = zstandard.ZstdCompressor(write_checksum=True)
    pieces = range(0, position, PIECE_SIZE)
    frames = [zstd.compress(content[p : min(p + PIECE_SIZE, position)]) for p in pieces]
    assert [*checksums.finish()] == [int.from_bytes(frame[-4:], "little") for frame in frames]


@pytest.mark.parametrize("odd", ["line\nbreak.txt", "\x1b[2J.txt", "x" * 5000])
def test_a_bundle_that_leaves_out_an_odd_file_can_be_read(odd: str, tmp_path: Path) -> None:
    files = {"model.safetensors": b"{}", odd: b"odd"}
    packed = bundler.pack(
        ["org/model"],
        tmp_path / "bundle.tar.zst",
        selection=bundler.Selection(exclude=(odd,)),
        store=tmp_path / "store",
        sources=(MemorySource({"org/model": files}),),
    )
    assert bundler.inspect(tmp_path / "bundle.tar.zst").digest == packed.digest


def test_a_manifest_that_could_not_be_read_again_is_not_written() -> None:
    snapshot = Snapshot(
        "hf", "org/model", "hf-cache", (FileEntry(RelativePath("a"), Blob.of(b""), '"quoted"'),)
    )
    out = io.BytesIO()
    with pytest.raises(FormatError):
        write_bundle(out, Manifest.of([snapshot]), lambda _: io.BytesIO(), lambda _: None)
    assert out.getvalue() == b""


def test_a_blob_in_the_tar_is_named_by_its_sha256() -> None:
    with tarfile.open(fileobj=io.BytesIO(content_of(bundle_of()))) as tar:
        for info in tar.getmembers()[1:]:
            content = tar.extractfile(info)
            assert content is not None
            assert info.name == f"blobs/sha256/{hashlib.sha256(content.read()).hexdigest()}"
