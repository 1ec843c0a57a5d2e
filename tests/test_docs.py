"""What the documents say is what the program does: every command and every message in them."""

from __future__ import annotations

import difflib
import os
import random
import re
import shutil
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
CHINESE = (ROOT / "README.zh-CN.md").read_text()
FORMAT = (ROOT / "bundler" / "FORMAT.md").read_text()
MODULES = b'[{"path": "", "type": "sentence_transformers.models.Transformer"}]'
NO_TENSORS = b"\x02\0\0\0\0\0\0\0{}"
PART = re.compile(
    r"^```(\w*)\n(.*?)^```$|^((?:\|[^\n]*\n){2,})|^(###?) ([^\n]*)$", re.DOTALL | re.MULTILINE
)
COMMANDS = (
    "pack", "unpack", "check", "env", "run", "inspect", "verify", "diff", "installed", "inventory",
    "remove", "store", "keygen",
)  # fmt: skip


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def facts(text: str) -> list[str]:
    """What stays as it is in every language: inline code and figures, each once, in order."""
    return sorted({" ".join(fact.split()) for fact in re.findall(r"`[^`]+`|\d+(?:\.\d+)*", text)})


def skeleton(text: str) -> list[tuple[str, str]]:
    """What stays as it is in every language, and where: headings, code, tables, then the prose."""
    found, blocks, tables = [], 0, 0
    for language, code, table, level, title in PART.findall(text):
        if level:
            found.append((level, f"heading: {title}"))
        elif table:
            tables += 1
            header, _, *rows = table.splitlines()
            for row, line in enumerate([header, *rows]):
                cells = [" ".join(facts(cell)) for cell in re.split(r"(?<!\\)\|", line)]
                found.append((" | ".join(cells), f"table {tables}, row {row}: {line}"))
        else:
            blocks += 1
            found.append((f"```{language}", f"block {blocks}: ```{language}"))
            for row, line in enumerate(code.splitlines(), 1):
                # A # within a word, as in torchhub:owner/repo#entry, begins no comment.
                command = re.sub(r"(^|\s)#.*", "", line).rstrip()
                found.append((command, f"block {blocks}, line {row}: {command}"))
    return found + [(fact, f"prose: {fact}") for fact in facts(PART.sub("", text))]


def differences(english: str, chinese: str) -> list[str]:
    """What one README has and the other has not, a line for each."""
    ours, theirs = skeleton(english), skeleton(chinese)
    contents = [content for content, _ in ours], [content for content, _ in theirs]
    matcher = difflib.SequenceMatcher(None, *contents, autojunk=False)
    found = []
    for what, start, end, their_start, their_end in matcher.get_opcodes():
        if what != "equal":
            found += [f"README.md alone has {place}" for _, place in ours[start:end]]
            found += [
                f"README.zh-CN.md alone has {place}" for _, place in theirs[their_start:their_end]
            ]
    return found


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


