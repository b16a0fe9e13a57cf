"""N people typing against one server or cluster: how long a key waits for its answer, and how large a cluster must be.

Usage: python scripts/bench_load.py [--typists N ...] [--seconds S] [--address URL --key-file FILE]
       python scripts/bench_load.py --size 1 10 100 1000 [--service-ms 5 20 50]

Every typist types six lines of this repository's files one after the other, five to eight keys per second with pauses
to think, and never waits. A key that goes on with the visible suggestion asks nothing; any other one asks, and ends
the typist's request before it. Without --address a server with one key per typist is started here.

Figures per number of typists:
  p50, p95       from the key to its answer, of requests that were not superseded
  in time        share of the requests that were answered before the next key
  forwards       passes of the model per suggestion; of a server started here, those of canceled requests too
  fairness       Jain's index of the typists' mean waits (1 is equal), and the worst typist's p95 to the median one's
  own replica    share of the answers that came from the replica which answers this workspace most
  client lag     how late this program pressed the keys: if it is large, the figures are this program's

--size sizes a cluster: a queue per replica replays the recording of typists who wait for each answer, so that all
costs are seen. It is made after the runs, of one typist after the other, each alone: files differ in how often they
ask and in what that costs, and a server that has just started costs more. The result is the smallest cluster that
keeps --keep of the answers in time which such a typist has alone.
The runs check the simulation; --service-ms scales the costs to other devices, by the median time that a request has
the device. The last line is one JSON object.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.arguments import benchmark_parser
from bench.http_servers import forelook
from bench.load import Typed, device_shares, summary, type_together
from bench.load_clients import Address
from bench.load_simulation import Recording, alone_in_time_share, replicas_needed, simulated
from bench.results import print_result, public_name
from bench.tables import print_rows
from forelook.commands.client import connected
from forelook.local.endpoint import Endpoint
from forelook.local.user_keys import issue_key
from forelook.protocol import messages

TABLE = ("typists", "p50_ms", "p95_ms", "in_time_share", "service_p50_ms", "queue_p95_ms", "forwards_per_suggestion",
         "all_forwards_per_suggestion", "busy_share", "client_lag_p95_ms")  # fmt: skip
CHECKED = ("p50_ms", "p95_ms", "in_time_share", "busy_share")
WARMUP_S = 5.0
MAX_RECORDED = 8  # typists; chosen, not measured


@contextlib.contextmanager
def own_server(num_keys: int, protocol: str, model: str | None) -> Iterator[tuple[Address, Endpoint]]:
    """Start a server with as many keys, and yield its address and where its owner asks for figures."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "keys.json"
        keys = tuple(issue_key(path, f"typist-{number}") for number in range(num_keys))
        arguments = ("--port", "0", "--keys", str(path), "--max-connections", str(num_keys + 16))
        with forelook(*arguments, *(("--model", model) if model else ())) as server:
            assert server.endpoint is not None
            is_http = protocol == "http"
            url = f"http://{server.host}:{server.port}" if is_http else server.endpoint.url
            yield Address(url, keys), server.endpoint


def engine_stats(owner: Endpoint | None) -> Mapping[str, Any] | None:
    """The engine's statistics of all users; ``None`` where they cannot be asked for."""
    if owner is None:
        return None
    with connected(owner) as client:
        return client.call(messages.STATS, messages.Empty(), 30.0).engine


def run(
    address: Address, owner: Endpoint | None, num_typists: int, seconds: float, *, reconnects: bool
) -> dict[str, Any]:
    """The figures of one run."""
    before = engine_stats(owner)
    typed = asyncio.run(type_together(address, num_typists, seconds, warmup_s=WARMUP_S, reconnects=reconnects))
    after = engine_stats(owner)
    figures = summary(typed)
    if before is not None and after is not None:
        figures |= device_shares(before, after, seconds + WARMUP_S)
    return figures


