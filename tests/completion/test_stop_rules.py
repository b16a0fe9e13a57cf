"""What ends an output: the text passed on never depends on how the model's text was cut into pieces."""

from __future__ import annotations

import itertools

import pytest
from forelook.completion.stop_rules import StopRules


def pieces_of(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def run(text: str, size: int, *, late: bool = False, **options: object) -> tuple[str, StopRules]:
    rules = StopRules(**options)  # type: ignore[arg-type]
    passed = ""
    for piece in pieces_of(text, size):
        passed += rules.push(piece, ends_with_line=late)
        if rules.has_ended:
            break
    return passed + rules.finish(), rules


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_a_stop_text_ends_the_output_and_does_not_belong_to_it(size: int) -> None:
    text, rules = run("def f():\n    pass\n\ndef g():", size, stop=("\n\n", "zz"))
    assert (text, rules.stopping_text, rules.has_ended) == ("def f():\n    pass", "\n\n", True)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_what_only_begins_like_a_stop_text_is_passed_on(size: int) -> None:
    text, rules = run("a</b</c", size, stop=("</s>", "</cc"))
    assert (text, rules.stopping_text, rules.has_ended) == ("a</b</c", "", False)


def test_nothing_of_a_stop_text_is_passed_on_before_it_is_known() -> None:
    rules = StopRules(stop=("STOP",))
    assert rules.push("abST") == "ab"
    assert rules.push("OP") == ""
    assert rules.has_ended
    assert rules.push("more") == rules.finish() == ""


@pytest.mark.parametrize("size", [1, 2, 100])
def test_the_earliest_of_several_stop_texts_wins(size: int) -> None:
    assert run("one two three", size, stop=("three", "two"))[0] == "one "


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_line_with_less_indentation_ends_the_output(size: int) -> None:
    text, rules = run("x = 1\n    y = 2\n\n    z = 3\nend\n", size, min_indent=4)
    assert (text, rules.has_ended, rules.stopping_text) == ("x = 1\n    y = 2\n\n    z = 3", True, "")


@pytest.mark.parametrize("size", [1, 3, 100])
def test_after_its_time_the_output_ends_with_its_line(size: int) -> None:
    text, rules = run("one\ntwo\n", size, late=True)
    assert (text, rules.has_ended) == ("one\n", True)


def test_without_rules_all_text_is_passed_on_at_once() -> None:
    rules = StopRules()
    pieces = ["a\n", "  b", "\n\n"]
    assert [rules.push(piece) for piece in pieces] == pieces
    assert not rules.has_ended


def test_pieces_do_not_matter() -> None:
    text = "if a:\n    b()\n  \n    c()</s\n  d\n"
    for stop, min_indent in itertools.product([(), ("</s>",), ("c()",), ("\n  \n", "b")], [0, 2, 4]):
        outputs = {run(text, size, stop=stop, min_indent=min_indent)[0] for size in range(1, len(text) + 1)}
        assert len(outputs) == 1, (stop, min_indent, outputs)
