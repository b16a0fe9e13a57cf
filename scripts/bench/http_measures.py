"""What the HTTP interface costs: beside the editor protocol, after a warming, and among several clients."""

from __future__ import annotations

import contextlib
import json
import random
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from forelook.commands.client import BackendClient, connected
from forelook.protocol import messages

from bench.http_documents import NUM_KEYS, Place
from bench.http_servers import Connection, Server, alone
from bench.summary import median_interval, rounded_percentile
from bench.turns import rotated, with_progress

DEADLINE_MS = 20_000
WORKSPACE = "file:///bench"
NUM_TOKENS = 12

Times = dict[str, list[float]]
Way = Callable[[Place], tuple[float, float, int]]
"""Makes one request; returns milliseconds, those the engine had, and tokens."""


@dataclass(frozen=True, slots=True)
class TimedWays:
    """What requests took by each way, in milliseconds.

    Attributes:
        whole: from request to answer.
        rest: of that, what the engine did not have.
        tokens: of the answers.
    """

    whole: Times = field(default_factory=dict)
    rest: Times = field(default_factory=dict)
    tokens: Times = field(default_factory=dict)


def time_ways(ways: Mapping[str, Way], documents: Sequence[Place]) -> TimedWays:
    """Send every document by every way, in turns, each time with another comment first and last."""
    timed = TimedWays()
    for number, place in enumerate(with_progress(documents, "overhead")):
        for name in rotated(list(ways), number):
            elapsed_ms, engine_ms, num_tokens = ways[name](place.unique(f"{number} {name[:14]:>14}"))
            if number > 0:  # the first of each way opens connections and finds caches empty
                timed.whole.setdefault(name, []).append(elapsed_ms)
                timed.rest.setdefault(name, []).append(elapsed_ms - engine_ms)
                timed.tokens.setdefault(name, []).append(num_tokens)
    return timed


def overhead(server: Server, documents: Sequence[Place]) -> dict[str, Any]:
    """Compare new requests over HTTP with those of the editor protocol.

    Every document comes three times, each time with another comment first and last, so that nothing of it is cached:
    over the protocol, over a kept HTTP connection and over a new one, in turns. Over the protocol a request is the
    document's opening and its completion; over HTTP it is `/api/generate` with `forelook_clean`, whose answer says how
    long the engine had it.

    Returns:
        Per way: the median of the whole time, of what the engine had of it and of the rest, in milliseconds; and the
        differences of the medians of the rest.
    """
    assert server.endpoint is not None
    kept, single = Connection(server, keeps=True), Connection(server)
    with connected(server.endpoint) as client:
        client.wait_until_ready(60.0)
        ways: dict[str, Way] = {
            "protocol": lambda place: complete(client, place),
            "http": lambda place: generate(kept, place),
            "http, new connection": lambda place: generate(single, place),
        }
        timed = time_ways(ways, documents)
    kept.close()
    whole, rest, tokens = timed.whole, timed.rest, timed.tokens
    medians = {name: statistics.median(values) for name, values in rest.items()}
    differences = {
        name: median_interval([there - here for there, here in zip(rest[name], rest["protocol"], strict=True)])
        for name in rest
        if name != "protocol"
    }
    return {
        "requests": len(whole["http"]),
        "ways": {
            name: {
                "p50_ms": rounded_percentile(whole[name], 50),
                "outside_engine_p50_ms": round(medians[name], 3),
                "outside_engine_p95_ms": rounded_percentile(rest[name], 95, 3),
                "tokens": round(statistics.fmean(tokens[name]), 1),
            }
            for name in ways
        },
        "overhead_p50_ms": {name: round(medians[name] - medians["protocol"], 3) for name in differences},
        "paired_difference_ms": differences,
    }


