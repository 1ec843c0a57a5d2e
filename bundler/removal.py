"""Models taken off a target: exactly what nothing else uses, and only what bundler brought."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundler.catalogues import nearest
from bundler.clearing import Clearing, Work
from bundler.digest import Digest
from bundler.environment import Roots, find_roots
from bundler.errors import BundlerError, Faults, RequestError, TargetError
from bundler.permission import told
from bundler.progress import Progress, Silent
from bundler.receipt import InstalledModel, Key, Receipt, key_of
from bundler.receipt_folder import drop_models, read_receipts, remove_empty_folder
from bundler.spec import Naming
from bundler.surplus import Surplus, surplus

_ID = re.compile(r"(sha256:)?([0-9a-f]{8,64})")
_ROOTS = ("checkpoints", "insightface", "datasets", "torch", "hub")
Installed = tuple[Digest, InstalledModel]
"""A model and the bundle that brought it."""


@dataclass(frozen=True, slots=True)
class Removal:
    """What a removal did or, as a plan, will do."""

    models: tuple[Installed, ...]
    removed: int
    """Files, links and texts."""
    freed: int
    """Bytes."""
    kept: Mapping[Path, str]
    """What bundler put there and is left all the same, with the reason."""
    staying: frozenset[Key] = frozenset()
    """By `key_of`, the models among these that another bundle has brought too."""

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, for programs."""
        return {
            "models": [
                {
                    "bundle": str(bundle),
                    "spec": model.spec,
                    "revision": model.revision,
                    "commit_hash": model.commit_hash,
                    "layout": model.layout,
                    "stays": key_of(model) in self.staying,
                }
                for bundle, model in self.models
            ],
            "removed": self.removed,
            "freed": self.freed,
            "kept": {str(path): reason for path, reason in self.kept.items()},
        }


def plan_remove(
    names: Sequence[str], *, roots: Roots | None = None, progress: Progress | None = None
) -> Removal:
    """What `remove` with the same arguments would do: reads only. Raises as it does."""
    roots = roots or find_roots()
    chosen, staying = _chosen(names, tuple(read_receipts(roots.hf_home, all_of_them=True)))
    return _removal(chosen, staying, _surplus(chosen, staying, roots, progress), roots)


def remove(
    names: Sequence[str], *, roots: Roots | None = None, progress: Progress | None = None
) -> Removal:
    """Take out of the caches at `roots` what was installed by these names, and free the space.

    `names`: ids of bundles, as `sha256:…`, hex or the first 8 hex digits or more of it, and specs
    of models as `unpack` takes them in `only`. `roots`: by default those that the libraries use
    here. A file goes if bundler wrote it, it is still what it was, and no other model needs it.

    Raises RequestError (nothing of that name is installed; what stays needs it) and TargetError.
    Interrupted at any point, what stays loads, and the same call finishes the work.
    """
    roots = roots or find_roots()
    before = tuple(read_receipts(roots.hf_home, all_of_them=True))
    if not before:
        with suppress(TargetError), _locked_roots(roots, before):
            remove_empty_folder(roots.hf_home)  # Whoever removed the last may have been killed.
    _chosen(names, before)  # Raises before anything is locked.
    with _locked_roots(roots, before) as clearings:
        # Again, now that nobody else writes there.
        receipts = tuple(read_receipts(roots.hf_home, all_of_them=True))
        chosen, staying = _chosen(names, receipts)
        found = _surplus(chosen, staying, roots, progress)
        removal = _removal(chosen, staying, found, roots)
        for kept, work in _by_root(chosen, found).items():
            if kept in clearings:
                clearings[kept].clear(work)
        # At the very end: until then, the same names find what is left to do.
        keys = defaultdict(set)
        for bundle, model in chosen:
            keys[bundle].add(key_of(model))
        for bundle, dropped in keys.items():
            drop_models(roots.hf_home, bundle, dropped, progress)
    return removal


