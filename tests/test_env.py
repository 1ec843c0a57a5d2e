"""`bundler env`: what each format says, as its own reader understands it."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import shutil
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from command import command_environment, run

from bundler.environment import HIDING, find_roots
from bundler.errors import RequestError
from bundler.shells import MARK, EnvFormat, assignments, environment_text, read_variables

VALUES = {
    "NOTHING": "",
    "PLAIN": "/data/hf",
    "SPACES": "/my  models/ here",
    "TRAILING": "/data/hf ",
    "LEADING": " /data/hf",
    "SINGLE": "it's",
    "ONLY_SINGLE": "'",
    "SINGLES": "''x''",
    "TYPOGRAPHIC": "\u2018a\u2019 \u201cb\u201d",
    "DOUBLE": 'say "x"',
    "DOLLAR": "$HOME/${HOME}/$(echo x)",
    "BACKSLASH": "a\\b",
    "BACKSLASHES": "a\\\\b\\\\",
    "BACKSLASH_QUOTE": "\\'\\",
    "BACKSLASH_LETTERS": "\\n\\t\\x41\\0",
    "HASH": "#a #b",
    "EQUALS": "a=b==",
    "ACCENT": "/données/é日本😀",
    "GLOB": "*?[a]{b,c}~",
    "NEWLINE": "one\ntwo\n",
    "RETURN": "one\r",
    "BACKTICK": "`echo x`",
    "BANG": "a!b !! !$",
    "OPERATORS": "a;b&c|d<e>f(g)",
    "PERCENT": "%a %PATH% ^",
    "TAB": "a\tb",
    "BYTES": "/data/\udcff",
}
REFUSED = {
    EnvFormat.POWERSHELL: {"NOTHING", "BYTES"},
    EnvFormat.CMD: {
        "NOTHING",
        "TYPOGRAPHIC",
        "DOUBLE",
        "ACCENT",
        "NEWLINE",
        "RETURN",
        "TAB",
        "BYTES",
    },
    EnvFormat.DOCKER: {"NEWLINE", "RETURN", "BYTES"},
    EnvFormat.SYSTEMD: {"NOTHING", "DOLLAR", "BANG", "BYTES"},
    EnvFormat.JSON: {"BYTES"},
}
"""What a format cannot carry, by the name in VALUES."""
SHELLS = {
    "bash": ["bash"],
    "bash -eu": ["bash", "-eu"],
    "zsh": ["zsh", "-f"],
    "zsh -eu": ["zsh", "-f", "-eu"],
    "dash": ["dash"],
    "dash -eu": ["dash", "-eu"],
    "fish": ["fish", "--no-config"],
}
POSIX_SHELLS = {name: command for name, command in SHELLS.items() if command[0] != "fish"}
SOURCING = {
    **{f"sh in {name}": (EnvFormat.SH, command) for name, command in SHELLS.items()},
    **{f"conda in {name}": (EnvFormat.CONDA, POSIX_SHELLS[name]) for name in ("bash", "dash")},
    "fish": (EnvFormat.FISH, SHELLS["fish"]),
}
# The shell hands its variables on to Python, which tells what arrived.
TELL = 'python="$1"; exec "$python" -c "import json, os; print(json.dumps(dict(os.environ)))"'
SCRIPTS = {
    "fish": 'source $argv[1]; or exit 9; exec $argv[2] -c "'
    'import json, os; print(json.dumps(dict(os.environ)))"',
    "posix": '. "$1" || exit 9; shift; ' + TELL,
}
BOTH = {"fish": SCRIPTS["fish"].replace("exec", "source $argv[1].undo; or exit 9; exec", 1),
        "posix": SCRIPTS["posix"].replace("shift", '. "$1.undo" || exit 9; shift', 1)}  # fmt: skip


def carried(form: EnvFormat) -> dict[str, str]:
    """The values that a format can carry."""
    return {name: v for name, v in VALUES.items() if name not in REFUSED.get(form, ())}


def sourced(
    command: list[str], file: Path, before: Mapping[str, str], script: str | None = None
) -> subprocess.CompletedProcess[str]:
    """What a shell that had the variables `before` does with `file`, under `script`."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    fish = command[0] == "fish"
    arguments = [str(file), sys.executable] if fish else ["shell", str(file), sys.executable]
    return subprocess.run(
        [*command, "-c", script or SCRIPTS["fish" if fish else "posix"], *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(file.parent), **before},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def written(file: Path, text: str) -> Path:
    file.write_bytes(os.fsencode(text))
    return file


# The readers that are not shells.


class Docker(BaseHTTPRequestHandler):
    """The server that docker talks to, as far as creating a container goes."""

    created: dict[str, Any]

    def do_GET(self) -> None:
        self._answer(200)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        Docker.created = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(201)

    def _answer(self, code: int) -> None:
        body = b'{"Id": "1", "Warnings": []}'
        self.send_response(code)
        self.send_header("Api-Version", "1.47")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def docker_reads(text: str) -> dict[str, str]:
    """The variables of a container that the docker command makes with that file."""
    if shutil.which("docker") is None:
        return docker_measured(text)
    with tempfile.TemporaryDirectory() as folder:
        file = written(Path(folder, "env"), text)
        with socketserver.ThreadingUnixStreamServer(f"{folder}/socket", Docker) as server:
            threading.Thread(target=server.serve_forever, args=[0.01]).start()
            subprocess.run(
                ["docker", "-H", f"unix://{folder}/socket", "create", "--env-file", file, "image"],
                env=command_environment(Path(folder)),
                stdout=subprocess.DEVNULL,
                check=True,
            )
            server.shutdown()
    return dict(line.split("=", 1) for line in Docker.created["Env"])


def docker_measured(text: str) -> dict[str, str]:
    """The same by the rules that were measured: nothing is quoted, and nothing means a thing."""
    lines = [line.removesuffix("\r").lstrip() for line in text.split("\n")]
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


CONTROLS = {"n": "\n", "t": "\t", "r": "\r"}
SYSTEMD = Path("/usr/lib/systemd/user-environment-generators/30-systemd-environment-d-generator")


def systemd_reads(text: str) -> dict[str, str]:
    """The variables that systemd has from that file in environment.d."""
    if not SYSTEMD.exists():
        return systemd_measured(text)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, ".config", "environment.d")
        place.mkdir(parents=True)
        written(place / "bundler.conf", text)
        done = subprocess.run(
            [SYSTEMD], env={"HOME": folder}, capture_output=True, text=True, check=True
        )
    assert done.stderr == ""
    found = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition("=")
        if value.startswith('"'):
            value = re.sub(r"\\(.)", lambda c: CONTROLS.get(c[1], c[1]), value[1:-1])
        found[name] = value
    return found


