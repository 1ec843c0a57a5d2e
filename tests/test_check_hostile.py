"""Caches that somebody filled to do harm: `bundler check` ends soon, in lines, with little memory.

It never waits, never reads what a cache only names, and never shows a name as it is.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command import command_environment
from healthy_caches import CHECKPOINT, TINY, Files, tensors, text
from memory_source import commit_hash
from trees import write_cache

SECONDS = 60
MEMORY = 2 << 30
"""Bytes of address space that it may have."""
NESTED = b"[" * 200_000
LARGE = b'{"a": [' + b"{}," * (100 << 20 >> 2) + b"{}]}"

Do = Callable[[Path], None]
"""What is done to the cache of a model; gets the folder of the repository."""


def content(path: str, data: bytes) -> Do:
    """Puts a file there, in the snapshot or, with ../.., beside it."""

    def do(repository: Path) -> None:
        place = repository / "snapshots" / commit_hash(TINY) / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.write_bytes(data)

    return do


def listing(document: object) -> Do:
    """Makes it the list of files."""
    return content(f"../../trees/{commit_hash(TINY)}.json", text(document))


def pipe(path: str) -> Do:
    def do(repository: Path) -> None:
        content(path, b"")(repository)
        place = repository / "snapshots" / commit_hash(TINY) / path
        place.unlink()
        os.mkfifo(place)

    return do


def link(path: str, target: str) -> Do:
    def do(repository: Path) -> None:
        content(path, b"")(repository)
        place = repository / "snapshots" / commit_hash(TINY) / path
        place.unlink()
        place.symlink_to(target)

    return do


def deep_configurations(repository: Path) -> None:
    names = ("config.json", "modules.json", "adapter_config.json", "tokenizer_config.json")
    listing = f"../../trees/{commit_hash(TINY)}.json"
    for name in (*names, "model.safetensors.index.json", listing):
        content(name, NESTED)(repository)


def bound_socket(repository: Path) -> None:
    folder = repository / "snapshots" / commit_hash(TINY)
    (folder / "config.json").unlink()
    before = Path.cwd()
    os.chdir(folder)  # A socket's path may not be long.
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("config.json")
    finally:
        os.chdir(before)


def many_files(repository: Path) -> None:
    folder = repository / "snapshots" / commit_hash(TINY) / "many"
    folder.mkdir()
    for number in range(100_000):
        os.close(os.open(folder / str(number), os.O_CREAT | os.O_WRONLY))


def odd_names(repository: Path) -> None:
    folder = os.fsencode(repository / "snapshots" / commit_hash(TINY))
    for name in (b"\xff\xfe.bin", b"a\nb\x1b[31m.bin", b"'\\.bin"):
        with open(folder + b"/" + name, "wb"):
            pass


def deep_folders(repository: Path) -> None:
    folder = repository / "snapshots" / commit_hash(TINY)
    before = Path.cwd()
    os.chdir(folder)
    try:
        for _ in range(1500):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(before)


def sparse(path: str, head: bytes, size: int) -> Do:
    def do(repository: Path) -> None:
        content(path, head)(repository)
        os.truncate(repository / "snapshots" / commit_hash(TINY) / path, size)

    return do


def index(names: list[str]) -> bytes:
    return text({"weight_map": {str(number): name for number, name in enumerate(names)}})


ENTRY = {"size": 1, "blob_id": "x"}
HARM: dict[str, tuple[Do, int]] = {
    "a configuration of 100 MB": (content("config.json", LARGE), 0),
    "a list of files of 100 MB": (content(f"../../trees/{commit_hash(TINY)}.json", LARGE), 0),
    "a list of shards of 100 MB": (content("model.safetensors.index.json", LARGE), 0),
    "deep configurations": (
        deep_configurations,
        0,
    ),
    "lists of other things": (listing({"format_version": 1, "files": [1, 2]}), 0),
    "a list with entries of all sorts": (
        listing({"format_version": 1, "files": {
            "config.json": {"size": "x", "blob_id": 7}, "/etc/passwd": ENTRY, "../../x": ENTRY,
            "a\0b": ENTRY, "\ud800": ENTRY, "x": None}}),
        0,
    ),
    "links in circles": (link("a", "."), 0),
    "links in larger circles": (link("a/b/c", "../.."), 0),
    "a link to the root": (link("all", "/"), 0),
    "a pipe": (pipe("config.json"), 6),
    "a pipe for a list": (pipe(f"../../trees/{commit_hash(TINY)}.json"), 0),
    "a pipe for a ref": (pipe("../../refs/main"), 3),
    "a socket": (bound_socket, 6),
    "a device": (link("model.safetensors", "/dev/zero"), 6),
    "a device for a ref": (link("../../refs/main", "/dev/zero"), 3),
    "a link out of it": (link("vocab.txt", "/etc/passwd"), 0),
    "odd names": (odd_names, 4),
    "100,000 files": (many_files, 0),
    "deep folders": (deep_folders, 0),
    "shards elsewhere": (
        content("model.safetensors.index.json", index(
            ["model.safetensors", "/etc/passwd", "../../../../../../etc/passwd", "a\nb", "\0"])),
        3,
    ),
    "100,000 shards": (
        content("model.safetensors.index.json",
                index(["model.safetensors", *map(str, range(100_000))])),
        3,
    ),
    "shards that are no names": (
        content("model.safetensors.index.json", text({"weight_map": {"a": [1], "b": {}}})), 0,
    ),
    "parts elsewhere": (
        content("modules.json", text([{"path": "/etc", "type": "x.Pooling"},
                                      {"path": "../../..\n", "type": "x.Dense"}])),
        3,
    ),
    "pipelines of all sorts": (
        content("model_index.json", text({"/etc": ["a", "b"], "..": ["a", "b", {}], "x": [1, 2],
                                          "": ["a", "b"], **{str(n): ["a", "b"]
                                                             for n in range(20_000)}})),
        3,
    ),
    "needs without end": (
        content("config.json", text({"auto_map": {str(n): f"acme/x{n}--a.B" for n in range(999)},
                                     "backbone": "a\x1bb", "use_timm_backbone": True})),
        3,
    ),
    "an endless header of safetensors": (
        sparse("model.safetensors", b"\xff\xff\xff\xff\x09\0\0\0", 50 << 30), 4,
    ),
    "numbers without end in a header": (
        content("model.safetensors", (90).to_bytes(8, "little") + b'"data_offsets":[0,'
                + b"9" * 70 + b"]  "),
        4,
    ),
    "an archive that is all end": (content("x.bin", b"PK\x03\x04" + b"PK\x05\x06" * 99), 4),
}  # fmt: skip


def check(home: Path, *specs: str, seconds: float = SECONDS) -> subprocess.CompletedProcess[bytes]:
    """`bundler check` of caches in `home`/caches, with so much memory."""
    return subprocess.run(
        [sys.executable, "-m", "bundler", "check", *specs, "--root", "caches"],
        cwd=home,
        env=command_environment(home),
        capture_output=True,
        timeout=seconds,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
    )


def assert_told(done: subprocess.CompletedProcess[bytes], code: int) -> None:
    """It ended so, in lines of its own, without a traceback or anything a terminal obeys."""
    assert done.returncode == code, done.stderr[-2000:].decode()
    for line in done.stderr.decode().splitlines():
        assert line.startswith("bundler: "), line
    assert not {*(done.stdout + done.stderr)} & {0, 7, 8, 27}


@pytest.mark.parametrize("harm", HARM)
def test_no_cache_does_harm(tmp_path: Path, harm: str) -> None:
    do, code = HARM[harm]
    hub = tmp_path / "caches" / "huggingface" / "hub"
    do(write_cache(hub, "acme/tiny", TINY, links=False))
    done = check(tmp_path, "acme/tiny")
    assert_told(done, code)
    if code:
        assert b"would fail" in done.stdout
    # Python's own way to remove folders, which pytest takes, fails on deep ones.
    subprocess.run(["rm", "-rf", hub], check=True)


def test_a_hash_is_compared_of_nothing_but_files(tmp_path: Path) -> None:
    hub = tmp_path / "caches" / "huggingface" / "hub"
    link("vocab.txt", "/dev/zero")(write_cache(hub, "acme/tiny", TINY))
    assert_told(check(tmp_path, "acme/tiny", "--hash"), 6)


def test_what_other_libraries_keep_does_no_harm(tmp_path: Path) -> None:
    """Pipes, circles and nonsense where torch, insightface and datasets look."""
    caches = tmp_path / "caches"
    files: Files = {
        "torch/hub/a_b_main/hubconf.py/x": b"",
        "insightface/models/buffalo_l/w.onnx": b"o",
        "checkpoints/plain/config.json": NESTED,
        "checkpoints/plain/model.safetensors": tensors(),
        "huggingface/datasets/acme___rows/default/0/a/dataset_info.json": NESTED,
        "huggingface/datasets/acme___rows/x/0/a/dataset_info.json": text(
            {"dataset_name": "../../../../../../etc", "splits": {"a\nb": {}, "\0": 1}}
        ),
        "huggingface/datasets/acme___rows/y/0/a/dataset_info.json": text({"splits": [1]}),
    }
    for path, data in files.items():
        (caches / path).parent.mkdir(parents=True, exist_ok=True)
        (caches / path).write_bytes(data)
    for place in (
        "torch/hub/checkpoints/x.pth",
        "insightface/models/buffalo_l/a.onnx",
        "checkpoints/pipe",
        "huggingface/datasets/acme___rows/z/0/a/dataset_info.json",
    ):
        (caches / place).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(caches / place)
    (caches / "insightface/models/buffalo_l/b").symlink_to(".")
    (caches / "checkpoints/plain/b").symlink_to("..")
    for spec, code in {
        "torchhub:a/b:main": 6,
        "https://files.example/x.pth": 6,
        "insightface:buffalo_l": 6,
        "file:plain": 0,
        "file:pipe": 6,
        "dataset:acme/rows": 3,
    }.items():
        assert_told(check(tmp_path, spec), code)


def test_commands_for_odd_places_do_what_they_say(tmp_path: Path) -> None:
    """Whatever the folder is called, the command in the message is one that bash takes."""
    home = tmp_path / "it's $HOME `x`;\n\x01 é\\"
    home.mkdir()
    hub = home / "caches" / "huggingface" / "hub"
    repository = write_cache(hub, "acme/tiny", TINY)
    (repository / "refs" / "main").write_text(commit_hash(TINY) + "\n")
    done = check(home, "acme/tiny")
    assert_told(done, 4)
    assert len(done.stderr.splitlines()) == 1
    # The file's path is escaped twice over: once for bash, and printed without anything to escape.
    command = done.stderr.decode().partition("commit hash: ")[2]
    subprocess.run(["bash", "-ec", command], check=True, cwd=home)
    assert_told(check(home, "acme/tiny"), 0)


def test_one_model_is_checked_in_a_moment(tmp_path: Path) -> None:
    """Nothing is read but names, sizes and small files: the size of weights does not matter."""
    hub = tmp_path / "caches" / "huggingface" / "hub"
    size = 40 << 30
    head = json.dumps({"w": {"dtype": "U8", "shape": [1], "data_offsets": [0, size]}}).encode()
    repository = write_cache(hub, "acme/tiny", {**TINY, "pytorch_model.bin": CHECKPOINT},
                             links=False)  # fmt: skip
    weights = next(repository.glob("snapshots/*/model.safetensors"))
    weights.write_bytes(len(head).to_bytes(8, "little") + head)
    os.truncate(weights, 8 + len(head) + size)
    assert_told(check(tmp_path, "acme/tiny", seconds=20), 0)
