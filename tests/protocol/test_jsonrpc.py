"""Envelopes: any frame is one message, or an error that never quotes it."""

from __future__ import annotations

import dataclasses
import json

import pytest
from forelook.errors import (
    InvalidParamsError,
    MalformedMessageError,
    ProtocolError,
)
from forelook.protocol import jsonrpc, messages
from forelook.protocol.jsonrpc import ErrorResponse, Notification, Request, Response
from forelook.protocol.messages import (
    CompletionParams,
    RequestStats,
)
from forelook.protocol.wire import MAX_INTEGER
from hypothesis import given
from hypothesis import strategies as st

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused(number: str) -> None:
    text = f'{{"jsonrpc":"2.0","id":1,"result":{{"queue_ms":{number}}}}}'

    def read() -> RequestStats:
        message = jsonrpc.decode_message(text)
        assert isinstance(message, Response)
        return messages.from_json(RequestStats, message.result)

    with pytest.raises(ProtocolError):
        read()


@given(st.text(), st.integers(-MAX_INTEGER, MAX_INTEGER), st.integers(0, MAX_INTEGER - 1), st.booleans())
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
        ("", MalformedMessageError, "invalid JSON", None),
        ("{", MalformedMessageError, "at character 1", None),
        ('{"a":1} x', MalformedMessageError, "Extra data", None),
        ("[" * 100_000, MalformedMessageError, "nested too deeply", None),
        ('{"id":' + "9" * 5_000 + "}", MalformedMessageError, "invalid JSON", None),
        ("[]", ProtocolError, "batches are not supported", None),
        ('[{"jsonrpc":"2.0","id":1,"method":"status"}]', ProtocolError, "batches", None),
        ("null", ProtocolError, "null (expected a JSON object)", None),
        ('"hello"', ProtocolError, "a string (expected a JSON object)", None),
        ('{"id":1,"method":"status"}', ProtocolError, 'expected "2.0"', 1),
        ('{"jsonrpc":"1.0","id":"a","method":"status"}', ProtocolError, 'expected "2.0"', "a"),
        ('{"jsonrpc":"2.0","id":5}', ProtocolError, "missing method, result or error", 5),
        ('{"jsonrpc":"2.0","id":5,"method":7}', ProtocolError, "invalid method: an integer", 5),
        ('{"jsonrpc":"2.0","id":null,"method":"status"}', ProtocolError, "expected an integer or a string", None),
        ('{"jsonrpc":"2.0","id":1.5,"method":"status"}', ProtocolError, "expected an integer or a string", None),
        ('{"jsonrpc":"2.0","id":true,"method":"status"}', ProtocolError, "invalid id: a boolean", None),
        ('{"jsonrpc":"2.0","id":{},"method":"status"}', ProtocolError, "invalid id: an object", None),
        ('{"jsonrpc":"2.0","result":1}', ProtocolError, "missing id", None),
        ('{"jsonrpc":"2.0","id":1,"error":"no"}', ProtocolError, "invalid error: a string", 1),
        ('{"jsonrpc":"2.0","id":1,"error":{"code":"x"}}', ProtocolError, "expected an integer code", 1),
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


def test_an_error_response_tells_type_and_field() -> None:
    error = InvalidParamsError("offset is missing")
    error.field = "offset"
    response = ErrorResponse.of(3, error)
    assert dict(response.data) == {"type": "InvalidParamsError", "field": "offset"}
    again = jsonrpc.decode_message(jsonrpc.encode_message(response))
    assert again == dataclasses.replace(response, data=dict(response.data))
