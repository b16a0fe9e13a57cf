"""``forelook cluster`` where its extra is missing, and what it sets for Ray."""

from __future__ import annotations

import argparse
import importlib.metadata
from dataclasses import replace
from pathlib import Path

import pytest
from forelook.commands.cli import EXIT_USAGE, main
from forelook.commands.cluster import SHORTCUT, _ensure_environment
from forelook.commands.command_context import CommandContext
from forelook.local.identity import UserPaths

(VARIABLE,) = SHORTCUT


@pytest.mark.parametrize("version", [None, "2.59.0", "2.600.1"])
def test_without_its_extra_it_says_what_to_install(
    version: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def version_of(_name: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError
        return version

    monkeypatch.setattr(importlib.metadata, "version", version_of)
    for action in (["status"], ["down"], ["up", "cluster.yaml"]):
        assert main(["cluster", *action]) == EXIT_USAGE
        said = capsys.readouterr().err
        assert f"invalid ray: {(version or 'not installed')!r}" in said
        assert "run `pip install 'forelook[cluster]'`" in said


@pytest.mark.parametrize(
    ("given", "kept"), [({}, SHORTCUT[VARIABLE]), ({VARIABLE: ""}, ""), ({VARIABLE: "a:b"}, "a:b")]
)
def test_ray_reads_what_it_needs_and_a_middleware_of_the_user_s_own_stays(
    given: dict[str, str], kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[dict[str, str]] = []
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: "2.60.0")
    monkeypatch.setattr("os.execve", lambda _program, _arguments, environment: started.append(environment))
    paths = UserPaths(tmp_path / "run", tmp_path / "state", tmp_path, tmp_path / "run")
    context = CommandContext(paths=paths, environ=given)
    _ensure_environment(argparse.Namespace(action="status"), context)
    assert started[0][VARIABLE] == kept
    assert started[0]["RAY_AUTH_MODE"] == "token"
    _ensure_environment(argparse.Namespace(action="status"), replace(context, environ=started[0]))
    assert len(started) == 1, "the second time it has all that"
