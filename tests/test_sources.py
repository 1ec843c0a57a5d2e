"""Every kind of source: what all of them promise, and then the ways of each."""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command import NOWHERE, run
from loopback import Fault, Request
from loopback_hub import LoopbackHub
from loopback_upstream import LoopbackUpstream as Upstream
from loopback_upstream import contents, digests, zipped
from loopback_web import LoopbackWeb
from memory_source import Files

import bundler
from bundler.addresses import Mirror
from bundler.digest import Digest
from bundler.hub import Hub
from bundler.layouts import LAYOUTS
from bundler.remote import RemoteSnapshot
from bundler.sources import SOURCES, resolve
from bundler.spec import Spec
from bundler.web import Web

WEIGHTS = random.Random(0).randbytes(50_000)  # does not compress, in a zip archive neither
MODEL = {"config.json": b'{"model_type": "bert"}', "model.safetensors": WEIGHTS}
SENTENCES = {
    **MODEL,
    "modules.json": b'[{"path": "", "type": "sentence_transformers.models.Transformer"},'
    b' {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]',
    "1_Pooling/config.json": b"{}",
}
CODE = {"hubconf.py": b"dependencies = ['torch']\n", "data/table.bin": WEIGHTS}
DINO = "facebookresearch/dinov2"
DINO_WEIGHTS = "dinov2_vits14_pretrain.pth"
RESNET18 = b"tensors26c4756b2"  # its sha256 starts as the file's name says
PYTORCH = "https://download.pytorch.org/models"

SECRET = "s3cr3t"
USER = "alicia.keys"
ADVICE = re.compile(r"did you mean|check|write|name |pack |add |set |choose|try")


pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture
def upstream(hub: LoopbackHub, web: LoopbackWeb, tmp_path: Path) -> Upstream:
    return Upstream(hub, web, tmp_path)


@pytest.fixture
def resolved(upstream: Upstream) -> Iterator[Callable[[str], list[RemoteSnapshot]]]:
    """Resolves a spec where the real hosts' own refusals are to be heard."""
    web = Web([Mirror.parse(mirror) for mirror in upstream.web.mirrors])
    hub = Hub(web, [upstream.hub.url])
    yield lambda spec: resolve(Spec.parse(spec), hub, web)
    web.close()


def names(plan: bundler.PackPlan | bundler.Manifest) -> list[str]:
    return [snapshot.name for snapshot in plan.snapshots]


def only_snapshot(packed: bundler.Packed) -> Any:
    (snapshot,) = packed.manifest.snapshots
    return snapshot


# -- what every source promises --------------------------------------------------------------------


def _hub(name: str, files: Files, kind: str = "model") -> Callable[[Upstream], None]:
    def set_up(up: Upstream) -> None:
        up.hub.add(name, files, kind=kind)

    return set_up


def _file_at(url: str, content: bytes) -> Callable[[Upstream], None]:
    def set_up(up: Upstream) -> None:
        up.web.add(url, content)

    return set_up


def _dino(up: Upstream) -> None:
    up.web.add_repository(DINO, CODE)
    url = f"https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/{DINO_WEIGHTS}"
    up.web.add(url, WEIGHTS[::-1])


def _buffalo(up: Upstream) -> None:
    archive = zipped({"w600k_r50.onnx": WEIGHTS})
    up.web.add_release("deepinsight/insightface", "model-zoo", "buffalo_l.zip", archive)


def _folder(up: Upstream) -> None:
    write(up.folder / "models" / "tiny", MODEL)


def write(folder: Path, files: Files) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


@dataclass(frozen=True)
class Case:
    """One good model of a kind. `{home}` and `{web}` in specs stand for where the test has them."""

    set_up: Callable[[Upstream], None]
    spec: str
    wrong: str
    files: Files
    layouts: tuple[str, ...]
    weights: str | None
    """Matches the requests for its largest file; None: nothing is requested."""
    flip: int = 25_000
    """A byte of that file's content."""


SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
CASES = {
    "hf": Case(
        _hub("acme/tiny", MODEL),
        "hf:acme/tiny", "hf:acme/nix", MODEL, ("hf-cache",), r"model\.safetensors",
    ),
    "dataset": Case(
        _hub("acme/rows", {"rows.csv": b"a,b\n1,2\n" * 9}, "dataset"),
        "dataset:acme/rows", "dataset:acme/nix", {"rows.csv": b"a,b\n1,2\n" * 9},
        ("hf-cache",), r"rows\.csv", 8,
    ),
    "space": Case(
        _hub("acme/demo", {"app.py": b"print()", "big.bin": WEIGHTS}, "space"),
        "space:acme/demo", "space:acme/nix", {"app.py": b"print()", "big.bin": WEIGHTS},
        ("hf-cache",), r"big\.bin",
    ),
    "timm": Case(
        _hub("timm/resnet18.a1_in1k", MODEL),
        "timm:resnet18", "timm:resnet8", MODEL, ("hf-cache",), r"model\.safetensors",
    ),
    "sentence-transformers": Case(
        _hub("sentence-transformers/all-MiniLM-L6-v2", SENTENCES),
        "sentence-transformers:all-MiniLM-L6-v2", "sentence-transformers:all-MinLM-L6-v2",
        SENTENCES, ("hf-cache",), r"model\.safetensors",
    ),
    "torchvision": Case(
        _file_at(f"{PYTORCH}/resnet18-f37072fd.pth", RESNET18),
        "torchvision:resnet18", "torchvision:resnet8", {"resnet18-f37072fd.pth": RESNET18},
        ("torch-checkpoints",), "resnet18-", 5,
    ),
    "torchhub": Case(
        _dino,
        f"torchhub:{DINO}#dinov2_vits14", f"torchhub:{DINO}#dinov2_vit",
        {**CODE, DINO_WEIGHTS: WEIGHTS[::-1]}, ("torch-hub", "torch-checkpoints"),
        r"codeload.*/legacy\.zip/",
    ),
    "insightface": Case(
        _buffalo,
        "insightface:buffalo_l", "insightface:buffalo_x", {"w600k_r50.onnx": WEIGHTS},
        ("insightface",), "/github-production-release-asset/",
    ),
    "https": Case(
        _file_at("https://files.example/x.pth", WEIGHTS),
        f"https://files.example/x.pth?key={SECRET}#sha256={SHA256}",
        "https://files.example/nix.pth", {"x.pth": WEIGHTS}, ("torch-checkpoints",), r"x\.pth",
    ),
    "http": Case(
        _file_at("https://files.example/x.pth", WEIGHTS),
        f"{{web}}/files.example/x.pth?key={SECRET}#sha256={SHA256}",
        "{web}/files.example/nix.pth", {"x.pth": WEIGHTS}, ("torch-checkpoints",), r"x\.pth",
    ),
    "file": Case(
        _folder, "file:{home}/models/tiny", "file:{home}/models/tinny", MODEL, ("flat",), None
    ),
}  # fmt: skip
OF_THE_HUB = ("hf", "dataset", "space", "timm", "sentence-transformers")
every_source = pytest.mark.parametrize("scheme", CASES)
every_server = pytest.mark.parametrize("scheme", [s for s in CASES if s != "file"])


