"""Engines that are closed after each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from forelook.completion.engine.engine import MakePool
from forelook.completion.settings import EngineSettings

from tests.completion.engine_rig import PLAIN, Rig
from tests.completion.fake_model import FakeModel


@pytest.fixture
def rigs() -> Iterator[Callable[..., Rig]]:
    started: list[Rig] = []

    def start(model: FakeModel, settings: EngineSettings = PLAIN, make_pool: MakePool | None = None) -> Rig:
        started.append(Rig(model, settings, make_pool))
        return started[-1]

    yield start
    for rig in started:
        rig.engine.close()
