"""The engine: newest request first, forwards counted, errors that do not end it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from forelook.completion.engine.engine import CompletionEngine, CompletionHandle, EngineModel, MakePool
from forelook.completion.settings import DecodingMethod, EngineSettings
from forelook.decoding.layout import StepLayout
from forelook.errors import (
    DecodingError,
    ForelookError,
    ModelNotFoundError,
    PositionError,
    RequestCancelledError,
    StaleDocumentError,
    UnknownDocumentError,
)
from forelook.finish_reason import FinishReason
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.protocol.events import EventKind
from forelook.protocol.messages import (
    CompletionEventParams,
    CompletionParams,
    CompletionResult,
    EngineState,
    SelectedCompletion,
    Status,
    TextChange,
    TriggerKind,
)
from forelook.workspace.cache import PoolCache
from forelook.workspace.pool import WorkspacePool

from tests.completion.fake_model import FakeModel

WORKSPACE = WorkspaceKey("", "w")
A, B = DocumentKey(1, "file:///a.py"), DocumentKey(1, "file:///b.py")
PLAIN = EngineSettings(method=DecodingMethod.AUTOREGRESSIVE, prewarm=False, deadline_ms=20_000, partial_every_s=0.0)
TIMEOUT_S = 30.0


@dataclass
class Reply:
    """Where a request's callbacks end up."""

    partial: list[str] = field(default_factory=list)
    outcomes: list[CompletionResult | ForelookError] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)
    handle: CompletionHandle | None = None

    def finish(self, outcome: CompletionResult | ForelookError) -> None:
        self.outcomes.append(outcome)
        self.done.set()

    @property
    def outcome(self) -> CompletionResult | ForelookError:
        assert self.done.wait(TIMEOUT_S), "no answer"
        assert len(self.outcomes) == 1, "answered more than once"
        return self.outcomes[0]

    @property
    def result(self) -> CompletionResult:
        outcome = self.outcome
        assert isinstance(outcome, CompletionResult), outcome
        return outcome

    @property
    def texts(self) -> list[str]:
        return [suggestion.text for suggestion in self.result.suggestions]


def event(kind: EventKind, num_chars: int, text: str | None = None) -> CompletionEventParams:
    return CompletionEventParams(WORKSPACE.uri, "python", kind, num_chars, first_use=text is not None, text=text)


class Rig:
    """An engine on a fake model."""

    def __init__(self, model: FakeModel, settings: EngineSettings = PLAIN, make_pool: MakePool | None = None) -> None:
        self.model = model
        self.statuses: list[Status] = []
        self.ready = threading.Event()
        self.engine = CompletionEngine(lambda _progress: model, settings, self._on_status, make_pool=make_pool)
        self.engine.start()
        assert self.ready.wait(TIMEOUT_S)

    def _on_status(self, status: Status) -> None:
        self.statuses.append(status)
        if status.state in (EngineState.READY, EngineState.ERROR):
            self.ready.set()

    def open(self, text: str, key: DocumentKey = A) -> None:
        self.engine.open_document(WORKSPACE, key, "python", 1, text)

    def settle(self, offset: int, key: DocumentKey = A) -> None:
        """Ask and wait for the answer, whatever it is."""
        assert self.ask(offset, key).done.wait(TIMEOUT_S)

    def ask(self, offset: int, key: DocumentKey = A, version: int = 1, **options: object) -> Reply:
        reply = Reply()
        request = CompletionParams(key.uri, version, offset, **options)  # type: ignore[arg-type]
        reply.handle = self.engine.submit(key, request, reply.partial.append, reply.finish)
        return reply


@pytest.fixture
def rigs() -> Iterator[Callable[..., Rig]]:
    started: list[Rig] = []

    def start(model: FakeModel, settings: EngineSettings = PLAIN, make_pool: MakePool | None = None) -> Rig:
        started.append(Rig(model, settings, make_pool))
        return started[-1]

    yield start
    for rig in started:
        rig.engine.close()


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll for work the engine does by itself between requests."""
    limit = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < limit, "it never happened"
        threading.Event().wait(0.002)


class Gate:
    """Holds the engine's thread inside one forward until it is opened."""

    def __init__(self, at: int) -> None:
        self._at = at
        self._count = 0
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self, _layout: StepLayout) -> None:
        self._count += 1
        if self._count == self._at:
            self.reached.set()
            assert self.open.wait(TIMEOUT_S)


