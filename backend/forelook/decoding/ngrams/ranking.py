"""From places where the context occurred before to drafts, best first.

Every place votes for the tokens that followed it, with a weight that grows with the match and with nearness. The
weights are the exponentials of a linear model fitted to the next tokens of real edits (added lines of commits), the
escape weight standing for "none of these"; so a token's share of all weight is an estimate of its acceptance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from operator import itemgetter

from forelook.decoding.drafting.draft import Draft, DraftOrigin
from forelook.decoding.ngrams.index import BORDER, MAX_MATCH, MAX_REACH

MIN_PROBABILITY = 0.004
"""Paths less probable than this are not drafted. Measured: docs/decisions.md, "The workspace pool"."""

_FIRST_WEIGHT = itemgetter(0)

MEMBERS = 8
"""After the first token only the places of most weight vote: the others change little and cost as much.

Measured: docs/decisions.md, "The workspace pool"."""


def _weights(logarithms: Sequence[float], rise: float) -> tuple[float, ...]:
    """Weights by match length, from their logarithms for 1, 2, 3 … tokens; longer ones rise slowly to a bound."""
    values = [-math.inf, *logarithms]
    while len(values) <= MAX_MATCH + MAX_REACH:
        values.append(min(values[-1] + rise, 8.0))
    return tuple(map(math.exp, values))


ELSEWHERE = _weights([-1.8, -0.15, 0.8, 1.55, 2.75, 3.25, 3.9, 4.3, 4.55, 4.75, 4.95], 0.15)
"""Weight of a place in a document of the pool."""

AFTER_CURSOR = _weights([2.0, 2.9, 4.2, 4.5, 4.8, 5.0], 0.15)
"""Weight of the text right after the cursor, which matches by its place alone, by how many of its tokens came, and one.

The first is small: other places predict better whether the line ends at the cursor. Measured: docs/decisions.md,
"The workspace pool"."""

ESCAPE = tuple(
    math.exp(value) for value in [3.0, 1.0, 2.9, 2.9, 3.0, 3.3, 3.4, 3.4, 3.4, 3.4] + [3.6] * (MAX_MATCH + MAX_REACH)
)
"""Weight of "none of these", by the longest match."""


@dataclass(frozen=True, slots=True)
class Places:
    """Places that agree with the end of the context, in parallel lists.

    Attributes:
        match_lengths: how many context tokens a place agrees with, at least one.
        factors: what multiplies a place's weight: recency, acceptance.
        weights: the weights by match length that apply to it.
        continuations: the tokens after it, all equally many; a border closes them.
    """

    match_lengths: list[int]
    factors: list[float]
    weights: list[tuple[float, ...]]
    continuations: list[list[int]]


_Place = tuple[float, list[int], tuple[float, ...], float, int]
"""A place's first weight, its continuation, its weights by match length, its factor, its match length."""


def rank(places: Places, *, max_candidates: int, max_length: int, origin: DraftOrigin) -> list[Draft]:
    """The most probable continuations as drafts that branch from each other, best first."""
    drafts: list[Draft] = []
    if not places.match_lengths or max_candidates < 1 or max_length < 1:
        return drafts
    longest = max(places.match_lengths)
    max_length = min(max_length, len(places.continuations[0]))
    everywhere: list[_Place] = [
        (factor * table[match], row, table, factor, match)
        for row, table, factor, match in zip(
            places.continuations, places.weights, places.factors, places.match_lengths, strict=True
        )
    ]
    if len(everywhere) > MEMBERS:
        everywhere.sort(key=_FIRST_WEIGHT, reverse=True)
    # (-probability of the path, ticket, places that agree with it, the path and shares it leaves after so many tokens,
    # its token there, the token's share)
    heap: list[tuple[float, int, list[_Place], list[int], list[float], int, int, float]] = []
    tickets = 0
    probability, members = 1.0, everywhere
    tokens: list[int] = []
    confidences: list[float] = []
    while True:
        depth = len(tokens)
        while depth < max_length:
            if len(members) == 1:
                _follow(members[0], probability, tokens, confidences, max_length)
                break
            row = members[0][1]
            if members[-1][1] == row and all(member[1] == row for member in members):
                _follow_all(members, probability, tokens, confidences, max_length)
                break
            weight_of, members_of, total = _vote(members, depth)
            if not weight_of:
                break
            if len(weight_of) == 1:
                (best,) = weight_of
            else:
                best = max(weight_of, key=weight_of.__getitem__)
                least = MIN_PROBABILITY * total / probability
                for token, weight in weight_of.items():
                    if weight >= least and token != best:
                        tickets += 1
                        share = weight / total
                        item = (
                            -probability * share,
                            tickets,
                            members_of[token],
                            tokens,
                            confidences,
                            depth,
                            token,
                            share,
                        )
                        heappush(heap, item)
            share = weight_of[best] / total
            probability *= share
            if probability < MIN_PROBABILITY:
                break
            members = members_of[best][:MEMBERS]
            tokens.append(best)
            confidences.append(share)
            depth += 1
        if tokens:
            drafts.append(Draft(tuple(tokens), tuple(confidences), longest, origin))
        if not heap or len(drafts) == max_candidates:
            return drafts
        negative, _, members, path, shares, depth, token, share = heappop(heap)
        probability = -negative
        tokens = [*path[:depth], token]
        confidences = [*shares[:depth], share]


def _follow(place: _Place, probability: float, tokens: list[int], confidences: list[float], max_length: int) -> None:
    """Append the rest of one place's continuation, as far as it stays probable."""
    _, row, table, factor, match = place
    depth = len(tokens)
    match += depth
    for token in row[depth:max_length]:
        weight = factor * table[match]
        share = weight / (weight + ESCAPE[match])
        probability *= share
        if token == BORDER or probability < MIN_PROBABILITY:
            return
        tokens.append(token)
        confidences.append(share)
        match += 1


def _follow_all(
    members: list[_Place], probability: float, tokens: list[int], confidences: list[float], max_length: int
) -> None:
    """The same for places that agree to the end."""
    depth = len(tokens)
    longest = max(member[4] for member in members)
    for token in members[0][1][depth:max_length]:
        weight = 0.0
        for _, _, table, factor, match in members:  # sum() rounds otherwise from Python 3.12 on
            weight += factor * table[match + depth]
        share = weight / (weight + ESCAPE[longest + depth])
        probability *= share
        if token == BORDER or probability < MIN_PROBABILITY:
            return
        tokens.append(token)
        confidences.append(share)
        depth += 1


def _vote(members: list[_Place], depth: int) -> tuple[dict[int, float], dict[int, list[_Place]], float]:
    """Weights and supporters of the tokens that follow ``depth`` agreed ones, and the weight of all and of none."""
    weight_of: dict[int, float] = {}
    members_of: dict[int, list[_Place]] = {}
    longest = 0
    total = 0.0
    for member in members:
        _, row, table, factor, match = member
        token = row[depth]
        if token == BORDER:
            continue
        match += depth
        if match > longest:
            longest = match
        weight = factor * table[match]
        total += weight
        if token in weight_of:
            weight_of[token] += weight
            members_of[token].append(member)
        else:
            weight_of[token] = weight
            members_of[token] = [member]
    return weight_of, members_of, total + ESCAPE[longest]