def systemd_measured(text: str) -> dict[str, str]:
    """The same by the rules that were measured: a backslash between quotes takes one of three."""
    pairs = re.findall(r'^(\w+)="((?:[^"\\]|\\.)*)"$', text, re.MULTILINE)
    return {name: re.sub(r'\\(["\\`$])', r"\1", value) for name, value in pairs}


def powershell_reads(text: str) -> dict[str, str]:
    """The rules of PowerShell: a quote in a string is two, and typographic ones are quotes too."""
    assert text.isascii()
    part = r"'((?:[^']|'')*)'|\[char\]::ConvertFromUtf32\((\d+)\)"
    found = {}
    for name, expression in re.findall(r"^\$env:(\w+) = (.*)$", text, re.MULTILINE):
        assert re.fullmatch(rf"(?:{part})(?: \+ (?:{part}))*", expression), expression
        found[name] = "".join(
            chr(int(number)) if number else plain.replace("''", "'")
            for plain, number in re.findall(part, expression)
        )
    return found


def cmd_reads(text: str) -> dict[str, str]:
    """The rules of cmd: lines end in CR LF, all up to the last quote is meant, and %% is %."""
    assert text.replace("\r\n", "").isprintable()
    lines = text.split("\r\n")
    assert lines.pop() == ""
    found = {}
    for line in lines:
        if not line.startswith("@rem "):
            match = re.fullmatch(r'@set "(\w+)=((?:[^%"]|%%)*)"', line)
            assert match, line
            found[match[1]] = match[2].replace("%%", "%")
    return found


