"""The form of a dataset that `load_dataset("org/name")` reads without a network.

Offline the `datasets` library looks at no repository: it opens Arrow files that it prepared before,
in the folder HF_DATASETS_CACHE. Here it prepares them while packing, in a child process that has no
network, no credentials and none of the user's caches.

    <org>___<name>/<config>/<version>/<hash>/dataset_info.json
    <org>___<name>/<config>/<version>/<hash>/<name>-<split>[-<i>-of-<n>].arrow

The hash is one of all these files and the same for every config: by it the library tells that there
are several and asks for a name, where it would else take the one that was unpacked last.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bundler.digest import Digest, digest_of
from bundler.errors import UnavailableError, shown
from bundler.names import relative_path
from bundler.relative import RelativePath

PREPARED = "hf-datasets"
"""The layout of what is made here instead of downloaded."""
_INFO = "dataset_info.json"
_KEPT = (
    "description",
    "citation",
    "homepage",
    "license",
    "features",
    "supervised_keys",
    "builder_name",
    "dataset_name",
    "config_name",
    "version",
    "splits",
    "dataset_size",
)
"""Fields of dataset_info.json that loading needs or that are true wherever it is done.

The others name the files that were read, by their paths on this machine, and their sizes.
"""
_REFUSED = (
    "socket.connect",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.sendto",
    "pickle.find_class",
)
"""What the child may not do: a card may name files elsewhere, and pickles run what they hold."""
_OUTPUT_KEPT = 4096
"""Bytes of the end of what the child prints."""
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from bundler.prepared import _child; _child(*sys.argv[2:])"
)


def can_prepare() -> bool:
    """Whether the `datasets` library is installed here; it is not imported."""
    spec = find_spec("datasets")
    return spec is not None and spec.origin is not None  # A mere folder of that name has none.


def prepare(name: str, folder: Path, work: Path) -> list[RelativePath]:
    """Prepare the dataset repository `name`, whose files stand in `folder`, in the folder `work`.

    `work` is made if missing and holds nothing else afterwards. Gives the paths of the files below
    it, in order, as HF_DATASETS_CACHE wants them; the same content of `folder` gives the same
    paths and bytes. `folder` may hold links; nothing beside what it lists is read. All configs are
    prepared or none. Raises UnavailableError if the library cannot do it, and OSError.
    """
    work.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".preparing-", dir=work) as made:
        scratch = Path(made).resolve()
        # The library names its files after the folder it reads, and looks there for a script.
        (scratch / "source").mkdir()
        source = scratch / "source" / name.rpartition("/")[2]
        source.symlink_to(folder.resolve(), target_is_directory=True)
        try:
            if (source / f"{source.name.removesuffix('.py')}.py").exists():
                raise _Fault("it has a script of its own, and none is run")  # Old versions would.
            configs = _run(source, scratch)
            return _lay_out(name, configs, scratch, work)
        except _Fault as fault:
            text = _without_places(str(fault), (source, folder, folder.resolve(), scratch))
            raise UnavailableError(
                f"the datasets library cannot prepare {name}: {shown(text, 240)}"
            ) from None


class _Fault(Exception):
    """Why it did not work, in one line that may still name places on this machine."""


def _run(source: Path, scratch: Path) -> list[dict[str, Any]]:
    """What the child says of each config that it prepared in `scratch`, in numbered folders."""
    (scratch / "run").mkdir()  # Holds nothing of the repository: Python imports from where it runs.
    ours = ("HF_", "HUGGINGFACE", "HUGGING_FACE")
    environ = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    environ |= {
        "HF_HOME": str(scratch / "home"),
        "HF_DATASETS_CACHE": str(scratch / "home" / "datasets"),
        "XDG_CACHE_HOME": str(scratch / "home"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        # Neither the order of sets nor the language of the user may show in the result.
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
    }
    command = [sys.executable, "-c", _START, json.dumps(sys.path), str(source), str(scratch)]
    with subprocess.Popen(
        command,
        cwd=scratch / "run",
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
    ) as process:
        try:
            assert process.stdout is not None
            printed = b""
            while data := process.stdout.read(_OUTPUT_KEPT):
                printed = (printed + data)[-_OUTPUT_KEPT:]
            status = process.wait()
        except BaseException:
            process.kill()
            raise
    try:
        result = json.loads((scratch / "result.json").read_text("utf-8"))
    except (OSError, ValueError):
        raise _Fault(_ending(status, printed)) from None
    if "fault" in result:
        raise _Fault(result["fault"])
    configs: list[dict[str, Any]] = result["configs"]
    return configs


def _ending(status: int, printed: bytes) -> str:
    """How a child ended that left no result."""
    if status < 0:
        return f"it was ended by {signal.Signals(-status).name}"
    lines = printed.decode(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), f"it ended with {status}")


def _without_places(text: str, places: Iterable[Path]) -> str:
    """`text` with paths relative to `places`, and no more than the last name of all others."""
    for place in sorted(map(str, places), key=len, reverse=True):
        text = text.replace(f"{place}/", "").replace(place, "the repository")
    return re.sub(r"(?<![\w.:/])/(?:[^/\s'\"]+/)+", "", text)


def _lay_out(
    name: str, configs: Sequence[dict[str, Any]], scratch: Path, work: Path
) -> list[RelativePath]:
    """Move what the child prepared to where the library will look for it."""
    moves: dict[tuple[str, str, str], Path] = {}
    for number, config in enumerate(configs):
        if config["name"].startswith(".") or "[" in config["name"]:
            # The library finds folders by a pattern, in which these are not what they are.
            raise _Fault(f"a config named {config['name']} is not found offline")
        folder = scratch / str(number)
        info = {key: value for key, value in config["info"].items() if key in _KEPT}
        (folder / _INFO).write_text(json.dumps(info), "utf-8")  # The order is that of the columns.
        for file in folder.iterdir():
            if file.name == _INFO or file.suffix == ".arrow":
                moves[config["name"], config["version"], file.name] = file
    content = ""
    for key, file in sorted(moves.items()):
        with open(file, "rb") as stream:
            content += f"{digest_of(stream, lambda _: None)} {json.dumps(key)}\n"
    digest = Digest.of(content.encode()).hex

    org, slash, _ = name.rpartition("/")
    top = org + "___" * len(slash) + configs[0]["info"]["dataset_name"]
    paths = []
    for (config_name, version, file_name), file in sorted(moves.items()):
        try:
            path = relative_path(f"{top}/{config_name}/{version}/{digest}/{file_name}")
        except ValueError as error:
            raise _Fault(str(error)) from None
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, work / path)
        paths.append(path)
    return sorted(paths)


# From here on: the child, the only place where the library is imported.


def _child(source: str, scratch: str) -> None:
    """Prepare every config of the repository at `source`; leave result.json in `scratch`."""
    sys.addaudithook(_refuse)
    result: dict[str, Any]
    try:
        result = {"configs": list(_prepared(source, scratch))}
    except Exception as error:
        result = {"fault": _reason(error)}
    Path(scratch, "result.json").write_text(json.dumps(result), "utf-8")


def _refuse(event: str, _: object) -> None:
    if event in _REFUSED:
        raise PermissionError(f"not allowed while preparing: {event}")


def _reason(error: BaseException) -> str:
    """What `error` says is wrong, and not only that something is: its first line, and its last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].startswith("An error occurred while generating the dataset"):
        del lines[0]
    if lines:
        return f"{type(error).__name__}: {' … '.join(dict.fromkeys((lines[0], lines[-1])))}"
    cause = error.__cause__ or error.__context__
    return _reason(cause) if cause is not None else type(error).__name__


