"""Two ranks on one model: lookahead parallelism next to tensor and pipeline parallelism, against one rank's time.

    python scripts/bench_parallel.py [--window-size 15] [--ngram-size 5] [--rounds 12] [--ranks 2]

A random Llama checkpoint in bfloat16, one thread per rank, gloo between them. Every step of the lookahead loop carries
a full window and G full candidates (W = G = 15, N = 5 by default) through the real decode loop: plan, exchange,
verification, commit. Tensor parallelism is torch's own (torch.distributed.tensor.parallel) on transformers' Llama,
pipeline parallelism the same module cut in two stages; both are measured against transformers on one rank, at one token
per step (autoregressive decoding) and at the tokens of a lookahead step. The methods take turns; times are medians; the
last line is one JSON object.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing
from bench.arguments import add_fields, benchmark_parser
from bench.parallel import Setup, lookahead_steps, save_checkpoint, transformers_steps
from bench.results import print_result
from bench.summary import medians_ms
from bench.tables import parallel
from forelook.decoding.drafting.drafter import StepState
from forelook.decoding.parallel.group import RankGroup
from forelook.decoding.parallel.partition import partition_plan


def rank_main(rank: int, setup: Setup, folder: str, num_parameters: int, json_path: Path | None) -> None:
    torch.set_num_threads(1)
    path = Path(folder)
    size = setup.ranks
    group = RankGroup(dist.FileStore(str(path / "ranks"), size), rank, size)
    lookahead = lookahead_steps(path, group, setup)
    store = dist.FileStore(str(path / "default"), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    with torch.inference_mode():
        plain = {num_tokens: transformers_steps(path, rank, setup, num_tokens) for num_tokens in (1, setup.tail)}
    dist.destroy_process_group()
    if rank == 0:
        report(setup, num_parameters, lookahead, plain, json_path)


def report(
    setup: Setup,
    num_parameters: int,
    lookahead: dict[str, list[float]],
    plain: dict[int, dict[str, list[float]]],
    json_path: Path | None,
) -> None:
    plan = setup.drafter().plan(StepState([], 0, 1, 64, 1024, None))
    medians = {"lookahead step, Forelook": medians_ms(lookahead)}
    for count, times in plain.items():
        medians[f"{count} token{'s' * (count > 1)}, transformers"] = medians_ms(times)
    ratios = {
        title: {name: round(value / row["one rank"], 3) for name, value in row.items()}
        for title, row in medians.items()
    }
    result = {
        **asdict(setup),
        "num_parameters": num_parameters,
        "tokens_per_step": setup.tail,
        "tokens_per_rank": [1 + share.num_tokens for share in partition_plan(plan, setup.ranks)],
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "median_ms": medians,
        "ratio_to_one_rank": ratios,
        "lookahead_parallel_ratio": ratios["lookahead step, Forelook"]["lookahead parallel"],
    }
    print(*(f"{name} {value}" for name, value in result.items() if not isinstance(value, dict)), sep=", ")
    print(*parallel(result), sep="\n")
    print_result("parallel", result, json_path)


def main() -> None:
    parser = benchmark_parser(__doc__)
    add_fields(parser, Setup)
    options = vars(parser.parse_args())
    json_path = options.pop("json")
    setup = Setup(**options)
    with tempfile.TemporaryDirectory() as folder:
        num_parameters = save_checkpoint(Path(folder), setup)
        torch.multiprocessing.spawn(rank_main, (setup, folder, num_parameters, json_path), setup.ranks)


if __name__ == "__main__":
    main()
