"""A kind reads its own JSON and its own command-line spelling, and accepts exactly its values."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from forelook.settings.kinds import (
    Kind,
    auto,
    boolean,
    choice,
    integer,
    number,
    path,
    pattern,
    switches,
    text,
    texts,
    unset,
)


@pytest.mark.parametrize(
    ("kind", "value", "in_json"),
    [
        (boolean(), True, True),
        (integer(1, 3), 2, 2),
        (number(0.5, 3), 1.5, 1.5),
        (choice(("a", "b")), "b", "b"),
        (pattern("[ab]{1,2}", "a and b"), "ab", "ab"),
        (text("a name"), "x", "x"),
        (path("a file"), Path("/x"), "/x"),
        (texts("names"), ("x", "y"), ["x", "y"]),
        (switches("names"), {"x": False}, {"x": False}),
        (auto(integer(1, 3)), None, "auto"),
        (auto(boolean()), False, False),
        (unset(path("a file")), None, None),
        (unset(texts("names")), ("x",), ["x"]),
    ],
)
def test_a_value_is_written_to_json_and_read_back(kind: Kind, value: object, in_json: object) -> None:
    assert kind.accepts(value)
    assert kind.to_json(value) == in_json
    assert kind.from_json(in_json) == value


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (boolean(), (0, "true", None)),
        (integer(1, 3), (0, 4, 1.0, True, "1", None)),
        (number(0.5, 3), (0.4, math.nan, math.inf, True, "1", None)),
        (choice(("a", "b")), ("c", None, 1)),
        (pattern("[ab]{1,2}", "a and b"), ("", "abc", "ab\n", None)),
        (text("a name"), ("", "x" * 4097, "a\0", None)),
        (path("a file"), ("/x", None)),
        (texts("names"), (["x"], ("",), ("x",) * 1001, None)),
        (switches("names"), ({"x": 1}, [], None)),
        (auto(integer(1, 3)), ("auto", 4)),
        (unset(integer(1, 3)), ("null", 4)),
    ],
)
def test_other_values_are_not_accepted(kind: Kind, values: tuple[object, ...]) -> None:
    assert [value for value in values if kind.accepts(value)] == []


@pytest.mark.parametrize(
    ("kind", "argument", "value"),
    [
        (boolean(), "off", False),
        (integer(1, 3), "2", 2),
        (number(0.5, 3), "2", 2.0),
        (path("a file"), "x", Path("x")),
        (texts("names"), "x", ("x",)),
        (auto(boolean()), "auto", None),
        (auto(boolean()), "on", True),
        (unset(integer(1, 3)), "2", 2),
    ],
)
def test_an_argument_is_read(kind: Kind, argument: str, value: object) -> None:
    assert kind.from_text(argument) == value


@pytest.mark.parametrize(("kind", "spelling"), [(auto(integer(1, 3)), None), (path("a file"), 3), (path("a file"), "")])
def test_another_spelling_in_json_is_an_error(kind: Kind, spelling: object) -> None:
    with pytest.raises(ValueError):
        kind.from_json(spelling)