def _prepared(source: str, scratch: str) -> Iterator[dict[str, Any]]:
    """Prepare one config after the other, each in a folder of its number."""
    datasets = import_module("datasets")
    naming = import_module("datasets.naming")
    roots = tuple(dict.fromkeys((source, os.path.realpath(source))))
    for number, name in enumerate(datasets.get_dataset_config_names(source)):
        builder = datasets.load_dataset_builder(source, name)
        _check_files(builder.config.data_files or {}, roots)
        folder = os.path.join(scratch, str(number))
        builder.download_and_prepare(folder)
        for split in builder.info.splits.values():
            files = naming.filenames_for_dataset_split(
                folder, builder.dataset_name, split.name, "arrow", split.shard_lengths
            )
            if _is_bound(files, builder.info.features, (*roots, scratch)):
                split.num_bytes = sum(_unbind(file, roots, scratch) for file in files)
                if _is_bound(files, None, (*roots, scratch)):
                    raise ValueError("the rows hold paths of the machine where they are prepared")
        builder.info.dataset_size = sum(split.num_bytes for split in builder.info.splits.values())
        # Written once more, since the library knows how its own values look as JSON.
        builder.info.write_to_directory(folder)
        info = json.loads(Path(folder, _INFO).read_text("utf-8"))
        yield {"name": builder.config.name, "version": str(builder.config.version), "info": info}


