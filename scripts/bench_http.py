"""The HTTP interface: its overhead over the editor protocol, warming, clients next to a flood, and llama.cpp's server.

Usage: python scripts/bench_http.py [--only PART ...] [--model MODEL] [--limit N]
       python scripts/bench_http.py --only peers [--llama-server PROGRAM] [--gguf FILE] [--llama-options "…"]

Parts:
  overhead  new requests over the editor protocol, a kept HTTP connection and a new one, in turns
  warming   prompt tokens that a request computes after one with `n_predict: 0`
  fairness  32 connections of four keys: the others alone and next to a key that floods, in turns
  peers     llama.vim's requests, one per key, to Forelook with the default model, and to Forelook and llama.cpp's
            server with one file of the same weights in eight bits (or --gguf), in turns

The documents are this repository's own sources. The last line is one JSON object with all figures.
"""

from __future__ import annotations

import contextlib
import shlex
import tempfile
from pathlib import Path
from typing import Any

from bench.arguments import benchmark_parser, executable
from bench.http_documents import LLAMA_VIM_LINES, places
from bench.http_measures import fairness, overhead, replay, warming
from bench.http_servers import Server, forelook, llama_server
from bench.llama_server import quantized
from bench.merged_gguf import write_merged
from bench.models import default_base_path
from bench.results import print_result, public_name
from bench.tables import print_rows
from forelook.model.catalogue import DEFAULT_MODEL
from forelook.model.default_model import DEFAULT_ADAPTER_PATH

PARTS = ("overhead", "warming", "fairness", "peers")
NUM_KEYS = 4


def peers(model: str | None, gguf: Path | None, program: Path | None, llama_options: str, limit: int) -> dict[str, Any]:
    """Return figures of both servers; of Forelook alone without a program.

    Args:
        model: of Forelook, without a program.
        gguf: weights of both; by default the default model's.
        program: llama.cpp's server.
        llama_options: further options of it.
        limit: number of documents.

    Raises:
        LlamaServerError: the default model could not be put into eight bits.
        RuntimeError: a server did not start, or refused a request.
    """
    with contextlib.ExitStack() as stack:
        servers: dict[str, Server] = {}
        if program is None or gguf is None:
            name = model if program is None else DEFAULT_MODEL
            servers["forelook"] = stack.enter_context(forelook(*(("--model", name) if name else ())))
        if program is not None:
            weights = gguf or _default_weights(program, Path(stack.enter_context(tempfile.TemporaryDirectory())))
            servers["forelook, same file"] = stack.enter_context(forelook("--model", str(weights)))
            servers["llama-server"] = stack.enter_context(llama_server(program, weights, shlex.split(llama_options)))
        found = replay(servers, list(places(limit, lines=LLAMA_VIM_LINES)))
    return {"llama_options": llama_options, **found}


def _default_weights(program: Path, folder: Path) -> Path:
    base = default_base_path()
    if base is None:
        raise SystemExit(f"{DEFAULT_MODEL} is not on this machine; run `forelook pull {DEFAULT_MODEL}`")
    merged = folder / "default.gguf"
    write_merged(base, DEFAULT_ADAPTER_PATH, merged)
    return quantized(merged, "q8_0", program, folder)


def main() -> None:
    parser = benchmark_parser(__doc__, "model", "llama-server")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts to run (default: all that are possible)")
    parser.add_argument("--limit", type=int, default=40, help="documents per part (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of a phase of fairness (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of fairness (default: %(default)s)")
    parser.add_argument("--without-llama-server", action="store_true", help="peers of Forelook alone: tests the code")
    parser.add_argument(
        "--gguf", type=Path, metavar="FILE", help="weights of both servers (default: the default model)"
    )
    parser.add_argument("--llama-options", default="", help="further options of llama.cpp's server, in one argument")
    options = parser.parse_args()
    program = None if options.without_llama_server else executable(options.llama_server)
    parts = options.only or [part for part in PARTS if part != "peers" or program is not None]
    if "peers" in parts and program is None and not options.without_llama_server:
        parser.error(
            f"the part peers needs llama.cpp's server, and {options.llama_server or 'llama-server'} is not here; "
            "give --llama-server PROGRAM"
        )
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
        content["peers"] = peers(options.model, options.gguf, program, options.llama_options, options.limit)
        print_rows({"server": name, **figures} for name, figures in content["peers"]["servers"].items())
    print_result("http", content, options.json)


if __name__ == "__main__":
    main()
