"""What an LSP client may rely on, one row a case, over stdio and over websocket.

Each case is given an editor that is initialized and a backend that is ready, unless its row says otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from bench.lsp_client import LspClient, ResponseError, completion_params, range_of, stdio_server

from tests.lsp.conftest import URI, make_environment
from tests.lsp.fake_backend import FakeBackend
from tests.lsp.servers import WebsocketAddress, shared_websocket_server, stdio_server_in_a_thread
from tests.lsp.test_positions import split_by_hand

CANCELLED = -32800
INVALID_REQUEST = -32600
INVALID_PARAMS = -32602
METHOD_NOT_FOUND = -32601
NOT_INITIALIZED = -32002
PARSE_ERROR = -32700

ENCODINGS = ("utf-8", "utf-16", "utf-32")

Case = Callable[[LspClient, FakeBackend], Awaitable[None]]


@dataclass(frozen=True)
class Row:
    """One case, and how its editor introduces itself; ``None`` means not at all."""

    case: Case
    initialize: dict[str, Any] | None


ROWS: dict[str, Row] = {}


def row(name: str, initialize: dict[str, Any] | None = {}) -> Callable[[Case], Case]:  # noqa: B006 - never changed
    def add(case: Case) -> Case:
        assert name not in ROWS
        ROWS[name] = Row(case, initialize)
        return case

    return add


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One home for all rows: those over websocket share a server, and each has a backend of its own."""
    return make_environment(tmp_path_factory.mktemp("conformance"))


@pytest.fixture(scope="module")
def listening(environment: dict[str, str]) -> Iterator[WebsocketAddress]:
    with shared_websocket_server(environment) as address:
        yield address


Connected = Callable[[str], contextlib.AbstractAsyncContextManager[LspClient]]


@pytest.fixture
def connected(environment: dict[str, str], listening: WebsocketAddress) -> Connected:
    @contextlib.asynccontextmanager
    async def connect(transport: str) -> AsyncIterator[LspClient]:
        if transport == "stdio":
            async with stdio_server_in_a_thread(environment) as client:
                yield client
        else:
            async with listening.connect() as connection:
                yield connection.client

    return connect


def rows() -> list[Any]:
    return [
        pytest.param(transport, found, id=f"{transport}: {name}")
        for transport in ("stdio", "websocket")
        for name, found in ROWS.items()
    ]


# --- Answers -------------------------------------------------------------------------------------------------


@row("the server offers inline completion, incremental sync and its commands")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    capabilities = editor.capabilities
    assert capabilities["inlineCompletionProvider"] in (True, {})
    assert capabilities["textDocumentSync"]["change"] == 2
    assert capabilities["textDocumentSync"]["openClose"] is True
    assert "notebookDocumentSync" not in capabilities or capabilities["notebookDocumentSync"]["notebookSelector"]
    assert set(capabilities["executeCommandProvider"]["commands"]) >= {"forelook.toggle", "forelook.stats"}
    assert "completionProvider" not in capabilities


@row("no suggestion is an empty list of items, never null")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    backend.script = lambda text, params: []
    await editor.open(URI, "a")
    result = await editor.request("textDocument/inlineCompletion", completion_params(URI, 0, 1))
    assert result == {"items": []}


@row("an item has an explicit range within the cursor's line and begins with what stands there")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    backend.script = lambda text, params: "urn 1\n    # more"
    await editor.open(URI, "def f():\n    ret\nx")
    (item,) = await editor.complete(URI, 1, 7)
    assert item["range"] == range_of(1, 0, 1, 7)
    assert item["insertText"] == "    return 1\n    # more"


@row("an item that replaces closers keeps its range within the line")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    backend.script = lambda text, params: "1)"
    backend.num_replaced = 1
    await editor.open(URI, "f()\nx")
    (item,) = await editor.complete(URI, 0, 2)
    assert item["range"] == range_of(0, 0, 0, 3)
    assert item["insertText"] == "f(1)"


@row("an item's command names the suggestion that was accepted")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    await editor.open(URI, "a")
    (item,) = await editor.complete(URI, 0, 1)
    command = item["command"]
    assert command["command"] in editor.capabilities["executeCommandProvider"]["commands"]
    assert await editor.request("workspace/executeCommand", command) is None
    await backend.wait_until(lambda: [event.kind.value for event in backend.events] == ["shown", "accepted"])


@row("whatever line ends the backend sends, an item has line feeds only")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    backend.script = lambda text, params: "b\r\nc\rd\ne"
    await editor.open(URI, "a")
    (item,) = await editor.complete(URI, 0, 1)
    assert item["insertText"] == "ab\nc\nd\ne"


