"""Packing through olah, a mirror server that others wrote, which stands in front of the hub.

The interpreter of an environment with olah is named by BUNDLER_TEST_PYTHON_OLAH; without it all of
this is skipped.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from command import NOWHERE, run
from loopback import Content, Fault
from olah_mirror import HubForOlah, olah_in_front_of

VARIABLE = "BUNDLER_TEST_PYTHON_OLAH"
OUR_NAME = "bundler"
WEIGHTS = random.Random(1).randbytes(9 * 1024 * 1024)
FILES: dict[str, Content] = {
    "config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "README.md": b"# A model\n" * 300,
    "vocab/all words.txt": b"a\nb\n",
    "vocab/ünï.txt": b"c\n",
    "empty.txt": b"",
}


@dataclass(frozen=True)
class Mirrored:
    """A hub, the address of the mirror in front of it, what that says, and a folder to work in."""

    hub: HubForOlah
    url: str
    output: Path
    folder: Path
    name: str
    """Of a repository that the mirror has not seen."""

    def pack(self, spec: str, *through: Literal["mirror", "hub"]) -> bytes:
        """The bundle that comes of packing, from nothing, through these endpoints."""
        home = self.folder / "-".join(through)
        home.mkdir()
        urls = {"mirror": self.url, "hub": self.hub.url}
        endpoints = [word for name in through for word in ("--endpoint", urls[name])]
        done = run("pack", spec, *endpoints, "-o", "bundle.tar.zst", home=home, env=NOWHERE)
        assert done.code == 0, done.err
        return (home / "bundle.tar.zst").read_bytes()

    def said(self) -> str:
        """What the mirror has written, with a line for each request."""
        return self.output.read_text()

    def asked_by_us(self) -> list[str]:
        """The paths at the hub, and at its CDN, that a pack has asked for without the mirror."""
        return [
            request.path
            for request in self.hub.requests
            if request.headers.get("user-agent") == OUR_NAME
        ]


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HubForOlah, str, Path]]:
    """One for all tests, since it takes long to start."""
    if VARIABLE not in os.environ:
        pytest.skip(f"{VARIABLE} names no interpreter with olah")
    folder = tmp_path_factory.mktemp("mirror") / "olah"
    with HubForOlah() as hub, olah_in_front_of(hub, folder, os.environ[VARIABLE]) as url:
        yield hub, url, folder / "output"


@pytest.fixture
def mirrored(mirror: tuple[HubForOlah, str, Path], tmp_path: Path) -> Mirrored:
    hub, url, output = mirror
    hub.requests.clear()
    hub.faults.clear()
    return Mirrored(hub, url, output, tmp_path, f"acme/tiny-{tmp_path.name.rpartition('_')[2]}")


def test_the_bundle_is_the_one_from_the_hub(mirrored: Mirrored) -> None:
    mirrored.hub.add(mirrored.name, FILES, license="mit")
    bundle = mirrored.pack(mirrored.name, "mirror")
    assert mirrored.asked_by_us() == []
    assert bundle == mirrored.pack(mirrored.name, "hub")
    assert mirrored.asked_by_us() != []


def test_a_mirror_that_has_a_file_asks_for_it_no_more(mirrored: Mirrored) -> None:
    """A second pack, which has nothing of the first, brings no byte of content from the hub."""
    mirrored.hub.add(mirrored.name, FILES)
    bundle = mirrored.pack(mirrored.name, "mirror")
    mirrored.hub.requests.clear()
    assert bundle == mirrored.pack(mirrored.name, "mirror", "hub")
    assert not [
        r
        for r in mirrored.hub.requests
        if r.method == "GET" and not r.path.startswith("/api/models/")
    ]


def test_a_listing_of_several_pages(mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch) -> None:
    """The links to the later ones lead past the mirror, which knows the first one only."""
    monkeypatch.setattr("loopback_hub.TREE_PAGE", 2)
    repo = mirrored.hub.add(mirrored.name, FILES)
    bundle = mirrored.pack(mirrored.name, "mirror")
    # Only for these is the hub asked itself.
    assert {path.partition("?")[0] for path in mirrored.asked_by_us()} == {
        f"/api/models/{mirrored.name}/tree/{repo.commit}"
    }
    assert bundle == mirrored.pack(mirrored.name, "hub")


def test_a_revision_with_a_slash_is_the_hubs_to_know(mirrored: Mirrored) -> None:
    """The mirror says that there is no such repository."""
    repo = mirrored.hub.add(mirrored.name, FILES)
    repo.commit_files({"config.json": b'{"newer": true}'}, branch="feature/x")
    bundle = mirrored.pack(f"{mirrored.name}@feature/x", "mirror", "hub")
    assert "feature" in mirrored.said()
    assert bundle == mirrored.pack(f"{mirrored.name}@feature/x", "hub")


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param({"a#b.txt": b"odd"}, id="it does not find a#b"),
        pytest.param({"a#b.txt": b"odd", "a": b"other"}, id="it sends a for a#b"),
        pytest.param({"a#b.txt": b"longer", "a": b"short"}, id="it breaks off a for a#b"),
        pytest.param({"what?.txt": b"odd"}, id="it does not find a question mark"),
        pytest.param({"%41.txt": b"odd", "A.txt": b"not"}, id="it sends A for %41"),
    ],
)
def test_a_name_that_the_mirror_gets_wrong(mirrored: Mirrored, odd: dict[str, Content]) -> None:
    """That file comes from the hub, and the weights from the mirror still."""
    mirrored.hub.add(mirrored.name, {**FILES, **odd})
    bundle = mirrored.pack(mirrored.name, "mirror", "hub")
    assert not [path for path in mirrored.asked_by_us() if "model.safetensors" in path]
    assert bundle == mirrored.pack(mirrored.name, "hub")


def test_damage_that_the_mirror_keeps(mirrored: Mirrored) -> None:
    """It does not compare what it has fetched with any digest, and sends it ever after."""
    mirrored.hub.add(mirrored.name, FILES)
    mirrored.hub.faults.append(Fault(r"model\.safetensors", server="cdn", flip=1000))
    bundle = mirrored.pack(mirrored.name, "mirror", "hub")
    asked = [r.headers["user-agent"] for r in mirrored.hub.requests if r.server == "cdn"]
    assert asked[0].startswith("python-httpx/")
    assert asked[-1] == "bundler"
    assert bundle == mirrored.pack(mirrored.name, "hub")
