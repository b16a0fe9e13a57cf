"""Orders of a shop."""

from shop import Item, Shop


class Order:
    def __init__(self, shop: Shop, customer: str) -> None:
        self.shop = shop
        self.customer = customer
        self.items: list[Item] = []

    def add(self, item: Item) -> None:
        self.items.append(item)

    def total(self) -> float:
        total = 0.0
        for item in self.items:
            total += item.price * item.quantity
        return total
