"""What is said of files that run as code when a model is loaded, and how they are refused."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from bundle_builder import assembled, manifest_of, model_record, parts_of
from command import Ran, run
from loopback_hub import LoopbackHub
from loopback_web import LoopbackWeb
from memory_source import Files
from trees import tree, unpack_below

import bundler
from bundler.errors import TrustError


def text(string: str) -> bytes:
    """The opcode for a text."""
    return b"X" + len(string.encode()).to_bytes(4, "little") + string.encode()


def calling(name: str, argument: str = "true") -> bytes:
    """A pickle that calls `module name` when it is loaded."""
    module, function = name.rsplit(".", 1)
    looked_up = f"c{module}\n{function}\n".encode()
    return b"\x80\x02" + looked_up + text(argument) + b"\x85R."


def in_zip(pickled: bytes) -> bytes:
    """The same in an archive, as torch.save writes it."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("archive/data.pkl", pickled)
        writer.writestr("archive/version", "3\n")
        writer.writestr("archive/data/0", bytes(4))
    return archive.getvalue()


TENSOR = b"".join(
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"((" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x01tQ",
        b"K\x00K\x01\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR",
    ]
)
STATE = in_zip(b"\x80\x02}" + text("weight") + TENSOR + b"s.")
"""A state dict of one tensor of one number."""
HARMFUL = calling("os.system")
CONFIG = b'{"model_type": "bert"}'
WEIGHTS = bytes(range(256)) * 8
MODELING = b"class Model: ...\n"
PLAIN = {"config.json": CONFIG, "model.safetensors": WEIGHTS}
HUBCONF = {"hubconf.py": b"dependencies = []\n", "package/__init__.py": b""}
MODEL_CODE = "runs with trust_remote_code=True"
HUB_CODE = "torch.hub runs it"
OLD, NEW = "a" * 40, "b" * 40
NOT_OF_A_HUB: Mapping[str, object] = {"kind": None, "revision": None, "commit_hash": None}

Model = tuple[dict[str, Any], Files]


def model(files: Files, **fields: object) -> Model:
    """A model of the Hub: what a manifest says, and the files."""
    return model_record(files, **fields), files


def checkpoint(file: str, content: bytes, **fields: object) -> Model:
    """A file at an address."""
    said = {"source": "https", "name": f"https://host.example/{file}", **NOT_OF_A_HUB, **fields}
    return model_record({file: content}, layout="torch-checkpoints", **said), {file: content}


def repository(files: Files = HUBCONF) -> Model:
    """The code of a repository of torch.hub."""
    fields = {"source": "torchhub", "name": "owner/repo", "layout": "torch-hub", "kind": None}
    return model_record(files, **fields), files


def local(name: str, files: Files) -> Model:
    """A folder or a file that was packed from a disk."""
    return model_record(files, source="file", name=name, layout="flat", **NOT_OF_A_HUB), files


def written(path: Path, *models: Model) -> Path:
    """A bundle at `path` whose manifest admits no code."""
    contents = list(dict.fromkeys(content for _, files in models for content in files.values()))
    path.write_bytes(assembled(parts_of(manifest_of(*(record for record, _ in models)), contents)))
    return path


def pack(hub: LoopbackHub, web: LoopbackWeb, home: Path, *arguments: object) -> Ran:
    """`bundler pack` from the loopback servers into bundle.tar.zst."""
    mirrors = [option for mirror in web.mirrors for option in ("--mirror", mirror)]
    env = {"HF_ENDPOINT": hub.url}
    return run("pack", *arguments, *mirrors, "-o", "bundle.tar.zst", home=home, env=env)


def admitted(bundle: Path) -> dict[str, str]:
    """What a manifest says of code, by path."""
    manifest = bundler.inspect(bundle).manifest
    return {item.path: item.reason for snapshot in manifest.snapshots for item in snapshot.code}


def assert_no_bundle(ran: Ran, home: Path) -> None:
    """One line that names the option, exit code 7, and no bundle."""
    assert (ran.code, len(ran.err.splitlines())) == (7, 1), ran.err
    assert "--no-code" in ran.err
    assert not (home / "bundle.tar.zst").exists()


