"""What `bundler remove` takes out, and what it leaves: all that it did not bring."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from bundle_builder import COMMIT_HASH
from command import run
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_source import Files, commit_hash, make_bundle
from test_checkpoints import (
    CODE,
    LARGE,
    NEWER_CODE,
    TINY,
    checkpoint,
    code,
    faces,
    files_below,
    local,
    model,
    unpack_plain,
    written,
)
from test_checkpoints import (
    NEW as NEW_COMMIT,
)
from test_place import CALLS, points
from trees import dangling_links, etag, found_offline, stamps, tree, unpack_below, write_cache

import bundler
from bundler.digest import Digest
from bundler.errors import RequestError, TargetError
from bundler.sharing import LinkMode

CONFIG = b'{"model_type": "tiny"}'
OLD = {"config.json": CONFIG, "model.safetensors": b"old weights", "old/only.txt": b"of the old"}
NEW = {"config.json": CONFIG, "model.safetensors": b"new weights", "new/only.txt": b"of the new"}
OTHER = {"config.json": CONFIG, "model.safetensors": b"another"}
ROOTS = ("huggingface/hub", "huggingface/datasets", "torch", "insightface", "checkpoints")
TABLES = {"org___table/default/0.0.0/abc/dataset_info.json": b"{}"}
MODES = [LinkMode.AUTO, LinkMode.HARDLINK, LinkMode.SYMLINK, LinkMode.COPY]


def tables() -> tuple[dict[str, Any], Files]:
    """A prepared dataset."""
    record, files = local("org/table", TABLES)
    return {**record, "source": "dataset", "layout": "hf-datasets"}, files


def with_roots(root: Path) -> Path:
    """Make the folders that libraries look into; gives `root`."""
    for name in ROOTS:
        (root / name).mkdir(parents=True)
    return root


def removed(root: Path, *names: str) -> bundler.Removal:
    """Remove what is installed below `root`."""
    return bundler.remove(names, roots=bundler.find_roots({}, root=root))


def installed(root: Path) -> list[str]:
    """The specs of what is installed below `root`."""
    inventory = bundler.installed(bundler.find_roots({}, root=root))
    assert [standing.missing for standing in inventory.standings if not standing.is_whole] == []
    return [standing.model.spec for standing in inventory.standings]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of all kinds of models, some of the same content."""
    path = tmp_path_factory.mktemp("bundle") / "bundle.tar.zst"
    twin = model({"model.safetensors": LARGE, "config.json": b"{}"}, "org/twin", aliases=["twin"])
    return written(
        path, model(), twin, checkpoint(), code(), faces(), tables(), local("notes", {"a": b"a"})
    )


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two commits of org/tiny, one of them asked for as tiny, and another model beside each."""
    folder = tmp_path_factory.mktemp("bundles")
    aliases = {"tiny": "org/tiny"}
    make_bundle(folder / "old", {"org/tiny": OLD, "org/other": OTHER})
    make_bundle(
        folder / "new",
        {"org/tiny": NEW, "org/other": OTHER},
        asked=("tiny", "org/other"),
        aliases=aliases,
    )
    return {"old": folder / "old", "new": folder / "new"}


class TestAllOfIt:
    """Once everything is removed, the roots are as they were before."""

    @pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
    def test_from_roots_that_were_empty(
        self, mode: LinkMode, everything: Path, tmp_path: Path
    ) -> None:
        before = tree(with_roots(tmp_path))
        unpack_plain(tmp_path, everything, mode)
        specs = installed(tmp_path)
        assert len(specs) == 7
        for spec in specs:
            removed(tmp_path, spec)
            assert dangling_links(tmp_path) == []
        assert tree(tmp_path) == before

    @pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
    def test_from_caches_that_others_filled(
        self, links: bool, everything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not links:
            monkeypatch.setenv("HF_HUB_DISABLE_SYMLINKS", "1")
        hub = with_roots(tmp_path) / "huggingface/hub"
        write_cache(hub, "org/tiny", OLD, links=links)
        write_cache(hub, "org/foreign", OTHER, links=links)
        if not links:
            for repository in hub.iterdir():
                (repository / "blobs").rmdir()
        mine = {
            "torch/hub/checkpoints/mine.pth": b"1",
            "torch/hub/trusted_list": b"mine\n",
            "insightface/models/mine/x.onnx": b"2",
            "insightface/models/buffalo_l.zip": b"PK",
            "checkpoints/mine/config.json": b"3",
        }
        for path, content in mine.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes(content)
        before, times = tree(tmp_path), stamps(tmp_path)
        bundle = unpack_plain(tmp_path, everything).digest
        assert removed(tmp_path, str(bundle)).kept == {}
        assert tree(tmp_path) == before
        files = [p for p, (kind, *_) in before.items() if kind == "file" and "/refs/" not in p]
        after = stamps(tmp_path)
        assert {path: after[path] for path in files} == {path: times[path] for path in files}

    def test_what_was_found_stays_with_its_ref_and_its_listing(
        self, bundles: Mapping[str, Path], tmp_path: Path
    ) -> None:
        repository = write_cache(with_roots(tmp_path) / "huggingface/hub", "org/tiny", NEW)
        listing = repository / "trees" / f"{commit_hash(NEW)}.json"
        listing.parent.mkdir()
        entry = {"size": 22, "blob_id": "0" * 40}
        listing.write_text(json.dumps({"files": {"config.json": entry}, "format_version": 1}))
        before = tree(tmp_path)
        for _ in range(2):
            unpack_below(tmp_path, bundles["new"])
        removed(tmp_path, "tiny", "org/other")
        assert tree(tmp_path) == before

    def test_what_was_incomplete_is_so_again(
        self, bundles: Mapping[str, Path], tmp_path: Path
    ) -> None:
        part = {path: NEW[path] for path in ("config.json", "new/only.txt")}
        hub = with_roots(tmp_path) / "huggingface/hub"
        repository = write_cache(hub, "org/tiny", part)
        (repository / "snapshots" / commit_hash(part)).rename(
            repository / "snapshots" / commit_hash(NEW)
        )
        (repository / "refs/main").write_text(commit_hash(NEW))
        before = tree(tmp_path)
        unpack_below(tmp_path, bundles["new"])
        removed(tmp_path, "tiny", "org/other")
        assert tree(tmp_path) == before


class TestWhatOthersUse:
    """What a model that stays needs, stays."""

    def test_two_bundles_of_the_same_model(
        self, bundles: Mapping[str, Path], tmp_path: Path
    ) -> None:
        digests = {name: unpack_below(tmp_path, path).digest for name, path in bundles.items()}
        removed(tmp_path, digests["old"].hex[:8])
        assert installed(tmp_path) == ["org/other", "tiny"]
        home = tmp_path / "huggingface"
        found = found_offline(home, ("org/other", "main"), ("org/tiny", "main"), ("tiny", "main"))
        assert found.snapshots == [OTHER, NEW, NEW]
        assert found.warnings == []
        assert not list(home.rglob(commit_hash(OLD)))

    def test_a_ref_goes_back_to_the_commit_that_stays(
        self, bundles: Mapping[str, Path], tmp_path: Path
    ) -> None:
        unpack_below(tmp_path / "one", bundles["old"])
        digests = [unpack_below(tmp_path / "two", bundles[name]).digest for name in ("old", "new")]
        removed(tmp_path / "two", str(digests[1]))
        assert tree(tmp_path / "two/huggingface/hub") == tree(tmp_path / "one/huggingface/hub")
        assert found_offline(tmp_path / "two/huggingface", ("org/tiny", "main")).snapshots == [OLD]

    def test_another_revision_of_the_same_commit(self, tmp_path: Path) -> None:
        make_bundle(tmp_path / "b", {"org/tiny": OLD}, asked=("org/tiny", "org/tiny@v1.0"))
        unpack_below(tmp_path / "root", tmp_path / "b")
        removal = removed(tmp_path / "root", "org/tiny@main")
        home = tmp_path / "root/huggingface"
        assert removal.removed == 1
        assert found_offline(home, ("org/tiny", "v1.0")).snapshots == [OLD]
        assert os.listdir(home / "hub/models--org--tiny/refs") == ["v1.0"]

    def test_a_part_of_the_same_snapshot(self, tmp_path: Path) -> None:
        part = {"config.json": OLD["config.json"]}
        for name, files in (("part", part), ("whole", OLD)):
            record, content = model(files, name="org/tiny", commit_hash=COMMIT_HASH)
            written(tmp_path / name, (record, content))
            unpack_below(tmp_path / "root", tmp_path / name)
        whole = bundler.inspect(tmp_path / "whole").digest
        removed(tmp_path / "root", str(whole))
        found = found_offline(tmp_path / "root/huggingface", ("org/tiny", "main"))
        assert found.snapshots == [part]
        unpack_below(tmp_path / "alone", tmp_path / "part")
        hub = "huggingface/hub"
        assert tree(tmp_path / "root" / hub) == tree(tmp_path / "alone" / hub)

    def test_a_plain_file_that_is_a_link_into_the_cache_of_another_model(
        self, everything: Path, tmp_path: Path
    ) -> None:
        for first, second in (("org/tiny", "org/twin"), ("org/twin", "org/tiny")):
            root = tmp_path / first
            unpack_plain(root, everything, LinkMode.SYMLINK)
            removed(root, first)
            name = second.partition("/")[2]
            weights = root / "checkpoints" / name / "model.safetensors"
            assert weights.read_bytes() == LARGE
            assert dangling_links(root) == []
            removed(root, second)
            assert not list((root / "huggingface/hub").iterdir())

    def test_code_at_another_commit(self, tmp_path: Path) -> None:
        written(tmp_path / "old", code())
        written(tmp_path / "new", code(NEWER_CODE, NEW_COMMIT), checkpoint())
        for name in ("old", "new"):
            unpack_below(tmp_path / "root", tmp_path / name)
        hub = tmp_path / "root/torch/hub"
        removed(tmp_path / "root", str(bundler.inspect(tmp_path / "new").digest))
        assert files_below(hub / "Owner_Repo_main") == CODE
        assert (hub / "trusted_list").exists()
        removed(tmp_path / "root", "torchhub:Owner/Repo")
        assert tree(tmp_path / "root/torch") == {}

    def test_what_a_model_that_stays_needs_is_refused(self, tmp_path: Path) -> None:
        needing = model({"a.txt": b"a"}, "org/needing", needs=["hf:org/tiny"])
        written(tmp_path / "b", model(), needing)
        unpack_below(tmp_path / "root", tmp_path / "b")
        before = tree(tmp_path)
        with pytest.raises(RequestError, match=r"hf:org/tiny is needed by org/needing"):
            removed(tmp_path / "root", "org/tiny")
        assert tree(tmp_path) == before
        removed(tmp_path / "root", "org/tiny", "org/needing")
        assert installed(tmp_path / "root") == []


class TestWhatIsForeign:
    """What came from elsewhere, before or later, or was changed, stays."""

    def test_a_later_download_that_shares_a_blob(
        self, bundles: Mapping[str, Path], tmp_path: Path
    ) -> None:
        unpack_below(tmp_path, bundles["new"])
        write_cache(tmp_path / "huggingface/hub", "tiny", OLD, revision="v1.0")
        removal = removed(tmp_path, "tiny")
        shared = etag("config.json", CONFIG)
        assert [path.name for path in removal.kept] == [shared]
        home = tmp_path / "huggingface"
        assert found_offline(home, ("tiny", "v1.0")).snapshots == [OLD]
        blobs = {etag(path, content) for path, content in OLD.items()}
        assert set(os.listdir(home / "hub/models--tiny/blobs")) == blobs

    def test_a_later_download_into_the_same_snapshot(
        self, bundles: Mapping[str, Path], tmp_path: Path
    ) -> None:
        unpack_below(tmp_path, bundles["new"])
        repository = tmp_path / "huggingface/hub/models--tiny"
        extra = repository / "snapshots" / commit_hash(NEW) / "extra.txt"
        (repository / "blobs/extra").write_bytes(b"extra")
        extra.symlink_to("../../blobs/extra")
        removed(tmp_path, "tiny")
        found = found_offline(tmp_path / "huggingface", ("tiny", "main"))
        assert found.snapshots == [{"extra.txt": b"extra"}]

    def test_a_ref_that_somebody_moved(self, bundles: Mapping[str, Path], tmp_path: Path) -> None:
        unpack_below(tmp_path, bundles["new"])
        write_cache(tmp_path / "huggingface/hub", "tiny", OLD)
        removed(tmp_path, "tiny")
        assert found_offline(tmp_path / "huggingface", ("tiny", "main")).snapshots == [OLD]

    @pytest.mark.parametrize(
        "path",
        [
            f"huggingface/hub/models--org--tiny/blobs/{Digest.of(TINY['sub/vocab.txt']).hex}",
            "checkpoints/tiny/config.json",
            "checkpoints/x-0123.pth",
            "torch/hub/checkpoints/x-0123.pth",
            "insightface/models/buffalo_l/det_10g.onnx",
            f"torch/hub/Owner_Repo_{'a' * 40}/hubconf.py",
        ],
    )
    @pytest.mark.parametrize("same_size", [True, False], ids=["same size", "other size"])
    def test_a_file_that_was_changed_is_left_and_told(
        self, path: str, same_size: bool, everything: Path, tmp_path: Path
    ) -> None:
        unpack_plain(tmp_path, everything, LinkMode.COPY)
        file = tmp_path / path
        content = b"x" * (file.stat().st_size + 1 - same_size)
        file.write_bytes(content)
        kept = removed(tmp_path, *installed_specs(tmp_path)).kept
        assert list(kept) == [file]
        left = {tmp_path / p for p, (kind, *_) in tree(tmp_path).items() if kind != "folder"}
        assert left == {file, tmp_path / "torch/hub/trusted_list"} or left == {file}
        assert file.read_bytes() == content

    def test_a_file_of_another_time_but_the_same_content_goes(
        self, everything: Path, tmp_path: Path
    ) -> None:
        before = tree(with_roots(tmp_path / "root"))
        unpack_plain(tmp_path / "root", everything)
        shutil.copytree(tmp_path / "root", tmp_path / "copy", symlinks=True)
        shutil.rmtree(tmp_path / "root")
        (tmp_path / "copy").rename(tmp_path / "root")
        for path in (tmp_path / "root").rglob("*.*"):
            os.utime(path, ns=(1, 1))
        removed(tmp_path / "root", *installed(tmp_path / "root"))
        assert tree(tmp_path / "root") == before

    def test_what_python_compiled_goes_and_files_beside_stay(self, tmp_path: Path) -> None:
        written(tmp_path / "b", code())
        unpack_below(tmp_path / "root", tmp_path / "b")
        folder = tmp_path / "root/torch/hub" / f"Owner_Repo_{'a' * 40}"
        (folder / "__pycache__").mkdir()
        (folder / "__pycache__/hubconf.cpython-312.pyc").write_bytes(b"compiled")
        (folder / "__pycache__/mine.cpython-312.pyc").write_bytes(b"mine")
        (folder / "mine.txt").write_bytes(b"mine")
        removed(tmp_path / "root", "torchhub:Owner/Repo")
        assert files_below(folder) == {
            "mine.txt": b"mine",
            "__pycache__/mine.cpython-312.pyc": b"mine",
        }

    @pytest.mark.parametrize("above", ["models--org--other", "models--org--other/blobs"])
    def test_what_is_behind_a_link_is_not_followed(
        self, above: str, bundles: Mapping[str, Path], tmp_path: Path
    ) -> None:
        unpack_below(tmp_path, bundles["new"])
        folder = tmp_path / "huggingface/hub" / above
        shutil.move(folder, tmp_path / "moved")
        folder.symlink_to(tmp_path / "moved")
        before = tree(tmp_path / "moved")
        kept = removed(tmp_path, "org/other").kept
        assert set(kept.values()) == {"a folder above it is a link now"}
        assert tree(tmp_path / "moved") == before


def installed_specs(root: Path) -> list[str]:
    """The same as `installed`, whether whole or not."""
    standings = bundler.installed(bundler.find_roots({}, root=root)).standings
    return [standing.model.spec for standing in standings]


class TestNames:
    """By id, by the beginning of one, and by every word that unpack takes."""

    @pytest.mark.parametrize(
        "form", [str, lambda digest: digest.hex, lambda digest: digest.hex[:8]]
    )
    def test_a_bundle_by_its_id(
        self, form: Callable[[bundler.Digest], str], bundles: Mapping[str, Path], tmp_path: Path
    ) -> None:
        unpack_below(tmp_path, bundles["old"])
        removal = removed(tmp_path, form(unpack_below(tmp_path, bundles["new"]).digest))
        assert [model.spec for _, model in removal.models] == ["org/other", "tiny"]
        assert installed(tmp_path) == ["org/other", "org/tiny"]

    @pytest.mark.parametrize(
        "name",
        [
            "tiny", "hf:tiny", "org/tiny", "tiny@main", f"org/tiny@{commit_hash(NEW)}",
            "hf:org/tiny@main",
        ],
    )  # fmt: skip
    def test_a_model_by_every_word(
        self, name: str, bundles: Mapping[str, Path], tmp_path: Path
    ) -> None:
        unpack_below(tmp_path, bundles["new"])
        ran = run("remove", name, "--root", tmp_path, home=tmp_path)
        assert (ran.code, ran.err) == (0, "")
        assert installed(tmp_path) == ["org/other"]

    def test_a_model_that_two_bundles_brought_goes_with_both(
        self, bundles: Mapping[str, Path], tmp_path: Path
    ) -> None:
        for path in bundles.values():
            unpack_below(tmp_path, path)
        removed(tmp_path, "org/other")
        assert installed(tmp_path) == ["org/tiny", "tiny"] or installed(tmp_path) == [
            "tiny",
            "org/tiny",
        ]
        assert not (tmp_path / "huggingface/hub/models--org--other").exists()

    def test_unknown_names_are_told_with_the_nearest_and_nothing_is_removed(
        self, bundles: Mapping[str, Path], tmp_path: Path
    ) -> None:
        unpack_below(tmp_path, bundles["new"])
        before = tree(tmp_path)
        names = ["org/othr", f"sha256:{'0' * 64}", "0" * 8, "sha256:12", "org/other"]
        ran = run("remove", *names, "--root", tmp_path, home=tmp_path)
        assert (ran.code, ran.out) == (2, "")
        assert len(ran.err.splitlines()) == 4
        assert "org/othr is not installed (did you mean org/other" in ran.err
        assert tree(tmp_path) == before

    def test_where_nothing_is_installed_it_says_so(self, tmp_path: Path) -> None:
        ran = run("remove", "org/tiny", "--root", tmp_path / "root", home=tmp_path)
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
        assert tree(tmp_path) == {}


class TestTold:
    """What the command tells, before and after."""

    def test_a_dry_run_tells_what_is_then_done_and_writes_nothing(
        self, everything: Path, tmp_path: Path
    ) -> None:
        unpack_plain(tmp_path / "root", everything)
        command = ["remove", "org/tiny", "org/twin", "--root", tmp_path / "root", "--json"]
        before = tree(tmp_path), stamps(tmp_path)
        plan = run(*command, "--dry-run", home=tmp_path)
        assert (plan.code, plan.err) == (0, "")
        assert (tree(tmp_path), stamps(tmp_path)) == before
        done = run(*command, home=tmp_path)
        assert json.loads(plan.out) == json.loads(done.out)
        assert {model["spec"] for model in json.loads(done.out)["models"]} == {
            "org/tiny",
            "org/twin",
        }

    def test_space_that_is_shared_counts_once_its_last_name_goes(self, tmp_path: Path) -> None:
        written(tmp_path / "b", model({"model.safetensors": LARGE}))
        unpack_plain(tmp_path / "root", tmp_path / "b", LinkMode.HARDLINK)
        plain = tmp_path / "root/checkpoints/tiny/model.safetensors"
        os.link(plain, tmp_path / "mine")
        assert removed(tmp_path / "root", "org/tiny").freed < len(LARGE)
        unpack_plain(tmp_path / "root", tmp_path / "b", LinkMode.HARDLINK)
        assert len(LARGE) <= removed(tmp_path / "root", "org/tiny").freed < len(LARGE) + 1000

    def test_a_root_that_an_unpack_writes_to_is_left_alone(
        self, bundles: Mapping[str, Path], tmp_path: Path
    ) -> None:
        unpack_below(tmp_path, bundles["new"])
        before = tree(tmp_path)
        handle = os.open(tmp_path / "huggingface/hub", os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with pytest.raises(TargetError, match="another bundler"):
                removed(tmp_path, "tiny")
        finally:
            os.close(handle)
        assert tree(tmp_path) == before

    def test_a_read_only_target_is_told(
        self, bundles: Mapping[str, Path], tmp_path: Path, small_disk: Callable[[str], Path]
    ) -> None:
        disk = small_disk("size=16m")
        unpack_below(disk, bundles["new"])
        before = tree(disk)
        small_disk("ro")
        ran = run("remove", "tiny", "--root", disk, home=tmp_path)
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (6, "", 1)
        assert tree(disk) == before


PROGRAM = """
import sys
from pathlib import Path
import bundler
bundler.remove(sys.argv[2:], roots=bundler.find_roots({}, root=Path(sys.argv[1])))
"""


def traced(root: Path, name: str, *options: str) -> int:
    """Run a removal under strace; the exit code, negative for a signal."""
    return subprocess.run(
        ["strace", "-f", "-qq", *options, sys.executable, "-c", PROGRAM, str(root), name],
        env={"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=False,
    ).returncode


def assert_whole_or_not_found(root: Path) -> None:
    """What stays is there, and of what goes all that can be found is whole."""
    hub = root / "huggingface/hub"
    for name, files in (("tiny", OLD), ("other", OTHER)):
        content = hub / f"models--org--{name}/snapshots" / commit_hash(files)
        assert {path: (content / path).read_bytes() for path in files} == files
    content = hub / "models--org--tiny/snapshots" / commit_hash(NEW)
    ref = (hub / "models--org--tiny/refs/main").read_text()
    assert ref in (commit_hash(OLD), commit_hash(NEW))
    if ref == commit_hash(NEW) or content.exists():
        assert {path: (content / path).read_bytes() for path in NEW} == NEW


def test_killed_at_any_point_what_stays_loads_and_removing_again_finishes(
    bundles: Mapping[str, Path], tmp_path: Path
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")

    def prepared(name: str) -> tuple[Path, str]:
        root = tmp_path / name
        unpack_below(root, bundles["old"])
        return root, unpack_plain(root, bundles["new"], only=["tiny"]).digest.hex

    undisturbed, bundle = prepared("undisturbed")
    log = tmp_path / "log"
    calls = f"{CALLS},linkat"
    assert traced(undisturbed, bundle, "-o", str(log), "-e", f"trace={calls}") == 0
    expected = tree(undisturbed)

    def is_removed_by_killed(point: tuple[str, int]) -> bool:
        call, number = point
        root, _ = prepared(f"{call}-{number}")
        inject = f"inject={call}:signal=SIGKILL:when={number}"
        options = ["-o", os.devnull, "-e", f"trace={call}", "-e", inject]
        assert traced(root, bundle, *options) == -signal.SIGKILL
        assert_whole_or_not_found(root)
        gone = (root / "huggingface/hub/models--org--tiny/refs/main").read_text()
        try:
            removed(root, bundle)
        except RequestError:
            assert not list((root / "huggingface/.bundler/receipts").glob(f"{bundle}*"))
        assert tree(root) == expected
        shutil.rmtree(root)
        return gone == commit_hash(OLD)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        gone = list(threads.map(is_removed_by_killed, points(log.read_text())))
    assert (gone.count(False) > 3, gone.count(True) > 10) == (True, True)


def test_after_a_killed_removal_an_unpack_makes_it_whole(
    bundles: Mapping[str, Path], tmp_path: Path
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    unpack_below(tmp_path, bundles["new"])
    before = tree(tmp_path)
    receipts = tmp_path / "huggingface/.bundler/receipts"
    inject = "inject=renameat:signal=SIGKILL:when=1"  # The receipt, when all else is done.
    options = ["-o", os.devnull, "-P", str(receipts), "-e", "trace=renameat", "-e", inject]
    assert traced(tmp_path, "tiny", *options) == -signal.SIGKILL
    assert tree(tmp_path) != before
    unpack_below(tmp_path, bundles["new"])
    assert tree(tmp_path) == before


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["unpack", "remove", "download"]),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["v1", "v2"]),
    ),
    max_size=8,
)


def files_of(name: str, version: str) -> Files:
    """A small model, of which a part is the same in every version and in every model."""
    return {"config.json": CONFIG, f"{version}.txt": f"{name} {version}".encode()}


@pytest.fixture(scope="module")
def small_bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Each version of each model together with a model that all have."""
    folder = tmp_path_factory.mktemp("small")
    paths = {}
    for name in "abc":
        for version in ("v1", "v2"):
            path = folder / f"{name}-{version}"
            models = {f"org/{name}": files_of(name, version)}
            make_bundle(path, {"org/s": files_of("s", "v1"), **models})
            paths[name, version] = path
    return paths


