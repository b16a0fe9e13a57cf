"""Which requests take the shorter way through a proxy, and where it leads."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the extra forelook[cluster]")

from forelook.cluster.node_socket import NodeSocket
from forelook.cluster.proxy_shortcut import IMPORT_PATH, Places, ProxyShortcut
from forelook.cluster.ring import HashRing
from forelook.commands.cluster import SHORTCUT
from ray._common.utils import import_attr
from ray.serve._private.http_util import validate_http_proxy_callback_return


@pytest.fixture
def places() -> Places:
    places = Places()
    places.set_routes({"small": "/small", "large": "/small/large", "other": "/other"})
    places.set_replicas("small", ["a", "b", "c"])
    places.set_replicas("large", ["z"])
    return places


def test_a_session_goes_where_the_ring_places_it(places: Places) -> None:
    ring = HashRing(["a", "b", "c"])
    for number in range(100):
        assert places.find("/small/rpc", f"s{number}") == ("/small", ring.owner(f"s{number}"))


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/small/large/rpc", ("/small/large", "z")),
        ("/small/large", ("/small/large", "z")),
        ("/smaller/rpc", None),
        ("/other/rpc", None),  # it has no replica yet
        ("/", None),
    ],
)
def test_the_longest_route_wins(places: Places, path: str, found: tuple[str, str] | None) -> None:
    assert places.find(path, "x") == found


def test_an_application_that_is_gone_is_forgotten(places: Places) -> None:
    places.set_routes({"small": "/"})
    found = places.find("/any", "x")
    assert found is not None
    assert found[0] == ""
    assert places.find("/small/large/rpc", "x") == found, "the root has it now"
    places.set_replicas("small", [])
    assert places.find("/any", "x") is None


class Asked:
    """An application that notes what it is asked."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        del receive
        self.scopes.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def ask(shortcut: ProxyShortcut, path: str, session: str, header: str = "x-session-id") -> list[int]:
    statuses: list[int] = []
    body = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not body:
            await asyncio.Event().wait()  # until the client leaves, which it does not
        return body.pop()

    async def send(message: Any) -> None:
        statuses.append(message.get("status", 0))

    headers = [(header.encode(), session.encode())]
    await shortcut({"type": "http", "path": path, "root_path": "", "headers": headers}, receive, send)
    return statuses


@pytest.mark.parametrize("header", ["x-session-id", "x_session_id"])
async def test_requests_go_to_a_replica_of_the_node_and_all_others_to_the_proxy(
    places: Places, tmp_path: Path, header: str
) -> None:
    proxy, replica = Asked(), Asked()
    ring = HashRing(["a", "b", "c"])
    sessions = {ring.owner(f"s{number}"): f"s{number}" for number in range(100)}
    node = NodeSocket(replica, tmp_path / "s" / "a")
    await node.start()
    shortcut = ProxyShortcut(proxy, places, tmp_path / "s")
    assert await ask(shortcut, "/small/health", sessions["a"], header) == [200, 0]
    assert (len(replica.scopes), len(proxy.scopes)) == (1, 0)
    assert (replica.scopes[0]["root_path"], replica.scopes[0]["path"]) == ("/small", "/small/health")
    assert await ask(shortcut, "/small/health", sessions["b"], header) == [200, 0], "that one is on another node"
    assert await ask(shortcut, "/-/healthz", sessions["a"], header) == [200, 0]
    assert (len(replica.scopes), len(proxy.scopes)) == (1, 2)
    assert proxy.scopes[0]["root_path"] == ""
    await node.stop(1.0)
    assert await ask(shortcut, "/small/health", sessions["a"], header) == [200, 0], "it has ended"
    assert (len(replica.scopes), len(proxy.scopes)) == (1, 3)


def test_ray_can_load_it_by_the_name_that_the_command_sets() -> None:
    assert SHORTCUT["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] == IMPORT_PATH
    (middleware,) = validate_http_proxy_callback_return(import_attr(IMPORT_PATH)())
    assert middleware.cls is ProxyShortcut