# Packing.

Case = tuple[Callable[[LoopbackHub, LoopbackWeb, Path], str], dict[str, str]]


def on_hub(files: Files, kind: str = "model") -> Callable[[LoopbackHub, LoopbackWeb, Path], str]:
    """Put a repository on the hub; gives the spec for it."""

    def add(hub: LoopbackHub, web: LoopbackWeb, home: Path) -> str:
        hub.add("acme/tiny", files, kind=kind)
        return "acme/tiny" if kind == "model" else f"{kind}:acme/tiny"

    return add


def on_github(files: Files) -> Callable[[LoopbackHub, LoopbackWeb, Path], str]:
    def add(hub: LoopbackHub, web: LoopbackWeb, home: Path) -> str:
        web.add_repository("acme/code", files)
        return "torchhub:acme/code"

    return add


def at_address(name: str, content: bytes) -> Callable[[LoopbackHub, LoopbackWeb, Path], str]:
    def add(hub: LoopbackHub, web: LoopbackWeb, home: Path) -> str:
        web.add(f"https://host.example/{name}", content)
        return f"https://host.example/{name}"

    return add


def on_disk(files: Files) -> Callable[[LoopbackHub, LoopbackWeb, Path], str]:
    def add(hub: LoopbackHub, web: LoopbackWeb, home: Path) -> str:
        for path, content in files.items():
            place = home / "mine" / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        return f"file:{home / 'mine'}"

    return add


TOLD_BY_NAMES: dict[str, Case] = {
    "code of a model": (
        on_hub({**PLAIN, "modeling_tiny.py": MODELING, "sub/more.py": b""}),
        {"modeling_tiny.py": MODEL_CODE, "sub/more.py": MODEL_CODE},
    ),
    "script of a dataset": (
        on_hub({"data.csv": b"a\n1\n", "tiny.py": b"import os\n"}, "dataset"),
        {"tiny.py": "runs when it is called"},
    ),
    "code of torch.hub": (on_github(HUBCONF), {"hubconf.py": HUB_CODE}),
    "code of a folder": (
        on_disk({**PLAIN, "modeling_tiny.py": MODELING}),
        {"modeling_tiny.py": MODEL_CODE},
    ),
}
TOLD_BY_CONTENT: dict[str, Case] = {
    "pickle of a model": (
        on_hub({"config.json": CONFIG, "pytorch_model.bin": HARMFUL}),
        {"pytorch_model.bin": "os.system"},
    ),
    "pickle in an archive": (
        on_hub({"config.json": CONFIG, "pytorch_model.bin": in_zip(HARMFUL)}),
        {"pytorch_model.bin": "os.system"},
    ),
    "suffix in capitals": (
        on_hub({**PLAIN, "other.PTH": calling("builtins.eval")}),
        {"other.PTH": "builtins.eval"},
    ),
    "what python 2 called otherwise": (
        on_hub({**PLAIN, "x.pkl": calling("__builtin__.eval")}),
        {"x.pkl": "builtins.eval"},
    ),
    "checkpoint": (at_address("x.pth", HARMFUL), {"x.pth": "os.system"}),
    "checkpoint of an unusual suffix": (
        at_address("x.weights", in_zip(HARMFUL)),
        {"x.weights": "os.system"},
    ),
    "checkpoint that looks like another": (
        at_address("x.safetensors", HARMFUL),
        {"x.safetensors": "os.system"},
    ),
    "pickle in a folder": (on_disk({**PLAIN, "extra/x.pt": HARMFUL}), {"extra/x.pt": "os.system"}),
    "pickle of no call": (
        on_hub({**PLAIN, "x.bin": pickle.dumps(run)}),
        {"x.bin": "command.run"},
    ),
    "pickle that breaks off": (
        on_hub({**PLAIN, "x.bin": HARMFUL[:-1]}),
        {"x.bin": "os.system"},
    ),
}
HARMLESS: dict[str, Callable[[LoopbackHub, LoopbackWeb, Path], str]] = {
    "safetensors alone": on_hub(PLAIN),
    "state dict": on_hub({"config.json": CONFIG, "pytorch_model.bin": STATE}),
    "state dict at an address": at_address("x-0123.pth", STATE),
    "state dict of an unusual suffix": at_address("x.weights", STATE),
    "weights that are no pickle": at_address("x.bin", WEIGHTS),
    "texts that mention code": on_hub({**PLAIN, "README.md": HARMFUL, "x.pyi": b"", "py": b""}),
    "state dict in a folder": on_disk({"config.json": CONFIG, "x.pt": STATE}),
}


