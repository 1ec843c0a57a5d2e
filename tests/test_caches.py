"""Packing with a network, where the libraries have downloaded some of it already."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from command import Ran, command_environment, run
from loopback_hub import LoopbackHub, Repo
from loopback_web import LoopbackWeb

import bundler
from bundler.sharing import clone

NAME = "acme/tiny"
MERGES = b'{"a": 1, "b": 2}' * 70
WEIGHTS = os.urandom(3_000_000)
FILES = {"merges.json": MERGES, "model.safetensors": WEIGHTS, "sub/vocab.txt": b"a\nb\n"}
GIT = hashlib.sha1(b"blob %d\0" % len(MERGES) + MERGES).hexdigest()
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
BLOBS = {"merges.json": GIT, "model.safetensors": SHA256}
DOWNLOAD = "import sys, huggingface_hub as h; h.snapshot_download(sys.argv[1])"
PYTORCH = "https://download.pytorch.org/models"
RESNET18 = b"tensors26c4756b2"  # its sha256 starts as the file's name says

State = dict[str, tuple[int, int, bytes]]


def pack(hub: LoopbackHub, home: Path, *arguments: object, **options: Any) -> Ran:
    """`bundler pack` against the hub, with `-o bundle.tar.zst`."""
    output = () if "--dry-run" in arguments else ("-o", "bundle.tar.zst")
    env = {"HF_ENDPOINT": hub.url, **options.pop("env", {})}
    return run("pack", *arguments, *output, home=home, env=env, **options)


def pack_web(web: LoopbackWeb, home: Path, *arguments: object, **options: Any) -> Ran:
    """The same against all other hosts."""
    mirrors = [option for mirror in web.mirrors for option in ("--mirror", mirror)]
    output = () if "--dry-run" in arguments else ("-o", "bundle.tar.zst")
    return run("pack", *arguments, *mirrors, *output, home=home, **options)


def fetched(hub: LoopbackHub) -> list[str]:
    """The names of all files that were asked for, for their content."""
    asked = [r.path for r in hub.requests if r.method == "GET" and r.server == "hub"]
    return sorted({path.rpartition("/")[2] for path in asked if "/resolve/" in path})


def asked(web: LoopbackWeb, name: str) -> int:
    """How often a file was asked for: once for what there is to know of it, again for the rest."""
    return sum(request.path.endswith(name) for request in web.requests)


def unsaid(done: Ran) -> str:
    """What stands on stderr, but for the word that a copy here is damaged."""
    lines = done.err.splitlines()
    return "".join(line for line in lines if "is not what upstream has" not in line)


def state(folder: Path) -> State:
    """Mode, time of change, and content or target of everything below a folder."""
    found: State = {}
    for inner, folders, files in os.walk(folder):
        for path in [Path(inner), *(Path(inner, name) for name in (*folders, *files))]:
            status = path.lstat()
            content = b""
            if stat.S_ISLNK(status.st_mode):
                content = os.fsencode(os.readlink(path))
            elif stat.S_ISREG(status.st_mode):
                content = path.read_bytes()
            name = path.relative_to(folder).as_posix()
            found[name] = (status.st_mode, status.st_mtime_ns, content)
    return found


def packed_id(home: Path) -> str:
    """The id of what was packed, every byte of it verified."""
    bundle = home / "bundle.tar.zst"
    result = bundler.verify(bundle)
    assert not result.faults
    return str(bundler.inspect(bundle).digest)


def files_in(bundle: Path) -> dict[str, str]:
    """path -> sha256 of every file in a bundle."""
    manifest = bundler.inspect(bundle).manifest
    return {str(e.path): e.blob.digest.hex for s in manifest.snapshots for e in s.files}


def sha256_of(files: Mapping[str, bytes]) -> dict[str, str]:
    return {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}


def download(hub: LoopbackHub, hf_home: Path, python: str = sys.executable, **env: str) -> Path:
    """Let the real huggingface_hub download the model; gives the hub's cache."""
    subprocess.run(
        [python, "-c", DOWNLOAD, NAME],
        env={
            **command_environment(hf_home.parent),
            "HF_HOME": str(hf_home),
            "HF_ENDPOINT": hub.url,
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "PYTHONWARNINGS": "ignore",
            **env,
        },
        check=True,
        capture_output=True,
        timeout=60,
    )
    return hf_home / "hub"


