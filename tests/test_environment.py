"""Where caches are looked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from bundler.environment import find_roots

BOTH_PROGRAM = """
import json, os
from huggingface_hub import constants
from bundler.environment import find_roots
roots = find_roots()
print(json.dumps([
    [os.path.abspath(constants.HF_HOME), os.path.abspath(constants.HF_HUB_CACHE)],
    [str(roots.hf_home), str(roots.hub)],
]))
"""

ENVIRONMENTS = {
    "nothing": {},
    "a home": {"HF_HOME": "/data/hf"},
    "a home below ~": {"HF_HOME": "~/hf"},
    "a home below a variable": {"HF_HOME": "$DATA/hf", "DATA": "/data"},
    "a home below a variable in braces": {"HF_HOME": "/x/${DATA}y", "DATA": "data"},
    "a home below an unknown variable": {"HF_HOME": "/data/$MISSING/hf"},
    "a relative home": {"HF_HOME": "data/hf"},
    "a home with dots and slashes": {"HF_HOME": "/data//x/../hf/"},
    "a home with a space": {"HF_HOME": "/data/my models"},
    "a cache folder": {"XDG_CACHE_HOME": "/data/cache"},
    "a cache folder below ~": {"XDG_CACHE_HOME": "~/elsewhere"},
    "a cache folder below a variable": {"XDG_CACHE_HOME": "$DATA/c", "DATA": "/data"},
    "a home and a cache folder": {"HF_HOME": "/data/hf", "XDG_CACHE_HOME": "/data/cache"},
    "a hub": {"HF_HUB_CACHE": "/data/hub"},
    "a hub below ~": {"HF_HUB_CACHE": "~/hub"},
    "a hub below a variable": {"HF_HUB_CACHE": "$DATA/hub", "DATA": "/data"},
    "a hub and a home": {"HF_HUB_CACHE": "/data/hub", "HF_HOME": "/data/hf"},
    "an old hub": {"HUGGINGFACE_HUB_CACHE": "/data/old"},
    "an old hub below ~": {"HUGGINGFACE_HUB_CACHE": "~/old"},
    "an old hub and a home": {"HUGGINGFACE_HUB_CACHE": "/data/old", "HF_HOME": "/data/hf"},
    "an old and a new hub": {"HUGGINGFACE_HUB_CACHE": "/data/old", "HF_HUB_CACHE": "/data/hub"},
    "an old hub and a cache folder": {
        "HUGGINGFACE_HUB_CACHE": "/data/old",
        "XDG_CACHE_HOME": "/data/cache",
    },
}
TORCH_ENVIRONMENTS = {
    "nothing": ({}, "/home/u/.cache/torch"),
    "a home": ({"TORCH_HOME": "/data/torch"}, "/data/torch"),
    "a home below ~": ({"TORCH_HOME": "~/torch"}, "/home/u/torch"),
    "a cache folder": ({"XDG_CACHE_HOME": "/data/cache"}, "/data/cache/torch"),
    "both": ({"TORCH_HOME": "/data/torch", "XDG_CACHE_HOME": "/data/cache"}, "/data/torch"),
}
EVERYTHING = {
    "HF_HOME": "/set/hf",
    "HF_HUB_CACHE": "/set/hub",
    "HUGGINGFACE_HUB_CACHE": "/set/old",
    "XDG_CACHE_HOME": "/set/cache",
    "TORCH_HOME": "/set/torch",
    "HF_DATASETS_CACHE": "/set/data",
    "HOME": "/home/me",
}
OPTIONS = {
    "a root": (
        {"root": "/r"},
        {
            "hf_home": "/r/huggingface",
            "hub": "/r/huggingface/hub",
            "torch_home": "/r/torch",
            "datasets": "/r/huggingface/datasets",
            "insightface": "/r/insightface",
            "checkpoints": "/r/checkpoints",
        },
    ),
    "a Hugging Face home": (
        {"hf_home": "/h"},
        {"hf_home": "/h", "hub": "/h/hub", "datasets": "/h/datasets", "torch_home": "/set/torch"},
    ),
    "a torch home": (
        {"torch_home": "/t"},
        {"hf_home": "/set/hf", "hub": "/set/hub", "datasets": "/set/data", "torch_home": "/t"},
    ),
    "a root and homes": (
        {"root": "/r", "hf_home": "/h", "torch_home": "/t", "insightface": "/i"},
        {"hub": "/h/hub", "torch_home": "/t", "insightface": "/i", "checkpoints": "/r/checkpoints"},
    ),
    "a root and a torch home": (
        {"root": "/r", "torch_home": "/t"},
        {"hf_home": "/r/huggingface", "hub": "/r/huggingface/hub", "torch_home": "/t"},
    ),
    "a folder for plain files": (
        {"checkpoints": "/c"},
        {"checkpoints": "/c", "hub": "/set/hub", "insightface": "/home/me/.insightface"},
    ),
}


@pytest.mark.parametrize("variables", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_caches_are_where_huggingface_hub_looks(
    variables: Mapping[str, str], tmp_path: Path
) -> None:
    process = subprocess.run(
        [sys.executable, "-c", BOTH_PROGRAM],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **variables},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        check=True,
    )
    theirs, ours = json.loads(process.stdout)
    assert ours == theirs


@pytest.mark.parametrize(
    ("variables", "expected"), TORCH_ENVIRONMENTS.values(), ids=TORCH_ENVIRONMENTS
)
def test_torch_is_where_torch_hub_looks(
    variables: Mapping[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    assert find_roots(variables).torch_home == Path(expected)


@pytest.mark.parametrize(("options", "expected"), OPTIONS.values(), ids=OPTIONS)
def test_options_win_over_every_variable(options: dict[str, str], expected: dict[str, str]) -> None:
    roots = find_roots(EVERYTHING, **{name: Path(path) for name, path in options.items()})
    assert {name: str(getattr(roots, name)) for name in expected} == expected


def test_options_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/u")
    roots = find_roots({}, root=Path("caches"), torch_home=Path("~/torch"))
    assert roots.hub == tmp_path / "caches/huggingface/hub"
    assert roots.torch_home == Path("/home/u/torch")


def test_tildes_and_variables_mean_what_they_mean_in_the_given_environment() -> None:
    roots = find_roots({"HOME": "/home/other", "HF_HOME": "~/hf", "HF_HUB_CACHE": "$HF_HOME/h"})
    assert roots.hf_home == Path("/home/other/hf")
    assert roots.hub == Path("/home/other/hf/h")


def test_the_variables_lead_huggingface_hub_to_the_roots(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    roots = find_roots(home, root=tmp_path / "with $HOME, 'quotes' and ~")
    process = subprocess.run(
        [sys.executable, "-c", BOTH_PROGRAM],
        env={"PATH": os.environ["PATH"]} | home | roots.variables(),
        stdout=subprocess.PIPE,
        check=True,
    )
    expected = [str(roots.hf_home), str(roots.hub)]
    assert json.loads(process.stdout) == [expected, expected]
