"""Packing without a network, from what the libraries have downloaded before."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import Ran, command_environment, run
from loopback import closed_port
from loopback_hub import LoopbackHub
from loopback_web import LoopbackWeb
from trees import Tree, found_offline, tree, write_cache

import bundler
from bundler.manifest import Snapshot

WEIGHTS = os.urandom(2_000_000)
CONFIG = b'{"model_type": "bert"}' * 60
FILES = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "sub/vocab.txt": b"a\nb\n"}
OLDER = {**FILES, "config.json": b"{}"}
SENTENCES = {
    **FILES,
    "modules.json": b'[{"path": "", "type": "sentence_transformers.models.Transformer"},'
    b' {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]',
    "1_Pooling/config.json": b"{}",
}
ROWS = {"rows.csv": b"a,b\n1,2\n" * 9}
CODE = {"hubconf.py": b"dependencies = ['torch']\n", "data/table.bin": WEIGHTS[:5000]}
RESNET18 = b"tensors26c4756b2"  # its sha256 starts as the file's name says
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()

OF_THE_HUB = (
    "acme/tiny",
    "acme/tiny@v1.0",
    "bert-base-uncased",
    "space:acme/demo",
    "timm:resnet18.a1_in1k",
    "sentence-transformers:all-MiniLM-L6-v2",
)
OF_OTHERS = (
    "torchvision:resnet18",
    "torchhub:facebookresearch/dinov2:main#dinov2_vits14",
    "insightface:buffalo_l",
)
ROWS_SPEC = "dataset:acme/rows"


def offline(home: Path, *arguments: object, **options: Any) -> Ran:
    """`bundler pack --offline` on the machine at `home`."""
    output = () if "--dry-run" in arguments else ("-o", "bundle.tar.zst")
    return run("pack", "--offline", *arguments, *output, home=home, **options)


def everything(home: Path, *arguments: object, **options: Any) -> Ran:
    """`bundler pack --everything` on the machine at `home`."""
    return run("pack", "--everything", *arguments, "-o", "bundle.tar.zst", home=home, **options)


def snapshots(home: Path) -> tuple[Snapshot, ...]:
    return bundler.inspect(home / "bundle.tar.zst").manifest.snapshots


def names(home: Path) -> list[str]:
    """What is in the bundle: name@revision, or the name alone where there are no revisions."""
    return sorted("@".join(filter(None, [s.name, s.revision])) for s in snapshots(home))


def digests(snapshot: Snapshot) -> dict[str, str]:
    return {str(entry.path): entry.blob.digest.hex for entry in snapshot.files}


def sha256_of(files: Mapping[str, bytes]) -> dict[str, str]:
    return {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}


def described(home: Path) -> set[tuple[Any, ...]]:
    """What is in the bundle, whichever of its names a model has first."""
    return {
        (s.layout, frozenset(s.names), s.revision, s.commit_hash, *digests(s).items())
        for s in snapshots(home)
    }


def repository(home: Path, name: str, kind: str = "model") -> Path:
    folder = f"{kind}s--{name.replace('/', '--')}"
    return home / ".cache" / "huggingface" / "hub" / folder


def checkpoints(home: Path) -> Path:
    return home / ".cache" / "torch" / "hub" / "checkpoints"


def flip(path: Path) -> None:
    """Invert one byte in the middle."""
    path = path.resolve()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.unlink()
    path.write_bytes(content)


def add_all(hub: LoopbackHub, web: LoopbackWeb, made: Path) -> None:
    """Put upstream all that is packed here."""
    repo = hub.add("acme/tiny", OLDER, license="mit")
    repo.tag("v1.0")
    repo.commit_files(FILES)
    hub.add("google-bert/bert-base-uncased", FILES, aliases=["bert-base-uncased"])
    hub.add("acme/rows", ROWS, kind="dataset")
    hub.add("acme/demo", {"app.py": b"print()"}, kind="space")
    hub.add("timm/resnet18.a1_in1k", FILES)
    hub.add("sentence-transformers/all-MiniLM-L6-v2", SENTENCES)
    web.add("https://download.pytorch.org/models/resnet18-f37072fd.pth", RESNET18)
    web.add_repository("facebookresearch/dinov2", CODE)
    weights = "dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth"
    web.add(f"https://dl.fbaipublicfiles.com/{weights}", WEIGHTS[::-1])
    shutil.make_archive(str(made / "buffalo_l"), "zip", _faces(made))
    web.add_release("deepinsight/insightface", "model-zoo", "buffalo_l.zip", made / "buffalo_l.zip")


def _faces(made: Path) -> Path:
    folder = made / "faces"
    folder.mkdir()
    (folder / "det_10g.onnx").write_bytes(WEIGHTS[:4000])
    return folder


def unpack(bundle: Path, home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    done = run("unpack", bundle, home=home)
    assert done.code == 0, done.err


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A machine that was once online: all of upstream is in its caches, and in its bundle."""
    home = tmp_path_factory.mktemp("online")
    with LoopbackHub() as hub, LoopbackWeb() as web:
        add_all(hub, web, tmp_path_factory.mktemp("made"))
        mirrors = [option for mirror in web.mirrors for option in ("--mirror", mirror)]
        done = run(
            "pack", *OF_THE_HUB, *OF_OTHERS, ROWS_SPEC, *mirrors, "-o", "bundle.tar.zst",
            home=home, env={"HF_ENDPOINT": hub.url},
        )  # fmt: skip
    assert done.code == 0, done.err
    shutil.rmtree(home / ".cache")
    unpack(home / "bundle.tar.zst", home)
    return home