@pytest.mark.parametrize(
    ("add", "found"),
    [*TOLD_BY_NAMES.values(), *TOLD_BY_CONTENT.values()],
    ids=[*TOLD_BY_NAMES, *TOLD_BY_CONTENT],
)
def test_code_is_told_when_packing_and_inspecting_and_unpacking(
    add: Callable[[LoopbackHub, LoopbackWeb, Path], str],
    found: dict[str, str],
    hub: LoopbackHub,
    web: LoopbackWeb,
    tmp_path: Path,
) -> None:
    packed = pack(hub, web, tmp_path, add(hub, web, tmp_path))
    bundle = tmp_path / "bundle.tar.zst"
    assert (packed.code, packed.err) == (0, "")
    said = admitted(bundle)
    assert said.keys() == found.keys()
    assert [path for path, reason in found.items() if reason not in said[path]] == []
    assert bundler.inspect(bundle).manifest.to_bytes() == bundler.inspect(bundle).manifest_bytes
    inspected = run("inspect", bundle, home=tmp_path)
    unpacked = run("unpack", bundle, "--root", "root", home=tmp_path)
    for ran in (packed, inspected, unpacked):
        assert (ran.code, ran.err) == (0, "")
        lines = [line for line in ran.out.splitlines() if "code: " in line]
        for path, reason in found.items():
            assert [path in line and reason in line for line in lines].count(True) == 1, ran.out


@pytest.mark.parametrize("add", HARMLESS.values(), ids=HARMLESS)
def test_where_there_is_none_nothing_is_said_and_nothing_refused(
    add: Callable[[LoopbackHub, LoopbackWeb, Path], str],
    hub: LoopbackHub,
    web: LoopbackWeb,
    tmp_path: Path,
) -> None:
    packed = pack(hub, web, tmp_path, add(hub, web, tmp_path), "--no-code")
    assert (packed.code, packed.err) == (0, "")
    assert admitted(tmp_path / "bundle.tar.zst") == {}
    unpacked = run("unpack", "bundle.tar.zst", "--root", "root", "--no-code", home=tmp_path)
    assert (unpacked.code, unpacked.err) == (0, "")
    assert "code: " not in packed.out + unpacked.out


@pytest.mark.parametrize(("add", "found"), TOLD_BY_NAMES.values(), ids=TOLD_BY_NAMES)
def test_what_names_tell_is_refused_before_anything_is_downloaded(
    add: Callable[[LoopbackHub, LoopbackWeb, Path], str],
    found: dict[str, str],
    hub: LoopbackHub,
    web: LoopbackWeb,
    tmp_path: Path,
) -> None:
    ran = pack(hub, web, tmp_path, add(hub, web, tmp_path), "--no-code")
    assert_no_bundle(ran, tmp_path)
    assert next(iter(found)) in ran.err
    assert not (tmp_path / ".cache/bundler").exists()
    asked = [r.path for r in hub.requests if r.method == "GET" and "/resolve" in r.path]
    asked += [r.path for r in web.requests if "zip" in r.path]
    assert [path for path in asked if "/config.json" not in path] == []


@pytest.mark.parametrize(("add", "found"), TOLD_BY_CONTENT.values(), ids=TOLD_BY_CONTENT)
def test_what_content_tells_is_refused_before_a_bundle_is_written(
    add: Callable[[LoopbackHub, LoopbackWeb, Path], str],
    found: dict[str, str],
    hub: LoopbackHub,
    web: LoopbackWeb,
    tmp_path: Path,
) -> None:
    ran = pack(hub, web, tmp_path, add(hub, web, tmp_path), "--no-code")
    assert_no_bundle(ran, tmp_path)
    for path, reason in found.items():
        assert path in ran.err
        assert reason in ran.err


