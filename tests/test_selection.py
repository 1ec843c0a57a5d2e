"""Which files of a repository are carried: the rules, and repositories as they really look."""

from __future__ import annotations

import pytest
from memory_source import Content

from bundler.errors import RequestError
from bundler.remote import RemoteFile, RemoteSnapshot
from bundler.selection import Selection, second_copies, select

TOKENIZER = ["tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"]
PLAIN = ["README.md", "LICENSE", ".gitattributes", "config.json", *TOKENIZER]


def repository(paths: list[str], kind: str = "model") -> RemoteSnapshot:
    """A repository with these files, of no content."""
    files = tuple(RemoteFile(path, Content(path, b"\0", path), size=1) for path in paths)
    return RemoteSnapshot("hf", "acme/model", "hf-cache", files, kind=kind)


def left_out(paths: list[str], kind: str = "model", selection: Selection = Selection()) -> set[str]:
    """The paths that are left out."""
    chosen = select(repository(paths, kind), selection)
    return {item.path for item in chosen.omitted}


KEPT_WITHOUT_EXCEPTION = [
    "modeling_custom.py",
    "onnx/convert.py",
    "1_Pooling/config.json",
    "modules.json",
    "chat_template.jinja",
    "additional_chat_templates/tool.jinja",
    "generation_config.json",
    "preprocessor_config.json",
    "model.safetensors.index.json",
    "sentencepiece.bpe.model",
    "colbert_linear.pt",
    "training_args.bin",
    "2_Dense/pytorch_model.bin",
    "yolox_l.onnx",
]

REPOSITORIES = [
    pytest.param(
        ["model.safetensors"],
        ["pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "rust_model.ot", "model.onnx",
         "coreml/fill-mask/float32_model.mlpackage/Data/com.apple.CoreML/model.mlmodel"],
        id="bert-base-uncased",
    ),
    pytest.param(["pytorch_model.bin"], ["tf_model.h5", "flax_model.msgpack"], id="no safetensors"),
    pytest.param(
        ["model.safetensors"],
        ["64.tflite", "64-8bits.tflite", "onnx/decoder_model.onnx", "onnx/config.json",
         "onnx/decoder_with_past_model.onnx", "pytorch_model.bin", "tf_model.h5"],
        id="gpt2",
    ),
    pytest.param(
        ["model.safetensors", "1_Pooling/config.json", "modules.json"],
        ["pytorch_model.bin", "tf_model.h5", "onnx/model_O1.onnx", "onnx/model.onnx_data",
         "openvino/openvino_model.xml", "openvino/openvino_model.bin", "rust_model.ot"],
        id="all-MiniLM-L6-v2",
    ),
    pytest.param(
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
         "model.safetensors.index.json"],
        ["pytorch_model-00001-of-00003.bin", "pytorch_model-00002-of-00003.bin",
         "pytorch_model-00003-of-00003.bin", "pytorch_model.bin.index.json",
         "original/consolidated.00.pth", "original/tokenizer.model", "consolidated.safetensors"],
        id="sharded, with an original",
    ),
    pytest.param(
        ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin",
         "pytorch_model.bin.index.json", "model-00001-of-00002.safetensors"],
        [],
        id="a shard of the safetensors is missing",
    ),
    pytest.param(
        ["model_index.json", "unet/diffusion_pytorch_model.safetensors",
         "unet/diffusion_pytorch_model.fp16.safetensors", "vae_decoder/model.onnx",
         "text_encoder/model.safetensors", "unet/diffusion_pytorch_model.non_ema.bin"],
        ["unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.fp16.bin",
         "unet/diffusion_flax_model.msgpack", "unet/model.onnx", "text_encoder/pytorch_model.bin"],
        id="diffusers",
    ),
    pytest.param(["open_clip_model.safetensors"], ["open_clip_pytorch_model.bin"], id="open_clip"),
    pytest.param(["adapter_model.safetensors"], ["adapter_model.bin"], id="an adapter"),
    pytest.param(["model.safetensors"], ["model-q4.gguf"], id="quantised beside"),
    pytest.param(["model-q4.gguf", "model-q8.gguf"], [], id="quantised alone"),
    pytest.param(["onnx/model.onnx", "onnx/model_quantized.onnx"], [], id="onnx alone"),
    pytest.param(["tf_model.h5"], [], id="tensorflow alone"),
    pytest.param(["flax_model.msgpack", "tf_model.h5"], [], id="neither is the other's copy"),
    pytest.param(["body.pth", "hand.pth", "model.onnx"], [], id="a collection of other models"),
    pytest.param(["model.safetensors"], ["bert_model.ckpt.index", "bert_model.ckpt.meta",
                 "bert_model.ckpt.data-00000-of-00001"], id="tensorflow checkpoint"),
]  # fmt: skip


@pytest.mark.parametrize(("kept", "dropped"), REPOSITORIES)
def test_second_copies_are_left_out(kept: list[str], dropped: list[str]) -> None:
    assert left_out([*PLAIN, *kept, *dropped]) == set(dropped)


@pytest.mark.parametrize(("kept", "dropped"), REPOSITORIES)
def test_every_omission_has_a_reason_and_a_size(kept: list[str], dropped: list[str]) -> None:
    chosen = select(repository([*PLAIN, *kept, *dropped]), Selection())
    assert all(item.reason and item.size == 1 for item in chosen.omitted)


@pytest.mark.parametrize("path", KEPT_WITHOUT_EXCEPTION)
def test_what_libraries_read_is_always_kept(path: str) -> None:
    assert left_out(["model.safetensors", "pytorch_model.bin", path]) == {"pytorch_model.bin"}


@pytest.mark.parametrize(("kept", "dropped"), REPOSITORIES)
def test_what_is_kept_repeats_nothing(kept: list[str], dropped: list[str]) -> None:
    assert second_copies([*PLAIN, *kept]) == {}


@pytest.mark.parametrize("kind", ["dataset", "space"])
def test_only_models_have_second_copies(kind: str) -> None:
    assert left_out(["model.safetensors", "pytorch_model.bin"], kind) == set()


class TestWhatTheUserSays:
    PATHS = ("config.json", "model.safetensors", "pytorch_model.bin", "onnx/model.onnx")

    @pytest.mark.parametrize(
        ("selection", "kept"),
        [
            pytest.param(Selection(all_files=True), PATHS, id="all files"),
            pytest.param(Selection(include=("*.bin",)), PATHS[2:3], id="include beats the default"),
            pytest.param(Selection(include=("onnx/",)), PATHS[3:], id="a folder"),
            pytest.param(Selection(include=("*.onnx",)), PATHS[3:], id="a star takes slashes"),
            pytest.param(
                Selection(exclude=("*.json",)), PATHS[1:2], id="exclude adds to the default"
            ),
            pytest.param(
                Selection(all_files=True, exclude=("*.bin", "onnx/")), PATHS[:2], id="all files but"
            ),
            pytest.param(
                Selection(include=("*.bin", "*.json"), exclude=("config*",)),
                PATHS[2:3],
                id="exclude beats include",
            ),
        ],
    )
    def test_it_overrules(self, selection: Selection, kept: tuple[str, ...]) -> None:
        assert left_out(list(self.PATHS), selection=selection) == set(self.PATHS) - set(kept)

    def test_nothing_left_is_an_error_that_names_the_model(self) -> None:
        with pytest.raises(RequestError, match="nothing is left of acme/model"):
            left_out(list(self.PATHS), selection=Selection(include=("*.gguf",)))
