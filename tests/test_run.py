"""`bundler run`: the environment, torch.hub's look-up, the air gap and what is told about it."""

from __future__ import annotations

import ast
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from command import Ran, command_environment, run, start
from kinds import has, nets
from memory_source import make_bundle
from target import LEFTOVERS

from bundler.air_gap import UNKNOWN, AirGap
from bundler.errors import RequestError

HOOK = Path(__file__).parent.parent / "bundler" / "hook" / "sitecustomize.py"
NO_ATTEMPT = "bundler: no attempt to reach the network\n"
MODES = [pytest.param((), id="plain"), pytest.param(("--strict",), id="strict")]
ELSEWHERE = "198.51.100.7"  # An address for documents, which is nobody's (RFC 5737).
QUIET = ("-W", "ignore")  # These programs leave sockets open.
BUNDLER_RUN = (sys.executable, "-m", "bundler", "run")
both_modes = pytest.mark.parametrize("mode", MODES)


def sh(text: str) -> tuple[str, ...]:
    return "sh", "-c", text


def python(text: str, *options: str) -> tuple[str, ...]:
    return sys.executable, *options, "-c", text


@pytest.fixture(scope="module")
def _namespaces() -> None:
    """Skips where the system refuses what --strict wants."""
    with AirGap() as gap:
        gap.start(["true"], os.environ).wait()
        if gap.fault is not None:
            pytest.skip(f"no network namespace here: {gap.fault}")


class TestCommand:
    def test_its_environment_is_that_of_offline_env(self, tmp_path: Path) -> None:
        make_bundle(tmp_path / "b.tar.zst", {"acme/tiny": {"config.json": b"{}"}})
        assert run("unpack", "b.tar.zst", "--root", "caches", home=tmp_path).code == 0
        sourced = subprocess.run(
            ["bash", "-c", ". ./offline.env && exec env -0"], cwd=tmp_path,
            env={**command_environment(tmp_path), **LEFTOVERS}, capture_output=True, check=True,
        )  # fmt: skip
        ran = run("run", "--root", "caches", "env", "-0", home=tmp_path, env=LEFTOVERS)

        def variables(out: bytes) -> dict[str, str]:
            pairs = (pair.partition("=") for pair in out.decode().split("\0") if pair)
            ours = ("SHLVL", "_", "PWD", "OLDPWD", "PYTHONPATH", "LC_CTYPE")
            return {name: value for name, _, value in pairs if name not in ours}

        expected = variables(sourced.stdout)
        assert variables(ran.raw) == expected
        assert expected["HF_HUB_OFFLINE"] == "1"
        assert "HF_ENDPOINT" not in expected

    @both_modes
    @pytest.mark.parametrize("code", [0, 1, 3, 130, 255])
    def test_its_exit_code_is_ours(self, tmp_path: Path, mode: Sequence[str], code: int) -> None:
        ran = run("run", *mode, "--", *sh(f"echo out; exit {code}"), home=tmp_path)
        assert (ran.code, ran.out) == (code, "out\n")
        assert "interrupted" not in ran.err

    def test_a_signal_that_ended_it_is_told_as_shells_do(self, tmp_path: Path) -> None:
        killed = sh("kill -9 $$")
        assert run("run", *killed, home=tmp_path).code == -9
        assert run("run", "--strict", *killed, home=tmp_path).code == 128 + 9

    @both_modes
    @pytest.mark.parametrize("name", ["no-such-command", "./plain.txt"])
    def test_one_that_cannot_be_run_is_a_wrong_request(
        self, tmp_path: Path, mode: Sequence[str], name: str
    ) -> None:
        (tmp_path / "plain.txt").write_text("")
        ran = run("run", *mode, "--", name, home=tmp_path)
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert ran.err.startswith(f"bundler: cannot run {name!r}: ")

    @both_modes
    @pytest.mark.parametrize("dashes", [["--"], []])
    def test_what_follows_its_name_is_its_own(
        self, tmp_path: Path, mode: Sequence[str], dashes: list[str]
    ) -> None:
        theirs = ["--strict", "--root", "x", "--", "-h", ""]
        command = ["printf", "<%s>", *theirs]
        ran = run("run", *mode, *dashes, *command, home=tmp_path)
        assert ran.out == "".join(f"<{word}>" for word in theirs)

    @pytest.mark.parametrize(
        "arguments", [[], ["--"], ["--bogus", "true"], ["--root", "", "true"], [""]]
    )
    def test_without_one_or_with_a_wrong_option_nothing_runs(
        self, tmp_path: Path, arguments: list[str]
    ) -> None:
        ran = run("run", *arguments, home=tmp_path)
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)

    def test_it_takes_the_place_of_bundler(self, tmp_path: Path) -> None:
        with start("run", *sh("echo $$"), home=tmp_path) as process:
            out, _ = process.communicate()
        assert int(out) == process.pid

    @both_modes
    def test_signals_mean_to_it_what_they_do_without_bundler(
        self, tmp_path: Path, mode: Sequence[str]
    ) -> None:
        command = ["grep", "^Sig[BIC]", "/proc/self/status"]
        alone = subprocess.run(command, capture_output=True, text=True, check=True)
        assert run("run", *mode, *command, home=tmp_path).out == alone.stdout

    @both_modes
    def test_it_can_read_what_we_were_given(self, tmp_path: Path, mode: Sequence[str]) -> None:
        assert run("run", *mode, "cat", home=tmp_path, input=b"words").out == "words"

    @both_modes
    def test_no_library_comes_before_it(self, tmp_path: Path, mode: Sequence[str]) -> None:
        """What matters is what bundler imports, just before the command."""
        program = (
            "import os, subprocess, sys\n"
            "from bundler import cli\n"
            "def shown(*_, **__):\n"
            "    heavy = {'huggingface_hub', 'torch', 'httpx2', 'urllib.request', 'zstandard'}\n"
            "    print(sorted(heavy & set(sys.modules)), flush=True)\n"
            "    os._exit(0)\n"
            "starts = ('os.exec', 'subprocess.Popen')\n"
            "sys.addaudithook(lambda event, _: event in starts and shown())\n"
            f"cli.run({['run', *mode, 'true']!r})\n"
        )
        done = subprocess.run(
            python(program), cwd=tmp_path, env=command_environment(tmp_path), capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert (done.stdout, done.stderr) == ("[]\n", "")


class TestSignals:
    """Those that reach bundler while it stands in front of a command."""

    @pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
    def test_they_reach_the_command(self, tmp_path: Path, name: str) -> None:
        program = (
            "import signal, sys\n"
            f"signal.signal(signal.{name}, lambda *_: sys.exit(7))\n"
            "print('ready', flush=True)\n"
            "signal.pause()\n"
        )
        with start("run", "--strict", *python(program), home=tmp_path) as process:
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(signal.Signals[name])
            try:
                assert process.wait(timeout=20) == 7
            finally:
                process.kill()

    def test_those_of_a_terminal_reach_it_once(self, tmp_path: Path) -> None:
        program = (
            "import os, signal, sys\n"
            "seen = []\n"
            # Not print, which the signal may have interrupted.
            "signal.signal(signal.SIGINT, lambda *_: (seen.append(1), os.write(1, b'int')))\n"
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(len(seen)))\n"
            "print('ready', flush=True)\n"
            "while True: signal.pause()\n"
        )
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(tmp_path)
            command = [sys.executable, "-m", "bundler", "run", "--strict", *python(program)]
            os.execve(sys.executable, command, command_environment(tmp_path))
        shown = b""
        while b"ready" not in shown:
            shown += os.read(terminal, 100)
        os.write(terminal, b"\x03")
        while b"int" not in shown:
            shown += os.read(terminal, 100)
        # Passed on after whatever came before it.
        os.kill(pid, signal.SIGTERM)
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
        assert os.waitstatus_to_exitcode(status) == 1


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder of the user's own in PYTHONPATH."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "colours.py").write_text("RED = 'red'")
    return folder


class TestPythonPath:
    def test_that_of_the_user_is_kept(self, theirs: Path, tmp_path: Path) -> None:
        program = python(
            "import colours, json, os, sys, sitecustomize\n"
            "print(json.dumps([os.environ['PYTHONPATH'], sys.path, sitecustomize.__file__]))"
        )
        env = {"PYTHONPATH": f"{theirs}:/nowhere"}
        path, found, hook = json.loads(run("run", *program, home=tmp_path, env=env).out)
        assert path == f"{HOOK.parent}:{theirs}:/nowhere"
        assert [str(theirs), "/nowhere"] == found[1:3]
        assert str(HOOK.parent) not in found
        assert hook == str(HOOK)

    def test_one_run_in_another_adds_nothing(self, tmp_path: Path) -> None:
        program = python("import os; print(os.environ['PYTHONPATH'])")
        assert run("run", *BUNDLER_RUN, *program, home=tmp_path).out == f"{HOOK.parent}\n"

    @both_modes
    def test_programs_without_a_network_import_nothing_more(
        self, tmp_path: Path, mode: Sequence[str]
    ) -> None:
        program = python("import sys; print(*sorted(sys.modules))")
        alone = subprocess.run(
            program, cwd=tmp_path, env=command_environment(tmp_path), capture_output=True,
            text=True, check=True,
        ).stdout.split()  # fmt: skip
        ran = run("run", *mode, *program, home=tmp_path).out.split()
        assert set(ran) - set(alone) == {"sitecustomize", "__future__"}

    @pytest.mark.parametrize(
        "text",
        ["import sys; sys.mark = 'theirs'", "import colours, sys; sys.mark = colours.RED",
         "raise ValueError('theirs')", "import no_such_module"],
    )  # fmt: skip
    def test_a_sitecustomize_of_theirs_is_imported_as_ever(
        self, theirs: Path, tmp_path: Path, text: str
    ) -> None:
        (theirs / "sitecustomize.py").write_text(text)
        program = python(
            "import sys\n"
            "print(getattr(sys, 'mark', None))\n"
            "print(getattr(sys.modules.get('sitecustomize'), '__file__', None))"
        )
        env = {"PYTHONPATH": str(theirs)}
        alone = subprocess.run(
            program, cwd=tmp_path, env=command_environment(tmp_path) | env, capture_output=True,
            text=True, check=True,
        )  # fmt: skip
        ran = run("run", *program, home=tmp_path, env=env)
        # bundler itself is a Python program too.
        assert (ran.out, ran.err) == (alone.stdout, alone.stderr * 2)

    def test_older_pythons_can_read_the_hook(self) -> None:
        ast.parse(HOOK.read_text(), feature_version=(3, 8))


