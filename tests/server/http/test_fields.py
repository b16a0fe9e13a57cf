"""Every field of every endpoint is what its row says: honored and checked, ignored, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from forelook.server.http.fields import Treatment
from forelook.server.http.tables import TABLES

from tests.server.http.harness import TARGET, http_running

BODIES: dict[str, dict[str, object]] = {
    "/v1/completions": {"prompt": TARGET[:300], "suffix": "xx", "max_tokens": 5},
    "/infill": {"input_prefix": TARGET[:300], "input_suffix": "xx", "n_predict": 5},
    "/completion": {"prompt": f"<PRE><SUF>xx<MID>{TARGET[:300]}", "n_predict": 5},
    "/tokenize": {"content": "abc"},
    "/detokenize": {"tokens": [97, 98]},
    "/api/generate": {"prompt": TARGET[:300], "suffix": "xx", "stream": False, "options": {"num_predict": 5}},
}
TEXT_OF = {"/v1/completions": "choices", "/infill": "content", "/completion": "content", "/api/generate": "response",
           "/tokenize": "tokens", "/detokenize": "content"}  # fmt: skip
WRONG = {"a": [None, {}]}


def body_with(path: str, name: str, value: object) -> dict[str, object]:
    body = dict(BODIES[path])
    group, _, inner = name.rpartition(".")
    if group:
        before = body.get(group, {})
        assert isinstance(before, dict)
        body[group] = {**before, inner: value}
    else:
        body[name] = value
    return body


@pytest.mark.parametrize("path", TABLES)
async def test_every_row_is_what_the_table_says(path: str, tmp_path: Path) -> None:
    async with http_running(tmp_path) as server:
        plain = await server.ask(path, BODIES[path])
        assert plain.status == 200, plain.body
        expected = plain.json[TEXT_OF[path]]
        for field in TABLES[path]:
            answer = await server.ask(path, body_with(path, field.name, WRONG))
            if field.treatment is Treatment.IGNORED:
                assert answer.status == 200, field.name
                assert answer.json[TEXT_OF[path]] == expected
                continue
            assert answer.status == 400, (field.name, answer.body)
            assert field.name in answer.body.decode(), "the message names the field"
            for value in (None, *field.harmless):
                if field.treatment is Treatment.REFUSED:
                    answer = await server.ask(path, body_with(path, field.name, value))
                    assert answer.status == 200, (field.name, value)
                    assert answer.json[TEXT_OF[path]] == expected


@pytest.mark.parametrize("path", TABLES)
def test_no_field_has_two_rows_and_each_says_what_it_does(path: str) -> None:
    names = [field.name for field in TABLES[path]]
    assert len(set(names)) == len(names)
    assert all(field.text for field in TABLES[path])
