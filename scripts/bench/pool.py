"""Costs of the n-gram pool: indexing, lookups, memory, restore, a decode step during indexing, a step's host time."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from forelook.decoding.drafting.draft import Draft, DraftOrigin
from forelook.decoding.layout import causal_layout
from forelook.decoding.ngrams.pool import NgramPool
from forelook.decoding.ngrams.ranking import rank
from forelook.model.catalogue import DEFAULT_MODEL
from forelook.model.loading import load_model
from forelook.privacy.secrets import is_secret_path
from forelook.workspace.cache import PoolCache
from forelook.workspace.cache_worker import CacheWorker

from bench.datasets import source_tokens, workspace_prompts
from bench.history import Encoder
from bench.methods import MethodSettings, OurMethods
from bench.models import load_named
from bench.results import REPOSITORY
from bench.steps import fill
from bench.summary import rounded_percentile
from bench.turns import take_turns, timed

SLICE_S = 0.001
STEPS_PER_REQUEST = 12
CONTEXT_TOKENS = 32


def source_documents(folders: list[Path], num_tokens: int) -> list[np.ndarray]:
    """Return token arrays of Python files, ``num_tokens`` in all; repeated with renamed tokens if there are too few."""
    found = source_tokens(folders, Encoder(), num_tokens)
    documents = [np.array(ids, np.int32) for _, ids in found]
    missing = num_tokens - sum(map(len, documents))
    generator = np.random.default_rng(0)
    for base in itertools.cycle(list(documents)):
        if missing <= 0:
            break
        renamed = np.where(generator.random(len(base)) < 0.02, generator.integers(8, 8192, len(base)), base)
        documents.append(renamed.astype(np.int32)[:missing])
        missing -= len(documents[-1])
    return documents


def first_tokens(documents: Iterable[np.ndarray], num_tokens: int) -> list[np.ndarray]:
    """Return the first ``num_tokens`` tokens of the documents."""
    ends = np.cumsum([0, *map(len, documents)])
    return [ids[: num_tokens - start] for ids, start in zip(documents, ends, strict=False) if start < num_tokens]


def lookup_contexts(documents: list[np.ndarray], count: int) -> Iterator[tuple[int, list[int]]]:
    """Yield places in the text; every fourth context has a late token changed, which leaves only short matches."""
    generator = np.random.default_rng(1)
    long_enough = [number for number, ids in enumerate(documents) if len(ids) > 2 * CONTEXT_TOKENS]
    for turn in range(count):
        number = int(generator.choice(long_enough))
        end = int(generator.integers(CONTEXT_TOKENS, len(documents[number])))
        context = documents[number][end - CONTEXT_TOKENS : end].tolist()
        if turn % 4 == 3:
            context[-1 - turn % 3] = int(generator.integers(8, 8192))
        yield number, context


def permits(key: str) -> bool:
    """Check the name of a restored document again, as the backend does."""
    return not is_secret_path(key)


def measure(documents: list[np.ndarray], num_lookups: int, rounds: int) -> dict[str, float | None]:
    """Return all figures at one size; times are medians over the rounds."""
    num_tokens = sum(map(len, documents))
    rates, restores = [], []
    slowest = 0.0
    for _ in range(rounds):
        before = psutil.Process().memory_info().rss
        pool = NgramPool(2 * num_tokens)
        started_s = time.perf_counter()
        waiting = [(f"{number}.py", ids) for number, ids in enumerate(documents)]
        stepped = time.perf_counter()
        while waiting or pool.has_work:
            index_a_little(pool, waiting)
            now = time.perf_counter()
            slowest, stepped = max(slowest, now - stepped), now
        rates.append(num_tokens / (time.perf_counter() - started_s))
        grown = psutil.Process().memory_info().rss - before
    contexts = list(lookup_contexts(documents, num_lookups))
    lookups = lookup_figures("lookup", pool.propose, contexts)
    if pool.is_compiled:
        lookups |= lookup_figures("python_lookup", partial(propose_in_python, pool), contexts)
    with tempfile.TemporaryDirectory() as folder:
        cache = PoolCache(Path(folder), "bench", "starter")
        cache.acquire()
        _, save_s = timed(lambda: cache.write_base(pool.dump(), {}))
        cache.release()
        _, context = next(lookup_contexts(documents, 1))
        for _ in range(rounds):
            worker = CacheWorker(PoolCache(Path(folder), "bench", "starter"), 2 * num_tokens, permits)
            started_s = time.perf_counter()
            restored = worker.restore().result()
            assert restored is not None
            assert restored.pool.propose(context, max_candidates=8, max_length=15)
            restores.append(time.perf_counter() - started_s)
            assert restored.pool.num_tokens == num_tokens
            worker.close()
    return {
        "num_tokens": num_tokens,
        "index_tokens_per_s": round(statistics.median(rates)),
        "slowest_index_step_ms": round(slowest * 1e3, 3),
        **lookups,
        "bytes_per_token": round(pool.nbytes / num_tokens, 1),
        "process_bytes_per_token": round(grown / num_tokens, 1),
        "save_s": round(save_s, 3),
        "restore_s": round(statistics.median(restores), 3),
    }


def lookup_figures(
    name: str, propose: Callable[..., list[Draft]], contexts: list[tuple[int, list[int]]]
) -> dict[str, float | None]:
    """Return p50 and p99 of one implementation's lookups."""
    times_us = []
    for number, context in contexts:
        ask = partial(propose, context, max_candidates=8, max_length=15, without=f"{number}.py")
        times_us.append(timed(ask)[1] * 1e6)
    return {f"{name}_p{percent}_us": rounded_percentile(times_us, percent, 1) for percent in (50, 99)}


