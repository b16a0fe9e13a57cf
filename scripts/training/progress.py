"""A training run on a terminal or in a log: progress, and signals that stop it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TimeElapsedColumn

from training.loop import Report, Trainer

COLUMNS = ("{task.percentage:>5.1f}%", BarColumn(), "{task.description}", TimeElapsedColumn())


def run(trainer: Trainer) -> None:
    """Train with a progress bar, and two lines per minute where there is no terminal."""
    console, schedule = Console(), trainer.schedule
    last_line = 0.0
    with Progress(*COLUMNS, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("first step", total=1.0)

        def watch(report: Report) -> None:
            nonlocal last_line
            words = (
                f"step {schedule.num_steps}  {trainer.num_tokens / 1e6:.2f} M tokens  loss {report.loss:.3f}  "
                f"answers {report.middle_loss:.3f}  {report.tokens_per_s:.0f} tokens/s  lr x{report.scale:.2f}"
            )
            bar.update(task, completed=schedule.progress, description=words)
            if report.held_out is not None:
                console.print(f"step {schedule.num_steps} held-out bits per byte {report.held_out}", soft_wrap=True)
            if not console.is_terminal and time.monotonic() - last_line > 30:
                last_line = time.monotonic()
                print(f"{schedule.progress:6.1%} {words}", flush=True)

        trainer.run(watch, stop=stop_signals())


def stop_signals() -> Callable[[], bool]:
    """Return whether SIGINT or SIGTERM has come; the run then ends after its step, with a checkpoint."""
    received: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda which, _frame: received.append(which))
    return lambda: bool(received)
