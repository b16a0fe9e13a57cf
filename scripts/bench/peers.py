"""Forelook, transformers and llama.cpp on the same weights, prompts and limits: decode speed, steps and prefill.

A method's name says whose it is and in which format the weights are. Each is one function from a prompt to a run; all
take turns on every prompt. llama.cpp is measured by its own clock, without HTTP.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from forelook.errors import ForelookError
from forelook.model.forward.native.library import native_kernels
from forelook.model.loading import STARTER_MODEL_PATH, LoadedModel, choose_dtype, load_model

from bench.datasets import BenchPrompt, load_prompts
from bench.decoding import Effort, compare
from bench.llama_server import PRECISIONS, SPECULATION, LlamaServer, LlamaServerError, quantized, serving
from bench.methods import HuggingFaceMethods, Method, MethodSettings, OurMethods, Run
from bench.models import limited
from bench.steps import random_ids
from bench.summary import rounded_percentile

FORMATS = ("bf16", "int8", "int4")
"""Formats of Forelook's weights. Where neither the CPU nor compiled kernels have bfloat16, ``bf16`` is float32, as the
result says."""
OURS = ("autoregressive", "forelook")
TRANSFORMERS = ("hf_greedy", "hf_prompt_lookup")
TRANSFORMERS_EXTRA = ("hf_early_exit",)
LLAMA_CPP = tuple(
    "_".join(["llama_cpp", precision, *mode])
    for precision in PRECISIONS
    for mode in ([], *([key] for key in SPECULATION))
)
METHODS = (*(f"{kind}_{form}" for form in FORMATS for kind in OURS), *TRANSFORMERS, *TRANSFORMERS_EXTRA, *LLAMA_CPP)
WARM = "_warm"
"""Ends the name of Forelook with what it keeps between prompts, and a workspace's pool."""


def plain_of(name: str) -> str:
    """Return the method's own plain greedy decoding, which its output is compared with."""
    if name.startswith("hf_"):
        return "hf_greedy"
    if name.startswith("llama_cpp_"):
        return next(plain for plain in LLAMA_CPP if name.startswith(plain))
    return name.removesuffix(WARM).replace("forelook_", "autoregressive_")


@dataclass(frozen=True)
class PeerPlan:
    """What to measure.

    Attributes:
        model: a folder or a GGUF file; ``None`` for the starter model.
        methods: names out of ``METHODS``.
        datasets: names of data sets, or folders of sources.
        limit: prompts per data set.
        max_new_tokens, prompt_tokens: limits that all methods share.
        tails: sizes of the timed steps.
        step_prefix: cached tokens before them.
        prefills: lengths of the timed prompts.
        rounds: of timed steps and prompts.
        data: folder of data sets.
        workspace: folder of the workspace data set.
        llama_server: its executable.
        learns: whether Forelook is measured as after half a minute of idle time.
    """

    model: str | None
    methods: Sequence[str]
    datasets: Sequence[str]
    limit: int
    max_new_tokens: int
    prompt_tokens: int
    tails: Sequence[int]
    step_prefix: int
    prefills: Sequence[int]
    rounds: int
    data: Path
    workspace: Path
    llama_server: Path | None = None
    learns: bool = True

    @property
    def positions(self) -> int:
        """Tokens that every method has room for: a prompt and its output, or a timed one, and some drafts."""
        longest = max(self.prompt_tokens + self.max_new_tokens, self.step_prefix + max(self.tails), *self.prefills)
        return longest + 128


@dataclass
class Contestants:
    """Everything that takes part, loaded and running.

    Attributes:
        prompts_model: tokenizer, infill format and room of the prompts.
        methods: by name.
        ours: our models by their format.
        transformers: transformers' model.
        servers: llama.cpp's by the name of their method.
        skipped: why a method does not take part.
    """

    prompts_model: LoadedModel
    methods: dict[str, Method] = field(default_factory=dict)
    ours: dict[str, LoadedModel] = field(default_factory=dict)
    transformers: torch.nn.Module | None = None
    servers: dict[str, LlamaServer] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def load_contestants(plan: PeerPlan, stack: ExitStack, folder: Path) -> Contestants:
    """Load all models and start all servers; what cannot be is left out, with its reason.

    Args:
        plan: what to measure.
        stack: ends the servers.
        folder: for quantized files and logs.
    """
    base = load_model(plan.model, device="cpu", dtype=_base_dtype())
    base = limited(base, plan.positions)
    found = Contestants(limited(base, plan.prompt_tokens + plan.max_new_tokens))
    for form in FORMATS:
        names = [f"{kind}_{form}" for kind in OURS if f"{kind}_{form}" in plan.methods]
        if names:
            try:
                _add_ours(plan, found, form, names, base)
            except (ForelookError, RuntimeError) as error:
                found.skipped |= dict.fromkeys(names, str(error))
    theirs = [name for name in plan.methods if name.startswith("hf_")]
    if theirs:
        try:
            path = str(STARTER_MODEL_PATH) if plan.model is None else plan.model
            peer = HuggingFaceMethods(path, base, plan.max_new_tokens)
        except (ForelookError, ImportError, ValueError) as error:
            found.skipped |= dict.fromkeys(theirs, str(error))
        else:
            found.transformers = peer.model
            found.methods |= {name: peer.methods()[name] for name in theirs}
    for name in (name for name in plan.methods if name in LLAMA_CPP):
        _add_server(plan, found, name, stack, folder)
    return found


