"""Names of workspaces and documents inside the backend, where several users and windows may use the same URI."""

from __future__ import annotations

from dataclasses import dataclass

DEPENDENCIES = "dependencies"
"""The name under which a client sends files of installed libraries: drafts of all workspaces of a user come from it."""


@dataclass(frozen=True, slots=True, order=True)
class WorkspaceKey:
    """A workspace of one user.

    Attributes:
        principal: the user's name on a shared backend; empty on a user's own.
        uri: the folder's URI, or the name the client sends.
    """

    principal: str
    uri: str

    @property
    def pool_name(self) -> str:
        """What names the workspace's pool on disk; part of the cache format, so it never changes."""
        return f"{self.principal}:{self.uri}" if self.principal else self.uri


@dataclass(frozen=True, slots=True, order=True)
class DocumentKey:
    """A document as one editor window has it.

    Attributes:
        window: 1, or the next free number where another connection has the same document open.
        uri: the document's URI.
        principal: as in :class:`WorkspaceKey`; window numbers of one user do not depend on other users.
    """

    window: int
    uri: str
    principal: str = ""
