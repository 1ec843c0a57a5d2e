"""Load from plain folders and files, and what has a short name; print the facts as JSON.

The arguments are names of cases; without any, all are loaded.
"""

from __future__ import annotations

from typing import Any

import torch
from kinds import answer
from models import weights_digest
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer


def embedding(name: str) -> list[float]:
    """What a model makes of "hello world"."""
    return [float(value) for value in SentenceTransformer(name).encode("hello world")]


def digest(model: torch.nn.Module, weights: Any) -> str:
    """Of a model once it has these weights."""
    model.load_state_dict(weights)
    return weights_digest(model)


if __name__ == "__main__":
    answer(
        {
            "a short name": lambda: embedding("all-MiniLM-L6-v2"),
            "a folder of parts": lambda: embedding("./checkpoints/all-MiniLM-L6-v2"),
            "a checkpoint": lambda: digest(
                torch.nn.Linear(5, 3), torch.load("./checkpoints/x.pth")
            ),
            "a mapped checkpoint": lambda: digest(
                torch.nn.Linear(5, 3), torch.load("./checkpoints/x.pth", mmap=True)
            ),
            "a file of one's own": lambda: digest(
                torch.nn.Linear(3, 5), load_file("./checkpoints/head.safetensors")
            ),
        }
    )
