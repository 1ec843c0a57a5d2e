"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from loopback_hub import LoopbackHub

# For machines that have other work to do, and for runs that can be repeated.
settings.register_profile(
    "bundler", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("bundler")


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    """An empty hub on the loopback address."""
    with LoopbackHub() as hub:
        yield hub
