"""Who may connect: files nobody else can open, tokens, Host and Origin."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from forelook.config import ServerConfig
from forelook.errors import ConfigError
from forelook.local.access import AccessPolicy
from websockets.exceptions import InvalidStatus

from tests.server.harness import URI, WORKSPACE, Client, Running, running

TOKEN = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
TCP = AccessPolicy(tokens=(TOKEN,), hosts=frozenset({"127.0.0.1", "localhost", "::1"}))


async def refused(server: Running, headers: dict[str, str], host: str | None = None) -> int:
    with pytest.raises(InvalidStatus) as caught:
        async with server.websocket(headers, host):
            pass
    return caught.value.response.status_code


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {OTHER}"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Bearer {TOKEN}0"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
    ],
)
async def test_tcp_without_the_token_is_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    async with running(tmp_path, policy=TCP, tcp=True) as server:
        assert await refused(server, headers) == 401


async def test_the_token_in_the_url_does_not_count(tmp_path: Path) -> None:
    async with running(tmp_path, policy=TCP, tcp=True) as server:
        assert isinstance(server.address, tuple)
        url = f"http://127.0.0.1:{server.address[1]}/health?token={TOKEN}"

        def get() -> int:
            try:
                with urllib.request.urlopen(url) as response:
                    return int(response.status)
            except urllib.error.HTTPError as error:
                return error.code

        assert await asyncio.to_thread(get) == 401


async def test_tcp_with_the_token_is_served(tmp_path: Path) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with running(tmp_path, policy=TCP, tcp=True) as server, server.websocket(headers) as websocket:
        client = Client(websocket)
        await client.hello()
        await client.close()


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost", "null", "http://127.0.0.1:8080", ""])
@pytest.mark.parametrize("tcp", [False, True])
async def test_a_web_page_is_refused_even_with_the_token(tmp_path: Path, origin: str, tcp: bool) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Origin": origin}
    async with running(tmp_path, policy=TCP if tcp else AccessPolicy(), tcp=tcp) as server:
        assert await refused(server, headers) == 403


async def test_a_listed_origin_still_needs_the_token(tmp_path: Path) -> None:
    origin = "https://editor.example"
    policy = AccessPolicy(tokens=(TOKEN,), hosts=TCP.hosts, origins=frozenset({origin}))
    async with running(tmp_path, policy=policy, tcp=True) as server:
        assert await refused(server, {"Origin": origin}) == 401
        async with server.websocket({"Origin": origin, "Authorization": f"Bearer {TOKEN}"}):
            pass


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "0.0.0.0"])
async def test_a_rebound_name_is_refused_even_with_the_token(tmp_path: Path, host: str) -> None:
    async with running(tmp_path, policy=TCP, tcp=True) as server:
        assert await refused(server, {"Authorization": f"Bearer {TOKEN}"}, host) == 421


@pytest.mark.parametrize("path", ["/health", "/metrics", "/stats", "/rpc", "/", "/anything"])
async def test_no_page_answers_without_the_token(tmp_path: Path, path: str) -> None:
    async with running(tmp_path, policy=TCP, tcp=True) as server:
        assert isinstance(server.address, tuple)
        url = f"http://127.0.0.1:{server.address[1]}{path}"

        with pytest.raises(urllib.error.HTTPError) as caught:
            await asyncio.to_thread(urllib.request.urlopen, url)
        assert caught.value.code == 401
        assert "access-control-allow-origin" not in {name.lower() for name in caught.value.headers}


async def test_users_of_one_server_share_no_workspace(tmp_path: Path) -> None:
    policy = AccessPolicy(tokens=(TOKEN, OTHER), hosts=TCP.hosts)
    async with running(tmp_path, policy=policy, tcp=True) as server:
        for token in (TOKEN, OTHER):
            async with server.websocket({"Authorization": f"Bearer {token}"}) as websocket:
                client = Client(websocket)
                await client.hello()
                assert await client.result("pool/stats", {"workspace": WORKSPACE}) == {"pool": {"num_tokens": 0}}
                files = [{"path": "a.py", "text": "secret"}]
                await client.notify("workspace/files", {"workspace": WORKSPACE, "files": files})
                assert await client.result("pool/stats", {"workspace": WORKSPACE}) == {"pool": {"num_tokens": 6}}
                await client.open("x", uri=URI)
                assert await client.complete() == "1@0"
                error = await client.error("shutdown")
                assert error.data["type"] == "AuthenticationError"
                await client.close()


def test_an_address_other_machines_reach_needs_tls() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.10", "example.org"):
        with pytest.raises(ConfigError, match="a loopback address, unless tls_certificate and tls_key are given"):
            ServerConfig(port=0, host=host)
    ServerConfig(port=0, host="0.0.0.0", tls_certificate=Path("c.pem"), tls_key=Path("k.pem"))


def test_the_socket_file_is_closed_to_others_from_the_first_moment(tmp_path: Path) -> None:
    from forelook.server.run import bind_unix

    old_mask = os.umask(0)
    try:
        with bind_unix(tmp_path / "s") as listener:
            assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
            assert listener.getsockname() == str(tmp_path / "s")
            assert os.umask(0) == 0, "the mask must be put back"
    finally:
        os.umask(old_mask)


async def test_figures_are_a_user_s_own_and_the_owner_s_are_everybody_s(tmp_path: Path) -> None:
    owner = "owner-" + OTHER
    policy = AccessPolicy(tokens=(TOKEN, OTHER, owner), hosts=TCP.hosts)
    async with running(tmp_path, policy=policy, tcp=True) as server, contextlib.AsyncExitStack() as stack:
        clients = []
        for token in (TOKEN, TOKEN, OTHER, owner):
            websocket = await stack.enter_async_context(server.websocket({"Authorization": f"Bearer {token}"}))
            clients.append(Client(websocket))
            await clients[-1].hello()
            await clients[-1].open("text")
            await clients[-1].complete()
        own, _, others, all_ = [await client.result("stats") for client in clients]
        for stats, num_users_connections in ((own, 2), (others, 1), (all_, 4)):
            figures = stats["server"]
            assert isinstance(figures, dict)
            assert figures["num_connections"] == num_users_connections
            assert figures["messages_by_method"]["completion"] == num_users_connections
            assert figures["completions_by_outcome"] == {"suggested": num_users_connections}
            assert figures["completion_latency"]["count"] == num_users_connections
        principals = [stats["engine"].get("principal") for stats in (own, others, all_)]  # type: ignore[attr-defined]
        assert len(set(principals)) == 3, "the engine is asked for each user's own"
        assert principals[2] is None
        address, port = server.address  # type: ignore[misc]

        def page(token: str) -> dict[str, dict[str, object]]:
            request = urllib.request.Request(
                f"http://{address}:{port}/stats", headers={"Authorization": f"Bearer {token}"}
            )
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)  # type: ignore[no-any-return]

        assert (await asyncio.to_thread(page, OTHER))["server"]["num_connections"] == 1
        assert (await asyncio.to_thread(page, owner))["server"]["num_connections"] == 4
        await clients[0].error("shutdown")
        assert not server.shutdown.is_set()
        await clients[3].result("shutdown")
        await asyncio.wait_for(server.shutdown.wait(), 5.0)
