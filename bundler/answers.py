"""A good answer of a server: what it says of the content, and the content."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bundler.digest import COPY_SIZE
from bundler.errors import DamagedError, UnavailableError
from bundler.patience import TransientError
from bundler.refusals import changed, reason

if TYPE_CHECKING:  # As in `refusals`.
    import httpx2

LARGEST_FILE = 1 << 44
"""Bytes: 16 TiB, as much as ext4 takes in one file."""


class WrongSizeError(DamagedError):
    """The server announces another size than the content has; none of it was taken."""


@dataclass(frozen=True, slots=True)
class Heading:
    """What a server says of a file: `size` in bytes, and `mark`, which changes with the content."""

    size: int | None
    mark: str
    media_type: str

    @classmethod
    def of(cls, response: httpx2.Response) -> Heading:
        """Raises UnavailableError for a size that no file has."""
        media_type = response.headers.get("Content-Type", "").partition(";")[0]
        return cls(_size(response), _mark(response), media_type.strip().lower())


def check_same(response: httpx2.Response, mark: str, size: int | None) -> None:
    """Raise DamagedError if the content is not the one known by `mark` and `size`, as far as known.

    Raises UnavailableError for a size that no file has.
    """
    if mark and _mark(response) != mark:
        raise changed(response)
    said = _size(response)
    if size is not None and said not in (None, size):
        raise WrongSizeError(
            f"{response.url.host} announces {said:,} bytes for {response.url.path}, which has "
            f"{size:,}: something on the way alters it; try another network or mirror"
        )


class Body:
    """The body of a response: bytes are given out as they arrive, so that none is lost."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        encoded = _is_encoded(response)
        self._chunks = response.iter_bytes() if encoded else response.iter_raw()
        self._rest = b""

    @classmethod
    def at(cls, response: httpx2.Response, start: int) -> Body:
        """The content from byte `start` on, at which the answer begins if it is a part.

        Raises TransientError if it begins elsewhere, or breaks off before.
        """
        body = cls(response)
        if response.status_code != 206:
            body._skip(start)
        elif _is_encoded(response) or not _range(response).startswith(f"bytes {start}-"):
            raise TransientError(
                f"{response.url.host} sent another part of the file than was asked for"
            )
        return body

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; none at the end. Raises TransientError if the connection breaks."""
        import httpx2  # It is there: whoever has a response has a client.

        try:
            while not self._rest:
                self._rest = next(self._chunks)
        except StopIteration:
            return b""
        except httpx2.HTTPError as error:
            host = self._response.url.host
            raise TransientError(f"{host} broke off: {reason(error)}") from None
        size = len(self._rest) if size < 0 else size
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def close(self) -> None:
        self._response.close()

    def _skip(self, size: int) -> None:
        while size and (data := self.read(min(size, COPY_SIZE))):
            size -= len(data)


def _mark(response: httpx2.Response) -> str:
    return response.headers.get("ETag", "") or response.headers.get("Last-Modified", "")


def _range(response: httpx2.Response) -> str:
    return response.headers.get("Content-Range", "")


def _is_encoded(response: httpx2.Response) -> bool:
    return response.headers.get("Content-Encoding", "identity") != "identity"


def _size(response: httpx2.Response) -> int | None:
    """The size of the whole content in bytes, if the answer says it."""
    if response.status_code == 206:
        said = _range(response).rpartition("/")[2]
    elif _is_encoded(response):
        return None
    else:
        said = response.headers.get("Content-Length", "")
    size = int(said) if re.fullmatch(r"[0-9]{1,18}", said) else None
    if size is not None and size > LARGEST_FILE:
        raise UnavailableError(f"{response.url.host} announces {size:,} bytes, which no disk holds")
    return size