def _check_files(data_files: dict[str, list[str]], roots: Sequence[str]) -> None:
    """Refuse files beside the repository, which a card can name; so does the library online."""
    for files in data_files.values():
        for file in files:
            if not _is_below(file, roots):
                raise ValueError(f"the card names a file beside the repository: {file}")


def _is_below(path: str, roots: Sequence[str]) -> bool:
    """By name only: what links in the repository point to is the caller's."""
    return os.path.normpath(path).startswith(tuple(f"{root}/" for root in roots))


def _is_bound(files: Sequence[str], features: Any, places: Sequence[str]) -> bool:
    """Whether rows may point to files, as `features` say, or hold one of `places`."""
    embed = import_module("datasets.features.features").require_storage_embed
    if features is not None and any(embed(feature) for feature in features.values()):
        return True
    for file in files:
        with open(file, "rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as data:
            if any(data.find(os.fsencode(place)) >= 0 for place in places):
                return True
    return False


def _unbind(file: str, roots: Sequence[str], scratch: str) -> int:
    """Take images and the like into the rows, and make paths relative; gives the bytes of all rows.

    The library leaves a file of its own, such as a picture, where it is, and keeps its path.
    """
    pyarrow = import_module("pyarrow")
    compute = import_module("pyarrow.compute")
    table_module = import_module("datasets.table")
    draft = f"{file}.draft"
    size = 0
    with (
        pyarrow.OSFile(file) as stream,
        pyarrow.ipc.open_stream(stream) as batches,
        pyarrow.OSFile(draft, "wb") as target,
        pyarrow.ipc.new_stream(target, batches.schema) as writer,
    ):
        for batch in batches:
            for array in batch.columns:
                for path in _pointers(pyarrow, array):
                    # A file in an archive is zip://<file>::<archive>.
                    hops = [hop for hop in path.split("::") if not hop.startswith("zip://")]
                    if not all(_is_below(hop, (*roots, scratch)) for hop in hops):
                        raise ValueError(f"a row points to a file beside the repository: {path}")
            rows = table_module.embed_table_storage(pyarrow.Table.from_batches([batch]))
            for index, field in enumerate(rows.schema):
                if field.type in (pyarrow.string(), pyarrow.large_string()):
                    column = rows.column(index)
                    for root in roots:
                        column = compute.replace_substring(column, f"{root}/", "")
                    rows = rows.set_column(index, field, column)
            writer.write_table(rows)
            size += rows.nbytes
    os.replace(draft, file)
    return size


def _pointers(pyarrow: Any, array: Any) -> Iterator[str]:
    """The paths in `array` that stand for content, however deep."""
    if pyarrow.types.is_struct(array.type):
        fields = {field.name: array.field(index) for index, field in enumerate(array.type)}
        if fields.keys() == {"bytes", "path"}:
            pairs = zip(fields["bytes"].to_pylist(), fields["path"].to_pylist(), strict=True)
            yield from (path for content, path in pairs if content is None and path is not None)
        else:
            for part in fields.values():
                yield from _pointers(pyarrow, part)
    elif isinstance(array, (pyarrow.ListArray, pyarrow.LargeListArray, pyarrow.FixedSizeListArray)):
        yield from _pointers(pyarrow, array.flatten())
