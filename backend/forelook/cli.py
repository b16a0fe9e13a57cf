"""The ``forelook`` command. With ``forelook_lsp``'s entry point the only reader of arguments and environment.

Importing this module imports neither torch nor a web server: each command imports what it needs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forelook import __version__
from forelook.config import CompletionConfig, DecodingConfig, ModelConfig, PoolConfig, ServerConfig
from forelook.endpoint import (
    BackendIdentity,
    Endpoint,
    UserPaths,
    connect_or_spawn,
    discover,
    file_lock,
    running_backends,
)
from forelook.errors import (
    BackendUnreachableError,
    ConfigError,
    DocumentError,
    DocumentTextError,
    EndpointError,
    ForelookError,
    ModelError,
    PositionError,
    PrivacyError,
    ProtocolError,
)
from forelook.privacy import WorkspacePrivacy
from forelook.server import protocol

EXIT_FAULT = 1
EXIT_USAGE = 2
EXIT_DOCUMENT = 3
EXIT_MODEL = 4
EXIT_BACKEND = 5
EXIT_INTERRUPTED = 130
LOADING_TIMEOUT_S = 600.0
SHELL_DEADLINE_MS = 10_000
ANSWER_TIMEOUT_S = 30.0
EXIT_CODES = f"""exit status:
  0  done
  {EXIT_FAULT}  doctor found a fault, or an error without a number of its own
  {EXIT_USAGE}  an argument or setting is wrong
  {EXIT_DOCUMENT}  the file or the cursor: missing, not UTF-8, too large, withheld, outside
  {EXIT_MODEL}  the model: unknown, not of the Llama family, damaged, too large
  {EXIT_BACKEND}  the backend: not running, not reachable, refuses
  {EXIT_INTERRUPTED}  interrupted"""

LANGUAGE_IDS: Mapping[str, str] = {
    ".bash": "shellscript", ".c": "c", ".cc": "cpp", ".cpp": "cpp", ".cs": "csharp", ".css": "css", ".cxx": "cpp",
    ".go": "go", ".h": "c", ".hh": "cpp", ".hpp": "cpp", ".htm": "html", ".html": "html", ".java": "java",
    ".js": "javascript", ".json": "json", ".jsx": "javascriptreact", ".lua": "lua", ".md": "markdown",
    ".mjs": "javascript", ".php": "php", ".py": "python", ".pyi": "python", ".rb": "ruby", ".rs": "rust",
    ".sh": "shellscript", ".ts": "typescript", ".tsx": "typescriptreact", ".yaml": "yaml", ".yml": "yaml",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a command is told about its process."""

    environ: Mapping[str, str]
    paths: UserPaths

    @classmethod
    def of_process(cls) -> Surroundings:
        """The one place that reads the environment."""
        user_id = os.getuid() if sys.platform != "win32" else None
        return cls(dict(os.environ), UserPaths.from_environment(os.environ, Path.home(), user_id))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace, Surroundings], int] = options.run
    try:
        return run(options, Surroundings.of_process())
    except ForelookError as error:
        _complain(f"forelook: {error}")
        return exit_status(error)
    except ModuleNotFoundError as error:
        _complain(f"forelook: the package {error.name} is not installed: `forelook doctor` says what is missing")
        return EXIT_FAULT
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        with contextlib.suppress(OSError):  # whoever read our output has gone; say nothing more
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAULT


def _complain(line: str) -> None:
    print(line, file=sys.stderr)


def exit_status(error: ForelookError) -> int:
    """The exit status that tells scripts what kind of error it was."""
    kinds: tuple[tuple[type[ForelookError], int], ...] = (
        (ConfigError, EXIT_USAGE),
        (DocumentError, EXIT_DOCUMENT),
        (PrivacyError, EXIT_DOCUMENT),
        (ModelError, EXIT_MODEL),
        (EndpointError, EXIT_BACKEND),
        (ProtocolError, EXIT_BACKEND),
    )
    if error.code == ConfigError.code:  # one that came over the wire
        return EXIT_USAGE
    return next((status for kind, status in kinds if isinstance(error, kind)), EXIT_FAULT)


