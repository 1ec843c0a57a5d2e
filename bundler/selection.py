"""Which files of a repository are worth carrying, and why not the others.

The default brings what the libraries load and drops second copies of the same weights: formats of
other frameworks beside PyTorch's, and `.bin` beside safetensors. A rule drops a file only where the
weights it copies are there whole, so the only form of some weights always stays. The names are
those that transformers, diffusers, sentence-transformers, timm and their exporters write.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial

from bundler.errors import RequestError
from bundler.manifest import Omission
from bundler.relative import RelativePath
from bundler.remote import PathInside, RemoteSnapshot

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})")
_PICKLED = {".bin", ".pt", ".pth", ".ckpt"}
_TORCH = {".safetensors", *_PICKLED}
_STANDARD_STEM = re.compile(r"(model|pytorch_model|diffusion_pytorch_model)(\.\w+)?")

_FOREIGN_FOLDERS = {
    "onnx": "ONNX",
    "openvino": "OpenVINO",
    "coreml": "Core ML",
    "tflite": "TensorFlow Lite",
    "saved_model": "TensorFlow",
    "original": "its author's first",
}
_FOREIGN_NAMES = {
    re.compile(r"tf_model(-\d+-of-\d+)?\.h5(\.index\.json)?"): "TensorFlow",
    re.compile(r".+\.ckpt\.(index|meta|data-\d+-of-\d+)"): "TensorFlow",
    re.compile(r".+\.tflite"): "TensorFlow Lite",
    re.compile(r"(diffusion_)?flax_model(-\d+-of-\d+)?\.msgpack(\.index\.json)?"): "Flax",
    re.compile(r"rust_model\.ot"): "Rust",
    re.compile(r"((en|de)coder_)?(with_past_)?model(_\w+)?\.onnx([._]data\w*)?"): "ONNX",
    re.compile(r"openvino_.+\.(xml|bin)"): "OpenVINO",
    re.compile(r".+\.gguf"): "GGUF",
    re.compile(r"consolidated(\.\d+)?\.(pth|safetensors)"): "its author's first",
}
EXCLUDED = "named by --exclude"
"""The reason of what the user did not want."""
_WEIGHT_FORMATS = {
    ".safetensors": "safetensors",
    ".bin": "pytorch",
    ".pt": "pytorch",
    ".pth": "pytorch",
    ".ckpt": "pytorch",
    ".h5": "tensorflow",
    ".tflite": "tflite",
    ".msgpack": "flax",
    ".onnx": "onnx",
    ".gguf": "gguf",
    ".ot": "rust",
}


@dataclass(frozen=True, slots=True)
class Selection:
    """What the user said about files. Globs match whole paths; `*` also takes `/`, as in `hf`.

    `include`: only these, whatever the default says. `exclude`: not these, whatever else is said.
    `all_files`: the default drops nothing.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    all_files: bool = False

    def wants(self, path: str) -> bool:
        """Whether the globs leave a file in."""
        included = not self.include or _matches(path, self.include)
        return included and not _matches(path, self.exclude)


def select(
    snapshot: RemoteSnapshot, selection: Selection, *, has_weights: bool = True
) -> RemoteSnapshot:
    """The same snapshot with the files to carry, and the others in `omitted` with a reason.

    Of an archive, what is picked from inside; of a single file, that file. Raises RequestError if
    nothing is left, and if it `has_weights` by what it is for, and has none.
    """
    if snapshot.inside is not None:
        return replace(snapshot, inside=partial(_inside, snapshot.inside, selection))
    if snapshot.layout == "torch-checkpoints":
        return snapshot
    if has_weights and not selection.include and not selection.all_files:
        _check_weights(snapshot)
    reasons: dict[str, str] = {}
    if snapshot.kind == "model" and not selection.include and not selection.all_files:
        reasons = second_copies([file.path for file in snapshot.files])
    for file in snapshot.files:
        if selection.include and not _matches(file.path, selection.include):
            reasons[file.path] = "not named by --include"
        elif _matches(file.path, selection.exclude):
            reasons[file.path] = EXCLUDED
    files = tuple(file for file in snapshot.files if file.path not in reasons)
    if not files:
        raise RequestError(
            f"nothing is left of {snapshot.name}: "
            + (
                "--include and --exclude leave out all of its files"
                if snapshot.files
                else "the repository has no files"
            )
        )
    omitted = snapshot.omitted + tuple(
        Omission(file.path, file.size, reasons[file.path])
        for file in snapshot.files
        if file.path in reasons
    )
    return replace(snapshot, files=files, omitted=omitted)


