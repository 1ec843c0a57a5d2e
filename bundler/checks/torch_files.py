"""What torch.hub keeps: checkpoints, which it finds by their names, and the code of repositories.

The rules are torch/hub.py's: a checkpoint that is there is never compared with the hash in its
name; a repository without `:ref` is looked for as main, then as master.
"""

from __future__ import annotations

import os
from shlex import quote

from bundler.checks import AGAIN, Found
from bundler.code import HUBCONF
from bundler.content import Promise
from bundler.environment import Roots
from bundler.errors import RequestError
from bundler.layouts.torch_hub import code_folder, hash_in_name
from bundler.lookups import Checkpoint, HubCode


def find_checkpoint(wanted: Checkpoint, spec: str, roots: Roots) -> Found:
    """The file that torch.hub would load instead of what is at an address."""
    name = wanted.file_name
    found = Found(spec, (name,))
    folder = roots.torch_home / "hub" / "checkpoints"
    if os.path.lexists(folder / name):
        if found.add(name, folder / name):
            promised = wanted.digest.hex if wanted.digest else hash_in_name(wanted.url)
            if promised:
                found.promises[name] = Promise(sha256=promised)
        return found
    for place in (roots.torch_home, roots.torch_home / "checkpoints", roots.torch_home / "hub"):
        if (place / name).is_file():
            origin, goal = quote(str(place / name)), quote(str(folder))
            found.missing(
                f"{name} is in {place}, but torch looks in {folder}",
                f"mkdir -p {goal} && mv {origin} {goal}",
            )
            return found
    found.missing(f"{name} is not in {folder}", found.bring)
    return found


def find_code(wanted: HubCode, spec: str, roots: Roots) -> Found:
    """The code that `torch.hub.load` would run. Raises RequestError for an impossible name."""
    refs = ("main", "master") if wanted.ref is None else (wanted.ref,)
    found = Found(spec, (wanted.name,))
    hub = roots.torch_home / "hub"
    try:
        folders = [roots.torch_home / code_folder(wanted.name, ref) for ref in refs]
    except ValueError as error:
        raise RequestError(str(error)) from None
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    if not folder.is_dir():
        by_letters = {name.lower(): name for name in _names(hub)}
        other = by_letters.get(folder.name.lower())
        if other:
            found.missing(
                f"{hub / other} is written with other capitals than torch looks for",
                f"ln -s {quote(other)} {quote(str(folder))}",
            )
        else:
            found.missing(
                f"the code of {wanted.name} is not in {hub} as {folder.name}", found.bring
            )
        return found
    if not (folder / HUBCONF).is_file():
        found.missing(f"{folder} has no {HUBCONF}", f"rm -r {quote(str(folder))}, and {AGAIN}")
        return found
    found.files[HUBCONF] = folder / HUBCONF
    if not (hub / "trusted_list").exists() and not os.access(hub, os.W_OK):
        found.hindered(
            f"torch.hub would make {hub / 'trusted_list'}, and may not",
            f"sudo touch {quote(str(hub / 'trusted_list'))}",
        )
    if wanted.ref is None:
        ref = refs[folders.index(folder)]
        found.notes.append(
            f'torch.hub.load("{wanted.name}") asks the network for the branch first, which can '
            f'take minutes: write "{wanted.name}:{ref}", or start the program by bundler run'
        )
    return found


def _names(folder: os.PathLike[str]) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
