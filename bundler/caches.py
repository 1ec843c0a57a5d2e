"""What the libraries on this machine have downloaded already: found, never altered.

The folders are those of `layouts`, as the libraries themselves fill them: huggingface_hub's cache
with its blobs beside the snapshots, in a store shared by all repositories, or as plain files where
links are not to be had; torch.hub's code and checkpoints; insightface's packs.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from posixpath import basename
from typing import Any

from bundler.catalogues import catalogue
from bundler.code import HUBCONF
from bundler.completeness import absent_shards
from bundler.copies import Copy, copy_at
from bundler.digest import SHA1, SHA256, Digest
from bundler.disk import PYTHON_CACHE, entries, names_below, start_of
from bundler.environment import Roots
from bundler.errors import BundlerError, DamagedError, RequestError, UnavailableError
from bundler.hub_cache import LARGEST_LIST, etag_of, listed_files, listed_size
from bundler.layouts.hf_cache import repository_folder, repository_name
from bundler.layouts.torch_hub import code_folder, hash_in_name
from bundler.local_file import local_file
from bundler.remote import RemoteFile, RemoteSnapshot

_SCHEMES = {"model": "hf", "dataset": "dataset", "space": "space"}
_REPOSITORY = re.compile(r"(model|dataset|space)s--(.+)")
_SHOWN = 3


class Caches:
    """The caches below `roots`. A source of repositories, as `remote.Repositories` has it."""

    def __init__(self, roots: Roots) -> None:
        self._roots = roots

    def with_copies(self, snapshot: RemoteSnapshot) -> RemoteSnapshot:
        """The same snapshot, each file with what there is here under its name.

        Only what upstream gives a digest for, so that a copy can be told from something else.
        """
        if snapshot.inside is not None or any(file.is_here for file in snapshot.files):
            return snapshot
        places = [p for p in self._places(snapshot) if p.is_dir()]
        files = tuple(
            replace(file, copies=tuple(_copies(places, file, snapshot.commit_hash)))
            if places and (file.digest or file.git_sha1 or file.sha256_prefix)
            else file
            for file in snapshot.files
        )
        return replace(snapshot, files=files)

    def _places(self, snapshot: RemoteSnapshot) -> list[Path]:
        if snapshot.layout == "hf-cache":
            names = (snapshot.name, *snapshot.aliases)
            return [self._repository(str(snapshot.kind), name) for name in names]
        return [self._checkpoints] if snapshot.layout == "torch-checkpoints" else []

    def _repository(self, kind: str, name: str) -> Path:
        try:
            return self._roots.hub / repository_folder(kind, name)
        except ValueError as error:
            raise RequestError(str(error)) from None

    @property
    def _checkpoints(self) -> Path:
        return self._roots.torch_home / "hub" / "checkpoints"

    def snapshot(
        self,
        source: str,
        kind: str,
        name: str,
        revision: str | None,
        specs: tuple[str, ...] = (),
    ) -> RemoteSnapshot:
        """The files of a repository that are here; none of those that are not whole.

        Raises UnavailableError, naming them, if some are damaged or missing: links that lead
        nowhere, shards that an index names, other sizes than the repository's own list has.
        """
        folder = self._repository(kind, name)
        revision = revision or "main"
        commit_hash = _commit(folder, revision)
        if commit_hash is None:
            raise UnavailableError(self._absence(folder, name, revision))
        listed = listed_files(folder, commit_hash)
        content = folder / "snapshots" / commit_hash
        files, faults = [], []
        for inner in sorted(names_below(content)):
            try:
                files.append(_file(str(content), inner, listed.get(inner, {})))
            except (OSError, BundlerError):
                faults.append(inner)
        present = {file.path for file in files}
        shards = absent_shards(present, lambda path: start_of(content / path, LARGEST_LIST))
        faults += [path for path, _ in shards]
        if faults or not files:
            more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
            what = f"{', '.join(faults[:_SHOWN])}{more}" if faults else "all of it"
            raise UnavailableError(
                f"{name} is not whole in {self._roots.hub}: {what} missing or cut short; have it "
                "downloaded again, or leave it out"
            )
        main, *others = self._names[kind, os.path.realpath(folder)]
        return RemoteSnapshot(
            source=source,
            name=main,
            layout="hf-cache",
            files=tuple(files),
            kind=kind,
            aliases=tuple(others),
            revision=revision,
            commit_hash=commit_hash,
            specs=specs,
        )

    @cached_property
    def _names(self) -> Mapping[tuple[str, str], list[str]]:
        """All names of a repository, by its kind and folder: the folder's, then those of links."""
        names: dict[tuple[str, str], list[tuple[bool, str]]] = defaultdict(list)
        for kind, name in self._repositories():
            folder = self._repository(kind, name)
            names[kind, os.path.realpath(folder)].append((folder.is_symlink(), name))
        return {at: [name for _, name in sorted(found)] for at, found in names.items()}

    def _absence(self, folder: Path, name: str, revision: str) -> str:
        if folder.is_dir():
            known = ", ".join(sorted(_revisions(folder))) or "nothing"
            return f"{name} has no revision {revision} in {self._roots.hub}, only {known}"
        last = name.rpartition("/")[2]
        near = [f"{other}" for _, other in self._repositories() if other.endswith(last)]
        meant = f": do you mean {', '.join(near)}?" if near else ""
        return f"{name} is not in {self._roots.hub}{meant or ': load it once with a network'}"

    def checkpoint(self, url: str, digest: Digest | None) -> RemoteFile:
        """What torch.hub has downloaded from `url`, to be of `digest`. Raises UnavailableError."""
        return self._one_file(self._checkpoints / basename(url.partition("?")[0]), digest)

    def _one_file(self, path: Path, digest: Digest | None = None) -> RemoteFile:
        try:
            return local_file(str(path.parent), path.name, digest=digest)
        except (OSError, RequestError):
            raise UnavailableError(
                f"{path.name} is not in {path.parent}: load it once with a network"
            ) from None

    def code(self, name: str, ref: str | None, specs: tuple[str, ...] = ()) -> RemoteSnapshot:
        """The repository of torch.hub that was loaded as `name`, at `ref`. Raises UnavailableError.

        Without `ref`, `main` or else `master`, as torch/hub.py has it.
        """
        for revision in ("main", "master") if ref is None else (ref,):
            folder = self._roots.torch_home / code_folder(name, revision)
            if (folder / HUBCONF).is_file():
                last = os.path.realpath(folder).rpartition("_")[2]
                return RemoteSnapshot(
                    source="torchhub",
                    name=name,
                    layout="torch-hub",
                    files=_folder(folder),
                    revision=revision,
                    commit_hash=last if SHA1.fullmatch(last) else None,
                    specs=specs,
                )
        raise UnavailableError(
            f"{name}:{ref or 'main'} is not in {self._roots.torch_home / 'hub'}: load it once with "
            "a network"
        )

    def pack(self, name: str) -> RemoteSnapshot:
        """insightface's pack of that name. Raises UnavailableError."""
        folder = self._roots.insightface / "models" / name
        files = tuple(
            file for file in _folder(folder) if PurePosixPath(file.path).suffix == ".onnx"
        )
        if not files:
            raise UnavailableError(f"{folder} has no models in it: load {name} with a network once")
        return RemoteSnapshot(source="insightface", name=name, layout="insightface", files=files)

    def everything(self) -> tuple[list[RemoteSnapshot], list[str]]:
        """All that is here and whole, and what there is to say of the rest, a sentence each."""
        snapshots, notes = [], []
        for kind, name in self._repositories():
            if self._repository(kind, name).is_symlink():
                continue  # Another name of one that comes by its first.
            for revision in sorted(_revisions(self._repository(kind, name))):
                try:
                    snapshots.append(self.snapshot(_SCHEMES[kind], kind, name, revision))
                except UnavailableError as error:
                    notes.append(f"left behind: {error}")
        addresses = {basename(url): url for url in _known_addresses()}
        for path in entries(self._checkpoints):
            if path.is_file() and not path.name.endswith(".partial"):
                url = addresses.get(path.name)
                in_name = hash_in_name(url or "")
                snapshots.append(
                    RemoteSnapshot(
                        source="https" if url else "file",
                        name=url or path.name,
                        layout="torch-checkpoints",
                        files=(replace(self._one_file(path), sha256_prefix=in_name),),
                    )
                )
        kept = entries(self._roots.torch_home / "hub")
        linked = {os.path.realpath(folder) for folder in kept if folder.is_symlink()}
        for folder in kept:
            # Branches are links to the folders of commits, where bundler has put them.
            parts = re.fullmatch(r"([^_]+)_(.+)_([^_]+)", folder.name)
            if parts and (folder / HUBCONF).is_file() and str(folder) not in linked:
                try:
                    snapshots.append(self.code(f"{parts[1]}/{parts[2]}", parts[3]))
                except UnavailableError as error:
                    notes.append(f"left behind: {error}")
        for folder in entries(self._roots.insightface / "models"):
            if folder.is_dir():
                try:
                    snapshots.append(self.pack(folder.name))
                except UnavailableError as error:
                    notes.append(f"left behind: {error}")
        return snapshots, notes

    def _repositories(self) -> Iterator[tuple[str, str]]:
        """Kind and name of every repository that has a snapshot here."""
        for folder in entries(self._roots.hub):
            match = _REPOSITORY.fullmatch(folder.name)
            if match and any(entries(folder / "snapshots")):
                kind, name = match[1], repository_name(folder.name)
                with suppress(ValueError):  # Nobody finds it there but under such a name.
                    repository_folder(kind, name)
                    yield kind, name


