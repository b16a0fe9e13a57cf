"""A small shop: what the end-to-end tests type into."""

import json
from dataclasses import dataclass


@dataclass
class Item:
    name: str
    price: float
    quantity: int = 0


class Shop:
    def __init__(self, path: str) -> None:
        self.path = path
        self.items: dict[str, Item] = {}

    def load(self) -> None:
        with open(self.path, encoding="utf-8") as file:
            for entry in json.load(file):
                self.items[entry["name"]] = Item(**entry)

    def add(self, item: Item) -> None:
        if item.name in self.items:
            self.items[item.name].quantity += item.quantity
        else:
            self.items[item.name] = item

    def remove(self, name: str) -> None:
        if name not in self.items:
            raise KeyError(name)
        del self.items[name]

    def total(self) -> float:
        total = 0.0
        for item in self.items.values():
            total += item.price * item.quantity
        return total
