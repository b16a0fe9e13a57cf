"""Keystroke to reply: replays typing sessions through the real language server and a real backend."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from forelook.completion.cursor.brackets import rest_is_closers

from bench.lsp_client import LspClient
from bench.processes import backend, editor, engine_counts, position, private_environment, statistics_of, until_ready
from bench.results import REPOSITORY
from bench.summary import mean, rounded_percentile
from bench.traces import Session, gaps_s

REPLY_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Typist:
    """How sessions are typed.

    Attributes:
        pace: "steady": the next key waits for the reply; "human": it does not, and an unanswered request is cancelled.
        keys_per_second: upper limit of the steady pace.
    """

    pace: str
    keys_per_second: float


@dataclass
class Figures:
    """Counts and times of one engine on a trace."""

    latency_ms: dict[str, list[float]] = field(default_factory=lambda: {"hit": [], "kept": [], "new": [], "none": []})
    prefill_new: list[int] = field(default_factory=list)
    prefill_same_suffix: list[int] = field(default_factory=list)
    prefill_other: list[int] = field(default_factory=list)
    forwards_on_hit: int = 0
    num_keys: int = 0
    num_asked: int = 0
    num_cancelled: int = 0
    num_with_items: int = 0
    cpu_s: float = 0.0
    typing_s: float = 0.0
    session_p50_ms: list[float | None] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def is_silent(self) -> bool:
        """Whether requests were left to end and none of them was answered."""
        has_answered = self.latency_ms["new"] or self.latency_ms["hit"]
        return not has_answered and self.num_asked > self.num_cancelled


async def counters(client: LspClient) -> Counter[str]:
    """Return the counts of the language server and the engine at one moment, and the engine's milliseconds."""
    stats = await statistics_of(client)
    counts = Counter[str](engine_counts(stats))
    counts.update({f"answers.{name}": count for name, count in stats["window"]["answers"].items()})
    counts.update({f"spent_ms.{name}": value for name, value in stats["backend"]["engine"]["spent_ms"].items()})
    return counts


def named(counts: Mapping[str, float], group: str) -> dict[str, float]:
    """Return the counts of a group, by their names in it."""
    return {name.removeprefix(group): value for name, value in counts.items() if name.startswith(group)}


def anchored_suffix(text: str, offset: int) -> str:
    """Return the text that begins a suffix-first prompt: from the next line where only closers follow the cursor."""
    end = text.find("\n", offset)
    end = len(text) if end < 0 else end
    return text[end if rest_is_closers(text[offset:end]) else offset :]


async def replay(client: LspClient, session: Session, figures: Figures, typist: Typist) -> None:
    """Type a session, with one request per key."""
    uri = (Path(tempfile.gettempdir()) / "bench" / session.name).as_uri()
    text, version = session.text, 1
    await client.open(uri, text, language_id=session.language_id)
    seen = first = await counters(client)
    suffix: str | None = None
    clean = True  # whether the counts since ``seen`` are those of one request
    num_new = len(figures.latency_ms["new"])
    for edit, gap_s in zip(session.edits, gaps_s(session, typist.pace, typist.keys_per_second), strict=False):
        started_s = time.perf_counter()
        version += 1
        change = {"range": {"start": position(text, edit.start), "end": position(text, edit.end)}, "text": edit.text}
        text = text[: edit.start] + edit.text + text[edit.end :]
        cursor = edit.start + len(edit.text)
        await client.change(uri, version, change)
        figures.num_keys += 1
        if not edit.ask:
            continue
        figures.num_asked += 1
        number, reply = await client.start_complete(uri, **position(text, cursor))
        timeout_s = gap_s if typist.pace == "human" else REPLY_TIMEOUT_S
        done, _ = await asyncio.wait([reply], timeout=timeout_s)
        elapsed_ms = (time.perf_counter() - started_s) * 1e3
        if not done:
            await client.cancel(number)
            figures.num_cancelled += 1
            clean = False
            continue
        answer = reply.result() or {}
        figures.num_with_items += bool(answer.get("items"))
        now = await counters(client)
        spent, seen = now - seen, now
        source = next(iter(named(spent, "answers.")), "none")
        figures.latency_ms.setdefault(source, []).append(elapsed_ms)
        new_suffix = anchored_suffix(text, cursor)
        if source == "hit":
            figures.forwards_on_hit += spent["forwards"]
        elif source == "new" and spent["forwards"] and clean:
            figures.prefill_new.append(spent["prefill_tokens"])
            group = figures.prefill_same_suffix if new_suffix == suffix else figures.prefill_other
            group.append(spent["prefill_tokens"])
        suffix, clean = new_suffix, True
        await asyncio.sleep(max(0.0, gap_s - (time.perf_counter() - started_s)))
    figures.counts += await counters(client) - first  # of the whole session, cancelled requests included
    figures.session_p50_ms.append(rounded_percentile(figures.latency_ms["new"][num_new:], 50))
    await client.close(uri)


@dataclass
class Contestant:
    """One engine, its processes and what was measured of it."""

    client: LspClient
    processes: tuple[psutil.Process, ...]
    figures: Figures
    cost_of_counting_s: float = 0.0

    def cpu_s(self) -> float:
        times = [process.cpu_times() for process in self.processes]
        return sum(float(time_.user + time_.system) for time_ in times)

    async def learn_cost_of_counting(self) -> None:
        """Measure the cost of asking for the counters, which is not the product's work."""
        cpu_s = self.cpu_s()
        for _ in range(100):
            await counters(self.client)
        self.cost_of_counting_s = (self.cpu_s() - cpu_s) / 100

    async def play(self, session: Session, typist: Typist) -> None:
        cpu_s, started_s = self.cpu_s(), time.perf_counter()
        num_counted = self.figures.num_asked - self.figures.num_cancelled
        await replay(self.client, session, self.figures, typist)
        num_counted = self.figures.num_asked - self.figures.num_cancelled - num_counted
        self.figures.typing_s += time.perf_counter() - started_s
        self.figures.cpu_s += max(0.0, self.cpu_s() - cpu_s - self.cost_of_counting_s * num_counted)


