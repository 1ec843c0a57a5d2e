"""Small real models for libraries beside transformers, and what programs in `loaders` share.

    made = make("tables", folder)       # in a process of its own: no library enters pytest
    hub.add("acme/tiny", files_of(folder / "tiny"), kind="dataset")
    made["rows"]                        # the facts that whoever loads it must find again

`python tests/kinds.py KIND FOLDER` does the same and prints the facts as JSON.

Nothing heavy is imported before it is needed: the libraries live in several environments.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import traceback
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from models import Facts, weights_digest
from shared import made_once

TESTS = Path(__file__).parent
Case = Callable[[], Any]


@dataclass(frozen=True)
class Interpreter:
    """What runs programs that need some library: a Python, and a folder of more packages."""

    python: str = sys.executable
    packages: str | None = None

    @property
    def path(self) -> str:
        """The value for PYTHONPATH."""
        return os.pathsep.join(filter(None, [str(TESTS), self.packages]))


def vision() -> Interpreter | None:
    """One that has timm and torchvision, if the environment names any."""
    packages = os.environ.get("BUNDLER_TEST_VISION")
    return Interpreter(packages=packages) if packages and has("torch") else None


def insightface() -> Interpreter | None:
    """One that has insightface, if the environment names any."""
    python = os.environ.get("BUNDLER_TEST_PYTHON_INSIGHTFACE")
    return Interpreter(python) if python else None


def version(library: str, number: str) -> Interpreter | None:
    """One that has another version of a library, if the environment names a folder of such."""
    folder = os.environ.get("BUNDLER_TEST_VERSIONS")
    return Interpreter(packages=os.path.join(folder, f"{library}-{number}")) if folder else None


def has(*libraries: str) -> bool:
    """Whether these are installed beside pytest; they are not imported."""
    return all(find_spec(library) is not None for library in libraries)


def make(kind: str, folder: Path, interpreter: Interpreter | None = None) -> dict[str, Any]:
    """Make the models of a key of KINDS below `folder`; returns the facts about them."""
    with made_once(kind) as shared:
        facts = shared / "facts.json"
        if not facts.exists():
            facts.write_text(_made(kind, shared / "models", interpreter or Interpreter()), "utf-8")
        shutil.copytree(shared / "models", folder)
    made: dict[str, Any] = json.loads(facts.read_text("utf-8"))
    return made


def _made(kind: str, folder: Path, interpreter: Interpreter) -> str:
    """The facts as JSON."""
    folder.mkdir()
    process = subprocess.run(
        [interpreter.python, __file__, kind, folder],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONPATH": interpreter.path,
            "HF_HUB_OFFLINE": "1",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()[-1]


def answer(cases: Mapping[str, Case]) -> None:
    """Print, as JSON, what every case gives that the arguments name; without arguments, all.

    What fails gives its traceback, so that one failure hides no other.
    """
    found = {}
    for name in sys.argv[1:] or cases:
        try:
            found[name] = cases[name]()
        except Exception:
            found[name] = {"error": traceback.format_exc()}
    print(json.dumps(found))


# torchvision and timm.

TIMM = {
    "timm/hrnet_w18.ms_aug_in1k": "main",
    "timm/test_vit.r160_in1k": "main",
    "timm/test_vit.r160_in1k@v2": "v2",
    "timm/test_resnet.r160_in1k": "main",
}
"""Hub ids of the weights behind names of architectures, and the revision that they are at."""

GCVIT = (
    "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights-morevit/"
    "gcvit_xxtiny_224_nvidia-d1d86009.pth"
)
"""Where timm has weights that are not on the Hub."""

PYTORCH_NONCES = {
    "resnet50-0676ba61.pth": 1901873098,
    "resnet50-11ad3fa6.pth": 4405120404,
    "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth": 1268079696,
}
"""Checkpoints of PyTorch's own server, and the number that gives ours the sha256 in their names.

