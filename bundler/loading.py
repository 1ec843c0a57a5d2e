"""Loading models in a child process without a network: the proof that no look at files can give."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundler.air_gap import AirGap
from bundler.catalogues import catalogue
from bundler.checking import Check, CheckedModel
from bundler.checks import Found
from bundler.environment import Roots
from bundler.errors import BundlerError, UnavailableError, shown
from bundler.lookups import FacePack, HubCode, Lookup, PlainPath, Repository, lookups
from bundler.read_only import offline
from bundler.remote import SMALL
from bundler.spec import Spec, name_and_revision

_PROGRAM = Path(__file__).with_name("load_program.py")
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_TORCH_FILES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")


@dataclass(frozen=True, slots=True)
class Loaded:
    """One model that a library has loaded, or has tried to."""

    spec: str
    library: str
    """With its version, where it could be asked."""
    what: str = ""
    seconds: float = 0.0
    """Of loading; importing the library does not count."""
    parameters: int | None = None
    attempts: Mapping[str, int] = field(default_factory=dict)
    """How often which host was wanted, as in `AirGap.attempts`."""
    error: str = ""
    """The first line of what went wrong, if it did."""
    untried: str = ""
    """Why it was not even tried, if that is so."""
    output: str = ""
    """All that the libraries said."""

    @property
    def fault(self) -> UnavailableError | None:
        """What to tell the user if it did not load."""
        if self.untried:
            return UnavailableError(f"{self.spec} was not loaded: {self.untried}")
        if not self.error:
            return None
        return UnavailableError(
            f"{self.spec} does not load with {self.library}: {shown(self.error, 300)} "
            "(all of what it said is in the output of --json)"
        )

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, for programs."""
        return {
            "spec": self.spec,
            "library": self.library,
            "what": self.what,
            "seconds": round(self.seconds, 3),
            "parameters": self.parameters,
            "attempts": dict(self.attempts),
            "error": self.error or self.untried or None,
            "output": self.output if self.error else None,
        }


@dataclass(frozen=True, slots=True)
class Way:
    """How to load something: arguments of a function in load_program.py. `code`: of the model's."""

    library: str
    arguments: Mapping[str, Any]
    code: bool = False


def all_faults(check: Check, loads: Sequence[Loaded]) -> list[BundlerError]:
    """What to tell the user of what was looked at, and what was loaded after that."""
    faults: list[BundlerError] = [fault.kind(str(fault)) for fault in check.faults]
    return faults + [loaded.fault for loaded in loads if loaded.fault is not None]


def load_models(
    check: Check,
    *,
    python: str | None = None,
    trust_code: bool = False,
) -> Iterator[Loaded]:
    """Load each model that `check` was asked for and found no fault with, one after the other.

    Each in a process of its own, in the environment of `check.roots`, with no network: by `python`,
    the interpreter that has the libraries, by default this one. `trust_code`: run what models bring
    along; without, those that need it are not loaded, and said so. Raises RequestError if `python`
    cannot be run.
    """
    environ = offline(os.environ, check.roots)
    for model in check.models:
        if model.needed_by or model.faults:
            continue
        for way in ways(model, check.roots, trust_code):
            if way.code and not trust_code:
                why = "it brings code of its own, which --trust-code would run"
                yield Loaded(model.spec, way.library, untried=why)
            else:
                yield _loaded(model.spec, way, python or sys.executable, environ)


def ways(model: CheckedModel, roots: Roots, trust_code: bool) -> Iterator[Way]:
    """How programs load a model, by the words of its spec and by its files.

    `trust_code`: files that are opened by their paths may hold more than tensors.
    """
    spec = Spec.parse(model.spec)
    if spec.scheme == "timm":
        name, revision = name_and_revision(spec.rest)
        place = next((found.names[0] for found in model.found if found.commit_hash), "")
        overlay = {"hf_hub_id": f"{place}@{revision}"} if revision and place else None
        yield Way("timm", {"name": name, "overlay": overlay})
    elif spec.scheme == "torchvision":
        yield Way("torchvision", {"name": spec.rest.partition("@")[0], "weights": _weights(model)})
    else:
        for lookup, found in zip(lookups(spec), model.found, strict=True):
            if isinstance(lookup, HubCode):
                hub = {"name": lookup.name, "ref": lookup.ref, "entry": lookup.entry}
                yield Way("torch.hub", hub, code=True)
                return  # What else there is are weights of the entry.
            yield _way(lookup, found, roots, trust_code)


