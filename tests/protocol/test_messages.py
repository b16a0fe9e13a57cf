"""Methods and versions; what the shared modules may import."""

from __future__ import annotations

import subprocess
import sys

import pytest
from forelook.errors import (
    ProtocolVersionError,
    UnknownMethodError,
)
from forelook.protocol import messages


def test_an_unknown_method_is_answered_with_those_there_are() -> None:
    with pytest.raises(UnknownMethodError, match="hello, completion, status"):
        messages.request_method("textDocument/completion")
    with pytest.raises(UnknownMethodError, match="it is a notification, send it without an id"):
        messages.request_method("document/open")
    with pytest.raises(UnknownMethodError, match="it is a request, send it with an id"):
        messages.notification_method("completion")


@pytest.mark.parametrize(("version", "who"), [(0, "client"), (messages.PROTOCOL_VERSION + 1, "backend")])
def test_another_version_is_refused_and_the_older_side_named(version: int, who: str) -> None:
    with pytest.raises(ProtocolVersionError, match=f"protocol version {version} .* update or restart the {who}"):
        messages.check_version(version)


@pytest.mark.parametrize(
    "module",
    [
        "forelook.protocol.messages",
        "forelook.local.spawn",
        "forelook.config",
        "forelook.errors",
        "forelook.commands.cli",
    ],
)
def test_shared_modules_import_nothing_heavy(module: str) -> None:
    code = (
        f"import sys, {module}; heavy = {{'torch', 'numpy', 'starlette', 'uvicorn', 'websockets', 'rich'}}"
        "; print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
