"""Orders of a small shop."""

from __future__ import annotations

import os.path
from dataclasses import dataclass, field
from functools import lru_cache

RATES = {"books": 0.07, "food": 0.05, "other": 0.19}
NAMES = ["ada", "grace", "edsger"]
PATTERN = r"(\d+)\s*x\s*(\w+)"


@dataclass(frozen=True)
class Item:
    """One line of an order (quantity [pieces], price {cents})."""

    name: str
    price: int
    quantity: int = 1
    tags: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        # It isn't rounded: cents are whole numbers.
        return self.price * self.quantity


@lru_cache(maxsize=128)
def rate_of(kind: str, *, default: float = 0.19) -> float:
    return RATES.get(kind, default)


def invoice(items: list[Item], folder: str = "out") -> str:
    result = 0
    lines = []
    for number, item in enumerate(items, start=1):
        if item.quantity > 1 and not (item.price < 0 or item.name == ""):
            lines.append(f"{number:>3} {item.name!r} x{item.quantity} {item.total / 100:.2f}")
        else:
            lines.append("{}: {}".format(number, item.name))
        result += item.total
    path = os.path.join(folder, "invoice.txt")
    try:
        with open(path, "w", encoding="utf-8") as file:
            print("\n".join(lines), file=file)
    except (OSError, ValueError) as error:
        raise RuntimeError(f"cannot write {path}: {error}") from error
    return f"""
Total: {result:,}
{"=" * 10}
"""


squares = [x**2 for x in range(0x10) if x % 2]
total = sum(lambda_(n) for n, lambda_ in zip(squares, [abs, int]))
