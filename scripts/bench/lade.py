"""The authors' own lookahead decoding as a method: their code in an interpreter of its own, on the same weights."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from forelook.decoding.lookahead.published import PublishedSettings
from forelook.errors import UnsupportedArchitectureError
from safetensors.torch import save_file

from bench.datasets import BenchPrompt
from bench.decoding import Comparison
from bench.methods import Method, OurMethods, Run
from bench.models import BenchModel
from bench.summary import median_interval
from bench.transformers_model import plain_fields, transformers_model

GREEDY = "autoregressive"
THEIR_GREEDY = "hf_greedy_4_36"
"""Greedy decoding of the transformers that the authors' code needs."""
WORKER = Path(__file__).with_name("lade_worker.py")
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
_END_TIMEOUT_S = 20.0


class LadeError(RuntimeError):
    """The worker ended before it answered."""


@dataclass(frozen=True)
class Window:
    """One setting of lookahead decoding as published.

    Attributes:
        settings: W, N, G and whether the prompt is the reference.
    """

    settings: PublishedSettings

    @property
    def wng(self) -> tuple[int, int, int]:
        return self.settings.window_size, self.settings.ngram_size, self.settings.max_candidates

    @property
    def suffix(self) -> str:
        """Ends the names of the methods with this setting."""
        return "_".join([*map(str, self.wng), *(["prompt"] if self.settings.prompt_as_reference else [])])


def windows(settings: Sequence[Sequence[int]]) -> list[Window]:
    """Return each W, N, G without and with the prompt as reference."""
    return [
        Window(PublishedSettings(*setting, prompt_as_reference=reference))
        for setting in settings
        for reference in (False, True)
    ]


