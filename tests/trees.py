"""Folders as values, and what huggingface_hub finds in them: for the tests that unpack."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command import command_environment
from memory_source import Files, commit_hash

import bundler

Tree = dict[str, tuple[str, bytes, int]]

_CLIENT = """
import json, sys
from pathlib import Path
from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download
from huggingface_hub import try_to_load_from_cache

def files(name, revision):
    try:
        folder = Path(snapshot_download(name, revision=revision))
        paths = [path for path in folder.rglob("*") if not path.is_dir()]
        found = {str(path.relative_to(folder)): path.read_bytes().hex() for path in paths}
        for path, content in found.items():
            for function in (hf_hub_download, try_to_load_from_cache):
                if Path(function(name, path, revision=revision)).read_bytes().hex() != content:
                    return f"{function.__name__} finds another {path}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return found

snapshots = [files(*wanted) for wanted in json.loads(sys.argv[1])]
cache = scan_cache_dir()
repos = {repo.repo_id: sorted(r.commit_hash for r in repo.revisions) for repo in cache.repos}
warnings = [str(warning) for warning in cache.warnings]
print(json.dumps({"snapshots": snapshots, "repos": repos, "warnings": warnings}))
"""


def tree(root: Path) -> Tree:
    """Every path below `root`, none reached through a link: kind, content or target, mode."""
    found: Tree = {}
    for folder, folders, files in os.walk(root):
        for path in (Path(folder, name) for name in (*folders, *files)):
            state = path.lstat()
            mode = stat.S_IMODE(state.st_mode)
            name = path.relative_to(root).as_posix()
            if stat.S_ISLNK(state.st_mode):
                found[name] = ("link", os.fsencode(os.readlink(path)), 0)
            elif stat.S_ISDIR(state.st_mode):
                found[name] = ("folder", b"", mode)
            else:
                found[name] = ("file", timeless(path.read_bytes()), mode)
    return found


def timeless(content: bytes) -> bytes:
    """The same without the times that a receipt notes, which are no two runs' alike."""
    return re.sub(rb'"mtime_ns": -?\d+', b'"mtime_ns": 0', content)


def stamps(root: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change of every path below `root`: equal only if nothing was written."""
    states = {name: (root / name).lstat() for name in tree(root)}
    return {name: (state.st_ino, state.st_mtime_ns) for name, state in states.items()}


def dangling_links(root: Path) -> list[str]:
    """Links below `root` that lead nowhere."""
    return [n for n, (kind, *_) in tree(root).items() if kind == "link" and not (root / n).exists()]


def unpack_below(root: Path, bundle: Path, **options: Any) -> bundler.Unpacked:
    """Unpack into `root`/huggingface as `bundler unpack --root` would, with no environment file."""
    return bundler.unpack(bundle, roots=bundler.find_roots({}, root=root), env=None, **options)


@dataclass(frozen=True)
class Found:
    """What huggingface_hub found."""

    snapshots: list[dict[str, bytes] | str]
    """One for each question: the files, or what went wrong."""
    repos: dict[str, list[str]]
    """Commit hashes by repository."""
    warnings: list[str]


def found_offline(
    hf_home: Path, *wanted: tuple[str, str], env: Mapping[str, str] | None = None
) -> Found:
    """What huggingface_hub finds without a network for each (name, revision), in its own process.

    Each file must be found alike by its three ways to look: snapshot_download, hf_hub_download
    and try_to_load_from_cache.
    """
    environment = {"HF_HOME": str(hf_home), "HF_HUB_OFFLINE": "1", **(env or {})}
    process = subprocess.run(
        [sys.executable, "-c", _CLIENT, json.dumps(wanted)],
        env=command_environment(hf_home) | environment,
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    answer = json.loads(process.stdout)
    snapshots = [
        found if isinstance(found, str) else {p: bytes.fromhex(c) for p, c in found.items()}
        for found in answer["snapshots"]
    ]
    return Found(snapshots, answer["repos"], answer["warnings"])


def etag(path: str, content: bytes) -> str:
    """The name of a blob in a cache: sha256 for weights, git's for the rest."""
    if path.endswith((".safetensors", ".bin")):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def write_cache(
    hub: Path, name: str, files: Files, *, revision: str = "main", links: bool = True
) -> Path:
    """Put a snapshot into the cache `hub` as huggingface_hub would; gives its folder.

    `commit_hash(files)` is its commit. Without `links` the snapshot holds the files themselves.
    """
    repository = hub / f"models--{name.replace('/', '--')}"
    content_folder = repository / "snapshots" / commit_hash(files)
    (repository / "blobs").mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        place = content_folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if links:
            blob = repository / "blobs" / etag(path, content)
            blob.write_bytes(content)
            place.unlink(missing_ok=True)
            place.symlink_to(os.path.relpath(blob, place.parent))
        else:
            place.write_bytes(content)
    ref = repository / "refs" / revision
    ref.parent.mkdir(parents=True, exist_ok=True)
    ref.write_text(commit_hash(files))
    return repository
