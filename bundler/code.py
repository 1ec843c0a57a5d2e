"""What of a model runs as code when a library loads it: found by looking, never by loading."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import BinaryIO, TypeVar

from bundler.catalogues import catalogue
from bundler.digest import Blob
from bundler.errors import TrustError
from bundler.manifest import Code, Snapshot
from bundler.pickled import foreign_imports
from bundler.remote import RemoteSnapshot

_PICKLED = (
    ".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pt2", ".pth", ".pth.tar", ".th"
)  # fmt: skip
_COMPRESSED = (b"\x1f\x8b", b"x\x9c", b"x\xda", b"x\x01", b"BZh", b"\xfd7zXZ", b'\x04"M\x18')
"""How gzip, zlib, bzip2, xz and lz4 begin, in which joblib and pandas keep pickles."""
_SEARCHED = ("torch-checkpoints", "flat")
"""Layouts whose files are opened by their paths, however they are called."""
_SHOWN = 3
_RUN_BY_TORCH = "torch.hub runs it, and whatever it imports"


S = TypeVar("S", Snapshot, RemoteSnapshot)


def code_of(snapshot: Snapshot, open_blob: Callable[[Blob], BinaryIO]) -> Iterator[Code]:
    """The files of `snapshot` that can run as code; `open_blob` gives content to look at."""
    for entry in snapshot.files:
        reason = _by_name(snapshot, entry.path)
        named_so = entry.path.name.lower().endswith(_PICKLED)
        if reason is None and (named_so or snapshot.layout in _SEARCHED):
            with open_blob(entry.blob) as content:
                reason = _pickled(content)
        if reason is not None:
            yield Code(str(entry.path), reason)


def code_by_name(snapshot: Snapshot | RemoteSnapshot) -> Iterator[Code]:
    """The same as far as names tell, with what a manifest says of the rest."""
    named = {}
    if isinstance(snapshot, Snapshot):
        named = {item.path: item.reason for item in snapshot.code}
    elif snapshot.layout == "torch-hub" and snapshot.inside is not None:
        # What an archive holds is not known yet; that file is what makes it a model.
        named = {"hubconf.py": _RUN_BY_TORCH} if snapshot.inside("repo/hubconf.py") else {}
    for file in snapshot.files:
        reason = _by_name(snapshot, PurePosixPath(file.path))
        if reason is not None:
            named[str(file.path)] = reason
    return (Code(path, reason) for path, reason in sorted(named.items()))


def refuse_code(
    snapshots: Iterable[S], code_in: Callable[[S], Iterable[Code]] = code_by_name
) -> None:
    """Raise TrustError if `code_in` finds any in one of `snapshots`."""
    for snapshot in snapshots:
        items = list(code_in(snapshot))
        if items:
            more = f" (and {len(items) - 1} more files)" if len(items) > 1 else ""
            raise TrustError(
                f"{snapshot.name} holds code: {items[0].path}, {items[0].reason}{more}: "
                "--no-code refuses it; leave such files out with --exclude when you pack, "
                "or this model with --only"
            )


def _by_name(snapshot: Snapshot | RemoteSnapshot, path: PurePosixPath) -> str | None:
    if snapshot.layout == "torch-hub":
        return _RUN_BY_TORCH if str(path) == "hubconf.py" else None
    if path.suffix == ".py":
        if snapshot.kind == "model" or snapshot.layout == "flat":
            return "runs with trust_remote_code=True"
        return "runs when it is called"
    return None


def _pickled(content: BinaryIO) -> str | None:
    head = content.read(6)
    if head.startswith(_COMPRESSED):
        return "a compressed file that may be a pickle"
    found = foreign_imports(content, frozenset(catalogue("weights_only")["globals"]))
    if not found:
        return None
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"a pickle of more than tensors: {', '.join(found[:_SHOWN])}{more}"
