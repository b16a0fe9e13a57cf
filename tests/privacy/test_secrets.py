"""The secrets list."""

from __future__ import annotations

from pathlib import Path

import pytest
from forelook.errors import PrivacyError
from forelook.privacy.rules import WorkspacePrivacy
from forelook.privacy.secrets import check_document, is_secret, is_secret_path


@pytest.mark.parametrize(
    "name",
    [
        ".env", ".env.local", ".envrc", "deploy/prod.env", "id_rsa", "keys/id_ed25519.pub", "server.pem",
        "tls/server.KEY", ".npmrc", "home/.netrc", ".pypirc", ".aws/config", "a/.ssh/config", "terraform.tfstate",
        "x.tfstate.backup", "prod.tfvars", "kubeconfig", "my-kubeconfig.yaml", ".kube/config", "credentials",
        "credentials.json", "app-secrets.yaml", "config/secrets.yml", "secrets/x.py", "service_account.json", "token",
        ".git/config", ".git-credentials", "x/.config/gcloud/a.json", ".docker/config.json", "db.sqlite3",
        ".bash_history", "wallet.dat", "C:\\work\\.env", "passwords.txt", "api_key.txt",
    ],
)  # fmt: skip
def test_secret_names_are_excluded(name: str) -> None:
    assert is_secret_path(name)
    assert is_secret_path(f"/home/ada/work/{name}")
    assert is_secret_path(name.upper())


@pytest.mark.parametrize(
    "name",
    [
        "environment.py", "keys.py", "secrets.py", "credentials.py", "token.py", "tokens/parse.py", "tokenizer.json",
        "password_reset.html", "monkey.py", "public_key.go", "vault.ts", "README.md", ".github/workflows/ci.yml",
        "tests/test_secrets.py", "denv", "",
    ],
)  # fmt: skip
def test_code_about_secrets_is_not_excluded(name: str) -> None:
    assert not is_secret_path(name)


def test_no_ignore_file_lets_a_secret_through(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1")
    (tmp_path / ".gitignore").write_text("!.env\n")
    (tmp_path / ".forelookignore").write_text("!.env\n")
    assert not WorkspacePrivacy(tmp_path).permits(Path(".env"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("config/.env", True),
        ("src/main.py", False),
        ("file:///home/ada/secrets/app/config/%2Eenv", True),
        ("file:///home/ada/secrets/app/main.py", False),
        ("file:///elsewhere/.env", True),
        ("file:///elsewhere/secrets/main.py", False),
    ],
)
def test_the_names_above_the_workspace_do_not_count(name: str, expected: bool) -> None:
    assert is_secret("file:///home/ada/secrets/app", name) is expected


def test_a_document_on_the_list_is_refused() -> None:
    check_document("file:///w", "file:///w/main.py")
    with pytest.raises(PrivacyError, match="on the secrets list; completion is disabled"):
        check_document("file:///w", "file:///w/id_rsa")
