"""Text comes out of a token stream as soon as it is certain, and never changes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from forelook.model.text_stream import StopStrings, TextStream
from forelook.model.tokenizer import CodeTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=30), cuts=st.lists(st.integers(0, 60), max_size=6), skip=st.integers(0, 5))
def test_pieces_join_to_the_whole_text_however_tokens_arrive(
    starter_tokenizer: CodeTokenizer, text: str, cuts: list[int], skip: int
) -> None:
    ids = starter_tokenizer.encode(text)
    forced = text[:skip].encode()
    stream = TextStream(starter_tokenizer, skip=forced)
    bounds = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
    pieces = [stream.push(ids[start:end]) for start, end in pairwise(bounds)]
    assert "".join(pieces) + stream.finish() == text[skip:]


def test_incomplete_character_waits_for_its_bytes(codellama_tokenizer: CodeTokenizer) -> None:
    stream = TextStream(codellama_tokenizer)
    ids = codellama_tokenizer.encode("é🦙")
    texts = [stream.push([token_id]) for token_id in ids]
    assert "\ufffd" not in "".join(texts)
    assert "".join(texts) == "é🦙"
    assert texts[-1] == "🦙"


def test_unfinished_character_at_the_end_becomes_a_replacement(codellama_tokenizer: CodeTokenizer) -> None:
    stream = TextStream(codellama_tokenizer)
    assert stream.push(codellama_tokenizer.encode("🦙")[:2]) == ""
    assert stream.finish() == "\ufffd"


def test_text_after_a_stop_string_never_appears() -> None:
    stops = StopStrings(["\n\n", "\ndef "])
    assert stops.push("a = 1\n") == "a = 1"
    assert stops.push("de") == ""
    assert stops.push("fault = 2\n") == "\ndefault = 2"
    assert stops.push("\nrest") == ""
    assert stops.stopped_at == "\n\n"
    assert stops.push("more") == ""
    assert stops.finish() == ""


def test_held_back_text_is_released_at_the_end() -> None:
    stops = StopStrings(["END"])
    assert stops.push("the EN") == "the "
    assert stops.finish() == "EN"


def test_earliest_stop_wins_and_the_longer_of_two_at_one_place() -> None:
    stops = StopStrings(["b", "abc", "ab"])
    assert stops.push("xabcd") == "x"
    assert stops.stopped_at == "abc"


@pytest.mark.parametrize("stops", [[], [""]])
def test_without_stops_everything_passes(stops: list[str]) -> None:
    assert StopStrings(stops).push("anything\n") == "anything\n"


@settings(max_examples=300, deadline=None)
@given(
    text=st.text("ab\n", max_size=20),
    stops=st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 20), max_size=5),
)
def test_output_is_the_text_before_the_first_stop_however_it_arrives(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    stream = StopStrings(stops)
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    output = "".join(stream.push(text[start:end]) for start, end in pairwise(bounds))
    output += stream.finish()
    # Streaming may only see a stop complete; the earliest-ending one among those then decides.
    ends = [position + len(stop) for stop in stops if (position := text.find(stop)) >= 0]
    if not ends:
        assert output == text
    else:
        assert stream.stopped_at is not None
        assert text.startswith(output + stream.stopped_at)
        assert not any(stop in output for stop in stops)
