"""Ignore files that others control: pipes, devices, links, endless or costly patterns; and secrets in content."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from forelook.errors import PrivacyError
from forelook.privacy.content import content_reason, secret_reason
from forelook.privacy.ignore_rules import MAX_IGNORE_BYTES, IgnoreRules
from forelook.privacy.rules import WorkspacePrivacy

from tests.privacy.git_comparison import compare

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs pipes and links")


def make(path: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "long":
        path.write_bytes(b"*.log\n" * (20 * 2**20 // 6))
    elif kind == "stars":
        path.write_bytes(b"*a" * 100_000)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "long", "stars"])
@pytest.mark.parametrize(
    "name", ["sub/.gitignore", "sub/.forelookignore", "sub/.git/info/exclude", "sub/own", "sub/.git"]
)
def test_an_ignore_file_that_is_none_withholds_its_folder_and_nothing_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    for folder in ("sub", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").touch()
    if name == "sub/own":
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        (tmp_path / "config" / "git").mkdir(parents=True)
        (tmp_path / "config" / "git" / "ignore").symlink_to(tmp_path / "sub" / "own")
    if name in ("sub/.git/info/exclude", "sub/own"):
        for part in ("objects", "refs", "info"):
            (tmp_path / "sub" / ".git" / part).mkdir(parents=True)
        (tmp_path / "sub" / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    make(tmp_path / name, kind)
    started_s = time.monotonic()
    privacy = WorkspacePrivacy(tmp_path)
    listed = [path for path in privacy.files() if path.name == "a.py"]
    reason = privacy.reason(tmp_path / "sub" / "a.py")
    assert time.monotonic() - started_s < 10
    assert tmp_path / "other" / "a.py" in listed
    is_nothing_to_git = name == "sub/.git" or (name == "sub/.gitignore" and kind == "device")
    assert (reason is None) == is_nothing_to_git, "git follows no link of this name, and no such repository exists"
    if reason is not None:
        assert "excluded" in reason
        assert tmp_path / "sub" / "a.py" not in listed


@pytest.mark.parametrize("pattern", ["*a" * 2000, "**/" * 1300 + "b", "[a-z]*" * 600, "?*" * 2000, "a**" * 1300])
def test_matching_takes_polynomial_time(pattern: str) -> None:
    rules = IgnoreRules(pattern.encode())
    started_s = time.thread_time()
    for path in (b"a" * 255, b"/".join([b"a" * 20] * 150), b"a" * 254 + b"c"):
        rules.verdict(path, is_directory=False)
    assert time.thread_time() - started_s < 3


def test_a_long_ignore_file_is_compiled_and_matched_in_bounded_time() -> None:
    lines = b"".join(b"*a%d*b/c?%d\n" % (number, number) for number in range(2_000))
    started_s = time.thread_time()
    rules = IgnoreRules(lines)
    rules.verdict(b"a" * 200 + b"/c", is_directory=False)
    assert time.thread_time() - started_s < 10
    with pytest.raises(PrivacyError, match="over the limit"):
        IgnoreRules(b"a\n" * MAX_IGNORE_BYTES)


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n", "k = '-----BEGIN PRIVATE KEY-----\\nMIIEvQIBADAN'",
        "-----BEGIN OPENSSH PRIVATE KEY-----\r\nb3BlbnNzaC1r", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQOYBF",
        "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES,AB\n\nMHcCAQ",
        "PuTTY-User-Key-File-3: ssh-rsa", "t = 'ghp" + "_" + "a1B2c3" * 6 + "'", "AKIA" + "ABCDEFGHIJKLMNOP",
        "glpat" + "-" + "a1b2c3d4e5f6g7h8i9j0", "xoxb" + "-123456789012-123456789012-abcdefghijkl",
        "sk" + "_live_" + "a1b2c3d4e5f6g7h8i9j0k1", "AIza" + "SyA1234567890abcdefghijklmnopqrstuvw",
        "npm" + "_" + "a1B2c3" * 6, "hf" + "_" + "abcdefgh" * 4 + "ij", "SG" + "." + "a" * 22 + "." + "b" * 43,
        "sk-ant" + "-api03-" + "aB3_" * 20, "sk-proj-" + "a" * 24 + "T3Blbk" + "FJ" + "b" * 20,
        "dop" + "_v1_" + "0a" * 32, "shpat" + "_" + "0a" * 16, "AccountKey" + "=" + "a" * 86 + "==",
    ],
)  # fmt: skip
def test_text_with_a_secret_is_excluded(text: str) -> None:
    around = "x = 1\n" * 200
    reason = secret_reason(around + text + "\n" + around)
    assert reason is not None
    assert reason.startswith("it contains a")
    assert content_reason((around + text).encode()) == reason


@pytest.mark.parametrize(
    "text",
    [
        "if line == '-----BEGIN PRIVATE KEY-----':\n    return", "AKIAIOSFODNN7EXAMPLE", "token = os.environ['TOKEN']",
        "GITHUB_TOKEN = 'ghp_xxx'", "password = 'hunter2'", "sha256-" + "0a" * 32, "hf_hub_download(repo_id)",
        "re.compile(r'ghp_[A-Za-z0-9]{36}')", "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkq", "SG.Widgets.Button",
        "https://hooks.slack.com/services/", "npm_package_version", "box-us1", "sk_live_ and sk_test_ keys",
    ],
)  # fmt: skip
def test_text_about_secrets_is_not_excluded(text: str) -> None:
    assert secret_reason(text) is None


def test_looking_for_secrets_is_linear() -> None:
    started_s = time.thread_time()
    secret_reason("hf_ ghp_ xox- SG. AIza -us :AA _v1_ -----BEGIN " * 20_000)
    assert time.thread_time() - started_s < 5


def test_made_repositories_agree_with_git() -> None:
    found, num_compared = compare(10, first_seed=5000)
    assert found == []
    assert num_compared > 100
