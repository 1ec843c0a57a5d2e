"""Which names a bundle may hold: paths and texts that do no harm wherever they are used."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from bundler.errors import shown
from bundler.relative import RelativePath

MAX_PATH_LENGTH = 4096
MAX_NAME_LENGTH = 255
"""Bytes of UTF-8 in a whole path and in one component: the limits of Linux."""
MAX_DEPTH = 64
"""Components of a path: no model has more, and whoever walks them has to survive it."""
MAX_TEXT_LENGTH = 4096
"""Characters in any text of a manifest."""

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_DEVICE = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.IGNORECASE
)
_DEVICES = "con|prn|aux|nul|com|lpt"
_HARMLESS = re.compile(
    rf"(?!{_DEVICES})\w[\w.-]*(?:/(?!{_DEVICES})\w[\w.-]*){{0,{MAX_DEPTH - 1}}}",
    re.IGNORECASE | re.ASCII,
)
"""Nearly all paths, told at once."""
_DRIVE = re.compile(r"[A-Za-z]:")
_NOT_IN_WINDOWS = re.compile(r'[<>:"|?*]|[. ](/|$)')


def relative_path(text: str, deepest: int = MAX_DEPTH) -> RelativePath:
    """A path that stays below whatever folder it is joined to, under the rules of every system.

    `deepest`: how many components it may have.

    Raises ValueError, naming the fault, for an absolute path, `..` and `.`, empty components,
    backslashes and drive letters (a Windows path would leave the folder), device names (opening
    `aux.txt` there opens a device), control characters, lone surrogates and overlong names.
    """
    check_path(text, deepest)
    return text if isinstance(text, RelativePath) else RelativePath(text)


def check_path(text: str, deepest: int = MAX_DEPTH) -> None:
    """Raise as `relative_path` does."""
    if len(text) <= MAX_NAME_LENGTH and _HARMLESS.fullmatch(text):
        return
    if UNPRINTABLE.search(text):
        raise ValueError(f"a control character in {shown(text)}")
    if len(text.encode()) > MAX_PATH_LENGTH:
        raise ValueError(f"a path of more than {MAX_PATH_LENGTH} bytes: {shown(text)}")
    parts = text.split("/")
    if len(parts) > deepest:
        raise ValueError(f"a path of more than {deepest} components: {shown(text)}")
    for part in parts:
        if part in ("", ".", ".."):
            raise ValueError(f"the component {part!r} in the path {shown(text)}")
        if "\\" in part or _DRIVE.match(part):
            raise ValueError(f"a backslash or a drive in the path {shown(text)}")
        if _DEVICE.fullmatch(part):
            raise ValueError(f"the device name {shown(part)} in the path {shown(text)}")
        if len(part.encode()) > MAX_NAME_LENGTH:
            raise ValueError(f"more than {MAX_NAME_LENGTH} bytes in one component of {shown(text)}")


def folders_above(paths: Iterable[RelativePath]) -> set[RelativePath]:
    """Every folder on the way to one of `paths`, without the start of all."""
    found: set[RelativePath] = set()
    for path in paths:
        folder = path.parent
        while folder not in found and folder.parts:
            found.add(folder)
            folder = folder.parent
    return found


def unportable(paths: Iterable[str]) -> list[str]:
    """Those of `paths` that Windows and exFAT cannot hold, or not beside each other, sorted.

    They know no `< > : " | ? *`, drop a dot or a space at the end of a component, and take paths
    that differ in case alone for one.
    """
    paths = sorted(set(paths))
    alike = Counter(map(_in_capitals, paths))
    return [p for p in paths if _NOT_IN_WINDOWS.search(p) or alike[_in_capitals(p)] > 1]


def _in_capitals(path: str) -> str:
    """As those systems compare names: letter by letter, so that `ß` is not `ss`."""
    if path.isascii():
        return path.upper()
    return "".join(c.upper() if len(c.upper()) == 1 else c for c in path)


def plain_text(text: str) -> str:
    """`text` as it may stand in a manifest: without control characters, not too long."""
    escaped = UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)
    return escaped[:MAX_TEXT_LENGTH]
