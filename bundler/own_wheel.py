"""bundler's own wheel, made again from what is installed: with no source, build tool or network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path

import bundler
from bundler.errors import RequestError
from bundler.timeless_zip import files_below, write_zip

_OF_THE_INSTALLATION = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}
"""What is written by whoever installs a wheel; some of it names folders of this machine."""


def write_own_wheel(folder: Path) -> Path:
    """The wheel of this bundler, written to `folder`; the same installation gives the same bytes.

    It does not matter whether bundler was installed from a wheel or is a checkout (pip's
    --editable). Raises RequestError if it was not installed at all.
    """
    try:
        distribution = Distribution.from_name("bundler")
    except PackageNotFoundError:
        raise RequestError("bundler itself is not installed here: pip install it first") from None
    if distribution.version != bundler.__version__:
        raise RequestError(
            f"bundler {bundler.__version__} runs here, and {distribution.version} is installed: "
            "pip install it again"
        )
    return write_wheel(distribution, files_below(Path(__file__).parent), folder)


def write_wheel(distribution: Distribution, code: Mapping[str, bytes], folder: Path) -> Path:
    """The wheel of an installed distribution with that `code`, written to `folder`.

    The format is that of the binary distribution format 1.0 (packaging.python.org).
    """
    files = dict(code)
    for entry in distribution.files or ():
        if entry.parts[0].endswith(".dist-info") and entry.name not in _OF_THE_INSTALLATION:
            files[entry.as_posix()] = Path(str(distribution.locate_file(entry))).read_bytes()
    (about,) = {name.partition("/")[0] for name in files if name.endswith(".dist-info/WHEEL")}
    rows = [f"{name},sha256={_urlsafe(files[name])},{len(files[name])}\n" for name in sorted(files)]
    files[f"{about}/RECORD"] = "".join([*rows, f"{about}/RECORD,,\n"]).encode()
    lines = files[f"{about}/WHEEL"].decode().splitlines()
    tags = [line.removeprefix("Tag: ").split("-") for line in lines if line.startswith("Tag: ")]
    # Several tags are told as one: every part of the name lists what that part of them is.
    parts = [".".join(dict.fromkeys(part)) for part in zip(*tags, strict=True)]
    path = folder / "-".join([about.removesuffix(".dist-info"), *parts])
    path = path.with_name(f"{path.name}.whl")
    write_zip(path, files)
    return path


def _urlsafe(content: bytes) -> str:
    digest = hashlib.sha256(content).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
