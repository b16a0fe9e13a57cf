"""Unexpected errors in the log: where, but never what the message says."""

from __future__ import annotations

import logging
import re

import pytest
from forelook.failures import describe, log_failure, logged


def innermost() -> None:
    raise RuntimeError("the user's secret text")


def nested(depth: int) -> None:
    if depth == 0:
        innermost()
    nested(depth - 1)


def test_type_and_location_are_logged_without_the_message(caplog: pytest.LogCaptureFixture) -> None:
    with logged("indexing"):
        innermost()
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith("indexing failed: RuntimeError at ")
    assert re.search(r" > test_failures\.py:\d+ innermost$", record.getMessage())
    assert "secret" not in caplog.text


def test_work_that_succeeds_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with logged("indexing"):
        pass
    assert not caplog.records


def test_only_the_innermost_frames_are_listed() -> None:
    with pytest.raises(RuntimeError) as caught:
        nested(50)
    assert describe(caught.value).count(" > ") == 5
    assert describe(caught.value).endswith(" innermost")


def test_an_error_that_was_never_raised_has_no_location(caplog: pytest.LogCaptureFixture) -> None:
    log_failure("a task", ValueError("text"))
    assert [record.getMessage() for record in caplog.records] == ["a task failed: ValueError"]


def test_interrupts_pass() -> None:
    with pytest.raises(KeyboardInterrupt), logged("indexing"):
        raise KeyboardInterrupt
