#!/usr/bin/env python3
"""What the warm pool brings at the 1st, 10th and 100th suggestion of a session: tokens per step of the default model.

    python scripts/bench_session.py --sessions 12 --long-sessions 2

A session asks for suggestions at random places in a few files of a folder; the text that is asked for is in no
document. Each suggestion at one of the places is decoded three times: cold, with the workspace's files in the pool, and
with what the earlier suggestions of the session taught as well. Counts with a fixed budget of drafts: a busy machine
changes none. Nothing is learned in idle time. After each session ``--json`` has what is measured so far; the last line
is one JSON object.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.arguments import benchmark_parser, settings_of
from bench.methods import MAX_DRAFTS
from bench.models import load_with_source
from bench.results import REPOSITORY, print_result, public_name, write_result
from bench.session import SessionPlan, result_of, run_sessions
from bench.tables import print_rows
from forelook.model.catalogue import DEFAULT_MODEL
from forelook.model.device_file import device_key


def main() -> None:
    parser = benchmark_parser(
        __doc__, "model", "dtype", "threads", "max-new-tokens", model=DEFAULT_MODEL, dtype="float32", max_new_tokens=24
    )
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "backend", help="the workspace")
    parser.add_argument("--sessions", dest="num_sessions", type=int, default=12)
    parser.add_argument(
        "--long-sessions", dest="num_long", type=int, default=2, help="sessions that reach the last place"
    )
    parser.add_argument(
        "--files", dest="num_files", type=int, default=4, help="files that a session works in (default: %(default)s)"
    )
    parser.add_argument("--at", type=int, nargs="+", default=[1, 10, 100], help="places (default: 1 10 100)")
    parser.add_argument("--around", type=int, nargs="+", default=[0, 1, 3], help="suggestions on either side of each")
    parser.add_argument("--prompt-tokens", type=int, default=320)
    parser.add_argument("--max-drafts", type=int, default=MAX_DRAFTS)
    arguments = parser.parse_args()
    model = load_with_source(arguments.model, dtype=arguments.dtype).model
    plan = settings_of(SessionPlan, arguments, places=dict(zip(arguments.at, arguments.around, strict=True)))
    content: dict[str, Any] = {}
    for number, tallies in enumerate(run_sessions(plan, model), start=1):
        content = {
            "model": public_name(model.name),
            "dtype": model.weight_format,
            "folder": public_name(str(arguments.folder)),
            "num_sessions": number,
            "num_long": min(number, plan.num_long),
            "files_per_session": plan.num_files,
            "max_new_tokens": plan.max_new_tokens,
            "prompt_tokens": plan.prompt_tokens,
            "max_drafts": plan.max_drafts,
            "places": result_of(tallies, arguments.at),
        }
        write_result("session", content, arguments.json, device_key(model.device))
    print_rows(
        {"suggestion": place, "n": found["num_suggestions"], **found["tokens_per_step"], **found["ratios"]}
        for place, found in content["places"].items()
    )
    print_result("session", content, arguments.json, device_key(model.device))


if __name__ == "__main__":
    main()
