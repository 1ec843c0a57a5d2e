"""What unpacking promises over any bundle: it is refused without a trace, or does as it says."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bundle_builder import Pipe
from limits import IN_MEMORY
from trees import tree

import bundler
from bundler.errors import BundlerError, DamagedError, FormatError, TargetError, TrustError
from bundler.names import UNPRINTABLE
from bundler.relative import RelativePath

OURS = re.compile(
    r"huggingface/\.bundler/receipts/[0-9a-f]{64}\.json"
    r"|huggingface/hub/[^/]+/(refs/.+|trees/[0-9a-f]{40}\.json)"
    r"|torch/hub/trusted_list"
)
"""Files that bundler writes of itself."""
ROOT = "some/where/deep/t"
"""So deep that what climbs out of it is still found."""


def folder_of(snapshot: dict[str, Any], name: str) -> RelativePath:
    """Where the files of a snapshot that has this name are to be found, below the root."""
    dashed = name.replace("/", "--")
    underlined = f"{name}_{snapshot.get('revision')}".replace("/", "_")
    folders = {
        "hf-cache": f"huggingface/hub/{snapshot.get('kind')}s--{dashed}/snapshots"
        f"/{snapshot.get('commit_hash')}",
        "hf-datasets": "huggingface/datasets",
        "torch-hub": f"torch/hub/{underlined}",
        "torch-checkpoints": "torch/hub/checkpoints",
        "insightface": f"insightface/models/{name}",
        "flat": f"checkpoints/{name}",
    }
    return RelativePath(folders[snapshot["layout"]])


def promised(document: dict[str, Any]) -> dict[str, str]:
    """Every path below the root that the manifest speaks of, with the digest of its content."""
    found = {}
    for snapshot in document["snapshots"]:
        layout, names, files = snapshot["layout"], [snapshot["name"]], snapshot["files"]
        if layout == "hf-cache":
            names += snapshot.get("aliases") or []
        for name, entry in product(names, files):
            folder, path = folder_of(snapshot, name), RelativePath(entry["path"])
            if layout == "torch-checkpoints":
                path = RelativePath(path.name)
            elif layout == "flat" and [name] == [e["path"] for e in files]:
                path = RelativePath()  # A single file, called as itself.
            found[str(folder / path)] = entry["digest"]
    return found


def unpacked(
    content: bytes, folder: Path, piped: bool, checkpoints: bool, code: bool
) -> BundlerError | None:
    """Unpack below `folder`; if that is refused then without a trace, and the refusal is given."""
    root = folder / ROOT
    root.parent.mkdir(parents=True)
    path = folder / "bundle.tar.zst"
    path.write_bytes(content)
    before = tree(folder)
    try:
        bundler.unpack(
            Pipe(content) if piped else path,
            roots=bundler.find_roots(root=root),
            env=root.parent / "offline.env",
            checkpoints=checkpoints,
            code=code,
        )
    except (DamagedError, FormatError, TargetError, TrustError) as error:
        refusal = error
    else:
        new = tree(folder).keys() - before.keys()
        assert {name for name in new if not name.startswith(f"{ROOT}/")} == {
            ROOT,
            "some/where/deep/offline.env",
        }
        return None
    assert tree(folder) == before
    assert_plain(refusal)
    if isinstance(refusal, TargetError):
        assert re.search(
            " would be too long| are needed: free some|leaves out what should be here",
            str(refusal),
        )
    assert not (isinstance(refusal, TrustError) and code)
    return refusal


def assert_plain(error: BundlerError) -> None:
    """An error is told in one line of moderate length."""
    assert 0 < len(str(error)) <= 1000
    assert not UNPRINTABLE.search(str(error))


def assert_as_promised(root: Path, document: dict[str, Any], checkpoints: bool) -> None:
    """Below `root` stands what the manifest says, and nothing else."""
    wanted = promised(document)
    found = {name: digest_of((root / name).read_bytes()) for name in wanted}
    assert found == wanted
    commits = {snapshot.get("commit_hash") for snapshot in document["snapshots"]}
    for name, (kind, content, mode) in tree(root).items():
        if kind == "link":
            assert Path(os.path.realpath(root / name)).is_relative_to(root)
        elif kind == "file":
            assert not mode & ~0o666
            ours = OURS.fullmatch(name)
            assert ours or digest_of(content) in wanted.values()
            assert checkpoints or name in wanted or not name.startswith("checkpoints/")
            if ours and "/refs/" in name:
                assert content.decode() in commits


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def check_unpack(content: bytes, *, checkpoints: bool = False, code: bool = True) -> None:
    """Whoever unpacks `content` comes to no harm, and all ways of reading it agree.

    `checkpoints` and `code` are as for `bundler.unpack`.
    """
    with TemporaryDirectory(dir=IN_MEMORY) as name:
        refusals, trees = [], []
        for piped in (False, True):
            folder = Path(name, "pipe" if piped else "file")
            refusal = unpacked(content, folder, piped, checkpoints, code)
            refusals.append(refusal)
            if refusal is None:
                document = json.loads(bundler.inspect(Pipe(content)).manifest_bytes)
                assert_as_promised(folder / ROOT, document, checkpoints)
                found = tree(folder / ROOT).items()  # Receipts name places, and those differ.
                trees.append({n: what for n, what in found if "/.bundler/" not in n})
        assert trees[1:] in ([], trees[:1])
        try:
            faults = bundler.verify(io.BytesIO(content)).faults
        except BundlerError:
            assert None not in refusals
        else:
            assert faults or not isinstance(refusals[0], DamagedError)