Each was found by trying numbers until 32 bits were right, which takes a minute or two in C.
"""

_declared: list[Any] = []


def vision_libraries() -> tuple[Any, Any]:
    """timm and torchvision, imported beside a torch for which torchvision may not be built.

    Its wheel on the index is made for CUDA. Beside another torch two operators of detection are
    missing, which torchvision wants to see declared, and which no test here runs.
    """
    try:
        torchvision = import_module("torchvision")
    except RuntimeError:
        torch = import_module("torch")
        declared = torch.library.Library("torchvision", "DEF")
        declared.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        declared.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(declared)  # They last as long as it does.
        torchvision = import_module("torchvision")
    return import_module("timm"), torchvision


def _vision(folder: Path) -> Facts:
    torch = import_module("torch")
    timm, torchvision = vision_libraries()
    found = {}
    for seed, name in enumerate([*TIMM, "gcvit_xxtiny.in1k"]):
        torch.manual_seed(seed)
        model = timm.create_model(name.partition("@")[0].removeprefix("timm/"))
        if name in TIMM:
            timm.models.save_for_hf(model, folder / name, safe_serialization=True)
        else:
            torch.save(model.state_dict(), folder / "gcvit.pth")
        found[name] = weights_digest(model)

    constructors = {"resnet50": torchvision.models.resnet50, "fasterrcnn_resnet50_fpn_coco": _rcnn}
    for number, (file, nonce) in enumerate(PYTORCH_NONCES.items(), 1):
        name, _, in_name = file.removesuffix(".pth").rpartition("-")
        model = constructors[name]()
        shapes = {
            name: tuple(value.shape)
            for name, value in model.state_dict().items()
            if value.dtype == torch.float32
        }
        content = _even_weights(shapes, float(number), nonce)
        digest = hashlib.sha256(content).hexdigest()
        assert digest.startswith(in_name), f"{file} has other bytes here than when it was made up"
        (folder / file).write_bytes(content)
        model.load_state_dict(torch.load(folder / file))
        if model.__class__.__name__ == "FasterRCNN":
            # With weights given it is made of parts that do not count batches.
            for part in model.modules():
                if hasattr(part, "num_batches_tracked"):
                    part.num_batches_tracked = None
        found[file] = weights_digest(model)

    # What a detector takes from another model's weights, and how.
    frozen = torchvision.ops.misc.FrozenBatchNorm2d
    body = torchvision.models.resnet50(norm_layer=frozen)
    body.load_state_dict(torch.load(folder / "resnet50-0676ba61.pth"))
    del body.fc
    found["body"] = weights_digest(body)
    return found


def _rcnn() -> Any:
    models = import_module("torchvision.models.detection")
    return models.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)


def _even_weights(shapes: Mapping[str, Sequence[int]], first: float, nonce: int) -> bytes:
    """A checkpoint for `torch.load` where all values of one tensor are the same.

    So it is small, whatever the shapes. The same arguments give the same bytes with every version
    of torch; `nonce` stands where no reader looks, and its purpose is the sha256 of the file.
    """
    empty = b"ccollections\nOrderedDict\n)R"
    storage = b"".join(
        [b"(", _text("storage"), b"ctorch\nFloatStorage\n", _text("0"), _text("cpu")]
    )
    storage += _number(len(shapes)) + b"tQ"
    pickled = b"\x80\x02" + empty + b"("
    for index, (name, shape) in enumerate(shapes.items()):
        strides = _numbers([0] * len(shape))
        pickled += _text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n("
        pickled += storage + _number(index) + _numbers(shape) + strides + b"\x89" + empty + b"tR"
    values = [first + index / 1024 for index in range(len(shapes))]
    members = {
        "data.pkl": pickled + b"u.",
        "byteorder": b"little",
        "data/0": struct.pack(f"<{len(values)}f", *values),
        "version": b"3\n",
    }
    # As many zeros before the nonce as have it searched in the last round of sha256.
    zeros = bytes((32 - len(_zip(members))) % 64)
    return _zip(members, zeros + nonce.to_bytes(8, "little"))


def _zip(members: Mapping[str, bytes], comment: bytes = b"") -> bytes:
    """An archive of members that are not compressed; the comment, on the last one, stands last."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(f"weights/{name}", (1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o600 << 16
            archive.writestr(entry, content)
        entry.comment = comment
    return file.getvalue()


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _number(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)


def _numbers(numbers: Sequence[int]) -> bytes:
    return b"(" + b"".join(map(_number, numbers)) + b"t"


# torch.hub, and single files.

DINOV2_WEIGHTS = "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth"
OTHER_WEIGHTS = "https://example.org/models/x.pth"

