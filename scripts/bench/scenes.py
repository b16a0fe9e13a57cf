"""Cursors for the demo: pieces of real code that are removed and requested again."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Scene:
    """A cursor in a document from which ``removed`` was deleted."""

    name: str
    before: str
    removed: str
    after: str

    @property
    def text(self) -> str:
        return self.before + self.after


def scenes(source: str) -> Iterator[Scene]:
    """Yield one scene of each kind, found with the file's own syntax tree."""
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))

    def offset(line: int, column_bytes: int) -> int:
        return starts[line - 1] + len(lines[line - 1].encode()[:column_bytes].decode())

    def scene(name: str, first: ast.expr | ast.stmt, end: int) -> Scene:
        start = offset(first.lineno, first.col_offset)
        return Scene(name, source[:start], source[start:end], source[end:])

    def end_of(node: ast.expr | ast.stmt, trim: int = 0) -> int:
        return offset(node.end_lineno or node.lineno, (node.end_col_offset or 0) - trim)

    nodes = sorted(
        (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.expr | ast.stmt)),
        key=lambda n: (n.lineno, n.col_offset),
    )
    for node in nodes:
        value = node.value if isinstance(node, ast.Return | ast.Assign) else None
        if value is None or value.lineno != value.end_lineno:
            continue
        if (value.end_col_offset or 0) - value.col_offset > 20:
            yield scene("end of a line", value, end_of(value))
            break
    for node in nodes:
        if not isinstance(node, ast.Call) or not node.args or node.keywords or node.lineno != node.end_lineno:
            continue
        if (node.args[-1].end_col_offset or 0) - node.args[0].col_offset > 8:
            yield scene("inside a call", node.args[0], end_of(node, trim=1))
            break
    for node in nodes:
        if not isinstance(node, ast.FunctionDef):
            continue
        body = node.body[1:] if ast.get_docstring(node) else node.body
        if body and body[0].lineno > node.lineno and not isinstance(body[0], ast.Pass | ast.Raise):
            found = scene("empty function body", body[0], end_of(body[-1]))
            if found.removed.count("\n") < 8 and "..." not in found.removed:
                yield found
                break
