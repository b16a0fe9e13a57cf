"""Text of other open files that helps at a cursor: similar windows, and signatures of imported names."""

from __future__ import annotations

from collections.abc import Sequence

from forelook.completion.documents import Document


class ContextChooser:
    """Remembers open documents by recency and chooses context from them."""

    def __init__(self) -> None:
        self._recent: dict[str, Document] = {}

    def touch(self, document: Document) -> None:
        """Note that a document was opened, edited or asked about."""
        self._recent.pop(document.uri, None)
        self._recent[document.uri] = document

    def forget(self, uri: str) -> None:
        """A document was closed."""
        self._recent.pop(uri, None)

    def latest(self, uri: str) -> Document | None:
        """The newest snapshot of an open document."""
        return self._recent.get(uri)

    def choose(self, document: Document, offset: int) -> Sequence[str]:
        """Context for a cursor, most useful first."""
        del document, offset
        return ()
