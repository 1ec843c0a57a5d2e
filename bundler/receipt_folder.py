"""The folder of receipts on the target: so that later runs need not read all again.

And so that what was installed can be verified and taken out again, model by model.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bundler.digest import Digest
from bundler.disk import start_of
from bundler.errors import TargetError
from bundler.folders import Folders
from bundler.lock import drop_lock, is_still, take_lock
from bundler.new_folder import remove_empty
from bundler.permission import told
from bundler.progress import Progress, Silent
from bundler.receipt import Key, Receipt, key_of
from bundler.receipt_json import read_json, to_json
from bundler.relative import RelativePath
from bundler.whole_file import write_text

_LARGEST = 512 << 20
"""Bytes of a receipt that is read: about a million files."""
_MOMENT = 1
"""Seconds that receipts may be waited for before it is told: they are small, and soon written."""
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
        return read_json(start_of(path, _LARGEST, folder).decode())
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
        write_text(path, to_json(receipt.merged(earlier)), "--root", folder)


def drop_models(
    hf_home: Path, bundle: Digest, keys: set[Key], progress: Progress | None = None
) -> None:
    """Take the models with these keys out of the receipt of `bundle`; an empty one goes.

    Raises TargetError, and waits as `write_receipt` does.
    """
    with _changed(hf_home, bundle, progress or Silent()) as (path, folder, receipt):
        left = tuple(m for m in receipt.models if key_of(m) not in keys) if receipt else ()
        if left:
            write_text(path, to_json(Receipt(bundle, left)), "--root", folder)
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
