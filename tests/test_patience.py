"""Servers in trouble are asked again, as they wish to be, and given up when that is of no use."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path

import pytest
from command import Ran, run
from loopback import Fault
from loopback_hub import LoopbackHub
from loopback_web import LoopbackWeb

from bundler.patience import RETRIES, asked_wait

AT_ONCE = {"Retry-After": "0"}
URL = "https://files.example/x.pth"
IN_TROUBLE = {
    "busy": Fault("", status=503, headers=AT_ONCE),
    "of too many requests": Fault("", status=429, headers={"RateLimit": '"api";r=0;t=0'}),
    "broken, and soon no more": Fault("", status=500, headers=AT_ONCE, times=RETRIES - 1),
}
NOW = datetime.now(timezone.utc)


def pack(hub: LoopbackHub, web: LoopbackWeb, home: Path, spec: str) -> Ran:
    env = {"HF_ENDPOINT": hub.url, "BUNDLER_MIRROR": " ".join(web.mirrors)}
    return run("pack", spec, home=home, env=env)


def trouble(kind: str, path: str) -> Fault:
    """One of IN_TROUBLE, unused, for what has this regex in its path."""
    fault = IN_TROUBLE[kind]
    return Fault(path, times=fault.times, status=fault.status, headers=fault.headers)


@pytest.mark.parametrize("kind", IN_TROUBLE)
@pytest.mark.parametrize("path", [r"/api/models/acme/tiny", r"resolve.*config", r"resolve.*model"])
def test_the_hub(hub: LoopbackHub, web: LoopbackWeb, tmp_path: Path, path: str, kind: str) -> None:
    hub.add("acme/tiny", {"config.json": b"{}", "model.safetensors": b"weights"})
    hub.faults.append(trouble(kind, path))
    assert pack(hub, web, tmp_path, "acme/tiny").code == 0
    assert hub.faults[0].times == 0


def test_the_gate_of_a_gated_repository(hub: LoopbackHub, web: LoopbackWeb, tmp_path: Path) -> None:
    hub.add("acme/tiny", {"model.safetensors": b"weights"}, gated=True)
    hub.faults.append(Fault("resolve", status=503, headers=AT_ONCE))
    done = pack(hub, web, tmp_path, "acme/tiny")
    assert (done.code, "is gated" in done.err) == (3, True)


@pytest.mark.parametrize("kind", IN_TROUBLE)
@pytest.mark.parametrize(
    ("spec", "path"),
    [(URL, "x.pth"), ("torchhub:o/r", "info/refs"), ("torchhub:o/r", "zipball")],
    ids=["an address", "a list of branches", "an archive"],
)
def test_the_web(
    hub: LoopbackHub, web: LoopbackWeb, tmp_path: Path, spec: str, path: str, kind: str
) -> None:
    web.add(URL, b"weights")
    web.add_repository("o/r", {"hubconf.py": b""})
    web.faults.append(trouble(kind, path))
    assert pack(hub, web, tmp_path, spec).code == 0
    assert web.faults[0].times == 0


def test_what_stays_in_trouble_is_given_up(
    hub: LoopbackHub, web: LoopbackWeb, tmp_path: Path
) -> None:
    hub.add("acme/tiny", {"model.safetensors": b"weights"})
    hub.faults.append(Fault("/api/models", times=99, status=503, headers=AT_ONCE))
    done = pack(hub, web, tmp_path, "acme/tiny")
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert "answered 503" in done.err
    assert len(hub.requests) == RETRIES


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        pytest.param({"Retry-After": "7"}, 7, 7, id="seconds"),
        pytest.param(
            {"Retry-After": format_datetime(NOW + timedelta(hours=1), usegmt=True)},
            3000, 3601, id="a date",
        ),
        pytest.param(
            {"Retry-After": format_datetime(NOW - timedelta(hours=1))}, 0, 0, id="a date gone by"
        ),
        pytest.param({"RateLimit": '"api";r=0;t=55'}, 55, 55, id="until the limit is lifted"),
        pytest.param({"Retry-After": "3", "RateLimit": '"api";t=55'}, 3, 3, id="both"),
    ],
)  # fmt: skip
def test_a_server_says_when_it_wants_to_be_asked(
    headers: dict[str, str], low: float, high: float
) -> None:
    asked = asked_wait(headers)
    assert asked is not None
    assert low <= asked <= high


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Retry-After": ""},
        {"Retry-After": "soon"},
        {"Retry-After": "-1"},
        {"Retry-After": "²"},
        {"RateLimit": "limit=3"},
        {"RateLimit": "t=x"},
    ],
)
def test_or_says_nothing_that_is_understood(headers: dict[str, str]) -> None:
    assert asked_wait(headers) is None
