"""A model from a hub on the loopback address into an empty cache.

By `hf download`, and by `bundler pack` up to where the bundle begins to be written. Both start a
process of their own and ask for the same files. bundler also compares every byte with its digest;
hf does not. Run as a program, this is such a `bundler pack MODEL --store STORE`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.hub import loopback_hub
from benchmarks.results import Row, faster
from benchmarks.rounds import Contestant, rounds
from benchmarks.runs import Settings

MODEL = "bench/model"
SHARDS = 4
SMALL_FILES = 20

HF = Contestant("hf download", ("hf",), {"download": f"hf download {MODEL}"})
BUNDLER = Contestant(
    "bundler",
    ("bundler",),
    {"download": f'cd "$SCRIPTS"; python -m benchmarks.download {MODEL} "$HERE/store"'},
)


def download(settings: Settings, document: dict[str, Any]) -> list[Row]:
    """Beside hf download."""
    folder = settings.folder / "hub"
    _make_model(folder / MODEL, settings.size)
    with loopback_hub(folder) as endpoint:
        variables = {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(settings.folder / "here" / "hf"),
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "SCRIPTS": str(Path(__file__).parent.parent),
        }
        figures = rounds([HF, BUNDLER], folder, settings, variables)
    document["figures"]["download"] = figures.to_json()
    took = [figures.seconds(each.name, "download") for each in (BUNDLER, HF)]
    return [faster("download", took[0], HF.name, took[1], None)]


def _make_model(folder: Path, size: int) -> None:
    """Shards of random bytes, and some small files."""
    folder.mkdir(parents=True)
    for number in range(1, SHARDS + 1):
        with open(folder / f"model-{number:05}-of-{SHARDS:05}.safetensors", "wb") as file:
            for _ in range(size // SHARDS >> 20):
                file.write(os.urandom(1 << 20))
    for number in range(SMALL_FILES):
        (folder / f"config_{number}.json").write_text(json.dumps({"number": number}))


def pack_until_written(model: str, store: str) -> None:
    """Be `bundler pack`, and end where everything is downloaded and compared."""
    import bundler
    from bundler.progress import Meter, Silent

    class UntilWritten(Silent):
        def start(self, what: str, total: int, done: int = 0) -> Meter:
            if what == "writing the bundle":
                os._exit(0)
            return super().start(what, total, done)

    bundler.pack([model], os.devnull, store=store, progress=UntilWritten())
    sys.exit("nothing was written")


if __name__ == "__main__":
    pack_until_written(*sys.argv[1:])
