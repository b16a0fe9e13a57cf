"""The server started in a project whose files are named like modules that it and the backend import."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.lsp_client import stdio_server

from tests.test_import_path import MODULES

pytestmark = pytest.mark.slow


async def test_server_and_backend_start_in_a_folder_with_modules_of_such_names(
    home: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*MODULES, "numpy", "tokenizers", "uvicorn"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the project ran')\n")
    monkeypatch.chdir(tmp_path)
    async with stdio_server({**home, "PYTHONPATH": "."}) as server:
        await server.client.initialize(folder=tmp_path, options={"deadlineMs": 60_000, "confidence": "off"})
        await server.client.wait_for_status("ready")
        uri = (tmp_path / "a.py").as_uri()
        await server.client.open(uri, "def add(a, b):\n    return a + b\n\n\ndef sub(a, b):\n    return a ")
        assert len(await server.client.complete(uri, 5, 13)) == 1
