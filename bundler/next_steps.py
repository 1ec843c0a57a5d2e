"""What to do with an environment file: each shell and program has its own way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from bundler.environment import Roots
from bundler.mounts import mount_options
from bundler.shells import EnvFormat


def next_steps(form: EnvFormat, file: Path, roots: Roots) -> Iterator[str]:
    """What makes programs find the caches at `roots` through `file`, line by line."""
    path = quote(str(file))
    in_powershell = "'" + str(file).replace("'", "''") + "'"
    options = "".join(f"{option} " for option in mount_options(roots))
    folder = '"$CONDA_PREFIX/etc/conda/activate.d"'
    where, command = {
        EnvFormat.SH: (f"in every shell that runs the models (dash: . {path})", f"source {path}"),
        EnvFormat.FISH: ("in every fish that runs the models", f"source {path}"),
        EnvFormat.POWERSHELL: ("in every PowerShell that runs the models", f". {in_powershell}"),
        EnvFormat.CMD: ("in every command prompt that runs the models", f'call "{file}"'),
        EnvFormat.DOCKER: (
            "for every container that runs the models",
            f"docker run --env-file {path} {options}IMAGE",
        ),
        EnvFormat.SYSTEMD: (
            "below [Service] in the unit that runs the models",
            f"EnvironmentFile={str(file).replace('%', '%%')}",
        ),
        EnvFormat.CONDA: (
            "in the conda environment of the models, which is then to be activated again",
            f"mkdir -p {folder} && cp {path} {folder}",
        ),
        EnvFormat.JSON: (
            "in the program that starts the models",
            f"set and unset what {path} says",
        ),
    }[form]
    yield f"next, {where}:"
    yield f"    {command}"


def caution(form: EnvFormat) -> Iterator[str]:
    """Who does not see the variables, although one may expect it."""
    if form in (EnvFormat.SH, EnvFormat.FISH, EnvFormat.CONDA):
        yield "sudo drops these (sudo -E keeps them); cron jobs and other users must source it too"
    elif form is EnvFormat.DOCKER:
        yield "containers need the folders at the same paths, and a user who may read them"
    elif form is EnvFormat.SYSTEMD:
        yield "a unit with ProtectHome= sees no folders below /home and /root"
