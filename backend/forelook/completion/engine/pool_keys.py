"""One name for a file in its workspace's pool, whether it is open (a URI) or scanned (a path)."""

from __future__ import annotations

from forelook.keys import DocumentKey, WorkspaceKey
from forelook.uris import path_within, split_uri


def pool_key(workspace: WorkspaceKey, document: DocumentKey) -> str:
    """The document's path relative to its workspace, as the workspace scan names it; otherwise its URI.

    A second window's text of the same file gets a name of its own.
    """
    name = document.uri
    path = path_within(workspace.uri, name) if name.startswith("file:") else None
    if path is not None:
        fragment = split_uri(name).fragment
        name = path + (f"#{fragment}" if fragment else "")
    return name if document.window == 1 else f"{name}#window={document.window}"