def test_every_source_is_in_the_table() -> None:
    assert set(CASES) == {source.scheme for source in SOURCES}
    assert all(case.spec.startswith(("{web}", f"{scheme}:")) for scheme, case in CASES.items())


def ready(scheme: str, up: Upstream) -> tuple[Case, str]:
    """The case of `scheme`, set up, and its spec."""
    case = CASES[scheme]
    case.set_up(up)
    return case, spelled(case.spec, up)


def spelled(spec: str, up: Upstream) -> str:
    return spec.replace("{home}", str(up.folder)).replace("{web}", up.web.url)


def content_requests(up: Upstream, case: Case) -> list[str]:
    return [
        request.path
        for request in up.hub.requests
        if request.method == "GET" and case.weights and re.search(case.weights, request.path)
    ]


class TestEverySource:
    @every_source
    def test_plans_from_metadata_alone(self, upstream: Upstream, scheme: str) -> None:
        case, spec = ready(scheme, upstream)
        before = sorted(upstream.folder.rglob("*"))
        # Whoever reads on after the headers finds a broken connection.
        if case.weights:
            upstream.web.faults.append(Fault(case.weights, times=99, cut=1))
        plan = upstream.plan(spec)
        assert tuple(s.layout for s in plan.snapshots) == case.layouts
        assert content_requests(upstream, case) == []
        assert sorted(upstream.folder.rglob("*")) == before

    @every_source
    def test_plans_the_same_twice(self, upstream: Upstream, scheme: str) -> None:
        _, spec = ready(scheme, upstream)
        assert upstream.plan(spec).to_json() == upstream.plan(spec).to_json()

    @every_source
    def test_knows_a_layout_for_everything(self, upstream: Upstream, scheme: str) -> None:
        _, spec = ready(scheme, upstream)
        known = {layout.name for layout in LAYOUTS}
        assert {s.layout for s in upstream.plan(spec).snapshots} <= known

    @every_source
    def test_refuses_an_unknown_name_with_advice(self, upstream: Upstream, scheme: str) -> None:
        case, _ = ready(scheme, upstream)
        error = upstream.refusal(spelled(case.wrong, upstream))
        assert error.exit_code in (2, 3)
        assert "\n" not in str(error)
        assert ADVICE.search(str(error)), str(error)

    @every_source
    def test_packs_twice_the_same_and_downloads_once(self, upstream: Upstream, scheme: str) -> None:
        case, spec = ready(scheme, upstream)
        upstream.pack(spec)
        first = upstream.bundle.read_bytes()
        upstream.hub.requests.clear()
        upstream.web.requests.clear()
        if case.weights:
            upstream.web.faults.append(Fault(case.weights, times=99, cut=1))
        upstream.pack(spec)
        assert upstream.bundle.read_bytes() == first
        content = [r.path for r in upstream.hub.requests if not r.path.startswith("/api/")]
        # Some hundred bytes that tell what the model consists of count as metadata.
        assert [path for path in content if not path.endswith("/modules.json")] == []
        asked = [r.path for r in upstream.web.requests if re.search(case.weights or "", r.path)]
        assert len(asked) <= 1  # for the headers

    @every_server
    def test_never_packs_what_was_damaged_on_the_way(self, upstream: Upstream, scheme: str) -> None:
        case, spec = ready(scheme, upstream)
        for server in (upstream.hub, upstream.web):
            server.faults.append(Fault(str(case.weights), times=99, flip=case.flip))
        error = upstream.refusal(spec)
        assert (error.exit_code, "\n" in str(error)) == (4, False)
        upstream.hub.faults.clear()
        upstream.web.faults.clear()
        assert contents(upstream.pack(spec)) == digests(case.files)

    @every_server
    def test_tells_in_one_line_that_a_server_is_down(self, tmp_path: Path, scheme: str) -> None:
        with LoopbackHub() as hub, LoopbackWeb() as web:
            upstream = Upstream(hub, web, tmp_path)
            _, spec = ready(scheme, upstream)
        error = upstream.refusal(spec)
        assert error.exit_code == 3
        assert re.fullmatch(".*cannot be reached.*", str(error))


@dataclass(frozen=True)
class Done:
    """A bundle that the command line packed, for a user who has a token."""

    case: Case
    spec: str
    bundle: Path
    home: Path
    said: str
    hub_requests: list[Request]
    web_requests: list[Request]


@pytest.fixture(scope="module", params=CASES)
def done(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Done]:
    home = tmp_path_factory.mktemp(USER) / request.param
    home.mkdir()
    with LoopbackHub() as hub, LoopbackWeb() as web:
        upstream = Upstream(hub, web, home)
        case, spec = ready(request.param, upstream)
        env = {"HF_TOKEN": hub.token, "HF_ENDPOINT": hub.url, "USER": USER, "LOGNAME": USER}
        mirrors = [word for mirror in web.mirrors for word in ("--mirror", mirror)]
        ran = run("pack", spec, *mirrors, home=home, env={**NOWHERE, **env})
        assert (ran.code, ran.err) == (0, "")
        yield Done(
            case, spec, upstream.bundle, home, ran.out, list(hub.requests), list(web.requests)
        )


class TestEveryBundle:
    def test_holds_what_upstream_has(self, done: Done) -> None:
        assert contents(bundler.inspect(done.bundle)) == digests(done.case.files)
        assert bundler.verify(done.bundle).faults == ()

    def test_has_a_manifest_that_reads_as_it_was_written(self, done: Done) -> None:
        inspection = bundler.inspect(done.bundle)
        assert inspection.manifest.to_bytes() == inspection.manifest_bytes

    def test_tells_nothing_of_where_it_was_packed(self, done: Done) -> None:
        text = bundler.inspect(done.bundle).manifest_bytes.decode()
        with LoopbackHub() as hub:
            token = hub.token
        for secret in (token, USER, str(done.home), SECRET, "?"):
            assert secret not in text
        assert token not in done.said
        assert SECRET not in done.said

    def test_is_found_by_the_words_it_was_packed_with(self, done: Done, tmp_path: Path) -> None:
        ran = run(
            "unpack", done.bundle, "--only", done.spec, "--root", "r", "--json", home=tmp_path
        )
        assert (ran.code, ran.err) == (0, "")
        roots = bundler.find_roots({}, root=tmp_path / "r")
        plan = bundler.plan_unpack(done.bundle, roots=roots)
        assert plan.written_size == 0  # all of the bundle is there

    def test_took_the_token_to_the_hub_alone(self, done: Done) -> None:
        """A hub asks for none here, but it is sent: whoever has one sees more."""
        told = {r.server for r in done.hub_requests if "authorization" in r.headers}
        assert told == ({"hub"} if done.hub_requests else set())
        assert [r.path for r in done.web_requests if "authorization" in r.headers] == []

    def test_came_from_where_it_should(self, done: Done) -> None:
        scheme = next(scheme for scheme, case in CASES.items() if case is done.case)
        assert bool(done.hub_requests) == (scheme in OF_THE_HUB)
        assert bool(done.web_requests) == (scheme not in (*OF_THE_HUB, "file"))


