"""The program that loads one model, run by whichever Python has the libraries: not imported.

Its argument is a JSON object: `way`, a key of WAYS, and the arguments of that. The answer is one
JSON object on standard output; whatever the libraries print goes to standard error.

Needs Python 3.9 and the libraries of the model, nothing of bundler.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

Answer = dict[str, Any]


def transformers(
    name: str,
    revision: str | None,
    classes: list[str],
    tokenizer: bool,
    processor: bool,
    code: bool,
) -> Answer:
    library = import_module("transformers")
    at = {"revision": revision or "main", "trust_remote_code": code}
    builder = next((getattr(library, each) for each in classes if hasattr(library, each)), None)
    started = time.monotonic()
    model, info = (builder or library.AutoModel).from_pretrained(
        name, output_loading_info=True, **dtype(library), **at
    )
    if tokenizer:
        words = library.AutoTokenizer.from_pretrained(name, **at)
        # Without the files of its vocabulary it may be made all the same.
        if len(words) <= len(words.all_special_ids):
            raise ValueError("its tokenizer knows no word")
    if processor:
        library.AutoProcessor.from_pretrained(name, **at)
    # A plain AutoModel has parts that the weights of a special one need not have.
    made_up = sorted(info["missing_keys"]) if builder else []
    return answer(library, started, type(model).__name__, count(model), made_up)


def dtype(library: Any) -> dict[str, str]:
    """The argument for the type that the weights are saved in: twice the memory is not needed."""
    is_old = int(library.__version__.partition(".")[0]) < 5
    return {"torch_dtype" if is_old else "dtype": "auto"}


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
    options = {"quantize": True} if name.startswith("quantized_") else {}
    started = time.monotonic()
    models = [library.models.get_model(name, weights=each, **options) for each in weights]
    return answer(library, started, type(models[0]).__name__, count(models[0]))


def torch_hub(name: str, ref: str | None, entry: str | None) -> Answer:
    library = import_module("torch")
    hub = import_module("torch.hub")
    started = time.monotonic()
    repository = f"{name}:{ref}" if ref else name
    if entry is None:
        entries = hub.list(repository, trust_repo=True, skip_validation=True)
        return answer(library, started, f"entries: {', '.join(entries) or 'none'}", None)
    model = hub.load(repository, entry, trust_repo=True, skip_validation=True)
    return answer(library, started, type(model).__name__, count(model))


def checkpoints(paths: list[str], code: bool) -> Answer:
    library = import_module("torch")
    started = time.monotonic()
    total = 0
    for path in paths:
        if path.endswith(".safetensors"):
            total += tensors(import_module("safetensors.torch").load_file(path))
        else:
            total += tensors(library.load(path, map_location="cpu", weights_only=not code))
    return answer(library, started, named(paths), total)


def plain(paths: list[str]) -> Answer:
    """No library is known for them, so that they can be read is all there is to see."""
    started = time.monotonic()
    for path in paths:
        with open(path, "rb") as file:
            while file.read(1 << 20):
                pass
    return answer(None, started, named(paths), None)


def named(paths: list[str]) -> str:
    return os.path.basename(paths[0]) if len(paths) == 1 else f"{len(paths)} files"


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
    "torch": checkpoints,
    "datasets": datasets,
    "insightface": insightface,
    "huggingface_hub": files,
    "plain reading": plain,
}


def answer(
    library: Any, started: float, what: str, parameters: int | None, made_up: Sequence[str] = ()
) -> Answer:
    return {
        "library": "plain reading" if library is None else version(library),
        "seconds": time.monotonic() - started,
        "what": what,
        "parameters": parameters,
        "made_up": made_up,
    }


def version(library: Any) -> str:
    return f"{library.__name__} {getattr(library, '__version__', '')}".strip()


def count(model: Any) -> int:
    return sum(int(parameter.numel()) for parameter in model.parameters())


def tensors(content: Any) -> int:
    if hasattr(content, "parameters"):
        return count(content)
    if hasattr(content, "numel"):
        return int(content.numel())
    if isinstance(content, dict):
        return sum(map(tensors, content.values()))
    if isinstance(content, (list, tuple)):
        return sum(map(tensors, content))
    return 0


def failed(way: str, error: Exception) -> Answer:
    lines = str(error).splitlines()
    first = next((line.strip() for line in lines if line.strip()), "")
    return {
        "library": version(sys.modules[way]) if way in sys.modules else way,
        "seconds": 0,
        "what": "",
        "parameters": None,
        "made_up": [],
        "error": f"{type(error).__name__}: {first}"[:1000].strip(": "),
        "absent": absent(error),
        "refused": is_refused(error),
    }


def absent(error: Exception) -> str | None:
    """The library that is not installed, if it is that."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return None
    name = error.name.partition(".")[0]
    # One that is there may lack a part of itself, or be the code of a model.
    return None if name in sys.modules or find_spec(name) else name


def is_refused(error: Exception) -> bool:
    """Whether torch.load found more than tensors, and refused to run it."""
    text = str(error).lower()
    refused = isinstance(error, pickle.UnpicklingError) and "unsupported" in text
    return refused or "with torchscript archives" in text


def end_with_parent() -> None:
    """Die with who started this, which the end of standard input tells; it is of no other use."""
    pipe = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

    def watch() -> None:
        os.read(pipe, 1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    end_with_parent()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # The folder of this file comes first there, and holds modules that are no libraries.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [folder for folder in sys.path if folder != here]
    wanted = json.loads(sys.argv[1])
    way = wanted.pop("way")
    try:
        found = {**WAYS[way](**wanted), "error": None, "absent": None, "refused": False}
    except Exception as error:
        traceback.print_exc()
        found = failed(way.replace("-", "_"), error)
    out.write("\n" + json.dumps(found) + "\n")
    out.close()


if __name__ == "__main__":
    main()
