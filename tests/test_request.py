"""Requests: what a TOML file may say of the models it lists."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command import run
from loopback_hub import LoopbackHub

import bundler
from bundler.request import Wanted, read_request
from bundler.selection import Selection
from bundler.sources import SOURCES
from bundler.spec import Spec

REPOSITORY = Path(__file__).parent.parent
WEIGHTS = os.urandom(5_000)
FILES = {
    "config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "tf_model.h5": b"the same",
    "notes.txt": b"words",
}

REVISED = {
    "acme/tiny": "acme/tiny@v1",
    "bert-base-uncased": "bert-base-uncased@v1",
    "hf:acme/tiny": "hf:acme/tiny@v1",
    "dataset:acme/rows": "dataset:acme/rows@v1",
    "space:acme/demo": "space:acme/demo@v1",
    "timm:resnet18.a1_in1k": "timm:resnet18.a1_in1k@v1",
    "sentence-transformers:all-MiniLM-L6-v2": "sentence-transformers:all-MiniLM-L6-v2@v1",
    "torchhub:acme/code": "torchhub:acme/code@v1",
    "torchhub:acme/code#tiny": "torchhub:acme/code@v1#tiny",
}
WITHOUT_REVISIONS = (
    "torchvision:resnet18",
    "insightface:buffalo_l",
    "https://host/x.pth",
    "http://host/x.pth",
    "file:tiny",
)


def request(folder: Path, text: str) -> Path:
    path = folder / "request.toml"
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        pytest.param('models = ["acme/tiny"]', [Wanted("acme/tiny")], id="a string"),
        pytest.param(
            'models = ["timm:resnet18", "acme/tiny@v1"]',
            [Wanted("timm:resnet18"), Wanted("acme/tiny@v1")],
            id="in order",
        ),
        pytest.param("models = []", [], id="none"),
        pytest.param(
            '# all of them\nmodels = [\n  "acme/tiny",  # a "small" one\n  # "acme/off",\n]\n',
            [Wanted("acme/tiny")],
            id="comments",
        ),
        pytest.param('models = [{ spec = "acme/tiny" }]', [Wanted("acme/tiny")], id="a table"),
        pytest.param(
            '[[models]]\nspec = "acme/tiny"\n[[models]]\nspec = "acme/other"',
            [Wanted("acme/tiny"), Wanted("acme/other")],
            id="tables with headings",
        ),
        pytest.param(
            'models = [{ spec = "acme/tiny", revision = "v1" }]',
            [Wanted("acme/tiny@v1")],
            id="a revision",
        ),
        pytest.param(
            'models = [{ spec = "acme/tiny", revision = "refs/pr/1" }]',
            [Wanted("acme/tiny@refs/pr/1")],
            id="a revision with slashes",
        ),
        pytest.param(
            'models = [{ spec = "acme/tiny", include = ["*.json", "*.txt"] }]',
            [Wanted("acme/tiny", Selection(include=("*.json", "*.txt")))],
            id="include",
        ),
        pytest.param(
            'models = [{ spec = "acme/tiny", exclude = ["*.h5"], revision = "v1" }]',
            [Wanted("acme/tiny@v1", Selection(exclude=("*.h5",)))],
            id="exclude",
        ),
        pytest.param(
            'models = [{ spec = "acme/tiny", exclude = [] }]',
            [Wanted("acme/tiny", Selection())],
            id="an empty list",
        ),
        pytest.param(
            'models = [{ spec = "acme/tiny", all_files = true }]',
            [Wanted("acme/tiny", Selection(all_files=True))],
            id="all files",
        ),
        pytest.param(
            'models = [{ spec = "acme/tiny", all_files = false }]',
            [Wanted("acme/tiny", Selection())],
            id="not all files",
        ),
        pytest.param(
            'models = ["a/b", { spec = "c", include = ["x"], exclude = ["y"], all_files = true }]',
            [Wanted("a/b"), Wanted("c", Selection(("x",), ("y",), True))],
            id="both forms",
        ),
    ],
)
def test_a_request_says(tmp_path: Path, text: str, wanted: list[Wanted]) -> None:
    assert read_request(request(tmp_path, text)) == wanted


@pytest.mark.parametrize("spec", REVISED)
def test_a_revision_stands_where_its_kind_has_it(tmp_path: Path, spec: str) -> None:
    text = f'models = [{{ spec = "{spec}", revision = "v1" }}]'
    assert read_request(request(tmp_path, text)) == [Wanted(REVISED[spec])]


@pytest.mark.parametrize("spec", WITHOUT_REVISIONS)
def test_a_revision_of_what_has_none_is_told(tmp_path: Path, spec: str) -> None:
    path = request(tmp_path, f'models = [{{ spec = "{spec}", revision = "v1" }}]')
    with pytest.raises(bundler.RequestError, match="has no revisions"):
        read_request(path)


def test_every_kind_is_in_one_of_these_tables() -> None:
    assert {Spec.parse(spec).scheme for spec in (*REVISED, *WITHOUT_REVISIONS)} == {
        source.scheme for source in SOURCES
    }


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('models = [{ spec = "a/b@v1", revision = "v2" }]', id="of a repository"),
        pytest.param('models = [{ spec = "torchhub:a/b:v1", revision = "v2" }]', id="of code"),
        pytest.param(
            'models = [{ spec = "torchhub:a/b:v1#e", revision = "v2" }]', id="of an entry"
        ),
    ],
)
def test_two_revisions_of_one_are_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(bundler.RequestError, match="v1"):
        read_request(request(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param('models = [{ spec = "a/b", exlude = ["x"] }]', "exlude", id="misspelt key"),
        pytest.param('models = [{ spec = "a/b", one = 1, two = 2 }]', "one, two", id="two keys"),
        pytest.param('modles = ["a/b"]', "modles is not known", id="misspelt models"),
        pytest.param('models = ["a/b"]\nlevel = 3', "level is not known", id="another key"),
        pytest.param("", "needs a list", id="empty"),
        pytest.param("# nothing", "needs a list", id="a comment alone"),
        pytest.param('models = "a/b"', "needs a list", id="no list"),
        pytest.param("models = [1]", "needs a list", id="a number"),
        pytest.param('models = ["a/b", ["c/d"]]', "needs a list", id="a list inside"),
        pytest.param('[models]\nspec = "a/b"', "needs a list", id="a table alone"),
        pytest.param("models = [{}]", "needs its name", id="no spec"),
        pytest.param('models = [{ revision = "v1" }]', "needs its name", id="a revision alone"),
        pytest.param("models = [{ spec = 1 }]", "needs its name", id="a number for a spec"),
        pytest.param('models = [{ spec = ["a/b"] }]', "needs its name", id="a list for a spec"),
        pytest.param(
            'models = [{ spec = "a/b", revision = 1 }]', "revision", id="a number for a revision"
        ),
        pytest.param('models = [{ spec = "", revision = "v1" }]', "org/name", id="an empty spec"),
        pytest.param(
            'models = [{ spec = "a/b", revision = "" }]', "revision", id="an empty revision"
        ),
        pytest.param(
            'models = [{ spec = "a/b", include = "*.json" }]', "include of a/b", id="one glob"
        ),
        pytest.param('models = [{ spec = "a/b", exclude = [1] }]', "exclude of a/b", id="no glob"),
        pytest.param(
            'models = [{ spec = "a/b", all_files = "yes" }]', "all_files", id="a word for a choice"
        ),
        pytest.param(
            'models = [{ spec = "a/b", all_files = 1 }]', "all_files", id="a number for a choice"
        ),
        pytest.param("models = [", "is not a list of models", id="cut"),
        pytest.param('models = ["a/b"]\nmodels = ["a/b"]', "is not a list of models", id="twice"),
        pytest.param("models = " + "[" * 100_000, "is not a list of models", id="deep"),
    ],
)
def test_what_is_no_request_is_told(tmp_path: Path, text: str, said: str) -> None:
    path = request(tmp_path, text)
    with pytest.raises(bundler.RequestError) as caught:
        read_request(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "request.toml").write_bytes(b'models = ["\xff"]')
    with pytest.raises(bundler.RequestError, match="is not a list of models"):
        read_request(tmp_path / "request.toml")


@pytest.mark.parametrize("name", ["nix.toml", "."])
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(bundler.RequestError, match="cannot read"):
        read_request(tmp_path / name)


def test_what_is_said_of_one_model_is_for_it_alone(hub: LoopbackHub, tmp_path: Path) -> None:
    for name in ("acme/one", "acme/two", "acme/three", "acme/four"):
        hub.add(name, FILES)
    request(
        tmp_path,
        """models = [
            { spec = "acme/one", exclude = ["*.txt"] },
            { spec = "acme/two", include = ["config.json", "model.*"] },
            { spec = "acme/three", all_files = true },
            "acme/four",
        ]""",
    )
    done = run(
        "pack", "--from", "request.toml", "--exclude", "config.json",
        home=tmp_path, env={"HF_ENDPOINT": hub.url},
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    manifest = bundler.inspect(tmp_path / "bundle.tar.zst").manifest
    assert {s.name: {str(entry.path) for entry in s.files} for s in manifest.snapshots} == {
        "acme/one": {"config.json", "model.safetensors"},
        "acme/two": {"config.json", "model.safetensors"},
        "acme/three": set(FILES),
        "acme/four": {"model.safetensors", "notes.txt"},  # it has no globs of its own
    }


def test_one_model_listed_twice_is_what_both_say(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add("acme/one", FILES)
    wanted = [
        Wanted("acme/one", Selection(include=("config.json",))),
        Wanted("acme/one", Selection(include=("model.*",))),
    ]
    plan = bundler.plan_pack(
        wanted, upstream=bundler.Upstream((hub.url,)), store=tmp_path / "store"
    )
    (snapshot,) = plan.snapshots
    assert {file.path for file in snapshot.files} == {"config.json", "model.safetensors"}
    assert {item.path for item in snapshot.omitted} == {"notes.txt", "tf_model.h5"}


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "bundles").glob("*.toml")), ids=lambda p: p.stem
)
def test_the_requests_that_come_along_can_be_read(path: Path) -> None:
    schemes = {source.scheme for source in SOURCES}
    wanted = read_request(path)
    assert {Spec.parse(item.spec).scheme for item in wanted} <= schemes
    assert len({item.spec for item in wanted}) == len(wanted) > 0
