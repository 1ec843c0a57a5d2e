"""Whether the variables of a shell let the libraries find their caches, and keep them silent.

Which library reads which is in huggingface_hub/constants.py, transformers 4's utils/hub.py,
sentence_transformers/base/model.py and datasets/config.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from shlex import quote

from bundler.checks import Fault
from bundler.environment import Roots
from bundler.errors import TargetError

_TRUE = {"1", "ON", "YES", "TRUE"}
"""What huggingface_hub takes for yes, in any case of letters; nothing else."""
_SOURCE = "source offline.env, or start the program by bundler run --"


def shell_faults(
    variables: Mapping[str, str], roots: Roots, *, datasets: bool = False
) -> list[Fault]:
    """What is wrong with `variables` for programs that are to read the Hub's cache at `roots`.

    `datasets`: one of them loads a dataset.
    """
    faults = []

    def say(text: str, cure: str) -> None:
        faults.append(Fault(text, cure, TargetError))

    hub, transformers = (
        variables.get("HF_HUB_OFFLINE", ""),
        variables.get("TRANSFORMERS_OFFLINE", ""),
    )
    if hub and hub.upper() not in _TRUE:
        beats = ", and beats TRANSFORMERS_OFFLINE=1" if transformers.upper() in _TRUE else ""
        say(f"HF_HUB_OFFLINE={quote(hub)} means no{beats}", "export HF_HUB_OFFLINE=1")
    elif not hub and transformers.upper() not in _TRUE:
        say(
            "HF_HUB_OFFLINE is not set in this shell, so libraries ask the network for minutes "
            "before they read the cache",
            _SOURCE,
        )
    own = variables.get("HF_DATASETS_OFFLINE", "")
    if datasets and own and own.upper() not in _TRUE:
        say(f"HF_DATASETS_OFFLINE={quote(own)} means no", "export HF_DATASETS_OFFLINE=1")
    for name, reader in (
        ("SENTENCE_TRANSFORMERS_HOME", "sentence-transformers looks"),
        ("TRANSFORMERS_CACHE", "transformers before 5 looks"),
    ):
        place = variables.get(name)
        if place and place != str(roots.hub):
            say(f"{reader} in {place} instead of {roots.hub}, as {name} says", f"unset {name}")
    return faults
