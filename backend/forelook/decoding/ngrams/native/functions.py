"""The functions of the compiled lookup, and the memory that they share with Python."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

from forelook.decoding.ngrams import index, ranking

MAX_PLACES = 32
"""Maximum number of places of one lookup: sets of them are 32 bits."""

CONSTANTS = {
    "MAX_PLACES": MAX_PLACES,
    "MAX_MATCH": index.MAX_MATCH,
    "MAX_REACH": index.MAX_REACH,
    "HEAD_SCAN": index.HEAD_SCAN,
    "WIDE_SCAN": index.WIDE_SCAN,
    "LENGTH_RATIO": index.LENGTH_RATIO,
    "BORDER": index.BORDER,
    "NO_OWNER": index.NO_OWNER,
    "MEMBERS": ranking.MEMBERS,
    "MIN_PROBABILITY": ranking.MIN_PROBABILITY,
}
"""What ``lookup.c`` is compiled with."""


class SegmentStruct(ctypes.Structure):
    """``Segment`` of lookup.c."""

    _fields_ = (
        ("keys", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("length", ctypes.c_int64),
        ("ends", ctypes.c_int64 * 8),
    )


class LookupStruct(ctypes.Structure):
    """``Lookup`` of lookup.c."""

    _fields_ = (
        ("tokens", ctypes.c_void_p),
        ("owners", ctypes.c_void_p),
        ("segments", ctypes.c_void_p),
        ("found", ctypes.c_void_p),
        ("matches", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("escape", ctypes.c_void_p),
        ("num_segments", ctypes.c_int64),
        ("head_tokens", ctypes.c_int64),
        ("request", ctypes.c_int64 * 6),
        ("context", ctypes.c_int32 * index.MAX_MATCH),
        ("match_lengths", ctypes.c_int32 * MAX_PLACES),
        ("owners_found", ctypes.c_int32 * MAX_PLACES),
        ("continuations", ctypes.c_int32 * index.MAX_REACH * MAX_PLACES),
        ("num_places", ctypes.c_int64),
        ("factors", ctypes.c_double * MAX_PLACES),
        ("draft_lengths", ctypes.c_int32 * MAX_PLACES),
        ("draft_tokens", ctypes.c_int32 * index.MAX_REACH * MAX_PLACES),
        ("draft_shares", ctypes.c_double * index.MAX_REACH * MAX_PLACES),
    )


@dataclass(frozen=True, slots=True)
class Functions:
    """The compiled functions; see ``lookup.c``.

    Attributes:
        find: of the address of a ``Lookup``; the number of places.
        rank: of the address, the maximum numbers of drafts and of tokens per draft; the number of drafts.
    """

    find: Callable[[int], int]
    rank: Callable[[int, int, int], int]

    @classmethod
    def of(cls, library: ctypes.PyDLL) -> Functions:
        """The functions of a loaded library.

        Raises:
            AttributeError: it does not have them, or for another ``Lookup``.
        """
        size, find, rank = library.forelook_lookup_bytes, library.forelook_find, library.forelook_rank
        size.restype = find.restype = rank.restype = ctypes.c_int64
        find.argtypes = [ctypes.c_void_p]
        rank.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
        if size() != ctypes.sizeof(LookupStruct):
            raise AttributeError("its Lookup has another size")
        return cls(find, rank)
