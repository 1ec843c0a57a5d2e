"""What an unpack notes down of what it installed."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bundle_builder import Pipe, assembled, manifest_of, model_record, parts_of
from command import run
from memory_source import commit_hash, make_bundle
from trees import etag, tree, unpack_below, write_cache

import bundler
from bundler.digest import Blob, Digest
from bundler.names import MAX_DEPTH
from bundler.receipt import InstalledFile, InstalledModel, InstalledPointer, Receipt
from bundler.receipt_folder import read_receipts, receipt_path, write_receipt
from bundler.relative import RelativePath

TINY = {"config.json": b"{}", "model.safetensors": b"weights"}
OTHER = {"config.json": b'{"other": 1}'}
A = Blob.of(b"a")
RECEIPT = Receipt(
    bundle=Digest.of(b"bundle"),
    models=(
        InstalledModel(
            source="hf",
            name="org/tiny",
            layout="hf-cache",
            kind="model",
            aliases=("tiny", "old/tiny"),
            specs=("timm:tiny",),
            needs=("org/other",),
            revision="main",
            commit_hash=commit_hash(TINY),
            size=1,
            files=(
                InstalledFile("hub", RelativePath("models--org--tiny/a é"), A, 7, False),
                InstalledFile("/plain", RelativePath("b"), Blob.of(b""), 8, True),
            ),
            links=(InstalledPointer("hub", RelativePath("models--tiny"), "models--org--tiny"),),
            texts=(InstalledPointer("hub", RelativePath("refs/main"), None, "before"),),
        ),
        InstalledModel("file", "notes", "flat", None, (), (), (), None, None, 0),
    ),
)
GARBAGE: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "no text": b"\xff\xfe\x00",
    "no object": b"[]",
    "null": b"null",
    "an earlier version": b'{"receipt_version": 1}',
    "an unknown version": b'{"receipt_version": 3}',
    "no fields": b'{"receipt_version": 2}',
    "deep": b"[" * 100_000,
}
FILE = {"root": "hub", "path": "x", "digest": f"sha256:{'0' * 64}", "size": 1, "mtime_ns": 1}
POINTER = {"root": "hub", "path": "x", "text": "y", "before": None}
FIELDS: dict[str, dict[str, Any]] = {
    "a number as bundle": {"bundle": 7},
    "a bundle that is no digest": {"bundle": "sha256:xyz"},
    "models that are null": {"models": None},
    "models that are numbers": {"models": [7]},
    "a number as name": {"name": 7},
    "a name that is null": {"name": None},
    "a number as revision": {"revision": 7},
    "files that are a number": {"files": 7},
    "files that are numbers": {"files": [7]},
    "a file without a path": {"files": [{"root": "hub"}]},
    "a file outside": {"files": [{**FILE, "path": "../x", "found": True}]},
    "a file with a number as digest": {"files": [{**FILE, "digest": 7, "found": True}]},
    "a file with a number as path": {"files": [{**FILE, "path": 7, "found": True}]},
    "a file below no root": {"files": [{**FILE, "root": "elsewhere", "found": True}]},
    "links that are numbers": {"links": [1, 2]},
    "a link with a number as text": {"links": [{**POINTER, "text": 7}]},
    "a text outside": {"texts": [{**POINTER, "path": "/etc/passwd"}]},
    "a text below no root": {"texts": [{**POINTER, "root": ".."}]},
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """org/tiny, asked for as tiny, and other."""
    path = tmp_path_factory.mktemp("bundle") / "bundle.tar.zst"
    models = {"org/tiny": TINY, "other": OTHER}
    make_bundle(path, models, asked=("tiny", "other"), aliases={"tiny": "org/tiny"})
    return path


def only_receipt(hf_home: Path) -> Receipt:
    (receipt,) = read_receipts(hf_home)
    return receipt


def found(receipt: Receipt) -> dict[str, bool]:
    """Whether each file was found there, by the last part of its path."""
    return {file.path.name: file.found for file in files_of(receipt)}


def files_of(receipt: Receipt) -> list[InstalledFile]:
    """The files of all models."""
    return [file for model in receipt.models for file in model.files]


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    write_receipt(tmp_path, RECEIPT)
    assert only_receipt(tmp_path) == RECEIPT


def test_where_there_is_none_none_is_read_and_nothing_is_made(tmp_path: Path) -> None:
    assert list(read_receipts(tmp_path / "home")) == []
    assert tree(tmp_path) == {}


def test_an_unpack_notes_the_bundle_its_models_and_everything_it_placed(
    bundle: Path, tmp_path: Path
) -> None:
    result = unpack_below(tmp_path, bundle)
    receipt = only_receipt(tmp_path / "huggingface")
    assert receipt.bundle == result.digest == bundler.inspect(bundle).digest
    assert {(m.spec, m.aliases, m.commit_hash, m.layout, m.size) for m in receipt.models} == {
        ("tiny", ("org/tiny",), commit_hash(TINY), "hf-cache", sum(map(len, TINY.values()))),
        ("other", (), commit_hash(OTHER), "hf-cache", sum(map(len, OTHER.values()))),
    }
    hub = tmp_path / "huggingface/hub"
    placed = {path: kind for path, (kind, *_) in tree(hub).items() if kind != "folder"}
    noted = [path for model in receipt.models for _, path in model.places]
    assert sorted(map(str, noted)) == sorted(placed)
    for file in files_of(receipt):
        assert Blob.of((hub / file.path).read_bytes()) == file.blob
    links = {str(link.path): link for model in receipt.models for link in model.links}
    assert {path: link.text for path, link in links.items()} == {
        path: os.readlink(hub / path) for path, kind in placed.items() if kind == "link"
    }
    assert set(found(receipt).values()) == {False}


@pytest.mark.parametrize("layout", ["hf-cache", "flat"])
def test_a_path_as_deep_as_a_bundle_may_have_is_noted_too(layout: str, tmp_path: Path) -> None:
    deepest = "/".join("x" * MAX_DEPTH)
    field = "name" if layout == "flat" else "revision"
    record = model_record({f"{deepest[:-1]}y": b"deep"}, layout=layout, **{field: deepest})
    content = assembled(parts_of(manifest_of(record), [b"deep"]))
    bundler.unpack(Pipe(content), roots=bundler.find_roots(root=tmp_path), env=None)
    (file,) = files_of(only_receipt(tmp_path / "huggingface"))
    assert file.blob == Blob.of(b"deep")


def test_what_was_there_before_is_marked_as_found(bundle: Path, tmp_path: Path) -> None:
    write_cache(tmp_path / "huggingface/hub", "tiny", {"config.json": b"{}"})
    write_cache(tmp_path / "huggingface/hub", "tiny", TINY)
    config, weights = (etag(path, TINY[path]) for path in ("config.json", "model.safetensors"))
    (tmp_path / "huggingface/hub/models--tiny/blobs" / weights).unlink()
    unpack_below(tmp_path, bundle)
    assert found(only_receipt(tmp_path / "huggingface")) == {
        config: True,
        weights: False,
        etag("config.json", OTHER["config.json"]): False,
    }


def test_damaged_content_that_was_healed_is_bundlers_own(bundle: Path, tmp_path: Path) -> None:
    repository = write_cache(tmp_path / "huggingface/hub", "other", OTHER)
    name = etag("config.json", OTHER["config.json"])
    (repository / "blobs" / name).write_bytes(b"damaged")
    unpack_below(tmp_path, bundle, only=["other"])
    assert found(only_receipt(tmp_path / "huggingface")) == {name: False}


def test_two_partial_unpacks_equal_one_of_all(bundle: Path, tmp_path: Path) -> None:
    for only in ("tiny", "other"):
        unpack_below(tmp_path / "parts", bundle, only=[only])
    unpack_below(tmp_path / "whole", bundle)
    parts, whole = (only_receipt(tmp_path / n / "huggingface") for n in ("parts", "whole"))
    assert parts.bundle == whole.bundle
    assert timeless(parts) == timeless(whole)


def timeless(receipt: Receipt) -> dict[str, InstalledModel]:
    """The models by name, without times, which are no two runs' alike."""
    return {
        model.name: replace(model, files=tuple(replace(file, mtime_ns=0) for file in model.files))
        for model in receipt.models
    }


