"""Users with keys of a team over HTTP: quotas with a time to retry, and answers that end with their key."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from forelook.local.access import AccessPolicy
from forelook.local.usage_ledger import UsageLedger, usage_path_of
from forelook.local.user_keys import KeyRing, issue_key, limit_key, read_keys, revoke_key

from tests.completion.fake_model import FakeModel
from tests.server.http.harness import KEY, TARGET, http_running


def policy_of(path: Path) -> AccessPolicy:
    return AccessPolicy(tokens=(KEY,), hosts=frozenset({"127.0.0.1"}), keys=KeyRing(path))


async def test_over_the_quota_is_429_with_the_time_to_retry(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    ann, bob = issue_key(path, "ann", requests_per_minute=2), issue_key(path, "bob")
    body = {"prompt": "value_3 = ", "max_tokens": 4}
    async with http_running(tmp_path, policy=policy_of(path)) as server:
        statuses = [(await server.ask("/v1/completions", body, key=ann)).status for _ in range(2)]
        refused = await server.ask("/v1/completions", body, key=ann)
        assert statuses == [200, 200]
        assert refused.status == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        assert "may send 2 requests per minute" in refused.json["error"]["message"]
        assert (await server.ask("/v1/models", key=ann)).status == 200, "what the model is costs nothing"
        for key in (bob, KEY):
            assert [(await server.ask("/v1/completions", body, key=key)).status for _ in range(3)] == [200] * 3
        metrics = (await server.ask("/metrics", key=KEY)).body.decode()
        assert 'forelook_rejections_total{reason="requests_per_minute"} 1' in metrics
        assert 'forelook_requests_total{interface="openai"} 9' in metrics


async def test_tokens_of_a_day_end_a_key_s_requests_until_the_quota_is_raised(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    ann = issue_key(path, "ann", tokens_per_day=30)
    body = {"prompt": "value_3 = ", "max_tokens": 16}
    async with http_running(tmp_path, policy=policy_of(path)) as server:
        deadline_s = time.monotonic() + 30.0
        while (answer := await server.ask("/v1/completions", body, key=ann)).status == 200:
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.2)
        assert answer.status == 429
        assert "tokens of today; ask again after 00:00 UTC" in answer.json["error"]["message"]
        assert int(answer.headers["retry-after"]) <= 86_400
        limit_key(path, "ann", None, 1_000_000)
        while (await server.ask("/v1/completions", body, key=ann)).status == 429:
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.2)
    ledger, user = UsageLedger(usage_path_of(path)), read_keys(path)[0].principal
    usage = ledger.today_of(user)
    assert usage.tokens >= 30 + 16
    assert usage.refused >= 1
    assert usage.requests == usage.answers
    assert "value_" not in usage_path_of(path).read_text()


async def test_a_revoked_key_ends_a_stream_within_seconds(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    ann = issue_key(path, "ann")
    num_forwards = 0

    def slowly(_layout: object) -> None:
        nonlocal num_forwards
        num_forwards += 1
        time.sleep(0.2 if num_forwards > 3 else 0.0)

    model = FakeModel(TARGET, on_forward=slowly)
    async with http_running(tmp_path, policy=policy_of(path), model=model) as server:
        body = {"prompt": TARGET[:40], "suffix": "\n", "max_tokens": 1_000, "stream": True}
        reader, writer = await server.send("/v1/completions", body, key=ann)
        first = await reader.readuntil(b"data:")
        revoke_key(path, "ann")
        rest = await asyncio.wait_for(reader.read(), 15.0)
        assert b"[DONE]" not in rest
        assert b"this key was revoked" in rest
        writer.close()
        assert first.startswith(b"HTTP/1.1 200")
        refused = await server.ask("/v1/completions", body, key=ann)
        assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert "revoked" in refused.json["error"]["message"]
        metrics = (await server.ask("/metrics", key=KEY)).body.decode()
        assert 'forelook_answers_total{interface="openai",outcome="revoked"} 1' in metrics
