"""A real `forelook serve --http` with the starter model, and requests to it byte by byte."""

from __future__ import annotations

import http.client
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.attack.victim import Victim, until

NUM_KEYS = 4
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer as it came.

    Attributes:
        status: its code.
        headers: by lower-case name.
        body: decoded from chunks, otherwise as sent.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


class HttpServer:
    """A backend whose HTTP interfaces are on; every key is another client."""

    def __init__(self, victim: Victim, keys: tuple[str, ...]) -> None:
        self.victim = victim
        self.keys = keys
        self.url = str(victim.announced["http"])
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.address = (parts.hostname, parts.port)

    @property
    def key(self) -> str:
        return self.keys[0]

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = "",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request on a connection of its own.

        Args:
            method: of HTTP.
            path: with its query.
            body: bytes as they are; anything else as JSON; ``None`` sends no body.
            key: ``""`` is the first key, ``None`` sends none.
            headers: further ones.
        """
        connection = http.client.HTTPConnection(*self.address, timeout=TIMEOUT_S)
        sent = {"Content-Type": "application/json"} if body is not None else {}
        if key is not None:
            sent["Authorization"] = f"Bearer {key or self.key}"
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            connection.request(method, path, data, {**sent, **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, {n.lower(): v for n, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def post(self, path: str, body: object, **options: Any) -> Answer:
        """POST a body, with the first key unless told otherwise."""
        return self.request("POST", path, body, **options)

    def wait_until_ready(self) -> None:
        """Wait until the model answers."""
        ready = until(lambda: self.request("GET", "/health").json().get("status") == "ok", 120.0, every_s=0.1)
        assert ready, self.victim.log()[-2000:]


@contextmanager
def http_server(
    folder: Path, *arguments: str, num_keys: int = NUM_KEYS, settings: Mapping[str, object] | None = None
) -> Iterator[HttpServer]:
    """A running server on a free loopback port, with keys of its own; its model is loaded."""
    keys = tuple(secrets.token_hex(32) for _ in range(num_keys))
    key_file = folder / "http-keys"
    key_file.write_text("".join(f"{key}\n" for key in keys))
    key_file.chmod(0o600)
    # All that fits is in the prompt: how much that is would follow the speed of a busy machine.
    settings = {"prefillMs": 600_000, **(settings or {})}
    flags = ("--http", "127.0.0.1:0", "--http-key-file", str(key_file), *arguments)
    victim = Victim(folder, settings=settings, arguments=flags)
    victim.start()
    try:
        server = HttpServer(victim, keys)
        server.wait_until_ready()
        yield server
    finally:
        victim.stop()