def test_an_unknown_kind_names_the_known_ones(upstream: Upstream) -> None:
    error = upstream.refusal("timmm:resnet18")
    assert error.exit_code == 2
    assert "did you mean timm" in str(error)
    assert "torchhub:" in str(error)


# -- the ways of each ------------------------------------------------------------------------------


class TestTimm:
    @pytest.mark.parametrize(
        ("spec", "place"),
        [
            pytest.param("timm:resnet18", "timm/resnet18.a1_in1k", id="default tag"),
            pytest.param("timm:resnet18.a2_in1k", "timm/resnet18.a2_in1k", id="named tag"),
            pytest.param("timm:convnext_base_in22k", "timm/convnext_base.fb_in22k", id="renamed"),
            pytest.param(
                "timm:cspnext_l", "munehiro-k/cspnext_l.rsb_a1_in1k", id="another's repository"
            ),
        ],
    )
    def test_a_name_stands_for_a_repository(
        self, upstream: Upstream, spec: str, place: str
    ) -> None:
        upstream.hub.add(place, MODEL)
        snapshot = only_snapshot(upstream.pack(spec))
        assert (snapshot.name, snapshot.specs, snapshot.source) == (place, (spec,), "hf")

    @pytest.mark.parametrize("name", ["resnet18", "resnet18.a1_in1k"])
    def test_a_revision_is_that_of_the_repository(self, upstream: Upstream, name: str) -> None:
        repo = upstream.hub.add("timm/resnet18.a1_in1k", MODEL)
        repo.tag("v1")
        first = repo.commit
        repo.commit_files({"config.json": b"{}"})
        snapshot = only_snapshot(upstream.pack(f"timm:{name}@v1"))
        assert (snapshot.revision, snapshot.commit_hash) == ("v1", first)

    @pytest.mark.parametrize("name", ["gcvit_base", "gcvit_base.in1k"])
    def test_some_weights_are_at_an_address(self, upstream: Upstream, name: str) -> None:
        repository, tag = "rwightman/pytorch-image-models", "v0.1-weights-morevit"
        file = "gcvit_base_224_nvidia-f009139b.pth"
        upstream.web.add_release(repository, tag, file, WEIGHTS)
        snapshot = only_snapshot(upstream.pack(f"timm:{name}"))
        assert snapshot.name == f"https://github.com/{repository}/releases/download/{tag}/{file}"
        assert (snapshot.layout, snapshot.specs) == ("torch-checkpoints", (f"timm:{name}",))
        assert upstream.hub.requests == []

    def test_an_address_has_no_revision(self, upstream: Upstream) -> None:
        upstream.web.add_release(
            "rwightman/pytorch-image-models",
            "v0.1-weights-morevit",
            "gcvit_base_224_nvidia-f009139b.pth",
            WEIGHTS,
        )
        assert upstream.refusal("timm:gcvit_base@v1").exit_code == 2

    def test_a_repository_without_weights_is_refused(self, upstream: Upstream) -> None:
        upstream.hub.add("timm/resnet18.a1_in1k", {"config.json": b"{}", "README.md": b""})
        error = upstream.refusal("timm:resnet18")
        assert error.exit_code == 3
        assert "no weights" in str(error)

    def test_one_without_configuration_loads_by_its_short_name_alone(
        self, upstream: Upstream
    ) -> None:
        files = {path: content for path, content in MODEL.items() if path != "config.json"}
        upstream.hub.add("timm/resnet18.a1_in1k", files)
        (note,) = upstream.plan("timm:resnet18").notes
        assert "has no config.json" in note

    @pytest.mark.parametrize(
        ("spec", "said"),
        [
            pytest.param("timm:resnet8", "did you mean resnet18", id="model"),
            pytest.param("timm:resnet18.a9_in1k", "resnet18.a1_in1k", id="tag"),
            pytest.param("timm:zzzzzz", "check the spelling", id="nothing like it"),
            pytest.param("timm:resnet18@", "@", id="no revision"),
        ],
    )
    def test_what_it_does_not_have_is_told(self, upstream: Upstream, spec: str, said: str) -> None:
        upstream.hub.add("timm/resnet18.a1_in1k", MODEL)
        error = upstream.refusal(spec)
        assert error.exit_code == 2
        assert said in str(error)


class TestSentenceTransformers:
    @pytest.mark.parametrize(
        ("spec", "place"),
        [
            ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
            ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
            ("acme/sentences", "acme/sentences"),
        ],
    )
    def test_a_name_stands_for_a_repository(
        self, upstream: Upstream, spec: str, place: str
    ) -> None:
        upstream.hub.add(place, SENTENCES)
        snapshot = only_snapshot(upstream.pack(f"sentence-transformers:{spec}"))
        assert (snapshot.name, snapshot.layout) == (place, "hf-cache")

    def test_a_revision(self, upstream: Upstream) -> None:
        repo = upstream.hub.add("acme/sentences", SENTENCES)
        repo.tag("v1")
        first = repo.commit
        repo.commit_files({"modules.json": b"[]"})
        snapshot = only_snapshot(upstream.pack("sentence-transformers:acme/sentences@v1"))
        assert (snapshot.revision, snapshot.commit_hash) == ("v1", first)

    @pytest.mark.parametrize("missing", ["modules.json", "1_Pooling/config.json"])
    def test_one_that_would_load_as_another_model_is_refused(
        self, upstream: Upstream, missing: str
    ) -> None:
        upstream.hub.add("acme/s", {p: c for p, c in SENTENCES.items() if p != missing})
        error = upstream.refusal("sentence-transformers:acme/s")
        assert (error.exit_code, missing in str(error)) == (3, True)
        upstream.pack("acme/s")  # as a plain model it is fine

    @pytest.mark.parametrize(
        "modules",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b"not json", id="no JSON"),
            pytest.param(b"null", id="null"),
            pytest.param(b"[1, 2]", id="numbers"),
            pytest.param(b'["path"]', id="words"),
            pytest.param(b'[{"path": "1_Pooling"}]', id="no type"),
            pytest.param(b"{}", id="an object"),
            pytest.param(b"[]", id="no parts"),
            pytest.param(b"\xff\xfe", id="no text"),
            pytest.param(b"[" * 100_000, id="deep"),
        ],
    )
    def test_modules_that_make_no_sense_are_told(self, upstream: Upstream, modules: bytes) -> None:
        upstream.hub.add("acme/s", {**SENTENCES, "modules.json": modules})
        error = upstream.refusal("sentence-transformers:acme/s")
        assert (error.exit_code, "modules.json" in str(error)) == (3, True)
        assert "\n" not in str(error)

    def test_an_empty_revision_is_none(self, upstream: Upstream) -> None:
        upstream.hub.add("acme/s", SENTENCES)
        assert upstream.refusal("sentence-transformers:acme/s@").exit_code == 2


