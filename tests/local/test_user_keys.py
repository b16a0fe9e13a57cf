"""The keys of a team: only hashes on disk, a private file, and changes that a running server notices."""

from __future__ import annotations

import json
import logging
import os
import stat
from pathlib import Path

import pytest
from forelook.errors import AuthenticationError, ConfigError
from forelook.local.user_keys import KeyRing, Role, digest_of, issue_key, limit_key, read_keys, revoke_key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "team" / "keys.json"


def test_a_key_is_nowhere_on_disk_and_opens_the_server(path: Path) -> None:
    key = issue_key(path, "ann", requests_per_minute=60, tokens_per_day=1000)
    for file in path.parent.iterdir():
        assert key not in file.read_text()
        assert key.removeprefix("forelook-") not in file.read_text()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    found = KeyRing(path).find(key.encode())
    assert found is not None
    assert (found.name, found.requests_per_minute, found.tokens_per_day) == ("ann", 60, 1000)
    assert found.digest == digest_of(key)
    assert len(key) >= 50


@pytest.mark.parametrize("sent", [b"", b"forelook-", b"\xff" * 64, b"x" * 100_000])
def test_what_is_no_key_opens_nothing(path: Path, sent: bytes) -> None:
    key = issue_key(path, "ann")
    ring = KeyRing(path)
    assert ring.find(sent) is None
    assert ring.find(digest_of(key).encode()) is None, "the hash on disk is no key"


def test_users_are_told_apart_even_by_the_next_user_of_a_name(path: Path) -> None:
    issue_key(path, "ann")
    issue_key(path, "bob")
    with pytest.raises(ConfigError, match="a user without a key"):
        issue_key(path, "ann")
    revoke_key(path, "ann", now_s=5)
    issue_key(path, "ann")
    keys = read_keys(path)
    assert [key.name for key in keys] == ["ann", "bob", "ann"]
    assert len({key.principal for key in keys}) == 3
    assert [key.is_valid for key in keys] == [False, True, True]


def test_a_running_server_notices_each_change(path: Path) -> None:
    ann = issue_key(path, "ann")
    ring = KeyRing(path)
    bob = issue_key(path, "bob", role=Role.METRICS)
    assert ring.find(bob.encode()) is None
    ring.refresh()
    found = ring.find(bob.encode())
    assert found is not None
    assert found.role is Role.METRICS
    limit_key(path, "ann", 7, None)
    ring.refresh()
    found = ring.find(ann.encode())
    assert found is not None
    assert found.requests_per_minute == 7
    assert not ring.has_ended(found.principal)
    revoke_key(path, "ann")
    ring.refresh()
    assert ring.has_ended(found.principal)
    assert ring.of(found.principal) is None
    assert not ring.has_ended("0123456789abcdef"), "a holder of a token has no key that could end"


def test_a_key_that_was_taken_out_of_the_file_has_ended_too(path: Path) -> None:
    key = issue_key(path, "ann")
    issue_key(path, "bob")
    ring = KeyRing(path)
    found = ring.find(key.encode())
    assert found is not None
    content = json.loads(path.read_text())
    content["keys"] = content["keys"][1:]
    path.write_text(json.dumps(content))
    ring.refresh()
    assert ring.has_ended(found.principal)
    assert ring.find(key.encode()) is None


def test_a_file_that_cannot_be_read_any_more_locks_nobody_out(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = issue_key(path, "ann")
    ring = KeyRing(path)
    hidden = path.rename(path.with_name("elsewhere"))
    with caplog.at_level(logging.WARNING):
        ring.refresh()
        ring.refresh()
    assert len(caplog.records) == 1, "said once, not every second"
    assert ring.find(key.encode()) is not None
    hidden.chmod(0o644)
    hidden.rename(path)
    ring.refresh()
    assert "can be used by other users" in caplog.text
    assert ring.find(key.encode()) is not None
    path.chmod(0o600)
    revoke_key(path, "ann")
    ring.refresh()
    found = ring.find(key.encode())
    assert found is not None
    assert not found.is_valid


def test_a_file_others_can_use_is_refused(path: Path) -> None:
    issue_key(path, "ann")
    path.chmod(0o640)
    for use in (read_keys, KeyRing, lambda path: issue_key(path, "bob"), lambda path: revoke_key(path, "ann")):
        with pytest.raises(AuthenticationError, match="can be used by other users; run `chmod 600`"):
            use(path)


@pytest.mark.timeout(20)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_what_is_called_like_the_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "endless").symlink_to("/dev/zero")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**33)
    (tmp_path / "huge").chmod(0o600)
    for name in ("pipe", "endless", "huge", "."):
        with pytest.raises(AuthenticationError):
            read_keys(tmp_path / name)
    with pytest.raises(AuthenticationError, match="run `forelook keys issue NAME"):
        KeyRing(tmp_path / "missing")


KEY = {
    "name": "ann", "principal": "0" * 16, "digest": "0" * 64, "role": "user", "issued_s": 1, "revoked_s": None,
    "requests_per_minute": None, "tokens_per_day": None,
}  # fmt: skip
DAMAGED = (
    "",
    "[]",
    "null",
    '{"version": 1}',
    '{"version": 1, "keys": 5}',
    '{"version": 1, "keys": [5]}',
    "[" * 100_000,
    *(
        json.dumps({"version": 1, "keys": [{**KEY, **change}]})
        for change in (
            {"name": ""}, {"name": "a/b"}, {"name": None}, {"principal": "metrics"}, {"principal": ""},
            {"digest": "F" * 64}, {"digest": 5}, {"role": "owner"}, {"issued_s": "1"}, {"issued_s": True},
            {"revoked_s": "no"}, {"tokens_per_day": 0}, {"tokens_per_day": "all"}, {"requests_per_minute": 1e400},
            {"further": 1},
        )
    ),
    json.dumps({"version": 1, "keys": [KEY, {**KEY, "name": "bob", "digest": "1" * 64}]}),
    json.dumps({"version": 1, "keys": [KEY, {**KEY, "name": "bob", "principal": "1" * 16}]}),
)  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_is_refused_and_left_alone(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(AuthenticationError, match="cannot be read"):
        read_keys(path)
    with pytest.raises(AuthenticationError):
        issue_key(path, "bob")
    assert path.read_text() == content


def test_a_file_of_a_later_version_says_so(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('{"version": 2, "keys": []}')
    path.chmod(0o600)
    with pytest.raises(AuthenticationError, match="another version"):
        read_keys(path)


@pytest.mark.parametrize("name", ["", "-a", "a b", "a\n", "a" * 65, "é"])
def test_names_that_no_table_can_show_are_refused(path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        issue_key(path, name)
    assert not path.exists()


def test_quotas_are_positive(path: Path) -> None:
    with pytest.raises(ConfigError, match="tokens_per_day"):
        issue_key(path, "ann", tokens_per_day=0)
    issue_key(path, "ann")
    with pytest.raises(ConfigError, match="requests_per_minute"):
        limit_key(path, "ann", -1, None)
    with pytest.raises(ConfigError, match="a user with a valid key"):
        limit_key(path, "bob", 1, None)
