"""OpenAI's own package as a client of `/v1/completions` and `/v1/models`, and its types as the schema of answers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from openai.types import Completion, Model
from openai.types.completion_choice import CompletionChoice

from tests.http_clients.documents import PREFIX, STARTER_PROMPT, SUFFIX
from tests.http_clients.serving import HttpServer

MODEL = "any-name"


@pytest.fixture
def client(server: HttpServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0)


def ask(client: openai.OpenAI, **fields: Any) -> Completion:
    asked: dict[str, Any] = {"model": MODEL, "prompt": PREFIX, "suffix": SUFFIX, "max_tokens": 24, **fields}
    return client.completions.create(**asked)


def stream(client: openai.OpenAI, **fields: Any) -> list[Completion]:
    asked: dict[str, Any] = {"model": MODEL, "prompt": PREFIX, "suffix": SUFFIX, "max_tokens": 24, **fields}
    return list(client.completions.create(stream=True, **asked))


def joined(chunks: list[Completion], index: int = 0) -> str:
    return "".join(choice.text for chunk in chunks for choice in chunk.choices if choice.index == index)


def test_infills_between_prompt_and_suffix(client: openai.OpenAI) -> None:
    completion = ask(client)
    (choice,) = completion.choices
    assert choice.text.strip()
    assert choice.finish_reason in ("stop", "length")
    assert completion.object == "text_completion"
    usage = completion.usage
    assert usage is not None
    assert usage.prompt_tokens > 100
    assert 0 < usage.completion_tokens <= 24
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_a_stream_is_the_answer_in_parts(client: openai.OpenAI) -> None:
    whole, chunks = ask(client), stream(client)
    assert len(chunks) > 1
    assert joined(chunks) == whole.choices[0].text
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
    assert reasons[-1] == whole.choices[0].finish_reason
    assert not any(reasons[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_tells_its_usage_on_request(client: openai.OpenAI) -> None:
    *_, last = stream(client, stream_options={"include_usage": True})
    assert last.choices == []
    assert last.usage == ask(client).usage


def test_an_answer_has_the_fields_and_types_of_the_specification(server: HttpServer) -> None:
    body = {"model": MODEL, "prompt": PREFIX, "suffix": SUFFIX, "max_tokens": 12}
    data = server.post("/v1/completions", body).json()
    Completion.model_validate(data, strict=True)
    assert set(data) <= set(Completion.model_fields)
    assert set(data["choices"][0]) <= set(CompletionChoice.model_fields)
    answer = server.post("/v1/completions", {**body, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [line for line in answer.text.split("\n") if line]
    assert all(line.startswith("data: ") for line in events)
    assert events.pop() == "data: [DONE]"
    for number, line in enumerate(events, start=1):
        chunk = json.loads(line.removeprefix("data: "))
        for choice in chunk["choices"]:
            if number < len(events):
                assert choice["finish_reason"] is None
                choice["finish_reason"] = "stop"  # the service itself sends null here, which the type does not know
        Completion.model_validate(chunk, strict=True)


def test_the_models_have_the_fields_and_types_of_the_specification(server: HttpServer, client: openai.OpenAI) -> None:
    data = server.request("GET", "/v1/models").json()
    assert data["object"] == "list"
    for model in data["data"]:
        Model.model_validate(model, strict=True)
    (only,) = client.models.list()
    assert client.models.retrieve(only.id).id == only.id
    assert ask(client, model=only.id).model == only.id


def test_several_answers_of_one_seed_can_be_repeated(client: openai.OpenAI) -> None:
    first = ask(client, n=3, temperature=1.0, seed=7)
    again = ask(client, n=3, temperature=1.0, seed=7)
    other = ask(client, n=3, temperature=1.0, seed=8)
    texts, texts_again, texts_of_other = ([choice.text for choice in one.choices] for one in (first, again, other))
    assert [choice.index for choice in first.choices] == [0, 1, 2]
    assert len(set(texts)) > 1
    assert texts == texts_again
    assert texts != texts_of_other


def test_several_answers_stream_side_by_side(client: openai.OpenAI) -> None:
    chunks = stream(client, n=2, temperature=1.0, seed=7)
    whole = ask(client, n=2, temperature=1.0, seed=7)
    assert [joined(chunks, index) for index in range(2)] == [choice.text for choice in whole.choices]


def test_several_prompts_are_answered_in_their_order(client: openai.OpenAI) -> None:
    prompts = [PREFIX, "def add(a, b):\n    return "]
    answers = ask(client, prompt=prompts, suffix=None, max_tokens=8).choices
    alone = [ask(client, prompt=prompt, suffix=None, max_tokens=8).choices[0].text for prompt in prompts]
    assert [choice.text for choice in answers] == alone


def test_a_stop_string_ends_the_text_before_it(client: openai.OpenAI) -> None:
    text = ask(client, max_tokens=40).choices[0].text
    stop = text.strip()[3]
    stopped = ask(client, max_tokens=40, stop=stop).choices[0]
    assert stopped.text == text[: text.index(stop)]
    assert stopped.finish_reason == "stop"
    assert joined(stream(client, max_tokens=40, stop=[stop])) == stopped.text


def test_the_maximum_number_of_tokens_is_a_maximum(client: openai.OpenAI) -> None:
    completion = ask(client, max_tokens=3)
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 3
    assert completion.choices[0].finish_reason == "length"


def test_an_echo_repeats_the_prompt(client: openai.OpenAI) -> None:
    prompt = "def add(a, b):\n    return "
    text = ask(client, prompt=prompt, suffix=None, max_tokens=4).choices[0].text
    assert ask(client, prompt=prompt, suffix=None, max_tokens=4, echo=True).choices[0].text == prompt + text


def test_a_formatted_prompt_is_the_same_question(client: openai.OpenAI) -> None:
    asked, formatted = ask(client), ask(client, prompt=STARTER_PROMPT, suffix=None)
    assert formatted.choices[0].text == asked.choices[0].text
    assert formatted.usage == asked.usage


def test_sentinels_in_a_users_file_stay_text(client: openai.OpenAI) -> None:
    plain, with_sentinels = ask(client), ask(client, prompt=f"# <MID><PRE><SUF>\n{PREFIX}")
    assert plain.usage is not None
    assert with_sentinels.usage is not None
    assert with_sentinels.usage.prompt_tokens - plain.usage.prompt_tokens > 6, "three ids would be four or five tokens"


def test_the_finished_answer_is_on_request(server: HttpServer, client: openai.OpenAI) -> None:
    document = {"prompt": "def first(values):\n    return values[", "suffix": "]\n\n\ndef last(values):\n    pass\n"}
    raw = ask(client, **document, max_tokens=40).choices[0].text
    by_body = ask(client, **document, max_tokens=40, extra_body={"forelook_clean": True}).choices[0].text
    by_header = ask(client, **document, max_tokens=40, extra_headers={"X-Forelook-Clean": "true"}).choices[0].text
    assert by_body == by_header
    assert "]\n" not in by_body
    assert len(by_body) <= len(raw)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"prompt": {"text": "a"}}, "prompt"),
        ({"n": 0}, "n"),
        ({"stop": [1]}, "stop"),
        ({"top_p": 2.5}, "top_p"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_its_field(
    client: openai.OpenAI, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **fields)
    assert caught.value.param is not None
    assert caught.value.param.startswith(param)
    assert caught.value.type == "invalid_request_error"
    assert param in caught.value.message


def test_without_a_key_the_answer_is_an_authentication_error(server: HttpServer) -> None:
    for key in ("no-key-of-mine", "x" * 64, server.key[:-1]):
        stranger = openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)
        with pytest.raises(openai.AuthenticationError) as caught:
            ask(stranger)
        assert isinstance(caught.value.body, dict)
        assert set(caught.value.body) == {"message", "type", "param", "code"}
        assert key not in str(caught.value.body)


def test_what_is_not_served_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hello"}])
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")


def test_a_huge_request_is_too_large(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, prompt="x" * 40_000_000)
    assert caught.value.status_code == 413


async def test_closing_a_stream_frees_the_model(server: HttpServer) -> None:
    """A stream that nobody reads to its end does not delay the next request by its own length."""
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0) as client:
        loop = asyncio.get_running_loop()

        async def timed(max_tokens: int, prompt: str) -> float:
            started_s = loop.time()
            await client.completions.create(model=MODEL, prompt=prompt, max_tokens=max_tokens, temperature=1.0, seed=1)
            return loop.time() - started_s

        text = "def words():\n    return ["
        whole_s = await timed(900, text)
        for _ in range(5):
            endless = await client.completions.create(
                model=MODEL, prompt=text, max_tokens=900, temperature=1.0, seed=1, stream=True
            )
            async for _chunk in endless:
                break
            await endless.close()
        next_s = await timed(4, text)
        assert next_s < 2.5 * whole_s, "five abandoned streams would take five times as long"
