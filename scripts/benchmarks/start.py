"""How long the command takes where it has next to nothing to do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.repository import repository_bundle
from benchmarks.results import Row, more
from benchmarks.rounds import Contestant, rounds
from benchmarks.runs import Settings, environment, shell

MODEL = "bench/start"
OFTEN = 4
"""Times as many rounds: they are short, and so vary."""
PYTHON = Contestant("python", (), {"-c pass": "python -c pass"})
BUNDLER = Contestant(
    "bundler",
    ("bundler",),
    {"--help": "bundler --help", "check": f'bundler check {MODEL} --root "$CACHES"'},
)


def start(settings: Settings, document: dict[str, Any]) -> list[Row]:
    """Beside a Python that does nothing; `check` of a model that is there."""
    data = settings.folder / "start"
    _make_model(data)
    caches = settings.folder / "caches"
    bundle = repository_bundle(settings, MODEL, data)
    shell(
        f'bundler unpack "{bundle}" --root "{caches}" --env offline.env',
        settings.folder,
        environment(settings.folder / "home"),
    )
    often = replace(settings, rounds=OFTEN * settings.rounds)
    figures = rounds([PYTHON, BUNDLER], data, often, {"CACHES": str(caches)})
    document["figures"]["start"] = figures.to_json()
    nothing = figures.seconds("python", "-c pass")
    return [
        more(f"bundler {step}", figures.seconds("bundler", step), "python -c pass", nothing, goal)
        for step, goal in (("--help", 0.15), ("check", 0.3))
    ]


def _make_model(folder: Path) -> None:
    """As little as makes a model."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    header = json.dumps({"weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})
    content = len(header).to_bytes(8, "little") + header.encode() + bytes(4)
    (folder / "model.safetensors").write_bytes(content)
