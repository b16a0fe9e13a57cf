"""Context from other open files: signatures of imported names, and windows similar to the text around the cursor.

Choosing context takes milliseconds per file, so it happens between requests. A request uses the last choice for its
document, and the choice changes only after the cursor has moved, because prompts with equal starts share a KV cache.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from forelook.completion.cursor.parsing import parse
from forelook.completion.document_store import Document, model_text
from forelook.completion.prompt.files import FileContext
from forelook.keys import DocumentKey
from forelook.languages import Language, language_for

if TYPE_CHECKING:
    import tree_sitter

# All of these are chosen, not measured.
_MAX_NEIGHBORS = 20
_MAX_NEIGHBOR_CHARS = 200_000
_REFERENCE_LINES = 40  # before the cursor; their identifiers are compared with those of a window
_MAX_WINDOWS = 4
_MIN_SIMILARITY = 0.1  # Jaccard index of the identifiers
_MOVED_LINES = 30  # a cursor that has moved farther gets a new choice
_MAX_SIGNATURE_LINES = 8
_MAX_SIGNATURES = 12
_MAX_WINDOW_CHARS = 8_000  # minified code is no context
_MAX_REFERENCE_CHARS = 8_000
_IDENTIFIER = re.compile(r"[A-Za-z_]\w{2,}")


@dataclass(frozen=True, slots=True)
class _Window:
    """Consecutive lines of a file and their identifiers."""

    text: str
    words: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Neighbor:
    """The windows and signatures of one version of another open file."""

    version: int
    windows: tuple[_Window, ...]
    signatures: dict[str, str]


@dataclass(slots=True)
class _Choice:
    """The context chosen for a document, and the cursor line at that time."""

    line: int
    neighbors: frozenset[DocumentKey]
    texts: tuple[FileContext, ...] = ()


@dataclass(slots=True)
class _Wish:
    """A document that needs a new choice of context."""

    document: Document
    offset: int
    left: list[DocumentKey] = field(default_factory=list)


class ContextChooser:
    """Chooses context from the recently used documents, in small steps of work.

    Args:
        window_lines: lines per window, a fraction of what a prompt has room for.
    """

    def __init__(self, window_lines: int = 24) -> None:
        self._window_lines = window_lines
        self._recent: OrderedDict[DocumentKey, Document] = OrderedDict()  # most recently used last
        self._neighbors: dict[DocumentKey, _Neighbor] = {}
        self._choices: dict[DocumentKey, _Choice] = {}
        self._wish: _Wish | None = None

    def touch(self, document: Document) -> None:
        """Record that a document was opened, edited or completed."""
        self._recent[document.key] = document
        self._recent.move_to_end(document.key)

    def forget(self, key: DocumentKey) -> None:
        """Drop a closed document and every choice that contains its text."""
        self._recent.pop(key, None)
        self._neighbors.pop(key, None)
        self._choices = {
            other: choice for other, choice in self._choices.items() if other != key and key not in choice.neighbors
        }

    def latest(self, key: DocumentKey) -> Document | None:
        """The newest snapshot of an open document."""
        return self._recent.get(key)

    def choose(self, document: Document, offset: int) -> Sequence[FileContext]:
        """The last choice of context for a document, most useful first; requests a new choice if it is outdated."""
        choice = self._choices.get(document.key)
        line = document.text.count("\n", 0, offset)
        neighbors = self._neighbors_of(document)
        if choice is None or abs(choice.line - line) > _MOVED_LINES or choice.neighbors != frozenset(neighbors):
            if neighbors:
                self._wish = _Wish(document, offset, list(neighbors))
            elif choice is not None:
                del self._choices[document.key]
                return ()
        return choice.texts if choice is not None else ()

    @property
    def has_work(self) -> bool:
        """Whether a document needs a new choice of context."""
        return self._wish is not None

    def work(self) -> DocumentKey | None:
        """Read one more file; returns the key of the document whose context has changed, if any."""
        wish = self._wish
        if wish is None:
            return None
        if wish.left:
            self._read(wish.left.pop())
            return None
        self._wish = None
        document = wish.document
        texts = self._best(document, wish.offset)
        old = self._choices.get(document.key)
        line = document.text.count("\n", 0, wish.offset)
        self._choices[document.key] = _Choice(line, frozenset(self._neighbors_of(document)), texts)
        return document.key if texts != (old.texts if old is not None else ()) else None

    def _neighbors_of(self, document: Document) -> list[DocumentKey]:
        """Other open files of the workspace and language family, most recently used first."""
        language = language_for(document.language_id)
        found: list[DocumentKey] = []
        for key, other in reversed(self._recent.items()):
            if len(found) == _MAX_NEIGHBORS:
                break
            same = other.workspace == document.workspace and language_for(other.language_id) is language
            if same and key != document.key and 0 < len(other.text) <= _MAX_NEIGHBOR_CHARS:
                found.append(key)
        return sorted(found)

    def _read(self, key: DocumentKey) -> None:
        document = self._recent.get(key)
        known = self._neighbors.get(key)
        if document is None or (known is not None and known.version == document.version):
            return
        text = model_text(document.text)
        lines = text.split("\n")
        step = max(1, self._window_lines // 2)
        windows = []
        for start in range(0, max(1, len(lines) - step), step):
            part = "\n".join(lines[start : start + self._window_lines]).strip("\n")
            words = frozenset(_IDENTIFIER.findall(part)) if len(part) <= _MAX_WINDOW_CHARS else frozenset()
            if words:
                windows.append(_Window(part, words))
        self._neighbors[key] = _Neighbor(
            document.version, tuple(windows), signatures_of(language_for(document.language_id), text)
        )

    def _best(self, document: Document, offset: int) -> tuple[FileContext, ...]:
        before = model_text(document.text[:offset])
        after = model_text(document.text[offset : offset + 2000])
        above = "\n".join(before[-_MAX_REFERENCE_CHARS:].split("\n")[-_REFERENCE_LINES:])
        reference = frozenset(_IDENTIFIER.findall("\n".join([above, *after.split("\n")[:8]])))
        if not reference:
            return ()
        language = language_for(document.language_id)
        imported = imported_names(language, before)
        signatures: list[FileContext] = []
        num_left = _MAX_SIGNATURES
        ranked: list[tuple[float, DocumentKey, int, str]] = []
        for key in self._neighbors_of(document):
            neighbor = self._neighbors.get(key)
            if neighbor is None:
                continue
            named = [text for name, text in sorted(neighbor.signatures.items()) if name in imported][:num_left]
            if named:
                num_left -= len(named)
                heads = "\n".join(named)
                signatures.append(FileContext(self._recent[key].path, heads, f"{heads}\n"))
            best = max(
                (
                    (len(window.words & reference) / len(window.words | reference), key, index, window.text)
                    for index, window in enumerate(neighbor.windows)
                ),
                default=None,
            )
            if best is not None and best[0] >= _MIN_SIMILARITY:
                ranked.append(best)
        ranked.sort(reverse=True)
        # Most useful first. A stable order keeps the KV cache valid.
        windows = [
            FileContext(self._recent[key].path, text, _headed(language, key.uri, text))
            for _, key, _, text in ranked[:_MAX_WINDOWS]
        ]
        return (*reversed(signatures), *windows)


def signatures_of(language: Language, text: str) -> dict[str, str]:
    """Heads of the functions and types that a file defines, by name; a class includes the heads of its methods."""
    tree = parse(language, text)
    if tree is None:
        return {}
    data = text.encode("utf-8", "replace")
    found: dict[str, str] = {}
    for node in _definitions(language, tree.root_node):
        name = node.child_by_field_name("name") or node.child_by_field_name("declarator")
        if name is None:
            continue
        match = _IDENTIFIER.search(_text(data, name))
        if match is None or match.group() in found:
            continue
        lines = [_head(data, node)]
        body = node.child_by_field_name("body")
        if body is not None and "class" in node.type:
            lines += ["    " + _head(data, method) for method in _definitions(language, body)]
        found[match.group()] = "\n".join(lines[:_MAX_SIGNATURE_LINES])
    return found


def imported_names(language: Language, text: str) -> frozenset[str]:
    """Identifiers in the top-level import statements of a file."""
    tree = parse(language, text[:20_000])
    if tree is None:
        return frozenset()
    data = text[:20_000].encode("utf-8", "replace")
    names: set[str] = set()
    for node in tree.root_node.named_children:
        if node.type in language.import_nodes:
            names.update(_IDENTIFIER.findall(_text(data, node)))
    return frozenset(names)


def _definitions(language: Language, node: tree_sitter.Node) -> list[tree_sitter.Node]:
    """Definitions directly below a node, including those in exports, decorators and namespaces."""
    found: list[tree_sitter.Node] = []
    for child in node.named_children:
        if child.type in language.signature_nodes:
            found.append(child)
        elif child.type in language.wrapper_nodes:
            found += _definitions(language, child)
    return found


def _head(data: bytes, node: tree_sitter.Node) -> str:
    """The text of a definition before its body, on one line."""
    body = node.child_by_field_name("body")
    end = body.start_byte if body is not None else node.end_byte
    return " ".join(data[node.start_byte : min(end, node.start_byte + 400)].decode("utf-8", "replace").split())


def _text(data: bytes, node: tree_sitter.Node) -> str:
    return data[node.start_byte : node.end_byte].decode("utf-8", "replace")


def _headed(language: Language, uri: str, text: str) -> str:
    """A window below a comment with its file name, if the language has comments."""
    name = uri.rsplit("/", 1)[-1]
    if language.line_comments:
        return f"{language.line_comments[0]} {name}\n{text}\n\n"
    if language.block_comments:
        start, end = language.block_comments[0]
        return f"{start} {name} {end}\n{text}\n\n"
    return f"{text}\n\n"
