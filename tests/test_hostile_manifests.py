"""Manifests that ask for more than their sizes tell, and names that fool whoever reads them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_builder import COMMIT_HASH, assembled, file_record, manifest_of, model_record, parts_of
from command import Ran, command_environment, run
from limits import little_memory
from memory_source import make_bundle

import bundler
from bundler.errors import FormatError
from bundler.manifest import Manifest

EMPTY = file_record("x", b"")
MEMORY = 700 << 20
"""Bytes that a manifest of 32 MiB may take: about twenty times its size, and some for Python."""


def files(count: int, path: str = "{}") -> list[dict[str, Any]]:
    """Records of so many empty files."""
    return [{**EMPTY, "path": path.format(number)} for number in range(count)]


def lists() -> bytes:
    one = "[" * 15 + "]" * 15
    more = ",".join([one] * 900_000)
    return manifest_of(model_record({"x": b""}))[:-1] + f', "more": [{more}]}}'.encode()


def objects() -> bytes:
    more = ",".join(['{"":{"":{}}}'] * 900_000)
    return manifest_of(model_record({"x": b""}))[:-1] + f', "more": [{more}]}}'.encode()


def models(count: int) -> bytes:
    record = json.dumps(model_record(files=files(1), name="NAME"))
    records = ",".join(record.replace("NAME", str(number)) for number in range(count))
    return f'{{"format_version":1,"snapshots":[{records}]}}'.encode()


TOO_MUCH: dict[str, tuple[Callable[[], bytes], str]] = {
    "lists in lists": (lists, "values"),
    "objects in objects": (objects, "values"),
    "paths of many folders": (
        lambda: manifest_of(model_record(files=files(20_000, "d/" * 60 + "{}"))),
        "slashes",
    ),
    "paths of many folders, escaped": (
        lambda: manifest_of(model_record(files=files(20_000, "d/" * 60 + "{}"))).replace(
            b"/", rb"\u002F"
        ),
        "slashes",
    ),
    "many folders of several models": (
        lambda: manifest_of(
            *(
                model_record(files=files(2_000, "/".join(["{0}"] * 10)), name=str(number))
                for number in range(8)
            )
        ),
        "folders",
    ),
    "folders with long paths": (
        lambda: manifest_of(
            model_record(files=files(2_000, "/".join(["\U0001f600{0}", *["y" * 63] * 62, "z"])))
        ),
        "characters of folders",
    ),
    "files under many names": (
        lambda: manifest_of(
            model_record(files=files(40_000), aliases=[f"a/{number}" for number in range(16)])
        ),
        "every alias",
    ),
    "models": (lambda: models(8_193), "models"),
}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_too_much_is_refused_and_does_not_fill_the_memory(what: str) -> None:
    build, word = TOO_MUCH[what]
    content = build()
    with little_memory(MEMORY), pytest.raises(FormatError, match=word) as caught:
        Manifest.from_bytes(content)
    assert str(caught.value).isprintable()


NEARLY: dict[str, Callable[[], bytes]] = {
    "files in folders": lambda: manifest_of(model_record(files=files(3_000, "a/b/c/{}/d"))),
    "files under a second name": (
        lambda: manifest_of(model_record(files=files(10_000), aliases=["other"]))
    ),
    "models": lambda: models(2_000),
}


@pytest.mark.parametrize("what", NEARLY)
def test_what_somebody_may_have_is_not_too_much(what: str) -> None:
    assert Manifest.from_bytes(NEARLY[what]()).snapshots


# Names that a terminal would show as others, or obey.

TURNED = "\u202egpj\u2066.exe\u200f"
BIDI = "\u202e\u2066\u200f"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a bundle of a model that is called and described so, wherever it may be."""
    record = model_record(
        {TURNED: b"{}"},
        name=f"org/{TURNED}",
        aliases=[f"other/{TURNED}"],
        revision=TURNED,
        license=TURNED,
        specs=[f"hf:{TURNED}"],
        omitted=[{"path": TURNED, "reason": TURNED}],
        code=[{"path": TURNED, "reason": TURNED}],
    )
    (tmp_path / "b").write_bytes(assembled(parts_of(manifest_of(record), [b"{}"])))
    (tmp_path / "bad").write_bytes(assembled(parts_of(manifest_of(record), [b"[]"])))
    return tmp_path


