"""``forelook cluster`` where its extra is missing."""

from __future__ import annotations

import importlib.metadata

import pytest
from forelook.commands.cli import EXIT_USAGE, main


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
