"""The n-gram pool: documents of a workspace as a draft source.

Which tokens followed the tokens before the cursor, wherever they stood before? Longest matches weigh most, then the
same file, recent files, and files whose drafts were accepted. Continuations that agree are merged, and each draft token
carries the share of the evidence behind it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

import numpy as np

from forelook.decoding.drafts import Draft, DraftOrigin
from forelook.decoding.ngram_index import BORDER, MAX_MATCH, MAX_REACH, Evidence, NgramIndex, TokenArray
from forelook.errors import ConfigError

_EVIDENCE_LIMIT = 24
_MIN_PROBABILITY = 0.01
_NO_TOKENS: TokenArray = np.zeros(0, dtype=np.int32)


def _match_weights() -> tuple[float, ...]:
    """Weight of evidence by how many tokens agree before it."""
    weights = [0.0, 0.5, 1.5, 3.0, 6.0]
    while len(weights) <= MAX_MATCH + MAX_REACH:
        weights.append(min(weights[-1] * 1.5, 200.0))
    return tuple(weights)


_WEIGHTS = _match_weights()
_ESCAPE = 1.0


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
        own = self._documents.get(document) if document is not None else None
        owner = own.owner if own is not None else 0
        reach = min(max_length, MAX_REACH)
        evidence = self._index.find(context, limit=_EVIDENCE_LIMIT, reach=reach, owner=owner)
        return self._drafts(evidence, owner, max_candidates, reach, origin)

    def _drafts(
        self, evidence: Evidence, owner: int, max_candidates: int, reach: int, origin: DraftOrigin
    ) -> list[Draft]:
        matches = evidence.match_lengths
        rows = evidence.continuations
        factors = [
            (2.0 if who == owner else 1.0) * self._by_owner[who].weight if who else 0.0 for who in evidence.owners
        ]
        members = [i for i, match in enumerate(matches) if match > 0]
        drafts: list[Draft] = []
        heap: list[tuple[float, int, list[int], tuple[int, ...], tuple[float, ...]]] = []
        if members:
            heap.append((-1.0, 0, members, (), ()))
        ticket = 0
        while heap and len(drafts) < max_candidates:
            negative, _, members, path, shares = heappop(heap)
            probability = -negative
            while len(path) < reach:
                depth = len(path)
                children: dict[int, list[int]] = {}
                weights: dict[int, float] = {}
                total = _ESCAPE
                for i in members:
                    token = rows[i][depth]
                    if token == BORDER:
                        continue
                    weight = factors[i] * _WEIGHTS[matches[i] + depth]
                    total += weight
                    if token in children:
                        children[token].append(i)
                        weights[token] += weight
                    else:
                        children[token] = [i]
                        weights[token] = weight
                if not children:
                    break
                best = max(weights, key=weights.__getitem__)
                for token, weight in weights.items():
                    if token == best:
                        continue
                    share = weight / total
                    if probability * share >= _MIN_PROBABILITY:
                        ticket += 1
                        heappush(
                            heap, (-probability * share, ticket, children[token], (*path, token), (*shares, share))
                        )
                share = weights[best] / total
                probability *= share
                if probability < _MIN_PROBABILITY:
                    break
                members = children[best]
                path = (*path, best)
                shares = (*shares, share)
            if path:
                drafts.append(Draft(path, shares, max(matches[i] for i in members), origin))
        return drafts
