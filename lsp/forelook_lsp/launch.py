"""Finds the backend that the settings ask for, or starts it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from forelook.config import EditorConfig
from forelook.errors import BackendUnreachableError

from forelook_lsp.settings import backend_settings
from forelook_lsp.window import FindBackend

if TYPE_CHECKING:
    from forelook.local.endpoint import Endpoint


def backend_finder(environ: Mapping[str, str], home: Path, user_id: int | None) -> FindBackend:
    """The function with which a window finds its backend.

    Args:
        environ: the environment of a new backend.
        home: the user's home folder.
        user_id: the numeric user id, ``None`` on Windows.
    """

    def find(config: EditorConfig) -> Endpoint:
        # Imported here, in the thread that looks for the backend: these imports would delay `initialize`.
        from forelook.local.endpoint import Endpoint, discover
        from forelook.local.identity import BackendIdentity, UserPaths
        from forelook.local.spawn import connect_or_spawn

        paths = UserPaths.from_environment(environ, home, user_id)
        if config.backend_url is not None:
            return Endpoint.from_url(config.backend_url, config.backend_token_file)
        identity = BackendIdentity.of(config.engine)
        if config.backend_start:
            return connect_or_spawn(identity, paths, environ, settings=backend_settings(config.engine))
        endpoint = discover(identity, paths)
        if endpoint is None:
            raise BackendUnreachableError(
                "no backend is running and forelook.backend.start is false; run `forelook serve`"
            )
        return endpoint

    return find
