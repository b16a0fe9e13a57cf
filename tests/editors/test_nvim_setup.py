"""The Neovim plugin's surroundings: installing, options, keys, switches, commands, health."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.editors.nvim_rig import PLUGIN, Neovim, attach, environment, need_neovim
from tests.editors.rig import Script, poll

Start = Callable[..., Neovim]
Scripted = Callable[..., Script]

HELLO: dict[str, Any] = {"before": "hel", "items": ["lo world"]}


def test_missing_program_is_named_once_and_typing_goes_on(own_neovim: Start, script: Scripted) -> None:
    server = script()
    nvim = own_neovim(server, cmd=["no-such-forelook-lsp"])
    nvim.lua("vim.cmd('edit a.txt')")
    state = poll(
        lambda: (s := nvim.lua("return require('forelook').status()"))["state"] == "error" and s, "the error status"
    )
    assert "no-such-forelook-lsp" in state["message"]
    nvim.append("text")
    nvim.wait_for_lines("text")
    assert nvim.rpc.command_output("messages").count("no-such-forelook-lsp") == 1


def test_a_projects_python_files_do_not_run_in_the_server(own_neovim: Start, script: Scripted) -> None:
    nvim = own_neovim(script(rules=[HELLO]))
    (nvim.folder / "types.py").write_text("raise SystemExit")
    nvim.lua("vim.env.PYTHONPATH = '.'")
    nvim.rpc.command(f"cd {nvim.folder}")
    nvim.open("a.txt", "")
    nvim.append("hel")
    nvim.wait_for_ghost("lo world")


def test_switching_off_and_on(own_neovim: Start, script: Scripted) -> None:
    server = script(rules=[HELLO])
    nvim = own_neovim(server)
    nvim.open("a.txt", "")
    for scope in ("buffer", "filetype", "all"):
        nvim.lua(f"vim.cmd('Forelook disable {scope}')")
        server.wait_for("textDocument/didClose" if scope != "all" else "exit")
        assert not nvim.lua("return require('forelook').is_enabled()")
        nvim.lua(f"vim.cmd('Forelook toggle {scope}')")
        poll(nvim.attached, "the server to attach again")
    nvim.append("hel")
    nvim.wait_for_ghost("lo world")
    nvim.lua("vim.cmd('Forelook disable')")
    nvim.wait_for_no_ghost()


def test_filetype_switched_off_never_reaches_the_server(own_neovim: Start, script: Scripted) -> None:
    server = script(rules=[HELLO])
    nvim = own_neovim(server, filetypes={"*": True, "markdown": False})
    nvim.open("a.txt", "")
    nvim.lua(f"vim.cmd('edit {nvim.folder}/secret.md')")
    assert "markdown" in nvim.lua("return require('forelook').why_not()")
    nvim.append("hel")
    nvim.keys("<Esc>")
    poll(lambda: nvim.mode() == "n", "normal mode")
    assert [m["params"]["textDocument"]["uri"].rsplit("/")[-1] for m in server.messages("textDocument/didOpen")] == [
        "a.txt"
    ]


def test_buffer_switched_off_while_the_server_starts_is_closed_again(own_neovim: Start, script: Scripted) -> None:
    server = script(rules=[HELLO])
    nvim = own_neovim(server)
    nvim.lua("vim.cmd('edit a.txt'); vim.cmd('Forelook disable buffer')")
    server.wait_for("textDocument/didClose")
    nvim.append("hel")
    nvim.wait_for_lines("hel")
    nvim.keys("<Esc>")
    poll(lambda: nvim.mode() == "n", "normal mode")
    assert not server.messages("textDocument/inlineCompletion")


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ("", "x<\t"),
        ("vim.keymap.set('i', '<Tab>', 'typed')", "x<typed"),
        ("vim.keymap.set('i', '<Tab>', function() return 'a<lt>b' end, { expr = true })", "x<a<b"),
        ("vim.cmd([[inoremap <expr> <Tab> 'v' .. 'im']])", "x<vim"),
        ("vim.cmd([[imap <Tab> <F9>]]); vim.keymap.set('i', '<F9>', 'mapped again')", "x<mapped again"),
        ("vim.keymap.set('i', '<Tab>', function() vim.g.called = 1 end)", "x<"),
    ],
)
def test_no_suggestion_leaves_the_key_to_its_earlier_mapping(
    own_neovim: Start, script: Scripted, mapping: str, expected: str
) -> None:
    nvim = own_neovim(script(rules=[HELLO]), prelude=mapping)
    nvim.open("a.txt", "")
    nvim.append("x<")
    nvim.keys("<Tab>")
    nvim.wait_for_lines(expected)
    assert nvim.mode() == "i"
    if "called" in mapping:
        assert nvim.rpc.vars["called"] == 1
    nvim.keys(" hel")
    nvim.wait_for_ghost("lo world")
    nvim.keys("<Tab>")
    nvim.wait_for_lines(expected + " hello world")


def test_works_as_a_plain_package_without_a_call(script: Scripted, tmp_path: Path) -> None:
    """Linked into a package folder, with options in a global variable and a language server on PATH."""
    server = script(rules=[HELLO])
    package = tmp_path / "home" / "data" / "nvim" / "site" / "pack" / "forelook" / "start" / "forelook.nvim"
    package.parent.mkdir(parents=True)
    package.symlink_to(PLUGIN)
    on_path = tmp_path / "bin" / "forelook-lsp"
    on_path.parent.mkdir()
    on_path.write_text(f"#!/bin/sh\nexec {shlex.join(server.command)}\n")
    on_path.chmod(0o755)
    init = tmp_path / "init.vim"
    init.write_text("let g:forelook = #{renderer: 'own', keymaps: #{accept: '<C-y>'}}\n")
    env = environment(tmp_path / "home")
    env["PATH"] = f"{on_path.parent}:{env['PATH']}"
    rpc = attach(need_neovim("nvim"), init, env)
    try:
        rpc.command(f"edit {tmp_path}/a.txt")
        server.wait_for("textDocument/didOpen")
        rpc.input("ihel")
        server.wait_for("textDocument/didShowCompletion")
        rpc.input("<C-y>")
        poll(lambda: rpc.current.line == "hello world", "the suggestion in the buffer")
        rpc.command(f"helptags {PLUGIN}/doc")
        rpc.command("help :Forelook")
        assert rpc.current.buffer.name.endswith("forelook.txt")
    finally:
        (PLUGIN / "doc" / "tags").unlink(missing_ok=True)
        rpc.close()


@pytest.mark.parametrize("name", ["nvim", "nvim-0.12"])
def test_works_when_a_plugin_manager_loads_it_late(name: str, script: Scripted, tmp_path: Path) -> None:
    """What lazy.nvim does on an event: run time path, plugin file, then setup(), with a file open already."""
    server = script(rules=[HELLO])
    init = tmp_path / "init.lua"
    init.touch()
    rpc = attach(need_neovim(name), init, environment(tmp_path / "home"))
    try:
        rpc.command(f"edit {tmp_path}/a.txt")
        rpc.exec_lua(
            "local plugin, cmd = ...; vim.opt.runtimepath:append(plugin); vim.cmd('runtime plugin/forelook.lua');"
            "require('forelook').setup({ cmd = cmd, renderer = 'own' })",
            str(PLUGIN),
            server.command,
        )
        server.wait_for("textDocument/didOpen")
        rpc.input("ihel")
        server.wait_for("textDocument/didShowCompletion")
        rpc.input("<Tab>")
        poll(lambda: rpc.current.line == "hello world", "the suggestion in the buffer")
    finally:
        rpc.close()


def test_status_line_and_status_command(own_neovim: Start, script: Scripted) -> None:
    begin = {"token": 1, "value": {"kind": "begin", "title": "Loading model", "percentage": 40}}
    server = script(rules=[HELLO], notifications=[["$/progress", begin]])
    nvim = own_neovim(server)
    nvim.open("a.txt", "")
    poll(lambda: nvim.lua("return require('forelook').statusline()") == "Forelook: loading 40/100", "the progress")
    out = nvim.rpc.command_output("Forelook status")
    assert "loading – Loading model" in out
    assert "this buffer: on" in out


def test_stats_and_clearing_the_pool_call_the_server(own_neovim: Start, script: Scripted) -> None:
    server = script(commands={"forelook.stats": {"shown": 3, "rate": 0.5}, "forelook.clearPool.7": None})
    nvim = own_neovim(server)
    nvim.open("a.txt", "")
    nvim.lua("vim.cmd('Forelook stats')")
    server.wait_for("workspace/executeCommand")
    poll(lambda: nvim.lines() == ["Forelook: statistics", "  rate: 0.50", "  shown: 3"], "the statistics")
    nvim.keys("q")
    nvim.wait_for_lines("")
    nvim.lua("vim.cmd('Forelook clear-pool')")
    asked = [m["params"]["command"] for m in server.wait_for("workspace/executeCommand", 2)]
    assert asked == ["forelook.stats", "forelook.clearPool.7"]


def test_log_opens(own_neovim: Start, script: Scripted) -> None:
    nvim = own_neovim(script())
    nvim.open("a.txt", "")
    nvim.lua("vim.cmd('Forelook log')")
    assert nvim.rpc.current.buffer.name.endswith("lsp.log")


def test_command_completion(own_neovim: Start, script: Scripted) -> None:
    nvim = own_neovim(script())
    assert nvim.rpc.call("getcompletion", "Forelook re", "cmdline") == ["restart", "restart-backend"]
    assert nvim.rpc.call("getcompletion", "Forelook toggle ", "cmdline") == ["all", "buffer", "filetype"]
    assert nvim.rpc.call("getcompletion", "Forelook stats ", "cmdline") == []


def test_checkhealth_finds_what_is_right_and_what_is_wrong(own_neovim: Start, script: Scripted) -> None:
    nvim = own_neovim(script())
    nvim.open("a.txt", "")
    nvim.lua("vim.cmd('checkhealth forelook')")
    report = "\n".join(poll(lambda: found if len(found := nvim.lines()) > 5 else [], "the report"))
    assert "the server for files without a workspace runs (columns in utf-16)" in report
    assert "accept: <Tab>" in report
    assert "ERROR" not in report


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"debounce": 3}, 'no option "debounce"; the options are auto_trigger, cmd'),
        ({"debounce_ms": "fast"}, 'option "debounce_ms" is "fast", but must be a number'),
        ({"renderer": "gui"}, 'option "renderer" is "gui"'),
        ({"keymaps": {"accpet": "<Tab>"}}, 'option "keymaps.accpet"'),
        ({"cmd": []}, 'option "cmd"'),
    ],
)
def test_wrong_option_is_named(own_neovim: Start, script: Scripted, options: dict[str, Any], complaint: str) -> None:
    nvim = own_neovim(script())
    message = nvim.lua("return select(2, pcall(require('forelook.config').merge, ...))", options)
    assert complaint in message
