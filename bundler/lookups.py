"""What a program looks for when it loads what a spec names.

Sources resolve it upstream; `check` looks for it on this machine. The rules by which short names
become those of repositories and files are the libraries' own, as the catalogues have them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from posixpath import basename

from bundler.catalogues import catalogue, nearest
from bundler.digest import Digest
from bundler.errors import RequestError
from bundler.spec import Spec, name_and_revision, unknown_scheme

_TORCHHUB = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*/[\w.-]+)(?:[:@](?P<ref>[^#\s]+))?(?:#(?P<entry>\w+))?", re.ASCII
)
_LOGIN = re.compile(r"https?://[^/?#]*@")


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository of the Hub. `library`: which one loads it, if the spec tells."""

    kind: str
    name: str
    revision: str | None = None
    library: str | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A file at an address, which torch.hub keeps by the last part of it."""

    url: str
    digest: Digest | None = None

    @property
    def file_name(self) -> str:
        """What the file is called."""
        return basename(self.url.partition("?")[0])


@dataclass(frozen=True, slots=True)
class HubCode:
    """The code of a repository of torch.hub; without `ref`, its branch main or else master.

    `entry` is a name in its hubconf.py.
    """

    name: str
    ref: str | None
    entry: str | None = None


@dataclass(frozen=True, slots=True)
class FacePack:
    """A pack of insightface."""

    name: str


@dataclass(frozen=True, slots=True)
class PlainPath:
    """A folder or a file that a program names by its path."""

    path: str


Lookup = Repository | Checkpoint | HubCode | FacePack | PlainPath


def lookups(spec: Spec) -> tuple[Lookup, ...]:
    """All that a program looks for. Raises RequestError for what is no spec of its kind."""
    if spec.scheme not in _KINDS:
        raise unknown_scheme(spec, _KINDS)
    return tuple(_KINDS[spec.scheme](spec.rest))


def _repository(kind: str, rest: str) -> Iterator[Lookup]:
    yield Repository(kind, *name_and_revision(rest))


def sentence_transformers_lookup(rest: str) -> Repository:
    """What sentence-transformers looks for: its own organisation's, if the name has none.

    Raises RequestError.
    """
    name, revision = name_and_revision(rest)
    full = name if "/" in name else f"sentence-transformers/{name}"
    return Repository("model", full, revision, "sentence-transformers")


def timm_lookup(rest: str, place: str | None = None) -> Repository | Checkpoint:
    """What timm looks for under a name, perhaps `name@revision`.

    `place`: where its weights are, a Hub id or an address, by default as the catalogue has it.
    Raises RequestError.
    """
    name, revision = name_and_revision(rest)
    place = place or _timm_place(name)
    if not place.startswith("https://"):
        return Repository("model", place, revision, "timm")
    if revision is not None:
        raise RequestError(f"{name} is one file at an address, which has no revisions")
    return Checkpoint(place)


def _timm_place(name: str) -> str:
    known = catalogue("timm")
    name = known["renamed"].get(name, name)
    architecture, _, tag = name.partition(".")
    tags = known["architectures"].get(architecture, [])
    if tags and not tag:
        tag = tags[0]
    if tag in tags:
        full = f"{architecture}.{tag}" if tag else architecture
        url: str | None = known["urls"].get(full)
        return url or str(known["hub"].get(full, f"timm/{full}"))
    if tags:
        others = [f"{architecture}.{tag}" for tag in tags]
        raise RequestError(f"timm has no weights {name}: {nearest(name, others)}")
    raise RequestError(f"timm has no model {name}: {nearest(name, known['architectures'])}")


def torchvision_lookups(rest: str) -> Iterator[Checkpoint]:
    """All checkpoints that a constructor may load, or those of the weights that are named.

    Without weights named: those of `pretrained=True` and of `weights="DEFAULT"`, and the backbone
    that the constructor loads when it is given no weights of its own. A quantized model's
    constructor takes those of the plain one too, unless it is told `quantize=True`. Raises
    RequestError.
    """
    name, at, weights = rest.partition("@")
    models = catalogue("torchvision")["models"]
    if name not in models:
        raise RequestError(f"torchvision has no weights for {name}: {nearest(name, models)}")
    model = models[name]
    named: dict[str, str] = model["weights"]
    if not at:
        urls = [*model.get("pretrained", ()), named[model["default"]]]
        plain = models.get(name.removeprefix("quantized_"), model)
        urls.append(plain["weights"][plain["default"]])
        if "backbone" in model:
            urls.append(model["backbone"])
    elif weights in named:
        urls = [named[weights]]
    elif weights == "DEFAULT":
        urls = [named[model["default"]]]
    else:
        raise RequestError(
            f"torchvision has no weights {weights} for {name}, only DEFAULT, {', '.join(named)}"
        )
    yield from map(Checkpoint, dict.fromkeys(urls))


def torchhub_lookups(rest: str) -> tuple[HubCode, list[Checkpoint]]:
    """The code, and the weights of the entry that is named. Raises RequestError."""
    match = _TORCHHUB.fullmatch(rest)
    if match is None:
        raise RequestError(f"{rest!r} is not of the form owner/repo, owner/repo:ref#entry")
    name, entry = match["name"], match["entry"]
    entries = torchhub_entries(name)
    if entries and entry is not None and entry not in entries:
        raise RequestError(f"{name} has no entry {entry}: {nearest(entry, entries)}")
    weights = [] if entry is None else entries.get(entry, [])
    return HubCode(name, match["ref"], entry), [*map(Checkpoint, weights)]


def torchhub_entries(name: str) -> dict[str, list[str]]:
    """The entries of a repository of torch.hub, and the addresses of each one's weights."""
    repositories = catalogue("torchhub")["repositories"].items()
    # GitHub minds no letter case, though torch.hub's folders do.
    by_name: dict[str, dict[str, list[str]]] = {
        known.lower(): found for known, found in repositories
    }
    return by_name.get(name.lower(), {})


def url_lookup(address: str) -> Checkpoint:
    """A file at an address, which may end in `#sha256=…`.

    Raises RequestError, also for a password: it would stand in lists of processes and in messages.
    """
    if _LOGIN.match(address):
        raise RequestError(
            "an address holds no password: write https://host/file, without user or password"
        )
    url, _, said = address.partition("#")
    if not said:
        return Checkpoint(url)
    try:
        return Checkpoint(url, Digest.parse(said.replace("sha256=", "sha256:", 1)))
    except ValueError as error:
        raise RequestError(f"what stands behind # is no sha256=…: {error}") from None


def _torchhub(rest: str) -> Iterator[Lookup]:
    code, weights = torchhub_lookups(rest)
    yield code
    yield from weights


_KINDS: dict[str, Callable[[str], Iterable[Lookup]]] = {
    "hf": partial(_repository, "model"),
    "dataset": partial(_repository, "dataset"),
    "space": partial(_repository, "space"),
    "timm": lambda rest: [timm_lookup(rest)],
    "sentence-transformers": lambda rest: [sentence_transformers_lookup(rest)],
    "torchvision": torchvision_lookups,
    "torchhub": _torchhub,
    "insightface": lambda rest: [FacePack(rest)],
    "https": lambda rest: [url_lookup(f"https:{rest}")],
    "http": lambda rest: [url_lookup(f"http:{rest}")],
    "file": lambda rest: [PlainPath(rest)],
}
