"""Datasets as the library reads them offline: prepared here, copied elsewhere, loaded there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from bundler.errors import UnavailableError
from bundler.prepared import can_prepare, prepare

pytestmark = pytest.mark.skipif(not can_prepare(), reason="the datasets library is not installed")

NAME = "Acme-Labs/TinyData-Set_v2"
TOP = "Acme-Labs___tiny_data-set_v2"

LOAD = """
import json, sys
from datasets import load_dataset
loaded = load_dataset(*sys.argv[1:])
print(json.dumps({split: [dict(row) for row in rows] for split, rows in loaded.items()}))
"""
LOAD_SIZES = """
import json, sys
from datasets import load_dataset
loaded = load_dataset(*sys.argv[1:])
print(json.dumps({split: [row["image"].size for row in rows] for split, rows in loaded.items()}))
"""


class Repository:
    """A dataset repository as the caller shows it: links to read-only files elsewhere."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "tree"
        self._store = root / "store"
        self._store.mkdir(parents=True)
        self.folder.mkdir()

    def add(self, path: str, content: str | bytes) -> Repository:
        blob = self._store / f"{len(list(self._store.iterdir())):064x}"
        blob.write_bytes(content if isinstance(content, bytes) else content.encode())
        blob.chmod(0o444)
        link = self.folder / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
        return self


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def air_gap() -> list[str]:
    """The start of a command that runs without a network."""
    for command in (["unshare", "-n"], ["unshare", "-rn"]):
        if not subprocess.run([*command, "true"], stderr=subprocess.DEVNULL).returncode:
            return command
    pytest.skip("this system refuses unshare -n")


def load(tmp_path: Path, work: Path, *arguments: str, script: str = LOAD) -> Any:
    """What the library loads from a copy of `work`, in a child that has no network."""
    cache, home = tmp_path / "cache", tmp_path / "home"
    shutil.copytree(work, cache, dirs_exist_ok=True)
    home.mkdir(exist_ok=True)
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "HF_DATASETS_CACHE": str(cache)}
    process = subprocess.run(
        [*air_gap(), sys.executable, "-c", script, *arguments],
        cwd=home,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert not process.returncode, process.stderr
    return json.loads(process.stdout)


def contents(work: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(work)): path.read_bytes()
        for path in sorted(work.rglob("*"))
        if path.is_file()
    }


def written(code: str) -> bytes:
    """What `code` writes to its standard output, from a process of its own."""
    return subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout


def csv_repository(repository: Repository) -> Repository:
    repository.add("README.md", "# Tiny\n").add(".gitattributes", "* text\n")
    repository.add("train.csv", "a,b\n1,x\n2,é\n")
    return repository.add("test.csv", "a,b\n3,z\n")


