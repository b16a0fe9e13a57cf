"""Two ranks on one model: steps of lookahead parallelism, tensor parallelism and pipeline parallelism."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from forelook.decoding.drafting.drafter import StepPlan, StepRows, StepState
from forelook.decoding.drafting.tree import DraftTree
from forelook.decoding.limits import Limits
from forelook.decoding.lookahead.window import LookaheadWindow
from forelook.decoding.loop import decode
from forelook.decoding.parallel.decoder import ParallelDecoder
from forelook.decoding.parallel.follower import follow
from forelook.decoding.parallel.group import RankGroup
from forelook.decoding.request import DecodeRequest
from forelook.decoding.stats import DecodingStats
from forelook.decoding.verification import Verified
from forelook.errors import RankLostError
from forelook.model.checkpoint import read_weights
from forelook.model.config import parse_config
from forelook.model.forward.llama import LlamaSequence

from bench.random_llama import save_random_llama
from bench.steps import hf_step
from bench.turns import step_times, take_turns

VOCAB = 32016
STEPS_PER_ROUND = 4


@dataclass(frozen=True)
class Setup:
    """Sizes of the model, the window and the run.

    Attributes:
        window_size, max_candidates, ngram_size: W, G and N of lookahead decoding.
        hidden_size, layers: of the model.
        prefix: cached tokens.
        rounds: turns of each method.
        ranks: processes.
        dtype: of the weights, bfloat16 or float32.
    """

    window_size: int = 15
    max_candidates: int = 15
    ngram_size: int = 5
    hidden_size: int = 768
    layers: int = 12
    prefix: int = 256
    rounds: int = 12
    ranks: int = 2
    dtype: str = "bfloat16"

    @property
    def torch_dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    @property
    def tail(self) -> int:
        """Tokens of a full step."""
        return (self.window_size + self.max_candidates) * (self.ngram_size - 1)

    def drafter(self) -> FullDrafter:
        return FullDrafter(self.window_size, self.ngram_size, self.max_candidates)


class FullDrafter:
    """Plans a full window and G candidates that share no token, so that nothing merges, at every step."""

    recipe = None
    num_choices = 1

    def __init__(self, window_size: int, ngram_size: int, num_candidates: int) -> None:
        self._random = np.random.default_rng(0)
        self._shape = (window_size, ngram_size, num_candidates)
        self._window = LookaheadWindow(window_size, ngram_size, range(16, 4000))

    def plan(self, state: StepState) -> StepPlan:
        del state
        _, ngram_size, num_candidates = self._shape
        tree = DraftTree()
        firsts = self._random.choice(VOCAB, num_candidates, replace=False)
        for first in firsts:
            tree.add_path([int(first), *(int(token) for token in self._random.integers(16, 4000, ngram_size - 2))])
        return StepPlan(tree, self._window)

    def learn(self, plan: StepPlan, verified: Verified, rows: StepRows, stats: DecodingStats, forward_s: float) -> None:
        del verified, stats, forward_s
        if plan.window is not None:  # the prompt's own step has none
            self._window.advance(rows.argmax[len(plan.tree) + 1 :])


def save_checkpoint(folder: Path, setup: Setup) -> int:
    """Write a random checkpoint and return its number of parameters."""
    return save_random_llama(
        folder, setup.torch_dtype, vocab_size=VOCAB, hidden_size=setup.hidden_size,
        intermediate_size=setup.hidden_size * 8 // 3 // 64 * 64, num_hidden_layers=setup.layers,
        num_attention_heads=setup.hidden_size // 64, max_position_embeddings=2048, tie_word_embeddings=False,
    )  # fmt: skip


def prompt_of(length: int) -> list[int]:
    return [16 + index * 7 % 4000 for index in range(length)]


def new_sequence(folder: Path, dtype: torch.dtype) -> LlamaSequence:
    config = parse_config(json.loads((folder / "config.json").read_text()), "config.json")
    weights = read_weights(folder, config, dtype, torch.device("cpu"), lambda _fraction: None)
    return LlamaSequence(weights, 1024)


def stream_times(stream: Iterator[list[int]]) -> list[float]:
    """Return the seconds of every step of a stream."""
    times, started_s = [], time.perf_counter()
    for _ in stream:
        now_s = time.perf_counter()
        times.append(now_s - started_s)
        started_s = now_s
    return times


def lookahead_steps(folder: Path, group: RankGroup, setup: Setup) -> dict[str, list[float]]:
    """Return rank 0's seconds of steps on one rank and on all, in turns; the other ranks follow and return nothing.

    Before that every rank runs whole steps at the same time, each alone: the capacity of the machine's cores.
    """
    sequence = new_sequence(folder, setup.torch_dtype)
    request = DecodeRequest(prompt_of(setup.prefix), Limits(STEPS_PER_ROUND))

    def own_steps() -> list[float]:
        group.exchange([0])
        return stream_times(decode(request, sequence, setup.drafter()))

    at_once = take_turns({"whole steps on all ranks at once": own_steps}, setup.rounds)
    group.exchange([0])
    if group.rank != 0:
        try:
            follow(group, lambda _max_positions: sequence)
        except RankLostError:
            return {}
    decoder = ParallelDecoder(group)
    own = LlamaSequence(sequence._weights, 1024)  # noqa: SLF001
    turns = {
        "one rank": lambda: stream_times(decode(request, own, setup.drafter())),
        "lookahead parallel": lambda: stream_times(decoder.decode(request, sequence, setup.drafter())),
    }
    times = take_turns(turns, setup.rounds)
    group.close()
    return {**times, **at_once}


def transformers_steps(folder: Path, rank: int, setup: Setup, tail: int) -> dict[str, list[float]]:
    """Return seconds of transformers' Llama on one rank, tensor parallel and pipeline parallel, in turns."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
    from transformers import DynamicCache, LlamaForCausalLM

    size = setup.ranks
    ids = torch.tensor([prompt_of(setup.prefix + tail)])

    def load() -> LlamaForCausalLM:
        return LlamaForCausalLM.from_pretrained(folder, dtype=setup.torch_dtype).eval()

    def next_ids(model: LlamaForCausalLM, ids: torch.Tensor, past_key_values: DynamicCache) -> torch.Tensor:
        chosen: torch.Tensor = model(ids, past_key_values=past_key_values).logits.argmax(-1)
        return chosen

    single, sharded, stage = load(), load(), load()
    plan = {"lm_head": ColwiseParallel(output_layouts=Replicate())}
    for index in range(setup.layers):
        layer = f"model.layers.{index}."
        for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"):
            plan[layer + name] = ColwiseParallel()
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            plan[layer + name] = RowwiseParallel()
    parallelize_module(sharded, init_device_mesh("cpu", (size,)), plan)

    per_stage = setup.layers // size
    stage.model.layers = stage.model.layers[rank * per_stage : (rank + 1) * per_stage if rank < size - 1 else None]
    for index, layer in enumerate(stage.model.layers):
        layer.self_attn.layer_idx = index
    stage.config.num_hidden_layers = stage.model.config.num_hidden_layers = len(stage.model.layers)
    if rank < size - 1:
        stage.model.norm = torch.nn.Identity()

    def run_pipeline(tokens: torch.Tensor, past_key_values: DynamicCache) -> None:
        chosen = torch.zeros(tokens.shape[1], dtype=torch.int64)
        if rank == 0:
            hidden = stage.model(tokens, past_key_values=past_key_values).last_hidden_state
        else:
            hidden = torch.empty(1, tokens.shape[1], setup.hidden_size, dtype=setup.torch_dtype)
            dist.recv(hidden, rank - 1)
            hidden = stage.model(inputs_embeds=hidden, past_key_values=past_key_values).last_hidden_state
        if rank < size - 1:
            dist.send(hidden.contiguous(), rank + 1)
        else:
            chosen = stage.lm_head(hidden)[0].argmax(-1)
        dist.broadcast(chosen, size - 1)

    runs: dict[str, Callable[..., object]] = {
        "one rank": partial(next_ids, single),
        "tensor parallel": partial(next_ids, sharded),
        "pipeline parallel": run_pipeline,
    }
    steps = {name: hf_step(run, ids[:, : setup.prefix], ids[:, setup.prefix :]) for name, run in runs.items()}
    repeats = STEPS_PER_ROUND if tail > 1 else 4 * STEPS_PER_ROUND

    def turn(name: str) -> list[float]:
        dist.barrier()  # the other ranks wait here, so that one rank alone has the machine to itself
        return [] if name == "one rank" and rank != 0 else step_times(steps[name], repeats)

    times = take_turns({name: partial(turn, name) for name in steps}, setup.rounds // 2)
    dist.barrier()
    return times
