"""Whether the variables of a shell let the libraries find their caches, and keep them silent.

Which library reads which is in huggingface_hub/constants.py, transformers 4's utils/hub.py,
sentence_transformers/base/model.py and datasets/config.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from bundler.checks import Fault, word
from bundler.environment import TRUE, Roots
from bundler.errors import TargetError


def shell_faults(
    variables: Mapping[str, str], roots: Roots, *, datasets: bool = False, sentences: bool = False
) -> list[Fault]:
    """What is wrong with `variables` for programs that are to read the Hub's cache at `roots`.

    `datasets`, `sentences`: one of them loads a dataset, or a model of sentence-transformers.
    """
    faults = []

    def say(text: str, cure: str) -> None:
        faults.append(Fault(text, cure, TargetError))

    def value(name: str) -> str:
        return variables.get(name, "").upper()

    hub, transformers, own = map(
        value, ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
    )
    if hub and hub not in TRUE:
        beats = ", and beats TRANSFORMERS_OFFLINE=1" if transformers in TRUE else ""
        said = word(variables["HF_HUB_OFFLINE"])
        say(f"HF_HUB_OFFLINE={said} means no{beats}", "export HF_HUB_OFFLINE=1")
    elif not hub and transformers not in TRUE:
        say(
            "HF_HUB_OFFLINE is not set in this shell, so libraries ask the network for minutes "
            "before they read the cache",
            "source offline.env, or export HF_HUB_OFFLINE=1",
        )
    if datasets and own and own not in TRUE:
        said = word(variables["HF_DATASETS_OFFLINE"])
        say(f"HF_DATASETS_OFFLINE={said} means no", "export HF_DATASETS_OFFLINE=1")
    readers = {"TRANSFORMERS_CACHE": "transformers before 5 looks"}
    if sentences:
        readers["SENTENCE_TRANSFORMERS_HOME"] = "sentence-transformers looks"
    for name, reader in readers.items():
        place = variables.get(name)
        if place and os.path.realpath(place) != os.path.realpath(roots.hub):
            say(f"{reader} in {place} instead of {roots.hub}, as {name} says", f"unset {name}")
    return faults
