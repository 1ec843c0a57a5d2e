"""Into caches that hold something already, against obstacles, and killed at any point."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from command import run
from memory_source import Files, MemorySource, commit_hash, make_bundle
from trees import Tree, dangling_links, etag, found_offline, stamps, tree, unpack_below, write_cache

import bundler
from bundler.errors import TargetError

CONFIG = b'{"model_type": "tiny"}'
WEIGHTS = bytes(range(256)) * 8
OLD = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "old/only.txt": b"of the old commit"}
NEW = {"config.json": CONFIG, "model.safetensors": WEIGHTS[::-1], "new/only.txt": b"of the new"}
OTHER = {"config.json": b"{}", "model.safetensors": b"another repository"}
ALIASES = {"tiny": "org/tiny"}

REPOSITORY = "models--org--tiny"
REF = f"huggingface/hub/{REPOSITORY}/refs/main"
SNAPSHOT = f"{REPOSITORY}/snapshots/{commit_hash(NEW)}"
FOLDERS = {
    "the repository": REPOSITORY,
    "blobs": f"{REPOSITORY}/blobs",
    "snapshots": f"{REPOSITORY}/snapshots",
    "the snapshot": SNAPSHOT,
    "a folder of the snapshot": f"{SNAPSHOT}/new",
    "refs": f"{REPOSITORY}/refs",
    "trees": f"{REPOSITORY}/trees",
    "locks": ".locks",
    "the staging folder": ".locks/bundler",
}
FILES = {
    "a blob": f"{REPOSITORY}/blobs/{etag('config.json', CONFIG)}",
    "a file of the snapshot": f"{SNAPSHOT}/config.json",
    "a ref": f"{REPOSITORY}/refs/main",
    "a listing": f"{REPOSITORY}/trees/{commit_hash(NEW)}.json",
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of `NEW` as org/tiny."""
    path = tmp_path_factory.mktemp("bundle") / "bundle.tar.zst"
    make_bundle(path, {"org/tiny": NEW})
    return path


@pytest.fixture(scope="module")
def aliased_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of `NEW` as tiny, which is also found as org/tiny."""
    path = tmp_path_factory.mktemp("aliased") / "bundle.tar.zst"
    make_bundle(path, {"org/tiny": NEW}, asked=("tiny",), aliases=ALIASES)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The Hugging Face home below `tmp_path`, the root of all unpacks."""
    return tmp_path / "huggingface"


@pytest.fixture
def hub_folder(home: Path) -> Path:
    (home / "hub").mkdir(parents=True)
    return home / "hub"


def below(found: Tree, folder: str) -> Tree:
    """The part of `found` below `folder`."""
    return {path: entry for path, entry in found.items() if path.startswith(f"{folder}/")}


