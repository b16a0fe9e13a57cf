"""The backend's own look at what it is sent: names of secrets are refused, whoever let them through."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from forelook.errors import PrivacyError
from forelook.privacy import is_secret_path


def check_document(workspace: str, uri: str) -> None:
    """Refuse a document whose name is on the list of secrets.

    Raises:
        PrivacyError: it is.
    """
    if is_secret_path(_name_in(workspace, uri)):
        raise PrivacyError("uri names a file on the list of secrets: its text is not taken, and it gets no completions")


def _name_in(workspace: str, uri: str) -> str:
    """The document's path from its workspace; of one outside only the last part: its folders are not ours to judge."""
    path, root = _path(uri), _path(workspace).rstrip("/") + "/"
    if path.startswith(root):
        return path.removeprefix(root)
    return path.rpartition("/")[2]


def _path(uri: str) -> str:
    return unquote(urlsplit(uri).path)
