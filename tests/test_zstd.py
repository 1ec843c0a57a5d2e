"""zstd by whatever is here of it: the same content, and the same refusals."""

from __future__ import annotations

import io
import random
import shutil
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

import pytest
import zstandard
from bundle_builder import Pipe, frame
from zstd_of_python import add_compression_zstd

from bundler.errors import DamagedError
from bundler.zstd import Reader, Zstd

NOISE = random.Random(0).randbytes(300_000)
CONTENT = [b"first", NOISE, bytes(100_000)]
STREAM = b"".join(map(frame, CONTENT))
SKIPPABLE = b"\x5e\x2a\x4d\x18\x03\0\0\0abc"
FAR = zstandard.ZstdCompressor(
    compression_params=zstandard.ZstdCompressionParameters(window_log=27, write_checksum=True)
)


def far_frame() -> bytes:
    """A frame whose decoder needs 128 MiB."""
    compressor = FAR.compressobj()
    return compressor.compress(NOISE) + compressor.flush()


@pytest.fixture(params=["package", "standard", "program"])
def zstd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Zstd:
    """Each of those that there are."""
    if request.param == "standard" and sys.version_info < (3, 14):
        add_compression_zstd(tmp_path / "packages")
        monkeypatch.syspath_prepend(tmp_path / "packages")
    if request.param == "program" and shutil.which("zstd") is None:
        pytest.skip("no zstd on this system")
    found: Zstd = import_module(f"bundler.zstd.{request.param}")
    return found


def all_of(reader: Reader, step: int = 1 << 20) -> bytes:
    """What it gives until its end."""
    try:
        return b"".join(iter(lambda: reader.read(step), b""))
    finally:
        reader.close()


@pytest.mark.parametrize("step", [1 << 20, 999])
def test_a_stream_is_read_across_frames(zstd: Zstd, step: int) -> None:
    source = Pipe(STREAM + SKIPPABLE + frame(b"last"))
    assert all_of(zstd.reader(source), step) == b"".join(CONTENT) + b"last"
    assert not source.closed


def test_no_read_gives_more_than_asked_for(zstd: Zstd) -> None:
    reader = zstd.reader(io.BytesIO(STREAM))
    assert [len(reader.read(5)), len(reader.read(3))] == [5, 3]
    reader.close()


WRONG: Mapping[str, Callable[[], bytes]] = {
    "a flipped byte": lambda: STREAM[:1000] + bytes([STREAM[1000] ^ 1]) + STREAM[1001:],
    "another checksum": lambda: frame(b"content")[:-4] + b"\0\0\0\0",
    "a window of 128 MiB": far_frame,
    "something else after it": lambda: STREAM + b"not a frame of anything",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_stream_that_is_wrong_is_refused(zstd: Zstd, wrong: str) -> None:
    with pytest.raises(DamagedError, match=r"^the compressed data is damaged \([^\n]+\)$"):
        all_of(zstd.reader(io.BytesIO(WRONG[wrong]())))


def test_a_stream_that_was_cut_short_never_looks_whole(zstd: Zstd) -> None:
    reader = zstd.reader(io.BytesIO(STREAM[:200_000]))
    found = b""
    try:
        while data := reader.read(1000):
            found += data
    except DamagedError:
        pass
    reader.close()
    assert len(found) < len(b"".join(CONTENT))
    assert b"".join(CONTENT).startswith(found)


def test_a_stream_that_cannot_be_read_is_no_fault_of_zstd(zstd: Zstd) -> None:
    class Broken:
        def read(self, size: int = -1, /) -> bytes:
            raise OSError("the stick was pulled")

    reader = zstd.reader(Broken())
    with pytest.raises(OSError, match="pulled"):
        reader.read(1)
    reader.close()


FRAMES: Mapping[str, tuple[Callable[[], bytes], int]] = {
    "another size than the table's": (lambda: frame(b"content"), 8),
    "no size": (lambda: zstandard.ZstdCompressor(write_content_size=False).compress(b"a"), 1),
    "more after it": (lambda: frame(b"content") + b"x", 7),
    "another one after it": (lambda: frame(b"content") * 2, 7),
    "a cut one": (lambda: frame(NOISE)[:-1], len(NOISE)),
    "another checksum": (lambda: frame(b"content")[:-4] + b"\0\0\0\0", 7),
    "none": (lambda: b"not a frame of anything", 7),
}


@pytest.mark.parametrize("wrong", FRAMES)
def test_a_frame_that_is_not_what_the_table_says_is_refused(zstd: Zstd, wrong: str) -> None:
    if zstd.decompressor is None:
        pytest.skip("it reads no single frames")
    make, size = FRAMES[wrong]
    decompress = zstd.decompressor()
    with pytest.raises(DamagedError, match=r"^[^\n]+$"):
        decompress(make(), size)
    assert decompress(frame(NOISE), len(NOISE)) == NOISE


@pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd on this system")
def test_the_program_is_gone_when_nobody_reads_any_more() -> None:
    program = import_module("bundler.zstd.program")
    reader = program.reader(io.BytesIO(frame(NOISE) * 9))
    assert len(reader.read(1000)) == 1000
    before = children()
    reader.close()
    assert len(before - children()) == 1


def children() -> set[str]:
    """The processes that this one has started, by proc(5)."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        found |= {*(task / "children").read_text().split()}
    return found
