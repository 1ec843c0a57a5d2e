"""A bundle in several files, wherever they are, as one stream: read in place, never joined."""

from __future__ import annotations

import errno
import hashlib
import io
import os
from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.digest import COPY_SIZE, Digest, digest_of
from bundler.errors import BundlerError, DamagedError, RequestError, UnavailableError
from bundler.volume_files import VolumeFiles
from bundler.volume_list import volume_name

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Ask = Callable[[str], bool]
"""Asks whoever watches to do something, and waits; whether it is said to be done."""

_READ_AHEAD = 256 << 20
"""Bytes, of which threads may have read before one of them finds that something is wrong."""


class Volumes(io.RawIOBase):
    """The bytes of all volumes of one bundle, one after the other; one file is open at a time.

    So the stick that it is on can be exchanged when another one is asked for.
    """

    def __init__(
        self,
        files: VolumeFiles,
        *,
        ask: Ask | None = None,
        hashed: bool = False,
        whole: bool = True,
    ) -> None:
        """Look whether all are here; those that are not are asked for when they are needed.

        `hashed`: each byte is hashed as it is read, for `faults`. `whole`: False if all but the
        first may be lost, which are then those parts that cannot be read. Raises UnavailableError
        if another volume is missing and nobody can be asked, and as `VolumeFiles.path` does.
        """
        self._files = files
        self._ask = ask
        self._whole = whole
        here = files.numbers()
        self._listed = files.list.volumes if files.list else ()
        count = len(self._listed) or max(here, default=-1) + 1
        for number in here:
            files.path(number)
        missing = sorted(set(range(count)) - set(here))
        self._lost = set() if ask and self._listed else set(missing)
        """Those that are missing and will not come."""
        if self._lost and (whole or 0 in self._lost):
            raise self._missing(missing)
        if missing and not self._listed:
            count = missing[0]  # What follows a volume of unknown size could be anywhere.
        self._found_sizes: dict[int, int] = {}
        self._sizes = [v.size for v in self._listed] or [*map(self._size, range(count))]
        self._offsets = list(accumulate(self._sizes, initial=0))
        self._position = 0
        self._file: io.FileIO | None = None
        self._number = 0
        """Of the volume that was read last."""
        self._hashes = [hashlib.sha256() for _ in self._listed] if hashed else []
        self._hashed = [0 for _ in self._listed]
        """How many bytes, from its first, each hash is of."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._offsets[-1]}
        self._position = start[whence] + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the start of `buffer`, up to the end of a volume.

        Raises OSError, also if a volume is lost that may be, else UnavailableError.
        """
        view = memoryview(buffer).cast("B")
        number = bisect_right(self._offsets, self._position) - 1
        if number == len(self._sizes):
            return 0
        file = self._opened(number)
        begin = self._position - self._offsets[number]
        file.seek(begin)
        count = file.readinto(view[: self._sizes[number] - begin]) or 0
        if self._hashes and begin <= self._hashed[number] < begin + count:
            self._hashes[number].update(view[self._hashed[number] - begin : count])
            self._hashed[number] = begin + count
        self._position += count
        return count

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None
        super().close()

    def check_sizes(self) -> None:
        """Raise DamagedError if one of the volumes that are here has not the size in the list."""
        for number in self._files.numbers():
            if number < len(self._listed) and (fault := self._wrong_size(number)):
                raise fault

    def faults(self) -> dict[str, BundlerError]:
        """What is wrong with which volumes by themselves; reads of all what was not read yet."""
        faults = {n: self._fault(n) for n in {*range(len(self._listed)), *self._lost}}
        return {volume_name(self._files.base, n): e for n, e in sorted(faults.items()) if e}

    def explained(self, error: BundlerError) -> BundlerError:
        """`error`, or what is wrong with those of the volumes read last that are still here."""
        if not self._listed:
            return error
        self._hashes = self._hashes or [hashlib.sha256() for _ in self._listed]
        start = self._position - _READ_AHEAD
        last = [n for n in range(self._number + 1) if self._offsets[n + 1] > start]
        try:
            self._files.look_again()
            return next(filter(None, map(self._fault, filter(self._files.path, last))), error)
        except BundlerError as another:
            return another

    def _fault(self, number: int) -> BundlerError | None:
        words = self._files.words([number])
        try:
            if number in self._lost:
                raise _lost(words)
            if fault := self._wrong_size(number):
                return fault
            size = self._sizes[number]
            while self._hashed[number] < size:
                file = self._opened(number)
                file.seek(self._hashed[number])
                data = file.read(min(COPY_SIZE, size - self._hashed[number]))
                if not data:
                    return DamagedError(f"{words} became shorter while it was read")
                self._hashes[number].update(data)
                self._hashed[number] += len(data)
        except OSError as error:
            if number in self._lost:
                return UnavailableError(error.strerror)
            return DamagedError(f"{words} cannot be read ({error.strerror}): copy only it again")
        found = Digest(self._hashes[number].hexdigest())
        if found == self._listed[number].digest:
            return None
        mixed_up = self._mixed_up(number, found)
        return mixed_up or DamagedError(f"{words} is damaged: copy only that one again")

    def _wrong_size(self, number: int) -> DamagedError | None:
        size, listed = self._size(number), self._sizes[number]
        if size == listed:
            return None
        if size in self._sizes:
            file = self._opened(number)
            file.seek(0)
            with suppress(OSError):
                if mixed_up := self._mixed_up(number, digest_of(file, lambda _: None)):
                    return mixed_up
        is_wrong = f"ends after {size:,} of" if size < listed else f"has {size:,} and not"
        words = self._files.words([number])
        return DamagedError(f"{words} {is_wrong} {listed:,} bytes: copy only that one again")

    def _mixed_up(self, number: int, found: Digest) -> DamagedError | None:
        for other, volume in enumerate(self._listed):
            if volume.digest == found:
                return DamagedError(
                    f"{self._files.words([number])} is really volume {other + 1}: "
                    "volumes are mixed up, copy them again under their own names"
                )
        return None

    def without_manifest(self, error: BundlerError) -> BundlerError:
        """What to say if the manifest cannot be read: what is lost, or `error`."""
        return self._missing(sorted(self._lost)) if self._lost else error

    def _missing(self, numbers: list[int]) -> UnavailableError:
        missing = f"{self._files.words(numbers)} {'are' if len(numbers) > 1 else 'is'} missing"
        if not self._whole:
            first = "it" if len(numbers) == 1 else "the first"
            missing += f", and the manifest, of which {first} has some, is not whole"
        return UnavailableError(f"{missing}: name the folders of all volumes")

    def _size(self, number: int) -> int:
        """Of the file of a volume that is here, or was."""
        if number not in self._found_sizes:
            self._found_sizes[number] = os.path.getsize(self._path(number))
        return self._found_sizes[number]

    def _opened(self, number: int) -> io.FileIO:
        if self._file is not None and self._number == number:
            return self._file
        if self._file is not None:
            self._file.close()  # Or its stick could not be taken out.
            self._file = None
        self._number = number
        path = self._path(number)
        self._size(number)
        try:
            self._file = io.FileIO(path)
        except OSError as error:
            raise RequestError(f"cannot open {path}: {error.strerror}") from None
        return self._file

    def _path(self, number: int) -> Path:
        """The file of a volume, when it is here; raises as `readinto` does if it does not come."""
        key = "Enter" if self._whole else "Enter, or Ctrl-D if it is lost"
        while (path := self._files.path(number)) is None:
            words = self._files.words([number])
            request = f"insert the stick with {words}, and press {key}"
            if number in self._lost or not (self._ask and self._ask(request)):
                if self._whole:
                    raise self._missing([number])
                self._lost.add(number)
                raise _lost(words)
            self._files.look_again()
        return path


def _lost(volume: str) -> OSError:
    return OSError(errno.ENOENT, f"{volume} is missing")
