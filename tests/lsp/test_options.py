"""Settings: every bad value is named with its range and the default takes its place."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from forelook_lsp.settings import SETTINGS, Options, describe_options, needs_restart, parse_options


def test_every_option_has_a_row_in_the_table_and_its_default_is_allowed() -> None:
    assert [item.name for item in fields(Options)] == list(SETTINGS)
    for row in json.loads(json.dumps(describe_options())):
        setting = next(setting for setting in SETTINGS.values() if setting.name == row["name"])
        assert setting.check(row["default"]), row


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"enable": "yes"}, "forelook.enable"),
        ({"deadlineMs": 5}, "forelook.deadlineMs"),
        ({"deadlineMs": True}, "forelook.deadlineMs"),
        ({"delayMs": "fast"}, "forelook.delayMs"),
        ({"numSuggestions": 9}, "forelook.numSuggestions"),
        ({"numSuggestions": None}, "forelook.numSuggestions"),
        ({"device": "tpu"}, "forelook.device"),
        ({"lookahead": {"ngram": 1}}, "forelook.lookahead.ngram"),
        ({"lookahead.ngram": 1}, "forelook.lookahead.ngram"),
        ({"backend": {"url": "http://example.org"}}, "forelook.backend.url"),
        ({"backend": {"url": "ws://user:secret@host"}}, "forelook.backend.url"),
        ({"ignore": "*.py"}, "forelook.ignore"),
        ({"ignore": ["a", ""]}, "forelook.ignore"),
        ({"languages": {"python": 1}}, "forelook.languages"),
        ({"commandSuffix": "a b"}, "forelook.commandSuffix"),
        ({"speculate": 1}, "forelook.speculate"),
        ({"tempo": 3}, "forelook.tempo"),
        (["enable"], "forelook"),
    ],
)
def test_a_bad_value_is_named_with_its_range_and_the_default_is_used(settings: object, name: str) -> None:
    options, problems = parse_options(settings)
    assert options == Options()
    assert [problem.field for problem in problems] == [name]
    assert "must be" in str(problems[0])


def test_good_values_are_kept_beside_a_bad_one() -> None:
    options, problems = parse_options(
        {"deadlineMs": 250, "lookahead": {"window": 8}, "ignore": ["*.lock"], "maxNewTokens": 0, "delayMs": 0}
    )
    assert (options.deadline_ms, options.lookahead_window, options.ignore, options.delay_ms) == (250, 8, ("*.lock",), 0)
    assert options.max_new_tokens is None
    assert len(problems) == 1


def test_a_language_setting_wins_over_the_star() -> None:
    options, _ = parse_options({"languages": {"*": False, "python": True}})
    assert options.wants_language("python")
    assert not options.wants_language("rust")


def test_only_settings_of_the_backend_itself_ask_for_a_restart() -> None:
    assert needs_restart(Options(), Options(model="m"))
    assert not needs_restart(Options(), Options(deadline_ms=100, enable=False))
