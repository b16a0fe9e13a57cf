"""From an editor's uris to files."""

from __future__ import annotations

from pathlib import Path

from pygls.uris import to_fs_path


def local_path(uri: str) -> Path | None:
    """The file a uri names, for a notebook's cell the notebook; ``None`` for what is no file of this machine."""
    scheme, colon, rest = uri.partition(":")
    if not colon or scheme not in ("file", "vscode-notebook-cell"):
        return None
    path = to_fs_path(f"file:{rest.partition('#')[0]}")
    return Path(path) if path else None
