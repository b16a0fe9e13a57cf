"""Envelopes and validation: every error names the field, the value and what was expected, and never shows text."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest
from forelook.errors import (
    InvalidParamsError,
    MalformedMessageError,
    ProtocolError,
    ProtocolVersionError,
    UnknownMethodError,
)
from forelook.protocol import jsonrpc, messages
from forelook.protocol.jsonrpc import ErrorResponse, Notification, Request, Response
from forelook.protocol.messages import (
    CompletionParams,
    DocumentChangeParams,
    HelloParams,
    RequestStats,
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
        ({"offset": -1}, "offset", "offset = -1 is not valid: expected integer, 0 or more"),
        ({"offset": 1.0}, "offset", "offset = 1.0 is not valid: expected integer, 0 or more"),
        ({"version": True}, "version", "version = true is not valid: expected integer"),
        ({"version": None}, "version", "version = null is not valid: expected integer"),
        ({"uri": ""}, "uri", "uri = a string of 0 characters is not valid: expected string of 1 to 8192 characters"),
        ({"uri": ["a"]}, "uri", "uri = an array is not valid"),
        ({"num_suggestions": 9}, "num_suggestions", "expected integer, 1 to 8"),
        ({"trigger": "typed"}, "trigger", 'expected "automatic" or "invoked"'),
        ({"deadline_ms": 0}, "deadline_ms", "expected integer, 1 to 600000 or null"),
        ({"partial": 1}, "partial", "partial = 1 is not valid: expected boolean"),
        ({"selected": 3}, "selected", "expected SelectedCompletion or null"),
        ({"selected": {"start": 1, "end": 2}}, "selected.text", "selected.text is missing: expected string"),
        ({"max_tokens": 3}, "max_tokens", "max_tokens is not a field of CompletionParams: expected uri, version"),
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
    with pytest.raises(InvalidParamsError, match=f"{missing} is missing: expected"):
        messages.from_json(CompletionParams, params)


def test_an_element_of_an_array_is_named_by_its_index() -> None:
    changes = [{"start": 0, "end": 1, "text": ""}, {"start": 0, "end": "1", "text": ""}]
    with pytest.raises(InvalidParamsError, match=r"changes\[1\].end = a string of 1 characters"):
        messages.from_json(DocumentChangeParams, {"uri": "u", "version": 1, "changes": changes})


def test_too_many_elements_are_counted_not_shown() -> None:
    files = [{"path": "p", "text": "secret"}] * (messages.MAX_FILES + 1)
    with pytest.raises(InvalidParamsError) as caught:
        messages.from_json(WorkspaceFilesParams, {"workspace": "w", "files": files})
    assert f"files has {messages.MAX_FILES + 1} elements: expected array" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("params", [None, [], [1, 2], "x", 3, True])
def test_params_that_are_no_object_are_refused(params: object) -> None:
    with pytest.raises(InvalidParamsError, match="expected an object with the fields of HelloParams"):
        messages.from_json(HelloParams, params)


def test_a_wrong_value_that_is_text_is_never_shown() -> None:
    with pytest.raises(InvalidParamsError) as caught:
        messages.from_json(CompletionParams, COMPLETION | {"offset": "password = 'hunter2'"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused(number: str) -> None:
    text = f'{{"jsonrpc":"2.0","id":1,"result":{{"queue_ms":{number}}}}}'

    def read() -> RequestStats:
        message = jsonrpc.decode_message(text)
        assert isinstance(message, Response)
        return messages.from_json(RequestStats, message.result)

    with pytest.raises(ProtocolError):
        read()


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


@given(st.text(), st.integers(), st.integers(0), st.booleans())
def test_what_is_encoded_decodes_to_the_same(text: str, version: int, offset: int, partial: bool) -> None:
    selected = messages.SelectedCompletion(offset, offset + 1, text)
    params = CompletionParams("u", version, offset, selected=selected, partial=partial)
    message = jsonrpc.decode_message(jsonrpc.encode_request("id", messages.COMPLETION, params))
    assert isinstance(message, Request)
    assert (message.id, message.method) == ("id", "completion")
    assert messages.from_json(CompletionParams, message.params) == params


@given(st.text(alphabet=st.characters(categories=("Cs", "Lo", "So"))))
def test_lone_surrogates_can_be_sent(text: str) -> None:
    frame = jsonrpc.encode_message(Response(1, {"text": text}))
    frame.encode("utf-8")
    message = jsonrpc.decode_message(frame)
    assert isinstance(message, Response)
    # JSON joins a high and a low surrogate that stand side by side into the character they mean
    assert message.result == {"text": text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")}


@pytest.mark.parametrize(
    ("frame", "kind", "said", "request_id"),
    [
        ("", MalformedMessageError, "not valid JSON", None),
        ("{", MalformedMessageError, "at character 1", None),
        ('{"a":1} x', MalformedMessageError, "Extra data", None),
        ("[" * 100_000, MalformedMessageError, "nested too deeply", None),
        ('{"id":' + "9" * 5_000 + "}", MalformedMessageError, "not valid JSON", None),
        ("[]", ProtocolError, "batches are not part of this protocol", None),
        ('[{"jsonrpc":"2.0","id":1,"method":"status"}]', ProtocolError, "batches", None),
        ("null", ProtocolError, "must be a JSON object, not null", None),
        ('"hello"', ProtocolError, "must be a JSON object, not a string", None),
        ('{"id":1,"method":"status"}', ProtocolError, 'jsonrpc must be "2.0"', 1),
        ('{"jsonrpc":"1.0","id":"a","method":"status"}', ProtocolError, 'jsonrpc must be "2.0"', "a"),
        ('{"jsonrpc":"2.0","id":5}', ProtocolError, "needs method, result or error", 5),
        ('{"jsonrpc":"2.0","id":5,"method":7}', ProtocolError, "method must be a string, not an integer", 5),
        ('{"jsonrpc":"2.0","id":null,"method":"status"}', ProtocolError, "id must be an integer or a string", None),
        ('{"jsonrpc":"2.0","id":1.5,"method":"status"}', ProtocolError, "id must be an integer or a string", None),
        ('{"jsonrpc":"2.0","id":true,"method":"status"}', ProtocolError, "not a boolean", None),
        ('{"jsonrpc":"2.0","id":{},"method":"status"}', ProtocolError, "not an object", None),
        ('{"jsonrpc":"2.0","result":1}', ProtocolError, "must carry the id", None),
        ('{"jsonrpc":"2.0","id":1,"error":"no"}', ProtocolError, "error must be an object", 1),
        ('{"jsonrpc":"2.0","id":1,"error":{"code":"x"}}', ProtocolError, "error.code must be an integer", 1),
    ],
)
def test_a_message_that_is_none_is_refused_with_its_id_where_it_has_one(
    frame: str, kind: type[ProtocolError], said: str, request_id: object
) -> None:
    with pytest.raises(kind) as caught:
        jsonrpc.decode_message(frame)
    assert type(caught.value) is kind
    assert said in str(caught.value)
    assert caught.value.request_id == request_id


def test_malformed_json_is_not_quoted_in_the_error() -> None:
    with pytest.raises(MalformedMessageError) as caught:
        jsonrpc.decode_message('{"text": "hunter2" hunter2}')
    assert "hunter2" not in str(caught.value)


@given(st.text() | json_values.map(json.dumps))
def test_any_frame_is_a_message_or_a_protocol_error(frame: str) -> None:
    try:
        message = jsonrpc.decode_message(frame)
    except ProtocolError:
        return
    assert isinstance(message, (Request, Notification, Response, ErrorResponse))


def test_params_left_out_are_no_fields() -> None:
    message = jsonrpc.decode_message('{"jsonrpc":"2.0","id":1,"method":"status"}')
    assert message == Request(1, "status", {})


def test_an_unknown_method_is_answered_with_those_there_are() -> None:
    with pytest.raises(UnknownMethodError, match="hello, completion, status"):
        messages.request_method("textDocument/completion")
    with pytest.raises(UnknownMethodError, match="it is a notification: send it without an id"):
        messages.request_method("document/open")
    with pytest.raises(UnknownMethodError, match="it is a request: send it with an id"):
        messages.notification_method("completion")


@pytest.mark.parametrize(("version", "who"), [(0, "client"), (messages.PROTOCOL_VERSION + 1, "backend")])
def test_another_version_is_refused_and_the_older_side_named(version: int, who: str) -> None:
    with pytest.raises(ProtocolVersionError, match=f"protocol_version = {version} .* update or restart the {who}"):
        messages.check_version(version)


def test_an_error_response_tells_type_and_field() -> None:
    error = InvalidParamsError("offset is missing")
    error.field = "offset"
    response = ErrorResponse.of(3, error)
    assert dict(response.data) == {"type": "InvalidParamsError", "field": "offset"}
    again = jsonrpc.decode_message(jsonrpc.encode_message(response))
    assert again == dataclasses.replace(response, data=dict(response.data))


@pytest.mark.parametrize(
    "module",
    [
        "forelook.protocol.messages",
        "forelook.local.spawn",
        "forelook.config",
        "forelook.errors",
        "forelook.commands.cli",
    ],
)
def test_shared_modules_import_nothing_heavy(module: str) -> None:
    code = (
        f"import sys, {module}; heavy = {{'torch', 'numpy', 'starlette', 'uvicorn', 'websockets', 'rich'}}"
        "; print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
