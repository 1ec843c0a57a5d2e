"""What must hold for any bytes at all: one check for each thing that bundler reads from strangers.

A check takes bytes, and raises if bundler breaks a promise over them. `scripts/fuzz` looks for such
bytes, and `data/fuzz/<target>` keeps those that once were.
"""

from __future__ import annotations

import io
import json
import os
import pickle
from base64 import b64decode
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from bundle_builder import Collected, Pipe, assembled, manifest_of, model_record, parts_of
from limits import IN_MEMORY, little_memory
from promises import assert_plain, check_unpack

import bundler
from bundler.archive import open_bundle
from bundler.digest import Blob, Digest
from bundler.env_file import env_path, extended_roots, write_env_file
from bundler.errors import (
    DamagedError,
    FormatError,
    RequestError,
    TargetError,
    TrustError,
    UnavailableError,
)
from bundler.layouts import layout_of
from bundler.layouts.placement import Link
from bundler.manifest import Manifest
from bundler.names import UNPRINTABLE
from bundler.pickled import foreign_imports
from bundler.receipt_folder import read_receipts, receipt_path, write_receipt
from bundler.relative import RelativePath
from bundler.remote import RemoteSnapshot
from bundler.request import read_request
from bundler.shells import EnvFormat, read_variables
from bundler.zip_archive import from_zip

PARTS = parts_of(manifest_of(model_record()))
BUNDLE = Digest.of(b"bundle")
"""The bundle that a receipt is of."""
SIGNED = Path(__file__).parent / "data" / "format-1.tar.zst"
SIGNER = bundler.PublicKey.read(SIGNED.with_name("format-1.pub.pem"))


def check_manifest(data: bytes) -> None:
    """A manifest is refused, or reads back what it writes and places nothing outside the roots."""
    try:
        manifest = Manifest.from_bytes(data)
    except FormatError as error:
        return assert_plain(error)
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    for snapshot in manifest.snapshots:
        for can_link in (lambda _: True, lambda _: False):
            with suppress(FormatError, ValueError):
                for placement in layout_of(snapshot).place(snapshot, can_link):
                    assert_below(placement.path)
                    if isinstance(placement, Link):
                        assert_below(placement.target)
    return None


def assert_below(path: RelativePath) -> None:
    """Joined to a folder, the path stays below it."""
    assert path.parts
    assert not path.startswith("/")
    assert not {"", ".", ".."} & {*path.parts}
    assert not UNPRINTABLE.search(str(path))
    assert "\\" not in str(path)


def contents_of(source: BinaryIO) -> tuple[bytes, list[bytes]] | None:
    """The manifest and all contents of a bundle; None if it is refused."""
    try:
        with open_bundle(source, keep_bytes=True) as reader:
            collected = Collected()
            reader.extract(collected, jobs=1)
            if collected.refused:
                raise next(iter(collected.refused.values()))
            found = {member.blob: bytes(c) for member, c in collected.contents.items()}
            assert collected.finished == [*reader.members] == [*collected.contents]
            assert all(Blob.of(content) == blob for blob, content in found.items())
            absent = {*reader.manifest.absent}
            assert found.keys() == {b for b in reader.manifest.blobs() if b.digest not in absent}
            return reader.manifest_bytes, [*found.values()]
    except (DamagedError, FormatError) as error:
        assert_plain(error)
        return None


def check_bundle(data: bytes) -> None:
    """A bundle is refused or is what its manifest says, and all ways of reading it agree."""
    found = contents_of(io.BytesIO(data))
    piped = contents_of(Pipe(data))
    assert found is None or found == piped
    try:
        verification = bundler.verify(io.BytesIO(data), jobs=1)
    except (DamagedError, FormatError) as error:
        assert_plain(error)
        assert found is None
    else:
        assert (verification.faults == ()) == (found is not None)
        assert all(not UNPRINTABLE.search(fault.message) for fault in verification.faults)


