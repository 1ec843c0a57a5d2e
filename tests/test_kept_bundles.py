"""Bundles of every format version that was ever released, which later versions must still read.

`data/format-<n>.tar.zst` never changes; `data/format-<n>.json` beside it tells its id, its manifest
and the tree that it unpacks to. `format-1` was packed by the first release from `MODELS`, with

    bundler.pack(
        ["name", "org/other@v1"],
        "format-1.tar.zst",
        selection=bundler.Selection(exclude=("*.h5",)),
        sources=(MemorySource(MODELS, {"name": "org/name"}),),
    )

where MODELS holds `org/name`: `config.json` with `{"model_type": "made-up"}` and a newline, an
empty `empty.txt`, `sub/vocab.txt` with the lines `[UNK]` and `hello`, `model.safetensors` of 1.5
MiB of zeros, `tf_model.h5` with `left out`; and `org/other`: the same `sub/vocab.txt` as
`vocab.txt`.

`format-1-volumes` has the same bundle in volumes of 400 bytes, and their list.

`format-1-kinds` has every layout of the first release: `timm:hrnet_w18`, which lends the code of
`acme/code`, `dataset:acme/tiny` with its prepared form, `insightface:buffalo_l`,
`torchhub:facebookresearch/dinov2#dinov2_vits14` and a folder, `file:my-model`, all made up.

`format-2` builds on `format-1`: the first release that can pack so packed it from the same models,
but for `config.json` with `{"model_type": "made-up", "later": true}` and a newline, with

    bundler.pack(
        ["name", "org/other@v1"],
        "format-2.tar.zst",
        selection=bundler.Selection(exclude=("*.h5",), all_files=True),
        since=[bundler.read_listing("format-1.tar.zst")],
        sources=(MemorySource(MODELS, {"name": "org/name"}),),
    )

Its tree is that of both.

`format-1.tar.zst.sig` was made of the manifest of `format-1` by the first release that signs, with
a key of which only the public half was kept, in `format-1.pub.pem`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from bundle_builder import Pipe, tree_of

import bundler
from bundler.layouts import LAYOUTS
from bundler.manifest import Manifest

KEPT = sorted((Path(__file__).parent / "data").glob("format-*.tar.zst"))
DATA = Path(__file__).parent / "data"
BUILT_ON, BUILDING = DATA / "format-1.tar.zst", DATA / "format-2.tar.zst"
kept_bundles = pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.name.removesuffix(".tar.zst")) for path in KEPT]
)


def facts_of(path: Path) -> dict[str, Any]:
    """What is known of a kept bundle."""
    text = path.with_name(path.name.replace(".tar.zst", ".json")).read_text("utf-8")
    facts: dict[str, Any] = json.loads(text)
    return facts


def install(path: Path, roots: bundler.Roots, *, piped: bool = False) -> None:
    """Unpack a kept bundle, after the one that it builds on."""
    if path == BUILDING:
        bundler.unpack(BUILT_ON, roots=roots, env=None)
    source = Pipe(path.read_bytes()) if piped else path
    bundler.unpack(source, roots=roots, env=None)


def described_tree(folder: Path) -> dict[str, str]:
    """Every file and link below `folder`, in one line each."""
    return {
        path: f"-> {what}"
        if isinstance(what, str)
        else f"sha256:{hashlib.sha256(what).hexdigest()} {len(what)}"
        for path, what in sorted(tree_of(folder).items())
    }


def test_there_is_a_bundle_of_every_format_version() -> None:
    names = [path.name.removesuffix(".tar.zst") for path in KEPT]
    assert names == ["format-1-kinds", "format-1", "format-2"]
    layouts = {
        snapshot.layout for path in KEPT for snapshot in bundler.inspect(path).manifest.snapshots
    }
    assert layouts == {layout.name for layout in LAYOUTS}


@kept_bundles
def test_its_manifest_and_id_are_what_they_were(path: Path) -> None:
    facts, inspection = facts_of(path), bundler.inspect(path)
    assert str(inspection.digest) == facts["id"]
    assert json.loads(inspection.manifest_bytes) == facts["manifest"]
    assert Manifest.from_bytes(inspection.manifest_bytes).to_bytes() == inspection.manifest_bytes


@kept_bundles
def test_nothing_is_wrong_with_it(path: Path) -> None:
    assert bundler.verify(path).faults == ()


@kept_bundles
@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
def test_it_unpacks_to_the_same_tree(path: Path, piped: bool, tmp_path: Path) -> None:
    install(path, bundler.find_roots(root=tmp_path), piped=piped)
    tree = described_tree(tmp_path)
    receipts = {inner for inner in tree if inner.startswith("huggingface/.bundler/")}
    assert len(receipts) == (2 if path == BUILDING else 1)
    assert {inner: tree[inner] for inner in tree.keys() - receipts} == facts_of(path)["tree"]


@kept_bundles
def test_every_file_of_every_model_is_found_under_every_name(path: Path, tmp_path: Path) -> None:
    install(path, bundler.find_roots(root=tmp_path))
    snapshots = bundler.inspect(path).manifest.snapshots
    for snapshot in (s for s in snapshots if s.layout == "hf-cache"):
        for name in snapshot.names:
            called = f"{snapshot.kind}s--{name.replace('/', '--')}"
            folder = tmp_path / "huggingface/hub" / called
            commit_hash = (folder / f"refs/{snapshot.revision}").read_text()
            assert re.fullmatch("[0-9a-f]{40}", commit_hash)
            for entry in snapshot.files:
                content = (folder / "snapshots" / commit_hash / entry.path).read_bytes()
                assert hashlib.sha256(content).hexdigest() == entry.blob.digest.hex
                assert len(content) == entry.blob.size


def test_in_volumes_it_is_the_same_bundle(tmp_path: Path) -> None:
    whole = next(path for path in KEPT if path.name == "format-1.tar.zst")
    folder = whole.with_name("format-1-volumes")
    volumes = sorted(folder.glob("*.[0-9]*"))
    assert b"".join(path.read_bytes() for path in volumes) == whole.read_bytes()
    verification = bundler.verify(folder)
    assert (str(verification.digest), verification.faults) == (facts_of(whole)["id"], ())
    listed = (folder / "format-1.tar.zst.volumes").read_bytes()
    for path in volumes:
        line = f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        assert line.encode() in listed
    bundler.unpack(volumes[::-1], roots=bundler.find_roots(root=tmp_path), env=None)
    tree = described_tree(tmp_path)
    assert tree.items() >= facts_of(whole)["tree"].items()


def test_its_signature_is_accepted() -> None:
    path = BUILT_ON
    trusted = bundler.Trust.read([path.with_name("format-1.pub.pem")])
    hint = "f98086d0d29a65f88dd33557d79d658b845d2d6cd21594b4285829d7c0cf1918"
    assert bundler.inspect(path).claimed_key == hint
    signer = bundler.verify(path, trusted=trusted).signer
    assert signer is not None
    assert signer.hint == hint


def test_what_builds_on_another_is_nothing_alone(tmp_path: Path) -> None:
    before = bundler.inspect(BUILT_ON)
    with pytest.raises(bundler.TargetError, match=f"unpack the bundle {before.digest} to the same"):
        bundler.unpack(BUILDING, roots=bundler.find_roots(root=tmp_path), env=None)
    assert tree_of(tmp_path) == {}
    assert bundler.inspect(BUILDING).manifest.builds_on == (before.digest,)


@kept_bundles
def test_it_is_small_enough_to_be_kept(path: Path) -> None:
    assert os.path.getsize(path) < 10_000