def test_answer_is_what_the_model_says_up_to_the_line_end(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("x = compute(1)\ny = 2\n"))
    rig.open("x = \n")
    reply = rig.ask(4)
    assert reply.texts == ["compute(1)"]
    assert reply.result.finish_reason is FinishReason.SCOPE_END
    assert reply.partial[-1] == "compute(1)"
    assert reply.result.stats.num_forwards == len(rig.model.forwards)


def test_generation_stops_with_the_line(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("x = ab\n" + "y = 1\n" * 50))
    rig.open("x = \n")
    assert rig.ask(4).texts == ["ab"]
    # two letters, the line break, and the forward that read the prompt gave the first of them
    assert len(rig.model.forwards) == 3


def test_a_newer_request_of_the_document_supersedes_within_one_step(rigs: Callable[..., Rig]) -> None:
    gate = Gate(at=5)
    rig = rigs(FakeModel("x = abcdefghijklmnop\n", on_forward=gate))
    rig.open("x = \n")
    first = rig.ask(4)
    assert gate.reached.wait(TIMEOUT_S)
    second = rig.ask(4)
    num_before = len(rig.model.forwards)
    gate.open.set()
    assert isinstance(first.outcome, RequestCancelledError)
    forwards_of_second = second.result.stats.num_forwards
    assert len(rig.model.forwards) - num_before - forwards_of_second == 0
    assert second.texts == ["abcdefghijklmnop"]


def test_a_cancelled_request_starts_no_further_forward(rigs: Callable[..., Rig]) -> None:
    gate = Gate(at=3)
    rig = rigs(FakeModel("x = abcdefghijklmnop\n", on_forward=gate))
    rig.open("x = \n")
    reply = rig.ask(4)
    assert gate.reached.wait(TIMEOUT_S)
    assert reply.handle is not None
    reply.handle.cancel()
    gate.open.set()
    assert isinstance(reply.outcome, RequestCancelledError)
    assert len(rig.model.forwards) == 3


def test_a_queued_request_that_is_superseded_never_reaches_the_model(rigs: Callable[..., Rig]) -> None:
    gate = Gate(at=1)
    rig = rigs(FakeModel("x = ab\n", on_forward=gate))
    rig.open("x = \n")
    rig.open("x = \n", B)
    running = rig.ask(4, B)
    assert gate.reached.wait(TIMEOUT_S)
    stale, newest = rig.ask(4), rig.ask(4)
    gate.open.set()
    assert running.texts == ["ab"], "another document's request is not superseded"
    assert isinstance(stale.outcome, RequestCancelledError)
    assert newest.texts == ["ab"]
    total = sum(reply.result.stats.num_forwards for reply in (running, newest))
    assert len(rig.model.forwards) == total


def test_deadline_returns_what_is_good_so_far(rigs: Callable[..., Rig]) -> None:
    deadline_ms = 50

    def dawdle(_layout: StepLayout) -> None:
        if len(rig.model.forwards) == 9:
            until = time.monotonic() + deadline_ms / 1e3
            while time.monotonic() < until:
                pass

    rig = rigs(FakeModel("x = first + second\n", on_forward=dawdle))
    rig.open("x = \n")
    reply = rig.ask(4, deadline_ms=deadline_ms)
    assert reply.result.finish_reason in (FinishReason.DEADLINE, FinishReason.SCOPE_END)
    if reply.result.finish_reason is FinishReason.DEADLINE:
        assert all("first + second".startswith(text) for text in reply.texts)


@pytest.mark.parametrize(
    ("said", "max_new_tokens", "texts"),
    [
        ("y = [10, 20, 30, 40]\n", 10, ["y = [10,"]),
        ('y = open("some/path/of/a/file")\n', 20, ["y = open("]),
        ("a = first\n    b = second\n", 20, ["a = first"]),
        ("'a long text that has no end'\n", 12, []),
    ],
)
def test_at_the_token_limit_nothing_is_shown_by_half(
    rigs: Callable[..., Rig], said: str, max_new_tokens: int, texts: list[str]
) -> None:
    before = "def f():\n    "
    rig = rigs(FakeModel(before + said))
    rig.open(before + "\n")
    reply = rig.ask(len(before), max_new_tokens=max_new_tokens)
    assert reply.result.finish_reason is FinishReason.MAX_TOKENS
    assert [text.strip() for text in reply.texts] == texts


