"""The page of the HTTP interfaces has every field of the tables."""

from __future__ import annotations

import generate_http_fields
from forelook.server.http.tables import TABLES


def test_the_page_is_what_the_tables_generate() -> None:
    page = generate_http_fields.PAGE.read_text(encoding="utf-8")
    assert page == generate_http_fields.generated(), "run `make generate`"


def test_every_field_of_every_endpoint_is_on_the_page() -> None:
    page = generate_http_fields.generated()
    for path, table in TABLES.items():
        _, _, section = page.partition(f"### `{path}`\n")
        section = section.partition("\n### ")[0]
        assert [field.name for field in table if f"| `{field.name}` |" not in section] == []
