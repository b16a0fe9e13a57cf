"""Quality of suggestions: HumanEval single-line infilling, and keystrokes saved while typing functions.

Every problem is a function without one line. The position of the cursor in that line is a *cut*:

  line      at the start of the empty line, before the indentation: the benchmark's own protocol
  indented  after the line's indentation, where an editor puts the cursor
  middle    at the space nearest to the line's middle, and the rest of the line is judged; lines without one are skipped

Three answers are judged: the model's output until it stops by itself (``raw``), its first line (``truncated``), and
what Forelook would show (``shown``); by exact match, edit similarity, and whether the function's tests pass (pass@1, in
a process with limits). ``--keystrokes`` types functions key by key and accepts every suggestion that is right as a
whole. ``[low, high]`` are 95% Wilson intervals. The last line is one JSON object.

Usage: python scripts/eval_infilling.py [--model PATH_OR_ID] [--limit N] [--cut CUT ...] [--keystrokes N] [--no-tests]
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from bench.infilling import CUTS, KINDS, evaluate_keystrokes, evaluate_lines, problems
from bench.results import DATA, add_json_argument, print_result, public_name
from forelook.completion.completer import Completer
from forelook.config import EngineConfig
from forelook.errors import ForelookError
from forelook.model.loading import load_model


def print_report(result: dict[str, Any]) -> None:
    """Print the table."""
    print(f"{'cut':>9} {'answer':>10} {'n':>5} {'exact':>7}  {'interval':<16} {'similar':>7} {'pass@1':>7}  interval")
    for where, figures in result.get("cuts", {}).items():
        for kind in KINDS:
            score = figures[kind]
            print(
                f"{where:>9} {kind:>10} {figures['num_problems']:>5} {score['exact_match']!s:>7}  "
                f"{score['exact_match_interval']!s:<16} {score['edit_similarity']!s:>7} {score['pass_at_1']!s:>7}  "
                f"{score['pass_at_1_interval']}"
            )
    if "keystrokes" in result:
        print(f"keystrokes: {result['keystrokes']}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Quality of suggestions: single-line infilling and keystrokes saved.")
    parser.add_argument("--model", help="a checkpoint folder or hub id (default: the starter model)")
    parser.add_argument("--limit", type=int, help="problems (default: all 1033)")
    parser.add_argument("--keystrokes", type=int, default=0, help="functions to type key by key (default: none)")
    parser.add_argument("--cut", nargs="+", choices=CUTS, default=list(CUTS), help="position of the cursor")
    parser.add_argument("--examples", type=int, default=0, help="answers to print per cut")
    parser.add_argument("--dtype", default="auto", help="of the weights")
    parser.add_argument("--no-tests", action="store_true", help="do not run the functions' tests")
    parser.add_argument("--context-share", type=float, help="share of the prompt for other files")
    parser.add_argument("--suffix-share", type=float, help="share of the prompt for the text after the cursor")
    add_json_argument(parser)
    options = parser.parse_args()
    if not (DATA / "humaneval-infilling").is_dir():
        parser.error("../shared/data/humaneval-infilling is missing; put the data sets next to this checkout")
    shares = {
        name: value
        for name, value in (("context_share", options.context_share), ("suffix_share", options.suffix_share))
        if value is not None
    }
    try:
        completer = Completer(load_model(options.model, dtype=options.dtype), EngineConfig(**shares))
    except ForelookError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    result: dict[str, object] = {"model": public_name(options.model or "starter-model")}
    if options.limit != 0:
        chosen = problems(options.limit)
        result["cuts"] = {
            where: evaluate_lines(completer, chosen, where, not options.no_tests, options.examples)
            for where in options.cut
        }
    if options.keystrokes:
        result["keystrokes"] = evaluate_keystrokes(completer, options.keystrokes)
    print_report(result)
    print_result("infilling", result, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