def test_a_keystroke_prefills_only_itself(rigs: Callable[..., Rig]) -> None:
    before, after = "import os\n\n\ndef f(path):\n    data = ", "\n    return data\n"
    rig = rigs(FakeModel(before + "os.stat(path)" + after))
    rig.open(before + after)
    first = rig.ask(len(before)).result.stats
    assert first.num_prefill_tokens == first.num_prompt_tokens
    rig.engine.change_document(A, 2, [TextChange(len(before), len(before), "o")])
    second = rig.ask(len(before) + 1, version=2).result.stats
    assert second.num_prompt_tokens == first.num_prompt_tokens + 1
    assert second.num_prefill_tokens == 1


def test_two_cursors_keep_their_prompts(rigs: Callable[..., Rig]) -> None:
    text = "".join(f"value_{number} = {number}\n" for number in range(40))
    rig = rigs(FakeModel(text))
    rig.open(text)
    near, far = text.index("value_5 ") + 8, text.index("value_35 ") + 8
    rig.settle(near)
    rig.settle(far)
    assert rig.ask(near).result.stats.num_prefill_tokens == 1
    assert rig.ask(far).result.stats.num_prefill_tokens == 1
    assert rig.engine.stats()["num_cached_prompts"] == 2


def test_kv_memory_is_bounded(rigs: Callable[..., Rig]) -> None:
    settings = EngineSettings(
        method=DecodingMethod.AUTOREGRESSIVE, prewarm=False, kv_cache_bytes=2500, deadline_ms=20_000
    )
    rig = rigs(FakeModel(""), settings)
    for number in range(6):
        text = f"{number}" * 300 + "\nx = \n"
        rig.open(text, DocumentKey(1, f"file:///{number}.py"))
        rig.settle(len(text) - 1, DocumentKey(1, f"file:///{number}.py"))
    assert rig.engine.stats()["kv_cache_bytes"] <= 2500


def test_wrong_requests_are_refused_at_once(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("x"))
    rig.open("x = \n")
    with pytest.raises(UnknownDocumentError):
        rig.ask(0, DocumentKey(1, "file:///missing.py"))
    with pytest.raises(StaleDocumentError):
        rig.ask(0, version=7)
    with pytest.raises(PositionError):
        rig.ask(99)
    with pytest.raises(StaleDocumentError):
        rig.engine.change_document(A, 1, [])
    with pytest.raises(PositionError):
        rig.engine.change_document(A, 2, [TextChange(0, 99, "")])


def test_before_the_model_is_there_requests_are_answered_empty() -> None:
    release = threading.Event()
    model = FakeModel("x")

    def load(_progress: Callable[[float, str], None]) -> FakeModel:
        assert release.wait(TIMEOUT_S)
        return model

    ready = threading.Event()
    engine = CompletionEngine(load, PLAIN, lambda status: ready.set() if status.state is EngineState.READY else None)
    engine.start()
    engine.open_document(WORKSPACE, A, "python", 1, "x = \n")
    reply = Reply()
    engine.submit(A, CompletionParams(A.uri, 1, 4), reply.partial.append, reply.finish)
    assert reply.result.finish_reason is FinishReason.LOADING
    release.set()
    assert ready.wait(TIMEOUT_S)
    engine.close()


def test_a_model_that_cannot_be_loaded_is_a_status_not_a_crash() -> None:
    statuses: list[Status] = []
    failed = threading.Event()

    def load(_progress: Callable[[float, str], None]) -> FakeModel:
        raise ModelNotFoundError("nowhere: no such folder")

    def on_status(status: Status) -> None:
        statuses.append(status)
        if status.state is EngineState.ERROR:
            failed.set()

    engine = CompletionEngine(load, PLAIN, on_status)
    engine.start()
    assert failed.wait(TIMEOUT_S)
    assert statuses[-1].message == "nowhere: no such folder"
    engine.open_document(WORKSPACE, A, "python", 1, "x = \n")
    reply = Reply()
    engine.submit(A, CompletionParams(A.uri, 1, 4), reply.partial.append, reply.finish)
    assert reply.result.finish_reason is FinishReason.NO_MODEL
    engine.close()


