"""The folder of torch.hub: code, and the checkpoints that `load_state_dict_from_url` looks for.

    hub/trusted_list                         must be there where nothing can be written
    hub/<owner>_<repo>_<commit>/             the code at one commit
    hub/<owner>_<repo>_<ref>                 a link to it: a branch moves, and so does the link
    hub/checkpoints/<file>

The rules are those of torch/hub.py: the folder's name is as the caller writes owner and repository,
with `_` for every slash in the ref; a repository whose folder is there is trusted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from bundler.errors import shown
from bundler.layouts.placement import File, Link, Placement, Sealed, Text
from bundler.manifest import Snapshot
from bundler.names import relative_path
from bundler.relative import RelativePath

_HUB = RelativePath("hub")
_PYTORCH = "https://download.pytorch.org/"
_HASH_IN_NAME = re.compile(r"[-_]([0-9a-f]{8,64})\.[a-z]+")
"""How PyTorch names its checkpoints: torch/hub.py, HASH_REGEX; quantized ones have `_`."""


class TorchHub:
    """Layout `torch-hub`: the code of a repository."""

    name = "torch-hub"
    root = "torch"

    def place(
        self, snapshot: Snapshot, can_link: Callable[[RelativePath], bool]
    ) -> Iterator[Placement]:
        if snapshot.revision is None:
            raise ValueError(f"{shown(snapshot.name)} has no revision")
        folder = code_folder(snapshot.name, snapshot.revision)
        at_commit = code_folder(snapshot.name, snapshot.commit_hash or snapshot.revision)
        content = at_commit if can_link(folder) else folder
        for entry in snapshot.files:
            yield File(content / entry.path, entry.blob)
        if content != folder:
            beside = re.escape(code_folder(snapshot.name, "").name)
            title = f"{snapshot.revision} of {snapshot.name}"
            yield Link(folder, content, moved_from=f"{beside}([0-9a-f]{{40}})", title=title)
        yield Sealed(content)  # Code beside code that is another's is neither.
        yield Text(_HUB / "trusted_list", "", lambda before, _: before)


class TorchCheckpoints:
    """Layout `torch-checkpoints`: single files."""

    name = "torch-checkpoints"
    root = "torch"

    def place(
        self, snapshot: Snapshot, can_link: Callable[[RelativePath], bool]
    ) -> Iterator[Placement]:
        for entry in snapshot.files:
            yield File(_HUB / "checkpoints" / entry.path.name, entry.blob)


def hash_in_name(url: str) -> str:
    """The beginning of the sha256 that the name of a checkpoint of PyTorch's own server tells."""
    name = url.partition("?")[0].rpartition("/")[2]
    found = _HASH_IN_NAME.search(name) if url.startswith(_PYTORCH) else None
    return found[1] if found else ""


def code_folder(name: str, ref: str) -> RelativePath:
    """Where torch.hub keeps a repository's code at `ref`, below TORCH_HOME. Raises ValueError."""
    if name.count("/") != 1 or name[:1] in "/.":
        raise ValueError(f"{shown(name)} is not of the form owner/repo")
    return _HUB / relative_path(f"{name}_{ref}".replace("/", "_"))
