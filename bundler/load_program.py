"""The program that loads one model, run by whichever Python has the libraries: not imported.

Its argument is a JSON object: `way`, a key of WAYS, and the arguments of that. The answer is one
JSON object on standard output; whatever the libraries print goes to standard error.

Needs Python 3.9 and the libraries of the model, nothing of bundler.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from typing import Any

Answer = dict[str, Any]


def transformers(
    name: str,
    revision: str | None,
    architecture: str | None,
    tokenizer: bool,
    processor: bool,
    code: bool,
) -> Answer:
    library = import_module("transformers")
    at = {"revision": revision or "main", "trust_remote_code": code}
    known = getattr(library, architecture or "", None) if not code else None
    started = time.monotonic()
    model = (known or library.AutoModel).from_pretrained(name, **at)
    if tokenizer:
        library.AutoTokenizer.from_pretrained(name, **at)
    if processor:
        library.AutoProcessor.from_pretrained(name, **at)
    return answer(library, started, type(model).__name__, count(model))


def sentence_transformers(name: str, revision: str | None, code: bool) -> Answer:
    library = import_module("sentence_transformers")
    started = time.monotonic()
    model = library.SentenceTransformer(
        name, revision=revision, device="cpu", trust_remote_code=code
    )
    model.encode("a word")
    return answer(library, started, type(model).__name__, count(model))


def diffusers(name: str, revision: str | None, code: bool) -> Answer:
    library = import_module("diffusers")
    started = time.monotonic()
    pipeline = library.DiffusionPipeline.from_pretrained(
        name, revision=revision or "main", trust_remote_code=code
    )
    parts = [part for part in pipeline.components.values() if hasattr(part, "parameters")]
    return answer(library, started, type(pipeline).__name__, sum(map(count, parts)))


def peft(name: str, revision: str | None) -> Answer:
    library = import_module("peft")
    started = time.monotonic()
    model = library.AutoPeftModel.from_pretrained(name, revision=revision or "main")
    return answer(library, started, type(model).__name__, count(model))


def timm(name: str, overlay: dict[str, str] | None) -> Answer:
    library = import_module("timm")
    started = time.monotonic()
    model = library.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay or None)
    return answer(library, started, type(model).__name__, count(model))


def torchvision(name: str, weights: list[str]) -> Answer:
    library = import_module("torchvision")
    started = time.monotonic()
    models = [library.models.get_model(name, weights=each) for each in weights]
    return answer(library, started, type(models[0]).__name__, count(models[0]))


def torch_hub(name: str, ref: str | None, entry: str | None) -> Answer:
    library = import_module("torch")
    hub = import_module("torch.hub")
    started = time.monotonic()
    repository = f"{name}:{ref}" if ref else name
    if entry is None:
        entries = hub.list(repository, trust_repo=True, skip_validation=True)
        return answer(library, started, f"{len(entries)} entries", None)
    model = hub.load(repository, entry, trust_repo=True, skip_validation=True)
    return answer(library, started, type(model).__name__, count(model))


def checkpoint(path: str, code: bool) -> Answer:
    library = import_module("torch")
    started = time.monotonic()
    if path.endswith(".safetensors"):
        content = import_module("safetensors.torch").load_file(path)
    else:
        content = library.load(path, map_location="cpu", weights_only=not code)
    return answer(library, started, os.path.basename(path), tensors(content))


def datasets(name: str) -> Answer:
    library = import_module("datasets")
    configs = sorted(library.get_dataset_config_names(name)) or [None]
    started = time.monotonic()
    loaded = [library.load_dataset(name, config) for config in configs]
    rows = sum(split.num_rows for splits in loaded for split in splits.values())
    return answer(library, started, f"{rows} rows", None)


def insightface(name: str, root: str) -> Answer:
    library = import_module("insightface")
    started = time.monotonic()
    faces = import_module("insightface.app").FaceAnalysis(name=name, root=root)
    return answer(library, started, f"{len(faces.models)} models", None)


def files(name: str, kind: str, revision: str | None) -> Answer:
    library = import_module("huggingface_hub")
    started = time.monotonic()
    library.snapshot_download(name, repo_type=kind, revision=revision, local_files_only=True)
    return answer(library, started, "files", None)


WAYS: dict[str, Callable[..., Answer]] = {
    "transformers": transformers,
    "sentence-transformers": sentence_transformers,
    "diffusers": diffusers,
    "peft": peft,
    "timm": timm,
    "torchvision": torchvision,
    "torch.hub": torch_hub,
    "torch": checkpoint,
    "datasets": datasets,
    "insightface": insightface,
    "huggingface_hub": files,
}


def answer(library: Any, started: float, what: str, parameters: int | None) -> Answer:
    return {
        "library": f"{library.__name__} {getattr(library, '__version__', '')}",
        "seconds": time.monotonic() - started,
        "what": what,
        "parameters": parameters,
    }


def count(model: Any) -> int:
    return sum(int(parameter.numel()) for parameter in model.parameters())


def tensors(content: Any) -> int:
    if hasattr(content, "numel"):
        return int(content.numel())
    if isinstance(content, dict):
        return sum(map(tensors, content.values()))
    if isinstance(content, (list, tuple)):
        return sum(map(tensors, content))
    return 0


def main() -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    wanted = json.loads(sys.argv[1])
    way = wanted.pop("way")
    try:
        found = WAYS[way](**wanted)
    except ModuleNotFoundError as error:
        found = {"error": str(error), "absent": (error.name or way).partition(".")[0]}
    except Exception as error:
        lines = str(error).strip().splitlines()
        first = next((line.strip() for line in lines if line.strip()), "")
        found = {"error": f"{type(error).__name__}: {first}".strip(": ")}
        traceback.print_exc()
    json.dump(found, out)
    out.close()


if __name__ == "__main__":
    main()
