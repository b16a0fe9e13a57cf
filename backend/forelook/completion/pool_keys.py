"""One name for a file in its workspace's pool, however it comes in: as an open document's uri or as a scanned path."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit


def pool_key(workspace: str, uri: str) -> str:
    """The document's path from its workspace, as the scan of the workspace names it; else the uri as it is.

    Args:
        workspace: the folder's uri, perhaps behind a user's name and a colon.
        uri: the document's; a fragment, which tells two windows' texts of one file apart, is kept.
    """
    root = _path(workspace[workspace.find("file:") :] if "file:" in workspace else workspace).rstrip("/") + "/"
    path = _path(uri)
    if not uri.startswith("file:") or not path.startswith(root) or path == root:
        return uri
    fragment = urlsplit(uri).fragment
    return path.removeprefix(root) + (f"#{fragment}" if fragment else "")


def _path(uri: str) -> str:
    """The path, unquoted; a Windows drive's letter in lower case, as editors differ in it."""
    path = unquote(urlsplit(uri).path)
    return path[0] + path[1].lower() + path[2:] if path[2:3] == ":" else path