class TestTorchvision:
    @pytest.mark.parametrize(
        ("spec", "files"),
        [
            pytest.param("resnet18", ["resnet18-f37072fd"], id="one for all"),
            pytest.param(
                "resnet50", ["resnet50-0676ba61", "resnet50-11ad3fa6"], id="pretrained and DEFAULT"
            ),
            pytest.param("resnet50@IMAGENET1K_V1", ["resnet50-0676ba61"], id="named weights"),
            pytest.param("resnet50@DEFAULT", ["resnet50-11ad3fa6"], id="@DEFAULT"),
            pytest.param(
                "deeplabv3_resnet50",
                ["deeplabv3_resnet50_coco-cd0a2569", "resnet50-0676ba61"],
                id="backbone",
            ),
            pytest.param(
                "quantized_resnet50",
                [
                    "quantized/resnet50_fbgemm-23753f79",
                    "quantized/resnet50_fbgemm_bf931d71",
                    "resnet50-0676ba61",
                    "resnet50-11ad3fa6",
                ],
                id="quantized",
            ),
            pytest.param(
                "quantized_resnet50@IMAGENET1K_FBGEMM_V1",
                ["quantized/resnet50_fbgemm_bf931d71"],
                id="quantized, named weights",
            ),
        ],
    )
    def test_a_model_is_all_that_its_constructor_downloads(
        self, upstream: Upstream, spec: str, files: list[str]
    ) -> None:
        urls = [f"{PYTORCH}/{file}.pth" for file in files]
        for url in urls:
            upstream.web.add(url, WEIGHTS)
        plan = upstream.plan(f"torchvision:{spec}")
        assert sorted(names(plan)) == urls
        assert {s.specs for s in plan.snapshots} == {(f"torchvision:{spec}",)}
        assert plan.size == len(urls) * len(WEIGHTS)

    @pytest.mark.parametrize(
        ("spec", "said"),
        [
            pytest.param("resnet8", "did you mean resnet", id="model"),
            pytest.param("resnet50@IMAGENET1K_V3", "IMAGENET1K_V1, IMAGENET1K_V2", id="weights"),
            pytest.param("resnet50@", "IMAGENET1K_V1, IMAGENET1K_V2", id="no weights"),
        ],
    )
    def test_what_it_does_not_have_is_told(self, upstream: Upstream, spec: str, said: str) -> None:
        error = upstream.refusal(f"torchvision:{spec}")
        assert (error.exit_code, said in str(error)) == (2, True)
        assert upstream.web.requests == []

    @pytest.mark.parametrize(
        ("spec", "file"),
        [
            pytest.param("resnet18", "resnet18-f37072fd.pth", id="after a hyphen"),
            pytest.param(
                "quantized_resnet18@DEFAULT",
                "quantized/resnet18_fbgemm_16fa66dd.pth",
                id="after an underscore",
            ),
            pytest.param("mnasnet0_5", "mnasnet0.5_top1_67.823-3ffadce67e.pth", id="of ten digits"),
        ],
    )
    def test_content_that_is_not_as_its_name_says_is_refused(
        self, upstream: Upstream, spec: str, file: str
    ) -> None:
        upstream.web.add(f"{PYTORCH}/{file}", WEIGHTS)
        error = upstream.refusal(f"torchvision:{spec}")
        assert (error.exit_code, "\n" in str(error)) == (4, False)

    @pytest.mark.parametrize("mark", ["-", "_"])
    def test_content_that_is_as_its_name_says_is_taken(self, upstream: Upstream, mark: str) -> None:
        name = f"x{mark}{SHA256[:8]}.pth"
        upstream.web.add(f"{PYTORCH}/{name}", WEIGHTS)
        assert contents(upstream.pack(f"{PYTORCH}/{name}")) == digests({name: WEIGHTS})

    def test_elsewhere_a_name_is_but_a_name(self, upstream: Upstream) -> None:
        upstream.web.add("https://files.example/x-00000000.pth", WEIGHTS)
        packed = upstream.pack("https://files.example/x-00000000.pth")
        assert contents(packed) == digests({"x-00000000.pth": WEIGHTS})


