"""Write the fields of the HTTP endpoints into their page.

Usage: python scripts/generate_http_fields.py   (or `make generate`)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from forelook.server.http.fields import Field, Treatment
from forelook.server.http.tables import TABLES

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "http.md"
BEGIN, END = "<!-- begin: fields -->\n", "<!-- end: fields -->\n"


def section(path: str, table: Sequence[Field]) -> str:
    """The fields of one endpoint: honored, refused and ignored."""
    rows = [
        f"| `{field.name}` | {field.treatment.value} | {_values(field)} | {field.text} |\n"
        for treatment in (Treatment.HONORED, Treatment.REFUSED, Treatment.IGNORED)
        for field in table
        if field.treatment is treatment
    ]
    return f"### `{path}`\n\n| field | treatment | values | meaning, or reason |\n|---|---|---|---|\n{''.join(rows)}\n"


def _values(field: Field) -> str:
    if field.treatment is Treatment.REFUSED:
        allowed = ", ".join(f"`{json.dumps(value)}`" for value in field.harmless)
        return f"only {allowed}" if allowed else "none"
    if field.kind is None:
        return "any"
    default = json.dumps(field.default)
    return field.kind.allowed if field.default is None else f"{field.kind.allowed}; default `{default}`"


def generated() -> str:
    """The page with the tables in it."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    sections = "".join(section(path, table) for path, table in TABLES.items())
    return f"{before}{BEGIN}{sections.rstrip()}\n{END}{after}"


def main() -> int:
    PAGE.write_text(generated(), encoding="utf-8")
    print(PAGE.relative_to(REPOSITORY))
    return 0


if __name__ == "__main__":
    sys.exit(main())
