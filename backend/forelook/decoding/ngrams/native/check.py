"""Compares compiled lookups with Python's before they are used: a compiler may have a fault too."""

from __future__ import annotations

import numpy as np

from forelook.decoding.drafting.draft import DraftOrigin
from forelook.decoding.ngrams.index import MAX_MATCH, NgramIndex
from forelook.decoding.ngrams.native.functions import Functions
from forelook.decoding.ngrams.native.lookup import NativeLookup
from forelook.decoding.ngrams.ranking import ELSEWHERE, Places, rank

_TOKENS = 300
_LIMIT = 12
_REACH = 8


def is_right(functions: Functions) -> bool:
    """Whether lookups in sorted and unsorted tokens return what Python's do."""
    generator = np.random.default_rng(0)
    index = NgramIndex(head_tokens=_TOKENS // 2)
    nothing = np.zeros(0, dtype=np.int32)
    lookup = NativeLookup(functions, index)
    for owner in (1, 2):
        while index.step():
            pass
        ids = generator.integers(0, 4, _TOKENS).astype(np.int32)
        index.append(nothing, ids, nothing, owner)
    for end in range(1, _TOKENS, 23):
        context = ids[max(0, end - MAX_MATCH) : end].tolist()
        found = index.find(context, limit=_LIMIT, reach=_REACH)
        if lookup.find(context, limit=_LIMIT, reach=_REACH) != found:
            return False
        factors = [1.0 + owner / 3 for owner in found.owners]
        places = Places(found.match_lengths, factors, [ELSEWHERE] * len(factors), found.continuations)
        wanted = rank(places, max_candidates=_LIMIT, max_length=_REACH, origin=DraftOrigin.WORKSPACE)
        if lookup.rank(factors, max_candidates=_LIMIT, max_length=_REACH, origin=DraftOrigin.WORKSPACE) != wanted:
            return False
    return True
