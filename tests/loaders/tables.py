"""Load a dataset, and print all of its rows as JSON.

The arguments are names of cases; without any, all are loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from huggingface_hub import snapshot_download
from kinds import answer

load_dataset = import_module("datasets").load_dataset


def rows(*arguments: str, **options: str) -> Any:
    """The rows of each split, or of the only one."""
    loaded = load_dataset(*arguments, **options)
    if "split" in options:
        return list(loaded)
    return {split: list(table) for split, table in loaded.items()}


if __name__ == "__main__":
    answer(
        {
            "its name": lambda: rows("acme/tiny"),
            "one split": lambda: rows("acme/tiny", split="test"),
            "its files": lambda: rows(snapshot_download("acme/tiny", repo_type="dataset")),
        }
    )
