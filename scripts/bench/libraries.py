"""The libraries that a repository's files import, in a pool as the product has them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
from forelook.decoding.ngrams.pool import NgramPool
from forelook_lsp.dependencies import Dependencies
from forelook_lsp.workspace_files import OpenFile


class Libraries:
    """Libraries installed on this machine; files are opened one by one, as in an editor.

    Args:
        encode: text to token ids.
    """

    def __init__(self, encode: Callable[[str], list[int]]) -> None:
        self.pool = NgramPool(1 << 22)
        self._encode = encode
        self._dependencies = Dependencies([], lambda _path: False)
        self._opened: set[str] = set()

    def open(self, path: str, text: str) -> None:
        """Add what a file imports, once per file."""
        if path in self._opened:
            return
        self._opened.add(path)
        for part in self._dependencies.new_parts([OpenFile(Path(PurePosixPath(path)), text)], threading.Event()):
            for file in part:
                self.pool.set_document(file.path, np.asarray(self._encode(file.text), dtype=np.int32))
        self.pool.settle()
