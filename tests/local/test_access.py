"""Who may connect: tokens, Host and Origin."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from forelook.errors import AuthenticationError, ConfigError
from forelook.local.access import (
    AccessPolicy,
    GetHeaders,
    Refusal,
    accepted_hosts,
    new_token,
    read_tokens,
    server_tls,
)

TOKEN = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
TCP = AccessPolicy(tokens=(TOKEN,), hosts=accepted_hosts("127.0.0.1"))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def request(**named: str | tuple[str, ...]) -> GetHeaders:
    """The headers of a request; several values stand for a header that is sent several times."""
    sent = {name: value if isinstance(value, tuple) else (value,) for name, value in named.items()}
    return lambda name: sent.get(name.lower(), ())


def test_host_may_carry_a_port_and_brackets() -> None:
    for host in ("127.0.0.1:8123", "LOCALHOST:1", "[::1]:8123", "[::1]", "localhost"):
        assert TCP.check(request(host=host, authorization=f"Bearer {TOKEN}")) == "", host
    for host in ("", "[::2]", "localhost.:80", "::1"):
        verdict = TCP.check(request(host=host, authorization=f"Bearer {TOKEN}"))
        assert isinstance(verdict, Refusal), host
        assert verdict.status == 421


def test_doubled_headers_are_refused() -> None:
    bearer = f"Bearer {TOKEN}"
    assert TCP.check(request(host="localhost", authorization=bearer)) == ""
    assert isinstance(TCP.check(request(host=("localhost", "localhost"), authorization=bearer)), Refusal)
    assert isinstance(TCP.check(request(host="localhost", authorization=(bearer, bearer))), Refusal)
    assert isinstance(TCP.check(request(host="localhost", authorization=bearer, origin=("", ""))), Refusal)


def test_refusals_do_not_show_the_token() -> None:
    verdict = TCP.check(request(host="localhost", authorization=f"Bearer {OTHER}"))
    assert isinstance(verdict, Refusal)
    assert OTHER not in verdict.reason
    assert TOKEN not in verdict.reason


def test_each_of_several_tokens_names_its_user() -> None:
    policy = AccessPolicy(tokens=(TOKEN, OTHER))
    names = [policy.check(request(authorization=f"Bearer {token}")) for token in (TOKEN, OTHER, TOKEN)]
    assert names[0] == names[2] != names[1]
    assert TOKEN[:16] not in names


def test_a_listed_page_may_connect_and_others_may_not() -> None:
    policy = AccessPolicy(origins=frozenset({"https://editor.example"}))
    assert policy.check(request(origin="https://editor.example")) == ""
    for origin in ("https://evil.example", "null", ""):
        assert policy.check(request(origin=origin)) == Refusal(403, "connections from web pages are not allowed")


def test_a_loopback_server_accepts_every_loopback_name_and_another_only_its_own() -> None:
    assert accepted_hosts("localhost") == {"127.0.0.1", "::1", "localhost"}
    assert accepted_hosts("GPU.example", ["Proxy.example"]) == {"gpu.example", "proxy.example"}


@pytest.mark.parametrize("content", [None, b"not PEM"])
def test_tls_files_that_cannot_be_used_are_named(tmp_path: Path, content: bytes | None) -> None:
    certificate = tmp_path / "c.pem"
    if content is not None:
        certificate.write_bytes(content)
    with pytest.raises(ConfigError, match=r"--tls-certificate.*c\.pem.*--tls-key.*k\.pem"):
        server_tls(certificate, tmp_path / "k.pem", certificate_field="--tls-certificate", key_field="--tls-key")


def test_tokens_are_new_each_time_and_private(tmp_path: Path) -> None:
    path = tmp_path / "token"
    first, second = new_token(path), new_token(path)
    assert first != second
    assert len(bytes.fromhex(second)) == 32
    assert mode(path) == 0o600
    assert read_tokens(path) == (second,)


def test_a_token_file_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token = new_token(path)
    path.chmod(0o640)
    with pytest.raises(AuthenticationError, match="is readable by other users; run `chmod 600`") as caught:
        read_tokens(path)
    assert token not in str(caught.value)


@pytest.mark.timeout(20)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_what_is_called_like_a_token_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "endless").symlink_to("/dev/zero")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**33)
    (tmp_path / "huge").chmod(0o600)
    for name in ("pipe", "endless", "huge", "missing", "."):
        with pytest.raises(AuthenticationError, match="cannot be read"):
            read_tokens(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"\n", b"short\n", b"\xff" * 64])
def test_a_token_file_without_a_token_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(AuthenticationError, match="token"):
        read_tokens(path)
