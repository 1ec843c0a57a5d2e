"""Caches that this user cannot write to: those of others, or on a disk mounted for reading."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kinds
import models
import pytest
from command import Ran, command_environment, run
from loopback_hub import LoopbackHub
from models import files_of
from target import LOADERS
from trees import tree

UNPRIVILEGED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner")
"""Root that permissions of files hold for, as for everybody else."""
READ_ONLY = ("bash", "-c", 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"')


def allowed(*command: str) -> tuple[str, ...]:
    """The start of a command, if this system takes it."""
    try:
        done = subprocess.run([*command, "true"], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip(f"{command[0]} is not installed")
    if done.returncode:
        pytest.skip(f"this system refuses {' '.join(command[:2])}")
    return command


@pytest.fixture(params=["not permitted", "mounted for reading"])
def sealing(request: pytest.FixtureRequest) -> Iterator[Callable[[Path], Sequence[str]]]:
    """Makes a tree read-only; gives the start of the commands for which it is that."""
    sealed: list[Path] = []

    def seal(folder: Path) -> Sequence[str]:
        if request.param == "mounted for reading":
            return (*allowed("unshare", "-nm", *READ_ONLY, str(folder)),)
        sealed.append(folder)
        subprocess.run(["chmod", "-R", "a-w", folder], check=True)
        return allowed(*UNPRIVILEGED) if os.getuid() == 0 else ()

    yield seal
    for folder in sealed:
        subprocess.run(["chmod", "-R", "u+w", folder], check=True)


@dataclass(frozen=True)
class User:
    """Somebody with a home of their own, for whom a tree may be read-only."""

    home: Path
    sealed: Sequence[str]

    def bundler(self, *arguments: object, env: Mapping[str, str] | None = None) -> Ran:
        """Run `bundler`, as `command.run` does."""
        done = subprocess.run(
            [*self.sealed, sys.executable, "-m", "bundler", *map(str, arguments)],
            cwd=self.home,
            env={**command_environment(self.home), **(env or {})},
            capture_output=True,
            timeout=60,
        )
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode(), done.stdout)

    def variables(self, *arguments: object, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """What `bundler env` sets."""
        ran = self.bundler("env", "--format", "json", *arguments, env=env)
        assert (ran.code, ran.err) == (0, "")
        found: dict[str, str] = json.loads(ran.out)["set"]
        return found


def prepared(datasets: Path, name: str, builder: str = "parquet") -> Path:
    """A dataset as the library keeps what it has prepared."""
    folder = datasets / name / "default" / "0.0.0" / "abc"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text(json.dumps({"builder_name": builder}))
    return datasets / name


@pytest.fixture
def caches(tmp_path: Path) -> Path:
    """A root with models, code and datasets in it."""
    root = tmp_path / "caches"
    (root / "huggingface" / "hub").mkdir(parents=True)
    datasets = root / "huggingface" / "datasets"
    prepared(datasets, "acme___tiny")
    prepared(datasets, "squad")
    prepared(datasets, "csv", builder="csv")
    (datasets / "downloads").mkdir()
    for number, nonsense in enumerate(("{", "[]", "[" * 100_000)):
        folder = prepared(datasets, f"nonsense-{number}")
        (folder / "default/0.0.0/abc/dataset_info.json").write_text(nonsense)
    return root


@pytest.fixture
def user(tmp_path: Path, caches: Path, sealing: Callable[[Path], Sequence[str]]) -> User:
    """Somebody for whom `caches` is read-only."""
    (tmp_path / "home").mkdir()
    return User(tmp_path / "home", sealing(caches))


def test_one_who_can_write_gets_nothing_more(caches: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    found = User(tmp_path / "home", ()).variables("--root", caches)
    assert "HF_MODULES_CACHE" not in found
    assert found["HF_DATASETS_CACHE"] == str(caches / "huggingface" / "datasets")
    assert tree(tmp_path / "home") == {}


def test_a_user_gets_places_below_the_own_home(user: User, caches: Path) -> None:
    found = user.variables("--root", caches)
    assert found["HF_HOME"] == str(caches / "huggingface")
    assert found["HF_HUB_CACHE"] == str(caches / "huggingface" / "hub")
    assert found["HF_MODULES_CACHE"] == str(user.home / ".cache/huggingface/modules")
    assert Path(found["HF_DATASETS_CACHE"]).parent == user.home / ".cache/bundler/datasets"


def test_the_folder_for_caches_may_be_elsewhere(user: User, caches: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    found = user.variables("--root", caches, env={"XDG_CACHE_HOME": str(scratch)})
    assert found["HF_MODULES_CACHE"] == str(scratch / "huggingface/modules")
    assert scratch in Path(found["HF_DATASETS_CACHE"]).parents


def test_every_dataset_that_has_a_name_is_linked(user: User, caches: Path) -> None:
    links = Path(user.variables("--root", caches)["HF_DATASETS_CACHE"])
    datasets = caches / "huggingface" / "datasets"
    assert {link.name: link.readlink() for link in links.iterdir()} == {
        name: datasets / name for name in ("acme___tiny", "squad")
    }


NO_INFO = {
    "nothing": b"",
    "half of it": b'{"builder_name": "par',
    "a list": b"[]",
    "no text": b"\xff\xfe{",
    "too deep": b"[" * 200_000,
}


@pytest.mark.parametrize("content", NO_INFO.values(), ids=NO_INFO)
def test_what_says_nothing_of_itself_is_no_dataset(
    content: bytes, caches: Path, tmp_path: Path, sealing: Callable[[Path], Sequence[str]]
) -> None:
    datasets = caches / "huggingface" / "datasets"
    (info,) = prepared(datasets, "acme___odd").rglob("dataset_info.json")
    info.write_bytes(content)
    (tmp_path / "home").mkdir()
    found = User(tmp_path / "home", sealing(caches)).variables("--root", caches)
    links = Path(found["HF_DATASETS_CACHE"]).iterdir()
    assert sorted(link.name for link in links) == ["acme___tiny", "squad"]


def test_links_follow_what_is_there_and_nothing_else_is_touched(
    tmp_path: Path, caches: Path, sealing: Callable[[Path], Sequence[str]]
) -> None:
    (tmp_path / "home").mkdir()
    user = User(tmp_path / "home", sealing(caches))
    links = Path(user.variables("--root", caches)["HF_DATASETS_CACHE"])
    (links / "own").mkdir()
    (links / "elsewhere").symlink_to("/nowhere")
    (links / "a.lock").write_text("")
    before = tree(links)
    assert Path(user.variables("--root", caches)["HF_DATASETS_CACHE"]) == links
    assert tree(links) == before

    datasets = caches / "huggingface" / "datasets"
    subprocess.run(["chmod", "-R", "u+w", caches], check=True)
    shutil.rmtree(datasets / "squad")
    prepared(datasets, "acme___more")
    prepared(datasets, "own")
    user = User(user.home, sealing(caches))
    assert Path(user.variables("--root", caches)["HF_DATASETS_CACHE"]) == links
    after = tree(links)
    assert set(before) - set(after) == {"squad"}
    assert set(after) - set(before) == {"acme___more"}
    assert after.items() >= (before.items() - {("squad", before["squad"])})


def test_two_roots_have_links_of_their_own(
    user: User, caches: Path, tmp_path: Path, sealing: Callable[[Path], Sequence[str]]
) -> None:
    other = tmp_path / "other"
    prepared(other / "huggingface" / "datasets", "acme___tiny")
    links = [
        Path(someone.variables("--root", root)["HF_DATASETS_CACHE"])
        for someone, root in [(user, caches), (User(user.home, sealing(other)), other)]
    ]
    assert [link.name for link in links[0].iterdir()] != []
    assert [(link / "acme___tiny").readlink().parents[2] for link in links] == [caches, other]


def test_undo_makes_nothing_and_names_all_of_it(user: User, caches: Path) -> None:
    ran = user.bundler("env", "--undo", "--format", "json", "--root", caches)
    assert "HF_MODULES_CACHE" in json.loads(ran.out)["unset"]
    assert tree(user.home) == {}


def test_a_user_without_any_place_to_write_to_gets_none(user: User, caches: Path) -> None:
    place = str(caches / "huggingface")
    found = user.variables("--root", caches, env={"XDG_CACHE_HOME": place})
    assert "HF_MODULES_CACHE" not in found
    assert found["HF_DATASETS_CACHE"] == f"{place}/datasets"


def test_containers_get_the_links_to_write_to_and_the_rest_to_read(
    user: User, caches: Path
) -> None:
    ran = user.bundler("env", "--format", "docker", "--root", caches)
    home, (links,) = caches / "huggingface", (user.home / ".cache/bundler/datasets").iterdir()
    assert f" -v {home}:{home}:ro -v {links}:{links} IMAGE\n" in ran.out
    assert f"\nHF_DATASETS_CACHE={links}\n" in ran.out


# The libraries themselves.


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, Any]]:
    """A home with a bundle, and its caches: a model that brings code, and a dataset."""
    if not kinds.has("torch", "transformers", "datasets"):
        pytest.skip("the libraries that make and load the models are not installed")
    folder = tmp_path_factory.mktemp("shared")
    made = models.make(folder / "models", ["own-code"]) | kinds.make("tables", folder / "tables")
    with LoopbackHub() as hub:
        hub.add("acme/own-code", files_of(folder / "models" / "own-code"))
        hub.add("acme/tiny", files_of(folder / "tables" / "tiny"), kind="dataset")
        packed = run(
            *("pack", "acme/own-code", "dataset:acme/tiny", "-o", folder / "bundle.tar.zst"),
            home=folder,
            env={"HF_ENDPOINT": hub.url},
        )
    assert packed.code == 0, packed.err
    unpacked = run("unpack", folder / "bundle.tar.zst", "--root", "caches", home=folder)
    assert unpacked.code == 0, unpacked.err
    return folder, made


LOADED = {
    "code of a model": (
        "transformers_models.py",
        json.dumps([["loaded", "own-code", "acme/own-code", None]]),
        "loaded",
        "own-code",
    ),
    "a dataset": ("tables.py", "its name", "its name", "rows"),
    "files of a dataset": ("tables.py", "its files", "its files", "rows"),
}


@pytest.mark.parametrize(("loader", "argument", "case", "name"), LOADED.values(), ids=LOADED)
@pytest.mark.parametrize("by", ["env", "unpack"])
def test_libraries_load(
    loader: str,
    argument: str,
    case: str,
    name: str,
    by: str,
    shared: tuple[Path, Mapping[str, Any]],
    sealing: Callable[[Path], Sequence[str]],
    air_gap: tuple[str, ...],
    tmp_path: Path,
) -> None:
    folder, made = shared
    caches = folder / "caches"
    user = User(tmp_path, (*air_gap, *sealing(caches)))
    before = tree(caches)
    if by == "env":
        (tmp_path / "offline.env").write_text(user.bundler("env", "--root", caches).out)
    else:
        ran = user.bundler("unpack", folder / "bundle.tar.zst", "--root", caches)
        assert (ran.code, ran.err) == (0, "")
        assert "huggingface is read-only for this user, who gets HF_MODULES_CACHE=" in ran.out
    script = '. ./offline.env && exec "$@"'
    loaded = subprocess.run(
        [*user.sealed, "bash", "-c", script, "bash", sys.executable, LOADERS / loader, argument],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(LOADERS.parent)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert loaded.returncode == 0, loaded.stderr
    assert json.loads(loaded.stdout.splitlines()[-1])[case] == made[name]
    assert tree(caches) == before