# --- Arguments ---------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="forelook",
        description="Private code completion on your own machine.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"forelook {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[..., int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, epilog=EXIT_CODES,
                                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
        added.set_defaults(run=run)
        return added

    _serve_arguments(command("serve", serve, "Run the backend in the foreground."))
    _complete_arguments(command("complete", complete, "Complete a file at a cursor, as an editor would."))
    doctor_parser = command("doctor", doctor, "Check what is installed, what would run, and what to do about faults.")
    _model_arguments(doctor_parser)
    doctor_parser.add_argument("--json", action="store_true", help="print one JSON object")
    for name, run, text in (
        ("status", status, "Show the running backends and their models."),
        ("stats", stats, "Show counts and latencies; never text."),
        ("stop", stop, "End the running backends."),
    ):
        added = command(name, run, text)
        _backend_arguments(added)
        added.add_argument("--json", action="store_true", help="print one JSON array")
    pool_parser = command("pool", pool, "Show, clear or locate a workspace's n-gram pool.")
    pool_parser.add_argument("action", choices=("stats", "clear", "path"))
    pool_parser.add_argument("--workspace", type=Path, default=Path(), metavar="DIR", help="default: this folder's")
    _backend_arguments(pool_parser)
    pool_parser.add_argument("--json", action="store_true", help="print one JSON array")
    return parser


def _model_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--model", metavar="PATH_OR_ID", help="a folder or a hub id; default: the starter model")
    group.add_argument("--revision", help="of a hub id: a branch, tag or commit")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    group.add_argument("--dtype", default="auto", help="auto, bfloat16, float16, float32 or float64 (default: auto)")


def _backend_arguments(parser: argparse.ArgumentParser) -> None:
    _model_arguments(parser)
    group = parser.add_argument_group("backend")
    group.add_argument("--endpoint", metavar="URL", help="unix:/PATH, ws://127.0.0.1:PORT or wss://HOST:PORT")
    group.add_argument("--token-file", type=Path, metavar="FILE", help="the token for --endpoint, mode 0600")


def _serve_arguments(parser: argparse.ArgumentParser) -> None:
    _model_arguments(parser)
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


def _complete_arguments(parser: argparse.ArgumentParser) -> None:
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
    _backend_arguments(parser)


def _position(text: str) -> tuple[int, int]:
    line, _, column = text.partition(":")
    if not (line.isdecimal() and column.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not LINE:COL, two whole numbers that count from 1")
    return int(line), int(column)


def _identity(options: argparse.Namespace) -> BackendIdentity:
    model = ModelConfig(options.model, options.revision, options.device, options.dtype)
    return BackendIdentity(model.model, model.revision, model.device, model.dtype).normalized()


# --- serve -------------------------------------------------------------------------------------------------------


def serve(options: argparse.Namespace, here: Surroundings) -> int:
    """Run the backend until it is idle, told to stop, or signalled."""
    os.umask(0o077)
    _log_to_stderr(options.log_level)

    def announce(message: dict[str, object]) -> None:
        if options.announce:
            print(json.dumps(message), flush=True)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the starter reads one line and leaves

    def listening(endpoint: Endpoint) -> None:
        announce({"listening": endpoint.description, "pid": os.getpid()})

    try:
        config = ServerConfig(
            port=options.port,
            host=options.host,
            tls_certificate=options.tls_certificate,
            tls_key=options.tls_key,
            token_file=options.token_file,
            allowed_origins=tuple(options.allow_origin),
            allowed_hosts=tuple(options.allow_host),
            idle_timeout_s=options.idle_timeout or None,
            max_connections=options.max_connections,
        )
        identity = _identity(options)
        from forelook.server.make_engine import EngineOptions, engine_factory

        engine_options = EngineOptions(
            decoding=DecodingConfig(options.window_size, options.ngram_size, options.max_candidates),
            completion=CompletionConfig(
                options.max_new_tokens,
                options.deadline_ms,
                cross_file=not options.no_cross_file,
                speculate={"auto": None, "on": True, "off": False}[options.speculate],
            ),
            pool=PoolConfig(persistent=not options.no_persistent_pool, **_given(max_tokens=options.pool_tokens)),
            autoregressive=options.autoregressive,
            left_to_right=options.left_to_right,
            keep_alive_s=ModelConfig(keep_alive_s=options.keep_alive).keep_alive_s,
        )
        factory = engine_factory(identity, engine_options, here.paths)
        from forelook.server.serve import serve as run_server

        run_server(factory, identity, here.paths, config, listening)
    except ForelookError as error:
        announce({"error": str(error)})
        raise
    return 0


def _given(**values: Any) -> dict[str, Any]:
    """The arguments that were given."""
    return {name: value for name, value in values.items() if value is not None}


def _log_to_stderr(level: str) -> None:
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=level.upper(), format=form, stream=sys.stderr)
    for name in ("uvicorn", "uvicorn.error", "websockets", "asyncio"):  # below this they log frames: users' text
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


# --- complete ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """A file and the cursor in it."""

    path: Path
    text: str
    offset: int
    language_id: str
    workspace: str


def read_source(path: Path, position: tuple[int, int], language_id: str | None) -> Source:
    """Read a file as an editor would.

    Raises:
        DocumentTextError: it cannot be read or is not UTF-8.
        PositionError: the cursor is outside it.
        PrivacyError: an ignore file or its name withholds it.
    """
    resolved = path.resolve()
    root = next((folder for folder in resolved.parents if (folder / ".git").exists()), resolved.parent)
    withheld = WorkspacePrivacy(root).reason(resolved)
    if withheld is not None:
        raise PrivacyError(f"{path} is withheld: {withheld}; editors get no completions in it either")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DocumentTextError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DocumentTextError(
            f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {error.start}; "
            "convert it, for instance with iconv"
        ) from None
    language = language_id or LANGUAGE_IDS.get(path.suffix.lower(), "plaintext")
    return Source(resolved, text, cursor_offset(text, *position), language, root.as_uri())


def cursor_offset(text: str, line: int, column: int) -> int:
    r"""The code point offset of a cursor; lines end in ``\n``, ``\r\n`` or ``\r`` only, as in LSP.

    Raises:
        PositionError: naming how many lines, or columns of the line, there are.
    """
    lines = text.replace("\r\n", "\n\n").replace("\r", "\n") if "\r" in text else text
    start, number = 0, 1
    while number < line:
        end = lines.find("\n", start)
        if end < 0:
            raise PositionError(f"line = {line} is outside the file, which has {number} lines")
        start, number = end + (2 if text.startswith("\r\n", end) else 1), number + 1
    end = lines.find("\n", start)
    length = (len(text) if end < 0 else end) - start
    if line < 1:
        raise PositionError(f"line = {line} is outside the file: lines count from 1")
    if not 1 <= column <= length + 1:
        raise PositionError(f"column = {column} is outside line {line}: its columns are 1 to {length + 1}")
    return start + column - 1


def complete(options: argparse.Namespace, here: Surroundings) -> int:
    """Complete a file at a cursor and print what comes after it."""
    source = read_source(options.file, options.at, options.language)
    CompletionConfig(options.max_new_tokens, options.deadline_ms)
    if not 1 <= options.suggestions <= protocol.MAX_SUGGESTIONS:
        raise ConfigError("suggestions", options.suggestions, f"from 1 to {protocol.MAX_SUGGESTIONS}")
    params = protocol.CompletionParams(
        uri=source.path.as_uri(),
        version=1,
        offset=source.offset,
        trigger="invoked",
        num_suggestions=options.suggestions,
        max_new_tokens=options.max_new_tokens,
        deadline_ms=options.deadline_ms,
        multi_line=options.multi_line,
    )
    ask = _complete_here if options.no_backend else _complete_over_wire
    result, status, latency_ms = ask(source, params, options, here)
    from forelook.server.report import show_completion

    show_completion(
        source.path, source.text, options.at, source.offset, result, status, latency_ms, options.json, print, _complain
    )
    return 0


Completed = tuple[protocol.CompletionResult, protocol.Status, float]


def _complete_over_wire(
    source: Source, params: protocol.CompletionParams, options: argparse.Namespace, here: Surroundings
) -> Completed:
    from forelook.server.client import connected

    with _loading_shown(options.json) as show:
        if options.endpoint is not None:
            token_file = str(options.token_file) if options.token_file else None
            endpoint = Endpoint.from_url(options.endpoint, token_file)
        else:
            show("starting the backend")
            endpoint = connect_or_spawn(_identity(options), here.paths, here.environ, timeout_s=options.timeout)
        with connected(endpoint, lambda status: show(_status_line(status))) as client:
            client.wait_until_ready(options.timeout)
            opened = protocol.DocumentOpenParams(
                source.workspace, params.uri, source.language_id, params.version, source.text
            )
            client.notify(protocol.DOCUMENT_OPEN, opened)
            started_s = time.monotonic()
            result = client.call(protocol.COMPLETION, params, options.timeout)
            return result, client.status, (time.monotonic() - started_s) * 1e3


def _complete_here(
    source: Source, params: protocol.CompletionParams, options: argparse.Namespace, here: Surroundings
) -> Completed:
    import asyncio

    from forelook.server.in_process import complete_in_process
    from forelook.server.make_engine import EngineOptions, engine_factory

    factory = engine_factory(_identity(options), EngineOptions(), here.paths)
    opened = protocol.DocumentOpenParams(source.workspace, params.uri, source.language_id, params.version, source.text)
    with _loading_shown(options.json) as show:
        return asyncio.run(
            complete_in_process(factory, opened, params, lambda s: show(_status_line(s)), options.timeout)
        )


@contextlib.contextmanager
def _loading_shown(quiet: bool) -> Iterator[Callable[[str], None]]:
    """A line about loading while it lasts, on a terminal only."""
    if quiet or not sys.stderr.isatty():
        yield lambda _line: None
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status("connecting") as line:
        yield lambda text: line.update(Text(text))


def _status_line(status: protocol.Status) -> str:
    share = f" {status.progress:.0%}" if status.progress is not None else ""
    return f"{status.state}{share} {status.message}".strip()


# --- doctor, status, stats, stop, pool ---------------------------------------------------------------------------


def doctor(options: argparse.Namespace, here: Surroundings) -> int:
    """Print every check; the exit status says whether one failed."""
    from forelook.server.doctor import examine
    from forelook.server.report import show_checks

    checks = examine(_identity(options), here.paths)
    show_checks(checks, options.json, print)
    return EXIT_FAULT if any(check.is_fault for check in checks) else 0


def _chosen_backends(options: argparse.Namespace, here: Surroundings) -> list[Endpoint]:
    """The one the options name, or all that run."""
    if options.endpoint is not None:
        return [Endpoint.from_url(options.endpoint, str(options.token_file) if options.token_file else None)]
    identity = _identity(options)
    if identity == BackendIdentity():
        return running_backends(here.paths)
    endpoint = discover(identity, here.paths)
    return [] if endpoint is None else [endpoint]


def _asked(options: argparse.Namespace, here: Surroundings, ask: Callable[[Any], dict[str, object]]) -> int:
    """Ask each chosen backend and print the answers."""
    from forelook.server.client import connected
    from forelook.server.report import show_answers

    endpoints = _chosen_backends(options, here)
    if not endpoints:
        raise BackendUnreachableError("no backend is running: an editor starts one, and so does `forelook serve`")
    answers: list[dict[str, object]] = []
    for endpoint in endpoints:
        with connected(endpoint) as client:
            answers.append({"endpoint": endpoint.description, **ask(client)})
    show_answers(answers, options.json, print)
    return 0


def status(options: argparse.Namespace, here: Surroundings) -> int:
    """Show what runs."""

    def ask(client: Any) -> dict[str, object]:
        hello: protocol.HelloResult = client.hello
        return {"pid": hello.pid, "server_version": hello.server_version, **protocol.to_json(hello.status)}

    return _asked(options, here, ask)


def stats(options: argparse.Namespace, here: Surroundings) -> int:
    """Show counts and latencies, or where nothing runs, what users did with suggestions so far."""
    if options.endpoint is None and not _chosen_backends(options, here):
        from forelook.completion.usage import UsageCounters
        from forelook.server.report import show_answers

        usage = UsageCounters(here.paths.statistics_path).to_dict()
        show_answers([{"endpoint": None, "engine": {"usage": usage}}], options.json, print)
        return 0
    return _asked(
        options, here, lambda client: protocol.to_json(client.call(protocol.STATS, protocol.Empty(), ANSWER_TIMEOUT_S))
    )


def stop(options: argparse.Namespace, here: Surroundings) -> int:
    """End the chosen backends and wait until they are gone."""
    from forelook.server.client import connected
    from forelook.server.report import show_answers

    answers: list[dict[str, object]] = []
    for endpoint in _chosen_backends(options, here):
        with connected(endpoint) as client:
            client.call(protocol.SHUTDOWN, protocol.Empty(), ANSWER_TIMEOUT_S)
        answers.append({"endpoint": endpoint.description, "pid": endpoint.pid, "state": "stopped"})
        if endpoint.lock_path is not None:
            with file_lock(Path(endpoint.lock_path), 30.0, "the backend is still ending"):
                pass
    show_answers(answers, options.json, print)
    return 0


def pool(options: argparse.Namespace, here: Surroundings) -> int:
    """Show, clear or locate a workspace's pool; a backend is started where none runs, as only it can read a pool."""
    if options.action == "path":
        print(here.paths.pools_dir)
        return 0
    if not _chosen_backends(options, here):
        connect_or_spawn(_identity(options), here.paths, here.environ)
    workspace = protocol.WorkspaceParams(options.workspace.resolve().as_uri())
    method = protocol.POOL_STATS if options.action == "stats" else protocol.POOL_CLEAR

    def ask(client: Any) -> dict[str, object]:
        client.wait_until_ready(LOADING_TIMEOUT_S)
        return protocol.to_json(client.call(method, workspace, ANSWER_TIMEOUT_S))

    return _asked(options, here, ask)


if __name__ == "__main__":
    sys.exit(main())
