"""Output of the CLI commands: rich text on a terminal, plain lines in a pipe, or one JSON value."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from forelook.commands.doctor import Check
from forelook.protocol import messages

NUM_LINES_AROUND = 4  # chosen, not measured

# Control characters become their pictures; tab and newline stay.
_CONTROLS_SHOWN = {code: 0x2400 + code for code in range(32) if code not in (9, 10)} | {127: 0x2421, 155: 0x241B}

Say = Callable[[str], None]


def show_completion(
    path: Path,
    text: str,
    position: tuple[int, int],
    offset: int,
    result: messages.CompletionResult,
    status: messages.Status,
    latency_ms: float,
    as_json: bool,
    say: Say,
    complain: Say,
) -> None:
    """Print suggestions: in a pipe the text to insert, on a terminal an excerpt with ghost text."""
    insertions = [insertion(text, offset, suggestion) for suggestion in result.suggestions]
    if as_json:
        say(
            json.dumps(
                {
                    "file": str(path),
                    "line": position[0],
                    "column": position[1],
                    "suggestions": [
                        {"insert": insert, **messages.to_json(suggestion)}
                        for insert, suggestion in zip(insertions, result.suggestions, strict=True)
                    ],
                    "finish_reason": result.finish_reason.value,
                    "latency_ms": round(latency_ms, 3),
                    "tokens_per_step": result.stats.tokens_per_step,
                    "stats": messages.to_json(result.stats),
                    "model": status.model,
                    "device": status.device,
                    "dtype": status.dtype,
                }
            )
        )
    elif sys.stdout.isatty():
        _show_ghost_text(path, text, position, offset, insertions, result, status, latency_ms)
    elif insertions:
        say("\n".join(insertions))
    if not insertions and not as_json:
        complain(f"forelook: no suggestion ({result.finish_reason.value})")


def insertion(text: str, offset: int, suggestion: messages.Suggestion) -> str:
    """The text that a suggestion adds at the cursor; what it replaces after the cursor is left to its range."""
    typed = offset - suggestion.start
    return suggestion.text[typed:] if suggestion.text[:typed] == text[suggestion.start : offset] else suggestion.text


def _show_ghost_text(
    path: Path,
    text: str,
    position: tuple[int, int],
    offset: int,
    insertions: Sequence[str],
    result: messages.CompletionResult,
    status: messages.Status,
    latency_ms: float,
) -> None:
    from rich.console import Console, Group
    from rich.panel import Panel
    from rich.text import Text

    before, after = _harmless(text[:offset]).split("\n"), _harmless(text[offset:]).split("\n")
    excerpts = []
    for insert in insertions:
        excerpt = Text("\n".join(before[-NUM_LINES_AROUND:]))
        excerpt.append(_harmless(insert), style="italic green")
        excerpt.append("\n".join(after[:NUM_LINES_AROUND]))
        excerpts.append(Panel(excerpt, title=f"{path.name}:{position[0]}:{position[1]}", title_align="left"))
    stats = result.stats
    figures = (
        f"{latency_ms:.0f} ms, {stats.num_generated_tokens} tokens in {stats.num_steps} steps "
        f"({stats.tokens_per_step:.2f} per step), {stats.num_accepted_tokens} of {stats.num_drafted_tokens} drafts "
        f"accepted, {status.model} on {status.device}"
    )
    Console().print(Group(*excerpts, Text(figures, style="dim")))


def _harmless(text: str) -> str:
    """The text without control characters, which a terminal would interpret."""
    return text.replace("\r\n", "\n").translate(_CONTROLS_SHOWN)


def show_checks(checks: Sequence[Check], as_json: bool, say: Say) -> None:
    """Print the findings of the doctor."""
    if as_json:
        faults = sum(check.is_fault for check in checks)
        say(json.dumps({"num_faults": faults, "checks": [check.to_json() for check in checks]}))
        return
    width = max(len(check.name) for check in checks)
    for check in checks:
        say(f"{'fault' if check.is_fault else 'ok':<6} {check.name:<{width}}  {check.detail}")
        if check.remedy:
            say(f"{'':<{width + 9}}fix: {check.remedy}")


def show_answers(answers: Sequence[Mapping[str, object]], as_json: bool, say: Say) -> None:
    """Print the backends' answers, one ``name: value`` per line."""
    if as_json:
        say(json.dumps(list(answers)))
        return
    for number, answer in enumerate(answers):
        if number:
            say("")
        for name, value in _flat("", answer):
            say(f"{name}: {value}")


def _flat(prefix: str, values: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}{name}.", value)
        elif value is not None and value != "":
            yield f"{prefix}{name}", value
