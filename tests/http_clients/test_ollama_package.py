"""Ollama's own package as a client of `/api/generate` and `/api/tags`."""

from __future__ import annotations

from typing import Any

import ollama
import pytest

from tests.http_clients.documents import PREFIX, STARTER_PROMPT, SUFFIX
from tests.http_clients.serving import HttpServer

MODEL = "any-name"


@pytest.fixture
def client(server: HttpServer) -> ollama.Client:
    return ollama.Client(server.url, headers={"Authorization": f"Bearer {server.key}"})


def ask(client: ollama.Client, **fields: Any) -> ollama.GenerateResponse:
    options = {"num_predict": 24, "temperature": 0.0, **fields.pop("options", {})}
    asked: dict[str, Any] = {"model": MODEL, "prompt": PREFIX, "suffix": SUFFIX, "options": options, **fields}
    return client.generate(**asked)


def test_infills_between_prompt_and_suffix(client: ollama.Client) -> None:
    answer = ask(client)
    assert answer.response.strip()
    assert answer.done is True
    assert answer.done_reason in ("stop", "length")
    assert answer.created_at is not None
    assert answer.eval_count is not None
    assert 0 < answer.eval_count <= 24
    assert answer.total_duration is not None
    assert answer.prompt_eval_count is not None


def test_a_stream_is_the_answer_in_parts(client: ollama.Client) -> None:
    parts = list(client.generate(MODEL, PREFIX, suffix=SUFFIX, stream=True, options={"num_predict": 24}))
    assert len(parts) > 1
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert "".join(part.response for part in parts) == ask(client).response


def test_it_streams_unless_told_otherwise(server: HttpServer) -> None:
    """The protocol's default, which the package overrides."""
    body = {"model": MODEL, "prompt": PREFIX, "suffix": SUFFIX, "options": {"num_predict": 8}}
    answer = server.post("/api/generate", body)
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert len(answer.text.splitlines()) > 1


def test_a_formatted_prompt_is_the_same_question(client: ollama.Client) -> None:
    assert ask(client, prompt=STARTER_PROMPT, suffix=None, raw=True).response == ask(client).response


def test_options_are_honored(client: ollama.Client) -> None:
    text = ask(client, options={"num_predict": 40}).response
    stop = text.strip()[3]
    assert ask(client, options={"num_predict": 40, "stop": [stop]}).response == text[: text.index(stop)]
    assert ask(client, options={"num_predict": 3}).eval_count == 3
    sampled = [ask(client, options={"temperature": 1.0, "seed": seed}).response for seed in (1, 1, 2)]
    assert sampled[0] == sampled[1]
    assert sampled[0] != sampled[2]


@pytest.mark.parametrize("keep_alive", [0, -1, 300, "5m", "-1"])
def test_how_long_a_model_stays_is_the_servers_affair(client: ollama.Client, keep_alive: float | str) -> None:
    assert ask(client, keep_alive=keep_alive, options={"num_predict": 4}).done


def test_the_model_is_listed_and_described(client: ollama.Client) -> None:
    (model,) = client.list().models
    assert model.model is not None
    description = client.show(model.model)
    assert description.template is not None
    assert ".Suffix" in description.template
    assert description.capabilities is not None
    assert {"completion", "insert"} <= set(description.capabilities)
    assert ask(client, model=model.model, options={"num_predict": 2}).model == model.model


def test_errors_have_a_status_and_a_message(server: HttpServer, client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        client.generate(MODEL, PREFIX, options={"num_predict": "many"})  # type: ignore[arg-type]
    assert caught.value.status_code == 400
    assert "num_predict" in caught.value.error
    stranger = ollama.Client(server.url, headers={"Authorization": "Bearer " + "x" * 64})
    with pytest.raises(ollama.ResponseError) as caught:
        ask(stranger)
    assert caught.value.status_code == 401
    with pytest.raises(ollama.ResponseError) as caught:
        client.chat(MODEL, [{"role": "user", "content": "hello"}])
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError) as caught:
        list(client.pull("llama3", stream=True))
    assert caught.value.status_code == 404


async def test_the_asynchronous_client_streams_too(server: HttpServer, client: ollama.Client) -> None:
    asynchronous = ollama.AsyncClient(server.url, headers={"Authorization": f"Bearer {server.key}"})
    parts = await asynchronous.generate(MODEL, PREFIX, suffix=SUFFIX, stream=True, options={"num_predict": 24})
    assert "".join([part.response async for part in parts]) == ask(client).response
