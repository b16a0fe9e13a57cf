"""The HTTP interfaces as clients see them: a real socket, a real engine, a fake model."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from pathlib import Path

import pytest
from forelook.config import ServerConfig
from forelook.errors import ConfigError
from forelook.local.access import AccessPolicy

from tests.completion.engine_rig import TIMEOUT_S, Gate
from tests.completion.fake_model import FakeModel
from tests.server.http.harness import KEY, OTHER_KEY, TARGET, Answer, http_running, parse_answer

INFILL = {"input_prefix": TARGET[:300], "input_suffix": "", "n_predict": 20}
OPENAI = {"prompt": TARGET[:300], "suffix": "", "max_tokens": 20}
OLLAMA = {"model": "any", "prompt": TARGET[:300], "suffix": "\n", "options": {"num_predict": 20}}
GENERATING = {"/infill": INFILL, "/v1/completions": OPENAI, "/api/generate": OLLAMA}


async def test_all_interfaces_give_the_same_text_streamed_or_not(tmp_path: Path) -> None:
    async with http_running(tmp_path) as server:
        expected = TARGET[300:320]
        whole = (await server.ask("/v1/completions", OPENAI)).json
        assert whole["choices"] == [{"index": 0, "text": expected, "logprobs": None, "finish_reason": "length"}]
        assert whole["object"] == "text_completion"
        assert whole["usage"] == {"prompt_tokens": 304, "completion_tokens": 20, "total_tokens": 324}
        streamed = await server.ask("/v1/completions", {**OPENAI, "stream": True})
        assert streamed.headers["content-type"] == "text/event-stream"
        assert streamed.body.endswith(b"data: [DONE]\n\n")
        assert "".join(event["choices"][0]["text"] for event in streamed.events) == expected
        assert [event["choices"][0]["finish_reason"] for event in streamed.events][-1] == "length"
        assert {event["id"] for event in streamed.events} == {streamed.events[0]["id"]}

        whole = (await server.ask("/infill", INFILL)).json
        assert (whole["content"], whole["stop"], whole["stop_type"]) == (expected, True, "limit")
        assert whole["timings"]["predicted_n"] == 20
        streamed = await server.ask("/infill", {**INFILL, "stream": True})
        assert "".join(event["content"] for event in streamed.events) == expected
        assert [event["stop"] for event in streamed.events][-1] is True
        assert not any(event["stop"] for event in streamed.events[:-1])

        streamed = await server.ask("/api/generate", OLLAMA)
        assert streamed.headers["content-type"] == "application/x-ndjson"
        assert "".join(line["response"] for line in streamed.lines) == expected
        assert [line["done"] for line in streamed.lines][-1] is True
        whole = (await server.ask("/api/generate", {**OLLAMA, "stream": False})).json
        assert (whole["response"], whole["done_reason"], whole["eval_count"]) == (expected, "length", 20)


async def test_several_prompts_and_answers_are_numbered(tmp_path: Path) -> None:
    async with http_running(tmp_path) as server:
        body = {"prompt": [f"<PRE><SUF><MID>{TARGET[:300]}", f"<PRE><SUF><MID>{TARGET[:500]}"], "n": 2, "max_tokens": 4}
        answer = (await server.ask("/v1/completions", body)).json
        assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
        assert [choice["text"] for choice in answer["choices"]][::2] == [TARGET[300:304], TARGET[500:504]]
        assert answer["usage"]["prompt_tokens"] == 304 + 504
        streamed = await server.ask("/v1/completions", {**body, "stream": True})
        assert {event["choices"][0]["index"] for event in streamed.events} == {0, 1, 2, 3}
        several = (await server.ask("/infill", {**INFILL, "n_cmpl": 2})).json
        assert [each["index"] for each in several] == [0, 1]
        too_many = await server.ask("/v1/completions", {**body, "n": 16})
        assert too_many.status == 400


async def test_stop_echo_and_usage_are_openais(tmp_path: Path) -> None:
    async with http_running(tmp_path) as server:
        answer = (await server.ask("/v1/completions", {**OPENAI, "max_tokens": 100, "stop": ["\n"]})).json
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert answer["choices"][0]["text"] == TARGET[300 : TARGET.index("\n", 300)]
        prompt = f"<PRE><SUF><MID>{TARGET[:300]}"
        for streams in (False, True):
            body = {"prompt": prompt, "max_tokens": 4, "echo": True, "stream": streams}
            answer = await server.ask("/v1/completions", {**body, "stream_options": {"include_usage": True}})
            events = answer.events if streams else [answer.json]
            assert "".join(each["choices"][0]["text"] for each in events if each["choices"]) == prompt + TARGET[300:304]
            assert events[-1]["usage"]["completion_tokens"] == 4


async def test_response_fields_come_flat_under_their_paths(tmp_path: Path) -> None:
    async with http_running(tmp_path) as server:

        async def fields(*names: str) -> object:
            return (await server.ask("/infill", {**INFILL, "response_fields": list(names)})).json

        assert await fields("content", "timings/predicted_n", "nothing/like/this") == {
            "content": TARGET[300:320],
            "timings/predicted_n": 20,
        }
        assert await fields("") == {}
        assert await fields("generation_settings/n_ctx") == {"generation_settings/n_ctx": 4096}


async def test_warming_answers_and_the_real_request_then_runs_at_most_16_tokens(tmp_path: Path) -> None:
    async with http_running(tmp_path) as server:
        body = {"input_prefix": TARGET[:600], "input_suffix": TARGET[-100:], "prompt": TARGET[600:610]}
        warmed = await server.ask("/infill", {**body, "n_predict": 0, "response_fields": [""]})
        assert (warmed.status, warmed.json) == (200, {})
        real = (await server.ask("/infill", {**body, "prompt": TARGET[600:615], "n_predict": 10})).json
        assert real["content"] == TARGET[615:625]
        assert real["timings"]["prompt_n"] <= 16


async def test_a_client_that_leaves_stops_the_device_within_a_step(tmp_path: Path) -> None:
    for path, body in GENERATING.items():
        for streams in (False, True):
            gate = Gate(at=2)
            model = FakeModel(TARGET * 2, on_forward=gate)
            folder = tmp_path / f"{path.replace('/', '')}{streams}"
            folder.mkdir()
            async with http_running(folder, model=model) as server:
                long = {**body, "stream": streams, "max_tokens": 900, "n_predict": 900, "options": {"num_predict": 900}}
                _, writer = await server.send(path, long)
                assert await asyncio.to_thread(gate.reached.wait, TIMEOUT_S)
                writer.transport.abort()
                deadline_s = time.monotonic() + TIMEOUT_S
                while b'outcome="left"} 1' not in (await server.ask("/metrics")).body:
                    assert time.monotonic() < deadline_s
                num_forwards = len(model.forwards)
                gate.open.set()
                answer = await server.ask("/health")
                assert answer.status == 200
                await asyncio.sleep(0.2)
                assert len(model.forwards) <= num_forwards + 1


async def test_only_holders_of_a_key_are_answered_and_each_api_says_so_in_its_shape(tmp_path: Path) -> None:
    async with http_running(tmp_path) as server:
        for path in ("/health", "/v1/models", "/props", "/api/tags"):
            assert (await server.ask(path, key="w" * 64)).status == 401
        answers = {path: await server.ask(path, body, key="w" * 64) for path, body in GENERATING.items()}
        assert {answer.status for answer in answers.values()} == {401}
        assert answers["/v1/completions"].json["error"]["type"] == "authentication_error"
        assert answers["/infill"].json["error"]["code"] == 401
        assert isinstance(answers["/api/generate"].json["error"], str)
        assert answers["/infill"].headers["www-authenticate"] == "Bearer"
        assert (await server.ask("/health", headers={"Origin": "https://evil.example"})).status == 403
        assert (await server.ask("/health", headers={"Host": "evil.example"})).status == 421
        assert (await server.ask("/health")).status == 200


async def test_a_machine_of_ones_own_needs_no_key(tmp_path: Path) -> None:
    policy = AccessPolicy(hosts=frozenset({"127.0.0.1"}))
    async with http_running(tmp_path, keys=(), policy=policy) as server:
        assert (await server.ask("/infill", INFILL)).status == 200
        assert (await server.ask("/infill", INFILL, headers={"Origin": "https://evil.example"})).status == 403


def test_no_key_and_no_tls_are_for_loopback_only() -> None:
    with pytest.raises(ConfigError, match="http"):
        ServerConfig(http="0.0.0.0:8012")
    pem = Path("x.pem")
    with pytest.raises(ConfigError, match="http_without_key"):
        ServerConfig(http="0.0.0.0:8012", http_without_key=True, tls_certificate=pem, tls_key=pem)
    for wrong in ("8012", "host:", ":8012", "h:99999", "http://h:1"):
        with pytest.raises(ConfigError, match="http"):
            ServerConfig(http=wrong)
    assert ServerConfig(http="[::1]:8012").http_address == ("::1", 8012)
    assert not ServerConfig(http="127.0.0.1:0").http_has_tls
    assert ServerConfig(http="0.0.0.0:1", tls_certificate=pem, tls_key=pem).http_has_tls


async def test_each_listener_serves_its_own_clients(tmp_path: Path) -> None:
    async with http_running(tmp_path) as server:
        assert (await server.ask("/stats")).status == 404
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        answer = await server.ask("/rpc", headers={**upgrade, "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="})
        assert answer.status == 403
        reader, writer = await asyncio.open_unix_connection(str(server.path))
        writer.write(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert parse_answer(await reader.read()).status == 404
        writer.close()


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"null", 400),
        (b'{"prompt": NaN}', 400),
        (b"[" * 100_000, 400),
        (b'{"prompt": "\xff"}', 400),
        (b'{"prompt": "x", "max_tokens": ' + b"9" * 5_000 + b"}", 400),
        (b'{"prompt": "' + b"x" * 3_000_000 + b'"}', 400),
        (b'{"prompt": "' + b"x" * 5_000_000 + b'"}', 413),
    ],
    ids=lambda value: str(value)[:24],
)
async def test_what_is_no_request_is_refused(tmp_path: Path, raw: bytes, status: int) -> None:
    async with http_running(tmp_path) as server:
        answer = await server.ask("/v1/completions", raw=raw)
        assert answer.status == status
        assert answer.json["error"]["message"]
        assert (await server.ask("/v1/completions", OPENAI)).status == 200


async def test_a_body_that_does_not_arrive_is_given_up(tmp_path: Path) -> None:
    config = ServerConfig(idle_timeout_s=None, http_body_timeout_s=0.05)
    async with http_running(tmp_path, config=config) as server:
        answer = await server.ask("/infill", raw=b"{", headers={"Content-Length": "100"})
        assert answer.status == 408


async def test_a_key_that_asks_too_often_is_told_when_to_ask_again(tmp_path: Path) -> None:
    # A rate at which no request is earned while these are answered, on a busy machine either.
    config = ServerConfig(idle_timeout_s=None, http_rate=0.02, http_burst=3)
    async with http_running(tmp_path, config=config, keys=(KEY, OTHER_KEY)) as server:
        answers = [await server.ask("/infill", INFILL) for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 50
        assert (await server.ask("/infill", INFILL, key=OTHER_KEY)).status == 200


async def test_a_key_has_so_many_requests_at_a_time(tmp_path: Path) -> None:
    gate = Gate(at=1)
    config = ServerConfig(idle_timeout_s=None, http_max_pending=3)
    model = FakeModel(TARGET, on_forward=gate)
    async with http_running(tmp_path, config=config, keys=(KEY, OTHER_KEY), model=model) as server:
        waiting = [asyncio.create_task(server.ask("/infill", INFILL)) for _ in range(3)]
        assert await asyncio.to_thread(gate.reached.wait, TIMEOUT_S)
        await asyncio.sleep(0.1)
        refused = await server.ask("/infill", INFILL)
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        other = asyncio.create_task(server.ask("/infill", INFILL, key=OTHER_KEY))
        gate.open.set()
        assert [answer.status for answer in await asyncio.gather(*waiting, other)] == [200] * 4


async def test_the_bodies_of_a_keys_waiting_requests_are_bounded(tmp_path: Path) -> None:
    gate = Gate(at=1)
    config = ServerConfig(idle_timeout_s=None, http_max_waiting_bytes=2_000)
    async with http_running(tmp_path, config=config, model=FakeModel(TARGET, on_forward=gate)) as server:
        body = {"input_prefix": TARGET[:1_200], "n_predict": 3}
        waiting = asyncio.create_task(server.ask("/infill", body))
        assert await asyncio.to_thread(gate.reached.wait, TIMEOUT_S)
        assert (await server.ask("/infill", body)).status == 429
        gate.open.set()
        assert (await waiting).status == 200
        assert (await server.ask("/infill", body)).status == 200


async def test_until_the_model_is_loaded_clients_are_told_to_come_back(tmp_path: Path) -> None:
    loaded = threading.Event()

    class SlowModel(FakeModel):
        def __post_init__(self) -> None:
            super().__post_init__()
            self.name = "slow"

        @property
        def status_line(self) -> str:  # type: ignore[override]
            assert loaded.wait(TIMEOUT_S)
            return ""

        @status_line.setter
        def status_line(self, line: str) -> None:
            pass

    async with http_running(tmp_path, model=SlowModel(TARGET), waits=False) as server:
        answer = await server.ask("/health")
        assert answer.status == 503
        assert answer.json == {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
        for path, body in GENERATING.items():
            refused = await server.ask(path, body)
            assert refused.status == 503
            assert int(refused.headers["retry-after"]) >= 1
        loaded.set()
        for _ in range(500):
            if (await server.ask("/health")).status == 200:
                break
            await asyncio.sleep(0.02)
        assert (await server.ask("/infill", INFILL)).status == 200


async def test_clean_answers_are_asked_for_by_a_field_or_a_header(tmp_path: Path) -> None:
    target = "def f(x):\n    return g(x, 1)\n\n\ndef h():\n    pass\n"
    async with http_running(tmp_path, target=target) as server:
        body = {"prompt": "def f(x):\n    return g(x", "suffix": ")\n\n\ndef h():\n    pass\n", "max_tokens": 40}
        raw = (await server.ask("/v1/completions", body)).json["choices"][0]["text"]
        assert raw.startswith(", 1)\n\n\ndef")
        body["forelook_language"] = "python"
        for streams in (False, True):
            by_field = await server.ask("/v1/completions", {**body, "forelook_clean": True, "stream": streams})
            by_header = await server.ask(
                "/v1/completions", {**body, "stream": streams}, headers={"X-Forelook-Clean": "true"}
            )
            for answer in (by_field, by_header):
                events = answer.events if streams else [answer.json]
                assert "".join(each["choices"][0]["text"] for each in events) == ", 1"


async def test_a_model_without_an_infill_format_says_so(tmp_path: Path) -> None:
    from dataclasses import replace

    from forelook.model.infill_templates import InfillOrder

    model = FakeModel(TARGET)
    model.infill = replace(model.infill, name="plain", order=InfillOrder.PLAIN, template=("{context}", "{prefix}"))
    model.infill_formats = (model.infill,)
    async with http_running(tmp_path, model=model) as server:
        statuses = {path: (await server.ask(path, body)).status for path, body in GENERATING.items()}
        assert statuses == {"/infill": 501, "/v1/completions": 400, "/api/generate": 400}
        assert (await server.ask("/completion", {"prompt": "x", "n_predict": 2})).status == 200


async def test_tokens_and_text_are_each_others_inverse(tmp_path: Path) -> None:
    async with http_running(tmp_path) as server:
        text = "é <PRE>\n🙂"
        tokens = (await server.ask("/tokenize", {"content": text})).json["tokens"]
        assert max(tokens) < 256, "no character becomes a control token"
        assert (await server.ask("/detokenize", {"tokens": tokens})).json["content"] == text
        pieces = (await server.ask("/tokenize", {"content": "ab", "with_pieces": True})).json["tokens"]
        assert pieces == [{"id": 97, "piece": "a"}, {"id": 98, "piece": "b"}]
        generated = await server.ask("/completion", {"prompt": [tokens[0], "x", 97], "n_predict": 1})
        assert generated.status == 200
        assert (await server.ask("/completion", {"prompt": [999_999], "n_predict": 1})).status == 400


async def test_nothing_of_a_request_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "sekrit_" * 5
    async with http_running(tmp_path) as server:

        async def ask(path: str, body: object) -> Answer:
            return await server.ask(path, body)

        for path, body in GENERATING.items():
            await ask(path, {**body, "prompt": secret})  # type: ignore[dict-item]
            answer = await ask(path, {**body, "stop": {secret: 1}, "options": {"stop": {secret: 1}}})  # type: ignore[dict-item]
            assert secret not in answer.body.decode()
        await ask(f"/{secret}", {})
    assert secret not in caplog.text
