"""``forelook complete``: a file at a cursor, as an editor would ask."""

from __future__ import annotations

import argparse
import contextlib
import queue
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from forelook.commands.command_context import CommandContext, given_endpoint, identity_of, left_to_right_of
from forelook.commands.output import Answer, Source, show_completion
from forelook.config import EngineConfig
from forelook.errors import (
    BackendUnreachableError,
    DocumentTextError,
    ForelookError,
    ModelChangedError,
    ModelError,
    PositionError,
    PrivacyError,
)
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.languages import language_id_of
from forelook.local.endpoint import Endpoint
from forelook.local.spawn import connect_or_spawn
from forelook.privacy.content import secret_reason
from forelook.privacy.repository import project_of, workspace_of
from forelook.privacy.rules import WorkspacePrivacy
from forelook.protocol import messages
from forelook.settings.rows import Effect, as_json

if TYPE_CHECKING:
    from forelook.server.engine import EngineFactory


def read_source(path: Path, position: tuple[int, int], language_id: str | None) -> Source:
    """Read a file as an editor would.

    Raises:
        DocumentTextError: it cannot be read or is not UTF-8.
        PositionError: the cursor is outside it.
        PrivacyError: an ignore file, the secrets list or a secret in it excludes it.
    """
    resolved = path.resolve()
    root = project_of(resolved)
    excluded = WorkspacePrivacy(root).reason(resolved)
    if excluded is not None:
        raise PrivacyError(_refusal(path, excluded))
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DocumentTextError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DocumentTextError(
            f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {error.start}; "
            "convert it, for example with iconv"
        ) from None
    excluded = secret_reason(text)
    if excluded is not None:
        raise PrivacyError(_refusal(path, excluded))
    language = language_id or language_id_of(path.suffix)
    return Source(resolved, text, cursor_offset(text, *position), language, workspace_of(root))


def _refusal(path: Path, excluded: str) -> str:
    return f"{path} is excluded ({excluded}); completions are disabled for it in editors too"


def cursor_offset(text: str, line: int, column: int) -> int:
    r"""The code point offset of a cursor; lines end in ``\n``, ``\r\n`` or ``\r`` only, as in LSP.

    Raises:
        PositionError: the cursor is outside the text; the message says how many lines or columns it has.
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
        raise PositionError(f"line = {line} is outside the file; lines count from 1")
    if not 1 <= column <= length + 1:
        raise PositionError(f"column = {column} is outside line {line}; its columns are 1 to {length + 1}")
    return start + column - 1


def complete(options: argparse.Namespace, context: CommandContext) -> int:
    """Complete a file at a cursor and print the suggestions."""
    source = read_source(options.file, options.at, options.language)
    params = messages.CompletionParams(
        uri=source.path.as_uri(),
        version=1,
        offset=source.offset,
        trigger=messages.TriggerKind.INVOKED,
        num_suggestions=options.num_suggestions,
        max_new_tokens=options.max_new_tokens,
        deadline_ms=options.deadline_ms,
        multi_line=messages.MultiLine(options.multi_line),
    )
    ask = _complete_here if options.no_backend else _complete_over_wire
    answer = ask(source, params, options, context)
    show_completion(source, options.at, answer, options.json)
    return 0


def _complete_over_wire(
    source: Source, params: messages.CompletionParams, options: argparse.Namespace, context: CommandContext
) -> Answer:
    with _loading_shown(options.json) as show:
        endpoint = given_endpoint(options)
        if endpoint is not None:
            return _ask(endpoint, source, params, show, options.timeout)

        def started() -> Endpoint:
            show("starting the backend")
            return connect_or_spawn(
                identity_of(options),
                context.paths,
                context.environ,
                settings=as_json(EngineConfig(left_to_right=left_to_right_of(options)), (Effect.RELOAD,)),
                timeout_s=options.timeout,
            )

        try:
            return _ask(started(), source, params, show, options.timeout)
        except ModelChangedError:
            return _ask(started(), source, params, show, options.timeout)  # the next backend loads the changed files


def _ask(
    endpoint: Endpoint,
    source: Source,
    params: messages.CompletionParams,
    show: Callable[[str], None],
    timeout_s: float,
) -> Answer:
    from forelook.commands.client import connected

    with connected(endpoint, lambda status: show(_status_line(status))) as client:
        client.wait_until_ready(timeout_s)
        opened = messages.DocumentOpenParams(
            source.workspace, params.uri, source.language_id, params.version, source.text
        )
        client.notify(messages.DOCUMENT_OPEN, opened)
        started_s = time.monotonic()
        result = client.call(messages.COMPLETION, params, timeout_s)
        return Answer(result, client.status, (time.monotonic() - started_s) * 1e3)


def _complete_here(
    source: Source, params: messages.CompletionParams, options: argparse.Namespace, context: CommandContext
) -> Answer:
    from forelook.engine_factory import engine_factory

    config = EngineConfig(**asdict(identity_of(options)), left_to_right=left_to_right_of(options))
    factory = engine_factory(config, context.paths)
    with _loading_shown(options.json) as show:
        return complete_in_process(factory, source, params, lambda s: show(_status_line(s)), options.timeout)


def complete_in_process(
    factory: EngineFactory,
    source: Source,
    params: messages.CompletionParams,
    on_status: Callable[[messages.Status], None],
    timeout_s: float,
) -> Answer:
    """Load the model in this process and complete.

    Args:
        factory: makes the engine.
        source: the document.
        params: how to complete it.
        on_status: called with the engine's status while it loads.
        timeout_s: for loading and completing together.

    Raises:
        BackendUnreachableError: no answer in time; the engine's thread, a daemon, ends with the process.
        ForelookError: the model cannot be loaded, or the request failed.
    """
    deadline_s = time.monotonic() + timeout_s
    statuses: queue.SimpleQueue[messages.Status] = queue.SimpleQueue()
    outcomes: queue.SimpleQueue[messages.CompletionResult | ForelookError] = queue.SimpleQueue()
    engine = factory(statuses.put)
    engine.start()
    try:
        while (status := statuses.get(timeout=_seconds_until(deadline_s))).state is not messages.EngineState.READY:
            on_status(status)
            if status.state is messages.EngineState.ERROR:
                raise ModelError(status.message)
        key = DocumentKey(1, params.uri)
        engine.open_document(WorkspaceKey("", source.workspace), key, source.language_id, params.version, source.text)
        started_s = time.monotonic()
        engine.submit(key, params, lambda _text: None, outcomes.put)
        outcome = outcomes.get(timeout=_seconds_until(deadline_s))
        latency_ms = (time.monotonic() - started_s) * 1e3
    except queue.Empty as error:
        raise BackendUnreachableError(f"the model did not load and answer within {timeout_s:g} s") from error
    engine.close()
    if isinstance(outcome, ForelookError):
        raise outcome
    return Answer(outcome, status, latency_ms)


def _seconds_until(deadline_s: float) -> float:
    return max(0.0, deadline_s - time.monotonic())


@contextlib.contextmanager
def _loading_shown(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show progress on one line of a terminal while the context lasts; in a pipe show nothing."""
    if quiet or not sys.stderr.isatty():
        yield lambda _line: None
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status("connecting") as line:
        yield lambda text: line.update(Text(text))


def _status_line(status: messages.Status) -> str:
    share = f" {status.progress:.0%}" if status.progress is not None else ""
    return f"{status.state.value}{share} {status.message}".strip()
