"""Downloads that are cut off, stalled, altered or killed, through the command line."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command import NOWHERE, Ran, peak_memory, run, start
from loopback import Fault, Site
from loopback_hub import LoopbackHub
from loopback_web import LoopbackWeb

import bundler
from bundler.partial import PART_SIZE, Partial

MB = 1_000_000
LARGE = 2 * PART_SIZE - 20 * MB
PARTS = 5
LARGER = PARTS * PART_SIZE
AT_ONCE = {"Retry-After": "0"}
ADDRESS = "https://files.example/big.pth"
SMALL = os.urandom(3 * MB)
# Bytes a second of each connection. No more than a client takes in: what the kernel holds for it
# counts as sent.
STEADY, FAST = 4 * MB, 60 * MB
HARDLY_MORE = 1.05
"""Times the size: what lay in the kernel's buffers when a process was killed was sent, too."""
TRIED = 99
"""More than the bytes that are asked for to see whether a long download can begin."""


def big(path: Path, size: int, salt: str = "") -> Path:
    """A file of `size` bytes, mostly holes, of which no two pieces are alike."""
    with open(path, "wb") as file:
        for offset in range(0, size, 1 << 18):
            file.seek(offset)
            file.write(f"{salt} {offset}".encode())
        file.truncate(size)
    return path


def environment(site: Site | None, env: dict[str, str] | None = None) -> dict[str, str]:
    found = {"HF_ENDPOINT": site.url} if isinstance(site, LoopbackHub) else {}
    if isinstance(site, LoopbackWeb):
        found = {"BUNDLER_MIRROR": " ".join(site.mirrors)}
    # What is not on the loopback address is not to be had.
    return {**NOWHERE, **found, **(env or {})}


def pack(site: Site | None, home: Path, *arguments: object, **options: Any) -> Ran:
    env = environment(site, options.pop("env", None))
    return run("pack", *arguments, "--jobs", 2, "--level", 1, home=home, env=env, **options)


def start_pack(site: Site, home: Path, *arguments: object) -> subprocess.Popen[bytes]:
    return start("pack", *arguments, home=home, env=environment(site))


def sha256(content: bytes | Path) -> str:
    data = content if isinstance(content, bytes) else content.read_bytes()
    return hashlib.sha256(data).hexdigest()


def packed(home: Path) -> dict[str, str]:
    """path -> sha256 of every file in the bundle, all of which were compared."""
    bundle = home / "bundle.tar.zst"
    assert bundler.verify(bundle).faults == ()
    manifest = bundler.inspect(bundle).manifest
    return {str(e.path): e.blob.digest.hex for s in manifest.snapshots for e in s.files}


def unfinished(home: Path) -> list[Path]:
    return [*(home / ".cache" / "bundler" / "partial").glob("*")]


def here(home: Path, size: int | None) -> int:
    """Bytes of the one unfinished download."""
    return sum(Partial(path, size).here for path in unfinished(home))


def has_come(home: Path, size: int, share: float) -> bool:
    """Whether more than a share of the one file is here."""
    return here(home, size) > share * size


