"""The folder that keeps downloads: shown, emptied, shared with caches, and no larger than fits."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from command import Ran, run, start
from loopback import Fault
from loopback_hub import LoopbackHub
from trees import write_cache

import bundler

NAME = "acme/tiny"
WEIGHTS = os.urandom(3_000_000)
FILES = {"merges.json": b"{}", "model.safetensors": WEIGHTS}


def pack(hub: LoopbackHub, home: Path, *arguments: object, **options: Any) -> Ran:
    """`bundler pack` of the model, with `-o bundle.tar.zst` unless another is named."""
    output = () if "-o" in arguments else ("-o", "bundle.tar.zst")
    env = {"HF_ENDPOINT": hub.url, **options.pop("env", {})}
    return run("pack", NAME, *arguments, *output, home=home, env=env, **options)


def usage(home: Path, *arguments: object, **options: Any) -> dict[str, Any]:
    """What `bundler store --json` tells."""
    done = run("store", "--json", *arguments, home=home, **options)
    assert (done.code, done.err) == (0, "")
    told: dict[str, Any] = json.loads(done.out)
    return told


def default_store(home: Path) -> Path:
    return home / ".cache" / "bundler"


def contents(folder: Path) -> list[str]:
    """Every file below a folder."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())


@pytest.fixture(autouse=True)
def _on_the_hub(hub: LoopbackHub) -> None:
    hub.add(NAME, FILES)


