"""The n-gram pool: documents of a workspace as a draft source.

Which tokens followed the tokens before the cursor, wherever those occurred before? Longest matches weigh most, then
recent files, and files whose drafts were accepted. Continuations that agree are merged, and each draft token has the
share of the evidence for it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from forelook.decoding.drafting.draft import ID_BITS, Draft, DraftOrigin
from forelook.decoding.layout import IntArray
from forelook.decoding.ngrams.index import (
    HEAD_TOKENS,
    MAX_MATCH,
    MAX_REACH,
    NO_OWNER,
    IndexState,
    NgramIndex,
    TokenArray,
)
from forelook.decoding.ngrams.native.library import lookup_in
from forelook.decoding.ngrams.ranking import ELSEWHERE, Places, rank
from forelook.errors import ConfigError

_EVIDENCE_LIMIT = 12  # measured: docs/decisions.md, "The workspace pool"

STALE_TOKENS = 1 << 16
"""Default number of stale tokens before they are dropped. Chosen, not measured."""

_RECENCY = 0.5
_RECENT_DOCUMENTS = 8
"""The document touched last counts one and a half times; the gain is halved after this many other documents.
Chosen, not measured."""

_CREDIT_MATCH = 3
_CREDIT_TOKENS = 64
_CREDIT = 0.1
_MOST_WEIGHT = 2.0
"""A document that continues like accepted text, wherever it agrees with this many tokens of it, moves by this share
toward twice its weight. Chosen, not measured."""

_MAX_RESTORED_WEIGHT = 1e6  # chosen, not measured: with infinite ones shares are no numbers, and have no order

_NO_TOKENS: TokenArray = np.zeros(0, dtype=np.int32)


@dataclass(slots=True)
class _Document:
    owner: int
    pieces: list[tuple[int, int]] = field(default_factory=list)  # (log position, length), in document order
    num_tokens: int = 0
    stamp: int = -1
    num_edits: int = 0
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class PoolState:
    """A pool as plain arrays, for the disk.

    Attributes:
        keys: documents, the one touched longest ago first.
        weights: their weights.
        pieces: [n, 3] document number, log position and length of each run of its tokens, in document order.
        index: the log and its segments.
    """

    keys: list[str]
    weights: list[float]
    pieces: TokenArray
    index: IndexState


def _disown(index: NgramIndex, pieces: list[tuple[int, int]]) -> None:
    for position, length in pieces:
        index.disown(position, position + length)


def pair_counts(token_ids: TokenArray) -> tuple[IntArray, IntArray]:
    """Pairs of neighbors in a text, each as one integer, and how often they occur; borders belong to no pair."""
    ids = token_ids.astype(np.int64)
    pairs = (ids[:-1] << ID_BITS | ids[1:])[(ids[:-1] >= 0) & (ids[1:] >= 0)]
    found, counts = np.unique(pairs, return_counts=True)
    return found, counts


class NgramPool:
    """Tokens of named documents, and lookups of what followed a context in any of them."""

    def __init__(
        self, max_tokens: int = 1 << 20, *, head_tokens: int = HEAD_TOKENS, stale_tokens: int = STALE_TOKENS
    ) -> None:
        """Make an empty pool.

        Args:
            max_tokens: bound; documents touched longest ago leave first.
            head_tokens: how many of the newest tokens are scanned rather than sorted.
            stale_tokens: number of stale tokens before they are dropped.
        """
        if max_tokens < 1:
            raise ConfigError("max_tokens", max_tokens, "1 or more")
        self._max_tokens = max_tokens
        self._head_tokens = head_tokens
        self._stale_tokens = stale_tokens
        self._use(NgramIndex(head_tokens=head_tokens))
        self._documents: dict[Hashable, _Document] = {}
        self._by_owner: dict[int, _Document] = {}
        self._next_owner = 1
        self._clock = 0
        self._rebuild: Iterator[None] | None = None

    def _use(self, index: NgramIndex) -> None:
        self._index = index
        self._lookup = lookup_in(index)

    @property
    def is_compiled(self) -> bool:
        """Whether lookups are compiled; without a C compiler they are Python's, with the same results."""
        return self._lookup is not None

    @property
    def num_tokens(self) -> int:
        """Tokens of all documents."""
        return self._index.num_owned

    @property
    def num_documents(self) -> int:
        """Documents in the pool."""
        return len(self._documents)

    @property
    def num_logged(self) -> int:
        """Positions in use, stale tokens and borders included."""
        return self._index.num_logged

    @property
    def num_unsorted(self) -> int:
        """Positions that are not sorted yet."""
        return self._index.num_unsorted

    @property
    def nbytes(self) -> int:
        """Memory of log and segments in bytes."""
        return self._index.nbytes

    def __contains__(self, key: Hashable) -> bool:
        return key in self._documents

    def document_keys(self) -> list[Hashable]:
        """All documents, the one touched longest ago first."""
        return sorted(self._documents, key=lambda key: self._documents[key].stamp)

    def tokens(self, key: Hashable) -> TokenArray:
        """A copy of a document's tokens."""
        document = self._documents[key]
        return self._read(document, 0, document.num_tokens).copy()

    def token_counts(self, vocab_size: int) -> IntArray:
        """[V] how often each token occurs, also in what was replaced and is not dropped yet."""
        log = self._index.read(0, self._index.num_logged)
        return np.bincount(log[log >= 0], minlength=vocab_size)[:vocab_size]

    def pair_counts(self, num_tokens: int) -> tuple[IntArray, IntArray]:
        """Pairs of neighbors among the newest tokens, each as one integer, and how often they occur.

        Args:
            num_tokens: how many tokens to read at most.
        """
        end = self._index.num_logged
        return pair_counts(self._index.read(max(0, end - num_tokens), end))

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
            _disown(self._index, document.pieces)
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
        # it: they are logged again with the edit, between copies of their surroundings.
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

    def set_weight(self, key: Hashable, weight: float) -> None:
        """How much a document's places count, 1.0 at first: more where its drafts were accepted, less otherwise."""
        self._documents[key].weight = weight

    def credit(self, token_ids: Sequence[int]) -> None:
        """Raise the weight of the documents that accepted text could have come from, up to double.

        Args:
            token_ids: the accepted text.
        """
        agreeing: set[int] = set()
        differing: set[int] = set()
        find = (self._lookup or self._index).find
        for end in range(_CREDIT_MATCH, min(len(token_ids), _CREDIT_TOKENS)):
            found = find(token_ids[:end], limit=_EVIDENCE_LIMIT, reach=1)
            after: dict[int, set[int]] = {}
            for match, owner, row in zip(found.match_lengths, found.owners, found.continuations, strict=True):
                if match >= _CREDIT_MATCH:
                    after.setdefault(owner, set()).add(row[0])
            for owner, tokens in after.items():
                (agreeing if token_ids[end] in tokens else differing).add(owner)
        for owner in agreeing - differing:
            document = self._by_owner[owner]
            document.weight += _CREDIT * max(0.0, _MOST_WEIGHT - document.weight)

    def num_tokens_of(self, key: Hashable) -> int:
        """Tokens of a document."""
        return self._documents[key].num_tokens

    def remove_document(self, key: Hashable) -> None:
        """Forget a document; an unknown key is none."""
        document = self._documents.pop(key, None)
        if document is None:
            return
        del self._by_owner[document.owner]
        _disown(self._index, document.pieces)

    def clear(self) -> None:
        """Forget everything."""
        self._use(NgramIndex(head_tokens=self._head_tokens))
        self._rebuild = None
        self._documents.clear()
        self._by_owner.clear()

    def _touch(self, document: _Document) -> None:
        if document.stamp != self._clock:  # edits of one document in a row count once
            self._clock += 1
            document.stamp = self._clock
        document.num_edits += 1

    def _extend(self, document: _Document, tokens: TokenArray) -> bool:
        position, length = document.pieces[-1]
        if not self._index.extend(position + length, tokens, document.owner):
            return False
        document.pieces[-1] = (position, length + len(tokens))
        document.num_tokens += len(tokens)
        return True

    def _evict(self, kept: Hashable | None) -> None:
        """Drop documents touched longest ago until the bound is met; the one just written is last, and is cut."""
        if self.num_tokens <= self._max_tokens:
            return
        for key in self.document_keys():
            if key != kept and self.num_tokens > self._max_tokens:
                self.remove_document(key)
        excess = self.num_tokens - self._max_tokens
        if excess > 0 and kept is not None:
            self.replace_tokens(kept, 0, excess, _NO_TOKENS)

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
        return self._rebuild is not None or self._index.has_work or self._is_stale()

    @property
    def is_behind(self) -> bool:
        """Whether lookups miss tokens or are slow until :meth:`step` has run more often."""
        return self._index.is_behind

    def step(self) -> bool:
        """Do a fraction of a millisecond of sorting, or of dropping stale tokens; True when there was work."""
        if self._rebuild is None:
            if self._index.step():
                return True
            if not self._is_stale():
                return False
            self._rebuild = self._rebuilding()
        if next(self._rebuild, True):  # a step yields None
            self._rebuild = None
        return True

    def settle(self) -> None:
        """Finish all background work."""
        while self.step():
            pass

    @property
    def is_rebuilding(self) -> bool:
        """Whether a fresh index is being filled."""
        return self._rebuild is not None

    def drop_stale(self) -> None:
        """Begin a fresh index, so that tokens of removed documents are in no dump once it is complete."""
        self._rebuild = self._rebuilding()

    def _is_stale(self) -> bool:
        stale = self._index.num_logged - self._index.num_owned
        return stale > self._stale_tokens and stale > self._index.num_owned // 2

    def _rebuilding(self) -> Iterator[None]:
        """Copy all documents into a fresh index, then put it in place of the old one."""
        fresh = NgramIndex(self.num_tokens + self.num_tokens // 8, head_tokens=self._head_tokens)
        copied: dict[int, tuple[int, list[tuple[int, int]]]] = {}  # owner → (edits it had then, its pieces)
        for key in self.document_keys():
            if (document := self._documents.get(key)) is not None:
                copied[document.owner] = (document.num_edits, self._copy(document, fresh))
                yield
                while fresh.step():
                    yield
        # What was edited meanwhile is copied once more; that is little, so this last step is short.
        current: dict[int, list[tuple[int, int]]] = {}
        for document in self._documents.values():
            num_edits, pieces = copied.pop(document.owner, (None, []))
            if num_edits != document.num_edits:
                _disown(fresh, pieces)
                pieces = self._copy(document, fresh)
            current[document.owner] = pieces
        for _, pieces in copied.values():
            _disown(fresh, pieces)  # removed meanwhile
        for document in self._documents.values():
            document.pieces = current[document.owner]
        self._use(fresh)

    def _copy(self, document: _Document, index: NgramIndex) -> list[tuple[int, int]]:
        tokens = self._read(document, 0, document.num_tokens)
        return [(index.append(_NO_TOKENS, tokens, _NO_TOKENS, document.owner), len(tokens))]

    # -- persistence ----------------------------------------------------------------------------------------------

    def dump(self) -> PoolState:
        """The pool as plain arrays, documents with text keys only; later changes of the pool leave them alone."""
        keys = [key for key in self.document_keys() if isinstance(key, str)]
        pieces = [
            (number, position, length)
            for number, key in enumerate(keys)
            for position, length in self._documents[key].pieces
        ]
        weights = [self._documents[key].weight for key in keys]
        return PoolState(keys, weights, np.array(pieces, dtype=np.int32).reshape(-1, 3), self._index.dump())

    @classmethod
    def load(
        cls,
        state: PoolState,
        max_tokens: int,
        *,
        head_tokens: int = HEAD_TOKENS,
        stale_tokens: int = STALE_TOKENS,
    ) -> NgramPool:
        """A pool from dumped arrays; the other arguments are those of a new one.

        Raises:
            ValueError: the parts do not fit together.
        """
        pool = cls(max_tokens, head_tokens=head_tokens, stale_tokens=stale_tokens)
        if len(state.weights) != len(state.keys):
            raise ValueError("keys and weights differ in number")
        if not all(0.0 <= weight <= _MAX_RESTORED_WEIGHT for weight in state.weights):
            raise ValueError("a weight lies outside its range")
        documents = [_Document(number + 1, stamp=number + 1) for number in range(len(state.keys))]
        runs: list[tuple[int, int, int]] = []
        for number, position, length in state.pieces.tolist():
            if not 0 <= number < len(documents):
                raise ValueError("a piece of no document")
            documents[number].pieces.append((position, length))
            documents[number].num_tokens += length
            runs.append((position, length, number + 1))
        pool._use(NgramIndex.load(state.index, runs, head_tokens=head_tokens))
        for key, weight, document in zip(state.keys, state.weights, documents, strict=True):
            document.weight = weight
            pool._documents[key] = document
            pool._by_owner[document.owner] = document
        pool._next_owner = pool._clock = len(documents) + 1
        pool._evict(None)
        return pool

    # -- lookup ---------------------------------------------------------------------------------------------------

    def propose(
        self,
        context: Sequence[int],
        *,
        max_candidates: int,
        max_length: int,
        without: Hashable | None = None,
        origin: DraftOrigin = DraftOrigin.WORKSPACE,
    ) -> list[Draft]:
        """Guess what follows ``context``, best guess first.

        Args:
            context: the tokens before the next one.
            max_candidates: maximum number of drafts.
            max_length: maximum number of tokens per draft.
            without: a document whose entries are left out, because another source covers it.
            origin: whose drafts these are.
        """
        lookup = self._lookup
        if lookup is None:
            places = self.places(context, reach=max_length, without=without)
            return rank(places, max_candidates=max_candidates, max_length=max_length, origin=origin)
        if max_candidates < 1 or max_length < 1:
            return []
        reach = min(max_length, MAX_REACH)
        owners = lookup.search(context, limit=_EVIDENCE_LIMIT, reach=reach, without=self._owner(without))
        if not owners:
            return []
        return lookup.rank(self._factors(owners), max_candidates=max_candidates, max_length=reach, origin=origin)

    def places(
        self,
        context: Sequence[int],
        *,
        reach: int,
        without: Hashable | None = None,
        limit: int = _EVIDENCE_LIMIT,
    ) -> Places:
        """Where the end of ``context`` occurs in the documents.

        Args:
            context: the tokens before the next one.
            reach: tokens of continuation wanted.
            without: a document whose places are left out, because another source covers it.
            limit: maximum number of places, the longest matches first.
        """
        found = self._index.find(context, limit=limit, reach=min(reach, MAX_REACH), without=self._owner(without))
        weights = [ELSEWHERE] * len(found.owners)
        return Places(found.match_lengths, self._factors(found.owners), weights, found.continuations)

    def _owner(self, key: Hashable | None) -> int:
        document = self._documents.get(key)
        return NO_OWNER if document is None else document.owner

    def _factors(self, owners: Sequence[int]) -> list[float]:
        """What multiplies the weight of places in documents of these owners."""
        factor_of: dict[int, float] = {}
        for owner in set(owners):
            document = self._by_owner[owner]
            age = (self._clock - document.stamp) / _RECENT_DOCUMENTS
            factor_of[owner] = document.weight * (1.0 + _RECENCY / (1.0 + age))
        return [factor_of[owner] for owner in owners]
