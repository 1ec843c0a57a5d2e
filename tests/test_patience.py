"""Servers in trouble are asked again, as they wish to be, and given up when that is of no use."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path

import pytest
from command import Ran, run
from loopback import Fault
from loopback_hub import LoopbackHub
from loopback_web import LoopbackWeb

from bundler.patience import (
    RETRIES,
    Cancelled,
    Patience,
    TransientError,
    UnreachableError,
    asked_wait,
)

AT_ONCE = {"Retry-After": "0"}
URL = "https://files.example/x.pth"
IN_TROUBLE = {
    "busy": Fault("", status=503, headers=AT_ONCE),
    "of too many requests": Fault("", status=429, headers={"RateLimit": '"api";r=0;t=0'}),
    "broken, and soon no more": Fault("", status=500, headers=AT_ONCE, times=RETRIES - 1),
}


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
    ("headers", "seconds"),
    [
        pytest.param({"Retry-After": "7"}, 7, id="seconds"),
        pytest.param({"Retry-After": "Sat, 01 Jan 2000 00:00:00 GMT"}, 0, id="a date gone by"),
        pytest.param({"RateLimit": '"api";r=0;t=55'}, 55, id="until the limit is lifted"),
        pytest.param({"Retry-After": "3", "RateLimit": '"api";t=55'}, 3, id="both"),
    ],
)
def test_a_server_says_when_it_wants_to_be_asked(headers: dict[str, str], seconds: float) -> None:
    assert asked_wait(headers) == seconds


def test_a_server_says_until_when_it_wants_to_be_left_alone() -> None:
    # Now, not when the tests were collected: that may be long ago.
    date = datetime.now(timezone.utc) + timedelta(hours=1)
    asked = asked_wait({"Retry-After": format_datetime(date, usegmt=True)})
    assert asked is not None
    assert 3000 <= asked <= 3600


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


class TestPatience:
    """What is tried again, and how often."""

    def failing(self, *errors: TransientError) -> Callable[[], str]:
        """Raises one after the other, and then gives a value."""
        left = list(errors)

        def attempt() -> str:
            self.tries += 1
            if left:
                raise left.pop(0)
            return "done"

        self.tries = 0
        return attempt

    def gone(self, *, is_final: bool = False) -> UnreachableError:
        return UnreachableError("gone", ["a.example"], is_final)

    def busy(self) -> TransientError:
        return TransientError("busy", wait=0)

    def test_whoever_is_given_up_is_not_waited_for_by_others(self) -> None:
        patience = Patience(retries=1)
        with pytest.raises(UnreachableError):
            patience.insist(self.failing(self.gone()))
        assert patience.is_over("a.example")
        assert not patience.is_over("b.example")
        patience.heard("a.example")
        assert not patience.is_over("a.example")

    def test_whoever_answers_others_meanwhile_is_not_given_up(self) -> None:
        patience = Patience(retries=1)
        attempt = self.failing(self.gone())

        def while_others_are_answered() -> str:
            patience.heard("a.example")
            return attempt()

        with pytest.raises(UnreachableError):
            patience.insist(while_others_are_answered)
        assert not patience.is_over("a.example")

    def test_what_another_has_waited_for_in_vain_is_tried_once(self) -> None:
        with pytest.raises(UnreachableError):
            Patience(retries=5).insist(self.failing(self.gone(is_final=True)))
        assert self.tries == 1

    def test_tries_that_bring_something_do_not_count(self) -> None:
        here = iter([0, 1, 2, 3])
        done = Patience(retries=1).insist(
            self.failing(self.busy(), self.busy(), self.busy()), lambda: next(here)
        )
        assert (done, self.tries) == ("done", 4)

    def test_what_is_dropped_and_comes_again_is_no_progress(self) -> None:
        amounts = itertools.cycle([100, 200])
        with pytest.raises(TransientError) as caught:
            Patience(retries=3).insist(
                self.failing(*[self.busy() for _ in range(99)]), lambda: next(amounts)
            )
        assert self.tries < 10
        assert caught.value.tries == 3

    def test_who_stops_ends_every_wait(self) -> None:
        patience = Patience()
        patience.stop.set()
        with pytest.raises(Cancelled):
            patience.insist(self.failing(TransientError("later", wait=200)))

    def test_thousands_of_tries_are_waited_between(self) -> None:
        patience = Patience(retries=3000)
        done = patience.insist(self.failing(*[self.busy() for _ in range(2999)]))
        assert (done, self.tries) == ("done", 3000)

    def test_a_long_wait_is_told(self) -> None:
        said: list[str] = []
        patience = Patience(say=said.append)
        patience.stop.set()
        with pytest.raises(Cancelled):
            patience.insist(self.failing(TransientError("busy", wait=99)))
        assert said == ["busy; trying again in 99 s"]