@settings(max_examples=60)
@given(steps=STEPS)
def test_what_is_left_is_what_is_installed_and_what_is_foreign(
    steps: Sequence[tuple[str, str, str]], small_bundles: dict[tuple[str, str], Path]
) -> None:
    """After any unpacks, removals and downloads by others."""
    with TemporaryDirectory() as folder:
        root = with_roots(Path(folder))
        hub = root / "huggingface/hub"
        present: dict[tuple[str, str], None] = {}
        foreign: dict[tuple[str, str], str] = {}
        for step, name, version in steps:
            path = small_bundles[name, version]
            if step == "unpack":
                unpack_below(root, path)
                present[name, version] = None
            elif step == "download":
                # Under a tag, since a branch has one commit only.
                write_cache(hub, f"org/{name}", files_of(name, version), revision=version)
                foreign[name, version] = version
            elif (name, version) in present:
                removed(root, str(bundler.inspect(path).digest))
                del present[name, version]
        expected = {("s", "v1")} if present else set()
        expected |= present.keys() | foreign.keys()
        snapshots = {
            (repository.name[-1], commit.name): {
                path: (commit / path).read_bytes() for path in os.listdir(commit)
            }
            for repository in hub.glob("models--*")
            for commit in repository.glob("snapshots/*")
        }
        assert snapshots == {
            (name, commit_hash(files_of(name, version))): files_of(name, version)
            for name, version in expected
        }
        blobs = {(path.parts[-3][-1], path.read_bytes()) for path in hub.glob("*/blobs/*")}
        assert blobs == {
            (name, content)
            for name, version in expected
            for content in files_of(name, version).values()
        }
        for name, version in foreign:
            ref = hub / f"models--org--{name}/refs/{version}"
            assert ref.read_text() == commit_hash(files_of(name, version))
        mains = {path.parts[-3][-1] for path in hub.glob("*/refs/main")}
        assert mains == {name for name, _ in present} | ({"s"} if present else set())
        for ref in hub.glob("*/refs/main"):
            assert (ref.parent.parent / "snapshots" / ref.read_text()).is_dir()
        assert dangling_links(root) == []
        if not foreign and not present:
            assert tree(hub) == {}
