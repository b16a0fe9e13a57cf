"""Frames: whatever way the bytes are cut, the same messages come out, and nonsense is told from a message."""

from __future__ import annotations

import itertools

import pytest
from forelook_lsp.transports.stdio import FramingError, MessageSplitter
from hypothesis import given
from hypothesis import strategies as st


def framed(body: bytes, header: bytes = b"Content-Length: %d\r\n") -> bytes:
    return header % len(body) + b"\r\n" + body


@given(st.lists(st.binary(max_size=50), max_size=6), st.lists(st.integers(0, 400), max_size=12))
def test_messages_come_out_whole_however_the_stream_is_cut(bodies: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(framed(body) for body in bodies)
    borders = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    splitter = MessageSplitter()
    found: list[bytes] = []
    for start, end in itertools.pairwise(borders):
        found += splitter.feed(stream[start:end])
    assert found == bodies


def test_headers_may_come_in_any_case_and_company() -> None:
    header = b"content-type: application/vscode-jsonrpc; charset=utf-8\r\ncontent-LENGTH:%d\r\n"
    assert MessageSplitter().feed(framed(b"{}", header)) == [b"{}"]


@pytest.mark.parametrize(
    "stream",
    [b"hello\r\n\r\n", b"Content-Length: x\r\n\r\n", b"Content-Length: 99999999999\r\n\r\n", b"x" * 20_000],
)
def test_a_stream_that_is_not_lsp_is_named_as_such(stream: bytes) -> None:
    with pytest.raises(FramingError):
        MessageSplitter().feed(stream)
