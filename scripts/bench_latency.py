"""What an editor feels: keystroke to reply, through the real language server over stdio and a real backend.

Traces:
  functions  HumanEval and ClassEval functions typed key by key in the middle of a file longer than the model's context
  editing    a recorded editing session (../shared/data/editing-traces) replayed with its edits
  folder     files of any folder: a few lines of each are taken out and typed again

After every key the editor sends the change and asks for an inline completion, as VS Code does, and types the next key
once the reply is there (never faster than ``--keys-per-second``); with ``--impatient`` it types on at that speed and
cancels what has not been answered. Requests are told apart by the language server's own counters: answered from its
cache (hit), by a request that was already running (kept), or by a new one.

Engines: ``hf_greedy`` is transformers' model and cache, greedy, one token a forward, the prompt computed anew for every
request; ``autoregressive`` is Forelook without drafts; ``forelook`` is the product. All three get the same prompts,
stop rules and limits. The last line is one JSON object.

Usage: python scripts/bench_latency.py [--trace functions|editing|folder] [--path FOLDER] [--engine NAME ...]
       [--limit N] [--plot PICTURE]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import json
import os
import random
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[1]
DATA = REPOSITORY.parent / "shared" / "data"
ENGINES = ("hf_greedy", "autoregressive", "forelook")
CLOSERS_ONLY = re.compile(r"""[ \t]*[)>}\]"'`]*[ \t]*[:{;,]?[ \t]*""")
LANGUAGE_IDS = {".py": "python", ".ts": "typescript", ".js": "javascript", ".go": "go", ".rs": "rust", ".java": "java"}
READY_TIMEOUT_S = 180.0
REPLY_TIMEOUT_S = 60.0


# --- traces --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Edit:
    """Replace ``[start, end)`` (code points) by ``text``; ask for a completion afterwards if ``ask``."""

    start: int
    end: int
    text: str
    ask: bool = True


@dataclass(frozen=True)
class Session:
    """One document and the edits made in it."""

    name: str
    language_id: str
    text: str
    edits: tuple[Edit, ...]


def typed(start: int, text: str) -> tuple[Edit, ...]:
    return tuple(Edit(start + index, start + index, character) for index, character in enumerate(text))


def function_sessions(limit: int) -> Iterator[Session]:
    """HumanEval functions and ClassEval classes, in turn, each between others of its kind."""
    with gzip.open(DATA / "humaneval" / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as file:
        human = [json.loads(line) for line in file]
    functions = [task["prompt"].strip("\n") + "\n" + task["canonical_solution"].strip("\n") for task in human]
    classes = [
        task["solution_code"].strip("\n")
        for task in json.loads((DATA / "classeval" / "ClassEval_data.json").read_text())
    ]
    for number in range(limit):
        texts = functions if number % 3 else classes
        index = (number * 7) % len(texts)
        others = [texts[(index + step) % len(texts)] for step in range(1, 25)]
        before = "\n\n\n".join(others[:12]) + "\n\n\n"
        after = "\n\n\n" + "\n\n\n".join(others[12:]) + "\n"
        yield Session(f"function-{number}.py", "python", before + after, typed(len(before), texts[index]))


def editing_sessions(limit: int) -> Iterator[Session]:
    """The recorded session's first ``limit`` transactions; an insertion is followed by a request."""
    with gzip.open(DATA / "editing-traces" / "sveltecomponent.json.gz", "rt", encoding="utf-8") as file:
        trace = json.load(file)
    edits: list[Edit] = []
    for transaction in trace["txns"][:limit]:
        patches = transaction["patches"]
        for number, (start, deleted, inserted) in enumerate(patches):
            edits.append(Edit(start, start + deleted, inserted, ask=bool(inserted) and number == len(patches) - 1))
    yield Session("component.svelte", "svelte", trace["startContent"], tuple(edits))


def folder_sessions(folder: Path, limit: int) -> Iterator[Session]:
    """Files of a folder, in an order that does not depend on the file system; six lines of each are typed again."""
    random_ = random.Random(7)
    paths = sorted(path for path in folder.rglob("*") if path.suffix in LANGUAGE_IDS and ".venv" not in path.parts)
    random_.shuffle(paths)
    found = 0
    for path in paths:
        if found == limit:
            return
        text = path.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n")
        lines = text.splitlines(keepends=True)
        if not 60 <= len(lines) <= 5000:
            continue
        first = random_.randrange(20, len(lines) - 20)
        before, removed = "".join(lines[:first]), "".join(lines[first : first + 6]).rstrip("\n")
        if not removed.strip():
            continue
        found += 1
        yield Session(
            path.name,
            LANGUAGE_IDS[path.suffix],
            before + text[len(before) + len(removed) :],
            typed(len(before), removed),
        )


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
    num_with_items: int = 0
    cpu_s: float = 0.0


@dataclass(frozen=True)
class Counters:
    """The language server's and the engine's counts at one moment."""

    answers: dict[str, int]
    engine: dict[str, int]

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
        dict(result["window"]["answers"]), {name: value for name, value in engine.items() if isinstance(value, int)}
    )