READERS: Mapping[EnvFormat, Sequence[Callable[[str], dict[str, str]]]] = {
    EnvFormat.POWERSHELL: [powershell_reads],
    EnvFormat.CMD: [cmd_reads],
    EnvFormat.DOCKER: [docker_reads, docker_measured],
    EnvFormat.SYSTEMD: [systemd_reads, systemd_measured],
    EnvFormat.JSON: [lambda text: dict(json.loads(text)["set"])],
}


class TestEveryValue:
    """Whatever a path holds arrives as it is, or is refused."""

    @pytest.mark.parametrize(("form", "command"), SOURCING.values(), ids=SOURCING)
    @pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
    def test_comes_out_of_every_shell_as_it_was(
        self, form: EnvFormat, command: list[str], locale: str, tmp_path: Path
    ) -> None:
        file = written(tmp_path / "offline.env", assignments(form, VALUES, HIDING))
        process = sourced(command, file, {"LC_ALL": locale, "PYTHONUTF8": "1"})
        assert (process.returncode, process.stderr) == (0, "")
        variables = json.loads(process.stdout)
        assert {name: variables.get(name) for name in VALUES} == VALUES

    @pytest.mark.parametrize("form", READERS)
    def test_comes_out_of_every_other_reader_as_it_was(self, form: EnvFormat) -> None:
        values = carried(form)
        text = assignments(form, values, (), "A comment.")
        for read in READERS[form]:
            found = read(text)
            assert {name: found.get(name) for name in values} == values

    @pytest.mark.parametrize(
        ("form", "name"),
        [(form, name) for form, names in REFUSED.items() for name in sorted(names)],
    )
    def test_is_refused_where_it_would_be_misread(self, form: EnvFormat, name: str) -> None:
        with pytest.raises(RequestError, match=f"{name} is .* use the format") as caught:
            assignments(form, {"FINE": "/data", name: VALUES[name]}, ())
        assert str(caught.value).isprintable()
        other = EnvFormat(str(caught.value).split("use the format ")[1].split(",")[0])
        assert assignments(other, {name: VALUES[name]}, HIDING)

    @pytest.mark.parametrize(
        "form", [EnvFormat.SH, EnvFormat.CONDA, EnvFormat.DOCKER, EnvFormat.JSON]
    )
    def test_is_read_back_by_bundler(self, form: EnvFormat) -> None:
        values = carried(form)
        unset = () if form is EnvFormat.DOCKER else HIDING
        assert read_variables(form, assignments(form, values, unset, "Of bundler's.")) == values


class TestSourcing:
    """What a shell is like afterwards."""

    @pytest.mark.parametrize(("form", "command"), SOURCING.values(), ids=SOURCING)
    @pytest.mark.parametrize(
        "set_before",
        [(), HIDING[:1], HIDING[1:], HIDING],
        ids=["none set", "one set", "all but one set", "all set"],
    )
    def test_variables_that_hide_the_caches_are_gone(
        self, form: EnvFormat, command: list[str], set_before: tuple[str, ...], tmp_path: Path
    ) -> None:
        text = environment_text(form, find_roots({}, root=tmp_path))
        file = written(tmp_path / "offline.env", text)
        process = sourced(command, file, dict.fromkeys(set_before, "/elsewhere"))
        assert (process.returncode, process.stderr) == (0, "")
        variables = json.loads(process.stdout)
        assert not set(HIDING) & set(variables)
        assert variables["HF_HOME"] == str(tmp_path / "huggingface")

    @pytest.mark.parametrize(("form", "command"), SOURCING.values(), ids=SOURCING)
    def test_it_wins_over_values_set_before_and_twice_is_as_good_as_once(
        self, form: EnvFormat, command: list[str], tmp_path: Path
    ) -> None:
        text = environment_text(form, find_roots({}, root=tmp_path))
        file = written(tmp_path / "offline.env", text + text)
        process = sourced(command, file, {"HF_HOME": "/elsewhere", "HF_HUB_OFFLINE": "0"})
        assert (process.returncode, process.stderr) == (0, "")
        variables = json.loads(process.stdout)
        assert variables["HF_HOME"] == str(tmp_path / "huggingface")
        assert variables["HF_HUB_OFFLINE"] == "1"

    @pytest.mark.parametrize("command", POSIX_SHELLS.values(), ids=POSIX_SHELLS)
    def test_no_option_and_no_argument_of_the_shell_changes(
        self, command: list[str], tmp_path: Path
    ) -> None:
        text = environment_text(EnvFormat.SH, find_roots({}, root=tmp_path))
        file = written(tmp_path / "offline.env", text)
        script = 'file="$1"; echo "$- $*"; . "$file"; echo "$- $*"'
        process = sourced(command, file, {"HF_ENDPOINT": "/elsewhere"}, script)
        assert (process.returncode, process.stderr) == (0, "")
        before, after = process.stdout.splitlines()
        assert after == before

    @pytest.mark.parametrize(("form", "command"), SOURCING.values(), ids=SOURCING)
    @pytest.mark.parametrize("file_before", [True, False], ids=["after it", "without it"])
    def test_undo_takes_all_of_it_away(
        self, form: EnvFormat, command: list[str], file_before: bool, tmp_path: Path
    ) -> None:
        options = ["--format", form.value, "--root", tmp_path / "it's"]
        file = tmp_path / "offline.env"
        file.write_bytes(run("env", *options, home=tmp_path).raw if file_before else b"")
        undo = run("env", *options, "--undo", home=tmp_path)
        Path(f"{file}.undo").write_bytes(undo.raw)
        before = {"MINE": "stays"}
        script = BOTH["fish" if command[0] == "fish" else "posix"]
        process = sourced(command, file, before, script)
        assert (process.returncode, process.stderr) == (0, "")
        left = json.loads(process.stdout)
        assert not set(find_roots({}).variables()) & set(left)
        assert left["MINE"] == "stays"


