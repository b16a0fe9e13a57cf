"""forelook.el on Eglot, in a real Emacs against a scripted server."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.editors.emacs_rig import LOAD_PATH, PACKAGE, Emacs, need_emacs
from tests.editors.rig import Script, poll
from tests.editors.test_nvim import loading_server

Start = Callable[..., Emacs]
Scripted = Callable[..., Script]

HELLO: dict[str, Any] = {"before": "hel", "items": ["lo world", "icopter ride", "p me"]}
BLOCK: dict[str, Any] = {"before": "def f():", "items": ["\n    x = 1\n    return x"]}


def visible(screen: str) -> list[str]:
    """The text above the mode line."""
    lines = [line.rstrip() for line in screen.splitlines()]
    end = next((number for number, line in enumerate(lines) if line.startswith("-UU")), len(lines))
    return [line for line in lines[:end] if line]


def test_typing_shows_ghost_text_and_accepting_inserts_it(emacs: Start, script: Scripted) -> None:
    server = script(rules=[HELLO])
    editor = emacs(server)
    editor.open("a.py", "one\n")
    editor.goto(4)
    editor.type("hel")
    editor.wait_for_ghost("lo world")
    assert editor.state()["text"] == "one\nhel", "ghost text is not in the buffer"
    editor.terminal.wait_until_shown(["one", "hello world"], visible)
    shown = server.wait_for("textDocument/didShowCompletion")[0]["params"]["item"]
    editor.press("Tab")
    editor.wait_for_text("one\nhello world")
    editor.wait_for_no_ghost()
    assert editor.state()["point"] == len("one\nhello world")
    assert poll(server.accepted, "the item's command") == shown["command"]["arguments"]


def test_capability_is_announced(emacs: Start, script: Scripted) -> None:
    server = script(rules=[HELLO])
    emacs(server, '(setq forelook-settings \'(:device "cpu"))').open("a.py", "")
    params = server.wait_for("initialize")[0]["params"]
    assert params["capabilities"]["textDocument"]["inlineCompletion"] == {"dynamicRegistration": False}
    assert params["capabilities"]["textDocument"]["completion"], "Eglot's own capabilities are still there"
    workspace = params["capabilities"]["workspace"]
    assert workspace["didChangeWatchedFiles"] == {"dynamicRegistration": False}, "Eglot would watch each folder"
    assert workspace["configuration"]
    assert params["initializationOptions"] == {"device": "cpu"}


def test_a_projects_python_files_do_not_run_in_the_server(emacs: Start, script: Scripted) -> None:
    editor = emacs(script(rules=[HELLO]), '(setenv "PYTHONPATH" ".")')
    (editor.folder / "types.py").write_text("raise SystemExit")
    editor.open("a.py", "")
    editor.type("hel")
    editor.wait_for_ghost("lo world")


def test_several_lines_push_the_following_ones_down(emacs: Start, script: Scripted) -> None:
    editor = emacs(script(rules=[BLOCK]))
    editor.open("a.py", "\nlast = 1\n")
    editor.type("def f():")
    editor.terminal.wait_until_shown(["def f():", "    x = 1", "    return x", "last = 1"], visible)
    assert editor.state()["point"] == len("def f():")
    poll(lambda: editor.terminal.cursor() == (0, len("def f():")), "the cursor to stand before the ghost text")
    editor.press("Tab")
    editor.wait_for_text("def f():\n    x = 1\n    return x\nlast = 1\n")
    editor.press("C-/")
    editor.wait_for_text("def f():\nlast = 1\n")


def test_typing_through_keeps_the_suggestion_without_asking_again(emacs: Start, script: Scripted) -> None:
    server = script(rules=[HELLO])
    editor = emacs(server, "(setq forelook-idle-delay 0.001)")
    editor.open("a.py", "")
    editor.type("hel")
    editor.wait_for_ghost("lo world")
    asked = len(server.messages("textDocument/inlineCompletion"))
    for typed, left in (("l", "o world"), ("o", " world"), (" ", "world")):
        editor.type(typed)
        editor.wait_for_ghost(left)
    editor.press("BSpace")
    editor.wait_for_ghost(" world")
    editor.sync()
    assert len(server.messages("textDocument/inlineCompletion")) == asked
    assert len(server.messages("textDocument/didShowCompletion")) == 1
    editor.press("Tab")
    editor.wait_for_text("hello world")


def test_typing_something_else_drops_the_suggestion(emacs: Start, script: Scripted) -> None:
    editor = emacs(script(rules=[HELLO]))
    editor.open("a.txt", "")
    editor.type("hel")
    editor.wait_for_ghost("lo world")
    editor.type("X")
    editor.wait_for_no_ghost()
    editor.press("Tab")
    editor.wait_for_text("helX\t")


@pytest.mark.parametrize(
    ("rest", "steps"),
    [
        ("lo, wor_ld2(x)", ["hello", "hello,", "hello, wor_ld2", "hello, wor_ld2("]),
        ("lo\n    naïve 🙂e\u0301t+", ["hello", "hello\n    naïve", "hello\n    naïve 🙂e\u0301t"]),
    ],
)
def test_accepting_by_word(emacs: Start, script: Scripted, rest: str, steps: list[str]) -> None:
    server = script(rules=[{"before": "hel", "items": [rest]}])
    editor = emacs(server)
    editor.open("a.py", "")
    editor.type("hel")
    editor.wait_for_ghost(rest)
    whole = "hel" + rest
    for number, step in enumerate(steps, 1):
        editor.press("M-Right")
        editor.wait_for_text(step)
        editor.wait_for_ghost(whole[len(step) :])
        partial = server.wait_for("textDocument/didPartiallyAcceptCompletion", number)[-1]["params"]
        assert partial["acceptedLength"] == len(step.encode("utf-16-le")) // 2, "UTF-16, from insertText's start"
    assert len(server.messages("textDocument/inlineCompletion")) == 1, "the remainder needs no request"
    editor.press("Tab")
    editor.wait_for_text(whole)
    assert poll(server.accepted, "the item's command")


def test_accepting_by_line_keeps_the_remainder(emacs: Start, script: Scripted) -> None:
    server = script(rules=[{"before": "if x:", "items": ["\n\n    a = 1\n    b = 2"]}])
    editor = emacs(server)
    editor.open("a.py", "  \nend\n")
    editor.goto(2)
    editor.type("if x:")
    editor.wait_for_ghost("\n\n    a = 1\n    b = 2")
    editor.press("M-Down")
    editor.wait_for_text("  if x:\n\n    a = 1\nend\n")
    editor.wait_for_ghost("\n    b = 2")
    first = server.wait_for("textDocument/didPartiallyAcceptCompletion")[0]["params"]
    assert first["acceptedLength"] == len("  if x:\n\n    a = 1")
    editor.press("M-Down")
    editor.wait_for_text("  if x:\n\n    a = 1\n    b = 2\nend\n")
    assert poll(server.accepted, "the item's command")


def test_brackets_behind_point_are_not_doubled(emacs: Start, script: Scripted) -> None:
    editor = emacs(script(rules=[{"before": "f(", "items": ["a, g(b))"], "tail": 1}]))
    editor.open("a.py", "f) + 1\n")
    editor.goto(1)
    editor.type("(")
    editor.wait_for_ghost("a, g(b)")
    editor.terminal.wait_until_shown(["f(a, g(b)) + 1"], visible)
    editor.press("Tab")
    editor.wait_for_text("f(a, g(b)) + 1\n")


def test_brackets_behind_point_are_not_doubled_by_word(emacs: Start, script: Scripted) -> None:
    editor = emacs(script(rules=[{"before": "f(", "items": ["a)[0]"], "tail": 1}]))
    editor.open("a.py", "f);\n")
    editor.goto(1)
    editor.type("(")
    editor.wait_for_ghost("a[0]")
    assert editor.state()["columns"] == [2, 3], "before and behind the bracket that is there"
    for expected in ("f(a);\n", "f(a)[;\n", "f(a)[0;\n", "f(a)[0];\n"):
        editor.press("M-Right")
        editor.wait_for_text(expected)


def test_suggestion_goes_when_the_text_behind_point_changes(emacs: Start, script: Scripted) -> None:
    editor = emacs(script(rules=[{"before": "f(", "items": ["a)"], "tail": 1}]))
    editor.open("a.txt", "f) + 1\n")
    editor.goto(1)
    editor.type("(")
    editor.wait_for_ghost("a")
    editor.run("(setq forelook-idle-delay 3600)")
    editor.press("C-d")
    editor.wait_for_no_ghost()
    assert editor.state()["text"] == "f( + 1\n"


def test_several_lines_amid_a_line_look_as_after_accepting(emacs: Start, script: Scripted) -> None:
    editor = emacs(script(rules=[{"before": "call(", "items": ["\n  1,\n)"], "tail": 1}]))
    editor.open("a.py", "call); # end\nnext\n")
    editor.goto(4)
    editor.type("(")
    editor.terminal.wait_until_shown(["call(", "  1,", "); # end", "next"], visible)
    editor.press("Tab")
    editor.wait_for_text("call(\n  1,\n); # end\nnext\n")


def test_replaced_text_that_is_no_part_of_the_suggestion_is_hidden(emacs: Start, script: Scripted) -> None:
    editor = emacs(script(rules=[{"before": "x = ", "items": ["new()"], "tail": 3}]))
    editor.open("a.py", "x =old;\n")
    editor.goto(3)
    editor.type(" ")
    editor.wait_for_ghost("new()")
    editor.terminal.wait_until_shown(["x = new();"], visible)
    editor.press("Tab")
    editor.wait_for_text("x = new();\n")


@pytest.mark.parametrize("before", ["# 🙂é ", "e\u0301\u0301 ", "日本語", "\t𝒳𝒴\t"])
def test_columns_are_right_behind_any_character(emacs: Start, script: Scripted, before: str) -> None:
    server = script(rules=[{"before": "hel", "items": ["lo 🙂)!"], "tail": 1}], encodings=["utf-8", "utf-16", "utf-32"])
    editor = emacs(server)
    editor.open("a.txt", f"first\n{before}he) 🙃\n")
    editor.goto(len(f"first\n{before}he"))
    editor.type("l")
    request = server.wait_for("textDocument/inlineCompletion")[0]
    assert (request["before"], request["after"]) == (before + "hel", ") 🙃")
    poll(lambda: editor.state()["ghost"], "ghost text")
    editor.press("Tab")
    editor.wait_for_text(f"first\n{before}hello 🙂)! 🙃\n")


def test_crlf_file_stays_crlf(emacs: Start, script: Scripted) -> None:
    editor = emacs(script(rules=[BLOCK]))
    path = editor.open("a.py", b"one\r\ndef f()\r\nlast\r\n")
    editor.goto(len("one\ndef f()"))
    editor.type(":")
    editor.wait_for_ghost("\n    x = 1\n    return x")
    editor.press("Tab")
    editor.wait_for_text("one\ndef f():\n    x = 1\n    return x\nlast\n")
    editor.press("C-x", "C-s")
    whole = b"one\r\ndef f():\r\n    x = 1\r\n    return x\r\nlast\r\n"
    poll(lambda: path.read_bytes() == whole, "the file to be written with its own line ends")


def test_dismissed_suggestion_stays_away_until_the_text_changes(emacs: Start, script: Scripted) -> None:
    server = script(rules=[HELLO, {"before": "help", "items": ["ful"]}])
    editor = emacs(server)
    editor.open("a.py", "")
    editor.type("hel")
    editor.wait_for_ghost("lo world")
    editor.press("C-g")
    editor.wait_for_no_ghost()
    editor.press("C-b", "C-f")
    editor.type("p")
    editor.wait_for_ghost("ful")
    columns = [m["params"]["position"]["character"] for m in server.messages("textDocument/inlineCompletion")]
    assert columns == [3, 4]


def test_moving_away_drops_the_suggestion(emacs: Start, script: Scripted) -> None:
    editor = emacs(script(rules=[HELLO]))
    editor.open("a.py", "one\n\n")
    editor.goto(4)
    editor.type("hel")
    editor.wait_for_ghost("lo world")
    editor.press("C-p")
    editor.wait_for_no_ghost()


def test_next_and_previous_cycle_through_alternatives(emacs: Start, script: Scripted) -> None:
    server = script(rules=[HELLO])
    editor = emacs(server)
    editor.open("a.py", "")
    editor.type("hel")
    editor.wait_for_ghost("lo world")
    for key, ghost in (("M-n", "icopter ride"), ("M-n", "p me"), ("M-n", "lo world"), ("M-p", "p me")):
        editor.press(key)
        editor.wait_for_ghost(ghost)
    asked = [m["params"]["context"]["triggerKind"] for m in server.messages("textDocument/inlineCompletion")]
    assert asked == [2, 1], "alternatives are asked for once, by an explicit request"
    editor.press("Tab")
    editor.wait_for_text("help me")


def test_stale_answer_is_dropped(emacs: Start, script: Scripted) -> None:
    server = script(
        rules=[{"before": "hel", "items": ["STALE"], "hold": "request"}, {"before": "helX", "items": ["fresh"]}]
    )
    editor = emacs(server)
    editor.open("a.py", "")
    editor.type("hel")
    server.wait_for("textDocument/inlineCompletion")
    editor.type("X")
    editor.wait_for_ghost("fresh")
    server.wait_for("$/cancelRequest")
    editor.press("Tab")
    editor.wait_for_text("helXfresh")
    assert len(server.messages("textDocument/didShowCompletion")) == 1


def test_answer_that_was_overtaken_never_replaces_the_later_one(emacs: Start, script: Scripted) -> None:
    old = {"before": "hel", "items": ["OLD"], "hold": "request", "once": True}
    server = script(rules=[old, {"before": "hel", "items": ["NEW"]}])
    editor = emacs(server, '(global-set-key (kbd "C-t") #\'forelook-trigger)')
    editor.open("a.py", "")
    editor.type("hel")
    server.wait_for("textDocument/inlineCompletion")
    editor.press("C-t")
    editor.wait_for_ghost("NEW")
    editor.sync()
    assert editor.state()["ghost"] == "NEW"


def test_late_answer_is_used_while_it_fits_what_was_typed(emacs: Start, script: Scripted) -> None:
    server = script(rules=[{"before": "hel", "items": ["lo world"], "hold": "change"}])
    editor = emacs(server)
    editor.open("a.py", "")
    editor.type("hel")
    server.wait_for("textDocument/inlineCompletion")
    editor.run("(setq forelook-idle-delay 3600)")  # no second request may help
    editor.type("lo")
    editor.wait_for_ghost(" world")
    assert len(server.messages("textDocument/inlineCompletion")) == 1


def test_cancelled_request_is_no_error(emacs: Start, script: Scripted) -> None:
    server = script(rules=[{"before": "hel", "items": ["lo"], "hold": "cancel"}])
    editor = emacs(server)
    editor.open("a.py", "one\n\n")
    editor.goto(4)
    editor.type("hel")
    server.wait_for("textDocument/inlineCompletion")
    assert editor.state()["running"] is True
    editor.press("C-p")
    server.wait_for("$/cancelRequest")
    state = poll(lambda: not (s := editor.state())["running"] and s, "the request to end")
    assert "Forelook" not in state["message"]


def test_motions_accept_up_to_point_where_wanted(emacs: Start, script: Scripted) -> None:
    server = script(rules=[{"before": "hel", "items": ["lo_world(a)\nend"]}])
    editor = emacs(server, "(setq forelook-motions-accept t)")
    editor.open("a.py", "")
    editor.type("hel")
    editor.wait_for_ghost("lo_world(a)\nend")
    for key, text in (("C-f", "hell"), ("M-f", "hello"), ("C-e", "hello_world(a)"), ("C-f", "hello_world(a)\n")):
        editor.press(key)
        editor.wait_for_text(text)
    editor.wait_for_ghost("end")
    assert len(server.messages("textDocument/inlineCompletion")) == 1


def test_motions_only_move_by_default(emacs: Start, script: Scripted) -> None:
    editor = emacs(script(rules=[HELLO]))
    editor.open("a.py", "")
    editor.type("hel")
    editor.wait_for_ghost("lo world")
    editor.press("C-b", "C-e")
    editor.wait_for_no_ghost()
    assert editor.state()["text"] == "hel"


def test_killed_server_comes_back_with_its_documents(emacs: Start, script: Scripted) -> None:
    server = script(rules=[HELLO])
    editor = emacs(server)
    editor.open("a.py", "first\n")
    editor.goto(5)
    editor.type(" line")
    editor.wait_for_text("first line\n")
    os.kill(server.wait_for("initialize")[0]["pid"], signal.SIGKILL)
    server.wait_for("initialize", 2)
    opened = server.wait_for("textDocument/didOpen", 2)
    assert opened[-1]["params"]["textDocument"]["text"] == "first line\n"
    editor.wait_until_ready()
    editor.type(" hel")
    editor.wait_for_ghost("lo world")
    editor.press("Tab")
    editor.wait_for_text("first line hello world\n")


def test_mode_off_leaves_the_keys_alone(emacs: Start, script: Scripted) -> None:
    editor = emacs(script(rules=[HELLO]))
    editor.open("a.txt", "")
    editor.type("hel")
    editor.wait_for_ghost("lo world")
    editor.run("(forelook-mode -1)")
    editor.wait_for_no_ghost()
    editor.press("Tab")
    editor.wait_for_text("hel\t")


def test_mode_line_shows_what_the_server_does(emacs: Start, script: Scripted) -> None:
    loading = {"state": "loading", "message": "loading the model", "progress": 0.4, "model": "", "device": ""}
    editor = emacs(script(notifications=[["forelook/status", loading]]))
    editor.open("a.py", "")
    poll(lambda: editor.state()["status"] == "40%%", "the progress")
    editor.terminal.wait_for("Forelook:40%")


def test_suggestion_appears_when_the_model_is_loaded_without_another_key(emacs: Start, script: Scripted) -> None:
    editor = emacs(loading_server(script))
    editor.open("a.py", "")
    editor.type("hel")
    editor.wait_for_ghost("lo world")


def test_a_failure_is_told_once_by_its_message(emacs: Start, script: Scripted) -> None:
    failed = {"state": "error", "message": "no such folder: 100%", "progress": None, "model": "", "device": ""}
    editor = emacs(script(notifications=[["forelook/status", failed]] * 3))
    editor.open("a.py", "")
    editor.terminal.wait_for("Forelook: no such folder: 100%")
    editor.terminal.wait_for("Forelook:error")
    told = editor.eval('(with-current-buffer "*Messages*" (how-many "no such folder" (point-min)))')
    assert told == 1


def test_statistics_come_from_the_server(emacs: Start, script: Scripted) -> None:
    server = script(commands={"forelook.stats": {"shown": 3, "rates": {"accepted": 0.5}}, "forelook.clearPool.7": None})
    editor = emacs(server)
    editor.open("a.py", "")
    editor.run("(forelook-stats)")
    editor.terminal.wait_for("accepted: 0.50")
    editor.terminal.wait_for("shown: 3")
    editor.run("(forelook-clear-pool)")
    asked = [m["params"]["command"] for m in server.wait_for("workspace/executeCommand", 2)]
    assert asked == ["forelook.stats", "forelook.clearPool.7"]


# --- The file itself ----------------------------------------------------------------------------------------------


def batch(forms: str) -> subprocess.CompletedProcess[str]:
    program = need_emacs()
    quiet = "(setq native-comp-enable-subr-trampolines nil)"  # one unpacked beside the system cannot compile them
    command = [program, "-Q", "--batch", "--eval", f"(progn {quiet} {LOAD_PATH % PACKAGE} {forms})"]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def complaints(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What it said, but for an Emacs beside the system that misses the folders it was built for."""
    return [line for line in done.stderr.splitlines() if line and "Warning: Lisp directory" not in line]


