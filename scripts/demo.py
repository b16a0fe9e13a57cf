"""Show Forelook working: real backend, real language server, real model, real files.

Starts ``forelook serve`` and ``forelook-lsp`` in a private runtime folder, opens source files of this repository (or
the ones named), takes a piece of code out of each as an editor would, asks for an inline completion there, and prints
the excerpt with the ghost text in place.

Usage: python scripts/demo.py [FILE.py ...] [--model PATH_OR_ID] [--svg PICTURE]
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lsprotocol import types
from pygls.lsp.client import LanguageClient
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

REPOSITORY = Path(__file__).resolve().parents[1]
DEFAULT_FILES = (
    REPOSITORY / "backend/forelook/decoding/layout.py",
    REPOSITORY / "backend/forelook/decoding/limits.py",
    REPOSITORY / "backend/forelook/completion/document_store.py",
)
LINES_BEFORE, LINES_AFTER = 6, 3
LOAD_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Scene:
    """A cursor in a document from which ``removed`` was taken out, as by an edit."""

    name: str
    before: str
    removed: str
    after: str

    @property
    def text(self) -> str:
        return self.before + self.after


def scenes(source: str) -> Iterator[Scene]:
    """One scene of each kind, found with the file's own syntax tree."""
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))

    def offset(line: int, column_bytes: int) -> int:
        return starts[line - 1] + len(lines[line - 1].encode()[:column_bytes].decode())

    def scene(name: str, start: int, end: int) -> Scene:
        return Scene(name, source[:start], source[start:end], source[end:])

    nodes = sorted(
        (n for n in ast.walk(ast.parse(source)) if hasattr(n, "lineno")), key=lambda n: (n.lineno, n.col_offset)
    )
    functions = [n for n in nodes if isinstance(n, ast.FunctionDef)]
    for node in nodes:
        value = node.value if isinstance(node, ast.Return | ast.Assign) else None
        if value is not None and value.lineno == value.end_lineno and value.end_col_offset - value.col_offset > 20:
            yield scene(
                "end of a line", offset(value.lineno, value.col_offset), offset(value.lineno, value.end_col_offset)
            )
            break
    for node in nodes:
        if isinstance(node, ast.Call) and node.args and node.lineno == node.end_lineno and not node.keywords:
            last = node.args[-1]
            if (last.end_col_offset or 0) - node.args[0].col_offset > 8:
                start, end = (
                    offset(node.args[0].lineno, node.args[0].col_offset),
                    offset(node.lineno, node.end_col_offset - 1),
                )
                yield scene("inside a call", start, end)
                break
    for node in functions:
        body = node.body[1:] if ast.get_docstring(node) else node.body
        if body and body[0].lineno > node.lineno and not isinstance(body[0], ast.Pass | ast.Raise):
            start, end = (
                offset(body[0].lineno, body[0].col_offset),
                offset(body[-1].end_lineno, body[-1].end_col_offset),
            )
            if 1 <= body[-1].end_lineno - body[0].lineno + 1 <= 8 and "..." not in source[start:end]:
                yield scene("empty function body", start, end)
                break


def fields_of(value: object) -> dict[str, object]:
    """The fields of a message: pygls makes named tuples of what its own types do not cover."""
    if isinstance(value, dict):
        return value
    return dict(value._asdict()) if hasattr(value, "_asdict") else dict(vars(value))


