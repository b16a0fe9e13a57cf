"""File URIs as editors write them: percent-encoded, with a Windows drive letter in either case; and their paths."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

_DRIVE = re.compile("/[a-zA-Z]:")


def split_uri(uri: str) -> SplitResult:
    """The parts of a URI; one that is malformed is all path, so that rules about names still see its parts."""
    try:
        return urlsplit(uri)
    except ValueError:  # for example "file://[", an address that does not end
        return SplitResult("", "", uri, "", "")


def uri_path(uri: str) -> str:
    """The decoded path of a URI; a Windows drive letter is lower case, since editors differ in it."""
    path = unquote(split_uri(uri).path)
    return path[0] + path[1].lower() + path[2:] if _DRIVE.match(path) else path


def path_within(folder_uri: str, uri: str) -> str | None:
    """The path of ``uri`` relative to a folder, with ``/`` as separator; ``None`` outside the folder."""
    folder = uri_path(folder_uri).rstrip("/") + "/"
    path = uri_path(uri)
    return path.removeprefix(folder) if path.startswith(folder) and path != folder else None


def named_paths(uri: str) -> tuple[str, ...]:
    """The decoded paths that a URI of any scheme names: its own, and the one in the query of a ``git:`` URI."""
    found = [uri_path(uri)]
    query = unquote(split_uri(uri).query)
    if query.startswith("{"):
        try:
            named = json.loads(query)
        except (ValueError, RecursionError):
            named = None
        path = named.get("path") if isinstance(named, dict) else None
        if isinstance(path, str):
            found.append(path)
    return tuple(found)


def local_path(uri: str) -> Path | None:
    """The file that a URI names, for a notebook cell the notebook; ``None`` where the URI names no local file."""
    parts = split_uri(uri)
    path = uri_path(uri)
    if parts.scheme not in ("file", "vscode-notebook-cell") or not path:
        return None
    if parts.netloc:
        return Path(f"//{unquote(parts.netloc)}{path}")  # a share
    return Path(path[1:] if _DRIVE.match(path) else path)


def resolved(path: Path) -> Path:
    """The path without links, as far as it exists; as it is where it cannot be resolved."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return path