@row("line ends before the cursor stay out of an item")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    backend.script = lambda text, params: "2"
    await editor.open(URI, "a = 1\r\nb = \r\nc = 3\r\n")
    (item,) = await editor.complete(URI, 1, 4)
    assert item["range"] == range_of(1, 0, 1, 4)
    assert item["insertText"] == "b = 2"
    assert backend.completions[0].offset == 11


@row("a backend's suggestion that would change typed text is not passed on")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    await editor.open(URI, "abc\ndef")
    await editor.complete(URI, 0, 1)
    backend.num_replaced = 4  # beyond the line's end
    assert await editor.complete(URI, 0, 2) == []


# --- Trigger kinds ---------------------------------------------------------------------------------------------


def _trigger_row(kind: int | None, expected: str) -> None:
    @row(f"trigger kind {kind} is taken as {expected}")
    async def _(editor: LspClient, backend: FakeBackend) -> None:
        await editor.open(URI, "a")
        await editor.complete(URI, 0, 1, trigger=kind)
        assert backend.completions[0].trigger == expected
        assert (backend.completions[0].num_suggestions > 1) == (expected == "invoked")


for _kind, _expected in ((0, "invoked"), (1, "invoked"), (2, "automatic"), (None, "automatic")):
    _trigger_row(_kind, _expected)


@row("an unknown trigger kind is refused, and the server goes on")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    await editor.open(URI, "a")
    with pytest.raises(ResponseError) as caught:
        await editor.complete(URI, 0, 1, trigger=7)
    assert caught.value.code == INVALID_PARAMS
    assert len(await editor.complete(URI, 0, 1)) == 1


@row("asking by a command gives several different suggestions")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    backend.script = lambda text, params: ["1", "2", "2", "3"]
    await editor.open(URI, "a = ")
    items = await editor.complete(URI, 0, 4, trigger=1)
    assert [item["insertText"] for item in items] == ["a = 1", "a = 2"]


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
    await editor.change(
        URI,
        5,
        {"range": range_of(0, 0, 0, 3), "text": "1\n"},
        {"range": range_of(1, 1, 1, 4), "text": "2"},
    )
    await editor.complete(URI, 1, 2)
    assert backend.connections[0].texts[URI] == "1\n 2"
    assert backend.connections[0].versions[URI] == 5


# --- The popup -------------------------------------------------------------------------------------------------


@row("with a popup open an item extends its selection over the same range")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    backend.script = lambda text, params: "rmat(x)"
    await editor.open(URI, "a = fo")
    selected = {"range": range_of(0, 4, 0, 6), "text": "format"}
    (item,) = await editor.complete(URI, 0, 6, selected=selected)
    assert (item["insertText"], item["range"]) == ("format(x)", range_of(0, 4, 0, 6))
    asked = backend.completions[0].selected
    assert asked is not None
    assert (asked.start, asked.end, asked.text) == (4, 6, "format")
    fold = {"range": range_of(0, 4, 0, 6), "text": "fold"}
    assert await editor.complete(URI, 0, 6, selected=fold) == []


# --- Requests out of date --------------------------------------------------------------------------------------


@row("a cancelled request is answered as cancelled, and the backend's work ends")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    backend.hold = asyncio.Event()
    await editor.open(URI, "a")
    request_id, future = await editor.start_complete(URI, 0, 1)
    await backend.wait_until(lambda: len(backend.completions) == 1)
    await editor.cancel(request_id)
    with pytest.raises(ResponseError) as caught:
        await future
    assert caught.value.code == CANCELLED
    await backend.wait_until(lambda: len(backend.cancelled) == 1)


@row("a request that a later one supersedes is answered as cancelled")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    backend.hold = asyncio.Event()
    await editor.open(URI, "a")
    _, first = await editor.start_complete(URI, 0, 1)
    _, second = await editor.start_complete(URI, 0, 1)
    with pytest.raises(ResponseError) as caught:
        await first
    assert caught.value.code == CANCELLED
    backend.release()
    assert len((await second)["items"]) == 1
    assert len(backend.completions) == 1


@row("a request whose document changes under it is answered as cancelled")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    backend.hold = asyncio.Event()
    await editor.open(URI, "a")
    _, future = await editor.start_complete(URI, 0, 1)
    await editor.type_text(URI, 2, 0, 1, "b")
    with pytest.raises(ResponseError) as caught:
        await future
    assert caught.value.code == CANCELLED


@row("two documents do not supersede each other")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    backend.hold = asyncio.Event()
    await editor.open(URI, "a")
    await editor.open(URI + "2", "b")
    _, first = await editor.start_complete(URI, 0, 1)
    _, second = await editor.start_complete(URI + "2", 0, 1)
    await backend.wait_until(lambda: len(backend.completions) == 2)
    backend.release()
    assert [item["insertText"] for item in (await first)["items"]] == ["apass"]
    assert [item["insertText"] for item in (await second)["items"]] == ["bpass"]