@pytest.mark.parametrize("name", ["code of a model", "code of a folder", "script of a dataset"])
def test_code_that_is_left_out_is_not_refused(
    name: str, hub: LoopbackHub, web: LoopbackWeb, tmp_path: Path
) -> None:
    spec = TOLD_BY_NAMES[name][0](hub, web, tmp_path)
    ran = pack(hub, web, tmp_path, spec, "--no-code", "--exclude", "*.py")
    assert (ran.code, ran.err) == (0, "")
    assert admitted(tmp_path / "bundle.tar.zst") == {}
    assert run("unpack", "bundle.tar.zst", "--no-code", home=tmp_path).code == 0


def test_one_revision_does_not_hide_the_code_of_another(
    hub: LoopbackHub, web: LoopbackWeb, tmp_path: Path
) -> None:
    # One branch comes before main in every order by name, the other after it.
    for branch in ("a1", "z1"):
        repo = hub.add(f"acme/{branch}", PLAIN)
        repo.commit_files({"modeling.py": MODELING}, branch=branch)
        asked = [f"acme/{branch}", f"acme/{branch}@{branch}"]
        for order in (asked, asked[::-1]):
            assert_no_bundle(pack(hub, web, tmp_path, *order, "--no-code"), tmp_path)
            assert not (tmp_path / ".cache/bundler").exists()


def test_one_revision_does_not_hide_the_pickle_of_another(
    hub: LoopbackHub, web: LoopbackWeb, tmp_path: Path
) -> None:
    for branch in ("a1", "z1"):
        repo = hub.add(f"acme/{branch}", PLAIN)
        repo.commit_files({"extra.bin": HARMFUL}, branch=branch)
        asked = [f"acme/{branch}", f"acme/{branch}@{branch}"]
        assert_no_bundle(pack(hub, web, tmp_path, *asked, "--no-code"), tmp_path)


# Unpacking bundles that do not admit it.

UNADMITTED: dict[str, tuple[list[Model], str]] = {
    "code of a model": ([model({**PLAIN, "modeling.py": MODELING})], "modeling.py"),
    "code of a dataset": ([model({"x.py": MODELING}, kind="dataset")], "x.py"),
    "code of torch.hub": ([repository()], "hubconf.py"),
    "code of a folder": ([local("mine", {"x.py": MODELING})], "x.py"),
    "pickle of a model": ([model({**PLAIN, "x.bin": HARMFUL})], "os.system"),
    "pickle in an archive": ([model({**PLAIN, "x.bin": in_zip(HARMFUL)})], "os.system"),
    "checkpoint": ([checkpoint("x.pth", HARMFUL)], "os.system"),
    "checkpoint of an unusual suffix": ([checkpoint("x.weights", HARMFUL)], "os.system"),
    "checkpoint that is called as its file": (
        [checkpoint("x.weights", HARMFUL, name="x.weights")],
        "os.system",
    ),
    "pickle in the code of torch.hub": ([repository({"w.pt": HARMFUL})], "os.system"),
    "pickle in a folder": ([local("mine", {"x.pt": HARMFUL})], "os.system"),
    "single file": ([local("x.pth", {"x.pth": HARMFUL})], "os.system"),
    "second model": ([model(PLAIN), checkpoint("x.pth", HARMFUL)], "os.system"),
    "code at the first of two revisions": (
        [
            model({**PLAIN, "x.py": MODELING}, revision="a", commit_hash=OLD),
            model(PLAIN, revision="b", commit_hash=NEW),
        ],
        "x.py",
    ),
    "code at the second of two revisions": (
        [
            model(PLAIN, revision="a", commit_hash=OLD),
            model({**PLAIN, "x.py": MODELING}, revision="b", commit_hash=NEW),
        ],
        "x.py",
    ),
    "pickle at the first of two revisions": (
        [
            model({**PLAIN, "x.bin": HARMFUL}, revision="a", commit_hash=OLD),
            model(PLAIN, revision="b", commit_hash=NEW),
        ],
        "os.system",
    ),
    "repository of the same name": (
        [
            model({**PLAIN, "x.bin": HARMFUL}, name="owner/repo"),
            repository({"README.md": b"harmless"}),
        ],
        "os.system",
    ),
}


