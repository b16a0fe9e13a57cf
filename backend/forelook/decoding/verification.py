"""Which tokens a step accepts: the target is drawn once per node, and the child that equals it is followed.

Drafts are deterministic guesses, so this one rule is lossless for greedy decoding and for sampling: the output is that
of the target alone. The last token, which no draft predicted, is the bonus token. Source: the acceptance rule of
Leviathan et al., arXiv 2211.17192, for a draft distribution that puts all probability on one token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from forelook.decoding.layout import IntArray
from forelook.decoding.likeliest import Likeliest, likeliest
from forelook.decoding.limits import Limits, SamplingParams, TokenConstraint
from forelook.errors import DecodingError
from forelook.finish_reason import FinishReason


class TargetChooser:
    """Chooses the target's token at one row of a step's logits.

    Noise is a function of (seed, output position) alone, so any loop that sees the same logits at a position chooses
    the same token there, however many tokens its steps yield.
    """

    def __init__(
        self, sampling: SamplingParams, constraint: TokenConstraint | None = None, *, is_scored: bool = False
    ) -> None:
        self._sampling = sampling
        self._constraint = constraint
        self._is_scored = is_scored
        self._choices: list[tuple[int, int, IntArray | None]] = []
        self._logits = torch.empty((0, 0))
        self._argmax: list[int] = []
        self._noise: dict[int, np.ndarray] = {}

    @property
    def constraint(self) -> TokenConstraint | None:
        """The constraint, as long as it restricts anything."""
        return self._constraint

    def observe(self, logits: torch.Tensor) -> list[int]:
        """Store one forward's logits [R, V] and return the argmax of every row (one copy to the host)."""
        self._logits = logits
        self._choices.clear()
        # on a CPU numpy's scan of a few rows is over before torch has woken its threads
        self._argmax = (logits.numpy() if logits.device.type == "cpu" else logits).argmax(-1).tolist()
        return self._argmax

    def likeliest(self, rows: Sequence[int], num_kept: int) -> dict[int, Likeliest]:
        """The likeliest tokens of some rows observed last; none if only one per row is wanted: the argmax."""
        if num_kept < 2:
            return {}
        return dict(zip(rows, likeliest(self._logits, rows, num_kept), strict=True))

    def choose(self, row: int, generated: Sequence[int]) -> int:
        """The target's token after ``generated``, whose logits are in ``row``.

        ``generated`` must be output already decided: a constraint that lifts after it is dropped for good.
        """
        allowed: IntArray | None = None
        if self._constraint is not None:
            allowed = self._constraint.allowed_ids(generated)
            if allowed is None:
                self._constraint = None
            elif len(allowed) == 0:
                raise DecodingError(f"the token constraint allows no token after {len(generated)} generated tokens")
        token = self._chosen(row, generated, allowed)
        if self._is_scored:
            self._choices.append((row, token, allowed))
        return token

    def log_probs(self) -> list[float]:
        """Log-probabilities of the tokens chosen since ``observe``, in order; empty unless they are scored.

        They are the model's at temperature 1, among the tokens that the constraint allowed.
        """
        if not self._choices:
            return []
        if self._logits.device.type == "cpu":
            logits = self._logits.numpy()
            return [
                _log_prob(logits[row] if allowed is None else logits[row][allowed], logits[row, token])
                for row, token, allowed in self._choices
            ]
        rows = self._logits[[row for row, _, _ in self._choices]]
        for place, (_, _, allowed) in enumerate(self._choices):
            if allowed is not None:
                excluded = torch.ones(rows.shape[1], dtype=torch.bool)
                excluded[torch.from_numpy(allowed)] = False
                rows[place].masked_fill_(excluded.to(rows.device), -torch.inf)
        tokens = torch.tensor([token for _, token, _ in self._choices], device=rows.device)
        scores: list[float] = (rows.gather(1, tokens[:, None])[:, 0] - rows.logsumexp(1)).tolist()
        return scores

    def _chosen(self, row: int, generated: Sequence[int], allowed: IntArray | None) -> int:
        if self._sampling.temperature == 0.0:
            if allowed is None:
                return self._argmax[row]
            index = torch.from_numpy(allowed).to(self._logits.device)
            return int(allowed[int(self._logits[row].index_select(0, index).argmax())])
        return self._sample(self._logits[row].cpu().numpy(), len(generated), allowed)

    def _sample(self, logits: np.ndarray, position: int, allowed: IntArray | None) -> int:
        ids = np.arange(len(logits)) if allowed is None else allowed
        scores = logits[ids].astype(np.float64) / self._sampling.temperature
        keep = _kept_by_filters(scores, self._sampling.top_k, self._sampling.top_p)
        if keep is not None:
            ids, scores = ids[keep], scores[keep]
        return int(ids[(scores + self._gumbel(position, len(logits))[ids]).argmax()])

    def _gumbel(self, position: int, vocab_size: int) -> np.ndarray:
        noise = self._noise.get(position)
        if noise is None:
            if len(self._noise) > 64:  # a step looks a few positions ahead; older ones are not needed again
                self._noise.clear()
            key = np.array([self._sampling.seed % 2**64, position], dtype=np.uint64)
            exponential = np.random.Generator(np.random.Philox(key=key)).standard_exponential(vocab_size)
            noise = self._noise[position] = -np.log(np.maximum(exponential, np.finfo(np.float64).tiny))
        return noise


