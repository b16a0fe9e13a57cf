"""A notification with 20,000 edits of a text of 2 MB costs the language server little more than reading it does."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

import pytest

from tests.lsp.direct import open_document, start

NUM_EDITS = 20_000
LINE = "    value = compute_something(first_argument, second_argument)  # nöte {:05d} about the value here .....\n"
MAX_RATIO = 5.0  # of the CPU time that json takes for the message; one edit after the other is a thousand times slower


def cpu_s(call: Callable[[], object]) -> float:
    started_s = time.thread_time()
    call()
    return time.thread_time() - started_s


@pytest.mark.parametrize("text", ["result", "two\nlines"])
@pytest.mark.parametrize("order", ["ascending", "descending"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_20000_edits_cost_a_few_times_what_reading_the_message_costs(text: str, order: str, ascii_only: bool) -> None:
    line = LINE.replace("ö", "o") if ascii_only else LINE
    before = "".join(map(line.format, range(NUM_EDITS)))
    step = 1 + text.count("\n") if order == "ascending" else 1
    numbers = range(0, step * NUM_EDITS, step) if order == "ascending" else range(NUM_EDITS - 1, -1, -1)
    changes = [
        {"range": {"start": {"line": n, "character": 4}, "end": {"line": n, "character": 9}}, "text": text}
        for n in numbers
    ]

    async def measure() -> None:
        server, _ = start()
        times = []
        for attempt in range(3):
            uri = f"file:///{attempt}.py"
            open_document(server, uri, before)
            params = {"textDocument": {"uri": uri, "version": 2}, "contentChanges": changes}
            method = "textDocument/didChange"
            body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode()
            reading_s = cpu_s(lambda body=body: json.loads(body))
            times.append((reading_s, cpu_s(lambda body=body: server.protocol.receive(body))))
            assert server.window.mirror.documents[uri].text == before.replace("value =", f"{text} =")
        reading_s, handling_s = (min(column) for column in zip(*times, strict=True))
        ratio = handling_s / reading_s
        print(f"{handling_s * 1e3:.0f} ms of CPU, {ratio:.1f} times json.loads ({reading_s * 1e3:.0f} ms)")
        assert ratio <= MAX_RATIO
        server.window.suggestions.close()

    asyncio.run(measure())
