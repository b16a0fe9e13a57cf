"""LSP over websocket: many editors, none in another's way, and nobody who should not be there."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from bench.lsp_client import LspClient, start_process
from forelook.errors import ConfigError
from forelook_lsp.transports.websocket import MAX_CONNECTIONS, Listen
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus, WebSocketException

from tests.lsp.conftest import URI
from tests.lsp.fake_backend import FakeBackend
from tests.lsp.servers import WebsocketServer, websocket_server

TOKEN = "t" * 40


@pytest.fixture
async def listening(environment: dict[str, str], backend: FakeBackend) -> AsyncIterator[WebsocketServer]:
    async with websocket_server(environment) as server:
        yield server


async def ready(client: LspClient) -> LspClient:
    await client.initialize()
    await client.wait_for_status("ready")
    return client


async def test_every_editor_has_documents_encodings_and_settings_of_its_own(
    listening: WebsocketServer, backend: FakeBackend
) -> None:
    async with listening.connect() as first, listening.connect() as second:
        await first.client.initialize(encodings=["utf-8"], options={"maxNewTokens": 1})
        await second.client.initialize(encodings=["utf-32"], options={"maxNewTokens": 2})
        await first.client.wait_for_status("ready")
        await second.client.wait_for_status("ready")
        await first.client.open(URI, "é1")
        await second.client.open(URI, "é2")
        assert (await first.client.complete(URI, 0, 3))[0]["insertText"] == "é1pass"
        assert (await second.client.complete(URI, 0, 2))[0]["insertText"] == "é2pass"
        assert [params.max_new_tokens for params in backend.completions] == [1, 2]


async def test_an_editor_that_leaves_harms_no_other(listening: WebsocketServer, backend: FakeBackend) -> None:
    async with listening.connect() as staying:
        await ready(staying.client)
        await staying.client.open(URI, "a")
        async with listening.connect() as polite:
            await ready(polite.client)
            await polite.client.request("shutdown")
            await polite.client.notify("exit")
            await polite.wait_closed()
        async with listening.connect() as rude:
            await ready(rude.client)
            await rude.client.open(URI, "b")
            await rude.client.start_complete(URI, 0, 1)
            rude.websocket.transport.abort()
        async with listening.connect() as odd:
            await odd.client.notify("exit")
            await odd.wait_closed()
        assert len(await staying.client.complete(URI, 0, 1)) == 1
    assert listening.process.returncode is None


async def test_many_editors_at_once_are_served_each_its_own_and_one_too_many_is_refused(
    listening: WebsocketServer, backend: FakeBackend
) -> None:
    backend.script = lambda text, params: f" of {text}"

    async def work(number: int, editor: LspClient) -> None:
        await ready(editor)
        uri = f"{URI}.{number}"
        await editor.open(uri, str(number))
        for version in range(2, 6):
            await editor.type_text(uri, version, 0, 0, "x")
        (item,) = await editor.complete(uri, 0, 4 + len(str(number)))
        assert item["insertText"] == f"xxxx{number} of xxxx{number}"

    async with contextlib.AsyncExitStack() as stack:
        editors = [await stack.enter_async_context(listening.connect()) for _ in range(MAX_CONNECTIONS)]
        await asyncio.gather(*(work(number, editor.client) for number, editor in enumerate(editors)))
        assert len(backend.connections) == MAX_CONNECTIONS
        with pytest.raises(InvalidStatus) as caught:
            async with listening.connect():
                pass
        assert caught.value.response.status_code == 503
    async with listening.connect() as next_one:
        await work(99, next_one.client)


async def test_the_backend_is_told_when_an_editor_leaves(listening: WebsocketServer, backend: FakeBackend) -> None:
    async with listening.connect() as editor:
        await ready(editor.client)
        assert len(backend.connections) == 1
    async with listening.connect() as other:
        await ready(other.client)
        await other.client.open(URI, "a")
        await other.client.complete(URI, 0, 1)
        await backend.wait_until(lambda: len(backend.connections) == 1)


async def test_a_message_of_many_megabytes_is_no_cliff(listening: WebsocketServer, backend: FakeBackend) -> None:
    text = "x = 1\n" * 1_300_000
    async with listening.connect() as editor:
        await ready(editor.client)
        await editor.client.open(URI, text)
        assert len(await editor.client.complete(URI, 1_300_000, 0)) == 1
        assert len(backend.connections[0].texts[URI]) == 7_800_000


async def test_frames_of_either_kind_are_read(listening: WebsocketServer) -> None:
    async with listening.connect() as editor:
        await editor.websocket.send(b'{"jsonrpc": "2.0", "id": "x", "method": "shutdown"}')
        await editor.client.wait_until(lambda: len(editor.client.orphans) == 1)
        assert editor.client.orphans[0]["id"] == "x"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Basic {token}"}, 401),
        ({"Authorization": "Bearer {token}", "Origin": "http://localhost"}, 403),
        ({"Authorization": "Bearer {token}", "Origin": "null"}, 403),
        ({"Authorization": "Bearer {token}", "Host": "evil.example"}, 421),
    ],
    ids=["no token", "wrong token", "wrong scheme", "a local web page", "a page from a file", "a rebound name"],
)
async def test_whoever_should_not_be_there_is_refused(
    listening: WebsocketServer, headers: dict[str, str], status: int
) -> None:
    given = {name: value.replace("{token}", listening.token) for name, value in headers.items()}
    host = given.pop("Host", None)
    if host is not None:
        # The client library sets Host from the address: connect by the rebound name, to this machine.
        port = int(listening.address.rpartition(":")[2])
        opening = connect(f"ws://{host}:{port}", additional_headers=given, host="127.0.0.1", port=port, proxy=None)
    else:
        opening = connect(listening.address, additional_headers=given, proxy=None)
    with pytest.raises(InvalidStatus) as caught:
        await opening
    assert caught.value.response.status_code == status
    assert listening.token not in caught.value.response.body.decode()
    async with listening.connect() as editor:
        await editor.client.initialize()


async def test_the_token_is_in_a_private_file_that_goes_with_the_server(
    environment: dict[str, str], backend: FakeBackend
) -> None:
    folder = Path(environment["XDG_RUNTIME_DIR"]) / "forelook"
    async with websocket_server(environment) as server:
        (token_file,) = await asyncio.to_thread(lambda: list(folder.glob("lsp-*.token")))
        assert token_file.stat().st_mode & 0o777 == 0o600
        assert len(server.token) == 64
    assert not token_file.exists()
    assert server.process.returncode == 0
    assert server.token.encode() not in server.errors


async def test_a_token_may_come_from_the_environment_or_a_file(
    environment: dict[str, str], backend: FakeBackend, tmp_path: Path
) -> None:
    async with websocket_server({**environment, "FORELOOK_LSP_TOKEN": TOKEN}) as server:
        server.token = TOKEN
        async with server.connect() as editor:
            await editor.client.initialize()
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN[::-1] + "x")
    token_file.chmod(0o600)
    async with (
        websocket_server(environment, "--websocket", "127.0.0.1:0", "--token-file", str(token_file)) as server,
        server.connect() as editor,
    ):
        await editor.client.initialize()


@pytest.mark.parametrize(
    ("arguments", "extra", "words"),
    [
        (["--websocket", "0.0.0.0:0"], {}, b"loopback"),
        (["--websocket", "127.0.0.1"], {}, b"HOST:PORT"),
        (["--websocket", "127.0.0.1:0"], {"FORELOOK_LSP_TOKEN": "short"}, b"32 characters"),
        (["--websocket", "127.0.0.1:0", "--tls-certificate", "x.pem"], {}, b"--tls-key"),
        (["--websocket", "127.0.0.1:0", "--tls-certificate", "x.pem", "--tls-key", "y.pem"], {}, b"x.pem"),
        (["--websocket", "127.0.0.1:0", "--tls-certificate", __file__, "--tls-key", __file__], {}, b"PEM certificate"),
        (["--websocket", "127.0.0.1:0", "--log-file", "/dev/null/lsp.log"], {}, b"/dev/null/lsp.log"),
        (["--websocket", "127.0.0.1:0", "--token-file", "/does/not/exist"], {}, b"/does/not/exist"),
    ],
)
async def test_an_unsafe_or_wrong_address_is_refused_with_one_clear_line(
    environment: dict[str, str], arguments: list[str], extra: dict[str, str], words: bytes
) -> None:
    with pytest.raises(AssertionError) as caught:
        async with websocket_server({**environment, **extra}, *arguments):
            pass
    said = str(caught.value)
    assert words.decode() in said
    assert "Traceback" not in said
    assert "short" not in said


async def test_beyond_this_machine_it_is_tls(environment: dict[str, str], backend: FakeBackend, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    try:
        await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    except OSError:
        pytest.skip("needs the openssl command to make a certificate")
    arguments = ["--websocket", "127.0.0.1:0", "--tls-certificate", str(certificate), "--tls-key", str(key)]
    trusting = ssl.create_default_context(cafile=str(certificate))
    async with websocket_server(environment, *arguments) as server:
        assert server.address.startswith("wss://")
        async with server.connect(ssl=trusting) as editor:
            await ready(editor.client)
            await editor.client.open(URI, "a")
            assert len(await editor.client.complete(URI, 0, 1)) == 1
        with pytest.raises((WebSocketException, OSError)):
            await connect(server.address.replace("wss:", "ws:"), proxy=None, open_timeout=5)


def test_an_address_is_read_in_all_its_forms() -> None:
    assert Listen.parse_address("127.0.0.1:80") == ("127.0.0.1", 80)
    assert Listen.parse_address("[::1]:0") == ("::1", 0)
    assert Listen.parse_address("8000") == ("127.0.0.1", 8000)
    for wrong in ("host", "host:99999", "host:-1", ":"):
        with pytest.raises(ConfigError):
            Listen.parse_address(wrong)


async def test_several_tokens_are_refused_since_one_process_cannot_keep_users_apart(
    environment: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "tokens"
    path.touch(0o600)
    path.write_text("a" * 64 + "\n" + "b" * 64 + "\n")
    process = await start_process(environment, ("--websocket", "127.0.0.1:0", "--token-file", str(path)))
    out, errors = await process.communicate()
    assert process.returncode == 2
    assert not out
    assert b"'2 tokens' (expected one token; run one language server per user" in errors
