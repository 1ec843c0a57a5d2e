"""Plain folders and files beside the caches, and the caches of torch.hub and insightface."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest
from bundle_builder import (
    COMMIT_HASH,
    assembled,
    blob,
    manifest_of,
    member,
    model_record,
)
from bundle_builder import END as END_OF_TAR
from command import Ran, run
from memory_source import Files
from trees import dangling_links, found_offline, stamps, tree, unpack_below

import bundler
from bundler.errors import TargetError
from bundler.sharing import SHARED_FROM, LinkMode, clone

Model = tuple[dict[str, Any], Files]

LARGE = random.Random(1).randbytes(SHARED_FROM)
OTHER_LARGE = random.Random(2).randbytes(3 * SHARED_FROM)
TINY = {
    "config.json": b'{"model_type": "tiny"}',
    "model.safetensors": LARGE,
    "just_below.safetensors": LARGE[1:],
    "sub/vocab.txt": b"one\ntwo\n",
    "sub/empty.txt": b"",
}
WEIGHTS = {"x-0123.pth": OTHER_LARGE}
PLAIN = {**{f"tiny/{path}": content for path, content in TINY.items()}, **WEIGHTS}
SHARED = {"tiny/model.safetensors", "x-0123.pth"}
CODE = {"hubconf.py": b"dependencies = []\n", "package/__init__.py": b""}
NEWER_CODE = {"hubconf.py": b"dependencies = ['torch']\n", "more.py": b"1\n"}
OLD, NEW = "a" * 40, "b" * 40
FACES = {"det_10g.onnx": b"detector", "genderage.onnx": b"age"}
MODES = [LinkMode.AUTO, LinkMode.HARDLINK, LinkMode.SYMLINK, LinkMode.COPY]
ALL_MODES = pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)


def model(files: Files = TINY, name: str = "org/tiny", **fields: object) -> Model:
    """A model of the Hub: what a manifest says, and the files."""
    return model_record(files, name=name, **fields), files


def checkpoint(files: Files = WEIGHTS) -> Model:
    """A file at an address."""
    fields = {"source": "https", "name": f"https://host.example/{next(iter(files))}"}
    return model_record(files, layout="torch-checkpoints", **fields, **NOT_OF_A_HUB), files


def code(files: Files = CODE, commit: str = OLD, ref: str = "main") -> Model:
    """The code of a repository of torch.hub."""
    fields = {"source": "torchhub", "name": "Owner/Repo", "layout": "torch-hub", "kind": None}
    return model_record(files, revision=ref, commit_hash=commit, **fields), files


def faces(files: Files = FACES) -> Model:
    """A pack of insightface."""
    fields = {"source": "insightface", "name": "buffalo_l", "layout": "insightface"}
    return model_record(files, **fields, **NOT_OF_A_HUB), files


def local(name: str, files: Files) -> Model:
    """A folder or a file that was packed from a disk."""
    return model_record(files, source="file", name=name, layout="flat", **NOT_OF_A_HUB), files


NOT_OF_A_HUB: Mapping[str, object] = {"kind": None, "revision": None, "commit_hash": None}


def written(path: Path, *models: Model) -> Path:
    """A bundle of `models` at `path`."""
    contents = list(dict.fromkeys(content for _, files in models for content in files.values()))
    contents.sort(key=lambda content: len(content) >= 1 << 20)
    manifest = manifest_of(*(record for record, _ in models))
    path.write_bytes(
        assembled([member("manifest.json", manifest), *map(blob, contents), END_OF_TAR])
    )
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a file at an address, and what is not put into plain folders."""
    path = tmp_path_factory.mktemp("bundle") / "bundle.tar.zst"
    table = model({"data.csv": b"a,b\n"}, name="org/table", kind="dataset")
    return written(path, model(), checkpoint(), table, code(), faces())


@pytest.fixture
def cannot_clone(tmp_path: Path) -> None:
    """For what is done where files cannot share blocks."""
    (tmp_path / "one").write_bytes(b"1")
    with open(tmp_path / "one", "rb") as source, open(tmp_path / "two", "wb") as target:
        cloned = clone(source, target)
    (tmp_path / "one").unlink()
    (tmp_path / "two").unlink()
    if cloned:
        pytest.skip("this file system can clone")


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, and what links there lead to; not what is under way."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".locks" not in path.parts
    }


def in_caches(root: Path) -> dict[tuple[int, int], Path]:
    """Every real file in the caches below `root`, by device and inode."""
    paths = [p for name in ("huggingface/hub", "torch") for p in (root / name).rglob("*")]
    states = {path: path.lstat() for path in paths if path.is_file() and not path.is_symlink()}
    return {(state.st_dev, state.st_ino): path for path, state in states.items()}


