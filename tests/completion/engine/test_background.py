"""What the engine does between requests, and what a later request gains from it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from forelook.completion.completer import Completer, PreparedPrompt
from forelook.completion.document_store import Document
from forelook.completion.engine.drafting import Drafting
from forelook.config import EngineConfig
from forelook.decoding.layout import StepLayout
from forelook.decoding.prefill import PrefillSpeed
from forelook.errors import UnknownDocumentError
from forelook.finish_reason import FinishReason
from forelook.keys import DEPENDENCIES, DocumentKey, WorkspaceKey
from forelook.model.loading import LoadedModel
from forelook.protocol.events import EventKind
from forelook.protocol.messages import TextChange, TriggerKind
from forelook.workspace.cache import PoolCache
from forelook.workspace.pool import WorkspacePool

from tests.completion.engine_rig import PLAIN, TIMEOUT_S, WORKSPACE, A, B, Gate, Rig, event, wait_until
from tests.completion.fake_model import FakeModel, SteadySpeed
from tests.fakes import ByteTokenizer


def test_the_follow_up_is_ready_when_a_shown_suggestion_is_accepted(rigs: Callable[..., Rig]) -> None:
    config = EngineConfig(autoregressive=True, prewarm=False, speculate=True, deadline_ms=20_000)
    full = "def f():\n    x = 1\n    y = 2\n"
    rig = rigs(FakeModel(full), config)
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


def test_open_documents_are_drafts_at_the_first_request(rigs: Callable[..., Rig]) -> None:
    line = "result = frobnicate_the_widget(alpha, beta)\n"
    rig = rigs(FakeModel(line + "x = 1\n" + line), EngineConfig(prewarm=False, deadline_ms=20_000))
    rig.open(line, DocumentKey(1, "file:///other.py"))
    rig.open(line + "x = 1\nresult = fro\n")
    stats = rig.ask(len(line + "x = 1\nresult = fro")).result.stats
    assert stats.num_accepted_tokens > 10
    assert stats.num_steps < 8


def test_the_prompt_around_an_edit_is_warm_before_it_is_asked_for(rigs: Callable[..., Rig]) -> None:
    text = "".join(f"value_{number} = {number}\n" for number in range(40))
    rig = rigs(FakeModel(text), EngineConfig(autoregressive=True, deadline_ms=20_000))
    rig.open(text)
    rig.engine.change_document(A, 2, [TextChange(len(text), len(text), "x")])
    wait_until(lambda: rig.engine.stats()["prewarmed_tokens"] > 500)
    assert rig.ask(len(text) + 1, version=2).result.stats.num_prefill_tokens <= 2


def test_typing_on_does_not_warm_again(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("x = abc\n"), EngineConfig(autoregressive=True, deadline_ms=20_000))
    rig.open("x = \n")
    rig.settle(4)
    num_before = len(rig.model.forwards)
    rig.engine.change_document(A, 2, [TextChange(4, 4, "a")])
    # longer than the engine waits before it looks whether the prompt is warm
    threading.Event().wait(0.4)
    assert len(rig.model.forwards) == num_before


def test_usage_is_counted_and_survives(rigs: Callable[..., Rig], tmp_path: Path) -> None:
    path = tmp_path / "state" / "statistics.json"
    config = EngineConfig(prewarm=False)
    rig = rigs(FakeModel("x"), config, statistics_path=path)
    rig.engine.record_event(WORKSPACE, event(EventKind.SHOWN, 12))
    rig.engine.record_event(WORKSPACE, event(EventKind.ACCEPTED, 12, "compute(1)"))
    rig.engine.close()
    again = rigs(FakeModel("x"), config, statistics_path=path)
    usage = again.engine.stats()["usage"]
    assert isinstance(usage, dict)
    assert (usage["shown"], usage["accepted"], usage["num_keystrokes_saved"]) == (1, 1, 11)
    assert "compute" not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_a_workspace_taught_is_there_after_a_restart(rigs: Callable[..., Rig], tmp_path: Path) -> None:
    line = "result = frobnicate_the_widget(alpha, beta)\n"
    config = EngineConfig(prewarm=False, deadline_ms=20_000)

    def make_pool(workspace: WorkspaceKey, model: LoadedModel) -> WorkspacePool:
        return WorkspacePool(
            model.tokenizer.encode, cache=PoolCache(tmp_path / "pools", workspace.pool_name, model.fingerprint)
        )

    first = rigs(FakeModel("x"), config, make_pool=make_pool)
    first.open(line, DocumentKey(1, "file:///other.py"))
    wait_until(lambda: first.engine.pool_stats(WORKSPACE).get("num_tokens", 0) != 0)
    first.engine.close()
    again = rigs(FakeModel("x = 1\n" + line), config, make_pool=make_pool)
    again.open("x = 1\nresult = fro\n")
    wait_until(lambda: int(str(again.engine.pool_stats(WORKSPACE).get("num_tokens", 0))) >= len(line))
    stats = again.ask(len("x = 1\nresult = fro")).result.stats
    assert stats.num_accepted_tokens > 10


def test_clearing_a_pool_forgets_its_text(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("x"), EngineConfig(prewarm=False))
    rig.open("alpha beta gamma\n" * 20)
    wait_until(lambda: rig.engine.pool_stats(WORKSPACE).get("num_tokens", 0) != 0)
    rig.engine.close_document(A)
    rig.engine.clear_pool(WORKSPACE)
    wait_until(lambda: rig.engine.pool_stats(WORKSPACE)["num_tokens"] == 0)


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
        FakeModel(text + "combine(first, second, third, fourth)\n"), EngineConfig(prewarm=False, deadline_ms=20_000)
    )
    rig.open(text)
    assert rig.ask(len(text)).texts == ["combine(first, second, third, fourth)"]
    rig.engine.change_document(A, 2, [TextChange(len(text), len(text), "combine(")])
    stats = rig.ask(len(text) + len("combine("), version=2).result.stats
    # What other sources guess as well may be counted as theirs.
    assert stats.accepted_by_origin.get("previous_suggestion", 0) >= 1
    assert stats.num_steps <= 4


def test_a_request_ends_prewarming_before_its_next_forward(rigs: Callable[..., Rig]) -> None:
    gate = Gate(at=2)
    model = FakeModel("y", on_forward=gate)
    rig = rigs(model, replace(PLAIN, prewarm=True))
    text = "# a comment of some length\n" * 40
    rig.open(text)
    rig.engine.change_document(A, 2, [TextChange(len(text), len(text), "x")])
    assert gate.reached.wait(TIMEOUT_S), "it was not prewarmed in several forwards"
    reply = rig.ask(len(text) + 1, version=2)
    before = len(model.forwards)
    gate.open.set()
    assert reply.result is not None
    assert rig.engine.stats()["background_forwards"] == before == 2


def test_what_was_computed_ahead_goes_with_its_document(rigs: Callable[..., Rig]) -> None:
    model = FakeModel("x = compute(1)\ny = compute(2)\n")
    rig = rigs(model, replace(PLAIN, speculate=True))
    rig.open("x = \n")
    rig.settle(4)
    rig.engine.record_event(WORKSPACE, event(EventKind.SHOWN, 10))
    wait_until(lambda: rig.engine.stats()["speculations"] == 1)
    rig.engine.close_document(A)
    rig.open("x = compute(1)\n")
    rig.settle(14)
    assert rig.engine.stats()["answered_ahead"] == 0


def test_libraries_of_a_user_are_drafts_in_all_workspaces_of_that_user_alone(rigs: Callable[..., Rig]) -> None:
    text, call = "total = 1\nvalue = ", "combine(first, second, third, fourth)"
    config = EngineConfig(prewarm=False, deadline_ms=20_000)
    costs: dict[str | None, int] = {}
    for owner in (None, "", "ada"):
        rig = rigs(FakeModel(f"{text}{call}\n"), config)
        rig.open(text)
        if owner is not None:
            libraries = WorkspaceKey(owner, DEPENDENCIES)
            rig.engine.add_workspace_files(libraries, [("python3.12/client.py", f"value = {call}\n")])
            wait_until(lambda: rig.engine.pool_stats(libraries).get("num_waiting") == 0)  # noqa: B023
            wait_until(lambda: rig.engine.pool_stats(libraries)["num_documents"] == 1)  # noqa: B023
        result = rig.ask(len(text)).result
        assert [suggestion.text for suggestion in result.suggestions] == [call]
        assert (result.stats.accepted_by_origin.get("dependency", 0) > 8) == (owner == "")
        costs[owner] = result.stats.num_steps
    assert costs[""] < costs["ada"] == costs[None]


def test_each_document_keeps_its_last_suggestion_as_a_draft(rigs: Callable[..., Rig]) -> None:
    text = "total = 1\nvalue = "
    rig = rigs(
        FakeModel(text + "combine(first, second, third, fourth)\n"), EngineConfig(prewarm=False, deadline_ms=20_000)
    )
    rig.open(text)
    rig.open("x = \n", B)
    assert rig.ask(len(text)).texts == ["combine(first, second, third, fourth)"]
    rig.settle(4, B)
    rig.engine.change_document(A, 2, [TextChange(len(text), len(text), "combine(")])
    stats = rig.ask(len(text) + len("combine("), version=2).result.stats
    assert stats.accepted_by_origin.get("previous_suggestion", 0) >= 1


def test_a_prewarmed_prompt_is_built_once(rigs: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []
    prepare = Completer.prepare

    def counted(self: Completer, document: Document, offset: int, context: Sequence[str] = ()) -> PreparedPrompt:
        built.append(offset)
        return prepare(self, document, offset, context)

    monkeypatch.setattr(Completer, "prepare", counted)
    text = "".join(f"value_{number} = {number}\n" for number in range(40))
    rig = rigs(FakeModel(text), EngineConfig(autoregressive=True, deadline_ms=20_000))
    rig.open(text)
    rig.engine.change_document(A, 2, [TextChange(len(text), len(text), "x")])
    wait_until(lambda: rig.engine.stats()["prewarmed_tokens"] > 500)
    assert built == [len(text) + 1]


def test_a_prompt_that_the_deadline_cuts_serves_the_next_keystroke(rigs: Callable[..., Rig]) -> None:
    def slow(_layout: StepLayout) -> None:
        threading.Event().wait(0.01)

    text = "".join(f"value_{number} = {number}\n" for number in range(50))
    model = FakeModel(text + "x = 12\n", on_forward=slow)
    config = EngineConfig(autoregressive=True, deadline_ms=20_000, prefill_ms=600_000)
    rig = rigs(model, config, make_drafting=lambda _model: Drafting(prefill=PrefillSpeed(256, is_measured=True)))
    rig.open(text + "x = \n")
    offset = len(text) + 4
    cut = rig.ask(offset, deadline_ms=15).result
    assert cut.finish_reason is FinishReason.DEADLINE
    assert cut.suggestions == ()
    assert cut.stats.num_forwards <= 3, "a chunk is short enough to respect the deadline"
    wait_until(lambda: sum(len(layout) for layout in model.forwards) >= cut.stats.num_prompt_tokens)
    again = rig.ask(offset).result
    assert again.stats.num_prefill_tokens == 1, "idle time was used for the rest"
    assert sum(len(layout) for layout in model.forwards) < cut.stats.num_prompt_tokens + 10, "nothing ran twice"
    assert again.suggestions[0].text == "12"


def test_a_short_first_prompt_is_followed_by_the_whole_one_in_the_pause(rigs: Callable[..., Rig]) -> None:
    text = "".join(f"value_{number} = {number}\n" for number in range(60))
    config = EngineConfig(autoregressive=True, deadline_ms=20_000, prefill_ms=800)
    rig = rigs(FakeModel(text), config, make_drafting=lambda _model: Drafting(prefill=SteadySpeed(1000.0)))
    rig.open(text)
    place = text.index("value_59")
    first = rig.ask(place).result
    assert first.stats.num_prompt_tokens <= 240 + 8
    wait_until(lambda: int(str(rig.engine.stats()["prewarmed_tokens"])) > 400)
    again = rig.ask(place).result
    assert again.stats.num_prompt_tokens > 600
    assert again.stats.num_prefill_tokens <= 2
    invoked = rig.ask(text.index("value_30"), trigger=TriggerKind.INVOKED).result
    assert invoked.stats.num_prompt_tokens > 600, "who asks by command waits for all of it"


def test_a_follow_up_has_the_whole_prompt_as_no_one_waits_for_it(rigs: Callable[..., Rig]) -> None:
    class KnowsItsMiddle(FakeModel):
        """Goes on where the window of the prompt ends, wherever that begins."""

        def _next_token(self, seen: tuple[int, ...]) -> int:
            if ByteTokenizer.MIDDLE not in seen:
                return ByteTokenizer.PAD
            shown = bytes(token for token in seen[seen.index(ByteTokenizer.MIDDLE) + 1 :] if token < 256).decode()
            following = self.target[self.target.find(shown) + len(shown) :]
            return ord(following[0]) if following else ByteTokenizer.END_OF_INFILL

    before = "".join(f"value_{number} = {number}\n" for number in range(60))
    config = EngineConfig(autoregressive=True, speculate=True, deadline_ms=20_000, prefill_ms=800)
    rig = rigs(
        KnowsItsMiddle(before + "x = 1\ny = 2\n"),
        config,
        make_drafting=lambda _model: Drafting(prefill=SteadySpeed(1000.0)),
    )
    rig.open(before + "x\n")
    offset = len(before) + 1
    reply = rig.ask(offset)
    assert reply.texts == [" = 1"]
    assert reply.result.stats.num_prompt_tokens <= 240 + 8
    rig.engine.record_event(WORKSPACE, event(EventKind.SHOWN, 4))
    wait_until(lambda: rig.engine.stats()["speculations"] == 1)
    rig.engine.change_document(A, 2, [TextChange(offset, offset, " = 1")])
    accepted = rig.ask(offset + 4, version=2).result
    assert rig.engine.stats()["answered_ahead"] == 1
    assert accepted.stats.num_prompt_tokens > 600


def test_the_prompt_where_a_cursor_rests_is_warm_before_a_key_is_pressed(rigs: Callable[..., Rig]) -> None:
    text = "".join(f"value_{number} = {number}\n" for number in range(40))
    rig = rigs(FakeModel(text), EngineConfig(autoregressive=True, deadline_ms=20_000))
    rig.open(text)
    place = text.index("value_39")
    rig.engine.move_cursor(A, 1, place)
    wait_until(lambda: int(str(rig.engine.stats()["prewarmed_tokens"])) > 400)
    assert rig.ask(place).result.stats.num_prefill_tokens <= 2


def test_a_cursor_in_another_version_or_outside_the_text_is_ignored(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("x"), EngineConfig(autoregressive=True, deadline_ms=20_000))
    rig.open("x = 1\n" * 100)
    rig.engine.move_cursor(A, 2, 10)
    rig.engine.move_cursor(A, 1, 10_000)
    with pytest.raises(UnknownDocumentError):
        rig.engine.move_cursor(B, 1, 0)
    # longer than the engine waits before it prefills
    threading.Event().wait(0.4)
    assert rig.model.forwards == []