def _base_dtype() -> str:
    return str(choose_dtype("auto", torch.device("cpu"))).removeprefix("torch.")


def _add_ours(plan: PeerPlan, found: Contestants, form: str, names: Iterable[str], base: LoadedModel) -> None:
    model = base
    if form != "bf16" or native_kernels().functions is not None:
        dtype = "bfloat16" if form == "bf16" else form
        model = replace(load_model(plan.model, device="cpu", dtype=dtype), max_positions=base.max_positions)
    ours = OurMethods(model, MethodSettings(plan.max_new_tokens), learns=plan.learns)
    found.ours[form] = model
    for name in names:
        if name.startswith("forelook"):
            found.methods[name] = lambda prompt: ours.forelook(replace(prompt, documents=None))
            found.methods[name + WARM] = ours.forelook_warm
        else:
            found.methods[name] = ours.autoregressive


def _add_server(plan: PeerPlan, found: Contestants, name: str, stack: ExitStack, folder: Path) -> None:
    try:
        server = stack.enter_context(_server_of(name, plan, folder))
    except (RuntimeError, ForelookError, OSError) as error:
        found.skipped[name] = str(error)
    else:
        found.servers[name] = server
        found.methods[name] = partial(_ask, server, plan.max_new_tokens)


def _server_of(name: str, plan: PeerPlan, folder: Path) -> Any:
    if plan.llama_server is None:
        raise LlamaServerError("no server; give --llama-server PATH")
    if plan.model is None or not Path(plan.model).is_file():
        raise LlamaServerError("llama.cpp needs a GGUF file; give --model FILE.gguf")
    precision, _, _ = name.removeprefix("llama_cpp_").partition("_ngram")
    mode = name.removeprefix(f"llama_cpp_{precision}").removeprefix("_")
    weights = quantized(Path(plan.model), precision, plan.llama_server, folder)
    return serving(
        plan.llama_server,
        weights,
        num_threads=torch.get_num_threads(),
        max_positions=plan.positions,
        spec_type=SPECULATION.get(mode),
    )


def _ask(server: LlamaServer, max_new_tokens: int, prompt: BenchPrompt) -> Run:
    return server.run(prompt.prompt_ids, max_new_tokens)


def compare_on(dataset: str, plan: PeerPlan, found: Contestants) -> dict[str, Any]:
    """Run every method once on every prompt of a data set, in turns, and return their figures.

    Once, because llama.cpp's ``ngram-mod`` keeps what it generated: a second run of a prompt would repeat the first.
    The uncounted first runs are on a prompt of their own for the same reason.
    """
    source = str(plan.workspace) if dataset == "workspace" else dataset
    prompts = load_prompts(
        source, found.prompts_model, data_dir=plan.data, limit=plan.limit, max_new_tokens=plan.max_new_tokens
    )
    warmup_ids = random_ids(min(32, plan.prompt_tokens), found.prompts_model.config.vocab_size)
    for method in found.methods.values():
        method(BenchPrompt("warm-up", warmup_ids, warmup_ids))
    result = compare(dataset, found.prompts_model, prompts, found.methods, Effort(warms_up=False))
    runs, clean = result.runs, result.clean
    return {
        "num_prompts": len(prompts),
        "methods": {name: figures(name, runs, range(len(prompts))) for name in runs},
        "clean": {"num_prompts": len(clean), "methods": {name: figures(name, runs, clean) for name in runs}},
    }


def figures(name: str, runs: Mapping[str, Sequence[Run]], kept: Sequence[int]) -> dict[str, Any]:
    """Return a method's figures over the prompts with these indices: decoding alone, after the first token.

    ``identical_share`` is the share of outputs equal to those of the method's own plain greedy decoding.
    """
    own = [runs[name][index] for index in kept]
    longer = [run for run in own if len(run.token_ids) > 1]
    tokens = sum(len(run.token_ids) - 1 for run in longer)
    steps = sum(run.num_steps - 1 for run in longer)
    seconds = sum(run.total_s - run.first_s for run in longer)
    plain = runs.get(plain_of(name))
    same = None if plain is None else [run.token_ids == plain[at].token_ids for at, run in zip(kept, own, strict=True)]
    return {
        "tokens_per_s": _ratio(tokens, seconds, 2),
        "tokens_per_step": _ratio(tokens, steps, 3),
        "ms_per_step": _ratio(1e3 * seconds, steps, 3),
        "identical_share": _ratio(sum(same), len(same), 4) if same else None,
        "first_token_ms_p50": rounded_percentile([1e3 * run.first_s for run in own], 50),
    }


def _ratio(value: float, divisor: float, digits: int) -> float | None:
    return round(value / divisor, digits) if divisor > 0 else None


def best_ratios(methods: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the decode speed of Forelook's best format over the best of llama.cpp and of transformers."""

    def best(prefix: str, suffix: str = "") -> float:
        speeds = [
            part["tokens_per_s"]
            for name, part in methods.items()
            if name.startswith(prefix) and name.endswith(WARM) == bool(suffix) and part["tokens_per_s"]
        ]
        return max(speeds, default=math.nan)

    ratios = {
        f"{'forelook' + suffix} / best of {peer}": best("forelook", suffix) / best(peer)
        for suffix in ("", WARM)
        for peer in ("llama_cpp", "hf")
    }
    return {name: round(ratio, 3) for name, ratio in ratios.items() if not math.isnan(ratio)}


def report_skipped(found: Contestants) -> None:
    """Print what does not take part, and why."""
    for name, reason in found.skipped.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
