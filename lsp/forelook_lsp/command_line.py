"""The ``forelook-lsp`` command; the only reader of argv and environment in the language server."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from forelook import __version__
from forelook.errors import ForelookError

if TYPE_CHECKING:
    from forelook_lsp.window import FindBackend

TOKEN_VARIABLE = "FORELOOK_LSP_TOKEN"
MIN_TOKEN_LENGTH = 32  # chosen, not measured


def main(argv: Sequence[str] | None = None) -> int:
    """Serve one editor window over stdio, or any number over websocket."""
    arguments = _parser().parse_args(argv)
    if arguments.describe_options:
        from forelook_lsp.settings import describe_settings

        print(json.dumps(describe_settings(), indent=2))  # noqa: T201 - the command's output
        return 0
    # Importing LSP's types creates hundreds of classes; without garbage collection it is a sixth faster.
    gc.disable()
    sys.setswitchinterval(0.0005)  # an answer must not wait 5 ms for the GIL while a thread reads the workspace
    from forelook_lsp.logs import set_up_logging

    try:
        set_up_logging(arguments.log_level, arguments.log_file)
    except ForelookError as error:
        return _complain(error)
    from forelook_lsp.launch import backend_finder
    from forelook_lsp.model_offer import offer_finder

    user_id = os.getuid() if sys.platform != "win32" else None
    user = (dict(os.environ), Path.home(), user_id)
    find_backend = backend_finder(*user)
    if arguments.websocket is not None:
        try:
            return _serve_websocket(find_backend, arguments, os.environ)
        except (ForelookError, OSError) as error:
            return _complain(error)
    from forelook_lsp.transports.stdio import serve_stdio, take_standard_streams

    gc.freeze()
    gc.enable()
    stdin, stdout = take_standard_streams()
    try:
        return asyncio.run(serve_stdio(find_backend, stdin, stdout, offer_finder(*user)))
    except KeyboardInterrupt:
        return 130


def _complain(error: Exception) -> int:
    print(f"forelook-lsp: {error}", file=sys.stderr)  # noqa: T201 - for the process that started it
    return 2


def _serve_websocket(find_backend: FindBackend, arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from forelook.errors import ConfigError
    from forelook.local.access import new_token, read_tokens
    from forelook.local.files import make_private_dir
    from forelook.local.identity import UserPaths

    from forelook_lsp.transports.websocket import Listen, serve_websocket

    gc.enable()
    host, port = Listen.parse_address(arguments.websocket)
    token: str
    token_file: Path | None = arguments.token_file
    made_file: Path | None = None
    if token_file is not None:
        tokens = read_tokens(token_file)
        if len(tokens) > 1:  # all windows act as this process's user: its files, its backend, its pools
            one_each = "one token; run one language server per user, as that user"
            raise ConfigError("--token-file", f"{len(tokens)} tokens", one_each)
        token = tokens[0]
    elif token := environ.get(TOKEN_VARIABLE, ""):
        if len(token) < MIN_TOKEN_LENGTH:
            raise ConfigError(TOKEN_VARIABLE, f"{len(token)} characters", f"{MIN_TOKEN_LENGTH} characters or more")
    else:
        paths = UserPaths.from_environment(environ, Path.home(), os.getuid() if sys.platform != "win32" else None)
        token_file = made_file = make_private_dir(paths.runtime_dir) / f"lsp-{os.getpid()}.token"
        token = new_token(made_file)
    listen = Listen(host, port, token, arguments.tls_certificate, arguments.tls_key)

    def announce(address: str) -> None:
        line = {"listening": address, "token_file": str(token_file) if token_file is not None else None}
        print(json.dumps(line), flush=True)  # noqa: T201 - for the process that started it

    async def serve() -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        if sys.platform != "win32":
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stopped.set)
        await serve_websocket(find_backend, listen, announce, stopped)

    try:
        asyncio.run(serve())
    finally:
        if made_file is not None:
            made_file.unlink(missing_ok=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="forelook-lsp", description="The Forelook language server.")
    parser.add_argument("--version", action="version", version=f"forelook-lsp {__version__}")
    parser.add_argument("--stdio", action="store_true", help="serve one editor over stdin and stdout (the default)")
    parser.add_argument("--websocket", metavar="HOST:PORT", help="serve many editors; port 0 selects a free port")
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="PATH",
        help=f"file with the token of the clients, mode 0600 (default: {TOKEN_VARIABLE}, or a new token)",
    )
    parser.add_argument("--tls-certificate", type=Path, metavar="PEM", help="required for non-loopback addresses")
    parser.add_argument("--tls-key", type=Path, metavar="PEM")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    parser.add_argument("--log-file", type=Path, metavar="PATH", help="log to this file instead of stderr")
    parser.add_argument("--describe-options", action="store_true", help="print the settings as JSON and exit")
    return parser