@pytest.fixture
def whole(online: Path, tmp_path: Path) -> Path:
    """The same for one test alone, without the bundle."""
    left_out = shutil.ignore_patterns("bundle.tar.zst", "offline.env")
    return Path(shutil.copytree(online, tmp_path / "home", symlinks=True, ignore=left_out))


@pytest.fixture
def home(whole: Path) -> Path:
    """The same without data sets, which take a while to prepare."""
    shutil.rmtree(whole / ".cache" / "huggingface" / "datasets", ignore_errors=True)
    shutil.rmtree(repository(whole, "acme/rows", "dataset"))
    return whole


@pytest.fixture(scope="module")
def air_gap() -> tuple[str, ...]:
    """What runs a command on a machine without a network; only root needs no new user."""
    for command in (("unshare", "-n"), ("unshare", "-rn")):
        try:
            if subprocess.run([*command, "true"], capture_output=True).returncode == 0:
                return command
        except FileNotFoundError:
            break
    pytest.skip("this system refuses unshare -n")


def traced(command: Sequence[str], home: Path, *arguments: str) -> None:
    """Run a Python program in front of which `command` stands; it must succeed."""
    done = subprocess.run(
        [*command, sys.executable, *arguments],
        cwd=home,
        env=command_environment(home),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def known_here(snapshot: Snapshot) -> Snapshot:
    """A snapshot without what only upstream can tell."""
    return replace(snapshot, license=None, aliases=())


def caches(home: Path) -> Tree:
    """All that libraries read on a machine."""
    return {
        path: what
        for path, what in tree(home).items()
        if path.startswith((".cache/", ".insightface")) and not path.startswith(".cache/bundler")
    }


class TestTheSame:
    def test_all_kinds_are_packed_as_they_were_online(
        self, online: Path, whole: Path, air_gap: tuple[str, ...]
    ) -> None:
        home = whole
        before = tree(home)
        store = str(home.parent / "store")
        arguments = ["pack", "--offline", *OF_THE_HUB, *OF_OTHERS, ROWS_SPEC, "--store", store]
        traced(air_gap, home, "-m", "bundler", *arguments, "-o", "../bundle.tar.zst")
        assert tree(home) == before

        first, second = snapshots(online), snapshots(home.parent)
        assert [*map(known_here, second)] == [*map(known_here, first)]

        unpack(home.parent / "bundle.tar.zst", home.parent / "third")
        assert _without_receipts(caches(home.parent / "third")) == _without_receipts(caches(home))

    @pytest.mark.parametrize("spec", [*OF_THE_HUB[3:], *OF_OTHERS])
    def test_each_kind_alone(self, spec: str, home: Path) -> None:
        done = offline(home, spec)
        assert (done.code, done.err) == (0, "")
        assert "0 B to download" in done.out

    def test_nothing_is_connected_to(self, home: Path, tmp_path: Path) -> None:
        """Not one attempt; and the tracer would have seen it."""
        log, control = tmp_path / "connects.txt", tmp_path / "control.txt"
        strace = ["strace", "-f", "-qq", "-e", "trace=connect", "-o"]
        try:
            if subprocess.run([*strace, log, "true"], capture_output=True).returncode:
                pytest.skip("strace is not allowed here")
        except FileNotFoundError:
            pytest.skip("strace is not installed")
        arguments = ["-m", "bundler", "pack", "--offline", *OF_THE_HUB, *OF_OTHERS]
        traced([*strace, str(log)], home, *arguments)
        assert "AF_INET" not in log.read_text()
        attempt = "import socket\nsocket.socket().connect_ex(('127.0.0.1', 9))"
        traced([*strace, str(control)], home, "-c", attempt)
        assert "AF_INET" in control.read_text()

    @pytest.mark.parametrize(
        "env",
        [
            pytest.param({"HF_TOKEN": "hf_secret"}, id="a token"),
            pytest.param({"HF_TOKEN": "hf_\u200bpasted"}, id="what is no token"),
            pytest.param({"HF_ENDPOINT": "http://127.0.0.1:{port}"}, id="a hub that is gone"),
            pytest.param({"HF_ENDPOINT": "hub.example"}, id="what is no address"),
            pytest.param({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}, id="offline twice"),
            pytest.param({"HTTPS_PROXY": "http://127.0.0.1:{port}"}, id="a proxy that is gone"),
            pytest.param({"SSL_CERT_FILE": "/nowhere.pem"}, id="certificates that are gone"),
        ],
    )
    def test_what_is_set_up_for_a_network_changes_nothing(
        self, env: dict[str, str], home: Path
    ) -> None:
        specs = ("acme/tiny", "torchvision:resnet18")
        assert offline(home, *specs).code == 0
        expected = bundler.inspect(home / "bundle.tar.zst").digest
        env = {name: value.format(port=closed_port()) for name, value in env.items()}
        done = offline(home, *specs, env=env)
        assert (done.code, done.err) == (0, "")
        assert bundler.inspect(home / "bundle.tar.zst").digest == expected

    def test_no_hub_that_would_answer_is_asked(self, hub: LoopbackHub, home: Path) -> None:
        hub.add("acme/other", FILES)
        done = offline(home, "acme/other", "--endpoint", hub.url, env={"HF_ENDPOINT": hub.url})
        assert (done.code, done.err.count("\n"), hub.requests) == (3, 1, [])

    def test_nothing_that_a_model_needs_is_asked_for_either(
        self, hub: LoopbackHub, home: Path
    ) -> None:
        adapter = {"adapter_config.json": b'{"base_model_name_or_path": "acme/base"}'}
        write_cache(
            home / ".cache/huggingface/hub", "acme/adapter",
            {**adapter, "adapter_model.safetensors": WEIGHTS},
        )  # fmt: skip
        env = {"HF_ENDPOINT": hub.url}
        done = offline(home, "acme/adapter", env=env)
        assert (done.code, done.err.count("\n"), hub.requests) == (3, 1, [])
        assert "acme/adapter needs acme/base" in done.err
        assert "--no-closure" in done.err
        assert offline(home, "acme/adapter", "--no-closure", env=env).code == 0
        write_cache(home / ".cache/huggingface/hub", "acme/base", FILES)
        assert offline(home, "acme/adapter", env=env).code == 0
        assert names(home) == ["acme/adapter@main", "acme/base@main"]

    def test_the_libraries_variables_say_where_caches_are(self, home: Path) -> None:
        (home / ".cache" / "huggingface" / "hub").rename(home / "models")
        (home / ".cache" / "torch").rename(home / "torch")
        env = {"HF_HUB_CACHE": str(home / "models"), "TORCH_HOME": str(home / "torch")}
        specs = ("acme/tiny", "torchvision:resnet18")
        assert offline(home, *specs).code == 3
        assert offline(home, *specs, env=env).code == 0
        assert names(home)[0] == "acme/tiny@main"

    def test_the_variable_says_offline_too(self, hub: LoopbackHub, home: Path) -> None:
        env = {"BUNDLER_OFFLINE": "1", "HF_ENDPOINT": hub.url}
        assert run("pack", "acme/tiny", home=home, env=env).code == 0
        assert hub.requests == []

    def test_a_dry_run_writes_nothing(self, home: Path) -> None:
        before = tree(home)
        done = offline(home, *OF_THE_HUB, *OF_OTHERS, "--dry-run", "--json")
        assert (done.code, done.err) == (0, "")
        assert json.loads(done.out)["download_size"] == 0
        assert tree(home) == before

    def test_plain_files_without_blobs_are_packed(self, tmp_path: Path) -> None:
        hub = tmp_path / ".cache" / "huggingface" / "hub"
        write_cache(hub, "acme/plain", FILES, links=False)
        assert offline(tmp_path, "acme/plain").code == 0
        (snapshot,) = snapshots(tmp_path)
        assert digests(snapshot) == sha256_of(FILES)

    def test_blobs_that_all_repositories_share_are_packed(self, home: Path) -> None:
        blob = repository(home, "acme/tiny") / "blobs" / SHA256
        shared = home / ".cache/huggingface/hub/blobs/ab/ab12"
        shared.parent.mkdir(parents=True)
        blob.rename(shared)
        blob.symlink_to("../../blobs/ab/ab12")
        assert offline(home, "acme/tiny").code == 0
        (snapshot,) = snapshots(home)
        assert digests(snapshot) == sha256_of(FILES)
        assert {entry.etag for entry in snapshot.files} >= {SHA256}

    def test_part_of_a_repository_is_packed_as_it_is(self, home: Path) -> None:
        """`from_pretrained` downloads what it needs; the list of files has all there is."""
        folder = repository(home, "acme/tiny")
        (commit,) = {(folder / "refs" / "main").read_text()}
        (folder / "snapshots" / commit / "sub" / "vocab.txt").unlink()
        listing = folder / "trees" / f"{commit}.json"
        assert "sub/vocab.txt" in json.loads(listing.read_text())["files"]
        assert offline(home, "acme/tiny").code == 0
        (snapshot,) = snapshots(home)
        assert set(digests(snapshot)) == {"config.json", "model.safetensors"}
        unpack(home / "bundle.tar.zst", home.parent / "target")
        found = found_offline(home.parent / "target/.cache/huggingface", ("acme/tiny", "main"))
        (files,) = found.snapshots
        assert files == {"config.json": CONFIG, "model.safetensors": WEIGHTS}

    def test_the_weights_that_were_not_wanted_are_not_missed(self, tmp_path: Path) -> None:
        """Downloads without `*.bin` leave the list of those shards, and the weights are whole."""
        index = json.dumps({"weight_map": {"a": "pytorch_model-00001-of-00001.bin"}}).encode()
        files = {**FILES, "pytorch_model.bin.index.json": index}
        write_cache(tmp_path / ".cache/huggingface/hub", "acme/half", files)
        done = offline(tmp_path, "acme/half")
        assert (done.code, done.err) == (0, "")


def _without_receipts(found: Tree) -> Tree:
    """The same without notes on how it came there, and without a name that only upstream told."""
    return {p: w for p, w in found.items() if "receipt" not in p and "google-bert" not in p}


class TestNames:
    def test_what_is_not_there_is_told_with_what_is_near(self, home: Path) -> None:
        done = offline(home, "other/tiny")
        assert (done.code, done.err.count("\n")) == (3, 1)
        assert "other/tiny is not in" in done.err
        assert "do you mean acme/tiny?" in done.err

    def test_what_is_like_nothing_is_told(self, home: Path) -> None:
        done = offline(home, "acme/nothing-like-it")
        assert (done.code, done.err.count("\n")) == (3, 1)
        assert "load it once with a network" in done.err

    def test_all_that_is_missing_is_told_at_once(self, home: Path) -> None:
        done = offline(
            home, "acme/tiny", "acme/nix", "acme/tiny@v9", "dataset:acme/nix",
            "torchvision:resnet34", "torchhub:acme/nix:main", "insightface:buffalo_s",
            "timm:resnet18.a2_in1k", "https://files.example/x.pth",
        )  # fmt: skip
        assert (done.code, done.err.count("\n")) == (3, 8)
        for said in (
            "acme/nix",
            "v9",
            "resnet34",
            "acme/nix:main",
            "buffalo_s",
            "a2_in1k",
            "x.pth",
        ):
            assert said in done.err
        assert not (home / "bundle.tar.zst").exists()

    def test_a_revision_that_is_missing_is_told_with_those_that_are_there(self, home: Path) -> None:
        done = offline(home, "acme/tiny@v2.0")
        assert (done.code, done.err.count("\n")) == (3, 1)
        assert "no revision v2.0" in done.err
        assert "only main, v1.0" in done.err

    @pytest.mark.parametrize("digits", [7, 12, 40])
    def test_a_revision_may_be_a_commit_or_the_start_of_one(self, home: Path, digits: int) -> None:
        commit = (repository(home, "acme/tiny") / "refs" / "v1.0").read_text()
        assert offline(home, f"acme/tiny@{commit[:digits]}").code == 0
        (snapshot,) = snapshots(home)
        assert (snapshot.revision, snapshot.commit_hash) == (commit[:digits], commit)
        assert digests(snapshot) == sha256_of(OLDER)

    def test_a_few_digits_are_no_commit(self, home: Path) -> None:
        commit = (repository(home, "acme/tiny") / "refs" / "v1.0").read_text()
        assert offline(home, f"acme/tiny@{commit[:6]}").code == 3

    def test_without_a_ref_no_revision_is_guessed(self, home: Path) -> None:
        (repository(home, "acme/tiny") / "refs" / "main").unlink()
        done = offline(home, "acme/tiny")
        assert (done.code, "no revision main" in done.err) == (3, True)

    @pytest.mark.parametrize("revision", ["../../../outside", "/etc/hostname", ".."])
    def test_a_revision_leads_nowhere_else(self, home: Path, revision: str) -> None:
        commit = (repository(home, "acme/tiny") / "refs" / "main").read_text()
        (home / ".cache" / "huggingface" / "outside").write_text(commit)
        done = offline(home, f"acme/tiny@{revision}")
        assert (done.code, done.err.count("\n")) in ((2, 1), (3, 1))
        assert "Traceback" not in done.err

    @pytest.mark.parametrize("text", ["..", "../..", "", "main", "\0", "é"])
    def test_a_ref_that_holds_no_commit_is_told(self, home: Path, text: str) -> None:
        (repository(home, "acme/tiny") / "refs" / "main").write_text(text)
        done = offline(home, "acme/tiny")
        assert (done.code, done.err.count("\n")) == (3, 1), done.err

    def test_both_names_of_a_repository_are_found(self, home: Path) -> None:
        assert offline(home, "google-bert/bert-base-uncased").code == 0
        assert offline(home, "bert-base-uncased", "google-bert/bert-base-uncased").code == 0
        (snapshot,) = snapshots(home)
        assert set(snapshot.names) == {"bert-base-uncased", "google-bert/bert-base-uncased"}


class TestDamage:
    @pytest.mark.parametrize(
        ("damage", "code", "said"),
        [
            pytest.param(lambda blob: blob.unlink(), 3, "missing or cut short", id="gone"),
            pytest.param(
                lambda blob: os.truncate(blob, 1000), 3, "missing or cut short", id="cut short"
            ),
            pytest.param(
                lambda blob: blob.write_bytes(WEIGHTS + b"x"), 3, "missing", id="too long"
            ),
            pytest.param(flip, 4, "is damaged in", id="a flipped byte"),
        ],
    )
    def test_a_damaged_file_is_told_by_name(
        self,
        damage: Callable[[Path], None],
        code: int,
        said: str,
        home: Path,
    ) -> None:
        blob = repository(home, "acme/tiny") / "blobs" / SHA256
        blob.chmod(0o644)
        damage(blob)
        done = offline(home, "acme/tiny")
        assert done.code == code
        message = done.err.splitlines()[0]
        assert "model.safetensors" in message
        assert said in message
        assert "acme/tiny" in message
        assert not (home / "bundle.tar.zst").exists()

    def test_a_flipped_byte_of_a_small_file_is_told(self, home: Path) -> None:
        folder = repository(home, "acme/tiny")
        commit = (folder / "refs" / "main").read_text()
        flip(folder / "snapshots" / commit / "sub" / "vocab.txt")
        done = offline(home, "acme/tiny")
        assert (done.code, done.err.startswith("bundler: sub/vocab.txt of acme/tiny")) == (4, True)

    def test_all_that_is_damaged_is_told(self, home: Path) -> None:
        folder = repository(home, "acme/tiny") / "snapshots"
        commit = (folder.parent / "refs" / "main").read_text()
        flip(folder / commit / "sub" / "vocab.txt")
        flip(folder / commit / "model.safetensors")
        done = offline(home, "acme/tiny")
        assert done.code == 4
        assert "sub/vocab.txt of acme/tiny" in done.err
        assert "model.safetensors of acme/tiny" in done.err

    def test_shards_that_an_index_names_must_be_there(self, tmp_path: Path) -> None:
        shards = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
        index = {"weight_map": dict(zip("abc", shards, strict=True))}
        files = {
            "config.json": CONFIG,
            "model.safetensors.index.json": json.dumps(index).encode(),
            shards[0]: WEIGHTS,
        }
        write_cache(tmp_path / ".cache/huggingface/hub", "acme/large", files)
        done = offline(tmp_path, "acme/large")
        assert (done.code, done.err.count("\n")) == (3, 1)
        assert shards[0] not in done.err
        assert shards[1] in done.err
        assert shards[2] in done.err

    @pytest.mark.parametrize("index", [b"", b"[]", b"null", b'{"weight_map": []}', b"\xff"])
    def test_an_index_that_is_none_is_no_reason_to_fail(self, index: bytes, tmp_path: Path) -> None:
        files = {**FILES, "model.safetensors.index.json": index}
        write_cache(tmp_path / ".cache/huggingface/hub", "acme/odd", files)
        assert offline(tmp_path, "acme/odd").code == 0

    @pytest.mark.parametrize(
        "listing",
        [b"", b"[]", b"{}", b'{"files": []}', b'{"files": {"config.json": 1}}', b"[" * 100_000],
    )
    def test_a_list_of_files_that_is_none_is_no_reason_to_fail(
        self, listing: bytes, home: Path
    ) -> None:
        folder = repository(home, "acme/tiny")
        commit = (folder / "refs" / "main").read_text()
        (folder / "trees" / f"{commit}.json").write_bytes(listing)
        done = offline(home, "acme/tiny")
        assert (done.code, done.err) == (0, "")
        assert digests(snapshots(home)[0]) == sha256_of(FILES)

    def test_an_empty_snapshot_is_told(self, home: Path) -> None:
        folder = repository(home, "acme/tiny")
        commit = (folder / "refs" / "main").read_text()
        shutil.rmtree(folder / "snapshots" / commit)
        (folder / "snapshots" / commit).mkdir()
        done = offline(home, "acme/tiny")
        assert (done.code, done.err.count("\n")) == (3, 1)
        assert "  " not in done.err  # Nothing is left blank where names should be.

    def test_a_checkpoint_that_its_name_does_not_vouch_for_is_told(self, home: Path) -> None:
        flip(checkpoints(home) / "resnet18-f37072fd.pth")
        done = offline(home, "torchvision:resnet18")
        assert (done.code, done.err.count("\n")) == (4, 1)
        assert "resnet18-f37072fd.pth" in done.err

    @pytest.mark.parametrize("spec", [OF_OTHERS[1], OF_OTHERS[2]])
    def test_a_link_that_leads_nowhere_is_told(self, spec: str, home: Path) -> None:
        (code,) = {path.resolve() for path in (home / ".cache/torch/hub").glob("*_main")}
        for folder in (code, home / ".insightface/models/buffalo_l"):
            (folder / "det.onnx").symlink_to("gone")
        done = offline(home, spec)
        assert (done.code, done.err.count("\n")) == (3, 1), done.err
        assert "det.onnx" in done.err


class TestEverything:
    def test_all_that_is_here_is_packed(self, online: Path, whole: Path) -> None:
        done = everything(whole)
        assert (done.code, done.err) == (0, "")
        assert "left behind" not in done.out
        assert described(whole) == described(online)

    def test_what_comes_of_it_is_the_same_caches(self, home: Path) -> None:
        """But for which of two names is the folder, and which the link to it."""
        assert everything(home).code == 0
        unpack(home / "bundle.tar.zst", home.parent / "target")
        there, here = caches(home.parent / "target"), caches(home)
        for found in (there, here):
            for path in [path for path in found if "bert" in path or "receipt" in path]:
                del found[path]
        assert there == here

    def test_nothing_is_asked_of_a_network(self, hub: LoopbackHub, home: Path) -> None:
        hub.add("acme/other", FILES)
        env = {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token}
        assert everything(home, env=env).code == 0
        done = everything(home, "acme/other", env=env)
        assert (done.code, "acme/other" in done.err, hub.requests) == (3, True, [])

    def test_a_machine_without_anything_is_told(self, tmp_path: Path) -> None:
        done = everything(tmp_path)
        assert (done.code, done.err.count("\n")) == (3, 1)
        assert "nothing to pack is on this machine" in done.err

    def test_caches_that_are_empty_are_told(self, tmp_path: Path) -> None:
        for folder in (".cache/huggingface/hub", ".cache/torch/hub/checkpoints", ".insightface"):
            (tmp_path / folder).mkdir(parents=True)
        done = everything(tmp_path)
        assert (done.code, done.err.count("\n")) == (3, 1)

    def test_specs_beside_it_are_packed_too(self, home: Path) -> None:
        (home / "mine.pth").write_bytes(WEIGHTS)
        assert everything(home, "file:mine.pth", "acme/tiny").code == 0
        assert "mine.pth" in names(home)
        assert names(home).count("acme/tiny@main") == 1

    def test_a_spec_that_is_not_here_fails(self, home: Path) -> None:
        done = everything(home, "acme/nix")
        assert (done.code, done.err.count("\n")) == (3, 1)
        assert "acme/nix" in done.err

    def test_what_is_not_whole_is_left_behind_and_told(self, home: Path) -> None:
        (repository(home, "timm/resnet18.a1_in1k") / "blobs" / SHA256).unlink()
        done = everything(home)
        assert done.code == 0, done.err
        (note,) = [line for line in done.out.splitlines() if "left behind" in line]
        assert "timm/resnet18.a1_in1k" in note
        assert "model.safetensors" in note
        assert "timm/resnet18.a1_in1k@main" not in names(home)
        assert "acme/tiny@main" in names(home)

    def test_what_is_damaged_is_told_by_name(self, home: Path) -> None:
        (blob,) = (repository(home, "acme/demo", "space") / "blobs").iterdir()
        flip(blob)
        done = everything(home)
        assert (done.code, "app.py of acme/demo" in done.err) == (4, True)

    def test_a_checkpoint_that_its_name_does_not_vouch_for_is_told(self, home: Path) -> None:
        """It is packed under the address that it is from, so it must be what that has."""
        flip(checkpoints(home) / "resnet18-f37072fd.pth")
        done = everything(home)
        assert "resnet18-f37072fd.pth" in (_notes(done.out) if done.code == 0 else done.err)
        assert done.code in (0, 4)

    def test_configuration_alone_is_packed_as_that(self, home: Path) -> None:
        write_cache(home / ".cache/huggingface/hub", "acme/bare", {"config.json": CONFIG})
        assert everything(home).code == 0
        (bare,) = [s for s in snapshots(home) if s.name == "acme/bare"]
        assert digests(bare) == sha256_of({"config.json": CONFIG})

    def test_several_revisions_of_one_model_are_all_packed(self, home: Path) -> None:
        folder = repository(home, "acme/tiny")
        commit = (folder / "refs" / "v1.0").read_text()
        (folder / "refs" / "v1.0").unlink()
        (folder / "refs" / "refs" / "pr").mkdir(parents=True)
        (folder / "refs" / "refs" / "pr" / "1").write_text((folder / "refs/main").read_text())
        assert everything(home).code == 0
        found = {name for name in names(home) if name.startswith("acme/tiny")}
        assert found == {"acme/tiny@main", f"acme/tiny@{commit}", "acme/tiny@refs/pr/1"}
        (older,) = [s for s in snapshots(home) if s.revision == commit]
        assert digests(older) == sha256_of(OLDER)

    def test_both_names_of_a_model_are_one(self, home: Path) -> None:
        assert everything(home).code == 0
        (bert,) = [s for s in snapshots(home) if "bert" in s.name]
        assert set(bert.names) == {"bert-base-uncased", "google-bert/bert-base-uncased"}

    def test_what_is_chosen_is_left_out_of_all(self, home: Path) -> None:
        assert everything(home, "--exclude", "*/vocab.txt").code == 0
        assert not [s for s in snapshots(home) if "sub/vocab.txt" in digests(s)]
        done = everything(home, "--include", "app.py")
        assert done.code == 0
        assert any("acme/tiny" in note for note in _notes(done.out).splitlines())

    def test_checkpoints_of_the_users_own_are_packed_by_their_names(self, home: Path) -> None:
        (checkpoints(home) / "mine.pth").write_bytes(WEIGHTS)
        (checkpoints(home) / "resnet50-0676ba61.pth.1234.partial").write_bytes(b"half")
        assert everything(home).code == 0
        found = {path: digest for s in snapshots(home) for path, digest in digests(s).items()}
        assert found["mine.pth"] == SHA256
        assert not [path for path in found if "partial" in path]

    def test_code_of_torch_hub_that_is_no_link_is_packed(self, home: Path) -> None:
        """As torch.hub itself leaves it: a folder for each ref, commits among them."""
        commit = "0123456789abcdef0123456789abcdef01234567"
        for ref in ("dev", "feature_x", commit):
            folder = home / ".cache/torch/hub" / f"acme_nets_{ref}"
            folder.mkdir()
            (folder / "hubconf.py").write_bytes(b"dependencies = []\n")
            (folder / "__pycache__").mkdir()
            (folder / "__pycache__" / "hubconf.cpython-311.pyc").write_bytes(b"x")
        assert everything(home).code == 0
        unpack(home / "bundle.tar.zst", home.parent / "target")
        for ref in ("dev", "feature_x", commit):
            folder = home.parent / "target/.cache/torch/hub" / f"acme_nets_{ref}"
            assert (folder / "hubconf.py").read_bytes() == b"dependencies = []\n"
            assert not (folder / "__pycache__").exists()

    def test_what_is_odd_does_not_keep_the_rest_from_being_packed(self, home: Path) -> None:
        hub, torch = home / ".cache/huggingface/hub", home / ".cache/torch/hub"
        (hub / "models--").mkdir()
        (hub / "models--acme--nothing").mkdir()
        (hub / "models--acme--file").write_bytes(b"")
        (hub / "version.txt").write_text("1")
        (hub / "models--acme--dangling").symlink_to("gone")
        (torch / "acme_half_main").mkdir()
        (torch / "acme_link_main").symlink_to("gone")
        (torch / "checkpoints" / "gone.pth").symlink_to("gone")
        (torch / "checkpoints" / "folder").mkdir()
        os.mkfifo(torch / "checkpoints" / "pipe.pth")
        (home / ".insightface/models/empty").mkdir()
        (home / ".insightface/models/buffalo_s.zip").write_bytes(b"zip")
        done = everything(home)
        assert (done.code, done.err) == (0, "")
        assert "acme/tiny@main" in names(home)

    @pytest.mark.parametrize("where", [".insightface/models/own", ".cache/torch/hub/acme_own_main"])
    def test_a_link_that_leads_nowhere_is_left_behind_and_told(
        self, where: str, home: Path
    ) -> None:
        folder = home / where
        folder.mkdir()
        (folder / "hubconf.py").write_bytes(b"dependencies = []\n")
        (folder / "det.onnx").symlink_to("gone")
        done = everything(home)
        assert done.code == 0, done.err
        assert "own" in _notes(done.out)
        assert "acme/tiny@main" in names(home)

    def test_a_link_to_the_pack_of_insightface_is_followed(self, home: Path) -> None:
        models = home / ".insightface" / "models"
        models.rename(home / "faces")
        models.symlink_to(home / "faces")
        assert everything(home).code == 0
        assert "buffalo_l" in names(home)


def _notes(out: str) -> str:
    return "\n".join(line for line in out.splitlines() if line.startswith("note: "))
