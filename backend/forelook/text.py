"""Common ends of two sequences, the size of a text as UTF-8, and text of peers made fit for a log line."""

from __future__ import annotations

from typing import Any, TypeVar

Sliceable = TypeVar("Sliceable", str, bytes, list[Any], tuple[Any, ...])


def common_prefix(left: Sliceable, right: Sliceable) -> int:
    """Number of leading elements that two sequences of the same type share."""
    low, high = 0, min(len(left), len(right))
    # Comparing slices runs in C: bisection over slices beats a loop over elements.
    if left[:high] == right[:high]:
        return high
    while high - low > 1:  # the prefixes of length `low` are equal, those of length `high` are not
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low


def common_suffix(left: Sliceable, right: Sliceable) -> int:
    """Number of trailing elements that two sequences of the same type share."""
    low, high = 0, min(len(left), len(right))
    if left[len(left) - high :] == right[len(right) - high :]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if left[len(left) - middle : len(left) - low] == right[len(right) - middle : len(right) - low]:
            low = middle
        else:
            high = middle
    return low


def utf8_size_above(text: str, limit: int) -> int | None:
    """Size of ``text`` in bytes if that exceeds ``limit``, else ``None``.

    Encodes the text only if it has more than a quarter of ``limit`` in code points, each of which takes one to four
    bytes.
    """
    if 4 * len(text) <= limit:
        return None
    size = len(text.encode("utf-8", "surrogatepass"))
    return size if size > limit else None


def printable(text: str) -> str:
    """``text`` on one line: control characters and other unprintable ones are escaped, as in a Python literal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
