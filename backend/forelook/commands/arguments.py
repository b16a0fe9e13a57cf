"""The arguments of each command."""

from __future__ import annotations

import argparse
from pathlib import Path

from forelook.commands.command_context import LOADING_TIMEOUT_S, SHELL_DEADLINE_MS


def model_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, where."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", metavar="PATH_OR_ID", help="a folder or a hub id; default: the starter model")
    group.add_argument("--revision", help="of a hub id: a branch, tag or commit")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    group.add_argument(
        "--dtype", default="auto", help="auto, bfloat16, float16, float32, float64, int8 or int4 (default: auto)"
    )


def backend_arguments(parser: argparse.ArgumentParser) -> None:
    """Which backend."""
    model_arguments(parser)
    group = parser.add_argument_group("backend")
    group.add_argument("--endpoint", metavar="URL", help="unix:/PATH, ws://127.0.0.1:PORT or wss://HOST:PORT")
    group.add_argument("--token-file", type=Path, metavar="FILE", help="the token for --endpoint, mode 0600")


def serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Of ``serve``."""
    model_arguments(parser)
    listen = parser.add_argument_group("listening (default: a Unix socket only you can open)")
    listen.add_argument("--port", type=int, help="listen on TCP; 0 chooses a free port")
    listen.add_argument("--host", default="127.0.0.1", help="one that other machines reach needs TLS")
    listen.add_argument("--tls-certificate", type=Path, metavar="PEM")
    listen.add_argument("--tls-key", type=Path, metavar="PEM")
    listen.add_argument("--token-file", type=Path, metavar="FILE", help="accepted tokens, one a line, mode 0600")
    listen.add_argument("--allow-origin", action="append", default=[], metavar="ORIGIN", help="a web page's origin")
    listen.add_argument("--allow-host", action="append", default=[], metavar="NAME", help="a further name in Host")
    listen.add_argument("--idle-timeout", type=float, default=1800.0, metavar="SECONDS", help="0 never ends")
    listen.add_argument("--max-connections", type=int, default=64)
    parser.add_argument(
        "--keep-alive", type=float, metavar="SECONDS",
        help="unload the model after this long without use, and load it again when you edit (default: never)",
    )  # fmt: skip
    decoding = parser.add_argument_group(
        "decoding",
        "By default drafts are chosen by what they cost; W, N or G switch to lookahead decoding as published.",
    )
    decoding.add_argument("--window-size", type=int, metavar="W", help="of the lookahead window; 0: as by default")
    decoding.add_argument("--ngram-size", type=int, metavar="N", help="tokens of an n-gram, its key included")
    decoding.add_argument("--max-candidates", type=int, metavar="G", help="n-grams verified in a step")
    decoding.add_argument(
        "--devices", type=int, default=1, metavar="N",
        help="decode on N devices together (lookahead parallelism): a copy of the model on each, steps dealt out",
    )  # fmt: skip
    decoding.add_argument("--autoregressive", action="store_true", help="decode token by token, for comparison")
    limits = parser.add_argument_group("completions")
    limits.add_argument("--max-new-tokens", type=int)
    limits.add_argument("--deadline-ms", type=int)
    limits.add_argument(
        "--left-to-right", action="store_true",
        help="take a model that was not trained to infill; it never sees the text after the cursor",
    )  # fmt: skip
    limits.add_argument("--no-cross-file", action="store_true", help="prompts from the file itself only")
    limits.add_argument(
        "--speculate", choices=("auto", "on", "off"), default="auto",
        help="compute what follows a suggestion while it is shown; auto: not on a CPU",
    )  # fmt: skip
    limits.add_argument("--pool-tokens", type=int, help="most tokens of a workspace's n-gram pool")
    limits.add_argument("--no-persistent-pool", action="store_true", help="keep n-gram pools in memory only")
    parser.add_argument("--announce", action="store_true", help="print one JSON line once it listens, or why not")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))


def complete_arguments(parser: argparse.ArgumentParser) -> None:
    """Of ``complete``."""
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument(
        "--at", required=True, type=_position, metavar="LINE:COL",
        help="the cursor: both count from 1, columns in Unicode code points; column 1 is before the first character",
    )  # fmt: skip
    parser.add_argument("--language", metavar="ID", help="LSP's language id; default: from the file's suffix")
    parser.add_argument("--max-new-tokens", type=int)
    parser.add_argument(
        "--deadline-ms", type=int, default=SHELL_DEADLINE_MS,
        help=f"return what there is after this time (default: {SHELL_DEADLINE_MS}, as a shell can wait)",
    )  # fmt: skip
    parser.add_argument("--multi-line", default="auto", choices=("auto", "always", "never"))
    parser.add_argument("--suggestions", type=int, default=1, metavar="N", help="most different suggestions")
    parser.add_argument("--no-backend", action="store_true", help="load the model in this process")
    parser.add_argument(
        "--timeout", type=float, default=LOADING_TIMEOUT_S, metavar="SECONDS", help="for starting and loading"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object with latency and counts")
    backend_arguments(parser)


def _position(text: str) -> tuple[int, int]:
    line, _, column = text.partition(":")
    if not (line.isdecimal() and column.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not LINE:COL, two whole numbers that count from 1")
    return int(line), int(column)


def _rank(text: str) -> tuple[int, int]:
    rank, _, size = text.partition("/")
    if not (rank.isdecimal() and size.isdecimal() and 0 < int(rank) < int(size)):
        raise argparse.ArgumentTypeError(f"{text!r} is not RANK/SIZE with 0 < RANK < SIZE")
    return int(rank), int(size)


def follow_arguments(parser: argparse.ArgumentParser) -> None:
    """Of the further ranks that ``serve --devices`` starts."""
    model_arguments(parser)
    parser.add_argument("--rank", required=True, type=_rank, metavar="RANK/SIZE")
    parser.add_argument("--folder", required=True, type=Path, metavar="DIR", help="where rank 0 waits")


def models_arguments(parser: argparse.ArgumentParser) -> None:
    """Of ``models``."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--all", action="store_true", help="recommend models that do not fit this machine too")
    parser.add_argument("--folder", type=Path, action="append", default=[], metavar="DIR",
                        help="look for checkpoints in this folder too; may be given more than once")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def pull_arguments(parser: argparse.ArgumentParser) -> None:
    """Of ``pull``."""
    parser.add_argument("model", metavar="MODEL[@REVISION]", help="a hub id such as Qwen/Qwen2.5-Coder-1.5B")
    parser.add_argument("--offline", action="store_true", help="only check what is here; never ask the hub")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