def complete(client: BackendClient, place: Place) -> tuple[float, float, int]:
    """A new request of the editor protocol: milliseconds, those the engine had, and tokens."""
    uri = f"{WORKSPACE}/{abs(hash(place))}.py"
    opening = messages.DocumentOpenParams(WORKSPACE, uri, "python", 1, place.text)
    asking = messages.CompletionParams(
        uri, 1, place.offset, max_new_tokens=NUM_TOKENS, deadline_ms=DEADLINE_MS, multi_line=messages.MultiLine.NEVER
    )
    started_s = time.perf_counter()
    client.notify(messages.DOCUMENT_OPEN, opening)
    result = client.call(messages.COMPLETION, asking, DEADLINE_MS / 1e3)
    elapsed_ms = (time.perf_counter() - started_s) * 1e3
    client.notify(messages.DOCUMENT_CLOSE, messages.DocumentCloseParams(uri))
    return elapsed_ms, result.stats.total_ms, result.stats.num_generated_tokens


def generate(connection: Connection, place: Place) -> tuple[float, float, int]:
    """A new request over HTTP, likewise."""
    body = {
        "prompt": place.before + place.line,
        "suffix": f"\n{place.after}",
        "stream": False,
        "options": {"num_predict": NUM_TOKENS, "temperature": 0, "stop": ["\n"]},
        "forelook_clean": True,
        "forelook_language": "python",
    }
    answer, elapsed_ms = connection.post("/api/generate", body)
    return elapsed_ms, answer["total_duration"] / 1e6, answer["eval_count"]


def warming(server: Server, documents: Sequence[Place]) -> dict[str, Any]:
    """Warm each document with `n_predict: 0`, then ask for it: at the same cursor, and one character later.

    Returns:
        Prompt tokens that the warming, the request and the later request computed: medians and the maximum.
    """
    connection = Connection(server)
    counts: dict[str, list[int]] = {"warming": [], "same cursor": [], "one character later": []}
    for number, place in enumerate(with_progress(documents, "warming")):
        for name, later in (("same cursor", 0), ("one character later", 1)):
            unique = place.unique(f"warming {number} {name}")
            warmed, _ = connection.post("/infill", unique.infill(0))
            asked, _ = connection.post("/infill", unique.after_key(later).infill(4))
            counts["warming"].append(warmed["timings"]["prompt_n"])
            counts[name].append(asked["timings"]["prompt_n"])
    return {
        name: {"p50": rounded_percentile(values, 50), "max": max(values), "num": len(values)}
        for name, values in counts.items()
    }