class TestTorchHub:
    def test_main_comes_before_master(self, upstream: Upstream) -> None:
        upstream.web.add_repository("acme/code", {"hubconf.py": b"old"}, branch="master")
        commit = upstream.web.add_repository("acme/code", CODE, branch="main")
        snapshot = only_snapshot(upstream.pack("torchhub:acme/code"))
        assert (snapshot.revision, snapshot.commit_hash) == ("main", commit)

    def test_without_main_it_is_master(self, upstream: Upstream) -> None:
        upstream.web.add_repository("acme/code", {"hubconf.py": b"new"}, branch="develop")
        commit = upstream.web.add_repository("acme/code", CODE, branch="master")
        snapshot = only_snapshot(upstream.pack("torchhub:acme/code"))
        assert (snapshot.revision, snapshot.commit_hash) == ("master", commit)

    def test_with_neither_the_branches_are_named(self, upstream: Upstream) -> None:
        upstream.web.add_repository("acme/code", CODE, branch="develop")
        error = upstream.refusal("torchhub:acme/code")
        assert error.exit_code == 3
        assert "acme/code:REF" in str(error)
        assert "develop" in str(error)

    @pytest.mark.parametrize("sign", [":", "@"])
    @pytest.mark.parametrize("ref", ["feature/x", "v1", "v2"])
    def test_a_branch_a_tag_or_an_annotated_tag_is_its_commit(
        self, upstream: Upstream, sign: str, ref: str
    ) -> None:
        upstream.web.add_repository("acme/code", {"hubconf.py": b"of main"})
        commit = upstream.web.add_repository(
            "acme/code", CODE, branch="feature/x", tags=["v1"], annotated_tags=["v2"]
        )
        packed = upstream.pack(f"torchhub:acme/code{sign}{ref}")
        snapshot = only_snapshot(packed)
        assert (snapshot.revision, snapshot.commit_hash) == (ref, commit)
        assert contents(packed) == digests(CODE)

    @pytest.mark.parametrize("digits", [7, 12, 40])
    def test_a_short_commit_becomes_the_one_in_the_archive(
        self, upstream: Upstream, digits: int
    ) -> None:
        commit = upstream.web.add_repository("acme/code", CODE)
        upstream.web.add_repository("acme/code", {"hubconf.py": b"later"})
        packed = upstream.pack(f"torchhub:acme/code:{commit[:digits]}")
        snapshot = only_snapshot(packed)
        assert (snapshot.revision, snapshot.commit_hash) == (commit[:digits], commit)
        assert contents(packed) == digests(CODE)

    @pytest.mark.parametrize(
        ("entry", "heads"),
        [
            ("dinov2_vits14", []),
            ("dinov2_vits14_dd", ["dinov2_vits14_nyu_dpt_head.pth"]),
            (
                "dinov2_vits14_lc",
                ["dinov2_vits14_linear4_head.pth", "dinov2_vits14_linear_head.pth"],
            ),
        ],
    )
    def test_an_entry_brings_its_weights(
        self, upstream: Upstream, entry: str, heads: list[str]
    ) -> None:
        _dino(upstream)
        for head in heads:
            url = f"https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/{head}"
            upstream.web.add(url, head.encode())
        packed = upstream.pack(f"torchhub:{DINO}#{entry}")
        assert set(contents(packed)) == {*CODE, DINO_WEIGHTS, *heads}
        assert {s.specs for s in packed.manifest.snapshots} == {(f"torchhub:{DINO}#{entry}",)}

    def test_an_entry_at_a_ref(self, upstream: Upstream) -> None:
        _dino(upstream)
        upstream.web.add_repository(DINO, {"hubconf.py": b"of dev"}, branch="dev")
        packed = upstream.pack(f"torchhub:{DINO}:dev#dinov2_vits14")
        assert set(contents(packed)) == {"hubconf.py", DINO_WEIGHTS}

    @pytest.mark.parametrize(
        ("spec", "said"),
        [
            pytest.param(DINO, "#ENTRY", id="entries known"),
            pytest.param("acme/code", "https://host/file.pth", id="no entries known"),
            pytest.param("acme/code#tiny", "https://host/file.pth", id="entry not known"),
        ],
    )
    def test_code_alone_is_noted(self, upstream: Upstream, spec: str, said: str) -> None:
        _dino(upstream)
        upstream.web.add_repository("acme/code", CODE)
        plan = upstream.plan(f"torchhub:{spec}")
        (note,) = plan.notes
        assert said in note
        assert [s.layout for s in plan.snapshots] == ["torch-hub"]

    def test_the_letters_stay_as_they_were_typed(self, upstream: Upstream) -> None:
        """The folder that torch.hub looks for is called so."""
        _dino(upstream)
        packed = upstream.pack("torchhub:FacebookResearch/DINOv2")
        assert names(packed.manifest) == ["FacebookResearch/DINOv2"]
        roots = bundler.find_roots({}, root=upstream.folder / "r")
        bundler.unpack(upstream.bundle, roots=roots, env=None)
        folder = roots.torch_home / "hub" / "FacebookResearch_DINOv2_main"
        assert (folder / "hubconf.py").read_bytes() == CODE["hubconf.py"]

    def test_entries_are_known_however_the_owner_is_typed(self, upstream: Upstream) -> None:
        _dino(upstream)
        packed = upstream.pack("torchhub:FacebookResearch/dinov2#dinov2_vits14")
        assert DINO_WEIGHTS in contents(packed)

    @pytest.mark.parametrize(
        "spec", ["dinov2", "a/b/c", "a/b:", "a/b#", "a/b:#x", "a/b#x y", "/b", "../b", "a/b?x"]
    )
    def test_what_is_no_repository_is_told(self, upstream: Upstream, spec: str) -> None:
        error = upstream.refusal(f"torchhub:{spec}")
        assert (error.exit_code, "owner/repo" in str(error)) == (2, True)
        assert upstream.web.requests == []

    @pytest.mark.parametrize(
        ("spec", "code", "said"),
        [
            pytest.param(f"{DINO}#dinov2_vits", 2, "did you mean dinov2_vits14", id="entry"),
            pytest.param(f"{DINO}:mian", 3, "did you mean main", id="ref"),
        ],
    )
    def test_what_it_does_not_have_is_told(
        self, upstream: Upstream, spec: str, code: int, said: str
    ) -> None:
        _dino(upstream)
        error = upstream.refusal(f"torchhub:{spec}")
        assert (error.exit_code, said in str(error)) == (code, True)

    def test_a_repository_that_is_private_or_missing_is_told(
        self, resolved: Callable[[str], list[RemoteSnapshot]]
    ) -> None:
        with pytest.raises(bundler.UnavailableError, match="no open repository acme/nix: check"):
            resolved("torchhub:acme/nix")

    def test_a_link_in_the_code_is_refused(self, upstream: Upstream) -> None:
        upstream.web.add_repository("acme/code", CODE, links={"docs": "data"})
        error = upstream.refusal("torchhub:acme/code")
        assert (error.exit_code, "docs" in str(error)) == (2, True)
        selection = bundler.Selection(exclude=("docs",))
        assert contents(upstream.pack("torchhub:acme/code", selection=selection)) == digests(CODE)

    @pytest.mark.parametrize(
        "answer",
        [
            pytest.param(b"<html>log in</html>", id="a page"),
            pytest.param(b"", id="nothing"),
            pytest.param(b"0000", id="no refs"),
            pytest.param(b"zzzz", id="no length"),
        ],
    )
    def test_what_is_no_list_of_refs_is_told(self, upstream: Upstream, answer: bytes) -> None:
        upstream.web.add("https://github.com/acme/code.git/info/refs", answer)
        error = upstream.refusal("torchhub:acme/code")
        assert (error.exit_code, "check the network" in str(error)) == (3, True)


