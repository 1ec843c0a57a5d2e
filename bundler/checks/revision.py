"""From a revision to the commit that the readers of huggingface_hub's cache find for it.

A commit's own hash is looked for among the snapshots; anything else is the name of a file in
`refs`, whose whole content is that of a folder in `snapshots` (huggingface_hub's
file_download.py). transformers takes a newline there with good grace, nobody else does.
"""

from __future__ import annotations

import os
from pathlib import Path

from bundler.checks import AGAIN, Found, word
from bundler.digest import SHA1
from bundler.disk import entries, files_below, start_of
from bundler.relative import RelativePath

_LONGEST_REF = 4096
"""Bytes that are read of a ref."""


def find_commit(found: Found, folder: Path, wanted: RelativePath) -> str | None:
    """The name of the snapshot in a repository's `folder`; None, with a fault noted, if none."""
    revision, ref = str(wanted), folder / "refs" / wanted
    there = [path.name for path in entries(folder / "snapshots") if os.path.isdir(path)]
    commits = [name for name in there if SHA1.fullmatch(name)]
    if revision in commits:
        return revision
    if SHA1.fullmatch(revision) or not os.path.isfile(ref):
        _explain_absence(found, folder, ref, revision, commits)
        return None
    try:
        text = start_of(ref, _LONGEST_REF).decode("utf-8")
    except PermissionError:
        found.closed(ref)
        return None
    except (OSError, UnicodeDecodeError):
        text = ""
    said = text.strip()
    if text in there:
        return text
    meant = [name for name in there if name == said] or [
        name for name in commits if len(said) >= 7 and name.startswith(said)
    ]
    if meant:
        found.damaged(f"{ref} holds more or less than a commit hash", _write(ref, meant[0]))
    elif SHA1.fullmatch(said):
        found.missing(
            f"{found.names[0]}: {revision} has moved to {said[:12]}, which is not here"
            + (f"; {', '.join(name[:12] for name in commits)} is" if commits else ""),
            _write(ref, *commits) if len(commits) == 1 else "unpack the bundle that has it",
        )
    else:
        found.damaged(
            f"{ref} holds no commit hash", _write(ref, *commits) if len(commits) == 1 else AGAIN
        )
    return None


def _explain_absence(
    found: Found, folder: Path, ref: Path, revision: str, commits: list[str]
) -> None:
    refs = folder / "refs"
    known = [path.relative_to(refs).as_posix() for path in files_below(refs)]
    begins = [name for name in commits if len(revision) >= 7 and name.startswith(revision)]
    meant = begins or ([] if known else commits)
    cure = "load one of these, or pack that one too"
    if len(meant) == 1 and not (SHA1.fullmatch(revision) or os.path.lexists(ref)):
        cure = _write(ref, meant[0])
    has = f"only {', '.join([*known, *commits])}" if known or commits else "nothing at all"
    if not known and not commits:
        cure = found.bring
    found.missing(f"{found.names[0]} has no revision {revision} in {folder}, {has}", cure)


def _write(ref: Path, commit_hash: str) -> str:
    """The command that makes `ref` hold just that."""
    before = "" if os.path.isdir(ref.parent) else f"mkdir -p {word(ref.parent)} && "
    return f"{before}printf %s {word(commit_hash)} >{word(ref)}"
