"""Validation: every error names the field, the value and what was expected, and never shows text."""

from __future__ import annotations

import json

import pytest
from forelook.errors import (
    InvalidParamsError,
)
from forelook.protocol import messages
from forelook.protocol.messages import (
    CompletionParams,
    DocumentChangeParams,
    HelloParams,
    WorkspaceFilesParams,
)
from hypothesis import given
from hypothesis import strategies as st

COMPLETION: dict[str, object] = {"uri": "file:///a.py", "version": 3, "offset": 10}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"offset": -1}, "offset", "invalid offset: -1 (expected integer, 0 or more"),
        ({"offset": 1.0}, "offset", "invalid offset: 1.0 (expected integer, 0 or more"),
        ({"version": True}, "version", "invalid version: true (expected integer"),
        ({"version": None}, "version", "invalid version: null (expected integer"),
        ({"uri": ""}, "uri", "invalid uri: a string of 0 characters (expected string of 1 to 8192 characters"),
        ({"uri": ["a"]}, "uri", "invalid uri: an array (expected"),
        ({"num_suggestions": 9}, "num_suggestions", "expected integer, 1 to 8"),
        ({"trigger": "typed"}, "trigger", 'expected "automatic" or "invoked"'),
        ({"deadline_ms": 0}, "deadline_ms", "expected integer, 1 to 600000 or null"),
        ({"partial": 1}, "partial", "invalid partial: 1 (expected boolean"),
        ({"selected": 3}, "selected", "expected SelectedCompletion or null"),
        ({"selected": {"start": 1, "end": 2}}, "selected.text", "missing selected.text (expected string)"),
        ({"max_tokens": 3}, "max_tokens", "unknown field max_tokens of CompletionParams (expected uri, version"),
    ],
)
def test_a_wrong_param_is_named_with_its_value_and_what_was_expected(
    change: dict[str, object], field: str, said: str
) -> None:
    with pytest.raises(InvalidParamsError) as caught:
        messages.from_json(CompletionParams, COMPLETION | change)
    assert caught.value.field == field
    assert said in str(caught.value)


@pytest.mark.parametrize("missing", ["uri", "version", "offset"])
def test_a_missing_param_is_named(missing: str) -> None:
    params = {name: value for name, value in COMPLETION.items() if name != missing}
    with pytest.raises(InvalidParamsError, match=rf"missing {missing} \(expected"):
        messages.from_json(CompletionParams, params)


def test_an_element_of_an_array_is_named_by_its_index() -> None:
    changes = [{"start": 0, "end": 1, "text": ""}, {"start": 0, "end": "1", "text": ""}]
    with pytest.raises(InvalidParamsError, match=r"invalid changes\[1\]\.end: a string of 1 characters"):
        messages.from_json(DocumentChangeParams, {"uri": "u", "version": 1, "changes": changes})


def test_too_many_elements_are_counted_not_shown() -> None:
    files = [{"path": "p", "text": "secret"}] * (messages.MAX_FILES + 1)
    with pytest.raises(InvalidParamsError) as caught:
        messages.from_json(WorkspaceFilesParams, {"workspace": "w", "files": files})
    assert f"invalid files: {messages.MAX_FILES + 1} elements (expected array" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("params", [None, [], [1, 2], "x", 3, True])
def test_params_that_are_no_object_are_refused(params: object) -> None:
    with pytest.raises(InvalidParamsError, match="expected an object with the fields of HelloParams"):
        messages.from_json(HelloParams, params)


def test_a_wrong_value_that_is_text_is_never_shown() -> None:
    with pytest.raises(InvalidParamsError) as caught:
        messages.from_json(CompletionParams, COMPLETION | {"offset": "password = 'hunter2'"})
    assert "hunter2" not in str(caught.value)


def test_enums_cross_the_wire_as_their_values() -> None:
    params = CompletionParams("u", 1, 2, messages.TriggerKind.INVOKED, multi_line=messages.MultiLine.NEVER)
    sent = messages.to_json(params)
    assert (sent["trigger"], sent["multi_line"]) == ("invoked", "never")
    assert messages.from_json(CompletionParams, json.loads(json.dumps(sent))) == params
    nested = messages.HelloResult(
        2, "0", 1, messages.Status(messages.EngineState.LOADING), messages.ServerLimits(1, 1, 1, 1)
    )
    assert json.loads(json.dumps(messages.to_json(nested)))["status"]["state"] == "loading"


def test_a_client_ignores_fields_that_a_newer_server_adds() -> None:
    status = {"state": "ready", "quantum": True}
    assert messages.from_json(messages.Status, status, allow_unknown=True).state is messages.EngineState.READY
    with pytest.raises(InvalidParamsError):
        messages.from_json(messages.Status, status)


@given(json_values)
def test_no_json_value_gets_past_validation_as_something_else(value: object) -> None:
    for cls in (CompletionParams, DocumentChangeParams, HelloParams, messages.CompletionResult):
        try:
            read = messages.from_json(cls, value)
        except InvalidParamsError:
            continue
        assert isinstance(value, dict)
        again = json.loads(json.dumps(messages.to_json(read)))
        assert {name: again[name] for name in value} == value