def test_csv_files_load_with_and_without_the_name_of_their_config(
    repository: Repository, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    paths = prepare(NAME, csv_repository(repository).folder, work)
    expected = {"train": [{"a": 1, "b": "x"}, {"a": 2, "b": "é"}], "test": [{"a": 3, "b": "z"}]}
    assert load(tmp_path, work, NAME) == expected
    assert load(tmp_path, work, NAME, "default") == expected
    digest = paths[0].parts[3]
    folder = f"{TOP}/default/0.0.0/{digest}"
    assert [str(path) for path in paths] == [
        f"{folder}/dataset_info.json",
        f"{folder}/tiny_data-set_v2-test.arrow",
        f"{folder}/tiny_data-set_v2-train.arrow",
    ]
    assert list(contents(work)) == [str(path) for path in paths]
    assert [path.name for path in work.iterdir()] == [TOP]


def test_two_preparations_give_the_same_bytes_and_tell_nothing_of_the_machine(
    repository: Repository, tmp_path: Path
) -> None:
    first, second = tmp_path / "one", tmp_path / "another" / "deeper"
    prepare(NAME, csv_repository(repository).folder, first)
    other = csv_repository(Repository(tmp_path / "a repository elsewhere"))
    prepare(NAME, other.folder, second)
    assert contents(first) == contents(second)
    for content in contents(first).values():
        assert os.fsencode(tmp_path) not in content
        assert os.fsencode(Path.home()) + b"/" not in content
        assert b"pytest" not in content
        assert b"checksum" not in content


def test_other_content_has_another_hash(repository: Repository, tmp_path: Path) -> None:
    one = prepare(NAME, csv_repository(repository).folder, tmp_path / "one")
    other = Repository(tmp_path / "other").add("train.csv", "a,b\n1,x\n2,e\n")
    two = prepare(NAME, other.folder, tmp_path / "two")
    assert one[0].parts[3] != two[0].parts[3]


def test_json_lines_and_a_bare_name(repository: Repository, tmp_path: Path) -> None:
    rows = [{"q": "one", "tags": ["a", "b"]}, {"q": "two", "tags": []}]
    repository.add("data/train.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    prepare("TinyLines", repository.folder, tmp_path / "work")
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["tiny_lines"]
    assert load(tmp_path, tmp_path / "work", "TinyLines") == {"train": rows}


def test_parquet(repository: Repository, tmp_path: Path) -> None:
    content = written(
        "import sys, pyarrow, pyarrow.parquet; table = pyarrow.table({'n': [1, 2, None]}); "
        "pyarrow.parquet.write_table(table, sys.stdout.buffer)"
    )
    repository.add("data/validation-00000-of-00001.parquet", content)
    prepare(NAME, repository.folder, tmp_path / "work")
    rows = [{"n": 1}, {"n": 2}, {"n": None}]
    assert load(tmp_path, tmp_path / "work", NAME) == {"validation": rows}


TWO_CONFIGS = """---
configs:
- config_name: plain
  data_files: plain.csv
- config_name: Split-Up
  default: true
  data_files:
  - {split: train, path: parts/one.csv}
  - {split: dev, path: parts/two.csv}
---
"""


def test_configs_of_the_card_load_by_name(repository: Repository, tmp_path: Path) -> None:
    repository.add("README.md", TWO_CONFIGS).add("plain.csv", "a\n1\n")
    repository.add("parts/one.csv", "b\n2\n").add("parts/two.csv", "b\n3\n")
    work = tmp_path / "work"
    paths = prepare(NAME, repository.folder, work)
    assert {path.parts[1] for path in paths} == {"plain", "Split-Up"}
    assert len({path.parts[3] for path in paths}) == 1
    assert load(tmp_path, work, NAME, "plain") == {"train": [{"a": 1}]}
    assert load(tmp_path, work, NAME, "Split-Up") == {"train": [{"b": 2}], "dev": [{"b": 3}]}
    with pytest.raises(AssertionError, match=r"multiple .* configurations in the cache"):
        load(tmp_path, work, NAME)


def test_several_arrow_files_of_one_split(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import datasets.config\ndatasets.config.MAX_SHARD_SIZE = '1KB'\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(site))
    for number in range(3):
        lines = "".join(f"{number},{'x' * 20}\n" for _ in range(100))
        repository.add(f"data/train-0000{number}-of-00003.csv", f"a,b\n{lines}")
    paths = prepare(NAME, repository.folder, tmp_path / "work")
    assert [path.name for path in paths[1:]] == [
        f"tiny_data-set_v2-train-0000{number}-of-00003.arrow" for number in range(3)
    ]
    monkeypatch.delenv("PYTHONPATH")
    rows = load(tmp_path, tmp_path / "work", NAME)["train"]
    assert [row["a"] for row in rows] == [0] * 100 + [1] * 100 + [2] * 100


def test_pictures_are_taken_into_the_rows(repository: Repository, tmp_path: Path) -> None:
    if find_spec("PIL") is None:
        pytest.skip("Pillow is not installed")
    for number, label in ((1, "cat"), (2, "dog")):
        code = (
            "import sys; from PIL import Image; "
            f"Image.new('RGB', (2, {number})).save(sys.stdout.buffer, 'PNG')"
        )
        repository.add(f"train/{label}/{number}.png", written(code))
    work = tmp_path / "work"
    prepare(NAME, repository.folder, work)
    assert all(os.fsencode(tmp_path) not in content for content in contents(work).values())
    prepare(NAME, repository.folder, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(work)
    shutil.rmtree(repository.folder)
    sizes = load(tmp_path, work, NAME, script=LOAD_SIZES)
    assert sizes == {"train": [[2, 1], [2, 2]]}


def test_pictures_in_an_archive_are_taken_into_the_rows(
    repository: Repository, tmp_path: Path
) -> None:
    if find_spec("PIL") is None:
        pytest.skip("Pillow is not installed")
    code = """
import io, sys, zipfile
from PIL import Image
held = io.BytesIO()
with zipfile.ZipFile(held, "w") as archive:
    for height in (1, 2):
        picture = io.BytesIO()
        Image.new("RGB", (2, height)).save(picture, "PNG")
        archive.writestr(f"{height}.png", picture.getvalue())
sys.stdout.buffer.write(held.getvalue())
"""
    repository.add("train.zip", written(code))
    work = tmp_path / "work"
    prepare(NAME, repository.folder, work)
    assert all(os.fsencode(tmp_path) not in content for content in contents(work).values())
    shutil.rmtree(repository.folder)
    sizes = load(tmp_path, work, NAME, script=LOAD_SIZES)
    assert sizes == {"train": [[2, 1], [2, 2]]}


def test_the_place_of_an_archive_is_told_relative_to_the_repository(
    repository: Repository, tmp_path: Path
) -> None:
    code = """
import io, sys, tarfile
with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
    for name in ("0.txt", "0.json", "1.txt", "1.json"):
        member = tarfile.TarInfo(name)
        member.size = 2
        archive.addfile(member, io.BytesIO(b"{}"))
"""
    repository.add("shards/train-000.tar", written(code))
    prepare(NAME, repository.folder, tmp_path / "work")
    rows = load(tmp_path, tmp_path / "work", NAME)["train"]
    assert [(row["__key__"], row["__url__"]) for row in rows] == [
        ("0", "shards/train-000.tar"),
        ("1", "shards/train-000.tar"),
    ]


CARD = "---\nconfigs:\n- config_name: {name}\n  data_files: {files}\n---\n"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"README.md": "# Nothing\n"}, "data files"),
        ({"model.safetensors": "x"}, "data files"),
        ({"train.csv": "a,b\n1,2\n", "train-2.csv": "a,c\n1,2\n"}, "different"),
        ({"train.csv": "a,b\n1,2\n", "test.csv": "a,c\n1,2\n"}, "column names"),
        ({"train.parquet": "not parquet"}, "Parquet"),
        ({"train.jsonl": '{"a": 1\n{{{\n'}, "JSON"),
        ({"TinyData-Set_v2.py": "raise SystemExit\n", "train.csv": "a\n1\n"}, "script"),
        ({"README.md": CARD.format(name="..", files="a.csv"), "a.csv": "a\n1\n"}, "not found"),
        (
            {"README.md": CARD.format(name="x\n  version: ../y", files="a.csv"), "a.csv": "a\n1\n"},
            "component",
        ),
        ({"README.md": CARD.format(name='"a[b]"', files="a.csv"), "a.csv": "a\n1\n"}, "not found"),
        ({"README.md": CARD.format(name="x", files="https://127.0.0.1/a.csv")}, ""),
        ({"README.md": "---\nconfigs: [\n---\n", "a.csv": "a\n1\n"}, ""),
    ],
)
def test_what_cannot_be_prepared_is_told_in_one_line(
    repository: Repository, tmp_path: Path, files: dict[str, str], said: str
) -> None:
    for path, content in files.items():
        repository.add(path, content)
    work = tmp_path / "work"
    with pytest.raises(UnavailableError, match=f"cannot prepare {NAME}: .*{said}") as caught:
        prepare(NAME, repository.folder, work)
    message = str(caught.value)
    assert "\n" not in message
    assert str(tmp_path) not in message
    assert "/repository" not in message
    assert len(message) < 350
    assert not contents(work)