def test_a_fault_in_a_forward_fails_one_request_only(
    rigs: Callable[..., Rig], caplog: pytest.LogCaptureFixture
) -> None:
    def fail_once(_layout: StepLayout) -> None:
        if len(rig.model.forwards) == 2:
            raise RuntimeError("secret_text_of_the_document")

    rig = rigs(FakeModel("x = ab\n", on_forward=fail_once))
    rig.open("x = \n")
    assert isinstance(rig.ask(4).outcome, DecodingError)
    assert rig.ask(4).texts == ["ab"]
    assert "secret_text" not in caplog.text
    assert "RuntimeError" in caplog.text


def test_a_callback_that_fails_does_not_end_the_engine(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("x = ab\n"))
    rig.open("x = \n")

    def fail(_outcome: object) -> None:
        raise ValueError("no")

    rig.engine.submit(A, CompletionParams(A.uri, 1, 4), lambda _text: None, fail)
    assert rig.ask(4).texts == ["ab"]


def test_the_follow_up_is_ready_when_a_shown_suggestion_is_accepted(rigs: Callable[..., Rig]) -> None:
    settings = EngineSettings(
        method=DecodingMethod.AUTOREGRESSIVE, prewarm=False, speculate_on_show=True, deadline_ms=20_000
    )
    full = "def f():\n    x = 1\n    y = 2\n"
    rig = rigs(FakeModel(full), settings)
    text = "def f():\n    x = 1\n    y\n"
    rig.open(text)
    offset = text.index("y") + 1
    assert rig.ask(offset).texts == [" = 2"]
    rig.engine.record_event(WORKSPACE, event(EventKind.SHOWN, 4))
    wait_until(lambda: rig.engine.stats()["speculations"] == 1)
    rig.engine.change_document(A, 2, [TextChange(offset, offset, " = 2")])
    num_before = len(rig.model.forwards)
    reply = rig.ask(offset + 4, version=2)
    assert reply.result.finish_reason
    assert len(rig.model.forwards) == num_before
    assert rig.engine.stats()["answered_ahead"] == 1


def test_on_a_cpu_nothing_is_computed_ahead(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("x = ab\n"))
    rig.open("x = \n")
    num = rig.ask(4).result.stats.num_forwards
    rig.engine.record_event(WORKSPACE, event(EventKind.SHOWN, 2))
    assert rig.ask(4).result.stats.num_forwards <= num
    assert rig.engine.stats()["speculations"] == 0


def test_selected_popup_entry_is_extended_over_its_range(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("x = compute(1)\n"))
    rig.open("x = co\n")
    selected = SelectedCompletion(4, 6, "compute")
    suggestion = rig.ask(6, selected=selected).result.suggestions[0]
    assert (suggestion.text, suggestion.start, suggestion.end) == ("compute(1)", 4, 6)


def test_selection_that_is_not_what_was_typed_gets_nothing(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("x = compute(1)\n"))
    rig.open("x = co\n")
    assert rig.ask(6, selected=SelectedCompletion(4, 6, "print")).texts == []


def test_suggestion_that_only_restates_the_selection_is_none(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("x = compute\n"))
    rig.open("x = co\n")
    assert rig.ask(6, selected=SelectedCompletion(4, 6, "compute")).texts == []


def test_open_documents_are_drafts_at_the_first_request(rigs: Callable[..., Rig]) -> None:
    line = "result = frobnicate_the_widget(alpha, beta)\n"
    rig = rigs(FakeModel(line + "x = 1\n" + line), EngineSettings(prewarm=False, deadline_ms=20_000))
    rig.open(line, DocumentKey(1, "file:///other.py"))
    rig.open(line + "x = 1\nresult = fro\n")
    stats = rig.ask(len(line + "x = 1\nresult = fro")).result.stats
    assert stats.num_accepted_tokens > 10
    assert stats.num_steps < 8


def test_document_changes_arrive_before_the_request_that_follows_them(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("alpha = 1\nbeta = alpha\n"))
    rig.open("alpha = 1\n")
    for version, character in enumerate("beta = ", start=2):
        end = len("alpha = 1\n") + version - 2
        rig.engine.change_document(A, version, [TextChange(end, end, character)])
    assert rig.ask(len("alpha = 1\nbeta = "), version=8).texts == ["alpha"]


def test_empty_document_gets_nothing_and_no_forward(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("anything"))
    rig.open("")
    assert rig.ask(0).result.finish_reason is FinishReason.EMPTY_PROMPT
    assert rig.model.forwards == []


