"""The default model through every real part: what somebody sees who has pulled its base, and who has not."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from bench.lsp_client import stdio_server
from forelook.local.identity import UserPaths
from forelook.model.catalogue import DEFAULT_MODEL, find_model
from forelook.model.package_index import find_file

from tests.e2e.user import CURSOR, SOURCE, forelook, ghost_text

pytestmark = pytest.mark.slow

URI = "file:///w/points.py"
EXPECTED = "Point(self.x % other.x, self.y % other.y)"


@pytest.fixture
def base(home: dict[str, str]) -> Path:
    """Where the base belongs in the user's folders, and is not yet."""
    del home
    user_id = os.getuid() if sys.platform != "win32" else None
    models = UserPaths.from_environment(os.environ, Path.home(), user_id).models_dir
    row = find_model(DEFAULT_MODEL)
    assert row is not None
    assert row.source is not None
    found = find_file(models, row.source)
    if found is None:
        pytest.skip("needs the base of the default model in your model folder; `make model` downloads it (93 MB)")
    return found


def pull(home: dict[str, str], base: Path) -> None:
    """What ``forelook pull`` does, without another download."""
    models = Path(home["XDG_STATE_HOME"]) / "forelook" / "models"
    models.mkdir(parents=True, exist_ok=True)
    (models / base.name).symlink_to(base)


def complete(home: dict[str, str], source: Path, *options: str) -> dict[str, Any]:
    at = f"{CURSOR[0] + 1}:{CURSOR[1] + 1}"
    result = forelook(home, "complete", str(source), "--at", at, "--json", "--deadline-ms", "60000", *options)
    assert result.returncode == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "points.py"
    path.write_text(SOURCE)
    return path


def test_the_next_request_after_a_pull_is_the_default_models(home: dict[str, str], base: Path, source: Path) -> None:
    assert complete(home, source)["model"] == "starter-model"
    (status,) = json.loads(forelook(home, "status", "--json").stdout)
    assert f"`forelook pull {DEFAULT_MODEL}` gets a better one, 93 MB" in status["message"]
    pull(home, base)
    answer = complete(home, source)
    assert answer["model"] == DEFAULT_MODEL
    assert answer["suggestions"][0]["text"].startswith(EXPECTED)
    (status,) = json.loads(forelook(home, "status", "--json").stdout)
    assert "forelook pull" not in status["message"]
    assert complete(home, source, "--model", "starter-model")["model"] == "starter-model"


async def test_an_editor_gets_its_suggestions_and_they_end_where_the_text_goes_on(
    home: dict[str, str], base: Path
) -> None:
    pull(home, base)
    async with stdio_server(home) as server:
        await server.client.initialize(options={"deadlineMs": 60_000})
        status = await server.client.wait_for_status("ready", timeout_s=120.0)
        assert status["model"] == DEFAULT_MODEL
        await server.client.open(URI, SOURCE)
        (item,) = await server.client.complete(URI, *CURSOR)
        assert ghost_text(SOURCE, CURSOR, item).startswith(EXPECTED)
        line = "        return Point(self.x"
        followed = SOURCE.rsplit("\n", 1)[0] + f"\n{line}, self.y % other.y)\n"
        await server.client.change(URI, 2, {"text": followed})
        (item,) = await server.client.complete(URI, CURSOR[0], len(line))
        assert ghost_text(followed, (CURSOR[0], len(line)), item) == " % other.x"


def test_another_models_adapter_is_one_clear_error(home: dict[str, str], source: Path, repository: Path) -> None:
    adapter = repository / "backend/forelook/default_model"
    result = forelook(
        home, "complete", str(source), "--at", "1:1", "--model", "starter-model", "--adapter", str(adapter),
        "--no-backend",
    )  # fmt: skip
    assert result.returncode == 4
    assert "does not fit this model: it was trained on a model with hidden_size = 576" in result.stderr
