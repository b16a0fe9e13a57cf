"""An editor whose user has a key of a team: it says when the quota is used up, and that the key was revoked."""

from __future__ import annotations

from pathlib import Path

from bench.lsp_client import stdio_server
from forelook.local.access import AccessPolicy
from forelook.local.user_keys import KeyRing, issue_key, revoke_key

from tests.lsp.conftest import URI, last_status
from tests.server.harness import running


async def test_a_user_reads_in_the_status_why_there_are_no_suggestions(
    environment: dict[str, str], tmp_path: Path
) -> None:
    path, token_file = tmp_path / "keys.json", tmp_path / "key"
    token_file.touch(0o600)
    token_file.write_text(issue_key(path, "ann", requests_per_minute=1))
    policy = AccessPolicy(keys=KeyRing(path))
    async with running(tmp_path, policy=policy, tcp=True) as server, stdio_server(environment) as editor:
        assert isinstance(server.address, tuple)
        url = f"ws://{server.address[0]}:{server.address[1]}"
        client = editor.client
        await client.initialize(
            encodings=["utf-32"], options={"backend": {"url": url, "tokenFile": str(token_file)}, "confidence": "off"}
        )
        await client.wait_for_status("ready")
        await client.open(URI, "a")
        assert len(await client.complete(URI, 0, 1)) == 1
        await client.type_text(URI, 2, 0, 1, "b")
        assert await client.complete(URI, 0, 2) == []
        await client.wait_until(lambda: "may send 1 requests per minute" in str(last_status(client)["message"]))
        assert last_status(client)["state"] in ("ready", "completing")
        revoke_key(path, "ann")
        await client.wait_until(lambda: "this key was revoked" in str(last_status(client)["message"]))
        assert last_status(client)["state"] == "error"
        token_file.write_text(issue_key(path, "ann"))
        await client.wait_for_status("ready")
        assert len(await client.complete(URI, 0, 2)) == 1
        await client.wait_until(lambda: "requests per minute" not in str(last_status(client)["message"]))
