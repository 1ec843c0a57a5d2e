"""The file that unpack writes: in every format, and extended by the next bundle."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bundle_builder import assembled, manifest_of, model_record, parts_of
from command import run
from memory_source import make_bundle
from test_env import READERS
from trees import stamps, tree

import bundler
from bundler.environment import find_roots
from bundler.shells import EnvFormat, environment_text

WEIGHTS = b"weights"
ENDINGS = {EnvFormat.POWERSHELL: ".ps1", EnvFormat.CMD: ".bat", EnvFormat.CONDA: ".sh"}
NEXT = {
    EnvFormat.SH: "    source {}\n",
    EnvFormat.FISH: "    source {}\n",
    EnvFormat.POWERSHELL: "    . '{}'\n",
    EnvFormat.CMD: '    call "{}"\n',
    EnvFormat.DOCKER: "    docker run --env-file {} -v {hf}:{hf}:ro IMAGE\n",
    EnvFormat.SYSTEMD: "    EnvironmentFile={}\n",
    EnvFormat.CONDA: '&& cp {} "$CONDA_PREFIX/etc/conda/activate.d"\n',
    EnvFormat.JSON: "    set and unset what {} says\n",
}
READ_BACK = [EnvFormat.SH, EnvFormat.CONDA, EnvFormat.DOCKER, EnvFormat.JSON]
NOTE = "led to other places before"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that goes into the hub."""
    path = tmp_path_factory.mktemp("model") / "model.tar.zst"
    make_bundle(path, {"org/tiny": {"config.json": b"{}"}})
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that goes into the folder of torch."""
    path = tmp_path_factory.mktemp("weights") / "weights.tar.zst"
    record = model_record(
        {"x.pth": WEIGHTS}, source="https", name="https://host.example/x.pth",
        layout="torch-checkpoints", kind=None, revision=None, commit_hash=None,
    )  # fmt: skip
    path.write_bytes(assembled(parts_of(manifest_of(record), [WEIGHTS])))
    return path


def file_of(form: EnvFormat, folder: Path) -> Path:
    return folder / f"my offline{ENDINGS.get(form, '.env')}"


def variables(form: EnvFormat, file: Path) -> dict[str, str]:
    """What the file sets, as its own reader, or for a shell bash, understands it."""
    if form in READERS:
        return READERS[form][0](file.read_text())
    tell = f'. "$1"; {sys.executable} -c "import json, os; print(json.dumps(dict(os.environ)))"'
    done = subprocess.run(["bash", "-euc", tell, "bash", file], stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("form", EnvFormat)
class TestFormat:
    """`--env-format` is that of the file."""

    def test_the_file_is_what_env_prints(
        self, form: EnvFormat, model: Path, tmp_path: Path
    ) -> None:
        file = file_of(form, tmp_path)
        options = ["--root", tmp_path / "root", "--env", file, "--env-format", form.value]
        ran = run("unpack", model, *options, home=tmp_path)
        assert (ran.code, ran.err) == (0, "")
        printed = run("env", *options[:2], "--format", form.value, home=tmp_path)
        assert file.read_bytes() == printed.raw

    def test_the_last_words_are_right_for_it(
        self, form: EnvFormat, model: Path, tmp_path: Path
    ) -> None:
        file = file_of(form, tmp_path)
        options = ["--root", tmp_path / "root", "--env", file, "--env-format", form.value]
        ran = run("unpack", model, *options, home=tmp_path)
        quoted = form not in (EnvFormat.POWERSHELL, EnvFormat.CMD, EnvFormat.SYSTEMD)
        name = f"'{file}'" if quoted else str(file)
        assert ran.out.endswith(NEXT[form].format(name, hf=tmp_path / "root/huggingface")), ran.out
        assert "next, " in ran.out

    def test_it_is_known_again_and_another_format_may_take_its_place(
        self, form: EnvFormat, model: Path, tmp_path: Path
    ) -> None:
        file = file_of(form, tmp_path)
        options = ["--root", tmp_path / "root", "--env", file]
        for again in (form, form, EnvFormat.SH):
            ran = run("unpack", model, *options, "--env-format", again.value, home=tmp_path)
            assert (ran.code, ran.err) == (0, "")
        roots = find_roots({}, root=tmp_path / "root")
        assert file.read_text() == environment_text(EnvFormat.SH, roots)

    @pytest.mark.parametrize("text", ["{}", '{"set": {}}', "@echo off\r\n", "# mine\n", "A=b\n"])
    def test_a_file_of_somebody_else_is_left_alone(
        self, form: EnvFormat, text: str, model: Path, tmp_path: Path
    ) -> None:
        file_of(form, tmp_path).write_text(text)
        before = tree(tmp_path)
        options = ["--env", file_of(form, tmp_path), "--env-format", form.value]
        ran = run("unpack", model, *options, home=tmp_path)
        assert (ran.code, ran.out, ran.err.count("\n")) == (6, "", 1)
        assert "is not bundler's own file" in ran.err
        assert tree(tmp_path) == before

    def test_the_same_bundle_again_leaves_the_same_bytes(
        self, form: EnvFormat, model: Path, weights: Path, tmp_path: Path
    ) -> None:
        file = file_of(form, tmp_path)
        contents = set()
        for bundle in (model, weights, model):
            options = ["--root", tmp_path / "root", "--env", file, "--env-format", form.value]
            ran = run("unpack", bundle, *options, home=tmp_path)
            assert (ran.code, ran.err) == (0, "")
            assert NOTE not in ran.out
            found = file.read_bytes()
            # The folders to be mounted are those that are there by then.
            contents.add(found.split(b"IMAGE\n")[-1])
        assert len(contents) == 1


@pytest.mark.parametrize("form", ENDINGS)
@pytest.mark.parametrize("dry_run", [True, False])
def test_a_name_that_its_reader_would_not_take_is_told_before_anything_is_written(
    form: EnvFormat, dry_run: bool, model: Path, tmp_path: Path
) -> None:
    options = ["--env", "offline.env", "--env-format", form.value, *["--dry-run"] * dry_run]
    ran = run("unpack", model, *options, home=tmp_path)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert f"--env offline{ENDINGS[form]}" in ran.err
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_root_that_the_format_cannot_carry_is_told_before_anything_is_written(
    dry_run: bool, model: Path, tmp_path: Path
) -> None:
    options = ["--root", tmp_path / "a\nb", "--env-format", "docker", *["--dry-run"] * dry_run]
    ran = run("unpack", model, *options, home=tmp_path)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "a line break" in ran.err
    assert tree(tmp_path) == {}


def test_the_library_has_formats_too(model: Path, tmp_path: Path) -> None:
    roots, file = find_roots({}, root=tmp_path), tmp_path / "x.env"
    result = bundler.unpack(model, roots=roots, env=file, env_format=EnvFormat.DOCKER)
    assert result.env == file
    assert result.env_roots == roots
    assert file.read_text() == environment_text(EnvFormat.DOCKER, roots)


class TestSecondBundle:
    """What the file led to before is found through it afterwards."""

    @pytest.mark.parametrize("form", READ_BACK)
    @pytest.mark.parametrize("turned", [False, True], ids=["model first", "weights first"])
    def test_another_option_leaves_the_first_place_as_it_was(
        self, form: EnvFormat, turned: bool, model: Path, weights: Path, tmp_path: Path
    ) -> None:
        file = file_of(form, tmp_path)
        steps = [(model, "--hf-home", "x '1"), (weights, "--torch-home", "y #2")]
        for bundle, option, name in reversed(steps) if turned else steps:
            options = [option, tmp_path / name, "--env", file, "--env-format", form.value]
            ran = run("unpack", bundle, *options, home=tmp_path)
            assert (ran.code, ran.err) == (0, "")
            assert NOTE not in ran.out
        found = variables(form, file)
        assert found["HF_HOME"] == str(tmp_path / "x '1")
        assert Path(found["HF_HUB_CACHE"], "models--org--tiny").is_dir()
        assert Path(found["TORCH_HOME"], "hub/checkpoints/x.pth").is_file()

    def test_the_receipt_goes_where_the_file_leads(
        self, model: Path, weights: Path, tmp_path: Path
    ) -> None:
        run("unpack", model, "--hf-home", tmp_path / "x", home=tmp_path)
        before = stamps(tmp_path / "x" / "hub")
        run("unpack", weights, "--torch-home", tmp_path / "y", home=tmp_path)
        assert len(list((tmp_path / "x/.bundler/receipts").iterdir())) == 2
        assert not (tmp_path / ".cache").exists()
        assert stamps(tmp_path / "x" / "hub") == before

    def test_a_root_that_was_used_is_kept_where_the_second_goes_elsewhere(
        self, model: Path, weights: Path, tmp_path: Path
    ) -> None:
        run("unpack", model, "--root", tmp_path / "r", home=tmp_path)
        ran = run("unpack", weights, home=tmp_path)
        assert NOTE not in ran.out
        found = variables(EnvFormat.SH, tmp_path / "offline.env")
        assert found["HF_HUB_CACHE"] == str(tmp_path / "r/huggingface/hub")
        assert found["TORCH_HOME"] == str(tmp_path / ".cache/torch")

    def test_a_root_that_is_lost_is_noted(self, model: Path, weights: Path, tmp_path: Path) -> None:
        run("unpack", model, "--root", tmp_path / "r", home=tmp_path)
        run("unpack", weights, "--root", tmp_path / "r", home=tmp_path)
        ran = run("unpack", model, home=tmp_path)
        assert NOTE in ran.out
        found = variables(EnvFormat.SH, tmp_path / "offline.env")
        assert found["HF_HOME"] == str(tmp_path / ".cache/huggingface")
        assert found["TORCH_HOME"] == str(tmp_path / "r/torch")

    def test_a_root_that_held_nothing_is_no_loss(
        self, model: Path, weights: Path, tmp_path: Path
    ) -> None:
        run("unpack", weights, "--root", tmp_path / "r", home=tmp_path)
        shutil.rmtree(tmp_path / "r")
        ran = run("unpack", weights, home=tmp_path)
        assert NOTE not in ran.out

    def test_an_option_always_wins(self, model: Path, weights: Path, tmp_path: Path) -> None:
        run("unpack", model, "--root", tmp_path / "r", home=tmp_path)
        ran = run("unpack", weights, "--root", tmp_path / "s", home=tmp_path)
        assert NOTE in ran.out
        found = variables(EnvFormat.SH, tmp_path / "offline.env")
        assert found["HF_HOME"] == str(tmp_path / "s/huggingface")

    @pytest.mark.parametrize(
        "form", [EnvFormat.FISH, EnvFormat.POWERSHELL, EnvFormat.CMD, EnvFormat.SYSTEMD]
    )
    def test_a_format_that_is_not_read_back_is_replaced_and_that_is_noted(
        self, form: EnvFormat, model: Path, weights: Path, tmp_path: Path
    ) -> None:
        file = file_of(form, tmp_path)
        for bundle, option, noted in (
            (model, "--hf-home", False),
            (model, "--hf-home", False),
            (weights, "--torch-home", True),
        ):
            options = [option, tmp_path / option[2:], "--env", file, "--env-format", form.value]
            ran = run("unpack", bundle, *options, home=tmp_path)
            assert (NOTE in ran.out) == noted

    @pytest.mark.parametrize(
        "text",
        [
            "export HF_HOME='",
            "HF_HOME=relative",
            "export HF_HOME=relative\n",
            "\udcff",
            "export HF_HOME=/\0",
        ],
    )
    def test_a_file_that_was_edited_is_no_fault(
        self, text: str, model: Path, weights: Path, tmp_path: Path
    ) -> None:
        run("unpack", model, "--root", tmp_path / "r", home=tmp_path)
        file = tmp_path / "offline.env"
        first, *_ = file.read_text().splitlines(keepends=True)
        file.write_bytes((first + text).encode(errors="surrogateescape"))
        ran = run("unpack", weights, "--torch-home", tmp_path / "t", home=tmp_path)
        assert (ran.code, ran.err) == (0, "")
        found = variables(EnvFormat.SH, file)
        assert found["HF_HOME"] == str(tmp_path / ".cache/huggingface")

    def test_a_home_that_cannot_be_written_to_gets_no_receipt_and_stays_in_the_file(
        self, model: Path, weights: Path, tmp_path: Path
    ) -> None:
        run("unpack", model, "--hf-home", tmp_path / "x", home=tmp_path)
        (tmp_path / "x").rename(tmp_path / "away")
        ran = run("unpack", weights, "--torch-home", tmp_path / "y", home=tmp_path)
        assert (ran.code, ran.err) == (0, "")
        assert not (tmp_path / "x").exists()
        (tmp_path / "away").rename(tmp_path / "x")
        found = variables(EnvFormat.SH, tmp_path / "offline.env")
        assert found["HF_HOME"] == str(tmp_path / "x")
        assert found["TORCH_HOME"] == str(tmp_path / "y")


def test_the_variables_of_the_command_name_the_format(model: Path, tmp_path: Path) -> None:
    given = {"BUNDLER_ENV_FORMAT": "docker", "BUNDLER_ENV": "x.env"}
    assert run("unpack", model, home=tmp_path, env=given).code == 0
    assert "\nHF_HUB_OFFLINE=1\n" in (tmp_path / "x.env").read_text()


def test_it_may_stand_in_the_root_that_is_made(tmp_path: Path) -> None:
    make_bundle(tmp_path / "a.tar.zst", {"acme/tiny": {"config.json": b"{}"}})
    arguments = ("a.tar.zst", "--root", "new/models", "--env")
    nowhere = run("unpack", *arguments, "other/offline.env", home=tmp_path)
    assert (nowhere.code, "cannot write offline.env in" in nowhere.err) == (6, True)
    assert not (tmp_path / "new").exists()
    done = run("unpack", *arguments, "new/models/offline.env", home=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert (tmp_path / "new" / "models" / "offline.env").is_file()


def test_what_says_the_same_is_not_written_again(tmp_path: Path) -> None:
    make_bundle(tmp_path / "a.tar.zst", {"acme/tiny": {"config.json": b"{}"}})
    states = []
    for _ in range(2):
        assert run("unpack", "a.tar.zst", "--root", "models", home=tmp_path).code == 0
        state = (tmp_path / "offline.env").stat()
        states.append((state.st_ino, state.st_mtime_ns))
    assert states[0] == states[1]


def test_each_form_has_a_name_of_its_own(tmp_path: Path) -> None:
    make_bundle(tmp_path / "a.tar.zst", {"acme/tiny": {"config.json": b"{}"}})
    for form in EnvFormat:
        ran = run("unpack", "a.tar.zst", "--root", "m", "--env-format", form.value, home=tmp_path)
        assert (ran.code, ran.err) == (0, "")
        assert "led to other places before" not in ran.out
    written = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert len(written - {"a.tar.zst"}) == len(EnvFormat)
