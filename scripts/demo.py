"""Show Forelook working: real backend, real language server, real model, real files.

Starts ``forelook serve`` and ``forelook-lsp`` in a private runtime folder, opens source files of this repository (or
the given ones), deletes a piece of code in each, requests an inline completion there, and prints the excerpt with the
ghost text in place.

Usage: python scripts/demo.py [FILE.py ...] [--model PATH_OR_ID] [--svg PICTURE]
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import time
from contextlib import nullcontext
from pathlib import Path

from bench import processes
from bench.lsp_client import LspClient
from bench.results import REPOSITORY
from bench.scenes import Scene, scenes
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

DEFAULT_FILES = (
    REPOSITORY / "backend/forelook/decoding/layout.py",
    REPOSITORY / "backend/forelook/decoding/limits.py",
    REPOSITORY / "backend/forelook/completion/document_store.py",
)
LINES_BEFORE, LINES_AFTER = 6, 3
PAUSE_S = 1.0  # as somebody rests at a new place, where the backend then reads the prompt ahead
DEADLINE_MS = 30_000  # a busy machine answers late here, where an editor would show nothing; the time is printed


async def complete(client: LspClient, uri: str, before: str) -> tuple[str, str, float]:
    """Request a completion at the end of ``before``.

    Returns:
        The ghost text, the text before the cursor that it replaces, and milliseconds.
    """
    cursor = processes.position(before, len(before))
    started_s = time.perf_counter()
    items = await client.complete(uri, **cursor)
    elapsed_ms = (time.perf_counter() - started_s) * 1000
    if not items:
        return "", "", elapsed_ms
    num_replaced = cursor["character"] - items[0]["range"]["start"]["character"]
    return items[0]["insertText"], before[len(before) - num_replaced :], elapsed_ms


def show(console: Console, path: Path, scene: Scene, ghost: str, replaced: str) -> None:
    """Print the excerpt around the cursor, with the ghost text in place."""
    visible = ghost[len(replaced) :] if ghost.startswith(replaced) else ghost
    before_lines = scene.before.split("\n")
    after_lines = scene.after.split("\n")
    text = Text("\n".join(before_lines[-LINES_BEFORE:]))
    if visible:
        text.append(f"⟦{visible}⟧" if not console.is_terminal else visible, style="italic bright_black on grey15")
    else:
        text.append("▏(no suggestion)", style="dim")
    text.append("\n".join(after_lines[:LINES_AFTER]))
    console.print(Text(f"{path.name}:{len(before_lines)}  {scene.name}", style="bold cyan"))
    console.print(text, soft_wrap=True)


async def show_file(client: LspClient, path: Path, source: str, console: Console) -> int:
    """Show every scene of a file; return the number of suggestions."""
    uri, shown = path.as_uri(), 0
    await client.open(uri, source)
    for version, scene in enumerate(scenes(source), start=2):
        await client.change(uri, version, {"text": scene.text})
        before = processes.engine_counts(await processes.statistics_of(client))
        await asyncio.sleep(PAUSE_S)
        ghost, replaced, elapsed_ms = await complete(client, uri, scene.before)
        after = processes.engine_counts(await processes.statistics_of(client))
        spent = {name: after[name] - before.get(name, 0) for name in after}
        show(console, path, scene, ghost, replaced)
        tokens, steps = spent["generated_tokens"], spent["decode_steps"]
        console.print(
            f"[green]{elapsed_ms:.0f} ms[/] · {tokens} tokens in {steps} decode steps: "
            f"{tokens / max(steps, 1):.1f} tokens per step · "
            f"{spent['accepted_tokens']} of {spent['drafted_tokens']} draft tokens accepted",
            soft_wrap=True,
        )
        first, line_break, _ = scene.removed.partition("\n")
        console.print(f"[dim]the file has: {first}{' …' if line_break else ''}[/]", highlight=False)
        console.print(Rule(style="dim"))
        shown += bool(ghost)
    return shown


async def run(files: dict[Path, str], model: str | None, console: Console) -> int:
    command = ["serve", *(["--model", model] if model else [])]
    with processes.private_environment(sees_models=True) as environment:
        console.print(f"[dim]$ forelook {' '.join(command)}[/]")
        async with processes.backend(environment, [str(Path(sys.executable).with_name("forelook")), *command]):
            console.print("[dim]$ forelook-lsp[/]")
            started_s = time.perf_counter()
            options = {"deadlineMs": DEADLINE_MS, **({"model": model} if model else {})}
            async with processes.editor(environment, options, REPOSITORY) as server:
                initialize_ms = (time.perf_counter() - started_s) * 1000
                # A picture would keep every turn of the spinner.
                with nullcontext() if console.record else console.status("loading the model …"):
                    status = await processes.until_ready(server.client)
                console.print(
                    f"initialize answered in {initialize_ms:.0f} ms; "
                    f"{status.get('model')} on {status.get('device')} is ready\n"
                )
                shown = 0
                for path, source in files.items():
                    shown += await show_file(server.client, path, source, console)
    console.print(f"{shown} suggestions shown. Nothing left this machine.")
    return 0 if shown else 1


def main() -> int:
    parser = argparse.ArgumentParser(description="Show Forelook completing real files with its real model.")
    parser.add_argument("files", nargs="*", type=Path, help="Python files (default: some of this repository)")
    parser.add_argument("--model", help="checkpoint folder or hub id (default: the default model)")
    parser.add_argument("--svg", type=Path, help="also save the output as a picture")
    arguments = parser.parse_args()
    files = [path.resolve() for path in arguments.files or DEFAULT_FILES]
    missing = [path for path in files if not path.is_file()]
    if missing:
        parser.error(f"no such file: {missing[0]}")
    # A picture is wide enough for its code, and shows ghost text as a terminal does.
    picture = {"record": True, "width": 118, "force_terminal": True} if arguments.svg is not None else {}
    console = Console(highlight=False, **picture)
    exit_code = asyncio.run(run({path: path.read_text("utf-8") for path in files}, arguments.model, console))
    if arguments.svg is not None:
        svg = console.export_svg(title="make demo")
        # The picture must look the same without a network: the viewer's monospace font, no downloads.
        arguments.svg.write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL), encoding="utf-8")
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
