"""Settings: every bad value is named with its range and the default takes its place."""

from __future__ import annotations

from typing import Any

import pytest
from forelook.config import EditorConfig, EngineConfig
from forelook.protocol import messages
from forelook.settings.rows import Effect
from forelook_lsp.settings import (
    EDITOR_SETTINGS,
    backend_settings,
    describe_settings,
    effect_of_change,
    parse_settings,
)


def test_every_default_is_allowed_and_is_what_an_empty_section_gives() -> None:
    defaults: dict[str, Any] = {str(row["name"]): row["default"] for row in describe_settings()}
    assert parse_settings(defaults) == parse_settings({}) == parse_settings(None) == (EditorConfig(), [])


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"enable": "yes"}, "forelook.enable"),
        ({"deadlineMs": 0}, "forelook.deadlineMs"),
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
    config, problems = parse_settings(settings)
    assert config == EditorConfig()
    assert [problem.field for problem in problems] == [name]
    assert "expected" in str(problems[0])


def test_good_values_are_kept_beside_a_bad_one() -> None:
    config, problems = parse_settings(
        {"deadlineMs": 250, "lookahead": {"window": 8}, "ignore": ["*.lock"], "maxNewTokens": 0, "delayMs": 0}
    )
    assert (config.engine.deadline_ms, config.engine.lookahead_window, config.ignore, config.delay_ms) == (
        250,
        8,
        ("*.lock",),
        0,
    )
    assert config.engine.max_new_tokens is None
    assert len(problems) == 1


@pytest.mark.parametrize("device", ["mps", "tpu", "cpu:1"])
def test_no_device_is_offered_that_no_backend_runs_on(device: str) -> None:
    config, problems = parse_settings({"device": device})
    assert config.engine.device == "auto"
    assert "forelook.device" in str(problems[0])


@pytest.mark.parametrize(
    ("name", "high"), [("maxNewTokens", messages.MAX_NEW_TOKENS), ("deadlineMs", messages.MAX_DEADLINE_MS)]
)
def test_a_limit_per_request_has_the_range_of_the_protocol(name: str, high: int) -> None:
    (row,) = (row for row in EDITOR_SETTINGS if row.name == name)
    assert [row.kind.accepts(value) for value in (0, 1, high, high + 1)] == [False, True, True, False]


def test_alternatives_have_the_range_of_the_protocol() -> None:
    (row,) = (row for row in EDITOR_SETTINGS if row.name == "numSuggestions")
    high = messages.MAX_SUGGESTIONS
    assert [row.kind.accepts(value) for value in (0, 1, high, high + 1)] == [False, True, True, False]


SETTINGS_OF_0_1_0 = {
    "enable": False,
    "languages": {"*": True, "markdown": False},
    "model": "codellama/CodeLlama-7b-hf",
    "revision": "main",
    "device": "cuda:1",
    "dtype": "int8",
    "lookahead": {"window": 4, "ngram": "auto", "maxCandidates": 0},
    "maxNewTokens": 1024,
    "deadlineMs": 20,
    "multiLine": "never",
    "numSuggestions": 8,
    "delayMs": 0,
    "speculate": False,
    "crossFile": False,
    "indexWorkspace": False,
    "poolTokens": 20_000_000,
    "ignore": ["*.lock"],
    "completionFallback": True,
    "backend": {"start": False, "url": "wss://example.org:1", "tokenFile": "/t"},
    "commandSuffix": ".server",
    "statusNotifications": False,
    "server": {"interpreter": None},
    "trace.server": "off",
}


def test_every_setting_of_0_1_0_still_loads() -> None:
    config, problems = parse_settings(SETTINGS_OF_0_1_0)
    assert problems == []
    assert config.engine == EngineConfig(
        model="codellama/CodeLlama-7b-hf",
        revision="main",
        device="cuda:1",
        dtype="int8",
        lookahead_window=4,
        lookahead_max_candidates=0,
        max_new_tokens=1024,
        deadline_ms=20,
        speculate=False,
        cross_file=False,
        pool_tokens=20_000_000,
    )
    assert (config.enable, config.multi_line, config.delay_ms, config.ignore) == (False, "never", 0, ("*.lock",))
    assert (config.backend_url, config.backend_token_file) == ("wss://example.org:1", "/t")


def test_a_new_backend_is_given_what_it_cannot_be_told_later() -> None:
    config, _ = parse_settings(SETTINGS_OF_0_1_0)
    assert backend_settings(EngineConfig()) == {}
    assert backend_settings(config.engine) == {
        "model": "codellama/CodeLlama-7b-hf",
        "revision": "main",
        "device": "cuda:1",
        "dtype": "int8",
        "lookahead.window": 4,
        "lookahead.maxCandidates": 0,
        "speculate": False,
        "crossFile": False,
        "poolTokens": 20_000_000,
    }


def test_a_language_setting_wins_over_the_star() -> None:
    config, _ = parse_settings({"languages": {"*": False, "python": True}})
    assert config.wants_language("python")
    assert not config.wants_language("rust")


@pytest.mark.parametrize(
    ("settings", "effect"),
    [
        ({"deadlineMs": 100, "enable": False}, Effect.NONE),
        ({"enable": False, "speculate": True}, Effect.RESTART),
        ({"speculate": True, "model": "m"}, Effect.OTHER_BACKEND),
        ({"backend.url": "wss://example.org:1"}, Effect.OTHER_BACKEND),
    ],
)
def test_a_change_asks_for_no_more_than_it_needs(settings: dict[str, object], effect: Effect) -> None:
    assert effect_of_change(EditorConfig(), parse_settings(settings)[0]) is effect