def until(
    condition: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 20
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline


def killed(site: Site, home: Path, condition: Callable[[], bool], *arguments: object) -> None:
    """Pack until a condition holds, then kill -9."""
    with start_pack(site, home, *arguments) as process:
        try:
            until(condition, process)
        finally:
            process.kill()


def ranges(site: Site) -> list[str]:
    """The parts that were asked for, but for the one byte with which a file is looked at."""
    served = [request for request in site.requests if "/resolve/" not in request.path]
    asked = [request.headers.get("range", "") for request in served]
    return sorted(part for part in asked if part not in ("", "bytes=0-0"))


def gaps(home: Path, size: int) -> list[str]:
    """The same for exactly what is not here of the one unfinished download."""
    (path,) = unfinished(home)
    begun = Partial(path, size)
    spans = [begun.span(part) for part in begun.missing]
    return sorted(f"bytes={start}-{(stop or size) - 1}" for start, stop in spans)


def one_line(done: Ran, code: int, *said: str) -> None:
    assert (done.code, done.err.count("\n")) == (code, 1), done.err
    for words in said:
        assert words in done.err


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """The content of a file of several parts."""
    return big(tmp_path / "large", LARGE)


@pytest.fixture
def larger(tmp_path: Path) -> Path:
    """The same for one of which a hundredth is more than what is under way at one moment."""
    return big(tmp_path / "larger", LARGER)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


class TestKilled:
    def test_again_and_again_hardly_a_byte_is_fetched_twice(
        self, hub: LoopbackHub, home: Path, larger: Path
    ) -> None:
        hub.add("acme/larger", {"model.safetensors": larger})
        hub.faults.append(Fault("xet-bridge", times=999, pace=STEADY))
        for tenth in (3, 6):
            before = here(home, LARGER)
            killed(hub, home, partial(has_come, home, LARGER, tenth / 10), "acme/larger")
            assert before < here(home, LARGER) < LARGER
        missing = gaps(home, LARGER)
        hub.faults.clear()
        hub.requests.clear()
        assert pack(hub, home, "acme/larger").code == 0
        assert ranges(hub) == missing
        assert packed(home) == {"model.safetensors": sha256(larger)}
        assert LARGER <= hub.sent("xet-bridge") < HARDLY_MORE * LARGER
        assert unfinished(home) == []

    def test_while_a_network_is_silent_nothing_is_lost_that_came_before(
        self, hub: LoopbackHub, home: Path
    ) -> None:
        hub.add("acme/tiny", {"model.safetensors": SMALL})
        # Silent after so much, and killed before anybody finds that too long.
        hub.faults.append(Fault("xet-bridge", cut=1_900_000, stall=True))
        with start_pack(hub, home, "acme/tiny") as process:
            try:
                until(lambda: here(home, len(SMALL)) == 1_900_000, process, seconds=5)
            finally:
                process.kill()
        assert pack(hub, home, "acme/tiny").code == 0
        assert packed(home) == {"model.safetensors": sha256(SMALL)}
        assert hub.sent("xet-bridge") == len(SMALL)

    def test_while_the_whole_file_is_compared_nothing_is_lost(
        self, hub: LoopbackHub, home: Path, large: Path
    ) -> None:
        hub.add("acme/large", {"model.safetensors": large})
        with start_pack(hub, home, "acme/large") as process:
            until(lambda: hub.sent("xet-bridge") >= LARGE, process)
            until(lambda: here(home, LARGE) == LARGE, process)
            process.kill()
        assert here(home, LARGE) == LARGE, "killed too late"
        assert pack(hub, home, "acme/large").code == 0
        assert packed(home) == {"model.safetensors": sha256(large)}
        assert LARGE <= hub.sent("xet-bridge") <= LARGE + TRIED

    def test_after_a_power_cut_what_was_lost_is_fetched_anew(
        self, hub: LoopbackHub, home: Path, large: Path
    ) -> None:
        hub.add("acme/large", {"model.safetensors": large})
        hub.faults.append(Fault("xet-bridge", times=999, pace=STEADY))
        killed(hub, home, partial(has_come, home, LARGE, 0.5), "acme/large")
        (path,) = unfinished(home)
        with open(path, "r+b") as file:
            file.write(bytes(LARGE))  # The table was written before the power went, the rest not.
            file.seek(-36, os.SEEK_END)
            file.write(b"another boot".ljust(36))
        hub.faults.clear()
        done = pack(hub, home, "acme/large")
        assert (done.code, done.err) == (0, "")
        assert packed(home) == {"model.safetensors": sha256(large)}

    def test_one_of_many_files_the_others_are_kept(self, hub: LoopbackHub, home: Path) -> None:
        files = {f"part-{n}.safetensors": os.urandom(MB) for n in range(6)}
        hub.add("acme/many", files)
        hub.faults.append(Fault("part-3", times=1, cut=500_000, stall=True))
        blobs = home / ".cache" / "bundler" / "blobs" / "sha256"
        killed(hub, home, lambda: len([*blobs.glob("*")]) == 5, "acme/many")
        assert pack(hub, home, "acme/many").code == 0
        assert packed(home) == {name: sha256(content) for name, content in files.items()}
        for name in set(files) - {"part-3.safetensors"}:
            assert hub.sent(name) == MB

    def test_a_body_of_unknown_length_begins_anew(self, web: LoopbackWeb, home: Path) -> None:
        web.add(ADDRESS, SMALL, length=False)
        # The heading is asked for first, and its body is not read.
        web.faults.append(Fault("big", cut=0))
        web.faults.append(Fault("big", cut=2 * MB, stall=True))
        killed(web, home, lambda: here(home, None) > MB, ADDRESS)
        assert pack(web, home, ADDRESS).code == 0
        assert packed(home) == {"big.pth": sha256(SMALL)}
        assert ranges(web) == []


class TestParts:
    def test_several_are_fetched_at_once_and_each_once(
        self, hub: LoopbackHub, home: Path, larger: Path
    ) -> None:
        hub.add("acme/large", {"model.safetensors": larger})
        hub.faults.append(Fault("xet-bridge", times=999, pace=FAST))
        assert pack(hub, home, "acme/large").code == 0
        assert packed(home) == {"model.safetensors": sha256(larger)}
        assert hub.together("xet-bridge") == PARTS
        assert LARGER <= hub.sent("xet-bridge") <= LARGER + TRIED
        assert unfinished(home) == []

    def test_a_small_file_is_one(self, hub: LoopbackHub, home: Path) -> None:
        hub.add("acme/tiny", {"model.safetensors": SMALL})
        assert pack(hub, home, "acme/tiny").code == 0
        (request,) = (r for r in hub.requests if r.server == "cdn")
        assert "range" not in request.headers

    def test_a_server_without_ranges_sends_the_whole_once(
        self, hub: LoopbackHub, home: Path, large: Path
    ) -> None:
        hub.cdn_honours_range = False
        hub.add("acme/large", {"model.safetensors": large})
        hub.faults.append(Fault("xet-bridge", times=999, pace=FAST))
        assert pack(hub, home, "acme/large").code == 0
        assert packed(home) == {"model.safetensors": sha256(large)}
        assert LARGE <= hub.sent("xet-bridge") < 1.2 * LARGE
        assert unfinished(home) == []

    def test_without_ranges_and_with_all_others_busy(
        self, hub: LoopbackHub, home: Path, large: Path
    ) -> None:
        hub.cdn_honours_range = False
        slow = {f"a-{n}.safetensors": os.urandom(2 * MB) for n in range(7)}
        hub.add("acme/large", {**slow, "b.safetensors": large})
        hub.faults.append(Fault(r"a-\d", times=999, pace=MB))
        assert pack(hub, home, "acme/large").code == 0
        assert packed(home)["b.safetensors"] == sha256(large)
        assert unfinished(home) == []

    def test_a_server_that_stops_to_know_ranges_between_two_runs(
        self, hub: LoopbackHub, home: Path, large: Path
    ) -> None:
        hub.add("acme/large", {"model.safetensors": large})
        hub.faults.append(Fault("xet-bridge", times=999, pace=STEADY))
        killed(hub, home, partial(has_come, home, LARGE, 0.5), "acme/large")
        sent = hub.sent("xet-bridge")
        hub.cdn_honours_range = False
        hub.faults[0].pace = FAST
        assert pack(hub, home, "acme/large").code == 0
        assert packed(home) == {"model.safetensors": sha256(large)}
        assert hub.sent("xet-bridge") - sent < 1.3 * LARGE
        assert unfinished(home) == []

    def test_a_server_that_begins_to_know_ranges_between_two_runs(
        self, hub: LoopbackHub, home: Path, large: Path
    ) -> None:
        hub.cdn_honours_range = False
        hub.add("acme/large", {"model.safetensors": large})
        hub.faults.append(Fault("xet-bridge", times=999, pace=FAST))
        killed(hub, home, partial(has_come, home, LARGE, 0.5), "acme/large")
        sent = hub.sent("xet-bridge")
        hub.cdn_honours_range = True
        assert pack(hub, home, "acme/large").code == 0
        assert packed(home) == {"model.safetensors": sha256(large)}
        assert hub.sent("xet-bridge") - sent < 0.6 * LARGE

    def test_memory_does_not_grow_with_the_file(self, hub: LoopbackHub, tmp_path: Path) -> None:
        peaks = {}
        for size in (40 * MB, 300 * MB):
            hub.add(f"acme/of-{size}", {"model.safetensors": big(tmp_path / f"{size}", size)})
            home = tmp_path / f"home-{size}"
            home.mkdir()
            with start_pack(hub, home, f"acme/of-{size}", "--jobs", "1") as process:
                peaks[size] = peak_memory(process)
            assert process.returncode == 0
        small, large = peaks.values()
        assert large < small + 48 * MB


class TestLinks:
    def test_an_expired_one_is_asked_for_anew(self, hub: LoopbackHub, home: Path) -> None:
        hub.link_lifetime = -1
        hub.add("acme/tiny", {"model.safetensors": SMALL})
        with start_pack(hub, home, "acme/tiny") as process:
            until(lambda: any(r.server == "cdn" for r in hub.requests), process)
            hub.link_lifetime = 3600
            _, err = process.communicate()
        assert (process.returncode, err) == (0, b"")
        assert packed(home) == {"model.safetensors": sha256(SMALL)}
        assert len([r for r in hub.requests if "/resolve/" in r.path]) == 2

    def test_one_that_expires_between_two_drops(
        self, hub: LoopbackHub, home: Path, large: Path
    ) -> None:
        hub.link_lifetime = 0.3
        hub.add("acme/large", {"model.safetensors": large})
        hub.faults.append(Fault("xet-bridge", times=6, cut=7 * MB, pace=20 * MB))
        assert pack(hub, home, "acme/large").code == 0
        assert packed(home) == {"model.safetensors": sha256(large)}

    def test_one_that_is_always_expired(self, hub: LoopbackHub, home: Path) -> None:
        hub.link_lifetime = -1
        hub.add("acme/tiny", {"model.safetensors": SMALL})
        done = pack(hub, home, "acme/tiny", "--retries", 2)
        one_line(done, 3, "model.safetensors of acme/tiny", "403")

    @pytest.mark.parametrize("path", ["/api/models", "/resolve/", "xet-bridge"])
    def test_in_circles_they_are_told_at_once(
        self, hub: LoopbackHub, home: Path, path: str
    ) -> None:
        hub.add("acme/tiny", {"model.safetensors": SMALL})
        headers = {"Location": f"{hub.url}/acme/tiny/resolve/main/model.safetensors"}
        if path == "/api/models":
            headers = {"Location": "?again=1"}
        hub.faults.append(Fault(path, times=9999, status=302, headers=headers))
        one_line(pack(hub, home, "acme/tiny"), 3, "127.0.0.1", "in circles")
        assert len(hub.requests) < 40

    @pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
    @pytest.mark.parametrize("path", ["/api/models", "/resolve/"])
    def test_out_of_the_web_they_are_not_followed(
        self, hub: LoopbackHub, home: Path, path: str, target: str
    ) -> None:
        hub.add("acme/tiny", {"model.safetensors": SMALL})
        hub.faults.append(Fault(path, times=9999, status=302, headers={"Location": target}))
        one_line(pack(hub, home, "acme/tiny"), 3, "127.0.0.1", target)
        assert len(hub.requests) < 10


class TestFaults:
    def test_a_stalled_connection_is_given_up_and_another_goes_on(
        self, hub: LoopbackHub, home: Path, large: Path
    ) -> None:
        hub.add("acme/large", {"model.safetensors": large})
        hub.faults.append(Fault("xet-bridge", times=2, cut=9 * MB, stall=True))
        began = time.monotonic()
        assert pack(hub, home, "acme/large", "--timeout", 1).code == 0
        assert time.monotonic() - began < 25
        assert packed(home) == {"model.safetensors": sha256(large)}
        assert LARGE <= hub.sent("xet-bridge") <= LARGE + TRIED

    @pytest.mark.parametrize("path", ["/api/models", "config.json"])
    def test_a_small_answer_that_stalls_is_asked_for_again(
        self, hub: LoopbackHub, home: Path, path: str
    ) -> None:
        hub.add("acme/tiny", {"config.json": b"{}" + b" " * 500, "model.safetensors": b"weights"})
        hub.faults.append(Fault(path, cut=100, stall=True))
        assert pack(hub, home, "acme/tiny", "--timeout", 1).code == 0
        assert hub.faults[0].times == 0

    def test_what_always_stalls_is_given_up(self, hub: LoopbackHub, home: Path) -> None:
        hub.add("acme/tiny", {"model.safetensors": SMALL})
        hub.faults.append(Fault("xet-bridge", times=99, cut=0, stall=True))
        done = pack(hub, home, "acme/tiny", "--timeout", 0.2, "--retries", 2)
        one_line(done, 3, "model.safetensors of acme/tiny", "localhost", "run the same command")

    def test_drops_that_bring_some_bytes_are_no_reason_to_give_up(
        self, hub: LoopbackHub, home: Path
    ) -> None:
        hub.add("acme/tiny", {"model.safetensors": SMALL})
        cuts = [1, 2, 65_535, 65_536, 65_537, *[100_003] * 20]
        hub.faults += [Fault("xet-bridge", cut=cut) for cut in cuts]
        done = pack(hub, home, "acme/tiny", "--retries", 1)
        assert (done.code, done.err) == (0, "")
        assert packed(home) == {"model.safetensors": sha256(SMALL)}
        assert hub.sent("xet-bridge") == len(SMALL)

    def test_drops_in_every_part(self, hub: LoopbackHub, home: Path, large: Path) -> None:
        hub.add("acme/large", {"model.safetensors": large})
        hub.faults.append(Fault("xet-bridge", times=12, cut=3_000_001))
        assert pack(hub, home, "acme/large", "--retries", 1).code == 0
        assert packed(home) == {"model.safetensors": sha256(large)}
        assert LARGE <= hub.sent("xet-bridge") <= LARGE + TRIED

    def test_a_chunked_body_that_breaks_off_begins_anew(self, web: LoopbackWeb, home: Path) -> None:
        web.add(ADDRESS, SMALL, length=False)
        web.faults += [Fault("big", cut=0), Fault("big", cut=MB), Fault("big", cut=2 * MB)]
        assert pack(web, home, ADDRESS).code == 0
        assert packed(home) == {"big.pth": sha256(SMALL)}

    @pytest.mark.parametrize("more", [-1000, 1000])
    def test_a_wrong_length_is_noticed_and_passes(
        self, hub: LoopbackHub, home: Path, more: int
    ) -> None:
        hub.add("acme/tiny", {"model.safetensors": SMALL})
        hub.faults.append(Fault("xet-bridge", length=len(SMALL) + more))
        assert pack(hub, home, "acme/tiny").code == 0
        assert hub.faults[0].times == 0
        assert packed(home) == {"model.safetensors": sha256(SMALL)}

    @pytest.mark.parametrize("more", [-1000, 1000])
    def test_a_length_that_is_always_wrong_is_told(
        self, hub: LoopbackHub, home: Path, more: int
    ) -> None:
        hub.add("acme/tiny", {"model.safetensors": SMALL, "other.safetensors": SMALL[::-1]})
        hub.faults.append(Fault("filename.*model", times=99, length=len(SMALL) + more))
        done = pack(hub, home, "acme/tiny")
        assert done.code == 4
        assert done.err.startswith("bundler: model.safetensors of acme/tiny")
        assert "1 of 2 files are in" in done.err

    @pytest.mark.parametrize("more", [-1000, 1000])
    def test_a_wrong_length_of_a_part_is_made_up_for(
        self, hub: LoopbackHub, home: Path, large: Path, more: int
    ) -> None:
        hub.add("acme/large", {"model.safetensors": large})
        hub.faults.append(Fault("xet-bridge", times=2, length=PART_SIZE + more))
        assert pack(hub, home, "acme/large", "--timeout", 1).code == 0
        assert packed(home) == {"model.safetensors": sha256(large)}
        assert LARGE <= hub.sent("xet-bridge") <= LARGE + TRIED

    def test_one_wrong_byte_has_its_file_fetched_anew_and_no_other(
        self, hub: LoopbackHub, home: Path, large: Path
    ) -> None:
        hub.add("acme/large", {"model.safetensors": large, "other.safetensors": SMALL})
        hub.faults.append(Fault("filename.*model", flip=5 * MB))
        done = pack(hub, home, "acme/large")
        assert (done.code, done.err, hub.faults[0].times) == (0, "", 0)
        assert packed(home)["model.safetensors"] == sha256(large)
        assert 2 * LARGE <= hub.sent("filename.*model") <= 2 * LARGE + 2 * TRIED
        assert hub.sent("filename.*other") <= len(SMALL) + 2 * TRIED

    def test_wrong_bytes_twice_are_told(self, hub: LoopbackHub, home: Path, large: Path) -> None:
        hub.add("acme/large", {"model.safetensors": large, "other.safetensors": SMALL})
        hub.faults.append(Fault("filename.*model", times=999, flip=5))
        done = pack(hub, home, "acme/large")
        assert done.code == 4
        assert done.err.startswith("bundler: model.safetensors of acme/large")
        assert "1 of 2 files are in" in done.err
        assert not (home / "bundle.tar.zst").exists()
        assert 2 * LARGE <= hub.sent("filename.*model") <= 2 * LARGE + 2 * TRIED
        hub.faults.clear()
        assert pack(hub, home, "acme/large").code == 0
        assert packed(home)["model.safetensors"] == sha256(large)
        assert hub.sent("filename.*other") <= len(SMALL) + 2 * TRIED

    @pytest.mark.parametrize("status", [408, 429, 500])
    def test_a_busy_server_is_asked_again(self, hub: LoopbackHub, home: Path, status: int) -> None:
        hub.add("acme/tiny", {"model.safetensors": SMALL})
        hub.faults.append(Fault("xet-bridge", times=3, status=status, headers=AT_ONCE))
        assert pack(hub, home, "acme/tiny", "--retries", 4).code == 0
        assert packed(home) == {"model.safetensors": sha256(SMALL)}

    def test_one_try_is_one_try(self, hub: LoopbackHub, home: Path) -> None:
        hub.add("acme/tiny", {"model.safetensors": SMALL})
        hub.faults.append(Fault("xet-bridge", status=503, headers=AT_ONCE))
        done = pack(hub, home, "acme/tiny", "--retries", 1)
        one_line(done, 3, "model.safetensors of acme/tiny", "503")
        assert "1 tries" not in done.err
        assert len([r for r in hub.requests if r.server == "cdn"]) == 1

    def test_one_failing_model_of_several_loses_no_bytes_of_the_others(
        self, hub: LoopbackHub, home: Path
    ) -> None:
        names = [f"acme/model-{n}" for n in range(5)]
        for number, name in enumerate(names):
            hub.add(name, {"model.safetensors": os.urandom(MB), f"{number}.json": b"%d" % number})
        hub.faults.append(Fault("acme/model-2/resolve.*safetensors", times=99, status=404))
        done = pack(hub, home, *names)
        assert done.code == 3
        first, second = done.err.splitlines()
        assert first.startswith("bundler: model.safetensors of acme/model-2: ")
        assert re.match(r"bundler: 9 of 10 files are in .*not fetched again", second)
        hub.faults.clear()
        sent = hub.sent("xet-bridge")
        assert pack(hub, home, *names).code == 0
        assert hub.sent("xet-bridge") - sent == MB
        assert len(bundler.inspect(home / "bundle.tar.zst").manifest.snapshots) == 5

    def test_the_bytes_of_a_file_that_failed_are_kept_too(
        self, hub: LoopbackHub, home: Path
    ) -> None:
        hub.add("acme/tiny", {"model.safetensors": SMALL})
        hub.faults += [
            Fault("xet-bridge", cut=2 * MB),
            Fault("xet-bridge", times=99, status=503, headers=AT_ONCE),
        ]
        # The first that is meant for a request strikes: the bytes come before the trouble.
        hub.faults[1].times = 0
        with start("pack", "acme/tiny", "--retries", "2", home=home,
                   env=environment(hub)) as process:  # fmt: skip
            until(lambda: hub.faults[0].times == 0, process)
            hub.faults[1].times = 99
            _, err = process.communicate()
        assert process.returncode == 3, err
        sent = hub.sent("xet-bridge")
        hub.faults.clear()
        assert pack(hub, home, "acme/tiny").code == 0
        assert sent == 2 * MB
        assert hub.sent("xet-bridge") == len(SMALL)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--retries", "0"],
        ["--retries", "-1"],
        ["--retries", "many"],
        *(["--timeout", text] for text in ("0", "-1", "nan", "inf", "1e300", "soon")),
    ],
    ids=" ".join,
)
def test_what_no_patience_can_be_is_refused(
    hub: LoopbackHub, home: Path, arguments: list[str]
) -> None:
    hub.add("acme/tiny", {"model.safetensors": b"weights"})
    one_line(pack(hub, home, "acme/tiny", *arguments), 2)
    assert hub.requests == []


