"""Where caches are looked for, and the file that makes shells look there."""

from __future__ import annotations

import json
import os
import shutil
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


VALUES = {
    "NOTHING": "",
    "PLAIN": "/data/hf",
    "SPACES": "/my  models/ here",
    "TRAILING": "/data/hf ",
    "LEADING": " /data/hf",
    "SINGLE": "it's",
    "ONLY_SINGLE": "'",
    "SINGLES": "''x''",
    "DOUBLE": 'say "x"',
    "DOLLAR": "$HOME/${HOME}/$(echo x)",
    "BACKSLASH": "a\\b",
    "BACKSLASHES": "a\\\\b\\\\",
    "BACKSLASH_QUOTE": "\\'\\",
    "BACKSLASH_LETTERS": "\\n\\t\\x41\\0",
    "HASH": "#a #b",
    "EQUALS": "a=b==",
    "ACCENT": "/données/é日本",
    "GLOB": "*?[a]{b,c}~",
    "NEWLINE": "one\ntwo\n",
    "BACKTICK": "`echo x`",
    "BANG": "a!b !! !$",
    "OPERATORS": "a;b&c|d<e>f(g)",
    "PERCENT": "%a %PATH% ^",
    "TAB": "a\tb",
}
SHELLS = {
    "bash": ["bash"],
    "bash -eu": ["bash", "-eu"],
    "zsh": ["zsh", "-f"],
    "zsh -eu": ["zsh", "-f", "-eu"],
    "dash": ["dash"],
    "dash -eu": ["dash", "-eu"],
    "fish": ["fish", "--no-config"],
}
POSIX_SHELLS = {name: command for name, command in SHELLS.items() if command[0] != "fish"}
# The shell hands its variables on to Python, which tells what arrived.
TELL = 'python="$1"; exec "$python" -c "import json, os; print(json.dumps(dict(os.environ)))"'
SCRIPTS = {
    "fish": 'source $argv[1]; or exit 9; exec $argv[2] -c "'
    'import json, os; print(json.dumps(dict(os.environ)))"',
    "posix": '. "$1" || exit 9; shift; ' + TELL,
}


def sourced(
    command: list[str], file: Path, before: Mapping[str, str], script: str | None = None
) -> subprocess.CompletedProcess[str]:
    """What a shell that had the variables `before` does with `file`, under `script`."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    fish = command[0] == "fish"
    arguments = [str(file), sys.executable] if fish else ["shell", str(file), sys.executable]
    return subprocess.run(
        [*command, "-c", script or SCRIPTS["fish" if fish else "posix"], *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(file.parent), **before},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", SHELLS.values(), ids=SHELLS)
@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_every_value_comes_out_of_every_shell_as_it_was(
    command: list[str], locale: str, tmp_path: Path
) -> None:
    file = tmp_path / "offline.env"
    file.write_text(shell_file(VALUES), encoding="utf-8")
    process = sourced(command, file, {"LC_ALL": locale, "PYTHONUTF8": "1"})
    assert (process.returncode, process.stderr) == (0, "")
    variables = json.loads(process.stdout)
    assert {name: variables.get(name) for name in VALUES} == VALUES


@pytest.mark.parametrize("command", SHELLS.values(), ids=SHELLS)
@pytest.mark.parametrize(
    "set_before",
    [(), HIDING[:1], HIDING[1:], HIDING],
    ids=["none set", "one set", "all but one set", "all set"],
)
def test_variables_that_hide_the_caches_are_gone(
    command: list[str], set_before: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "offline.env"
    file.write_text(shell_file({"HF_HOME": "/data/hf"}), encoding="utf-8")
    process = sourced(command, file, dict.fromkeys(set_before, "/elsewhere"))
    assert (process.returncode, process.stderr) == (0, "")
    variables = json.loads(process.stdout)
    assert not set(HIDING) & set(variables)
    assert variables["HF_HOME"] == "/data/hf"


@pytest.mark.parametrize("command", SHELLS.values(), ids=SHELLS)
def test_sourcing_wins_over_values_set_before_and_twice_is_as_good_as_once(
    command: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "offline.env"
    text = shell_file({"HF_HOME": "/data/hf", "HF_HUB_OFFLINE": "1"})
    file.write_text(text + text, encoding="utf-8")
    process = sourced(command, file, {"HF_HOME": "/elsewhere", "HF_HUB_OFFLINE": "0"})
    assert (process.returncode, process.stderr) == (0, "")
    variables = json.loads(process.stdout)
    assert (variables["HF_HOME"], variables["HF_HUB_OFFLINE"]) == ("/data/hf", "1")


@pytest.mark.parametrize("command", POSIX_SHELLS.values(), ids=POSIX_SHELLS)
def test_sourcing_changes_no_option_and_no_argument_of_the_shell(
    command: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "offline.env"
    file.write_text(shell_file({"HF_HOME": "/data/hf"}), encoding="utf-8")
    script = 'file="$1"; echo "$- $*"; . "$file"; echo "$- $*"'
    process = sourced(command, file, {"HF_ENDPOINT": "/elsewhere"}, script)
    assert (process.returncode, process.stderr) == (0, "")
    before, after = process.stdout.splitlines()
    assert after == before


def test_the_file_says_who_wrote_it_and_ends_in_a_newline() -> None:
    text = shell_file({"HF_HOME": "/data/hf"})
    assert text.startswith(MARK + "\n")
    assert text.endswith("\n")
