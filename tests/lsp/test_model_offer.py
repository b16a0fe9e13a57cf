"""A larger model is offered once, to users of the bundled one, on machines that run it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from forelook.config import EditorConfig, EngineConfig
from forelook_lsp import model_offer, window
from forelook_lsp.model_offer import offer_finder, wants_offer

from tests.lsp.fake_backend import FakeBackend
from tests.lsp.servers import stdio_server_in_a_thread

SAID = "This machine can run own/model: 1.0 GB to download, Apache-2.0"
MESSAGE = f"{SAID}. Set forelook.model to its name to use it."


def listing(message: str | None, *, was_busy: bool = False, is_default: bool = False) -> str:
    offer = None if message is None else {"model": "own/model", "message": message, "is_default": is_default}
    return json.dumps({"machine": {"speed": {"was_busy": was_busy}}, "offer": offer})


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What ``forelook models`` prints, one call after the other."""
    outputs: list[str] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert command[1:] == ["-m", "forelook", "models", "--json"]
        assert Path(options["cwd"]).name == "forelook", "a workspace's modules would be on its path"
        return subprocess.CompletedProcess(command, 0, outputs.pop(0), "")

    monkeypatch.setattr(model_offer.subprocess, "run", run)
    return outputs


def test_it_is_found_once_per_user(printed: list[str], tmp_path: Path) -> None:
    printed += [listing(SAID), listing(SAID)]
    find = offer_finder({"XDG_STATE_HOME": str(tmp_path)}, tmp_path, None)
    assert [find(), find()] == [MESSAGE, ""]
    assert len(printed) == 1


@pytest.mark.parametrize("first", [listing(None, was_busy=True), "no JSON", "{}"])
def test_what_says_nothing_about_the_machine_is_asked_again(printed: list[str], first: str, tmp_path: Path) -> None:
    printed += [first, listing(SAID)]
    find = offer_finder({"XDG_STATE_HOME": str(tmp_path)}, tmp_path, None)
    assert [find(), find()] == ["", MESSAGE]


def test_the_default_model_needs_no_setting(printed: list[str], tmp_path: Path) -> None:
    printed += [listing("`forelook pull it` gets a better one", is_default=True)]
    find = offer_finder({"XDG_STATE_HOME": str(tmp_path)}, tmp_path, None)
    assert find() == "`forelook pull it` gets a better one."


def test_a_machine_that_runs_none_is_asked_once(printed: list[str], tmp_path: Path) -> None:
    printed += [listing(None)]
    find = offer_finder({"XDG_STATE_HOME": str(tmp_path)}, tmp_path, None)
    assert [find(), find()] == ["", ""]


@pytest.mark.parametrize(
    ("config", "wants"),
    [
        (EditorConfig(), True),
        (EditorConfig(EngineConfig(model="own/model")), False),
        (EditorConfig(backend_url="wss://example.org"), False),
        (EditorConfig(model_offer=False), False),
    ],
)
def test_only_users_of_the_bundled_model_on_this_machine_want_one(config: EditorConfig, wants: bool) -> None:
    assert wants_offer(config) is wants


async def test_the_user_is_told_after_the_first_suggestions(
    environment: dict[str, str], backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    del backend
    monkeypatch.setattr(window, "OFFER_AFTER_S", 0.01)
    async with stdio_server_in_a_thread(environment, lambda: MESSAGE) as editor:
        await editor.initialize(options={"modelOffer": True})
        await editor.wait_until(lambda: bool(editor.params_of("window/showMessage")))
        (told,) = editor.params_of("window/showMessage")
        assert told["message"] == MESSAGE
        assert "ready" in [status["state"] for status in editor.params_of("forelook/status")]