def test_out_of_space_in_the_middle_it_goes_on_when_there_is_some(
    hub: LoopbackHub, home: Path, large: Path, small_disk: Callable[[str], Path]
) -> None:
    hub.add("acme/large", {"model.safetensors": large})
    hub.faults.append(Fault("xet-bridge", times=999, pace=STEADY))
    disk = small_disk(f"size={LARGE + 20 * MB}")
    arguments = ("acme/large", "--store", disk / "store")

    def arrived() -> int:
        return sum(Partial(p, LARGE).here for p in (disk / "store" / "partial").glob("*"))

    with start_pack(hub, home, *arguments) as process:
        until(lambda: arrived() > 10 * MB, process)
        with open(disk / "filler", "wb") as file:
            space = os.fstatvfs(file.fileno())
            os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize - 5 * MB)
        _, err = process.communicate()
    assert (process.returncode, err.count(b"\n")) == (6, 1), err
    assert b"no space left" in err
    assert b"--store" in err
    before, sent = arrived(), hub.sent("xet-bridge")
    assert before > 10 * MB
    (disk / "filler").unlink()
    hub.faults.clear()
    assert pack(hub, home, *arguments).code == 0
    assert packed(home) == {"model.safetensors": sha256(large)}
    assert hub.sent("xet-bridge") - sent < LARGE - before + MB


