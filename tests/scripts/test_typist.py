"""Held-out lines typed again: what counts as shown and as taken, and the thresholds that follow from it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from bench.thresholds import calibrate, check, cross_check, default_threshold, split, strict_threshold, sweep
from bench.traces import Edit, Session, typed
from bench.typist import (
    Asked,
    Record,
    Tally,
    append_record,
    asking_positions,
    lines_of,
    read_records,
    session_lines,
    simulate,
    tally_records,
)
from forelook.confidence import Confidence
from forelook.model.confidence import ALL


def asked(position: int, text: str, log_prob: float) -> Asked:
    """An answer in one token, or in one per character where the text has several words."""
    pieces = text.split(" ")
    ends = [sum(map(len, pieces[: number + 1])) + number for number in range(len(pieces))]
    return Asked(position, text, (log_prob / len(pieces),) * len(pieces), tuple(ends))


def record(typed_text: str, *answers: Asked, project: str = "p", language: str = "python") -> Record:
    return Record(language, project, typed_text, answers)


def test_a_right_line_is_taken_with_one_key() -> None:
    tally = simulate("return x", lambda _position: ("return x", False))
    assert tally == Tally(shown=1, taken=1, keys=1, characters=8, asked=1)


def test_a_wrong_line_counts_once_while_it_is_typed_through() -> None:
    answers = {0: ("return y", False), 8: ("", False)}
    asked_at: list[int] = []

    def answer(position: int) -> tuple[str, bool]:
        asked_at.append(position)
        return answers.get(position, ("", False))

    assert simulate("return xy", answer) == Tally(shown=1, taken=0, keys=9, characters=9, asked=2)
    assert asked_at == [0, 8]


def test_a_right_beginning_is_no_right_line() -> None:
    tally = simulate("f(x)", lambda position: ("f(", False) if position == 0 else ("", False))
    assert (tally.shown, tally.taken) == (1, 0)


def test_the_model_is_asked_at_borders_of_words_and_now_and_then_in_them() -> None:
    assert asking_positions("a = compute(x)") == [0, 1, 2, 3, 4, 5, 7, 11, 12, 13]


def test_a_withheld_line_is_shown_once_what_is_left_of_it_is_likely() -> None:
    # Half of the doubt is in its first word, which the user types.
    one = record("return value", asked(0, "return value", 2 * math.log(0.5)))
    assert tally_records([one], math.log(0.2)).keys == 1
    late = tally_records([one], math.log(0.4))
    assert (late.shown, late.taken, late.keys) == (1, 1, 7)
    assert tally_records([one], math.log(0.6)).taken == 0
    assert tally_records([one], math.log(0.6)).withheld > 0


def test_records_survive_their_file(tmp_path: Path) -> None:
    path = tmp_path / "records"
    assert read_records(path) == []
    both = [record("é = 1", asked(0, "é = 1", -0.5)), record("x", project="q")]
    for one in both:
        append_record(path, one)
    assert read_records(path) == both


def lines(num: int, language: str, project: str) -> list[Record]:
    """Every third line is right; the surer the model is, the likelier."""
    return [
        record("return x", asked(0, *answer), asked(8, "", 0.0), project=project, language=language)
        for number in range(num)
        for answer in ([("return x", -1.0)] if number % 3 == 0 else [("z", -2.0 - number / 8)])
    ]


def test_default_shows_as_much_as_promised_and_strict_saves_as_much() -> None:
    some = lines(60, "python", "p")
    base = tally_records(some, -math.inf)
    default = tally_records(some, math.log(default_threshold(some)))
    assert 0.62 * base.shown <= default.shown <= 0.75 * base.shown
    assert default.taken == base.taken
    strict = strict_threshold(some)
    assert tally_records(some, math.log(strict)).shown == base.taken
    assert strict == pytest.approx(math.exp(-1.0), rel=0.3)


def test_a_language_with_few_lines_takes_the_threshold_of_all() -> None:
    levels = calibrate([*lines(60, "python", "p"), *lines(3, "go", "p")])
    assert levels[Confidence.DEFAULT].keys() == {ALL, "python"}
    for language, least in levels[Confidence.DEFAULT].items():
        assert 0 < least <= levels[Confidence.STRICT][language]
    rows = check([*lines(30, "python", "q"), *lines(30, "go", "q")], levels, Confidence.STRICT)
    assert [(row.name, row.num_lines) for row in rows] == [("go", 30), ("python", 30), ("all", 60)]
    assert rows[-1].gain == pytest.approx(3.0)
    assert rows[-1].shown_share == pytest.approx(1 / 3)
    assert "3.00x" in rows[-1].text()


def test_a_sweep_starts_with_everything() -> None:
    rows = sweep(lines(30, "python", "p"), "all")
    assert (rows[0].least, rows[0].shown_share, rows[0].gain) == (0.0, 1.0, 1.0)
    assert rows[-1].tally.shown == 0
    assert "[0.0%, 100.0%]" in rows[-1].text(), "nothing is known of what is not shown"


def test_a_project_is_on_one_side_and_both_sides_have_as_much_of_a_language() -> None:
    names = [f"project-{number}" for number in range(9)]
    both = [record("x", project=name, language=language) for name in names * 2 for language in ("go", "c")]
    halves = split(both)
    assert list(map(len, halves)) == [18, 18]
    for language in ("go", "c"):
        first, second = ({one.project for one in half if one.language == language} for half in halves)
        assert len(first) in (4, 5)
        assert first.isdisjoint(second)


def test_languages_of_one_project_are_spread_over_both_sides() -> None:
    halves = split([*lines(6, "go", "p"), *lines(6, "c", "q"), *lines(6, "java", "r")])
    assert sorted(map(len, halves)) == [6, 12]


def test_nothing_shown_gives_no_threshold() -> None:
    silent = [record("return x", asked(0, "", 0.0))]
    assert (default_threshold(silent), strict_threshold(silent)) == (0.0, 0.0)


def test_a_cross_check_uses_thresholds_of_other_projects() -> None:
    some = [*lines(60, "python", "p"), *lines(60, "python", "q")]
    python, total = cross_check(some, Confidence.STRICT)
    assert (python.num_lines, total.num_lines) == (120, 120)
    assert python.least == calibrate(some)[Confidence.STRICT]["python"]
    assert python.tally.taken == python.base.taken == 40
    assert python.gain == pytest.approx(3.0)
    # A project of its own, on which the model is right without being sure, loses what the other one's threshold hides.
    odd = [record("return x", asked(0, "return x", -9.0), asked(8, "", 0.0), project="odd") for _ in range(60)]
    assert cross_check([*lines(60, "python", "p"), *odd], Confidence.STRICT)[-1].tally.taken < 20 + 60


def test_lines_are_taken_from_all_projects_and_fewer_are_the_first_of_more(tmp_path: Path) -> None:
    for project in ("one", "two"):
        (tmp_path / project).mkdir()
        for number in range(5):
            body = "".join(f"    value_{line} = compute({line}, {number})\n" for line in range(40))
            (tmp_path / project / f"{number}.py").write_text(f"def {project}():\n{body}")
    more = lines_of([tmp_path], 12)["python"]
    assert len(more) == 12
    assert {line.project for line in more} == {"one", "two"}
    assert lines_of([tmp_path], 6)["python"] == more[:6]
    line = more[0]
    assert line.before.endswith("\n    ")
    assert line.typed.startswith("value_")
    assert line.after.startswith("\n")


def test_a_session_gives_the_lines_that_were_typed_in_one_go() -> None:
    edits = (
        *typed(2, "const a = b"),
        Edit(0, 1, ""),
        *typed(0, "hi"),
        Edit(4, 4, "pasted\nlines of text"),
        *typed(5, "another one\n"),
    )
    found = list(session_lines([Session("s", "javascript", "{\n}", edits)], 9))
    assert [(line.before, line.typed, line.after) for line in found] == [
        ("{\n", "const a = b", "}"),
        (found[1].before, "another one", found[1].after),
    ]
    assert len(list(session_lines([Session("s", "javascript", "{\n}", edits)], 1))) == 1
