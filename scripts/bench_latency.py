"""What an editor feels: keystroke to reply, through the real language server over stdio and a real backend.

Traces:
  functions  HumanEval and ClassEval functions typed key by key in the middle of a file longer than the model's context
  editing    a recorded editing session (../shared/data/editing-traces) replayed with its edits
  folder     files of any folder: a few lines of each are taken out and typed again

After every key the editor sends the change and asks for an inline completion, as VS Code does. How fast it types:

  steady     the next key comes once the reply is there, never faster than ``--keys-per-second``: every request is
             answered, so that latencies of engines can be compared
  human      five to eight keys a second, slower at a word's end, with pauses at line ends and now and then to think;
             the next key does not wait for a reply, and what is not answered by then is cancelled

Requests are told apart by the language server's own counters: answered from its cache (hit), by a request that was
already running (kept), or by a new one. The engines take turns, a session each, on servers that run side by side.

Engines: ``hf_greedy`` is transformers' model and cache, greedy, one token a forward, the prompt computed anew for every
request; ``autoregressive`` is Forelook without drafts; ``forelook`` is the product. All three get the same prompts,
stop rules and limits. The last line is one JSON object; the line before it holds all figures.

Usage: python scripts/bench_latency.py [--trace functions|editing|folder] [--path FOLDER] [--engine NAME ...]
       [--pace steady|human] [--limit N] [--keys N] [--plot PICTURE]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
from bench.traces import Session, editing_sessions, folder_sessions, function_sessions, gaps_s
from forelook.percentiles import percentile

REPOSITORY = Path(__file__).resolve().parents[1]
ENGINES = ("hf_greedy", "autoregressive", "forelook")
CLOSERS_ONLY = re.compile(r"""[ \t]*[)>}\]"'`]*[ \t]*[:{;,]?[ \t]*""")
READY_TIMEOUT_S = 180.0
REPLY_TIMEOUT_S = 60.0


# --- the editor ----------------------------------------------------------------------------------------------------


