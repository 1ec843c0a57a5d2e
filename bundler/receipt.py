"""What an unpack installed, kept on the target: so that later runs need not read it all again.

And so that it can be verified and taken out again, model by model.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from bundler.digest import Blob, Digest
from bundler.disk import start_of
from bundler.errors import TargetError
from bundler.folders import Folders
from bundler.lock import drop_lock, is_still, take_lock
from bundler.manifest import Snapshot
from bundler.names import MAX_DEPTH, relative_path
from bundler.new_folder import remove_empty
from bundler.permission import told
from bundler.progress import Progress, Silent
from bundler.relative import RelativePath
from bundler.sharing import SHARED_FROM
from bundler.spec import spec_of
from bundler.whole_file import write_text

_VERSION = 2
_LARGEST = 512 << 20
"""Bytes of a receipt that is read: about a million files."""
_DEEPEST = 2 * MAX_DEPTH
"""Components of a path: a name, in the layout `flat`, and a path below it."""
_MOMENT = 1
"""Seconds that receipts may be waited for before it is told: they are small, and soon written."""
Place = tuple[str, RelativePath]
"""A root, by what `Roots.kept_as` gives, and a path below it."""
Key = tuple[str | None, ...]
"""What `key_of` gives."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class InstalledFile:
    """One file that stands as the bundle says. `root` is what `Roots.kept_as` gives."""

    root: str
    path: RelativePath
    blob: Blob
    mtime_ns: int
    """The file's time of change when it was known to hold the blob: another one means doubt."""
    found: bool
    """It stood there before bundler came."""

    @property
    def place(self) -> Place:
        """Where it stands."""
        return self.root, self.path


