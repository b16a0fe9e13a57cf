"""The HTTP interface: its overhead over the editor protocol, warming, clients next to a flood, and llama.cpp's server.

Usage: python scripts/bench_http.py [--only PART ...] [--model MODEL] [--limit N]
       python scripts/bench_http.py --only peers --llama-server PROGRAM --gguf FILE [--llama-options "…"]

Parts:
  overhead  new requests over the editor protocol, a kept HTTP connection and a new one, in turns
  warming   prompt tokens that a request computes after one with `n_predict: 0`
  fairness  32 connections of four keys: the others alone and next to a key that floods, in turns
  peers     llama.vim's requests to Forelook and to llama.cpp's server with the same weights, in turns

The documents are this repository's own sources. The last line is one JSON object with all figures.
"""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import Any

from bench.arguments import benchmark_parser
from bench.http_documents import places
from bench.http_measures import fairness, overhead, replay, warming
from bench.http_servers import forelook, llama_server
from bench.results import print_result, public_name
from bench.tables import print_rows

PARTS = ("overhead", "warming", "fairness", "peers")
NUM_KEYS = 4


def peers(gguf: Path, program: Path, llama_options: str, limit: int) -> dict[str, Any]:
    """Return figures of both servers with the weights of one file."""
    with (
        forelook("--model", str(gguf)) as ours,
        llama_server(program, gguf, shlex.split(llama_options)) as theirs,
    ):
        found = replay({"forelook": ours, "llama-server": theirs}, list(places(limit)))
    return {"gguf": gguf.name, "llama_options": llama_options, **found}


def main() -> None:
    parser = benchmark_parser(__doc__, "model")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts to run (default: all that are possible)")
    parser.add_argument("--limit", type=int, default=40, help="documents per part (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of a phase of fairness (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of fairness (default: %(default)s)")
    parser.add_argument("--llama-server", type=Path, metavar="PROGRAM", help="llama.cpp's server, for the part peers")
    parser.add_argument("--gguf", type=Path, metavar="FILE", help="weights of both servers")
    parser.add_argument("--llama-options", default="", help="further options of llama.cpp's server, in one argument")
    options = parser.parse_args()
    can_compare = options.llama_server is not None and options.gguf is not None
    parts = options.only or [part for part in PARTS if part != "peers" or can_compare]
    if "peers" in parts and not can_compare:
        parser.error("the part peers needs --llama-server and --gguf")
    documents = list(places(options.limit))
    content: dict[str, Any] = {"model": public_name(options.model or "starter")}
    with contextlib.ExitStack() as stack:
        model = ("--model", options.model) if options.model else ()
        if set(parts) - {"peers"}:
            server = stack.enter_context(forelook(*model, num_keys=NUM_KEYS))
        if "overhead" in parts:
            content["overhead"] = overhead(server, documents)
            print_rows({"way": name, **figures} for name, figures in content["overhead"]["ways"].items())
        if "warming" in parts:
            content["warming"] = warming(server, documents)
            print_rows({"prompt tokens of": name, **figures} for name, figures in content["warming"].items())
        if "fairness" in parts:
            content["fairness"] = fairness(server, documents, rounds=options.rounds, seconds=options.seconds)
            print_rows({"others": name, **figures} for name, figures in content["fairness"]["others"].items())
    if "peers" in parts:
        content["peers"] = peers(options.gguf, options.llama_server, options.llama_options, options.limit)
        print_rows({"server": name, **figures} for name, figures in content["peers"]["servers"].items())
    print_result("http", content, options.json)


if __name__ == "__main__":
    main()
