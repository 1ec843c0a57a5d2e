"""olah, a mirror server for the Hugging Face Hub that others wrote, in front of the loopback hub.

with HubForOlah() as hub, olah_in_front_of(hub, tmp_path / "olah", python) as url:
    ...                                             # a client with HF_ENDPOINT=url
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from command import NOWHERE, command_environment
from loopback import Answer, Request, _Handler, text
from loopback_hub import LoopbackHub

# From its start until it listens: below 2 seconds when the machine has nothing else to do.
DEADLINE = 60.0

_PATHS_INFO = re.compile(
    r"/api/(?P<kinds>models|datasets|spaces)/(?P<name>[^/]+(?:/[^/]+)?)"
    r"/paths-info/(?P<revision>[^/]+)"
)
_LISTENING = re.compile(r"Uvicorn running on (http://127\.0\.0\.1:\d+)")


class _PostHandler(_Handler):
    def do_POST(self) -> None:
        """As a GET: the form becomes the query."""
        form = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.path = f"{self.path}?{form}"
        self.do_GET()


class HubForOlah(LoopbackHub):
    """A hub with what olah asks besides: `POST …/paths-info/REVISION`, and `…/tree/REVISION/`."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(port)
        for server in self._servers:
            server.RequestHandlerClass = _PostHandler

    def __enter__(self) -> HubForOlah:
        super().__enter__()
        return self

    def _hub(self, request: Request) -> Answer:
        path, _, query = request.path.partition("?")
        if path.endswith("/"):
            return super()._hub(replace(request, path=f"{path[:-1]}?{query}"))
        match = _PATHS_INFO.fullmatch(path)
        if match is None or request.method != "POST":
            return super()._hub(request)
        _, tree = self._repo(request, match).tree(unquote(match["revision"]))
        found = [(path, tree[path]) for path in parse_qs(query)["paths"] if path in tree]
        entries = [
            {
                "type": "file",
                "oid": file.blob_id,
                "size": file.size,
                "path": path,
                **file.lfs("oid"),
            }
            for path, file in found
        ]
        return text(200, json.dumps(entries), {"Content-Type": "application/json"})


@contextmanager
def olah_in_front_of(hub: HubForOlah, folder: Path, python: str) -> Iterator[str]:
    """The address of an olah that asks nothing but `hub`; its cache and logs are below `folder`.

    `python`: an interpreter that has olah.
    """
    folder.mkdir()
    netloc = urlsplit(hub.url).netloc
    command = [
        python, "-m", "olah.server", "--host", "127.0.0.1", "--port", "0",
        "--hf-scheme", "http", "--hf-netloc", netloc, "--hf-lfs-netloc", netloc,
        "--repos-path", str(folder / "repos"), "--log-path", str(folder / "logs"),
    ]  # fmt: skip
    env = {**command_environment(folder), **NOWHERE, "PYTHONWARNINGS": "ignore"}
    log = folder / "output"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        ) as process,
    ):
        try:
            yield _address(process, log)
        finally:
            # It would wait for its clients, and for the hub, if it were asked.
            process.kill()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where the process says that it listens."""
    deadline = time.monotonic() + DEADLINE
    while process.poll() is None and time.monotonic() < deadline:
        if match := _LISTENING.search(log.read_text()):
            return match[1]
        time.sleep(0.02)
    raise RuntimeError(f"olah does not listen:\n{log.read_text()}")
