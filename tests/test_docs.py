"""What the documents say is what the program does: every command and every message in them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from command import command_environment, run
from loopback_hub import LoopbackHub
from loopback_web import LoopbackWeb

import bundler
from bundler.errors import EXIT_CODES
from bundler.manifest import Manifest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FORMAT = (ROOT / "bundler" / "FORMAT.md").read_text()
MODULES = b'[{"path": "", "type": "sentence_transformers.models.Transformer"}]'
NO_TENSORS = b"\x02\0\0\0\0\0\0\0{}"
COMMANDS = (
    "pack", "unpack", "check", "env", "run", "inspect", "verify", "installed", "remove", "store"
)  # fmt: skip


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def seeded(hub: LoopbackHub, web: LoopbackWeb, tmp_path: Path) -> dict[str, str]:
    """The environment of a reader of the README, with the models in it on the hub and the web."""
    files = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": NO_TENSORS}
    hub.add("google-bert/bert-base-uncased", files, aliases=["bert-base-uncased"])
    for name in ("facebook/wav2vec2-base", "openai-community/gpt2", "openai/clip-vit-base-patch32",
                 "lizhuang144/flan-t5-base-VG-factual-sg",
                 "timm/hrnet_w18.ms_aug_in1k"):  # fmt: skip
        hub.add(name, files)
    hub.add("sentence-transformers/all-MiniLM-L6-v2", {**files, "modules.json": MODULES})
    for checkpoint in ("resnet50-0676ba61.pth", "resnet50-11ad3fa6.pth"):
        web.add(f"https://download.pytorch.org/models/{checkpoint}", b"weights")
    web.add_repository("facebookresearch/dinov2", {"hubconf.py": b""})
    for size in "sblg":
        folder = f"https://dl.fbaipublicfiles.com/dinov2/dinov2_vit{size}14"
        web.add(f"{folder}/dinov2_vit{size}14_pretrain.pth", b"weights")
    for pack in ("buffalo_l", "buffalo_m", "buffalo_s"):
        web.add_release("deepinsight/insightface", "v0.7", f"{pack}.zip", b"PK")
    (tmp_path / "bundles").symlink_to(ROOT / "bundles")
    (tmp_path / "train.py").write_text("import os; assert os.environ['HF_HUB_OFFLINE'] == '1'\n")
    path = f"{Path(sys.executable).parent}:{command_environment(tmp_path)['PATH']}"
    upstream = {"HF_ENDPOINT": hub.url, "BUNDLER_MIRROR": " ".join(web.mirrors)}
    return {**command_environment(tmp_path), **upstream, "PATH": path}


def test_every_command_of_the_readme_works(seeded: dict[str, str], tmp_path: Path) -> None:
    script = "\n".join(blocks(README, "bash"))
    # Installed already; and the models of the example go below this test's folder.
    script = script.replace("pip install .\n", "").replace("/tmp/models", str(tmp_path / "models"))
    # What is packed after `source offline.env` is packed, in truth, on the other machine.
    script = script.replace("source offline.env", "(source offline.env && env >sourced.txt)")
    script = re.sub(r"^(bundler check .*)$", r"(source offline.env && \1)", script, flags=re.M)
    script = script.replace(
        "sha256:THE-ID-THAT-PACK-PRINTED",
        "$(bundler verify models.tar.zst | sed -n 's/^id //p')",
    )
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path, env=seeded, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "bundler: no attempt to reach the network\n")
    assert "HF_HUB_OFFLINE=1" in (tmp_path / "sourced.txt").read_text()
    assert len(re.findall(r"^wrote ", done.stdout, re.MULTILINE)) == script.count("-o ")


def test_the_python_of_the_readme_works(seeded: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks(README, "python"))],
        cwd=tmp_path, env=seeded, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert f"source {tmp_path / 'offline.env'}" in done.stdout


def test_every_message_that_the_readme_explains_is_one_of_the_program() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "bundler").rglob("*.py"))
    # A message may be split over lines and have values filled in: its fixed words are compared.
    said = re.sub(r'"\s*\n\s*f?"', "", sources)
    ours = README.split("## When something goes wrong")[1].split("And in your program")[0]
    rows = re.findall(r"^\| (`.+`) \|", ours, re.MULTILINE)
    messages = [message for row in rows for message in re.findall("`([^`]+)`", row)]
    assert len(messages) > 10
    for message in messages:
        assert message in said


def test_the_readme_and_every_help_text_have_all_exit_codes(tmp_path: Path) -> None:
    readme = " ".join(README.split())
    for code, meaning in EXIT_CODES.items():
        assert f"{code} {meaning}" in readme
    for command in COMMANDS:
        text = " ".join(run(command, "--help", home=tmp_path).out.split())
        for code, meaning in EXIT_CODES.items():
            assert f"{code} {meaning}" in text, command


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_help_text_and_an_environment_variable(
    tmp_path: Path, command: str
) -> None:
    told = run(command, "--help", home=tmp_path).out.split("Options:")[1].split("Exit codes:")[0]
    options = re.split(r"^  (?=-)", told, flags=re.MULTILINE)[1:]
    assert len(options) >= 3
    for option in options:
        words = " ".join(option.split())
        assert re.search(r"  \S", option.strip()), words
        assert "--help" in words or "env var: BUNDLER_" in words


def test_an_option_can_come_from_the_environment(seeded: dict[str, str], tmp_path: Path) -> None:
    given = {"BUNDLER_MODELS": "bert-base-uncased", "BUNDLER_OUTPUT": "from-env.tar.zst"}
    assert run("pack", home=tmp_path, env={**seeded, **given}).code == 0
    assert bundler.inspect(tmp_path / "from-env.tar.zst").manifest.snapshots


def test_the_manifest_in_the_format_document_is_one() -> None:
    (example,) = blocks(FORMAT, "json")
    (snapshot,) = Manifest.from_bytes(example.encode()).snapshots
    assert snapshot.names == ("bert-base-uncased", "google-bert/bert-base-uncased")
    assert snapshot.files
    assert snapshot.omitted


def test_the_public_interface_is_documented() -> None:
    for name in bundler.__all__:
        assert getattr(bundler, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = bundler.nothing
