"""Puts together the lists of permitted files that clients send in parts."""

from __future__ import annotations

from forelook.errors import InvalidParamsError, LimitError
from forelook.protocol.messages import WorkspaceKeepParams

MAX_CHARS = 4 << 20
"""Limit of all unfinished lists of a connection: the language server's 20,000 files. Chosen, not measured."""


class KeptFiles:
    """The unfinished lists of one connection, by workspace."""

    def __init__(self) -> None:
        self._parts: dict[str, list[tuple[str, ...]]] = {}
        self._num_chars: dict[str, int] = {}

    def take(self, params: WorkspaceKeepParams) -> frozenset[str] | None:
        """Add a part; return the whole list with the last one.

        Raises:
            InvalidParamsError: the part does not follow the one before; the list is forgotten.
            LimitError: the unfinished lists are too long; this one is forgotten.
        """
        name = params.workspace
        parts, num_chars = self._parts.pop(name, []), self._num_chars.pop(name, 0)
        if params.part == 0:
            parts, num_chars = [], 0
        if params.part != len(parts):
            raise InvalidParamsError(f"part = {params.part} does not follow {len(parts)} parts; send part 0 first")
        parts.append(params.paths)
        if params.is_last:
            return frozenset(path for part in parts for path in part)
        num_chars += sum(map(len, params.paths)) + len(name)
        if num_chars + sum(self._num_chars.values()) > MAX_CHARS:
            raise LimitError(f"the list of files is too long (limit {MAX_CHARS} characters); send fewer")
        self._parts[name], self._num_chars[name] = parts, num_chars
        return None
