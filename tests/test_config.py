"""A setting outside its range is refused with its name, its value and the range."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from forelook import config
from forelook.config import SETTINGS, EditorConfig, EngineConfig, ServerConfig
from forelook.errors import ConfigError

MODEL = "a folder, a GGUF file or a hub id of a Llama-family model, or null for the default model"
SECTIONS = (EngineConfig, EditorConfig, ServerConfig)


@pytest.mark.parametrize("section", SECTIONS)
def test_defaults_are_allowed_and_frozen(section: type[Any]) -> None:
    made = section()
    name = dataclasses.fields(section)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, name, None)


@pytest.mark.parametrize(
    ("section", "field", "value", "expected"),
    [
        (EngineConfig, "model", "", MODEL),
        (EngineConfig, "model", "a\0b", MODEL),
        (EngineConfig, "device", "tpu", '"auto", "cpu", "cuda" or "cuda:N"'),
        (EngineConfig, "device", "mps", '"auto", "cpu", "cuda" or "cuda:N"'),
        (EngineConfig, "device", "cpu:1", '"auto", "cpu", "cuda" or "cuda:N"'),
        (EngineConfig, "device", "cuda:x", '"auto", "cpu", "cuda" or "cuda:N"'),
        (EngineConfig, "device", None, '"auto", "cpu", "cuda" or "cuda:N"'),
        (EngineConfig, "dtype", "int7", '"auto", "bfloat16", "float16", "float32", "float64", "int8" or "int4"'),
        (EngineConfig, "lookahead_window", -1, '"auto" or an integer from 0 to 64'),
        (EngineConfig, "lookahead_window", 65, '"auto" or an integer from 0 to 64'),
        (EngineConfig, "lookahead_ngram", 1, '"auto" or an integer from 2 to 16'),
        (EngineConfig, "lookahead_max_candidates", 1.5, '"auto" or an integer from 0 to 64'),
        (EngineConfig, "max_new_tokens", 0, "an integer from 1 to 4096, or null for the backend's choice"),
        (EngineConfig, "deadline_ms", True, "an integer from 1 to 600000, or null for the backend's choice"),
        (EngineConfig, "cross_file", "yes", "true or false"),
        (EngineConfig, "speculate", "on", '"auto", true or false'),
        (EngineConfig, "pool_tokens", 10, "an integer from 1000 to 100000000, or null for the backend's choice"),
        (EngineConfig, "persistent_pool", 1, "true or false"),
        (EngineConfig, "devices", 0, "an integer from 1 to 4096"),
        (EditorConfig, "multi_line", "sometimes", '"auto", "always" or "never"'),
        (EditorConfig, "ignore", ("",), "a list of globs as in .gitignore"),
        (EditorConfig, "ignore", ["a"], "a list of globs as in .gitignore"),
        (ServerConfig, "port", 65_536, "an integer from 0 to 65535, or null for a Unix socket"),
        (ServerConfig, "host", "", "an address or host name"),
        (ServerConfig, "idle_timeout_s", 0, "a number from 0.1 to 1e+07, or null for never"),
        (ServerConfig, "idle_timeout_s", math.nan, "a number from 0.1 to 1e+07, or null for never"),
        (ServerConfig, "max_connections", 0, "an integer from 1 to 10000"),
        (ServerConfig, "max_message_bytes", 10, "an integer from 1024 to 1073741824"),
        (ServerConfig, "tls_key", Path("k.pem"), "a key file, together with tls_certificate"),
    ],
)
def test_a_value_outside_its_range_is_named(section: type[Any], field: str, value: object, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        section(**{field: value})
    assert caught.value.field == field
    assert caught.value.expected == expected
    assert str(caught.value) == f"invalid {field}: {value!r} (expected {expected})"


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:11"])
def test_devices_there_are(device: str) -> None:
    assert EngineConfig(device=device).device == device


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.name)
def test_a_default_survives_json(row: Any) -> None:
    assert row.from_json(row.kind.to_json(row.default)) == row.default


def test_names_are_unique_and_every_class_is_in_the_table() -> None:
    assert len({row.name for row in SETTINGS}) == len(SETTINGS)
    assert len({row.attribute for row in SETTINGS}) == len(SETTINGS)
    found = {c for c in vars(config).values() if isinstance(c, type) and c.__module__ == config.__name__}
    assert found == set(SECTIONS)


@pytest.mark.parametrize(
    ("sizes", "published"),
    [
        ({}, None),
        ({"lookahead_ngram": 4}, {"ngram_size": 4}),
        ({"lookahead_window": 0, "lookahead_ngram": 4}, None),
        ({"lookahead_window": 8, "lookahead_max_candidates": 3}, {"window_size": 8, "max_candidates": 3}),
    ],
)
def test_any_of_w_n_and_g_asks_for_lookahead_as_published(sizes: dict[str, int], published: dict[str, int]) -> None:
    assert EngineConfig(**sizes).published_sizes == published  # type: ignore[arg-type]


@pytest.mark.parametrize(("limit", "block", "line"), [(None, 128, 48), (16, 16, 16), (256, 256, 48)])
def test_a_limit_on_tokens_applies_to_lines_too(limit: int | None, block: int, line: int) -> None:
    config = EngineConfig(max_new_tokens=limit)
    assert (config.max_block_tokens, config.max_line_tokens) == (block, line)
