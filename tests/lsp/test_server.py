"""The language server as an editor sees it, over stdio."""

from __future__ import annotations

from tests.lsp.conftest import URI
from tests.lsp.fake_backend import FakeBackend
from tests.lsp.lsp_client import LspClient, range_of


async def test_a_suggestion_reaches_the_editor(editor: LspClient, backend: FakeBackend) -> None:
    backend.script = lambda text, params: "n total\n    # done"
    await editor.open(URI, "def f():\n    retur")
    items = await editor.complete(URI, 1, 9)
    assert items[0]["insertText"] == "    return total\n    # done"
    assert items[0]["range"] == range_of(1, 0, 1, 9)
