"""A setting outside its range is refused with its name, its value and the range."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from forelook import config
from forelook.config import (
    CompletionConfig,
    DecodingConfig,
    ModelConfig,
    PoolConfig,
    PrivacyConfig,
    ServerConfig,
    section_from,
)
from forelook.errors import ConfigError

SECTIONS = (ModelConfig, DecodingConfig, CompletionConfig, PoolConfig, PrivacyConfig, ServerConfig)


@pytest.mark.parametrize("section", SECTIONS)
def test_defaults_are_allowed_and_frozen(section: type[Any]) -> None:
    made = section()
    name = dataclasses.fields(section)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, name, None)


@pytest.mark.parametrize(
    ("section", "field", "value", "expected"),
    [
        (ModelConfig, "model", "", "a string that is not empty, or unset"),
        (ModelConfig, "device", "tpu", "one of auto, cpu, cuda or cuda:N"),
        (ModelConfig, "device", "cpu:1", "one of auto, cpu, cuda or cuda:N"),
        (ModelConfig, "device", "cuda:x", "one of auto, cpu, cuda or cuda:N"),
        (ModelConfig, "device", None, "one of auto, cpu, cuda or cuda:N"),
        (ModelConfig, "dtype", "int7", "one of auto, bfloat16, float16, float32, float64, int8, int4"),
        (DecodingConfig, "window_size", -1, "an integer from 0 to 64, or unset for automatic"),
        (DecodingConfig, "window_size", 65, "an integer from 0 to 64, or unset for automatic"),
        (DecodingConfig, "ngram_size", 1, "an integer from 2 to 16, or unset for automatic"),
        (DecodingConfig, "max_candidates", 1.5, "an integer from 0 to 64, or unset for automatic"),
        (CompletionConfig, "max_new_tokens", 0, "an integer from 1 to 4096, or unset for automatic"),
        (CompletionConfig, "deadline_ms", True, "an integer from 1 to 600000, or unset for automatic"),
        (CompletionConfig, "multi_line", "sometimes", "one of auto, always, never"),
        (CompletionConfig, "cross_file", "yes", "true or false"),
        (PoolConfig, "max_tokens", 10, "an integer from 1000 to 100000000"),
        (PoolConfig, "max_tokens", None, "an integer from 1000 to 100000000"),
        (PoolConfig, "persistent", 1, "true or false"),
        (PrivacyConfig, "ignore_globs", "*.env", "a list of strings, none of them empty"),
        (PrivacyConfig, "ignore_globs", ("",), "a list of strings, none of them empty"),
        (ServerConfig, "port", 65_536, "an integer from 0 to 65535, or unset for automatic"),
        (ServerConfig, "host", "", "a string that is not empty"),
        (ServerConfig, "idle_timeout_s", 0, "a number from 0.1 to 1e+07, or unset"),
        (ServerConfig, "idle_timeout_s", math.nan, "a number from 0.1 to 1e+07, or unset"),
        (ServerConfig, "max_connections", 0, "an integer from 1 to 10000"),
        (ServerConfig, "max_message_bytes", 10, "an integer from 1024 to 1073741824"),
        (ServerConfig, "tls_key", Path("k.pem"), "given together with tls_certificate"),
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
    assert ModelConfig(device=device).device == device


@pytest.mark.parametrize("section", [DecodingConfig, CompletionConfig])
def test_unset_means_automatic(section: type[Any]) -> None:
    automatic = [f.name for f in dataclasses.fields(section) if f.default is None]
    assert automatic
    made = section_from(section, dict.fromkeys(automatic), "x")
    assert made == section()


def test_a_section_takes_json_and_names_itself_in_errors() -> None:
    assert section_from(PrivacyConfig, {"ignore_globs": ["*.pem"]}, "privacy") == PrivacyConfig(("*.pem",))
    with pytest.raises(ConfigError, match=r"invalid decoding.window_size: 99 \(expected an integer"):
        section_from(DecodingConfig, {"window_size": 99}, "decoding")
    with pytest.raises(ConfigError, match=r"invalid pool.size: 3 .* one of the fields max_tokens, persistent"):
        section_from(PoolConfig, {"size": 3}, "pool")


def test_every_section_is_covered() -> None:
    found = {c for c in vars(config).values() if isinstance(c, type) and c.__module__ == config.__name__}
    assert found == set(SECTIONS)
