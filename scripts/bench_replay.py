"""Quality of drafts on real edits: replays a repository's history against an oracle, without a model.

For each of the last commits the workspace is as before the commit. Every run of added lines is then "generated": the
cursor is at the end of the line above, and an oracle gives the true next token. Each method drafts at most ``--budget``
tokens per step; the longest drafted path the oracle agrees with is accepted, plus the oracle's next token, exactly as
in a decode step. The added lines are in no index; a method may learn from its own output so far. All methods see the
same text:

- ``prompt_lookup``: the rule of transformers' prompt lookup over prompt and output (first earlier occurrence of the
  last n tokens, longest n first), all its tokens in one chain.
- ``published``: lookahead decoding's n-gram pool of one call, filled from prompt and output, keyed by one token.
- ``suffix_decoding``: SuffixDecoding's trees over prompt and output and over the outputs of all earlier edits.
- ``suffix_workspace``: the same with the workspace's files as well, which the publication does not do.
- ``token_recycling``: Token Recycling's table of successors and static tree, kept over all edits. An oracle has no
  second choices, so a row has the last eight different successors; ``--model`` measures it as published.
- ``pool_cold``: Forelook's pool with the edited file alone.
- ``pool_warm``: Forelook's pool with the whole workspace.
- ``pool_libraries``: the same, plus the installed libraries that edited files import, as the language server finds them
  on this machine: Python's and Go's.
- ``pool_session``: ``pool_warm``, plus the output of the commit's earlier edits, accepted as the product learns it.
- ``forelook``: ``pool_session`` with the libraries and the successors of tokens: those of all earlier edits' output, as
  in Token Recycling, and those that are published with the model of ``--vocabulary``. It, ``pool_session``, Token
  Recycling and the two suffix methods know added lines of other edits.

The prompt is an editor's: text after the cursor, then text before it, as much of each as fits ``--prompt-tokens``.

Lines that an edit replaces are treated in two ways: ``methods`` leaves them in the file, right after the cursor, for
every method; ``methods_replaced_deleted`` removes them from the prompt and the edited file for every method, as if the
user had deleted them before typing. ``insertions`` are the edits that replace nothing.

Constants are tuned on one list of repositories and reported on another: ``--tune`` and ``--report``, each NAME=PATH or
PATH. Both are named in the result, and the goals are those of ``--report``. ``--vary FIELD VALUE ...`` tries values of
a setting on the first list, by the mean tokens per step of ``--vary-for``, and uses the best one for both lists.

``--model`` puts a real model into the loop: it continues the text before each cursor for ``--edit-tokens`` tokens, and
what is drafted is its own output, in all methods the same. The methods see what they see above, replaced lines kept;
Forelook's steps cost the same whatever they carry. ``methods_clean`` are outputs in which no run of eight tokens occurs
three times. The last line is one JSON object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench.arguments import add_fields, benchmark_parser
from bench.models import load_with_source
from bench.plots import Panel, draw
from bench.replay import KINDS, METHODS, ReplaySettings, Vocabulary, run
from bench.replay_model import run_with_model
from bench.results import print_result, public_name
from bench.tables import replay
from forelook.model.loading import load_model


def plot(result: dict[str, Any], path: Path) -> None:
    """Plot tokens per step, and the share of drafts accepted, by method, of each reported repository."""
    kinds = {"methods": "replaced lines kept", "methods_replaced_deleted": "replaced lines deleted"}
    methods = [name for name in METHODS if name in result["repositories"][0]["methods"]]
    panels = (
        Panel(
            "method",
            measure.replace("_", " "),
            [
                (label, methods, [repository[kind][name][measure] for name in methods], "o")
                for kind, label in kinds.items()
            ],
            repository["repo"],
        )
        for repository in result["repositories"]
        if repository["repo"] in result["report"]
        for measure in ("tokens_per_step", "accepted_share")
    )
    draw(path, *panels)


def named(text: str) -> tuple[str, Path]:
    """A repository's name and path, from NAME=PATH or PATH."""
    name, separator, path = text.rpartition("=")
    folder = Path(path if separator else text)
    return (name or folder.resolve().name, folder)


