"""The n-gram pool: documents of a workspace as a draft source.

Which tokens followed the tokens before the cursor, wherever they stood before? Longest matches weigh most, then the
same file, recent files, and files whose drafts were accepted. Continuations that agree are merged, and each draft token
carries the share of the evidence behind it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from forelook.decoding.drafts import Draft, DraftOrigin
from forelook.decoding.ngram_index import MAX_MATCH, MAX_REACH, NOBODY, NgramIndex, TokenArray
from forelook.decoding.ngram_ranking import ELSEWHERE, SAME_DOCUMENT, Places, rank
from forelook.errors import ConfigError

_EVIDENCE_LIMIT = 24
_SAME_DOCUMENT_FACTOR = 0.25
"""Where in the document the cursor stands is unknown here: the factor of a middling distance."""

_NO_TOKENS: TokenArray = np.zeros(0, dtype=np.int32)


@dataclass(slots=True)
class _Document:
    owner: int
    pieces: list[tuple[int, int]] = field(default_factory=list)  # (log position, length), in document order
    num_tokens: int = 0
    stamp: int = 0
    weight: float = 1.0


class NgramPool:
    """Tokens of named documents, and lookups of what followed a context in any of them."""

    def __init__(self, max_tokens: int = 1 << 20) -> None:
        if max_tokens < 1:
            raise ConfigError("max_tokens", max_tokens, "1 or more")
        self._max_tokens = max_tokens
        self._index = NgramIndex()
        self._documents: dict[Hashable, _Document] = {}
        self._by_owner: dict[int, _Document] = {}
        self._next_owner = 1
        self._clock = 0
        self._rebuild: Iterator[None] | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens of all documents."""
        return self._index.num_owned

    @property
    def num_documents(self) -> int:
        """Documents in the pool."""
        return len(self._documents)

    @property
    def nbytes(self) -> int:
        """Memory held by log and segments."""
        return self._index.nbytes

    def __contains__(self, key: Hashable) -> bool:
        return key in self._documents

    def keys(self) -> list[Hashable]:
        """All documents, the one touched longest ago first."""
        return sorted(self._documents, key=lambda key: self._documents[key].stamp)

    def tokens(self, key: Hashable) -> TokenArray:
        """A copy of a document's tokens."""
        document = self._documents[key]
        return self._read(document, 0, document.num_tokens).copy()

    # -- documents ------------------------------------------------------------------------------------------------

    def set_document(self, key: Hashable, ids: Sequence[int] | TokenArray) -> None:
        """Put a document in place of any earlier one of the same key."""
        tokens = np.asarray(ids, dtype=np.int32)
        document = self._documents.get(key)
        if document is None:
            document = _Document(self._next_owner)
            self._next_owner += 1
            self._documents[key] = document
            self._by_owner[document.owner] = document
        else:
            self._disown(document)
        document.pieces = [(self._index.append(_NO_TOKENS, tokens, _NO_TOKENS, document.owner), len(tokens))]
        document.num_tokens = len(tokens)
        self._touch(document)
        self._evict(key)

    def replace_tokens(self, key: Hashable, start: int, end: int, ids: Sequence[int] | TokenArray) -> None:
        """Replace tokens ``[start, end)`` of a document; n-grams that touched them leave the pool."""
        document = self._documents[key]
        if not 0 <= start <= end <= document.num_tokens:
            raise ConfigError("start, end", (start, end), f"a range within 0..{document.num_tokens}")
        tokens = np.asarray(ids, dtype=np.int32)
        self._touch(document)
        if start == document.num_tokens and document.pieces and self._extend(document, tokens):
            self._evict(key)
            return
        # Entries up to MAX_REACH before the edit may continue into it, entries up to MAX_MATCH after it match across
        # it: they are logged anew with the edit, between copies of what surrounds them.
        first = max(0, start - MAX_REACH)
        last = min(document.num_tokens, end + MAX_MATCH)
        lead = self._read(document, max(0, first - MAX_MATCH), first).copy()
        trail = self._read(document, last, min(document.num_tokens, last + MAX_REACH)).copy()
        middle = np.concatenate([self._read(document, first, start), tokens, self._read(document, end, last)])
        before, after = self._split(document, first, last)
        position = self._index.append(lead, middle, trail, document.owner)
        document.pieces = [*before, (position, len(middle)), *after]
        document.num_tokens += len(tokens) - (end - start)
        self._evict(key)

    def append_tokens(self, key: Hashable, ids: Sequence[int] | TokenArray) -> None:
        """Lengthen a document."""
        end = self._documents[key].num_tokens
        self.replace_tokens(key, end, end, ids)

    def remove_document(self, key: Hashable) -> None:
        """Forget a document; an unknown key is none."""
        document = self._documents.pop(key, None)
        if document is None:
            return
        del self._by_owner[document.owner]
        self._disown(document)

    def clear(self) -> None:
        """Forget everything."""
        self._index = NgramIndex()
        self._documents.clear()
        self._by_owner.clear()

    def _touch(self, document: _Document) -> None:
        self._clock += 1
        document.stamp = self._clock

    def _extend(self, document: _Document, tokens: TokenArray) -> bool:
        position, length = document.pieces[-1]
        if not self._index.extend(position + length, tokens, document.owner):
            return False
        document.pieces[-1] = (position, length + len(tokens))
        document.num_tokens += len(tokens)
        return True

    def _disown(self, document: _Document) -> None:
        for position, length in document.pieces:
            self._index.disown(position, position + length)

    def _evict(self, kept: Hashable) -> None:
        """Drop documents touched longest ago until the bound holds; the one just written goes last, and is cut."""
        while self.num_tokens > self._max_tokens and len(self._documents) > 1:
            oldest = min((key for key in self._documents if key != kept), key=lambda key: self._documents[key].stamp)
            self.remove_document(oldest)
        excess = self.num_tokens - self._max_tokens
        if excess > 0:
            document = self._documents[kept]
            self.replace_tokens(kept, 0, min(excess, document.num_tokens), _NO_TOKENS)

    def _read(self, document: _Document, start: int, end: int) -> TokenArray:
        parts = []
        offset = 0
        for position, length in document.pieces:
            low, high = max(start - offset, 0), min(end - offset, length)
            if low < high:
                parts.append(self._index.read(position + low, position + high))
            offset += length
            if offset >= end:
                break
        return np.concatenate(parts) if parts else _NO_TOKENS

    def _split(self, document: _Document, start: int, end: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """The pieces before and after tokens ``[start, end)``, which become stale."""
        before: list[tuple[int, int]] = []
        after: list[tuple[int, int]] = []
        offset = 0
        for position, length in document.pieces:
            low = min(max(start - offset, 0), length)
            high = min(max(end - offset, 0), length)
            if low:
                before.append((position, low))
            if high < length:
                after.append((position + high, length - high))
            if low < high:
                self._index.disown(position + low, position + high)
            offset += length
        return before, after

    # -- background work ------------------------------------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        """Whether :meth:`step` has something to do."""
        return self._index.has_work

    def step(self) -> bool:
        """Do a fraction of a millisecond of sorting; True when there was something to do."""
        return self._index.step()

    def settle(self) -> None:
        """Finish all sorting."""
        while self.step():
            pass

    # -- lookup ---------------------------------------------------------------------------------------------------

    def propose(
        self,
        context: Sequence[int],
        *,
        max_candidates: int,
        max_length: int,
        document: Hashable | None = None,
        origin: DraftOrigin = DraftOrigin.WORKSPACE,
    ) -> list[Draft]:
        """Guess what follows ``context``, best guess first.

        Args:
            context: the tokens before the next one.
            max_candidates: most drafts to return.
            max_length: most tokens of one draft.
            document: the document the context stands in; its entries weigh more.
            origin: what the drafts are labelled as.
        """
        places = self.places(context, reach=max_length, document=document)
        return rank(places, max_candidates=max_candidates, max_length=max_length, origin=origin)

    def places(
        self,
        context: Sequence[int],
        *,
        reach: int,
        document: Hashable | None = None,
        without: Hashable | None = None,
        limit: int = _EVIDENCE_LIMIT,
    ) -> Places:
        """Where the end of ``context`` stands in the documents.

        Args:
            context: the tokens before the next one.
            reach: tokens of continuation wanted.
            document: a document whose places weigh more.
            without: a document whose places are left out, because the caller has it at hand.
            limit: most places, the longest matches first.
        """
        owner = self._owner(document)
        left_out = self._owner(without)
        evidence = self._index.find(context, limit=limit, reach=min(reach, MAX_REACH), owner=owner, without=left_out)
        places = Places()
        by_owner = self._by_owner
        for match, who, row in zip(evidence.match_lengths, evidence.owners, evidence.continuations, strict=True):
            if match == 0:
                continue
            same = who == owner
            places.match_lengths.append(match)
            places.factors.append(by_owner[who].weight * (_SAME_DOCUMENT_FACTOR if same else 1.0))
            places.weights.append(SAME_DOCUMENT if same else ELSEWHERE)
            places.continuations.append(row)
        return places

    def _owner(self, key: Hashable | None) -> int:
        document = self._documents.get(key) if key is not None else None
        return NOBODY if document is None else document.owner
