"""Caches of this machine in which nothing is wrong, one model of each kind, filled in four ways.

caches = Caches.make(folder)                  # packed, unpacked and downloaded: some seconds
root = caches.copied("hub", tmp_path)         # one to damage
"""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command import Ran, command_environment, run
from loopback_hub import LoopbackHub
from loopback_web import LoopbackWeb

Files = Mapping[str, bytes]

WAYS = ("bundler", "hub", "plain", "shared")
"""Unpacked by bundler; by huggingface_hub, with links, with files alone, with a shared store."""


def tensors(count: int = 64) -> bytes:
    """A file of one tensor, whole."""
    header = {"weight": {"dtype": "U8", "shape": [count], "data_offsets": [0, count]}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(range(256))[:count].ljust(count, b"\1")


def archive(files: Files) -> bytes:
    """A zip of these, as torch.save makes of a checkpoint and GitHub of a repository."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as writer:
        for path, data in files.items():
            writer.writestr(zipfile.ZipInfo(path, (2024, 1, 1, 0, 0, 0)), data)
    return content.getvalue()


def text(document: object) -> bytes:
    """A configuration file."""
    return json.dumps(document).encode()


CHECKPOINT = archive({"weights/data.pkl": b"\x80\x02}." * 40, "weights/data/0": bytes(999)})
TOKENIZER = {
    "tokenizer.json": text({"model": {"type": "WordPiece", "vocab": {"[UNK]": 0, "a": 1}}}),
    "tokenizer_config.json": text({"tokenizer_class": "BertTokenizer"}),
}
TINY = {
    "config.json": text({"model_type": "bert", "architectures": ["BertModel"]}),
    "model.safetensors": tensors(),
    **TOKENIZER,
}
SHARDS = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
RESNET18 = b"tensors26c4756b2"  # its sha256 starts as the file's name says
OTHER_CODE = {"AutoModel": "acme/lender--modeling_own.OwnModel"}
MODELS: dict[str, Files] = {
    "acme/tiny": TINY,
    "acme/sharded": {
        **TINY,
        **{name: tensors(number) for number, name in enumerate(SHARDS, 5)},
        "model.safetensors.index.json": text({"weight_map": dict(zip("abc", SHARDS, strict=True))}),
        "model.safetensors": b"",
    },
    "acme/old": {**TINY, "model.safetensors": b"", "pytorch_model.bin": CHECKPOINT},
    "timm/test_vit.r160_in1k": {"config.json": text({}), "model.safetensors": tensors(9)},
    "sentence-transformers/mini": {
        **TINY,
        "modules.json": text(
            [
                {"path": "", "type": "sentence_transformers.models.Transformer"},
                {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            ]
        ),
        "1_Pooling/config.json": text({"pooling_mode_mean_tokens": True}),
    },
    "acme/pipeline": {
        "model_index.json": text(
            {
                "_class_name": "StableDiffusionPipeline",
                "unet": ["diffusers", "UNet2DConditionModel"],
                "scheduler": ["diffusers", "DDIMScheduler"],
                "safety_checker": [None, None],
                "requires_safety_checker": False,
            }
        ),
        "unet/config.json": text({}),
        "unet/diffusion_pytorch_model.safetensors": tensors(17),
        "scheduler/scheduler_config.json": text({}),
    },
    "acme/adapter": {
        "adapter_config.json": text({"base_model_name_or_path": "acme/tiny"}),
        "adapter_model.safetensors": tensors(18),
    },
    "acme/borrower": {**TINY, "config.json": text({"model_type": "own", "auto_map": OTHER_CODE})},
    "acme/lender": {"modeling_own.py": b"class OwnModel: ...\n"},
}
MODELS = {n: {p: c for p, c in files.items() if c} for n, files in MODELS.items()}
ROWS = {"rows.csv": b"a,b\n1,2\n" * 9}
DEMO = {"app.py": b"print()\n", "README.md": b"# Demo\n"}
DINO = "facebookresearch/dinov2"
DINO_WEIGHTS = "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth"
X = "https://files.example/x.pth"

SPECS = {
    "hf": "acme/tiny",
    "sharded": "acme/sharded",
    "bin": "acme/old",
    "pipeline": "acme/pipeline",
    "adapter": "acme/adapter",
    "borrowed code": "acme/borrower",
    "dataset": "dataset:acme/rows",
    "space": "space:acme/demo",
    "timm": "timm:test_vit.r160_in1k",
    "sentence-transformers": "sentence-transformers:mini",
    "torchvision": "torchvision:resnet18",
    "torchhub": f"torchhub:{DINO}:main#dinov2_vits14",
    "torchhub without ref": f"torchhub:{DINO}#dinov2_vits14",
    "insightface": "insightface:buffalo_l",
    "https": X,
    "file": "file:plain",
}
"""The spec of one model of each kind; the last is of a plain folder."""

_DOWNLOAD = """
import json, sys
from huggingface_hub import snapshot_download
for kind, name in json.loads(sys.argv[1]):
    snapshot_download(name, repo_type=kind)
"""


@dataclass(frozen=True)
class Caches:
    """One folder for each of WAYS, and `bundle`, from which the first was unpacked."""

    folder: Path
    bundle: Path

    @classmethod
    def make(cls, folder: Path) -> Caches:
        """Fill them."""
        caches = cls(folder, folder / "bundle.tar.zst")
        with LoopbackHub() as hub, LoopbackWeb() as web:
            for name, files in MODELS.items():
                hub.add(name, files)
            hub.add("acme/rows", ROWS, kind="dataset")
            hub.add("acme/demo", DEMO, kind="space")
            web.add("https://download.pytorch.org/models/resnet18-f37072fd.pth", RESNET18)
            web.add(DINO_WEIGHTS, CHECKPOINT)
            web.add_repository(DINO, {"hubconf.py": b"dependencies = []\n"})
            web.add(X, CHECKPOINT)
            pack = archive({"det_10g.onnx": tensors(), "w600k_r50.onnx": tensors(9)})
            web.add_release("deepinsight/insightface", "model-zoo", "buffalo_l.zip", pack)
            write(folder / "plain", TINY)
            caches._pack(hub, web)
            caches.unpack("bundler")
            for way, variables in (("hub", {}), ("plain", {"HF_HUB_DISABLE_SYMLINKS": "1"})):
                caches._download(hub, way, variables)
        shutil.copytree(folder / "hub", folder / "shared", symlinks=True)
        _share_blobs(folder / "shared" / "huggingface" / "hub")
        return caches

    def copied(self, way: str, to: Path) -> Path:
        """A copy of one of them, below `to`."""
        return shutil.copytree(self.folder / way, to / "caches", symlinks=True)

    def unpack(self, root: Path | str) -> None:
        """Unpack the bundle below `root`."""
        unpacked = run("unpack", self.bundle, "--root", root, "--env", "env", home=self.folder)
        assert unpacked.code == 0, unpacked.err

    def _pack(self, hub: LoopbackHub, web: LoopbackWeb) -> None:
        specs = [spec for kind, spec in SPECS.items() if kind not in ("file",)]
        mirrors = [option for mirror in web.mirrors for option in ("--mirror", mirror)]
        packed = run(
            "pack", *specs, f"file:{self.folder}/plain", "-o", self.bundle, *mirrors,
            home=self.folder, env={"HF_ENDPOINT": hub.url},
        )  # fmt: skip
        assert packed.code == 0, packed.err

    def _download(self, hub: LoopbackHub, way: str, variables: Mapping[str, str]) -> None:
        root = self.folder / way
        wanted = [("model", name) for name in MODELS]
        wanted += [("dataset", "acme/rows"), ("space", "acme/demo")]
        environment = {"HF_HOME": str(root / "huggingface"), "HF_ENDPOINT": hub.url, **variables}
        subprocess.run(
            [sys.executable, "-c", _DOWNLOAD, json.dumps(wanted)],
            env={**command_environment(self.folder), **environment, "PYTHONWARNINGS": "ignore"},
            check=True,
            capture_output=True,
            timeout=120,
        )
        # What else there is looks alike, whoever has filled it.
        for other in ("torch", "insightface", "checkpoints", "huggingface/datasets"):
            shutil.copytree(self.folder / "bundler" / other, root / other, symlinks=True)


def checked(root: Path, *arguments: object, **options: Any) -> Ran:
    """`bundler check` of the caches below `root`, in a folder where nothing else is."""
    home = root.parent / "home"
    home.mkdir(exist_ok=True)
    return run("check", *arguments, "--root", root, home=home, **options)


def write(folder: Path, files: Files) -> Path:
    """Put files into a folder."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def _share_blobs(hub: Path) -> None:
    """Move large files to where huggingface_hub keeps those that came by xet."""
    for blob in [*hub.glob("*--*/blobs/*")]:
        if len(blob.name) == 64:
            place = hub / "blobs" / blob.name[::-1][:2] / blob.name[::-1]
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists():
                blob.rename(place)
            blob.unlink(missing_ok=True)
            blob.symlink_to(os.path.relpath(place, blob.parent))
    (hub / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
