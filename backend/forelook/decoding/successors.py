"""What the model itself said after the same last tokens: every verified row teaches it, rejected drafts included."""

from __future__ import annotations

from forelook.decoding.calibration import AcceptanceCalibration
from forelook.decoding.drafts import DraftOrigin

_KEPT = 3
_MAX_KEYS = 200_000

# cells by (tokens of context, place in the list): the place takes the part of the share
CELLS = tuple(
    tuple(AcceptanceCalibration.cell(DraftOrigin.SUCCESSOR, order, 1.0 - 0.3 * place) for place in range(_KEPT))
    for order in range(4)
)


class SuccessorTable:
    """Last one, two and three tokens → the successors the model chose most recently, latest first.

    A step's forward computes the model's choice after every draft node, accepted or not. Kept, these choices are free
    drafts wherever the same tokens come up again, in this request or a later one.
    """

    def __init__(self, max_keys: int = _MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._lists: dict[tuple[int, ...], list[int]] = {}

    def __len__(self) -> int:
        return len(self._lists)

    def learn(self, before: tuple[int, ...], successor: int) -> None:
        """The model chose ``successor`` after the tokens ``before`` (its last three count)."""
        lists = self._lists
        if len(lists) > self._max_keys:
            for key in list(lists)[: self._max_keys // 4]:  # the oldest keys, in one sweep
                del lists[key]
        for order in range(1, len(before) + 1):
            key = before[-order:]
            known = lists.get(key)
            if known is None:
                lists[key] = [successor]
            elif known[0] != successor:
                if successor in known:
                    known.remove(successor)
                elif len(known) == _KEPT:
                    known.pop()
                known.insert(0, successor)

    def successors(self, before: tuple[int, ...]) -> list[tuple[int, int]]:
        """Known successors of the longest known context, with their calibration cells."""
        found: dict[int, int] = {}
        for order in range(min(3, len(before)), 0, -1):
            known = self._lists.get(before[-order:])
            if known is not None:
                cells = CELLS[order]
                for place, token in enumerate(known):
                    if token not in found:
                        found[token] = cells[place]
        return list(found.items())