def test_close_ends_a_running_request(rigs: Callable[..., Rig]) -> None:
    gate = Gate(at=2)
    rig = rigs(FakeModel("x = abcdefgh\n", on_forward=gate))
    rig.open("x = \n")
    running, queued = rig.ask(4), None
    assert gate.reached.wait(TIMEOUT_S)
    rig.open("x = \n", B)
    queued = rig.ask(4, B)
    closer = threading.Thread(target=rig.engine.close)
    closer.start()
    gate.open.set()
    closer.join(TIMEOUT_S)
    assert isinstance(running.outcome, RequestCancelledError | CompletionResult)
    assert isinstance(queued.outcome, RequestCancelledError)


def test_the_prompt_around_an_edit_is_warm_before_it_is_asked_for(rigs: Callable[..., Rig]) -> None:
    text = "".join(f"value_{number} = {number}\n" for number in range(40))
    rig = rigs(FakeModel(text), EngineSettings(method=DecodingMethod.AUTOREGRESSIVE, deadline_ms=20_000))
    rig.open(text)
    rig.engine.change_document(A, 2, [TextChange(len(text), len(text), "x")])
    wait_until(lambda: rig.engine.stats()["prewarmed_tokens"] > 500)
    assert rig.ask(len(text) + 1, version=2).result.stats.num_prefill_tokens <= 2


def test_typing_on_does_not_warm_again(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("x = abc\n"), EngineSettings(method=DecodingMethod.AUTOREGRESSIVE, deadline_ms=20_000))
    rig.open("x = \n")
    rig.settle(4)
    num_before = len(rig.model.forwards)
    rig.engine.change_document(A, 2, [TextChange(4, 4, "a")])
    # longer than the engine waits before it looks whether the prompt is warm
    threading.Event().wait(0.4)
    assert len(rig.model.forwards) == num_before


def test_closed_document_is_unknown(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("x"))
    rig.open("x = \n")
    rig.engine.close_document(A)
    with pytest.raises(UnknownDocumentError):
        rig.ask(0)
    with pytest.raises(UnknownDocumentError):
        rig.engine.close_document(A)


def test_usage_is_counted_and_survives(rigs: Callable[..., Rig], tmp_path: Path) -> None:
    path = tmp_path / "state" / "statistics.json"
    settings = EngineSettings(prewarm=False, statistics_path=path)
    rig = rigs(FakeModel("x"), settings)
    rig.engine.record_event(WORKSPACE, event(EventKind.SHOWN, 12))
    rig.engine.record_event(WORKSPACE, event(EventKind.ACCEPTED, 12, "compute(1)"))
    rig.engine.close()
    again = rigs(FakeModel("x"), settings)
    usage = again.engine.stats()["usage"]
    assert isinstance(usage, dict)
    assert (usage["shown"], usage["accepted"], usage["num_keystrokes_saved"]) == (1, 1, 11)
    assert "compute" not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_a_workspace_taught_is_there_after_a_restart(rigs: Callable[..., Rig], tmp_path: Path) -> None:
    line = "result = frobnicate_the_widget(alpha, beta)\n"
    settings = EngineSettings(prewarm=False, deadline_ms=20_000)

    def make_pool(workspace: WorkspaceKey, model: EngineModel) -> WorkspacePool:
        return WorkspacePool(
            model.tokenizer.encode, cache=PoolCache(tmp_path / "pools", workspace.pool_name, model.fingerprint)
        )

    first = rigs(FakeModel("x"), settings, make_pool)
    first.open(line, DocumentKey(1, "file:///other.py"))
    wait_until(lambda: first.engine.pool_stats(WORKSPACE).get("num_tokens", 0) != 0)
    first.engine.close()
    again = rigs(FakeModel("x = 1\n" + line), settings, make_pool)
    again.open("x = 1\nresult = fro\n")
    wait_until(lambda: int(str(again.engine.pool_stats(WORKSPACE).get("num_tokens", 0))) >= len(line))
    stats = again.ask(len("x = 1\nresult = fro")).result.stats
    assert stats.num_accepted_tokens > 10


def test_clearing_a_pool_forgets_its_text(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("x"), EngineSettings(prewarm=False))
    rig.open("alpha beta gamma\n" * 20)
    wait_until(lambda: rig.engine.pool_stats(WORKSPACE).get("num_tokens", 0) != 0)
    rig.engine.close_document(A)
    rig.engine.clear_pool(WORKSPACE)
    wait_until(lambda: rig.engine.pool_stats(WORKSPACE)["num_tokens"] == 0)