class Editor:
    """A client of ``forelook-lsp`` over stdio: frames, ids, and no more."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._next_id = 1
        self._waiting: dict[int, asyncio.Future[object]] = {}
        self.ready = asyncio.Event()
        self.failure: str | None = None
        self._reader = asyncio.create_task(self._read())

    async def request(self, method: str, params: object) -> object:
        return await self.send(method, params)[1]

    def send(self, method: str, params: object) -> tuple[int, asyncio.Future[object]]:
        number, self._next_id = self._next_id, self._next_id + 1
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._write({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        return number, future

    def notify(self, method: str, params: object) -> None:
        self._write({"jsonrpc": "2.0", "method": method, "params": params})

    async def close(self) -> None:
        await self.request("shutdown", None)
        self.notify("exit", None)
        await self.process.wait()
        self._reader.cancel()

    def _write(self, message: dict[str, object]) -> None:
        body = json.dumps(message).encode()
        assert self.process.stdin is not None
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)

    async def _read(self) -> None:
        stream = self.process.stdout
        assert stream is not None
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                header = await stream.readuntil(b"\r\n\r\n")
                length = int(re.search(rb"Content-Length: (\d+)", header).group(1))  # type: ignore[union-attr]
                self._take(json.loads(await stream.readexactly(length)))
        self.failure = "the language server ended"
        self.ready.set()

    def _take(self, message: dict[str, object]) -> None:
        if "method" not in message:
            future = self._waiting.pop(int(str(message["id"])), None)
            if future is not None and not future.done():
                future.set_result(message)
            return
        if "id" in message:
            items = message["params"].get("items", []) if message["method"] == "workspace/configuration" else None
            result = None if items is None else [None] * len(items)
            self._write({"jsonrpc": "2.0", "id": message["id"], "result": result})
        elif message["method"] == "forelook/status":
            status = message["params"]
            if status["state"] == "error":
                self.failure = str(status.get("message"))
            if status["state"] in ("ready", "error"):
                self.ready.set()


@dataclass
class Figures:
    """What one engine did on a trace."""

    latency_ms: dict[str, list[float]] = field(default_factory=lambda: {"hit": [], "kept": [], "new": [], "none": []})
    prefill_new: list[int] = field(default_factory=list)
    extra_same_suffix: list[int] = field(default_factory=list)
    prefill_other: list[int] = field(default_factory=list)
    forwards_on_hit: int = 0
    num_keys: int = 0
    num_asked: int = 0
    num_cancelled: int = 0
    num_forwards: int = 0
    num_cancelled_forwards: int = 0
    num_background_forwards: int = 0
    num_with_items: int = 0
    cpu_s: float = 0.0
    typing_s: float = 0.0
    session_p50_ms: list[float | None] = field(default_factory=list)
    spent_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Counters:
    """The language server's and the engine's counts at one moment."""

    answers: dict[str, int]
    engine: dict[str, int]
    spent_ms: dict[str, float]

    def since(self, older: Counters) -> tuple[str, int, int]:
        """The source of the answer in between, forwards and prefill tokens."""
        source = next((name for name, count in self.answers.items() if count > older.answers.get(name, 0)), "none")
        return (
            source,
            self.engine["forwards"] - older.engine["forwards"],
            self.engine["prefill_tokens"] - older.engine["prefill_tokens"],
        )


async def counters(editor: Editor) -> Counters:
    reply = await editor.request("workspace/executeCommand", {"command": "forelook.stats"})
    result = reply["result"]
    engine = result["backend"]["engine"]
    return Counters(
        dict(result["window"]["answers"]),
        {name: value for name, value in engine.items() if isinstance(value, int)},
        dict(engine["spent_ms"]),
    )


def position(text: str, offset: int) -> dict[str, int]:
    """LSP position in UTF-32."""
    return {"line": text.count("\n", 0, offset), "character": offset - (text.rfind("\n", 0, offset) + 1)}


def anchored_suffix(text: str, offset: int) -> str:
    """The text a suffix-first prompt begins with: from the next line where only closers follow the cursor."""
    end = text.find("\n", offset)
    end = len(text) if end < 0 else end
    return text[end:] if CLOSERS_ONLY.fullmatch(text[offset:end]) else text[offset:]


async def replay(editor: Editor, session: Session, figures: Figures, options: argparse.Namespace) -> None:
    """Type a session, one request per key."""
    uri = (Path(tempfile.gettempdir()) / "bench" / session.name).as_uri()
    text, version = session.text, 1
    document = {"uri": uri, "languageId": session.language_id, "version": version, "text": text}
    editor.notify("textDocument/didOpen", {"textDocument": document})
    seen = first = await counters(editor)
    suffix: str | None = None
    clean = True  # whether the counts since ``seen`` are those of one request
    num_new = len(figures.latency_ms["new"])
    for edit, gap_s in zip(session.edits, gaps_s(session, options.pace, options.keys_per_second), strict=False):
        begun = time.perf_counter()
        version += 1
        change = {"range": {"start": position(text, edit.start), "end": position(text, edit.end)}, "text": edit.text}
        text = text[: edit.start] + edit.text + text[edit.end :]
        cursor = edit.start + len(edit.text)
        editor.notify(
            "textDocument/didChange",
            {"textDocument": {"uri": uri, "version": version}, "contentChanges": [change]},
        )
        figures.num_keys += 1
        if not edit.ask:
            continue
        figures.num_asked += 1
        number, reply = editor.send(
            "textDocument/inlineCompletion",
            {"textDocument": {"uri": uri}, "position": position(text, cursor), "context": {"triggerKind": 2}},
        )
        timeout = gap_s if options.pace == "human" else REPLY_TIMEOUT_S
        done, _ = await asyncio.wait([reply], timeout=timeout)
        elapsed_ms = (time.perf_counter() - begun) * 1e3
        if not done:
            editor.notify("$/cancelRequest", {"id": number})
            figures.num_cancelled += 1
            clean = False
            continue
        answer = reply.result().get("result") or {}
        figures.num_with_items += bool(answer.get("items"))
        now = await counters(editor)
        source, forwards, prefill = now.since(seen)
        seen = now
        figures.latency_ms.setdefault(source, []).append(elapsed_ms)
        new_suffix = anchored_suffix(text, cursor)
        if source == "hit":
            figures.forwards_on_hit += forwards
        elif source == "new" and forwards and clean:
            figures.prefill_new.append(prefill)
            if new_suffix == suffix:
                figures.extra_same_suffix.append(prefill)
            else:
                figures.prefill_other.append(prefill)
        suffix, clean = new_suffix, True
        await asyncio.sleep(max(0.0, gap_s - (time.perf_counter() - begun)))
    # Counts of the whole session, so that what was cancelled is among them.
    last = await counters(editor)
    figures.num_forwards += last.engine["forwards"] - first.engine["forwards"]
    figures.num_cancelled_forwards += last.engine["cancelled_forwards"] - first.engine["cancelled_forwards"]
    figures.num_background_forwards += last.engine["background_forwards"] - first.engine["background_forwards"]
    for part, milliseconds in last.spent_ms.items():
        figures.spent_ms[part] = figures.spent_ms.get(part, 0.0) + milliseconds - first.spent_ms[part]
    figures.session_p50_ms.append(rounded_percentile(figures.latency_ms["new"][num_new:], 50))
    editor.notify("textDocument/didClose", {"textDocument": {"uri": uri}})


# --- processes -----------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def running(
    engine: str, model: str | None, deadline_ms: int | None
) -> AsyncIterator[tuple[Editor, psutil.Process]]:
    """A private backend of one engine, and an editor on a language server that uses it."""
    folder = Path(tempfile.mkdtemp(prefix="fl-bench-"))
    names = ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")
    environment = {**os.environ, **dict.fromkeys(names, str(folder))}
    options = ["--announce", "--no-persistent-pool"] + ([f"--deadline-ms={deadline_ms}"] if deadline_ms else [])
    if model:
        options += ["--model", model]
    if engine == "hf_greedy":
        command = [sys.executable, str(REPOSITORY / "scripts" / "hf_greedy_backend.py"), *options]
    else:
        command = [sys.executable, "-m", "forelook", "serve", *options]
        command += ["--autoregressive"] if engine == "autoregressive" else []
    log = (folder / "backend.log").open("wb")
    backend = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=log
    )
    try:
        assert backend.stdout is not None
        announced = await asyncio.wait_for(backend.stdout.readline(), READY_TIMEOUT_S)
        if b'"listening"' not in announced:
            raise RuntimeError(f"{engine}: {announced.decode()}\n{(folder / 'backend.log').read_text()[-2000:]}")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "forelook_lsp",
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=2**26,
        )
        editor = Editor(process)
        settings: dict[str, object] = {"indexWorkspace": False, "backend": {"start": False}}
        if model:
            settings["model"] = model
        await editor.request(
            "initialize",
            {
                "processId": None,
                "rootUri": None,
                "capabilities": {
                    "general": {"positionEncodings": ["utf-32"]},
                    "textDocument": {"inlineCompletion": {}},
                },
                "initializationOptions": settings,
            },
        )
        editor.notify("initialized", {})
        await asyncio.wait_for(editor.ready.wait(), READY_TIMEOUT_S)
        if editor.failure is not None:
            raise RuntimeError(f"{engine}: {editor.failure}\n{(folder / 'backend.log').read_text()[-2000:]}")
        yield editor, psutil.Process(backend.pid)
        await editor.close()
    finally:
        backend.terminate()
        await asyncio.wait_for(backend.wait(), 30)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@dataclass
class Contestant:
    """One engine that takes its turns."""

    editor: Editor
    processes: tuple[psutil.Process, ...]
    figures: Figures
    cost_of_counting_s: float = 0.0

    def cpu_s(self) -> float:
        return sum(cpu_seconds(process) for process in self.processes)

    async def learn_cost_of_counting(self) -> None:
        """What asking for the counters costs is no part of the product's work."""
        begun = self.cpu_s()
        for _ in range(100):
            await counters(self.editor)
        self.cost_of_counting_s = (self.cpu_s() - begun) / 100

    async def play(self, session: Session, options: argparse.Namespace) -> None:
        begun, begun_s = self.cpu_s(), time.perf_counter()
        num_counted = self.figures.num_asked - self.figures.num_cancelled
        await replay(self.editor, session, self.figures, options)
        num_counted = self.figures.num_asked - self.figures.num_cancelled - num_counted
        self.figures.typing_s += time.perf_counter() - begun_s
        self.figures.cpu_s += max(0.0, self.cpu_s() - begun - self.cost_of_counting_s * num_counted)


