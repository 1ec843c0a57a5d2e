"""What programs will look for, against what is on this machine: would it load?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from bundler.checks import Fault, Found
from bundler.checks.face_pack import find_pack
from bundler.checks.installed import add_files, add_promises, installed_files
from bundler.checks.plain_path import find_plain
from bundler.checks.prepared_dataset import find_prepared
from bundler.checks.repository import find_repository
from bundler.checks.shell import shell_faults
from bundler.checks.torch_files import find_checkpoint, find_code
from bundler.closure import closure
from bundler.completeness import MODULES
from bundler.disk import start_of
from bundler.environment import Roots, find_roots
from bundler.errors import RequestError
from bundler.lookups import Checkpoint, FacePack, HubCode, Lookup, PlainPath, Repository, lookups
from bundler.progress import Progress, Silent
from bundler.remote import SMALL
from bundler.request import Wanted
from bundler.selection import Selection
from bundler.spec import Spec

_CODE = Selection(include=("*.py",))
"""All that is needed of a repository that lends its code to others."""


@dataclass(frozen=True, slots=True)
class CheckedModel:
    """What is here for one spec. `needed_by`: the model that needs it, if the user did not say."""

    spec: str
    found: tuple[Found, ...]
    needed_by: str = ""

    @property
    def faults(self) -> list[Fault]:
        """What keeps it from loading."""
        return [fault for found in self.found for fault in found.faults]

    @property
    def notes(self) -> list[str]:
        """What there is to say beside that, a sentence each."""
        return [note for found in self.found for note in found.notes]

    @property
    def commit_hash(self) -> str | None:
        """The commit that would be loaded, if there is one."""
        return next((found.commit_hash for found in self.found if found.commit_hash), None)

    @property
    def files(self) -> list[Path]:
        """Its files that are here."""
        return [path for found in self.found for path in found.files.values()]

    @property
    def size(self) -> int:
        """Bytes of these."""
        return sum(size for found in self.found for size in found.sizes.values())


@dataclass(frozen=True, slots=True)
class Check:
    """The answer of `check`: `models` in the order of asking, each with what it needs after it."""

    models: tuple[CheckedModel, ...]
    roots: Roots
    shell: tuple[Fault, ...]
    """What is wrong with the variables of this shell, if they were looked at."""

    @property
    def faults(self) -> list[Fault]:
        """All that keeps something from loading; none if all would load."""
        return [*self.shell, *chain.from_iterable(model.faults for model in self.models)]

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, for programs."""
        return {
            "loads": not self.faults,
            "models": [
                {
                    "spec": model.spec,
                    "needed_by": model.needed_by or None,
                    "commit_hash": model.commit_hash,
                    "files": len(model.files),
                    "size": model.size,
                    "faults": [*map(_fault_json, model.faults)],
                    "notes": model.notes,
                }
                for model in self.models
            ],
            "shell": [*map(_fault_json, self.shell)],
        }


