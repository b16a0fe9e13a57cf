"""Two ranks on one model: lookahead parallelism beside tensor and pipeline parallelism, against one rank's time.

A random Llama checkpoint in bfloat16, one thread per rank, gloo between them. Every step of the lookahead loop carries
a full window and G full candidates (W = G = 15, N = 5 by default) as the decode loop really runs them: plan, exchange,
verification, commit. Tensor parallelism is torch's own (torch.distributed.tensor.parallel) on transformers' Llama,
pipeline parallelism the same module cut in two stages; both are measured against transformers on one rank, at one token
per step (autoregressive decoding) and at as many as a lookahead step has. Rounds take turns; medians; the last line
is one JSON object.

    python scripts/bench_parallel.py [--window-size 15] [--ngram-size 5] [--rounds 12] [--ranks 2]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing
from forelook.decoding.drafting.drafter import StepPlan, StepState
from forelook.decoding.drafting.tree import DraftTree
from forelook.decoding.limits import Limits
from forelook.decoding.lookahead.window import LookaheadWindow
from forelook.decoding.loop import decode
from forelook.decoding.parallel.decoder import ParallelDecoder
from forelook.decoding.parallel.follower import follow
from forelook.decoding.parallel.group import RankGroup
from forelook.decoding.parallel.partition import partition_plan
from forelook.decoding.request import DecodeRequest
from forelook.decoding.stats import DecodingStats
from forelook.decoding.verification import Verified
from forelook.errors import RankLostError
from forelook.model.checkpoint import read_weights
from forelook.model.config import parse_config
from forelook.model.forward.llama import LlamaSequence

VOCAB = 32016
STEPS_PER_ROUND = 4


class FullDrafter:
    """Every step a full window and G candidates that share no token, so that nothing merges."""

    recipe = None

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

    def learn(self, plan: StepPlan, verified: Verified, argmax: list[int], stats: DecodingStats) -> None:
        del stats
        self._window.advance(len(verified.token_ids), argmax[len(plan.tree) + 1 :])


def save_checkpoint(folder: Path, options: argparse.Namespace) -> int:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=options.hidden_size, intermediate_size=options.hidden_size * 8 // 3 // 64 * 64,
        num_hidden_layers=options.layers, num_attention_heads=options.hidden_size // 64, max_position_embeddings=2048,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def prompt_of(length: int) -> list[int]:
    return [16 + index * 7 % 4000 for index in range(length)]


def new_sequence(folder: Path) -> LlamaSequence:
    config = parse_config(json.loads((folder / "config.json").read_text()), "config.json")
    weights = read_weights(folder, config, torch.bfloat16, torch.device("cpu"), lambda _fraction: None)
    return LlamaSequence(weights, 1024)


def lookahead_steps(folder: Path, group: RankGroup, options: argparse.Namespace) -> dict[str, list[float]]:
    """Rank 0: seconds of steps on one rank and on all, in turns; the other ranks follow.

    Before that every rank runs whole steps at the same time, each for itself: what the machine's cores can do at all.
    """
    sequence = new_sequence(folder)
    prompt = prompt_of(options.prefix)
    at_once: list[float] = []
    for round_number in range(options.rounds + 1):
        group.exchange([0])
        drafter = FullDrafter(options.window_size, options.ngram_size, options.max_candidates)
        started = time.perf_counter()
        for _ in decode(DecodeRequest(prompt, Limits(STEPS_PER_ROUND)), sequence, drafter):
            elapsed, started = time.perf_counter() - started, time.perf_counter()
            if round_number:
                at_once.append(elapsed)
    group.exchange([0])
    if group.rank != 0:
        try:
            follow(group, lambda _max_positions: sequence)
        except RankLostError:
            return {}
    decoder = ParallelDecoder(group)
    own = LlamaSequence(sequence._weights, 1024)  # noqa: SLF001
    times: dict[str, list[float]] = {"one rank": [], "lookahead parallel": []}
    for round_number in range(options.rounds + 1):
        for name, loop, model in (("one rank", decode, own), ("lookahead parallel", decoder.decode, sequence)):
            drafter = FullDrafter(options.window_size, options.ngram_size, options.max_candidates)
            started = time.perf_counter()
            for _ in loop(DecodeRequest(prompt, Limits(STEPS_PER_ROUND)), model, drafter):
                elapsed, started = time.perf_counter() - started, time.perf_counter()
                if round_number:  # the first round prefills and warms up
                    times[name].append(elapsed)
    group.close()
    return {**times, "whole steps on all ranks at once": at_once}


def transformers_steps(folder: Path, rank: int, options: argparse.Namespace, tail: int) -> dict[str, list[float]]:
    """Seconds of a step of transformers' Llama on one rank, tensor parallel and pipeline parallel, in turns."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
    from transformers import DynamicCache, LlamaForCausalLM

    size = options.ranks
    ids = torch.tensor([prompt_of(options.prefix + tail)])

    def load() -> LlamaForCausalLM:
        return LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()

    def stepper(run: Callable[[torch.Tensor, DynamicCache], None]) -> Callable[[], None]:
        cache = DynamicCache()
        run(ids[:, : options.prefix], cache)

        def step() -> None:
            run(ids[:, options.prefix :], cache)
            cache.crop(-tail)

        return step

    single, sharded, stage = load(), load(), load()
    plan = {"lm_head": ColwiseParallel(output_layouts=Replicate())}
    for index in range(options.layers):
        layer = f"model.layers.{index}."
        for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"):
            plan[layer + name] = ColwiseParallel()
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            plan[layer + name] = RowwiseParallel()
    parallelize_module(sharded, init_device_mesh("cpu", (size,)), plan)

    per_stage = options.layers // size
    stage.model.layers = stage.model.layers[rank * per_stage : (rank + 1) * per_stage if rank < size - 1 else None]
    for index, layer in enumerate(stage.model.layers):
        layer.self_attn.layer_idx = index
    stage.config.num_hidden_layers = stage.model.config.num_hidden_layers = len(stage.model.layers)
    if rank < size - 1:
        stage.model.norm = torch.nn.Identity()

    def run_pipeline(tokens: torch.Tensor, cache: DynamicCache) -> None:
        chosen = torch.zeros(tokens.shape[1], dtype=torch.int64)
        if rank == 0:
            hidden = stage.model(tokens, past_key_values=cache).last_hidden_state
        else:
            hidden = torch.empty(1, tokens.shape[1], options.hidden_size, dtype=torch.bfloat16)
            dist.recv(hidden, rank - 1)
            hidden = stage.model(inputs_embeds=hidden, past_key_values=cache).last_hidden_state
        if rank < size - 1:
            dist.send(hidden.contiguous(), rank + 1)
        else:
            chosen = stage.lm_head(hidden)[0].argmax(-1)
        dist.broadcast(chosen, size - 1)

    steps = {
        "one rank": stepper(lambda tokens, cache: single(tokens, past_key_values=cache).logits.argmax(-1)),
        "tensor parallel": stepper(lambda tokens, cache: sharded(tokens, past_key_values=cache).logits.argmax(-1)),
        "pipeline parallel": stepper(run_pipeline),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    repeats = STEPS_PER_ROUND if tail > 1 else 4 * STEPS_PER_ROUND
    for round_number in range(options.rounds // 2 + 1):
        for name, step in steps.items():
            dist.barrier()  # one rank alone has the machine to itself: the others wait here
            if name == "one rank" and rank != 0:
                continue
            for _ in range(repeats):
                started = time.perf_counter()
                step()
                if round_number:
                    times[name].append(time.perf_counter() - started)
    dist.barrier()
    return times


def rank_main(rank: int, options: argparse.Namespace, folder: str, num_parameters: int) -> None:
    torch.set_num_threads(1)
    path = Path(folder)
    size = options.ranks
    tail = (options.window_size + options.max_candidates) * (options.ngram_size - 1)
    group = RankGroup(dist.FileStore(str(path / "ranks"), size), rank, size)
    lookahead = lookahead_steps(path, group, options)
    if rank == 0:
        print({name: f"{statistics.median(values) * 1e3:.2f} ms" for name, values in lookahead.items()}, flush=True)
    store = dist.FileStore(str(path / "default"), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    with torch.inference_mode():
        plain = {num_tokens: transformers_steps(path, rank, options, num_tokens) for num_tokens in (1, tail)}
    dist.destroy_process_group()
    if rank == 0:
        report(options, num_parameters, tail, lookahead, plain)


def report(
    options: argparse.Namespace,
    num_parameters: int,
    tail: int,
    lookahead: dict[str, list[float]],
    plain: dict[int, dict[str, list[float]]],
) -> None:
    def medians(times: dict[str, list[float]]) -> dict[str, float]:
        return {name: round(statistics.median(values) * 1e3, 2) for name, values in times.items()}

    drafter = FullDrafter(options.window_size, options.ngram_size, options.max_candidates)
    plan = drafter.plan(StepState([], 0, 1, 64, 1024, None))
    tokens = [1 + share.num_tokens for share in partition_plan(plan, options.ranks)]
    print(
        f"{num_parameters / 1e6:.0f} M parameters, bfloat16, {options.ranks} ranks of one thread, "
        f"{options.prefix} tokens cached"
    )
    print(
        f"a step of {tail} tokens (W = {options.window_size}, G = {options.max_candidates}, N = {options.ngram_size})"
    )
    print(f"tokens per rank with lookahead parallelism: {tokens}")
    rows = [("lookahead step, Forelook", medians(lookahead))]
    rows += [(f"{count} token{'s' * (count > 1)}, transformers", medians(times)) for count, times in plain.items()]
    ratios: dict[str, dict[str, float]] = {}
    for title, row in rows:
        ratios[title] = {name: round(value / row["one rank"], 3) for name, value in row.items()}
        for name, value in row.items():
            print(f"{title:<28} {name:<20} {value:9.2f} ms  {ratios[title][name]:6.3f} of one rank")
    result = {
        "benchmark": "parallel",
        "num_parameters": num_parameters,
        "num_ranks": options.ranks,
        "window_size": options.window_size,
        "ngram_size": options.ngram_size,
        "max_candidates": options.max_candidates,
        "tokens_per_step": tail,
        "tokens_per_rank": tokens,
        "prefix": options.prefix,
        "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "torch": torch.__version__,
        "median_ms": dict(rows),
        "ratio_to_one_rank": ratios,
        "lookahead_parallel_ratio": ratios[rows[0][0]]["lookahead parallel"],
    }
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--window-size", type=int, default=15)
    parser.add_argument("--max-candidates", type=int, default=15)
    parser.add_argument("--ngram-size", type=int, default=5)
    parser.add_argument("--hidden-size", type=int, default=768)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--prefix", type=int, default=256, help="cached tokens")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--ranks", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        num_parameters = save_checkpoint(Path(folder), options)
        torch.multiprocessing.spawn(rank_main, (options, folder, num_parameters), options.ranks)


if __name__ == "__main__":
    main()
