"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from loopback_hub import LoopbackHub


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    """An empty hub on the loopback address."""
    with LoopbackHub() as hub:
        yield hub