@pytest.mark.parametrize(("models", "said"), UNADMITTED.values(), ids=UNADMITTED)
@pytest.mark.parametrize("checkpoints", [False, True], ids=["", "with plain folders"])
def test_what_the_manifest_does_not_admit_is_refused_all_the_same(
    checkpoints: bool, models: list[Model], said: str, tmp_path: Path
) -> None:
    bundle = written(tmp_path / "bundle", *models)
    before = tree(tmp_path)
    with pytest.raises(TrustError) as caught:
        unpack_below(tmp_path / "root", bundle, code=False, checkpoints=checkpoints)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(("models", "said"), UNADMITTED.values(), ids=UNADMITTED)
@pytest.mark.parametrize("checkpoints", [False, True], ids=["", "with plain folders"])
def test_it_is_refused_although_it_is_installed_already(
    checkpoints: bool, models: list[Model], said: str, tmp_path: Path
) -> None:
    bundle = written(tmp_path / "bundle", *models)
    unpack_below(tmp_path / "root", bundle, checkpoints=checkpoints)
    before = tree(tmp_path)
    with pytest.raises(TrustError, match=said):
        unpack_below(tmp_path / "root", bundle, code=False, checkpoints=checkpoints)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
def test_the_command_line_refuses_in_one_line_and_writes_nothing(
    piped: bool, tmp_path: Path
) -> None:
    bundle = written(tmp_path / "bundle", checkpoint("x.pth", HARMFUL), model(PLAIN))
    before = tree(tmp_path)
    ran = run(
        "unpack", "-" if piped else bundle, "--root", "root", "--no-code",
        home=tmp_path, input=bundle.read_bytes() if piped else None,
    )  # fmt: skip
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (7, "", 1)
    assert [w for w in ("x.pth", "os.system", "--no-code", "--only") if w not in ran.err] == []
    assert tree(tmp_path) == before


def test_what_names_tell_is_refused_by_a_dry_run_too(tmp_path: Path) -> None:
    bundle = written(tmp_path / "bundle", repository())
    ran = run("unpack", bundle, "--root", "root", "--no-code", "--dry-run", home=tmp_path)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (7, "", 1)


def test_what_the_manifest_admits_is_refused_before_any_content_is_read(tmp_path: Path) -> None:
    code = [{"path": "x.odd", "reason": "a pickle of more than tensors: os.system"}]
    record, files = model({**PLAIN, "x.odd": b""}, code=code)
    parts = parts_of(manifest_of(record), list(files.values()))
    whole = assembled(parts)
    bundle = tmp_path / "bundle"
    bundle.write_bytes(whole[: len(whole) - 1 - len(assembled(parts[1:]))])
    with pytest.raises(TrustError, match=r"x\.odd"):
        unpack_below(tmp_path / "root", bundle, code=False)
    assert not (tmp_path / "root").exists()