@row("a request for another version of the document is answered as cancelled")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    await editor.open(URI, "a", version=3)
    for version in (2, 4):
        with pytest.raises(ResponseError) as caught:
            await editor.complete(URI, 0, 1, version=version)
        assert caught.value.code == CANCELLED
    assert len(await editor.complete(URI, 0, 1, version=3)) == 1


@row("a document that was never opened gets no suggestion, and neither does a closed one")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    assert await editor.complete("file:///nowhere.py", 0, 0) == []
    await editor.change("file:///nowhere.py", 2, {"text": "x"})
    await editor.close("file:///nowhere.py")
    await editor.open(URI, "a")
    await editor.close(URI)
    assert await editor.complete(URI, 0, 1) == []


@row("closing a document answers its request as cancelled")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    backend.hold = asyncio.Event()
    await editor.open(URI, "a")
    _, future = await editor.start_complete(URI, 0, 1)
    await backend.wait_until(lambda: len(backend.completions) == 1)
    await editor.close(URI)
    with pytest.raises(ResponseError) as caught:
        await future
    assert caught.value.code == CANCELLED
    await backend.wait_until(lambda: len(backend.cancelled) == 1 and URI not in backend.connections[0].texts)


@row("a cancel of something unknown, or already answered, does nothing")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    await editor.open(URI, "a")
    await editor.cancel(4711)
    request_id, future = await editor.start_complete(URI, 0, 1)
    await future
    await editor.cancel(request_id)
    assert len(await editor.complete(URI, 0, 1)) == 1


# --- Life cycle and nonsense ---------------------------------------------------------------------------------------


@row("a request before initialize is refused, and a notification is dropped", None)
async def _(editor: LspClient, backend: FakeBackend) -> None:
    await editor.open(URI, "a")
    for method in ("textDocument/inlineCompletion", "shutdown", "no/such"):
        with pytest.raises(ResponseError) as caught:
            await editor.request(method, {})
        assert caught.value.code == NOT_INITIALIZED
    await editor.initialize()
    await editor.wait_for_status("ready")
    assert await editor.complete(URI, 0, 1) == []


@row("a second initialize, and a request after shutdown, are refused")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    with pytest.raises(ResponseError) as caught:
        await editor.request("initialize", {"processId": None, "rootUri": None, "capabilities": {}})
    assert caught.value.code == INVALID_REQUEST
    assert await editor.request("shutdown") is None
    with pytest.raises(ResponseError) as caught:
        await editor.request("textDocument/inlineCompletion", completion_params(URI, 0, 0))
    assert caught.value.code == INVALID_REQUEST


@row("messages that are no messages are answered with an error, and the server goes on")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    for message, code in (
        ("{", PARSE_ERROR),
        ("[]", INVALID_REQUEST),
        ('{"id": 900, "method": "x"}', INVALID_REQUEST),
        ('{"jsonrpc": "2.0", "id": 901, "method": 3}', INVALID_REQUEST),
        ('{"jsonrpc": "2.0", "id": 902, "method": "no/such/method", "params": {}}', METHOD_NOT_FOUND),
        ('{"jsonrpc": "2.0", "id": 903, "method": "textDocument/inlineCompletion"}', INVALID_PARAMS),
        ('{"jsonrpc": "2.0", "id": 904, "method": "textDocument/inlineCompletion", "params": {}}', INVALID_PARAMS),
        (
            '{"jsonrpc": "2.0", "id": 905, "method": "workspace/executeCommand", "params": {"command": "no.such"}}',
            INVALID_PARAMS,
        ),
    ):
        before = len(editor.orphans)
        await editor.send(message)
        await editor.wait_until(lambda before=before: len(editor.orphans) > before)  # type: ignore[misc]
        error = editor.orphans[-1]["error"]
        assert error["code"] == code, message
        assert "Traceback" not in str(error)
    await editor.send('{"jsonrpc": "2.0", "method": "textDocument/didOpen", "params": {"textDocument": 3}}')
    await editor.send('{"jsonrpc": "2.0", "method": "$/something", "params": null}')
    await editor.send('{"jsonrpc": "2.0", "id": 17, "result": null}')
    await editor.open(URI, "a")
    assert len(await editor.complete(URI, 0, 1)) == 1


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


@pytest.mark.parametrize(("transport", "found"), rows())
async def test_conformance(transport: str, found: Row, connected: Connected, backend: FakeBackend) -> None:
    async with connected(transport) as editor:
        if found.initialize is not None:
            await editor.initialize(**found.initialize)
            await editor.wait_for_status("ready")
        await found.case(editor, backend)


# --- The end -------------------------------------------------------------------------------------------------

