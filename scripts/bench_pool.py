"""What the n-gram pool costs: indexing, lookups, memory, restore, and what indexing does to a decode step.

At each size (10 k, 100 k and 1 M tokens of source text, repeated with variations where there is too little):

- index rate: tokens per second put into the pool and fully sorted, tokenisation apart;
- lookup: p50 and p99 of ``NgramPool.propose`` after contexts taken from the text;
- memory per token, as counted by numpy and as the process grows;
- restore: from the files on disk, every name judged again, to the first lookup that finds something.

Then the median decode step of the starter model, alone and with 1 M tokens being indexed in slices between steps on the
same thread, as the engine does it. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Hashable, Iterator
from pathlib import Path

import numpy as np
import psutil
from forelook.decoding.ngrams.pool import NgramPool
from forelook.privacy.rules import is_secret_path
from forelook.workspace.cache import PoolCache
from forelook.workspace.cache_worker import CacheWorker
from tokenizers import Tokenizer

REPOSITORY = Path(__file__).resolve().parents[1]
STARTER = REPOSITORY / "backend/forelook/starter_model"
SIZES = (10_000, 100_000, 1_000_000)
SLICE_S = 0.001
STEPS_PER_REQUEST = 12
CONTEXT_TOKENS = 32


def source_documents(folders: list[Path], num_tokens: int) -> list[np.ndarray]:
    """Token arrays of Python files, as many as are needed; repeated with renamed tokens when there are too few."""
    tokenizer = Tokenizer.from_file(str(STARTER / "tokenizer.json"))
    documents: list[np.ndarray] = []
    total = 0
    for path in (path for folder in folders for path in sorted(folder.rglob("*.py"))):
        ids = np.array(tokenizer.encode(path.read_text("utf-8", "replace"), add_special_tokens=False).ids, np.int32)
        documents.append(ids[: num_tokens - total])
        total += len(documents[-1])
        if total >= num_tokens:
            return documents
    generator = np.random.default_rng(0)
    for base in list(documents) * (num_tokens // max(1, total)):
        renamed = np.where(generator.random(len(base)) < 0.02, generator.integers(8, 8192, len(base)), base)
        documents.append(renamed.astype(np.int32)[: num_tokens - total])
        total += len(documents[-1])
        if total >= num_tokens:
            break
    return documents


def lookup_contexts(documents: list[np.ndarray], count: int) -> Iterator[tuple[int, list[int]]]:
    """Places in the text; every fourth context has its last token changed, so that only short matches are left."""
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
    """As in the backend: a restored document's name is judged again."""
    return not is_secret_path(key)


def measure(documents: list[np.ndarray], num_lookups: int, rounds: int) -> dict[str, float]:
    """All figures at one size; times are medians over the rounds."""
    num_tokens = sum(map(len, documents))
    rates, restores = [], []
    slowest = 0.0
    for _ in range(rounds):
        before = psutil.Process().memory_info().rss
        pool = NgramPool(2 * num_tokens)
        started = time.perf_counter()
        waiting = [(f"{number}.py", ids) for number, ids in enumerate(documents)]
        stepped = time.perf_counter()
        while waiting or pool.has_work:
            index_a_little(pool, waiting)
            now = time.perf_counter()
            slowest, stepped = max(slowest, now - stepped), now
        rates.append(num_tokens / (time.perf_counter() - started))
        grown = psutil.Process().memory_info().rss - before
    times = []
    for number, context in list(lookup_contexts(documents, num_lookups)):
        started = time.perf_counter()
        pool.propose(context, max_candidates=8, max_length=15, document=f"{number}.py")
        times.append(time.perf_counter() - started)
    with tempfile.TemporaryDirectory() as folder:
        cache = PoolCache(Path(folder), "bench", "starter")
        cache.acquire()
        started = time.perf_counter()
        cache.write_base(pool.dump(), {})
        save_s = time.perf_counter() - started
        cache.release()
        _, context = next(lookup_contexts(documents, 1))
        for _ in range(rounds):
            worker = CacheWorker(PoolCache(Path(folder), "bench", "starter"), 2 * num_tokens, permits)
            started = time.perf_counter()
            restored = worker.restore().result()
            assert restored is not None
            assert restored.pool.propose(context, max_candidates=8, max_length=15)
            restores.append(time.perf_counter() - started)
            assert restored.pool.num_tokens == num_tokens
            worker.close()
    p50, p99 = np.percentile(times, [50, 99]) * 1e6
    return {
        "num_tokens": num_tokens,
        "index_tokens_per_s": round(statistics.median(rates)),
        "slowest_index_step_ms": round(slowest * 1e3, 3),
        "lookup_p50_us": round(float(p50), 1),
        "lookup_p99_us": round(float(p99), 1),
        "bytes_per_token": round(pool.nbytes / num_tokens, 1),
        "process_bytes_per_token": round(grown / num_tokens, 1),
        "save_s": round(save_s, 3),
        "restore_s": round(statistics.median(restores), 3),
    }