def share_blobs(cache: Path) -> None:
    """Move the large blob where newer versions keep what xet has brought: for all repositories."""
    blob = cache / "models--acme--tiny" / "blobs" / SHA256
    home = cache / "blobs" / "ab" / "ab34"
    home.parent.mkdir(parents=True)
    (cache / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
    (cache / "blobs" / "ab" / "ab34.refs").write_text(f"models--acme--tiny/blobs/{SHA256}\n")
    blob.rename(home)
    home.chmod(0o444)
    blob.symlink_to("../../blobs/ab/ab34")


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face home with the model in it, as the huggingface_hub of today leaves it."""
    hf_home = tmp_path_factory.mktemp("usual") / "huggingface"
    with LoopbackHub() as hub:
        hub.add(NAME, FILES)
        download(hub, hf_home)
    return hf_home


@pytest.fixture(scope="module")
def plain_id(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of the bundle that comes of a machine without any cache."""
    home = tmp_path_factory.mktemp("bare")
    with LoopbackHub() as hub:
        hub.add(NAME, FILES)
        assert pack(hub, home, NAME).code == 0
    return packed_id(home)


@pytest.fixture
def repo(hub: LoopbackHub) -> Repo:
    """The model on the hub."""
    return hub.add(NAME, FILES)


@pytest.fixture
def cache(usual: Path, repo: Repo, tmp_path: Path) -> Path:
    """The same model in the user's cache; gives the folder of the hub's cache."""
    hf_home = tmp_path / ".cache" / "huggingface"
    shutil.copytree(usual, hf_home, symlinks=True)
    assert (hf_home / "hub/models--acme--tiny/refs/main").read_text() == repo.commit
    return hf_home / "hub"


@pytest.fixture(params=["0", "1", "of today", "plain files", "shared blobs"])
def any_cache(repo: Repo, hub: LoopbackHub, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A cache in each of the forms there are, made by the library of that version."""
    python, env = sys.executable, {}
    if request.param in ("0", "1"):
        variable = f"BUNDLER_TEST_PYTHON_HUB_{request.param}"
        if variable not in os.environ:
            pytest.skip(f"{variable} names no interpreter with huggingface_hub {request.param}.x")
        python = os.environ[variable]
    if request.param == "plain files":
        env = {"HF_HUB_DISABLE_SYMLINKS": "1"}
    cache = download(hub, tmp_path / ".cache" / "huggingface", python, **env)
    weights = cache / "models--acme--tiny" / "snapshots" / repo.commit / "model.safetensors"
    if request.param == "shared blobs":
        share_blobs(cache)
    assert weights.is_symlink() == (request.param != "plain files")
    assert weights.read_bytes() == WEIGHTS
    hub.requests.clear()
    return cache


class TestHubCache:
    def test_nothing_is_fetched_and_nothing_is_altered_and_the_bundle_is_the_same(
        self, any_cache: Path, hub: LoopbackHub, tmp_path: Path, plain_id: str
    ) -> None:
        before = state(any_cache)
        done = pack(hub, tmp_path, NAME)
        assert (done.code, done.err) == (0, "")
        assert fetched(hub) == []
        assert "0 B to download" in done.out
        assert packed_id(tmp_path) == plain_id
        assert state(any_cache) == before

    def test_the_configuration_that_tells_what_a_model_needs_is_not_fetched_either(
        self, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        hub.add(NAME, {**FILES, "config.json": b'{"model_type": "bert"}'})
        download(hub, tmp_path / ".cache" / "huggingface")
        hub.requests.clear()
        assert pack(hub, tmp_path, NAME).code == 0
        assert fetched(hub) == []

    def test_a_dry_run_counts_it_as_there(
        self, cache: Path, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        before = state(cache)
        done = pack(hub, tmp_path, NAME, "--dry-run")
        assert (done.code, fetched(hub)) == (0, [])
        assert "0 B to download" in done.out
        assert state(cache) == before
        assert not (tmp_path / ".cache" / "bundler").exists()

    def test_what_has_changed_upstream_is_fetched_and_no_ref_is_moved(
        self, cache: Path, repo: Repo, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        old, before = repo.commit, state(cache)
        repo.commit_files({"merges.json": MERGES[::-1]})
        assert pack(hub, tmp_path, NAME).code == 0
        assert fetched(hub) == ["merges.json"]
        wanted = {**FILES, "merges.json": MERGES[::-1]}
        assert files_in(tmp_path / "bundle.tar.zst") == sha256_of(wanted)
        (snapshot,) = bundler.inspect(tmp_path / "bundle.tar.zst").manifest.snapshots
        assert snapshot.commit_hash == repo.commit != old
        assert (cache / "models--acme--tiny/refs/main").read_text() == old
        assert state(cache) == before

    def test_a_revision_that_the_cache_has_not_shares_what_it_has(
        self, cache: Path, repo: Repo, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        before = state(cache)
        repo.commit_files({"new.txt": b"new"}, branch="dev")
        assert pack(hub, tmp_path, f"{NAME}@dev").code == 0
        assert fetched(hub) == ["new.txt"]
        assert state(cache) == before

    @pytest.mark.parametrize("name", BLOBS)
    @pytest.mark.parametrize(
        "damage",
        [
            pytest.param(lambda blob: _flip(blob), id="a flipped byte"),
            pytest.param(lambda blob: os.truncate(blob, 1000), id="cut short"),
            pytest.param(lambda blob: blob.write_bytes(b""), id="empty"),
            pytest.param(lambda blob: blob.write_bytes(blob.read_bytes() + b"x"), id="too long"),
            pytest.param(lambda blob: blob.unlink(), id="gone"),
            pytest.param(lambda blob: _instead(blob, lambda: blob.mkdir()), id="a folder"),
            pytest.param(lambda blob: _instead(blob, lambda: os.mkfifo(blob)), id="a pipe"),
            pytest.param(lambda blob: _instead(blob, lambda: blob.symlink_to(blob)), id="a loop"),
        ],
    )
    def test_what_is_damaged_is_downloaded_and_left_as_it_is(
        self,
        damage: Callable[[Path], None],
        name: str,
        cache: Path,
        hub: LoopbackHub,
        tmp_path: Path,
        plain_id: str,
    ) -> None:
        damage(cache / "models--acme--tiny" / "blobs" / BLOBS[name])
        before = state(cache)
        done = pack(hub, tmp_path, NAME)
        assert (done.code, unsaid(done)) == (0, "")
        assert fetched(hub) == [name]
        assert packed_id(tmp_path) == plain_id
        assert state(cache) == before

    @pytest.mark.parametrize(
        "output", [("-",), ("bundle.tar.zst", "--split-size", "1MB"), ("stick/",)], ids=" ".join
    )
    def test_so_it_is_wherever_the_bundle_goes(
        self, output: Sequence[str], cache: Path, hub: LoopbackHub, tmp_path: Path, plain_id: str
    ) -> None:
        _flip(cache / "models--acme--tiny" / "blobs" / SHA256)
        (tmp_path / "stick").mkdir()
        env = {"HF_ENDPOINT": hub.url}
        done = run("pack", NAME, "-o", *output, home=tmp_path, env=env)
        assert (done.code, "changed" in done.err) == (0, False)
        assert fetched(hub) == ["model.safetensors"]
        packed = tmp_path / "stick/tiny.tar.zst"
        if output != ("stick/",):
            packed = tmp_path / "bundle.tar.zst"
        if output == ("-",):
            packed.write_bytes(done.raw)
        result = bundler.verify(packed)
        assert (str(result.digest), result.faults) == (plain_id, ())

    def test_a_damaged_plain_file_is_downloaded(
        self, repo: Repo, hub: LoopbackHub, tmp_path: Path, plain_id: str
    ) -> None:
        cache = tmp_path / ".cache" / "huggingface" / "hub"
        folder = cache / "models--acme--tiny" / "snapshots" / repo.commit
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(WEIGHTS[:-1] + bytes([WEIGHTS[-1] ^ 1]))
        (folder / "merges.json").write_bytes(MERGES)
        before = state(cache)
        assert pack(hub, tmp_path, NAME).code == 0
        assert "model.safetensors" in fetched(hub)
        assert packed_id(tmp_path) == plain_id
        assert state(cache) == before

    def test_a_damaged_blob_leaves_the_good_copy_of_another_name(
        self, cache: Path, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        """Both names of a repository may be in the cache, and one copy that is right is enough."""
        hub.add("acme/renamed", FILES, aliases=["acme/before"])
        first = cache / "models--acme--before"
        shutil.copytree(cache / "models--acme--tiny", first, symlinks=True)
        shutil.copytree(first, cache / "models--acme--renamed", symlinks=True)
        _flip(first / "blobs" / SHA256)
        assert pack(hub, tmp_path, "acme/before").code == 0
        assert "model.safetensors" not in fetched(hub)
        assert files_in(tmp_path / "bundle.tar.zst") == sha256_of(FILES)

    def test_the_name_of_today_is_looked_for_too(
        self, cache: Path, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        hub.add("acme/renamed", FILES, aliases=["acme/before"])
        shutil.copytree(
            cache / "models--acme--tiny", cache / "models--acme--renamed", symlinks=True
        )
        assert pack(hub, tmp_path, "acme/before").code == 0
        assert fetched(hub) == []

    @pytest.mark.parametrize("kind", ["dataset", "space"])
    def test_data_sets_and_spaces_too(
        self, kind: str, hub: LoopbackHub, cache: Path, tmp_path: Path
    ) -> None:
        hub.add("acme/tiny", FILES, kind=kind)
        folder = cache / "models--acme--tiny"
        shutil.copytree(folder, cache / f"{kind}s--acme--tiny", symlinks=True)
        shutil.rmtree(folder)
        assert pack(hub, tmp_path, f"{kind}:acme/tiny").code == 0
        assert fetched(hub) == []

    def test_another_kind_of_the_same_name_is_not_taken_for_it(
        self, hub: LoopbackHub, cache: Path, tmp_path: Path
    ) -> None:
        (cache / "models--acme--tiny").rename(cache / "datasets--acme--tiny")
        assert pack(hub, tmp_path, NAME).code == 0
        assert fetched(hub) == ["merges.json", "model.safetensors", "vocab.txt"]

    def test_a_second_run_reads_its_own_store(
        self, cache: Path, hub: LoopbackHub, tmp_path: Path, plain_id: str
    ) -> None:
        assert pack(hub, tmp_path, NAME).code == 0
        shutil.rmtree(cache)
        assert pack(hub, tmp_path, NAME).code == 0
        assert fetched(hub) == []
        assert packed_id(tmp_path) == plain_id


def _flip(path: Path) -> None:
    """Invert one byte in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def _instead(path: Path, make: Callable[[], object]) -> None:
    path.unlink()
    make()


class TestWhere:
    @pytest.mark.parametrize(
        ("variable", "inner"),
        [
            ("HF_HOME", "hub"),
            ("HF_HUB_CACHE", ""),
            ("HUGGINGFACE_HUB_CACHE", ""),
            ("XDG_CACHE_HOME", "huggingface/hub"),
        ],
    )
    def test_the_variables_of_the_library_are_obeyed(
        self, variable: str, inner: str, cache: Path, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        place = tmp_path / "elsewhere" / inner
        place.parent.mkdir(parents=True, exist_ok=True)
        cache.rename(place)
        env = {variable: str(tmp_path / "elsewhere")}
        store = ("--store", tmp_path / "store")
        assert pack(hub, tmp_path, NAME, *store, env=env).code == 0
        assert fetched(hub) == []
        shutil.rmtree(tmp_path / "store")
        assert pack(hub, tmp_path, NAME, *store).code == 0
        assert "model.safetensors" in fetched(hub)

    def test_a_cache_that_cannot_be_written_to_is_as_good(
        self,
        cache: Path,
        hub: LoopbackHub,
        tmp_path: Path,
        plain_id: str,
        small_disk: Callable[[str], Path],
    ) -> None:
        disk = small_disk("size=32m")
        shutil.move(cache, disk / "hub")
        small_disk("ro")
        before = state(disk)
        assert pack(hub, tmp_path, NAME, env={"HF_HUB_CACHE": str(disk / "hub")}).code == 0
        assert fetched(hub) == []
        assert packed_id(tmp_path) == plain_id
        assert state(disk) == before


class TestSpaceOfTheStore:
    def test_large_files_take_none_and_small_ones_are_copied(
        self, cache: Path, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        with open(cache / "CACHEDIR.TAG", "rb") as one, open(tmp_path / "other", "wb") as other:
            if clone(one, other):
                pytest.skip("this file system clones, which needs no links")
        assert pack(hub, tmp_path, NAME).code == 0
        blobs = tmp_path / ".cache" / "bundler" / "blobs" / "sha256"
        cached = cache / "models--acme--tiny" / "blobs"
        assert (blobs / SHA256).samefile(cached / SHA256)
        merges = blobs / hashlib.sha256(MERGES).hexdigest()
        assert merges.read_bytes() == MERGES
        assert not merges.samefile(cached / GIT)

    def test_between_file_systems_large_files_are_read_where_they_are(
        self,
        cache: Path,
        hub: LoopbackHub,
        tmp_path: Path,
        plain_id: str,
        small_disk: Callable[[str], Path],
    ) -> None:
        store = small_disk("size=1m") / "store"
        before = state(cache)
        for _ in range(2):  # The second time, the store knows it, and has it not.
            done = pack(hub, tmp_path, NAME, "--store", store)
            assert (done.code, done.err) == (0, "")
            assert fetched(hub) == []
            assert packed_id(tmp_path) == plain_id
        usage = json.loads(run("store", "--json", "--store", store, home=tmp_path).out)
        assert usage["size"] < 100_000
        assert state(cache) == before

    def test_what_was_read_elsewhere_is_fetched_when_it_is_gone(
        self,
        cache: Path,
        hub: LoopbackHub,
        tmp_path: Path,
        plain_id: str,
        small_disk: Callable[[str], Path],
    ) -> None:
        store = small_disk("size=16m") / "store"
        assert pack(hub, tmp_path, NAME, "--store", store).code == 0
        shutil.rmtree(cache)
        assert pack(hub, tmp_path, NAME, "--store", store).code == 0
        assert fetched(hub) == ["model.safetensors"]
        assert packed_id(tmp_path) == plain_id

    def test_a_damaged_copy_is_no_reason_to_fill_the_disk(
        self, cache: Path, hub: LoopbackHub, tmp_path: Path, small_disk: Callable[[str], Path]
    ) -> None:
        """It must be downloaded after all, so there must be space for it."""
        _flip(cache / "models--acme--tiny" / "blobs" / SHA256)
        done = pack(hub, tmp_path, NAME, "--store", small_disk("size=2m") / "store")
        assert done.code == 6
        assert "and 3 MB are to be downloaded" in done.err
        assert hub.sent("model.safetensors") == 0

    def test_a_blob_that_is_changed_in_the_cache_later_never_enters_a_bundle(
        self, cache: Path, hub: LoopbackHub, tmp_path: Path, plain_id: str
    ) -> None:
        assert pack(hub, tmp_path, NAME).code == 0
        (tmp_path / "bundle.tar.zst").unlink()
        blob = cache / "models--acme--tiny" / "blobs" / SHA256
        _flip(blob)
        damaged = blob.read_bytes()
        for _ in range(2):
            done = pack(hub, tmp_path, NAME)
        assert done.code == 0, done.err
        assert packed_id(tmp_path) == plain_id
        assert blob.read_bytes() == damaged


class TestCheckpoints:
    @pytest.fixture
    def checkpoints(self, tmp_path: Path) -> Path:
        """Where torch.hub keeps what it downloads."""
        folder = tmp_path / ".cache" / "torch" / "hub" / "checkpoints"
        folder.mkdir(parents=True)
        return folder

    def test_what_its_name_vouches_for_is_not_fetched(
        self, web: LoopbackWeb, checkpoints: Path, tmp_path: Path
    ) -> None:
        name = f"tiny-{SHA256[:8]}.pth"
        web.add(f"{PYTORCH}/{name}", WEIGHTS)
        (checkpoints / name).write_bytes(WEIGHTS)
        before = state(checkpoints)
        done = pack_web(web, tmp_path, f"{PYTORCH}/{name}")
        assert (done.code, done.err) == (0, "")
        assert "0 B to download" in done.out
        assert asked(web, name) == 1
        assert files_in(tmp_path / "bundle.tar.zst") == {name: SHA256}
        assert state(checkpoints) == before

    def test_what_its_name_does_not_vouch_for_is_downloaded(
        self, web: LoopbackWeb, checkpoints: Path, tmp_path: Path
    ) -> None:
        name = f"tiny-{SHA256[:8]}.pth"
        web.add(f"{PYTORCH}/{name}", WEIGHTS)
        (checkpoints / name).write_bytes(WEIGHTS[::-1])
        before = state(checkpoints)
        done = pack_web(web, tmp_path, f"{PYTORCH}/{name}")
        assert (done.code, unsaid(done)) == (0, "")
        assert "is not what upstream has, and is downloaded" in done.err
        assert files_in(tmp_path / "bundle.tar.zst") == {name: SHA256}
        assert state(checkpoints) == before

    @pytest.mark.parametrize(
        ("content", "is_it"), [(RESNET18, True), (RESNET18[::-1], False), (RESNET18[1:], False)]
    )
    def test_those_of_torchvision(
        self, content: bytes, is_it: bool, web: LoopbackWeb, checkpoints: Path, tmp_path: Path
    ) -> None:
        web.add(f"{PYTORCH}/resnet18-f37072fd.pth", RESNET18)
        (checkpoints / "resnet18-f37072fd.pth").write_bytes(content)
        before = state(checkpoints)
        done = pack_web(web, tmp_path, "torchvision:resnet18")
        assert (done.code, unsaid(done)) == (0, "")
        bundled = files_in(tmp_path / "bundle.tar.zst")
        assert bundled == sha256_of({"resnet18-f37072fd.pth": RESNET18})
        assert asked(web, "resnet18-f37072fd.pth") == (1 if is_it else 2)
        assert state(checkpoints) == before

    @pytest.mark.parametrize(
        ("fragment", "is_used"),
        [
            pytest.param("", False, id="nothing vouches for it"),
            pytest.param(f"#sha256={SHA256}", True, id="the user does"),
        ],
    )
    def test_a_name_alone_says_nothing_about_content(
        self, fragment: str, is_used: bool, web: LoopbackWeb, checkpoints: Path, tmp_path: Path
    ) -> None:
        web.add("https://files.example/x.pth", WEIGHTS)
        (checkpoints / "x.pth").write_bytes(WEIGHTS if is_used else WEIGHTS[::-1])
        done = pack_web(web, tmp_path, f"https://files.example/x.pth{fragment}")
        assert (done.code, done.err) == (0, "")
        assert asked(web, "x.pth") == (1 if is_used else 2)
        assert files_in(tmp_path / "bundle.tar.zst") == {"x.pth": SHA256}

    def test_torch_home_is_obeyed(
        self, web: LoopbackWeb, checkpoints: Path, tmp_path: Path
    ) -> None:
        name = f"tiny-{SHA256[:8]}.pth"
        web.add(f"{PYTORCH}/{name}", WEIGHTS)
        (checkpoints / name).write_bytes(WEIGHTS)
        (tmp_path / ".cache" / "torch").rename(tmp_path / "elsewhere")
        env = {"TORCH_HOME": str(tmp_path / "elsewhere")}
        assert pack_web(web, tmp_path, f"{PYTORCH}/{name}", env=env).code == 0
        assert asked(web, name) == 1
