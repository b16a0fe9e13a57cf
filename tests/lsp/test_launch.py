"""From the settings to a backend: each setting that needs a restart reaches it."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from forelook.commands.arguments import read_configs, serve_arguments
from forelook.config import EditorConfig, EngineConfig
from forelook.errors import BackendUnreachableError, EndpointError
from forelook.local.identity import BackendIdentity
from forelook.settings.rows import Effect, rows_of
from forelook_lsp.launch import backend_finder
from forelook_lsp.settings import backend_settings


def test_the_backends_command_line_understands_every_setting_that_restarts_it() -> None:
    config = EngineConfig(
        lookahead_window=3, lookahead_ngram=4, lookahead_max_candidates=5, speculate=False, cross_file=False,
        pool_tokens=5000, device="cpu", dtype="int8", left_to_right=True, adapter="/adapter",
        prefill_ms=400,
    )  # fmt: skip
    changed = {row.name for row in rows_of(EngineConfig) if getattr(config, row.attribute) != row.default}
    restarting = {row.name for row in rows_of(EngineConfig) if row.effect is not Effect.NONE}
    assert changed == restarting - {"model", "revision"}
    parser = argparse.ArgumentParser()
    serve_arguments(parser)
    arguments = BackendIdentity.of(config).command_arguments(backend_settings(config))
    assert read_configs(parser.parse_args(arguments))[0] == config


def test_a_backend_elsewhere_is_taken_as_it_is_and_not_in_the_clear(tmp_path: Path) -> None:
    find = backend_finder({}, tmp_path, 1)
    endpoint = find(EditorConfig(backend_url="wss://gpu.example:8123", backend_token_file="/t"))
    assert (endpoint.host, endpoint.port, endpoint.tls, endpoint.token_path) == ("gpu.example", 8123, True, "/t")
    with pytest.raises(EndpointError):
        find(EditorConfig(backend_url="ws://gpu.example:8123"))


def test_nothing_is_started_where_that_is_not_wanted(tmp_path: Path) -> None:
    find = backend_finder({"XDG_RUNTIME_DIR": str(tmp_path / "run")}, tmp_path, 1)
    with pytest.raises(BackendUnreachableError, match="forelook serve"):
        find(EditorConfig(backend_start=False))
