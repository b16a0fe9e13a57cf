"""The Neovim plugin on 0.12 and later, where ``vim.lsp.inline_completion`` asks and draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.editors.nvim_rig import Neovim
from tests.editors.rig import Script, poll
from tests.editors.test_nvim import loading_server

Start = Callable[..., Neovim]
Scripted = Callable[..., Script]

NATIVE = "nvim.lsp.inline_completion"
HELLO: dict[str, Any] = {"before": "hel", "items": ["lo world", "icopter ride"]}


def test_native_ghost_text_is_accepted_with_the_plugins_key(native_neovim: Start, script: Scripted) -> None:
    server = script(rules=[HELLO], encodings=["utf-8"])
    nvim = native_neovim(server)
    nvim.open("a.txt", "# 🙂é \n")
    assert nvim.lua("return require('forelook').uses_native()")
    nvim.append("hel")
    nvim.wait_for_ghost("lo world", NATIVE)
    assert not nvim.marks(), "only one of the two draws"
    nvim.keys("<Tab>")
    nvim.wait_for_lines("# 🙂é hello world")
    assert poll(server.accepted, "the item's command")
    nvim.keys("<Esc>u")
    nvim.wait_for_lines("# 🙂é hel")


def test_native_suggestion_by_word_and_line(native_neovim: Start, script: Scripted) -> None:
    server = script(rules=[{"before": "def f(", "items": ["x, y):\n    return x"], "tail": 1}])
    nvim = native_neovim(server)
    nvim.open("a.py", "def f()\n")
    nvim.lua("vim.api.nvim_win_set_cursor(0, { 1, 5 })")
    nvim.keys("a")
    poll(lambda: nvim.marks(NATIVE), "native ghost text")
    nvim.keys("<M-Right>")
    nvim.wait_for_lines("def f(x)")
    assert server.wait_for("textDocument/didPartiallyAcceptCompletion")[0]["params"]["acceptedLength"] == len("def f(x")


def test_native_by_line(native_neovim: Start, script: Scripted) -> None:
    server = script(rules=[{"before": "if x:", "items": ["\n    a = 1\n    b = 2"]}])
    nvim = native_neovim(server)
    nvim.open("a.py", "")
    nvim.append("if x:")
    poll(lambda: nvim.marks(NATIVE), "native ghost text")
    nvim.keys("<M-Down>")
    nvim.wait_for_lines("if x:", "    a = 1")


def test_native_suggestion_typed_into_is_never_doubled(native_neovim: Start, script: Scripted) -> None:
    server = script(rules=[HELLO, {"before": "hell", "items": ["o"], "hold": "cancel"}])
    nvim = native_neovim(server)
    nvim.open("a.txt", ")\n")
    nvim.keys("i")
    nvim.keys("hel")
    nvim.wait_for_ghost("lo world", NATIVE)
    # Neovim's range still ends where the cursor was at the request.
    nvim.keys("l<Tab>")
    nvim.wait_for_lines("hello world)")


def test_native_dismiss_leaves_insert_mode_on(native_neovim: Start, script: Scripted) -> None:
    nvim = native_neovim(script(rules=[HELLO]))
    nvim.open("a.txt", "")
    nvim.append("hel")
    nvim.wait_for_ghost("lo world", NATIVE)
    nvim.keys("<C-]>")
    nvim.wait_for_no_ghost(NATIVE)
    assert nvim.mode() == "i"
    assert nvim.lines() == ["hel"]


def test_alternatives_replace_the_native_suggestion(native_neovim: Start, script: Scripted) -> None:
    server = script(rules=[HELLO])
    nvim = native_neovim(server)
    nvim.open("a.txt", "")
    nvim.append("hel")
    nvim.wait_for_ghost("lo world", NATIVE)
    nvim.keys("<M-]>")
    nvim.wait_for_no_ghost(NATIVE)
    nvim.wait_for_ghost("icopter ride")
    nvim.keys("<Tab>")
    nvim.wait_for_lines("helicopter ride")


def test_native_key_without_a_suggestion_is_the_key(native_neovim: Start, script: Scripted) -> None:
    nvim = native_neovim(script())
    nvim.open("a.txt", "")
    nvim.append("x")
    nvim.keys("<Tab>y")
    nvim.wait_for_lines("x\ty")


def test_native_switched_off_draws_nothing(native_neovim: Start, script: Scripted) -> None:
    server = script(rules=[HELLO])
    nvim = native_neovim(server)
    nvim.open("a.txt", "")
    nvim.lua("vim.cmd('Forelook disable buffer')")
    nvim.append("hel<Esc>")
    server.wait_for("textDocument/didClose")
    assert not server.messages("textDocument/inlineCompletion")
    nvim.lua("vim.cmd('Forelook enable buffer')")
    poll(nvim.attached, "the server to attach again")
    nvim.keys("<Esc>cchel")
    nvim.wait_for_ghost("lo world", NATIVE)


def test_native_after_the_server_was_killed(native_neovim: Start, script: Scripted) -> None:
    server = script(rules=[{"before": "die", "items": [], "die": True}, HELLO])
    nvim = native_neovim(server)
    nvim.open("a.txt", "")
    nvim.append("die")
    server.wait_for("initialize", 2)
    nvim.keys("<CR>more")  # Neovim may stop following the buffer here
    poll(nvim.attached, "the new server to attach")
    nvim.keys("<CR>hel")
    nvim.wait_for_ghost("lo world", NATIVE)
    nvim.keys("<Tab>")
    nvim.wait_for_lines("die", "more", "hello world")


def test_native_suggestion_appears_when_the_model_is_loaded_without_another_key(
    native_neovim: Start, script: Scripted
) -> None:
    nvim = native_neovim(loading_server(script))
    nvim.open("a.txt", "")
    nvim.append("hel")
    nvim.wait_for_ghost("lo world", NATIVE)


def test_native_in_a_buffer_without_a_name(native_neovim: Start, script: Scripted) -> None:
    nvim = native_neovim(script(rules=[HELLO]))
    nvim.keys("ihel")
    nvim.wait_for_ghost("lo world", NATIVE)
    nvim.keys("<Tab>")
    nvim.wait_for_lines("hello world")