def _copies(places: list[Path], file: RemoteFile, commit_hash: str | None) -> Iterator[Copy]:
    for place in places:
        inner = [f"blobs/{file.etag}", f"snapshots/{commit_hash}/{file.path}", file.path]
        for name in inner if commit_hash is None else inner[:2]:
            with suppress(OSError, ValueError, RequestError):
                copy = copy_at(str(place), name)
                if copy.size == file.size:
                    yield copy


def _commit(folder: Path, revision: str) -> str | None:
    """The commit that a revision stands for here."""
    if ".." not in revision.split("/"):
        with suppress(OSError, ValueError):
            commit_hash = (folder / "refs" / revision).read_text("ascii").strip()
            if SHA1.fullmatch(commit_hash) and (folder / "snapshots" / commit_hash).is_dir():
                return commit_hash
    found = [path.name for path in entries(folder / "snapshots")]
    found = [name for name in found if SHA1.fullmatch(name)]
    found = [name for name in found if len(revision) >= 7 and name.startswith(revision)]
    return found[0] if len(found) == 1 else None


def _revisions(folder: Path) -> set[str]:
    """What a repository can be asked for here: its refs, and commits that none of them names."""
    named = {ref: _commit(folder, ref) for ref in names_below(folder / "refs")}
    found = {p.name for p in entries(folder / "snapshots") if SHA1.fullmatch(p.name)}
    return {ref for ref, commit in named.items() if commit} | (found - {*named.values()})


