"""How sure a model must be to show a suggestion unasked: thresholds per language, from lines of held-out files.

Lines of files that nothing was trained or tuned on are typed again, key by key, with every answer of the model and the
log-probabilities of its first line on record. A user accepts a suggestion once its first line is the rest of the true
one. Of the thresholds, *default* is the highest one that still shows 64% of the suggestions, *strict* the highest one
that still saves 95% of the keystrokes. To say what they do elsewhere, each half of the projects is typed with the
thresholds of the other half.

A project is a folder in one of the FOLDERs. ``--records`` keeps the answers, so that a run can be continued or its
thresholds chosen again without the model. ``--session`` adds the recorded editing session of the data sets to the
check. ``--type`` types lines of the other half once more under the product's own rule. ``--cost`` compares the CPU time
of answers with and without scores. ``--write`` writes the table
next to the weights, or the adapter's; without it nothing is changed. The last line is one JSON object.

Usage: python scripts/calibrate_confidence.py FOLDER ... [--model PATH_OR_ID] [--adapter FOLDER] [--lines N]
                                              [--records FILE] [--session N] [--type N] [--write]
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from bench.arguments import benchmark_parser
from bench.results import print_result, provenance, public_name
from bench.thresholds import HEAD, Levels, Row, calibrate, check, cross_check, split, sweep
from bench.traces import editing_sessions
from bench.turns import take_turns, with_progress
from bench.typist import Line, Record, Tally, Typist, append_record, lines_of, read_records, session_lines
from forelook.completion.completer import Completer
from forelook.confidence import Confidence
from forelook.config import EngineConfig
from forelook.decoding.prefill import PrefillSpeed
from forelook.decoding.stats import DecodingStats
from forelook.errors import ForelookError
from forelook.model.confidence import ConfidenceTable, confidence_path, write_confidence
from forelook.model.loading import STARTER_MODEL_PATH, LoadedModel, find_checkpoint, load_model


def main() -> int:
    parser = benchmark_parser(__doc__, "model", "device", "dtype")
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="folders of projects")
    parser.add_argument("--adapter", type=Path, metavar="FOLDER", help="of a low-rank adapter for the model")
    parser.add_argument("--lines", type=int, default=40, help="lines per language (default: %(default)s)")
    parser.add_argument(
        "--prompt-tokens", type=int, default=1024, metavar="N", help="of prompts, as on a slower device"
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="ask at every Nth of the keys that ask")
    parser.add_argument("--languages", nargs="+", help="names in the language table (default: all that have lines)")
    parser.add_argument("--records", type=Path, metavar="FILE", help="keep the answers here, and go on from them")
    parser.add_argument("--recorded", action="store_true", help="ask nothing more: take what --records has")
    parser.add_argument("--session", type=int, default=0, metavar="N", help="lines of the recorded editing session")
    parser.add_argument("--type", type=int, default=0, metavar="N", help="lines to type under the product's rule")
    parser.add_argument("--cost", type=int, default=0, metavar="N", help="lines to measure the cost of scores with")
    parser.add_argument("--write", action="store_true", help="write the table next to the weights")
    options = parser.parse_args()
    if options.recorded and options.records is None:
        parser.error("--recorded needs --records")
    try:
        model = load_model(options.model, adapter=options.adapter, device=options.device, dtype=options.dtype)
    except ForelookError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    lines = in_turn(lines_of(options.folders, options.lines), options.languages)
    completer = Completer(model, EngineConfig(), prefill=_FixedSpeed(options.prompt_tokens))
    typist = Typist(completer, model.tokenizer.encode)
    records = (
        read_records(options.records) if options.recorded else record(typist, lines, options.records, options.every)
    )
    levels = calibrate(records)
    result: dict[str, object] = {
        "model": public_name(options.model or "starter-model"),
        "least": {level.value: values for level, values in levels.items()},
    }
    show("all lines, by threshold", sweep(records, "all"))
    for level in levels:
        rows = cross_check(records, level)
        show(f"{level.value}, on projects that it was not chosen on", rows)
        result[f"checked_{level.value}"] = {row.name: row.to_json() for row in rows}
    if options.session:
        session = record(typist, list(session_lines(editing_sessions(1_000_000), options.session)), None, options.every)
        show("the recorded session", rows := check(session, levels, Confidence.DEFAULT))
        result["session"] = rows[-1].to_json()
    if options.type:
        first, second = split(records)
        known = {(one.project, one.typed) for one in second}
        typed = [line for line in lines if (line.project, line.typed) in known][: options.type]
        result["typed"] = type_lines(model, typed, calibrate(first))
    if options.cost:
        result["cost"] = scoring_cost(model, lines[: options.cost])
    if options.write:
        path = options.adapter or find_checkpoint(options.model or str(STARTER_MODEL_PATH), None, lambda *_: None)
        write_confidence(path, levels, origin(records, result))
        print(f"written: {confidence_path(path).name}")
    print_result("confidence", result, options.json)
    return 0


def in_turn(lines: dict[str, list[Line]], languages: Iterable[str] | None) -> list[Line]:
    """The lines of all languages in turn, so that a run that ends early has some of each."""
    wanted = [lines[name] for name in (lines if languages is None else languages) if name in lines]
    most = max(map(len, wanted), default=0)
    return [of_language[number] for number in range(most) for of_language in wanted if number < len(of_language)]


class _FixedSpeed(PrefillSpeed):
    """What makes prompts of that many tokens, however fast this machine is."""

    def __init__(self, num_tokens: int) -> None:
        super().__init__(num_tokens / EngineConfig().prefill_ms * 1e3)

    def observe(self, stats: DecodingStats) -> None:
        pass


def record(typist: Typist, lines: list[Line], path: Path | None, every: int) -> list[Record]:
    """The answers to all lines; those that the file has are not asked for again."""
    known = {} if path is None else {(one.language, one.project, one.typed): one for one in read_records(path)}
    records: list[Record] = []
    for line in with_progress(lines, "lines"):
        found = known.get((line.language, line.project, line.typed))
        records.append(found or typist.record(line, every))
        if found is None and path is not None:
            append_record(path, records[-1])
    return records


def type_lines(model: LoadedModel, lines: list[Line], levels: Levels) -> dict[str, object]:
    """Type lines under the product's rule, with and without a threshold."""
    model = replace(model, confidence=ConfidenceTable(levels, is_measured=True))
    typist = Typist(Completer(model, EngineConfig()), model.tokenizer.encode)
    tallies = {level: Tally() for level in (Confidence.OFF, Confidence.DEFAULT)}
    for line in with_progress(lines, "typed lines"):
        for level in tallies:
            tallies[level] += typist.type(line, level)
    base, tally = tallies[Confidence.OFF], tallies[Confidence.DEFAULT]
    row = Row("typed", len(lines), 0.0, tally, base)
    show("typed under the product's rule, default", [row])
    return row.to_json()