def tuned(
    settings: ReplaySettings,
    field: str,
    values: Sequence[str],
    method: str,
    repositories: Sequence[tuple[str, Path]],
    vocabulary: Vocabulary,
) -> tuple[ReplaySettings, dict[str, float]]:
    """The settings with the value of a field that is best on some repositories, and the figure of each value."""
    kind = type(getattr(settings, field))
    figures: dict[str, float] = {}
    for value in values:
        tried = replace(settings, **{field: kind(value), "methods": method})
        results = [run(path, name, tried, vocabulary) for name, path in repositories]
        rates = [result[kind][method]["tokens_per_step"] for result in results for kind in KINDS]
        figures[value] = round(sum(rates) / len(rates), 4)
    best = max(figures, key=figures.__getitem__)
    return replace(settings, **{field: kind(best)}), figures


def main() -> None:
    parser = benchmark_parser(__doc__, "plot", "model", "dtype", "device", dtype="float32")
    parser.add_argument(
        "--report", type=named, nargs="+", required=True, metavar="[NAME=]PATH", help="git repositories"
    )
    parser.add_argument(
        "--tune", type=named, nargs="+", default=[], metavar="[NAME=]PATH", help="those that constants were tuned on"
    )
    parser.add_argument(
        "--vocabulary", metavar="MODEL", help="whose tokens and published successors (default: the starter model's)"
    )
    parser.add_argument("--vary", nargs="+", default=[], metavar="VALUE", help="a setting's name, then values to try")
    parser.add_argument("--vary-for", default="pool_warm", choices=METHODS, help="(default: %(default)s)")
    add_fields(parser, ReplaySettings)
    arguments = vars(parser.parse_args())
    plot_path, json_path = arguments.pop("plot"), arguments.pop("json")
    report, tune, method = arguments.pop("report"), arguments.pop("tune"), arguments.pop("vary_for")
    vary: list[str] = arguments.pop("vary")
    both = {name for name, _ in report} & {name for name, _ in tune}
    if both:
        raise SystemExit(
            f"{', '.join(sorted(both))} in both --tune and --report; what is reported must not be tuned on"
        )
    source, vocabulary_of, dtype, device = (arguments.pop(name) for name in ("model", "vocabulary", "dtype", "device"))
    settings = ReplaySettings(**arguments)
    if source is not None and vocabulary_of is not None:
        raise SystemExit("--vocabulary is for a replay without a model; --model brings its own")
    vocabulary = Vocabulary()
    if vocabulary_of is not None:
        vocabulary = Vocabulary.of(load_with_source(vocabulary_of, device="cpu").model)
    loaded = None if source is None else load_model(source, device=device, dtype=dtype)

    def replay_one(path: Path, name: str, settings: ReplaySettings) -> dict[str, Any]:
        if loaded is not None:
            return run_with_model(path, name, settings, loaded)
        return run(path, name, settings, vocabulary)

    figures: dict[str, float] = {}
    if vary:
        if not tune or not hasattr(settings, vary[0]) or len(vary) < 3:
            raise SystemExit("--vary needs --tune, the name of a setting and at least two values")
        settings, figures = tuned(settings, vary[0], vary[1:], method, tune, vocabulary)
    result = {
        "tune": [name for name, _ in tune],
        "report": [name for name, _ in report],
        "model": None if source is None else public_name(source),
        "vocabulary": public_name(vocabulary_of or source or "starter"),
        "settings": asdict(settings),
        "varied": {"field": vary[0], "for": method, "mean_tokens_per_step": figures} if vary else None,
        "repositories": [replay_one(path, name, settings) for name, path in (*tune, *report)],
    }
    if plot_path is not None:
        plot(result, plot_path)
    print(*replay(result), sep="\n")
    print_result("replay", result, json_path)


if __name__ == "__main__":
    main()