@dataclass
class Crowd:
    """Latencies of the clients that keep a person's pace, and what became of the flood's requests."""

    latencies_ms: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    flood: dict[int, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


def fairness(
    server: Server,
    documents: Sequence[Place],
    *,
    num_connections: int = 32,
    rounds: int = 3,
    seconds: float = 8.0,
    interval_s: float = 4.0,
) -> dict[str, Any]:
    """Measure clients of some keys alone and next to one that floods, in turns.

    Each key has its share of the connections. Those of the first key send long requests, each as soon as the last is
    answered; those of the others type: a request per ``interval_s`` and connection on average, each one character
    longer than the last.

    Returns:
        The others' latencies alone and next to the flood, their ratio, and the statuses of both.
    """
    flooding, *calm = server.keys
    share = num_connections // len(server.keys)
    crowds = {"alone": Crowd(), "beside": Crowd()}
    for number in range(-1, rounds):
        for name in rotated(list(crowds), number + 1):
            crowd = crowds[name] if number >= 0 else Crowd()  # the first round warms up
            threads = [
                threading.Thread(
                    target=_type,
                    args=(server, key, crowd, documents, (number + 1) * 1000 + place, seconds, interval_s),
                )
                for place, key in enumerate(key for key in calm for _ in range(share))
            ]
            if name == "beside":
                threads += [
                    threading.Thread(
                        target=_flood, args=(server, flooding, crowd, documents, number * 100 + place, seconds)
                    )
                    for place in range(share)
                ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    p95 = {name: rounded_percentile(crowd.latencies_ms, 95) for name, crowd in crowds.items()}
    assert p95["alone"] is not None
    assert p95["beside"] is not None
    return {
        "connections": num_connections,
        "keys": len(server.keys),
        "others": {
            name: {
                "requests": len(crowd.latencies_ms),
                "p50_ms": rounded_percentile(crowd.latencies_ms, 50),
                "p95_ms": p95[name],
                "statuses": json.dumps(crowd.statuses),
            }
            for name, crowd in crowds.items()
        },
        "flood": crowds["beside"].flood,
        "p95_ratio": round(p95["beside"] / p95["alone"], 2),
    }


def _type(
    server: Server, key: str, crowd: Crowd, documents: Sequence[Place], seed: int, seconds: float, interval_s: float
) -> None:
    chance = random.Random(seed)
    place = documents[seed % len(documents)].unique(f"typing {seed % 1000}")
    connection, ends_s = Connection(server, key), time.monotonic() + seconds
    number = 0
    while True:
        pause_s = chance.expovariate(1 / interval_s)
        if time.monotonic() + pause_s > ends_s:
            break
        time.sleep(pause_s)
        started_s = time.perf_counter()
        status, _, _ = connection.send("POST", "/infill", place.after_key(number % NUM_KEYS).infill(NUM_TOKENS))
        elapsed_ms = (time.perf_counter() - started_s) * 1e3
        number += 1
        with crowd.lock:
            crowd.statuses[status] = crowd.statuses.get(status, 0) + 1
            if status == 200:
                crowd.latencies_ms.append(elapsed_ms)


def _flood(server: Server, key: str, crowd: Crowd, documents: Sequence[Place], seed: int, seconds: float) -> None:
    connection, ends_s = Connection(server, key), time.monotonic() + seconds
    number = 0
    while time.monotonic() < ends_s:
        place = documents[(seed + number) % len(documents)].unique(f"flood {seed} {number}")
        number += 1
        status, headers, _ = connection.send("POST", "/infill", place.infill(64))
        with crowd.lock:
            crowd.flood[status] = crowd.flood.get(status, 0) + 1
        if status == 429:
            with contextlib.suppress(ValueError):  # it obeys only as far as it has time
                time.sleep(min(float(headers.get("retry-after", "0")), 0.2))


def replay(servers: Mapping[str, Server], documents: Sequence[Place]) -> dict[str, Any]:
    """Send llama.vim's requests to several servers, which take turns by document: a warming, then one per key.

    The others' processes halt meanwhile. The first document of each finds its caches empty and does not count.

    Returns:
        Per server: latencies and generated tokens of the requests, and the ratios of the others' latencies to the
        first one's; and the share of the answers that are those of the last.
    """
    connections = {name: Connection(server) for name, server in servers.items()}
    latencies: Times = {name: [] for name in servers}
    tokens: dict[str, list[int]] = {name: [] for name in servers}
    contents: dict[str, list[str]] = {name: [] for name in servers}
    for number, place in enumerate(with_progress(documents, "replay")):
        for name in rotated(list(servers), number):
            with alone(servers[name], servers.values()):
                connections[name].post("/infill", place.llama_vim(warms=True))
                for key in range(NUM_KEYS):
                    answer, elapsed_ms = connections[name].post("/infill", place.after_key(key).llama_vim())
                    if number > 0:
                        latencies[name].append(elapsed_ms)
                        tokens[name].append(answer["timings/predicted_n"])
                        contents[name].append(answer["content"])
    report = {
        name: {
            "requests": len(values),
            "p50_ms": rounded_percentile(values, 50),
            "p95_ms": rounded_percentile(values, 95),
            "tokens": round(statistics.fmean(tokens[name]), 2),
            "ms_per_token": round(sum(values) / max(1, sum(tokens[name])), 3),
        }
        for name, values in latencies.items()
    }
    first, *others = servers
    last = list(servers)[-1]
    ratios = {
        name: {
            measure: round(report[name][measure] / report[first][measure], 2)
            for measure in ("p50_ms", "p95_ms", "ms_per_token")
        }
        for name in others
    }
    same = {name: round(statistics.fmean(map(str.__eq__, contents[name], contents[last])), 3) for name in servers}
    return {"servers": report, "ratios": ratios, "same_answers_as_last": same}