def _way(lookup: Lookup, found: Found, roots: Roots, trust_code: bool) -> Way:
    if isinstance(lookup, FacePack):
        return Way("insightface", {"name": lookup.name, "root": str(roots.insightface)})
    if isinstance(lookup, Repository):
        if lookup.kind == "dataset" and found.commit_hash is None:
            return Way("datasets", {"name": lookup.name})
        at = {"name": lookup.name, "revision": lookup.revision}
        files = Way("huggingface_hub", {**at, "kind": lookup.kind})
        return files if lookup.kind != "model" else _by_files(at, found, lookup.library) or files
    if isinstance(lookup, PlainPath) and len(found.files) > 1:
        config = found.files.get("config.json") or next(iter(found.files.values()))
        way = _by_files({"name": str(config.parent), "revision": None}, found, None)
        if way is not None:
            return way
    path = next(iter(sorted(found.files.values())))
    return Way("torch", {"path": str(path), "code": trust_code})


def _by_files(at: Mapping[str, str | None], found: Found, library: str | None) -> Way | None:
    """The library that a model's files are of, if they tell."""
    if library == "sentence-transformers" or "modules.json" in found.files:
        config = _document(found, "config.json")
        return Way("sentence-transformers", {**at, "code": "auto_map" in config},
                   code="auto_map" in config)  # fmt: skip
    if "model_index.json" in found.files:
        code = any(path.endswith(".py") for path in found.files)
        return Way("diffusers", {**at, "code": code}, code)
    if "adapter_config.json" in found.files and "config.json" not in found.files:
        return Way("peft", at)
    config = _document(found, "config.json")
    if "model_type" in config or "auto_map" in config:
        architectures = config.get("architectures")
        first = architectures[0] if isinstance(architectures, list) and architectures else None
        code = "auto_map" in config
        arguments = {
            **at,
            "architecture": first if isinstance(first, str) else None,
            "tokenizer": "tokenizer_config.json" in found.files,
            "processor": any(name in found.files for name in _PROCESSORS),
            "code": code,
        }
        return Way("transformers", arguments, code)
    if "architecture" in config and at["revision"] is None:
        return Way("timm", {"name": f"hf-hub:{at['name']}", "overlay": None})
    return None


def _weights(model: CheckedModel) -> list[str]:
    """The names of torchvision's weights that are here."""
    name, _, named = Spec.parse(model.spec).rest.partition("@")
    if named:
        return [named]
    known: Mapping[str, str] = catalogue("torchvision")["models"][name]["weights"]
    here = {path.name for path in model.files}
    return [weights for weights, url in known.items() if url.rpartition("/")[2] in here]


def _document(found: Found, path: str) -> dict[str, Any]:
    try:
        with open(found.files[path], "rb") as file:
            document = json.loads(file.read(SMALL))
    except (KeyError, OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _loaded(spec: str, way: Way, python: str, environ: Mapping[str, str]) -> Loaded:
    wanted = {"way": way.library, **way.arguments}
    command = [python, str(_PROGRAM), json.dumps(wanted)]
    with AirGap() as gap:
        process = gap.start(
            command, environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        out, err = process.communicate()
        attempts = gap.attempts()
    said = err.decode(errors="replace")
    try:
        answer = json.loads(out)
    except ValueError:
        last = next(reversed(said.strip().splitlines()), "")
        answer = {"error": f"the process ended with {process.returncode}: {last}"}
    if "absent" in answer:
        why = f"{answer['absent']} is not installed for {python}: name another Python by --python"
        return Loaded(spec, way.library, untried=why)
    return Loaded(
        spec=spec,
        library=str(answer.get("library", way.library)),
        what=str(answer.get("what", "")),
        seconds=float(answer.get("seconds", 0)),
        parameters=answer.get("parameters"),
        attempts=attempts,
        error=str(answer.get("error", "")),
        output=said,
    )
