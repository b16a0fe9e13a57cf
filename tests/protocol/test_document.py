"""docs/protocol.md documents every message of protocol/messages.py, and no other."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from forelook import errors
from forelook.protocol import jsonrpc, messages, wire
from forelook.protocol.jsonrpc import ErrorResponse, Notification, Request, Response

SECTIONS = {
    "Requests from the client": messages.CLIENT_REQUESTS,
    "Notifications from the client": messages.CLIENT_NOTIFICATIONS,
    "Notifications from the server": messages.SERVER_NOTIFICATIONS,
}


@dataclasses.dataclass(frozen=True)
class MethodSection:
    """What the document says about one method."""

    part: str
    method: str
    body: str

    @property
    def examples(self) -> list[str]:
        return re.findall(r"```json\n(.*?)\n```", self.body, re.DOTALL)


@pytest.fixture(scope="module")
def document(repository: Path) -> str:
    return (repository / "docs" / "protocol.md").read_text(encoding="utf-8")


def method_sections(document: str) -> Iterator[MethodSection]:
    for part, body in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", document, re.DOTALL | re.MULTILINE):
        for method, text in re.findall(r"^### `(.+?)`\n(.*?)(?=^### |\Z)", body, re.DOTALL | re.MULTILINE):
            yield MethodSection(part, method, text)


def tables(document: str) -> dict[str, list[tuple[str, ...]]]:
    found: dict[str, list[tuple[str, ...]]] = {}
    for name, rows in re.findall(r"^\*\*(\w+)\*\*\n\n((?:\|.*\n)+)", document, re.MULTILINE):
        assert name not in found, f"{name} has two tables"
        lines = [tuple(cell.strip() for cell in row.strip("|\n").split("|")) for row in rows.splitlines()]
        assert lines[0] == ("field", "type", "default", "meaning")
        found[name] = lines[2:]
    return found


def wire_classes() -> set[type[Any]]:
    """All dataclasses that some message is made of, the ones inside others included."""
    methods = [m for group in SECTIONS.values() for m in group.values()]
    pending = [m.params for m in methods] + [m.result for m in methods if isinstance(m, jsonrpc.RequestMethod)]
    found: set[type[Any]] = set()
    while pending:
        cls = pending.pop()
        if cls in found:
            continue
        found.add(cls)
        annotations = " ".join(str(f.type) for f in dataclasses.fields(cls))
        inner = [getattr(messages, name, None) for name in re.findall(r"\w+", annotations)]
        pending += [c for c in inner if dataclasses.is_dataclass(c) and c.__module__ == messages.__name__]
    return found - {messages.Empty}


def default_text(field: dataclasses.Field[Any]) -> str:
    default: Any = field.default
    if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    if default is dataclasses.MISSING:
        return "required"
    if dataclasses.is_dataclass(default):
        return "all defaults"
    return f"`{json.dumps(default.value if isinstance(default, Enum) else default)}`"


def test_version_is_the_one_spoken(document: str) -> None:
    assert re.findall(r"^Protocol version: \*\*(\d+)\*\*$", document, re.MULTILINE) == [str(messages.PROTOCOL_VERSION)]


def test_every_method_is_documented_in_its_part_and_no_other_is(document: str) -> None:
    documented = {(s.part, s.method) for s in method_sections(document)}
    assert documented == {(part, name) for part, methods in SECTIONS.items() for name in methods}


def test_every_wire_class_has_a_table_and_no_other_has(document: str) -> None:
    assert set(tables(document)) == {cls.__name__ for cls in wire_classes()}


def test_every_field_is_documented_with_its_type_and_default_in_order(document: str) -> None:
    for name, rows in tables(document).items():
        cls = getattr(messages, name)
        expected = [(f"`{f.name}`", wire.describe_type(cls, f.name), default_text(f)) for f in dataclasses.fields(cls)]
        assert [row[:3] for row in rows] == expected, name
        assert all(row[3] for row in rows), f"{name} has a field without a meaning"


def test_each_method_names_its_params_and_result(document: str) -> None:
    for section in method_sections(document):
        method = SECTIONS[section.part][section.method]
        before, _, after = section.body.partition("\nResult:")
        assert_names(before, method.params, section.method)
        if isinstance(method, jsonrpc.RequestMethod):
            assert_names(after, method.result, section.method)
        else:
            assert after == "", f"{section.method} is a notification and has no result"


def assert_names(text: str, cls: type[Any], method: str) -> None:
    shown = "*No fields.*" if cls is messages.Empty else cls.__name__
    assert shown in text, f"{method} does not say {shown}"


def test_each_example_is_a_valid_message_of_its_section_and_round_trips(document: str) -> None:
    for section in method_sections(document):
        method = SECTIONS[section.part][section.method]
        assert section.examples, f"{section.method} has no example"
        for example in section.examples:
            message = jsonrpc.decode_message(example)
            if isinstance(message, (Request, Notification)):
                assert message.method == section.method
                assert isinstance(message, Request) == isinstance(method, jsonrpc.RequestMethod)
                assert_round_trips(method.params, message.params)
            elif isinstance(message, Response):
                assert isinstance(method, jsonrpc.RequestMethod)
                assert_round_trips(method.result, message.result)
            else:
                assert error_names()[message.code] == message.data["type"]
            expected = json.loads(example)
            if isinstance(message, (Request, Notification)):
                expected.setdefault("params", {})
            assert json.loads(jsonrpc.encode_message(message)) == expected


def assert_round_trips(cls: type[Any], value: object) -> None:
    again = json.loads(json.dumps(messages.to_json(messages.from_json(cls, value))))
    assert isinstance(value, dict)
    assert {name: again[name] for name in value} == value


def error_names() -> dict[int, str]:
    names = {jsonrpc.INTERNAL_ERROR: "InternalError"}
    pending: list[type[errors.ForelookError]] = [errors.ForelookError]
    while pending:
        cls = pending.pop()
        if cls.__module__ == errors.__name__:
            assert cls.code not in names, f"{cls.__name__} and {names[cls.code]} share the code {cls.code}"
            names[cls.code] = cls.__name__
            pending += cls.__subclasses__()
    return names


def test_every_error_code_is_documented_and_no_other_is(document: str) -> None:
    rows = re.findall(r"^\| (-\d+) \| `(\w+)` \| .+ \|$", document, re.MULTILINE)
    assert {int(code): name for code, name in rows} == error_names()
    assert len(rows) == len(error_names())


def test_an_error_read_from_the_wire_is_of_the_class_that_was_sent() -> None:
    for code, name in error_names().items():
        error = ErrorResponse(1, code, "what happened").to_error()
        assert error.code == code
        assert str(error) == "what happened"
        if name != "InternalError":
            assert type(error).__name__ == name