def test_invoked_request_may_take_longer_than_an_automatic_one(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("def f():\n    x = 1\n    return x\n"))
    rig.open("def f():\n    \n")
    reply = rig.ask(13, trigger=TriggerKind.INVOKED, num_suggestions=3)
    assert reply.texts[0] == "    x = 1\n    return x"
    assert len(set(reply.texts)) == len(reply.texts) <= 3


def test_a_scanned_file_and_its_open_document_are_held_once(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel(""))
    text = "def area(width, height):\n    return width * height\n"
    workspace, inside = WorkspaceKey("", "file:///p"), DocumentKey(1, "file:///p/a.py")
    rig.engine.add_workspace_files(workspace, [("a.py", text), ("b.py", text)])
    rig.engine.open_document(workspace, inside, "python", 1, text)
    wait_until(lambda: rig.engine.pool_stats(workspace).get("num_documents", 0) == 2)
    rig.engine.close_document(inside)
    rig.engine.remove_workspace_files(workspace, ["a.py"])
    wait_until(lambda: rig.engine.pool_stats(workspace)["num_documents"] == 1)


def test_the_last_suggestion_is_verified_again_after_a_keystroke_that_left_it(rigs: Callable[..., Rig]) -> None:
    text = "total = 1\nvalue = "
    rig = rigs(
        FakeModel(text + "combine(first, second, third, fourth)\n"), EngineSettings(prewarm=False, deadline_ms=20_000)
    )
    rig.open(text)
    assert rig.ask(len(text)).texts == ["combine(first, second, third, fourth)"]
    rig.engine.change_document(A, 2, [TextChange(len(text), len(text), "combine(")])
    stats = rig.ask(len(text) + len("combine("), version=2).result.stats
    # What other sources guess as well may be counted as theirs.
    assert stats.accepted_by_origin.get("previous_suggestion", 0) >= 1
    assert stats.num_steps <= 4


def test_an_answer_at_once_tells_no_parts(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("x = compute(1)\ny = 2\n"), replace(PLAIN, partial_every_s=5.0))
    rig.open("x = \n")
    reply = rig.ask(4)
    assert reply.texts == ["compute(1)"]
    assert reply.partial == []


def test_a_request_ends_prewarming_before_its_next_forward(rigs: Callable[..., Rig]) -> None:
    gate = Gate(at=2)
    model = FakeModel("y", on_forward=gate)
    rig = rigs(model, replace(PLAIN, prewarm=True))
    text = "# a comment of some length\n" * 40
    rig.open(text)
    rig.engine.change_document(A, 2, [TextChange(len(text), len(text), "x")])
    assert gate.reached.wait(TIMEOUT_S), "it was not prewarmed in several forwards"
    reply = rig.ask(len(text) + 1, version=2)
    gate.open.set()
    before = len(model.forwards)
    assert reply.result is not None
    assert rig.engine.stats()["background_forwards"] == before == 2


def test_what_a_cancelled_request_cost_is_counted(rigs: Callable[..., Rig]) -> None:
    gate = Gate(at=3)
    rig = rigs(FakeModel("x = compute(1)\n", on_forward=gate))
    rig.open("x = \n")
    reply = rig.ask(4)
    assert gate.reached.wait(TIMEOUT_S)
    assert reply.handle is not None
    reply.handle.cancel()
    gate.open.set()
    assert isinstance(reply.outcome, RequestCancelledError)
    stats = rig.engine.stats()
    assert stats["cancelled_forwards"] == stats["forwards"] == 3


def test_what_was_computed_ahead_goes_with_its_document(rigs: Callable[..., Rig]) -> None:
    model = FakeModel("x = compute(1)\ny = compute(2)\n")
    rig = rigs(model, replace(PLAIN, speculate_on_show=True))
    rig.open("x = \n")
    rig.settle(4)
    rig.engine.record_event(WORKSPACE, event(EventKind.SHOWN, 10))
    wait_until(lambda: rig.engine.stats()["speculations"] == 1)
    rig.engine.close_document(A)
    rig.open("x = compute(1)\n")
    rig.settle(14)
    assert rig.engine.stats()["answered_ahead"] == 0
