"""Draft tokens of one step, merged into a trie."""

from __future__ import annotations

from collections.abc import Sequence


class DraftTree:
    """A trie of draft tokens; node 0 is the token before them, and a node's number exceeds its parent's.

    Attributes:
        token_ids: [n] tokens of nodes 1 .. n.
        parents: [n] their parents.
        children: [n+1] per node, token id → child.
    """

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.parents: list[int] = []
        self.children: list[dict[int, int]] = [{}]

    def __len__(self) -> int:
        """Number of draft nodes; node 0 is not counted."""
        return len(self.token_ids)

    def add_child(self, parent: int, token_id: int) -> int:
        """The parent's child with this token, made if there is none."""
        node = self.children[parent].get(token_id)
        if node is None:
            node = len(self.children)
            self.children[parent][token_id] = node
            self.children.append({})
            self.token_ids.append(token_id)
            self.parents.append(parent)
        return node

    def add_path(self, token_ids: Sequence[int], max_nodes: int | None = None) -> None:
        """Merge one chain from node 0, as far as it needs no more than ``max_nodes`` nodes in all."""
        node = 0
        for token_id in token_ids:
            if max_nodes is not None and len(self) >= max_nodes and token_id not in self.children[node]:
                return
            node = self.add_child(node, token_id)
