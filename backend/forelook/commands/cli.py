"""The ``forelook`` command.

This module and the command line of ``forelook_lsp`` are the only readers of arguments and environment. Importing it
imports neither torch nor a web server: each command imports what it needs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from forelook import __version__
from forelook.commands import arguments as arguments_of
from forelook.commands.cluster import cluster
from forelook.commands.command_context import (
    EXIT_BACKEND,
    EXIT_CODES,
    EXIT_DOCUMENT,
    EXIT_FAULT,
    EXIT_INTERRUPTED,
    EXIT_MODEL,
    EXIT_USAGE,
    CommandContext,
    complain,
)
from forelook.commands.complete import complete, cursor_offset
from forelook.commands.keys import keys
from forelook.commands.models import models, pull
from forelook.commands.serve import follow, serve
from forelook.commands.status import doctor, pool, stats, status, stop
from forelook.errors import (
    ConfigError,
    DocumentError,
    EndpointError,
    ForelookError,
    ModelError,
    PrivacyError,
    ProtocolError,
)
from forelook.local.identity import UserPaths

__all__ = [
    "EXIT_BACKEND", "EXIT_DOCUMENT", "EXIT_FAULT", "EXIT_INTERRUPTED", "EXIT_MODEL", "EXIT_USAGE",
    "cursor_offset", "exit_status", "main",
]  # fmt: skip

Run = Callable[[argparse.Namespace, CommandContext], int]


def command_context() -> CommandContext:
    """The process environment and the user's folders."""
    user_id = os.getuid() if sys.platform != "win32" else None
    return CommandContext(dict(os.environ), UserPaths.from_environment(os.environ, Path.home(), user_id))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = _parser().parse_args(arguments)
    run: Run = options.run
    try:
        return run(options, command_context())
    except ForelookError as error:
        complain(f"forelook: {error}")
        return exit_status(error)
    except ModuleNotFoundError as error:
        complain(f"forelook: the package {error.name} is not installed; run `forelook doctor`")
        return EXIT_FAULT
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        with contextlib.suppress(OSError):  # the reader is gone; the interpreter must not flush to it at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAULT


def exit_status(error: ForelookError) -> int:
    """The exit status for an error, by its kind."""
    kinds: tuple[tuple[type[ForelookError], int], ...] = (
        (ConfigError, EXIT_USAGE),
        (DocumentError, EXIT_DOCUMENT),
        (PrivacyError, EXIT_DOCUMENT),
        (ModelError, EXIT_MODEL),
        (EndpointError, EXIT_BACKEND),
        (ProtocolError, EXIT_BACKEND),
    )
    return next((status for kind, status in kinds if isinstance(error, kind)), EXIT_FAULT)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="forelook",
        description="Private code completion on your own machine.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"forelook {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Run, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, epilog=EXIT_CODES,
                                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
        added.set_defaults(run=run)
        return added

    arguments_of.serve_arguments(command("serve", serve, "Run the backend in the foreground."))
    arguments_of.complete_arguments(command("complete", complete, "Complete a file at a cursor, as an editor would."))
    doctor_parser = command("doctor", doctor, "Check the installation and suggest fixes.")
    arguments_of.setting_arguments(doctor_parser, "doctor")
    doctor_parser.add_argument("--json", action="store_true", help="print one JSON object")
    for name, run, text in (
        ("status", status, "Show the running backends and their models."),
        ("stats", stats, "Show counts and latencies; never document text."),
        ("stop", stop, "Stop the running backends."),
    ):
        added = command(name, run, text)
        arguments_of.backend_arguments(added, name)
        added.add_argument("--json", action="store_true", help="print one JSON array")
    pool_parser = command("pool", pool, "Show, clear or locate a workspace's n-gram pool.")
    pool_parser.add_argument("action", choices=("stats", "clear", "path"))
    pool_parser.add_argument(
        "--workspace", type=Path, default=Path(), metavar="DIR", help="default: the current folder"
    )
    arguments_of.backend_arguments(pool_parser, "pool")
    pool_parser.add_argument("--json", action="store_true", help="print one JSON array")
    arguments_of.keys_arguments(command("keys", keys, "Issue, list, limit and revoke the keys of a team's users."))
    arguments_of.models_arguments(command("models", models, "List local models and recommend some for this machine."))
    arguments_of.pull_arguments(command("pull", pull, "Download a model, verify its hashes and pin its commit."))
    arguments_of.cluster_arguments(command("cluster", cluster, "Run several replicas on this machine, on Ray Serve."))
    # without help: only `forelook serve --devices` starts it
    further = commands.add_parser("follow")
    further.set_defaults(run=follow)
    arguments_of.follow_arguments(further)
    return parser
