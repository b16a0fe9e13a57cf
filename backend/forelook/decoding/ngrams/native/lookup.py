"""Lookups in one index by the compiled functions."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from struct import Struct

import numpy as np

from forelook.decoding.drafting.draft import Draft, DraftOrigin
from forelook.decoding.ngrams.index import (
    HEAD_SCAN,
    MAX_MATCH,
    MAX_REACH,
    NO_OWNER,
    WIDE_SCAN,
    Evidence,
    NgramIndex,
    Segment,
    TokenArray,
)
from forelook.decoding.ngrams.native.functions import MAX_PLACES, Functions, LookupStruct, SegmentStruct
from forelook.decoding.ngrams.ranking import ELSEWHERE, ESCAPE
from forelook.errors import ConfigError

_WEIGHTS = np.array(ELSEWHERE)
_ESCAPE = np.array(ESCAPE)
_INTS = [Struct(f"={count}i") for count in range(MAX_PLACES + 1)]
_FLOATS = [Struct(f"={count}d") for count in range(MAX_PLACES + 1)]
_REQUESTS = [Struct(f"=6q{count}i") for count in range(MAX_MATCH + 1)]
_REQUEST = LookupStruct.request.offset
_MATCH_LENGTHS = LookupStruct.match_lengths.offset
_OWNERS = LookupStruct.owners_found.offset
_CONTINUATIONS = LookupStruct.continuations.offset
_FACTORS = LookupStruct.factors.offset
_DRAFT_LENGTHS = LookupStruct.draft_lengths.offset
_DRAFT_TOKENS = LookupStruct.draft_tokens.offset
_DRAFT_SHARES = LookupStruct.draft_shares.offset
_ROW_INTS = 4 * MAX_REACH
_ROW_FLOATS = 8 * MAX_REACH


class NativeLookup:
    """What :meth:`NgramIndex.find` and :func:`rank` return, from compiled functions.

    Its memory is that of one lookup, so it serves one thread at a time, as the index does.
    """

    def __init__(self, functions: Functions, index: NgramIndex) -> None:
        self._index = index
        self._find, self._rank = functions.find, functions.rank
        self._memory = bytearray(ctypes.sizeof(LookupStruct))
        self._struct = LookupStruct.from_buffer(self._memory)
        self._address = ctypes.addressof(self._struct)
        self._struct.weights, self._struct.escape = _WEIGHTS.ctypes.data, _ESCAPE.ctypes.data
        self._struct.head_tokens = index.head_tokens
        self._point()

    def _point(self) -> None:
        """Point to the arrays that the index has now; they are kept as long as pointers to them."""
        self._tokens, self._owners = self._index.log
        self._struct.tokens, self._struct.owners = self._tokens.ctypes.data, self._owners.ctypes.data
        self._segments: tuple[Segment, ...] = self._index.segments
        self._arrays = [
            (np.ascontiguousarray(segment.keys), np.ascontiguousarray(segment.positions, dtype=np.int32))
            for segment in self._segments
        ]
        self._table = (SegmentStruct * len(self._arrays))(
            *(SegmentStruct(keys.ctypes.data, places.ctypes.data, len(keys)) for keys, places in self._arrays)
        )
        self._found: TokenArray = np.empty(HEAD_SCAN + WIDE_SCAN * len(self._arrays) + 2 * MAX_PLACES, dtype=np.int32)
        self._matches = np.empty(len(self._found), dtype=np.uint8)
        self._struct.segments = ctypes.addressof(self._table)
        self._struct.num_segments = len(self._arrays)
        self._struct.found, self._struct.matches = self._found.ctypes.data, self._matches.ctypes.data

    def search(self, context: Sequence[int], *, limit: int, reach: int, without: int = NO_OWNER) -> tuple[int, ...]:
        """The owners of the places that :meth:`find` would return, which stay in memory for :meth:`rank`."""
        if limit > MAX_PLACES or not 0 <= reach <= MAX_REACH:
            raise ConfigError("limit, reach", (limit, reach), f"at most {MAX_PLACES}, and 0 to {MAX_REACH}")
        index = self._index
        if index.segments is not self._segments or index.log[0] is not self._tokens:
            self._point()
        tail = context[-MAX_MATCH:]
        count = len(tail)
        _REQUESTS[count].pack_into(
            self._memory,
            _REQUEST,
            index.num_logged,
            index.num_sorted,
            limit,
            reach,
            without,
            count,
            *tail,
        )
        return _INTS[self._find(self._address)].unpack_from(self._memory, _OWNERS)

    def find(self, context: Sequence[int], *, limit: int, reach: int, without: int = NO_OWNER) -> Evidence:
        """As :meth:`NgramIndex.find`, for at most :data:`MAX_PLACES` entries and :data:`MAX_REACH` tokens."""
        owners = self.search(context, limit=limit, reach=reach, without=without)
        memory, row = self._memory, _INTS[reach]
        return Evidence(
            list(_INTS[len(owners)].unpack_from(memory, _MATCH_LENGTHS)),
            list(owners),
            [list(row.unpack_from(memory, _CONTINUATIONS + _ROW_INTS * place)) for place in range(len(owners))],
        )

    def rank(
        self, factors: Sequence[float], *, max_candidates: int, max_length: int, origin: DraftOrigin
    ) -> list[Draft]:
        """Drafts from the places of the latest search, as :func:`rank` with their factors."""
        memory = self._memory
        _FLOATS[len(factors)].pack_into(memory, _FACTORS, *factors)
        count = self._rank(self._address, max_candidates, max_length)
        (longest,) = _INTS[1].unpack_from(memory, _MATCH_LENGTHS)
        return [
            Draft(
                _INTS[length].unpack_from(memory, _DRAFT_TOKENS + _ROW_INTS * number),
                _FLOATS[length].unpack_from(memory, _DRAFT_SHARES + _ROW_FLOATS * number),
                longest,
                origin,
            )
            for number, length in enumerate(_INTS[count].unpack_from(memory, _DRAFT_LENGTHS))
        ]
