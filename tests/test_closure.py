"""What a model needs from other repositories comes with it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from command import run
from loopback_hub import LoopbackHub
from loopback_upstream import LoopbackUpstream
from loopback_web import LoopbackWeb

import bundler

WEIGHTS = os.urandom(5_000)
MODEL = {"config.json": b"{}", "model.safetensors": WEIGHTS}
CODE = {"modeling.py": b"class Model: ...\n", "README.md": b"code alone"}
DEEP = b'{"auto_map": ' + b"[" * 100_000


class Upstream(LoopbackUpstream):
    def add(self, name: str, **documents: Any) -> None:
        """A model with some configuration files; `__` stands for a slash, and .json is added."""
        files = {
            f"{path.replace('__', '/')}.json": json.dumps(document).encode()
            for path, document in documents.items()
        }
        self.hub.add(name, {**MODEL, **files})


@pytest.fixture
def upstream(hub: LoopbackHub, web: LoopbackWeb, tmp_path: Path) -> Upstream:
    return Upstream(hub, web, tmp_path)


def names(plan: bundler.PackPlan | bundler.Manifest | bundler.Unpacked) -> set[str]:
    return {snapshot.name for snapshot in plan.snapshots}


def auto_map(*values: Any) -> dict[str, Any]:
    return {"auto_map": {f"Auto{number}": value for number, value in enumerate(values)}}


TIMM = "resnet50.a1_in1k"
NEEDS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "code of another": (
        {"config": auto_map("acme/code--modeling.Model", "acme/code--modeling.Config")},
        ["acme/code"],
    ),
    "a list with a gap": (
        {"tokenizer_config": auto_map([None, "acme/code--tokens.Fast"])},
        ["acme/code"],
    ),
    "a slow and a fast tokenizer": (
        {"tokenizer_config": auto_map(["acme/code--tokens.Slow", "acme/base--tokens.Fast"])},
        ["acme/base", "acme/code"],
    ),
    "code of a processor": (
        {"processor_config": auto_map("acme/code--p.P"), "preprocessor_config": {}},
        ["acme/code"],
    ),
    "own code": ({"config": auto_map("modeling.Model", None)}, []),
    "own code by the full name": ({"config": auto_map("acme/model--modeling.Model")}, []),
    "an adapter": ({"adapter_config": {"base_model_name_or_path": "acme/base"}}, ["acme/base"]),
    "an adapter without a revision": (
        {"adapter_config": {"base_model_name_or_path": "acme/base", "revision": None}},
        ["acme/base"],
    ),
    "an adapter at a revision": (
        {"adapter_config": {"base_model_name_or_path": "acme/base", "revision": "v1"}},
        ["acme/base@v1"],
    ),
    "an adapter without a base": ({"adapter_config": {"base_model_name_or_path": None}}, []),
    "a timm backbone": (
        {"config": {"backbone": TIMM, "use_timm_backbone": True}},
        [f"timm:{TIMM}"],
    ),
    "a timm backbone inside": (
        {"config": {"backbone_config": {"backbone": TIMM, "model_type": "timm_backbone"}}},
        [f"timm:{TIMM}"],
    ),
    "a backbone to be trained": (
        {
            "config": {
                "backbone": TIMM,
                "use_timm_backbone": True,
                "use_pretrained_backbone": False,
            }
        },
        [],
    ),
    "a backbone inside to be trained": (
        {
            "config": {
                "backbone_config": {
                    "backbone": TIMM,
                    "model_type": "timm_backbone",
                    "use_pretrained_backbone": False,
                }
            }
        },
        [],
    ),
    "a backbone of the hub": (
        {"config": {"backbone": "acme/base", "use_pretrained_backbone": True}},
        ["acme/base"],
    ),
    "a backbone by a word alone": ({"config": {"backbone": "acme/base"}}, []),
    "parts of a pipeline": (
        {
            "modular_model_index": {
                "_class_name": "Pipeline",
                "unet": ["diffusers", "UNet", {"pretrained_model_name_or_path": "acme/base"}],
                "vae": ["diffusers", "VAE", {"repo": "acme/code", "revision": None}],
                "text": ["transformers", "T5", {"repo": "acme/base", "revision": "v1"}],
                "none": [None, None, {"pretrained_model_name_or_path": None}],
                "here": ["diffusers", "Scheduler"],
            }
        },
        ["acme/base", "acme/base@v1", "acme/code"],
    ),
    "an adapter in a part": (
        {
            "model_index": {"unet": ["diffusers", "UNet"]},
            "unet__adapter_config": {"base_model_name_or_path": "acme/base"},
        },
        ["acme/base"],
    ),
    "code in a part": (
        {"modules": [], "0_Transformer__config": auto_map("acme/code--m.M")},
        ["acme/code"],
    ),
    "a folder that is no part": ({"old__config": auto_map("acme/code--m.M")}, []),
    "another file": ({"generation_config": auto_map("acme/code--m.M")}, []),
    "nothing": ({"config": {"model_type": "bert"}}, []),
}


@pytest.mark.parametrize("case", NEEDS)
def test_a_model_needs(upstream: Upstream, case: str) -> None:
    documents, needs = NEEDS[case]
    upstream.hub.add("acme/code", CODE)
    upstream.hub.add("acme/base", MODEL).tag("v1")
    upstream.hub.add(f"timm/{TIMM}", MODEL)
    upstream.add("acme/model", **documents)
    packed = upstream.pack("acme/model")
    found = {s.name: s for s in packed.manifest.snapshots}
    assert sorted(found["acme/model"].needs) == needs
    wanted = {need.partition("@")[0].replace("timm:", "timm/") for need in needs}
    assert set(found) == {"acme/model", *wanted}
    for need in needs:
        plan = bundler.plan_unpack(upstream.bundle, only=[need], roots=_roots(upstream))
        assert names(plan) == {need.partition("@")[0].replace("timm:", "timm/")}


def _roots(upstream: Upstream) -> bundler.Roots:
    return bundler.find_roots({}, root=upstream.folder / "roots")


def test_the_base_of_an_adapter_comes_at_its_revision(upstream: Upstream) -> None:
    base = upstream.hub.add("acme/base", MODEL)
    base.tag("v1")
    first = base.commit
    base.commit_files({"config.json": b'{"later": 1}'})
    adapter = {"base_model_name_or_path": "acme/base", "revision": "v1"}
    upstream.add("acme/model", adapter_config=adapter)
    found = {s.name: s for s in upstream.plan("acme/model").snapshots}
    assert (found["acme/base"].revision, found["acme/base"].commit_hash) == ("v1", first)


@pytest.mark.parametrize(
    "place", ["/home/me/model", "./out", "../base", "C:\\models\\base", "~/base", "a/b/c", " "]
)
def test_a_place_on_the_authors_machine_is_noted(upstream: Upstream, place: str) -> None:
    upstream.add("acme/model", adapter_config={"base_model_name_or_path": place})
    plan = upstream.plan("acme/model")
    (note,) = plan.notes
    assert "acme/model" in note
    assert "adapter_config.json" in note
    assert names(plan) == {"acme/model"}
    assert [s.needs for s in plan.snapshots] == [()]


def test_a_chain_comes_to_its_end(upstream: Upstream) -> None:
    upstream.add("acme/a", config=auto_map("acme/b--m.M"))
    upstream.add("acme/b", adapter_config={"base_model_name_or_path": "acme/c"})
    upstream.add("acme/c", config={"backbone": TIMM, "use_timm_backbone": True})
    upstream.hub.add(f"timm/{TIMM}", MODEL)
    assert names(upstream.plan("acme/a")) == {"acme/a", "acme/b", "acme/c", f"timm/{TIMM}"}


def test_a_chain_is_not_cut_in_silence(upstream: Upstream) -> None:
    for number in range(12):
        upstream.add(f"acme/m{number}", config=auto_map(f"acme/m{number + 1}--m.M"))
    upstream.hub.add("acme/m12", CODE)
    try:
        plan = upstream.plan("acme/m0")
    except bundler.RequestError:
        return  # too long a chain may be refused
    assert names(plan) == {f"acme/m{number}" for number in range(13)}


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_cycle_ends(upstream: Upstream, length: int) -> None:
    for number in range(length):
        following = (number + 1) % length
        upstream.add(f"acme/m{number}", config=auto_map(f"acme/m{following}--m.M"))
    packed = upstream.pack("acme/m0")
    assert names(packed.manifest) == {f"acme/m{number}" for number in range(length)}
    plan = bundler.plan_unpack(upstream.bundle, only=["acme/m0"], roots=_roots(upstream))
    assert names(plan) == names(packed.manifest)


def test_what_two_models_need_comes_once(upstream: Upstream) -> None:
    upstream.hub.add("acme/code", {**MODEL, **CODE})
    for name in ("acme/a", "acme/b"):
        upstream.add(name, config=auto_map("acme/code--m.M"))
    plan = upstream.plan("acme/a", "acme/b", "acme/code@main", "acme/a")
    assert sorted(s.name for s in plan.snapshots) == ["acme/a", "acme/b", "acme/code"]


def test_what_is_needed_under_an_old_name_is_found_by_it(upstream: Upstream) -> None:
    upstream.hub.add("acme/new", CODE, aliases=["acme/old"])
    upstream.add("acme/model", config=auto_map("acme/old--m.M"))
    upstream.pack("acme/model")
    plan = bundler.plan_unpack(upstream.bundle, only=["acme/model"], roots=_roots(upstream))
    assert {snapshot.names for snapshot in plan.snapshots} == {
        ("acme/model",),
        ("acme/old", "acme/new"),
    }


def test_globs_are_not_for_what_is_needed(upstream: Upstream) -> None:
    upstream.hub.add("acme/code", CODE)
    upstream.add("acme/model", config=auto_map("acme/code--m.M"))
    selection = bundler.Selection(exclude=("*.py", "*.md"))
    found = {s.name: s for s in upstream.plan("acme/model", selection=selection).snapshots}
    assert {file.path for file in found["acme/code"].files} == {"modeling.py"}


def test_without_closure_a_model_comes_alone(upstream: Upstream) -> None:
    upstream.add("acme/model", config=auto_map("acme/gone--m.M"))
    env = {"HF_ENDPOINT": upstream.hub.url}
    done = run("pack", "acme/model", "--no-closure", home=upstream.folder, env=env)
    assert (done.code, done.err) == (0, "")
    (snapshot,) = bundler.inspect(upstream.bundle).manifest.snapshots
    assert (snapshot.name, snapshot.needs) == ("acme/model", ())


def test_only_one_model_is_unpacked_with_what_it_needs(upstream: Upstream) -> None:
    upstream.hub.add("acme/code", CODE)
    upstream.hub.add("acme/other", {**MODEL, "config.json": b"[]"})
    base = upstream.hub.add("acme/base", MODEL)
    base.tag("v1")
    base.commit_files({"config.json": b'{"later": 1}'})
    adapter = {"base_model_name_or_path": "acme/base", "revision": "v1"}
    upstream.add("acme/model", config=auto_map("acme/code--m.M"), adapter_config=adapter)
    upstream.pack("acme/model", "acme/other", "acme/base")
    roots = _roots(upstream)
    done = bundler.unpack(upstream.bundle, only=["acme/model"], roots=roots, env=None)
    assert [(s.name, s.revision) for s in done.snapshots] == [
        ("acme/base", "v1"),
        ("acme/code", "main"),
        ("acme/model", "main"),
    ]
    assert sorted(path.name for path in roots.hub.glob("models--*")) == [
        "models--acme--base",
        "models--acme--code",
        "models--acme--model",
    ]


def test_a_needed_model_that_is_gone_is_named(upstream: Upstream) -> None:
    upstream.add("acme/model", config=auto_map("acme/gone--m.M"))
    env = {"HF_ENDPOINT": upstream.hub.url}
    done = run("pack", "acme/model", home=upstream.folder, env=env)
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert "acme/gone" in done.err
    assert not upstream.bundle.exists()


def test_what_needs_it_is_named_too(upstream: Upstream) -> None:
    """Nobody has typed the name of what is gone."""
    upstream.add("acme/model", config=auto_map("acme/gone--m.M"))
    with pytest.raises(bundler.BundlerError, match="acme/model"):
        upstream.plan("acme/model")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not json", id="no JSON"),
        pytest.param(b'{"auto_map": ', id="cut"),
        pytest.param(b"\xff\xfe\x00", id="no text"),
        pytest.param(b'["acme/gone--m.M"]', id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param(b"7", id="a number"),
        pytest.param(DEEP, id="deep"),
        pytest.param(DEEP + b"]" * 100_000 + b"}", id="deep and whole"),
        pytest.param(b'{"auto_map": 7, "backbone": [], "backbone_config": "x"}', id="wrong types"),
        pytest.param(b'{"auto_map": {"a": {"b": "acme/gone--m.M"}, "c": 1}}', id="wrong depth"),
        pytest.param(b'{"auto_map": {"A": "acme/gone--m.M"}}' + b" " * 2_000_000, id="huge"),
    ],
)
def test_a_configuration_that_makes_no_sense_needs_nothing(
    upstream: Upstream, content: bytes
) -> None:
    files = {
        "config.json": content,
        "adapter_config.json": content,
        "tokenizer_config.json": content,
        "modular_model_index.json": content,
        "model.safetensors": WEIGHTS,
    }
    upstream.hub.add("acme/model", files)
    packed = upstream.pack("acme/model")
    (snapshot,) = packed.manifest.snapshots
    assert (snapshot.needs, packed.notes) == ((), ())
    assert {str(entry.path): entry.blob.digest for entry in snapshot.files} == _digests(files)


def _digests(files: Mapping[str, bytes]) -> dict[str, bundler.Digest]:
    return {path: bundler.Digest.of(content) for path, content in files.items()}


def test_a_number_too_long_to_be_read_needs_nothing(upstream: Upstream) -> None:
    upstream.hub.add("acme/model", {**MODEL, "config.json": b'{"n": ' + b"9" * 10_000 + b"}"})
    assert names(upstream.plan("acme/model")) == {"acme/model"}


def test_a_dataset_needs_nothing(upstream: Upstream) -> None:
    document = json.dumps(auto_map("acme/gone--m.M")).encode()
    upstream.hub.add("acme/rows", {"config.json": document}, kind="dataset")
    assert names(upstream.plan("dataset:acme/rows")) == {"acme/rows"}
