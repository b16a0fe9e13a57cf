"""Notebooks: the cells of a language are one text for the backend, and every position stays in its cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from bench.lsp_client import LspClient, range_of
from forelook.protocol import messages
from forelook_lsp.notebooks import language_of_cell
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lsp.fake_backend import FakeBackend

NOTEBOOK = "file:///home/ada/project/n.ipynb"
PYTHON = f"{NOTEBOOK}#python"


def cell_uri(name: str) -> str:
    return f"vscode-notebook-cell:/home/ada/project/n.ipynb#{name}"


class NotebookEditor:
    """An editor with one notebook, which keeps what its cells should contain."""

    def __init__(self, editor: LspClient) -> None:
        self.editor = editor
        self.version = 1
        self.order: list[str] = []
        self.texts: dict[str, str] = {}
        self.languages: dict[str, str] = {}

    async def open(self, cells: Sequence[tuple[str, str, str]]) -> None:
        """Open the notebook with cells of a name, a language id and a text."""
        await self.editor.notify(
            "notebookDocument/didOpen",
            {
                "notebookDocument": {
                    "uri": NOTEBOOK,
                    "notebookType": "jupyter-notebook",
                    "version": 1,
                    "cells": [{"kind": 2, "document": cell_uri(name)} for name, _, _ in cells],
                },
                "cellTextDocuments": [self._item(*cell) for cell in cells],
            },
        )
        self.order = [name for name, _, _ in cells]

    def _item(self, name: str, language_id: str, text: str) -> dict[str, Any]:
        self.texts[name], self.languages[name] = text, language_id
        return {"uri": cell_uri(name), "languageId": language_id, "version": 1, "text": text}

    async def _change(self, cells: dict[str, Any]) -> None:
        self.version += 1
        params = {"notebookDocument": {"uri": NOTEBOOK, "version": self.version}, "change": {"cells": cells}}
        await self.editor.notify("notebookDocument/didChange", params)

    async def replace_cells(
        self, start: int, num_deleted: int, order: Sequence[str], opened: Sequence[tuple[str, str, str]] = ()
    ) -> None:
        array = {
            "start": start,
            "deleteCount": num_deleted,
            "cells": [{"kind": 2, "document": cell_uri(name)} for name in order],
        }
        gone = set(self.order[start : start + num_deleted]) - set(order)
        self.order[start : start + num_deleted] = order
        closed = [{"uri": cell_uri(name)} for name in gone]
        items = [self._item(*cell) for cell in opened]
        await self._change({"structure": {"array": array, "didOpen": items, "didClose": closed}})

    async def edit(self, name: str, line: int, start: int, end: int, text: str) -> None:
        """Replace a part of one line."""
        lines = self.texts[name].split("\n")
        lines[line] = lines[line][:start] + text + lines[line][end:]
        self.texts[name] = "\n".join(lines)
        change = {"range": range_of(line, start, line, end), "text": text}
        document = {"uri": cell_uri(name), "version": self.version + 1}
        await self._change({"textContent": [{"document": document, "changes": [change]}]})

    def expected(self) -> dict[str, str]:
        """The backend's documents."""
        texts: dict[str, list[str]] = {}
        for name in self.order:
            language = language_of_cell(self.languages[name], self.texts[name])
            texts.setdefault(f"{NOTEBOOK}#{language}", []).append(self.texts[name])
        return {uri: "\n".join(parts) for uri, parts in texts.items()}


FEE = "def compute_shipping_fee(weight, distance):\n    return weight * distance"


async def test_the_cells_before_and_after_are_part_of_the_text_around_the_cursor(
    editor: LspClient, backend: FakeBackend
) -> None:
    notebook = NotebookEditor(editor)
    await notebook.open(
        [
            ("a", "python", FEE),
            ("note", "markdown", "# Fees"),
            ("shell", "python", "%%bash\nls -l"),
            ("b", "python", "x = 1\nfee = compute_s"),
            ("c", "python", "%time\nprint(fee)"),
        ]
    )
    asked: list[tuple[str, str]] = []

    def script(text: str, params: messages.CompletionParams) -> str:
        asked.append((text[: params.offset], text[params.offset :]))
        return "hipping_fee(3, 4)"

    backend.script = script
    (item,) = await editor.complete(cell_uri("b"), 1, 15)
    assert asked == [(FEE + "\nx = 1\nfee = compute_s", "\n%time\nprint(fee)")]
    assert (item["insertText"], item["range"]) == ("fee = compute_shipping_fee(3, 4)", range_of(1, 0, 1, 15))
    await backend.wait_until(lambda: backend.connections[0].texts == notebook.expected())
    assert set(backend.connections[0].texts) == {PYTHON, f"{NOTEBOOK}#markdown", f"{NOTEBOOK}#shellscript"}


async def test_an_answer_does_not_outlive_what_another_cell_said(editor: LspClient, backend: FakeBackend) -> None:
    notebook = NotebookEditor(editor)
    await notebook.open([("a", "python", "import x"), ("b", "python", "x.")])
    await editor.complete(cell_uri("b"), 0, 2)
    await editor.complete(cell_uri("b"), 0, 2)
    assert len(backend.completions) == 1
    await notebook.edit("a", 0, 7, 8, "y as x")
    await editor.complete(cell_uri("b"), 0, 2)
    assert len(backend.completions) == 2


