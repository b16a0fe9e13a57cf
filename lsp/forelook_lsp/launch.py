"""From the settings to a running backend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from forelook.errors import BackendUnreachableError

from forelook_lsp.settings import Options
from forelook_lsp.window import FindBackend

if TYPE_CHECKING:
    from forelook.local.endpoint import Endpoint


def backend_finder(environ: Mapping[str, str], home: Path, user_id: int | None) -> FindBackend:
    """How a window finds its backend.

    Args:
        environ: the environment a backend is started with.
        home: the user's home folder.
        user_id: the numeric user id, ``None`` on Windows.
    """

    def find(options: Options) -> Endpoint:
        # Imported here, in the thread that looks for the backend: its imports would hold up `initialize`.
        from forelook.local.endpoint import Endpoint, discover
        from forelook.local.identity import BackendIdentity, UserPaths
        from forelook.local.spawn import connect_or_spawn

        paths = UserPaths.from_environment(environ, home, user_id)
        if options.backend_url is not None:
            return Endpoint.from_url(options.backend_url, options.backend_token_file)
        identity = BackendIdentity(options.model, options.revision, options.device, options.dtype)
        if options.backend_start:
            return connect_or_spawn(identity, paths, environ, extra_arguments=backend_arguments(options))
        endpoint = discover(identity, paths)
        if endpoint is None:
            raise BackendUnreachableError(
                "no backend is running and forelook.backend.start is false: run `forelook serve`"
            )
        return endpoint

    return find


def backend_arguments(options: Options) -> list[str]:
    """The options of ``forelook serve`` beyond which model runs where; used by whoever starts it."""
    arguments: list[str] = []
    for name, value in (
        ("--window-size", options.lookahead_window),
        ("--ngram-size", options.lookahead_ngram),
        ("--max-candidates", options.lookahead_max_candidates),
    ):
        if isinstance(value, int):
            arguments += [name, str(value)]
    if options.pool_tokens is not None:
        arguments += ["--pool-tokens", str(options.pool_tokens)]
    if isinstance(options.speculate, bool):
        arguments += ["--speculate", "on" if options.speculate else "off"]
    if not options.cross_file:
        arguments.append("--no-cross-file")
    return arguments
