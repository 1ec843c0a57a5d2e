"""What `bundler installed` tells."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import run
from memory_source import commit_hash, make_bundle
from test_checkpoints import LARGE, checkpoint, code, faces, model, unpack_plain, written
from trees import etag, stamps, tree, unpack_below, write_cache

import bundler
from bundler.sharing import LinkMode

TINY = {"config.json": b"{}", "model.safetensors": b"weights"}
OTHER = {"config.json": b"{}", "vocab.txt": b"one\n"}
REPOSITORY = "huggingface/hub/models--tiny"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """org/tiny, asked for as tiny, and other."""
    path = tmp_path_factory.mktemp("bundle") / "bundle.tar.zst"
    models = {"org/tiny": TINY, "other": OTHER}
    make_bundle(path, models, asked=("tiny", "other"), aliases={"tiny": "org/tiny"})
    return path


def document(root: Path) -> dict[str, Any]:
    """What the command tells programs of what is below `root`."""
    ran = run("installed", "--root", root, "--json", home=root)
    assert (ran.code, ran.err) == (0, "")
    answer: dict[str, Any] = json.loads(ran.out)
    return answer


def missing(root: Path) -> dict[str, list[str]]:
    """What is missing of each model that is not whole, below `root`."""
    standings = bundler.installed(bundler.find_roots({}, root=root)).standings
    return {
        standing.model.spec: [str(path.relative_to(root)) for path in standing.missing]
        for standing in standings
        if not standing.is_whole
    }


def test_every_bundle_is_told_with_its_models(bundle: Path, tmp_path: Path) -> None:
    second = written(tmp_path / "b", checkpoint(), faces(), code())
    digests = [unpack_below(tmp_path, path).digest for path in (bundle, second)]
    answer = document(tmp_path)
    assert {item["bundle"] for item in answer["bundles"]} == set(map(str, digests))
    models = {model["spec"]: model for item in answer["bundles"] for model in item["models"]}
    assert set(models) == {
        "tiny",
        "other",
        "https://host.example/x-0123.pth",
        "insightface:buffalo_l",
        "torchhub:Owner/Repo",
    }
    assert models["tiny"] == {
        "spec": "tiny",
        "source": "hf",
        "name": "tiny",
        "aliases": ["org/tiny"],
        "specs": [],
        "revision": "main",
        "commit_hash": commit_hash(TINY),
        "layout": "hf-cache",
        "size": sum(map(len, TINY.values())),
        "roots": [str(tmp_path / "huggingface/hub")],
        "whole": True,
        "missing": [],
    }
    assert models["insightface:buffalo_l"]["roots"] == [str(tmp_path / "insightface")]


def test_people_are_told_what_programs_are(bundle: Path, tmp_path: Path) -> None:
    digest = unpack_below(tmp_path, bundle).digest
    ran = run("installed", "--root", tmp_path, home=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == str(digest)
    commit = commit_hash(TINY)[:12]
    cells = [commit, "9", "B", "yes", "main", "hf-cache", "tiny", "=", "org/tiny"]
    assert cells in [line.split() for line in lines]
    assert lines[-1] == f"15 B in {tmp_path / 'huggingface/hub'}"


def test_what_several_models_share_counts_once(tmp_path: Path) -> None:
    make_bundle(tmp_path / "one", {"org/tiny": TINY}, asked=("org/tiny", "org/tiny@v1.0"))
    make_bundle(tmp_path / "two", {"org/tiny": TINY})
    for name in ("one", "two"):
        unpack_below(tmp_path / "root", tmp_path / name)
    inventory = bundler.installed(bundler.find_roots({}, root=tmp_path / "root"))
    assert len(inventory.standings) == 3
    assert inventory.size == sum(map(len, TINY.values()))


def test_looking_changes_nothing_and_reads_no_content(
    bundle: Path, tmp_path: Path, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("size=16m")
    unpack_below(disk, bundle)
    weights = disk / REPOSITORY / "blobs" / etag("model.safetensors", TINY["model.safetensors"])
    weights.write_bytes(b"flipped")
    before = stamps(disk)
    small_disk("ro")
    assert missing(disk) == {}
    assert stamps(disk) == before


def folder_instead(path: Path) -> None:
    """Put a folder where a file is."""
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "a blob that is gone": (
        lambda hub: (hub / "blobs" / etag("config.json", b"{}")).unlink(),
        [
            f"{REPOSITORY}/blobs/{etag('config.json', b'{}')}",
            f"{REPOSITORY}/snapshots/{commit_hash(TINY)}/config.json",
        ],
    ),
    "a blob that was cut": (
        lambda hub: (hub / "blobs" / etag("config.json", b"{}")).write_bytes(b"{"),
        [f"{REPOSITORY}/blobs/{etag('config.json', b'{}')}"],
    ),
    "a link that is gone": (
        lambda hub: (hub / "snapshots" / commit_hash(TINY) / "config.json").unlink(),
        [f"{REPOSITORY}/snapshots/{commit_hash(TINY)}/config.json"],
    ),
    "a ref that is gone": (
        lambda hub: (hub / "refs/main").unlink(),
        [f"{REPOSITORY}/refs/main"],
    ),
    "an alias that is gone": (
        lambda hub: (hub.parent / "models--org--tiny").unlink(),
        ["huggingface/hub/models--org--tiny"],
    ),
    "a folder where a blob was": (
        lambda hub: folder_instead(hub / "blobs" / etag("config.json", b"{}")),
        [f"{REPOSITORY}/blobs/{etag('config.json', b'{}')}"],
    ),
}


@pytest.mark.parametrize(("damage", "paths"), DAMAGE.values(), ids=DAMAGE)
def test_what_is_missing_of_a_model_is_named(
    damage: Callable[[Path], object], paths: list[str], bundle: Path, tmp_path: Path
) -> None:
    unpack_below(tmp_path, bundle)
    damage(tmp_path / REPOSITORY)
    assert missing(tmp_path) == {"tiny": paths}
    out = run("installed", "--root", tmp_path, home=tmp_path).out
    assert f"{len(paths)} missing" in out
    assert "bundler verify" in out.splitlines()[-1]


def test_a_plain_file_that_was_edited_is_no_fault(tmp_path: Path) -> None:
    path = written(tmp_path / "b", model({"config.json": b"{}", "model.safetensors": LARGE}))
    unpack_plain(tmp_path / "root", path, LinkMode.COPY)
    plain = tmp_path / "root/checkpoints/tiny"
    (plain / "config.json").write_bytes(b"edited")
    assert missing(tmp_path / "root") == {}
    (plain / "model.safetensors").write_bytes(b"edited")
    assert missing(tmp_path / "root") == {"org/tiny": ["checkpoints/tiny/model.safetensors"]}


def test_where_nothing_is_installed_it_says_so_and_makes_nothing(tmp_path: Path) -> None:
    ran = run("installed", "--root", tmp_path / "root", home=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert "installed nothing" in ran.out
    assert document(tmp_path) == {"bundles": [], "size": 0}
    assert tree(tmp_path) == {}


def test_what_others_downloaded_is_not_told(bundle: Path, tmp_path: Path) -> None:
    write_cache(tmp_path / "huggingface/hub", "org/foreign", TINY)
    unpack_below(tmp_path, bundle, only=["other"])
    (item,) = document(tmp_path)["bundles"]
    assert [model["spec"] for model in item["models"]] == ["other"]


def test_caches_that_moved_with_their_receipts_are_whole(bundle: Path, tmp_path: Path) -> None:
    unpack_below(tmp_path / "old", bundle)
    shutil.move(tmp_path / "old", tmp_path / "new")
    (item,) = document(tmp_path / "new")["bundles"]
    assert [model["whole"] for model in item["models"]] == [True, True]


def test_a_model_of_two_bundles_stays_when_one_of_them_goes(tmp_path: Path) -> None:
    files = {"config.json": b"{}"}
    make_bundle(tmp_path / "a.tar.zst", {"org/tiny": files})
    make_bundle(tmp_path / "b.tar.zst", {"org/tiny": files, "org/other": files})
    for name in ("a.tar.zst", "b.tar.zst"):
        assert run("unpack", name, "--root", "root", home=tmp_path).code == 0
    bundle = bundler.inspect(tmp_path / "b.tar.zst").digest
    for dry, verb in ((["--dry-run"], "would be removed"), ([], "is removed")):
        ran = run("remove", bundle, "--root", "root", *dry, home=tmp_path)
        tiny, other = sorted(line for line in ran.out.splitlines() if line.startswith("org/"))[::-1]
        assert (ran.code, "stays: another bundle has it too" in tiny) == (0, True)
        assert other.endswith(verb)