def shared_with_caches(root: Path) -> set[str]:
    """The plain files below `root` that are real, and the same files as in a cache."""
    plain, caches = root / "checkpoints", in_caches(root)
    return {
        path
        for path in files_below(plain)
        if not (plain / path).is_symlink()
        and ((plain / path).stat().st_dev, (plain / path).stat().st_ino) in caches
    }


def cached(root: Path, path: str = "config.json", name: str = "org--tiny") -> Path:
    """A file of a model in the cache."""
    return root / f"huggingface/hub/models--{name}/snapshots/{COMMIT_HASH}/{path}"


def unpack_plain(
    root: Path, bundle: Path, mode: LinkMode = LinkMode.AUTO, **options: Any
) -> bundler.Unpacked:
    """Unpack below `root`, plain folders included."""
    return unpack_below(root, bundle, checkpoints=True, link_mode=mode, **options)


def refused(tmp_path: Path, bundle: Path, *options: object, said: object = "") -> Ran:
    """Unpack below `tmp_path`/root, see that it is refused and changes nothing."""
    before, times = tree(tmp_path), stamps(tmp_path)
    ran = run("unpack", bundle, "--root", tmp_path / "root", *options, home=tmp_path)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (6, "", 1), ran.err
    assert str(said) in ran.err
    assert tree(tmp_path) == before
    assert stamps(tmp_path).keys() == times.keys()
    return ran


class TestFresh:
    """What stands in plain folders that were not there before."""

    def test_models_and_single_files_are_there_and_nothing_else(
        self, bundle: Path, tmp_path: Path
    ) -> None:
        plain = tmp_path / "plain"
        ran = run("unpack", bundle, "--root", "root", "--checkpoints", plain, home=tmp_path)
        assert (ran.code, ran.err) == (0, "")
        assert files_below(plain) == PLAIN
        kinds = {path: kind for path, (kind, *_) in tree(plain).items()}
        assert kinds == dict.fromkeys(PLAIN, "file") | {"tiny": "folder", "tiny/sub": "folder"}
        assert str(plain) in ran.out

    def test_without_the_option_there_are_none(self, bundle: Path, tmp_path: Path) -> None:
        assert run("unpack", bundle, "--root", "root", home=tmp_path).code == 0
        assert not list(tmp_path.rglob("checkpoints/x-0123.pth.*"))
        assert set(os.listdir(tmp_path / "root")) == {"huggingface", "torch", "insightface"}

    @ALL_MODES
    def test_the_content_is_the_same_by_every_link_mode(
        self, mode: LinkMode, bundle: Path, tmp_path: Path
    ) -> None:
        ran = run(
            "unpack", bundle, "--root", "root", "--checkpoints", "root/checkpoints",
            "--link-mode", mode.value, home=tmp_path,
        )  # fmt: skip
        assert (ran.code, ran.err) == (0, "")
        assert files_below(tmp_path / "root/checkpoints") == PLAIN
        assert dangling_links(tmp_path) == []
        assert found_offline(tmp_path / "root/huggingface", ("org/tiny", "main")).snapshots == [
            TINY
        ]

    @pytest.mark.parametrize("mode", [LinkMode.AUTO, LinkMode.HARDLINK], ids=["auto", "hardlink"])
    def test_large_files_are_those_of_the_cache_and_small_ones_are_not(
        self, mode: LinkMode, cannot_clone: None, bundle: Path, tmp_path: Path
    ) -> None:
        unpack_plain(tmp_path, bundle, mode)
        assert shared_with_caches(tmp_path) == SHARED

    def test_copies_share_nothing(self, bundle: Path, tmp_path: Path) -> None:
        unpack_plain(tmp_path, bundle, LinkMode.COPY)
        assert shared_with_caches(tmp_path) == set()
        plain = tmp_path / "checkpoints"
        states = [(plain / path).lstat() for path in PLAIN]
        assert {(state.st_nlink, state.st_mode & 0o170777) for state in states} == {(1, 0o100644)}

    def test_symbolic_links_are_relative_and_lead_into_the_cache(
        self, bundle: Path, tmp_path: Path
    ) -> None:
        unpack_plain(tmp_path, bundle, LinkMode.SYMLINK)
        plain = tmp_path / "checkpoints"
        links = {
            path: os.fsdecode(target)
            for path, (kind, target, _) in tree(plain).items()
            if kind == "link"
        }
        assert set(links) == SHARED
        assert not [target for target in links.values() if target.startswith("/")]
        real = {path: (plain / path).resolve() for path in links}
        assert set(real.values()) <= set(in_caches(tmp_path).values())
        shutil.move(tmp_path, moved := tmp_path.with_name(f"{tmp_path.name}-moved"))
        try:
            assert files_below(moved / "checkpoints") == PLAIN
        finally:
            shutil.move(moved, tmp_path)

    @pytest.mark.parametrize("linked", ["checkpoints", "huggingface", "torch"])
    def test_symbolic_links_lead_right_where_a_root_is_reached_through_a_link(
        self, linked: str, bundle: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "other/disk/far/away").mkdir(parents=True)
        (tmp_path / "root").mkdir()
        (tmp_path / "root" / linked).symlink_to(tmp_path / "other/disk/far/away")
        unpack_plain(tmp_path / "root", bundle, LinkMode.SYMLINK)
        assert dangling_links(tmp_path) == []
        assert files_below(tmp_path / "root/checkpoints") == PLAIN

    def test_where_files_cannot_be_cloned_the_advice_is_given_and_nothing_is_left(
        self, cannot_clone: None, bundle: Path, tmp_path: Path
    ) -> None:
        options = ["--checkpoints", tmp_path / "plain", "--link-mode", "clone"]
        assert "--link-mode" in refused(tmp_path, bundle, *options).err

    def test_a_link_mode_that_does_not_exist_is_told(self, bundle: Path, tmp_path: Path) -> None:
        ran = run("unpack", bundle, "--checkpoints", "x", "--link-mode", "teleport", home=tmp_path)
        assert (ran.code, len(ran.err.splitlines())) == (2, 1)
        assert tree(tmp_path) == {}

    def test_the_receipt_lists_the_files_of_all_roots(self, bundle: Path, tmp_path: Path) -> None:
        unpack_plain(tmp_path, bundle)
        (receipt,) = (tmp_path / "huggingface/.bundler/receipts").glob("*.json")
        roots = bundler.find_roots({}, root=tmp_path)
        names = ("hub", "torch", "datasets", "insightface", "checkpoints")
        folders = {roots.kept_as(name): roots.path(name) for name in names}
        models = json.loads(receipt.read_bytes())["models"]
        files = [file for model in models for file in model["files"]]
        listed = [folders[file["root"]] / file["path"] for file in files]
        real = [p for p in tmp_path.rglob("*") if p.is_file() and not p.is_symlink()]
        unlisted = {p.name for p in set(real) - set(listed)}
        assert sorted(set(listed)) == sorted(listed)
        assert [path for path in listed if not path.is_file()] == []
        assert unlisted == {receipt.name, "trusted_list", "main", f"{COMMIT_HASH}.json"}