def recorded(address: Address, num_typists: int, seconds: float) -> Recording:
    """What typists do who have the server for themselves, one after the other."""
    typed: list[Typed] = []
    for number in range(num_typists):
        typed += asyncio.run(type_together(address, 1, seconds, warmup_s=WARMUP_S, waits=True, first=number))
    return Recording.of(typed)


def sizes(
    recording: Recording, typists: Sequence[int], service_ms: Sequence[float], keep: float
) -> list[dict[str, Any]]:
    """The smallest clusters for numbers of typists, by the median time of a request on the device."""
    rows = []
    for median_ms in service_ms or [recording.service_p50_ms]:
        scaled = recording.faster(recording.service_p50_ms / median_ms)
        alone = round(alone_in_time_share(scaled), 4)
        for num_typists in typists:
            found = replicas_needed(scaled, num_typists, in_time_share=keep * alone)
            row = {"service_p50_ms": round(median_ms, 1), "typists": num_typists, "alone_in_time_share": alone}
            rows.append(row | ({"replicas": None} if found is None else found))
    return rows


def main() -> None:
    parser = benchmark_parser(__doc__, "model")
    parser.add_argument("--typists", type=int, nargs="+", default=[1, 2, 4, 8], help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=40.0, help="of each run (default: %(default)s)")
    parser.add_argument(
        "--record", type=float, default=15.0, help="seconds that each typist is recorded (default: %(default)s)"
    )
    parser.add_argument("--protocol", choices=("editor", "http"), default="editor", help="of a server started here")
    parser.add_argument("--address", help="ws://, wss://, http:// or https:// of a running server or cluster")
    parser.add_argument("--key-file", type=Path, metavar="FILE", help="keys for --address, one per line and user")
    parser.add_argument("--reconnect", action="store_true", help="a new connection per file, to see where it leads")
    parser.add_argument("--size", type=int, nargs="*", default=[], metavar="N", help="typists to size a cluster for")
    parser.add_argument("--service-ms", type=float, nargs="*", default=[], help="of a request (default: as measured)")
    parser.add_argument("--keep", type=float, default=0.95, help="of the answers in time (default: %(default)s)")
    parser.add_argument("--replicas", type=int, default=1, help="behind --address, for the check (default: 1)")
    options = parser.parse_args()
    runs = []
    with contextlib.ExitStack() as stack:
        if options.address is None:
            address, owner = stack.enter_context(own_server(max(options.typists), options.protocol, options.model))
        else:
            keys = () if options.key_file is None else tuple(options.key_file.read_text("ascii").split())
            address, owner = Address(options.address, keys), None
        for num_typists in sorted(options.typists):
            figures = run(address, owner, num_typists, options.seconds, reconnects=options.reconnect)
            runs.append(figures)
            print_rows([{name: figures.get(name) for name in TABLE}])
        recording = recorded(address, min(max(options.typists), MAX_RECORDED), options.record)
    checks = [simulated(recording, figures["typists"], options.replicas) for figures in runs]
    print_rows(
        {"typists": real["typists"], **{f"{name} {kind}": row.get(name) for name in CHECKED
         for kind, row in (("measured", real), ("simulated", modeled))}}
        for real, modeled in zip(runs, checks, strict=True)
    )  # fmt: skip
    content = {
        "model": public_name(options.model or "starter"),
        "protocol": "http" if address.is_http else "editor",
        "keep": options.keep,
        "service_p50_ms": recording.service_p50_ms,
        "runs": runs,
        "simulated": checks,
        "sizes": sizes(recording, options.size, options.service_ms, options.keep),
    }
    if content["sizes"]:
        print_rows({name: row.get(name) for name in ("service_p50_ms", "typists", "replicas", "p50_ms", "p95_ms",
                    "in_time_share", "busy_share", "busiest_share")} for row in content["sizes"])  # fmt: skip
    print_result("load", content, options.json)


if __name__ == "__main__":
    main()
