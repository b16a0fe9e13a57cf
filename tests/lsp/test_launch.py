"""From the settings to the backend's command line: each setting that needs a restart reaches it, and is understood."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from forelook.errors import BackendUnreachableError, EndpointError
from forelook_lsp.launch import backend_arguments, backend_finder
from forelook_lsp.settings import SETTINGS, Options

OTHER = {
    "lookahead_window": 3,
    "lookahead_ngram": 4,
    "lookahead_max_candidates": 5,
    "speculate": False,
    "cross_file": False,
    "pool_tokens": 5000,
}
IDENTITY = {"model", "revision", "device", "dtype", "backend_url", "backend_token_file"}


def test_every_setting_that_restarts_the_backend_is_in_its_arguments_or_its_identity() -> None:
    assert {item.name for item in fields(Options) if SETTINGS[item.name].restarts} == set(OTHER) | IDENTITY
    assert backend_arguments(Options()) == []
    for name, value in OTHER.items():
        assert backend_arguments(Options(**{name: value})), name


def test_the_backends_command_line_understands_the_arguments() -> None:
    arguments = backend_arguments(Options(**OTHER))
    command = [sys.executable, "-m", "forelook", "serve", *arguments, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    unknown = subprocess.run([*command[:-1], "--host", "0.0.0.0", "--port", "1"], capture_output=True, text=True)
    assert "unrecognized" not in unknown.stderr
    assert "usage" not in unknown.stderr


def test_a_backend_elsewhere_is_taken_as_it_is_and_not_in_the_clear(tmp_path: Path) -> None:
    find = backend_finder({}, tmp_path, 1)
    endpoint = find(Options(backend_url="wss://gpu.example:8123", backend_token_file="/t"))
    assert (endpoint.host, endpoint.port, endpoint.tls, endpoint.token_path) == ("gpu.example", 8123, True, "/t")
    with pytest.raises(EndpointError):
        find(Options(backend_url="ws://gpu.example:8123"))


def test_nothing_is_started_where_that_is_not_wanted(tmp_path: Path) -> None:
    find = backend_finder({"XDG_RUNTIME_DIR": str(tmp_path / "run")}, tmp_path, 1)
    with pytest.raises(BackendUnreachableError, match="forelook serve"):
        find(Options(backend_start=False))
