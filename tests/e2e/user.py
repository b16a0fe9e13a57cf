"""What a user does and sees: a document, the command line, ghost text."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

SOURCE = """class Point:
    def __init__(self, x, y):
        self.x = x
        self.y = y

    def plus(self, other):
        return Point(self.x + other.x, self.y + other.y)

    def minus(self, other):
        return Point(self.x - other.x, self.y - other.y)

    def times(self, other):
        return Point(self.x * other.x, self.y * other.y)

    def over(self, other):
        return Point(self.x / other.x, self.y / other.y)

    def modulo(self, other):
        return """
CURSOR = (18, 15)


def forelook(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "forelook", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def ghost_text(source: str, cursor: tuple[int, int], item: dict[str, Any]) -> str:
    """What the item adds after the cursor; its text before the cursor must be what stands there."""
    line, column = cursor
    start, end = item["range"]["start"], item["range"]["end"]
    assert start["line"] == end["line"] == line
    assert start["character"] <= column <= end["character"]
    typed = source.split("\n")[line][start["character"] : column]
    assert item["insertText"].startswith(typed)
    return str(item["insertText"][len(typed) :])


def damaged_copy(repository: Path, folder: Path, name: str, old: str, new: str) -> Path:
    """The starter model with one string replaced in one of its files."""
    model = folder / "damaged"
    shutil.copytree(repository / "backend/forelook/starter_model", model)
    text = (model / name).read_text(encoding="utf-8")
    assert old in text
    (model / name).write_text(text.replace(old, new), encoding="utf-8")
    return model
