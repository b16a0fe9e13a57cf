"""The training loop: batches, steps, checkpoints that survive a kill at any moment, held-out loss, progress."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.accuracy import answered
from training.curve import write_curve
from training.gradients import Gradients
from training.held_out import HeldOut, in_all, losses_of
from training.network import Network
from training.optimizer import MuonAdam
from training.prefetch import Prefetcher
from training.ranks import Ranks
from training.samples import Sample, SampleMaker, passes
from training.schedule import Schedule
from training.sentinels import Vocabulary


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How long and how often.

    Attributes:
        tokens_per_step: about, of all ranks together; samples are whole.
        tokens_per_pass: of a forward and backward on one rank; a step is as many passes as it needs.
        prompt_weight: of a prompt's tokens in the loss; without one they cost no product with the head.
        middle_weight: of an answer's tokens.
        end_weight: of the token that ends an answer, against 1 for the other tokens of the answer.
        checkpoint_s: time between checkpoints.
        held_out_s: time between measurements on held-out text.
        finish_at_s: ``time.time()`` at which to be done; ``None`` for the budget alone.
        total_steps: measure the run in steps instead of time.
    """

    tokens_per_step: int = 8192
    tokens_per_pass: int = 2048
    prompt_weight: float = 1.0
    middle_weight: float = 2.0
    end_weight: float = 1.0
    checkpoint_s: float = 150.0
    held_out_s: float = 300.0
    finish_at_s: float | None = None
    total_steps: int | None = None


@dataclass(slots=True)
class Report:
    """Progress after a step.

    Attributes:
        loss: mean of the last steps, in nats a token, unweighted.
        middle_loss: the same of the answers alone.
        tokens_per_s: of the last step.
        scale: of the learning rates.
        held_out: bits per byte, where they were measured after this step.
        infilling: accuracy on held-out files, likewise.
    """

    loss: float
    middle_loss: float
    tokens_per_s: float
    scale: float
    held_out: dict[str, float] | None = None
    infilling: dict[str, float] | None = None