DINOV2 = {
    "hubconf.py": "dependencies = ['torch']\nfrom dinov2.hub.backbones import dinov2_vits14\n",
    "dinov2/__init__.py": "",
    "dinov2/hub/__init__.py": "",
    "dinov2/hub/backbones.py": f'''"""Much smaller than the real one."""
import torch


def dinov2_vits14(*, pretrained=True):
    model = torch.nn.Sequential(torch.nn.Linear(14, 32), torch.nn.GELU(), torch.nn.Linear(32, 8))
    if pretrained:
        model.load_state_dict(torch.hub.load_state_dict_from_url({DINOV2_WEIGHTS!r}))
    return model
''',
}
"""A repository like the real one: hubconf.py takes its entries from a package beside it."""


def nets(value: float) -> dict[str, str]:
    """A repository that needs no weights: its one entry gives a model of this value throughout."""
    code = f"""import torch


def tiny():
    model = torch.nn.Linear(4, 4)
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, {value!r})
    return model
"""
    return {"hubconf.py": code}


def _torch_files(folder: Path) -> Facts:
    torch = import_module("torch")
    found = {}
    repositories = {"dinov2": DINOV2, "nets": nets(2.0), "nets at v1.0": nets(1.0)}
    for seed, (name, files) in enumerate(repositories.items()):
        for path, text in files.items():
            (folder / name / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / name / path).write_text(text, "utf-8")
        entry, options = (
            ("dinov2_vits14", {"pretrained": False}) if name == "dinov2" else ("tiny", {})
        )
        torch.manual_seed(seed)
        model = torch.hub.load(str(folder / name), entry, source="local", **options)
        torch.save(model.state_dict(), folder / f"{name}.pth")
        found[name] = weights_digest(model)
    model = torch.nn.Linear(5, 3)
    torch.save(model.state_dict(), folder / "x.pth")
    found["x.pth"] = weights_digest(model)
    model = torch.nn.Linear(3, 5)
    import_module("safetensors.torch").save_file(model.state_dict(), folder / "head.safetensors")
    found["head.safetensors"] = weights_digest(model)
    return found


# insightface.