class TestShown:
    def test_what_a_pack_has_left(self, hub: LoopbackHub, tmp_path: Path) -> None:
        assert pack(hub, tmp_path).code == 0
        told = usage(tmp_path)
        assert (told["blobs"], told["unfinished"], told["unfinished_size"]) == (2, 0, 0)
        assert len(WEIGHTS) <= told["size"] < len(WEIGHTS) + 100_000
        assert told["folder"] == str(default_store(tmp_path))
        done = run("store", home=tmp_path)
        assert (done.code, done.err) == (0, "")
        assert f"in {default_store(tmp_path)}: 2 blobs, 3" in done.out
        assert "0 unfinished downloads, 0 B" in done.out

    def test_what_is_unfinished(self, hub: LoopbackHub, tmp_path: Path) -> None:
        hub.faults.append(Fault(r"model\.safetensors", cut=1_000_000))
        hub.faults.append(Fault(r"model\.safetensors", times=99, cut=0))
        assert pack(hub, tmp_path, "--retries", "1").code == 3
        told = usage(tmp_path)
        assert (told["blobs"], told["unfinished"]) == (1, 1)
        assert 1_000_000 <= told["unfinished_size"] < 1_100_000
        assert "1 unfinished download, 1" in run("store", home=tmp_path).out

    @pytest.mark.parametrize("clear", [(), ("--clear",)])
    def test_none_at_all_is_empty_and_is_not_made(
        self, clear: tuple[str, ...], tmp_path: Path
    ) -> None:
        told = usage(tmp_path, *clear)
        assert told == {
            "folder": str(default_store(tmp_path)),
            "blobs": 0, "size": 0, "unfinished": 0, "unfinished_size": 0,
        }  # fmt: skip
        assert list(tmp_path.iterdir()) == []

    def test_looking_changes_nothing(self, hub: LoopbackHub, tmp_path: Path) -> None:
        assert pack(hub, tmp_path).code == 0
        before = contents(default_store(tmp_path))
        usage(tmp_path)
        assert contents(default_store(tmp_path)) == before

    def test_a_store_in_use_can_be_looked_at(self, hub: LoopbackHub, tmp_path: Path) -> None:
        with in_use(hub, tmp_path):
            assert usage(tmp_path)["unfinished"] == 1

    def test_another_folder_is_named_by_option_or_variable(
        self, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        assert pack(hub, tmp_path, "--store", tmp_path / "one").code == 0
        env = {"BUNDLER_STORE": str(tmp_path / "two")}
        assert pack(hub, tmp_path, env=env).code == 0
        assert not default_store(tmp_path).exists()
        assert usage(tmp_path, "--store", tmp_path / "one")["blobs"] == 2
        assert usage(tmp_path, env=env)["folder"] == str(tmp_path / "two")
        assert usage(tmp_path, "--store", tmp_path / "one", "--clear", env=env)["blobs"] == 2
        assert usage(tmp_path, env=env)["blobs"] == 2

    def test_it_follows_the_folder_of_caches(self, hub: LoopbackHub, tmp_path: Path) -> None:
        env = {"XDG_CACHE_HOME": str(tmp_path / "caches")}
        assert pack(hub, tmp_path, env=env).code == 0
        assert usage(tmp_path, env=env)["folder"] == str(tmp_path / "caches" / "bundler")

    def test_a_file_is_no_store(self, hub: LoopbackHub, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"mine")
        for done in (
            run("store", "--store", "file", home=tmp_path),
            run("store", "--clear", "--store", "file", home=tmp_path),
            pack(hub, tmp_path, "--store", "file"),
        ):
            assert "Traceback" not in done.err
        assert done.code == 6
        assert (tmp_path / "file").read_bytes() == b"mine"


class TestPrivate:
    def test_others_cannot_look_in(self, hub: LoopbackHub, tmp_path: Path) -> None:
        """Into what is whole or not: it may be of a private model, whatever the umask says."""
        hub.faults.append(Fault("", server="cdn", times=99, status=404))
        assert pack(hub, tmp_path, "--retries", 1, umask=0).code == 3
        assert default_store(tmp_path).stat().st_mode & 0o777 == 0o700
        assert default_store(tmp_path).parent.stat().st_mode & 0o777 == 0o777

    def test_a_folder_that_was_there_keeps_its_mode(self, hub: LoopbackHub, tmp_path: Path) -> None:
        """Whoever shares a store makes it so."""
        (tmp_path / "shared").mkdir()
        (tmp_path / "shared").chmod(0o2775)
        assert pack(hub, tmp_path, "--store", "shared").code == 0
        assert (tmp_path / "shared").stat().st_mode & 0o7777 == 0o2775


@contextmanager
def in_use(hub: LoopbackHub, home: Path) -> Iterator[None]:
    """A pack is under way meanwhile: its download hangs, and its store is in use."""
    hub.faults.append(Fault(r"model\.safetensors", cut=2_000_000, stall=True))
    with start("pack", NAME, home=home, env={"HF_ENDPOINT": hub.url}) as process:
        try:
            while usage(home)["unfinished_size"] < 1_000_000:
                assert process.poll() is None
            yield
        finally:
            process.kill()


def test_a_store_below_the_current_folder_is_as_good(hub: LoopbackHub, tmp_path: Path) -> None:
    """What is prepared of a data set is prepared by a process that is somewhere else."""
    if find_spec("datasets") is None:
        pytest.skip("datasets is not installed")
    hub.add("acme/rows", {"rows.csv": b"a,b\n1,2\n" * 9}, kind="dataset")
    bundles = []
    for store in (tmp_path / "absolute", "relative"):
        done = pack(hub, tmp_path, "dataset:acme/rows", "--store", store)
        assert (done.code, done.err) == (0, "")
        bundles.append((tmp_path / "bundle.tar.zst").read_bytes())
    assert bundles[0] == bundles[1]


class TestCleared:
    def test_everything_is_dropped_and_fetched_again(
        self, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        assert pack(hub, tmp_path).code == 0
        before = (tmp_path / "bundle.tar.zst").read_bytes()
        done = run("store", "--clear", home=tmp_path)
        assert (done.code, done.err) == (0, "")
        assert f"dropped from {default_store(tmp_path)}: 2 blobs, 3" in done.out
        assert usage(tmp_path)["blobs"] == 0
        assert contents(default_store(tmp_path)) == ["lock"]
        hub.requests.clear()
        assert pack(hub, tmp_path).code == 0
        assert len([r for r in hub.requests if r.server == "cdn"]) == 1
        assert (tmp_path / "bundle.tar.zst").read_bytes() == before

    def test_what_is_unfinished_is_dropped_too(self, hub: LoopbackHub, tmp_path: Path) -> None:
        with in_use(hub, tmp_path):
            pass
        assert usage(tmp_path)["unfinished"] == 1
        assert run("store", "--clear", home=tmp_path).code == 0
        assert contents(default_store(tmp_path)) == ["lock"]

    def test_nothing_else_in_its_folder_is_touched(self, hub: LoopbackHub, tmp_path: Path) -> None:
        """Somebody may name a folder that has more in it."""
        assert pack(hub, tmp_path, "--store", tmp_path).code == 0
        (tmp_path / "mine").write_bytes(b"mine")
        assert run("store", "--clear", "--store", tmp_path, home=tmp_path).code == 0
        assert contents(tmp_path) == ["bundle.tar.zst", "lock", "mine"]

    def test_one_in_use_is_left_alone(self, hub: LoopbackHub, tmp_path: Path) -> None:
        with in_use(hub, tmp_path):
            before = contents(default_store(tmp_path))
            done = run("store", "--clear", home=tmp_path)
            assert (done.code, done.err.count("\n")) == (6, 1)
            assert "another bundler uses the store" in done.err
            assert contents(default_store(tmp_path)) == before

    def test_a_cache_that_shares_its_files_is_as_it_was(
        self, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        cache = tmp_path / ".cache" / "huggingface" / "hub"
        write_cache(cache, NAME, FILES)
        blobs = {path: path.stat() for path in cache.rglob("*") if path.is_file()}
        assert pack(hub, tmp_path).code == 0
        assert not [request for request in hub.requests if request.server == "cdn"]
        assert run("store", "--clear", home=tmp_path).code == 0
        for path, status in blobs.items():
            now = path.stat()
            assert (now.st_ino, now.st_mode, now.st_mtime_ns, now.st_nlink) == (
                status.st_ino, status.st_mode, status.st_mtime_ns, 1,
            )  # fmt: skip
        (weights,) = [path for path in blobs if path.name == "model.safetensors"]
        assert weights.read_bytes() == WEIGHTS


class TestSpace:
    def test_a_store_that_is_too_small_is_told_before_any_download(
        self, hub: LoopbackHub, tmp_path: Path, small_disk: Callable[[str], Path]
    ) -> None:
        done = pack(hub, tmp_path, "--store", small_disk("size=2m") / "store")
        assert (done.code, done.err.count("\n")) == (6, 1)
        assert re.search(r"has 2[\d.]* MB free, and 3 MB are to be downloaded", done.err)
        assert "--store" in done.err
        assert hub.sent("model.safetensors") == 0

    def test_what_is_there_already_is_not_counted(
        self, hub: LoopbackHub, tmp_path: Path, small_disk: Callable[[str], Path]
    ) -> None:
        store = small_disk("size=4m") / "store"
        assert pack(hub, tmp_path, "--store", store).code == 0
        assert shutil.disk_usage(store).free < len(WEIGHTS)
        assert pack(hub, tmp_path, "--store", store).code == 0

    def test_what_is_there_in_part_is_counted_in_part(
        self, hub: LoopbackHub, tmp_path: Path, small_disk: Callable[[str], Path]
    ) -> None:
        store = small_disk("size=4m") / "store"
        hub.faults.append(Fault(r"model\.safetensors", cut=2_000_000))
        hub.faults.append(Fault(r"model\.safetensors", times=99, cut=0))
        assert pack(hub, tmp_path, "--store", store, "--retries", "1").code == 3
        hub.faults.clear()
        assert shutil.disk_usage(store).free < len(WEIGHTS)
        assert pack(hub, tmp_path, "--store", store).code == 0

    def test_an_output_that_is_too_small_is_told_before_any_download(
        self, hub: LoopbackHub, tmp_path: Path, small_disk: Callable[[str], Path]
    ) -> None:
        disk = small_disk("size=1m")
        done = pack(hub, tmp_path, "-o", disk / "bundle.tar.zst")
        assert (done.code, done.err.count("\n")) == (6, 1)
        assert re.search(r"has 1[\d.]* MB free, and a bundle of at least 1\.5 MB", done.err)
        assert "--output" in done.err
        assert hub.sent("model.safetensors") == 0
        assert list(disk.iterdir()) == []

    def test_one_disk_for_both_must_have_space_for_both(
        self, hub: LoopbackHub, tmp_path: Path, small_disk: Callable[[str], Path]
    ) -> None:
        disk = small_disk("size=4m")
        done = pack(hub, tmp_path, "--store", disk / "store", "-o", disk / "bundle.tar.zst")
        assert (done.code, done.err.count("\n")) == (6, 1)
        assert "at least 1.5 MB, beside 3 MB of downloads" in done.err
        assert re.search(r"has 4[\d.]* MB free", done.err)
        assert hub.sent("model.safetensors") == 0
        assert not (disk / "bundle.tar.zst").exists()
        small_disk("size=8m")
        assert (
            pack(hub, tmp_path, "--store", disk / "store", "-o", disk / "bundle.tar.zst").code == 0
        )

    def test_what_a_cache_has_needs_no_space_in_the_store(
        self, hub: LoopbackHub, tmp_path: Path, small_disk: Callable[[str], Path]
    ) -> None:
        write_cache(tmp_path / ".cache" / "huggingface" / "hub", NAME, FILES)
        disk = small_disk("size=1m")
        assert pack(hub, tmp_path, "--store", disk / "store").code == 0
        assert not bundler.verify(tmp_path / "bundle.tar.zst").faults

    def test_a_link_is_followed_to_the_disk_that_the_bundle_goes_to(
        self, hub: LoopbackHub, tmp_path: Path, small_disk: Callable[[str], Path]
    ) -> None:
        (tmp_path / "link").symlink_to(small_disk("size=1m") / "bundle.tar.zst")
        done = pack(hub, tmp_path, "-o", "link")
        assert (done.code, hub.sent("model.safetensors")) == (6, 0)

    def test_a_stream_is_not_held_to_any_disk(
        self, hub: LoopbackHub, tmp_path: Path, small_disk: Callable[[str], Path]
    ) -> None:
        disk = small_disk("size=1m")
        done = pack(hub, tmp_path, "--store", tmp_path / "store", "-o", "-", cwd=disk)
        assert (done.code, len(done.raw) > len(WEIGHTS)) == (0, True)