def position(text: str, offset: int) -> dict[str, int]:
    """LSP position in UTF-32."""
    return {"line": text.count("\n", 0, offset), "character": offset - (text.rfind("\n", 0, offset) + 1)}


def anchored_suffix(text: str, offset: int) -> str:
    """The text a suffix-first prompt begins with: from the next line where only closers follow the cursor."""
    end = text.find("\n", offset)
    end = len(text) if end < 0 else end
    return text[end:] if CLOSERS_ONLY.fullmatch(text[offset:end]) else text[offset:]


async def replay(editor: Editor, session: Session, figures: Figures, interval_s: float, impatient: bool) -> None:
    """Type a session, one request per key."""
    uri = (Path(tempfile.gettempdir()) / "bench" / session.name).as_uri()
    text, version = session.text, 1
    document = {"uri": uri, "languageId": session.language_id, "version": version, "text": text}
    editor.notify("textDocument/didOpen", {"textDocument": document})
    seen = await counters(editor)
    suffix: str | None = None
    for edit in session.edits:
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
        timeout = interval_s if impatient else REPLY_TIMEOUT_S
        done, _ = await asyncio.wait([reply], timeout=timeout)
        elapsed_ms = (time.perf_counter() - begun) * 1e3
        if not done:
            editor.notify("$/cancelRequest", {"id": number})
            figures.num_cancelled += 1
            suffix = None
            continue
        answer = reply.result().get("result") or {}
        figures.num_with_items += bool(answer.get("items"))
        now = await counters(editor)
        source, forwards, prefill = now.since(seen)
        seen = now
        figures.latency_ms.setdefault(source, []).append(elapsed_ms)
        figures.num_forwards += forwards
        new_suffix = anchored_suffix(text, cursor)
        if source == "hit":
            figures.forwards_on_hit += forwards
        elif source == "new" and forwards:
            figures.prefill_new.append(prefill)
            if new_suffix == suffix:
                figures.extra_same_suffix.append(prefill)
            else:
                figures.prefill_other.append(prefill)
        suffix = new_suffix
        await asyncio.sleep(max(0.0, interval_s - (time.perf_counter() - begun)))
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
        command = [sys.executable, __file__, "--serve-hf", *options]
    else:
        command = [sys.executable, "-m", "forelook.cli", "serve", *options]
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


async def measure(engine: str, sessions: Iterable[Session], options: argparse.Namespace) -> Figures:
    """Replay all sessions on one engine."""
    figures = Figures()
    async with running(engine, options.model, options.deadline_ms) as (editor, backend):
        server = psutil.Process(editor.process.pid)
        # What asking for the counters costs is no part of the product's work.
        begun = cpu_seconds(backend) + cpu_seconds(server)
        for _ in range(100):
            await counters(editor)
        cost_of_counting = (cpu_seconds(backend) + cpu_seconds(server) - begun) / 100
        begun = cpu_seconds(backend) + cpu_seconds(server)
        for session in sessions:
            await replay(editor, session, figures, 1 / options.keys_per_second, options.impatient)
        spent = cpu_seconds(backend) + cpu_seconds(server) - begun
        figures.cpu_s = max(0.0, spent - cost_of_counting * (figures.num_asked - figures.num_cancelled))
    return figures


# --- the baseline --------------------------------------------------------------------------------------------------