@pytest.mark.parametrize("form", EnvFormat)
class TestCommand:
    """The text is on stdout, and nothing else is there."""

    def test_says_what_the_library_says(self, form: EnvFormat, tmp_path: Path) -> None:
        ran = run("env", "--format", form.value, "--root", tmp_path, home=tmp_path)
        assert (ran.code, ran.err) == (0, "")
        assert ran.raw == os.fsencode(environment_text(form, find_roots({}, root=tmp_path)))

    def test_the_caches_are_those_of_the_options(self, form: EnvFormat, tmp_path: Path) -> None:
        places = {"HF_HOME": "/h", "HF_HUB_CACHE": "/h/hub", "TORCH_HOME": "/t",
                  "HF_DATASETS_CACHE": "/h/datasets"}  # fmt: skip
        ran = run("env", "--format", form.value, "--hf-home", "/h", "--torch-home", "/t",
                  home=tmp_path, env={"HF_HOME": "/else", "HF_HUB_CACHE": "/else"})  # fmt: skip
        for name, place in places.items():
            assert re.search(rf"\b{name}[^\w/]+{place}\b", ran.out), ran.out
        assert "/else" not in ran.out

    def test_one_for_people_has_the_next_step_on_a_terminal(
        self, form: EnvFormat, tmp_path: Path
    ) -> None:
        (tmp_path / "huggingface").mkdir()
        ours, theirs = pty.openpty()
        with open(tmp_path / "file", "wb") as file:
            done = subprocess.run(
                [sys.executable, "-m", "bundler", "env", "--format", form.value, "--root", "."],
                cwd=tmp_path, env=command_environment(tmp_path), stdout=file, stderr=theirs,
                check=True,
            )  # fmt: skip
        os.close(theirs)
        shown = ""
        with suppress(OSError):  # Linux says so when the other end of a terminal is closed.
            while data := os.read(ours, 4096):
                shown += data.decode()
        os.close(ours)
        assert done.returncode == 0
        assert re.search(r"^bundler: next, (in|for|below) .*:\r\nbundler:     .*FILE", shown, re.M)
        if form is EnvFormat.DOCKER:
            place = tmp_path / "huggingface"
            assert f"docker run --env-file FILE -v {place}:{place}:ro IMAGE" in shown
        text = (tmp_path / "file").read_text()
        assert text == environment_text(form, find_roots({}, root=tmp_path)).replace("\r\n", "\n")


MOUNTED = {
    "nothing there": ([], []),
    "one root": (["huggingface", "torch"], ["huggingface:ro", "torch:ro"]),
    "datasets": (["huggingface/datasets"], ["huggingface:ro", "huggingface/datasets"]),
}


