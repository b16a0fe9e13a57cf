"""A model that was not trained to infill: the text after the cursor is not in the prompt, but ends the suggestion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from forelook.decoding.layout import StepLayout
from forelook.finish_reason import FinishReason
from forelook.model.infill_templates import InfillOrder
from forelook.protocol.messages import MultiLine, TriggerKind

from tests.completion.engine_rig import Rig
from tests.completion.fake_model import FakeModel
from tests.fakes import ByteTokenizer


class PlainModel(FakeModel):
    """Reads the text before the cursor only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        template = (ByteTokenizer.MIDDLE, "{context}", "{prefix}")
        self.infill = replace(self.infill, order=InfillOrder.PLAIN, template=template)


def prompt_of(layouts: list[StepLayout]) -> bytes:
    return bytes(token for layout in layouts for token in layout.token_ids.tolist() if token < 256)


def test_text_after_the_cursor_is_not_in_the_prompt(rigs: Callable[..., Rig]) -> None:
    rig = rigs(PlainModel("x = compute(1)\ny = 2\n"))
    rig.open("x = \nNEVER_READ = 1\n")
    assert rig.ask(4).texts == ["compute(1)"]
    assert prompt_of(rig.model.forwards).startswith(b"x = ")
    assert b"NEVER_READ" not in prompt_of(rig.model.forwards)


@pytest.mark.parametrize(
    ("before", "said", "after", "texts"),
    [
        ("total = add(", "1, 2)\n", ")\n", ["1, 2"]),  # the closer that is there
        (
            "def f(x):\n    ",
            "y = x\n    return y\n\n\ndef g():\n    pass\n",
            "\n    return y\n",
            ["    y = x"],
        ),  # a line
        ("for name in names:\n    ", "print(name)\n    count += 1\n", "\n    count += 1\n", ["    print(name)"]),
        ("items = [\n    1,\n    ", "2,\n    3,\n]\nprint(items)\n", "\n]\nprint(items)\n", ["    2,\n    3,"]),
    ],
    ids=["closer", "next line of a block", "next line of a loop", "closer below"],
)
def test_text_after_the_cursor_trims_and_ends_the_suggestion(
    rigs: Callable[..., Rig], before: str, said: str, after: str, texts: list[str]
) -> None:
    rig = rigs(PlainModel(before + said + "more = 1\n" * 100))
    rig.open(before + after)
    reply = rig.ask(len(before), trigger=TriggerKind.INVOKED, multi_line=MultiLine.AUTO)
    assert reply.texts == texts
    assert reply.result.finish_reason is FinishReason.SCOPE_END, "generation stopped where the text is there already"
    assert len(rig.model.forwards) < len(said) + 20


def test_prompt_is_all_text_before_the_cursor(rigs: Callable[..., Rig]) -> None:
    """The share that a model trained to infill gives to the text after the cursor is not left empty."""
    line = "value = 1234567\n"
    before = line * 100 + "x = "
    sizes = []
    for model in (PlainModel(before + "compute(1)\n"), FakeModel(before + "compute(1)\n")):
        rig = rigs(model)
        rig.open(before + "\n" + line * 100)
        sizes.append(rig.ask(len(before)).result.stats.num_prompt_tokens)
    assert sizes[0] > 0.9 * sizes[1]


def test_nothing_before_the_cursor_is_nothing_to_continue(rigs: Callable[..., Rig]) -> None:
    rig = rigs(PlainModel("anything"))
    rig.open("\nx = 1\n")
    assert rig.ask(0).result.finish_reason is FinishReason.EMPTY_PROMPT
    assert rig.model.forwards == []
