"""Output of the CLI commands: rich text on a terminal, plain lines in a pipe, or one JSON value."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from forelook.commands.command_context import complain
from forelook.protocol import messages

if TYPE_CHECKING:
    from forelook.commands.doctor import Check

NUM_LINES_AROUND = 4  # chosen, not measured

# Control characters become their pictures; tab and newline stay.
_CONTROLS_SHOWN = {code: 0x2400 + code for code in range(32) if code not in (9, 10)} | {127: 0x2421, 155: 0x241B}


@dataclass(frozen=True, slots=True)
class Source:
    """A file and the cursor in it."""

    path: Path
    text: str
    offset: int
    language_id: str
    workspace: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A completion, the state of the model it came from, and how long it took."""

    result: messages.CompletionResult
    status: messages.Status
    latency_ms: float


def show_completion(source: Source, position: tuple[int, int], answer: Answer, as_json: bool) -> None:
    """Print suggestions: in a pipe the text to insert, on a terminal an excerpt with ghost text."""
    result, status = answer.result, answer.status
    insertions = [insertion(source.text, source.offset, suggestion) for suggestion in result.suggestions]
    if as_json:
        described = {
            "file": str(source.path),
            "line": position[0],
            "column": position[1],
            "suggestions": [
                {"insert": insert, **messages.to_json(suggestion)}
                for insert, suggestion in zip(insertions, result.suggestions, strict=True)
            ],
            "finish_reason": result.finish_reason.value,
            "latency_ms": round(answer.latency_ms, 3),
            "tokens_per_step": result.stats.tokens_per_step,
            "stats": messages.to_json(result.stats),
            "model": status.model,
            "device": status.device,
            "dtype": status.dtype,
        }
        print(json.dumps(described))
        return
    if sys.stdout.isatty():
        _show_ghost_text(source, position, answer, insertions)
    elif insertions:
        print("\n".join(insertions))
    if not insertions:
        complain(f"forelook: no suggestion ({result.finish_reason.value})")


def insertion(text: str, offset: int, suggestion: messages.Suggestion) -> str:
    """The text that a suggestion adds at the cursor; what it replaces after the cursor is left to its range."""
    typed = offset - suggestion.start
    return suggestion.text[typed:] if suggestion.text[:typed] == text[suggestion.start : offset] else suggestion.text


def _show_ghost_text(source: Source, position: tuple[int, int], answer: Answer, insertions: Sequence[str]) -> None:
    from rich.console import Console, Group
    from rich.panel import Panel
    from rich.text import Text

    before, after = (
        _harmless(source.text[: source.offset]).split("\n"),
        _harmless(source.text[source.offset :]).split("\n"),
    )
    excerpts = []
    for insert in insertions:
        excerpt = Text("\n".join(before[-NUM_LINES_AROUND:]))
        excerpt.append(_harmless(insert), style="italic green")
        excerpt.append("\n".join(after[:NUM_LINES_AROUND]))
        excerpts.append(Panel(excerpt, title=f"{source.path.name}:{position[0]}:{position[1]}", title_align="left"))
    stats, status = answer.result.stats, answer.status
    figures = (
        f"{answer.latency_ms:.0f} ms, {stats.num_generated_tokens} tokens in {stats.num_steps} steps "
        f"({stats.tokens_per_step:.2f} per step), {stats.num_accepted_tokens} of {stats.num_drafted_tokens} drafts "
        f"accepted, {status.model} on {status.device}"
    )
    figures += f"\n{status.message}" if status.message else ""
    Console().print(Group(*excerpts, Text(figures, style="dim")))


def _harmless(text: str) -> str:
    """The text without control characters, which a terminal would interpret."""
    return text.replace("\r\n", "\n").translate(_CONTROLS_SHOWN)


def show_checks(checks: Sequence[Check], as_json: bool) -> None:
    """Print the findings of the doctor."""
    if as_json:
        faults = sum(check.is_fault for check in checks)
        print(json.dumps({"num_faults": faults, "checks": [asdict(check) for check in checks]}))
        return
    width = max(len(check.name) for check in checks)
    for check in checks:
        print(f"{'fault' if check.is_fault else 'ok':<6} {check.name:<{width}}  {check.detail}")
        if check.remedy:
            print(f"{'':<{width + 9}}fix: {check.remedy}")


def show_answers(answers: Sequence[Mapping[str, object]], as_json: bool) -> None:
    """Print the backends' answers, one ``name: value`` per line."""
    if as_json:
        print(json.dumps(list(answers)))
        return
    for number, answer in enumerate(answers):
        if number:
            print()
        for name, value in _flat("", answer):
            print(f"{name}: {value}")


def _flat(prefix: str, values: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}{name}.", value)
        elif value is not None and value != "":
            yield f"{prefix}{name}", value


def show_table(columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows under the names of their columns; what is ``None`` is a dash."""
    lines = [tuple(columns), *(tuple("-" if row[name] is None else str(row[name]) for name in columns) for row in rows)]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