class TestTwoModelsOfOneContent:
    """Content that is in several models."""

    TWIN: ClassVar = {**TINY, "config.json": b"{}"}

    @pytest.fixture
    def twins(self, tmp_path: Path) -> Path:
        return written(tmp_path / "twins", model(), model(self.TWIN, "org/twin"))

    @ALL_MODES
    def test_is_in_the_folder_of_each(self, mode: LinkMode, twins: Path, tmp_path: Path) -> None:
        unpack_plain(tmp_path / "root", twins, mode)
        plain = tmp_path / "root/checkpoints"
        assert files_below(plain / "tiny") == TINY
        assert files_below(plain / "twin") == self.TWIN

    def test_takes_no_space_of_its_own_in_either(
        self, cannot_clone: None, twins: Path, tmp_path: Path
    ) -> None:
        unpack_plain(tmp_path, twins, LinkMode.HARDLINK)
        large = {"tiny/model.safetensors", "twin/model.safetensors"}
        assert shared_with_caches(tmp_path) == large

    def test_the_space_that_is_told_is_the_space_that_is_taken(
        self, twins: Path, tmp_path: Path, small_disk: Callable[[str], Path]
    ) -> None:
        disk = small_disk("size=16m")
        told = unpack_plain(disk, twins).written_size
        real = {(s.st_ino, s.st_size) for s in (p.lstat() for p in disk.rglob("*.safetensors"))}
        blobs = {(s.st_ino, s.st_size) for s in (p.lstat() for p in disk.glob("*/hub/*/blobs/*"))}
        links = {(p.lstat().st_ino, p.lstat().st_size) for p in disk.rglob("*") if p.is_symlink()}
        taken = sum(size for _, size in (real | blobs) - links)
        assert abs(taken - told) < SHARED_FROM // 2

    def test_of_one_name_are_told_apart(self, tmp_path: Path) -> None:
        other = {"config.json": b"[]"}
        path = written(tmp_path / "x", model(), model(other, "other/tiny", commit_hash=OLD))
        unpack_plain(tmp_path / "root", path)
        assert set(os.listdir(tmp_path / "root/checkpoints")) == {"org--tiny", "other--tiny"}
        assert files_below(tmp_path / "root/checkpoints/other--tiny") == other


