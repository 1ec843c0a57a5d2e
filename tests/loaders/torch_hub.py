"""Load models and single files with torch.hub, and print the digests of their weights as JSON.

The arguments are names of cases; without any, all are loaded.
"""

from __future__ import annotations

from typing import Any

import torch
from kinds import OTHER_WEIGHTS, answer
from models import weights_digest

hub: Any = torch.hub


def digest(repository: str, entry: str, **options: object) -> str:
    """Of what an entry of a repository gives."""
    return weights_digest(hub.load(repository, entry, **options))


def loaded_from(url: str) -> str:
    """Of what is at an address."""
    model = torch.nn.Linear(5, 3)
    model.load_state_dict(hub.load_state_dict_from_url(url))
    return weights_digest(model)


if __name__ == "__main__":
    answer(
        {
            "a branch": lambda: digest("facebookresearch/dinov2:main", "dinov2_vits14"),
            "no branch": lambda: digest("facebookresearch/dinov2", "dinov2_vits14"),
            "a tag": lambda: digest("acme/nets:v1.0", "tiny"),
            "master": lambda: digest("acme/nets:master", "tiny"),
            "no branch, and no main": lambda: digest("acme/nets", "tiny"),
            "a stranger, to be checked": lambda: digest(
                "acme/nets:master", "tiny", trust_repo="check"
            ),
            "an address": lambda: loaded_from(OTHER_WEIGHTS),
        }
    )