class Editor:
    """The least an editor does: opens documents, edits them, asks for inline completions."""

    def __init__(self, environment: dict[str, str], model: str | None) -> None:
        self._client = LanguageClient("forelook-demo", "1")
        self._environment = environment
        self._model = model
        self.status: dict[str, object] = {}
        self._changed = asyncio.Event()

        @self._client.feature("forelook/status")
        def on_status(_client: LanguageClient, params: object) -> None:
            self.status = {name: value for name, value in fields_of(params).items() if value is not None}
            self._changed.set()

        @self._client.feature(types.PROGRESS)
        def on_progress(_client: LanguageClient, _params: types.ProgressParams) -> None:
            """The status line shows it."""

        @self._client.feature(types.WORKSPACE_CONFIGURATION)
        def on_configuration(_client: LanguageClient, params: types.ConfigurationParams) -> list[None]:
            return [None] * len(params.items)

    async def start(self, root: Path) -> float:
        """Start the language server; returns the milliseconds until it answered ``initialize``."""
        begun = time.perf_counter()
        await self._client.start_io(str(Path(sys.executable).with_name("forelook-lsp")), env=self._environment)
        options: dict[str, object] = {"model": self._model} if self._model else {}
        await self._client.initialize_async(
            types.InitializeParams(
                capabilities=types.ClientCapabilities(
                    general=types.GeneralClientCapabilities(position_encodings=[types.PositionEncodingKind.Utf32]),
                ),
                initialization_options=options,
                workspace_folders=[types.WorkspaceFolder(root.as_uri(), root.name)],
            )
        )
        elapsed_ms = (time.perf_counter() - begun) * 1000
        self._client.initialized(types.InitializedParams())
        return elapsed_ms

    async def until_ready(self) -> None:
        """Wait until the model answers; raises RuntimeError with its own message when it cannot."""
        deadline = time.monotonic() + LOAD_TIMEOUT_S
        while self.status.get("state") != "ready":
            if self.status.get("state") == "error":
                raise RuntimeError(str(self.status.get("message")))
            await asyncio.wait_for(self._changed.wait(), max(0.0, deadline - time.monotonic()))
            self._changed.clear()

    def open(self, path: Path, text: str) -> None:
        item = types.TextDocumentItem(path.as_uri(), types.LanguageKind.Python, 1, text)
        self._client.text_document_did_open(types.DidOpenTextDocumentParams(item))

    def replace(self, path: Path, version: int, text: str) -> None:
        self._client.text_document_did_change(
            types.DidChangeTextDocumentParams(
                types.VersionedTextDocumentIdentifier(version, path.as_uri()),
                [types.TextDocumentContentChangeWholeDocument(text)],
            )
        )

    async def complete(self, path: Path, before: str) -> tuple[str, str, float]:
        """Ask at the end of ``before``: the ghost text, what it replaces before the cursor, and milliseconds."""
        line, column = before.count("\n"), len(before) - (before.rfind("\n") + 1)
        params = types.InlineCompletionParams(
            types.InlineCompletionContext(types.InlineCompletionTriggerKind.Automatic),
            types.TextDocumentIdentifier(path.as_uri()),
            types.Position(line, column),
        )
        begun = time.perf_counter()
        answer = await self._client.text_document_inline_completion_async(params)
        elapsed_ms = (time.perf_counter() - begun) * 1000
        items = answer.items if isinstance(answer, types.InlineCompletionList) else (answer or [])
        if not items:
            return "", "", elapsed_ms
        item = items[0]
        start = item.range.start.character if item.range else column
        return str(item.insert_text), before[len(before) - (column - start) :], elapsed_ms

    async def counts(self) -> dict[str, int]:
        """What the backend's engine has counted so far."""
        answer = await self._client.workspace_execute_command_async(types.ExecuteCommandParams("forelook.stats"))
        engine = fields_of(fields_of(fields_of(answer)["backend"])["engine"])
        return {name: value for name, value in engine.items() if isinstance(value, int)}

    async def stop(self) -> None:
        await self._client.shutdown_async(None)
        self._client.exit(None)
        await self._client.stop()


def show(console: Console, path: Path, scene: Scene, ghost: str, replaced: str) -> None:
    """The excerpt around the cursor, the ghost text in place."""
    before = scene.before[: len(scene.before) - len(replaced)] if replaced else scene.before
    visible = ghost[len(replaced) :] if ghost.startswith(replaced) else ghost
    before_lines = (before + replaced).split("\n")
    after_lines = scene.after.split("\n")
    text = Text("\n".join(before_lines[-LINES_BEFORE:]))
    if visible:
        text.append(f"⟦{visible}⟧" if not console.is_terminal else visible, style="italic bright_black on grey15")
    else:
        text.append("▏(no suggestion)", style="dim")
    text.append("\n".join(after_lines[:LINES_AFTER]))
    console.print(Text(f"{path.name}:{len(before_lines)}  {scene.name}", style="bold cyan"))
    console.print(text, soft_wrap=True)


