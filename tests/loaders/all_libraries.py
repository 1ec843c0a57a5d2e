"""Load with every library in this one process, and print what each gave as JSON.

Last of all comes "lookups": the names of hosts that were looked up in Python. The arguments are
names of cases; without any, all are loaded.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from kinds import answer, pictured, vision_libraries
from models import Facts, weights_digest

lookups: list[str] = []


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Keep the host of an audit event that tells of a lookup."""
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        lookups.append(str(arguments[0]))


def masked_bert() -> Facts:
    """By transformers: the model, its tokenizer and a pipeline."""
    load = import_module("loaders.transformers_models").load
    facts: Facts = load("tiny-bert", "acme/tiny-bert", None)
    return facts


def embedding() -> list[float]:
    """By sentence-transformers."""
    values: list[float] = import_module("loaders.plain_folders").embedding("all-MiniLM-L6-v2")
    return values


def rows() -> Any:
    """By datasets."""
    return import_module("loaders.tables").rows("acme/tiny")


def picture() -> Facts:
    """By diffusers."""
    return pictured(import_module("diffusers").DiffusionPipeline.from_pretrained("acme/tiny-ddpm"))


def from_torch_hub() -> str:
    """By torch.hub, code and weights."""
    digest: str = import_module("loaders.torch_hub").digest(
        "facebookresearch/dinov2:main", "dinov2_vits14"
    )
    return digest


if __name__ == "__main__":
    sys.addaudithook(watch)
    # First: the others import torchvision by themselves, if they can.
    timm, torchvision = vision_libraries()
    answer(
        {
            "timm": lambda: weights_digest(timm.create_model("test_vit", pretrained=True)),
            "torchvision": lambda: weights_digest(torchvision.models.resnet50(pretrained=True)),
            "transformers": masked_bert,
            "sentence-transformers": embedding,
            "datasets": rows,
            "diffusers": picture,
            "torch.hub": from_torch_hub,
            "lookups": lambda: lookups,
        }
    )
