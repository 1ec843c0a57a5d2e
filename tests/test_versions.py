"""One unpacked cache loads with many versions of the libraries, silently, to the last byte."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kinds
import models
import pytest
from kinds import Interpreter
from loopback_hub import LoopbackHub
from loopback_web import LoopbackWeb
from models import Files, digests_of, files_of, second_copies
from network_trace import network_calls
from target import Target, Wanted, carry, listed

TODAY = "of today"
"""The version that is installed beside pytest."""

HUBS = (
    "0.23.5",
    "0.36.2",  # the last before 1.0, and beneath transformers 4
    "1.5.0",  # knows no CACHEDIR.TAG yet
    "1.20.1",  # asks a network whenever it makes headers
    "1.25.1",  # misses every file that trees/ lists and snapshots/ has not
    "1.33.0",  # knows of blobs that repositories share
    "2.0.0",  # has another web client
    TODAY,
)
"""Versions of huggingface_hub, each with something that those before it have not."""

TRANSFORMERS = ("4.57.6", TODAY)
"""Versions of transformers; the former with a huggingface_hub before 1.0."""


def interpreter(library: str, number: str) -> Interpreter:
    """What has this version of a library; skips where no other versions are set up."""
    if number == TODAY:
        return Interpreter()
    found = kinds.version(library, number)
    if found is None:
        pytest.skip("BUNDLER_TEST_VERSIONS names no folder with other versions of libraries")
    return found


def number_of(library: str, number: str) -> str:
    """The version that must have been at work."""
    return version(library) if number == TODAY else number


PLAIN_FILES: Files = {
    "config.json": b'{"model_type": "plain"}',
    "model.safetensors": bytes(range(256)) * 1000,
    "1_Pooling/config.json": b"{}",
    "some text (1).txt": b"text\n" * 500,
    "empty.txt": b"",
}
NEWER_FILES: Files = PLAIN_FILES | {"model.safetensors": bytes(range(1, 256)) * 1000}
TABLE: Files = {"data/train.parquet": b"PAR1" + bytes(5000), "README.md": b"# rows\n"}
# A data set and a space are carried whole: here these names are no second copies.
PAGE: Files = {"app.py": b"print('hello')\n", "tf_model.h5": b"\x89HDF", "model.safetensors": b"st"}

FILES_OF_REPOSITORIES: Mapping[str, Files] = {
    "a model under its own name": PLAIN_FILES,
    "a renamed model under its former name": PLAIN_FILES,
    "a renamed model under its name of today": PLAIN_FILES,
    "a model whose weights come in several formats": PLAIN_FILES,
    "main": NEWER_FILES,
    "a branch": PLAIN_FILES | {"empty.txt": b"no more"},
    "a tag": PLAIN_FILES,
    "a pull request": PLAIN_FILES | {"config.json": b"{}"},
    "a commit": PLAIN_FILES,
    "a short commit": PLAIN_FILES,
    "a data set": TABLE,
    "a space": PAGE,
}


# What transformers 4 loads as 5 does. Of what 5 has saved it reads no sentencepiece tokenizer
# without more packages, and a pipeline generates at its own length: t5 and gpt2 are left out.
MODELS = ("tiny-bert", "plain-bert", "tiny-clip", "tiny-wav2vec2", "own-code")
TORCH_HUB = {"a branch": "dinov2", "an address": "x.pth"}


@dataclass(frozen=True)
class Carried:
    """A target that holds plain files and real models, and the ways to ask for the files."""

    target: Target
    repositories: Wanted
    made: Mapping[str, Any]


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory, air_gap: tuple[str, ...]) -> Carried:
    """Repositories of every kind, and models if they can be made, carried over in one bundle."""
    folder = tmp_path_factory.mktemp("versions")
    with LoopbackHub() as hub, LoopbackWeb() as web:
        repositories, specs = add_repositories(hub)
        made: dict[str, Any] = {}
        if kinds.has("torch", "transformers"):
            made, more = add_models(hub, web, folder)
            specs += more
        target = carry(hub, specs, folder, air_gap, web.mirrors)
    return Carried(target, repositories, made)


def add_repositories(hub: LoopbackHub) -> tuple[Wanted, list[str]]:
    """Plain files: the ways to ask huggingface_hub for them, and bundler."""
    hub.add("acme/plain", PLAIN_FILES)
    hub.add("google-bert/bert-base-uncased", PLAIN_FILES, aliases=["bert-base-uncased"])
    hub.add("acme/many-formats", second_copies(PLAIN_FILES))
    history = hub.add("acme/history", PLAIN_FILES)
    first = history.commit
    history.tag("v1.0")
    history.commit_files({"empty.txt": b"no more"}, branch="next/one")
    history.commit_files({"config.json": b"{}"}, branch="refs/pr/1")
    history.commit_files(NEWER_FILES)
    hub.add("acme/rows", TABLE, kind="dataset")
    hub.add("acme/page", PAGE, kind="space")
    revisions = {
        "a branch": "next/one",
        "a tag": "v1.0",
        "a pull request": "refs/pr/1",
        "a commit": first,
        "a short commit": first[:7],
    }
    wanted: Wanted = {
        "a model under its own name": ["model", "acme/plain", None],
        "a renamed model under its former name": ["model", "bert-base-uncased", None],
        "a renamed model under its name of today": ["model", "google-bert/bert-base-uncased", None],
        "a model whose weights come in several formats": ["model", "acme/many-formats", None],
        "main": ["model", "acme/history", None],
        **{case: ["model", "acme/history", revision] for case, revision in revisions.items()},
        "a data set": ["dataset", "acme/rows", None],
        "a space": ["space", "acme/page", None],
    }
    specs = ["acme/plain", "bert-base-uncased", "acme/many-formats", "acme/history"]
    specs += [f"acme/history@{revision}" for revision in revisions.values()]
    return wanted, [*specs, "dataset:acme/rows", "space:acme/page"]


def add_models(
    hub: LoopbackHub, web: LoopbackWeb, folder: Path
) -> tuple[dict[str, Any], list[str]]:
    """Real models: the facts about them, and the ways to ask bundler for them."""
    made: dict[str, Any] = models.make(folder / "made", MODELS)
    for name in MODELS:
        hub.add(f"acme/{name}", second_copies(files_of(folder / "made" / name)))
    made |= kinds.make("torch", folder / "torch")
    code = {path: text.encode() for path, text in kinds.DINOV2.items()}
    web.add_repository("facebookresearch/dinov2", code)
    web.add(kinds.DINOV2_WEIGHTS, folder / "torch" / "dinov2.pth")
    web.add(kinds.OTHER_WEIGHTS, folder / "torch" / "x.pth")
    specs = [f"acme/{name}" for name in MODELS]
    return made, [*specs, "torchhub:facebookresearch/dinov2#dinov2_vits14", kinds.OTHER_WEIGHTS]


# huggingface_hub alone: it finds every file under every name and revision that was packed.


@pytest.fixture(scope="module", params=HUBS)
def found(
    carried: Carried, tracer: tuple[str, ...], request: pytest.FixtureRequest
) -> dict[str, Any]:
    """What one version of huggingface_hub finds on the target."""
    answers = carried.target.load(
        "hub_files.py",
        listed(carried.repositories),
        interpreter=interpreter("huggingface_hub", request.param),
        tracer=tracer,
    )
    assert answers["version"] == number_of("huggingface_hub", request.param)
    return answers


@pytest.mark.parametrize("case", FILES_OF_REPOSITORIES)
def test_every_hub_version_finds_the_very_bytes_offline(case: str, found: dict[str, Any]) -> None:
    """snapshot_download and hf_hub_download agree, and so does every sha256."""
    assert found[case] == digests_of(FILES_OF_REPOSITORIES[case])


def test_no_hub_version_complains_about_the_cache(found: dict[str, Any]) -> None:
    """A cache that bundler made is as sound as one that was downloaded."""
    assert found["warnings"] == []


def test_every_ref_is_forty_bytes_that_name_a_snapshot(carried: Carried) -> None:
    """A newline at its end would hide the model from most readers."""
    cache = carried.target.hub_cache
    refs = {
        path.relative_to(cache): path.read_bytes()
        for path in cache.glob("*/refs/**/*")
        if path.is_file()
    }
    history = Path("models--acme--history", "refs")
    revisions = ("main", "v1.0", "next/one", "refs/pr/1")
    assert {history / name for name in revisions} <= refs.keys()
    for path, content in refs.items():
        assert re.fullmatch(rb"[0-9a-f]{40}", content)
        assert (cache / path.parts[0] / "snapshots" / content.decode()).is_dir()


def test_every_link_is_relative_and_leads_to_something(carried: Carried) -> None:
    """So the cache may be moved, or mounted elsewhere."""
    cache = carried.target.hub_cache
    links = [path for path in cache.rglob("*") if path.is_symlink()]
    assert cache / "models--google-bert--bert-base-uncased" in links
    assert [link for link in links if not link.exists() or os.readlink(link).startswith("/")] == []


# transformers and torch.hub: what they load equals what was saved, to the last bit.


@pytest.fixture(scope="module", params=TRANSFORMERS)
def loaded(
    carried: Carried, tracer: tuple[str, ...], request: pytest.FixtureRequest
) -> dict[str, Any]:
    """What one version of transformers makes of every model."""
    if not carried.made:
        pytest.skip("torch or transformers is not installed")
    wanted: Wanted = {name: [name, f"acme/{name}", None] for name in MODELS}
    answers = carried.target.load(
        "transformers_models.py",
        listed(wanted),
        interpreter=interpreter("transformers", request.param),
        tracer=tracer,
    )
    assert answers["version"] == number_of("transformers", request.param)
    return answers


@pytest.mark.parametrize("model", MODELS)
def test_every_transformers_version_loads_what_was_saved(
    model: str, carried: Carried, loaded: dict[str, Any]
) -> None:
    """Every weight, every token, and what a pipeline answers."""
    assert loaded[model] == carried.made[model]


def test_torch_hub_loads_from_the_same_root(carried: Carried, tracer: tuple[str, ...]) -> None:
    """Code with its weights, and weights by their address."""
    if not carried.made:
        pytest.skip("torch is not installed")
    loaded = carried.target.load("torch_hub.py", *TORCH_HUB, tracer=tracer)
    assert loaded == {case: carried.made[name] for case, name in TORCH_HUB.items()}


def test_no_version_calls_the_network(carried: Carried, tracer: tuple[str, ...]) -> None:
    """Not one lookup, connection or message of all that ran here, native code included."""
    if not tracer:
        pytest.skip("strace is not there or not allowed")
    assert network_calls(tracer) == []