def test_the_repair_of_the_readme_works(
    hub: LoopbackHub, seeded: dict[str, str], tmp_path: Path
) -> None:
    weights = random.Random(0).randbytes(3 << 20)
    hub.add("acme/large", {"config.json": b"{}", "model.safetensors": weights})
    assert run("pack", "acme/large", "-o", "models.tar.zst", home=tmp_path, env=seeded).code == 0
    os.truncate(tmp_path / "models.tar.zst", 1 << 20)
    (script,) = (found[1] for found in PART.findall(README) if "--request need.json  " in found[1])
    done = subprocess.run(
        ["bash", "-uo", "pipefail", "-c", script],
        cwd=tmp_path, env=seeded, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = tmp_path.glob(".cache/huggingface/hub/*/snapshots/*/model.safetensors")
    assert [path.read_bytes() == weights for path in found] == [True]


@pytest.mark.skipif(shutil.which("par2") is None, reason="par2 is not installed")
def test_the_mending_of_the_readme_works(seeded: dict[str, str], tmp_path: Path) -> None:
    (script,) = (found[1] for found in PART.findall(README) if "--parity" in found[1])
    pack, mend = script.splitlines()
    damage = "printf x | dd of=models.tar.zst bs=1 seek=99 conv=notrunc status=none"
    done = subprocess.run(
        ["bash", "-euc", f"{pack}\n{damage}\n{mend}"],
        cwd=tmp_path, env=seeded, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "mended: models.tar.zst\n" in done.stdout


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


def test_both_readmes_have_the_same_commands_rows_and_figures() -> None:
    found = differences(README, CHINESE)
    assert not found, "\n".join(["the READMEs are out of step:", *found])


ENGLISH_EXAMPLE = """# bundler
## Use it
Takes 30 s (`--timeout`).
```bash
# First this,
bundler pack torchhub:a/b#c  # then nothing
bundler store
```
| message | what to do |
| --- | --- |
| `is gated` | Log in: `hf auth login`. |
| slow | 116 s |
"""
CHINESE_EXAMPLE = """# bundler
## 用法
`--timeout` 是 30 秒
```bash
# 首先
bundler pack torchhub:a/b#c  # 然后
bundler store
```
| 信息 | 办法 |
| --- | --- |
| `is gated` | 用 `hf auth login` 登录 |
| 慢 | 116 秒 |
"""


def test_readmes_that_differ_in_language_alone_are_in_step() -> None:
    assert differences(ENGLISH_EXAMPLE, CHINESE_EXAMPLE) == []


@pytest.mark.parametrize(
    ("old", "new", "english", "chinese"),
    [
        ("store\n", "run\n", "block 1, line 3: bundler run", "block 1, line 3: bundler store"),
        ("bundler store\n", "", None, "block 1, line 3: bundler store"),
        ("store\n", "store\nbundler env\n", "block 1, line 4: bundler env", None),
        ("b#c", "b#d", "block 1, line 2: bundler pack torchhub:a/b#d",
         "block 1, line 2: bundler pack torchhub:a/b#c"),
        ("```bash", "```", "block 1: ```", "block 1: ```bash"),
        ("`is gated`", "`is shut`", "table 1, row 1: | `is shut` | Log in: `hf auth login`. |",
         "table 1, row 1: | `is gated` | 用 `hf auth login` 登录 |"),
        ("hf auth", "hf", "table 1, row 1: | `is gated` | Log in: `hf login`. |",
         "table 1, row 1: | `is gated` | 用 `hf auth login` 登录 |"),
        ("116", "117", "table 1, row 2: | slow | 117 s |", "table 1, row 2: | 慢 | 116 秒 |"),
        ("| slow | 116 s |\n", "", None, "table 1, row 2: | 慢 | 116 秒 |"),
        ("## Use it", "### Use it", "heading: Use it", "heading: 用法"),
        ("30", "60", "prose: 60", "prose: 30"),
        ("`--timeout`", "`--retries`", "prose: `--retries`", "prose: `--timeout`"),
    ],
)  # fmt: skip
def test_a_change_of_one_readme_alone_is_told_with_its_place(
    old: str, new: str, english: str | None, chinese: str | None
) -> None:
    told = [f"README.md alone has {english}"] if english else []
    told += [f"README.zh-CN.md alone has {chinese}"] if chinese else []
    assert ENGLISH_EXAMPLE.count(old) == 1
    assert differences(ENGLISH_EXAMPLE.replace(old, new), CHINESE_EXAMPLE) == told


def test_each_readme_leads_to_the_other_at_its_top() -> None:
    assert README.splitlines()[2] == "[简体中文](README.zh-CN.md)"
    assert CHINESE.splitlines()[2] == "[English](README.md)"


@pytest.mark.parametrize(
    "name", ["README.md", "README.zh-CN.md", "bundler/FORMAT.md", ".github/SECURITY.md"]
)
def test_every_link_to_a_file_leads_to_one(name: str) -> None:
    links = re.findall(r"\]\(([^):#]+)(?:#[^)]*)?\)", (ROOT / name).read_text())
    assert "SECURITY.md" in name or any(link.endswith("SECURITY.md") for link in links)
    for link in links:
        assert (ROOT / name).parent.joinpath(link).is_file(), link


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
    assert len(options) >= 2
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