def _log_prob(logits: np.ndarray, chosen: np.floating[Any]) -> float:
    """The log-probability of one of some logits [V]."""
    # Scaled in place and summed in float32: the sum has at most V terms of at most 1, the first of them 1.
    most = logits.max()
    weights = logits - most
    np.exp(weights, out=weights)
    return float(chosen - most) - math.log(float(weights.sum()))


def _kept_by_filters(scores: np.ndarray, top_k: int | None, top_p: float | None) -> np.ndarray | None:
    """Indices that top-k, then top-p leave, or ``None`` when neither applies; ties go to the lower index."""
    keep: np.ndarray | None = None
    if top_k is not None and top_k < len(scores):
        threshold = np.partition(scores, len(scores) - top_k)[len(scores) - top_k]
        above = np.flatnonzero(scores > threshold)
        ties = np.flatnonzero(scores == threshold)[: top_k - len(above)]
        keep = np.sort(np.concatenate([above, ties]))
        scores = scores[keep]
    if top_p is not None and top_p < 1.0:
        weights = np.exp(scores - scores.max())
        weights /= weights.sum()
        # tokens this unlikely sum to less than 1 - top_p, so they are outside the nucleus: no need to sort them
        likely = np.flatnonzero(weights >= (1.0 - top_p) / len(weights))
        order = likely[np.argsort(-weights[likely], kind="stable")]
        before = np.cumsum(weights[order]) - weights[order]
        nucleus = np.sort(order[before < top_p])
        keep = nucleus if keep is None else keep[nucleus]
    return keep


class Branches(Protocol):
    """What verification needs of a draft tree: node 0 is the token before the drafts."""

    @property
    def children(self) -> Sequence[dict[int, int]]:
        """Per node, token id → child node."""
        ...


@dataclass(frozen=True, slots=True)
class Verified:
    """What a step yields.

    Attributes:
        token_ids: output tokens, in order; a stop token is not among them.
        node_path: the accepted draft nodes, parents first.
        finish_reason: set when the stop token or the last allowed token was reached.
        log_probs: of the output tokens, then of the stop token if it was reached; empty unless they are scored.
    """

    token_ids: list[int]
    node_path: list[int]
    finish_reason: FinishReason | None
    log_probs: list[float] = field(default_factory=list)


def verify(tree: Branches, chooser: TargetChooser, generated: list[int], limits: Limits) -> Verified:
    """Walk the tree with the target's choices; the logits' row n must belong to node n.

    Args:
        tree: the drafts.
        chooser: has observed the step's logits.
        generated: all output so far; not changed.
        limits: stop tokens and the maximum number of tokens.
    """
    path: list[int] = []
    output = generated.copy()
    node = 0
    reason: FinishReason | None = None
    if len(output) >= limits.max_new_tokens:
        return Verified([], [], FinishReason.MAX_TOKENS)
    while True:
        token = chooser.choose(node, output)
        if token in limits.stop_token_ids:
            reason = FinishReason.STOP_TOKEN
            break
        output.append(token)
        if len(output) >= limits.max_new_tokens:
            reason = FinishReason.MAX_TOKENS
            break
        child = tree.children[node].get(token)
        if child is None:
            break
        path.append(child)
        node = child
    return Verified(output[len(generated) :], path, reason, chooser.log_probs())