class TestChangedUpstream:
    def test_the_hub_has_another_commit_in_the_next_run(
        self, hub: LoopbackHub, home: Path, large: Path, tmp_path: Path
    ) -> None:
        repo = hub.add("acme/large", {"model.safetensors": large})
        hub.faults.append(Fault("xet-bridge", times=999, pace=STEADY))
        killed(hub, home, partial(has_come, home, LARGE, 20 * MB / LARGE), "acme/large")
        other = big(tmp_path / "other", LARGE, "other")
        commit = repo.commit_files({"model.safetensors": other})
        hub.faults.clear()
        assert pack(hub, home, "acme/large").code == 0
        assert packed(home) == {"model.safetensors": sha256(other)}
        (snapshot,) = bundler.inspect(home / "bundle.tar.zst").manifest.snapshots
        assert snapshot.commit_hash == commit

    def test_the_same_content_at_another_commit_is_gone_on_with(
        self, hub: LoopbackHub, home: Path, larger: Path
    ) -> None:
        repo = hub.add("acme/large", {"model.safetensors": larger})
        hub.faults.append(Fault("xet-bridge", times=999, pace=STEADY))
        killed(hub, home, partial(has_come, home, LARGER, 0.5), "acme/large")
        repo.commit_files({"README.md": b"new", "model.safetensors": None, "m.safetensors": larger})
        missing = gaps(home, LARGER)
        hub.faults.clear()
        hub.requests.clear()
        assert pack(hub, home, "acme/large").code == 0
        assert packed(home)["m.safetensors"] == sha256(larger)
        assert ranges(hub) == missing

    @pytest.mark.parametrize("size", [len(SMALL), LARGE])
    def test_an_address_has_another_mark_in_the_next_run(
        self, web: LoopbackWeb, home: Path, tmp_path: Path, size: int
    ) -> None:
        web.add(ADDRESS, big(tmp_path / "one", size))
        web.faults += [Fault("big", cut=0), Fault("big", times=99, cut=size // 3, stall=True)]
        killed(web, home, partial(has_come, home, size, 0.25), ADDRESS)
        other = big(tmp_path / "other", size, "other")
        web.add(ADDRESS, other)
        web.faults.clear()
        assert pack(web, home, ADDRESS).code == 0
        assert packed(home) == {"big.pth": sha256(other)}

    def test_an_address_has_another_content_in_the_middle(
        self, web: LoopbackWeb, home: Path, tmp_path: Path
    ) -> None:
        web.add(ADDRESS, big(tmp_path / "one", LARGE))
        web.faults += [Fault("big", cut=0), Fault("big", times=99, cut=6 * MB, pace=6 * MB)]
        other = big(tmp_path / "other", LARGE, "other")
        with start_pack(web, home, ADDRESS, "--retries", "2") as process:
            until(partial(has_come, home, LARGE, 2 * MB / LARGE), process)
            web.add(ADDRESS, other)
            _, err = process.communicate()
        assert (process.returncode, err.count(b"\n")) == (4, 1), err
        assert b"other content" in err
        assert b"run the same command again" in err
        assert not (home / "bundle.tar.zst").exists()
        web.faults.clear()
        assert pack(web, home, ADDRESS).code == 0
        assert packed(home) == {"big.pth": sha256(other)}


class TestAddresses:
    def test_a_large_file_comes_in_parts(self, web: LoopbackWeb, home: Path, larger: Path) -> None:
        web.add(ADDRESS, larger)
        web.faults += [Fault("big", cut=0), Fault("big", times=99, pace=FAST)]
        assert pack(web, home, ADDRESS).code == 0
        assert packed(home) == {"big.pth": sha256(larger)}
        assert web.together("big") == PARTS
        assert LARGER <= web.sent("big") <= LARGER + TRIED

    def test_killed_in_the_middle_it_is_gone_on_with(
        self, web: LoopbackWeb, home: Path, larger: Path
    ) -> None:
        web.add(ADDRESS, larger)
        web.faults += [Fault("big", cut=0), Fault("big", times=99, pace=STEADY)]
        killed(web, home, partial(has_come, home, LARGER, 0.5), ADDRESS)
        missing = gaps(home, LARGER)
        web.faults[:] = [Fault("big", cut=0)]
        web.requests.clear()
        assert pack(web, home, ADDRESS).code == 0
        assert packed(home) == {"big.pth": sha256(larger)}
        assert ranges(web) == missing

    def test_to_learn_of_it_next_to_nothing_is_fetched(
        self, web: LoopbackWeb, home: Path, larger: Path
    ) -> None:
        web.add(ADDRESS, larger)
        done = pack(web, home, ADDRESS, "--dry-run")
        assert (done.code, "168 MB to download" in done.out) == (0, True)
        assert web.sent("big") < 0.01 * LARGER

    def test_without_a_mark_it_comes_as_a_whole(
        self, web: LoopbackWeb, home: Path, large: Path
    ) -> None:
        web.add(ADDRESS, large, etag=False)
        web.faults.append(Fault("big", cut=0))
        assert pack(web, home, ADDRESS).code == 0
        assert packed(home) == {"big.pth": sha256(large)}
        assert LARGE <= web.sent("big") <= LARGE + TRIED
        assert ranges(web) == []
        assert unfinished(home) == []

    def test_without_a_mark_what_a_killed_run_left_is_not_kept_for_ever(
        self, web: LoopbackWeb, home: Path
    ) -> None:
        web.add(ADDRESS, SMALL, etag=False)
        web.faults += [Fault("big", cut=0), Fault("big", cut=2 * MB, stall=True)]
        killed(web, home, lambda: here(home, len(SMALL)) > MB, ADDRESS)
        assert pack(web, home, ADDRESS).code == 0
        assert packed(home) == {"big.pth": sha256(SMALL)}
        assert unfinished(home) == []

    def test_without_a_mark_and_with_a_digest_it_is_gone_on_with(
        self, web: LoopbackWeb, home: Path
    ) -> None:
        web.add(ADDRESS, SMALL, etag=False)
        spec = f"{ADDRESS}#sha256={sha256(SMALL)}"
        web.faults += [Fault("big", cut=0), Fault("big", cut=2 * MB, stall=True)]
        killed(web, home, lambda: here(home, len(SMALL)) > MB, spec)
        sent = web.sent("big")
        web.faults.append(Fault("big", cut=0))
        assert pack(web, home, spec).code == 0
        assert packed(home) == {"big.pth": sha256(SMALL)}
        assert web.sent("big") - sent < 2 * MB
