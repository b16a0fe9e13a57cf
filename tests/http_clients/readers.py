"""How each client reads an answer: the fields it needs, and its own way to find the text in the bytes.

A reader fails where the client would show nothing. They are written after the sources that the recordings name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from tests.http_clients.serving import Answer

Reader = Callable[[Answer], list[str]]
"""The texts that a client would show."""

TIMINGS = ("prompt_n", "prompt_ms", "prompt_per_second", "predicted_n", "predicted_ms", "predicted_per_second")


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_count(value: object) -> bool:
    """Whether serde's unsigned integers and Go's int accept it."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32


def llama_vim(answer: Answer) -> list[str]:
    """Looks at the raw text before it decodes it; timings come flat, under their paths."""
    raw = answer.text
    if raw == "{}":  # what `response_fields: [""]` leaves
        return []
    assert re.search(r"^\s*\{", raw), "the client drops what does not begin with a brace"
    assert re.search(r'"content"\s*:"', raw), "the client drops what has a space before the content's quotation mark"
    response = json.loads(raw)
    assert all(is_number(response[f"timings/{name}"]) for name in TIMINGS)
    assert is_number(response["tokens_cached"])
    assert isinstance(response["truncated"], bool)
    return [response["content"]]


def llama_vscode(answer: Answer) -> list[str]:
    """One object, or an array of them for several completions."""
    data = answer.json()
    texts = []
    for response in data if isinstance(data, list) else [data]:
        assert isinstance(response["content"], str)
        assert is_count(response["generation_settings"]["n_ctx"])
        assert is_count(response["tokens_cached"])
        assert isinstance(response["truncated"], bool)
        assert all(is_number(response["timings"][name]) for name in TIMINGS)
        texts.append(response["content"])
    return texts


def zed_openai(answer: Answer) -> list[str]:
    """All fields of its response type are required."""
    response = answer.json()
    assert isinstance(response["id"], str)
    assert response["object"] == "text_completion"
    assert is_count(response["created"])
    assert isinstance(response["model"], str)
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert is_count(response["usage"][name])
    choice = response["choices"][0]
    assert choice["finish_reason"] is None or isinstance(choice["finish_reason"], str)
    return [choice["text"]]


def zed_ollama(answer: Answer) -> list[str]:
    """The time of creation is the identity of the suggestion."""
    response = answer.json()
    assert isinstance(response["created_at"], str)
    return [response["response"]]


def minuet(answer: Answer) -> list[str]:
    """Strips `data:` from every line and joins the texts of those that are JSON."""
    texts = []
    for line in answer.text.split("\n"):
        try:
            texts.append(json.loads(line.removeprefix("data:"))["choices"][0]["text"])
        except (ValueError, KeyError, IndexError):
            continue
    return ["".join(texts)]


def qodeassist_llama_cpp(answer: Answer) -> list[str]:
    """Searches the bytes for the end before it decodes them."""
    assert b'"stop":true' in answer.body or b"data: [DONE]" in answer.body, "the client waits for the end"
    return ["".join(event["content"] for event in server_sent_events(answer) if "content" in event)]


def ollama_lines(answer: Answer) -> list[str]:
    """QodeAssist and Continue: a JSON object per line, the last one done."""
    lines = [json.loads(line) for line in answer.text.splitlines() if line.strip()]
    assert all("error" not in line for line in lines)
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    return ["".join(line["response"] for line in lines)]


def continue_llama_cpp(answer: Answer) -> list[str]:
    return ["".join(event.get("content") or "" for event in server_sent_events(answer))]


def continue_openai(answer: Answer) -> list[str]:
    events = list(server_sent_events(answer))
    return ["".join(event["choices"][0]["text"] or "" for event in events if event["choices"])]


def cursortab(answer: Answer) -> list[str]:
    """Skips what does not begin with `data: `; Go's decoder refuses values of other types than its fields'."""
    text, finish = "", ""
    for event in server_sent_events(answer):
        assert isinstance(event["id"], str)
        assert is_count(event["created"])
        for choice in event["choices"][:1]:
            assert is_count(choice["index"])
            assert choice["finish_reason"] is None or isinstance(choice["finish_reason"], str)
            text += choice["text"]
            finish = choice["finish_reason"] or finish
    assert finish in ("stop", "length"), "the client drops the last line of a text that was cut, and must know"
    assert answer.text.rstrip().endswith("data: [DONE]")
    return [text]


def server_sent_events(answer: Answer) -> Iterator[dict[str, Any]]:
    """The events of a stream, without its end mark."""
    for line in answer.text.splitlines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))


READERS: dict[str, Reader] = {
    "llama_vim": llama_vim,
    "llama_vscode": llama_vscode,
    "zed_openai": zed_openai,
    "zed_ollama": zed_ollama,
    "minuet_suffix": minuet,
    "minuet_template": minuet,
    "qodeassist_llama_cpp": qodeassist_llama_cpp,
    "qodeassist_ollama": ollama_lines,
    "continue_llama_cpp": continue_llama_cpp,
    "continue_openai": continue_openai,
    "continue_ollama": ollama_lines,
    "cursortab": cursortab,
}
