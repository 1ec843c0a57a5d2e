"""The catalogues: what the libraries themselves say, and what holds of them in any version."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from command import command_environment

from bundler.catalogues import catalogue
from bundler.relative import RelativePath

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "bundler" / "catalogues"
NAMES = ("timm", "torchhub", "torchvision", "weights_only")
DINOV2 = "facebookresearch/dinov2"
REFRESH = """\
import sys
sys.path.insert(0, sys.argv[1])
import refresh_catalogues
made = getattr(refresh_catalogues, sys.argv[2])()
sys.stdout.buffer.write(refresh_catalogues.text(made).encode())
"""


def urls(value: Any) -> Iterator[str]:
    """Every URL in a JSON value."""
    if isinstance(value, str):
        if "://" in value:
            yield value
    elif isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from urls(inner)


def basename(url: str) -> str:
    """The name under which torch.hub keeps what is at `url`."""
    return RelativePath(urlsplit(url).path).name


# torch.hub's catalogue is made from a checkout, which is not here.
@pytest.mark.parametrize(
    ("name", "also"), [("timm", ["torch", "torchvision"]), ("torchvision", ["torch"]),
                       ("weights_only", [])],
)  # fmt: skip
def test_a_catalogue_says_what_the_library_says(tmp_path: Path, name: str, also: list[str]) -> None:
    ((library, known),) = catalogue(name)["made_with"].items()
    # timm and torchvision are in a folder of their own: scripts/test.
    path = [os.environ.get("BUNDLER_TEST_VISION", ""), *sys.path]
    installed = {d.name: d.version.partition("+")[0] for d in distributions(path=path)}
    if missing := {library, *also} - installed.keys():
        pytest.skip(f"{', '.join(sorted(missing))} is not installed")
    if installed[library] != known:
        pytest.skip(f"made with {library} {known}, and {installed[library]} is installed")
    # In a process of its own, where warnings of the libraries are no errors.
    done = subprocess.run(
        [sys.executable, "-B", "-c", REFRESH, ROOT / "scripts", f"{name}_catalogue"],
        cwd=tmp_path,
        env={**command_environment(tmp_path), "PYTHONWARNINGS": "ignore", "PYTHONPATH": path[0]},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # If not: scripts/refresh_catalogues.py
    assert done.stdout == (FOLDER / f"{name}.json").read_text("utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_every_url_is_safe_to_follow_and_names_a_file(name: str) -> None:
    for url in urls(catalogue(name)):
        parts = urlsplit(url)
        assert (parts.scheme, parts.query, parts.fragment) == ("https", "", ""), url
        assert re.fullmatch(r"[\w.-]+\.(pth|pt|tar|bin|npz|safetensors)", basename(url)), url


@pytest.mark.parametrize("name", NAMES)
def test_a_catalogue_says_what_it_was_made_with(name: str) -> None:
    ((library, known),) = catalogue(name)["made_with"].items()
    assert library
    assert re.fullmatch(r"\d+(\.\d+)+|[0-9a-f]{40}", known)


def test_timm() -> None:
    timm = catalogue("timm")
    architectures: dict[str, list[str]] = timm["architectures"]
    full = {
        f"{architecture}.{tag}".rstrip(".")
        for architecture, tags in architectures.items()
        for tag in tags
    }
    assert all(architectures.values())
    assert len(full) == sum(map(len, architectures.values()))
    assert architectures["hrnet_w18"][0] == "ms_aug_in1k"

    assert len(timm["urls"]) == 19
    assert timm["urls"]["gcvit_tiny.in1k"].endswith("/gcvit_tiny_224_nvidia-ac783954.pth")
    assert full >= timm["urls"].keys() | timm["hub"].keys() | timm["files"].keys()
    assert not timm["urls"].keys() & (timm["hub"].keys() | timm["files"].keys())
    for name, repository in timm["hub"].items():
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", repository)
        assert repository != f"timm/{name}"
    assert timm["hub"]["davit_base_fl.msft_florence2"] == "microsoft/Florence-2-base"

    assert not timm["renamed"].keys() & architectures.keys()
    assert set(timm["renamed"].values()) <= full | architectures.keys()
    assert timm["renamed"]["convnext_tiny_in22ft1k"] == "convnext_tiny.fb_in22k_ft_in1k"


def test_torchvision() -> None:
    models: dict[str, dict[str, Any]] = catalogue("torchvision")["models"]
    known = {url for model in models.values() for url in model["weights"].values()}
    for name, model in models.items():
        assert model.keys() <= {"weights", "default", "pretrained", "backbone"}, name
        assert model["default"] in model["weights"], name
        assert {*model.get("pretrained", []), *urls(model.get("backbone"))} <= known, name
    # They all go to one folder.
    assert len({basename(url) for url in known}) == len(known)

    resnet50 = models["resnet50"]
    assert [basename(url) for url in resnet50["pretrained"]] == ["resnet50-0676ba61.pth"]
    assert resnet50["default"] == "IMAGENET1K_V2"
    assert basename(resnet50["weights"]["IMAGENET1K_V2"]) == "resnet50-11ad3fa6.pth"
    assert "backbone" not in resnet50
    assert basename(models["fasterrcnn_resnet50_fpn"]["backbone"]) == "resnet50-0676ba61.pth"
    # Without and with quantize=True.
    assert [basename(url) for url in models["quantized_resnet50"]["pretrained"]] == [
        "resnet50-0676ba61.pth",
        "resnet50_fbgemm_bf931d71.pth",
    ]
    # No weights of these are as old as `pretrained`.
    assert [name for name in models if "pretrained" not in models[name]] == [
        "regnet_y_128gf",
        "vit_h_14",
    ]


def test_torchhub() -> None:
    entries: dict[str, list[str]] = catalogue("torchhub")["repositories"][DINOV2]
    found = {entry: [basename(url) for url in asked] for entry, asked in entries.items()}
    assert found["dinov2_vits14"] == ["dinov2_vits14_pretrain.pth"]
    for size in "sblg":
        for registers, inner in (("", ""), ("_reg", "_reg4")):
            stem = f"dinov2_vit{size}14{inner}"
            backbone = f"{stem}_pretrain.pth"
            heads = [f"{stem}_linear4_head.pth", f"{stem}_linear_head.pth"]
            assert found[f"dinov2_vit{size}14{registers}"] == [backbone]
            assert found[f"dinov2_vit{size}14{registers}_lc"] == [backbone, *heads]


def test_weights_only() -> None:
    accepted: list[str] = catalogue("weights_only")["globals"]
    assert accepted == sorted(set(accepted))
    assert {"collections.OrderedDict", "torch._utils._rebuild_tensor_v2"} <= {*accepted}
    assert not {"builtins.eval", "builtins.getattr", "os.system"} & {*accepted}
