"""Token healing: what is dropped comes back, in whatever tokens the model prefers, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from forelook.model.token_healing import NO_HEALING, TokenHealer
from forelook.model.tokenizer import CodeTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def healer(starter_tokenizer: CodeTokenizer) -> TokenHealer:
    return TokenHealer(starter_tokenizer)


@pytest.fixture(scope="module")
def codellama_healer(codellama_tokenizer: CodeTokenizer) -> TokenHealer:
    return TokenHealer(codellama_tokenizer)


@pytest.mark.parametrize(
    ("prefix", "forced"),
    [
        ("def f(x):\n    ret", " ret"),  # the model writes "return" as one token with its indentation's last space
        ("import nump", " nump"),
        ("x = ", " "),
        ("    x = 1\n", "\n"),  # the starter writes a newline and the indentation after it as one token
        ("if x:\n    ", "\n    "),
    ],
)
def test_the_tokens_a_longer_one_could_replace_are_dropped(
    healer: TokenHealer, starter_tokenizer: CodeTokenizer, prefix: str, forced: str
) -> None:
    ids = starter_tokenizer.encode_prefix(prefix)
    healing = healer.heal(ids)
    dropped = ids[len(ids) - healing.num_dropped :]
    assert starter_tokenizer.decode(dropped).encode() == healing.forced
    assert healing.forced.decode().endswith(forced.lstrip())
    assert 1 <= healing.num_dropped <= 3


def test_nothing_is_dropped_at_the_start_or_after_a_control_token(healer: TokenHealer) -> None:
    assert healer.heal([]) == NO_HEALING
    assert healer.heal([2, 3]) == NO_HEALING
    assert healer.heal([300], max_tokens=0) == NO_HEALING


def test_a_control_token_is_never_dropped_nor_anything_before_it(
    healer: TokenHealer, starter_tokenizer: CodeTokenizer
) -> None:
    ids = [*starter_tokenizer.encode("x ="), 4, *starter_tokenizer.encode(" ")]
    assert healer.heal(ids).num_dropped == 1


def test_a_token_that_no_longer_one_begins_with_stays(
    codellama_healer: TokenHealer, codellama_tokenizer: CodeTokenizer
) -> None:
    """CodeLlama has one newline token, and every line is tokenized separately after it."""
    assert codellama_healer.heal(codellama_tokenizer.encode_prefix("x = 1\n")) == NO_HEALING


def brute_force(tokenizer: CodeTokenizer, rest: bytes) -> list[int]:
    pieces = ((token_id, tokenizer.token_bytes(token_id)) for token_id in range(tokenizer.vocab_size))
    return [token_id for token_id, piece in pieces if piece and (piece.startswith(rest) or rest.startswith(piece))]


@pytest.mark.parametrize("rest", [b" ", b"\n    ", b" ret", b"nump", b"\xf0\x9f", b"\xff", b"zzzqqq", "é".encode()])
def test_allowed_ids_are_exactly_those_consistent_with_the_rest(
    healer: TokenHealer, starter_tokenizer: CodeTokenizer, rest: bytes
) -> None:
    assert healer.consistent_ids(rest).tolist() == brute_force(starter_tokenizer, rest)


@settings(max_examples=100, deadline=None)
@given(forced=st.binary(min_size=1, max_size=8), data=st.data())
def test_any_allowed_output_begins_with_the_forced_bytes(
    codellama_healer: TokenHealer, codellama_tokenizer: CodeTokenizer, forced: bytes, data: st.DataObject
) -> None:
    """Every byte is a token of this vocabulary, so the constraint never paints itself into a corner."""
    constraint = codellama_healer.constraint(forced)
    output: list[int] = []
    while (allowed := constraint.allowed_ids(output)) is not None:
        assert len(allowed) > 0
        assert (np.diff(allowed) > 0).all()
        output.append(int(data.draw(st.sampled_from(allowed.tolist()))))
    assert b"".join(map(codellama_tokenizer.token_bytes, output)).startswith(forced)
    assert constraint.allowed_ids([*output, 5]) is None


def test_the_constraint_follows_what_was_already_generated(
    codellama_healer: TokenHealer, codellama_tokenizer: CodeTokenizer
) -> None:
    constraint = codellama_healer.constraint(b" ret")
    space, letter = codellama_tokenizer.encode(" "), codellama_tokenizer.encode(" r")
    assert constraint.allowed_ids(space).tolist() == brute_force(codellama_tokenizer, b"ret")
    assert constraint.allowed_ids(letter).tolist() == brute_force(codellama_tokenizer, b"et")
    assert constraint.allowed_ids(codellama_tokenizer.encode(" return")) is None
