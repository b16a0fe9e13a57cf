"""Quality of drafts on real edits: replays a repository's history against an oracle, without a model.

For each of the last commits the workspace is as before the commit. Every run of added lines is then "generated": the
cursor is at the end of the line above, and an oracle gives the true next token. Each method drafts at most ``--budget``
tokens per step; the longest drafted path the oracle agrees with is accepted, plus the oracle's next token, exactly as
in a decode step. The added lines are in no index; a method may learn from its own output so far. All methods see the
same text:

- ``prompt_lookup``: the rule of transformers' prompt lookup over prompt and output (first earlier occurrence of the
  last n tokens, longest n first), all its tokens in one chain.
- ``published``: lookahead decoding's n-gram pool of one call, filled from prompt and output, keyed by one token.
- ``pool_cold``: Forelook's pool with the edited file alone.
- ``pool_warm``: Forelook's pool with the whole workspace.
- ``pool_session``: the same, plus the output of the commit's earlier edits, accepted as the product learns it. It alone
  knows added lines of other edits, so it is not comparable with the others.

The prompt is an editor's: text after the cursor, then text before it, as much of each as fits ``--prompt-tokens``.

Lines that an edit replaces are treated in two ways: ``methods`` leaves them in the file, right after the cursor, for
every method; ``methods_replaced_deleted`` removes them from the prompt and the edited file for every method, as if the
user had deleted them before typing. ``insertions`` are the edits that replace nothing. The last line is one JSON
object.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.arguments import add_fields, benchmark_parser
from bench.plots import Panel, draw
from bench.replay import METHODS, ReplaySettings, run
from bench.results import print_result
from bench.tables import replay


def plot(result: dict[str, Any], path: Path) -> None:
    """Plot tokens per step, and the share of drafts accepted, by method."""
    kinds = {"methods": "replaced lines kept", "methods_replaced_deleted": "replaced lines deleted"}
    panels = (
        Panel(
            "method",
            measure.replace("_", " "),
            [(label, METHODS, [result[kind][name][measure] for name in METHODS], "o") for kind, label in kinds.items()],
            result["repo"],
        )
        for measure in ("tokens_per_step", "accepted_share")
    )
    draw(path, *panels)


def main() -> None:
    parser = benchmark_parser(__doc__, "plot")
    parser.add_argument("--repo", type=Path, required=True, help="a git repository")
    parser.add_argument("--name", help="its name in the result (default: its folder's name)")
    add_fields(parser, ReplaySettings)
    arguments = vars(parser.parse_args())
    plot_path, json_path = arguments.pop("plot"), arguments.pop("json")
    arguments["name"] = arguments["name"] or arguments["repo"].resolve().name
    result = run(ReplaySettings(**arguments))
    if plot_path is not None:
        plot(result, plot_path)
    print(*replay(result), sep="\n")
    print_result("replay", result, json_path)


if __name__ == "__main__":
    main()
