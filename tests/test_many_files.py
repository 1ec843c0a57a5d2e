"""Packing very many small files of this machine: read where they are, and nowhere kept."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from loopback_hub import LoopbackHub
from trees import write_cache

import bundler
from bundler.download import MOST_KEPT
from bundler.errors import BundlerError, RequestError
from bundler.progress import Meter, Silent

FILES = {f"{n % 10}/{n:04}.json": b'{"number": %d}' % n for n in range(MOST_KEPT + 1)}
CHANGED = "7/0007.json"


class AsItBegins(Silent):
    """Lets something happen when work of that name begins for the first time."""

    def __init__(self, what: str, happens: Callable[[], object]) -> None:
        self._what = what
        self._happens = [happens]

    def start(self, what: str, total: int, done: int = 0) -> Meter:
        if what == self._what and self._happens:
            self._happens.pop()()
        return super().start(what, total, done)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "many", FILES)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def pack(
    folder: Path, output: Path | io.BytesIO, happens: Callable[[], object] = lambda: None
) -> bundler.Packed:
    """Pack `folder`; something `happens` when all was read and nothing is written yet."""
    return bundler.pack(
        [f"file:{folder}"],
        output,
        store=folder.parent / "store",
        progress=AsItBegins("writing the bundle", happens),
    )


def unpacked(bundle: Path) -> dict[str, bytes]:
    root = bundle.parent / "unpacked"
    bundler.unpack(bundle, roots=bundler.find_roots({}, root=root), env=None)
    plain = root / "checkpoints" / "many"
    return {p.relative_to(plain).as_posix(): p.read_bytes() for p in plain.glob("*/*")}


def kept(store: Path) -> list[Path]:
    return [path for path in store.rglob("*") if path.is_file() and path.name != "lock"]


def test_nothing_is_copied_into_the_store(folder: Path, tmp_path: Path) -> None:
    first = pack(folder, tmp_path / "b")
    assert kept(tmp_path / "store") == []
    assert pack(folder, tmp_path / "again").digest == first.digest
    assert (tmp_path / "again").read_bytes() == (tmp_path / "b").read_bytes()
    assert unpacked(tmp_path / "b") == FILES


def test_a_few_are_kept(tmp_path: Path) -> None:
    """So that they can be packed again as they were: `pack --locked`."""
    few = dict(list(FILES.items())[:MOST_KEPT])
    pack(write(tmp_path / "few", few), tmp_path / "b")
    assert len([p for p in kept(tmp_path / "store") if p.parent.name == "sha256"]) == MOST_KEPT


def rewritten(path: Path) -> None:
    path.write_bytes(b"later")


def touched(path: Path) -> None:
    os.utime(path, ns=(0, 0))


def longer(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


class TestAFileThatChangesBeforeItIsWritten:
    @pytest.mark.parametrize("change", [rewritten, touched, longer])
    def test_it_is_named(
        self, change: Callable[[Path], None], folder: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "b").write_bytes(b"older")
        with pytest.raises(BundlerError) as error:
            pack(folder, tmp_path / "b", lambda: change(folder / CHANGED))
        said = f"{folder / CHANGED} was changed while it was read: pack again"
        assert (str(error.value), error.value.exit_code) == (said, 4)
        assert (tmp_path / "b").read_bytes() == b"older"
        later = (folder / CHANGED).read_bytes()
        assert pack(folder, tmp_path / "b").size
        assert unpacked(tmp_path / "b") == {**FILES, CHANGED: later}

    def test_so_it_is_for_a_pipe(self, folder: Path) -> None:
        with pytest.raises(BundlerError) as error:
            pack(folder, io.BytesIO(), lambda: rewritten(folder / CHANGED))
        said = f"{folder / CHANGED} was changed while it was read: pack again"
        assert (str(error.value), error.value.exit_code) == (said, 4)

    def test_one_that_is_gone_is_named(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(RequestError, match=f"cannot read {folder / CHANGED}: No such file"):
            pack(folder, tmp_path / "b", (folder / CHANGED).unlink)
        assert not (tmp_path / "b").exists()

    def test_what_nothing_but_its_content_tells_is_packed_as_it_is_then(
        self, folder: Path, tmp_path: Path
    ) -> None:
        def change() -> None:
            state = (folder / CHANGED).stat()
            (folder / CHANGED).write_bytes(FILES[CHANGED].upper())
            os.utime(folder / CHANGED, ns=(state.st_atime_ns, state.st_mtime_ns))

        pack(folder, tmp_path / "b", change)
        assert unpacked(tmp_path / "b") == {**FILES, CHANGED: FILES[CHANGED].upper()}


def test_a_copy_in_a_cache_that_changes_before_it_is_written_is_downloaded(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {**FILES, "model.safetensors": b"weights"}
    hub.add("acme/many", files)
    repository = write_cache(tmp_path / "home" / "hub", "acme/many", files)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    damaged = next(repository.glob(f"snapshots/*/{CHANGED}"))
    bundler.pack(
        ["acme/many"],
        tmp_path / "b",
        upstream=bundler.Upstream(endpoints=(hub.url,)),
        store=tmp_path / "store",
        progress=AsItBegins("writing the bundle", lambda: damaged.write_bytes(b"later")),
    )
    assert [r.path for r in hub.requests if "/resolve/" in r.path and CHANGED in r.path]
    assert not bundler.verify(tmp_path / "b").faults
    assert damaged.read_bytes() == b"later"
