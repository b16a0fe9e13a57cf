"""What a person sees: Neovim in a terminal, its screen read back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.editors.nvim_rig import environment, need_neovim, write_init
from tests.editors.rig import Script, Terminal, poll

Scripted = Callable[..., Script]


@pytest.fixture(params=["nvim", "nvim-0.12"])
def screen(request: pytest.FixtureRequest, tmp_path: Path, need_tmux: None) -> Iterator[Callable[..., Terminal]]:
    """Opens a file in Neovim in a terminal."""
    program = need_neovim(request.param)
    terminals: list[Terminal] = []

    def start(script: Script, name: str, text: str, **options: Any) -> Terminal:
        path = tmp_path / name
        path.write_text(text)
        init = write_init(tmp_path, script.command, renderer="own", **options)
        command = [program, "-u", str(init), "-n", "-i", "NONE", "+set laststatus=0 noruler noshowcmd", str(path)]
        terminals.append(Terminal(command, {**environment(tmp_path / "home"), "TERM": "screen-256color"}))
        script.wait_for("textDocument/didOpen")
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.close()


def visible(screen: str) -> list[str]:
    """The file's lines on the screen."""
    return [line.rstrip() for line in screen.splitlines() if line.rstrip() not in ("~", "", "-- INSERT --")]


def test_several_lines_push_the_following_ones_down(screen: Callable[..., Terminal], script: Scripted) -> None:
    server = script(rules=[{"before": "def f():", "items": ["\n    x = '🙂'\n    return x"]}])
    terminal = screen(server, "a.py", "\nlast = 1\n")
    terminal.press("i")
    terminal.type("def f():")
    terminal.wait_until_shown(["def f():", "    x = '🙂'", "    return x", "last = 1"], visible)
    poll(lambda: terminal.cursor() == (0, len("def f():")), "the cursor to stand before the ghost text")
    terminal.press("Escape")
    terminal.wait_until_shown(["def f():", "last = 1"], visible)


def test_ghost_text_amid_a_line_keeps_what_follows(screen: Callable[..., Terminal], script: Scripted) -> None:
    server = script(rules=[{"before": "日本 f(", "items": ["a, g(b))"], "tail": 1}])
    terminal = screen(server, "a.txt", "日本 f() + é\n")
    terminal.type("0f(a")
    terminal.wait_until_shown(["日本 f(a, g(b)) + é"], visible)
    terminal.press("Tab", "Escape")
    terminal.wait_until_gone("-- INSERT --")
    terminal.wait_until_shown(["日本 f(a, g(b)) + é"], visible)


def test_several_lines_amid_a_line_look_as_after_accepting(screen: Callable[..., Terminal], script: Scripted) -> None:
    server = script(rules=[{"before": "call(", "items": ["\n\t1,\n)"], "tail": 1}])
    terminal = screen(server, "a.js", "call(); // end\nnext\n")
    terminal.type("0f(a")
    shown = ["call(", "        1,", "); // end", "next"]
    terminal.wait_until_shown(shown, visible)
    terminal.press("Tab", "Escape")
    terminal.wait_until_gone("-- INSERT --")
    terminal.wait_until_shown(shown, visible)


def test_suggestion_shrinks_while_it_is_typed(screen: Callable[..., Terminal], script: Scripted) -> None:
    server = script(rules=[{"before": "hel", "items": ["lo world"]}])
    terminal = screen(server, "a.txt", "")
    terminal.press("i")
    terminal.type("hel")
    terminal.wait_for("hello world")
    terminal.type("lo w")
    terminal.wait_for("hello world")
    terminal.type("X")
    terminal.wait_until_shown(["hello wX"], visible)


def test_a_failure_is_told_in_one_line_and_never_stops_the_typing(
    screen: Callable[..., Terminal], script: Scripted
) -> None:
    message = "model '/no/such/model': no such folder, and not a hub id such as owner/name; " * 2
    failed = {"state": "error", "message": message, "progress": None, "model": "", "device": ""}
    server = script(notifications=[["forelook/status", failed]] * 3)
    terminal = screen(server, "a.txt", "")
    terminal.press("i")
    terminal.type("abc")
    terminal.wait_for("abc")
    # Two seconds it has to heal; the one who leaves insert mode before that is told a little later.
    terminal.press("Escape")
    terminal.wait_for("no such fol")
    told = terminal.wait_for(":Forelook says more")
    assert "Press ENTER" not in told
    assert next(line for line in told.splitlines() if "Forelook" in line).endswith(":Forelook says more")
    terminal.type("Adef")
    terminal.wait_for("abcdef")


def test_a_missing_program_is_told_in_one_line_and_never_stops_the_typing(
    script: Scripted, tmp_path: Path, need_tmux: None
) -> None:
    init = write_init(tmp_path, ["no-such-forelook-lsp-of-a-long-name"], renderer="own")
    command = [need_neovim("nvim"), "-u", str(init), "-n", "-i", "NONE", str(tmp_path / "a.txt")]
    terminal = Terminal(command, {**environment(tmp_path / "home"), "TERM": "screen-256color"})
    try:
        assert "Press ENTER" not in terminal.wait_for("no-such-forelook-lsp")
        terminal.type("iabc")
        terminal.wait_for("abc")
    finally:
        terminal.close()
