"""Make the catalogues of bundler anew from the libraries installed here, which it can then spare.

    python scripts/refresh_catalogues.py [--dinov2 FOLDER]

timm, torchvision and torch must be installed. The catalogue of torch.hub is made from FOLDER,
a git checkout of facebookresearch/dinov2; without one, it stays as it is.
"""

from __future__ import annotations

import argparse
import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

CATALOGUES = Path(__file__).resolve().parent.parent / "bundler" / "catalogues"
DINOV2 = "facebookresearch/dinov2"
Catalogue = dict[str, Any]

_declared: list[Any] = []
"""Keeps the declarations that torchvision needs: they end with the object that made them."""


def timm_catalogue() -> Catalogue:
    """Which tags an architecture has, and where the weights of each tag are."""
    _torchvision()  # timm imports it, and so needs it to be importable
    timm: Any = import_module("timm")
    models: Any = import_module("timm.models")
    architectures, hub, urls, names = {}, {}, {}, {}
    for architecture in timm.list_models():
        cfgs = models.get_arch_pretrained_cfgs(architecture)  # the default first
        loadable = [name for name in cfgs if models.is_model_pretrained(name)]
        if not loadable:
            continue
        architectures[architecture] = [name.partition(".")[2] for name in loadable]
        for name in loadable:
            cfg = cfgs[name]
            if not cfg.hf_hub_id:
                urls[name] = cfg.url
            elif cfg.hf_hub_id != f"timm/{name}":
                hub[name] = cfg.hf_hub_id
            if cfg.hf_hub_id and cfg.hf_hub_filename:
                names[name] = cfg.hf_hub_filename
        if not models.is_model_pretrained(architecture):
            raise ValueError(f"timm: the default of {architecture} has no weights")
    renamed = {
        old: new
        for old, new in models.get_deprecated_models().items()
        # Others are gone, or lead to a tag that timm does not have: timm refuses to load them.
        if new and models.is_model_pretrained(new)
    }
    return {
        "made_with": _made_with("timm"),
        "architectures": architectures,
        "hub": hub,
        "urls": urls,
        "files": names,
        "renamed": renamed,
    }


def torchvision_catalogue() -> Catalogue:
    """The weights of each model, and which of them its builder takes by itself."""
    models: Any = _torchvision().models
    found = {}
    for name in models.list_models():
        builder = models.get_model_builder(name)
        weights = models.get_model_weights(name)
        entry: dict[str, Any] = {}
        if len(weights):
            entry["weights"] = {weight.name: weight.url for weight in weights}
            entry["default"] = weights.DEFAULT.name
        if pretrained := _pretrained(builder):
            entry["pretrained"] = pretrained
        backbone = inspect.signature(builder).parameters.get("weights_backbone")
        if backbone is not None and backbone.default is not None:
            entry["backbone"] = backbone.default.url
        if entry:
            found[name] = entry
    return {"made_with": _made_with("torchvision"), "models": found}


def torchhub_catalogue(dinov2: Path) -> Catalogue:
    """The weights that each entry of a repository's hubconf.py asks for; `dinov2` is a checkout."""
    git = ["git", "-C", str(dinov2), "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    return {"made_with": {DINOV2: commit}, "repositories": {DINOV2: _hub_entries(dinov2)}}


def weights_only_catalogue() -> Catalogue:
    """The globals that torch.load(weights_only=True) accepts, by their names in Python 3.

    To be asked for first: other imports, such as those of torchvision, may let it accept more.
    """
    unpickler: Any = import_module("torch._weights_only_unpickler")
    # The second are what torch itself adds when it is imported, as users may add theirs.
    accepted = {*unpickler._get_allowed_globals(), *unpickler._get_user_allowed_globals()}
    return {"made_with": _made_with("torch"), "globals": sorted(accepted)}


def text(catalogue: Catalogue) -> str:
    """A catalogue as it is kept: of one content there is one text, and each fact has a line."""
    return json.dumps(catalogue, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def _made_with(library: str) -> dict[str, str]:
    # Builds for other hardware, told apart after the plus sign, have the same models.
    return {library: version(library).partition("+")[0]}


def _torchvision() -> Any:
    """torchvision, also where its compiled part does not fit the build of torch."""
    try:
        return import_module("torchvision")
    except RuntimeError:
        # It stumbles over two operators that its compiled part would have declared.
        library: Any = import_module("torch.library").Library("torchvision", "DEF")
        _declared.append(library)
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return import_module("torchvision")


def _pretrained(builder: Callable[..., Any]) -> list[str]:
    """The URLs that `pretrained=True` stands for; two if quantize=True makes a difference."""
    wrapped = getattr(builder, "__wrapped__", None)
    if wrapped is None:
        return []
    legacy = inspect.getclosurevars(wrapped).nonlocals.get("weights", {})
    argument, default = legacy.get("weights", (None, None))
    urls = []
    for quantize in (False, True):
        chosen = default({argument: True, "quantize": quantize}) if callable(default) else default
        if chosen is not None and chosen.url not in urls:
            urls.append(chosen.url)
    return urls


def _hub_entries(checkout: Path) -> dict[str, list[str]]:
    """The URLs that each entry asks for with its defaults, then those for one layer if it has a
    choice of layers. Entries that need a package that is not installed are left out."""
    torch: Any = import_module("torch")
    asked: list[str] = []

    def record(url: str, *_: object, **__: object) -> dict[str, Any]:
        asked.append(url)
        return {"state_dict": {}}  # what is looked for in weights of a part of a model

    found = {}
    with ExitStack() as stack:
        stack.enter_context(patch.object(sys, "path", [str(checkout), *sys.path]))
        stack.enter_context(patch.object(torch.hub, "load_state_dict_from_url", record))
        stack.enter_context(patch.object(torch.nn.Module, "load_state_dict", lambda *_, **__: None))
        stack.enter_context(torch.device("meta"))  # the largest would fill the memory
        hubconf = import_module("hubconf")
        for name, entry in sorted(vars(hubconf).items()):
            if not name.startswith("dinov2_") or not callable(entry):
                continue
            asked.clear()
            try:
                entry()
                if "layers" in inspect.signature(entry).parameters:
                    entry(layers=1)
            except ImportError as error:
                print(f"left out: {name}, which needs {error.name}", file=sys.stderr)
                continue
            found[name] = list(dict.fromkeys(asked))
    return found


def main() -> None:
    """Write every catalogue that can be made here."""
    parser = argparse.ArgumentParser(description="Make bundler's catalogues anew.")
    parser.add_argument("--dinov2", type=Path, metavar="FOLDER", help=f"a checkout of {DINOV2}")
    dinov2: Path | None = parser.parse_args().dinov2
    made = {
        "weights_only": weights_only_catalogue(),
        "torchvision": torchvision_catalogue(),
        "timm": timm_catalogue(),
    }
    if dinov2 is not None:
        made["torchhub"] = torchhub_catalogue(dinov2)
    for name, catalogue in made.items():
        (CATALOGUES / f"{name}.json").write_text(text(catalogue), "utf-8")


if __name__ == "__main__":
    main()
