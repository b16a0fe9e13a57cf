"""llama.vim and minuet-ai.nvim themselves, where `--llama-vim` and `--minuet` say where they are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.editors.nvim_rig import need_neovim
from tests.http_clients.documents import PREFIX
from tests.http_clients.neovim import STARTER_TEMPLATE, editing, llama_vim, minuet
from tests.http_clients.serving import HttpServer

VIRTUAL_TEXT = {"--llama-vim": "vt_fim", "--minuet": "minuet.virtualtext"}


@pytest.fixture(scope="module")
def neovim() -> str:
    if shutil.which("curl") is None:
        pytest.skip("needs curl on PATH, which both plugins send requests with")
    return need_neovim("nvim-0.12")  # both need more than Debian's 0.7


def plugin(request: pytest.FixtureRequest, option: str) -> Path:
    """The folder of a plugin, or the test is skipped."""
    folder: Path | None = request.config.getoption(option)
    if folder is None:
        pytest.skip(f"needs {option} FOLDER, a checkout of the plugin")
    return folder


def test_llama_vim_shows_and_inserts_a_suggestion(
    request: pytest.FixtureRequest, neovim: str, server: HttpServer, tmp_path: Path
) -> None:
    init = llama_vim(plugin(request, "--llama-vim"), tmp_path, server.url, server.key)
    with editing(neovim, tmp_path, init, VIRTUAL_TEXT["--llama-vim"]) as editor:
        editor.type("p")
        suggestion = editor.wait_for_ghost()
        editor.type("<Tab>")
        assert editor.text().startswith(f"{PREFIX}p{suggestion.splitlines()[0]}")
        assert "failed" not in editor.messages()


@pytest.mark.parametrize("template", ["", STARTER_TEMPLATE], ids=["with a suffix", "with a template"])
def test_minuet_shows_and_inserts_a_suggestion(
    request: pytest.FixtureRequest, neovim: str, server: HttpServer, tmp_path: Path, template: str
) -> None:
    init = minuet(plugin(request, "--minuet"), tmp_path, server.url, server.key, template)
    with editing(neovim, tmp_path, init, VIRTUAL_TEXT["--minuet"]) as editor:
        editor.type("p")
        suggestion = editor.wait_for_ghost()
        editor.type("<A-a>")
        assert editor.text().startswith(f"{PREFIX}p{suggestion.splitlines()[0]}")
        assert editor.messages() == ""
