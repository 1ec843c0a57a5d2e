"""Good inputs for each target of fuzz_targets.py, from which a search for bad ones begins."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import zstandard
from bundle_builder import Pipe, entries_of, good_bundle, manifest_of, seek_table
from fuzz_targets import BUNDLE, PARTS
from mutated_manifests import DOCUMENTS

import bundler
from bundler.receipt_folder import receipt_path
from bundler.shells import EnvFormat, environment_text

LARGEST = 1 << 16
"""Bytes of a seed: a search among longer ones is slow."""
DATA = Path(__file__).parent / "data"
REQUESTS = Path(__file__).parent.parent / "bundles"


def bundles() -> Iterator[bytes]:
    yield good_bundle()
    for path in sorted(DATA.glob("format-*.tar.zst")):
        yield path.read_bytes()


def manifests() -> Iterator[bytes]:
    for content in bundles():
        yield bundler.inspect(Pipe(content)).manifest_bytes
    for document in DOCUMENTS:
        yield manifest_of(*document)


def tars() -> Iterator[bytes]:
    reader = zstandard.ZstdDecompressor().stream_reader
    contents = (reader(content, read_across_frames=True).read() for content in bundles())
    yield from (content for content in contents if len(content) < LARGEST)


def tables() -> Iterator[bytes]:
    yield seek_table(entries_of(PARTS))


def zips() -> Iterator[bytes]:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        for force_zip64 in (False, True):
            archive = io.BytesIO()
            with zipfile.ZipFile(archive, "w", method) as writer:
                writer.comment = b"0123456789abcdef0123456789abcdef01234567"
                writer.writestr("top/hubconf.py", b"dependencies = []\n")
                with writer.open("top/x.onnx", "w", force_zip64=force_zip64) as member:
                    member.write(bytes(range(256)))
            yield archive.getvalue()


def pickles() -> Iterator[bytes]:
    value = [OrderedDict(a=1), {"b": (2.5, "c", b"d", None, True, 1 << 70)}, {1}, frozenset("x")]
    for protocol in range(6):
        yield pickle.dumps(value, protocol)
    state = io.BytesIO()
    with zipfile.ZipFile(state, "w") as writer:
        writer.writestr("archive/data.pkl", pickle.dumps(value, 2))
        writer.writestr("archive/data/0", bytes(16))
    yield state.getvalue()
    legacy: tuple[object, ...] = (0x1950A86A20F9469CFC6C, 1001, {}, value, [])
    yield b"".join(pickle.dumps(part, 2) for part in legacy)
    yield b"cos\nsystem\n(S'true'\ntR."


def receipts() -> Iterator[bytes]:
    for path in sorted(DATA.glob("format-1*.tar.zst")):
        with TemporaryDirectory() as name:
            roots = bundler.find_roots(root=Path(name))
            digest = bundler.unpack(path, roots=roots, env=None).digest
            text = receipt_path(roots.hf_home, digest).read_text()
            # Plain folders are known by their whole path.
            yield text.replace(str(digest), str(BUNDLE)).replace(name, "/nowhere").encode()


def requests() -> Iterator[bytes]:
    for path in sorted(REQUESTS.glob("*.toml")):
        yield path.read_bytes()
    yield b'models = ["a/b", {spec = "c", revision = "v1", include = ["x"], all_files = true}]'


def signatures() -> Iterator[bytes]:
    for path in sorted(DATA.glob("format-*.tar.zst.sig")):
        yield path.read_bytes()


def environments() -> Iterator[bytes]:
    roots = bundler.find_roots({"HOME": "/nowhere"}, root=Path("/nowhere/it's"))
    for form in (EnvFormat.SH, EnvFormat.DOCKER, EnvFormat.JSON):
        yield environment_text(form, roots).encode()


SEEDS: Mapping[str, Callable[[], Iterator[bytes]]] = {
    "bundle": bundles,
    "environment": environments,
    "manifest": manifests,
    "pickle": pickles,
    "receipt": receipts,
    "request": requests,
    "signature": signatures,
    "table": tables,
    "tar": tars,
    "unpack": bundles,
    "zip": zips,
}
"""Those of each target."""
