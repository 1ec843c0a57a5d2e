"""olah, a mirror server for the Hugging Face Hub that others wrote, in front of the loopback hub.

with HubForOlah() as hub, olah_in_front_of(hub, tmp_path / "olah", python) as url:
    ...                                             # a client with HF_ENDPOINT=url
"""

from __future__ import annotations

import json
import queue
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE, STDOUT
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
    said: queue.Queue[str] = queue.Queue()
    with subprocess.Popen(
        command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=PIPE, stderr=STDOUT
    ) as process:
        log = folder / "output"
        reader = threading.Thread(target=_read, args=(process, log, said))
        reader.start()
        try:
            url = said.get(timeout=DEADLINE)
            if not url:
                raise RuntimeError(f"olah does not listen:\n{log.read_text()}")
            yield url
        finally:
            # It would wait for its clients, and for the hub, if it were asked.
            process.kill()
            reader.join()


def _read(process: subprocess.Popen[bytes], log: Path, said: queue.Queue[str]) -> None:
    """Keep what a process writes in `log`, and say where it listens; nothing if it ends before."""
    assert process.stdout is not None
    with log.open("wb", buffering=0) as file:
        for line in process.stdout:
            file.write(line)
            if match := _LISTENING.search(line.decode()):
                said.put(match[1])
    said.put("")
