"""A training run on a terminal or in a log: progress, and signals that stop it. Needs nothing but the trainer."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from training.loop import Report, Trainer

_LINE_S = 15.0


def run(trainer: Trainer) -> None:
    """Train, with a line four times a minute and one per measurement."""
    schedule = trainer.schedule
    last_line = 0.0

    def watch(report: Report) -> None:
        nonlocal last_line
        if time.monotonic() - last_line > _LINE_S:
            last_line = time.monotonic()
            print(
                f"{schedule.progress:6.1%} step {schedule.num_steps}  {trainer.num_tokens / 1e6:.2f} M tokens  "
                f"loss {report.loss:.3f}  answers {report.middle_loss:.3f}  {report.tokens_per_s:.0f} tokens/s  "
                f"lr x{report.scale:.2f}",
                flush=True,
            )
        if report.held_out is not None:
            print(f"step {schedule.num_steps} held-out bits per byte {report.held_out}", flush=True)
        if report.infilling is not None:
            print(f"step {schedule.num_steps} held-out infilling {report.infilling}", flush=True)

    trainer.run(watch, stop=stop_signals())


def stop_signals() -> Callable[[], bool]:
    """Return whether SIGINT or SIGTERM has come; the run then ends after its step, with a checkpoint."""
    received: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda which, _frame: received.append(which))
    return lambda: bool(received)
