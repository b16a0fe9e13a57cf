"""The status: from loading to ready, errors, progress bars."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

from bench.lsp_client import LspClient, StdioServer, stdio_server
from forelook.confidence import Confidence
from forelook.finish_reason import FinishReason
from forelook.protocol import messages

from tests.lsp.conftest import URI, last_status
from tests.lsp.fake_backend import READY, FakeBackend

LOADING = messages.Status(messages.EngineState.LOADING, 0.25, "reading weights", "scripted", "cpu", "float32")
PROGRESS = {"window": {"workDoneProgress": True}}


async def test_the_status_follows_the_model_from_loading_to_ready(
    environment: dict[str, str], backend: FakeBackend
) -> None:
    backend.status = LOADING
    async with stdio_server(environment) as server:
        editor = server.client
        await editor.initialize(capabilities=PROGRESS)
        status = await editor.wait_for_status("loading")
        assert (status["progress"], status["message"]) == (0.25, "reading weights")
        await editor.open(URI, "a")
        assert await editor.complete(URI, 0, 1) == []
        await backend.set_status(dataclasses.replace(LOADING, progress=0.75))
        await editor.wait_until(lambda: last_status(editor)["progress"] == 0.75)
        await backend.set_status(READY)
        status = await editor.wait_for_status("ready")
        assert (status["model"], status["device"]) == ("scripted", "cpu")
        assert len(await editor.complete(URI, 0, 1)) == 1
        await editor.wait_until(lambda: last_status(editor)["pool_tokens"] == 1234)
        status = await editor.wait_for_status("ready")
        assert status["tokens_per_step"] == 2.5
        assert status["last_latency_ms"] > 0
        assert status["accept_rate"] == 0.0
        bars = [(p["token"], p["value"]) for p in editor.params_of("$/progress")]
        loading = [value for token, value in bars if token == bars[0][0]]
        assert loading[0]["kind"] == "begin"
        assert loading[-1]["kind"] == "end"
        assert 75 in [value.get("percentage") for value in loading]
        created = [message["params"]["token"] for message in editor.received if "id" in message]
        assert {token for token, _ in bars} <= set(created)


async def test_an_editor_without_progress_bars_is_sent_none(editor: LspClient) -> None:
    assert editor.params_of("$/progress") == []
    assert editor.params_of("window/workDoneProgress/create") == []


async def test_a_model_that_fails_to_load_is_an_error_with_its_remedy(editor: LspClient, backend: FakeBackend) -> None:
    await editor.open(URI, "a")
    await backend.set_status(messages.Status(messages.EngineState.ERROR, None, "model = x is not here: download it"))
    status = await editor.wait_for_status("error")
    assert status["message"] == "model = x is not here: download it; then restart the backend"
    said = [params for params in editor.params_of("window/logMessage") if "download it" in params["message"]]
    assert [params["type"] for params in said] == [1], "told once, also where an editor shows no status"
    assert await editor.complete(URI, 0, 1) == []


async def test_a_ready_model_that_is_busy_with_itself_says_so(server: StdioServer, backend: FakeBackend) -> None:
    editor = server.client
    await editor.initialize()
    await editor.open(URI, "a")
    await editor.wait_for_status("ready")
    await backend.set_status(replace(READY, message="own/model was not trained to infill"))
    await editor.wait_until(lambda: last_status(editor)["message"] == "own/model was not trained to infill")
    await backend.set_status(replace(READY, progress=1.0, message="Preparing steps of 8 tokens"))
    await editor.wait_until(lambda: last_status(editor)["message"] == "Preparing steps of 8 tokens")
    assert (last_status(editor)["state"], last_status(editor)["progress"]) == ("ready", 1.0)
    assert len(await editor.complete(URI, 0, 1)) == 1
    await backend.set_status(READY)
    await editor.wait_until(lambda: last_status(editor)["progress"] is None)


async def test_copilots_clients_get_their_own_status_too(server: StdioServer) -> None:
    await server.client.initialize(options={"editorPluginInfo": {"name": "copilot.el", "version": "1"}})
    await server.client.wait_for_status("ready")
    await server.client.wait_until(
        lambda: {"busy": False, "message": "", "kind": "Normal"} in server.client.params_of("didChangeStatus")
    )
    assert server.client.params_of("window/logMessage") == []


async def test_status_notifications_can_be_switched_off(server: StdioServer, backend: FakeBackend) -> None:
    await server.client.initialize(options={"statusNotifications": False})
    await backend.wait_until(lambda: "hello" in backend.methods)
    await server.client.open(URI, "a")
    await backend.wait_until(lambda: bool(backend.connections) and URI in backend.connections[0].texts)
    assert len(await server.client.complete(URI, 0, 1)) == 1
    assert server.client.params_of("forelook/status") == []


async def test_the_status_says_that_the_model_is_unsure_until_it_is_sure_again(
    server: StdioServer, backend: FakeBackend
) -> None:
    editor = server.client
    await editor.initialize()
    await editor.open(URI, "a")
    await editor.wait_for_status("ready")
    backend.script, backend.finish_reason = lambda _text, _params: (), FinishReason.UNSURE
    assert await editor.complete(URI, 0, 1) == []
    await editor.wait_until(lambda: last_status(editor)["message"].startswith("unsure: "))
    assert last_status(editor)["state"] == "ready"
    statistics = await editor.request("workspace/executeCommand", {"command": "forelook.stats"})
    assert statistics["window"]["outcomes"] == {"withheld": 1}
    assert [event.kind.value for event in backend.events] == ["withheld"]
    backend.script, backend.finish_reason = lambda _text, _params: "b", FinishReason.STOP_TOKEN
    await editor.type_text(URI, 2, 0, 1, "b")
    assert len(await editor.complete(URI, 0, 2)) == 1
    await editor.wait_until(lambda: last_status(editor)["message"] == "")


async def test_the_setting_travels_with_each_request(server: StdioServer, backend: FakeBackend) -> None:
    editor = server.client
    await editor.initialize(options={"confidence": "strict"})
    await editor.open(URI, "a")
    await editor.wait_for_status("ready")
    await editor.complete(URI, 0, 1)
    for value in (0.25, "off", "sure", None):
        settings = {} if value is None else {"confidence": value}
        await editor.notify("workspace/didChangeConfiguration", {"settings": {"forelook": settings}})
        await editor.complete(URI, 0, 1)
    levels = [params.confidence for params in backend.completions]
    assert levels == [Confidence.STRICT, 0.25, Confidence.OFF, Confidence.DEFAULT]
    said = [params["message"] for params in editor.params_of("window/logMessage")]
    assert any("forelook.confidence" in message and "sure" in message for message in said)
