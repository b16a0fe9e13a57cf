"""Whether the files that a model was loaded from are still those on disk."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path

from forelook.model.gguf.files import parts_of

_CHECK_EVERY_S = 1.0  # chosen, not measured
_SETTLED_S = 2.0  # chosen, not measured: a file that was written to within this time is still being written
_NAMES = (
    "config.json", "adapter_config.json", "generation_config.json", "tokenizer.json", "*.safetensors",
    "*.safetensors.index.json",
)  # fmt: skip

_Stamp = tuple[int, int, int]  # size, time of the last change, inode; of what a link leads to


class ModelFiles:
    """The files of a model as they are when this is made, which is before they are read.

    Args:
        path: a folder of safetensors, or a GGUF file.
        clock: seconds of the clock that stamps files.
        adapter: the folder of its adapter, if it has one.

    Attributes:
        awaited: a file that is not there yet, whose arrival is a change.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time, *, adapter: Path | None = None) -> None:
        self._clock = clock
        self.awaited: Path | None = None
        files = parts_of(path) if path.is_file() else [file for name in _NAMES for file in path.glob(name)]
        if adapter is not None:
            files += [file for name in _NAMES for file in adapter.glob(name)]
        self._stamps: dict[Path, _Stamp] = {}
        for file in files:
            with contextlib.suppress(OSError):  # whoever reads it says what is wrong with it
                self._stamps[file] = _stamp(file)
        self._checked_s = -math.inf

    @property
    def paths(self) -> tuple[Path, ...]:
        """Paths of the files."""
        return tuple(self._stamps)

    def changed(self) -> bool:
        """Whether any of them is gone or another one, and none is being written.

        The awaited file counts at once; the others are looked at once per second at most.
        """
        if self.awaited is not None and self.awaited.is_file():
            return True
        now_s = self._clock()
        if now_s < self._checked_s + _CHECK_EVERY_S:
            return False
        self._checked_s = now_s
        try:
            stamps = {file: _stamp(file) for file in self._stamps}
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:  # a network's folder does not answer: nothing is known
            return False
        changed = [stamp for file, stamp in stamps.items() if stamp != self._stamps[file]]
        newest_s = max((changed_ns for _, changed_ns, _ in changed), default=0) / 1e9
        return bool(changed) and not 0.0 <= now_s - newest_s < _SETTLED_S


def _stamp(path: Path) -> _Stamp:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino
