"""The demo itself: makes a small model, packs it, unpacks it elsewhere, loads it offline.

Run it through `scripts/demo`, which sees to the interpreter.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
TESTS = REPOSITORY / "tests"
BUNDLE = Path("bundles/demo.tar.zst")
MODEL = "demo/tiny-bert"
LOAD = f"""\
import json
from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline
from models import answer, facts  # of tests/models.py, which made the model

model = AutoModelForMaskedLM.from_pretrained("{MODEL}")
tokenizer = AutoTokenizer.from_pretrained("{MODEL}")
print(json.dumps(facts(model, tokenizer, answer(pipeline("fill-mask", model="{MODEL}")))))
"""


class DemoError(Exception):
    """A step did not work; the message is one line."""


class Machine:
    """A home of its own, in which commands run as a person would type them."""

    def __init__(self, home: Path) -> None:
        (home / "tmp").mkdir(parents=True)
        self.home = home
        # Nothing of the user's own set-up is read or changed: not the caches, not the token.
        self._env = {
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            "TMPDIR": str(home / "tmp"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            "PYTHONPATH": str(TESTS),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }

    def run(self, command: str, folder: Path, prefix: Sequence[str] = ()) -> str:
        """Show a shell command, run it in `folder`, and return what it prints."""
        shown = f"{shlex.join(prefix)} bash -c {shlex.quote(command)}" if prefix else command
        print(f"\n  $ {shown}", flush=True)
        process = subprocess.run(
            [*prefix, "bash", "-c", command],
            cwd=folder,
            env=self._env,
            capture_output=True,
            text=True,
            check=False,
        )
        if process.returncode != 0:
            sys.stderr.write(process.stderr)
            raise DemoError(f"`{shown}` ended with exit code {process.returncode}")
        return process.stdout

    def show(self, command: str, folder: Path) -> None:
        """Run a shell command and show what it prints."""
        for line in self.run(command, folder).splitlines():
            print(f"    {line}")


def main() -> None:
    """All steps, in one temporary folder that is gone at the end."""
    with tempfile.TemporaryDirectory(prefix="bundler-demo-") as folder:
        demo(Path(folder))


def demo(folder: Path) -> None:
    """The steps. Raises DemoError if one of them does not work."""
    online, offline = Machine(folder / "online"), Machine(folder / "offline")

    print("1. A small real model: a BERT with random weights, and its tokenizer.")
    made = online.run(
        f"python {TESTS / 'models.py'} {folder / 'hub' / 'demo'} tiny-bert", REPOSITORY
    )
    before = json.loads(made.splitlines()[-1])["tiny-bert"]
    print(f"    the sha256 over its weights: {before['weights']}")

    print(
        "\n2. The machine with a network packs it, from a hub on 127.0.0.1 instead of the real one."
    )
    command = [sys.executable, str(TESTS / "loopback_hub.py"), str(folder / "hub")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as hub:
        assert hub.stdin is not None
        assert hub.stdout is not None
        try:
            url = hub.stdout.readline().strip()
            if not url:
                raise DemoError("tests/loopback_hub.py did not start")
            pack = f"HF_ENDPOINT={url} bundler pack --models {MODEL} -o {BUNDLE}"
            online.show(pack, REPOSITORY)
        finally:
            hub.stdin.close()
    online.show(f"bundler inspect {BUNDLE}", REPOSITORY)

    print("\n3. The bundle travels; the hub is gone. The other machine checks it and unpacks it.")
    bundle = shlex.quote(str(REPOSITORY / BUNDLE))
    offline.show(f"bundler verify {bundle}", offline.home)
    offline.show(f"bundler unpack {bundle} --root {offline.home / 'caches'}", offline.home)

    print("\n4. transformers loads it there by its name, with these lines in load.py:")
    (offline.home / "load.py").write_text(LOAD, "utf-8")
    print("".join(f"    {line}\n" for line in LOAD.splitlines()), end="")
    prefix = air_gap()
    if prefix:
        print(f"    (inside `{shlex.join(prefix)}`: this process has no network at all)")
    else:
        print("    (this system refuses `unshare -n`, so only offline.env keeps the network away)")
    loaded = offline.run("source offline.env && python load.py", offline.home, prefix)
    after = json.loads(loaded.splitlines()[-1])
    print(f"    the sha256 over its weights: {after['weights']}")
    print(f"    its tokens: {' '.join(after['tokens'])}")

    same = {key for key in before if before[key] == after.get(key)}
    print(f"\nthe same tokens: {'yes' if 'tokens' in same else 'NO'}")
    print(f"the same answer of a pipeline: {'yes' if 'answer' in same else 'NO'}")
    print(f"the same weights: {'yes' if 'weights' in same else 'NO'}")
    if same != before.keys():
        raise DemoError("what was loaded is not what was packed")


def air_gap() -> tuple[str, ...]:
    """What runs a command without any network, if the system allows it."""
    for prefix in (("unshare", "-n"), ("unshare", "-rn")):
        try:
            if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
                return prefix
        except FileNotFoundError:
            break
    return ()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except DemoError as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit("demo: interrupted")
