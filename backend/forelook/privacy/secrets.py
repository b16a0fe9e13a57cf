"""The backend's own look at what it is sent: names of secrets are refused, whoever let them through."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from forelook.errors import PrivacyError
from forelook.privacy.rules import is_secret_path


def check_document(workspace: str, uri: str) -> None:
    """Refuse a document whose name is on the list of secrets.

    Raises:
        PrivacyError: it is.
    """
    if is_secret(workspace, uri):
        raise PrivacyError("uri names a file on the list of secrets: its text is not taken, and it gets no completions")


def is_secret(workspace: str, name: str) -> bool:
    """Whether a name's parts are on the list of secrets.

    Args:
        workspace: the folder's uri; what it is called itself does not count.
        name: a uri, or a path from the workspace.
    """
    if not urlsplit(name).scheme:
        return is_secret_path(name)
    path, root = _path(name), _path(workspace).rstrip("/") + "/"
    # of a document outside the workspace only the last part counts: its folders are not ours to judge
    return is_secret_path(path.removeprefix(root) if path.startswith(root) else path.rpartition("/")[2])


def _path(uri: str) -> str:
    return unquote(urlsplit(uri).path)
