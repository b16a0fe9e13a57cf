"""Requests in the shape of each editor client: each finds in the answer what it reads."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.attack.victim import until
from tests.http_clients.readers import READERS
from tests.http_clients.serving import Answer, HttpServer

RECORDINGS = Path(__file__).with_name("recordings")
EXCHANGES = [
    pytest.param(path.stem, exchange, id=f"{path.stem}: {exchange['name']}")
    for path in sorted(RECORDINGS.glob("*.json"))
    for exchange in json.loads(path.read_text(encoding="utf-8"))["exchanges"]
]


def replay(server: HttpServer, exchange: dict[str, Any]) -> Answer:
    headers = {name: value.replace("KEY", server.key) for name, value in exchange["headers"].items()}
    return server.request(exchange["method"], exchange["path"], exchange.get("body"), headers=headers)


def test_every_recording_has_a_reader() -> None:
    assert {path.stem for path in RECORDINGS.glob("*.json")} == set(READERS)


@pytest.mark.parametrize(("client", "exchange"), EXCHANGES)
def test_a_client_finds_what_it_reads(server: HttpServer, client: str, exchange: dict[str, Any]) -> None:
    answer = replay(server, exchange)
    assert answer.status == 200, answer.text
    match exchange["expects"]:
        case "text":
            texts = READERS[client](answer)
            assert len(texts) == exchange["body"].get("n_cmpl", 1)
            assert all(text.strip() for text in texts)
        case "any":
            assert len(READERS[client](answer)) == 1
        case "nothing":
            assert all(text == "" for text in READERS[client](answer))
        case "models":
            models = answer.json()
            assert [model.get("id") or model.get("name") for model in models.get("data", models.get("models"))]
        case "properties":
            assert answer.json()["default_generation_settings"]["n_ctx"] > 0
            assert answer.json()["total_slots"] >= 1
        case "tokens":
            tokens = answer.json()["tokens"]
            assert tokens
            assert all(isinstance(token, int) for token in tokens)
        case "infill":
            assert ".Suffix" in answer.json()["template"], "the client then sends no suffix"
        case unknown:
            raise AssertionError(f"the recording expects {unknown!r}")


def test_warming_makes_the_next_request_cheap(server: HttpServer) -> None:
    """What llama.vim and llama.vscode warm for: the prompt tokens of the request that follows."""
    recording = json.loads((RECORDINGS / "llama_vscode.json").read_text(encoding="utf-8"))
    warming, completion = recording["exchanges"][:2]

    def is_cheap() -> bool:  # once the size of prompts has followed the speed of a busy machine
        unique = f"# {time.monotonic_ns()}\n"  # no earlier request has warmed it
        bodies = [
            {**exchange["body"], "input_prefix": unique + exchange["body"]["input_prefix"]}
            for exchange in (warming, completion)
        ]
        warmed = server.post("/infill", bodies[0]).json()
        assert warmed["timings"]["predicted_n"] == 0
        assert warmed["timings"]["prompt_n"] > 100
        real = server.post("/infill", bodies[1]).json()
        assert real["content"]
        return bool(real["timings"]["prompt_n"] <= 16)

    assert until(is_cheap)
