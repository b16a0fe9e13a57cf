"""Stands in for llama.cpp's server: answers what the tests' arithmetic needs, and keeps a cache of one prompt.

With ``--spec-type`` half of the tokens were drafts. A model named ``broken`` makes it end at once.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

OPTIONS = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=False))
CACHED: list[int] = []
PROMPT_MS, STEP_MS = 10.0, 2.0


def answer(request: dict[str, Any]) -> dict[str, Any]:
    prompt, count = request["prompt"], request["n_predict"]
    common = 0
    if request["cache_prompt"]:
        while common < min(len(CACHED), len(prompt) - 1) and CACHED[common] == prompt[common]:
            common += 1
    CACHED[:] = prompt
    timings: dict[str, Any] = {"prompt_n": len(prompt) - common, "prompt_ms": PROMPT_MS, "predicted_n": count}
    steps = count - 1
    if "--spec-type" in OPTIONS:
        timings |= {"draft_n": count, "draft_n_accepted": steps // 2}
        steps -= steps // 2
    timings["predicted_ms"] = STEP_MS * steps
    assert (request["samplers"], request["top_k"]) == (["top_k"], 1), "not greedy"
    return {"tokens": list(range(5, 5 + count)), "timings": timings}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._send({"status": "ok"})

    def do_POST(self) -> None:
        self._send(answer(json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

    def _send(self, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_arguments: object) -> None:
        pass


if __name__ == "__main__":
    if "broken" in OPTIONS["--model"]:
        sys.exit("error: failed to load model")
    HTTPServer((OPTIONS["--host"], int(OPTIONS["--port"])), Handler).serve_forever()
