"""Positions, lines and changes of documents."""

from __future__ import annotations

import pytest
from bench.lsp_client import LspClient, ResponseError, range_of

from tests.lsp.conformance.rows import (
    Connected,
    Row,
    Rows,
)
from tests.lsp.conftest import URI
from tests.lsp.fake_backend import FakeBackend

ENCODINGS = ("utf-8", "utf-16", "utf-32")

row = Rows()


# --- Positions -------------------------------------------------------------------------------------------------

TRICKY_LINES = {
    "emoji": ("# 🙂é", {"utf-8": 8, "utf-16": 5, "utf-32": 4}),
    "combining mark": ("e\u0301x", {"utf-8": 4, "utf-16": 3, "utf-32": 3}),
    "family emoji": ("👨\u200d👩\u200d👧", {"utf-8": 18, "utf-16": 8, "utf-32": 5}),
    "hebrew": ("# שלום", {"utf-8": 10, "utf-16": 6, "utf-32": 6}),
}


def _position_rows(encoding: str, name: str, line: str, column: int) -> None:
    @row(f"{encoding} columns after {name}", {"encodings": [encoding]})
    async def _(editor: LspClient, backend: FakeBackend) -> None:
        assert editor.capabilities["positionEncoding"] == encoding
        backend.script = lambda text, params: "!"
        await editor.open(URI, f"\n{line}\n")
        (item,) = await editor.complete(URI, 1, column)
        assert backend.completions[0].offset == 1 + len(line)
        assert item["insertText"] == line + "!"
        assert item["range"] == range_of(1, 0, 1, column)
        await editor.type_text(URI, 2, 1, column, "x")
        await editor.complete(URI, 1, column + 1)
        assert backend.connections[0].texts[URI] == f"\n{line}x\n"


for _encoding in ENCODINGS:
    for _name, (_line, _columns) in TRICKY_LINES.items():
        _position_rows(_encoding, _name, _line, _columns[_encoding])


@row("the client's order of encodings decides", {"encodings": ["utf-32", "utf-8", "utf-16"]})
async def _(editor: LspClient, backend: FakeBackend) -> None:
    assert editor.capabilities["positionEncoding"] == "utf-32"


@row("with encodings nobody knows, and with none, it is UTF-16", {"encodings": ["utf-7", "ebcdic"]})
async def _(editor: LspClient, backend: FakeBackend) -> None:
    assert editor.capabilities["positionEncoding"] == "utf-16"
    await editor.open(URI, "🙂")
    await editor.complete(URI, 0, 2)
    assert backend.completions[0].offset == 1


def _line_row(name: str, separator: str) -> None:
    @row(f"{name} ends no line")
    async def _(editor: LspClient, backend: FakeBackend) -> None:
        text = f"a{separator}b\nc"
        await editor.open(URI, text)
        (item,) = await editor.complete(URI, 1, 1)
        assert backend.completions[0].offset == len(text)
        assert item["range"] == range_of(1, 0, 1, 1)
        await editor.type_text(URI, 2, 0, 3, "!")
        await editor.complete(URI, 1, 1)
        assert backend.connections[0].texts[URI] == f"a{separator}b!\nc"


for _name, _separator in (("a form feed", "\f"), ("U+2028", "\u2028"), ("U+0085", "\u0085"), ("a vertical tab", "\v")):
    _line_row(_name, _separator)


@row("a lone carriage return ends a line")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    await editor.open(URI, "a\rb\r\nc")
    await editor.complete(URI, 2, 1)
    assert backend.completions[0].offset == 6


@row("edits join and split carriage return and line feed as LSP counts lines")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    await editor.open(URI, "a\rb")
    await editor.type_text(URI, 2, 1, 0, "\n")
    await editor.type_text(URI, 3, 1, 1, "!")
    await editor.complete(URI, 1, 0)
    assert backend.connections[0].texts[URI] == "a\r\nb!"


@row("a column beyond the line means its end, and a line beyond the document is refused")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    await editor.open(URI, "ab\r\ncd")
    await editor.complete(URI, 0, 99)
    assert backend.completions[0].offset == 2
    with pytest.raises(ResponseError) as caught:
        await editor.complete(URI, 9, 0)
    assert "position.line = 9" in caught.value.message
    assert caught.value.data is None


@row("a replacement of the whole document is followed")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    await editor.open(URI, "a\nb")
    await editor.change(URI, 2, {"text": "x\r\ny🙂"})
    await editor.complete(URI, 1, 3)
    assert backend.connections[0].texts[URI] == "x\r\ny🙂"
    assert backend.completions[0].offset == 5


@row("several changes of one notification apply in order")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    await editor.open(URI, "one two")
    await backend.wait_until(lambda: URI in backend.connections[0].texts)
    await editor.change(
        URI,
        5,
        {"range": range_of(0, 0, 0, 3), "text": "1\n"},
        {"range": range_of(1, 1, 1, 4), "text": "2"},
    )
    await editor.complete(URI, 1, 2)
    assert backend.connections[0].texts[URI] == "1\n 2"
    assert backend.connections[0].versions[URI] == 2, "one change is one version of the language server's own count"


# --- Texts ---------------------------------------------------------------------------------------------------


@row("an empty document gets a suggestion at its only place")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    await editor.open(URI, "")
    (item,) = await editor.complete(URI, 0, 0)
    assert (item["insertText"], item["range"]) == ("pass", range_of(0, 0, 0, 0))
    with pytest.raises(ResponseError) as caught:
        await editor.complete(URI, 1, 0)
    assert "which has one line" in caught.value.message


@row("text that no encoding likes goes through unharmed")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    text = "a\x00b\ud800c\u202edcba\n"
    await editor.open(URI, text)
    await editor.complete(URI, 0, 3)
    assert backend.connections[0].texts[URI] == text
    assert backend.completions[0].offset == 3


@row("a document of five megabytes is no trouble")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    text = "x = 'é🙂'\n" * 500_000
    await editor.open(URI, text)
    await editor.type_text(URI, 2, 499_999, 4, "!")
    await editor.complete(URI, 499_999, 5)
    assert backend.connections[0].texts[URI] == text[:-5] + "!" + text[-5:]


@pytest.mark.parametrize(("transport", "found"), row.params())
async def test_conformance(transport: str, found: Row, connected: Connected, backend: FakeBackend) -> None:
    await found.run(transport, connected, backend)