def test_unpacking_again_changes_no_receipt(bundle: Path, tmp_path: Path) -> None:
    unpack_below(tmp_path, bundle)
    before = tree(tmp_path)
    unpack_below(tmp_path, bundle)
    unpack_below(tmp_path, bundle, only=["other"])
    assert tree(tmp_path) == before


def test_each_bundle_has_a_receipt_of_its_own(bundle: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.tar.zst"
    make_bundle(second, {"other": OTHER})
    for path in (bundle, second):
        unpack_below(tmp_path / "root", path)
    receipts = {r.bundle: r for r in read_receipts(tmp_path / "root/huggingface")}
    assert set(receipts) == {bundler.inspect(path).digest for path in (bundle, second)}


def test_what_another_bundle_brought_is_not_found_but_bundlers_own(
    bundle: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second.tar.zst"
    make_bundle(second, {"other": OTHER, "org/mine": TINY})
    root, home = tmp_path / "root", tmp_path / "root/huggingface"
    write_cache(home / "hub", "org/mine", TINY)
    for path in (bundle, second, second):
        unpack_below(root, path)
    receipts = {r.bundle: r for r in read_receipts(home)}
    name = etag("config.json", OTHER["config.json"])
    mine = {etag(path, content): True for path, content in TINY.items()}
    assert found(receipts[bundler.inspect(second).digest]) == {name: False, **mine}


def test_a_model_whose_files_are_all_there_is_noted_too(tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.zst"
    make_bundle(path, {"org/tiny": TINY}, asked=("org/tiny", "org/tiny@v1.0"))
    root = tmp_path / "root"
    unpack_below(root, path, only=["org/tiny@v1.0"])
    (root / "huggingface/hub/models--org--tiny/refs/main").write_text(commit_hash(TINY))
    unpack_below(root, path)
    receipt = only_receipt(root / "huggingface")
    assert {model.spec for model in receipt.models} == {"org/tiny", "org/tiny@v1.0"}


def test_what_refs_and_listings_said_before_is_noted(bundle: Path, tmp_path: Path) -> None:
    repository = write_cache(tmp_path / "huggingface/hub", "other", {"old.txt": b""})
    for _ in range(2):
        unpack_below(tmp_path, bundle, only=["other"])
    (model,) = only_receipt(tmp_path / "huggingface").models
    said = {text.path.name: (text.text, text.before) for text in model.texts}
    commit = commit_hash(OTHER)
    assert said == {
        "main": (commit, commit_hash({"old.txt": b""})),
        f"{commit}.json": (None, None),
    }
    assert (repository / "refs/main").read_text() == commit


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_what_is_no_receipt_counts_as_absent(content: bytes, tmp_path: Path) -> None:
    path = receipt_path(tmp_path, RECEIPT.bundle)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert list(read_receipts(tmp_path)) == []
    write_receipt(tmp_path, RECEIPT)
    assert only_receipt(tmp_path) == RECEIPT


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_a_receipt_with_a_wrong_field_counts_as_absent(
    fields: dict[str, Any], tmp_path: Path
) -> None:
    write_receipt(tmp_path, RECEIPT)
    path = receipt_path(tmp_path, RECEIPT.bundle)
    document = json.loads(path.read_text())
    record = document if fields.keys() <= document.keys() else document["models"][0]
    assert fields.keys() <= record.keys()
    record |= fields
    path.write_text(json.dumps(document))
    assert list(read_receipts(tmp_path)) == []


def test_unpacking_over_garbage_writes_a_good_receipt(bundle: Path, tmp_path: Path) -> None:
    unpack_below(tmp_path, bundle)
    home = tmp_path / "huggingface"
    before = tree(home)
    digest = only_receipt(home).bundle
    shutil.rmtree(home / "hub")
    receipt_path(home, digest).write_text('{"receipt_version": 99}')
    unpack_below(tmp_path, bundle)
    assert tree(home) == before


def test_names_no_place_no_user_and_no_host(bundle: Path, tmp_path: Path) -> None:
    user = "a-user-of-some-name"
    home = tmp_path / user
    home.mkdir()
    env = {"USER": user, "LOGNAME": user}
    assert run("unpack", bundle, "--root", home / "root", home=home, env=env).code == 0
    ((path, (_, content, _)),) = tree(home / "root/huggingface/.bundler/receipts").items()
    assert path == f"{bundler.inspect(bundle).digest.hex}.json"
    texts = strings(json.loads(content))
    assert [text for text in texts if text.startswith(("/", "~")) or user in text] == []
    assert platform.node() not in texts


def strings(value: object) -> list[str]:
    """Every text in a JSON document, keys too."""
    if isinstance(value, dict):
        return [text for pair in value.items() for item in pair for text in strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


NO_RECEIPTS: dict[str, Callable[[Path], object]] = {
    "a pipe": fifo,
    "a folder": folder,
    "a negative size": lambda path: path.write_text(
        path.read_text().replace('"size": 2', '"size": -2')
    ),
    "one under the name of another": lambda path: path.rename(path.with_name("0" * 64 + ".json")),
}


@pytest.mark.parametrize("kind", NO_RECEIPTS)
def test_what_stands_for_a_receipt_and_is_none_counts_as_absent(kind: str, tmp_path: Path) -> None:
    bundle = tmp_path / "a.tar.zst"
    make_bundle(bundle, {"org/tiny": {"config.json": b"{}"}})
    unpack_below(tmp_path / "root", bundle)
    home = tmp_path / "root" / "huggingface"
    (receipt,) = read_receipts(home)
    NO_RECEIPTS[kind](receipt_path(home, receipt.bundle))
    assert list(read_receipts(home)) == []
    told = run("installed", "--root", "root", home=tmp_path)
    assert (told.code, "has installed nothing" in told.out) == (0, True)


def test_a_change_that_time_and_size_do_not_tell_is_found_by_hashing(
    bundle: Path, tmp_path: Path
) -> None:
    first = unpack_below(tmp_path, bundle)
    hub = first.roots.hub
    blob = hub / "models--org--tiny/blobs" / etag("model.safetensors", TINY["model.safetensors"])
    stamp = blob.stat().st_mtime_ns
    blob.write_bytes(b"WEIGHTS")
    os.utime(blob, ns=(stamp, stamp))
    run("unpack", str(bundle), "--root", str(tmp_path), home=tmp_path)
    assert blob.read_bytes() == b"WEIGHTS", "the receipt vouches for it"
    run("unpack", str(bundle), "--root", str(tmp_path), "--hash", home=tmp_path)
    assert blob.read_bytes() == TINY["model.safetensors"]
