"""Settings on a command line: by flag, by ``--config``, or both."""

from __future__ import annotations

import argparse
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from forelook.commands.arguments import complete_arguments, read_configs, serve_arguments
from forelook.config import SETTINGS, EngineConfig, ServerConfig
from forelook.errors import ConfigError
from forelook.settings.rows import Setting


def served(*arguments: str) -> tuple[EngineConfig, ServerConfig]:
    parser = argparse.ArgumentParser()
    serve_arguments(parser)
    return read_configs(parser.parse_args(arguments))


def test_without_arguments_all_is_default() -> None:
    assert served() == (EngineConfig(), ServerConfig())


def test_flags_of_0_1_0_are_understood() -> None:
    engine, server = served(
        *("--model", "m", "--revision", "r", "--device", "cuda:1", "--dtype", "int8", "--keep-alive", "600"),
        *("--window-size", "3", "--ngram-size", "4", "--max-candidates", "5", "--devices", "2", "--autoregressive"),
        *("--max-new-tokens", "16", "--deadline-ms", "90", "--left-to-right", "--no-cross-file", "--speculate", "on"),
        *(
            "--pool-tokens",
            "5000",
            "--no-persistent-pool",
            "--port",
            "0",
            "--host",
            "::1",
            "--tls-certificate",
            "c.pem",
        ),
        *("--tls-key", "k.pem", "--token-file", "t", "--allow-origin", "a", "--allow-origin", "b"),
        *("--allow-host", "h", "--idle-timeout", "0", "--max-connections", "3", "--log-level", "debug"),
    )
    assert engine == EngineConfig(
        model="m",
        revision="r",
        device="cuda:1",
        dtype="int8",
        keep_alive_s=600.0,
        left_to_right=True,
        max_new_tokens=16,
        deadline_ms=90,
        lookahead_window=3,
        lookahead_ngram=4,
        lookahead_max_candidates=5,
        speculate=True,
        autoregressive=True,
        devices=2,
        cross_file=False,
        pool_tokens=5000,
        persistent_pool=False,
    )
    assert server == ServerConfig(
        port=0,
        host="::1",
        tls_certificate=Path("c.pem"),
        tls_key=Path("k.pem"),
        token_file=Path("t"),
        allowed_origins=("a", "b"),
        allowed_hosts=("h",),
        idle_timeout_s=None,
        max_connections=3,
        log_level="debug",
    )


def test_config_is_one_json_value_and_a_flag_wins_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    config = json.dumps({"speculate": False, "lookahead": {"window": 4}, "listen.idleTimeout": 5, "crossFile": False})
    expected = EngineConfig(speculate=False, lookahead_window=4, cross_file=False)
    assert served("--config", config) == (expected, ServerConfig(idle_timeout_s=5))
    engine, server = served("--config", config, "--speculate", "auto", "--window-size", "8", "--idle-timeout", "0")
    assert engine == replace(expected, speculate=None, lookahead_window=8)
    assert server.idle_timeout_s is None
    monkeypatch.setattr(sys, "stdin", io.StringIO(config))
    assert served("--config", "-")[0] == expected


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{", "invalid config: '{' (expected a JSON object of settings"),
        ("[]", "invalid config: 'list' (expected an object of settings)"),
        ('{"device": "tpu"}', "invalid config.device: 'tpu' (expected "),
        ('{"tempo": 1}', "invalid config.tempo: 1 (expected a setting of this version; remove it or update)"),
        ('{"enable": true}', "invalid config.enable: True (expected a setting of this version"),
        ('{"suffix_share": 0.1}', "invalid config.suffix_share: 0.1 (expected a setting of this version"),
    ],
)
def test_an_invalid_config_is_named(config: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        served("--config", config)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "row", [row for row in SETTINGS if row.flag is not None and row.flag.means is None], ids=lambda row: row.name
)
def test_an_invalid_argument_is_named_with_what_is_expected(row: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    assert row.flag is not None
    parser = argparse.ArgumentParser()
    {"serve": serve_arguments, "complete": complete_arguments}[row.flag.commands[0]](parser)
    with pytest.raises(SystemExit):
        parser.parse_args([row.flag.name, ""])
    expected = row.kind.in_shell or row.kind.allowed
    assert f"argument {row.flag.name}: invalid value '' (expected {expected})" in capsys.readouterr().err


def test_complete_has_defaults_of_its_own() -> None:
    parser = argparse.ArgumentParser()
    complete_arguments(parser)
    options = parser.parse_args(["a.py", "--at", "1:1"])
    assert (options.deadline_ms, options.max_new_tokens) == (10_000, None)
    assert (options.multi_line, options.num_suggestions) == ("auto", 1)