ENDINGS: dict[str, tuple[bool, tuple[str, ...], int]] = {
    "exit after shutdown": (True, ("shutdown", "exit"), 0),
    "exit after shutdown was said twice": (True, ("shutdown", "shutdown", "exit"), 0),
    "exit without shutdown": (True, ("exit",), 1),
    "exit before initialize": (False, ("exit",), 1),
    "no exit: the editor goes away": (True, (), 1),
}


async def _say_goodbye(editor: LspClient, introduced: bool, words: tuple[str, ...]) -> None:
    if introduced:
        await editor.initialize()
        await editor.wait_for_status("ready")
    for number, word in enumerate(words):
        if word == "exit":
            await editor.notify("exit")
        elif number == 0:
            assert await editor.request(word) is None
        else:
            with pytest.raises(ResponseError) as caught:
                await editor.request(word)
            assert caught.value.code == INVALID_REQUEST


@pytest.mark.parametrize(("introduced", "words", "code"), ENDINGS.values(), ids=ENDINGS)
async def test_over_stdio_the_process_ends_with_the_code_of_lsp(
    introduced: bool, words: tuple[str, ...], code: int, environment: dict[str, str], backend: FakeBackend
) -> None:
    async with stdio_server(environment) as server:
        await _say_goodbye(server.client, introduced, words)
        if not words:
            server.close_stdin()
        assert await server.wait() == code
    assert b"Traceback" not in server.errors
    assert "shutdown" not in backend.methods, "the backend is for other windows too"


@pytest.mark.parametrize(("introduced", "words", "code"), ENDINGS.values(), ids=ENDINGS)
async def test_over_websocket_only_the_connection_ends(
    introduced: bool, words: tuple[str, ...], code: int, listening: WebsocketAddress, backend: FakeBackend
) -> None:
    async with listening.connect() as staying:
        await staying.client.initialize()
        await staying.client.wait_for_status("ready")
        async with listening.connect() as leaving:
            await _say_goodbye(leaving.client, introduced, words)
            if not words:
                leaving.websocket.transport.abort()
            await leaving.wait_closed()
            assert leaving.websocket.close_code == (1000 if words else 1006)
        await staying.client.open(URI, "a")
        assert len(await staying.client.complete(URI, 0, 1)) == 1


# --- Whatever order --------------------------------------------------------------------------------------------

NUM_OPERATIONS = 10_000
PIECES = ("a", "(", ")", "\n", "\r\n", "\r", "🙂", "e\u0301", "\f", "\u2028", "    ", "return x", "\t", "\u0085", "")


def utf16_length(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["stdio", "websocket"])
async def test_ten_thousand_interleaved_edits_requests_and_cancels_leave_both_sides_with_the_same_text(
    transport: str, connected: Connected, backend: FakeBackend
) -> None:
    rng = random.Random(20_261)
    backend.script = lambda text, params: "(x)\n    y"
    text, version = "start\n", 1
    pending: list[tuple[int, asyncio.Future[Any]]] = []
    num_answered = num_cancelled = 0

    def position(lines: list[str]) -> tuple[int, int, int]:
        """A place at a character border: its offset, line and UTF-16 column."""
        number = rng.randrange(len(lines))
        column = rng.randint(0, len(lines[number].rstrip("\r\n")))
        before = sum(map(len, lines[:number])) + column
        return before, number, utf16_length(lines[number][:column])

    async with connected(transport) as editor:
        await editor.initialize(options={"delayMs": 0})
        await editor.wait_for_status("ready")
        await editor.open(URI, text)
        for step in range(NUM_OPERATIONS):
            lines = split_by_hand(text)
            choice = rng.random()
            if choice < 0.6:
                (start, *first), (end, *last) = sorted((position(lines), position(lines)))
                if rng.random() < 0.7 or len(text) < 200:
                    end, last = start, first
                new = "".join(rng.choices(PIECES, k=rng.randint(0, 3)))
                version += 1
                await editor.change(URI, version, {"range": range_of(*first, *last), "text": new})
                text = text[:start] + new + text[end:]
            elif choice < 0.9:
                _, line, column = position(lines)
                pending.append(await editor.start_complete(URI, line, column, trigger=rng.choice((1, 2))))
            elif pending:
                await editor.cancel(rng.choice(pending)[0])
            if step % 50 == 0:
                for _, future in pending:
                    await asyncio.wait([future], timeout=30)
                    error = future.exception()
                    if error is None:
                        num_answered += 1
                        assert isinstance(future.result()["items"], list)
                    else:
                        assert isinstance(error, ResponseError)
                        assert error.code == CANCELLED
                        num_cancelled += 1
                pending.clear()
        await backend.wait_until(lambda: backend.connections[0].versions[URI] == version)
        assert backend.connections[0].texts[URI] == text
    assert num_answered > 50
    assert num_cancelled > 500
