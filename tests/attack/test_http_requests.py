"""Hostile requests against a real server: no internal error, nothing leaked, nothing logged, still serving."""

from __future__ import annotations

import json
import re
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.attack.http_requests import CANARY, Attack, Then, chunked, crafted_attacks, head, random_attacks
from tests.attack.victim import until
from tests.http_clients.documents import PREFIX, SUFFIX
from tests.http_clients.serving import HttpServer, http_server

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
NUM_RANDOM = 1_000
SEED = 20
PATIENCE_S = 60.0
ALLOWED = {200, 204, 400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 417, 421, 422, 426, 429, 431, 501, 505}
GROWTH_MIB = 150.0
REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came back: all bytes, and the status of each answer among them."""

    attack: Attack
    data: bytes

    @property
    def statuses(self) -> list[int]:
        # "100 Continue" is no answer: one follows.
        return [int(found) for found in re.findall(rb"(?:\A|[\r\n}])HTTP/1\.[01] ([2-9]\d{2})", self.data)]


def strike(address: tuple[str, int], attack: Attack) -> Outcome:
    """Send the bytes on a connection of their own and see what follows."""
    received = b""
    with socket.create_connection(address, timeout=PATIENCE_S) as connection:
        try:
            connection.sendall(attack.data)
            if attack.then is Then.STOP_SENDING:
                connection.shutdown(socket.SHUT_WR)
            elif attack.then is Then.RESET:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif attack.then is Then.READ_A_LITTLE:
                received = connection.recv(64)
            if attack.then in (Then.READ, Then.STOP_SENDING):
                while part := connection.recv(65_536):
                    received += part
        except (ConnectionError, BrokenPipeError):
            pass  # the server closed first, which is its right
    return Outcome(attack, received)


def battery(keys: tuple[str, ...], num_random: int) -> Iterator[Attack]:
    yield from crafted_attacks(keys[0])
    yield from random_attacks(SEED, num_random, keys)


def question(server: HttpServer, key: str) -> str:
    """The answer to a harmless request."""
    body = {"prompt": PREFIX, "suffix": SUFFIX, "max_tokens": 8}
    answer: list[str] = []

    def asked() -> bool:
        got = server.post("/v1/completions", body, key=key)
        if got.status == 200:
            answer.append(got.json()["choices"][0]["text"])
        else:
            assert got.status == 429, got.text
        return bool(answer)

    assert until(asked, PATIENCE_S, every_s=0.5)
    return answer[0]


def fill_caches(server: HttpServer, key: str) -> None:
    """Ask as many different questions as a key has KV caches, so that none is made later."""
    for number in range(10):
        body = {"input_prefix": f"# {number}\n{PREFIX}", "input_suffix": f"{SUFFIX}# {number}\n", "n_predict": 1}
        assert server.post("/infill", body, key=key).status == 200


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServer]:
    """The server that all attacks of this module meet, one after the other."""
    with http_server(tmp_path_factory.mktemp("attacked"), num_keys=6) as one:
        yield one


@pytest.mark.slow
def test_hostile_requests_change_nothing(server: HttpServer) -> None:
    *keys, bystander = server.keys[:4]
    before = question(server, bystander)
    for key in keys:
        fill_caches(server, key)
    size_before = server.victim.paths.log_path.stat().st_size
    usage_before = server.victim.usage()
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda attack: strike(server.address, attack), battery(tuple(keys), NUM_RANDOM)))
    check_answers(outcomes, server)
    assert question(server, bystander) == before
    log = server.victim.log()
    assert CANARY not in log
    assert "Traceback" not in log
    assert " failed: " not in log, "an unforeseen error, which clients see as 503"
    assert not any(key in log for key in server.keys)
    assert len(log) - size_before < 500_000
    assert until(lambda: server.victim.usage().num_descriptors <= usage_before.num_descriptors + 4)
    usage = server.victim.usage()
    assert usage.num_threads <= usage_before.num_threads + 8
    assert usage.rss_mib <= usage_before.rss_mib + GROWTH_MIB


def check_answers(outcomes: Iterable[Outcome], server: HttpServer) -> None:
    secrets = [key.encode() for key in server.keys]
    revealing = [
        b"Traceback",
        b'File "',
        b"site-packages",
        str(server.victim.folder).encode(),
        str(REPOSITORY).encode(),
    ]
    counts: Counter[int] = Counter()
    faults: list[tuple[str, object]] = []
    for outcome in outcomes:
        counts.update(outcome.statuses)
        found: list[object] = [status for status in outcome.statuses if status not in ALLOWED]
        found += [secret for secret in (*secrets, *revealing) if secret in outcome.data]
        found += ["no answer"] if outcome.attack.then is Then.READ and not outcome.statuses else []
        found += [message for message in messages_of(outcome) if not message or CANARY in message]
        faults += [(outcome.attack.name, one) for one in found]
    assert faults == []
    assert counts[200] > 100, counts
    assert counts[400] > 100, counts
    assert counts[429] < sum(counts.values()) / 2, "most requests must reach what they attack"


def messages_of(outcome: Outcome) -> Iterator[str]:
    """The messages of the application's errors: JSON objects in the shape of a dialect."""
    for answer in outcome.data.split(b"HTTP/1.1 ")[1:]:
        top, _, body = answer.partition(b"\r\n\r\n")
        if top[:3] != b"200" and b"application/json" in top.lower() and body:
            error = json.loads(body)["error"]
            yield error if isinstance(error, str) else error["message"]