@dataclass(frozen=True)
class Served:
    """What all engines serve.

    Attributes:
        model: folder, GGUF file or hub id; ``None`` for the starter model.
        dtype: of its weights.
    """

    model: str | None = None
    dtype: str = "auto"


def backend_command(engine: str, served: Served) -> list[str]:
    """Return the command of an engine's backend."""
    command = [sys.executable, "-m", "forelook", "serve"]
    if engine == "hf_greedy":
        command = [sys.executable, str(REPOSITORY / "scripts" / "hf_greedy_backend.py")]
    elif engine == "autoregressive":
        command.append("--autoregressive")
    command.append("--no-persistent-pool")
    command += ["--model", served.model] if served.model else []
    return command + ([f"--dtype={served.dtype}"] if served.dtype != "auto" else [])


async def measure(
    engines: Sequence[str], sessions: Sequence[Session], typist: Typist, served: Served
) -> dict[str, Figures]:
    """Replay all sessions on all engines, in turns, on servers that run side by side."""
    settings: dict[str, Any] = {"indexWorkspace": False, "backend": {"start": False}}
    settings |= {"model": served.model} if served.model else {}
    settings |= {"dtype": served.dtype} if served.dtype != "auto" else {}
    contestants: dict[str, Contestant] = {}
    async with contextlib.AsyncExitStack() as stack:
        for engine in engines:
            environment = stack.enter_context(private_environment(sees_models=served.model is not None))
            command = backend_command(engine, served)
            process = await stack.enter_async_context(backend(environment, command))
            server = await stack.enter_async_context(editor(environment, settings))
            await until_ready(server.client)
            processes = (psutil.Process(process.pid), psutil.Process(server.process.pid))
            contestants[engine] = Contestant(server.client, processes, Figures())
            await contestants[engine].learn_cost_of_counting()
        for session in sessions:
            for contestant in contestants.values():
                await contestant.play(session, typist)
    if silent := [name for name, contestant in contestants.items() if contestant.figures.is_silent]:
        raise SystemExit(f"{', '.join(silent)} answered nothing; run the backend's command by hand to see why")
    return {name: contestant.figures for name, contestant in contestants.items()}


def percentiles(name: str, values: Sequence[float], *percents: int) -> dict[str, float | None]:
    """Return percentiles by name, in which ``{}`` is the percent."""
    return {name.format(f"p{percent}"): rounded_percentile(values, percent) for percent in percents}


def report(figures: Figures) -> dict[str, object]:
    """Return the figures of an engine, the main ones first."""
    latency, asked, keys = figures.latency_ms, max(1, figures.num_asked), max(1, figures.num_keys)
    same, other = figures.prefill_same_suffix, figures.prefill_other
    answered = max(1, len(latency["new"]) + len(latency["kept"]))
    return {
        **percentiles("{}_ms", latency["new"], 50, 95, 99),
        **percentiles("hit_{}_ms", latency["hit"], 99),
        "prefill_tokens_mean": mean(figures.prefill_new, 1),
        "forwards_per_100_keys": round(100 * figures.counts["forwards"] / keys, 1),
        "cpu_s_per_1000_keys": round(1000 * figures.cpu_s / keys, 2),
        "keys_per_s": round(keys / figures.typing_s, 2) if figures.typing_s else None,
        "num_keys": figures.num_keys,
        **{f"num_{source}": len(latency[source]) for source in ("new", "hit", "kept")},
        "num_cancelled": figures.num_cancelled,
        "answered_with_text_share": round(figures.num_with_items / asked, 3),
        "mean_ms": mean(latency["new"], 2),
        "new_ms": sorted(round(value, 1) for value in latency["new"]),
        **percentiles("hit_{}_ms", latency["hit"], 50),
        **percentiles("kept_{}_ms", latency["kept"], 50, 95),
        "forwards_on_hit": figures.forwards_on_hit,
        "cancelled_forwards_per_100_keys": round(100 * figures.counts["cancelled_forwards"] / keys, 1),
        "background_forwards_per_100_keys": round(100 * figures.counts["background_forwards"] / keys, 1),
        "same_suffix_share": round(len(same) / max(1, len(same) + len(other)), 3),
        **percentiles("same_suffix_prefill_{}", same, 50, 95),
        **percentiles("other_prefill_{}", other, 95),
        "spent_ms_mean": {
            part: round(spent / answered, 2) for part, spent in named(figures.counts, "spent_ms.").items()
        },
    }


def ratios(results: dict[str, Figures]) -> dict[str, object]:
    """Return how much slower the others' new requests are than the last engine's, per session."""
    *others, own = results
    found: dict[str, object] = {}
    for name in others:
        pairs = zip(results[name].session_p50_ms, results[own].session_p50_ms, strict=True)
        quotients = sorted(theirs / ours for theirs, ours in pairs if theirs and ours)
        if quotients:
            found[f"{name} / {own}"] = {
                "median": round(statistics.median(quotients), 2),
                "range": [round(quotients[0], 2), round(quotients[-1], 2)],
                "sessions": len(quotients),
            }
    return found
