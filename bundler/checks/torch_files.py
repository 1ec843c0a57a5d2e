"""What torch.hub keeps: checkpoints, which it finds by their names, and the code of repositories.

The rules are torch/hub.py's: a checkpoint that is there is never compared with the hash in its
name; a repository without `:ref` is looked for as main, then as master.
"""

from __future__ import annotations

import os
from dataclasses import replace

from bundler.checks import Found, again_without, word
from bundler.code import HUBCONF
from bundler.content import Promise
from bundler.disk import entries
from bundler.environment import Roots
from bundler.errors import RequestError
from bundler.layouts.torch_hub import code_folder, hash_in_name
from bundler.lookups import Checkpoint, HubCode
from bundler.names import relative_path


def find_checkpoint(wanted: Checkpoint, spec: str, roots: Roots) -> Found:
    """The file that torch.hub would load instead of what is at an address.

    Raises RequestError for an address that names no file.
    """
    name = wanted.file_name
    try:
        relative_path(name)
    except ValueError as error:
        raise RequestError(f"{wanted.url} names no file: {error}") from None
    found = Found(spec, (name,))
    folder = roots.torch_home / "hub" / "checkpoints"
    if os.path.lexists(folder / name):
        found.add(name, folder / name)
        promised = wanted.digest.hex if wanted.digest else hash_in_name(wanted.url)
        if promised and name in found.files:
            found.promises[name] = Promise(sha256=promised)
        return found
    for place in (roots.torch_home, roots.torch_home / "checkpoints", roots.torch_home / "hub"):
        if os.path.isfile(place / name):
            goal = word(folder)
            found.missing(
                f"{name} is in {place}, but torch looks in {folder}",
                f"mkdir -p {goal} && mv {word(place / name)} {goal}",
            )
            return found
    if os.path.lexists(folder) and not os.access(folder, os.X_OK):
        found.closed(folder)
    else:
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
    folder = next((folder for folder in folders if os.path.isdir(folder)), folders[0])
    if not os.path.isdir(folder):
        named = {path.name.lower(): path.name for path in entries(hub) if os.path.isdir(path)}
        other = named.get(folder.name.lower())
        if other:
            found.missing(
                f"{hub / other} is written with other capitals than torch looks for",
                f"ln -s {word(other)} {word(folder)}",
            )
        else:
            found.missing(
                f"the code of {wanted.name} is not in {hub} as {folder.name}", found.bring
            )
        return found
    if not os.path.lexists(folder / HUBCONF):
        found.missing(f"{folder} has no {HUBCONF}", again_without(folder))
        return found
    found = replace(found, folder=folder)
    found.add(HUBCONF, folder / HUBCONF)
    trusted = hub / "trusted_list"
    if not os.path.lexists(trusted) and not os.access(hub, os.W_OK):
        found.hindered(
            f"torch.hub would make {trusted}, and may not", f"sudo touch {word(trusted)}"
        )
    if wanted.ref is None:
        ref = refs[folders.index(folder)]
        found.notes.append(
            f'torch.hub.load("{wanted.name}") asks the network for the branch first, which can '
            f'take minutes: write "{wanted.name}:{ref}", or start the program by bundler run'
        )
    return found
