"""Settings: every bad value is named with its range and the default takes its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields

import pytest
from forelook.config import CompletionConfig, ModelConfig, PoolConfig
from forelook.errors import ConfigError
from forelook.protocol import messages
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


def accepts(make: Callable[[], object]) -> bool:
    try:
        make()
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize("device", ["auto", "cpu", "mps", "cuda", "cuda:0", "cuda:11", "tpu", "cpu:1"])
def test_a_device_is_offered_exactly_when_the_backend_accepts_it(device: str) -> None:
    assert SETTINGS["device"].check(device) == accepts(lambda: ModelConfig(device=device))


@pytest.mark.parametrize("dtype", ["auto", "bfloat16", "float16", "float32", "float64", "int8", "int4", "int7"])
def test_a_dtype_is_offered_exactly_when_the_backend_accepts_it(dtype: str) -> None:
    assert SETTINGS["dtype"].check(dtype) == accepts(lambda: ModelConfig(dtype=dtype))


@pytest.mark.parametrize("value", [0, 1, 4096, 4097, 600_000, 600_001, 999, 1000, 100_000_000, 100_000_001])
def test_editor_and_backend_agree_on_every_range(value: int) -> None:
    assert SETTINGS["max_new_tokens"].check(value) == accepts(lambda: CompletionConfig(max_new_tokens=value))
    assert SETTINGS["max_new_tokens"].check(value) == (1 <= value <= messages.MAX_NEW_TOKENS)
    assert SETTINGS["deadline_ms"].check(value) == accepts(lambda: CompletionConfig(deadline_ms=value))
    assert SETTINGS["deadline_ms"].check(value) == (1 <= value <= messages.MAX_DEADLINE_MS)
    assert SETTINGS["pool_tokens"].check(value) == accepts(lambda: PoolConfig(max_tokens=value))


def test_a_language_setting_wins_over_the_star() -> None:
    options, _ = parse_options({"languages": {"*": False, "python": True}})
    assert options.wants_language("python")
    assert not options.wants_language("rust")


def test_only_settings_of_the_backend_itself_ask_for_a_restart() -> None:
    assert needs_restart(Options(), Options(model="m"))
    assert not needs_restart(Options(), Options(deadline_ms=100, enable=False))
