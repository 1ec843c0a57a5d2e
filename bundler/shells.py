"""Variables to set and to unset, as the text that each shell and program takes.

What each consumer makes of a line was measured: bash, zsh, dash, fish, docker's --env-file,
systemd's parser. What one cannot carry is refused, and never written in a way that it may misread.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path

from bundler.documents import MALFORMED
from bundler.environment import HIDING, Roots
from bundler.errors import RequestError, shown
from bundler.mounts import mount_options

_TEXT = "Written by bundler: makes libraries load from these caches and never ask a network."
_UNDO = "Written by bundler: takes the variables of its environment away again."
MARK = f"# {_TEXT}"
"""The first line of most environment files, by which bundler knows its own."""
_MARKS = (f"{MARK}\n", f"@rem {_TEXT}\r\n", f'{{\n "comment": "{_TEXT}",\n')
"""How an environment file begins, in one format or another."""
_CONTAINER_MODULES = Path("/tmp/huggingface/modules")
_NOT_UTF_8 = (r"[\ud800-\udfff]", "bytes that are no UTF-8")


class EnvFormat(str, Enum):
    """What reads an environment file."""

    SH = "sh"
    """bash, zsh, dash, and fish too."""
    FISH = "fish"
    POWERSHELL = "powershell"
    CMD = "cmd"
    DOCKER = "docker"
    """docker run --env-file."""
    SYSTEMD = "systemd"
    """EnvironmentFile= of a unit, and environment.d."""
    CONDA = "conda"
    """etc/conda/activate.d, and with nothing but `unset` deactivate.d."""
    JSON = "json"


ENV_FILE = "offline.env"
ENV_FILES = {
    EnvFormat.SH: ENV_FILE,
    EnvFormat.FISH: "offline.fish",
    EnvFormat.POWERSHELL: "offline.ps1",
    EnvFormat.CMD: "offline.bat",
    EnvFormat.DOCKER: "docker.env",
    EnvFormat.SYSTEMD: "systemd.env",
    EnvFormat.CONDA: "offline.sh",
    EnvFormat.JSON: "offline.json",
}
"""What the file is called, by what reads it, where the user says nothing else."""


def environment_text(form: EnvFormat, roots: Roots) -> str:
    """The text that makes libraries read the caches at `roots` and ask no network.

    Raises RequestError if the format cannot carry one of the paths.
    """
    if form not in _UNABLE_TO_UNSET:
        return assignments(form, roots.variables(), HIDING, _TEXT)
    comments = [_TEXT]
    if form is EnvFormat.DOCKER:
        # The caches are mounted to be read only, and code of models has to be copied somewhere.
        roots = replace(roots, modules=_CONTAINER_MODULES)
        options = "".join(f"{option} " for option in mount_options(roots))
        comments.append(f"docker run --env-file THIS_FILE {options}IMAGE")
    return assignments(form, {**roots.variables(), **roots.stand_ins()}, (), *comments)


def undo_text(form: EnvFormat, roots: Roots) -> str:
    """The text that removes again what `environment_text` sets. Raises RequestError."""
    if form in _UNABLE_TO_UNSET:
        raise RequestError(f"--undo: {_UNABLE_TO_UNSET[form]}")
    return assignments(form, {}, roots.variables(), _UNDO)


def assignments(
    form: EnvFormat, variables: Mapping[str, str], unset: Iterable[str], *comments: str
) -> str:
    """The text that sets `variables` and removes the variables `unset`, for `form`.

    Raises RequestError for a value that `form` cannot carry.
    """
    for name, value in variables.items():
        if what := _refused(form, value):
            near = [EnvFormat.POWERSHELL] if form is EnvFormat.CMD else []
            other = next((o for o in near if not _refused(o, value)), EnvFormat.SH)
            raise RequestError(
                f"{name} is {shown(value)}, and the format {form.value} cannot carry {what}: "
                f"use the format {other.value}, or another folder"
            )
    return _WRITERS[form](comments, variables, [*unset])


def _refused(form: EnvFormat, value: str) -> str | None:
    """What of `value` the format cannot carry."""
    found = (what for pattern, what in _REFUSED.get(form, ()) if re.search(pattern, value))
    return next(found, None)


def is_own(text: str) -> bool:
    """Whether that is an environment file that bundler wrote, in whatever format."""
    return text.startswith(_MARKS)


def read_variables(form: EnvFormat, text: str) -> dict[str, str]:
    """What the environment file `text` sets; nothing, for formats that are not read back."""
    said: Iterable[str] = ()
    try:
        if form is EnvFormat.JSON:
            return {str(name): str(value) for name, value in json.loads(text)["set"].items()}
        if form in (EnvFormat.SH, EnvFormat.CONDA):
            said = shlex.split(text, comments=True)
        elif form is EnvFormat.DOCKER:
            said = (line for line in text.split("\n") if not line.startswith("#"))
    except MALFORMED:
        return {}  # It was edited, or cut.
    pairs = (assignment.partition("=") for assignment in said)
    return {name: value for name, equals, value in pairs if equals}


def _sh(comments: Sequence[str], variables: Mapping[str, str], unset: Sequence[str]) -> str:
    """For bash, zsh, dash and fish, under `set -eu` too.

    `unset` is a builtin in the first three and no command at all in fish, which tells them apart
    without a syntax error in either; the last word keeps a status of 0 where nothing was to unset.
    """
    names = " ".join(unset)
    return _lines(
        *(f"# {comment}" for comment in comments),
        *(f"export {name}={_quoted(value)}" for name, value in variables.items()),
        f"command -v unset >/dev/null && unset {names} || set -e {names} || true",
    )


def _fish(comments: Sequence[str], variables: Mapping[str, str], unset: Sequence[str]) -> str:
    return _lines(
        *(f"# {comment}" for comment in comments),
        *(f"set -gx {name} {_quoted(value)}" for name, value in variables.items()),
        f"set -e {' '.join(unset)}; or true",
    )


def _powershell(comments: Sequence[str], variables: Mapping[str, str], unset: Sequence[str]) -> str:
    """In ASCII: Windows PowerShell reads a file in the code page of the machine.

    It also takes typographic quotes for plain ones, so that letters beyond ASCII go by number.
    """

    def quoted(value: str) -> str:
        words = "'" + value.replace("'", "''") + "'"
        return re.sub(
            r"[^ -~]", lambda c: f"' + [char]::ConvertFromUtf32({ord(c[0])}) + '", words
        ).replace(" + '' + ", " + ")

    return _lines(
        *(f"# {comment}" for comment in comments),
        *(f"$env:{name} = {quoted(value)}" for name, value in variables.items()),
        *(f"Remove-Item Env:{name} -ErrorAction SilentlyContinue" for name in unset),
    )


def _cmd(comments: Sequence[str], variables: Mapping[str, str], unset: Sequence[str]) -> str:
    return _lines(
        *(f"@rem {comment}" for comment in comments),
        *(f'@set "{name}={value.replace("%", "%%")}"' for name, value in variables.items()),
        *(f'@set "{name}="' for name in unset),
    ).replace("\n", "\r\n")


def _docker(comments: Sequence[str], variables: Mapping[str, str], unset: Sequence[str]) -> str:
    assert not unset
    return _lines(
        *(f"# {comment}" for comment in comments),
        *(f"{name}={value}" for name, value in variables.items()),
    )


def _systemd(comments: Sequence[str], variables: Mapping[str, str], unset: Sequence[str]) -> str:
    assert not unset
    escaped = {name: re.sub(r'(["\\`])', r"\\\1", value) for name, value in variables.items()}
    return _lines(
        *(f"# {comment}" for comment in comments),
        *(f'{name}="{value}"' for name, value in escaped.items()),
    )


def _json(comments: Sequence[str], variables: Mapping[str, str], unset: Sequence[str]) -> str:
    document = {"comment": " ".join(comments), "set": dict(variables), "unset": list(unset)}
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def _lines(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)


def _quoted(value: str) -> str:
    """`value` as one word: quoted, but for `'` everywhere and the backslash, which fish expands."""
    word, plain = "", ""
    for character in value:
        if character in "'\\":
            word += (f"'{plain}'" if plain else "") + "\\" + character
            plain = ""
        else:
            plain += character
    return word + (f"'{plain}'" if plain or not word else "")


_Writer = Callable[[Sequence[str], Mapping[str, str], Sequence[str]], str]
_WRITERS: Mapping[EnvFormat, _Writer] = {
    EnvFormat.SH: _sh,
    EnvFormat.FISH: _fish,
    EnvFormat.POWERSHELL: _powershell,
    EnvFormat.CMD: _cmd,
    EnvFormat.DOCKER: _docker,
    EnvFormat.SYSTEMD: _systemd,
    EnvFormat.CONDA: _sh,
    EnvFormat.JSON: _json,
}
_REFUSED: Mapping[EnvFormat, Sequence[tuple[str, str]]] = {
    EnvFormat.POWERSHELL: [_NOT_UTF_8, ("^$", "nothing, which would remove it")],
    EnvFormat.CMD: [
        ("[\r\n]", "a line break"),
        ('"', 'a "'),
        ("[^ -~]", "what is not plain ASCII, which cmd reads in the code page of the console"),
        ("^$", "nothing, which would remove it"),
    ],
    EnvFormat.DOCKER: [("[\r\n]", "a line break"), _NOT_UTF_8],
    EnvFormat.SYSTEMD: [
        (r"\$", "a $, which environment.d would expand"),
        ("^$", "nothing"),
        _NOT_UTF_8,
    ],
    EnvFormat.JSON: [_NOT_UTF_8],
}
"""What a value must not match, and what that is called."""
_UNABLE_TO_UNSET = {
    EnvFormat.DOCKER: "an --env-file can only set variables: leave it out of `docker run`",
    EnvFormat.SYSTEMD: "an EnvironmentFile can only set variables: take it out of the unit",
}
"""And what to do instead."""