def _file(folder: str, inner: str, listed: Mapping[str, Any]) -> RemoteFile:
    """A file of a snapshot, with what its blob's name or the list of files promises.

    Raises DamagedError for one that has another size than the list has, RequestError, OSError.
    """
    path = os.path.join(folder, inner)
    etag = etag_of(path, listed)
    digest = Digest(etag) if SHA256.fullmatch(etag) else None
    git_sha1 = etag if SHA1.fullmatch(etag) else None
    file = local_file(folder, inner, digest=digest, git_sha1=git_sha1, etag=etag or None)
    if listed and file.size != listed_size(listed):
        raise DamagedError(f"{path} has another size than the list of files has")
    return file


def _folder(folder: Path) -> tuple[RemoteFile, ...]:
    """The files below a folder, without what Python compiled there. Raises UnavailableError."""
    found = sorted(names_below(folder, without={PYTHON_CACHE}))
    try:
        return tuple(local_file(str(folder), name) for name in found)
    except (OSError, RequestError) as error:
        said = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
        raise UnavailableError(f"{folder} cannot be read as a whole ({said})") from None


def _known_addresses() -> Iterator[str]:
    """Every checkpoint whose address the catalogues know."""
    for model in catalogue("torchvision")["models"].values():
        yield from model["weights"].values()
    for repository in catalogue("torchhub")["repositories"].values():
        for urls in repository.values():
            yield from urls
    yield from catalogue("timm")["urls"].values()
