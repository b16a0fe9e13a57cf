"""The ASGI application of the HTTP listener: routes, limits, and generations from their start to their answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Protocol

from starlette.types import Receive, Scope, Send

from forelook import __version__
from forelook.config import ServerConfig
from forelook.errors import (
    ContextOverflowError,
    ForelookError,
    LimitError,
    ModelError,
    QuotaError,
    RequestCancelledError,
)
from forelook.failures import log_failure
from forelook.finish_reason import FinishReason
from forelook.local.access import REVOKED_KEY, Refusal
from forelook.local.user_keys import METRICS_READER
from forelook.protocol.generation import GenerationParams, GenerationResult, ModelFacts
from forelook.protocol.messages import EngineState, Status
from forelook.server.auth import METRICS_PATH, PRINCIPAL
from forelook.server.engine import Engine
from forelook.server.http import llama_cpp, ollama, openai
from forelook.server.http.asking import Asked, Dialect, Generating
from forelook.server.http.exchange import ClientGoneError, Exchange, error_headers, parsed
from forelook.server.http.fields import CLEAN, HttpError, read
from forelook.server.http.limits import KeyLimits
from forelook.server.metrics import LIMITS, ServerMetrics
from forelook.server.prometheus import CONTENT_TYPE

logger = logging.getLogger("forelook.server")

_MODEL_PATH = "/v1/models/"
_LOADING_RETRY_S = 2.0  # chosen, not measured
_OPENAI, _LLAMA_CPP, _OLLAMA = openai.OpenAi(), llama_cpp.LlamaCpp(), ollama.Ollama()
_GENERATING: dict[str, tuple[Dialect, Generating]] = {
    "/v1/completions": (_OPENAI, openai.Completions()),
    "/infill": (_LLAMA_CPP, llama_cpp.Infill()),
    "/completion": (_LLAMA_CPP, llama_cpp.Completion()),
    "/api/generate": (_OLLAMA, ollama.Generate()),
}


class Host(Protocol):
    """The server, as far as the interfaces use it."""

    @property
    def status(self) -> Status:
        """The model's state."""
        ...

    async def engine(self) -> Engine:
        """The engine; raises ModelError."""
        ...

    def in_use(self) -> AbstractContextManager[None]:
        """While the context lasts the server is not idle."""
        ...

    def request(self, principal: str, interface: str) -> None:
        """Count a request for text; raises QuotaError."""
        ...

    def revoked(self, principal: str) -> asyncio.Event:
        """Set once a user's key is no longer valid."""
        ...

    def metrics_of(self, principal: str) -> ServerMetrics:
        """What is counted for a user."""
        ...

    async def exposition(self, principal: str) -> str:
        """A user's figures, the owner's being those of all, as Prometheus reads them."""
        ...