class TestAgain:
    """What is there already is left alone, or told of."""

    @ALL_MODES
    def test_what_is_complete_is_not_touched(
        self, mode: LinkMode, bundle: Path, tmp_path: Path
    ) -> None:
        unpack_plain(tmp_path, bundle, mode)
        before = stamps(tmp_path)
        again = unpack_plain(tmp_path, bundle, mode)
        assert stamps(tmp_path) == before
        assert again.written_size == 0

    @ALL_MODES
    def test_another_link_mode_changes_nothing(
        self, mode: LinkMode, bundle: Path, tmp_path: Path
    ) -> None:
        unpack_plain(tmp_path, bundle)
        before = stamps(tmp_path)
        unpack_plain(tmp_path, bundle, mode)
        assert stamps(tmp_path) == before

    @ALL_MODES
    def test_an_edit_in_place_leaves_the_cache_as_it_was(
        self, mode: LinkMode, bundle: Path, tmp_path: Path
    ) -> None:
        unpack_plain(tmp_path, bundle, mode)
        for path in set(PLAIN) - SHARED:
            with open(tmp_path / "checkpoints" / path, "r+b") as file:
                file.write(b"edited")
        assert found_offline(tmp_path / "huggingface", ("org/tiny", "main")).snapshots == [TINY]

    @ALL_MODES
    def test_an_edit_is_kept_and_told(self, mode: LinkMode, bundle: Path, tmp_path: Path) -> None:
        unpack_plain(tmp_path / "root", bundle, mode)
        edited = tmp_path / "root/checkpoints/tiny/config.json"
        edited.write_bytes(b"edited")
        (edited.parent / "tokenizer.json").unlink(missing_ok=True)
        options = ["--checkpoints", edited.parents[1], "--link-mode", mode.value]
        for _ in range(2):
            done = run("unpack", bundle, "--root", "root", *options, home=tmp_path)
            assert (done.code, done.err) == (0, "")
            assert f"{edited} was edited, and is left as it is" in done.out
        assert edited.read_bytes() == b"edited"
        assert files_below(edited.parents[1]) == {**PLAIN, "tiny/config.json": b"edited"}

    def test_an_edit_of_a_large_file_is_no_edit_but_damage(
        self, bundle: Path, tmp_path: Path
    ) -> None:
        unpack_plain(tmp_path / "root", bundle, LinkMode.COPY)
        damaged = tmp_path / "root/checkpoints/tiny/model.safetensors"
        damaged.write_bytes(b"damaged")
        refused(tmp_path, bundle, "--checkpoints", damaged.parents[1], said=damaged)

    def test_all_that_is_in_the_way_is_told_at_once(self, bundle: Path, tmp_path: Path) -> None:
        folder = tmp_path / "root/checkpoints/tiny"
        folder.mkdir(parents=True)
        for path in ("config.json", "model.safetensors"):
            (folder / path).write_bytes(b"somebody's own")
        said = refused(
            tmp_path, bundle, "--checkpoints", folder.parent, said=folder / "config.json"
        )
        assert "has for it (and 1 more so): move it away" in said.err

    def test_into_another_folder_takes_from_the_cache(
        self, cannot_clone: None, bundle: Path, tmp_path: Path
    ) -> None:
        unpack_plain(tmp_path, bundle)
        caches = stamps(tmp_path / "huggingface/hub"), stamps(tmp_path / "torch")
        shutil.move(tmp_path / "checkpoints", tmp_path / "first")
        again = unpack_plain(tmp_path, bundle)
        assert files_below(tmp_path / "checkpoints") == files_below(tmp_path / "first") == PLAIN
        assert shared_with_caches(tmp_path) == SHARED
        assert again.written_size == sum(len(PLAIN[path]) for path in set(PLAIN) - SHARED)
        assert (stamps(tmp_path / "huggingface/hub"), stamps(tmp_path / "torch")) == caches

    def test_a_file_that_was_removed_comes_back(self, bundle: Path, tmp_path: Path) -> None:
        unpack_plain(tmp_path, bundle)
        for path in ("tiny/sub/vocab.txt", "tiny/model.safetensors"):
            (tmp_path / "checkpoints" / path).unlink()
        unpack_plain(tmp_path, bundle)
        assert files_below(tmp_path / "checkpoints") == PLAIN

    def test_links_that_lead_nowhere_since_the_cache_is_gone_lead_right_again(
        self, bundle: Path, tmp_path: Path
    ) -> None:
        unpack_plain(tmp_path, bundle, LinkMode.SYMLINK)
        shutil.rmtree(tmp_path / "huggingface")
        shutil.rmtree(tmp_path / "torch")
        assert len(dangling_links(tmp_path)) == len(SHARED)
        unpack_plain(tmp_path, bundle, LinkMode.SYMLINK)
        assert files_below(tmp_path / "checkpoints") == PLAIN

    def test_plain_folders_can_follow_later(self, bundle: Path, tmp_path: Path) -> None:
        unpack_below(tmp_path, bundle)
        unpack_plain(tmp_path, bundle)
        assert files_below(tmp_path / "checkpoints") == PLAIN

    @pytest.mark.parametrize(
        "files",
        [
            {"config.json": b"of another"},
            {"config.json": TINY["config.json"], "model.safetensors": OTHER_LARGE},
        ],
        ids=["another configuration", "other weights"],
    )
    def test_another_model_of_the_same_name_is_refused(
        self, files: Files, bundle: Path, tmp_path: Path
    ) -> None:
        unpack_plain(tmp_path / "root", bundle)
        other = written(tmp_path / "other", model(files, "other/tiny", commit_hash=OLD))
        plain = tmp_path / "root/checkpoints"
        refused(tmp_path, other, "--checkpoints", plain, said=plain / "tiny")

    @pytest.mark.parametrize(
        "place", ["tiny", "tiny/config.json", "tiny/model.safetensors", "x-0123.pth"]
    )
    @pytest.mark.parametrize("kind", ["file", "folder", "link to a file", "link to nowhere"])
    def test_what_somebody_put_under_the_name_stays(
        self, kind: str, place: str, bundle: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / "root/checkpoints" / place
        path.parent.mkdir(parents=True)
        (tmp_path / "mine").write_bytes(b"mine")
        if kind == "file":
            path.write_bytes(b"mine")
        elif kind == "folder":
            (path / "sub" / "config.json").mkdir(parents=True)
            (path / "config.json").write_bytes(b"mine")
        else:
            path.symlink_to(tmp_path / ("mine" if kind == "link to a file" else "nowhere"))
        refused(tmp_path, bundle, "--checkpoints", tmp_path / "root/checkpoints", said=path)

    def test_other_files_in_a_models_folder_stay(self, bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "checkpoints/tiny").mkdir(parents=True)
        (tmp_path / "checkpoints/tiny/notes.txt").write_bytes(b"mine")
        unpack_plain(tmp_path, bundle)
        assert files_below(tmp_path / "checkpoints") == {**PLAIN, "tiny/notes.txt": b"mine"}


class TestOtherDisk:
    """Plain folders on another file system than the caches, or on one that is nearly full."""

    def test_auto_falls_back_to_copies(
        self, bundle: Path, tmp_path: Path, small_disk: Callable[[str], Path]
    ) -> None:
        disk = small_disk("size=16m")
        options = ["--root", tmp_path / "root", "--checkpoints", disk / "plain"]
        assert run("unpack", bundle, *options, home=tmp_path).code == 0
        assert files_below(disk / "plain") == PLAIN
        assert {kind for kind, *_ in tree(disk).values()} == {"file", "folder"}

    @pytest.mark.parametrize("mode", ["hardlink", "clone"])
    def test_what_cannot_be_done_is_told_and_nothing_is_left(
        self, mode: str, bundle: Path, tmp_path: Path, small_disk: Callable[[str], Path]
    ) -> None:
        disk = small_disk("size=16m")
        options = ["--checkpoints", disk / "plain", "--link-mode", mode]
        assert "--link-mode" in refused(tmp_path, bundle, *options).err

    def test_symbolic_links_lead_from_disk_to_disk(
        self, bundle: Path, tmp_path: Path, small_disk: Callable[[str], Path]
    ) -> None:
        disk = small_disk("size=2m")
        options = ["--root", tmp_path / "root", "--checkpoints", disk / "plain"]
        ran = run("unpack", bundle, *options, "--link-mode", "symlink", home=tmp_path)
        assert (ran.code, ran.err) == (0, "")
        assert files_below(disk / "plain") == PLAIN

    def test_only_what_takes_space_is_counted(
        self, bundle: Path, tmp_path: Path, small_disk: Callable[[str], Path]
    ) -> None:
        # The caches take 5 MiB of it; copies of what they hold would take as much again.
        disk = small_disk("size=8m")
        options = ["--root", disk / "root", "--checkpoints", disk / "plain"]
        before = tree(tmp_path)
        for command in (["--dry-run"], []):
            ran = run("unpack", bundle, *options, "--link-mode", "copy", *command, home=tmp_path)
            assert (ran.code, ran.out, len(ran.err.splitlines())) == (6, "", 1)
            assert "free" in ran.err
            assert tree(tmp_path) == before
        ran = run("unpack", bundle, *options, "--link-mode", "hardlink", home=tmp_path)
        assert (ran.code, ran.err) == (0, "")
        assert files_below(disk / "plain") == PLAIN

    def test_copies_count_on_the_disk_that_they_are_on(
        self, bundle: Path, tmp_path: Path, small_disk: Callable[[str], Path]
    ) -> None:
        disk = small_disk("size=3m")
        ran = refused(tmp_path, bundle, "--checkpoints", disk / "plain", said=disk / "plain")
        assert "free" in ran.err


class TestChoice:
    """What is to be unpacked, and where."""

    def test_a_dry_run_writes_nothing_and_tells_the_space(
        self, bundle: Path, tmp_path: Path
    ) -> None:
        told = {}
        for mode in MODES:
            command = ["unpack", bundle, "--root", tmp_path / mode.value, "--json"]
            plain = ["--checkpoints", tmp_path / mode.value / "plain", "--link-mode", mode.value]
            before = tree(tmp_path)
            plan = json.loads(run(*command, *plain, "--dry-run", home=tmp_path).out)
            assert tree(tmp_path) == before
            done = json.loads(run(*command, *plain, home=tmp_path).out)
            assert plan["written_size"] == done["written_size"]
            assert plan["roots"]["checkpoints"] == str(tmp_path / mode.value / "plain")
            told[mode] = plan["written_size"]
        large = sum(len(PLAIN[path]) for path in SHARED)
        assert told[LinkMode.COPY] - told[LinkMode.AUTO] == large
        assert told[LinkMode.AUTO] == told[LinkMode.HARDLINK] == told[LinkMode.SYMLINK]

    @pytest.mark.parametrize(
        ("spec", "names"),
        [
            ("org/tiny", {"tiny"}),
            ("https://host.example/x-0123.pth", {"x-0123.pth"}),
            ("dataset:org/table", None),
            ("insightface:buffalo_l", None),
        ],
        ids=["model", "file", "dataset", "faces"],
    )
    def test_only_what_is_named_is_put_there(
        self, spec: str, names: set[str] | None, bundle: Path, tmp_path: Path
    ) -> None:
        model_record_of_dataset = spec.startswith("dataset:")
        plain = tmp_path / "plain"
        path = bundle
        if model_record_of_dataset:
            table = model({"data.csv": b"a,b\n"}, "org/table", kind="dataset", source="dataset")
            path = written(tmp_path / "x", model(), table)
        options = ["--root", "root", "--checkpoints", plain, "--only", spec]
        ran = run("unpack", path, *options, home=tmp_path)
        assert (ran.code, ran.err) == (0, "")
        assert (set(os.listdir(plain)) if plain.exists() else None) == names

    @pytest.mark.parametrize(
        ("options", "place"), [([], "checkpoints"), (["--root", "root"], "root/checkpoints")]
    )
    def test_what_was_packed_from_a_disk_goes_there_without_being_asked(
        self, options: list[str], place: str, tmp_path: Path
    ) -> None:
        folder = {"config.json": b"{}", "sub/model.safetensors": LARGE}
        path = written(
            tmp_path / "x", local("mine", folder), local("mine.pth", {"mine.pth": b"state"})
        )
        ran = run("unpack", path, *options, home=tmp_path)
        assert (ran.code, ran.err) == (0, "")
        assert files_below(tmp_path / place) == {
            "mine/config.json": b"{}",
            "mine/sub/model.safetensors": LARGE,
            "mine.pth": b"state",
        }
        before = stamps(tmp_path / place)
        assert run("unpack", path, *options, home=tmp_path).code == 0
        assert stamps(tmp_path / place) == before

    def test_a_model_and_a_folder_of_one_name_are_told_apart(self, tmp_path: Path) -> None:
        path = written(tmp_path / "x", model(), local("tiny", {"config.json": b"mine"}))
        unpack_plain(tmp_path / "root", path)
        plain = tmp_path / "root/checkpoints"
        assert (plain / "tiny/config.json").read_bytes() == b"mine"
        assert files_below(plain / "org--tiny") == TINY


PROGRAM = """
import sys
from pathlib import Path
import bundler
from bundler.sharing import LinkMode
root = Path(sys.argv[2])
roots = bundler.find_roots({}, root=root)
mode = LinkMode(sys.argv[3])
bundler.unpack(sys.argv[1], roots=roots, env=None, jobs=1, checkpoints=True, link_mode=mode)
"""
CALLS = ("mkdir", "mkdirat", "fsync", "rename", "renameat", "linkat", "symlinkat", "unlinkat")
CALL = re.compile(r"\d+ +(\w+)\(")


def traced(bundle: Path, root: Path, mode: LinkMode, *options: str) -> int:
    """Run an unpack under strace; the exit code, negative for a signal."""
    program = [sys.executable, "-c", PROGRAM, str(bundle), str(root), mode.value]
    return subprocess.run(
        ["strace", "-f", "-qq", *options, *program],
        env={"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=False,
    ).returncode


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("mode", [LinkMode.AUTO, LinkMode.SYMLINK], ids=["auto", "symlink"])
def test_killed_at_many_points_nothing_is_half_there_and_running_again_completes(
    mode: LinkMode, tmp_path: Path
) -> None:
    bundle = written(tmp_path / "bundle", model(), checkpoint())
    log, whole = tmp_path / "log", tmp_path / "whole"
    assert traced(bundle, whole, mode, "-o", str(log), "-e", f"trace={','.join(CALLS)}") == 0
    made = [match[1] for match in map(CALL.match, log.read_text().splitlines()) if match]
    points = [(call, made[: at + 1].count(call)) for at, call in enumerate(made)]
    kinds = {path: kind for path, (kind, *_) in tree(whole).items()}

    def plain_after_kill(point: tuple[str, int]) -> bool:
        call, number = point
        root = tmp_path / f"{call}-{number}"
        inject = f"inject={call}:signal=SIGKILL:when={number}"
        code = traced(bundle, root, mode, "-o", os.devnull, "-e", f"trace={call}", "-e", inject)
        assert code == -signal.SIGKILL
        left = files_below(root / "checkpoints")
        assert left.items() <= PLAIN.items()
        folder = {path for path in PLAIN if path.startswith("tiny/")}
        assert folder & left.keys() in (set(), folder)
        unpack_plain(root, bundle, mode)
        assert files_below(root / "checkpoints") == PLAIN
        assert {path: kind for path, (kind, *_) in tree(root).items()} == kinds
        shutil.rmtree(root)
        return bool(left)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        visible = list(threads.map(plain_after_kill, points[::5] + points[-6:]))
    assert (visible.count(False) > 5, visible.count(True) > 1) == (True, True)


class TestTorchHub:
    """Code and checkpoints where torch.hub looks for them."""

    @pytest.fixture
    def old(self, tmp_path: Path) -> Path:
        return written(tmp_path / "old", code())

    @pytest.fixture
    def new(self, tmp_path: Path) -> Path:
        return written(tmp_path / "new", code(NEWER_CODE, NEW))

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "root/torch/hub"

    def test_the_ref_leads_to_the_code_of_its_commit(
        self, old: Path, tmp_path: Path, folder: Path
    ) -> None:
        unpack_below(tmp_path / "root", old)
        assert os.readlink(folder / "Owner_Repo_main") == f"Owner_Repo_{OLD}"
        assert files_below(folder / f"Owner_Repo_{OLD}") == CODE
        assert (folder / "trusted_list").read_bytes() == b""

    def test_a_branch_that_moved_moves_its_link_and_the_old_commit_stays(
        self, old: Path, new: Path, tmp_path: Path, folder: Path
    ) -> None:
        unpack_below(tmp_path / "root", old)
        before = stamps(folder / f"Owner_Repo_{OLD}")
        unpack_below(tmp_path / "root", new)
        assert os.readlink(folder / "Owner_Repo_main") == f"Owner_Repo_{NEW}"
        assert files_below(folder / f"Owner_Repo_{NEW}") == NEWER_CODE
        assert stamps(folder / f"Owner_Repo_{OLD}") == before

    def test_the_link_does_not_move_back_with_the_older_bundle(
        self, old: Path, new: Path, tmp_path: Path, folder: Path
    ) -> None:
        for bundle in (old, new, old):
            unpack_below(tmp_path / "root", bundle)
        assert os.readlink(folder / "Owner_Repo_main") == f"Owner_Repo_{NEW}"

    def test_two_refs_of_one_repository_stand_side_by_side(
        self, tmp_path: Path, folder: Path
    ) -> None:
        both = written(tmp_path / "both", code(), code(NEWER_CODE, NEW, "release/2.0"))
        unpack_below(tmp_path / "root", both)
        assert files_below(folder / "Owner_Repo_main/") == CODE
        assert files_below(folder / "Owner_Repo_release_2.0/") == NEWER_CODE

    def test_a_folder_of_other_content_is_left_alone(
        self, old: Path, tmp_path: Path, folder: Path
    ) -> None:
        (folder / "Owner_Repo_main").mkdir(parents=True)
        (folder / "Owner_Repo_main/hubconf.py").write_bytes(b"of another time\n")
        refused(tmp_path, old, said=folder / "Owner_Repo_main/hubconf.py")

    @pytest.mark.parametrize("more", [{}, {"__pycache__/hubconf.pyc": b"compiled"}])
    def test_a_folder_of_the_same_content_is_as_good(
        self, more: Files, old: Path, tmp_path: Path, folder: Path
    ) -> None:
        for path, content in {**CODE, **more}.items():
            place = folder / "Owner_Repo_main" / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        before = stamps(folder / "Owner_Repo_main")
        unpack_below(tmp_path / "root", old)
        assert stamps(folder / "Owner_Repo_main") == before
        assert not (folder / "Owner_Repo_main").is_symlink()

    def test_code_that_was_edited_is_left_alone(
        self, old: Path, tmp_path: Path, folder: Path
    ) -> None:
        unpack_below(tmp_path / "root", old)
        (folder / "Owner_Repo_main/hubconf.py").write_bytes(b"edited")
        refused(tmp_path, old, said=folder / f"Owner_Repo_{OLD}/hubconf.py")

    def test_a_link_to_a_folder_elsewhere_is_left_alone(
        self, old: Path, tmp_path: Path, folder: Path
    ) -> None:
        (tmp_path / "mine").mkdir()
        folder.mkdir(parents=True)
        (folder / "Owner_Repo_main").symlink_to(tmp_path / "mine")
        refused(tmp_path, old, said=folder / "Owner_Repo_main")

    def test_who_is_trusted_stays_trusted(self, old: Path, tmp_path: Path, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "trusted_list").write_bytes(b"some_one\n")
        before = stamps(folder)["trusted_list"]
        unpack_below(tmp_path / "root", old)
        assert stamps(folder)["trusted_list"] == before

    def test_the_second_unpack_changes_nothing(self, old: Path, tmp_path: Path) -> None:
        unpack_below(tmp_path / "root", old)
        before = stamps(tmp_path / "root")
        unpack_below(tmp_path / "root", old)
        assert stamps(tmp_path / "root") == before

    def test_without_links_the_ref_is_a_folder(
        self, old: Path, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_HUB_DISABLE_SYMLINKS", "1")
        unpack_below(tmp_path / "root", old)
        assert set(os.listdir(folder)) == {"Owner_Repo_main", "trusted_list"}
        assert files_below(folder / "Owner_Repo_main") == CODE

    def test_without_links_a_branch_that_moved_is_told(
        self, old: Path, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_HUB_DISABLE_SYMLINKS", "1")
        unpack_below(tmp_path / "root", old)
        before = tree(tmp_path)
        with pytest.raises(TargetError, match=r"Owner_Repo_main/hubconf\.py"):
            unpack_below(tmp_path / "root", new)
        assert tree(tmp_path) == before

    @pytest.mark.parametrize("content", [b"of another", OTHER_LARGE[::-1]], ids=["short", "long"])
    def test_a_checkpoint_of_other_content_is_left_alone(
        self, content: bytes, tmp_path: Path, folder: Path
    ) -> None:
        path = written(tmp_path / "x", checkpoint())
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints/x-0123.pth").write_bytes(content)
        refused(tmp_path, path, said=folder / "checkpoints/x-0123.pth")

    def test_a_checkpoint_of_the_same_content_is_as_good(
        self, tmp_path: Path, folder: Path
    ) -> None:
        path = written(tmp_path / "x", checkpoint())
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints/x-0123.pth").write_bytes(OTHER_LARGE)
        before = stamps(folder)
        assert unpack_below(tmp_path / "root", path).written_size == 0
        assert stamps(folder) == before


class TestInsightFace:
    """Packs where insightface looks for them; it never downloads into a folder that exists."""

    def test_a_folder_that_is_empty_is_filled(self, tmp_path: Path) -> None:
        folder = tmp_path / "root/insightface/models/buffalo_l"
        folder.mkdir(parents=True)
        unpack_below(tmp_path / "root", written(tmp_path / "x", faces()))
        assert files_below(folder) == FACES

    def test_other_files_and_packs_stay(self, tmp_path: Path) -> None:
        models = tmp_path / "root/insightface/models"
        (models / "buffalo_l").mkdir(parents=True)
        (models / "antelopev2").mkdir()
        (models / "buffalo_l.zip").write_bytes(b"the archive")
        (models / "buffalo_l/more.onnx").write_bytes(b"more")
        unpack_below(tmp_path / "root", written(tmp_path / "x", faces()))
        assert files_below(models) == {
            "buffalo_l.zip": b"the archive",
            "buffalo_l/more.onnx": b"more",
            **{f"buffalo_l/{path}": content for path, content in FACES.items()},
        }
        assert (models / "antelopev2").is_dir()

    def test_a_model_of_other_content_is_left_alone(self, tmp_path: Path) -> None:
        place = tmp_path / "root/insightface/models/buffalo_l/det_10g.onnx"
        place.parent.mkdir(parents=True)
        place.write_bytes(b"another")
        refused(tmp_path, written(tmp_path / "x", faces()), said=place)

    def test_where_it_is_to_be_named_is_told(self, tmp_path: Path) -> None:
        path = written(tmp_path / "x", faces())
        ran = run("unpack", path, "--root", tmp_path / "root", home=tmp_path)
        assert f'FaceAnalysis(name="buffalo_l", root="{tmp_path / "root/insightface"}")' in ran.out
        ran = run("unpack", path, home=tmp_path)
        assert (ran.code, "FaceAnalysis" in ran.out) == (0, False)
        assert files_below(tmp_path / ".insightface/models/buffalo_l") == FACES