@dataclass(frozen=True, slots=True)
class InstalledPointer:
    """A link or a small text, by which files are found."""

    root: str
    path: RelativePath
    text: str | None
    """What it says; None where others may say something in it too."""
    before: str | None = None
    """What it said before bundler came; None if it was not there."""
    pending: bool = False
    """It was still to be moved when this was noted: whoever was killed then may have done it."""

    @property
    def place(self) -> Place:
        """Where it stands."""
        return self.root, self.path


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """One snapshot that was installed, as a manifest names it, and what stands for it where.

    A file may be in the lists of several models. `size` is in bytes, as of the snapshot.
    """

    source: str
    name: str
    layout: str
    kind: str | None
    aliases: tuple[str, ...]
    specs: tuple[str, ...]
    needs: tuple[str, ...]
    revision: str | None
    commit_hash: str | None
    size: int
    files: tuple[InstalledFile, ...] = ()
    links: tuple[InstalledPointer, ...] = ()
    texts: tuple[InstalledPointer, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that it answers to, the one asked for first."""
        return (self.name, *self.aliases)

    @property
    def spec(self) -> str:
        """The words that mean it."""
        return spec_of(self.source, self.name, self.revision)

    @property
    def is_pending(self) -> bool:
        """Whether it is not known of some ref or branch that it has been moved."""
        return any(pointer.pending for pointer in (*self.links, *self.texts))

    @property
    def places(self) -> Iterator[Place]:
        """All that stands for it."""
        yield from (file.place for file in self.files)
        yield from (pointer.place for pointer in (*self.links, *self.texts))

    def may_be_edited(self, file: InstalledFile) -> bool:
        """Whether a file of this model is there to be edited: a small one of a plain folder."""
        is_plain = file.root.startswith("/") and self.layout != "insightface"
        return is_plain and file.blob.size < SHARED_FROM

    def merged(self, earlier: InstalledModel | None) -> InstalledModel:
        """The same with what an earlier unpack of it put elsewhere."""
        if earlier is None:
            return self
        files = {file.place: file for file in (*earlier.files, *self.files)}
        links = {link.place: link for link in (*earlier.links, *self.links)}
        texts = {text.place: text for text in (*earlier.texts, *self.texts)}
        return replace(
            self,
            files=tuple(files.values()),
            links=tuple(links.values()),
            texts=tuple(texts.values()),
        )


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was installed of one bundle."""

    bundle: Digest
    models: tuple[InstalledModel, ...]

    def merged(self, earlier: Receipt | None) -> Receipt:
        """This receipt and what an earlier unpack of the same bundle installed."""
        models = {} if earlier is None else {key_of(model): model for model in earlier.models}
        for model in self.models:
            models[key_of(model)] = model.merged(models.get(key_of(model)))
        return Receipt(self.bundle, tuple(models.values()))


def key_of(model: InstalledModel | Snapshot) -> Key:
    """What tells a model from the others of its bundle."""
    return (
        model.source, model.kind, model.name, model.revision, model.commit_hash, model.layout
    )  # fmt: skip


_FOLDER = RelativePath(".bundler/receipts")


def receipt_folder(hf_home: Path) -> Path:
    """Where receipts are kept."""
    return hf_home / _FOLDER


def receipt_path(hf_home: Path, bundle: Digest) -> Path:
    """Where the receipt of `bundle` is kept."""
    return receipt_folder(hf_home) / f"{bundle.hex}.json"


def read_receipts(hf_home: Path, *, all_of_them: bool = False) -> Iterator[Receipt]:
    """Every receipt below `hf_home`; what is none counts as absent.

    So does that of another user which this one may not read, but if `all_of_them` are needed.
    Raises TargetError.
    """
    try:
        with _opened(hf_home) as folder:
            if folder is None:
                return
            for name in sorted(os.listdir(folder)):
                path = receipt_folder(hf_home) / name
                receipt = _read(path, folder, all_of_them) if path.suffix == ".json" else None
                # One that was copied to another name is not to count twice.
                if receipt is not None and receipt.bundle.hex == path.stem:
                    yield receipt
    except OSError as error:
        place = receipt_folder(hf_home) / (error.filename or "")
        raise TargetError(
            f"cannot read {place}: {error.strerror}; whose it is can open it by chmod a+r"
        ) from None


@contextmanager
def _opened(hf_home: Path) -> Iterator[int | None]:
    """A handle of the folder of receipts, to read it; None if there is none.

    Raises OSError, and TargetError if a link or a file is in its place: a link may lead to anybody.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with ExitStack() as stack:
        handle = None
        for place in (receipt_folder(hf_home).parent, receipt_folder(hf_home)):
            try:
                handle = os.open(place if handle is None else place.name, flags, dir_fd=handle)
            except FileNotFoundError:
                handle = None
                break
            except NotADirectoryError:
                blocked = place if os.path.lexists(place) else hf_home
                raise TargetError(
                    f"{blocked} is a link or a file where a folder belongs: move it away"
                ) from None
            stack.callback(os.close, handle)
        yield handle


def _read(path: Path, folder: int, must_read: bool = True) -> Receipt | None:
    """The receipt at `path`, in the folder with this handle; a link is none."""
    try:
        return _from_json(start_of(path, _LARGEST, folder).decode())
    except UnicodeDecodeError:
        pass
    except PermissionError:
        if must_read:
            raise
    except OSError as error:
        # No file, whatever it is.
        if error.errno not in (errno.EINVAL, errno.ENXIO, errno.EISDIR, errno.ELOOP, errno.ENOENT):
            raise
    return None


def write_receipt(hf_home: Path, receipt: Receipt, progress: Progress | None = None) -> None:
    """Keep `receipt`, merged with an earlier one of the same bundle. Raises TargetError.

    Waits while another process writes receipts, and tells `progress` so.
    """
    with _changed(hf_home, receipt.bundle, progress or Silent()) as (path, folder, earlier):
        write_text(path, _to_json(receipt.merged(earlier)), "--root", folder)


def drop_models(
    hf_home: Path, bundle: Digest, keys: set[Key], progress: Progress | None = None
) -> None:
    """Take the models with these keys out of the receipt of `bundle`; an empty one goes.

    Raises TargetError, and waits as `write_receipt` does.
    """
    with _changed(hf_home, bundle, progress or Silent()) as (path, folder, receipt):
        left = tuple(m for m in receipt.models if key_of(m) not in keys) if receipt else ()
        if left:
            write_text(path, _to_json(Receipt(bundle, left)), "--root", folder)
        else:
            with suppress(FileNotFoundError):
                os.unlink(path.name, dir_fd=folder)
    remove_empty_folder(hf_home)


def remove_empty_folder(hf_home: Path) -> None:
    """Remove the folder of receipts if it has none, and what killed writes left in it.

    One that another process is writing to is left alone.
    """
    with suppress(OSError, TargetError), _opened(hf_home) as folder:
        if folder is not None:
            take_lock(folder)  # Given back when it is closed.
            names = os.listdir(folder)
            if all(name.endswith(".json.bundler-part") for name in names):
                for name in names:
                    os.unlink(name, dir_fd=folder)
                os.rmdir(receipt_folder(hf_home))
        os.rmdir(receipt_folder(hf_home).parent)


@contextmanager
def _changed(
    hf_home: Path, bundle: Digest, progress: Progress
) -> Iterator[tuple[Path, int, Receipt | None]]:
    """Where the receipt of `bundle` is, a handle of its folder, and what it is.

    No other process changes any meanwhile.
    """
    path = receipt_path(hf_home, bundle)
    with told(path.parent, "--root"):
        try:
            with _locked(hf_home, progress) as folder:
                yield path, folder, _read(path, folder)
        except BlockingIOError:
            raise TargetError(
                f"another bundler is writing to {path.parent}: wait until it is done"
            ) from None


@contextmanager
def _locked(hf_home: Path, progress: Progress) -> Iterator[int]:
    """A handle of the folder of receipts, with its lock; after an error what was made is gone.

    Raises BlockingIOError where another process has it, and nobody can wait.
    """
    while True:
        with Folders(hf_home) as folders:
            folder = os.dup(folders.handle(_FOLDER))
            try:
                _wait_for(folder, receipt_folder(hf_home), progress)
                # Whoever had the lock may have removed it, since there was nothing in it.
                if is_still(folder, receipt_folder(hf_home)):
                    folders.sync()
                    yield folder
                    return
            except BaseException:
                above = receipt_folder(hf_home)
                remove_empty([above, above.parent, *folders.made])
                raise
            finally:
                drop_lock(folder)
                os.close(folder)


def _wait_for(handle: int, folder: Path, progress: Progress) -> None:
    """Take the lock of the folder with this handle, and tell if that takes more than a moment.

    Raises BlockingIOError where nobody can wait.
    """
    since = time.monotonic()
    while time.monotonic() < since + _MOMENT:
        try:
            return take_lock(handle)
        except BlockingIOError:
            time.sleep(_MOMENT / 50)
    progress.say(f"waiting for another bundler, which is writing to {folder}")
    return take_lock(handle, wait=True)


def _to_json(receipt: Receipt) -> Iterator[str]:
    """The receipt, a piece at a time: of many files, the whole text would take much memory."""
    yield f'{{"receipt_version": {_VERSION}, "bundle": "{receipt.bundle}", "models": ['
    for number, model in enumerate(receipt.models):
        named = {
            "source": model.source,
            "name": model.name,
            "layout": model.layout,
            "kind": model.kind,
            "aliases": model.aliases,
            "specs": model.specs,
            "needs": model.needs,
            "revision": model.revision,
            "commit_hash": model.commit_hash,
            "size": model.size,
        }
        yield f"{', ' if number else ''}{json.dumps(named)[:-1]}"
        yield from _list_to_json("files", map(_file_to_json, model.files))
        yield from _list_to_json("links", map(_pointer_to_json, model.links))
        yield from _list_to_json("texts", map(_pointer_to_json, model.texts))
        yield "}"
    yield "]}\n"


def _list_to_json(key: str, items: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The rest of an object, from the comma before a key on that has a list."""
    yield f', "{key}": ['
    for number, item in enumerate(items):
        yield f"{', ' if number else ''}{json.dumps(item)}"
    yield "]"


def _file_to_json(file: InstalledFile) -> dict[str, Any]:
    return {
        "root": file.root,
        "path": file.path,
        "digest": str(file.blob.digest),
        "size": file.blob.size,
        "mtime_ns": file.mtime_ns,
        "found": file.found,
    }


def _pointer_to_json(pointer: InstalledPointer) -> dict[str, Any]:
    return {
        "root": pointer.root,
        "path": pointer.path,
        "text": pointer.text,
        "before": pointer.before,
        "pending": pointer.pending,
    }


def _from_json(text: str) -> Receipt | None:
    try:
        document = json.loads(text, object_hook=_part)
        if document["receipt_version"] != _VERSION:
            return None
        models = tuple(_model(record) for record in document["models"])
        # Merged, since somebody may have put two into one, and a model is in a receipt once.
        return Receipt(Digest.parse(document["bundle"]), models).merged(None)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None


def _part(record: dict[str, Any]) -> object:
    """What is to be in place of an object: the records of many files would take much memory."""
    if "mtime_ns" in record:
        return _file(record)
    return _pointer(record) if "text" in record else record


def _root(value: Any) -> str:
    """What `Roots.kept_as` gives; one text for all that are below it."""
    if value not in ("hub", "torch", "datasets") and not _text(value).startswith("/"):
        raise ValueError
    return sys.intern(value)


def _model(record: Any) -> InstalledModel:
    return InstalledModel(
        source=_text(record["source"]),
        name=_text(record["name"]),
        layout=_text(record["layout"]),
        kind=_optional(record["kind"]),
        aliases=tuple(_text(alias) for alias in record["aliases"]),
        specs=tuple(_text(spec) for spec in record["specs"]),
        needs=tuple(_text(need) for need in record["needs"]),
        revision=_optional(record["revision"]),
        commit_hash=_optional(record["commit_hash"]),
        size=_size(record["size"]),
        files=_all_of(InstalledFile, record["files"]),
        links=_all_of(InstalledPointer, record["links"]),
        texts=_all_of(InstalledPointer, record["texts"]),
    )


def _all_of(kind: type[T], values: Any) -> tuple[T, ...]:
    if not all(isinstance(value, kind) for value in values):
        raise TypeError
    return tuple(values)


def _file(record: dict[str, Any]) -> InstalledFile:
    return InstalledFile(
        _root(record["root"]),
        relative_path(record["path"], _DEEPEST),
        Blob(Digest.parse(record["digest"]), _size(record["size"])),
        int(record["mtime_ns"]),
        bool(record["found"]),
    )


def _pointer(record: dict[str, Any]) -> InstalledPointer:
    return InstalledPointer(
        _root(record["root"]),
        relative_path(record["path"], _DEEPEST),
        _optional(record["text"]),
        _optional(record["before"]),
        bool(record.get("pending")),
    )


def _size(value: Any) -> int:
    if int(value) < 0:
        raise ValueError
    return int(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _optional(value: Any) -> str | None:
    return None if value is None else _text(value)
