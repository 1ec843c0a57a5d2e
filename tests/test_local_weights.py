"""Large files of this machine without a known digest: read once, and in the bundle as any other."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from bundler import pack, verify
from bundler.digest import Blob
from bundler.errors import BundlerError
from bundler.progress import Meter, Silent

NOISE = random.Random(7).randbytes(3 << 20)
LONG = NOISE * 2
FOLDERS: Mapping[str, Mapping[str, bytes]] = {
    "one file": {"model.safetensors": LONG},
    "one of the smallest that count": {"model.safetensors": NOISE[: 1 << 20]},
    "several, with small ones around": {
        "a.bin": NOISE[1:],
        "config.json": b"{}",
        "m/b.bin": LONG[2:],
        "z.bin": NOISE[: 2 << 20],
        "z.txt": b"last",
    },
    "one content several times": {"a.bin": NOISE, "b/a.bin": NOISE, "c.bin": LONG, "d.bin": NOISE},
    "of one size, unlike from the start": {"a.bin": NOISE, "b.bin": NOISE[::-1]},
    "of one size, unlike at the end": {"a.bin": NOISE, "b.bin": NOISE[:-1] + b"\0"},
    "with more names than a short manifest holds": {
        "a.bin": NOISE,
        **{f"{number:0200}.txt": b"text" for number in range(300)},
    },
    "and none at all": {"config.json": b"{}"},
}


def folder_of(files: Mapping[str, bytes], parent: Path) -> Path:
    folder = parent / "mine"
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@pytest.mark.parametrize("files", FOLDERS.values(), ids=FOLDERS.keys())
def test_the_bundle_is_the_one_of_who_knew_all_digests_before(
    tmp_path: Path, files: Mapping[str, bytes]
) -> None:
    folder = folder_of(files, tmp_path)
    late, pipe = tmp_path / "late.tar.zst", io.BytesIO()
    packed = pack([f"file:{folder}"], late, store=tmp_path / "store")
    # A pipe takes nothing back: what goes into it is known before.
    known = pack([f"file:{folder}"], pipe, store=tmp_path / "other")
    assert late.read_bytes() == pipe.getvalue()
    assert (packed.manifest, packed.digest, packed.size) == (
        known.manifest,
        known.digest,
        late.stat().st_size,
    )
    # And so it is when the store knows them from before.
    again = pack([f"file:{folder}"], tmp_path / "again.tar.zst", store=tmp_path / "store")
    assert (tmp_path / "again.tar.zst").read_bytes() == late.read_bytes()
    assert again.digest == packed.digest
    assert {
        str(entry.path): entry.blob for s in packed.manifest.snapshots for entry in s.files
    } == {name: Blob.of(content) for name, content in files.items()}
    assert verify(late).faults == ()


class _Meddling(Silent):
    """Does something to a file once the bundle is being written."""

    def __init__(self, path: Path, change: str) -> None:
        self._path = path
        self._change = change

    def start(self, what: str, total: int, done: int = 0) -> Meter:
        if what == "writing the bundle" and self._change:
            change, self._change = self._change, ""
            if change == "written to":
                with open(self._path, "r+b") as file:
                    file.seek(-1, io.SEEK_END)
                    file.write(b"!")
            elif change == "appended to":
                with open(self._path, "ab") as file:
                    file.write(b"!")
            elif change == "cut":
                self._path.write_bytes(NOISE[:-1])
            else:
                self._path.unlink()
        return super().start(what, total, done)


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ("written to", 4, r"model\.bin was changed while it was read: pack again$"),
        ("appended to", 4, r"model\.bin was changed while it was read: pack again$"),
        ("cut", 4, r"model\.bin was changed while it was read: pack again$"),
        ("removed", 2, r"cannot read .*model\.bin: No such file"),
    ],
)
def test_what_changes_while_it_is_packed_is_refused(
    tmp_path: Path, change: str, code: int, said: str
) -> None:
    folder = folder_of({"model.bin": NOISE, "config.json": b"{}"}, tmp_path)
    output = tmp_path / "bundle.tar.zst"
    output.write_bytes(b"an older one")
    with pytest.raises(BundlerError, match=said) as refused:
        pack(
            [f"file:{folder}"],
            output,
            store=tmp_path / "store",
            progress=_Meddling(folder / "model.bin", change),
        )
    assert refused.value.exit_code == code
    assert output.read_bytes() == b"an older one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle.tar.zst", "mine", "store"]