async def measure(sessions: Sequence[Session], options: argparse.Namespace) -> dict[str, Figures]:
    """Replay all sessions on all engines, in turn."""
    contestants: dict[str, Contestant] = {}
    async with contextlib.AsyncExitStack() as stack:
        for engine in options.engine:
            editor, backend = await stack.enter_async_context(running(engine, options.model, options.deadline_ms))
            contestants[engine] = Contestant(editor, (backend, psutil.Process(editor.process.pid)), Figures())
            await contestants[engine].learn_cost_of_counting()
        for session in sessions:
            for contestant in contestants.values():
                await contestant.play(session, options)
    return {name: contestant.figures for name, contestant in contestants.items()}


# --- the report ----------------------------------------------------------------------------------------------------


def rounded_percentile(values: list[float] | list[int], percent: int) -> float | None:
    value = percentile(values, percent)
    return None if value is None else round(float(value), 2)


def summary(figures: Figures) -> dict[str, object]:
    """The figures the benchmark's last line holds."""
    new = figures.latency_ms["new"]
    return {
        "p50_ms": rounded_percentile(new, 50),
        "p95_ms": rounded_percentile(new, 95),
        "p99_ms": rounded_percentile(new, 99),
        "hit_p99_ms": rounded_percentile(figures.latency_ms["hit"], 99),
        "prefill_tokens_mean": round(statistics.fmean(figures.prefill_new), 1) if figures.prefill_new else None,
        "forwards_per_100_keys": round(100 * figures.num_forwards / max(1, figures.num_keys), 1),
        "cpu_s_per_1000_keys": round(1000 * figures.cpu_s / max(1, figures.num_keys), 2),
    }