ROOT = ("--root", "r")
SHOWING: dict[str, tuple[str, ...]] = {
    "inspect": ("inspect", "b"),
    "a dry run": ("unpack", "b", *ROOT, "--dry-run"),
    "unpack of damage": ("unpack", "bad", *ROOT),
    "unpack": ("unpack", "b", *ROOT, "--checkpoints", "c"),
    "unpack in JSON": ("unpack", "b", *ROOT, "--json"),
    "no such model": ("unpack", "b", *ROOT, "--only", "none"),
    "verify": ("verify", "b"),
    "verify damage": ("verify", "bad"),
    "verify damage in JSON": ("verify", "bad", "--json"),
    "installed": ("installed", *ROOT),
    "installed in JSON": ("installed", *ROOT, "--json"),
    "verify what is installed": ("verify", *ROOT),
    "the same in JSON": ("verify", *ROOT, "--json"),
    "check": ("check", f"org/{TURNED}", *ROOT),
    "check in JSON": ("check", f"org/{TURNED}", *ROOT, "--json"),
    "remove in JSON": ("remove", "ID", *ROOT, "--dry-run", "--json"),
    "remove": ("remove", "ID", *ROOT),
}


def test_no_command_shows_a_name_that_turns_the_direction_of_text(home: Path) -> None:
    shown: dict[str, Ran] = {}
    id = str(bundler.inspect(home / "b").digest)
    for what, command in SHOWING.items():
        if what == "verify what is installed":  # So that there is something to tell.
            (blob,) = (home / "r/huggingface/hub").glob("models--org*/blobs/*")
            blob.write_bytes(b"[]")
        shown[what] = run(*(id if word == "ID" else word for word in command), home=home)
    faulty = {w: ran for w, ran in shown.items() if any(c in ran.out + ran.err for c in BIDI)}
    assert faulty == {}
    assert {w: ran.err for w, ran in shown.items() if ran.code not in (0, 2, 4)} == {}
    assert (shown["remove"].code, shown["remove in JSON"].code) == (0, 0)
    documents = [ran.out for what, ran in shown.items() if "JSON" in what and ran.out]
    assert TURNED in json.dumps([json.loads(text) for text in documents], ensure_ascii=False)


def in_a_terminal(*arguments: str, home: Path) -> str:
    """What a terminal gets of a command."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "bundler", *arguments]
    with subprocess.Popen(command, stdout=theirs, env=command_environment(home), cwd=home):
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 1 << 16):
                shown += piece
        except OSError:  # EIO: so a terminal ends.
            pass
    os.close(ours)
    return shown.decode()


def test_a_manifest_on_a_terminal_does_nothing_there(home: Path) -> None:
    record = model_record({"x": b"x"}, name=f"org/{TURNED}", more="\x9b2J \x7f")
    manifest = manifest_of(record).decode("unicode_escape").replace("{", "{\r", 1).encode()
    (home / "c").write_bytes(assembled(parts_of(manifest, [b"x"])))
    assert run("inspect", "c", "--json", home=home).raw == manifest
    shown = in_a_terminal("inspect", "c", "--json", home=home)
    assert shown.replace("\r\n", "").isprintable()
    assert json.loads(shown)["snapshots"] == [record]
    assert COMMIT_HASH in shown


def test_names_alike_but_for_how_letters_are_composed_are_two(tmp_path: Path) -> None:
    """Here the file system tells them apart; where it does not, building them fails."""
    names = {"caf\u00e9.txt": b"composed", "cafe\u0301.txt": b"decomposed", "Caf\u00e9.txt": b"C"}
    make_bundle(tmp_path / "b", {"org/tiny": names})
    ran = run("unpack", "b", "--root", "r", home=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    (snapshot,) = (tmp_path / "r/huggingface/hub/models--org--tiny/snapshots").iterdir()
    assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == names
