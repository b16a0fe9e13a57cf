"""From places where the context stood before to drafts, best first.

Every place votes for the tokens that followed it, with a weight that grows with the match and with nearness. The
weights are the exponentials of a linear model fitted to the next tokens of real edits (added lines of commits), the
escape weight standing for "none of these"; so a token's share of all weight is an estimate of its acceptance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from forelook.decoding.drafts import Draft, DraftOrigin
from forelook.decoding.ngram_index import BORDER, MAX_MATCH, MAX_REACH

MIN_PROBABILITY = 0.004
"""Paths less probable than this are not drafted."""


_MEMBERS = 8
"""Behind the first token only the weightiest places vote: the others change little and cost as much."""


def _weights(logarithms: Sequence[float], rise: float) -> tuple[float, ...]:
    """Weights by match length, from their logarithms for 1, 2, 3 … tokens; longer ones rise slowly to a bound."""
    values = [-math.inf, *logarithms]
    while len(values) <= MAX_MATCH + MAX_REACH:
        values.append(min(values[-1] + rise, 8.0))
    return tuple(map(math.exp, values))


ELSEWHERE = _weights([-1.8, -0.15, 0.8, 1.55, 2.75, 3.25, 3.9, 4.3, 4.55, 4.75, 4.95], 0.15)
"""Weight of a place in another document."""

SAME_DOCUMENT = _weights([0.75, 2.55, 3.65, 4.45, 5.05, 5.45, 5.75, 6.05, 6.35], 0.15)
"""Weight of a place in the document being edited, before its distance counts."""

OUTPUT = _weights([2.3, 3.9, 5.1, 5.7, 6.1, 6.5, 6.8, 7.1, 7.4], 0.15)
"""Weight of a place in what the request itself has put out, before its distance counts."""

AFTER_CURSOR = _weights([3.9, 3.4, 4.7, 5.0, 5.3, 5.5], 0.15)
"""Weight of the text right after the cursor, continued by nothing but its place, by how many of its tokens came so far."""

_ESCAPE = tuple(
    math.exp(value) for value in [3.0, 1.0, 2.9, 2.9, 3.0, 3.3, 3.4, 3.4, 3.4, 3.4] + [3.6] * (MAX_MATCH + MAX_REACH)
)


@dataclass(slots=True)
class Places:
    """Places that agree with the end of the context, in parallel lists.

    Attributes:
        match_lengths: how many context tokens a place agrees with, at least one.
        factors: what multiplies a place's weight: distance, acceptance.
        weights: the weights by match length that apply to it.
        continuations: the tokens after it; a border or the row's end closes it.
    """

    match_lengths: list[int] = field(default_factory=list)
    factors: list[float] = field(default_factory=list)
    weights: list[tuple[float, ...]] = field(default_factory=list)
    continuations: list[list[int]] = field(default_factory=list)

    def extend(self, other: Places) -> None:
        """Add another source's places."""
        self.match_lengths += other.match_lengths
        self.factors += other.factors
        self.weights += other.weights
        self.continuations += other.continuations


def rank(places: Places, *, max_candidates: int, max_length: int, origin: DraftOrigin) -> list[Draft]:
    """The most probable continuations as drafts that branch from each other, best first."""
    drafts: list[Draft] = []
    matches = places.match_lengths
    if not matches or max_candidates < 1 or max_length < 1:
        return drafts
    longest = max(matches)
    first_weights = [
        factor * weights[match] for factor, weights, match in zip(places.factors, places.weights, matches, strict=True)
    ]
    weightiest = sorted(range(len(matches)), key=first_weights.__getitem__, reverse=True)
    # (-probability of the path, ticket, places that agree with it, path, shares)
    heap: list[tuple[float, int, list[int], tuple[int, ...], tuple[float, ...]]] = [(-1.0, 0, weightiest, (), ())]
    tickets = 0
    while heap and len(drafts) < max_candidates:
        negative, _, members, path, shares = heappop(heap)
        probability = -negative
        tokens, confidences = list(path), list(shares)
        while len(tokens) < max_length:
            if len(members) == 1:
                _follow(places, members[0], probability, tokens, confidences, max_length)
                break
            weight_of, members_of, total = _vote(places, members, len(tokens))
            if not weight_of:
                break
            best = max(weight_of, key=weight_of.__getitem__)
            if len(weight_of) > 1:
                for token, weight in weight_of.items():
                    if token != best and probability * weight >= MIN_PROBABILITY * total:
                        tickets += 1
                        share = weight / total
                        item = (
                            -probability * share,
                            tickets,
                            members_of[token],
                            (*tokens, token),
                            (*confidences, share),
                        )
                        heappush(heap, item)
            share = weight_of[best] / total
            probability *= share
            if probability < MIN_PROBABILITY:
                break
            members = members_of[best][:_MEMBERS]
            tokens.append(best)
            confidences.append(share)
        if len(tokens) > len(path) or path:
            drafts.append(Draft(tuple(tokens), tuple(confidences), longest, origin))
    return drafts


def _follow(
    places: Places, member: int, probability: float, tokens: list[int], confidences: list[float], max_length: int
) -> None:
    """Take over the rest of one place's continuation, as far as it stays probable."""
    row, weights = places.continuations[member], places.weights[member]
    factor, match = places.factors[member], places.match_lengths[member]
    for depth in range(len(tokens), min(max_length, len(row))):
        token = row[depth]
        weight = factor * weights[match + depth]
        share = weight / (weight + _ESCAPE[match + depth])
        probability *= share
        if token == BORDER or probability < MIN_PROBABILITY:
            return
        tokens.append(token)
        confidences.append(share)


def _vote(places: Places, members: list[int], depth: int) -> tuple[dict[int, float], dict[int, list[int]], float]:
    """Weights and supporters of the tokens that follow ``depth`` agreed ones, and the weight of all and of none."""
    matches, factors, weights, rows = places.match_lengths, places.factors, places.weights, places.continuations
    weight_of: dict[int, float] = {}
    members_of: dict[int, list[int]] = {}
    longest = 0
    for i in members:
        row = rows[i]
        if depth >= len(row):
            continue
        token = row[depth]
        if token == BORDER:
            continue
        match = matches[i] + depth
        if match > longest:
            longest = match
        weight = factors[i] * weights[i][match]
        if token in weight_of:
            weight_of[token] += weight
            members_of[token].append(i)
        else:
            weight_of[token] = weight
            members_of[token] = [i]
    return weight_of, members_of, sum(weight_of.values()) + _ESCAPE[longest]
