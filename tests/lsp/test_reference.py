"""docs/language-server.md says what the code does: every setting, command and status field, and no other."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
from forelook_lsp.commands import COMMANDS
from forelook_lsp.settings import describe_settings
from forelook_lsp.status import Snapshot


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "language-server.md").read_text(encoding="utf-8")


def table(page: str, heading: str) -> list[list[str]]:
    section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows[1:]]


def test_the_settings_are_those_of_the_code(page: str) -> None:
    expected = [
        [
            f"`forelook.{option['name']}`",
            option["allowed"],
            f"`{json.dumps(option['default'])}`",
            "yes" if option["machine"] else "",
            option["description"],
        ]
        for option in describe_settings()
    ]
    assert table(page, "Settings") == expected


def test_the_commands_are_those_of_the_code(page: str) -> None:
    assert table(page, "Commands") == [[f"`{row.name}`", row.argument, row.text] for row in COMMANDS]


def test_the_extensions_titles_are_those_of_the_commands_they_run(repository: Path) -> None:
    manifest = json.loads((repository / "extension" / "package.json").read_text(encoding="utf-8"))
    titles = {row["command"]: row["title"] for row in manifest["contributes"]["commands"]}
    own = {row.name: row.title for row in COMMANDS}
    shared = own.keys() & titles.keys()
    assert shared == {"forelook.toggle", "forelook.clearPool"}
    assert {name: titles[name] for name in shared} == {name: own[name] for name in shared}
    assert titles["forelook.showStatistics"] == own["forelook.stats"]


def test_the_status_fields_and_states_are_those_of_the_code(page: str, repository: Path) -> None:
    rows = {row[0].strip("`"): row[1] for row in table(page, "`forelook/status`")}
    assert list(rows) == [item.name for item in fields(Snapshot)]
    source = (repository / "lsp" / "forelook_lsp" / "status.py").read_text(encoding="utf-8")
    returned = set(re.findall(r'return "(\w+)"', source))
    assert set(re.findall(r"`(\w+)`", rows["state"])) == returned
