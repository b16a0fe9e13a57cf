"""The comparison with other engines: who is compared with whom, the server's protocol, and the result's shape."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import bench_peers
import pytest
import torch
from bench import tables
from bench.arguments import LLAMA_SERVER
from bench.llama_server import LlamaServerError, quantized, serving
from bench.methods import Run
from bench.peers import LLAMA_CPP, METHODS, best_ratios, figures, load_contestants, plain_of
from bench.transformers_model import transformers_model
from forelook.decoding.layout import causal_layout
from forelook.errors import UnsupportedArchitectureError
from forelook.model.loading import load_model

from tests.model.checkpoints import build_reference
from tests.model.gguf_files import write_model

FAKE = Path(__file__).with_name("fake_llama_server.py")


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """Executables as llama.cpp's build has them, side by side."""
    folder = tmp_path / "bin"
    folder.mkdir()
    path = folder / "llama-server"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$@"\n')
    (folder / "llama-quantize").write_text('#!/bin/sh\necho "$4" > "$3"\n')
    for each in folder.iterdir():
        each.chmod(0o700)
    return path


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_model(build_reference("grouped_queries"), path)
    return path


def test_each_method_is_compared_with_its_own_plain_decoding() -> None:
    assert plain_of("forelook_int8") == plain_of("forelook_int8_warm") == "autoregressive_int8"
    assert plain_of("hf_prompt_lookup") == "hf_greedy"
    assert plain_of("llama_cpp_q4_1_ngram_mod") == "llama_cpp_q4_1"
    assert len(LLAMA_CPP) == 12
    assert {plain_of(name) for name in METHODS} <= set(METHODS)


def test_figures_are_of_decoding_alone() -> None:
    first = Run((1, 2, 3, 4, 5), total_s=3.0, first_s=1.0, num_steps=3)
    runs = {
        "forelook_bf16": [first, Run((1,), 9.0, 9.0, 1)],
        "autoregressive_bf16": [Run((1, 2, 3, 4, 5), 5.0, 1.0, 5), Run((2,), 9.0, 9.0, 1)],
    }
    row = figures("forelook_bf16", runs, range(2))
    assert (row["tokens_per_s"], row["tokens_per_step"], row["ms_per_step"]) == (2.0, 2.0, 1000.0)
    assert row["identical_share"] == 0.5
    assert figures("forelook_bf16", {"forelook_bf16": [first]}, [0])["identical_share"] is None


def test_the_best_of_each_engine_is_compared() -> None:
    speeds = {"forelook_bf16": 20.0, "forelook_int8": 30.0, "forelook_int8_warm": 60.0, "autoregressive_int8": 90.0}
    speeds |= {"llama_cpp_q8_0": 15.0, "llama_cpp_bf16_ngram_mod": 20.0}
    ratios = best_ratios({name: {"tokens_per_s": speed} for name, speed in speeds.items()})
    assert ratios == {"forelook / best of llama_cpp": 1.5, "forelook_warm / best of llama_cpp": 3.0}


def test_the_servers_own_clock_counts_and_it_is_ended(server: Path, gguf: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"num_threads": 1, "max_positions": 64}
    with serving(server, gguf, **options) as plain:
        run = plain.run([3, 4], 5)
        assert run.token_ids == (5, 6, 7, 8, 9)
        assert (run.first_s, run.total_s, run.num_steps) == (pytest.approx(0.01), pytest.approx(0.018), 5)
        assert plain.prefill_s([3] * 9) == pytest.approx(0.01)
        assert plain.step_s([3, 4, 5], [7]) == pytest.approx(0.002)
        assert plain.step_s([3, 4, 5], [7, 8, 9]) == pytest.approx(0.01)
        port = plain._connection._http.port
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "the server is still there"
    with serving(server, gguf, **options, spec_type="ngram-mod") as speculating:
        assert speculating.run([3, 4], 5).num_steps == 3


def test_a_server_that_ends_is_named_with_the_end_of_its_log(server: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="failed to load model"),
        serving(server, tmp_path / "broken.gguf", num_threads=1, max_positions=64),
    ):
        pass


