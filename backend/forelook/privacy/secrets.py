"""The backend's own look at what it is sent: names of secrets are refused, whoever let them through."""

from __future__ import annotations

from urllib.parse import urlsplit

from forelook.errors import PrivacyError
from forelook.privacy.rules import is_secret_path
from forelook.uris import path_within, uri_path


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
    path = path_within(workspace, name)
    # Outside the workspace only the file name counts: the user did not choose the folders above it for this project.
    return is_secret_path(uri_path(name).rpartition("/")[2] if path is None else path)