def test_byte_compiles_without_warnings(tmp_path: Path) -> None:
    done = batch(
        f'(setq byte-compile-error-on-warn t byte-compile-dest-file-function (lambda (_) "{tmp_path}/forelook.elc"))'
        f'(unless (byte-compile-file "{PACKAGE}/forelook.el") (kill-emacs 1))'
    )
    assert done.returncode == 0, done.stderr


def test_checkdoc_finds_nothing() -> None:
    done = batch(f'(require \'checkdoc) (checkdoc-file "{PACKAGE}/forelook.el")')
    assert done.returncode == 0
    assert complaints(done) == []


def test_package_lint_finds_nothing() -> None:
    if batch("(require 'package-lint)").returncode != 0:
        pytest.skip("needs package-lint in Emacs (apt-get install elpa-package-lint)")
    # There is no package archive here, so the one dependency is made known by hand.
    done = batch(
        "(require 'package) (require 'package-lint)"
        "(push (list 'eglot (package-desc-create :name 'eglot :version '(1 9) :archive \"gnu\"))"
        " package-archive-contents)"
        f'(with-temp-buffer (insert-file-contents "{PACKAGE}/forelook.el") (setq buffer-file-name "forelook.el")'
        ' (emacs-lisp-mode) (dolist (found (package-lint-buffer)) (message "%S" found)))'
    )
    assert done.returncode == 0, done.stderr
    # The linter of Debian 12 is older than Emacs 28's release.
    found = [line for line in complaints(done) if "uninstallable in all released Emacs" not in line]
    assert found == []