@contextmanager
def _locked_roots(roots: Roots, receipts: Sequence[Receipt]) -> Iterator[dict[str, Clearing]]:
    """Every root that is there, by what receipts call it, which nobody else writes to meanwhile."""
    with ExitStack() as stack:
        yield {
            kept: stack.enter_context(Clearing(roots.kept_at(kept)))
            for kept in _kept_roots(roots, receipts)
            if roots.kept_at(kept).is_dir()
        }


def _kept_roots(roots: Roots, receipts: Sequence[Receipt]) -> list[str]:
    """All roots that something was or may be installed below, as receipts call them."""
    named = {root for r in receipts for model in r.models for root, _ in model.places}
    others = {roots.kept_as(name) for name in _ROOTS}
    return sorted(named | others)


def _surplus(
    chosen: Sequence[Installed],
    staying: Sequence[InstalledModel],
    roots: Roots,
    progress: Progress | None,
) -> Surplus:
    with told(roots.hf_home, "--root"):
        models = [model for _, model in chosen]
        return surplus(models, staying, roots, progress or Silent())


def _removal(
    chosen: Sequence[Installed], staying: Sequence[InstalledModel], found: Surplus, roots: Roots
) -> Removal:
    kept = {roots.kept_at(root) / path: why for (root, path), why in sorted(found.kept.items())}
    both = {key_of(model) for _, model in chosen} & {*map(key_of, staying)}
    return Removal(tuple(chosen), len(found.gone), found.freed, kept, frozenset(both))


def _by_root(chosen: Sequence[Installed], found: Surplus) -> dict[str, Work]:
    """What to do below each root; plain folders come first, since they may lead into caches."""
    places = {place for _, model in chosen for place in model.places} | found.gone

    def below(root: str) -> Work:
        return Work(
            {path: text for (other, path), text in found.texts.items() if other == root},
            {path: text for (other, path), text in found.links.items() if other == root},
            {path for other, path in found.gone if other == root},
            {path for other, path in found.at_end if other == root},
            {path for other, path in places if other == root},
        )

    return {root: below(root) for root in sorted({root for root, _ in places})}  # "/…" is first.


def _chosen(
    names: Sequence[str], receipts: Sequence[Receipt]
) -> tuple[list[Installed], list[InstalledModel]]:
    """The models that the names ask for, and all others. Raises RequestError."""
    models = [(receipt.bundle, model) for receipt in receipts for model in receipt.models]
    if not models:
        raise RequestError("bundler has installed nothing here: name another place with --root")
    naming = Naming([model for _, model in models])
    wanted: set[int] = set()
    faults: list[BundlerError] = []
    for text in [names] if isinstance(names, str) else names:
        try:
            wanted |= _of_bundle(text, models) or _named(text, models, naming)
        except RequestError as error:
            faults.append(error)
    if faults:
        raise faults[0] if len(faults) == 1 else Faults(faults)
    staying = [number for number in range(len(models)) if number not in wanted]
    for number in staying:
        for need in models[number][1].needs:
            meant = naming.asked(need)
            if meant and meant <= wanted:
                raise RequestError(
                    f"{need} is needed by {models[number][1].spec}, which stays: name both"
                )
    return [models[number] for number in sorted(wanted)], [models[n][1] for n in staying]


def _of_bundle(text: str, models: Sequence[Installed]) -> set[int]:
    """The numbers of the models that the bundle with this id, or its beginning, brought."""
    match = _ID.fullmatch(text)
    if match is None:
        return set()
    bundles = {bundle for bundle, _ in models if bundle.hex.startswith(match[2])}
    if len(bundles) > 1:
        raise RequestError(f"{text} is the beginning of {len(bundles)} ids: give more of it")
    return {number for number, (bundle, _) in enumerate(models) if bundle in bundles}


def _named(text: str, models: Sequence[Installed], naming: Naming) -> set[int]:
    """The numbers of the models that a spec or a name means, in whatever bundle."""
    found = naming.asked(text) | naming.called(text)
    if not found:
        known = [*(model.spec for _, model in models), *(str(bundle) for bundle, _ in models)]
        raise RequestError(f"{text} is not installed ({nearest(text, known)})")
    return found
