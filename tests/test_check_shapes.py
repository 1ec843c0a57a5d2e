"""Repositories of odd shapes, all of them whole: `bundler check` finds nothing wrong with any."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from command import command_environment
from healthy_caches import CHECKPOINT, DEMO, TINY, TOKENIZER, Files, checked, tensors, text
from loopback_hub import LoopbackHub
from models import SECOND_COPIES, files_of, make
from trees import write_cache

CONFIG = text({"model_type": "x", "architectures": ["X"]})
WEIGHTS = tensors(40)
KIND = "sentence_transformers.models."
SHARDED = {
    **{f"model-0000{number}-of-00002.safetensors": tensors(number) for number in (1, 2)},
    "model.safetensors.index.json": text(
        {"weight_map": {f"w{n}": f"model-0000{n}-of-00002.safetensors" for n in (1, 2)}}
    ),
}


def tokenizer(name: str, *files: str) -> Files:
    """A model whose tokenizer is of this class, and made of these files."""
    config = {"tokenizer_config.json": text({"tokenizer_class": name})}
    vocabularies = dict.fromkeys(files, b"a b c\n")
    return {"config.json": CONFIG, "model.safetensors": WEIGHTS, **config, **vocabularies}


SHAPES: dict[str, Files] = {
    "GGUF alone": {"tiny.Q4_K_M.gguf": b"GGUF", "README.md": b""},
    "GGUF in parts": {f"tiny-0000{n}-of-00002.gguf": b"GGUF" for n in (1, 2)},
    "GGUF and a configuration": {"config.json": CONFIG, "tiny.gguf": b"GGUF"},
    "ONNX alone": {"config.json": CONFIG, "onnx/model_quantized.onnx": b"o", **TOKENIZER},
    "ONNX with data outside": {"model.onnx": b"o", "model.onnx_data": b"d"},
    "TensorFlow alone": {"config.json": CONFIG, "tf_model.h5": b"h"},
    "Flax alone": {"config.json": CONFIG, "flax_model.msgpack": b"f"},
    "Core ML alone": {"x.mlpackage/Data/weights/weight.bin": b"w"},
    "sklearn": {"model.joblib": b"j", "config.json": text({})},
    "fastText": {"model.bin": b"w", "README.md": b""},
    "CTranslate2": {"model.bin": b"w", "config.json": text({}), "vocabulary.json": b"[]"},
    "pyannote": {"pytorch_model.bin": CHECKPOINT, "config.yaml": b"a: 1"},
    "speechbrain": {"hyperparams.yaml": b"a: 1", "embedding_model.ckpt": b"legacy pickle"},
    "open_clip": {"open_clip_pytorch_model.bin": CHECKPOINT, "open_clip_config.json": text({})},
    "consolidated alone": {"consolidated.00.pth": CHECKPOINT, "params.json": text({}),
                           "tokenizer.model": b"t"},
    "weights of another name": {"bigvgan_generator.pt": CHECKPOINT, "config.json": text({})},
    "an old pickle": {"config.json": CONFIG, "pytorch_model.bin": b"\x80\x02\x8a\nl\xfc"},
    "weights in a large file": {"weights.dat": bytes(1 << 21)},
    "mlx": {"config.json": CONFIG, **SHARDED, **TOKENIZER},
    "sharded in both formats, of which one was wanted": {
        "config.json": CONFIG, **SHARDED,
        "pytorch_model.bin.index.json": text({"weight_map": {"a": "pytorch_model-00001-of.bin"}}),
    },
    "variants": {"config.json": CONFIG, "model.fp16.safetensors": WEIGHTS},
    "ByT5": tokenizer("ByT5Tokenizer"),
    "Canine": tokenizer("CanineTokenizer"),
    "Whisper": tokenizer("WhisperTokenizer", "vocab.json", "merges.txt", "normalizer.json"),
    "CLIP": tokenizer("CLIPTokenizer", "vocab.json", "merges.txt"),
    "wav2vec2": tokenizer("Wav2Vec2CTCTokenizer", "vocab.json"),
    "sentencepiece": tokenizer("XLMRobertaTokenizer", "sentencepiece.bpe.model"),
    "Llama": tokenizer("LlamaTokenizer", "tokenizer.model"),
    "Mistral": tokenizer("LlamaTokenizer", "tokenizer.model.v3"),
    "tekken": tokenizer("X", "tekken.json"),
    "Marian": tokenizer("MarianTokenizer", "source.spm", "target.spm", "vocab.json"),
    "Qwen": tokenizer("QWenTokenizer", "qwen.tiktoken"),
    "ProphetNet": tokenizer("ProphetNetTokenizer", "prophetnet.tokenizer"),
    "FSMT": tokenizer("FSMTTokenizer", "vocab-src.json", "vocab-tgt.json", "merges.txt"),
    "a tokenizer of its own": {
        "config.json": CONFIG, "model.safetensors": WEIGHTS, "tokenization_x.py": b"",
        "tokenizer_config.json": text({"auto_map": {"AutoTokenizer": ["tokenization_x.X", None]}}),
    },
    "custom code": {
        "config.json": text({"auto_map": {"AutoModel": "modeling_x.X"}}), "modeling_x.py": b"",
        "model.safetensors": WEIGHTS,
    },
    "an adapter to a path": {
        "adapter_config.json": text({"base_model_name_or_path": "/home/me/base"}),
        "adapter_model.bin": CHECKPOINT,
    },
    "an adapter to nothing that could be": {
        "adapter_config.json": text({"base_model_name_or_path": "a--b", "revision": "x y\n"}),
        "adapter_model.bin": CHECKPOINT,
    },
    "a backbone that nobody knows": {
        "config.json": text({"use_timm_backbone": True, "backbone": "newer_than_this"}),
        "model.safetensors": WEIGHTS,
    },
    "a pipeline with parts that are none": {
        "model_index.json": text({
            "_class_name": "P", "_diffusers_version": "1", "safety_checker": [None, None],
            "feature_extractor": ["transformers", "CLIPImageProcessor"],
            "tokenizer": ["transformers", "CLIPTokenizer"], "image_encoder": [None, None],
            "vae": ["diffusers", "AutoencoderKL"], "requires_safety_checker": True,
        }),
        "feature_extractor/preprocessor_config.json": text({}),
        "tokenizer/config.json": text({}), "tokenizer/vocab.json": b"{}",
        "tokenizer/merges.txt": b"", "tokenizer/tokenizer_config.json": text({}),
        "vae/config.json": text({}), "vae/diffusion_pytorch_model.bin": CHECKPOINT,
    },
    "a pipeline of ONNX": {
        "model_index.json": text({"unet": ["diffusers", "OnnxRuntimeModel"]}),
        "unet/model.onnx": b"o", "unet/weights.pb": b"p",
    },
    "sentence-transformers with Dense": {
        **TINY, "1_Pooling/config.json": text({}), "2_Dense/config.json": text({}),
        "2_Dense/model.safetensors": WEIGHTS, "3_Normalize/x": b"",
        "modules.json": text([{"path": p, "type": KIND + t} for p, t in (
            ("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"),
            ("3_Normalize", "Normalize"))]),
    },
    "sentence-transformers of old": {
        **{f"0_Transformer/{path}": content for path, content in TINY.items()},
        "1_Pooling/config.json": text({}),
        "modules.json": text([{"path": "0_Transformer", "type": KIND + "Transformer"},
                              {"path": "1_Pooling", "type": KIND + "Pooling"}]),
    },
    "files that are no JSON": {**TINY, "modules.json": b"\xff", "generation_config.json": b"["},
    "names of all sorts": {**TINY, "a b'c\"$d/é\n\x1b.txt": b"x"},
}  # fmt: skip


@pytest.mark.parametrize("links", [True, False], ids=["links", "files"])
def test_nothing_is_wrong_with_odd_shapes(tmp_path: Path, links: bool) -> None:
    hub = tmp_path / "caches" / "huggingface" / "hub"
    names = {shape: f"acme/x{number}" for number, shape in enumerate(SHAPES)}
    for shape, files in SHAPES.items():
        write_cache(hub, names[shape], files, links=links)
    done = checked(tmp_path / "caches", *names.values(), "--hash")
    shape_of = {name: shape for shape, name in names.items()}
    assert [shape_of.get(line.split()[1], line) for line in done.err.splitlines()] == []
    assert done.code == 0
    assert "\x1b" not in done.out
    assert len([line for line in done.out.splitlines() if line[:5] == "acme/"]) == len(SHAPES)
    assert "on its author's machine" in done.out
    assert "newer_than_this" in done.out


def test_nothing_is_wrong_with_models_of_timm_and_spaces(tmp_path: Path) -> None:
    hub = tmp_path / "caches" / "huggingface" / "hub"
    write_cache(hub, "timm/test_vit.r160_in1k", {"model.safetensors": WEIGHTS})
    write_cache(hub, "timm/test_resnet.r160_in1k", {"pytorch_model.bin": CHECKPOINT})
    write_cache(hub, "acme/demo", DEMO).rename(hub / "spaces--acme--demo")
    specs = ("timm:test_vit.r160_in1k", "timm:test_resnet.r160_in1k", "space:acme/demo")
    done = checked(tmp_path / "caches", *specs)
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("kind", ["tokenizer", "data", "weights", "one file"])
def test_plain_paths_may_be_anything(tmp_path: Path, kind: str) -> None:
    shapes: Mapping[str, Files] = {
        "tokenizer": TOKENIZER,
        "data": {"a.csv": b"1"},
        "weights": {"model.safetensors": WEIGHTS},
        "one file": {"x.pth": CHECKPOINT},
    }
    home = tmp_path / "home"
    for path, content in shapes[kind].items():
        (home / "plain" / path).parent.mkdir(parents=True, exist_ok=True)
        (home / "plain" / path).write_bytes(content)
    inner = "plain/x.pth" if kind == "one file" else "plain"
    done = checked(tmp_path / "caches", f"file:{inner}", f"file:~/{inner}")
    assert (done.code, done.err) == (0, "")


LOAD = """
import sys
from transformers import AutoModel, AutoTokenizer
AutoModel.from_pretrained(sys.argv[1])
AutoTokenizer.from_pretrained(sys.argv[1])
"""


def test_what_libraries_have_downloaded_themselves_is_whole(tmp_path: Path) -> None:
    """Without the files that they have no use for, though the list of files names these."""
    pytest.importorskip("transformers")
    make(tmp_path / "made", ["tiny-bert", "tiny-t5"])
    caches = tmp_path / "caches" / "huggingface"
    with LoopbackHub() as hub:
        for name in ("tiny-bert", "tiny-t5"):
            more = {"README.md": b"# Tiny\n", "train_script.py": b"", ".gitattributes": b"*"}
            hub.add(f"acme/{name}", files_of(tmp_path / "made" / name) | SECOND_COPIES | more)
            subprocess.run(
                [sys.executable, "-c", LOAD.replace("AutoModel", "AutoModelForSeq2SeqLM")
                 if name == "tiny-t5" else LOAD, f"acme/{name}"],
                env={**command_environment(tmp_path), "HF_HOME": str(caches),
                     "HF_ENDPOINT": hub.url, "PYTHONWARNINGS": "ignore",
                     "DISABLE_SAFETENSORS_CONVERSION": "1"},
                check=True, capture_output=True, timeout=120,
            )  # fmt: skip
    for name in ("tiny-bert", "tiny-t5"):
        folder = caches / "hub" / f"models--acme--{name}"
        assert not [*folder.glob("snapshots/*/README.md")]
    done = checked(tmp_path / "caches", "acme/tiny-bert", "acme/tiny-t5")
    assert (done.code, done.err) == (0, ""), done.err
    if [*caches.glob("hub/*/trees/*")]:
        assert "snapshot_download without patterns would fail" in done.out
