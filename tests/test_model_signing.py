"""Signatures as the official program of OpenSSF Model Signing reads and writes them.

The interpreter of an environment with it is named by BUNDLER_TEST_PYTHON_MODEL_SIGNING; without it
all of this is skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from memory_source import make_bundle

import bundler
from bundler.errors import TrustError

VARIABLE = "BUNDLER_TEST_PYTHON_MODEL_SIGNING"
KEPT = Path(__file__).parent / "data" / "format-1.tar.zst"
MODELS = {
    "acme/tiny": {"config.json": b"{}", "empty.txt": b"", "model.safetensors": b"w" * 1_200_000},
    "acme/other": {"config.json": b"[]", ".gitattributes": b"*.bin lfs"},
}


def model_signing(*arguments: object) -> tuple[int, str]:
    """How the official program ends, and what it says last."""
    python = os.environ.get(VARIABLE)
    if python is None:
        pytest.skip(f"{VARIABLE} names no Python with model-signing")
    done = subprocess.run(
        [python, "-m", "model_signing", *map(str, arguments)],
        env={"PATH": "/nowhere"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, (done.stdout + done.stderr).strip().splitlines()[-1]


def extracted(bundle: Path, folder: Path) -> Path:
    """The folder that anybody gets of a bundle with tar and zstd."""
    if shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")
    folder.mkdir()
    subprocess.run(["tar", "--zstd", "-xf", bundle, "-C", folder], check=True)
    return folder


@pytest.mark.parametrize("curve", [256, 384, 521])
def test_each_accepts_what_the_other_has_signed(tmp_path: Path, curve: int) -> None:
    pair = bundler.write_key_pair(tmp_path / "k.pem", curve)
    bundle, theirs = tmp_path / "b.tar.zst", tmp_path / "theirs.sig"
    packed = make_bundle(bundle, MODELS, sign=bundler.PrivateKey.read(pair.private))
    folder = extracted(bundle, tmp_path / "extracted")
    verify = ("verify", "key", folder, "--public_key", pair.public, "--signature")
    assert model_signing(*verify, packed.signature) == (0, "Verification succeeded")

    sign = ("sign", "key", folder, "--private_key", pair.private, "--signature", theirs)
    assert model_signing(*sign) == (0, "Signing succeeded")
    signer = bundler.inspect(bundle, trusted=bundler.Trust.read([pair.public], theirs)).signer
    assert signer is not None
    assert signer.hint == pair.hint


def test_both_refuse_the_same(tmp_path: Path) -> None:
    pair = bundler.write_key_pair(tmp_path / "k.pem")
    other = bundler.write_key_pair(tmp_path / "other.pem")
    bundle = tmp_path / "b.tar.zst"
    make_bundle(bundle, MODELS, sign=bundler.PrivateKey.read(pair.private))
    folder = extracted(bundle, tmp_path / "extracted")
    verify = ("verify", "key", folder, "--signature", f"{bundle}.sig", "--public_key")

    code, said = model_signing(*verify, other.public)
    assert (code, "Key mismatch" in said) == (1, True)
    with pytest.raises(TrustError, match="not trusted here"):
        bundler.inspect(bundle, trusted=bundler.Trust.read([other.public]))

    (folder / "more.txt").write_text("beside what was signed")
    code, said = model_signing(*verify, pair.public)
    assert (code, "Extra files found" in said) == (1, True)
    theirs = tmp_path / "theirs.sig"
    sign = ("sign", "key", folder, "--private_key", pair.private, "--signature", theirs)
    assert model_signing(*sign) == (0, "Signing succeeded")
    with pytest.raises(TrustError, match="lists other members than the bundle has"):
        bundler.inspect(bundle, trusted=bundler.Trust.read([pair.public], theirs))


def test_it_accepts_the_kept_signature(tmp_path: Path) -> None:
    folder = extracted(KEPT, tmp_path / "extracted")
    key = KEPT.with_name("format-1.pub.pem")
    verify = ("verify", "key", folder, "--public_key", key, "--signature", f"{KEPT}.sig")
    assert model_signing(*verify) == (0, "Verification succeeded")