@dataclass
class Trainer:
    """One run; ``run`` continues until the schedule is done or ``stop`` returns true, also after a resume.

    Attributes:
        export: writes what the product reads, to a folder.
        describes: what is trained: base, rank and tokens; a state of other ones is not resumed.
        questions: infilling of held-out files, whose accuracy is measured on the way.
    """

    network: Network
    optimizer: MuonAdam
    schedule: Schedule
    maker: SampleMaker | Prefetcher
    vocabulary: Vocabulary
    export: Callable[[Path], None]
    describes: str
    settings: LoopSettings
    folder: Path
    held_out: HeldOut = field(default_factory=dict)
    questions: Sequence[Sample] = ()
    ranks: Ranks = field(default_factory=Ranks)
    next_sample: int = 0
    num_tokens: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    def run(self, watch: Callable[[Report], None], stop: Callable[[], bool] = lambda: False) -> None:
        """Train; the checkpoint and the exported model are written before it returns.

        Of several ranks the first one watches, measures and writes; each must be told to stop.
        """
        saved_at = measured_at = time.monotonic()
        gradients = Gradients(self.network)
        loss = middle = 0.0
        device = self.network.embed_tokens.device
        while not self.schedule.is_done and not any(self.ranks.largest([float(stop())], device)):
            begun = time.monotonic()
            step_loss, step_middle, count, next_sample = self._forward_backward(gradients)
            scale = self.schedule.scale
            self.optimizer.step(scale, gradients.take(self.ranks))
            self.network.merge()
            gradients.clear()
            self.num_tokens += count
            slowest = self.ranks.largest([float(next_sample), time.monotonic() - begun], device)
            self.next_sample, elapsed = int(slowest[0]), slowest[1]
            self._count(elapsed)
            first = self.schedule.num_steps == 1 or not loss
            loss = step_loss if first else 0.95 * loss + 0.05 * step_loss
            middle = step_middle if first else 0.95 * middle + 0.05 * step_middle
            report = Report(loss, middle, count / elapsed, scale)
            if self.ranks.rank:
                continue
            now = time.monotonic()
            is_due = now - measured_at > self.settings.held_out_s or self.schedule.is_done
            if is_due and (self.held_out or self.questions):
                report.held_out = self.measure({"loss": round(loss, 4), "answers": round(middle, 4)})
                report.infilling = self.history[-1].get("infilling")
                measured_at = time.monotonic()
            if now - saved_at > self.settings.checkpoint_s:
                self.save()
                saved_at = time.monotonic()
            watch(report)
        if not self.ranks.rank:
            self.save()

    def measure(self, losses: dict[str, float] | None = None) -> dict[str, float]:
        """Held-out bits per byte now; also kept in the run's history, with the accuracy of infilling."""
        losses_by_language = losses_of(self.network, self.vocabulary, self.held_out)
        figures = {language: in_all(found) for language, found in losses_by_language.items()}
        point: dict[str, Any] = {"step": self.schedule.num_steps, "num_tokens": self.num_tokens}
        point |= {"running_s": round(self.schedule.running_s), **(losses or {}), "bits_per_byte": figures}
        if self.questions:
            point["infilling"] = answered(
                self.network, self.vocabulary, self.maker.healer, self.questions, self.settings.tokens_per_pass
            )
        self.history.append(point)
        return figures

    def save(self) -> None:
        """Write state, curve and export; a kill at any moment leaves the old or the new files, never half of one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "describes": self.describes,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "next_sample": self.next_sample,
            "num_tokens": self.num_tokens,
            "history": self.history,
        }
        partial = self.folder / "state.pt.partial"
        torch.save(state, partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(self.folder / "state.pt")
        write_curve(self.folder, self.history)
        self.export(self.folder)

    def resume(self) -> bool:
        """Take over ``state.pt``, if there is one: weights, optimizer, schedule and data position.

        That is all there is: a sample is a function of its number, and nothing else of a run is random.

        Raises:
            ValueError: the state is of a run of something else.
        """
        path = self.folder / "state.pt"
        if not path.is_file():
            return False
        state = torch.load(path, map_location=self.network.embed_tokens.device, weights_only=True)
        if state["describes"] != self.describes:
            raise ValueError(
                f"{path} is a run of {state['describes']}, this one of {self.describes}; choose another --to"
            )
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.next_sample, self.num_tokens = state["next_sample"], state["num_tokens"]
        self.history = state["history"]
        self.network.merge()
        return True

    def _count(self, elapsed_s: float) -> None:
        if self.settings.total_steps is not None:
            self.schedule.count_step(self.settings.total_steps)
            return
        finish = self.settings.finish_at_s
        self.schedule.count(elapsed_s, clock_left_s=None if finish is None else finish - time.time())

    def _forward_backward(self, gradients: Gradients) -> tuple[float, float, int, int]:
        """Gradients of one step; mean loss of what teaches, of the answers, how many tokens, and the next sample."""
        ranks, device = self.ranks, self.network.embed_tokens.device
        samples, next_sample = self.maker.batch(
            self.next_sample + ranks.rank, self.settings.tokens_per_step // ranks.size, ranks.size
        )
        sums = torch.zeros(5, dtype=torch.float64)
        for part in passes(samples, self.settings.tokens_per_pass):
            ids, targets, weights, is_middle, lengths = pack(part, self.settings, self.vocabulary)
            loss, per_token = self.network.losses(ids.to(device), targets.to(device), lengths, weights.to(device))
            loss.backward()
            gradients.add(float(weights.sum()))
            answers = per_token[is_middle.to(device)]
            num_taught = int((weights > 0).sum())
            sums += torch.tensor([float(per_token.sum()), num_taught, float(answers.sum()), len(answers), len(ids)])
        total, num_taught, total_answers, num_answers, count = ranks.sums(sums.tolist(), device)
        means = total / max(1.0, num_taught), total_answers / max(1.0, num_answers)
        return *means, int(count), next_sample - ranks.rank


def pack(
    samples: Sequence[Sample], settings: LoopSettings, vocabulary: Vocabulary
) -> tuple[Tensor, Tensor, Tensor, Tensor, list[int]]:
    """Lay samples end to end: ids, targets, weights, which targets are an answer's, and lengths.

    Each sample is one token shorter than its ids: the last has nothing to predict. Control tokens before the answer
    are given in use, so predicting them is worth nothing; the one that ends a text is.
    """
    ids: list[int] = []
    targets: list[int] = []
    weights: list[float] = []
    is_middle: list[bool] = []
    lengths: list[int] = []
    given = vocabulary.tokenizer.special_ids - {vocabulary.eos_id}
    for sample in samples:
        ids += sample.ids[:-1]
        targets += sample.ids[1:]
        lengths.append(len(sample.ids) - 1)
        of_prompt = settings.prompt_weight if sample.middle_start else 1.0
        for place, target in enumerate(sample.ids[1:], start=1):
            in_answer = sample.middle_start > 0 and place >= sample.middle_start
            is_middle.append(in_answer)
            weights.append(settings.middle_weight if in_answer else 0.0 if target in given else of_prompt)
        if sample.middle_start:
            weights[-1] *= settings.end_weight
    return torch.tensor(ids), torch.tensor(targets), torch.tensor(weights), torch.tensor(is_middle), lengths
