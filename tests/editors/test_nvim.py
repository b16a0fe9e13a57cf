"""The Neovim plugin drawing by itself, in a real Neovim against a scripted server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.editors.nvim_rig import Neovim
from tests.editors.rig import Script, poll

Start = Callable[..., Neovim]
Scripted = Callable[..., Script]

HELLO: dict[str, Any] = {"before": "hel", "items": ["lo world", "icopter ride", "p me"]}
BLOCK: dict[str, Any] = {"before": "def f():", "items": ["\n    x = 1\n    return x"]}


def test_typing_shows_ghost_text_and_accepting_inserts_it(own_neovim: Start, script: Scripted) -> None:
    server = script(rules=[HELLO])
    nvim = own_neovim(server)
    nvim.open("a.txt", "one\ntwo\n")
    nvim.append("hel", row=1)
    nvim.keys("<Esc>")
    nvim.wait_for_no_ghost()
    assert nvim.lines() == ["one", "twohel"]
    nvim.keys("A")
    nvim.wait_for_ghost("lo world")
    assert nvim.lines() == ["one", "twohel"], "ghost text is not in the buffer"
    nvim.keys("<Tab>")
    nvim.wait_for_lines("one", "twohello world")
    assert nvim.cursor() == (1, len("twohello world"))
    nvim.wait_for_no_ghost()


def test_server_hears_of_shown_and_accepted(own_neovim: Start, script: Scripted) -> None:
    server = script(rules=[HELLO])
    nvim = own_neovim(server)
    nvim.open("a.txt", "")
    nvim.append("hel")
    shown = server.wait_for("textDocument/didShowCompletion")[0]["params"]["item"]
    assert shown["insertText"] == "hello world"
    nvim.wait_for_ghost("lo world")
    nvim.keys("<Tab>")
    assert poll(server.accepted, "the item's command") == shown["command"]["arguments"]


@pytest.mark.parametrize("key", ["<Tab>", "<C-l>"])
def test_undo_takes_back_the_suggestion_alone_in_one_step(own_neovim: Start, script: Scripted, key: str) -> None:
    nvim = own_neovim(script(rules=[BLOCK]))
    nvim.lua("vim.keymap.set('i', '<C-l>', require('forelook').accept)")  # as a user may do it
    nvim.open("a.py", "")
    nvim.append("def f():")
    nvim.wait_for_ghost("\n    x = 1\n    return x")
    nvim.keys(key)
    nvim.wait_for_lines("def f():", "    x = 1", "    return x")
    nvim.keys(("<C-g>u" if key == "<C-l>" else "") + " + 2<Esc>")
    nvim.wait_for_lines("def f():", "    x = 1", "    return x + 2")
    nvim.keys("u")
    nvim.wait_for_lines("def f():", "    x = 1", "    return x")
    nvim.keys("u")
    nvim.wait_for_lines("def f():")
    nvim.keys("u")
    nvim.wait_for_lines("")


def test_typing_through_keeps_the_suggestion_without_asking_again(own_neovim: Start, script: Scripted) -> None:
    server = script(rules=[HELLO])
    nvim = own_neovim(server, debounce_ms=1)
    nvim.open("a.txt", "")
    nvim.append("hel")
    nvim.wait_for_ghost("lo world")
    asked = len(server.messages("textDocument/inlineCompletion"))
    for typed, left in (("l", "o world"), ("o", " world"), (" ", "world")):
        nvim.keys(typed)
        nvim.wait_for_ghost(left)
    nvim.keys("<BS>")
    nvim.wait_for_ghost(" world")
    nvim.sync()
    assert len(server.messages("textDocument/inlineCompletion")) == asked
    assert len(server.messages("textDocument/didShowCompletion")) == 1
    nvim.keys("<Tab>")
    nvim.wait_for_lines("hello world")


def test_typing_something_else_drops_the_suggestion(own_neovim: Start, script: Scripted) -> None:
    nvim = own_neovim(script(rules=[HELLO]))
    nvim.open("a.txt", "")
    nvim.append("hel")
    nvim.wait_for_ghost("lo world")
    nvim.keys("X")
    nvim.wait_for_no_ghost()
    nvim.keys("<Tab>")
    nvim.wait_for_lines("helX\t")


@pytest.mark.parametrize(
    ("rest", "steps"),
    [
        ("lo world", ["hello", "hello world"]),
        ("lo, wor_ld2(x)", ["hello", "hello,", "hello, wor_ld2", "hello, wor_ld2(", "hello, wor_ld2(x"]),
        ("lo\n    naïve é\n", ["hello", "hello\n    naïve", "hello\n    naïve é"]),
        ("lo 🙂🙃+e\u0301t", ["hello", "hello 🙂🙃", "hello 🙂🙃+", "hello 🙂🙃+e\u0301t"]),
    ],
)
def test_accepting_by_word(own_neovim: Start, script: Scripted, rest: str, steps: list[str]) -> None:
    server = script(rules=[{"before": "hel", "items": [rest]}])
    nvim = own_neovim(server)
    nvim.open("a.txt", "")
    nvim.append("hel")
    nvim.wait_for_ghost(rest)
    whole = "hel" + rest
    for number, step in enumerate(steps, 1):
        nvim.keys("<M-Right>")
        nvim.wait_for_lines(*step.split("\n"))
        if step == whole:
            assert poll(server.accepted, "the item's command")
            break
        nvim.wait_for_ghost(whole[len(step) :])
        partial = server.wait_for("textDocument/didPartiallyAcceptCompletion", number)[-1]["params"]
        assert partial["item"]["insertText"] == whole
        assert partial["acceptedLength"] == len(step.encode("utf-16-le")) // 2, "UTF-16, from insertText's start"
    asked = [m for m in server.messages("textDocument/inlineCompletion") if m["before"] != whole.split("\n")[-1]]
    assert len(asked) == 1, "the remainder needs no request, only what follows the whole"


def test_accepting_by_line_keeps_the_remainder(own_neovim: Start, script: Scripted) -> None:
    server = script(rules=[{"before": "if x:", "items": ["\n\n    a = 1\n    b = 2"]}])
    nvim = own_neovim(server)
    nvim.open("a.py", "  if x:\nend\n")
    nvim.append()
    nvim.wait_for_ghost("\n\n    a = 1\n    b = 2")
    nvim.keys("<M-Down>")
    nvim.wait_for_lines("  if x:", "", "    a = 1", "end")
    nvim.wait_for_ghost("\n    b = 2")
    first = server.wait_for("textDocument/didPartiallyAcceptCompletion")[0]["params"]
    assert first["acceptedLength"] == len("  if x:\n\n    a = 1")
    nvim.keys("<M-Down>")
    nvim.wait_for_lines("  if x:", "", "    a = 1", "    b = 2", "end")
    assert poll(server.accepted, "the item's command")
    assert nvim.cursor() == (3, 9)


def test_brackets_behind_the_cursor_are_not_doubled(own_neovim: Start, script: Scripted) -> None:
    nvim = own_neovim(script(rules=[{"before": "f(", "items": ["a, g(b))"], "tail": 1}]))
    nvim.open("a.py", "f() + 1\n")
    nvim.at(0, 2)
    nvim.lua("require('forelook').trigger()")
    poll(lambda: nvim.ghost(), "ghost text")
    mark = nvim.marks()[0]
    assert (mark["col"], mark["text"]) in [(2, "a, g(b)"), (2, "a, g(b)) + 1")], "before 0.10 the line is drawn over"
    nvim.keys("<Tab>")
    nvim.wait_for_lines("f(a, g(b)) + 1")
    assert nvim.cursor() == (0, len("f(a, g(b))"))


def test_brackets_behind_the_cursor_are_not_doubled_by_word(own_neovim: Start, script: Scripted) -> None:
    nvim = own_neovim(script(rules=[{"before": "f(", "items": ["a)[0]"], "tail": 1}]))
    nvim.open("a.py", "f();\n")
    nvim.at(0, 2)
    nvim.lua("require('forelook').trigger()")
    poll(lambda: nvim.ghost(), "ghost text")
    for expected in ("f(a);", "f(a)[;", "f(a)[0;", "f(a)[0];"):
        nvim.keys("<M-Right>")
        nvim.wait_for_lines(expected)


def test_suggestion_goes_when_the_text_behind_the_cursor_changes(own_neovim: Start, script: Scripted) -> None:
    nvim = own_neovim(script(rules=[{"before": "f(", "items": ["a)"], "tail": 1}]))
    nvim.open("a.txt", "f() + 1\n")
    nvim.at(0, 2)
    nvim.lua("require('forelook').trigger()")
    poll(lambda: nvim.ghost(), "ghost text")
    nvim.lua("require('forelook.suggestion').configure(60000)")
    nvim.keys("<Del>")
    nvim.wait_for_no_ghost()
    nvim.keys("<Tab>")
    nvim.wait_for_lines("f(\t + 1")


def test_several_lines_amid_a_line_hide_and_repeat_what_follows(own_neovim: Start, script: Scripted) -> None:
    nvim = own_neovim(script(rules=[{"before": "call(", "items": ["\n  1,\n  2\n)"], "tail": 1}]))
    nvim.open("a.js", "call();\n")
    nvim.at(0, 5)
    nvim.lua("require('forelook').trigger()")
    poll(lambda: nvim.ghost(), "ghost text")
    assert nvim.ghost() == "  \n  1,\n  2\n);", "two blanks hide `);`, which moves to the last line"
    nvim.keys("<Tab>")
    nvim.wait_for_lines("call(", "  1,", "  2", ");")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
@pytest.mark.parametrize("before", ["# 🙂é ", "e\u0301\u0301", "日本語", "𝒳𝒴\t"])
def test_columns_are_right_behind_any_character(
    own_neovim: Start, script: Scripted, encoding: str, before: str
) -> None:
    server = script(rules=[{"before": "hel", "items": ["lo 🙂)!"], "tail": 1}], encodings=[encoding, "utf-16"])
    nvim = own_neovim(server)
    nvim.open("a.txt", f"{before}hel) 🙃\n")
    nvim.at(0, len((before + "hel").encode()))
    nvim.lua("require('forelook').trigger()")
    request = server.wait_for("textDocument/inlineCompletion")[0]
    assert (request["before"], request["after"]) == (before + "hel", ") 🙃")
    poll(lambda: nvim.ghost(), "ghost text")
    nvim.keys("<Tab>")
    nvim.wait_for_lines(f"{before}hello 🙂)! 🙃")


def test_server_text_follows_every_edit(own_neovim: Start, script: Scripted) -> None:
    server = script(rules=[HELLO])
    nvim = own_neovim(server)
    nvim.open("a.txt", "# 🙂é\n日本\n")
    nvim.append("x🙂", row=0)
    nvim.keys("<Esc>jo<Tab>hel")
    nvim.wait_for_ghost("lo world")
    nvim.keys("<Tab>")
    nvim.wait_for_lines("# 🙂éx🙂", "日本", "\thello world")
    poll(
        lambda: (
            [m["text"] for m in server.messages("textDocument/didChange")][-1:] == ["# 🙂éx🙂\n日本\n\thello world\n"]
        ),
        "the server's text to equal the buffer's",
    )


def test_crlf_file_stays_crlf(own_neovim: Start, script: Scripted) -> None:
    server = script(rules=[BLOCK])
    nvim = own_neovim(server)
    path = nvim.open("a.py", b"one\r\ndef f():\r\nlast\r\n")
    nvim.append(row=1)
    nvim.wait_for_ghost("\n    x = 1\n    return x")
    nvim.keys("<Tab>")
    nvim.wait_for_lines("one", "def f():", "    x = 1", "    return x", "last")
    nvim.keys("<Esc>:write<CR>")
    whole = b"one\r\ndef f():\r\n    x = 1\r\n    return x\r\nlast\r\n"
    poll(lambda: path.read_bytes() == whole, "the file to be written with its own line ends")
    poll(lambda: server.messages("textDocument/didChange")[-1]["text"].encode() == whole, "the server's text")


def test_carriage_returns_of_a_server_never_reach_the_buffer(own_neovim: Start, script: Scripted) -> None:
    nvim = own_neovim(script(rules=[{"before": "hel", "items": ["lo\r\nworld\rend"]}]))
    nvim.open("a.txt", "")
    nvim.append("hel")
    nvim.wait_for_ghost("lo\nworld\nend")
    nvim.keys("<Tab>")
    nvim.wait_for_lines("hello", "world", "end")


def test_dismissed_suggestion_stays_away_until_the_text_changes(own_neovim: Start, script: Scripted) -> None:
    server = script(rules=[HELLO, {"before": "help", "items": ["ful"]}])
    nvim = own_neovim(server)
    nvim.open("a.txt", "")
    nvim.append("hel")
    nvim.wait_for_ghost("lo world")
    nvim.keys("<C-]>")
    nvim.wait_for_no_ghost()
    assert nvim.mode() == "i"
    nvim.keys("<Left><Right>")
    nvim.keys("p")
    nvim.wait_for_ghost("ful")
    columns = [m["params"]["position"]["character"] for m in server.messages("textDocument/inlineCompletion")]
    assert columns[0] == 3
    assert columns[-1] == 4


def test_next_and_previous_cycle_through_alternatives(own_neovim: Start, script: Scripted) -> None:
    server = script(rules=[HELLO])
    nvim = own_neovim(server)
    nvim.open("a.txt", "")
    nvim.append("hel")
    nvim.wait_for_ghost("lo world")
    nvim.keys("<M-]>")
    nvim.wait_for_ghost("icopter ride")
    asked = [m["params"]["context"]["triggerKind"] for m in server.messages("textDocument/inlineCompletion")]
    assert asked == [2, 1], "alternatives are asked for once, by an explicit request"
    nvim.keys("<M-]>")
    nvim.wait_for_ghost("p me")
    nvim.keys("<M-]>")
    nvim.wait_for_ghost("lo world")
    nvim.keys("<M-[>")
    nvim.wait_for_ghost("p me")
    nvim.keys("<Tab>")
    nvim.wait_for_lines("help me")
    assert len(server.messages("textDocument/inlineCompletion")) <= 3, "cycling itself asks nothing"


def test_stale_answer_is_dropped(own_neovim: Start, script: Scripted) -> None:
    server = script(
        rules=[{"before": "hel", "items": ["STALE"], "hold": "request"}, {"before": "helX", "items": ["fresh"]}]
    )
    nvim = own_neovim(server)
    nvim.open("a.txt", "")
    nvim.append("hel")
    server.wait_for("textDocument/inlineCompletion")
    nvim.keys("X")
    nvim.wait_for_ghost("fresh")
    server.wait_for("$/cancelRequest")
    nvim.keys("<Tab>")
    nvim.wait_for_lines("helXfresh")
    assert len(server.messages("textDocument/didShowCompletion")) == 1


def test_answer_that_was_overtaken_never_replaces_the_later_one(own_neovim: Start, script: Scripted) -> None:
    old = {"before": "hel", "items": ["OLD"], "hold": "request", "once": True}
    server = script(rules=[old, {"before": "hel", "items": ["NEW"]}])
    nvim = own_neovim(server)
    nvim.open("a.txt", "")
    nvim.append("hel")
    server.wait_for("textDocument/inlineCompletion")
    nvim.keys("<M-Bslash>")
    nvim.wait_for_ghost("NEW")
    nvim.sync()
    assert nvim.ghost() == "NEW"


def test_late_answer_is_used_while_it_fits_what_was_typed(own_neovim: Start, script: Scripted) -> None:
    server = script(rules=[{"before": "hel", "items": ["lo world"], "hold": "change"}])
    nvim = own_neovim(server, debounce_ms=1)
    nvim.open("a.txt", "")
    nvim.append("hel")
    server.wait_for("textDocument/inlineCompletion")
    nvim.lua("require('forelook.suggestion').configure(60000)")  # no second request may help
    nvim.keys("lo")
    nvim.wait_for_ghost(" world")
    nvim.keys("<Tab>")
    nvim.wait_for_lines("hello world")
    assert len(server.messages("textDocument/inlineCompletion")) == 1


def test_leaving_insert_mode_cancels_the_request(own_neovim: Start, script: Scripted) -> None:
    server = script(rules=[{"before": "hel", "items": ["lo"], "hold": "cancel"}])
    nvim = own_neovim(server)
    nvim.open("a.txt", "")
    nvim.append("hel")
    server.wait_for("textDocument/inlineCompletion")
    nvim.keys("<Esc>")
    server.wait_for("$/cancelRequest")
    nvim.wait_for_no_ghost()
    assert not nvim.lua("return require('forelook').status().busy")
    assert nvim.lua("return require('forelook').status().state") == "ready", "a cancel is no error"


def test_new_request_goes_out_before_the_old_one_is_cancelled(own_neovim: Start, script: Scripted) -> None:
    server = script(rules=[{"before": "hel", "items": ["lo"], "hold": "cancel"}, {"before": "helX", "items": ["y"]}])
    nvim = own_neovim(server)
    nvim.open("a.txt", "")
    nvim.append("hel")
    server.wait_for("textDocument/inlineCompletion")
    nvim.keys("X")
    server.wait_for("$/cancelRequest")
    names = [m["method"] for m in server.all() if m["method"] in ("textDocument/inlineCompletion", "$/cancelRequest")]
    assert names == ["textDocument/inlineCompletion", "textDocument/inlineCompletion", "$/cancelRequest"]


def test_version_in_the_request_is_that_of_the_last_change(own_neovim: Start, script: Scripted) -> None:
    server = script(rules=[HELLO])
    nvim = own_neovim(server)
    nvim.open("a.txt", "")
    nvim.append("hel")
    request = server.wait_for("textDocument/inlineCompletion")[0]["params"]
    change = server.messages("textDocument/didChange")[-1]["params"]
    assert request["textDocument"]["version"] == change["textDocument"]["version"]


def test_killed_server_comes_back_with_its_documents(own_neovim: Start, script: Scripted) -> None:
    server = script(rules=[{"before": "die", "items": [], "die": True}, HELLO])
    nvim = own_neovim(server)
    nvim.open("a.txt", "first\n")
    nvim.append("die")
    server.wait_for("initialize", 2)
    poll(nvim.attached, "the new server to attach")
    opened = server.wait_for("textDocument/didOpen", 2)
    assert opened[-1]["params"]["textDocument"]["text"] == "firstdie\n"
    nvim.keys("<CR>hel")
    nvim.wait_for_ghost("lo world")
    nvim.keys("<Tab>")
    nvim.wait_for_lines("firstdie", "hello world")


def test_server_that_keeps_dying_is_given_up_with_one_message(own_neovim: Start, script: Scripted) -> None:
    server = script(rules=[{"before": "die", "items": [], "die": True}])
    nvim = own_neovim(server, max_restarts=1)
    nvim.open("a.txt", "")
    nvim.append("die")
    server.wait_for("initialize", 2)
    poll(nvim.attached, "the second server to attach")
    nvim.keys("<CR>die")
    state = poll(
        lambda: (s := nvim.lua("return require('forelook').status()"))["state"] == "error" and s, "the error status"
    )
    assert "exit code 3" in state["message"]
    assert ":Forelook restart" in state["message"]
    nvim.keys("<CR>still typing")
    nvim.wait_for_lines("die", "die", "still typing")
    server.rewrite(rules=[HELLO])
    nvim.lua("vim.cmd('Forelook restart')")
    poll(nvim.attached, "the third server to attach")
    nvim.keys("<CR>hel")
    nvim.wait_for_ghost("lo world")


def test_completion_menu_hides_the_suggestion(own_neovim: Start, script: Scripted) -> None:
    nvim = own_neovim(script(rules=[HELLO]))
    nvim.open("a.txt", "helmet\nhelium\n")
    nvim.append("hel", row=1)
    nvim.keys("<Esc>o")
    nvim.keys("hel")
    nvim.wait_for_ghost("lo world")
    nvim.keys("<C-n>")
    poll(lambda: nvim.rpc.call("pumvisible"), "the completion menu")
    nvim.wait_for_no_ghost()


def test_alternatives_can_be_asked_for_without_typing(own_neovim: Start, script: Scripted) -> None:
    server = script(rules=[HELLO])
    nvim = own_neovim(server, auto_trigger=False)
    nvim.open("a.txt", "")
    nvim.append("hel")
    nvim.keys("<M-Bslash>")
    nvim.wait_for_ghost("lo world")
    assert [m["params"]["context"]["triggerKind"] for m in server.messages("textDocument/inlineCompletion")] == [1]
    nvim.keys("l")
    nvim.wait_for_ghost("o world")


def test_tabs_in_ghost_text_line_up_with_real_ones(own_neovim: Start, script: Scripted) -> None:
    nvim = own_neovim(script(rules=[{"before": "\tx {", "items": ["\n\t\ty\n\t}"]}]))
    nvim.open("a.go", "\tx {\n")
    nvim.lua("vim.bo.tabstop = 4")
    nvim.append()
    nvim.wait_for_ghost("\n        y\n    }")
    nvim.keys("<Tab>")
    nvim.wait_for_lines("\tx {", "\t\ty", "\t}")


def test_renamed_file_is_followed(own_neovim: Start, script: Scripted) -> None:
    server = script(rules=[HELLO])
    nvim = own_neovim(server)
    nvim.open("a.txt", "first\n")
    nvim.rpc.command(f"saveas {nvim.folder}/b.txt")
    poll(nvim.attached, "the server to attach to the renamed buffer")
    nvim.append(" hel")
    nvim.wait_for_ghost("lo world")
    nvim.keys("<Tab>")
    nvim.wait_for_lines("first hello world")
    opened = [
        (m["method"], m["params"]["textDocument"]["uri"].rsplit("/")[-1])
        for m in server.all()
        if m["method"] in ("textDocument/didOpen", "textDocument/didClose")
    ]
    assert opened[:2] == [("textDocument/didOpen", "a.txt"), ("textDocument/didClose", "a.txt")]
    assert opened[-1] == ("textDocument/didOpen", "b.txt")


def test_buffers_without_a_name_get_suggestions_one_at_a_time(own_neovim: Start, script: Scripted) -> None:
    server = script(rules=[HELLO])
    nvim = own_neovim(server)
    assert not server.messages("initialize"), "an empty buffer starts nothing before it is typed in"
    nvim.keys("ihel")
    nvim.wait_for_ghost("lo world")
    nvim.keys("<Esc>")
    nvim.rpc.command("set hidden | enew")
    server.wait_for("textDocument/didClose")
    nvim.keys("isecond hel")
    nvim.wait_for_ghost("lo world")
    nvim.keys("<Tab>")
    nvim.wait_for_lines("second hello world")
    nvim.keys("<Esc>")
    nvim.rpc.command(f"write {nvim.folder}/named.txt")
    named = poll(
        lambda: [
            m for m in server.messages("textDocument/didOpen") if "named.txt" in m["params"]["textDocument"]["uri"]
        ],
        "the document to be opened by its new name",
    )
    assert named[0]["params"]["textDocument"]["text"] == "second hello world\n"
    nvim.append(" hel")
    nvim.wait_for_ghost("lo world")


LOADING = {"state": "loading", "message": "reading weights", "progress": 0.5, "model": "", "device": ""}
READY = {"state": "ready", "message": "", "model": "starter", "device": "cpu"}


def loading_server(script: Scripted) -> Script:
    """One whose model is loaded only after the first request was answered with nothing."""
    empty = {"before": "hel", "items": [], "once": True, "notify": [["forelook/status", READY]]}
    return script(rules=[empty, HELLO], notifications=[["forelook/status", LOADING]], name="forelook-lsp")


def test_suggestion_appears_when_the_model_is_loaded_without_another_key(own_neovim: Start, script: Scripted) -> None:
    nvim = own_neovim(loading_server(script))
    nvim.open("a.txt", "")
    nvim.append("hel")
    nvim.wait_for_ghost("lo world")
    assert nvim.lua("return require('forelook').status().message") == "starter on cpu"


def test_status_is_not_ready_before_the_server_says_so(own_neovim: Start, script: Scripted) -> None:
    nvim = own_neovim(script(name="forelook-lsp"))
    nvim.open("a.txt", "")
    assert nvim.lua("return require('forelook').statusline()") == "Forelook: starting"


def test_setup_may_be_called_again(own_neovim: Start, script: Scripted) -> None:
    server = script(rules=[HELLO])
    nvim = own_neovim(server)
    nvim.open("a.txt", "")
    nvim.rpc.command(f"luafile {nvim.folder}/init.lua")
    assert "restart" not in nvim.rpc.command_output("messages")
    nvim.lua("require('forelook').setup({ debounce_ms = 7 })")
    assert "restart Neovim" in nvim.rpc.command_output("messages")
    nvim.append("hel")
    nvim.wait_for_ghost("lo world")
