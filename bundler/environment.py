"""Where caches stand, and the variables that make libraries read them without a network."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# What each variable does, and which library reads it, is huggingface_hub/constants.py,
# sentence_transformers/base/model.py, datasets/config.py and torch/hub.py.
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
}
TRUE = {"1", "ON", "YES", "TRUE"}
"""What huggingface_hub takes for yes, in any case of letters; nothing else."""
_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})", re.ASCII)
HIDING = (
    "SENTENCE_TRANSFORMERS_HOME",
    "TRANSFORMERS_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_ENDPOINT",
)
"""Variables that, left over from another set-up, hide the caches from some library."""
_HUB = "https://huggingface.co"
"""What HF_ENDPOINT is for huggingface_hub/constants.py if nobody sets it."""


@dataclass(frozen=True, slots=True)
class Roots:
    """The folders that libraries look into; all absolute."""

    hf_home: Path
    hub: Path
    torch_home: Path
    datasets: Path
    insightface: Path
    checkpoints: Path
    """Plain folders and files, for programs that name a path instead of a model."""
    modules: Path | None = None
    """Where transformers copies code of models to, if that is not below `hf_home`."""
    dataset_links: Path | None = None
    """What the datasets library is given instead of `datasets`: a folder with links into it."""
    named: frozenset[str] = field(default=frozenset(), compare=False)
    """The fields that the user chose, not an environment or a default."""

    def path(self, name: str) -> Path:
        """The root that a layout calls `name`."""
        return {
            "hub": self.hub,
            "torch": self.torch_home,
            "datasets": self.datasets,
            "insightface": self.insightface,
            "checkpoints": self.checkpoints,
        }[name]

    def kept_as(self, name: str) -> str:
        """What a receipt calls the root of that name.

        The caches may move together with their receipts, so they go by name; plain folders and
        insightface's can be anywhere, and there can be several.
        """
        return str(self.path(name)) if name in ("insightface", "checkpoints") else name

    def kept_at(self, kept: str) -> Path:
        """The root that a receipt calls `kept`: `kept_at(kept_as(name)) == path(name)`."""
        return Path(kept) if kept.startswith("/") else self.path(kept)

    def variables(self) -> dict[str, str]:
        """Every variable to set, with its value."""
        places = {
            "HF_HOME": str(self.hf_home),
            "HF_HUB_CACHE": str(self.hub),
            "HF_DATASETS_CACHE": str(self.dataset_links or self.datasets),
            "TORCH_HOME": str(self.torch_home),
        }
        if self.modules is not None:
            places["HF_MODULES_CACHE"] = str(self.modules)
        return {**OFFLINE, **places}

    def stand_ins(self) -> dict[str, str]:
        """For what cannot unset: each variable of HIDING, with a value that hides nothing.

        An empty one would not do: sentence_transformers/base/model.py takes an empty
        SENTENCE_TRANSFORMERS_HOME for the current folder.
        """
        return {**dict.fromkeys(HIDING, str(self.hub)), "HF_ENDPOINT": _HUB}


def find_roots(
    environ: Mapping[str, str] = os.environ,
    *,
    root: Path | None = None,
    hf_home: Path | None = None,
    torch_home: Path | None = None,
    insightface: Path | None = None,
    checkpoints: Path | None = None,
) -> Roots:
    """The roots that the user names, else those that the libraries would use in `environ`.

    The rules are those of huggingface_hub/constants.py, datasets/config.py and torch/hub.py, except
    that `~` and `$X` are expanded in all of them: the result is written out absolute. insightface
    obeys no variable, only its argument `root`; plain folders go below the current one.
    """

    def named(*variables: str) -> Path | None:
        values = (environ.get(variable) for variable in variables)
        return next((absolute(value) for value in values if value), None)

    def absolute(path: Path | str) -> Path:
        expanded = _VARIABLE.sub(lambda v: environ.get(v[1] or v[2], v[0]), str(path))
        if expanded.partition("/")[0] == "~" and environ.get("HOME"):
            expanded = environ["HOME"] + expanded[1:]
        return Path(os.path.abspath(os.path.expanduser(expanded)))

    chosen = {
        "hf_home": hf_home or root,
        "hub": hf_home or root,
        "datasets": hf_home or root,
        "torch_home": torch_home or root,
        "insightface": insightface or root,
        "checkpoints": checkpoints or root,
    }
    caches = named("XDG_CACHE_HOME") or absolute("~/.cache")
    if root is not None:
        hf_home = hf_home or root / "huggingface"
        torch_home = torch_home or root / "torch"
        insightface = insightface or root / "insightface"
        checkpoints = checkpoints or root / "checkpoints"
    datasets = hf_home / "datasets" if hf_home is not None else named("HF_DATASETS_CACHE")
    hub = hf_home / "hub" if hf_home is not None else named("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
    hf_home = absolute(hf_home or named("HF_HOME") or caches / "huggingface")
    torch_home = absolute(torch_home or named("TORCH_HOME") or caches / "torch")
    return Roots(
        hf_home,
        absolute(hub or hf_home / "hub"),
        torch_home,
        absolute(datasets or hf_home / "datasets"),
        absolute(insightface or "~/.insightface"),
        absolute(checkpoints or "checkpoints"),
        named=frozenset(name for name, path in chosen.items() if path is not None),
    )
