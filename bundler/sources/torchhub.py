"""Repositories of torch.hub: a repository's code on GitHub, and the weights of its entries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from bundler.catalogues import nearest
from bundler.checkpoint import checkpoint
from bundler.digest import SHA1
from bundler.errors import RequestError, UnavailableError
from bundler.lookups import HubCode, torchhub_entries, torchhub_lookups
from bundler.remote import RemoteFile, RemoteSnapshot, Repositories
from bundler.web import Web, WebFile

if TYPE_CHECKING:  # As in `refusals`.
    import httpx2

_GITHUB = "https://github.com"
_COMMIT_HASH = re.compile(r"[0-9a-f]{7,40}")
_LONGEST_LIST = 64 << 20
"""Bytes of a list of branches and tags; the largest repositories have some hundred thousand."""


class TorchHub:
    """Specs `torchhub:owner/repo[:ref][#entry]`."""

    scheme = "torchhub"

    def resolve(self, rest: str, hub: Repositories, web: Web) -> Iterator[RemoteSnapshot]:
        lookup, weights = torchhub_lookups(rest)
        specs = (f"{self.scheme}:{rest}",)
        if web.kept is not None:
            code = web.kept.code(lookup.name, lookup.ref, specs)
        else:
            code = _archived(lookup.name, lookup.ref, web, specs)
        yield replace(code, notes=_notes(lookup))
        for found in weights:
            yield checkpoint(found.url, web, specs=specs)


def _archived(name: str, ref: str | None, web: Web, specs: tuple[str, ...]) -> RemoteSnapshot:
    """The code as GitHub packs it, at one commit. Raises UnavailableError."""
    ref, commit_hash = _pinned(name, ref, web)
    url = f"{_GITHUB}/{name}/zipball/{commit_hash}"
    path = f"{name.replace('/', '_')}.zip"
    return RemoteSnapshot(
        source=TorchHub.scheme,
        name=name,
        layout="torch-hub",
        files=(RemoteFile(path, WebFile(web, (url,), identity=url)),),
        revision=ref,
        commit_hash=commit_hash if len(commit_hash) == 40 else None,
        specs=specs,
        inside=_inside,
    )


def _notes(lookup: HubCode) -> tuple[str, ...]:
    """What there is to say where no weights are known."""
    entries = torchhub_entries(lookup.name)
    if lookup.entry in entries:
        return ()
    if entries:
        advice = f"add #ENTRY for its weights, one of {', '.join(sorted(entries))}"
    else:
        advice = (
            "what its hubconf.py downloads is not known here; pack those addresses too, "
            "as https://host/file.pth"
        )
    return (f"{lookup.name}: the code alone, without weights; {advice}",)


def _pinned(name: str, ref: str | None, web: Web) -> tuple[str, str]:
    """The branch, tag or commit that torch.hub would take, and the commit it stands for.

    Without `ref` that is `main`, or `master` where there is no `main`: torch/hub.py,
    `_parse_repo_info`. Raises UnavailableError.
    """
    refs = _refs(name, web)
    wanted = ("main", "master") if ref is None else (ref,)
    for name_of_ref in wanted:
        for full in (f"refs/heads/{name_of_ref}", f"refs/tags/{name_of_ref}"):
            if full in refs:
                return name_of_ref, refs[full]
    if ref is not None and _COMMIT_HASH.fullmatch(ref):
        return ref, ref
    if ref in torchhub_entries(name):
        raise RequestError(f"{ref} is an entry of {name}, not a branch: write {name}#{ref}")
    known = [
        full.split("/", 2)[2] for full in refs if full.startswith(("refs/heads/", "refs/tags/"))
    ]
    if ref is None:
        raise UnavailableError(
            f"{name} has no branch main or master, which torch.hub takes by default: "
            f"write {name}:REF with one of {', '.join(known[:5])}"
        )
    raise UnavailableError(f"{name} has no branch, tag or commit {ref}: {nearest(ref, known)}")


def _refs(name: str, web: Web) -> dict[str, str]:
    """Every ref of a repository and its commit, as git itself asks for them.

    git-scm.com, gitprotocol-http and gitprotocol-pack: lines led by their length in four hex
    digits, `<id> <ref>`; an annotated tag is followed by the commit it stands for, `<ref>^{}`.
    """

    def explain(response: httpx2.Response) -> UnavailableError | None:
        # GitHub asks for a login where there is nothing to be seen.
        if response.status_code in (401, 403, 404):
            return UnavailableError(f"GitHub has no open repository {name}: check the spelling")
        return None

    url = f"{_GITHUB}/{name}.git/info/refs?service=git-upload-pack"
    return web.read((url,), _LONGEST_LIST, _parsed_refs, explain)


def _parsed_refs(content: bytes, _: object) -> dict[str, str]:
    """Raises ValueError for what is no list of branches."""
    refs = {}
    start = 0
    while start < len(content):
        length = int(content[start : start + 4], 16)
        line = content[start + 4 : start + length]
        start += max(length, 4)
        commit_hash, _, ref = line.partition(b"\0")[0].strip().decode().partition(" ")
        if SHA1.fullmatch(commit_hash):
            refs[ref.removesuffix("^{}")] = commit_hash
    if not refs:
        raise ValueError("no branches")
    return refs


def _inside(member: str) -> str | None:
    """GitHub puts one folder, `owner-repo-commit`, around everything."""
    return member.partition("/")[2] or None
