"""Plugins that other people wrote, in a real headless Neovim that shows what a server answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.editors.nvim_rig import GHOST, attach, environment
from tests.editors.rig import poll
from tests.http_clients.documents import PREFIX, SUFFIX

TIMEOUT_S = 30.0


def llama_vim(plugin: Path, folder: Path, url: str, key: str) -> Path:
    """An init file with llama.vim."""
    config = {"endpoint_fim": f"{url}/infill", "api_key": key, "show_info": 0, "t_max_predict_ms": 5_000}
    init = folder / "init.vim"
    init.write_text(
        f"set runtimepath^={plugin}\nset noswapfile noautoindent\n"
        f"let g:llama_config = json_decode('{json.dumps(config)}')\n"
    )
    return init


def minuet(plugin: Path, folder: Path, url: str, key: str, template: str = "") -> Path:
    """An init file with minuet-ai.nvim; ``template`` is Lua for how it formats prompts, its own way by default."""
    init = folder / "init.lua"
    init.write_text(f"""
vim.opt.runtimepath:prepend([[{plugin}]])
vim.o.swapfile = false
require('minuet').setup {{
  provider = 'openai_fim_compatible', n_completions = 1, context_window = 4000, throttle = 0, debounce = 50,
  request_timeout = 20,
  virtualtext = {{ auto_trigger_ft = {{ 'python' }}, keymap = {{ accept = '<A-a>' }} }},
  provider_options = {{ openai_fim_compatible = {{
    api_key = function() return '{key}' end, name = 'Forelook', end_point = '{url}/v1/completions',
    model = 'forelook', optional = {{ max_tokens = 24 }}, {template}
  }} }},
}}
""")
    return init


STARTER_TEMPLATE = """
template = {
  prompt = function(before, after, _) return '<PRE><SUF>' .. after .. '<MID>' .. before end,
  suffix = false,
},
"""


class Editor:
    """A Neovim with the document of these tests, in insert mode where its text is missing."""

    def __init__(self, rpc: Any, namespace: str) -> None:
        self._rpc = rpc
        self._namespace = namespace

    def type(self, keys: str) -> None:
        """Type keys in Neovim's notation."""
        self._rpc.input(keys)

    def ghost(self) -> str:
        """The virtual text on screen."""
        marks = self._rpc.exec_lua(GHOST, self._namespace)
        return "\n".join(["".join(mark["text"] for mark in marks), *(line for mark in marks for line in mark["lines"])])

    def wait_for_ghost(self) -> str:
        """Wait for a suggestion and return it."""
        return poll(lambda: self.ghost().strip() and self.ghost(), "a suggestion on the screen", TIMEOUT_S)

    def text(self) -> str:
        """The buffer."""
        return "\n".join(self._rpc.api.buf_get_lines(0, 0, -1, True)) + "\n"

    def messages(self) -> str:
        """What the editor told its user."""
        return str(self._rpc.command_output("messages"))


@contextmanager
def editing(program: str, folder: Path, init: Path, namespace: str) -> Iterator[Editor]:
    """A Neovim whose user has just opened the document and moved to the cursor."""
    document = folder / "orders.py"
    document.write_text(PREFIX + SUFFIX)
    rpc = attach(program, init, environment(folder / "home"))
    try:
        rpc.command("set columns=120 lines=40")
        rpc.command(f"edit {document}")
        rpc.api.win_set_cursor(0, (PREFIX.count("\n") + 1, 0))
        rpc.input("A")
        poll(lambda: rpc.api.get_mode()["mode"] == "i", "insert mode")
        yield Editor(rpc, namespace)
    finally:
        try:
            rpc.command("qall!")
        except (OSError, EOFError):
            pass  # it closes the channel before it answers
        finally:
            rpc.close()
