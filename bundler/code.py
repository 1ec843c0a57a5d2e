"""What of a model runs as code when a library loads it: found by looking, never by loading."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from bundler.catalogues import catalogue
from bundler.digest import Blob
from bundler.errors import TrustError
from bundler.manifest import Code, Snapshot
from bundler.relative import RelativePath

if TYPE_CHECKING:  # Whoever unpacks needs nothing of it.
    from bundler.remote import RemoteSnapshot

_PICKLED = (
    ".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pt2", ".pth", ".pth.tar", ".th"
)  # fmt: skip
_COMPRESSED = (b"\x1f\x8b", b"x\x9c", b"x\xda", b"x\x01", b"BZh", b"\xfd7zXZ", b'\x04"M\x18')
"""How gzip, zlib, bzip2, xz and lz4 begin, in which joblib and pandas keep pickles."""
_SEARCHED = ("torch-checkpoints", "flat")
"""Layouts whose files are opened by their paths, however they are called."""
_IMPORTED = (".py", ".pyc", ".pyd", ".so")
HUBCONF = "hubconf.py"
"""What makes a repository one of torch.hub: torch/hub.py, MODULE_HUBCONF."""
_SHOWN = 3
_RUN_BY_TORCH = "torch.hub runs it, and whatever it imports"


S = TypeVar("S", Snapshot, "RemoteSnapshot")


def code_of(snapshot: Snapshot, open_blob: Callable[[Blob], BinaryIO]) -> Iterator[Code]:
    """The files of `snapshot` that can run as code; `open_blob` gives content to look at."""
    named = {item.path: item for item in _by_name(snapshot)}
    for entry in snapshot.files:
        path = str(entry.path)
        if path in named:
            yield named[path]
        elif path.lower().endswith(_PICKLED) or snapshot.layout in _SEARCHED:
            with open_blob(entry.blob) as content:
                reason = _pickled(content)
            if reason is not None:
                yield Code(path, reason)


def code_by_name(snapshot: Snapshot | RemoteSnapshot) -> Iterator[Code]:
    """The same as far as names tell, with what a manifest says of the rest."""
    found = {}
    if isinstance(snapshot, Snapshot):
        found = {item.path: item for item in snapshot.code}
    elif snapshot.inside is not None:
        if wants_hubconf(snapshot):
            yield Code(HUBCONF, _RUN_BY_TORCH)
        return
    found |= {item.path: item for item in _by_name(snapshot)}
    yield from (found[path] for path in sorted(found))


def wants_hubconf(snapshot: RemoteSnapshot) -> bool:
    """Whether an archive, of which it is not known yet what it holds, is to bring HUBCONF."""
    return (
        snapshot.layout == "torch-hub"
        and snapshot.inside is not None
        and snapshot.inside(f"repo/{HUBCONF}") is not None
    )


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


def _by_name(snapshot: Snapshot | RemoteSnapshot) -> list[Code]:
    """The files that Python would import, and when."""
    paths = [RelativePath(file.path) for file in snapshot.files]
    importable = [path for path in paths if path.suffix.lower() in _IMPORTED]
    if snapshot.layout == "torch-hub":
        hubconf = [path for path in importable if path == HUBCONF]
        # Without it they may still come to stand beside another one.
        return [Code(str(path), _RUN_BY_TORCH) for path in hubconf or importable]
    reason = "runs when it is called"
    if snapshot.kind == "model" or snapshot.layout == "flat":
        reason = "runs with trust_remote_code=True"
    return [Code(str(path), reason) for path in importable if path.suffix.lower() == ".py"]


def _pickled(content: BinaryIO) -> str | None:
    if content.read(6).startswith(_COMPRESSED):
        return "a compressed file that may be a pickle"
    from bundler.pickled import foreign_imports  # Most commands look at names alone.

    found = foreign_imports(content, _allowed())
    if not found:
        return None
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"a pickle of more than tensors: {', '.join(found[:_SHOWN])}{more}"


@cache
def _allowed() -> frozenset[str]:
    """What torch.load(weights_only=True) imports."""
    return frozenset(catalogue("weights_only")["globals"])
