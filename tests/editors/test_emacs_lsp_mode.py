"""forelook.el's registration for lsp-mode 10, which draws inline completions by itself; optional."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.editors.emacs_rig import Emacs, need_emacs
from tests.editors.rig import Script, poll

SETTINGS = """
(require 'lsp-mode)
(require 'lsp-inline-completion)
(forelook-lsp-mode-setup)
(setq rig-ensure (lambda () (lsp) (lsp-inline-completion-mode 1))
      rig-ready-function (lambda () (and (bound-and-true-p lsp--buffer-workspaces)
                                         (eq 'initialized (lsp--workspace-status (car lsp--buffer-workspaces)))))
      vc-handled-backends '(Git) lsp-auto-guess-root t lsp-enable-snippet nil lsp-headerline-breadcrumb-enable nil
      lsp-inline-completion-idle-delay 0.05 lsp-idle-delay 0.05 lsp-restart 'ignore lsp-server-trace nil)
(defun rig-overlays () (and lsp-inline-completion--overlay
                            (overlay-buffer lsp-inline-completion--overlay)
                            (list lsp-inline-completion--overlay)))
"""


@pytest.fixture(autouse=True)
def _need_lsp_mode() -> None:
    probe = "(progn (require 'lsp-inline-completion) (require 'lsp-mode))"
    done = subprocess.run(
        [need_emacs(), "-Q", "--batch", "--eval", probe], check=False, capture_output=True, timeout=60
    )
    if done.returncode != 0:
        pytest.skip("needs lsp-mode 10 on EMACSLOADPATH (tests/editors/fetch_lsp_mode.sh prints it)")


def test_lsp_mode_shows_and_inserts_the_suggestion(
    emacs: Callable[..., Emacs], script: Callable[..., Script], tmp_path: Path
) -> None:
    failed = {"state": "error", "message": "no such folder", "progress": None, "model": "", "device": ""}
    server = script(
        rules=[{"before": "hel", "items": ["lo 🙂\n    world"]}],
        encodings=["utf-32", "utf-16"],
        notifications=[["forelook/status", failed]],
    )
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True, timeout=30)
    editor = emacs(server, SETTINGS)
    editor.open("a.py", "# 🙂é\n\nlast = 1\n")
    editor.goto(len("# 🙂é\n"))
    editor.type("hel")
    request = server.wait_for("textDocument/inlineCompletion")[-1]
    assert request["before"] == "hel"
    poll(lambda: "world" in editor.terminal.screen(), lambda: f"ghost text; the screen:\n{editor.terminal.screen()}")
    assert editor.state()["text"] == "# 🙂é\nhel\nlast = 1\n"
    said = '(with-current-buffer "*Messages*" (how-many "%s" (point-min)))'
    poll(lambda: editor.eval(said % "Forelook: no such folder") == 1, "the error to be told once")
    assert editor.eval(said % "[Uu]nknown notification") == 0
    editor.run("(lsp-inline-completion-accept)")
    editor.wait_for_text("# 🙂é\nhello 🙂\n    world\nlast = 1\n")
