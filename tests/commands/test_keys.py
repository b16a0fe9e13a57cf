"""``forelook keys``: the key is printed once and alone, the rest never shows one, and errors have their exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from forelook.commands import cli
from forelook.local.usage_ledger import UsageLedger, usage_path_of
from forelook.local.user_keys import KeyRing, read_keys


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "xdg"))


def keys(*arguments: str) -> int:
    return cli.main(["keys", *arguments])


def test_a_key_is_printed_once_and_opens_the_file_it_was_issued_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "team.json"
    assert keys("issue", "ann", "--keys", str(path), "--requests-per-minute", "600") == 0
    out, err = capsys.readouterr()
    key = out.strip()
    assert out == f"{key}\n"
    assert key not in err
    assert KeyRing(path).find(key.encode()) is not None
    UsageLedger(usage_path_of(path)).save()
    ledger = UsageLedger(usage_path_of(path))
    ledger.add(read_keys(path)[0].principal, requests=3, tokens=40)
    ledger.save()
    assert keys("list", "--keys", str(path)) == 0
    table = capsys.readouterr().out
    assert key not in table
    assert read_keys(path)[0].digest not in table
    assert "3 requests, 40 tokens, 0 refused" in table
    assert keys("limit", "ann", "--keys", str(path), "--tokens-per-day", "100") == 0
    assert keys("revoke", "ann", "--keys", str(path)) == 0
    capsys.readouterr()
    assert keys("list", "--keys", str(path), "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["state"].startswith("revoked ")
    assert (row["requests_per_minute"], row["tokens_per_day"]) == (None, 100)
    assert row["today"]["requests"] == 3


def test_without_a_file_the_keys_are_in_the_user_s_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert keys("list") == cli.EXIT_BACKEND
    assert "run `forelook keys issue NAME" in capsys.readouterr().err
    assert keys("issue", "ann") == 0
    assert (tmp_path / "xdg" / "forelook" / "keys.json").exists()


@pytest.mark.parametrize(
    "arguments", [("issue", "a b"), ("issue", "ann", "--tokens-per-day", "0"), ("revoke", "ann"), ("limit", "ann")]
)
def test_what_cannot_be_done_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert keys(*arguments, "--keys", str(tmp_path / "keys.json")) == cli.EXIT_USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("forelook: invalid ")
    assert not (tmp_path / "keys.json").exists()


def test_a_key_is_issued_without_torch_and_a_web_server(tmp_path: Path) -> None:
    code = (
        "import sys; from forelook.commands import cli\n"
        f"cli.main(['keys', 'issue', 'ann', '--keys', {str(tmp_path / 'keys.json')!r}])\n"
        "assert not {'torch', 'numpy', 'starlette', 'websockets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
