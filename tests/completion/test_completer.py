"""What one request gets: the model's text up to its end, from a cached prompt."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from forelook.config import EngineConfig
from forelook.finish_reason import FinishReason
from forelook.keys import DocumentKey
from forelook.protocol.messages import (
    MAX_NEW_TOKENS,
    SelectedCompletion,
    TextChange,
    TriggerKind,
)

from tests.completion.engine_rig import A, Rig
from tests.completion.fake_model import FakeModel


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


@pytest.mark.parametrize(
    ("said", "max_new_tokens", "texts"),
    [
        ("y = [10, 20, 30, 40]\n", 10, ["y"]),
        ('y = open("some/path/of/a/file")\n', 20, ["y = open"]),
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
    config = EngineConfig(autoregressive=True, prewarm=False, kv_cache_bytes=2500, deadline_ms=20_000)
    rig = rigs(FakeModel(""), config)
    for number in range(6):
        text = f"{number}" * 300 + "\nx = \n"
        rig.open(text, DocumentKey(1, f"file:///{number}.py"))
        rig.settle(len(text) - 1, DocumentKey(1, f"file:///{number}.py"))
    assert rig.engine.stats()["kv_cache_bytes"] <= 2500


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


def test_empty_document_gets_nothing_and_no_forward(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("anything"))
    rig.open("")
    assert rig.ask(0).result.finish_reason is FinishReason.EMPTY_PROMPT
    assert rig.model.forwards == []


def test_invoked_request_may_take_longer_than_an_automatic_one(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("def f():\n    x = 1\n    return x\n"))
    rig.open("def f():\n    \n")
    reply = rig.ask(13, trigger=TriggerKind.INVOKED, num_suggestions=3)
    assert reply.texts[0] == "    x = 1\n    return x"
    assert len(set(reply.texts)) == len(reply.texts) <= 3


def test_a_cache_has_room_for_what_a_request_can_use_and_no_more(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("x = compute(1)\n", max_positions=1_000_000))
    rig.open("x = \n")
    assert rig.ask(4).texts == ["compute(1)"]
    (sequence,) = rig.model.sequences
    assert MAX_NEW_TOKENS + 1024 < sequence.max_positions < MAX_NEW_TOKENS + 2048, "on a CPU"
