"""Which files and folders a key of the pool stands for."""

from __future__ import annotations

from collections.abc import Iterator


def file_names(key: str) -> Iterator[str]:
    """The files that a key may stand for: without the number of a window or the name of a notebook's cell."""
    yield key
    end = key.rfind("#")
    while end > 0:
        yield key[:end]
        end = key.rfind("#", 0, end)


def with_folders(path: str) -> Iterator[str]:
    """A path and the folders above it."""
    yield path
    end = path.rfind("/")
    while end > 0:
        yield path[:end]
        end = path.rfind("/", 0, end)
