"""A document with a cursor, which every client asks about."""

from __future__ import annotations

PREFIX = '''"""Orders of a small shop."""

from __future__ import annotations

import json
from pathlib import Path


class Order:
    def __init__(self, name: str, price: int, quantity: int = 1) -> None:
        self.name = name
        self.price = price
        self.quantity = quantity

    def total(self) -> int:
        return self.price * self.quantity


def read_orders(path: Path) -> list[Order]:
    with open(path, encoding="utf-8") as file:
        return [Order(**line) for line in json.load(file)]


def write_orders(path: Path, orders: list[Order]) -> None:
    with open('''
SUFFIX = """
        json.dump([vars(order) for order in orders], file)


def main() -> None:
    orders = read_orders(Path("orders.json"))
    print(sum(order.total() for order in orders))
"""
STARTER_PROMPT = f"<PRE><SUF>{SUFFIX}<MID>{PREFIX}"
"""The same in the starter model's format, as a client writes it that formats prompts itself."""
