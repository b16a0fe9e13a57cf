"""An engine whose model changed on disk gives way to another process, and no request waits for it."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from forelook.config import EngineConfig
from forelook.errors import ModelChangedError
from forelook.protocol.messages import EngineState, TextChange

from tests.completion.engine_rig import A, Rig, wait_until
from tests.completion.fake_model import FakeModel


def test_the_next_request_learns_that_another_backend_loads_the_files(
    rigs: Callable[..., Rig], caplog: pytest.LogCaptureFixture
) -> None:
    rig = rigs(FakeModel("x = compute(1)\n"))
    rig.open("x = \n")
    assert rig.ask(4).texts == ["compute(1)"]
    rig.model.files.has_changed = True
    with caplog.at_level(logging.INFO):
        assert isinstance(rig.ask(4).outcome, ModelChangedError)
        wait_until(lambda: rig.engine.status.state is EngineState.STARTING)
        assert rig.engine.has_failed
        assert "the files of fake changed on disk" in rig.engine.status.message
        for _ in range(2):
            assert isinstance(rig.ask(4).outcome, ModelChangedError), "answered at once"
    assert sum("changed on disk" in record.getMessage() for record in caplog.records) <= 1


def test_an_edit_is_enough(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("x = compute(1)\n"))
    rig.open("x = \n")
    rig.settle(4)
    rig.model.files.has_changed = True
    rig.engine.change_document(A, 2, [TextChange(4, 4, "a")])
    wait_until(lambda: rig.engine.has_failed)
    assert isinstance(rig.ask(5, version=2).outcome, ModelChangedError)


def test_an_unloaded_model_is_not_loaded_again_from_other_files(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("x = compute(1)\n"), EngineConfig(autoregressive=True, prewarm=False, keep_alive_s=0.05))
    wait_until(lambda: "unloaded" in rig.engine.status.message)
    rig.model.files.has_changed = True
    rig.open("x = \n")
    wait_until(lambda: rig.engine.has_failed)
    assert isinstance(rig.ask(4).outcome, ModelChangedError)
