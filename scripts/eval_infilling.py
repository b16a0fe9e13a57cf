"""Quality of suggestions: HumanEval single-line infilling, and keystrokes saved while typing functions.

Every problem is a function without one line. The position of the cursor in that line is a *cut*:

  line      at the start of the empty line, before the indentation: the benchmark's own protocol
  indented  after the line's indentation, where an editor puts the cursor
  middle    at the space nearest to the line's middle, and the rest of the line is judged; lines without one are skipped

Four answers are judged: the model's output until it stops by itself (``raw``), its first line (``truncated``), what
Forelook would show (``shown``), and what it would show without judging syntax and brackets (``unguarded``); by exact
match, edit similarity, and whether the function's tests pass (pass@1, in a process with limits). ``--keystrokes`` types
functions key by key and accepts every suggestion that is right as a whole. ``[low, high]`` are 95% Wilson intervals.
The last line is one JSON object.

``--breakage`` measures instead how many suggestions add a syntax error: cursors in files that parse, in every language
with a grammar, with the model's text, random tokens, text from other places and adversarial text. The files are the
samples of the repository and those of ``--files``.

``--guard-cost`` measures the CPU time that cleaning a suggestion up takes with its parses: lines of the files nearest
to 2,000 lines, one per language, typed again; ``--against`` takes turns with the code of another checkout.

Usage: python scripts/eval_infilling.py [--model PATH_OR_ID] [--adapter FOLDER] [--limit N] [--cut CUT ...]
       [--keystrokes N] [--no-tests]
       python scripts/eval_infilling.py --breakage PLACES [--files FOLDER ...] [--model PATH_OR_ID]
       python scripts/eval_infilling.py --guard-cost LINES [--files FOLDER ...] [--against CHECKOUT]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.arguments import benchmark_parser
from bench.breakage import SAMPLES, TEXTS, evaluate_breakage
from bench.guard_cost import evaluate_guard_cost
from bench.infilling import CUTS, KINDS, evaluate_keystrokes, evaluate_lines, problems
from bench.models import load_named
from bench.results import DATA, REPOSITORY, print_result, public_name
from bench.tables import quality
from forelook.completion.completer import Completer
from forelook.confidence import Confidence
from forelook.config import EngineConfig
from forelook.errors import ForelookError


def main() -> int:
    defaults = EngineConfig()
    parser = benchmark_parser(__doc__, "model", "adapter", "dtype")
    parser.add_argument("--limit", type=int, help="problems (default: all 1033)")
    parser.add_argument("--keystrokes", type=int, default=0, help="functions to type key by key (default: none)")
    parser.add_argument("--breakage", type=int, metavar="PLACES", help="measure suggestions that add a syntax error")
    parser.add_argument("--guard-cost", type=int, metavar="LINES", help="measure the guard's CPU time: lines to type")
    parser.add_argument("--texts", nargs="+", choices=TEXTS, default=TEXTS, help="whose text --breakage takes")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another checkout for --guard-cost")
    parser.add_argument("--files", type=Path, nargs="+", default=[], help="folders of more files for these two")
    parser.add_argument("--cut", nargs="+", choices=CUTS, default=list(CUTS), help="position of the cursor")
    parser.add_argument("--answers", nargs="+", choices=KINDS, default=KINDS, help="kinds of answers to judge")
    parser.add_argument(
        "--confidence",
        default="off",
        help="how sure it must be to show: a level or a probability (default: off)",
    )
    parser.add_argument("--examples", type=int, default=0, help="answers to print per cut")
    parser.add_argument("--no-tests", action="store_true", help="do not run the functions' tests")
    parser.add_argument(
        "--context-share", type=float, default=defaults.context_share, help="of the prompt, for other files"
    )
    parser.add_argument(
        "--suffix-share", type=float, default=defaults.suffix_share, help="of the prompt, for the text after the cursor"
    )
    options = parser.parse_args()
    if options.guard_cost:
        checkouts = {"this": REPOSITORY, **({"other": options.against} if options.against else {})}
        measured = evaluate_guard_cost(checkouts, [SAMPLES, *options.files], options.guard_cost)
        print_result("guard-cost", measured, options.json)
        return 0
    if not options.breakage and not (DATA / "humaneval-infilling").is_dir():
        parser.error("../shared/data/humaneval-infilling is missing; put the data sets next to this checkout")
    confidence = _confidence(parser, options.confidence)
    config = EngineConfig(context_share=options.context_share, suffix_share=options.suffix_share)
    try:
        model = load_named(options.model, adapter=options.adapter, dtype=options.dtype)
        completer = Completer(model, config)
    except ForelookError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.breakage:
        measured = evaluate_breakage(
            completer,
            model.tokenizer,
            [SAMPLES, *options.files],
            options.breakage,
            options.texts,
            options.examples,
        )
        print_result("breakage", {"model": public_name(options.model or "starter-model"), **measured}, options.json)
        return 0
    result: dict[str, object] = {"model": public_name(options.model or "starter-model")}
    if options.limit != 0:
        chosen = problems(options.limit)
        result["cuts"] = evaluate_lines(
            completer, chosen, options.cut, not options.no_tests, options.examples, confidence, options.answers
        )
    if options.keystrokes:
        result["keystrokes"] = evaluate_keystrokes(completer, options.keystrokes)
    print(*quality(result), sep="\n")
    print_result("infilling", result, options.json)
    return 0


def _confidence(parser: argparse.ArgumentParser, text: str) -> Confidence | float:
    try:
        return next((level for level in Confidence if level.value == text), None) or float(text)
    except ValueError:
        parser.error(f"--confidence: {text!r} is no level and no number")


if __name__ == "__main__":
    sys.exit(main())
