"""Whatever the configuration files of a model say: looking at it ends with an answer."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from healthy_caches import tensors, text
from limits import IN_MEMORY
from memory_source import commit_hash
from mutated_manifests import at, places
from trees import write_cache

import bundler
from bundler.closure import closure
from bundler.environment import Roots
from bundler.ways import ways

PART = {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
DOCUMENTS: Mapping[str, Any] = {
    "config.json": {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "auto_map": {"AutoModel": "acme/lender--modeling.Own", "AutoConfig": ["a.B", None]},
        "backbone": "resnet18",
        "use_timm_backbone": True,
        "backbone_config": {"backbone": "x", "use_pretrained_backbone": True},
    },
    "tokenizer_config.json": {"tokenizer_class": "ByT5Tokenizer"},
    "preprocessor_config.json": {"auto_map": {"AutoProcessor": "a.B"}},
    "modules.json": [{"path": "", "type": "sentence_transformers.models.Transformer"}, PART],
    "model_index.json": {
        "_class_name": "Pipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": [None, None],
        "other": ["diffusers", "Other", {"pretrained_model_name_or_path": "a/b", "revision": "x"}],
    },
    "adapter_config.json": {"base_model_name_or_path": "a/b", "revision": "main"},
    "model.safetensors.index.json": {"weight_map": {"a": "model-1.safetensors", "b": "../x"}},
    "unet/config.json": {"_class_name": "UNet2DConditionModel"},
}
WHOLE = {"model.safetensors": tensors(), "vocab.txt": b"a"}
BESIDE = {
    "weights": ("model.safetensors",),
    "all the rest": (*WHOLE, *DOCUMENTS),
}
LISTING = {
    "format_version": 1,
    "files": {
        "config.json": {"size": 2, "blob_id": "e1"},
        "model.safetensors": {"size": 5, "blob_id": "e2", "lfs_sha256": "0" * 64, "lfs_size": 5},
    },
}
INFO = {
    "dataset_name": "rows",
    "builder_name": "parquet",
    "splits": {"train": {"name": "train", "shard_lengths": [1, 2]}, "test": {}},
}


ODD: tuple[Any, ...] = (
    None, True, -1, "", "../x", "a--b\0", "\ud800", [], [[]], ["x"], [{}], {"x": {"": []}}
)  # fmt: skip


def with_one_odd_value(document: Any) -> Iterator[Any]:
    """The document with each of its values replaced by each odd one, then by none."""
    whole = {"": document}
    for *above, key in places(whole):
        for odd in ODD:
            changed = copy.deepcopy(whole)
            at(changed, tuple(above))[key] = odd
            yield changed[""]
        changed = copy.deepcopy(whole)
        del at(changed, tuple(above))[key]
        yield changed.get("")


def look_at(spec: str, roots: Roots) -> None:
    """Check the model, and find out how it would be loaded."""
    answer = bundler.check([spec], roots=roots, digests=True)
    json.dumps(answer.to_json())
    for model in answer.models:
        for way in ways(model, roots):
            json.dumps(dict(way.arguments))


@pytest.mark.parametrize("odd", DOCUMENTS)
@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_a_repository_is_checked_whatever_a_file_says(odd: str, beside: Sequence[str]) -> None:
    with TemporaryDirectory(dir=IN_MEMORY) as name:
        roots = bundler.find_roots(root=Path(name))
        files = {path: WHOLE.get(path) or text(DOCUMENTS[path]) for path in {odd, *beside}}
        folder = write_cache(roots.hub, "org/model", files, links=False)
        snapshot = folder / "snapshots" / commit_hash(files)
        for document in with_one_odd_value(DOCUMENTS[odd]):
            (snapshot / odd).write_bytes(text(document))
            for spec in ("org/model", "sentence-transformers:org/model", f"file:{snapshot}"):
                look_at(spec, roots)
            needs = closure(
                ["org/model"], dict.fromkeys(files, 1), lambda p: (snapshot / p).read_bytes()
            )
            assert all(need.spec for need in needs.needs)


def test_a_repository_is_checked_whatever_its_list_of_files_says() -> None:
    with TemporaryDirectory(dir=IN_MEMORY) as name:
        roots = bundler.find_roots(root=Path(name))
        files = {"config.json": b"{}", "model.safetensors": tensors(), "vocab.txt": b"a"}
        folder = write_cache(roots.hub, "org/model", files)
        trees = folder / "trees" / f"{commit_hash(files)}.json"
        trees.parent.mkdir()
        for document in with_one_odd_value(LISTING):
            trees.write_bytes(text(document))
            look_at("org/model", roots)


def test_a_prepared_dataset_is_checked_whatever_is_said_of_it() -> None:
    with TemporaryDirectory(dir=IN_MEMORY) as name:
        roots = bundler.find_roots(root=Path(name))
        folder = roots.datasets / "org___rows/default/0.0.0/abc"
        folder.mkdir(parents=True)
        for document in with_one_odd_value(INFO):
            (folder / "dataset_info.json").write_bytes(text(document))
            look_at("dataset:org/rows", roots)
