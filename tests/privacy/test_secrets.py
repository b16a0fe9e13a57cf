"""The secrets list."""

from __future__ import annotations

from pathlib import Path

import pytest
from forelook.errors import PrivacyError
from forelook.privacy.rules import WorkspacePrivacy
from forelook.privacy.secrets import check_document, is_secret, is_secret_path

from tests.privacy.secret_names import ORDINARY_NAMES, SECRET_NAMES


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


def test_names_that_scanners_and_collections_list_are_excluded() -> None:
    names = SECRET_NAMES.split()
    assert len(set(names)) >= 300
    assert [name for name in names if not is_secret_path(name)] == []
    assert [name for name in names if not is_secret("file:///w", f"untitled:{name}")] == []


def test_ordinary_names_are_not_excluded() -> None:
    names = ORDINARY_NAMES.split()
    assert len(set(names)) >= 200
    assert [name for name in names if is_secret_path(name)] == []


@pytest.mark.parametrize("stem", ["service{}account", "api{}key", "access{}key", "private{}key", "client{}secret"])
@pytest.mark.parametrize("separator", ["", "-", "_", ".", " "])
@pytest.mark.parametrize("form", ["{}.json", "my-{}.txt", "{}s.yaml", "prod.{}.ini", "{}Copy.json"])
def test_separators_are_optional(stem: str, separator: str, form: str) -> None:
    assert is_secret_path(form.format(stem.format(separator)))


@pytest.mark.parametrize(
    "uri",
    [
        "untitled:.env", "untitled:%2Eenv", "untitled:/w/.env", "vscode-vfs://github/ada/app/.env", "FILE:///w/.env",
        "git:/w/.env?%7B%22path%22%3A%22%2Fw%2F.env%22%7D", "git:/w/a.py?%7B%22path%22%3A%22%2Fw%2F.env%22%7D",
        "vscode-remote://ssh-remote%2Bhost/home/ada/id_rsa", "file:/w/.env", "file:///w/.env/", "file:///w/.env#x",
        "file:///w/sub/../.env", "file:///w//.env", "file://localhost/w/.env", "file:///w/id_rsa%20",
        "untitled:id_rsa.",
        "fugitive:///w/.git//0123abcd/server.pem", "zipfile:///w/a.zip::.env",
        "untitled:dir%5C.env", "notes:server.key",
    ],
)  # fmt: skip
def test_the_spelling_of_a_uri_does_not_matter(uri: str) -> None:
    assert is_secret("file:///w", uri)


def test_a_key_of_a_second_window_is_judged_by_its_file() -> None:
    assert is_secret("file:///w", "server.pem#window=2")
    assert not is_secret("file:///w", "a.py#window=2")