class TestFormatsThatCannotUnset:
    """docker and systemd: what could hide the caches leads to them instead."""

    FORMATS = pytest.mark.parametrize("form", [EnvFormat.DOCKER, EnvFormat.SYSTEMD])

    @FORMATS
    def test_nothing_hides_the_caches(self, form: EnvFormat, tmp_path: Path) -> None:
        roots = find_roots({}, root=tmp_path)
        found = READERS[form][0](environment_text(form, roots))
        assert set(HIDING) <= set(found)
        assert {found[name] for name in HIDING} == {str(roots.hub), "https://huggingface.co"}
        assert found["HF_ENDPOINT"] == "https://huggingface.co"
        assert {name: found[name] for name in roots.variables()} == roots.variables()

    @FORMATS
    def test_undo_is_refused_with_what_to_do_instead(self, form: EnvFormat, tmp_path: Path) -> None:
        ran = run("env", "--undo", "--format", form.value, home=tmp_path)
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert "only set variables" in ran.err

    def test_a_container_copies_code_to_a_place_of_its_own(self, tmp_path: Path) -> None:
        found = docker_reads(environment_text(EnvFormat.DOCKER, find_roots({}, root=tmp_path)))
        assert found["HF_MODULES_CACHE"] == "/tmp/huggingface/modules"

    @pytest.mark.parametrize(("made", "mounted"), MOUNTED.values(), ids=MOUNTED)
    @pytest.mark.parametrize("name", ["plain", "a space", "it's"])
    def test_the_options_of_docker_name_every_folder_that_is_there(
        self, made: list[str], mounted: list[str], name: str, tmp_path: Path
    ) -> None:
        root = tmp_path / name
        for folder in made:
            (root / folder).mkdir(parents=True)
        text = run("env", "--format", "docker", "--root", root, home=tmp_path).out
        words = shlex.split(text.splitlines()[1])
        assert words[:5] == ["#", "docker", "run", "--env-file", "THIS_FILE"]
        assert words[5::2] == ["-v"] * len(mounted) + ["IMAGE"]
        parts = [place.partition(":") for place in mounted]
        expected = [f"{root / p}:{root / p}{colon}{mode}" for p, colon, mode in parts]
        assert words[6::2] == expected


def test_a_colon_that_docker_would_split_at_is_mounted_by_other_words(tmp_path: Path) -> None:
    root = tmp_path / "a:b"
    (root / "torch").mkdir(parents=True)
    text = run("env", "--format", "docker", "--root", root, home=tmp_path).out
    place = root / "torch"
    assert shlex.split(text.splitlines()[1])[5:] == [
        "--mount", f'type=bind,"src={place}","dst={place}",readonly', "IMAGE",
    ]  # fmt: skip


def test_json_tells_what_to_set_and_what_to_unset(tmp_path: Path) -> None:
    roots = find_roots({}, root=tmp_path)
    command = ["env", "--format", "json", "--root", tmp_path]
    document = json.loads(run(*command, home=tmp_path).out)
    assert document.pop("comment")
    assert document == {"set": roots.variables(), "unset": list(HIDING)}
    document = json.loads(run(*command, "--undo", home=tmp_path).out)
    assert document.pop("comment")
    assert document == {"set": {}, "unset": list(roots.variables())}


def test_a_folder_that_a_format_cannot_carry_is_told_in_one_line(tmp_path: Path) -> None:
    ran = run("env", "--format", "docker", "--root", tmp_path / "a\nb", home=tmp_path)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "HF_HOME" in ran.err
    assert "a line break" in ran.err
    assert "the format sh" in ran.err


def test_eval_is_all_that_a_shell_needs(tmp_path: Path) -> None:
    script = 'eval "$("$0" -m bundler env --root "$1")"; echo "$HF_HOME"'
    ran = subprocess.run(
        ["bash", "-euc", script, sys.executable, tmp_path / "a  'b'"],
        env=command_environment(tmp_path), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (ran.stdout, ran.stderr) == (f"{tmp_path}/a  'b'/huggingface\n", "")


def test_the_file_says_who_wrote_it_and_ends_in_a_newline(tmp_path: Path) -> None:
    text = environment_text(EnvFormat.SH, find_roots({}, root=tmp_path))
    assert text.startswith(MARK + "\n")
    assert text.endswith("\n")