def _faces(folder: Path) -> Facts:
    """A detector that sees one face in every picture, and two models that look at that face.

    Sizes and numbers of inputs and outputs are those of the real ones: by them the library knows
    what each file is for (insightface/model_zoo/model_zoo.py, ModelRouter).
    """
    onnx, numpy = import_module("onnx"), import_module("numpy")
    random = numpy.random.default_rng(0)
    (folder / "pack").mkdir()

    def save(name: str, side: int, nodes: list[Any], values: dict[str, Any], out: Any) -> None:
        helper, kind = onnx.helper, onnx.TensorProto.FLOAT
        tensors = [
            onnx.numpy_helper.from_array(numpy.asarray(value, "float32"), name)
            for name, value in values.items()
        ]
        picture = helper.make_tensor_value_info("input", kind, [1, 3, side, side])
        outputs = [helper.make_tensor_value_info(name, kind, out[name]) for name in out]
        graph = helper.make_graph(nodes, name, [picture], outputs, tensors)
        # No newer format than an onnxruntime of some years ago can read.
        model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
        onnx.checker.check_model(model)
        onnx.save(model, folder / "pack" / name)

    def look(side: int, pool: int, width: int) -> tuple[list[Any], dict[str, Any], Any]:
        """Averages over squares, weighed."""
        node = onnx.helper.make_node
        nodes = [
            node("AveragePool", ["input"], ["small"], kernel_shape=[pool] * 2, strides=[pool] * 2),
            node("Flatten", ["small"], ["flat"]),
            node("Gemm", ["flat", "weights"], ["output"]),
        ]
        weights = random.standard_normal((3 * (side // pool) ** 2, width))
        return nodes, {"weights": weights}, {"output": [1, width]}

    save("w600k_r50.onnx", 112, *look(112, 16, 512))
    save("genderage.onnx", 96, *look(96, 32, 3))
    save("det_10g.onnx", 640, *_detector(onnx, random))
    return {"seen": faces_seen(name=str(folder / "pack"))}


def _detector(onnx: Any, random: Any) -> tuple[list[Any], dict[str, Any], dict[str, list[int]]]:
    """Nine outputs: score, box and five points at each place of three grids."""
    node = onnx.helper.make_node
    nodes = [node("ReduceMean", ["input"], ["mean"], axes=[1, 2, 3], keepdims=0)]
    values: dict[str, Any] = {}
    outputs: dict[str, list[int]] = {}
    for part, width in {"score": 1, "box": 4, "points": 10}.items():
        for stride in (8, 16, 32):
            name, places = f"{part}_{stride}", 2 * (640 // stride) ** 2
            value = random.uniform(0, 0.1, (places, width))
            if stride == 32:
                place = places // 2 + 20
                # In strides: a face of some 200 pixels, its eyes above and its mouth below.
                value[place] = {
                    "score": [0.9],
                    "box": [3, 3.5, 3, 3.5],
                    "points": [-1.2, -1, 1.1, -1.1, 0, 0.2, -0.9, 1.3, 1, 1.2],
                }[part]
            values |= {f"{name}_at_rest": value}
            outputs[name] = [places, width]
            nodes.append(node("Mul", ["mean", "little"], [f"{name}_moved"]))
            nodes.append(node("Add", [f"{name}_at_rest", f"{name}_moved"], [name]))
    return nodes, values | {"little": [0.01]}, outputs


def faces_seen(**where: str) -> list[dict[str, Any]]:
    """What FaceAnalysis with these arguments finds in a certain picture."""
    numpy, app = import_module("numpy"), import_module("insightface.app")
    analysis = app.FaceAnalysis(**where)
    analysis.prepare(ctx_id=-1, det_size=(640, 640))
    rows, columns = numpy.mgrid[:640, :640]
    picture = numpy.stack([rows // 3, columns // 3, (rows + columns) // 6], -1).astype("uint8")
    return [
        {
            "box": face.bbox.tolist(),
            "age": face.age,
            "sex": face.sex,
            "embedding": face.normed_embedding.tolist(),
        }
        for face in analysis.get(picture)
    ]


# datasets.

CARD = """---
license: mit
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
  - split: test
    path: data/test-*
---
# Tiny
"""


def _tables(folder: Path) -> Facts:
    """Two parts, one in two files, with values of several types."""
    datasets = import_module("datasets")
    rows = [
        {"text": f"row {n}: déjà vu", "label": n % 3, "score": n / 7, "tags": ["a", "b"][: n % 3]}
        for n in range(30)
    ]
    data = folder / "tiny" / "data"
    data.mkdir(parents=True)
    (folder / "tiny" / "README.md").write_text(CARD, "utf-8")
    parts = {
        "train-00000-of-00002": rows[:10],
        "train-00001-of-00002": rows[10:25],
        "test-00000-of-00001": rows[25:],
    }
    for name, part in parts.items():
        datasets.Dataset.from_list(part).to_parquet(data / f"{name}.parquet")
    return {"rows": {"train": rows[:25], "test": rows[25:]}}


# diffusers.


def _diffusion(folder: Path) -> Facts:
    """A pipeline of two parts, which makes pictures of 8 by 8 points in two steps."""
    torch, diffusers = import_module("torch"), import_module("diffusers")
    torch.manual_seed(0)
    model = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(4, 8),
        norm_num_groups=2,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    # Not the usual schedule: without its file the picture would be another one.
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=10, beta_schedule="squaredcos_cap_v2")
    pipeline = diffusers.DDPMPipeline(model, scheduler)
    pipeline.save_pretrained(folder / "tiny-ddpm")
    return {"tiny-ddpm": pictured(pipeline)}


def pictured(pipeline: Any) -> Facts:
    """The weights of a pipeline, and the picture that it makes."""
    noise = import_module("torch").manual_seed(1)
    picture = pipeline(generator=noise, num_inference_steps=2, output_type="np").images[0]
    return {
        "class": type(pipeline).__name__,
        "weights": weights_digest(pipeline.unet),
        "picture": [round(float(value), 4) for value in picture.flatten()],
    }


KINDS: Mapping[str, Callable[[Path], Facts]] = {
    "vision": _vision,
    "torch": _torch_files,
    "faces": _faces,
    "tables": _tables,
    "diffusion": _diffusion,
}

if __name__ == "__main__":
    print(json.dumps(KINDS[sys.argv[1]](Path(sys.argv[2]))))