class TestInsightFace:
    @pytest.mark.parametrize("tag", ["model-zoo", "v0.7"])
    def test_the_new_release_or_else_the_old_one(self, upstream: Upstream, tag: str) -> None:
        archive = zipped({"a.onnx": b"a"})
        upstream.web.add_release("deepinsight/insightface", tag, "buffalo_s.zip", archive)
        packed = upstream.pack("insightface:buffalo_s")
        assert contents(packed) == digests({"a.onnx": b"a"})
        assert names(packed.manifest) == ["buffalo_s"]

    def test_the_new_release_comes_first(self, upstream: Upstream) -> None:
        for tag in ("v0.7", "model-zoo"):
            archive = zipped({"a.onnx": tag.encode()})
            upstream.web.add_release("deepinsight/insightface", tag, "buffalo_s.zip", archive)
        packed = upstream.pack("insightface:buffalo_s")
        assert contents(packed) == digests({"a.onnx": b"model-zoo"})

    def test_models_are_flattened_and_nothing_else_comes(self, upstream: Upstream) -> None:
        files = {
            "antelopev2/a.onnx": b"a",
            "antelopev2/deep/er/b.onnx": b"b",
            "antelopev2/README.txt": b"",
            "__MACOSX/antelopev2/._a.onnx": b"finder",
        }
        archive = zipped(files)
        upstream.web.add_release("deepinsight/insightface", "v0.7", "antelopev2.zip", archive)
        packed = upstream.pack("insightface:antelopev2")
        assert contents(packed) == digests({"a.onnx": b"a", "b.onnx": b"b"})

    @pytest.mark.parametrize(
        ("archive", "code"),
        [
            pytest.param(zipped({"README.txt": b""}), 2, id="no model in it"),
            pytest.param(zipped({}), 2, id="empty"),
            pytest.param(zipped({"a/x.onnx": b"1", "b/x.onnx": b"2"}), 2, id="one name twice"),
            pytest.param(zipped({"../x.onnx": b"1"}), 2, id="a way out"),
            pytest.param(zipped({"/x.onnx": b"1"}), 2, id="absolute"),
            pytest.param(b"<html>", 4, id="no archive"),
        ],
    )
    def test_an_archive_that_is_no_pack_is_refused(
        self, upstream: Upstream, archive: bytes, code: int
    ) -> None:
        upstream.web.add_release("deepinsight/insightface", "v0.7", "buffalo_m.zip", archive)
        error = upstream.refusal("insightface:buffalo_m")
        assert (error.exit_code, "\n" in str(error)) == (code, False)
        assert "buffalo_m" in str(error)

    def test_a_pack_that_no_release_has_is_told(
        self, resolved: Callable[[str], list[RemoteSnapshot]]
    ) -> None:
        with pytest.raises(bundler.UnavailableError, match="404"):
            resolved("insightface:buffalo_sc")


class TestUrl:
    def test_the_right_sha256(self, upstream: Upstream) -> None:
        upstream.web.add("https://files.example/x.pth", WEIGHTS)
        packed = upstream.pack(f"https://files.example/x.pth#sha256={SHA256}")
        assert contents(packed) == digests({"x.pth": WEIGHTS})

    def test_the_wrong_sha256(self, upstream: Upstream) -> None:
        upstream.web.add("https://files.example/x.pth", WEIGHTS[::-1])
        error = upstream.refusal(f"https://files.example/x.pth#sha256={SHA256}")
        assert (error.exit_code, "\n" in str(error)) == (4, False)
        assert SHA256[:12] in str(error)

    @pytest.mark.parametrize(
        "behind", ["sha256=abc", f"sha256={SHA256.upper()}", "sha256", "md5=0", SHA256, "x"]
    )
    def test_a_malformed_sha256(self, upstream: Upstream, behind: str) -> None:
        upstream.web.add("https://files.example/x.pth", WEIGHTS)
        error = upstream.refusal(f"https://files.example/x.pth#{behind}")
        assert (error.exit_code, "#" in str(error)) == (2, True)

    def test_a_query_is_sent_and_not_kept(self, upstream: Upstream) -> None:
        upstream.web.add("https://files.example/x.pth", WEIGHTS)
        packed = upstream.pack(f"https://files.example/x.pth?key={SECRET}")
        assert names(packed.manifest) == ["https://files.example/x.pth"]
        assert f"?key={SECRET}" in upstream.web.requests[0].path
        assert SECRET not in packed.manifest.to_bytes().decode()

    def test_a_query_is_in_no_error(self, upstream: Upstream) -> None:
        upstream.web.add("https://files.example/x.pth", WEIGHTS)
        for spec in (
            f"https://files.example/nix.pth?key={SECRET}",
            f"{upstream.web.url}/files.example/nix.pth?key={SECRET}",
            f"https://files.example/x.pth?key={SECRET}#sha256={SHA256[::-1]}",
            f"https://files.example/?key={SECRET}",
        ):
            assert SECRET not in str(upstream.refusal(spec))

    @pytest.mark.parametrize("user", [f"me:{SECRET}@", f"{SECRET}@"])
    def test_a_password_is_refused_and_not_repeated(self, upstream: Upstream, user: str) -> None:
        error = upstream.refusal(f"https://{user}files.example/x.pth")
        assert (error.exit_code, SECRET in str(error)) == (2, False)
        assert "without user or password" in str(error)
        assert upstream.web.requests == []

    @pytest.mark.parametrize(
        "address",
        [
            "https://files.example",
            "https://files.example/",
            "https://files.example/models/",
            "https://files.example/..",
            "https:///x.pth",
            "https:x.pth",
            "https://[/x.pth",
            "https://files.example:port/x.pth",
            "https://files.example/aux.txt",
        ],
    )
    def test_an_address_without_a_file_is_told(self, upstream: Upstream, address: str) -> None:
        error = upstream.refusal(address)
        assert (error.exit_code, "\n" in str(error)) == (2, False)
        assert upstream.web.requests == []

    @pytest.mark.parametrize("etag", [True, False])
    def test_content_that_changed_is_fetched_anew(self, upstream: Upstream, etag: bool) -> None:
        url = "https://files.example/x.pth"
        upstream.web.add(url, b"first", etag=etag)
        assert contents(upstream.pack(url)) == digests({"x.pth": b"first"})
        upstream.web.add(url, b"then", etag=etag)
        assert contents(upstream.pack(url)) == digests({"x.pth": b"then"})

    def test_without_any_mark_equal_sizes_are_not_equal_content(self, upstream: Upstream) -> None:
        """A server that says neither ETag nor Last-Modified tells nothing apart."""
        url = "https://files.example/x.pth"
        upstream.web.add(url, b"one", etag=False)
        upstream.pack(url)
        upstream.web.add(url, b"two", etag=False)
        assert contents(upstream.pack(url)) == digests({"x.pth": b"two"})

    def test_two_files_of_one_name_are_refused(self, upstream: Upstream) -> None:
        for place in ("a", "b"):
            upstream.web.add(f"https://files.example/{place}/x.pth", place.encode())
        error = upstream.refusal("https://files.example/a/x.pth", "https://files.example/b/x.pth")
        assert (error.exit_code, "x.pth" in str(error)) == (2, True)

    def test_two_files_that_differ_in_the_query_are_refused(self, upstream: Upstream) -> None:
        for number in ("1", "2"):
            upstream.web.add(f"https://files.example/x.pth?v={number}", number.encode())
        error = upstream.refusal(
            "https://files.example/x.pth?v=1", "https://files.example/x.pth?v=2"
        )
        assert (error.exit_code, "x.pth" in str(error)) == (2, True)

    def test_a_server_that_tells_no_length(self, upstream: Upstream) -> None:
        url = "https://files.example/x.pth"
        upstream.web.add(url, WEIGHTS, length=False)
        assert upstream.plan(url).snapshots[0].files[0].size is None
        assert contents(upstream.pack(url)) == digests({"x.pth": WEIGHTS})

    def test_a_body_without_a_length_that_breaks_off_is_read_again(
        self, upstream: Upstream
    ) -> None:
        url = "https://files.example/x.pth"
        upstream.web.add(url, WEIGHTS, length=False)
        upstream.web.faults.append(Fault(r"x\.pth", times=2, cut=20_000))
        assert contents(upstream.pack(url)) == digests({"x.pth": WEIGHTS})

    def test_a_body_that_breaks_off_is_continued(self, upstream: Upstream) -> None:
        url = "https://files.example/x.pth"
        upstream.web.add(url, WEIGHTS)
        upstream.web.faults.append(Fault(r"x\.pth", times=2, cut=20_000))
        assert contents(upstream.pack(url)) == digests({"x.pth": WEIGHTS})
        assert "bytes=20000-" in [r.headers.get("range") for r in upstream.web.requests]