def index_a_little(pool: NgramPool, waiting: list[tuple[Hashable, np.ndarray]]) -> None:
    """One step of a slice, in the order of ``WorkspacePool``, tokenisation apart."""
    if waiting and not pool.is_behind:
        pool.set_document(*waiting.pop())
    else:
        pool.step()


def decode_steps_while_indexing(documents: list[np.ndarray], num_requests: int) -> dict[str, float]:
    """Median decode step, alone and while 1 M tokens are being indexed.

    As in the engine, one thread does both: between requests of a few decode steps, slices of a millisecond take in and
    index documents until the next request comes, here after twenty of them. A step looks the pool up, runs the model
    and commits. A finished index is begun anew, so that every stage of it is measured.
    """
    from forelook.decoding.layout import causal_layout
    from forelook.model.loading import load_model

    model = load_model(None, device="cpu")
    prompt = next(ids for ids in documents if len(ids) > 512)[:256].tolist()
    times: dict[str, list[float]] = {"idle": [], "indexing": []}
    idle_pool = NgramPool(1 << 21)
    for number, ids in enumerate(documents):
        idle_pool.set_document(number, ids)
    idle_pool.settle()
    growing_pool = NgramPool(1 << 21)
    waiting: list[tuple[Hashable, np.ndarray]] = list(enumerate(documents))
    slices = 0
    sequence = model.new_sequence()
    for turn in range(2 * num_requests):
        kind = "indexing" if turn % 2 else "idle"
        if not waiting and not growing_pool.has_work:
            growing_pool = NgramPool(1 << 21)
            waiting = list(enumerate(documents))
        pool = growing_pool if kind == "indexing" else idle_pool
        sequence.truncate(0)
        sequence.forward(causal_layout(prompt, 0))
        sequence.commit(range(len(prompt)))
        context = list(prompt)
        for _ in range(STEPS_PER_REQUEST):
            started = time.perf_counter()
            pool.propose(context[-CONTEXT_TOKENS:], max_candidates=8, max_length=15)
            logits = sequence.forward(causal_layout(context[-1:], len(context)))
            context.append(int(logits[0].argmax()))
            sequence.commit([0])
            times[kind].append(time.perf_counter() - started)
        # idle turns pause as long, so that neither kind finds warmer threads than the other
        for _ in range(20):
            deadline = time.perf_counter() + SLICE_S
            while time.perf_counter() < deadline:
                if kind == "indexing":
                    index_a_little(pool, waiting)
            slices += kind == "indexing"
    idle, indexing = (statistics.median(times[kind]) for kind in ("idle", "indexing"))
    return {
        "idle_step_ms": round(idle * 1e3, 3),
        "indexing_step_ms": round(indexing * 1e3, 3),
        "step_ratio": round(indexing / idle, 3),
        "num_index_slices": slices,
    }


def plot(rows: list[dict[str, float]], path: Path) -> None:
    """Cost against size."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    sizes = [row["num_tokens"] for row in rows]
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.4))
    panels = (
        ("lookup, µs", {"p50": "lookup_p50_us", "p99": "lookup_p99_us"}),
        ("indexing, M tokens/s", {"rate": "index_tokens_per_s"}),
        ("bytes per token", {"numpy": "bytes_per_token"}),
        ("restore, s", {"restore": "restore_s", "save": "save_s"}),
    )
    for axis, (title, series) in zip(axes, panels, strict=True):
        for label, name in series.items():
            scale = 1e-6 if "per_s" in name else 1
            axis.plot(sizes, [row[name] * scale for row in rows], marker="o", label=label)
        axis.set(title=title, xscale="log", xlabel="tokens in the pool", ylim=(0, None))
        axis.grid(alpha=0.3)
        if len(series) > 1:
            axis.legend()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--text", type=Path, action="append", help="folders of Python files; default: this environment's"
    )
    parser.add_argument("--lookups", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=60, help="requests with and without indexing")
    parser.add_argument("--out", type=Path, help="where to write the plot, as PNG")
    arguments = parser.parse_args()
    folders = arguments.text or [REPOSITORY / "backend", REPOSITORY / "lsp", Path(np.__file__).parents[1]]
    documents = source_documents(folders, SIZES[-1])
    rows = []
    for size in SIZES:
        chosen, total = [], 0
        for ids in documents:
            chosen.append(ids[: size - total])
            total += len(chosen[-1])
            if total >= size:
                break
        row = measure(chosen, arguments.lookups, arguments.rounds)
        rows.append(row)
        print("  ".join(f"{name} {value:,}" for name, value in row.items()), flush=True)
    steps = decode_steps_while_indexing(documents, arguments.requests)
    if arguments.out is not None:
        plot(rows, arguments.out)
    print(json.dumps({"sizes": rows, **steps}))


if __name__ == "__main__":
    main()
