"""Where a bundle goes: to a file, in volumes beside it, into the folder of a stick, or a stream."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from bundler.digest import Blob, Digest
from bundler.direct_io import DirectWriter
from bundler.errors import RequestError, TargetError, amount
from bundler.file_limit import check_file
from bundler.frame_writer import Output
from bundler.manifest import Manifest
from bundler.parity import remove_parity
from bundler.permission import told
from bundler.planning import PackPlan
from bundler.progress import Progress
from bundler.remote import RemoteSnapshot
from bundler.space import free_space, same_disk
from bundler.split_size import SplitSize, check_count, check_split
from bundler.splitting import remove_volume_drafts, split_file
from bundler.stick import bundle_name, free_place, read_back
from bundler.trust import signature_path
from bundler.whole_file import whole_file

_SMALLEST_SHARE = 0.5
"""Of their size, what models can be expected to take in a bundle at the least: weights compress to
0.78 of it or more, and little else counts."""


class Destination:
    """The `output` of `pack`: a path, a folder that is there, or a binary stream."""

    def __init__(
        self, output: Path | str | BinaryIO, split_size: SplitSize | None, progress: Progress
    ) -> None:
        """Raises RequestError or TargetError if nothing can be written there."""
        self._output = output
        self._progress = progress
        self.split_size = split_size
        self.stick: Path | None = None
        """The folder, if it is one: the bundle in it gets a name, and is read back."""
        if isinstance(output, (str, Path)):
            _check(output, split_size)
            self.stick = Path(output) if os.path.isdir(output) else None
        elif split_size is not None:
            raise RequestError("a stream cannot be split: name a file")
        self.path = None if self.stick else _replaced(output)
        """Where a whole file replaces what is there; None for a stream, a pipe or a device."""

    @property
    def takes_back(self) -> bool:
        """Whether what was written to it can be written over, before anybody reads it."""
        return self.path is not None and self.split_size is None

    def require_signature_path(self) -> None:
        """Raise RequestError or TargetError if a signature cannot be beside the bundle."""
        if self.stick is None:
            self.signature_path(self._output)

    def require_parity_path(self) -> None:
        """Raise RequestError if parity files cannot be beside the bundle."""
        if self.stick is None and self.path is None:
            raise RequestError(
                "parity files go beside a file: name one for the bundle with --output"
            )

    @staticmethod
    def signature_path(output: Path | str | BinaryIO | None) -> Path:
        """Where the signature of a bundle there will be. Raises as `require_signature_path`."""
        path = Path(output) if isinstance(output, (str, Path)) else None
        if path is None or (path.exists() and not path.is_file()):
            raise RequestError(
                "a signature goes beside a file: name one for the bundle with --output"
            )
        signature = signature_path(path)
        if signature.is_dir():
            raise TargetError(
                f"{signature} is a folder, and the signature goes there: move it away"
            )
        return signature

    def expect(self, plan: PackPlan, store: Path, parity: int) -> None:
        """Choose a name in a folder, and refuse what is sure not to fit; nothing is written.

        `store`: where downloads go. `parity`: as in `pack`, or 0. Raises as the constructor does.
        """
        self._name_after(plan.snapshots)
        self._check_space(plan, store, parity)

    def _name_after(self, models: Iterable[RemoteSnapshot]) -> None:
        """In a folder, choose a name and be ready to split."""
        if self.stick is None:
            return
        self.path = self.stick / bundle_name(models)
        if self.split_size is not None:
            with told(self.path, "--output"):
                check_split(self.path, self.split_size)
        self.split_size = self.split_size or "auto"

    def _check_space(self, plan: PackPlan, store: Path, parity: int) -> None:
        """Refuse what is sure not to fit.

        What is still to be downloaded takes of the same space if the store is on the same disk.
        """
        if self.path is None:
            return
        folder = self.path.parent
        needed = int(plan.size * _SMALLEST_SHARE)
        if self.split_size is None:
            with told(self.path, "--output"):
                check_file(folder, needed)
        else:
            check_count(needed, self.split_size)
        needed += needed * parity // 100
        share = plan.missing_size if same_disk(folder, store) else 0
        free = free_space(folder)
        if needed + share > free:
            also = f", beside {amount(share)} of downloads," if share else ""
            raise TargetError(
                f"{folder} has {amount(free)} free, and a bundle of at least {amount(needed)}"
                f"{also} is to go there: free some space, or name another place with --output"
            )

    def look_again(self, files: Sequence[tuple[Path, Blob]]) -> None:
        """Compare files that were written to a stick with what they should be.

        Raises DamagedError, and OSError.
        """
        if self.stick is not None:
            read_back(files, self._progress)

    @contextmanager
    def opened(self, manifest: Manifest) -> Iterator[tuple[Output, Path | None]]:
        """For writing the bundle of `manifest`, and the path that it will have, if any.

        At a path, a whole bundle appears at the end, or nothing. Raises TargetError.
        """
        with ExitStack() as stack:
            if not isinstance(self._output, (str, Path)):
                stack.enter_context(told(Path("the output"), "--output"))
                yield self._output, None
                self._output.flush()
                return
            named = Path(self._output)
            if self.split_size is not None:
                bundle = Digest.of(manifest.to_bytes())
                if self.stick is not None and self.path is not None:
                    named = free_place(self.path, bundle)
                path = Path(os.path.realpath(named))
                stack.enter_context(told(path, "--output"))
                split = split_file(path, self.split_size, bundle, self.look_again)
                yield stack.enter_context(split), named
                remove_parity(path)  # Before the bundle that it is of is replaced.
                return
            whole = _replaced(named)
            stack.enter_context(told(whole or named, "--output"))
            if whole is None:
                yield stack.enter_context(open(named, "wb")), named
                return
            with whole_file(whole) as file:
                remove_volume_drafts(whole)
                direct = DirectWriter(file.fileno())
                yield direct, named
                direct.finish()
                remove_parity(whole)


def _replaced(output: Path | str | BinaryIO) -> Path | None:
    if not isinstance(output, (str, Path)):
        return None
    # Where a link leads to, as with any program that writes a file.
    path = Path(os.path.realpath(output))
    return None if path.exists() and not path.is_file() else path


def _check(output: Path | str, split_size: SplitSize | None) -> None:
    """Refuse, before anything is downloaded, an output that cannot be written."""
    if not str(output):  # As a path it would be the folder one is in.
        raise RequestError("--output is empty: name a file, or the folder of a stick")
    path = Path(output)
    names_folder = path.is_dir() or str(output).endswith("/")
    folder = path if names_folder else path.parent
    if not folder.is_dir():
        raise TargetError(f"the folder {folder} does not exist: make it, or change --output")
    if not os.access(folder, os.W_OK):
        raise TargetError(f"not allowed to write to {folder}: change --output")
    if split_size is not None and not names_folder:
        with told(path, "--output"):
            check_split(Path(os.path.realpath(path)), split_size)