class TestLocal:
    def test_a_folder(self, upstream: Upstream) -> None:
        write(upstream.folder / "tiny", {**MODEL, "deep/er/x.json": b"1"})
        packed = upstream.pack(f"file:{upstream.folder}/tiny")
        assert names(packed.manifest) == ["tiny"]
        assert contents(packed) == digests({**MODEL, "deep/er/x.json": b"1"})

    @pytest.mark.parametrize("end", ["/", "/.", "/../tiny"])
    def test_a_folder_however_it_is_written(self, upstream: Upstream, end: str) -> None:
        write(upstream.folder / "tiny", MODEL)
        assert names(upstream.plan(f"file:{upstream.folder}/tiny{end}")) == ["tiny"]

    def test_a_single_file(self, upstream: Upstream) -> None:
        write(upstream.folder, {"x.pth": WEIGHTS})
        packed = upstream.pack(f"file:{upstream.folder}/x.pth")
        assert names(packed.manifest) == ["x.pth"]
        assert contents(packed) == digests({"x.pth": WEIGHTS})

    def test_home_and_the_current_folder(
        self, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(upstream.folder / "tiny", MODEL)
        monkeypatch.setenv("HOME", str(upstream.folder))
        monkeypatch.chdir(upstream.folder)
        for spec in ("file:~/tiny", "file:tiny", "file:./tiny"):
            assert contents(upstream.pack(spec)) == digests(MODEL)

    def test_what_is_hidden_is_left_out_and_told(self, upstream: Upstream) -> None:
        own = {".git/config": b"", ".cache/huggingface/x": b"", ".env": b"KEY=1", "a/.git/x": b""}
        write(upstream.folder / "tiny", {**MODEL, **own})
        packed = upstream.pack(f"file:{upstream.folder}/tiny")
        assert set(contents(packed)) == {*MODEL}
        (snapshot,) = packed.manifest.snapshots
        assert [item.path for item in snapshot.omitted] == [".cache", ".env", ".git", "a/.git"]

    def test_a_link_within_the_folder_is_its_content(self, upstream: Upstream) -> None:
        folder = write(upstream.folder / "tiny", MODEL)
        (folder / "link.json").symlink_to("config.json")
        packed = upstream.pack(f"file:{folder}")
        assert contents(packed) == digests({**MODEL, "link.json": MODEL["config.json"]})

    @pytest.mark.parametrize("target", ["../outside.json", "inside", "../outside", "nowhere"])
    def test_any_other_link_is_refused(self, upstream: Upstream, target: str) -> None:
        write(upstream.folder, {"outside.json": b"", "outside/x.json": b""})
        folder = write(upstream.folder / "tiny", {**MODEL, "inside/x.json": b""})
        (folder / "link").symlink_to(target)
        error = upstream.refusal(f"file:{folder}")
        assert (error.exit_code, "\n" in str(error)) == (2, False)

    def test_a_pipe_is_refused(self, upstream: Upstream) -> None:
        folder = write(upstream.folder / "tiny", MODEL)
        os.mkfifo(folder / "pipe")
        error = upstream.refusal(f"file:{folder}")
        assert (error.exit_code, "pipe" in str(error)) == (2, True)

    @pytest.mark.parametrize("name", ["nix", "empty", "only-git"])
    def test_nothing_to_pack_is_told(self, upstream: Upstream, name: str) -> None:
        (upstream.folder / "empty" / "folder").mkdir(parents=True)
        write(upstream.folder / "only-git", {".git/config": b""})
        error = upstream.refusal(f"file:{upstream.folder}/{name}")
        assert (error.exit_code, name in str(error)) == (2, True)

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda path: path.write_bytes(WEIGHTS + b"x"), id="longer"),
            pytest.param(lambda path: path.write_bytes(WEIGHTS[:-1]), id="shorter"),
            pytest.param(lambda path: os.utime(path, ns=(0, 0)), id="another time"),
            pytest.param(lambda path: path.unlink(), id="gone"),
        ],
    )
    def test_a_file_that_changes_while_it_is_packed_is_told(
        self, upstream: Upstream, change: Callable[[Path], object]
    ) -> None:
        folder = write(upstream.folder / "tiny", MODEL)
        error = upstream.refusal(
            f"file:{folder}", on_plan=lambda _: change(folder / "model.safetensors")
        )
        assert error.exit_code in (2, 4)
        assert "\n" not in str(error)

    def test_a_file_that_changed_since_is_read_anew(self, upstream: Upstream) -> None:
        folder = write(upstream.folder / "tiny", MODEL)
        upstream.pack(f"file:{folder}")
        write(folder, {"config.json": b"{}"})
        os.utime(folder / "config.json", ns=(1, 1))
        assert contents(upstream.pack(f"file:{folder}"))["config.json"] == Digest.of(b"{}")

    def test_two_folders_of_one_name_are_refused(self, upstream: Upstream) -> None:
        for parent in ("a", "b"):
            write(upstream.folder / parent / "tiny", {**MODEL, "config.json": parent.encode()})
        error = upstream.refusal(f"file:{upstream.folder}/a/tiny", f"file:{upstream.folder}/b/tiny")
        assert (error.exit_code, "tiny" in str(error)) == (2, True)

    def test_one_folder_written_twice_comes_once(self, upstream: Upstream) -> None:
        write(upstream.folder / "tiny", MODEL)
        plan = upstream.plan(f"file:{upstream.folder}/tiny", f"file:{upstream.folder}/tiny/")
        assert names(plan) == ["tiny"]

    def test_what_is_in_two_folders_that_are_asked_for_counts_once(
        self, upstream: Upstream
    ) -> None:
        whole = write(upstream.folder / "whole", {"x.bin": b"x", "deep/er/x.json": b"123"})
        plan = upstream.plan(f"file:{whole}", f"file:{whole}/deep")
        assert (len(plan.snapshots), plan.size) == (2, 4)

    def test_globs_choose_among_its_files(self, upstream: Upstream) -> None:
        write(upstream.folder / "tiny", {**MODEL, "tf_model.h5": b"x"})
        selection = bundler.Selection(exclude=("*.h5",))
        packed = upstream.pack(f"file:{upstream.folder}/tiny", selection=selection)
        assert contents(packed) == digests(MODEL)