def details(figures: Figures) -> dict[str, object]:
    """Everything else."""
    latency, asked, keys = figures.latency_ms, max(1, figures.num_asked), max(1, figures.num_keys)
    same, other = figures.extra_same_suffix, figures.prefill_other
    answered = max(1, len(latency["new"]) + len(latency["kept"]))
    return {
        "keys_per_s": round(keys / figures.typing_s, 2) if figures.typing_s else None,
        "num_keys": figures.num_keys,
        "num_new": len(latency["new"]),
        "num_hit": len(latency["hit"]),
        "num_kept": len(latency["kept"]),
        "num_cancelled": figures.num_cancelled,
        "answered_with_text_share": round(figures.num_with_items / asked, 3),
        "mean_ms": round(statistics.fmean(latency["new"]), 2) if latency["new"] else None,
        "hit_p50_ms": rounded_percentile(latency["hit"], 50),
        "kept_p50_ms": rounded_percentile(latency["kept"], 50),
        "kept_p95_ms": rounded_percentile(latency["kept"], 95),
        "forwards_on_hit": figures.forwards_on_hit,
        "cancelled_forwards_per_100_keys": round(100 * figures.num_cancelled_forwards / keys, 1),
        "background_forwards_per_100_keys": round(100 * figures.num_background_forwards / keys, 1),
        "same_suffix_share": round(len(same) / max(1, len(same) + len(other)), 3),
        "same_suffix_prefill_p50": rounded_percentile(same, 50),
        "same_suffix_prefill_p95": rounded_percentile(same, 95),
        "other_prefill_p95": rounded_percentile(other, 95),
        "spent_ms_mean": {part: round(spent / answered, 2) for part, spent in figures.spent_ms.items()},
    }


def ratios(results: dict[str, Figures]) -> dict[str, object]:
    """How much slower the others' new requests are than the last engine's, session by session."""
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


def print_table(results: dict[str, dict[str, object]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="keystroke to reply")
    table.add_column("measure")
    for name in results:
        table.add_column(name, justify="right")
    for measure_name in next(iter(results.values())):
        table.add_row(measure_name, *(str(result[measure_name]) for result in results.values()))
    Console().print(table)


def plot(path: Path, latencies: dict[str, dict[str, list[float]]], trace: str) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5))
    for name, by_source in latencies.items():
        for source, style in (("new", "-"), ("kept", "--"), ("hit", ":")):
            values = sorted(by_source.get(source, []))
            if values:
                shares = [(index + 1) / len(values) for index in range(len(values))]
                axes.plot(values, shares, style, label=f"{name}, {source} (n={len(values)})")
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds from keystroke to reply")
    axes.set_ylabel("share of requests answered")
    axes.set_title(f"Latency seen by the editor, trace “{trace}”")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> int:
    parser = argparse.ArgumentParser(description="Latency of the real language server, keystroke to reply.")
    parser.add_argument("--trace", choices=("functions", "editing", "folder"), default="functions")
    parser.add_argument("--path", type=Path, default=REPOSITORY, help="the folder of --trace folder")
    parser.add_argument("--engine", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--limit", type=int, help="functions, transactions or files (default: all, or 20 files)")
    parser.add_argument("--keys", type=int, help="keys of each session (default: all)")
    parser.add_argument("--keys-per-second", type=float, default=20.0)
    parser.add_argument("--pace", choices=("steady", "human"), default="steady", help="how it types")
    parser.add_argument("--deadline-ms", type=int, help="the engine's deadline (default: the product's)")
    parser.add_argument("--model", help="a checkpoint folder or hub id (default: the starter model)")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    if options.trace == "folder":
        sessions = list(folder_sessions(options.path, options.limit or 20))
    elif options.trace == "editing":
        sessions = list(editing_sessions(options.limit or 10**9))
    else:
        sessions = list(function_sessions(options.limit or 264))
    sessions = [replace(session, edits=session.edits[: options.keys]) for session in sessions]
    figures = asyncio.run(measure(sessions, options))
    results = {name: summary(found) for name, found in figures.items()}
    everything = {name: results[name] | details(found) for name, found in figures.items()}
    print_table(everything)
    if options.plot:
        plot(options.plot, {name: found.latency_ms for name, found in figures.items()}, options.trace)
    print(json.dumps({"trace": options.trace, "pace": options.pace, "engines": everything, "ratios": ratios(figures)}))
    print(json.dumps({"trace": options.trace, "engines": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
