"""The plugin's text arithmetic, run inside a real Neovim and compared with Python's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.editors.nvim_rig import Neovim, need_neovim

TEXT = st.text(alphabet="ab1_ (){};.\t'é\u0301日🙂🙃𝒳", max_size=24)


@pytest.fixture(scope="module")
def nvim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neovim]:
    neovim = Neovim(need_neovim("nvim"), tmp_path_factory.mktemp("text"), [shutil.which("true") or "true"])
    yield neovim
    neovim.close()


def call(nvim: Neovim, function: str, *args: object) -> object:
    return nvim.lua(f"return require('forelook.text').{function}(...)", *args)


@given(line=TEXT, index=st.integers(0, 24), encoding=st.sampled_from(["utf-8", "utf-16", "utf-32"]))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_columns_agree_with_python_in_both_directions(nvim: Neovim, line: str, index: int, encoding: str) -> None:
    before = line[:index]
    unit = {"utf-8": 1, "utf-16": 2, "utf-32": 4}[encoding]
    columns = len(before.encode(f"{encoding}-le" if unit > 1 else encoding)) // unit
    size = len(before.encode())
    assert call(nvim, "to_units", line, size, encoding) == columns
    assert call(nvim, "to_bytes", line, columns, encoding) == size


@given(rest=TEXT, picks=st.lists(st.booleans(), min_size=24, max_size=24), length=st.integers(0, 24))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pieces_and_replaced_text_make_up_the_suggestion(
    nvim: Neovim, rest: str, picks: list[bool], length: int
) -> None:
    tail = "".join(character for character, picked in zip(rest, picks, strict=False) if picked)
    pieces = nvim.lua(
        "local t = require('forelook.text'); local a = t.align(...); return a and t.pieces((...), a)", rest, tail
    )
    assert pieces is not None, "a subsequence is always found"
    built, offset = b"", 0
    for piece in pieces:
        built += tail.encode()[offset : piece["offset"]] + piece["text"].encode()
        offset = piece["offset"]
    assert built + tail.encode()[offset:] == rest.encode()
    # What a partial acceptance replaces is what its text already contains.
    part = rest[:length].encode()
    consumed = nvim.lua(
        "local t = require('forelook.text'); local r, l, n = ...; return t.consumed(t.align(r, l), n)",
        rest,
        tail,
        len(part),
    )
    left = iter(rest.encode()[len(part) :].decode())
    assert all(character in left for character in tail.encode()[consumed:].decode())


def test_text_that_is_no_subsequence_is_not_aligned(nvim: Neovim) -> None:
    assert call(nvim, "align", "abc", "ca") is None
    assert call(nvim, "align", "x)", ")") == [{"tail_to": 1, "from": 2, "to": 2}]


@given(text=st.text(alphabet="ab_1 \n\t(),é🙂", min_size=1, max_size=20))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_words_and_lines_always_make_progress_and_split_no_character(nvim: Neovim, text: str) -> None:
    for step in ("next_word", "next_line"):
        left, rounds = text.encode(), 0
        while left:
            taken = call(nvim, step, left.decode())
            assert isinstance(taken, int)
            assert taken > 0
            left = left[taken:]
            left.decode()
            rounds += 1
        assert rounds <= len(text)


def test_tabs_reach_the_next_stop(nvim: Neovim, tmp_path: Path) -> None:
    assert call(nvim, "expand_tabs", "\ta\tb", 2, 4) == "  a   b"
    assert call(nvim, "expand_tabs", "日\tx", 0, 4) == "日  x"
