"""Engines that are closed after each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from forelook.config import EngineConfig

from tests.completion.engine_rig import PLAIN, Rig
from tests.completion.fake_model import FakeModel


@pytest.fixture
def rigs() -> Iterator[Callable[..., Rig]]:
    started: list[Rig] = []

    def start(model: FakeModel, config: EngineConfig = PLAIN, **options: Any) -> Rig:
        started.append(Rig(model, config, **options))
        return started[-1]

    yield start
    for rig in started:
        rig.engine.close()