class HttpInterface:
    """The application.

    Args:
        host: the server.
        config: limits.
        clock: monotonic seconds.
    """

    def __init__(self, host: Host, config: ServerConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._host = host
        self._config = config
        self._clock = clock
        self._limits = KeyLimits(config, clock)
        self._routes: dict[tuple[str, str], Callable[[Exchange, str], Awaitable[None]]] = {
            ("GET", "/"): self._hello,
            ("GET", "/health"): self._health,
            ("GET", METRICS_PATH): self._metrics,
            ("GET", "/props"): partial(self._describe, llama_cpp.props),
            ("GET", "/v1/models"): partial(self._describe, openai.models),
            ("POST", "/tokenize"): self._tokenize,
            ("POST", "/detokenize"): self._detokenize,
            ("GET", "/api/tags"): partial(self._describe, ollama.tags),
            ("GET", "/api/ps"): partial(self._describe, ollama.tags),
            ("GET", "/api/version"): self._version,
            ("POST", "/api/show"): self._show,
            **{("POST", path): self._generate for path in _GENERATING},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await refuse(scope, send, Refusal(404, "the editor protocol has an address of its own"))
            return
        config, principal = self._config, scope.get(PRINCIPAL, "")
        exchange = Exchange(scope, receive, send, config.http_max_body_bytes, config.http_body_timeout_s)
        dialect = dialect_of(exchange.path)
        try:
            with self._host.in_use():
                await self._route(exchange)(exchange, principal)
        except ClientGoneError:
            pass
        except ForelookError as error:
            self._count_refusal(principal, error)
            await _answer_error(exchange, dialect, error)
        except Exception as error:  # noqa: BLE001 - edge: this request fails, the server goes on
            log_failure("an HTTP request", error)
            self._host.metrics_of(principal).internal_error()
            await _answer_error(exchange, dialect, HttpError(503, f"the server failed ({type(error).__name__})"))

    def _count_refusal(self, principal: str, error: ForelookError) -> None:
        if isinstance(error, QuotaError):
            self._host.metrics_of(principal).rejected(error.reason)
        elif as_http(error).status == 429:
            self._host.metrics_of(principal).rejected(LIMITS)

    def _route(self, exchange: Exchange) -> Callable[[Exchange, str], Awaitable[None]]:
        handler = self._routes.get(("GET" if exchange.method == "HEAD" else exchange.method, exchange.path))
        if handler is None and exchange.method == "GET" and exchange.path.startswith(_MODEL_PATH):
            handler = self._model
        if handler is not None:
            return handler
        if any(path == exchange.path for _, path in self._routes):
            raise HttpError(405, "this path has another method; see docs/http.md")
        raise HttpError(404, "there is no such path; see docs/http.md")

    # --- what is told about the model

    async def _facts(self) -> ModelFacts:
        """The model's facts once it is loaded; raises HttpError until then."""
        status = self._host.status
        engine = await self._host.engine()
        facts = engine.model_facts
        if facts is None or status.state is not EngineState.READY:
            raise HttpError(503, f"the model is not ready ({status.state.value})", retry_after_s=_LOADING_RETRY_S)
        return facts

    async def _hello(self, exchange: Exchange, principal: str) -> None:
        del principal
        await exchange.answer(200, {"name": "forelook", "version": __version__})

    async def _health(self, exchange: Exchange, principal: str) -> None:
        del principal
        if self._host.status.state is not EngineState.READY:
            raise HttpError(503, "Loading model", retry_after_s=_LOADING_RETRY_S)
        await exchange.answer(200, {"status": "ok"})

    async def _metrics(self, exchange: Exchange, principal: str) -> None:
        everyone = principal in ("", METRICS_READER)
        text = await self._host.exposition("" if everyone else principal)
        await exchange.answer_text(text, CONTENT_TYPE)

    async def _describe(self, describe: Callable[[ModelFacts], object], exchange: Exchange, principal: str) -> None:
        del principal
        await exchange.answer(200, describe(await self._facts()))

    async def _model(self, exchange: Exchange, principal: str) -> None:
        await self._describe(partial(openai.model, exchange.path.removeprefix(_MODEL_PATH)), exchange, principal)

    async def _show(self, exchange: Exchange, principal: str) -> None:
        await exchange.body()
        await self._describe(ollama.show, exchange, principal)

    async def _version(self, exchange: Exchange, principal: str) -> None:
        del principal
        await exchange.answer(200, {"version": __version__})

    # --- tokens

    async def _tokenize(self, exchange: Exchange, principal: str) -> None:
        with self._limits.admitting(principal) as usage:
            values = read(llama_cpp.TOKENIZE, await parsed(await exchange.body()))
            await self._facts()
            engine = await self._host.engine()
            with self._limits.holding(usage, exchange.num_bytes):
                ids = await asyncio.to_thread(engine.tokenize, values["content"])
                tokens: list[object] = list(ids)
                if values["with_pieces"]:
                    tokens = [{"id": token_id, "piece": engine.detokenize([token_id])} for token_id in ids]
                await exchange.answer(200, {"tokens": tokens})

    async def _detokenize(self, exchange: Exchange, principal: str) -> None:
        with self._limits.admitting(principal):
            values = read(llama_cpp.DETOKENIZE, await parsed(await exchange.body()))
            await self._facts()
            engine = await self._host.engine()
            await exchange.answer(200, {"content": await asyncio.to_thread(engine.detokenize, values["tokens"])})

    # --- generations

    async def _generate(self, exchange: Exchange, principal: str) -> None:
        dialect, endpoint = _GENERATING[exchange.path]
        interface, started_s = dialect.name, self._clock()
        self._host.request(principal, interface)
        with self._limits.admitting(principal) as usage:
            body = await parsed(await exchange.body())
            values = read(endpoint.table, body)
            if exchange.headers.get("x-forelook-clean", "").strip().lower() in ("true", "1"):
                values[CLEAN.name] = True
            asked = endpoint.asked(values, await self._facts())
            with self._limits.holding(usage, exchange.num_bytes):
                outcome = "failed"
                try:
                    outcome = await self._answer(exchange, dialect, asked, principal)
                finally:
                    seconds = self._clock() - started_s if outcome == "answered" else None
                    self._host.metrics_of(principal).answered(interface, outcome, seconds)

    async def _answer(self, exchange: Exchange, dialect: Dialect, asked: Asked, principal: str) -> str:
        """Generate until the answer is sent, its client has gone or its key is revoked; returns which."""
        engine = await self._host.engine()
        answering = asyncio.create_task(_answer_all(exchange, dialect, asked, engine, principal))
        leaving = asyncio.create_task(exchange.disconnected())
        revocation = asyncio.create_task(self._host.revoked(principal).wait())
        outcome = "answered"
        try:
            await asyncio.wait((answering, leaving, revocation), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            revocation.cancel()
            if not answering.done():
                outcome = "revoked" if revocation.done() else "left"
                answering.cancel()
            try:
                await answering
            except (asyncio.CancelledError, ClientGoneError):
                outcome = outcome if outcome == "revoked" else "left"
        if outcome == "revoked":
            error = HttpError(401, REVOKED_KEY)
            if not exchange.has_begun:
                raise error
            with contextlib.suppress(ClientGoneError):
                await exchange.piece(dialect.stream_error(error), is_last=True)
        return outcome


async def _answer_all(exchange: Exchange, dialect: Dialect, asked: Asked, engine: Engine, principal: str) -> None:
    """Run the generations of a request and send their answers; cancelling this stops the device within a step."""
    results: list[GenerationResult] = []
    for index, params in enumerate(asked.generations):
        running = _Running(engine, principal, params)
        try:
            async for text in running.pieces():
                if asked.streams:
                    await exchange.stream(asked.answers.content_type, asked.answers.chunk(index, text))
        except ForelookError as error:
            if not exchange.has_begun:
                raise
            await exchange.piece(dialect.stream_error(as_http(error)), is_last=True)
            return
        finally:
            running.cancel()
        results.append(running.result)
        if asked.streams:
            await exchange.stream(asked.answers.content_type, asked.answers.end(index, running.result))
    if asked.streams:
        await exchange.piece(asked.answers.close(results), is_last=True)
    else:
        await exchange.answer(200, asked.answers.whole(results))


class _Running:
    """One generation: what the engine's thread says, on the event loop."""

    def __init__(self, engine: Engine, principal: str, params: GenerationParams) -> None:
        loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[str | GenerationResult | ForelookError] = asyncio.Queue()

        def put(event: str | GenerationResult | ForelookError) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed
                loop.call_soon_threadsafe(self._events.put_nowait, event)

        self._handle = engine.generate(principal, params, put, put)
        self.result = GenerationResult("", FinishReason.CANCELLED)

    async def pieces(self) -> AsyncIterator[str]:
        """The pieces of the output; ``result`` is set once they end.

        Raises:
            ForelookError: the generation failed.
        """
        while True:
            event = await self._events.get()
            if isinstance(event, GenerationResult):
                self.result = event
                return
            if isinstance(event, ForelookError):
                raise event
            yield event

    def cancel(self) -> None:
        """Stop it, if it still runs."""
        self._handle.cancel()


def dialect_of(path: str) -> Dialect:
    """How errors of a path look; those of unknown paths look like OpenAI's."""
    if path in _GENERATING:
        return _GENERATING[path][0]
    if path.startswith("/api/"):
        return _OLLAMA
    return _LLAMA_CPP if path in ("/health", "/props", "/tokenize", "/detokenize") else _OPENAI


def as_http(error: ForelookError) -> HttpError:
    """An error of the engine as HTTP says it."""
    if isinstance(error, HttpError):
        return error
    if isinstance(error, ContextOverflowError):
        return HttpError(400, str(error), field="prompt")
    if isinstance(error, LimitError):
        return HttpError(429, str(error), retry_after_s=error.retry_after_s if isinstance(error, QuotaError) else 1.0)
    if isinstance(error, ModelError):
        return HttpError(503, str(error), retry_after_s=_LOADING_RETRY_S)
    is_cancelled = isinstance(error, RequestCancelledError)
    return HttpError(503, "the request was cancelled; send it again" if is_cancelled else str(error), retry_after_s=1.0)


async def _answer_error(exchange: Exchange, dialect: Dialect, error: ForelookError) -> None:
    if exchange.has_begun:
        return  # half an answer was sent: only closing the connection is left, which the web server does
    found = as_http(error)
    with contextlib.suppress(ClientGoneError):
        await exchange.answer(found.status, dialect.error(found), error_headers(found))


async def refuse(scope: Scope, send: Send, refusal: Refusal) -> None:
    """Answer a request that the access policy refuses."""
    if scope["type"] != "http":
        await send({"type": "websocket.close", "code": 1008, "reason": refusal.reason})
        return

    async def nothing() -> dict[str, str]:  # the body is not read
        return {"type": "http.disconnect"}

    exchange = Exchange(scope, nothing, send, 0, 0.0)
    await _answer_error(exchange, dialect_of(exchange.path), HttpError(refusal.status, refusal.reason))
