"""The ``forelook-lsp`` command; the only reader of argv and environment in the language server."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from forelook import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Serve one editor window over stdio, or any number over websocket."""
    arguments = _parser().parse_args(argv)
    if arguments.describe_options:
        from forelook_lsp.options import describe_options

        print(json.dumps(describe_options(), indent=2))  # noqa: T201 - this is what was asked for
        return 0
    from forelook_lsp.logs import set_up_logging

    set_up_logging(arguments.log_level, arguments.log_file)
    from forelook_lsp.launch import backend_finder
    from forelook_lsp.stdio import serve_stdio, take_standard_streams

    user_id = os.getuid() if sys.platform != "win32" else None
    find_backend = backend_finder(dict(os.environ), Path.home(), user_id)
    stdin, stdout = take_standard_streams()
    return asyncio.run(serve_stdio(find_backend, stdin, stdout))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="forelook-lsp", description="The Forelook language server.")
    parser.add_argument("--version", action="version", version=f"forelook-lsp {__version__}")
    parser.add_argument("--stdio", action="store_true", help="serve one editor over stdin and stdout (the default)")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    parser.add_argument("--log-file", type=Path, metavar="PATH", help="log there instead of stderr")
    parser.add_argument("--describe-options", action="store_true", help="print the settings as JSON and end")
    return parser


if __name__ == "__main__":
    sys.exit(main())
