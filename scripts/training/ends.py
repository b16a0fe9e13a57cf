"""Fits the row of the token that ends a middle, and nothing else: one forward per sample, then a convex problem.

With all other logits given, the loss of an answer depends on that row only through ``row · hidden`` against the
logarithm of the other tokens' sum: logistic regression with an offset per token. A run that is too short to teach a
model when to stop can still learn this; where it stops too early, nothing else has become worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from forelook.model.token_healing import TokenHealer
from torch import Tensor

from training.accuracy import answer_states, choices_of, num_forced
from training.network import Network
from training.samples import Sample
from training.sentinels import Vocabulary

_RIDGES = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1)
_HELD_BACK = 4  # every so many-th sample chooses the ridge


@dataclass(frozen=True)
class Answers:
    """What a network says along the true answers of some samples, the ending token left out.

    Attributes:
        hidden: ``[tokens, hidden_size]``, the states that predict each token of an answer, its end included.
        others: ``[tokens]``, the logarithm of the sum of all other tokens' exponentials.
        best: ``[tokens]``, the largest of their logits.
        is_right: ``[tokens]``, whether that one's token is the true one; at an end, whether it begins a new line.
        is_end: ``[tokens]``, whether the true one ends the answer.
        number: ``[tokens]``, of the sample.
    """

    hidden: Tensor
    others: Tensor
    best: Tensor
    is_right: Tensor
    is_end: Tensor
    number: Tensor

    def accuracy(self, row: Tensor) -> dict[str, float]:
        """Shares of samples that greedy decoding answers with a row; the fields of ``training.accuracy.answered``."""
        ends = (self.hidden @ row) > self.best
        # A middle is right if no token before its end is wrong or an end.
        is_wrong = torch.where(self.is_end, ~(ends | self.is_right), ends | ~self.is_right)
        count = int(self.number.max()) + 1
        wrong = torch.zeros(count).index_add_(0, self.number, is_wrong.float()) > 0
        has_ended = ends[self.is_end]
        right, raw = int((~wrong).sum()), int((~wrong & has_ended).sum())
        early = int((torch.zeros(count).index_add_(0, self.number, (ends & ~self.is_end).float()) > 0).sum())
        shares = {"truncated": right / count, "raw": raw / count, "ends": raw / max(1, right), "early": early / count}
        return {"questions": count, **{name: round(share, 4) for name, share in shares.items()}}

    def loss(self, row: Tensor, end_weight: float) -> Tensor:
        """Mean loss of the decisions to end or not, in nats."""
        score = self.hidden @ row - self.others
        weights = torch.where(self.is_end, end_weight, 1.0)
        return (weights * (F.softplus(score) - torch.where(self.is_end, score, torch.zeros(())))).sum() / weights.sum()

    def part(self, chosen: Tensor) -> Answers:
        """The answers of some samples."""
        rows = chosen[self.number]
        return Answers(*(column[rows] for column in vars(self).values()))


@torch.no_grad()
def along_answers(
    network: Network, vocabulary: Vocabulary, healer: TokenHealer, samples: Sequence[Sample], tokens_per_pass: int
) -> Answers:
    """Run a network over samples with answers."""
    end, columns = vocabulary.end_id, list[list[Tensor]]()
    tokens = map(vocabulary.tokenizer.token_bytes, range(network.config.vocab_size))
    breaks = torch.tensor([data.startswith(b"\n") for data in tokens])
    for number, (sample, states, answer) in enumerate(answer_states(network, samples, tokens_per_pass)):
        rows = states.float()
        logits = rows @ network.head.float().T
        logits[:, end] = -torch.inf
        chosen = torch.tensor(choices_of(logits, answer, sample.forced, healer))
        is_end = torch.arange(len(answer)) == len(answer) - 1
        is_right = torch.where(is_end, breaks[chosen], chosen == torch.tensor(answer))
        numbers = torch.full_like(chosen, number)
        best = logits.gather(1, chosen[:, None]).squeeze(1)
        best[: num_forced(answer, sample.forced, healer)] = torch.inf  # the end is not allowed there
        columns.append([rows, logits.logsumexp(1), best, is_right, is_end, numbers])
    return Answers(*(torch.cat(column) for column in zip(*columns, strict=True)))


def fitted_row(answers: Answers, row: Tensor, *, end_weight: float) -> Tensor:
    """The row that loses least on the answers, near the given one; how near, samples that are held back decide."""
    is_held_back = torch.arange(int(answers.number.max()) + 1) % _HELD_BACK == 0
    fit, judge = answers.part(~is_held_back), answers.part(is_held_back)
    losses = {ridge: float(judge.loss(_minimum(fit, row, end_weight, ridge), end_weight)) for ridge in _RIDGES}
    return _minimum(answers, row, end_weight, min(losses, key=lambda ridge: losses[ridge]))


@torch.no_grad()
def set_row(network: Network, vocabulary: Vocabulary, row: Tensor) -> None:
    """Replace the ending token's row of the head; the token is never an input."""
    table = network.table if network.head_table is None else network.head_table
    assert table is not None
    table.rows[vocabulary.row_ids.index(vocabulary.end_id)] = row.to(table.rows)
    network.merge()


def _minimum(answers: Answers, start: Tensor, end_weight: float, ridge: float) -> Tensor:
    row = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([row], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = answers.loss(row, end_weight) + ridge * (row - start).square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return row.detach()