@pytest.fixture
def silent_proxy() -> Iterator[socket.socket]:
    """A proxy that takes every connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        yield server


def through(proxy: socket.socket) -> dict[str, str]:
    """The variables that lead every https request to a proxy."""
    return {"https_proxy": f"http://127.0.0.1:{proxy.getsockname()[1]}"}


class TestBranchLookUp:
    """torch.hub asks GitHub for a default branch, and waits for an answer without an end."""

    @pytest.fixture
    def program(self, tmp_path: Path, request: pytest.FixtureRequest) -> tuple[str, ...]:
        if not has("torch"):
            pytest.skip("torch is not installed")
        folder = tmp_path / ".cache" / "torch" / "hub" / f"acme_nets_{request.param}"
        folder.mkdir(parents=True)
        for name, text in nets(2.0).items():
            (folder / name).write_text(text)
        load = "torch.hub.load('acme/nets', 'tiny', trust_repo=True)"
        return python(f"import torch; print({load}.weight[0, 0].item())")

    @pytest.mark.parametrize("program", ["main"], indirect=True)
    def test_it_hangs_without_bundler(
        self, program: tuple[str, ...], silent_proxy: socket.socket, tmp_path: Path
    ) -> None:
        env = {**command_environment(tmp_path), **through(silent_proxy)}
        with subprocess.Popen(program, cwd=tmp_path, env=env, stdout=subprocess.PIPE) as process:
            asked, _ = silent_proxy.accept()
            assert asked.recv(100).startswith(b"CONNECT github.com:443 ")
            process.kill()
            asked.close()
            assert process.communicate()[0] == b""

    @pytest.mark.parametrize("program", ["main", "master"], indirect=True)
    def test_under_bundler_it_fails_at_once(
        self, program: tuple[str, ...], silent_proxy: socket.socket, tmp_path: Path
    ) -> None:
        ran = ran_in(tmp_path, *BUNDLER_RUN, *program, **through(silent_proxy))
        assert (ran.code, ran.out) == (0, "2.0\n"), ran.err
        silent_proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            silent_proxy.accept()

    @pytest.mark.usefixtures("_namespaces")
    @pytest.mark.parametrize("program", ["main"], indirect=True)
    def test_in_an_air_gap_it_is_told(self, program: tuple[str, ...], tmp_path: Path) -> None:
        ran = run("run", "--strict", *program, home=tmp_path)
        assert (ran.code, ran.out) == (0, "2.0\n"), ran.err
        told = "bundler: tried to reach the network: github.com:443 (1 time)\n"
        assert ran.err.endswith(told)
        assert ran.err.count("bundler: ") == 1

    @pytest.mark.parametrize(
        ("host", "path"),
        [("github.com", "acme/nets"), ("github.com", "acme/nets/tree/main/x"),
         ("github.com", "a/b/c/tree/main/"), ("example.org", "acme/nets/tree/main/"),
         ("github.com", "acme/nets/tree/v1/")],
    )  # fmt: skip
    def test_other_requests_go_their_way(
        self, silent_proxy: socket.socket, tmp_path: Path, host: str, path: str
    ) -> None:
        program = python(f"import urllib.request as r; r.urlopen('https://{host}/{path}')")
        with start("run", *program, home=tmp_path, env=through(silent_proxy)) as process:
            asked, _ = silent_proxy.accept()
            assert asked.recv(100).startswith(f"CONNECT {host}:443 ".encode())
            asked.sendall(b"HTTP/1.1 502 No\r\n\r\n")
            asked.close()
            _, err = process.communicate(timeout=20)
        assert b"Tunnel connection failed: 502" in err


# Each tries once what its name says, and swallows what comes of it.
PYTHON = {
    "create_connection": ("socket.create_connection(('models.test', 443))", "models.test:443"),
    "tcp": (f"socket.socket().connect(('{ELSEWHERE}', 80))", f"{ELSEWHERE}:80"),
    "tcp, IPv6": (
        "socket.socket(socket.AF_INET6).connect(('2001:db8::1', 80))", "2001:db8::1:80",
    ),
    "not blocking": (f"socket.socket().connect_ex(('{ELSEWHERE}', 80))", f"{ELSEWHERE}:80"),
    "udp": (
        f"socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('{ELSEWHERE}', 53))",
        f"{ELSEWHERE}:53",
    ),
    "sendmsg": (
        f"socket.socket(type=socket.SOCK_DGRAM).sendmsg([b'x'], [], 0, ('{ELSEWHERE}', 53))",
        f"{ELSEWHERE}:53",
    ),
    "getaddrinfo": ("socket.getaddrinfo(b'models.test', 'https')", "models.test:https"),
    "gethostbyname": ("socket.gethostbyname('models.test')", "models.test"),
    "gethostbyaddr": (f"socket.gethostbyaddr('{ELSEWHERE}')", ELSEWHERE),
    "urlopen": (
        "__import__('urllib.request').request.urlopen('https://models.test/x')", "models.test:443",
    ),
}  # fmt: skip
NATIVE = {
    "bash, tcp": ("bash", "-c", f"</dev/tcp/{ELSEWHERE}/80"),
    "bash, udp": ("bash", "-c", f"echo >/dev/udp/{ELSEWHERE}/80"),
    "python -I, tcp": python(f"import socket; {PYTHON['tcp'][0]}", "-I"),
    "python -I, IPv6": python(f"import socket; {PYTHON['tcp, IPv6'][0]}", "-I"),
    "python -I, udp": python(f"import socket; {PYTHON['udp'][0]}", "-I"),
}
STAYS_HERE = {
    "loopback": (
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "client = socket.create_connection(('localhost', server.getsockname()[1]))\n"
        "client.sendall(b'x'); assert server.accept()[0].recv(1) == b'x'"
    ),
    "loopback, IPv6": (
        "server = socket.create_server(('::1', 0), family=socket.AF_INET6)\n"
        "client = socket.create_connection(server.getsockname()[:2])\n"
        "client.sendall(b'x'); assert server.accept()[0].recv(1) == b'x'"
    ),
    "udp": (
        "server = socket.socket(type=socket.SOCK_DGRAM); server.bind(('', 0))\n"
        "server.sendto(b'x', ('127.0.0.1', server.getsockname()[1]))\n"
        "assert server.recv(1) == b'x'"
    ),
    "what urllib3 does to know whether there is IPv6": (
        "socket.socket(socket.AF_INET6).bind(('::1', 0))"
    ),
    "unix sockets": (
        "server = socket.socket(socket.AF_UNIX); server.bind('s'); server.listen()\n"
        "socket.socket(socket.AF_UNIX).connect('s')"
    ),
    "an address that nobody is asked for": f"socket.getaddrinfo('{ELSEWHERE}', 80)",
    "any address": "socket.getaddrinfo(None, 0, flags=socket.AI_PASSIVE)",
}  # fmt: skip


USERS = {
    "whoever this is": (),
    "somebody without rights": ("unshare", "-U", "--map-user=65534", "--map-group=65534"),
}
# Another user indeed, but for being able to read a Python that only root can read.
NOBODY = (
    "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
    "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
)  # fmt: skip
as_both_users = pytest.mark.parametrize("user", USERS)


def run_as(user: str, *arguments: object, home: Path, **env: str) -> Ran:
    """`bundler run` by one of USERS."""
    return ran_in(home, *USERS[user], *BUNDLER_RUN, *arguments, **env)


def ran_in(home: Path, *command: object, **env: str) -> Ran:
    """How any command ends."""
    done = subprocess.run(
        list(map(str, command)), cwd=home, env=command_environment(home) | env,
        stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode(), done.stdout)


def swallowing(text: str) -> str:
    return f"import socket\ntry: {text}\nexcept OSError: pass"


@pytest.mark.usefixtures("_namespaces")
class TestAirGap:
    @as_both_users
    def test_ids_and_exit_code_stay(self, user: str, tmp_path: Path) -> None:
        plain, strict = (
            run_as(user, *mode, *sh("id -u; id -g; exit 5"), home=tmp_path)
            for mode in ((), ("--strict",))
        )
        assert (strict.code, strict.out, strict.err) == (5, plain.out, NO_ATTEMPT)
        assert USERS[user] == () or plain.out == "65534\n65534\n"

    def test_another_user_can_use_it(self, tmp_path: Path) -> None:
        if shutil.which("setpriv") is None or ran_in(tmp_path, *NOBODY, "true").code:
            pytest.skip("nobody can be made of this user here")
        command = ("bash", "-c", f"id -u; id -g; </dev/tcp/{ELSEWHERE}/80")
        ran = ran_in(tmp_path, *NOBODY, *BUNDLER_RUN, "--strict", *command)
        assert (ran.code, ran.out) == (1, "65534\n65534\n")
        assert ran.err.endswith(f"bundler: tried to reach the network: {UNKNOWN} (1 time)\n")

    @as_both_users
    def test_nothing_outside_is_reached_not_even_on_loopback(
        self, user: str, tmp_path: Path
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            command = ("bash", "-c", f"</dev/tcp/127.0.0.1/{server.getsockname()[1]}")
            assert run_as(user, *command, home=tmp_path).code == 0
            server.accept()[0].close()
            ran = run_as(user, "--strict", *command, home=tmp_path)
            assert (ran.code, "Connection refused" in ran.err) == (1, True)
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                server.accept()

    @pytest.mark.parametrize("case", PYTHON)
    def test_what_a_python_program_tries_is_told_with_the_host(
        self, tmp_path: Path, case: str
    ) -> None:
        text, host = PYTHON[case]
        ran = run("run", "--strict", *python(swallowing(text), *QUIET), home=tmp_path)
        told = f"bundler: tried to reach the network: {host} (1 time)\n"
        assert (ran.code, ran.err) == (0, told)

    @as_both_users
    @pytest.mark.parametrize("case", NATIVE)
    def test_what_other_programs_try_is_counted(self, user: str, tmp_path: Path, case: str) -> None:
        ran = run_as(user, "--strict", *NATIVE[case], home=tmp_path)
        assert ran.code == 1
        assert ran.err.endswith(f"bundler: tried to reach the network: {UNKNOWN} (1 time)\n")

    @as_both_users
    @pytest.mark.parametrize("case", STAYS_HERE)
    def test_what_stays_here_works_and_is_no_attempt(
        self, user: str, tmp_path: Path, case: str
    ) -> None:
        program = python(f"import socket\n{STAYS_HERE[case]}", *QUIET)
        ran = run_as(user, "--strict", *program, home=tmp_path)
        assert (ran.code, ran.err) == (0, NO_ATTEMPT)

    def test_a_proxy_hides_no_host(self, silent_proxy: socket.socket, tmp_path: Path) -> None:
        text, host = PYTHON["urlopen"]
        ran = run(
            "run", "--strict", *python(swallowing(text)), home=tmp_path, env=through(silent_proxy)
        )
        assert f"{host} (1 time)" in ran.err

    def test_each_host_is_told_once_whoever_tried(self, tmp_path: Path) -> None:
        once = swallowing(PYTHON["urlopen"][0])
        program = (
            f"import subprocess, sys\n{once}\n"
            f"for _ in range(2): subprocess.run([sys.executable, '-c', {once!r}])\n"
            f"subprocess.run({NATIVE['bash, tcp']!r}, stderr=subprocess.DEVNULL)"
        )
        ran = run("run", "--strict", *python(program), home=tmp_path)
        assert ran.err.splitlines() == [
            "bundler: tried to reach the network: models.test:443 (3 times)",
            f"bundler: tried to reach the network: {UNKNOWN} (1 time)",
        ]

    def test_a_host_that_is_no_name_is_shown_harmlessly(self, tmp_path: Path) -> None:
        program = swallowing(r"socket.getaddrinfo('a\x1b[31m', 1)")
        ran = run("run", "--strict", *python(program), home=tmp_path)
        assert r"a\x1b[31m:1 (1 time)" in ran.err

    @pytest.mark.parametrize(
        "spoil",
        [
            "open(path, 'ab').write(b'\\xff\\n[]\\n{}\\n' + b'[' * 100_000 + b'\\n')",
            "os.unlink(path)",
        ],
    )
    def test_a_program_that_spoils_what_was_noted_spoils_no_more(
        self, tmp_path: Path, spoil: str
    ) -> None:
        program = (
            f"{swallowing(PYTHON['urlopen'][0])}\n"
            f"import os; path = os.environ['BUNDLER_AIR_GAP']; {spoil}"
        )
        ran = run("run", "--strict", *python(program, *QUIET), home=tmp_path)
        told = "bundler: tried to reach the network: models.test:443 (1 time)\n"
        assert (ran.code, ran.err) == (0, told)

    def test_a_program_that_never_stops_trying_fills_no_disk(self, tmp_path: Path) -> None:
        program = (
            "import os, socket\n"
            "for _ in range(30_000):\n"
            "    try: socket.gethostbyname('models.test')\n"
            "    except OSError: pass\n"
            "print(os.path.getsize(os.environ['BUNDLER_AIR_GAP']))"
        )
        ran = run("run", "--strict", *python(program), home=tmp_path)
        assert 1_000_000 < int(ran.out) < 1_100_000


class TestProgrammersAirGap:
    """The same for code that wants the output of a command."""

    def test_output_and_attempts_are_had(self) -> None:
        text = f"{swallowing(PYTHON['urlopen'][0])}\nprint('loaded')"
        with AirGap() as gap:
            process = gap.start(python(text), os.environ, stdout=subprocess.PIPE)
            out, _ = process.communicate()
            assert (process.returncode, out) == (0, b"loaded\n")
            assert gap.attempts() == {"models.test:443": 1}

    def test_who_leaves_early_ends_the_command(self) -> None:
        with AirGap() as gap:
            process = gap.start(["cat"], os.environ, stdin=subprocess.PIPE)
        assert process.stdin
        process.stdin.close()
        assert process.returncode == -signal.SIGKILL

    def test_a_command_that_is_not_there(self) -> None:
        with AirGap() as gap, pytest.raises(RequestError, match="cannot run 'no-such-command'"):
            gap.start(["no-such-command"], os.environ)


class TestWhatAKilledRunLeaves:
    """The file of attempts, in the folder for temporary files."""

    LONG_AGO = (0, 0)

    @staticmethod
    def under_way(folder: Path) -> subprocess.Popen[bytes]:
        """bundler in front of a command that runs until its input is closed."""
        process = start(
            "run", "--strict", *sh("echo ready; exec cat"), home=folder,
            env={"TMPDIR": str(folder)}, stdin=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        return process

    def test_goes_with_the_next_run(self, tmp_path: Path) -> None:
        with self.under_way(tmp_path) as killed:
            killed.kill()
        (left,) = tmp_path.glob("bundler-attempts-*")
        env = {"TMPDIR": str(tmp_path)}
        assert run("run", "--strict", "true", home=tmp_path, env=env).code == 0
        assert left.exists()  # One so new may not have been locked yet.
        os.utime(left, self.LONG_AGO)
        assert run("run", "--strict", "true", home=tmp_path, env=env).code == 0
        assert [*tmp_path.glob("bundler-attempts-*")] == []

    def test_but_nothing_that_is_in_use_or_of_others(self, tmp_path: Path) -> None:
        with self.under_way(tmp_path) as running:
            (used,) = tmp_path.glob("bundler-attempts-*")
            (tmp_path / "precious").touch()
            link, folder, pipe, other = (tmp_path / f"bundler-attempts-{n}" for n in range(4))
            link.symlink_to("precious")
            folder.mkdir()
            os.mkfifo(pipe)
            other.touch()
            if os.geteuid() == 0:  # Nobody else may give a file away.
                os.chown(other, 65534, 65534)
                os.utime(other, self.LONG_AGO)
            os.utime(tmp_path / "precious", self.LONG_AGO)
            for path in (used, link, folder, pipe):
                os.utime(path, self.LONG_AGO, follow_symlinks=False)
            before = [*tmp_path.iterdir()]
            env = {"TMPDIR": str(tmp_path)}
            assert run("run", "--strict", "true", home=tmp_path, env=env).code == 0
            assert {*before} == {*tmp_path.iterdir()}
            running.communicate(timeout=20)
        assert running.returncode == 0
        assert not used.exists()


class TestRefusedNamespace:
    """A system that allows no network namespace, with a network that is really there."""

    REACH = f"""
