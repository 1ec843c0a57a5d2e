"""What would repair what is installed: the manifest of a bundle that brings no more than that."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from bundler.manifest import FileEntry, Manifest, Snapshot
from bundler.names import relative_path
from bundler.receipt import InstalledFile, InstalledModel, Place, key_of
from bundler.relative import RelativePath

_DEPTHS = {"torch-hub": 2, "torch-checkpoints": 2, "insightface": 2, "hf-datasets": 0}
"""Parts of the path of an installed file that a layout puts before its path in the model."""


def needed(
    models: Iterable[InstalledModel], faulty: Collection[Place], right: Collection[Place]
) -> Manifest | None:
    """The manifest of those of `models` that have `faulty` places, without the content of the
    `right` ones.

    None if there is nothing that a bundle could bring.
    """
    by_key: dict[object, InstalledModel] = {}
    for model in models:
        if not set(model.places).isdisjoint(faulty):
            by_key[key_of(model)] = model.merged(by_key.get(key_of(model)))
    files = [file for model in by_key.values() for file in model.files]
    here = {file.blob for file in files if file.place in right}
    snapshots = [*filter(None, map(_snapshot, by_key.values()))]
    if not snapshots:
        return None
    return Manifest.of(snapshots).without(here)


def _snapshot(model: InstalledModel) -> Snapshot | None:
    """The snapshot that was installed, as far as a receipt tells."""
    entries = {entry.path: entry for entry in _entries(model)}
    if not entries:
        return None
    return Snapshot(
        source=model.source,
        name=model.name,
        layout=model.layout,
        files=tuple(entries.values()),
        kind=model.kind,
        aliases=model.aliases,
        revision=model.revision,
        commit_hash=model.commit_hash,
        specs=model.specs,
        needs=model.needs,
    )


def _entries(model: InstalledModel) -> Iterator[FileEntry]:
    if model.layout == "hf-cache":
        yield from _hub_entries(model)
    elif model.layout == "flat":
        for file in model.files:
            single = file.path == model.name
            inner = file.path if single else file.path.removeprefix(f"{model.name}/")
            yield FileEntry(relative_path(inner), file.blob)
    else:
        depth = _DEPTHS.get(model.layout, 0)
        for file in model.files:
            is_plain = file.root.startswith("/") and model.layout != "insightface"
            if not is_plain and len(file.path.parts) > depth:
                yield FileEntry(relative_path("/".join(file.path.parts[depth:])), file.blob)


def _hub_entries(model: InstalledModel) -> Iterator[FileEntry]:
    files: dict[Place, InstalledFile] = {file.place: file for file in model.files}
    for link in model.links:
        file = files.get((link.root, link.path.led_to(link.text or ".")))
        if file is not None and _is_in_snapshot(link.path):
            yield FileEntry(_inner(link.path), file.blob, file.path.name)
    for root, path in files:
        if root == "hub" and _is_in_snapshot(path):
            yield FileEntry(_inner(path), files[root, path].blob)


def _is_in_snapshot(path: RelativePath) -> bool:
    return path.parts[1:2] == ("snapshots",) and len(path.parts) > 3


def _inner(path: RelativePath) -> RelativePath:
    return relative_path("/".join(path.parts[3:]))