def scoring_cost(model: LoadedModel, lines: list[Line]) -> dict[str, object]:
    """CPU time of complete answers from a warm prompt: scored over unscored, in turns."""
    typist = Typist(Completer(model, EngineConfig(autoregressive=True)), model.tokenizer.encode)

    def turn(confidence: Confidence | float) -> Callable[[], list[float]]:
        return lambda: [cpu_seconds(lambda line=line: typist.ask(line, 0, confidence)) for line in lines]

    times = take_turns({"unscored": turn(Confidence.OFF), "scored": turn(0.0)}, rounds=4)
    sums = {name: sum(values) for name, values in times.items()}
    print(f"CPU time of an answer: {sums['scored'] / sums['unscored']:.3f} times that without scores")
    return {name: round(value / len(times[name]) * 1e3, 3) for name, value in sums.items()}


def cpu_seconds(call: Callable[[], object]) -> float:
    started_s = time.process_time()
    call()
    return time.process_time() - started_s


def origin(records: list[Record], result: dict[str, object]) -> dict[str, object]:
    """How the table was made, for people."""
    command = shlex.join(["scripts/calibrate_confidence.py", *(public_name(word) for word in sys.argv[1:])])
    made = provenance()
    return {
        "command": command,
        "commit": made["commit"],
        "date": made["date"],
        "num_lines": len(records),
        "projects": sorted({one.project for one in records}),
        **{name: value for name, value in result.items() if name.startswith("checked_")},
    }


def show(title: str, rows: Iterable[Row]) -> None:
    print(title, HEAD, *(row.text() for row in rows), "", sep="\n")


if __name__ == "__main__":
    sys.exit(main())