def unfinished(key: str, kind: int) -> bytes:
    """The beginning of a request that stops in its body, in a chunk, in its head or in its first line."""
    in_chunks = ("Transfer-Encoding: chunked",)
    return (
        head(key, "/infill", 10**6) + b'{"prompt": "',
        head(key, "/infill", None, more=in_chunks) + b"5\r\n[1,2,\r\n",
        head(key, "/infill", 10**6)[:-2],
        b"POST /inf",
    )[kind]


def test_bodies_that_never_end_do_not_stand_in_the_way(server: HttpServer) -> None:
    *keys, bystander = server.keys[:4]
    before, usage_before = question(server, bystander), server.victim.usage()
    endless: list[socket.socket] = []
    try:
        for number in range(200):
            key = keys[number % len(keys)]
            connection = socket.create_connection(server.address, timeout=PATIENCE_S)
            endless.append(connection)
            connection.sendall(unfinished(key, number % 4))
        assert question(server, bystander) == before
        assert until(lambda: server.victim.usage().num_descriptors <= usage_before.num_descriptors + 4, PATIENCE_S)
    finally:
        for connection in endless:
            connection.close()
    assert question(server, bystander) == before


def test_a_body_without_end_is_cut_at_the_limit(server: HttpServer) -> None:
    rss_before = server.victim.usage().rss_mib
    connection = socket.create_connection(server.address, timeout=PATIENCE_S)
    connection.sendall(
        head(server.key, "/infill", None, more=("Transfer-Encoding: chunked",)) + b'10\r\n{"input_prefix":\r\n'
    )
    block = chunked(b'"' + b"x" * 65_535, 65_536, b"")
    sent, refused = 0, False
    while sent < 512 * 2**20 and not refused:
        try:
            connection.sendall(block)
            sent += len(block)
        except OSError:
            refused = True
    assert refused, f"{sent} bytes were read"
    assert server.victim.usage().rss_mib < rss_before + 200
    assert question(server, server.keys[1])


def test_one_key_learns_nothing_of_anothers_prompts(server: HttpServer) -> None:
    """Neither from answers, nor from counts of cached tokens, nor from how much of a prompt is computed."""
    secret = f"class Vault:\n    {CANARY} = 'the combination of {time.monotonic_ns()}'\n"
    body = {"input_prefix": secret * 12, "input_suffix": "\n", "prompt": "    def open(", "n_predict": 8}
    body["input_extra"] = [{"filename": "vault.py", "text": secret * 4}]
    owner, other = server.keys[4:]  # of which no other test knows
    assert server.post("/infill", body, key=owner).status == 200

    def is_cached() -> bool:  # once the size of prompts has followed the speed of a busy machine
        return bool(server.post("/infill", body, key=owner).json()["timings"]["prompt_n"] <= 16)

    assert until(is_cached), "the owner's own prompt is cached"
    others = server.post("/infill", body, key=other).json()
    assert others["timings"]["cache_n"] == 0
    assert others["timings"]["prompt_n"] == others["tokens_evaluated"]
    for path in ("/props", "/metrics", "/slots", "/v1/models", "/health", "/api/tags", "/api/ps"):
        assert CANARY not in server.request("GET", path, key=other).text
    asked = {"prompt": "class Vault:\n    ", "max_tokens": 24, "n": 4, "temperature": 1.0, "seed": 1}
    assert CANARY not in server.post("/v1/completions", asked, key=other).text
    assert CANARY not in server.victim.log()
