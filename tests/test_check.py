"""`bundler check`: healthy caches, whoever filled them; and what is said of each damage."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from command import Ran, command_environment, run
from healthy_caches import MODELS, SPECS, WAYS, Caches, checked

from bundler.prepared import can_prepare

COMMAND = re.compile(
    r"(?:: |, |after |or )((?:rm|mv|ln -s|printf|export|unset|mkdir -p|sudo chmod|sudo touch) .+)$"
)
"""The command that a message ends in."""
TINY = "huggingface/hub/models--acme--tiny"
PREPARED = "huggingface/datasets/acme___rows"
CHECKPOINTS = "torch/hub/checkpoints"
OTHER = "f" * 40


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Caches:
    if not can_prepare():
        pytest.skip("the datasets library is not installed")
    return Caches.make(tmp_path_factory.mktemp("caches"))


@pytest.mark.parametrize("way", WAYS)
def test_healthy_caches_are_healthy(caches: Caches, way: str) -> None:
    """Of every kind, and every byte of what has a hash."""
    done = checked(caches.folder / way, *SPECS.values(), "--hash")
    assert (done.code, done.err) == (0, "")
    told = [line for line in done.out.splitlines() if not line.startswith("note: ")]
    assert len(told) == len(SPECS) + 1  # and acme/lender
    assert not [line for line in told if not re.search(r": (intact|complete), \d+ file", line)]
    assert f"{SPECS['hf']} (" in told[0]
    assert "intact, 4 files" in told[0]


@pytest.mark.parametrize("kind", SPECS)
def test_what_is_not_here_at_all_is_said_to_be_missing(tmp_path: Path, kind: str) -> None:
    done = checked(tmp_path / "caches", SPECS[kind])
    assert done.code == 3
    assert re.search("unpack (that here|its bundle)|pack it again", done.err), done.err


@dataclass(frozen=True)
class Damage:
    """What is done to healthy caches by a script, in their folder, and what comes of it.

    `says`: parts of the message. `cure`: what makes `check` content again: the "command" in which
    the message ends, that and unpacking "again", or "nothing" that a test could do.
    """

    spec: str
    script: str
    code: int
    says: tuple[str, ...]
    cure: str = "command"
    way: str = "bundler"
    options: tuple[str, ...] = ()
    env: Mapping[str, str] | None = None
    """Variables, `{root}` for the caches; then these are found by them, without --root."""


IN_SHELL = {"HF_HOME": "{root}/huggingface", "HF_HUB_OFFLINE": "1"}
SNAPSHOT = f"cd {TINY}/snapshots/*; "
DAMAGES = {
    # Files.
    "missing file": Damage(
        "acme/tiny", f"{SNAPSHOT}rm tokenizer_config.json",
        3, ("has no tokenizer_config.json: its list of files names it",), "again",
    ),
    "missing weights": Damage(
        "acme/tiny", f"{SNAPSHOT}rm model.safetensors",
        3, ("has no model.safetensors: there are no weights",), "again",
    ),
    "missing weights, and no list of files": Damage(
        "acme/tiny", f"rm -r {TINY}/trees; {SNAPSHOT}rm model.safetensors",
        3, ("has no model.safetensors: there are no weights", "bundler pack acme/tiny"), "again",
    ),
    "missing weights beside those of another library": Damage(
        "acme/tiny", f"{SNAPSHOT}mkdir onnx; echo x >onnx/model.onnx; rm model.safetensors",
        3, ("has no model.safetensors",), "again",
    ),
    "missing configuration": Damage(
        "acme/tiny", f"{SNAPSHOT}rm config.json", 3, ("has no config.json",), "again",
    ),
    "missing configuration, and no list of files": Damage(
        "acme/tiny", f"rm -r {TINY}/trees; {SNAPSHOT}rm config.json",
        3, ("has no config.json: model.safetensors does not load without it",), "again",
    ),
    "tokenizer without vocabulary": Damage(
        "acme/tiny", f"rm -r {TINY}/trees; {SNAPSHOT}rm tokenizer.json",
        3, ("has no tokenizer.json: without a vocabulary every word is unknown",), "again",
    ),
    "missing shard": Damage(
        "acme/sharded", "rm huggingface/hub/models--acme--sharded/snapshots/*/model-00002-*",
        3, ("has no model-00002-of-00003.safetensors: model.safetensors.index.json names it",),
        "again",
    ),
    "two missing shards": Damage(
        "acme/sharded", "rm huggingface/hub/models--acme--sharded/snapshots/*/model-0000[13]-*",
        3, ("has no model-00001-of-00003.safetensors and 1 more",), "again",
    ),
    "dangling link": Damage(
        "acme/tiny", f"rm $(realpath {TINY}/snapshots/*/config.json)",
        3, ("config.json is a link that leads nowhere",), "again",
    ),
    "link in a circle": Damage(
        "acme/tiny", f"{SNAPSHOT}ln -sf config.json config.json",
        3, ("config.json is a link that leads nowhere",), "again",
    ),
    "copied without the shared blobs": Damage(
        "acme/tiny", "rm -r huggingface/hub/blobs",
        3, ("model.safetensors of acme/tiny leads to", "which was not copied with it"),
        "nothing", "shared",
    ),
    "empty snapshot": Damage(
        "acme/tiny", f"{SNAPSHOT}rm -r *", 3, ("has none of the files that are wanted",), "again",
    ),
    "a folder in the place of a file": Damage(
        "acme/tiny", f"{SNAPSHOT}rm config.json; mkdir config.json", 3, ("has no config.json",),
        "nothing",
    ),
    "pipe": Damage(
        "acme/tiny", f"{SNAPSHOT}rm config.json; mkfifo config.json",
        6, ("config.json is no file: move it away",), "nothing",
    ),
    "truncated safetensors": Damage(
        "acme/tiny", f"truncate -s -3 $(realpath {TINY}/snapshots/*/model.safetensors)",
        4, ("model.safetensors was cut short",), "again",
    ),
    "truncated header of safetensors": Damage(
        "acme/tiny", f"truncate -s 20 $(realpath {TINY}/snapshots/*/model.safetensors)",
        4, ("model.safetensors was cut short",), "again",
    ),
    "safetensors with something behind": Damage(
        "acme/tiny", f"echo more >>{TINY}/snapshots/*/model.safetensors",
        4, ("has more in it than its tensors",), "nothing", "plain",
    ),
    "truncated .bin": Damage(
        "acme/old", "truncate -s 900 huggingface/hub/models--acme--old/snapshots/*/*.bin",
        4, ("pytorch_model.bin was cut short",), "again",
    ),
    "empty weights": Damage(
        "acme/tiny", f"truncate -s 0 $(realpath {TINY}/snapshots/*/model.safetensors)",
        4, ("model.safetensors is empty",), "again",
    ),
    "pointer of git-lfs": Damage(
        "acme/tiny",
        r"printf 'version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 9\n' 1 "
        f">$(realpath {TINY}/snapshots/*/model.safetensors)",
        4, ("model.safetensors is a pointer of git-lfs",), "again",
    ),
    "pointer of git-lfs for a vocabulary": Damage(
        "acme/tiny",
        f"{SNAPSHOT}rm -r ../../trees tokenizer.json; printf "
        r"'version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 9\n' 1 >vocab.txt",
        4, ("vocab.txt is a pointer of git-lfs",), "nothing",
    ),
    "other size than the list has": Damage(
        "acme/tiny", f"echo >>{TINY}/snapshots/*/config.json",
        4, ("config.json has", "bytes instead of"), "again",
    ),
    "64 bytes overwritten": Damage(
        "acme/tiny",
        f"f=$(realpath {TINY}/snapshots/*/model.safetensors); "
        "printf %064d 0 | dd of=$f conv=notrunc bs=1 seek=$(($(stat -c %s $f) - 64)) 2>/dev/null",
        4,
        ("model.safetensors of acme/tiny holds other bytes than it should",),
        "again",
        options=("--hash",),
    ),
    "a letter of a small file overwritten": Damage(
        "acme/tiny", f"sed -i s/bert/tree/ $(realpath {TINY}/snapshots/*/config.json)",
        4, ("config.json of acme/tiny holds other bytes",), "again", options=("--hash",),
    ),
    "file of a space missing": Damage(
        "space:acme/demo", "rm huggingface/hub/spaces--acme--demo/snapshots/*/app.py",
        3, ("acme/demo: its list of files names app.py, not here",), "again",
    ),
    # The cache's own files.
    "the list promises too much": Damage(
        "acme/tiny", rf"sed -i 's/\"config.json\": /\"generation_config.json\": {{\"blob_id\": "
        rf"\"x\", \"size\": 2}}, &/' {TINY}/trees/*",
        3, ("has no generation_config.json: its list of files names it",),
    ),
    "the list of a dataset promises too much": Damage(
        "dataset:acme/rows", r"sed -i 's/\"rows.csv\": /\"x.csv\": {\"blob_id\": \"x\", \"size\": "
        r"2}, &/' huggingface/hub/datasets--acme--rows/trees/*; rm -r huggingface/datasets/*",
        3, ("its list of files names x.csv, not here",), "nothing",
    ),
    "stray marker": Damage(
        "acme/tiny", f"cd {TINY}; mkdir -p .no_exist/$(ls snapshots); touch "
        ".no_exist/$(ls snapshots)/config.json",
        6, ("a marker says that acme/tiny has no config.json, which is here",),
    ),
    "ref moved to what is not here": Damage(
        "acme/tiny", f"printf {OTHER} >{TINY}/refs/main",
        3, ("main has moved to ffffffffffff, which is not here; c12eebb1ddf5 is",),
    ),
    "ref moved, with two snapshots": Damage(
        "acme/tiny", f"printf {OTHER} >{TINY}/refs/main; mkdir {TINY}/snapshots/{'e' * 40}",
        3, ("main has moved to ffffffffffff", "c12eebb1ddf5, eeeeeeeeeeee is", "has it"), "again",
    ),
    "ref with a newline": Damage(
        "acme/tiny", f"echo >>{TINY}/refs/main", 4, ("holds more or less than a commit hash",),
    ),
    "ref to a short hash": Damage(
        "acme/tiny", f"printf %.7s $(ls {TINY}/snapshots) >{TINY}/refs/main",
        4, ("holds more or less than a commit hash",),
    ),
    "empty ref": Damage("acme/tiny", f": >{TINY}/refs/main", 4, ("main holds no commit hash",)),
    "ref that is a pipe": Damage(
        "acme/tiny", f"cd {TINY}/refs; rm main; mkfifo main", 3, ("has no revision main",),
        "nothing",
    ),
    "ref of 1 GB": Damage(
        "acme/tiny", f"truncate -s 1G {TINY}/refs/main", 4, ("main holds no commit hash",),
    ),
    "ref to a path": Damage(
        "acme/tiny", f"printf ../../x >{TINY}/refs/main", 4, ("main holds no commit hash",),
    ),
    "no refs": Damage("acme/tiny", f"rm -r {TINY}/refs", 3, ("has no revision main",)),
    "no ref of that name": Damage(
        "acme/tiny@v2", "", 3, ("has no revision v2", "only main, c12eebb1"), "nothing",
    ),
    "short hash without a ref": Damage(
        "acme/tiny@c12eebb", "", 3, ("has no revision c12eebb",),
    ),
    "hash of another commit": Damage(
        f"acme/tiny@{OTHER}", "", 3, (f"has no revision {OTHER}",), "nothing",
    ),
    "no snapshots": Damage(
        "acme/tiny", f"rm -r {TINY}/snapshots", 3, ("has moved to c12eebb1ddf5",), "again",
    ),
    # The folder's name and place.
    "other capitals": Damage(
        "acme/tiny", f"mv {TINY} huggingface/hub/models--Acme--Tiny",
        3, ("not in", "under that name, but Acme/Tiny is"),
    ),
    "single dashes": Damage(
        "acme/tiny", f"mv {TINY} huggingface/hub/models-acme-tiny",
        3, ("models-acme-tiny is not called as libraries look for it",),
    ),
    "single dash before the name": Damage(
        "acme/tiny", f"mv {TINY} huggingface/hub/models--acme-tiny", 3, ("but acme-tiny is",),
    ),
    "without models--": Damage(
        "acme/tiny", f"mv {TINY} huggingface/hub/acme--tiny",
        3, ("acme--tiny is not called as libraries look for it",),
    ),
    "canonical name": Damage(
        "tiny", "", 3, ("tiny is not in", "under that name, but acme/tiny is", "if that is"),
    ),
    "a link to nowhere": Damage(
        "acme/tiny", f"rm -r {TINY}; ln -s nowhere {TINY}", 3, ("is a link that leads nowhere",),
        "nothing",
    ),
    "a file in the place of the folder": Damage(
        "acme/tiny", f"rm -r {TINY}; touch {TINY}", 6, ("is no folder",), "nothing",
    ),
    "cache one level too high": Damage(
        "acme/tiny", "mv huggingface/hub/* huggingface", 3, ("but libraries look in",),
        env=IN_SHELL,
    ),
    "cache one level too deep": Damage(
        "acme/tiny", "mv huggingface/hub x; mkdir huggingface/hub; mv x huggingface/hub/hub",
        3, ("but libraries look in",), env=IN_SHELL,
    ),
    "HF_HOME above its folder": Damage(
        "acme/tiny", "mkdir hub; mv huggingface hub", 3, ("but libraries look in",),
        env={**IN_SHELL, "HF_HOME": "{root}"},
    ),
    # What models consist of.
    "modules.json missing": Damage(
        "sentence-transformers:mini",
        "rm huggingface/hub/models--sentence-transformers--mini/snapshots/*/modules.json",
        3, ("has no modules.json: without it another model is built",), "again",
    ),
    "1_Pooling/config.json missing": Damage(
        "sentence-transformers:mini",
        "rm -r huggingface/hub/models--sentence-transformers--mini/{trees,snapshots/*/1_Pooling}",
        3, ("has no 1_Pooling/config.json: modules.json names its folder",), "again",
    ),
    "part of a pipeline missing": Damage(
        "acme/pipeline",
        "rm -r huggingface/hub/models--acme--pipeline/{trees,snapshots/*/scheduler}",
        3, ("has no scheduler/: model_index.json names it",), "again",
    ),
    "weights of a pipeline missing": Damage(
        "acme/pipeline", "rm huggingface/hub/models--acme--pipeline/snapshots/*/unet/*.safetensors",
        3, ("has no unet/model.safetensors: there are no weights",), "again",
    ),
    "base of an adapter missing": Damage(
        "acme/adapter", f"rm -r {TINY}", 3, ("acme/tiny is not in", "bundler pack acme/tiny"),
        "again",
    ),
    "code of another repository missing": Damage(
        "acme/borrower", "rm -r huggingface/hub/models--acme--lender",
        3, ("acme/lender is not in",), "again",
    ),
    "one file of such code missing": Damage(
        "acme/borrower", "rm huggingface/hub/models--acme--lender/snapshots/*/modeling_own.py",
        3, ("has none of the files that are wanted",), "again",
    ),
    # Other libraries.
    "timm's weights missing": Damage(
        "timm:test_vit.r160_in1k",
        "rm huggingface/hub/models--timm--test_vit.r160_in1k/snapshots/*/model.safetensors",
        3, ("has no model.safetensors: there are no weights",), "again",
    ),
    "checkpoint missing": Damage(
        "https://files.example/x.pth", f"rm {CHECKPOINTS}/x.pth", 3, ("x.pth is not in",), "again",
    ),
    "checkpoint in the wrong folder": Damage(
        "https://files.example/x.pth", f"mv {CHECKPOINTS}/x.pth torch",
        3, ("but torch looks in",),
    ),
    "all checkpoints in the wrong folder": Damage(
        "torchvision:resnet18", f"mv {CHECKPOINTS} torch", 3, ("but torch looks in",),
    ),
    "checkpoint with a wrong hash": Damage(
        "torchvision:resnet18", f"sed -i s/ten/nen/ {CHECKPOINTS}/resnet18-f37072fd.pth",
        4, ("resnet18-f37072fd.pth holds other bytes",), "again", options=("--hash",),
    ),
    "checkpoint of other bytes than the spec says": Damage(
        f"https://files.example/x.pth#sha256={'0' * 64}", "", 4, ("holds other bytes",), "nothing",
        options=("--hash",),
    ),
    "checkpoint cut short": Damage(
        "https://files.example/x.pth", f"truncate -s 1000 {CHECKPOINTS}/x.pth",
        4, ("x.pth was cut short",), "again",
    ),
    "code under other capitals": Damage(
        "torchhub:FacebookResearch/DINOv2:main", "", 3, ("is written with other capitals",),
    ),
    "code without hubconf.py": Damage(
        SPECS["torchhub"], "rm torch/hub/*_main/hubconf.py", 3, ("has no hubconf.py",), "nothing",
    ),
    "code missing": Damage(
        SPECS["torchhub"], "rm torch/hub/*_main", 3, ("the code of facebookresearch/dinov2",),
        "again",
    ),
    "insightface's folder empty": Damage(
        SPECS["insightface"], "rm insightface/models/buffalo_l/*",
        3, ("has no models in it", "AssertionError"), "again",
    ),
    "insightface's folder nested": Damage(
        SPECS["insightface"], "cd insightface/models/buffalo_l; mkdir buffalo_l; mv *.onnx $_",
        3, ("has its models one folder too deep",),
    ),
    "a folder like insightface's in the way": Damage(
        SPECS["insightface"], "mkdir ../home/buffalo_l", 6, ("./buffalo_l is taken instead of",),
        "nothing",
    ),
    "insightface's model empty": Damage(
        SPECS["insightface"], ": >insightface/models/buffalo_l/det_10g.onnx",
        4, ("det_10g.onnx is empty",), "again",
    ),
    "prepared dataset missing": Damage(
        "dataset:acme/rows", f"rm -r {PREPARED}",
        3, ('load_dataset("acme/rows")', "bundler[datasets]"), "again",
    ),
    "prepared dataset without its table": Damage(
        "dataset:acme/rows", f"rm {PREPARED}/*/*/*/*.arrow", 3, ("rows-train.arrow is not there",),
        "again",
    ),
    "prepared dataset without its description": Damage(
        "dataset:acme/rows", f"rm {PREPARED}/*/*/*/dataset_info.json",
        3, ("dataset_info.json is not there",), "again",
    ),
    "prepared dataset with a damaged description": Damage(
        "dataset:acme/rows", f"for i in {PREPARED}/*/*/*/dataset_info.json; do echo [ >$i; done",
        4, ("dataset_info.json is not what it should be",), "again",
    ),
    "plain folder missing": Damage(
        SPECS["file"], "rm -r checkpoints/plain", 3, ("there is nothing at plain",), "again",
    ),
    "plain folder incomplete": Damage(
        SPECS["file"], "rm checkpoints/plain/model.safetensors",
        3, ("plain has no model.safetensors",), "again",
    ),
    "a folder of the model's name in the way": Damage(
        "acme/tiny", "mkdir -p ../home/acme/tiny",
        6, ("./acme/tiny is here, which programs take instead",), "nothing",
    ),
    # The shell.
    "HF_HUB_OFFLINE not set": Damage(
        "acme/tiny", "", 6, ("HF_HUB_OFFLINE is not set in this shell",),
        env={"HF_HOME": "{root}/huggingface"},
    ),
    "HF_HUB_OFFLINE=0": Damage(
        "acme/tiny", "", 6, ("HF_HUB_OFFLINE=0 means no, and beats TRANSFORMERS_OFFLINE=1",),
        env={**IN_SHELL, "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"},
    ),
    "HF_HUB_OFFLINE=enabled": Damage(
        "acme/tiny", "", 6, ("HF_HUB_OFFLINE=enabled means no",),
        env={**IN_SHELL, "HF_HUB_OFFLINE": "enabled"},
    ),
    "SENTENCE_TRANSFORMERS_HOME": Damage(
        "sentence-transformers:mini", "", 6, ("sentence-transformers looks in /nowhere instead",),
        env={**IN_SHELL, "SENTENCE_TRANSFORMERS_HOME": "/nowhere"},
    ),
    "TRANSFORMERS_CACHE": Damage(
        "acme/tiny", "", 6, ("transformers before 5 looks in /nowhere instead",),
        env={**IN_SHELL, "TRANSFORMERS_CACHE": "/nowhere"},
    ),
    "HF_DATASETS_OFFLINE=0": Damage(
        "dataset:acme/rows", "", 6, ("HF_DATASETS_OFFLINE=0 means no",),
        env={**IN_SHELL, "HF_DATASETS_OFFLINE": "0"},
    ),
}  # fmt: skip


def shell(script: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script of bash."""
    return subprocess.run(
        ["bash", "-ec", script], cwd=cwd, env={**command_environment(cwd), **variables},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@dataclass
class Damaged:
    """Caches below `root` to which something was done."""

    root: Path
    damage: Damage
    home: Path = field(init=False)

    def __post_init__(self) -> None:
        self.home = self.root.parent / "home"
        self.home.mkdir()
        done = shell(self.damage.script, self.root)
        assert done.returncode == 0, done.stderr

    def check(self, *options: str, first: str = "") -> Ran:
        """`bundler check` of the model, after a command `first` in the same shell."""
        words = [self.damage.spec, *self.damage.options, *options]
        if self.damage.env is None:
            if first:
                assert shell(first.replace("sudo ", ""), self.home).returncode == 0
            return checked(self.root, *words)
        env = {name: value.format(root=self.root) for name, value in self.damage.env.items()}
        command = f'{first or ":"}; exec "$@"'
        done = subprocess.run(
            ["bash", "-ec", command, "bash", sys.executable, "-m", "bundler", "check", *words],
            cwd=self.home, env={**command_environment(self.home), **env},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr, b"")


@pytest.fixture
def damaged(caches: Caches, tmp_path: Path, request: pytest.FixtureRequest) -> Damaged:
    damage: Damage = DAMAGES[request.param]
    return Damaged(caches.copied(damage.way, tmp_path), damage)


@pytest.mark.parametrize("damaged", DAMAGES, indirect=True)
def test_every_damage_is_told_with_its_cure(damaged: Damaged, caches: Caches) -> None:
    damage = damaged.damage
    if damage.options:  # Nothing else finds it.
        assert checked(damaged.root, damage.spec).code == 0
    done = damaged.check()
    assert done.code == damage.code, done.err
    lines = done.err.splitlines()
    assert len(lines) == 1, done.err
    assert lines[0].startswith("bundler: ")
    for words in damage.says:
        assert words in lines[0]
    assert "would fail" in done.out or damage.env

    command = COMMAND.search(lines[0])
    if damage.cure == "command":
        assert command, lines[0]
        cured = damaged.check(first=command[1])
        assert (cured.code, cured.err) == (0, "")
    elif damage.cure == "again":
        if command:
            assert shell(command[1], damaged.home).returncode == 0
        caches.unpack(damaged.root)
        cured = damaged.check()
        assert (cured.code, cured.err) == (0, "")


def test_with_roots_the_shell_is_not_looked_at(caches: Caches, tmp_path: Path) -> None:
    env = {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_CACHE": "/nowhere", "HF_DATASETS_OFFLINE": "0"}
    done = checked(caches.folder / "bundler", "acme/tiny", "dataset:acme/rows", env=env)
    assert (done.code, done.err) == (0, "")


def test_variables_that_do_no_harm_are_none(caches: Caches, tmp_path: Path) -> None:
    """The old name of the hub's cache, with a slash; and what only other libraries read."""
    hub = caches.folder / "bundler" / "huggingface" / "hub"
    for env in (
        {"TRANSFORMERS_OFFLINE": "YES"},
        {"HF_HUB_OFFLINE": "true", "TRANSFORMERS_CACHE": f"{hub}/"},
        {"HF_HUB_OFFLINE": "on", "SENTENCE_TRANSFORMERS_HOME": "/nowhere"},
        {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "0"},
    ):
        done = run("check", "acme/tiny", home=tmp_path, env={"HF_HUB_CACHE": str(hub), **env})
        assert (done.code, done.err) == (0, "")
    done = run("check", SPECS["https"], home=tmp_path,
               env={"TORCH_HOME": str(caches.folder / "bundler" / "torch")})  # fmt: skip
    assert (done.code, done.err) == (0, "")


AS_ANOTHER = """
import os, sys
from bundler.cli import run
run(sys.argv[1:])  # It imports what it needs from where the other may not look.
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
print("now", file=sys.stderr)
sys.exit(run(sys.argv[1:]))
"""


def test_what_another_user_may_not_read_is_told(caches: Caches, tmp_path: Path) -> None:
    """A blob, and folders on the way to it, each with the command that opens it."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    root = caches.copied("bundler", tmp_path)
    for folder in root.parents:
        if folder.stat().st_mode & 0o777 == 0o700:
            folder.chmod(0o711)

    def check() -> tuple[int, list[str]]:
        done = subprocess.run(
            [sys.executable, "-c", AS_ANOTHER, "check", "acme/tiny", "--root", root],
            cwd=tmp_path, env=command_environment(tmp_path),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stderr.partition("now\n")[2].splitlines()

    assert check() == (0, [])
    blob = Path(os.path.realpath(next((root / TINY).glob("snapshots/*/config.json"))))
    for path in (blob, blob.parent, root / TINY, root / "huggingface" / "hub"):
        path.chmod(0)
        code, lines = check()
        assert code == 6
        assert all("cannot be read: sudo chmod" in line for line in lines), lines
        command = COMMAND.search(lines[0])
        assert command
        assert shell(command[1].replace("sudo ", ""), tmp_path).returncode == 0
        assert check() == (0, [])


def test_the_document_says_the_same(caches: Caches, tmp_path: Path) -> None:
    root = caches.copied("bundler", tmp_path)
    (root / TINY / "refs" / "main").write_text("")
    done = checked(root, "acme/tiny", "acme/borrower", "--json")
    document = json.loads(done.out)
    assert (done.code, document["loads"], document["shell"]) == (4, False, [])
    tiny, borrower, lender = document["models"]
    (fault,) = tiny["faults"]
    assert (fault["exit_code"], tiny["commit_hash"], tiny["files"]) == (4, None, 0)
    assert f"bundler: {fault['text']}: {fault['cure']}\n" == done.err
    assert (borrower["faults"], borrower["files"]) == ([], len(MODELS["acme/borrower"]))
    assert lender["needed_by"] == "acme/borrower"


def test_a_request_asks_for_some_files(caches: Caches, tmp_path: Path) -> None:
    """Nothing else is missed; what is named is."""
    root = caches.copied("bundler", tmp_path)
    shell(f"{SNAPSHOT}rm config.json model.safetensors", root)
    request = tmp_path / "request.toml"
    request.write_text('models = [{ spec = "acme/tiny", include = ["tokenizer*"] }]')
    done = checked(root, "--from", request)
    assert (done.code, done.err) == (0, "")
    done = checked(root, "--from", request, "acme/tiny")
    assert done.code == 3
    shell(f"{SNAPSHOT}rm tokenizer.json", root)
    done = checked(root, "--from", request)
    assert (done.code, "tokenizer.json" in done.err) == (3, True)


def test_every_model_is_told_whatever_is_wrong_with_another(caches: Caches, tmp_path: Path) -> None:
    root = caches.copied("bundler", tmp_path)
    shell(f"rm -r {TINY}; {':'} >{TINY.replace('tiny', 'old')}/refs/main", root)
    done = checked(root, "acme/tiny", "acme/old", "acme/sharded")
    assert done.code == 3
    assert [line.split(" ")[0] for line in done.out.splitlines()] == [
        "acme/tiny:", "acme/old:", "acme/sharded"
    ]  # fmt: skip
    assert len(done.err.splitlines()) == 2


@pytest.mark.parametrize(
    "spec",
    ["acme/a/b", "a--b", "acme/tiny@../../x", "acme/tiny@/etc/passwd", "acme/..", "-", "nix:x",
     "https://files.example/", "insightface:../../x", "torchhub:nix", "timm:nix", "torchvision:nix",
     "", "acme/tiny,acme/old", "acme/\x1b[31m", "sentence-transformers:a--b"],
)  # fmt: skip
def test_what_is_no_spec_is_refused(tmp_path: Path, spec: str) -> None:
    done = checked(tmp_path / "caches", spec)
    assert done.code == 2, done.err
    assert len(done.err.splitlines()) == 1
    assert "\x1b" not in done.err


def test_nothing_named_is_refused(tmp_path: Path) -> None:
    done = checked(tmp_path / "caches")
    assert (done.code, "bundler check ORG/NAME" in done.err) == (2, True)