def serve_hf(arguments: list[str]) -> int:
    """``forelook serve`` with transformers' model and cache in place of Forelook's."""
    import torch
    import transformers
    from forelook import cli
    from forelook.completion import engine as engine_module
    from forelook.completion.completer import Completer
    from forelook.completion.request import CompletionResult
    from forelook.decoding.step_layout import StepLayout
    from forelook.model.loading import STARTER_MODEL_PATH, LoadedModel

    class HfSequence:
        """transformers' model and cache behind the decoding protocol, for causal tails."""

        def __init__(self, model: transformers.PreTrainedModel, max_positions: int) -> None:
            self._model = model
            self._cache = transformers.DynamicCache(config=model.config)
            self.cached_ids: list[int] = []
            self.max_positions = max_positions
            self.vocab_size = int(model.config.vocab_size)
            self.tail_sizes = None
            self.nbytes = 0
            self._tail: list[int] = []

        @torch.inference_mode()
        def forward(self, layout: StepLayout) -> torch.Tensor:
            self._tail = layout.token_ids.tolist()
            ids = torch.tensor([self._tail], device=self._model.device)
            out = self._model(input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
            return out.logits[0].float()

        def commit(self, rows: Iterable[int]) -> None:
            self.cached_ids += [self._tail[row] for row in rows]
            assert len(self.cached_ids) == self._cache.get_seq_length(), "a causal tail is committed whole"

        def truncate(self, length: int) -> None:
            if length < len(self.cached_ids):
                self._cache.crop(length - len(self.cached_ids))
                del self.cached_ids[length:]

    class HfModel:
        """A loaded checkpoint whose sequences are transformers'."""

        def __init__(self, loaded: LoadedModel) -> None:
            self._loaded = loaded
            folder = STARTER_MODEL_PATH if loaded.name == "starter-model" else loaded.name
            self._model = (
                transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=loaded.dtype).to(loaded.device).eval()
            )

        def __getattr__(self, name: str) -> object:
            return getattr(self._loaded, name)

        def new_sequence(self, max_positions: int | None = None) -> HfSequence:
            return HfSequence(self._model, max_positions or self._loaded.max_positions)

    class HfCompleter(Completer):
        """Every prompt from its first token, as ``generate`` does; all threads at every step."""

        def complete(self, *request: object) -> CompletionResult:
            self.sequences.clear()
            return super().complete(*request)  # type: ignore[arg-type]

    class HfEngine(engine_module.CompletionEngine):
        def _make_completer(self, model: engine_module.EngineModel) -> Completer:
            return HfCompleter(HfModel(model), self._settings)  # type: ignore[arg-type]

    engine_module.CompletionEngine = HfEngine  # type: ignore[misc]
    return cli.main(["serve", "--autoregressive", *arguments])


# --- the report ----------------------------------------------------------------------------------------------------


def percentile(values: list[float] | list[int], share: float) -> float | None:
    if not values:
        return None
    ordered = sorted(values)
    return round(float(ordered[min(len(ordered) - 1, int(share * len(ordered)))]), 2)


def summary(figures: Figures) -> dict[str, object]:
    new, asked = figures.latency_ms["new"], max(1, figures.num_asked)
    same, other = figures.extra_same_suffix, figures.prefill_other
    return {
        "p50_ms": percentile(new, 0.5),
        "p95_ms": percentile(new, 0.95),
        "p99_ms": percentile(new, 0.99),
        "hit_p99_ms": percentile(figures.latency_ms["hit"], 0.99),
        "prefill_tokens_mean": round(statistics.fmean(figures.prefill_new), 1) if figures.prefill_new else None,
        "forwards_per_100_keys": round(100 * figures.num_forwards / asked, 1),
        "cpu_s_per_1000_keys": round(1000 * figures.cpu_s / max(1, figures.num_keys), 2),
        "hit_p50_ms": percentile(figures.latency_ms["hit"], 0.5),
        "kept_p50_ms": percentile(figures.latency_ms["kept"], 0.5),
        "kept_p95_ms": percentile(figures.latency_ms["kept"], 0.95),
        "num_new": len(new),
        "num_hit": len(figures.latency_ms["hit"]),
        "num_kept": len(figures.latency_ms["kept"]),
        "num_cancelled": figures.num_cancelled,
        "forwards_on_hit": figures.forwards_on_hit,
        "same_suffix_share": round(len(same) / max(1, len(same) + len(other)), 3),
        "same_suffix_prefill_p50": percentile(same, 0.5),
        "same_suffix_prefill_p95": percentile(same, 0.95),
        "other_prefill_p95": percentile(other, 0.95),
        "answered_with_text_share": round(figures.num_with_items / asked, 3),
    }


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
        for source, style in (("new", "-"), ("hit", ":")):
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
    if sys.argv[1:2] == ["--serve-hf"]:
        return serve_hf(sys.argv[2:])
    parser = argparse.ArgumentParser(description="Latency of the real language server, keystroke to reply.")
    parser.add_argument("--trace", choices=("functions", "editing", "folder"), default="functions")
    parser.add_argument("--path", type=Path, default=REPOSITORY, help="the folder of --trace folder")
    parser.add_argument("--engine", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--limit", type=int, help="functions, transactions or files (default: all, or 20 files)")
    parser.add_argument("--keys", type=int, help="keys of each session (default: all)")
    parser.add_argument("--keys-per-second", type=float, default=20.0)
    parser.add_argument("--impatient", action="store_true", help="type on and cancel instead of waiting for replies")
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
    results: dict[str, dict[str, object]] = {}
    latencies: dict[str, dict[str, list[float]]] = {}
    for engine in options.engine:
        figures = asyncio.run(measure(engine, sessions, options))
        results[engine], latencies[engine] = summary(figures), figures.latency_ms
    print_table(results)
    if options.plot:
        plot(options.plot, latencies, options.trace)
    print(json.dumps({"trace": options.trace, "engines": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