def _check_weights(snapshot: RemoteSnapshot) -> None:
    """Raise RequestError if nothing in a repository of models could be weights."""
    if snapshot.kind != "model" or not snapshot.files:
        return
    paths = (file.path for file in snapshot.files)
    # Whatever else weights are called, the Hub keeps them as large files, of which it has a sha256.
    if not weight_formats(paths) and not any(file.digest for file in snapshot.files):
        raise RequestError(
            f"{snapshot.name} has no weights in it, so it loads as no model: check the name; if "
            "its files are what you want, say --all-files"
        )


def _inside(pick: PathInside, selection: Selection, member: str) -> str | None:
    path = pick(member)
    return path if path is not None and selection.wants(path) else None


def second_copies(paths: Iterable[str]) -> dict[str, str]:
    """The files among `paths` that only repeat weights that others hold, each with the reason."""
    folders: dict[RelativePath, list[RelativePath]] = defaultdict(list)
    for text in paths:
        folders[RelativePath(text).parent].append(RelativePath(text))
    weights = {folder: _whole_weights(members) for folder, members in folders.items()}

    reasons: dict[str, str] = {}
    for folder, members in folders.items():
        for path in members:
            if path.suffix == ".py":
                continue
            reason = _foreign_copy(path, weights) or _pickled_copy(path, weights[folder])
            if reason:
                reasons[str(path)] = reason
    return reasons


def weight_formats(paths: Iterable[str]) -> list[str]:
    """The formats that the weights among `paths` have, sorted."""
    return sorted(
        {
            _WEIGHT_FORMATS[path.suffix]
            for path in map(RelativePath, paths)
            if path.suffix in _WEIGHT_FORMATS and path.name != "training_args.bin"
        }
    )


def _whole_weights(members: Sequence[RelativePath]) -> set[tuple[str, str]]:
    """(stem, suffix) of every PyTorch weight file of one folder, if all its shards are there."""
    shards: dict[tuple[str, str, int], set[int]] = defaultdict(set)
    whole = set()
    for path in members:
        if path.suffix not in _TORCH:
            continue
        shard = _SHARD.fullmatch(path.stem)
        if shard is None:
            whole.add((path.stem, path.suffix))
        else:
            count = int(shard["count"])
            numbers = shards[shard["stem"], path.suffix, count]
            numbers.add(int(shard["number"]))
            if len(numbers) == count:
                whole.add((shard["stem"], path.suffix))
    return whole


def _foreign_copy(
    path: RelativePath, weights: dict[RelativePath, set[tuple[str, str]]]
) -> str | None:
    """The reason to drop another framework's or a first release's file beside standard weights."""
    for folder in path.parents:
        if folder.name in _FOREIGN_FOLDERS and _has_standard(weights.get(folder.parent)):
            return f"the same weights in another form: {_FOREIGN_FOLDERS[folder.name]}"
        if folder.suffix == ".mlpackage" and _has_standard(weights.get(folder.parent)):
            return "the same weights in another form: Core ML"
    if _has_standard(weights[path.parent]):
        for pattern, form in _FOREIGN_NAMES.items():
            if pattern.fullmatch(path.name):
                return f"the same weights in another form: {form}"
    return None


def _has_standard(weights: set[tuple[str, str]] | None) -> bool:
    return any(_STANDARD_STEM.fullmatch(stem) for stem, _ in weights or ())


def _pickled_copy(path: RelativePath, weights: set[tuple[str, str]]) -> str | None:
    """The reason to drop a pickled file whose weights the folder also holds as safetensors."""
    path = path.parent / path.name.removesuffix(".index.json")
    if path.suffix not in _PICKLED:
        return None
    shard = _SHARD.fullmatch(path.stem)
    stem = shard["stem"] if shard else path.stem
    for counterpart in (stem, stem.replace("pytorch_model", "model")):
        if (counterpart, ".safetensors") in weights:
            return "the same weights as safetensors"
    return None


def _matches(path: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(path, glob + "*" if glob.endswith("/") else glob) for glob in globs)
