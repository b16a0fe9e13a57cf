"""llama.vim's requests to two servers in turns, and the default model as the file that another server reads."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from bench import tables
from bench.goals import judged_goals
from bench.http_documents import LLAMA_VIM_LINES, NUM_KEYS, places
from bench.http_measures import replay
from bench.http_servers import Server, alone
from bench.merged_gguf import write_merged
from forelook.model.loading import load_model

from tests.model.adapters import make_adapter
from tests.model.checkpoints import build_reference
from tests.model.gguf_files import write_model
from tests.model.test_adapter import assert_close, ids_of
from tests.model.test_gguf import IDS, logits


@contextmanager
def answering(content: str, tokens: int, seconds: float, seen: list[dict[str, Any]]) -> Iterator[Server]:
    """A server that answers every key with one text after so long, and warming at once."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append(body)
            answer = {"content": content, "timings/predicted_n": tokens}
            if body["n_predict"] == 0:
                answer = {}
            else:
                time.sleep(seconds)
            data = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        yield Server("127.0.0.1", listener.server_address[1])
        listener.shutdown()


def test_servers_get_the_same_requests_of_llama_vim_and_are_compared_by_what_they_take() -> None:
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    documents = list(places(3, lines=LLAMA_VIM_LINES))
    with answering("a", 10, 0.005, ours) as first, answering("b", 20, 0.1, theirs) as second:
        found = replay({"forelook": first, "llama-server": second}, documents)
    assert ours == theirs
    assert [body["n_predict"] for body in ours] == ([0] + [128] * NUM_KEYS) * 3
    assert [body["prompt"] for body in ours[1 : 1 + NUM_KEYS]] == [
        documents[0].after_key(key).line for key in range(NUM_KEYS)
    ]
    assert all(body["t_max_predict_ms"] == 1000 for body in ours if body["n_predict"])
    # the first document finds caches empty and connections closed, so it does not count
    assert found["servers"]["forelook"]["requests"] == 2 * NUM_KEYS
    assert found["servers"]["llama-server"]["tokens"] == 20
    assert 5 < found["servers"]["forelook"]["p50_ms"] < found["servers"]["llama-server"]["p50_ms"] / 2
    assert found["ratios"]["llama-server"]["p50_ms"] > 2
    assert found["same_answers_as_last"] == {"forelook": 0, "llama-server": 1}
    result = {"peers": found}
    assert next(reached for _, _, reached in judged_goals("http-peers", result)) is True
    page = "\n".join(tables.http_peers(result))
    ratio = found["ratios"]["llama-server"]
    assert f"| {ratio['p50_ms']:.2f}× | {ratio['p95_ms']:.2f}× | {ratio['ms_per_token']:.2f}× |" in page


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the state of a process in /proc")
def test_the_other_servers_processes_halt_while_one_is_asked() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            first, other = Server("127.0.0.1", 1), Server("127.0.0.1", 2, pid=process.pid)
            with alone(first, [first, other]):
                assert is_halted(process.pid, within_s=10)
            assert not is_halted(process.pid, within_s=0.1)
            with alone(other, [first, other]):
                assert not is_halted(process.pid, within_s=0.1)
        finally:
            process.kill()


def is_halted(pid: int, within_s: float) -> bool:
    """Whether a process halts, or is halted already, within a time: it does so a moment after the signal."""
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
            return True
        time.sleep(0.01)
    return False


def test_cursors_have_as_many_lines_around_them_as_llama_vim_sends() -> None:
    num_before = [len(place.before.splitlines()) for place in places(40, lines=(60, 20))]
    num_after = [len(place.after.splitlines()) for place in places(40, lines=(60, 20))]
    assert max(num_before) == 60
    assert max(num_after) == 20
    assert LLAMA_VIM_LINES == (256, 64)


def test_one_file_has_the_bases_weights_with_the_adapter_merged_and_its_tokens_named(tmp_path: Path) -> None:
    base, adapter, target = tmp_path / "base.gguf", tmp_path / "adapter", tmp_path / "merged.gguf"
    reference = build_reference("tied_head", num_key_value_heads=2)
    kinds = [3 if token_id in (0, 1, 5, 7, 8, 9) else 1 for token_id in range(reference.config.vocab_size)]
    model = write_model(reference, base, metadata={"tokenizer.ggml.token_type": kinds})
    config = ids_of(0, 5, 9)
    names = {"<fim_prefix>": 5, "<fim_suffix>": 9, "<fim_middle>": 7, "<EOT>": 8}
    config["forelook"] |= {"tokens": names, "eos_token_ids": [3]}
    make_adapter(model, adapter, rows=(0, 5, 9), config=config)
    write_merged(base, adapter, target)
    merged = load_model(str(target), device="cpu", dtype="float32")
    found = logits(merged, IDS)
    with torch.no_grad():
        expected = model(torch.tensor([IDS])).logits[0]
    torch.testing.assert_close(found, expected, atol=8e-2, rtol=1e-2)  # matrices are in float16
    assert_close(logits(load_model(str(base), adapter=adapter, device="cpu", dtype="float32"), IDS), model)
    assert {name: merged.tokenizer.token_id(name) for name in names} == names
    assert 3 in merged.stop_token_ids


@pytest.mark.parametrize("options", [(), ("--llama-server", "no-such-program")], ids=["none here", "a wrong one"])
def test_a_comparison_without_the_other_server_says_what_to_give(options: tuple[str, ...], repository: Path) -> None:
    command = [sys.executable, "scripts/bench_http.py", "--only", "peers", *options]
    done = subprocess.run(command, cwd=repository, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True,
                          check=False, timeout=120)  # fmt: skip
    assert done.returncode == 2
    assert "needs llama.cpp's server" in done.stderr
    assert "--llama-server PROGRAM" in done.stderr
