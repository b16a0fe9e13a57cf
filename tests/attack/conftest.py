"""How long an attack goes on."""

from __future__ import annotations

import pytest


@pytest.fixture
def attack_seconds(request: pytest.FixtureRequest) -> float:
    """Seconds for a long attack; 0 for the short form that CI runs."""
    seconds: float = request.config.getoption("--attack-seconds")
    return seconds
