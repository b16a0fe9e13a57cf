"""Which files and folders a key of the pool stands for."""

from __future__ import annotations

from collections.abc import Iterator


def file_names(key: str) -> Iterator[str]:
    """The files that a key may stand for: without the number of a window or the name of a notebook's cell."""
    return _shortened(key, "#")


def with_folders(path: str) -> Iterator[str]:
    """A path and the folders above it."""
    return _shortened(path, "/")


def _shortened(text: str, separator: str) -> Iterator[str]:
    """A text, then what stands before each separator, the last one first; never an empty text."""
    yield text
    end = text.rfind(separator)
    while end > 0:
        yield text[:end]
        end = text.rfind(separator, 0, end)
