"""``forelook complete --no-backend``: one completion by an engine in this process."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from forelook.commands.complete import Source, complete_in_process, read_source
from forelook.errors import BackendUnreachableError, ModelError, PositionError, PrivacyError
from forelook.protocol.messages import CompletionParams, EngineState, Status
from forelook.server.engine import Engine, OnStatus

from tests.server.fake_engine import FakeEngine

SOURCE = Source(Path("/w/a.py"), "x = 1\n", 3, "python", "file:///w")
PARAMS = CompletionParams("file:///w/a.py", 1, SOURCE.offset)
READY = Status(EngineState.READY, model="fake", device="cpu", dtype="float32")


class LoadingEngine(FakeEngine):
    """Reports ``statuses`` when it is started."""

    statuses: tuple[Status, ...] = ()

    def start(self) -> None:
        for status in self.statuses:
            self.set_status(status)


def reporting(*statuses: Status) -> type[LoadingEngine]:
    return type("Reporting", (LoadingEngine,), {"statuses": statuses})


def test_progress_is_shown_and_the_engine_is_closed() -> None:
    engines: list[FakeEngine] = []
    shown: list[Status] = []
    loading = Status(EngineState.LOADING, 0.5, "reading weights")

    def factory(on_status: OnStatus) -> Engine:
        engines.append(reporting(loading, READY)(on_status))
        return engines[-1]

    answer = complete_in_process(factory, SOURCE, PARAMS, shown.append, 10.0)
    assert [suggestion.text for suggestion in answer.result.suggestions] == ["6@3"]
    assert (answer.status, shown) == (READY, [loading])
    assert answer.latency_ms >= 0
    assert engines[0].closed


def test_a_model_that_does_not_load_is_an_error() -> None:
    failed = Status(EngineState.ERROR, message="model = x is not here: download it")
    with pytest.raises(ModelError, match="model = x is not here"):
        complete_in_process(reporting(failed), SOURCE, PARAMS, lambda _status: None, 10.0)


def test_an_answer_that_is_an_error_is_raised() -> None:
    class Failing(FakeEngine):
        def __init__(self, on_status: OnStatus) -> None:
            super().__init__(on_status)
            self.answer = lambda _request, _text: PositionError("offset = 9 is outside the document")

    with pytest.raises(PositionError):
        complete_in_process(Failing, SOURCE, PARAMS, lambda _status: None, 10.0)


def test_without_an_answer_in_time_it_gives_up() -> None:
    with pytest.raises(BackendUnreachableError, match=r"within 0\.05 s"):
        complete_in_process(reporting(), SOURCE, PARAMS, lambda _status: None, 0.05)


def test_a_file_is_judged_as_in_editors(tmp_path: Path) -> None:
    path = tmp_path / "out" / "a.py"
    path.parent.mkdir()
    path.write_text("x = 1\n")
    (tmp_path / ".gitignore").write_text("out/\n")
    (tmp_path / ".git").mkdir()  # without content no repository
    assert read_source(path, (1, 1), None).workspace == path.parent.as_uri().removeprefix("file:")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    with pytest.raises(PrivacyError, match=r"listed in \.gitignore"):
        read_source(path, (1, 1), None)
    named = tmp_path / "b.py"
    named.write_text("KEY = 'AKIA" + "ABCDEFGHIJKLMNOP'\n")
    with pytest.raises(PrivacyError, match="it contains"):
        read_source(named, (1, 1), None)
    named.write_text("KEY = ''\n")
    assert read_source(named, (1, 1), None).workspace == tmp_path.as_uri()
