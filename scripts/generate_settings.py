"""Write the settings of ``forelook.config`` into the extension's manifest and the language server's page.

Usage: python scripts/generate_settings.py   (or `make generate`)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from forelook.config import SETTINGS
from forelook.settings.rows import Audience, Setting

REPOSITORY = Path(__file__).resolve().parents[1]
MANIFEST = REPOSITORY / "extension" / "package.json"
PAGE = REPOSITORY / "docs" / "language-server.md"
TABLE_HEAD = "| setting | allowed | default | machine | meaning |\n|---|---|---|---|---|\n"


def manifest_groups(settings: Iterable[Setting], manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """``contributes.configuration``: the table's groups, then those of the extension alone, which are kept."""
    rows = [row for row in settings if row.audience is Audience.USER]
    generated = [
        {"title": group, "properties": {f"forelook.{row.name}": manifest_property(row) for row in members}}
        for group, members in groupby(rows, key=lambda row: row.group)
    ]
    known = {f"forelook.{row.name}" for row in rows}
    own = [group for group in manifest["contributes"]["configuration"] if not known & group["properties"].keys()]
    for number, group in enumerate([*generated, *own]):
        for place, row in enumerate(group["properties"].values(), start=1):
            row["order"] = 10 * number + place
    return [*generated, *own]


def manifest_property(row: Setting) -> dict[str, Any]:
    """A setting as VS Code declares it."""
    scope = {"scope": "machine"} if row.machine else {}
    default = {"default": row.kind.to_json(row.default)}
    return {"order": 0, **row.kind.schema, **default, **scope, "markdownDescription": row.text}


def page_table(settings: Iterable[Setting]) -> str:
    """The settings that editors may send, as a Markdown table."""
    rows = (
        (f"`forelook.{row.name}`", row.kind.allowed, f"`{json.dumps(row.kind.to_json(row.default))}`",
         "yes" if row.machine else "", row.text)
        for row in settings if row.in_editors
    )  # fmt: skip
    return TABLE_HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def generated() -> dict[Path, str]:
    """The files with the settings of the table in them."""
    manifest = json.loads(MANIFEST.read_text(encoding="utf-8"))
    manifest["contributes"]["configuration"] = manifest_groups(SETTINGS, manifest)
    before, _, after = PAGE.read_text(encoding="utf-8").partition(TABLE_HEAD)
    return {
        MANIFEST: json.dumps(manifest, indent=2, ensure_ascii=False) + "\n",
        PAGE: before + page_table(SETTINGS) + "\n" + after.partition("\n\n")[2],
    }


def main() -> int:
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(REPOSITORY))
    return 0


if __name__ == "__main__":
    sys.exit(main())