async def test_a_suggestion_that_would_replace_text_of_the_next_cell_is_not_shown(
    editor: LspClient, backend: FakeBackend
) -> None:
    notebook = NotebookEditor(editor)
    await notebook.open([("a", "python", "f(a"), ("b", "python", ")")])
    backend.script, backend.num_replaced = lambda _text, _params: "b)\n)", 2
    assert await editor.complete(cell_uri("a"), 0, 3) == []
    backend.num_replaced = 0
    (item,) = await editor.complete(cell_uri("b"), 0, 1)
    assert item["range"] == range_of(0, 0, 0, 1)


async def test_a_cell_whose_magic_changes_moves_to_another_language(editor: LspClient, backend: FakeBackend) -> None:
    notebook = NotebookEditor(editor)
    await notebook.open([("a", "python", "x = 1"), ("b", "python", "\nls"), ("c", "python", "y")])
    await notebook.edit("b", 0, 0, 0, "%%bash")
    await editor.complete(cell_uri("c"), 0, 1)
    expected = {PYTHON: "x = 1\ny", f"{NOTEBOOK}#shellscript": "%%bash\nls"}
    await backend.wait_until(lambda: backend.connections[0].texts == expected)
    await notebook.edit("b", 0, 2, 6, "time")
    (item,) = await editor.complete(cell_uri("b"), 1, 2)
    assert item["range"] == range_of(1, 0, 1, 2)
    assert notebook.expected() == {PYTHON: "x = 1\n%%time\nls\ny"}
    await backend.wait_until(lambda: backend.connections[0].texts == notebook.expected())


async def test_closing_a_notebook_closes_all_of_it(editor: LspClient, backend: FakeBackend) -> None:
    notebook = NotebookEditor(editor)
    await notebook.open([("a", "python", "x"), ("b", "sql", "SELECT")])
    assert len(await editor.complete(cell_uri("a"), 0, 1)) == 1
    closed = {"notebookDocument": {"uri": NOTEBOOK}, "cellTextDocuments": [{"uri": cell_uri(name)} for name in "ab"]}
    await editor.notify("notebookDocument/didClose", closed)
    assert await editor.complete(cell_uri("a"), 0, 1) == []
    await backend.wait_until(lambda: not backend.connections[0].texts)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("x = 1", "python"),
        ("%matplotlib inline\nx", "python"),
        ("!ls\nx", "python"),
        ("%%time\nx", "python"),
        ("%%capture output\nx", "python"),
        ("%%bash\nls", "shellscript"),
        ("%%script bash\nls", "shellscript"),
        ("%%!\nls", "shellscript"),
        ("%%html\n<b>", "html"),
        ("%%sql\nSELECT 1", "sql"),
        ("%%js\nf()", "javascript"),
        ("%%writefile a.txt\nx", "plaintext"),
        (" %%bash\nls", "python"),
    ],
)
def test_a_cell_magic_names_the_language_of_its_cell(text: str, language: str) -> None:
    assert language_of_cell("python", text) == language


TEXTS = st.sampled_from(["", "x", "x = 1\n", "%%bash\nls", "\n\n", "é🙂 = f(\n)", "a\nb\nc"])
CELLS = st.lists(st.tuples(st.sampled_from(["python", "python", "sql"]), TEXTS), max_size=4)


async def test_after_any_changes_the_backends_text_is_the_cells_and_every_range_is_in_its_cell(
    editor: LspClient, backend: FakeBackend
) -> None:
    rounds: list[tuple[list[tuple[str, str]], list[tuple[int, int, list[tuple[str, str]], str]]]] = []

    @settings(max_examples=25, deadline=None, database=None)
    @given(CELLS, st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), CELLS, TEXTS), max_size=4))
    def draw(cells: list[tuple[str, str]], changes: list[tuple[int, int, list[tuple[str, str]], str]]) -> None:
        rounds.append((cells, changes))

    draw()
    number = 0
    for cells, changes in rounds:
        notebook = NotebookEditor(editor)

        def named(cells: list[tuple[str, str]]) -> list[tuple[str, str, str]]:
            nonlocal number
            number += len(cells)
            return [(f"{number}.{index}", language, text) for index, (language, text) in enumerate(cells)]

        await notebook.open(named(cells))
        for start, num_deleted, more, text in changes:
            start = min(start, len(notebook.order))
            opened = named(more)
            moved = notebook.order[start : start + num_deleted][1:]
            await notebook.replace_cells(start, num_deleted, [*(name for name, _, _ in opened), *moved], opened)
            if notebook.order:
                name = notebook.order[start % len(notebook.order)]
                await notebook.edit(name, 0, 0, min(1, len(notebook.texts[name].split("\n")[0])), text)
        for name in notebook.order:
            lines = notebook.texts[name].split("\n")
            units = len(lines[-1].encode("utf-16-le")) // 2
            for item in await editor.complete(cell_uri(name), len(lines) - 1, units):
                assert item["range"] == range_of(len(lines) - 1, 0, len(lines) - 1, units)
        await editor.request("workspace/executeCommand", {"command": "forelook.stats"})
        expected = notebook.expected()
        await backend.wait_until(lambda: backend.connections[0].texts == expected)  # noqa: B023 - awaited here