def check(
    models: Sequence[str | Wanted],
    *,
    roots: Roots | None = None,
    digests: bool = False,
    folder: Path = Path(),
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Check:
    """Look whether every model of `models`, specs as in `pack`, is here, complete and intact.

    Reads names, sizes and small files alone, of caches that anybody may have filled; with `digests`
    also every byte of files whose hash is known, in `jobs` threads, by default one for each
    processor, at most 8. `folder` is where programs are started: what stands there may be taken for
    the model. Without `roots` these are the caches that programs started here would read, and the
    variables of this process are looked at too.

    What is wrong is in the result. Raises RequestError for what is no spec, TargetError if the
    receipts cannot be read.
    """
    if not models:
        raise RequestError("no models named: bundler check ORG/NAME …, or --from REQUEST.toml")
    places = roots or find_roots()
    wanted = [Wanted(model) if isinstance(model, str) else model for model in models]
    checked = list(_checked(wanted, places, folder))
    everything = [found for model in checked for found in model.found]
    if digests or any(found.folder for found in everything):
        installed = installed_files(places)
        for found in everything:
            add_files(found, installed)
    if digests:
        from bundler.checks.comparison import compare

        add_promises(everything, installed)
        compare(everything, jobs, progress or Silent())
    shell = _shell(checked, places) if roots is None else []
    return Check(tuple(checked), places, tuple(shell))


def _shell(checked: Sequence[CheckedModel], roots: Roots) -> list[Fault]:
    """What is wrong with this process's variables, if something is to come from the Hub's cache."""
    repositories = [
        (lookup, found)
        for model in checked
        for lookup, found in zip(lookups(Spec.parse(model.spec)), model.found, strict=True)
        if isinstance(lookup, Repository)
    ]
    if not repositories:
        return []
    datasets = any(lookup.kind == "dataset" for lookup, _ in repositories)
    sentences = any(
        lookup.library == "sentence-transformers" or MODULES in found.files
        for lookup, found in repositories
    )
    return shell_faults(os.environ, roots, datasets=datasets, sentences=sentences)


def _checked(wanted: Sequence[Wanted], roots: Roots, folder: Path) -> Iterator[CheckedModel]:
    """Each model, followed by what it needs from elsewhere, which its own files tell."""
    todo: list[tuple[str, Selection, Found | None]]
    todo = [(item.spec, item.selection or Selection(), None) for item in reversed(wanted)]
    seen: set[tuple[str, Selection]] = set()
    while todo:
        text, selection, needed_by = todo.pop()
        try:
            spec = Spec.parse(text)
            if {(str(spec), selection), (str(spec), Selection())} & seen:
                continue
            found = [_found(lookup, text, roots, folder, selection) for lookup in lookups(spec)]
        except RequestError as error:
            if needed_by is None:
                raise
            needed_by.notes.append(f"{needed_by.names[0]} needs {text}: {error}")
            continue
        seen.add((str(spec), selection))
        for one in found:
            needs = [] if one.faults else _needs(one, selection)
            todo += ((other, chosen, one) for other, chosen in reversed(needs))
        yield CheckedModel(text, tuple(found), needed_by.names[0] if needed_by else "")


def _found(lookup: Lookup, spec: str, roots: Roots, folder: Path, selection: Selection) -> Found:
    if isinstance(lookup, Checkpoint):
        return find_checkpoint(lookup, spec, roots)
    if isinstance(lookup, HubCode):
        return find_code(lookup, spec, roots)
    if isinstance(lookup, FacePack):
        return find_pack(lookup, spec, roots, folder)
    if isinstance(lookup, PlainPath):
        return find_plain(lookup, spec, roots)
    found = find_repository(lookup, spec, roots, selection)
    if lookup.kind == "dataset":
        return _dataset(lookup, found, roots)
    if lookup.kind == "model" and lookup.library != "timm":
        _check_folder_in_the_way(folder / lookup.name, found, roots)
    return found


def _dataset(wanted: Repository, files: Found, roots: Roots) -> Found:
    """The prepared form if there is one: `load_dataset` reads nothing else without a network."""
    prepared = find_prepared(wanted, files.spec, roots)
    if prepared.files or prepared.faults:
        return prepared
    if not files.faults:
        files.missing(
            f"{wanted.name}: its files are here, but not the form that "
            f'load_dataset("{wanted.name}") reads without a network',
            "pack it again where bundler[datasets] is installed, or let the program say "
            f'load_dataset(snapshot_download("{wanted.name}", repo_type="dataset"))',
        )
    return files


def _check_folder_in_the_way(folder: Path, found: Found, roots: Roots) -> None:
    """transformers takes a folder of that name where it is started before the cache."""
    if not os.path.isdir(folder):
        return
    if find_plain(PlainPath(str(folder)), found.spec, roots, is_model=True).faults:
        found.hindered(
            f"./{found.names[0]} is here, which programs take instead of what is unpacked",
            "start them in another folder, or move it away",
        )
    else:
        found.notes.append(f"./{found.names[0]} is here, and programs take it instead")


def _needs(found: Found, selection: Selection) -> list[tuple[str, Selection]]:
    """The specs of what a model needs from elsewhere, and what of each."""

    def content(path: str) -> bytes:
        return start_of(found.files[path], SMALL)

    sizes = {path: size for path, size in found.sizes.items() if selection.wants(path)}
    others = closure(found.names, sizes, content)
    found.notes.extend(others.notes)
    return [(need.spec, _CODE if need.code_only else Selection()) for need in others.needs]


def _fault_json(fault: Fault) -> dict[str, Any]:
    return {"text": fault.text, "cure": fault.cure, "exit_code": fault.kind.exit_code}
