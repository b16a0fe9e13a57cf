"""Thresholds of confidence from recorded answers, and what they do on projects that they were not chosen on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from forelook.confidence import Confidence
from forelook.model.confidence import ALL

from bench.summary import wilson_interval
from bench.typist import Record, Tally, tally_records

SHOWN_AT_DEFAULT = 0.64
"""Least share of the suggestions that the default level still shows; chosen, with a margin to 60%."""
SAVED_AT_STRICT = 0.95
"""Least share of the saved keystrokes that the strict level keeps; chosen."""
MIN_LINES = 8
"""A language with fewer lines to calibrate on takes the threshold of all; chosen."""
SHRINKING_LINES = 20
"""With as many lines, a language's own threshold and that of all weigh the same; chosen."""
SHARES = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
"""The thresholds that tables show."""

_CANDIDATES = tuple(10 ** (-number / 10) for number in range(120, 0, -1))  # from 1e-12 to 0.8

Levels = Mapping[Confidence, Mapping[str, float]]


def split(records: Iterable[Record]) -> tuple[list[Record], list[Record]]:
    """Two halves of each language's records; a project is in one of them."""
    projects: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        projects.setdefault(record.language, {}).setdefault(record.project, []).append(record)
    halves: tuple[list[Record], list[Record]] = ([], [])
    for by_project in projects.values():
        first: list[Record] = []
        second: list[Record] = []
        for _, lines in sorted(by_project.items(), key=lambda item: (-len(item[1]), item[0])):
            # Of a language with one project, the smaller half of all gets it.
            is_first = (len(first), len(halves[0])) <= (len(second), len(halves[1]))
            (first if is_first else second).extend(lines)
        halves[0].extend(first)
        halves[1].extend(second)
    return halves


def calibrate(records: Sequence[Record]) -> dict[Confidence, dict[str, float]]:
    """The thresholds of both levels, for all languages together and for each with enough lines."""
    by_language: dict[str, list[Record]] = {ALL: list(records)}
    for record in records:
        by_language.setdefault(record.language, []).append(record)
    levels: dict[Confidence, dict[str, float]] = {Confidence.DEFAULT: {}, Confidence.STRICT: {}}
    for language, lines in sorted(by_language.items()):
        if language == ALL or len(lines) >= MIN_LINES:
            default = default_threshold(lines)
            for level, least in (
                (Confidence.DEFAULT, default),
                (Confidence.STRICT, max(default, strict_threshold(lines))),
            ):
                weight = 1.0 if language == ALL else len(lines) / (len(lines) + SHRINKING_LINES)
                of_all = levels[level].get(ALL, least)
                levels[level][language] = _rounded(least**weight * of_all ** (1.0 - weight))
    return levels


def default_threshold(records: Sequence[Record]) -> float:
    """The highest threshold that still shows ``SHOWN_AT_DEFAULT`` of the suggestions."""
    base = tally_records(records, -math.inf)
    return _highest(records, lambda tally: bool(tally.shown) and tally.shown >= SHOWN_AT_DEFAULT * base.shown)


def strict_threshold(records: Sequence[Record]) -> float:
    """The highest threshold that still saves ``SAVED_AT_STRICT`` of the keystrokes."""
    base = tally_records(records, -math.inf)
    return _highest(
        records, lambda tally: bool(tally.shown) and tally.saved_share >= SAVED_AT_STRICT * base.saved_share
    )


def _highest(records: Sequence[Record], is_enough: Callable[[Tally], bool]) -> float:
    # Neither figure falls with every step: a suggestion that is withheld at first may be shown twice later.
    found = (share for share in _CANDIDATES if is_enough(tally_records(records, math.log(share))))
    return max(found, default=0.0)


def _rounded(share: float) -> float:
    return float(f"{share:.2g}")


@dataclass(frozen=True)
class Row:
    """One line of a table: a threshold on some lines."""

    name: str
    num_lines: int
    least: float
    tally: Tally
    base: Tally

    @property
    def shown_share(self) -> float:
        return self.tally.shown / max(1, self.base.shown)

    @property
    def gain(self) -> float:
        """How many times the share taken is that without a threshold."""
        return self.tally.precision / self.base.precision if self.base.precision else math.nan

    def text(self) -> str:
        low, high = wilson_interval(self.tally.taken, self.tally.shown) or (0.0, 1.0)
        return (
            f"{self.name:<12} {self.num_lines:>5} {self.least:>9.2g} {self.tally.shown:>6} {self.shown_share:>7.1%} "
            f"{self.tally.taken:>6} {self.tally.precision:>7.1%} [{low:.1%}, {high:.1%}] {self.gain:>5.2f}x "
            f"{self.tally.saved_share:>7.1%} of {self.base.saved_share:.1%}"
        )

    def to_json(self) -> dict[str, object]:
        return {
            "num_lines": self.num_lines,
            "least": self.least,
            "shown": self.tally.shown,
            "taken": self.tally.taken,
            "shown_without": self.base.shown,
            "taken_without": self.base.taken,
            "saved_share": round(self.tally.saved_share, 4),
            "saved_share_without": round(self.base.saved_share, 4),
        }


HEAD = f"{'':<12} lines threshold  shown of base  taken  share of the shown      gain  keystrokes saved"


def sweep(records: Sequence[Record], name: str) -> list[Row]:
    """One row per threshold of ``SHARES``."""
    base = tally_records(records, -math.inf)
    return [
        Row(name, len(records), share, tally_records(records, math.log(share) if share else -math.inf), base)
        for share in SHARES
    ]


def check(records: Sequence[Record], levels: Levels, level: Confidence) -> list[Row]:
    """A level on lines: one row per language, and one for all together, each line with its own language's threshold."""
    by_language: dict[str, list[Record]] = {}
    for record in records:
        by_language.setdefault(record.language, []).append(record)
    rows: list[Row] = []
    for language, lines in sorted(by_language.items()):
        least = levels[level].get(language, levels[level][ALL])
        tally = tally_records(lines, math.log(least) if least else -math.inf)
        rows.append(Row(language, len(lines), least, tally, tally_records(lines, -math.inf)))
    return _with_sum(rows, levels[level][ALL])


def cross_check(records: Sequence[Record], level: Confidence) -> list[Row]:
    """What a level does on projects that it was not chosen on: each half with the other's thresholds, added up.

    The threshold of a row is that of all records.
    """
    halves = split(records)
    levels = calibrate(records)[level]
    sums: dict[str, Row] = {}
    for lines, others in (halves, halves[::-1]):
        for row in check(lines, calibrate(others), level)[:-1]:
            known = sums.get(row.name, Row(row.name, 0, levels.get(row.name, levels[ALL]), Tally(), Tally()))
            tally, base = known.tally + row.tally, known.base + row.base
            sums[row.name] = Row(row.name, known.num_lines + row.num_lines, known.least, tally, base)
    return _with_sum([sums[name] for name in sorted(sums)], levels[ALL])


def _with_sum(rows: list[Row], least: float) -> list[Row]:
    tally, base = Tally(), Tally()
    for row in rows:
        tally, base = tally + row.tally, base + row.base
    return [*rows, Row("all", sum(row.num_lines for row in rows), least, tally, base)]
