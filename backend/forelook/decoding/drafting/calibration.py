"""How likely a draft token is accepted, learned online from every verified node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from forelook.decoding.drafting.draft import Draft, DraftOrigin

# Chosen, not measured.
_MATCH_LIMIT = 16
_SHARE_BUCKETS = 8
_CELLS_PER_ORIGIN = _MATCH_LIMIT * _SHARE_BUCKETS
# Measured: docs/decisions.md, "The constants of drafting lie on a plateau".
_PRIOR_WEIGHT = 16.0  # tries that a prior counts for
_FORGET_ABOVE = 400.0  # tries after which the evidence is halved
_ORIGINS = {origin: index for index, origin in enumerate(DraftOrigin)}
_ORIGIN_OF_INDEX = tuple(DraftOrigin)


_Table = tuple[tuple[float, ...], ...]  # by tokens matched (the last row for more) and share bucket

# Measured: docs/decisions.md, "Draft priors" (scripts/fit_draft_priors.py on packages of the standard library and three
# installed ones, with the starter model; no benchmark's data). Those of the default model bring the same, as in "The
# constants of drafting lie on a plateau".
_MATCHED_PRIORS: _Table = (
    (0.04, 0.11, 0.23, 0.27, 0.43, 0.43, 0.71, 0.89),
    (0.04, 0.11, 0.23, 0.27, 0.43, 0.43, 0.71, 0.89),
    (0.05, 0.15, 0.23, 0.32, 0.54, 0.54, 0.81, 0.94),
    (0.05, 0.15, 0.30, 0.43, 0.65, 0.85, 0.92, 0.94),
)
# Likewise, "Guesses that the text has already": outputs of SmolLM2-135M on MBPP.
_SUCCESSOR_PRIORS = (
    (0.01, 0.01, 0.04, 0.04, 0.06, 0.10, 0.12, 0.20),  # seeds: the share is the root of the model's own probability
    # the model's latest choices after one, two and three tokens
    (0.02, 0.04, 0.10, 0.12, 0.14, 0.17, 0.22, 0.30),
    (0.03, 0.09, 0.18, 0.24, 0.30, 0.36, 0.42, 0.50),
    (0.01, 0.02, 0.06, 0.18, 0.30, 0.40, 0.50, 0.60),
    # its earlier best choices
    (0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.12),
    (0.03, 0.05, 0.08, 0.10, 0.11, 0.12, 0.14, 0.20),
    (0.04, 0.08, 0.12, 0.16, 0.20, 0.24, 0.28, 0.35),
    (0.01, 0.01, 0.02, 0.09, 0.18, 0.20, 0.40, 0.80),  # seeds of pairs, likewise
    # the same in this order where the text around the cursor has the token
    (0.02, 0.03, 0.07, 0.16, 0.22, 0.22, 0.23, 0.30),
    (0.08, 0.10, 0.18, 0.20, 0.20, 0.20, 0.20, 0.24),
    (0.06, 0.09, 0.22, 0.38, 0.52, 0.55, 0.55, 0.58),
    (0.04, 0.09, 0.36, 0.60, 0.82, 0.83, 0.86, 0.92),
    (0.04, 0.04, 0.05, 0.06, 0.13, 0.13, 0.14, 0.15),
    (0.05, 0.08, 0.10, 0.14, 0.18, 0.18, 0.20, 0.28),
    (0.10, 0.20, 0.30, 0.40, 0.45, 0.50, 0.50, 0.55),
    (0.01, 0.02, 0.06, 0.16, 0.34, 0.42, 0.80, 0.92),
)


# Chosen, not measured.
_PREVIOUS_PRIORS: _Table = (
    tuple(0.3 + 0.05 * bucket for bucket in range(_SHARE_BUCKETS)),
    tuple(0.5 + 0.05 * bucket for bucket in range(_SHARE_BUCKETS)),
)

_PRIORS: dict[DraftOrigin, _Table] = {
    DraftOrigin.SUCCESSOR: _SUCCESSOR_PRIORS,
    DraftOrigin.PREVIOUS_SUGGESTION: _PREVIOUS_PRIORS,
}
"""By origin; of the others ``_MATCHED_PRIORS``."""


class AcceptanceCalibration:
    """Acceptance probability per cell: (origin, tokens matched so far, share of the evidence).

    A node of a draft counts as matched one token longer than its parent, because it matters only if its parent is
    accepted. The table outlives requests; old evidence fades.

    Attributes:
        probabilities: per cell, the current estimate.
    """

    def __init__(self) -> None:
        self._tries = [_PRIOR_WEIGHT] * (_CELLS_PER_ORIGIN * len(_ORIGINS))
        self._hits = [
            _PRIOR_WEIGHT * table[min(match, len(table) - 1)][bucket]
            for origin in DraftOrigin
            for table in (_PRIORS.get(origin, _MATCHED_PRIORS),)
            for match in range(_MATCH_LIMIT)
            for bucket in range(_SHARE_BUCKETS)
        ]
        self.probabilities = [hits / _PRIOR_WEIGHT for hits in self._hits]

    @staticmethod
    def cells_of(draft: Draft) -> Iterator[int]:
        """The cell of each token of a draft, lazily: often only the first few are needed."""
        base = _ORIGINS[draft.origin] * _CELLS_PER_ORIGIN
        last_row = base + (_MATCH_LIMIT - 1) * _SHARE_BUCKETS
        row = min(base + draft.match_length * _SHARE_BUCKETS, last_row)
        for share in draft.shares:
            bucket = int(share * _SHARE_BUCKETS)
            yield row + (bucket if bucket < _SHARE_BUCKETS else _SHARE_BUCKETS - 1)
            if row < last_row:
                row += _SHARE_BUCKETS

    @staticmethod
    def cell(origin: DraftOrigin, match_length: int, share: float) -> int:
        """The cell of one token."""
        row = min(match_length, _MATCH_LIMIT - 1)
        bucket = min(int(share * _SHARE_BUCKETS), _SHARE_BUCKETS - 1)
        return _ORIGINS[origin] * _CELLS_PER_ORIGIN + row * _SHARE_BUCKETS + bucket

    @staticmethod
    def origin(cell: int) -> DraftOrigin:
        """The origin a cell belongs to."""
        return _ORIGIN_OF_INDEX[cell // _CELLS_PER_ORIGIN]

    def observe(self, cell: int, accepted: bool) -> None:
        """Count one proposal whose parent was accepted, and whether the target agreed."""
        hits = self._hits[cell] + accepted
        tries = self._tries[cell] + 1.0
        if tries > _FORGET_ABOVE:
            hits *= 0.5
            tries *= 0.5
        self._hits[cell] = hits
        self._tries[cell] = tries
        self.probabilities[cell] = hits / tries


@dataclass(slots=True)
class Calibrations:
    """How likely drafts are accepted where they continue a text, and where they fill a gap in one.

    Both begin with the same priors; what a gap teaches does not count for the other kind.
    """

    continuing: AcceptanceCalibration = field(default_factory=AcceptanceCalibration)
    infilling: AcceptanceCalibration = field(default_factory=AcceptanceCalibration)

    def of(self, is_infilling: bool) -> AcceptanceCalibration:
        """That of a request."""
        return self.infilling if is_infilling else self.continuing
