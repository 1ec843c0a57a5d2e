"""One file at one address: what `torch.hub.load_state_dict_from_url` downloads."""

from __future__ import annotations

from dataclasses import replace
from posixpath import basename
from urllib.parse import urlsplit, urlunsplit

from bundler.addresses import without_login
from bundler.digest import Digest
from bundler.download import file_at
from bundler.errors import RequestError, shown
from bundler.layouts.torch_hub import hash_in_name
from bundler.names import relative_path
from bundler.remote import RemoteSnapshot
from bundler.web import Web

LAYOUT = "torch-checkpoints"


def checkpoint(
    url: str, web: Web, *, digest: Digest | None = None, specs: tuple[str, ...] = ()
) -> RemoteSnapshot:
    """The file at `url`, kept where torch.hub looks for it: under the last part of the path.

    `digest`: what it must be. The hash in the names of PyTorch's own server is compared as well.
    Raises RequestError for an address that names no file, and UnavailableError.
    """
    try:
        parts = urlsplit(url)
        named = parts.hostname is not None and parts.port != 0
    except ValueError:
        named = False
    if not named:
        told = shown(without_login(_public(url)))
        raise RequestError(f"{told} is no address to pack: write https://host/file")
    name = basename(parts.path)
    try:
        relative_path(name)
    except ValueError:
        raise RequestError(
            f"{_public(url)} names no file: the address must end in one, as /model.pth does"
        ) from None
    pages = {"huggingface.co": "", "github.com": "torchhub:"}
    where = parts.path.strip("/")
    if parts.hostname in pages and where.count("/") == 1:
        meant = f"{pages[parts.hostname]}{where}"
        raise RequestError(f"{_public(url)} is a page, not a file: say {meant}")
    in_name = hash_in_name(url)
    if web.kept is not None:
        file, media_type = replace(web.kept.checkpoint(url, digest), sha256_prefix=in_name), ""
    else:
        file, media_type = file_at(url, web, digest, in_name)
    if media_type == "text/html" and not name.endswith((".htm", ".html")):
        raise RequestError(
            f"{_public(url)} is a page to look at, not a file: take the address of its download "
            "(on GitHub /raw/ instead of /blob/), or ORG/NAME for a model of the Hub"
        )
    return RemoteSnapshot(
        source=parts.scheme,
        name=_public(url),
        layout=LAYOUT,
        files=(file,),
        specs=specs,
    )


def _public(url: str) -> str:
    """`url` as it may be told to others: a query may hold a key, and a fragment is ours."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition("?")[0]
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
