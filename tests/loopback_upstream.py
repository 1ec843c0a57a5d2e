"""All that models come from, on the loopback address, and a folder to pack in; by the public API.

upstream = LoopbackUpstream(hub, web, tmp_path)
packed = upstream.pack("acme/tiny", "https://files.example/x.pth")
assert contents(packed) == digests(FILES)
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from loopback_hub import LoopbackHub
from loopback_web import LoopbackWeb
from memory_source import Files

import bundler
from bundler import Wanted
from bundler.digest import Digest


@dataclass
class LoopbackUpstream:
    """`options` of `bundler.pack` may be given wherever something is planned or packed."""

    hub: LoopbackHub
    web: LoopbackWeb
    folder: Path

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle.tar.zst"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def options(
        self, mirrors: Sequence[str] | None = None, retries: int = 8, **options: Any
    ) -> dict[str, Any]:
        mirrors = self.web.mirrors if mirrors is None else mirrors
        where = bundler.Upstream((self.hub.url,), tuple(mirrors), retries=retries)
        return {"upstream": where, "store": self.store, **options}

    def plan(self, *specs: str | Wanted, **options: Any) -> bundler.PackPlan:
        return bundler.plan_pack(specs, **self.options(**options))

    def pack(self, *specs: str | Wanted, **options: Any) -> bundler.Packed:
        return bundler.pack(specs, self.bundle, **self.options(**options))

    def refusal(self, *specs: str | Wanted, **options: Any) -> bundler.BundlerError:
        """The error that packing `specs` ends with; there is no bundle then."""
        with pytest.raises(bundler.BundlerError) as caught:
            self.pack(*specs, **options)
        assert not self.bundle.exists()
        return caught.value


def contents(packed: bundler.Packed | bundler.Inspection) -> dict[str, Digest]:
    """Every file of a bundle by its path, but for what was made here."""
    return {
        str(entry.path): entry.blob.digest
        for snapshot in packed.manifest.snapshots
        if snapshot.layout != "hf-datasets"
        for entry in snapshot.files
    }


def digests(files: Files) -> dict[str, Digest]:
    return {path: Digest.of(content) for path, content in files.items()}


def zipped(files: Files) -> bytes:
    """A zip archive, the same whenever it is made."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        for path, content in files.items():
            writer.writestr(zipfile.ZipInfo(path, (2024, 1, 1, 0, 0, 0)), content)
    return archive.getvalue()