def check_tar(data: bytes) -> None:
    """As a bundle, but the bytes are what is compressed: checksums and the table are right."""
    size = max(1000, len(data) // 16)
    check_bundle(assembled([data[at : at + size] for at in range(0, len(data), size)]))


def check_table(data: bytes) -> None:
    """As a bundle, but the bytes are its end: frames without a fault come first."""
    check_bundle(assembled(PARTS, table=data))


def check_zip(data: bytes) -> None:
    """An archive is refused, or its members are read as they are listed, from any byte on."""
    snapshot = RemoteSnapshot("https", "archive", "flat", (), inside=lambda path: path)
    archive = io.BytesIO(data)
    try:
        files = from_zip(snapshot, archive, Digest.of(data)).files
    except (DamagedError, RequestError) as error:
        return assert_plain(error)
    assert sum(file.size or 0 for file in files) <= max(200 * len(data), 16 << 20)
    for file in files:
        assert_below(RelativePath(file.path))
        try:
            whole = b"".join(iter(partial_reads(file.origin.open(0)), b""))
        except DamagedError as error:
            assert_plain(error)
            continue
        assert len(whole) == file.size
        middle = len(whole) // 2
        assert b"".join(iter(partial_reads(file.origin.open(middle)), b"")) == whole[middle:]
    return None


def partial_reads(stream: Any) -> Callable[[], bytes]:
    return lambda: bytes(stream.read(1 << 16))


def check_pickle(data: bytes) -> None:
    """A pickle that calls something when it is loaded is found, and no file raises."""
    found = foreign_imports(io.BytesIO(data), ())
    assert found == sorted(set(found))
    assert not any(UNPRINTABLE.search(name) for name in found)
    if not found:
        for unpickler in (_InC, _InPython):
            assert not calls_something(data, unpickler), unpickler.__name__


class Called(Exception):
    """A pickle calls, or changes, what it has looked up."""


def refuse(*_: object, **__: object) -> Any:
    raise Called


class _Global(type):
    """Stands for whatever a pickle looks up."""

    __call__ = __setstate__ = __setitem__ = append = extend = add = refuse


def stand_in(module: str, name: str) -> Any:
    return _Global("stand_in", (), {"__new__": refuse})


class _InC(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return stand_in(module, name)

    def persistent_load(self, pid: Any) -> Any:
        return None


class _InPython(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return stand_in(module, name)

    def persistent_load(self, pid: Any) -> Any:
        return None


def calls_something(data: bytes, unpickler: Callable[..., Any]) -> bool:
    """Whether one of the pickles that stand one after the other calls something."""
    stream = io.BytesIO(data)
    for _ in range(5):
        try:
            # The one in C makes as much room as the number of a memo asks for.
            with little_memory(256 << 20):
                unpickler(stream, encoding="latin1").load()
        except Called:
            return True
        except Exception:  # An unpickler raises nearly anything.
            return False
    return False


def check_receipt(data: bytes) -> None:
    """What is no receipt is absent; one that is reads back, and can be told of and removed."""
    with TemporaryDirectory(dir=IN_MEMORY) as name:
        roots, home = bundler.find_roots(root=Path(name, "t")), Path(name, "home")
        path = receipt_path(roots.hf_home, BUNDLE)
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        receipts = list(read_receipts(roots.hf_home))
        for receipt in receipts:
            write_receipt(home, receipt)
        assert list(read_receipts(home)) == receipts
        json.dumps(bundler.installed(roots).to_json())
        for tell in (bundler.verify_installed, partial(bundler.plan_remove, [str(BUNDLE)])):
            with suppress(RequestError, UnavailableError):
                json.dumps(tell(roots=roots).to_json())


def check_request(data: bytes) -> None:
    """A file is a list of what is wanted, or is told to be none."""
    with TemporaryDirectory(dir=IN_MEMORY) as name:
        path = Path(name, "request.toml")
        path.write_bytes(data)
        with suppress(RequestError):
            assert all(isinstance(wanted.spec, str) for wanted in read_request(path))


def check_environment(data: bytes) -> None:
    """An environment file that somebody edited is extended, or left alone."""
    with TemporaryDirectory(dir=IN_MEMORY) as name:
        path = Path(name, "offline.env")
        for form in (EnvFormat.SH, EnvFormat.DOCKER, EnvFormat.JSON):
            path.write_bytes(data)
            roots = bundler.find_roots({"HOME": name})
            try:
                assert env_path(path, form, roots) == path
                _, extended = extended_roots(path, form, roots, {"hub"})
                assert extended is not None
                write_env_file(path, form, extended)
            except (RequestError, TargetError):
                assert path.read_bytes() == data
            else:
                said = read_variables(form, os.fsdecode(path.read_bytes()))
                assert said["HF_HUB_CACHE"] == str(roots.hub)
                assert said["TORCH_HOME"] == str(extended.torch_home)


def check_signature(data: bytes) -> None:
    """What is taken for the signature of a bundle states what the true one does."""
    with TemporaryDirectory(dir=IN_MEMORY) as name:
        signature = Path(name, "bundle.sig")
        signature.write_bytes(data)
        claimed = bundler.inspect(SIGNED, signature=signature).claimed_key
        assert claimed is not None
        assert len(claimed) <= 64
        try:
            bundler.inspect(SIGNED, trusted=bundler.Trust((SIGNER,), signature))
        except TrustError as error:
            return assert_plain(error)
    assert statement_in(data) == statement_in(SIGNED.with_name(f"{SIGNED.name}.sig").read_bytes())
    return None


def statement_in(signature: bytes) -> bytes:
    """The bytes that are signed."""
    return b64decode(json.loads(signature)["dsseEnvelope"]["payload"])


def check_whole(data: bytes) -> None:
    """A bundle is unpacked without harm, whatever the options."""
    check_unpack(data)
    check_unpack(data, checkpoints=True, code=False)


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "bundle": check_bundle,
    "environment": check_environment,
    "manifest": check_manifest,
    "pickle": check_pickle,
    "receipt": check_receipt,
    "request": check_request,
    "signature": check_signature,
    "table": check_table,
    "tar": check_tar,
    "unpack": check_whole,
    "zip": check_zip,
}
"""The check for each kind of input."""
