"""The default model where its base is missing, or a larger one that the machine can run, offered once per user."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from forelook.config import EditorConfig
from forelook.errors import EndpointError

logger = logging.getLogger(__name__)

FindOffer = Callable[[], str]
MARKER = "model-offered"
_TIMEOUT_S = 120.0  # of rating the models, which imports torch; chosen, not measured


def wants_offer(config: EditorConfig) -> bool:
    """Whether this window's backend runs the bundled model on this machine."""
    return config.model_offer and config.engine.model is None and config.backend_url is None


def offer_finder(environ: Mapping[str, str], home: Path, user_id: int | None) -> FindOffer:
    """The function that finds what to offer; blocks, and returns no text if there is nothing or it was offered before.

    Args:
        environ: the process environment.
        home: the user's home folder.
        user_id: the numeric user id, ``None`` on Windows.
    """

    def find() -> str:
        from forelook.local.files import make_private_dir
        from forelook.local.identity import UserPaths

        paths = UserPaths.from_environment(environ, home, user_id)
        try:
            marker = make_private_dir(paths.state_dir) / MARKER
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except (EndpointError, OSError):
            return ""  # it exists, or nothing can be kept: then every start would offer
        text, is_final = _rated(environ, marker.parent)
        if not is_final:
            with contextlib.suppress(OSError):
                marker.unlink()
        return text

    return find


def _rated(environ: Mapping[str, str], folder: Path) -> tuple[str, bool]:
    """The offer of ``forelook models``, and whether another start would find the same."""
    command = [sys.executable, "-m", "forelook", "models", "--json"]
    try:
        finished = subprocess.run(
            command,
            env=dict(environ),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=True,
        )
        listing = json.loads(finished.stdout)
        speed = listing["machine"]["speed"]
        offer = listing["offer"] or {}
        message = offer.get("message", "")
        if message:
            message += "." if offer["is_default"] else ". Set forelook.model to its name to use it."
        return message, not (speed and speed["was_busy"])
    except (OSError, subprocess.SubprocessError, ValueError, LookupError, TypeError) as error:
        logger.warning("the models cannot be rated for this machine: %s", type(error).__name__)
        return "", False
