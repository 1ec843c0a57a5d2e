"""Bundles whose manifests use the layouts to do harm. Each test is named after what it prevents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from bundle_builder import assembled, manifest_of, model_record, parts_of
from command import Ran, run
from trees import tree, unpack_below

from bundler.errors import RequestError, TargetError, TrustError

COMMIT = "a" * 40
EVIL = b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R."
CODE: dict[str, Any] = {
    "layout": "torch-hub", "source": "torchhub", "kind": None, "name": "o/r",
    "revision": "main", "commit_hash": COMMIT,
}  # fmt: skip
LARGE = b"weights" * 200_000


def flat(name: str, **fields: Any) -> dict[str, Any]:
    """The fields of a plain folder or file."""
    nothing = {"kind": None, "revision": None, "commit_hash": None}
    return {"layout": "flat", "source": "file", "name": name, **nothing, **fields}


def checkpoint(name: str) -> dict[str, Any]:
    return flat(f"https://h.example/{name}", layout="torch-checkpoints", source="https")


def bundle(path: Path, *models: tuple[Mapping[str, bytes], dict[str, Any]]) -> Path:
    """A bundle of models, each given by its files and the fields of its record."""
    records = [model_record(files, **fields) for files, fields in models]
    contents = dict.fromkeys(content for files, _ in models for content in files.values())
    small_first = sorted(contents, key=lambda content: len(content) >= 1 << 20)
    path.write_bytes(assembled(parts_of(manifest_of(*records), small_first)))
    return path


def unpack(home: Path, *arguments: object) -> Ran:
    return run("unpack", *arguments, home=home)


def test_modules_are_not_put_beside_the_code_that_is_there(tmp_path: Path) -> None:
    unpack_below(tmp_path / "r", bundle(tmp_path / "a", ({"hubconf.py": b"import json\n"}, CODE)))
    before = tree(tmp_path / "r")
    second = bundle(tmp_path / "b", ({"json.py": b"print('EVIL')\n"}, CODE))
    with pytest.raises(TargetError, match="with other content"):
        unpack_below(tmp_path / "r", second)
    with pytest.raises(TrustError, match=r"json\.py"):
        unpack_below(tmp_path / "r", second, code=False)
    assert tree(tmp_path / "r") == before


@pytest.mark.parametrize("name", ["x.py", "x.so", "x.pyd", "x.pyc", "X.PY", "sub/x.py"])
def test_no_module_of_torch_hub_passes_for_harmless(name: str, tmp_path: Path) -> None:
    with pytest.raises(TrustError):
        unpack_below(tmp_path / "r", bundle(tmp_path / "b", ({name: b"x"}, CODE)), code=False)


def test_an_edited_file_does_not_vouch_for_what_is_installed_elsewhere(tmp_path: Path) -> None:
    plain = ({"a.bin": EVIL}, flat("m"))
    unpack_below(tmp_path / "r", bundle(tmp_path / "a", plain))
    (tmp_path / "r/checkpoints/m/a.bin").write_bytes(b"harmless")
    both = bundle(tmp_path / "b", plain, ({"pytorch_model.bin": EVIL}, {"name": "org/model"}))
    with pytest.raises(TrustError, match=r"os\.system"):
        unpack_below(tmp_path / "r", both, code=False)
    assert not (tmp_path / "r/huggingface/hub/models--org--model").exists()


def test_needs_that_everything_answers_to_take_no_time(tmp_path: Path) -> None:
    first = ({"x": b"x"}, flat("first", needs=["x"] * 100_000))
    rest = [({"x": b"x"}, flat(f"m{number}", specs=["hf:x"])) for number in range(5_000)]
    path = bundle(tmp_path / "b", first, *rest)
    assert unpack(tmp_path, path, "--root", "r", "--only", "first", "--dry-run").code == 0


@pytest.mark.parametrize("need", ["", "a,b", " ", "hf:"])
def test_a_need_that_is_no_spec_is_a_fault_of_the_bundle(need: str, tmp_path: Path) -> None:
    path = bundle(tmp_path / "b", ({"x": b"x"}, flat("m", needs=[need])))
    done = unpack(tmp_path, path, "--root", "r", "--only", "m")
    assert (done.code, done.err.count("\n")) == (5, 1)


def test_one_long_cell_does_not_widen_all_rows(tmp_path: Path) -> None:
    models = [({"x": b"x"}, flat(f"m{number}")) for number in range(100)]
    models[0][1].update(license="l" * 4_000)
    done = run("inspect", bundle(tmp_path / "b", *models), home=tmp_path)
    assert done.code == 0
    assert len(done.out) < 50_000


def test_somebodys_own_link_to_a_disk_that_is_away_is_left_alone(tmp_path: Path) -> None:
    link = tmp_path / "r/torch/hub/checkpoints/w.pth"
    link.parent.mkdir(parents=True)
    link.symlink_to("../../../../nas/w.pth")
    with pytest.raises(TargetError, match="with other content"):
        unpack_below(tmp_path / "r", bundle(tmp_path / "b", ({"w.pth": b"w"}, checkpoint("w.pth"))))
    assert link.is_symlink()


@pytest.mark.parametrize("mode", ["auto", "symlink", "copy"])
def test_plain_files_do_not_become_links_to_themselves(mode: str, tmp_path: Path) -> None:
    path = bundle(tmp_path / "b", ({"w.pth": LARGE}, checkpoint("w.pth")))
    inside = "r/torch/hub/checkpoints"
    done = unpack(tmp_path, path, "--root", "r", "--checkpoints", inside, "--link-mode", mode)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "name another folder with --checkpoints" in done.err
    assert not (tmp_path / "r").exists()


def test_two_roots_in_one_folder_are_refused(tmp_path: Path) -> None:
    faces = flat("buffalo_l", layout="insightface", source="insightface")
    path = bundle(tmp_path / "b", ({"x.onnx": b"x"}, faces), ({"w.pth": b"w"}, checkpoint("w.pth")))
    done = unpack(tmp_path, path, "--torch-home", "d", "--insightface-root", "d")
    assert (done.code, done.err.count("\n")) == (RequestError.exit_code, 1)


RECEIPT = f".bundler/receipts/{'0' * 64}"
INSIDE: dict[str, tuple[dict[str, Any], str]] = {
    "a receipt": (flat(f"huggingface/{RECEIPT}"), "x.json"),
    "a repository": (flat("huggingface/hub/models--org--model"), "refs/main"),
    "code": (flat("torch/hub/o_r_main"), "hubconf.py"),
    "a pack of faces": (flat("insightface/models/buffalo_l"), "x.onnx"),
    "the environment file": (flat("offline.env"), "offline.env"),
    "a folder in place of the environment file": (flat("offline.env"), "x"),
    "a file in place of a root": (flat("huggingface"), "huggingface"),
}


@pytest.mark.parametrize("what", INSIDE)
def test_what_is_kept_below_a_free_name_does_not_pass_for(what: str, tmp_path: Path) -> None:
    """Where somebody unpacks all to the folder in which he stands."""
    fields, path = INSIDE[what]
    plain = bundle(tmp_path / "b", ({path: b"x"}, fields))
    done = unpack(tmp_path, plain, "--root", ".", "--checkpoints", ".")
    assert (done.code, done.err.count("\n")) == (5, 1), done.err
    assert "where something else is kept" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("name", [".locks/bundler/tree", ".LOCKS/bundler/removed", ".Locks"])
@pytest.mark.parametrize("layout", ["flat", "hf-datasets"])
def test_what_bundler_works_in_is_not_aimed_at(layout: str, name: str, tmp_path: Path) -> None:
    fields = flat(name if layout == "flat" else "x", layout=layout)
    path = bundle(tmp_path / "b", ({"x" if layout == "flat" else f"{name}/x": b"x"}, fields))
    done = unpack(tmp_path, path, "--root", "r")
    assert (done.code, done.err.count("\n")) == (5, 1), done.err
    assert not (tmp_path / "r").exists()


def code(name: str, revision: str, commit: str) -> dict[str, Any]:
    return {**CODE, "name": name, "revision": revision, "commit_hash": commit}


ONE_PLACE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "slashes become one letter": (code("a/b_c", "d", COMMIT), code("a_b/c", "d", COMMIT)),
    "a branch called as a commit": (code("a/b", "b" * 40, COMMIT), code("a/b", "main", "b" * 40)),
    "a folder and a file below": (flat("m"), flat("m/x/y")),
    "two files of one name": (flat("m"), flat("m")),
    "two addresses with one end": (checkpoint("a/x"), checkpoint("b/x")),
    "a repository's own name and an alias": (
        {"name": "a/b"},
        {"name": "c/d", "aliases": ["a/b"], "commit_hash": "f" * 40},
    ),
}


@pytest.mark.parametrize("what", ONE_PLACE)
def test_two_models_that_aim_at_one_place_are_refused(what: str, tmp_path: Path) -> None:
    first, second = ONE_PLACE[what]
    path = bundle(tmp_path / "b", ({"x": b"1"}, first), ({"x": b"2"}, second))
    done = unpack(tmp_path, path, "--root", "r")
    assert (done.code, done.err.count("\n")) == (5, 1), done.err
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_prepared_tables_do_not_pass_for_what_is_around_them(tmp_path: Path) -> None:
    tables = {**flat("org/data", layout="hf-datasets", source="dataset"), "kind": "dataset"}
    path = bundle(tmp_path / "b", ({"hub/models--a--b/refs/main": b"x"}, tables))
    home = str(tmp_path / "h")
    variables = {"HF_HOME": home, "HF_DATASETS_CACHE": home}
    done = run("unpack", path, home=tmp_path, env=variables)
    assert (done.code, done.err.count("\n")) == (5, 1), done.err
    assert not (tmp_path / "h").exists()


def test_roots_inside_each_other_hold_what_keeps_apart(tmp_path: Path) -> None:
    models = [({"x": b"x"}, flat("mine")), ({"config.json": b"{}"}, {"name": "org/model"})]
    path = bundle(tmp_path / "b", *models)
    done = unpack(tmp_path, path, "--root", ".", "--checkpoints", ".")
    assert (done.code, done.err) == (0, "")
    assert (tmp_path / "mine/x").read_bytes() == b"x"