class TestDatasetsAndSpaces:
    @pytest.mark.parametrize("kind", ["dataset", "space"])
    def test_a_name_means_the_repository_of_its_kind(self, upstream: Upstream, kind: str) -> None:
        upstream.hub.add("acme/tiny", MODEL)
        repo = upstream.hub.add("acme/tiny", {"big.bin": WEIGHTS}, kind=kind)
        plan = upstream.plan(f"{kind}:acme/tiny", "acme/tiny")
        found = {s.kind: (s.source, s.commit_hash) for s in plan.snapshots}
        assert found[kind] == (kind, repo.commit)
        assert found["model"][0] == "hf"

    @pytest.mark.parametrize("kind", ["dataset", "space"])
    def test_a_revision(self, upstream: Upstream, kind: str) -> None:
        repo = upstream.hub.add("acme/tiny", {"big.bin": WEIGHTS}, kind=kind)
        repo.tag("v1")
        repo.commit_files({"big.bin": b"later"})
        (snapshot,) = upstream.plan(f"{kind}:acme/tiny@v1").snapshots
        assert (snapshot.revision, snapshot.commit_hash) == ("v1", repo.tree("v1")[0])

    @pytest.mark.parametrize("kind", ["dataset", "space"])
    def test_what_is_of_another_kind_is_told(self, upstream: Upstream, kind: str) -> None:
        upstream.hub.add("acme/tiny", MODEL)
        error = upstream.refusal(f"{kind}:acme/tiny")
        assert error.exit_code == 3
        assert f"has no {kind} acme/tiny" in str(error)


class TestMirrors:
    """What is looked for at `localhost/origin` is looked for at `127.0.0.1/mirror` first."""

    def asked(self, upstream: Upstream, spec: str, start: str = "/origin") -> list[str]:
        """The paths asked for while a file at the origin is planned for."""
        mirror = f"{upstream.web.other_url}{start}={upstream.web.url}/mirror"
        upstream.plan(f"{upstream.web.other_url}{spec}", mirrors=[mirror])
        return [request.path for request in upstream.web.requests]

    def test_a_mirror_is_asked_first(self, upstream: Upstream) -> None:
        upstream.web.add("https://mirror/x.pth", WEIGHTS)
        upstream.web.add("https://origin/x.pth", WEIGHTS)
        assert self.asked(upstream, "/origin/x.pth") == ["/mirror/x.pth"]

    def test_what_it_does_not_have_comes_from_the_origin(self, upstream: Upstream) -> None:
        upstream.web.add("https://origin/x.pth", WEIGHTS)
        asked = self.asked(upstream, "/origin/x.pth?a=b")
        assert asked == ["/mirror/x.pth?a=b", "/origin/x.pth?a=b"]

    def test_one_that_is_down_is_passed_over(self, upstream: Upstream) -> None:
        upstream.web.add("https://origin/x.pth", WEIGHTS)
        mirror = f"{upstream.web.other_url}=http://127.0.0.1:9"
        spec = f"{upstream.web.other_url}/origin/x.pth"
        assert contents(upstream.pack(spec, mirrors=[mirror])) == digests({"x.pth": WEIGHTS})

    def test_several_are_asked_in_order(self, upstream: Upstream) -> None:
        upstream.web.add("https://second/x.pth", WEIGHTS)
        origin = f"{upstream.web.other_url}/origin"
        mirrors = [f"{origin}={upstream.web.url}/{place}" for place in ("first", "second")]
        upstream.plan(f"{origin}/x.pth", mirrors=mirrors)
        assert [r.path for r in upstream.web.requests] == ["/first/x.pth", "/second/x.pth"]

    @pytest.mark.parametrize(
        ("start", "path"),
        [
            pytest.param("/origin", "/origin/a/x.pth", id="folder"),
            pytest.param("/origin/", "/origin/a/x.pth", id="folder with a slash"),
            pytest.param("/origin/a/x.pth", "/origin/a/x.pth", id="file"),
        ],
    )
    def test_it_stands_for_all_below(self, upstream: Upstream, start: str, path: str) -> None:
        for place in ("mirror", "mirror/a/x.pth", "origin/a/x.pth"):
            upstream.web.add(f"https://{place}", WEIGHTS)
        (asked, *_) = self.asked(upstream, path, start)
        assert asked.startswith("/mirror")

    @pytest.mark.parametrize("start", ["/orig", "/origin/x", "/origin/x.pt", "/other", "/ORIGIN"])
    def test_it_stands_for_nothing_else(self, upstream: Upstream, start: str) -> None:
        upstream.web.add("https://origin/x.pth", WEIGHTS)
        assert self.asked(upstream, "/origin/x.pth", start) == ["/origin/x.pth"]

    def test_the_name_in_the_bundle_is_that_of_the_origin(self, upstream: Upstream) -> None:
        upstream.web.add("https://mirror/x.pth", WEIGHTS)
        packed = upstream.pack(
            "https://files.example/x.pth",
            mirrors=[f"https://files.example={upstream.web.url}/mirror"],
        )
        assert names(packed.manifest) == ["https://files.example/x.pth"]
        assert upstream.web.url not in packed.manifest.to_bytes().decode()

    @pytest.mark.parametrize(
        "mirror",
        [
            "",
            "=",
            "https://a.example",
            "https://a.example=",
            "=https://b.example",
            "https://a.example=b.example",
            "a.example=https://b.example",
            "ftp://a.example=https://b.example",
            "https://=https://b.example",
        ],
    )
    def test_a_malformed_one_is_told(self, upstream: Upstream, mirror: str) -> None:
        error = upstream.refusal("torchvision:resnet18", mirrors=[mirror])
        assert (error.exit_code, "FROM=TO" in str(error)) == (2, True)
        assert upstream.web.requests == []
