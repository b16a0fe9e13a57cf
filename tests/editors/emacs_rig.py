"""Drives a real Emacs: its keys through a terminal, its state through emacsclient."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.editors.nvim_rig import REPOSITORY, environment
from tests.editors.rig import Terminal, poll

PACKAGE = REPOSITORY / "lsp" / "editors" / "emacs"

# Debian keeps its packages there; an Emacs with Eglot built in has none.
LOAD_PATH = """
(dolist (folder (file-expand-wildcards "/usr/share/emacs/site-lisp/elpa/*"))
  (add-to-list 'load-path folder))
(add-to-list 'load-path "%s")
"""

INIT = (
    LOAD_PATH
    + """
(setq server-socket-dir "%s" server-name "forelook" inhibit-startup-screen t make-backup-files nil
      auto-save-default nil create-lockfiles nil ring-bell-function #'ignore eglot-autoreconnect t
      frame-inhibit-implied-resize t warning-minimum-level :emergency vc-handled-backends nil
      eglot-extend-to-xref nil eldoc-idle-delay 1000 flymake-indicator-type nil)
(electric-indent-mode -1)
(menu-bar-mode -1)
(prefer-coding-system 'utf-8-unix)
(require 'json)
(require 'server)
(require 'forelook)
(setq forelook-command '(%s))
(defvar rig-ensure #'forelook-ensure)
(defvar rig-ready-function #'forelook--server)
(defun rig-overlays () forelook--overlays)
%s
(add-hook 'prog-mode-hook rig-ensure)
(add-hook 'text-mode-hook rig-ensure)
(defun rig-state ()
  (with-current-buffer (window-buffer (selected-window))
    (list :text (buffer-substring-no-properties (point-min) (point-max))
          :point (1- (point))
          :row (1- (line-number-at-pos))
          :ghost (mapconcat
                  (lambda (overlay)
                    ;; A blank for the cursor to stand on precedes a line break.
                    (replace-regexp-in-string
                     "\\\\` \n" "\n"
                     (substring-no-properties
                      (or (overlay-get overlay 'after-string) (overlay-get overlay 'before-string) ""))))
                  (sort (copy-sequence (rig-overlays))
                        (lambda (a b) (< (overlay-start a) (overlay-start b)))) "")
          :columns (vconcat (sort (mapcar (lambda (overlay) (- (overlay-start overlay) (line-beginning-position)))
                                          (rig-overlays)) #'<))
          :ready (if (funcall rig-ready-function) t :json-false)
          :running (if forelook--running t :json-false)
          :status (forelook-status-string)
          :message (or (current-message) ""))))
(server-start)
"""
)


def need_emacs() -> str:
    """Path of an Emacs with Eglot, or the test is skipped."""
    program = shutil.which("emacs")
    if program is None or shutil.which("emacsclient") is None:
        pytest.skip("needs emacs and emacsclient on PATH (apt-get install emacs-nox elpa-eglot)")
    probe = [program, "-Q", "--batch", "--eval", f"(progn {LOAD_PATH % PACKAGE} (require 'eglot))"]
    if subprocess.run(probe, check=False, capture_output=True, timeout=60).returncode != 0:
        pytest.skip("needs Eglot in Emacs (apt-get install elpa-eglot, or Emacs 29)")
    return program


class Emacs:
    """One Emacs in a terminal with one file open."""

    def __init__(self, folder: Path, command: list[str], settings: str = "", home: Path | None = None) -> None:
        program = need_emacs()
        self.folder = folder
        self._sockets = Path(tempfile.mkdtemp(prefix="forelook-"))  # a socket's path must be short
        self._env = environment(home or folder / "home")
        if "EMACSLOADPATH" in os.environ:
            self._env["EMACSLOADPATH"] = os.environ["EMACSLOADPATH"]
        words = " ".join(json.dumps(word) for word in command)
        init = folder / "init.el"
        init.write_text(INIT % (PACKAGE, self._sockets, words, settings), encoding="utf-8")
        self.terminal = Terminal(
            [program, "-nw", "-Q", "-l", str(init)], {**self._env, "TERM": "screen-256color"}, rows=20
        )
        try:
            poll(self._answers, "Emacs to start its server")
        except AssertionError as error:
            raise AssertionError(f"{error}; the screen:\n{self.terminal.screen()}") from None

    def _answers(self) -> bool:
        return (self._sockets / "forelook").exists() and self._client("t").returncode == 0

    def _client(self, form: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["emacsclient", "-s", str(self._sockets / "forelook"), "--eval", form],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            env=self._env,
        )

    def close(self) -> None:
        """End it without questions."""
        self._client("(kill-emacs)")
        self.terminal.close()
        shutil.rmtree(self._sockets, ignore_errors=True)

    def eval(self, form: str) -> Any:
        """The value of a form, by way of JSON; nil is ``None``."""
        done = self._client(
            f"(let ((value {form})) (base64-encode-string (encode-coding-string"
            " (json-serialize (list :value value) :null-object nil :false-object :json-false) 'utf-8) t))"
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(base64.b64decode(done.stdout.strip().strip('"')))["value"]

    def run(self, form: str) -> None:
        """Evaluate a form in the file's buffer for its effect."""
        done = self._client(f"(with-current-buffer (window-buffer (selected-window)) {form} nil)")
        assert done.returncode == 0, done.stderr + done.stdout

    def sync(self) -> None:
        """Wait for an answer of the server to something of no interest; everything it sent before is then handled."""
        self.run('(jsonrpc-request (forelook--server) :workspace/executeCommand \'(:command "sync"))')

    def open(self, name: str, text: str | bytes) -> Path:
        """Write a file, open it, and wait until the server can be asked."""
        path = self.folder / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        self._client(f"(progn (find-file {json.dumps(str(path))}) nil)")
        # Eglot starts after the next command.
        self.press("C-@")
        self.wait_until_ready()
        return path

    def wait_until_ready(self) -> None:
        poll(lambda: self.state()["ready"], lambda: f"Eglot to be connected; the screen:\n{self.terminal.screen()}")

    def state(self) -> dict[str, Any]:
        return self.eval("(rig-state)")

    def type(self, text: str) -> None:
        self.terminal.type(text)

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names: ``C-e``, ``M-Right`` …"""
        self.terminal.press(*keys)

    def goto(self, offset: int) -> None:
        """Put point after so many characters."""
        self.run(f"(goto-char {offset + 1})")

    def wait_for_ghost(self, text: str) -> None:
        poll(
            lambda: self.state()["ghost"] == text,
            lambda: f"ghost text {text!r}; {self.state()}; the screen:\n{self.terminal.screen()}",
        )

    def wait_for_no_ghost(self) -> None:
        self.wait_for_ghost("")

    def wait_for_text(self, text: str) -> None:
        poll(lambda: self.state()["text"] == text, lambda: f"buffer {text!r}; it is {self.state()['text']!r}")