class TestMerging:
    """What was there stays, works, and is not written again."""

    def test_other_revisions_and_repositories_are_untouched(
        self, bundle: Path, tmp_path: Path, home: Path, hub_folder: Path
    ) -> None:
        write_cache(hub_folder, "org/tiny", OLD, revision="main")
        write_cache(hub_folder, "org/tiny", OLD, revision="v1.0")
        write_cache(hub_folder, "org/other", OTHER)
        before = stamps(hub_folder)
        unpack_below(tmp_path, bundle)
        after = stamps(hub_folder)
        folders = {path for path, (kind, *_) in tree(hub_folder).items() if kind == "folder"}
        changed = {path for path in before.keys() - folders if after.get(path) != before[path]}
        assert changed == {"models--org--tiny/refs/main"}
        found = found_offline(
            home,
            ("org/tiny", "main"),
            ("org/tiny", "v1.0"),
            ("org/tiny", commit_hash(OLD)),
            ("org/other", "main"),
        )
        assert found.snapshots == [NEW, OLD, OLD, OTHER]
        assert found.warnings == []

    def test_complete_blobs_are_not_written_again(
        self, bundle: Path, tmp_path: Path, hub_folder: Path
    ) -> None:
        repository = write_cache(hub_folder, "org/tiny", NEW)
        before = stamps(repository)
        result = unpack_below(tmp_path, bundle)
        after = stamps(repository)
        names = [path for path, (kind, *_) in tree(repository).items() if kind != "folder"]
        assert {path: after[path] for path in names if path in before} == {
            path: before[path] for path in names if path in before
        }
        assert result.written_size == 0
        assert result.present_size == sum(map(len, NEW.values()))

    @pytest.mark.parametrize(
        "damage",
        [
            pytest.param(lambda content: b"X" + content[1:], id="other bytes"),
            pytest.param(lambda content: content[:-1], id="truncated"),
            pytest.param(lambda content: b"", id="emptied"),
            pytest.param(lambda content: content + b"x", id="with more bytes"),
        ],
    )
    @pytest.mark.parametrize("origin", ["found there", "unpacked before"])
    @pytest.mark.parametrize("links", [True, False], ids=["blobs", "real files"])
    def test_damaged_content_is_healed(
        self,
        damage: Callable[[bytes], bytes],
        origin: str,
        links: bool,
        bundle: Path,
        tmp_path: Path,
        home: Path,
        hub_folder: Path,
    ) -> None:
        repository = write_cache(hub_folder, "org/tiny", NEW, links=links)
        if origin == "unpacked before":
            unpack_below(tmp_path, bundle)
        name = "model.safetensors"
        weights = (repository / "snapshots" / commit_hash(NEW) / name).resolve()
        weights.write_bytes(damage(NEW[name]))
        unpack_below(tmp_path, bundle)
        assert weights.read_bytes() == NEW[name]
        assert found_offline(home, ("org/tiny", "main")).snapshots == [NEW]

    def test_a_receipt_vouches_only_for_the_folder_it_was_written_for(
        self, bundle: Path, tmp_path: Path
    ) -> None:
        elsewhere = tmp_path / "elsewhere"
        damaged = {**NEW, "model.safetensors": bytes(len(NEW["model.safetensors"]))}
        name = etag("model.safetensors", NEW["model.safetensors"])
        repository = write_cache(elsewhere, "org/tiny", NEW)
        (repository / "blobs" / name).write_bytes(damaged["model.safetensors"])
        env = {"HF_HOME": str(tmp_path / "home")}
        assert run("unpack", bundle, home=tmp_path, env=env).code == 0
        env["HF_HUB_CACHE"] = str(elsewhere)
        assert run("unpack", bundle, home=tmp_path, env=env).code == 0
        found = found_offline(tmp_path / "home", ("org/tiny", "main"), env=env)
        assert found.snapshots == [NEW]

    def test_what_is_missing_of_a_snapshot_is_added_and_the_rest_stays_listed(
        self, tmp_path: Path, home: Path
    ) -> None:
        parts = {"weights": ["*.safetensors"], "rest": ["config.json", "old/*"]}
        for name, included in parts.items():
            pack_part(tmp_path / name, {"org/tiny": OLD}, included)
            unpack_below(tmp_path, tmp_path / name)
        found = found_offline(home, ("org/tiny", "main"))
        assert found.snapshots == [OLD]
        assert found.warnings == []
        (listing,) = home.glob("hub/models--org--tiny/trees/*.json")
        assert set(json.loads(listing.read_text())["files"]) == set(OLD)

    def test_a_marker_that_hides_a_file_is_removed_and_others_stay(
        self, bundle: Path, tmp_path: Path, home: Path, hub_folder: Path
    ) -> None:
        markers = hub_folder / "models--org--tiny/.no_exist" / commit_hash(NEW)
        (markers / "new").mkdir(parents=True)
        for name in ("config.json", "new/only.txt", "adapter_config.json"):
            (markers / name).touch()
        unpack_below(tmp_path, bundle)
        assert [path.name for path in markers.rglob("*.*")] == ["adapter_config.json"]
        assert found_offline(home, ("org/tiny", "main")).snapshots == [NEW]

    def test_a_folder_named_as_a_marker_hides_nothing_and_stays(
        self, bundle: Path, tmp_path: Path, home: Path, hub_folder: Path
    ) -> None:
        folder = hub_folder / REPOSITORY / ".no_exist" / commit_hash(NEW) / "config.json"
        folder.mkdir(parents=True)
        unpack_below(tmp_path, bundle)
        assert folder.is_dir()
        assert found_offline(home, ("org/tiny", "main")).snapshots == [NEW]

    def test_a_snapshot_of_real_files_stays_one_and_nothing_is_doubled(
        self, bundle: Path, tmp_path: Path, home: Path, hub_folder: Path
    ) -> None:
        repository = write_cache(hub_folder, "org/tiny", NEW, links=False)
        before = stamps(repository / "snapshots")
        result = unpack_below(tmp_path, bundle)
        assert result.written_size == 0
        assert stamps(repository / "snapshots") == before
        assert tree(repository / "blobs") == {}
        assert found_offline(home, ("org/tiny", "main")).snapshots == [NEW]

    def test_absolute_links_that_lead_to_the_content_stay(
        self, bundle: Path, tmp_path: Path, hub_folder: Path
    ) -> None:
        repository = write_cache(hub_folder, "org/tiny", NEW)
        for path in NEW:
            link = repository / "snapshots" / commit_hash(NEW) / path
            target = link.resolve()
            link.unlink()
            link.symlink_to(target)
        before = stamps(repository / "snapshots")
        unpack_below(tmp_path, bundle)
        assert stamps(repository / "snapshots") == before

    @pytest.mark.parametrize(
        "target",
        ["nowhere", "../../../models--org--other/blobs/x", "config.json", "/dev/null"],
        ids=["nowhere", "another repository", "itself", "a device"],
    )
    def test_a_link_that_leads_elsewhere_is_put_right(
        self, target: str, bundle: Path, tmp_path: Path, home: Path, hub_folder: Path
    ) -> None:
        repository = write_cache(hub_folder, "org/tiny", NEW)
        link = repository / "snapshots" / commit_hash(NEW) / "config.json"
        link.unlink()
        link.symlink_to(target)
        unpack_below(tmp_path, bundle)
        assert found_offline(home, ("org/tiny", "main")).snapshots == [NEW]
        assert dangling_links(home) == []

    def test_content_in_the_shared_blob_store_stays_there(
        self, bundle: Path, tmp_path: Path, home: Path, hub_folder: Path
    ) -> None:
        repository = write_cache(hub_folder, "org/tiny", NEW)
        shared = hub_folder / "blobs" / "ab" / ("ab" * 32)
        shared.parent.mkdir(parents=True)
        (hub_folder / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
        name = etag("model.safetensors", NEW["model.safetensors"])
        blob = repository / "blobs" / name
        blob.rename(shared)
        shared.with_name(f"{shared.name}.refs").write_text(f"models--org--tiny/blobs/{name}\n")
        shared.chmod(0o444)
        blob.symlink_to(f"../../blobs/ab/{shared.name}")
        before = stamps(hub_folder / "blobs"), stamps(repository / "blobs")
        assert unpack_below(tmp_path, bundle).written_size == 0
        assert (stamps(hub_folder / "blobs"), stamps(repository / "blobs")) == before
        found = found_offline(home, ("org/tiny", "main"))
        assert found.snapshots == [NEW]
        assert found.warnings == []

    def test_a_link_into_a_shared_blob_store_that_is_gone_is_replaced_by_the_content(
        self, bundle: Path, tmp_path: Path, home: Path, hub_folder: Path
    ) -> None:
        repository = write_cache(hub_folder, "org/tiny", NEW)
        blob = repository / "blobs" / etag("model.safetensors", NEW["model.safetensors"])
        blob.unlink()
        blob.symlink_to(f"../../blobs/ab/{'ab' * 32}")
        unpack_below(tmp_path, bundle)
        assert found_offline(home, ("org/tiny", "main")).snapshots == [NEW]


class TestMergingUnderTwoNames:
    """A repository that the cache holds under its canonical name, its old one, or both."""

    def assert_found(self, home: Path) -> None:
        wanted = [(name, r) for name in ("tiny", "org/tiny") for r in ("main", commit_hash(NEW))]
        found = found_offline(home, *wanted)
        assert found.snapshots == [NEW] * 4
        assert found.warnings == []

    @pytest.mark.parametrize("held", [OLD, NEW], ids=["an old commit", "this commit"])
    def test_both_names_are_real_folders(
        self, held: Files, aliased_bundle: Path, tmp_path: Path, home: Path, hub_folder: Path
    ) -> None:
        for name in ("tiny", "org/tiny"):
            write_cache(hub_folder, name, held, revision="v1.0")
        before = stamps(hub_folder)
        unpack_below(tmp_path, aliased_bundle)
        after = stamps(hub_folder)
        blobs = [path for path in before if "/blobs/" in path or "/snapshots/" in path]
        kept = [path for path in blobs if not (hub_folder / path).is_dir()]
        assert {path: after[path] for path in kept} == {path: before[path] for path in kept}
        self.assert_found(home)
        wanted = [("tiny", "v1.0"), ("org/tiny", "v1.0")]
        assert found_offline(home, *wanted).snapshots == [held, held]

    def test_only_the_other_name_is_a_real_folder(
        self, aliased_bundle: Path, tmp_path: Path, home: Path, hub_folder: Path
    ) -> None:
        write_cache(hub_folder, "org/tiny", OLD, revision="v1.0")
        unpack_below(tmp_path, aliased_bundle)
        self.assert_found(home)
        assert found_offline(home, ("org/tiny", "v1.0")).snapshots == [OLD]

    def test_content_that_the_other_name_holds_is_not_stored_twice(
        self, aliased_bundle: Path, tmp_path: Path, home: Path, hub_folder: Path
    ) -> None:
        write_cache(hub_folder, "org/tiny", NEW)
        assert unpack_below(tmp_path, aliased_bundle).written_size == 0
        self.assert_found(home)

    def test_a_link_in_the_opposite_direction_is_followed(
        self, aliased_bundle: Path, tmp_path: Path, home: Path, hub_folder: Path
    ) -> None:
        write_cache(hub_folder, "org/tiny", OLD, revision="v1.0")
        (hub_folder / "models--tiny").symlink_to("models--org--tiny")
        unpack_below(tmp_path, aliased_bundle)
        assert os.readlink(hub_folder / "models--tiny") == "models--org--tiny"
        assert not (hub_folder / "models--org--tiny").is_symlink()
        self.assert_found(home)
        wanted = [("tiny", "v1.0"), ("org/tiny", "v1.0")]
        assert found_offline(home, *wanted).snapshots == [OLD, OLD]

    def test_the_bundle_of_one_name_joins_what_another_bundle_linked(
        self, bundle: Path, aliased_bundle: Path, tmp_path: Path, home: Path
    ) -> None:
        unpack_below(tmp_path, aliased_bundle)
        before = stamps(home / "hub")
        unpack_below(tmp_path, bundle)
        assert stamps(home / "hub") == before
        self.assert_found(home)

    def test_an_alias_link_that_leads_nowhere_is_put_right(
        self, aliased_bundle: Path, tmp_path: Path, home: Path, hub_folder: Path
    ) -> None:
        (hub_folder / "models--org--tiny").symlink_to("models--gone")
        unpack_below(tmp_path, aliased_bundle)
        self.assert_found(home)

    def test_an_alias_link_to_another_repository_is_in_the_way(
        self, aliased_bundle: Path, tmp_path: Path, hub_folder: Path
    ) -> None:
        write_cache(hub_folder, "org/other", OTHER)
        (hub_folder / "models--org--tiny").symlink_to("models--org--other")
        before = tree(tmp_path)
        with pytest.raises(TargetError):
            unpack_below(tmp_path, aliased_bundle)
        assert tree(tmp_path) == before


class TestObstacles:
    """One line that says what is in the way, exit code 6, and nothing changed."""

    def refused(self, bundle: Path, tmp_path: Path, *options: object) -> str:
        """Unpack below `tmp_path`, see that it is refused and changes nothing; the line."""
        before = tree(tmp_path)
        ran = run("unpack", bundle, "--root", tmp_path, *options, home=tmp_path)
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (6, "", 1)
        assert tree(tmp_path) == before
        return ran.err

    @pytest.mark.parametrize("place", FOLDERS.values(), ids=FOLDERS)
    @pytest.mark.parametrize("target", ["outside", "..", "."])
    def test_a_planted_link_is_not_followed(
        self, place: str, target: str, bundle: Path, tmp_path: Path, hub_folder: Path
    ) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        link = hub_folder / place
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(outside if target == "outside" else target)
        assert place in self.refused(bundle, tmp_path)

    def test_a_planted_link_does_not_lead_to_removing_a_file_elsewhere(
        self, bundle: Path, tmp_path: Path, hub_folder: Path
    ) -> None:
        marker = tmp_path / "outside" / commit_hash(NEW) / "config.json"
        marker.parent.mkdir(parents=True)
        marker.write_text("mine")
        (hub_folder / REPOSITORY).mkdir()
        (hub_folder / REPOSITORY / ".no_exist").symlink_to(tmp_path / "outside")
        assert ".no_exist" in self.refused(bundle, tmp_path)

    @pytest.mark.parametrize("place", FILES.values(), ids=FILES)
    @pytest.mark.parametrize("filled", [False, True], ids=["empty", "filled"])
    def test_a_folder_where_a_file_belongs_is_left_alone(
        self, place: str, filled: bool, bundle: Path, tmp_path: Path, hub_folder: Path
    ) -> None:
        (hub_folder / place / ("x" * filled)).mkdir(parents=True)
        assert place in self.refused(bundle, tmp_path)

    @pytest.mark.parametrize("place", FOLDERS.values(), ids=FOLDERS)
    def test_a_file_where_a_folder_belongs_is_left_alone(
        self, place: str, bundle: Path, tmp_path: Path, hub_folder: Path
    ) -> None:
        (hub_folder / place).parent.mkdir(parents=True, exist_ok=True)
        (hub_folder / place).write_text("mine")
        assert place in self.refused(bundle, tmp_path)

    @pytest.mark.parametrize("place", ["huggingface", "huggingface/hub", "huggingface/.bundler"])
    def test_a_root_that_is_a_file_is_left_alone(
        self, place: str, bundle: Path, tmp_path: Path
    ) -> None:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("mine")
        assert place in self.refused(bundle, tmp_path)

    def test_a_root_that_is_a_link_is_followed(
        self, bundle: Path, tmp_path: Path, home: Path
    ) -> None:
        (tmp_path / "disk").mkdir()
        home.symlink_to("disk")
        unpack_below(tmp_path, bundle)
        assert found_offline(tmp_path / "disk", ("org/tiny", "main")).snapshots == [NEW]

    def test_a_read_only_file_system_is_left_alone(
        self, bundle: Path, tmp_path: Path, small_disk: Callable[[str], Path]
    ) -> None:
        root = small_disk("ro")
        before = tree(tmp_path)
        ran = run("unpack", bundle, "--root", root, home=tmp_path)
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (6, "", 1)
        assert "--root" in ran.err
        assert tree(tmp_path) == before


class TestFullDisk:
    """Too little space is told before anything is written; what cannot be told does no harm."""

    def test_is_told_with_figures_and_leaves_nothing(
        self, tmp_path: Path, small_disk: Callable[[str], Path]
    ) -> None:
        bundle = tmp_path / "bundle.tar.zst"
        make_bundle(bundle, {"org/large": {"model.safetensors": os.urandom(300_000)}})
        disk = small_disk("size=200k")
        ran = run("unpack", bundle, "--root", disk / "new" / "root", home=tmp_path)
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (6, "", 1)
        assert "has 205 kB free, and 303 kB are needed" in ran.err
        assert "--root" in ran.err
        assert tree(disk) == {}
        assert not (tmp_path / "offline.env").exists()

    def test_content_that_only_just_fits_is_unpacked(
        self, tmp_path: Path, small_disk: Callable[[str], Path]
    ) -> None:
        bundle = tmp_path / "bundle.tar.zst"
        files = {"model.safetensors": os.urandom(300_000)}
        make_bundle(bundle, {"org/large": files})
        disk = small_disk("size=320k")
        unpack_below(disk, bundle)
        assert found_offline(disk / "huggingface", ("org/large", "main")).snapshots == [files]

    def test_files_that_take_more_than_their_size_leave_nothing(
        self, tmp_path: Path, small_disk: Callable[[str], Path]
    ) -> None:
        bundle = tmp_path / "bundle.tar.zst"
        make_bundle(bundle, {"org/many": {f"{n}.txt": b"%d" % n for n in range(100)}})
        disk = small_disk("size=200k")
        ran = run("unpack", bundle, "--root", disk / "root", home=tmp_path)
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (6, "", 1)
        assert "space" in ran.err
        assert tree(disk) == {}

    def test_at_any_point_leaves_what_was_there_and_running_again_completes(
        self, bundle: Path, tmp_path: Path, small_disk: Callable[[str], Path]
    ) -> None:
        undisturbed = with_old_cache(tmp_path / "undisturbed")
        unpack_below(undisturbed, bundle)
        expected = hub_and_others(undisturbed)
        disk = small_disk("nr_inodes=1000")
        outcomes = Counter[bool]()
        for room in range(40):
            root = with_old_cache(disk / str(room))
            used = os.statvfs(disk).f_files - os.statvfs(disk).f_ffree
            small_disk(f"nr_inodes={used + room}")
            try:
                unpack_below(root, bundle)
                outcomes[True] += 1
            except TargetError:
                outcomes[False] += 1
            small_disk("nr_inodes=1000")
            assert_old_or_new(root)
            unpack_below(root, bundle)
            assert hub_and_others(root) == expected
            shutil.rmtree(root)
        assert outcomes[False] >= 10
        assert outcomes[True] >= 3


def pack_part(path: Path, models: dict[str, Files], include: list[str]) -> None:
    """Pack only the files that match `include`."""
    bundler.pack(
        tuple(models),
        path,
        selection=bundler.Selection(include=tuple(include)),
        store=path.parent / "store",
        sources=(MemorySource(models),),
    )


def with_old_cache(root: Path) -> Path:
    """Put `OLD`, `OTHER`, a damaged blob of `NEW` and a stray marker below `root`; gives `root`."""
    hub = root / "huggingface/hub"
    repository = write_cache(hub, "org/tiny", OLD)
    write_cache(hub, "org/other", OTHER)
    damaged = repository / "blobs" / etag("model.safetensors", NEW["model.safetensors"])
    damaged.write_bytes(bytes(len(NEW["model.safetensors"])))
    marker = repository / ".no_exist" / commit_hash(NEW) / "config.json"
    marker.parent.mkdir(parents=True)
    marker.touch()
    return root


def hub_and_others(root: Path) -> Tree:
    """All below `root` but the text of receipts, and what a kill may leave of the last file."""
    ignored = ("offline.env", ".offline.env.bundler-part")
    return {
        path: ("file", b"", mode) if "/receipts/" in path else (kind, content, mode)
        for path, (kind, content, mode) in tree(root).items()
        if path not in ignored
    }


def receipts(root: Path) -> Tree:
    """The receipts below `root`."""
    return tree(root / "huggingface/.bundler/receipts")


def assert_old_or_new(root: Path) -> None:
    """What was there still loads, and the new commit is either whole or not found by a name."""
    hub = root / "huggingface/hub"
    for name, files in (("tiny", OLD), ("other", OTHER)):
        content = hub / f"models--org--{name}" / "snapshots" / commit_hash(files)
        assert {path: (content / path).read_bytes() for path in files} == files
    ref = (hub / "models--org--tiny/refs/main").read_text()
    assert ref in (commit_hash(OLD), commit_hash(NEW))
    content = hub / "models--org--tiny/snapshots" / commit_hash(NEW)
    if ref == commit_hash(NEW):
        assert {path: (content / path).read_bytes() for path in NEW} == NEW
    # Whoever asks for the commit by its hash finds all of it or nothing.
    if content.exists() or (hub / f"models--org--tiny/trees/{commit_hash(NEW)}.json").exists():
        assert {path: (content / path).read_bytes() for path in NEW} == NEW


PROGRAM = """
import sys
from pathlib import Path
import bundler
root = Path(sys.argv[2])
roots = bundler.find_roots({}, root=root)
bundler.unpack(sys.argv[1], roots=roots, env=root / "offline.env", jobs=1)
"""
CALLS = "openat,mkdir,mkdirat,write,fsync,rename,renameat,renameat2,symlinkat,unlink,unlinkat,rmdir"
CALL = re.compile(r"(\d+) +(\w+)\((.*)")


@pytest.fixture
def strace() -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")


def traced(bundle: Path, root: Path, *options: str) -> int:
    """Run an unpack under strace; the exit code, negative for a signal."""
    return subprocess.run(
        ["strace", "-f", "-qq", *options, sys.executable, "-c", PROGRAM, str(bundle), str(root)],
        env={"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=False,
    ).returncode


def kill(bundle: Path, root: Path, call: str, number: int) -> None:
    """Run an unpack that is killed when it makes a system call for the given time."""
    inject = f"inject={call}:signal=SIGKILL:when={number}"
    code = traced(bundle, root, "-o", os.devnull, "-e", f"trace={call}", "-e", inject)
    assert code == -signal.SIGKILL


def points(log: str) -> list[tuple[str, int]]:
    """Where in a traced run files change: the call, and how many of its kind came up to there."""
    counts = Counter[str]()
    found = []
    main_thread = log.split(maxsplit=1)[0]
    for line in log.splitlines():
        match = CALL.match(line)
        if match is None or match[1] != main_thread:
            continue
        counts[match[2]] += 1
        if match[2] != "openat" or "O_CREAT" in match[3]:
            found.append((match[2], counts[match[2]]))
    return found


def test_killed_at_any_point_what_was_there_loads_and_running_again_completes(
    strace: None, bundle: Path, tmp_path: Path
) -> None:
    undisturbed = with_old_cache(tmp_path / "undisturbed")
    log = tmp_path / "log"
    assert traced(bundle, undisturbed, "-o", str(log), "-e", f"trace={CALLS}") == 0
    expected = hub_and_others(undisturbed)

    def moved_by_killed(point: tuple[str, int]) -> bool:
        call, number = point
        root = with_old_cache(tmp_path / f"{call}-{number}")
        kill(bundle, root, call, number)
        assert_old_or_new(root)
        moved = (root / REF).read_text() == commit_hash(NEW)
        unpack_below(root, bundle)
        assert hub_and_others(root) == expected
        shutil.rmtree(root)
        return moved

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        moved = list(threads.map(moved_by_killed, points(log.read_text())))
    assert (moved.count(False) > 20, moved.count(True) > 3) == (True, True)


@pytest.mark.parametrize("point", [("fsync", 4), ("symlinkat", 2)], ids=["staging", "placing"])
def test_what_a_killed_run_had_unpacked_is_not_unpacked_again(
    point: tuple[str, int], strace: None, bundle: Path, tmp_path: Path
) -> None:
    kill(bundle, tmp_path, *point)
    hub = tmp_path / "huggingface/hub"
    files = {path for path, (kind, *_) in tree(hub).items() if kind == "file"}
    whole = {s for path, s in stamps(hub).items() if path in files and "/blobs/" in path}
    assert whole
    unpack_below(tmp_path, bundle)
    assert whole <= set(stamps(hub / REPOSITORY / "blobs").values())


def test_what_a_killed_run_had_placed_counts_as_bundlers_own(
    strace: None, bundle: Path, tmp_path: Path
) -> None:
    undisturbed = with_old_cache(tmp_path / "undisturbed")
    unpack_below(undisturbed, bundle)
    root = with_old_cache(tmp_path / "killed")
    kill(bundle, root, "symlinkat", 2)
    unpack_below(root, bundle)
    assert receipts(root) == receipts(undisturbed)
