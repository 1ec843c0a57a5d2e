"""A manifest that was kept is enough to make the same bundle again, byte for byte."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command import NOWHERE, Ran, run
from loopback import Fault
from loopback_hub import LoopbackHub
from loopback_upstream import zipped
from loopback_web import LoopbackWeb

import bundler

WEIGHTS = random.Random(0).randbytes(50_000)
MODEL = {"config.json": b"{}", "model.safetensors": WEIGHTS}
SENTENCES = {**MODEL, "modules.json": b'[{"path": "", "type": "models.Transformer"}]'}
CODE = {"hubconf.py": b"dependencies = ['torch']\n", "data/table.bin": WEIGHTS}
DINO = "facebookresearch/dinov2"
DINO_WEIGHTS = "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth"
URL = "https://files.example/x.pth"


pytestmark = pytest.mark.usefixtures("no_network")


@dataclass
class Upstream:
    """All that models come from, and a folder to pack in."""

    hub: LoopbackHub
    web: LoopbackWeb
    folder: Path

    def pack(self, *specs: str, to: str = "first", endpoint: str = "", **options: Any) -> bytes:
        """The bundle that `specs` make, or what is `locked`."""
        path = self.folder / f"{to}.tar.zst"
        where = bundler.Upstream((endpoint or self.hub.url,), tuple(self.web.mirrors))
        bundler.pack(specs, path, **{"store": self.folder / "store", "upstream": where, **options})
        return path.read_bytes()

    def manifest(self) -> bundler.Manifest:
        return bundler.inspect(self.folder / "first.tar.zst").manifest

    def again(self, store: str, **options: Any) -> bytes:
        """The bundle of the manifest of the first, with the store of that name."""
        options = {"locked": self.manifest(), "store": self.folder / store, **options}
        return self.pack(to="second", **options)

    def refusal(self, store: str, **options: Any) -> bundler.BundlerError:
        """The error that packing again ends with; there is no second bundle then."""
        with pytest.raises(bundler.BundlerError) as caught:
            self.again(store, **options)
        assert [path.name for path in self.folder.glob("*.tar.zst*")] == ["first.tar.zst"]
        return caught.value


@contextmanager
def served(folder: Path) -> Iterator[Upstream]:
    with LoopbackHub() as hub, LoopbackWeb() as web:
        yield Upstream(hub, web, folder)


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    with served(tmp_path) as upstream:
        yield upstream


Change = Callable[[], object]
"""Lets upstream move on."""


def _repository(
    name: str, files: dict[str, bytes], kind: str = "model", aliases: tuple[str, ...] = ()
) -> Callable[[Upstream], Change]:
    def set_up(up: Upstream) -> Change:
        repo = up.hub.add(name, files, kind=kind, aliases=aliases)
        repo.tag("v1")
        later = dict.fromkeys(files, b"later")

        def change() -> None:
            repo.commit_files(later)
            repo.tag("v1")

        return change

    return set_up


def _adapter(up: Upstream) -> Change:
    adapter = b'{"base_model_name_or_path": "acme/base"}'
    up.hub.add("acme/adapter", {**MODEL, "adapter_config.json": adapter})
    return _repository("acme/base", MODEL)(up)


def _code(up: Upstream) -> Change:
    up.web.add_repository(DINO, CODE, tags=["v1"])
    up.web.add(DINO_WEIGHTS, WEIGHTS[::-1])
    return lambda: up.web.add_repository(DINO, {"hubconf.py": b"later"}, tags=["v1"])


def _buffalo(up: Upstream, content: bytes = b"a") -> Change:
    archive = zipped({"a.onnx": content, "b.onnx": WEIGHTS})
    up.web.add_release("deepinsight/insightface", "v0.7", "buffalo_l.zip", archive)
    return lambda: None  # what is attached to a release stays


def _address(up: Upstream) -> Change:
    up.web.add(URL, WEIGHTS)
    return lambda: None


CASES: dict[str, tuple[Callable[[Upstream], Change], tuple[str, ...]]] = {
    "a model": (_repository("acme/tiny", MODEL), ("acme/tiny",)),
    "two revisions": (_repository("acme/tiny", MODEL), ("acme/tiny@v1", "acme/tiny")),
    "an old name": (
        _repository("google-bert/bert-base-uncased", MODEL, aliases=("bert-base-uncased",)),
        ("bert-base-uncased",),
    ),
    "a space": (_repository("acme/demo", {"app.py": WEIGHTS}, "space"), ("space:acme/demo",)),
    "timm": (_repository("timm/resnet18.a1_in1k", MODEL), ("timm:resnet18",)),
    "sentence-transformers": (
        _repository("sentence-transformers/tiny", SENTENCES),
        ("sentence-transformers:tiny",),
    ),
    "a model and what it needs": (_adapter, ("acme/adapter",)),
    "code and weights": (_code, (f"torchhub:{DINO}#dinov2_vits14",)),
    "code at a tag": (_code, (f"torchhub:{DINO}:v1",)),
    "an archive": (_buffalo, ("insightface:buffalo_l",)),
    "an address": (_address, (URL,)),
}
every_kind = pytest.mark.parametrize("case", CASES)


@every_kind
def test_an_empty_store_gets_the_same_bundle(upstream: Upstream, case: str) -> None:
    set_up, specs = CASES[case]
    change = set_up(upstream)
    first = upstream.pack(*specs)
    change()
    assert upstream.again("empty") == first


@every_kind
def test_a_full_store_needs_no_network(tmp_path: Path, case: str) -> None:
    set_up, specs = CASES[case]
    with served(tmp_path) as upstream:
        set_up(upstream)
        first = upstream.pack(*specs)
        asked = len(upstream.hub.requests) + len(upstream.web.requests)
    assert upstream.again("store") == first
    assert len(upstream.hub.requests) + len(upstream.web.requests) == asked


@every_kind
def test_an_empty_store_without_a_network_says_what_is_missing(tmp_path: Path, case: str) -> None:
    set_up, specs = CASES[case]
    with served(tmp_path) as upstream:
        set_up(upstream)
        upstream.pack(*specs)
    error = upstream.refusal("empty")
    assert error.exit_code == 3
    assert all("no longer to be had" in line for line in str(error).splitlines())


def test_everything_at_once(upstream: Upstream) -> None:
    changes = [set_up(upstream) for set_up, _ in CASES.values()]
    first = upstream.pack(*(spec for _, specs in CASES.values() for spec in specs))
    for change in changes:
        change()
    assert upstream.again("empty") == first


def test_a_dataset_and_its_prepared_form(upstream: Upstream) -> None:
    repo = upstream.hub.add("acme/rows", {"rows.csv": b"a,b\n1,2\n"}, kind="dataset")
    first = upstream.pack("dataset:acme/rows")
    repo.commit_files({"rows.csv": b"a,b\n3,4\n5,6\n"})
    assert upstream.again("empty") == first


def test_a_folder_of_this_machine_is_kept_in_the_store(upstream: Upstream) -> None:
    folder = upstream.folder / "tiny"
    folder.mkdir()
    (folder / "config.json").write_bytes(b"{}")
    first = upstream.pack(f"file:{folder}")
    (folder / "config.json").write_bytes(b"later")
    error = upstream.refusal("empty")
    assert (error.exit_code, "tiny" in str(error)) == (3, True)
    assert upstream.again("store") == first


def test_what_was_left_out_stays_out(upstream: Upstream) -> None:
    upstream.hub.add("acme/tiny", {**MODEL, "tf_model.h5": b"the same", "notes.txt": b""})
    selection = bundler.Selection(exclude=("*.txt",))
    first = upstream.pack("acme/tiny", selection=selection)
    assert upstream.again("empty") == first
    assert [r.path for r in upstream.hub.requests if r.path.endswith(("h5", "txt"))] == []


def test_of_an_archive_what_was_left_out_stays_out(upstream: Upstream) -> None:
    _buffalo(upstream)
    selection = bundler.Selection(exclude=("b.onnx",))
    first = upstream.pack("insightface:buffalo_l", selection=selection)
    assert upstream.again("empty") == first


def test_what_the_store_has_is_not_asked_for_again(upstream: Upstream) -> None:
    upstream.hub.add("acme/tiny", MODEL)
    first = upstream.pack("acme/tiny")
    upstream.hub.requests.clear()
    plan = bundler.plan_pack(
        (),
        locked=upstream.manifest(),
        upstream=bundler.Upstream((upstream.hub.url,)),
        store=upstream.folder / "store",
    )
    assert (plan.missing_size, [s.name for s in plan.snapshots]) == (0, ["acme/tiny"])
    assert upstream.again("store") == first
    assert upstream.hub.requests == []


class TestWhatIsGone:
    """No second bundle is written, and one line for each model says why."""

    def test_a_repository(self, upstream: Upstream) -> None:
        upstream.hub.add("acme/tiny", MODEL)
        upstream.hub.add("acme/stays", {**MODEL, "config.json": b"[]"})
        upstream.pack("acme/tiny", "acme/stays")
        with LoopbackHub() as other:
            other.add("acme/stays", {**MODEL, "config.json": b"[]"})
            error = upstream.refusal("empty", endpoint=other.url)
        assert (error.exit_code, "\n" in str(error)) == (3, False)
        assert "no longer to be had" in str(error)
        assert "acme/tiny" in str(error)

    def test_a_commit(self, upstream: Upstream) -> None:
        upstream.hub.add("acme/tiny", MODEL)
        upstream.pack("acme/tiny")
        commit = str(upstream.manifest().snapshots[0].commit_hash)
        with LoopbackHub() as other:
            other.add("acme/tiny", {**MODEL, "config.json": b"its history was rewritten"})
            error = upstream.refusal("empty", endpoint=other.url)
        assert error.exit_code == 3
        assert "acme/tiny" in str(error)
        assert commit in str(error)

    def test_every_one_is_named(self, upstream: Upstream) -> None:
        for name in ("acme/one", "acme/two"):
            upstream.hub.add(name, MODEL)
        upstream.pack("acme/one", "acme/two")
        with LoopbackHub() as other:
            error = upstream.refusal("empty", endpoint=other.url)
        lines = str(error).splitlines()
        assert ["acme/one" in lines[0], "acme/two" in lines[1], len(lines)] == [True, True, 2]

    def test_a_file_that_the_hub_lists_and_does_not_give(self, upstream: Upstream) -> None:
        upstream.hub.add("acme/tiny", MODEL)
        upstream.pack("acme/tiny")
        upstream.hub.faults.append(Fault(r"model\.safetensors", times=99, status=404))
        error = upstream.refusal("empty")
        assert error.exit_code == 3
        assert "model.safetensors of acme/tiny" in str(error)

    def test_content_that_comes_damaged(self, upstream: Upstream) -> None:
        upstream.hub.add("acme/tiny", MODEL)
        upstream.pack("acme/tiny")
        upstream.hub.faults.append(Fault(r"model\.safetensors", times=99, flip=7))
        error = upstream.refusal("empty")
        assert error.exit_code == 4
        assert "model.safetensors of acme/tiny" in str(error)

    @pytest.mark.parametrize(
        ("content", "code"),
        [
            pytest.param(WEIGHTS + b"longer", 3, id="another size"),
            pytest.param(WEIGHTS[::-1], 4, id="the same size"),
        ],
    )
    @pytest.mark.parametrize("length", [True, False])
    def test_other_content_at_an_address(
        self, upstream: Upstream, content: bytes, code: int, length: bool
    ) -> None:
        upstream.web.add(URL, WEIGHTS, length=length)
        upstream.pack(URL)
        upstream.web.add(URL, content, length=length)
        error = upstream.refusal("empty")
        # Without a length it takes all of it to know.
        assert error.exit_code == (code if length else 4)
        assert "\n" not in str(error)
        assert "x.pth" in str(error)

    def test_an_address(self, tmp_path: Path) -> None:
        with served(tmp_path) as upstream:
            upstream.web.add(URL, WEIGHTS)
            upstream.pack(URL)
        with served(tmp_path) as later:
            later.web.add("https://files.example/other.pth", WEIGHTS)
            error = later.refusal("empty")
        assert error.exit_code == 3
        assert "no longer to be had" in str(error)
        assert URL in str(error)

    @pytest.mark.parametrize(
        ("files", "said"),
        [
            pytest.param({"a": b"other", "b": WEIGHTS}, "a.onnx", id="other content"),
            pytest.param({"a": b"b", "b": WEIGHTS}, "a.onnx", id="other content, same size"),
            pytest.param({"a": b"a"}, "b.onnx", id="a file is gone"),
            pytest.param({}, "buffalo_l", id="all files are gone"),
        ],
    )
    def test_what_was_in_an_archive(
        self, upstream: Upstream, files: dict[str, bytes], said: str
    ) -> None:
        _buffalo(upstream)
        upstream.pack("insightface:buffalo_l")
        archive = zipped({f"{name}.onnx": content for name, content in files.items()})
        upstream.web.add_release("deepinsight/insightface", "v0.7", "buffalo_l.zip", archive)
        error = upstream.refusal("empty")
        assert error.exit_code in (3, 4)
        assert "\n" not in str(error)
        assert said in str(error)

    def test_what_an_archive_has_beside_is_no_matter(self, upstream: Upstream) -> None:
        _buffalo(upstream)
        first = upstream.pack("insightface:buffalo_l")
        archive = zipped({"a.onnx": b"a", "b.onnx": WEIGHTS, "c.onnx": b"new"})
        upstream.web.add_release("deepinsight/insightface", "model-zoo", "buffalo_l.zip", archive)
        assert upstream.again("empty") == first

    def test_a_part_of_the_store(self, tmp_path: Path) -> None:
        """What is still there does not help where one file is missing."""
        with served(tmp_path) as upstream:
            upstream.hub.add("acme/tiny", MODEL)
            upstream.pack("acme/tiny")
        digest = bundler.Digest.of(MODEL["config.json"]).hex
        (upstream.folder / "store" / "blobs" / "sha256" / digest).unlink()
        error = upstream.refusal("store")
        assert (error.exit_code, "acme/tiny" in str(error)) == (3, True)


class TestTheCommandLine:
    def bundler(self, upstream: Upstream, *arguments: object) -> Ran:
        env = {**NOWHERE, "HF_ENDPOINT": upstream.hub.url}
        return run(*arguments, home=upstream.folder, env=env)

    def test_what_inspect_prints_is_enough(self, upstream: Upstream) -> None:
        repo = upstream.hub.add("acme/tiny", MODEL)
        assert self.bundler(upstream, "pack", "acme/tiny", "-o", "first.tar.zst").code == 0
        printed = self.bundler(upstream, "inspect", "first.tar.zst", "--json")
        (upstream.folder / "lock.json").write_bytes(printed.raw)
        repo.commit_files({"config.json": b"later"})
        again = ("pack", "--locked", "lock.json", "-o", "second.tar.zst", "--store", "empty")
        done = self.bundler(upstream, *again)
        assert (done.code, done.err) == (0, "")
        first, second = (upstream.folder / f"{name}.tar.zst" for name in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()

    def test_a_dry_run_tells_what_it_would_bring(self, upstream: Upstream) -> None:
        upstream.hub.add("acme/tiny", MODEL)
        first = upstream.pack("acme/tiny")
        (upstream.folder / "lock.json").write_bytes(upstream.manifest().to_bytes())
        done = self.bundler(upstream, "pack", "--locked", "lock.json", "--dry-run")
        assert (done.code, done.err) == (0, "")
        assert str(upstream.manifest().snapshots[0].commit_hash)[:12] in done.out
        assert (upstream.folder / "first.tar.zst").read_bytes() == first

    def test_the_bundle_itself_is_as_good_as_its_manifest(self, upstream: Upstream) -> None:
        upstream.hub.add("acme/tiny", MODEL)
        upstream.pack("acme/tiny")
        first = upstream.folder / "first.tar.zst"
        done = self.bundler(upstream, "pack", "--locked", first, "-o", "again.tar.zst")
        assert (done.code, done.err) == (0, "")
        assert (upstream.folder / "again.tar.zst").read_bytes() == first.read_bytes()
        first.write_bytes(first.read_bytes()[:40])
        done = self.bundler(upstream, "pack", "--locked", first)
        assert (done.code, done.err.count("\n")) == (4, 1)

    def test_models_beside_it_are_refused(self, upstream: Upstream) -> None:
        upstream.hub.add("acme/tiny", MODEL)
        upstream.pack("acme/tiny")
        (upstream.folder / "lock.json").write_bytes(upstream.manifest().to_bytes())
        (upstream.folder / "request.toml").write_text('models = ["acme/tiny"]')
        upstream.hub.requests.clear()
        for more in (["acme/tiny"], ["--models", "acme/tiny"], ["--from", "request.toml"]):
            done = self.bundler(upstream, "pack", "--locked", "lock.json", *more)
            assert (done.code, done.err.count("\n")) == (2, 1)
            assert "name no models" in done.err
        assert upstream.hub.requests == []

    @pytest.mark.parametrize(
        "content",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b"words", id="words"),
            pytest.param(b"[]", id="a list"),
            pytest.param(b"{}", id="an empty object"),
            pytest.param(b'{"format_version": 1, "snapshots": []}', id="no models"),
            pytest.param(b'{"format_version": 99, "snapshots": []}', id="a later version"),
            pytest.param(b"[" * 100_000, id="deep"),
            pytest.param(None, id="no file"),
        ],
    )
    def test_what_is_no_manifest_is_refused(
        self, upstream: Upstream, content: bytes | None
    ) -> None:
        if content is not None:
            (upstream.folder / "lock.json").write_bytes(content)
        done = self.bundler(upstream, "pack", "--locked", "lock.json")
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "lock.json" in done.err
        assert not (upstream.folder / "bundle.tar.zst").exists()
