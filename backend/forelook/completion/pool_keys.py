"""One name for a file in its workspace's pool, whether it is open (a URI) or scanned (a path)."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from forelook.keys import DocumentKey, WorkspaceKey


def pool_key(workspace: WorkspaceKey, document: DocumentKey) -> str:
    """The document's path relative to its workspace, as the workspace scan names it; otherwise its URI.

    A second window's text of the same file gets a name of its own.
    """
    root = _path(workspace.uri).rstrip("/") + "/"
    path = _path(document.uri)
    name = document.uri
    if name.startswith("file:") and path.startswith(root) and path != root:
        fragment = urlsplit(name).fragment
        name = path.removeprefix(root) + (f"#{fragment}" if fragment else "")
    return name if document.window == 1 else f"{name}#window={document.window}"


def _path(uri: str) -> str:
    """The unquoted path; a Windows drive letter in lower case, because editors disagree about it."""
    path = unquote(urlsplit(uri).path)
    return path[0] + path[1].lower() + path[2:] if path[2:3] == ":" else path
