"""The server as its clients see it: a real socket, real frames, an engine without a model."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import threading
import urllib.request
from pathlib import Path

import pytest
from forelook.config import ServerConfig
from forelook.errors import ModelError, RequestCancelledError
from forelook.finish_reason import FinishReason
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.protocol import jsonrpc, messages
from forelook.protocol.jsonrpc import ErrorResponse
from forelook.protocol.messages import CompletionParams, CompletionResult, EngineState, Status
from forelook.server.engine import OnStatus
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.server.fake_engine import FakeEngine, suggest_length
from tests.server.harness import URI, WORKSPACE, Running, running


async def test_hello_tells_version_status_and_limits(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.client(hello=False) as client:
        result = messages.from_json(messages.HelloResult, await client.hello())
        assert result.protocol_version == messages.PROTOCOL_VERSION
        assert result.limits.max_document_bytes == ServerConfig().max_document_bytes


@pytest.mark.parametrize(
    ("hello", "older"),
    [
        ({"protocol_version": 1, "client_name": "forelook-lsp", "client_version": "0.1.0"}, "client"),
        ({"protocol_version": 99, "client_name": "test"}, "backend"),
    ],
)
async def test_another_protocol_version_is_refused(tmp_path: Path, hello: dict[str, object], older: str) -> None:
    async with running(tmp_path) as server, server.client(hello=False) as client:
        error = await client.error("hello", hello)
        assert (error.code, error.data["type"]) == (-32050, "ProtocolVersionError")
        assert error.message.endswith(f"update or restart the {older}")
        assert (await client.error("status")).code == -32600


async def test_nothing_is_served_before_hello(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.client(hello=False) as client:
        error = await client.error("status")
        assert "status before hello" in error.message
        await client.open("x")
        assert "before hello" in str((await client.next("notification/error"))["message"])
        await client.hello()
        assert (await client.error("completion", {"uri": URI, "version": 1, "offset": 0})).code == -32041


async def test_completion_sees_every_change_sent_before_it(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.client() as client:
        await client.open("ab")
        for version in range(2, 30):
            change = {"start": 0, "end": 0, "text": "x"}
            await client.notify("document/change", {"uri": URI, "version": version, "changes": [change]})
        assert await client.complete(5, version=29) == "30@5"


async def test_completion_result_has_all_the_engine_said(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.client() as client:
        await client.open("héllo")
        result = await client.result(
            "completion",
            {
                "uri": URI, "version": 1, "offset": 2, "trigger": "invoked", "num_suggestions": 3, "max_new_tokens": 7,
                "deadline_ms": 90, "multi_line": "never", "selected": {"start": 0, "end": 2, "text": "hé!"},
            },
        )  # fmt: skip
        read = messages.from_json(messages.CompletionResult, result)
        assert read.suggestions == (messages.Suggestion("5@2", 2, 2),)
        assert (read.next_line, read.finish_reason, read.stats.num_steps) == ("tail", FinishReason.STOP_TOKEN, 2)
        request = server.engine.requests[0]
        assert (request.trigger.value, request.num_suggestions, request.max_new_tokens) == ("invoked", 3, 7)
        assert (request.deadline_ms, request.multi_line.value) == (90, "never")
        assert request.selected is not None
        assert request.selected.text == "hé!"


async def test_partials_come_before_the_answer_and_only_when_wanted(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.client() as client:
        await client.open("ab")
        server.engine.partials = ("r", "re", "ret")
        await client.complete()
        assert client.notifications["completion/partial"].empty()
        server.engine.gate.clear()
        request_id, answer = await client.send_request(
            "completion", {"uri": URI, "version": 1, "offset": 0, "partial": True}
        )
        while (partial := await client.next("completion/partial"))["text"] != "ret":
            assert partial["id"] == request_id
        server.engine.gate.set()
        await answer
        assert client.order[-1] == f"answer {request_id}"


async def test_cancel_answers_at_once_and_reaches_the_engine(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.client() as client:
        await client.open("ab")
        server.engine.gate.clear()  # the engine does not answer on its own
        request_id, answer = await client.send_request("completion", {"uri": URI, "version": 1, "offset": 0})
        await client.notify("$/cancel", {"id": request_id})
        error = await answer
        assert isinstance(error, ErrorResponse)
        assert (error.code, error.data["type"]) == (-32800, "RequestCancelledError")
        assert server.engine.handles[0].cancelled.is_set()
        server.engine.gate.set()  # its late answer is dropped: a second one would fail the client's reader
        assert await client.complete(1) == "2@1"


async def test_cancel_of_an_answered_or_unknown_request_has_no_effect(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.client() as client:
        await client.open("ab")
        await client.complete()
        await client.notify("$/cancel", {"id": 2})
        await client.notify("$/cancel", {"id": "never"})
        assert await client.complete() == "2@0"
        assert client.notifications["notification/error"].empty()


async def test_an_engine_error_is_answered_with_its_code(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.client() as client:
        await client.open("ab")
        server.engine.answer = lambda _request, _text: RequestCancelledError("superseded by a newer request")
        error = await client.error("completion", {"uri": URI, "version": 1, "offset": 0})
        assert (error.code, error.message) == (-32800, "superseded by a newer request")


@pytest.mark.parametrize(
    ("params", "code", "said"),
    [
        ({"uri": "file:///other", "version": 1, "offset": 0}, -32041, "send document/open first"),
        ({"uri": URI, "version": 1, "offset": 3}, -32043, "offset = 3 is outside the document, which has 2"),
        ({"uri": URI, "version": 1}, -32602, "missing offset"),
        ({"uri": URI, "version": 1, "offset": "0"}, -32602, "invalid offset: a string"),
        ([URI, 1, 0], -32602, "invalid params: an array"),
    ],
)
async def test_a_bad_completion_is_refused_and_the_next_one_served(
    tmp_path: Path, params: object, code: int, said: str
) -> None:
    async with running(tmp_path) as server, server.client() as client:
        await client.open("ab")
        error = await client.error("completion", params)
        assert error.code == code
        assert said in error.message
        assert await client.complete(2) == "2@2"


@pytest.mark.parametrize(
    ("frame", "code", "said"),
    [
        ("{oops", -32700, "invalid JSON"),
        ("[" * 200_000, -32700, "nested too deeply"),
        ("[]", -32600, "batches"),
        ("3", -32600, "expected a JSON object"),
        (b"\x00\xff", -32600, "binary frames"),
        ('{"jsonrpc":"2.0","id":1,"result":{}}', -32600, "this server sends no requests"),
        ('{"jsonrpc":"2.0","id":null,"method":"status"}', -32600, "invalid id"),
    ],
)
async def test_a_frame_that_is_no_message_is_answered_and_serving_goes_on(
    tmp_path: Path, frame: str | bytes, code: int, said: str
) -> None:
    async with running(tmp_path) as server, server.client() as client:
        await client.websocket.send(frame)
        error = await client.unasked.get()
        assert (error.id, error.code) == (None, code)
        assert said in error.message
        await client.open("ab")
        assert await client.complete() == "2@0"


async def test_unknown_methods_are_answered(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.client() as client:
        error = await client.error("textDocument/hover", {})
        assert error.code == -32601
        await client.notify("textDocument/didOpen", {})
        refused = await client.next("notification/error")
        assert (refused["method"], refused["code"]) == ("textDocument/didOpen", -32601)


async def test_an_id_in_use_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.websocket() as websocket:
        hello = messages.HelloParams(messages.PROTOCOL_VERSION, "t")
        await websocket.send(jsonrpc.encode_request(1, messages.HELLO, hello))
        opened = messages.DocumentOpenParams(WORKSPACE, URI, "python", 1, "ab")
        await websocket.send(jsonrpc.encode_notification(messages.DOCUMENT_OPEN, opened))
        server.engine.gate.clear()
        request = jsonrpc.encode_request(7, messages.COMPLETION, messages.CompletionParams(URI, 1, 0))
        await websocket.send(request)
        await websocket.send(request)
        while not isinstance(message := jsonrpc.decode_message(str(await websocket.recv())), ErrorResponse):
            pass
        assert "is already used by a pending request" in message.message


async def test_a_five_megabyte_document_is_served(tmp_path: Path) -> None:
    text = "def f(x):\n    return x + 1  # é\n" * 160_000
    assert len(text.encode()) > 5_000_000
    async with running(tmp_path) as server, server.client() as client:
        await client.open(text)
        assert await client.complete(len(text)) == f"{len(text)}@{len(text)}"


async def test_a_document_over_the_limit_is_refused_and_serving_goes_on(tmp_path: Path) -> None:
    config = ServerConfig(idle_timeout_s=None, max_document_bytes=2_000)
    async with running(tmp_path, config) as server, server.client() as client:
        await client.open("é" * 1_001)
        refused = await client.next("notification/error")
        assert (refused["code"], refused["uri"]) == (-32044, URI)
        assert "text has 2002 bytes, over the limit of 2000" in str(refused["message"])
        assert (await client.error("completion", {"uri": URI, "version": 1, "offset": 0})).code == -32041
        await client.open("é" * 1_000)
        assert await client.complete() == "1000@0"


async def test_a_change_is_held_to_the_limit_that_hello_announces(tmp_path: Path) -> None:
    config = ServerConfig(idle_timeout_s=None, max_document_bytes=2_000)
    async with running(tmp_path, config) as server, server.client() as client:
        await client.open("é" * 999)
        grown = [{"start": 0, "end": 0, "text": "é"}]
        await client.notify("document/change", {"uri": URI, "version": 2, "changes": grown})
        assert await client.complete(version=2) == "1000@0"
        await client.notify("document/change", {"uri": URI, "version": 3, "changes": grown})
        refused = await client.next("notification/error")
        assert (refused["code"], refused["uri"]) == (-32044, URI)
        assert "2002 bytes, over the limit of 2000" in str(refused["message"])
        await client.open("é" * 1_000)
        assert await client.complete() == "1000@0"


async def test_a_message_over_the_limit_gets_an_error_not_a_closed_socket(tmp_path: Path) -> None:
    config = ServerConfig(idle_timeout_s=None, max_message_bytes=20_000)
    async with running(tmp_path, config) as server, server.client() as client:
        await client.open("x" * 30_000)
        error = await client.unasked.get()
        assert (error.code, error.data["type"]) == (-32051, "LimitError")
        assert "over max_message_bytes = 20000" in error.message
        messages.from_json(messages.Status, await client.result("status"))


async def test_a_message_far_over_the_limit_ends_its_connection_only(tmp_path: Path) -> None:
    config = ServerConfig(idle_timeout_s=None, max_message_bytes=20_000)
    async with running(tmp_path, config) as server, server.client() as other:
        async with server.websocket() as websocket:
            await websocket.send("x" * 100_000)
            with pytest.raises(ConnectionClosed) as caught:
                await websocket.recv()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1009
        messages.from_json(messages.Status, await other.result("status"))


async def test_a_change_that_does_not_fit_closes_the_document(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.client() as client:
        await client.open("ab")
        bad = {"uri": URI, "version": 2, "changes": [{"start": 5, "end": 6, "text": "x"}]}
        await client.notify("document/change", bad)
        refused = await client.next("notification/error")
        assert (refused["method"], refused["code"], refused["uri"]) == ("document/change", -32043, URI)
        assert (await client.error("completion", {"uri": URI, "version": 2, "offset": 0})).code == -32041
        assert len(server.engine.documents) == 0
        await client.open("abc", version=3)
        assert await client.complete(version=3) == "3@0"


async def test_a_change_with_wrong_params_closes_the_document_too(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.client() as client:
        await client.open("ab")
        await client.notify("document/change", {"uri": URI, "version": 2, "changes": [{"start": 0}]})
        assert (await client.next("notification/error"))["code"] == -32602
        assert len(server.engine.documents) == 0


async def test_two_windows_with_one_uri_do_not_see_each_other(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.client() as one:
        await one.open("1")
        async with server.client() as two:
            await two.open("22", version=5)
            assert await one.complete() == "1@0"
            assert await two.complete(version=5) == "2@0"
            change = {"uri": URI, "version": 6, "changes": [{"start": 0, "end": 2, "text": "333"}]}
            await two.notify("document/change", change)
            assert await two.complete(version=6) == "3@0"
            assert await one.complete() == "1@0"
        assert await one.complete() == "1@0"
        assert len(server.engine.documents) == 1
        assert server.engine.documents.get(DocumentKey(1, URI)).text == "1"


async def test_closing_the_first_window_leaves_the_second_its_document(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.client() as two:
        async with server.client() as one:
            await one.open("1")
            assert await one.complete() == "1@0"
            await two.open("22")
            assert await two.complete() == "2@0"
        await two.notify("document/change", {"uri": URI, "version": 2, "changes": []})
        assert await two.complete(version=2) == "2@0"


async def test_a_lost_connection_closes_its_documents_and_cancels_its_requests(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.client() as other:
        server.engine.gate.clear()
        async with server.client() as client:
            await client.open("ab")
            await client.send_request("completion", {"uri": URI, "version": 1, "offset": 0})
            await client.result("status")  # the server has taken the completion by now
            client.websocket.transport.abort()
        await asyncio.to_thread(server.engine.handles[0].cancelled.wait)
        while len(server.engine.documents):
            await other.result("status")
        server.engine.gate.set()
        stats = await other.result("stats")
        server_stats = stats["server"]
        assert isinstance(server_stats, dict)
        assert server_stats["num_connections"] == 1


async def test_status_is_broadcast_with_progress(tmp_path: Path) -> None:
    def unready(on_status: OnStatus) -> FakeEngine:
        return FakeEngine(on_status, ready=False)

    async with running(tmp_path, make_engine=unready) as server, server.client() as one, server.client() as two:
        await one.open("x")  # waits for the engine, so that it is made when the next line runs
        await one.complete()
        for client in (one, two):
            assert (await client.result("status"))["state"] == "starting"
        server.engine.set_status(Status(EngineState.LOADING, 0.25, "reading weights"))
        for client in (one, two):
            status = await client.next("status")
            assert (status["state"], status["progress"], status["message"]) == ("loading", 0.25, "reading weights")
        server.engine.set_status(Status(EngineState.READY, model="m", device="cpu", dtype="float32"))
        for client in (one, two):
            while (await client.next("status"))["state"] != "ready":
                pass
        async with server.client(hello=False) as late:
            status = (await late.hello())["status"]
            assert isinstance(status, dict)
            assert (status["state"], status["model"]) == ("ready", "m")


async def test_an_engine_that_cannot_be_made_is_a_status_and_an_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(on_status: OnStatus) -> FakeEngine:
        raise ModelError("models/x has no config.json: give --model a folder with a Llama-family checkpoint")

    async with running(tmp_path, make_engine=broken) as server, server.client() as client:
        await client.open("x")
        refused = await client.next("notification/error")
        assert refused["code"] == ModelError.code
        status = await client.result("status")
        assert status["state"] == "error"
        assert "no config.json" in str(status["message"])
        assert server.failed.is_set(), "the process ends"
        assert (await client.error("pool/stats", {"workspace": WORKSPACE})).code == ModelError.code


async def test_an_unexpected_error_is_answered_logged_without_text_and_survived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(request: CompletionParams) -> None:
        raise ValueError("hunter2 is in the document")

    async with running(tmp_path) as server, server.client() as client:
        await client.open("hunter2")
        server.engine.submit = lambda _key, request, _partial, _done: fail(request)  # type: ignore[method-assign, assignment, return-value]
        with caplog.at_level(logging.DEBUG):
            error = await client.error("completion", {"uri": URI, "version": 1, "offset": 0})
        assert error.code == jsonrpc.INTERNAL_ERROR
        assert error.data == {"type": "InternalError"}
        del server.engine.submit
        assert await client.complete() == "7@0"
    logged = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(logged) == 1
    assert logged[0].startswith("request 2 (completion) failed: ValueError at ")
    assert "hunter2" not in caplog.text
    assert "hunter2" not in error.message


async def test_workspace_files_events_and_pool_reach_the_engine(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.client() as client:
        files = [{"path": "a.py", "text": "xxx"}, {"path": "b.py", "text": "yy"}]
        await client.notify("workspace/files", {"workspace": WORKSPACE, "files": files})
        assert await client.result("pool/stats", {"workspace": WORKSPACE}) == {"pool": {"num_tokens": 5}}
        assert await client.result("pool/stats", {"workspace": "file:///other"}) == {"pool": {"num_tokens": 0}}
        await client.notify("workspace/forget", {"workspace": WORKSPACE, "paths": ["a.py", "nope"]})
        assert await client.result("pool/stats", {"workspace": WORKSPACE}) == {"pool": {"num_tokens": 2}}
        assert await client.result("pool/clear", {"workspace": WORKSPACE}) == {}
        assert server.engine.cleared == [WorkspaceKey("", WORKSPACE)]
        event = {"workspace": WORKSPACE, "language_id": "python", "kind": "accepted", "num_chars": 4, "text": "abcd"}
        await client.notify("completion/event", event)
        await client.result("status")
        assert server.engine.events == [
            (WorkspaceKey("", WORKSPACE), messages.from_json(messages.CompletionEventParams, event))
        ]


async def test_names_of_secrets_are_refused_whoever_let_them_through(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.client() as client:
        await client.open("KEY=hunter2", uri="file:///ws/config/.env")
        refused = await client.next("notification/error")
        assert (refused["code"], refused["uri"]) == (-32070, "file:///ws/config/.env")
        assert "secrets list" in str(refused["message"])
        await client.open("KEY=hunter2", uri="file:///elsewhere/%2Eenv")
        assert (await client.next("notification/error"))["code"] == -32070
        files = [{"path": "deploy/id_rsa", "text": "hunter2"}, {"path": "a.py", "text": "ok"}]
        await client.notify("workspace/files", {"workspace": WORKSPACE, "files": files})
        refused = await client.next("notification/error")
        assert "skipped 1 of 2 files: their names match the secrets list" in str(refused["message"])
        assert server.engine.files == {(WorkspaceKey("", WORKSPACE), "a.py"): "ok"}
        assert len(server.engine.documents) == 0


async def test_a_workspace_inside_a_folder_named_like_a_secret_is_served(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.client() as client:
        await client.open("ab", workspace="file:///home/ada/secrets/app", uri="file:///home/ada/secrets/app/main.py")
        assert await client.complete(uri="file:///home/ada/secrets/app/main.py") == "2@0"


async def test_stats_count_and_hold_no_text(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.client() as client:
        await client.open("hunter2 = 1")
        await client.complete()
        server.engine.answer = lambda _request, _text: CompletionResult((), FinishReason.EMPTY_PROMPT)
        await client.result("completion", {"uri": URI, "version": 1, "offset": 0})
        await client.error("completion", {"uri": URI, "version": 1, "offset": 99})
        result = await client.result("stats")
        server_stats = result["server"]
        assert isinstance(server_stats, dict)
        assert server_stats["completions_by_outcome"] == {"suggested": 1, "empty": 1}
        assert server_stats["errors_by_code"] == {"-32043": 1}
        assert server_stats["messages_by_method"]["completion"] == 3
        assert server_stats["completion_latency"]["count"] == 2
        assert result["engine"] == {"num_requests": 2}
        assert "hunter2" not in json.dumps(result)


async def test_requests_over_the_queue_limit_are_refused(tmp_path: Path) -> None:
    config = ServerConfig(idle_timeout_s=None, max_pending_requests=2)
    async with running(tmp_path, config) as server, server.client() as client:
        await client.open("ab")
        server.engine.gate.clear()
        waiting = [
            (await client.send_request("completion", {"uri": URI, "version": 1, "offset": 0}))[1] for _ in range(2)
        ]
        error = await client.error("completion", {"uri": URI, "version": 1, "offset": 0})
        assert error.code == -32051
        server.engine.gate.set()
        await asyncio.gather(*waiting)
        assert await client.complete() == "2@0"


async def test_documents_over_the_limit_are_refused_until_one_is_closed(tmp_path: Path) -> None:
    config = ServerConfig(idle_timeout_s=None, max_documents=1)
    async with running(tmp_path, config) as server, server.client() as client:
        await client.open("1")
        await client.open("22", uri="file:///b")
        assert (await client.next("notification/error"))["code"] == -32051
        assert await client.complete() == "1@0"
        await client.notify("document/close", {"uri": URI})
        await client.open("22", uri="file:///b")
        assert await client.complete(uri="file:///b") == "2@0"


async def test_a_cursor_reaches_the_engine_and_a_document_must_be_open(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.client() as client:
        await client.open("abc")
        await client.notify("document/cursor", {"uri": URI, "version": 1, "offset": 2})
        assert await client.complete() == "3@0"
        assert [(version, offset) for _, version, offset in server.engine.cursors] == [(1, 2)]
        await client.notify("document/cursor", {"uri": "file:///other", "version": 1, "offset": 2})
        refused = await client.next("notification/error")
        assert (refused["method"], refused["uri"]) == ("document/cursor", "file:///other")


async def test_connections_over_the_limit_are_refused_with_a_reason(tmp_path: Path) -> None:
    config = ServerConfig(idle_timeout_s=None, max_connections=1)
    async with running(tmp_path, config) as server:
        async with server.client() as client:
            await client.open("in use")
            assert await client.complete() == "6@0"
            with pytest.raises(InvalidStatus) as caught:
                async with server.websocket():
                    pass
            assert caught.value.response.status_code == 503
            assert b"connection limit reached" in caught.value.response.body
            assert await client.complete() == "6@0"
        await eventually_admitted(server)


async def test_the_oldest_idle_connection_makes_room(tmp_path: Path) -> None:
    config = ServerConfig(idle_timeout_s=None, max_connections=3)
    async with running(tmp_path, config) as server, server.client() as busy:
        await busy.open("in use")
        assert await busy.complete() == "6@0"
        async with server.client() as oldest, server.client() as newer:
            async with server.client() as newest:
                await oldest.websocket.wait_closed()
                assert (oldest.websocket.close_code, oldest.websocket.close_reason) == (
                    1013, "connection limit reached; this one was idle for longest"
                )  # fmt: skip
                for client in (busy, newer, newest):
                    assert (await client.result("status"))["state"] == "ready"
            await eventually_admitted(server)


async def test_a_connection_with_documents_is_idle_after_a_while_and_never_while_it_is_answered(tmp_path: Path) -> None:
    config = ServerConfig(idle_timeout_s=None, max_connections=1, idle_connection_s=0.0)
    async with running(tmp_path, config) as server, server.client() as first:
        await first.open("in use")
        server.engine.gate.clear()
        _, pending = await first.send_request("completion", {"uri": URI, "version": 1, "offset": 0})
        assert server.engine.gate.is_set() is False
        await first.result("status")
        with pytest.raises(InvalidStatus):
            async with server.websocket():
                pass
        server.engine.gate.set()
        await pending
        async with server.client():
            await first.websocket.wait_closed()
            assert first.websocket.close_code == 1013


async def eventually_admitted(server: Running) -> None:
    """The server learns of a closed connection a moment after the client has closed it."""
    while True:
        try:
            async with server.client():
                return
        except InvalidStatus:
            await asyncio.sleep(0)


async def test_a_client_that_does_not_read_is_disconnected_and_the_others_served(tmp_path: Path) -> None:
    def flood(request: CompletionParams, text: str) -> CompletionResult:
        result = suggest_length(request, text)
        return dataclasses.replace(result, next_line="x" * 2_000_000)

    async with running(tmp_path) as server, server.client() as other:
        server.engine.answer = flood
        async with server.websocket() as websocket:
            websocket.transport.pause_reading()
            hello = messages.HelloParams(messages.PROTOCOL_VERSION, "t")
            await websocket.send(jsonrpc.encode_request(0, messages.HELLO, hello))
            opened = messages.DocumentOpenParams(WORKSPACE, URI, "python", 1, "ab")
            await websocket.send(jsonrpc.encode_notification(messages.DOCUMENT_OPEN, opened))
            for number in range(1, 60):
                params = messages.CompletionParams(URI, 1, 0)
                await websocket.send(jsonrpc.encode_request(number, messages.COMPLETION, params))
            while True:
                stats = (await other.result("stats"))["server"]
                assert isinstance(stats, dict)
                if stats["num_connections"] == 1:
                    break
            websocket.transport.abort()


async def test_shutdown_is_answered_before_the_process_is_told(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.client() as client:
        assert await client.result("shutdown") == {}
        await server.shutdown.wait()


async def test_idle_is_noticed_after_the_last_connection(tmp_path: Path) -> None:
    async with running(tmp_path, ServerConfig(idle_timeout_s=0.1)) as server:
        async with server.client() as client:
            await client.result("status")
            server.idle.clear()  # it was, if the client has taken longer to come
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(server.idle.wait(), 0.5)
        await server.idle.wait()


async def test_closing_the_server_closes_the_engine(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.client() as client:
        await client.open("ab")
        await client.complete()
        engine = server.engine
    assert engine.closed


async def test_an_engine_that_does_not_end_does_not_hold_up_the_server(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    let_go = threading.Event()

    class Stuck(FakeEngine):
        def close(self) -> None:
            let_go.wait()
            super().close()

    config = ServerConfig(idle_timeout_s=None, close_timeout_s=0.1)
    async with running(tmp_path, config, make_engine=Stuck) as server:
        await server.made.wait()
    assert "the engine did not close within 0.1 s" in caplog.text
    assert not server.engine.closed
    let_go.set()


async def test_health_and_statistics_answer_over_http(tmp_path: Path) -> None:
    def get(url: str) -> dict[str, object]:
        with urllib.request.urlopen(url) as response:
            read: dict[str, object] = json.load(response)
            return read

    async with running(tmp_path, tcp=True) as server, server.client() as client:
        await client.open("ab")
        await client.complete()
        assert isinstance(server.address, tuple)
        base = f"http://127.0.0.1:{server.address[1]}"
        assert (await asyncio.to_thread(get, f"{base}/health"))["state"] == "ready"
        metrics = await asyncio.to_thread(get, f"{base}/stats")
        assert metrics["engine"] == {"num_requests": 1}
