"""One first start of a model, in a process of its own: to its first answer, or its parts alone.

    python -m bench.first_suggestion engine|parts MODEL DTYPE

The document is a source file of Forelook, with the cursor at the end of a line in its middle. The last line is JSON.
"""

from __future__ import annotations

import json
import queue
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from forelook.completion.completer import Completer
from forelook.completion.document_store import Document
from forelook.config import EngineConfig
from forelook.decoding.drafting.drafter import NO_DRAFTS
from forelook.decoding.limits import Limits
from forelook.decoding.loop import decode
from forelook.decoding.request import DecodeRequest
from forelook.engine_factory import engine_factory
from forelook.errors import ForelookError
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.local.identity import UserPaths
from forelook.model.loading import load_model
from forelook.protocol.messages import CompletionParams, CompletionResult, EngineState, Status, TriggerKind

from bench.results import REPOSITORY

TIMEOUT_S = 900.0
SOURCE = REPOSITORY / "backend" / "forelook" / "text_edits.py"
MAX_NEW_TOKENS = 8


def _document() -> tuple[str, int]:
    text = SOURCE.read_text("utf-8")
    return text, text.index("\n", len(text) // 2)


def time_parts(model_name: str | None, dtype: str) -> dict[str, float]:
    """Return seconds to load the model and to prefill the prompt once everything is warm, and their processor time."""
    text, offset = _document()
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    model = load_model(model_name, dtype=dtype)
    load_s, load_cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    prepared = Completer(model, EngineConfig()).prepare(
        Document(WorkspaceKey("", "file:///w"), DocumentKey(1, "file:///w/a.py"), "python", 1, text), offset
    )
    sequence = model.new_sequence()
    times: list[tuple[float, float]] = []
    for _ in range(3):
        sequence.truncate(0)
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        for _ in decode(DecodeRequest(prepared.ids, Limits(1)), sequence, NO_DRAFTS):
            pass
        times.append((time.perf_counter() - started_s, time.process_time() - started_cpu_s))
    return {
        "load_s": load_s,
        "prefill_s": min(times)[0],
        "parts_cpu_s": load_cpu_s + min(cpu_s for _, cpu_s in times),
        "prompt_tokens": len(prepared.ids),
    }


def time_engine(model_name: str | None, dtype: str) -> dict[str, Any]:
    """Return seconds from an engine's start to its first answer, with folders that are empty."""
    text, offset = _document()
    statuses: queue.SimpleQueue[Status] = queue.SimpleQueue()
    answers: queue.SimpleQueue[CompletionResult | ForelookError] = queue.SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="fl-") as name:
        folder = Path(name)
        paths = UserPaths(folder / "run", folder / "state", folder / "cache", folder / "short")
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        engine = engine_factory(EngineConfig(model=model_name, dtype=dtype, left_to_right=True), paths)(statuses.put)
        engine.start()
        key = DocumentKey(1, "file:///w/a.py")
        engine.open_document(WorkspaceKey("", "file:///w"), key, "python", 1, text)
        while (status := statuses.get(timeout=TIMEOUT_S)).state is not EngineState.READY:
            if status.state is EngineState.ERROR:
                raise SystemExit(status.message)
        ready_s = time.perf_counter() - started_s
        request = CompletionParams(
            key.uri, 1, offset, TriggerKind.INVOKED, max_new_tokens=MAX_NEW_TOKENS, deadline_ms=600_000
        )
        engine.submit(key, request, lambda _text: None, answers.put)
        answer = answers.get(timeout=TIMEOUT_S)
        answered_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
        engine.close()
    if isinstance(answer, ForelookError):
        raise SystemExit(str(answer))
    stats = answer.stats
    return {
        "ready_s": ready_s,
        "answered_s": answered_s,
        "cpu_s": cpu_s,
        "prefill_in_request_s": stats.prefill_ms / 1e3,
        "decode_s": stats.decode_ms / 1e3,
        "generated_tokens": stats.num_generated_tokens,
    }


def main() -> None:
    what, model_name, dtype = sys.argv[1:]
    run = time_engine if what == "engine" else time_parts
    print(json.dumps(run(model_name or None, dtype)))


if __name__ == "__main__":
    main()