def test_models_without_code_can_be_chosen_from_a_bundle(tmp_path: Path) -> None:
    bundle = written(tmp_path / "bundle", checkpoint("x.pth", HARMFUL), model(PLAIN), repository())
    options = ["--root", "root", "--no-code", "--only", "org/model"]
    ran = run("unpack", bundle, *options, home=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert not (tmp_path / "root/torch").exists()


def test_a_variable_refuses_as_the_option_does(tmp_path: Path) -> None:
    bundle = written(tmp_path / "bundle", repository())
    ran = run("unpack", bundle, "--root", "root", home=tmp_path, env={"BUNDLER_NO_CODE": "1"})
    assert (ran.code, set(tree(tmp_path))) == (7, {"bundle"})


def test_after_a_refusal_the_same_bundle_unpacks_without_the_option(tmp_path: Path) -> None:
    bundle = written(tmp_path / "bundle", checkpoint("x.pth", HARMFUL))
    with pytest.raises(TrustError):
        unpack_below(tmp_path / "root", bundle, code=False)
    unpack_below(tmp_path / "root", bundle)
    assert (tmp_path / "root/torch/hub/checkpoints/x.pth").read_bytes() == HARMFUL


# Names that are made to be read by a terminal.

ESCAPES = {
    "colour": "os.\x1b[31msystem",
    "title": "os.\x1b]0;evil\x07system",
    "line": "os.all is well\rbundler: done",
    "control of 8 bits": "os.\x9b31msystem",
    "direction of text": "os.\u202esystem",
    "very long": "os." + "x" * 5000,
}


def assert_for_a_terminal(output: str) -> None:
    """Nothing in it that a terminal would obey; lines are not endless."""
    assert output
    for line in output.split("\n"):
        assert line.isprintable() or line == ""
        assert len(line) < 2000


def protocol_4(name: str) -> bytes:
    """A pickle that looks up a name with any signs in it."""
    module, function = name.split(".", 1)
    return b"\x80\x04" + text(module) + text(function) + b"\x93" + text("true") + b"\x85R."


def test_names_in_pickles_do_nothing_to_a_terminal(
    hub: LoopbackHub, web: LoopbackWeb, tmp_path: Path
) -> None:
    pickles = {f"{number}.bin": protocol_4(name) for number, name in enumerate(ESCAPES.values())}
    hub.add("acme/tiny", {**PLAIN, **pickles})
    packed = pack(hub, web, tmp_path, "acme/tiny")
    inspected = run("inspect", "bundle.tar.zst", home=tmp_path)
    unpacked = run("unpack", "bundle.tar.zst", "--root", "root", home=tmp_path)
    for ran in (packed, inspected, unpacked):
        assert (ran.code, ran.err) == (0, "")
        assert_for_a_terminal(ran.out)
        assert [path for path in pickles if path not in ran.out] == []


@pytest.mark.parametrize("name", ESCAPES.values(), ids=ESCAPES)
def test_names_that_no_manifest_admits_do_nothing_to_a_terminal(name: str, tmp_path: Path) -> None:
    bundle = written(tmp_path / "bundle", model({**PLAIN, "x.bin": protocol_4(name)}))
    ran = run("unpack", bundle, "--root", "root", "--no-code", home=tmp_path)
    assert (ran.code, len(ran.err.splitlines())) == (7, 1)
    assert_for_a_terminal(ran.err)


@pytest.mark.parametrize("text", ESCAPES.values(), ids=ESCAPES)
@pytest.mark.parametrize("field", ["path", "reason"])
def test_what_a_manifest_says_of_code_does_nothing_to_a_terminal(
    field: str, text: str, tmp_path: Path
) -> None:
    item = {"path": "x.bin", "reason": "y", field: text}
    bundle = written(tmp_path / "bundle", model({**PLAIN, "x.bin": STATE}, code=[item]))
    ran = run("inspect", bundle, home=tmp_path)
    assert ran.code in (0, 5)
    for line in (ran.out + ran.err).split("\n"):
        assert line.isprintable()


MALFORMED: dict[str, object] = {
    "text": "modeling.py",
    "list of texts": ["modeling.py"],
    "no path": [{"reason": "x"}],
    "no reason": [{"path": "x"}],
    "number": [{"path": "x", "reason": 5}],
    "nothing": [{"path": "", "reason": "x"}],
}


@pytest.mark.parametrize("code", MALFORMED.values(), ids=MALFORMED)
def test_a_manifest_with_a_malformed_list_of_code_is_refused(code: object, tmp_path: Path) -> None:
    bundle = written(tmp_path / "bundle", model(PLAIN, code=code))
    ran = run("unpack", bundle, "--root", "root", home=tmp_path)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (5, "", 1)
    assert "org/model" in ran.err
    assert set(tree(tmp_path)) == {"bundle"}


def test_json_says_it_too(tmp_path: Path, hub: LoopbackHub, web: LoopbackWeb) -> None:
    spec = TOLD_BY_NAMES["code of a model"][0](hub, web, tmp_path)
    assert pack(hub, web, tmp_path, spec).code == 0
    manifest = json.loads(run("inspect", "bundle.tar.zst", "--json", home=tmp_path).raw)
    (snapshot,) = manifest["snapshots"]
    assert [item["path"] for item in snapshot["code"]] == ["modeling_tiny.py", "sub/more.py"]