def test_a_format_that_the_model_has_is_used_as_it_is(server: Path, gguf: Path, tmp_path: Path) -> None:
    made = quantized(gguf, "q8_0", server, tmp_path)
    assert made != gguf
    assert made.read_text().strip() == "Q8_0"
    own = tmp_path / "own.gguf"
    write_model(build_reference("llama"), own, kind="BF16")
    assert quantized(own, "bf16", server, tmp_path) == own
    (server.parent / "llama-quantize").unlink()
    with pytest.raises(LlamaServerError, match="llama-quantize"):
        quantized(gguf, "q4_1", server, tmp_path)


def test_transformers_runs_the_weights_of_a_gguf_file(gguf: Path, tmp_path: Path) -> None:
    ids = [3, 9, 4, 11, 7]
    expected = load_model(str(gguf), device="cpu", dtype="float32").new_sequence().forward(causal_layout(ids, 0))
    theirs = transformers_model(str(gguf), torch.float32, torch.device("cpu"))
    with torch.inference_mode():
        torch.testing.assert_close(theirs(torch.tensor([ids])).logits[:, -1], expected, atol=1e-4, rtol=0)
    other = tmp_path / "other.gguf"
    write_model(build_reference("qwen3"), other)
    with pytest.raises(UnsupportedArchitectureError, match="qwen3"):
        transformers_model(str(other), torch.float32, torch.device("cpu"))


def plan_of(*options: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "argv", ["bench_peers.py", "--smoke", *options])
    return bench_peers.make_plan(bench_peers.parse_arguments())


def test_all_engines_take_part_in_one_run(
    server: Path, gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "a.py").write_text("".join(f"value_{number} = compute({number})\n" for number in range(40)))
    names = ["autoregressive_bf16", "forelook_bf16", "hf_early_exit", "llama_cpp_bf16", "llama_cpp_q8_0_ngram_mod"]
    plan = plan_of(
        *("--model", str(gguf), "--llama-server", str(server), "--workspace", str(sources), "--methods", *names),
        monkeypatch=monkeypatch,
    )
    result = bench_peers.measure(plan)
    assert result["left_out"] == {}
    assert set(result["methods"]) == {*names, "forelook_bf16_warm"}
    figures_of = {"tokens_per_s", "tokens_per_step", "ms_per_step", "identical_share"}
    assert all(figures_of <= row.keys() for row in result["methods"].values())
    assert result["methods"]["forelook_bf16"]["identical_share"] == 1.0
    assert set(result["steps"]) == set(result["prefill"]) == {"forelook_bf16", "hf_greedy", "llama_cpp_bf16"}
    assert set(result["steps"]["llama_cpp_bf16"]) == {"1", "4"}
    assert set(result["prefill"]["forelook_bf16"]) == {"32"}
    assert result["read_weights_ms"]["forelook_bf16"] > 0
    page = "\n".join(tables.peers(result))
    assert "llama_cpp_q8_0_ngram_mod" in page
    bench_peers.plot(tmp_path / "plot.png", result)
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_what_cannot_take_part_is_left_out_with_its_reason(
    tmp_path: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(LLAMA_SERVER, "no-such-program")
    plan = plan_of("--model", str(gguf), "--methods", "llama_cpp_q8_0", monkeypatch=monkeypatch)
    with ExitStack() as stack:
        found = load_contestants(plan, stack, tmp_path)
    assert found.methods == {}
    assert "--llama-server" in found.skipped["llama_cpp_q8_0"]
    with pytest.raises(SystemExit, match="none of the methods"):
        bench_peers.measure(plan)
    assert "left out: llama_cpp_q8_0" in capsys.readouterr().err


@pytest.mark.slow
def test_the_smoke_run_ends_with_the_promised_object(repository: Path) -> None:
    command = [sys.executable, "scripts/bench_peers.py", "--smoke"]
    done = subprocess.run(
        command, cwd=repository, capture_output=True, text=True, check=False, env=os.environ, timeout=280
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert {"model", "machine", "commit", "methods", "steps", "prefill"} <= result.keys()
    assert result["methods"]["hf_prompt_lookup"]["identical_share"] is not None