import json, socket, subprocess, sys
with socket.create_server(("{ELSEWHERE}", 0)) as server:
    host, port = server.getsockname()
    program = f"import socket; socket.create_connection(({{host!r}}, {{port}}))"
    command = [*sys.argv[1:], sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True)
    server.setblocking(False)
    try:
        server.accept()[0].close()
        reached = True
    except BlockingIOError:
        reached = False
print(json.dumps([reached, done.returncode, done.stderr, f"{{host}}:{{port}}"]))
"""

    @pytest.fixture
    def there(self) -> tuple[str, ...]:
        """What runs a command there: where loopback has one more address, and a limit is 0."""
        prepare = (
            f"ip address add {ELSEWHERE}/32 dev lo && ip link set lo up && "
            'echo 0 >/proc/sys/user/max_net_namespaces && exec "$@"'
        )
        there = ("unshare", "-Urn", "sh", "-c", prepare, "sh")
        try:
            subprocess.run([*there, "true"], capture_output=True, check=True)
        except (FileNotFoundError, subprocess.CalledProcessError):
            pytest.skip("no user namespace, or no ip, here")
        return there

    def test_python_programs_are_kept_in_and_it_is_said(
        self, there: tuple[str, ...], tmp_path: Path
    ) -> None:
        plain = ran_in(tmp_path, *there, *python(self.REACH), *BUNDLER_RUN)
        assert json.loads(plain.out)[:2] == [True, 0]
        strict = ran_in(tmp_path, *there, *python(self.REACH), *BUNDLER_RUN, "--strict")
        reached, code, err, host = json.loads(strict.out)
        assert (reached, code) == (False, 1)
        first, *_, last = err.splitlines()
        assert first == (
            "bundler: this system refuses a network namespace (No space left on device): "
            "only Python programs are kept off the network"
        )
        assert last == f"bundler: tried to reach the network: {host} (1 time)"
        assert "Network is unreachable: cut off by bundler" in err

    @pytest.mark.parametrize("case", STAYS_HERE)
    def test_loopback_works(self, there: tuple[str, ...], tmp_path: Path, case: str) -> None:
        program = python(f"import socket\n{STAYS_HERE[case]}", *QUIET)
        done = ran_in(tmp_path, *there, *BUNDLER_RUN, "--strict", *program)
        assert done.code == 0, done.err
        last = done.err.splitlines()[-1]
        assert last == "bundler: no attempt of a Python program to reach the network"

    def test_a_command_that_is_not_there(self, there: tuple[str, ...], tmp_path: Path) -> None:
        done = ran_in(tmp_path, *there, *BUNDLER_RUN, "--strict", "no-such-command")
        said, error = done.err.splitlines()
        assert (done.code, "refuses a network namespace" in said) == (2, True)
        assert error == "bundler: cannot run 'no-such-command': No such file or directory"