def propose_in_python(
    pool: NgramPool, context: list[int], *, max_candidates: int, max_length: int, without: Hashable
) -> list[Draft]:
    """Look up as the pool does without a C compiler."""
    places = pool.places(context, reach=max_length, without=without)
    return rank(places, max_candidates=max_candidates, max_length=max_length, origin=DraftOrigin.WORKSPACE)


def index_a_little(pool: NgramPool, waiting: list[tuple[Hashable, np.ndarray]]) -> None:
    """Run one step of a slice, in the order of ``WorkspacePool`` and without tokenization."""
    if waiting and not pool.is_behind:
        pool.set_document(*waiting.pop())
    else:
        pool.step()


class Indexing:
    """Repeated indexing of the same documents, so that every stage of it meets decode steps."""

    def __init__(self, documents: list[np.ndarray]) -> None:
        self._documents = documents
        self._waiting: list[tuple[Hashable, np.ndarray]] = []
        self.pool = NgramPool(1 << 21)
        self.num_slices = 0

    def restart_if_done(self) -> None:
        if not self._waiting and not self.pool.has_work:
            self.pool = NgramPool(1 << 21)
            self._waiting = list(enumerate(self._documents))

    def run_slice(self) -> None:
        deadline_s = time.perf_counter() + SLICE_S
        while time.perf_counter() < deadline_s:
            index_a_little(self.pool, self._waiting)
        self.num_slices += 1


def decode_steps_while_indexing(documents: list[np.ndarray], num_requests: int) -> dict[str, float]:
    """Return the median decode step, alone and while 1 M tokens are being indexed.

    As in the engine, one thread does both: between requests of a few decode steps, slices of a millisecond index
    documents until the next request, here after twenty slices. A step looks the pool up, runs the model and commits.
    """
    model = load_model(None, device="cpu")
    sequence = model.new_sequence()
    prompt = next(ids for ids in documents if len(ids) > 512)[:256].tolist()
    idle_pool = NgramPool(1 << 21)
    for number, ids in enumerate(documents):
        idle_pool.set_document(number, ids)
    idle_pool.settle()
    indexing = Indexing(documents)

    def request(pool: NgramPool) -> list[float]:
        fill(sequence, prompt)
        context, times = list(prompt), []
        for _ in range(STEPS_PER_REQUEST):
            started_s = time.perf_counter()
            pool.propose(context[-CONTEXT_TOKENS:], max_candidates=8, max_length=15)
            logits = sequence.forward(causal_layout(context[-1:], len(context)))
            context.append(int(logits[0].argmax()))
            sequence.commit([0])
            times.append(time.perf_counter() - started_s)
        return times

    def idle_turn() -> list[float]:
        times = request(idle_pool)
        # As long a pause as with indexing, so that neither kind finds warmer threads.
        deadline_s = time.perf_counter() + 20 * SLICE_S
        while time.perf_counter() < deadline_s:
            pass
        return times

    def indexing_turn() -> list[float]:
        indexing.restart_if_done()
        times = request(indexing.pool)
        for _ in range(20):
            indexing.run_slice()
        return times

    times = take_turns({"idle": idle_turn, "indexing": indexing_turn}, num_requests, warmup=0)
    idle, busy = (statistics.median(times[kind]) for kind in ("idle", "indexing"))
    return {
        "idle_step_ms": round(idle * 1e3, 3),
        "indexing_step_ms": round(busy * 1e3, 3),
        "step_ratio": round(busy / idle, 3),
        "num_index_slices": indexing.num_slices,
    }


def host_time_of_steps(folders: list[Path], num_tokens: int, num_prompts: int) -> dict[str, Any]:
    """Return the host time per step outside the forward with a full pool: drafting, verification, learning.

    The default model as it runs, on prompts from this project's scripts, which are not in the pool; of each the last
    512 tokens. Median over prompts of each one's mean per step.

    Args:
        folders: Python files of the pool.
        num_tokens: of the default model, in the pool.
        num_prompts: of 24 new tokens at most.
    """
    model = load_named(DEFAULT_MODEL, device="cpu")
    documents = dict(source_tokens(folders, model.tokenizer.encode, num_tokens))
    ours = OurMethods(model, MethodSettings(24), {str(path): ids for path, ids in documents.items()})
    prompts = workspace_prompts(REPOSITORY / "scripts", model, limit=num_prompts + 1, max_new_tokens=24)
    runs = [
        ours.forelook_warm(replace(prompt, prompt_ids=prompt.prompt_ids[-512:], documents={})) for prompt in prompts
    ]
    steps = [1e3 * run.host_s / run.num_steps for run in runs[1:] if run.host_s is not None and run.num_steps]
    return {
        "num_tokens": sum(map(len, documents.values())),
        "num_prompts": len(steps),
        "host_step_ms": rounded_percentile(steps, 50, 3),
    }
