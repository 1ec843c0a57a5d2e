"""Manifests changed in what they say, as a strategy: from a word to a whole model."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from bundle_builder import COMMIT_HASH, file_record, manifest_of, model_record
from hypothesis import strategies as st

Path = tuple[str | int, ...]
"""Where a value stands in a JSON document."""

CONFIG, VOCAB, WEIGHTS, EMPTY = b"{}", b"[UNK]\nhello\n", bytes(range(256)) * 3, b""
LARGE = bytes(1 << 20)
"""Begins a frame of its own."""
POOL = {hashlib.sha256(c).hexdigest(): c for c in (CONFIG, VOCAB, WEIGHTS, EMPTY, LARGE)}
GIT_NAME = hashlib.sha1(b"blob %d\0" % len(CONFIG) + CONFIG).hexdigest()
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()

HUB = model_record(
    aliases=["model"],
    specs=["timm:model"],
    license="mit",
    files=[
        file_record("config.json", CONFIG, etag=GIT_NAME),
        file_record("sub/vocab.txt", VOCAB),
        file_record("weights.bin", WEIGHTS, etag=SHA256),
    ],
    omitted=[{"path": "tf_model.h5", "size": 5, "reason": "the same weights"}],
    code=[{"path": "weights.bin", "reason": "it imports os.system"}],
)
OTHER = model_record(
    name="other",
    commit_hash="f" * 40,
    needs=["org/model"],
    files=[file_record("vocab.txt", VOCAB), file_record("empty", EMPTY)],
)
REVISED = model_record(
    revision="v1", commit_hash="e" * 40, files=[file_record("config.json", CONFIG)]
)
CODE = model_record(
    source="torchhub", name="org/code", layout="torch-hub", kind=None,
    files=[file_record("hubconf.py", VOCAB)],
)  # fmt: skip
CHECKPOINT = model_record(
    source="https", name="https://host/x.pth", layout="torch-checkpoints",
    kind=None, revision=None, commit_hash=None, files=[file_record("x.pth", LARGE)],
)  # fmt: skip
PACK = model_record(
    source="insightface", name="buffalo_l", layout="insightface",
    kind=None, revision=None, commit_hash=None, files=[file_record("det.onnx", WEIGHTS)],
)  # fmt: skip
ROWS = model_record(
    source="dataset", kind="dataset", name="org/rows", layout="hf-datasets",
    files=[file_record("org___rows/default/0.0.0/abc/dataset_info.json", CONFIG)],
)  # fmt: skip
FOLDER = model_record(
    source="file", name="folder", layout="flat", kind=None, revision=None, commit_hash=None,
    files=[file_record("a", CONFIG), file_record("b/c", EMPTY)],
)  # fmt: skip
DOCUMENTS: tuple[list[dict[str, Any]], ...] = (
    [HUB],
    [HUB, OTHER],
    [REVISED, HUB],
    [CODE, CHECKPOINT],
    [PACK, ROWS, FOLDER],
    [HUB, OTHER, CODE, CHECKPOINT, PACK, ROWS, FOLDER],
)

FIELDS: dict[str, tuple[object, ...]] = {
    "source": ("hf", "dataset", "torchhub", "https", "file", "nix", "a:b", "\u202e"),
    "name": (
        "org/model", "org/Model", "model", "other", "org/other", "org--model", "org/code", "folder",
        "buffalo_l", "refs", "a/b/c", "-x", "..", "../evil", "/evil", "a\\b", "aux", ".locks",
        ".bundler", "checkpoints/x.pth", "trusted/list", "x" * 255, "x/" + "y" * 250, "a,b", "@",
        "é", "e\u0301", " x", "\u202e", "https://host/x.pth", "https://u:p@host/x.pth?key#x",
    ),
    "layout": (
        "hf-cache", "hf-datasets", "torch-hub", "torch-checkpoints", "insightface", "flat",
        "hf-cache-2",
    ),
    "kind": ("model", "dataset", "space", "kernel", None),
    "revision": (
        "main", "v1", "refs/pr/1", "main/x", COMMIT_HASH, "f" * 40, COMMIT_HASH[:7], "../x", "a_b",
        "a/b", "x" * 300, None,
    ),
    "commit_hash": (COMMIT_HASH, "f" * 40, "e" * 40, GIT_NAME, "F" * 40, None),
    "aliases": ([], ["model"], ["older/model", "org/other"], ["org/model"], ["../x"], ["é", "É"]),
    "specs": ([], ["timm:model", "x"], ["a,b"], ["\u202e"]),
    "needs": (["org/other"], ["other", "org/model"], ["nix"], [" x "], ["a,b"], ["@"]),
    "license": ("mit", None),
    "more": ({}, [None, 2.5]),
}  # fmt: skip
"""What a snapshot may say of itself, and some that it may not."""
PATHS = (
    "config.json", "sub/vocab.txt", "sub", "weights.bin", "CONFIG.JSON", "config.json/x", "x.pth",
    "sub/x.pth", "refs/main", "det.onnx", "hubconf.py", "org/model", "folder", "a", "b", "../x",
    ".no_exist", ".locks/bundler/blobs/x", "trusted_list", "/x", "a//b", "C:/x", "nul", "a\nb",
    "\u202ex", "é", "e\u0301", "x" * 255, "x" * 256, "x/" * 63 + "x", "x/" * 64 + "x",
    "/".join(["x" * 255] * 16),
)  # fmt: skip
ETAGS = (None, "e1", "E1", "x" * 200, SHA256, GIT_NAME, "0" * 40, "a/b")
ODD_NUMBERS: tuple[object, ...] = (
    0, 1, 2, 511, 512, 513, -1, 1 << 20, 4 << 20, 2**32, 2**53 - 1, 2**53, 2**63, 10**30, 1.0, 1e300
)  # fmt: skip
ODD_TEXTS = (
    "", " ", "x", "..", "/evil", "a\0b", "a\nb", "\x1b]0;x\x07", "\u202e", "\ud800", "\udc80",
    "x" * 5000, "~", "$HOME", f"sha256:{SHA256}", f"sha256:{'0' * 64}", "md5:0", SHA256,
)  # fmt: skip
values = st.one_of(
    st.sampled_from(ODD_TEXTS),
    st.sampled_from(ODD_NUMBERS),
    st.sampled_from([None, True, False, [], {}, [[]], ["x"], [{}], {"x": 1}]).map(copy.deepcopy),
    st.text(max_size=5),
)


def places(value: object, path: Path = ()) -> Iterator[Path]:
    """Where everything in a JSON document stands, the document itself left out."""
    if isinstance(value, dict):
        items: list[tuple[str | int, object]] = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def at(document: Any, path: Path) -> Any:
    """What stands there."""
    for key in path:
        document = document[key]
    return document


def change_document(draw: st.DrawFn, document: dict[str, Any]) -> None:
    """Change one thing that the manifest says, mostly to something else that it might say."""
    kinds = ["field", "field", "again", "file", "file", "new file", "odd", "absent"]
    kind = draw(st.sampled_from(kinds))
    snapshots: Any = document.get("snapshots")
    snapshot = draw(st.sampled_from(snapshots)) if isinstance(snapshots, list) and snapshots else 0
    files = snapshot.get("files") if isinstance(snapshot, dict) else None
    if kind in ("field", "again") and isinstance(snapshot, dict):
        if kind == "again":
            snapshot = copy.deepcopy(snapshot)
            snapshots.insert(draw(st.integers(0, len(snapshots))), snapshot)
        field = draw(st.sampled_from([*FIELDS]))
        snapshot[field] = copy.deepcopy(draw(st.sampled_from(FIELDS[field])))
    elif kind in ("file", "new file") and isinstance(files, list):
        path, content = draw(st.sampled_from(PATHS)), draw(st.sampled_from([*POOL.values()]))
        record = file_record(path, content, etag=draw(st.sampled_from(ETAGS)))
        number = draw(st.integers(0, len(files)))
        if kind == "file" and number < len(files) and isinstance(files[number], dict):
            kept = draw(st.sampled_from([["path"], ["etag"], ["size", "digest"], []]))
            record |= {key: value for key, value in files[number].items() if key in kept}
            del files[number]
        files.insert(number, record)
    elif kind == "absent":
        document["format_version"] = draw(st.sampled_from([1, 2, 2, 2]))
        digests = sorted(f"sha256:{hex_}" for hex_ in draw(st.sets(st.sampled_from([*POOL]))))
        document[draw(st.sampled_from(["absent", "absent", "builds_on"]))] = digests
    else:
        change_anything(draw, document)


def change_anything(draw: st.DrawFn, document: dict[str, Any]) -> None:
    """Change one value in the document to one that need not even be of its type."""
    found = list(places(document))
    if not found:
        return
    key: Any
    *above, key = draw(st.sampled_from(found))
    inside: Any = at(document, tuple(above))
    match draw(st.sampled_from(["replace", "copy", "remove", "repeat", "swap"])):
        case "copy":
            inside[key] = copy.deepcopy(at(document, draw(st.sampled_from(found))))
        case "remove":
            del inside[key]
        case "repeat" if isinstance(inside, list):
            inside.insert(draw(st.integers(0, len(inside))), copy.deepcopy(inside[key]))
        case "swap" if isinstance(inside, list):
            other = draw(st.integers(0, len(inside) - 1))
            inside[key], inside[other] = inside[other], inside[key]
        case _:
            inside[key] = draw(values)


def manifest_text(draw: st.DrawFn, document: dict[str, Any]) -> bytes:
    """The document as JSON, of one form or another that its rules allow, or do not."""
    text = json.dumps(document)
    match draw(st.sampled_from([*["plain"] * 30, "spaced", "twice", "more", "deep", "mark", "16"])):
        case "spaced":
            return json.dumps(document, indent=3, ensure_ascii=draw(st.booleans())).encode(
                "utf-8", "surrogatepass"
            )
        case "twice":
            return text.replace('"name"', '"name": "org/model", "name"', 1).encode()
        case "more":
            return text.encode() + draw(st.sampled_from([b" \n", b"\0", b"{}", b"]"]))
        case "deep":
            depth = draw(st.sampled_from([50, 500, 100_000]))
            deep = f'{{"more": {"[" * depth}{"]" * depth}, '
            return text.replace("{", deep, 1).encode()
        case "mark":
            return b"\xef\xbb\xbf" + text.encode()
        case "16":
            return text.encode("utf-16")
    return text.encode()


@st.composite
def mutated_manifests(draw: st.DrawFn) -> bytes:
    """A manifest that was changed once or a few times."""
    document = json.loads(manifest_of(*draw(st.sampled_from(DOCUMENTS))))
    for _ in range(draw(st.integers(1, 4))):
        change_document(draw, document)
    return manifest_text(draw, document)
