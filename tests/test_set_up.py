"""What is set up here for the web, and wrongly: told once, and only to those who ask the web."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from command import NOWHERE, run
from loopback_hub import LoopbackHub

import bundler

FILES = {"config.json": b"{}", "model.safetensors": b"weights"}
WRONG: Mapping[str, tuple[str, str, str]] = {
    "a token that is none": ("HF_TOKEN", "hf_\u200bpasted", "copy it again"),
    "a proxy that is none": ("HTTPS_PROXY", "http://", "HTTPS_PROXY"),
    "certificates that are gone": ("SSL_CERT_FILE", "/nowhere.pem", "SSL_CERT_FILE"),
    "what huggingface_hub reads as a number": ("HF_HUB_ETAG_TIMEOUT", "abc", "huggingface_hub"),
}
"""A variable, its value, and what is told of it."""

pytestmark = pytest.mark.parametrize("wrong", WRONG)


@pytest.mark.parametrize(
    "specs",
    [
        pytest.param(("acme/tiny", "acme/other", "acme/third"), id="of a hub"),
        pytest.param(("https://127.0.0.1/a.pth", "https://127.0.0.1/b.pth"), id="of the web"),
    ],
)
def test_it_is_told_once(
    hub: LoopbackHub, tmp_path: Path, specs: tuple[str, ...], wrong: str
) -> None:
    variable, value, told = WRONG[wrong]
    env = {**NOWHERE, "HF_ENDPOINT": hub.url, variable: value}
    done = run("pack", *specs, home=tmp_path, env=env)
    assert (done.code, done.err.count("\n"), hub.requests) == (2, 1, []), done.err
    assert told in done.err
    assert specs[0] not in done.err  # It is no fault of a model.


def test_it_is_told_once_of_what_is_packed_again(
    hub: LoopbackHub, tmp_path: Path, wrong: str
) -> None:
    variable, value, told = WRONG[wrong]
    env = {**NOWHERE, "HF_ENDPOINT": hub.url}
    for name in ("acme/tiny", "acme/other"):
        hub.add(name, FILES)
    assert run("pack", "acme/tiny", "acme/other", home=tmp_path, env=env).code == 0
    hub.requests.clear()
    again = ("pack", "--locked", "bundle.tar.zst", "--store", "empty", "-o", "again.tar.zst")
    done = run(*again, home=tmp_path, env={**env, variable: value})
    assert (done.code, done.err.count("\n"), hub.requests) == (2, 1, []), done.err
    assert told in done.err
    assert run(*again, home=tmp_path, env=env).code == 0


def test_it_matters_to_nobody_who_packs_what_is_here(tmp_path: Path, wrong: str) -> None:
    variable, value, _ = WRONG[wrong]
    (tmp_path / "model").mkdir()
    for name, content in FILES.items():
        (tmp_path / "model" / name).write_bytes(content)
    done = run("pack", "file:model", home=tmp_path, env={**NOWHERE, variable: value})
    assert (done.code, done.err) == (0, "")
    packed = bundler.inspect(tmp_path / "bundle.tar.zst").manifest
    assert [snapshot.name for snapshot in packed.snapshots] == ["model"]