async def run(arguments: argparse.Namespace, console: Console, environment: dict[str, str]) -> int:
    command = [str(Path(sys.executable).with_name("forelook")), "serve"]
    if arguments.model:
        command += ["--model", arguments.model]
    console.print(f"[dim]$ forelook {' '.join(command[1:])}[/]")
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    backend = await asyncio.create_subprocess_exec(*command, env=environment, **pipes)
    editor = Editor(environment, arguments.model)
    try:
        console.print("[dim]$ forelook-lsp[/]")
        initialize_ms = await editor.start(REPOSITORY)
        with console.status("loading the model …"):
            await editor.until_ready()
        status = editor.status
        console.print(
            f"initialize answered in {initialize_ms:.0f} ms; {status.get('model')} on {status.get('device')} is ready\n"
        )
        shown = 0
        for path in arguments.files:
            source = path.read_text(encoding="utf-8")
            editor.open(path, source)
            for number, scene in enumerate(scenes(source), start=2):
                editor.replace(path, number, scene.text)
                before = await editor.counts()
                ghost, replaced, elapsed_ms = await editor.complete(path, scene.before)
                after = await editor.counts()
                spent = {name: after[name] - before.get(name, 0) for name in after}
                show(console, path, scene, ghost, replaced)
                tokens, steps = spent["generated_tokens"], spent["decode_steps"]
                console.print(
                    f"[green]{elapsed_ms:.0f} ms[/] · {tokens} tokens in {steps} decode steps: "
                    f"{tokens / max(steps, 1):.1f} tokens per step · "
                    f"{spent['accepted_tokens']} of {spent['drafted_tokens']} draft tokens accepted",
                    soft_wrap=True,
                )
                removed = scene.removed if scene.removed.count("\n") == 0 else scene.removed.split("\n")[0] + " …"
                console.print(f"[dim]the file has: {removed}[/]", highlight=False)
                console.print(Rule(style="dim"))
                shown += bool(ghost)
        console.print(f"{shown} suggestions shown. Nothing left this machine.")
        return 0 if shown else 1
    finally:
        await editor.stop()
        backend.terminate()
        _, log = await asyncio.wait_for(backend.communicate(), 20)
        if backend.returncode not in (0, -15):
            console.print(f"the backend ended with {backend.returncode}\n{log.decode()[-2000:]}", markup=False)


def main() -> int:
    parser = argparse.ArgumentParser(description="Show Forelook completing real files with its real model.")
    parser.add_argument("files", nargs="*", type=Path, help="Python files (default: some of this repository)")
    parser.add_argument("--model", help="a checkpoint folder or hub id (default: the starter model)")
    parser.add_argument("--svg", type=Path, help="also save what was shown as a picture")
    arguments = parser.parse_args()
    arguments.files = [path.resolve() for path in arguments.files or DEFAULT_FILES]
    missing = [path for path in arguments.files if not path.is_file()]
    if missing:
        parser.error(f"no such file: {missing[0]}")
    # A picture is wide enough for its own code, and shows ghost text as a terminal does.
    picture = {"record": True, "width": 118, "force_terminal": True} if arguments.svg is not None else {}
    console = Console(highlight=False, **picture)
    # A private runtime folder: the demo neither meets nor disturbs a backend the user runs. Short, for socket paths.
    folder = Path(tempfile.mkdtemp(prefix="forelook-"))
    folder.chmod(0o700)
    environment = {
        **os.environ,
        **{name: str(folder) for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")},
    }
    try:
        exit_code = asyncio.run(run(arguments, console, environment))
        if arguments.svg is not None:
            svg = console.export_svg(title="make demo")
            # The picture must show the same without a network: the viewer's own monospace font, no downloads.
            arguments.svg.write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL), encoding="utf-8")
        return exit_code
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