@pytest.mark.parametrize("path", ["{root}/secret.csv", "../../secret.csv"])
def test_a_card_cannot_name_files_beside_the_repository(
    repository: Repository, tmp_path: Path, path: str
) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    path = path.format(root=tmp_path)
    repository.add("README.md", CARD.format(name="x", files=path))
    with pytest.raises(UnavailableError) as caught:
        prepare(NAME, repository.folder, tmp_path / "work")
    assert str(tmp_path) not in str(caught.value)
    assert not contents(tmp_path / "work")


@pytest.mark.parametrize("form", ["{}", "{}::zip://x", "zip://x::{}", "file://{}"])
def test_a_row_cannot_point_to_files_beside_the_repository(
    repository: Repository, tmp_path: Path, form: str
) -> None:
    (tmp_path / "secret.png").write_text("secret")
    card = "---\ndataset_info:\n  features:\n  - {name: image, dtype: image}\n---\n"
    repository.add("README.md", card).add(
        "train.csv", f"image\n{form.format(tmp_path / 'secret.png')}\n"
    )
    with pytest.raises(UnavailableError, match="points to a file beside the repository"):
        prepare(NAME, repository.folder, tmp_path / "work")


def test_nothing_of_the_repository_is_imported(repository: Repository, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for module in ("json", "datasets", "pandas", "sitecustomize", "other"):
        repository.add(f"{module}.py", f"open({str(mark)!r}, 'w')\n")
    repository.add("train.csv", "a\n1\n")
    assert prepare(NAME, repository.folder, tmp_path / "work")
    assert not mark.exists()


def stub(tmp_path: Path, commands: str) -> str:
    """An executable in the place of Python."""
    path = tmp_path / "stub"
    path.write_text(f"#!/bin/sh\n{commands}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("commands", "said"),
    [
        ("kill -SEGV $$", "ended by SIGSEGV"),
        ("exit 3", "ended with 3"),
        ("yes out | head -c 1000000; echo 'terminate called'; echo; exit 1", "terminate called"),
        ("echo '{' > ../result.json", "ended with 0"),
    ],
)
def test_a_crash_of_the_library_is_told(
    repository: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    commands: str,
    said: str,
) -> None:
    monkeypatch.setattr(sys, "executable", stub(tmp_path, commands))
    with pytest.raises(UnavailableError, match=said):
        prepare(NAME, csv_repository(repository).folder, tmp_path / "work")


def test_an_interrupt_ends_the_child_and_leaves_nothing(
    repository: Repository, tmp_path: Path
) -> None:
    fifo, work = tmp_path / "fifo", tmp_path / "work"
    os.mkfifo(fifo)
    # Once more than a pipe holds is through, the parent has started its child and reads from it.
    script = f"head -c 1000000 /dev/zero; echo $$ > '{fifo}'; exec cat '{fifo}'"
    code = f"""
import signal, sys
from pathlib import Path
from bundler.prepared import prepare
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.executable = {stub(tmp_path, script)!r}
try:
    prepare({NAME!r}, Path({str(repository.folder)!r}), Path({str(work)!r}))
except KeyboardInterrupt:
    sys.exit(7)
"""
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        child = int(fifo.read_text())
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 7
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert list(work.iterdir()) == []


def test_the_caches_of_the_user_are_left_alone(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "user"
    home.mkdir()
    for variable in ("HOME", "XDG_CACHE_HOME", "HF_HOME", "HF_DATASETS_CACHE", "HF_MODULES_CACHE"):
        monkeypatch.setenv(variable, str(home))
    prepare(NAME, csv_repository(repository).folder, tmp_path / "work")
    assert list(home.rglob("*")) == []
