"""What Ray Serve adds to a request: the same backend alone and as the only replica of a cluster, in turns.

Usage: python scripts/bench_cluster.py [--model MODEL] [--limit N] [--way NAME:VARIABLE=VALUE,… …]

Every document comes once per way, each time with another comment first and last, so that nothing of it is cached: over
the editor protocol and over HTTP with a new connection per request, alone and through Ray. The engine says how long it
had a request; the rest is what the way costs. Each --way is one more cluster, with variables of Ray's; for Ray's own
way through the proxy: `--way own:RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=`. The last line is one JSON object with
all figures.
"""

from __future__ import annotations

import contextlib
import statistics
from typing import Any

from bench.arguments import benchmark_parser
from bench.cluster_servers import cluster
from bench.http_documents import Place, places
from bench.http_measures import Way, complete, generate, time_ways
from bench.http_servers import Connection, Server, forelook
from bench.models import STARTER
from bench.results import print_result, public_name
from bench.summary import median_interval, rounded_percentile
from bench.tables import print_rows
from forelook.commands.client import connected

BAR_MS = 5.0
ALONE, RAY = "alone", "ray"
PROTOCOLS = ("editor", "http")


def overhead(servers: dict[str, Server], documents: list[Place]) -> dict[str, Any]:
    """Time new requests to each server over each protocol, in turns; milliseconds."""
    with contextlib.ExitStack() as stack:
        ways: dict[str, Way] = {}
        for name, server in servers.items():
            assert server.endpoint is not None
            client = stack.enter_context(connected(server.endpoint))
            client.wait_until_ready(60.0)
            ways[f"editor, {name}"] = lambda place, client=client: complete(client, place)
            connection = stack.enter_context(contextlib.closing(Connection(server)))
            ways[f"http, {name}"] = lambda place, connection=connection: generate(connection, place)
        timed = time_ways(ways, documents)
    whole, rest = timed.whole, timed.rest
    added = {}
    for protocol, name in ((protocol, name) for protocol in PROTOCOLS for name in servers if name != ALONE):
        there, here = rest[f"{protocol}, {name}"], rest[f"{protocol}, {ALONE}"]
        p50_ms = statistics.median(there) - statistics.median(here)
        added[protocol if name == RAY else f"{protocol}, {name}"] = {
            "added_p50_ms": round(p50_ms, 3),
            "paired_ms": median_interval([ray - alone for ray, alone in zip(there, here, strict=True)]),
            "bar_ms": BAR_MS,
            "is_reached": p50_ms <= BAR_MS,
        }
    return {
        "requests": len(documents) - 1,
        "ways": {
            name: {
                "p50_ms": rounded_percentile(whole[name], 50),
                "outside_engine_p50_ms": rounded_percentile(rest[name], 50, 3),
                "outside_engine_p95_ms": rounded_percentile(rest[name], 95, 3),
            }
            for name in ways
        },
        "added": added,
    }


def way(argument: str) -> tuple[str, dict[str, str]]:
    """The name of a way and its variables.

    Raises:
        ValueError: a variable has no value.
    """
    name, _, variables = argument.partition(":")
    pairs = [variable.partition("=") for variable in variables.split(",") if variable]
    if not name or not all(equals for _, equals, _ in pairs):
        raise ValueError(argument)
    return name, {variable: value for variable, _, value in pairs}


def main() -> None:
    parser = benchmark_parser(__doc__, "model")
    parser.add_argument("--limit", type=int, default=60, help="documents (default: %(default)s)")
    parser.add_argument("--way", nargs="+", type=way, default=[], metavar="NAME:VARIABLE=VALUE,…", help="more clusters")
    options = parser.parse_args()
    model = options.model or STARTER
    with contextlib.ExitStack() as stack:
        servers = {ALONE: stack.enter_context(forelook("--model", model))}
        for name, variables in ((RAY, {}), *options.way):
            servers[name] = stack.enter_context(cluster(1, model, variables=variables))
        found = overhead(servers, list(places(options.limit)))
    print_rows({"way": name, **figures} for name, figures in found["ways"].items())
    print_result("cluster", {"model": public_name(model), **found}, options.json)


if __name__ == "__main__":
    main()
