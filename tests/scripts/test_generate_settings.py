"""The manifest and the page have the settings of the table, and a new row reaches every form of it."""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from forelook.commands.arguments import setting_arguments
from forelook.config import DECODING, SETTINGS, EditorConfig, EngineConfig, ServerConfig, table_of
from forelook.errors import ConfigError
from forelook.settings.kinds import integer
from forelook.settings.rows import Effect, Flag, read_json, setting
from forelook_lsp.settings import backend_settings

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import generate_settings  # noqa: E402


@pytest.mark.parametrize("path", [generate_settings.MANIFEST, generate_settings.PAGE], ids=lambda path: path.name)
def test_the_file_is_what_the_table_generates(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == generate_settings.generated()[path], "run `make generate`"


def test_settings_of_the_extension_alone_are_kept() -> None:
    manifest = json.loads(generate_settings.MANIFEST.read_text(encoding="utf-8"))
    *_, last = generate_settings.manifest_groups([], manifest)
    assert {"forelook.server.interpreter", "forelook.trace.server"} <= last["properties"].keys()


@pytest.mark.parametrize("page", ["extension/README.md", "README.md", "docs/protocol.md"])
def test_pages_name_no_setting_that_is_not_there(page: str) -> None:
    text = (generate_settings.REPOSITORY / page).read_text(encoding="utf-8")
    manifest = json.loads(generate_settings.MANIFEST.read_text(encoding="utf-8"))
    known = {name for group in manifest["contributes"]["configuration"] for name in group["properties"]}
    known |= {command["command"] for command in manifest["contributes"]["commands"]}
    named = re.findall(r"`(forelook\.[\w.]+?)(?:\.\*)?`", text)
    assert [name for name in named if not any(f"{other}.".startswith(f"{name}.") for other in known)] == []


@dataclass(frozen=True, slots=True)
class WithTempo(EngineConfig):
    tempo: int = setting(
        3, integer(1, 9), "How fast.", name="lookahead.tempo", group=DECODING, effect=Effect.RESTART,
        flag=Flag("--tempo", metavar="N"),
    )  # fmt: skip


def test_a_new_setting_is_one_row() -> None:
    table = table_of(EditorConfig, WithTempo, ServerConfig)
    assert len(table) == len(SETTINGS) + 1
    expected = "an integer from 1 to 9"

    with pytest.raises(ConfigError, match=f"invalid tempo: 10 .expected {expected}"):
        WithTempo(tempo=10)
    values, problems = read_json(table, {"lookahead": {"window": 2, "tempo": 10}}, prefix="forelook.")
    assert values == {"lookahead_window": 2}
    assert [str(problem) for problem in problems] == [f"invalid forelook.lookahead.tempo: 10 (expected {expected})"]
    assert read_json(table, {"lookahead.tempo": 4})[0] == {"tempo": 4}

    parser = argparse.ArgumentParser()
    setting_arguments(parser, "serve", table=table)
    assert parser.parse_args(["--tempo", "5"]).tempo == 5
    assert "How fast. (default: 3)" in parser.format_help()

    assert backend_settings(WithTempo(tempo=4)) == {"lookahead.tempo": 4}

    (group,) = (
        group
        for group in generate_settings.manifest_groups(table, {"contributes": {"configuration": []}})
        if group["title"] == DECODING
    )
    assert group["properties"]["forelook.lookahead.tempo"] == {
        "order": 30 + len(group["properties"]),
        "type": "integer",
        "minimum": 1,
        "maximum": 9,
        "default": 3,
        "markdownDescription": "How fast.",
    }
    assert f"| `forelook.lookahead.tempo` | {expected} | `3` |  | How fast. |\n" in generate_settings.page_table(table)