def save_for_lade(bench_model: BenchModel, folder: Path) -> None:
    """Write a model as a folder that transformers 4.36 loads: the weights that Forelook runs, in float32.

    Raises:
        UnsupportedArchitectureError: no plain Llama.
    """
    config, name = bench_model.model.config, bench_model.model.name
    fields = plain_fields(config, name)
    if config.model_type != "llama" or config.head_size * config.num_heads != config.hidden_size:
        raise UnsupportedArchitectureError(f"{name}: {config.model_type}; lade runs plain llama only")
    fields = {key: value for key, value in fields.items() if key not in ("head_dim", "bos_token_id", "eos_token_id")}
    theirs = transformers_model(bench_model.source, torch.float32, torch.device("cpu"), bench_model.adapter)
    tied = {"lm_head.weight"} if config.tied_head else set()
    tensors = {name: value.contiguous() for name, value in theirs.state_dict().items() if name not in tied}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    fields |= {"architectures": ["LlamaForCausalLM"], "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(fields), "utf-8")


class LadeWorker:
    """The running worker; its own clock times every request.

    Args:
        process: with text pipes.
        log: where its standard error goes.
        stop_ids: what ends an output.

    Attributes:
        versions: of its interpreter and packages.
    """

    def __init__(self, process: subprocess.Popen[str], log: Path, stop_ids: Sequence[int]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._requests: IO[str] = process.stdin
        self._answers: IO[str] = process.stdout
        self._log, self._stop_ids = log, list(stop_ids)
        self.versions: Mapping[str, str] = self._answer()["versions"]

    def run(self, max_new_tokens: int, window: Window | None, prompt: BenchPrompt) -> Run:
        """Generate greedily: with the authors' code, or transformers' plain decoding without a window."""
        request: dict[str, Any] = {
            "prompt_ids": prompt.prompt_ids,
            "max_new_tokens": max_new_tokens,
            "stop_ids": self._stop_ids,
            "window": None if window is None else window.wng,
            "prompt_as_reference": window is not None and window.settings.prompt_as_reference,
        }
        with contextlib.suppress(BrokenPipeError):  # what it said before it ended is in the log
            print(json.dumps(request), file=self._requests, flush=True)
        found = self._answer()
        return Run(tuple(found["token_ids"]), found["total_s"], found["first_s"], found["num_steps"])

    def _answer(self) -> Mapping[str, Any]:
        line = self._answers.readline()
        if not line:
            raise LadeError(f"lade does not answer; the end of its log: {self._log.read_text('utf-8')[-1000:]}")
        answer: Mapping[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def lade_worker(python: Path, model: Path, stop_ids: Sequence[int], *, num_threads: int) -> Iterator[LadeWorker]:
    """Start the worker on a model's folder and end it afterwards.

    Raises:
        LadeError: it ended, for example as the interpreter lacks ``lade``; the message holds the end of its log.
    """
    log_path = model / "lade.log"
    # Isolated: a script's folder is otherwise searched first, and ours has modules that other packages look for.
    command = [str(python), "-I", str(WORKER), str(model), str(num_threads)]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **_OFFLINE},
        )
    try:
        yield LadeWorker(process, log_path, stop_ids)
    finally:
        process.terminate()
        try:
            process.communicate(timeout=_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def methods_of(
    ours: OurMethods, worker: LadeWorker | None, settings: Sequence[Window], max_new_tokens: int
) -> dict[str, Method]:
    """Return the methods by name; the authors' and their transformers' only with a worker."""
    methods: dict[str, Method] = {GREEDY: ours.autoregressive}
    if worker is not None:
        methods[THEIR_GREEDY] = partial(worker.run, max_new_tokens, None)
    for window in settings:
        if worker is not None:
            methods[f"lade_{window.suffix}"] = partial(worker.run, max_new_tokens, window)
        methods[f"published_{window.suffix}"] = partial(ours.lookahead_published, settings=window.settings)
    methods["forelook"] = ours.forelook
    return methods


def summarize(result: Comparison, *, is_timed: bool) -> dict[str, Any]:
    """Return the figures of a data set over all prompts, and over the clean ones."""
    parts = [
        {
            "num_prompts": len(kept),
            "methods": {name: figures(result, name, kept, is_timed=is_timed) for name in result.runs if kept},
            "ratios": ratios(result, kept, is_timed=is_timed) if kept else {},
        }
        for kept in (range(len(result.prompts)), result.clean)
    ]
    return {**parts[0], "clean": parts[1]}


def figures(result: Comparison, name: str, kept: Sequence[int], *, is_timed: bool) -> dict[str, Any]:
    """Return a method's figures over the prompts with these indices; times are of decoding alone, after the first step.

    ``identical_share`` is the share of outputs equal to Forelook's autoregressive ones.
    """
    runs = [result.runs[name][index] for index in kept]
    tokens, steps = sum(len(run.token_ids) for run in runs), sum(run.num_steps for run in runs)
    same = [result.runs[name][index].token_ids == result.runs[GREEDY][index].token_ids for index in kept]
    found: dict[str, Any] = {
        "num_tokens": tokens,
        "num_steps": steps,
        "tokens_per_step": round(tokens / steps, 3),
        "tokens_per_step_by_prompt": median_interval([run.tokens_per_step for run in runs]),
        "identical_share": round(sum(same) / len(same), 4),
    }
    if is_timed:
        longer = [run for run in runs if run.num_steps > 1]
        found["tokens_per_s"] = median_interval([1e3 / run_ms for run in longer if (run_ms := run.decode_ms_per_token)])
        found["ms_per_step"] = median_interval(
            [1e3 * (run.total_s - run.first_s) / (run.num_steps - 1) for run in longer]
        )
    return found


def ratios(result: Comparison, kept: Sequence[int], *, is_timed: bool) -> dict[str, Any]:
    """Return, per setting of lade, its steps over those of ours and, where timed, the speed of ours over its speed."""
    found = {}
    for name in (name for name in result.runs if name.startswith("lade_")):
        for other in (name.replace("lade_", "published_"), "forelook"):
            pairs = [(result.runs[other][index], result.runs[name][index]) for index in kept]
            row: dict[str, Any] = {"steps": median_interval([lade.num_steps / our.num_steps for our, lade in pairs])}
            if is_timed:
                times = [(our.decode_ms_per_token, lade.decode_ms_per_token) for our, lade in pairs]
                row["speed"] = median_interval([theirs / mine for mine, theirs in times if mine and theirs])
            found[f"{other}/{name}"] = row
    return found
