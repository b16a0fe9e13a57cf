"""What a request's fields are, and what becomes of each: one table per endpoint.

Every field is honored, ignored or refused. A field that no table has is ignored, as all three servers do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from forelook.errors import ProtocolError
from forelook.protocol.messages import MAX_NEW_TOKENS
from forelook.settings.kinds import Kind, boolean, integer, number

MAX_STOPS = 32  # chosen, not measured
MAX_STOP_CHARS = 1_000  # chosen, not measured
MAX_FILES = 256  # chosen, not measured
MAX_ANSWERS = 16  # chosen, not measured
MAX_LANGUAGE_CHARS = 64


class Treatment(Enum):
    """What becomes of a field."""

    HONORED = "honored"
    IGNORED = "ignored"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Field:
    """One row of an endpoint's table.

    Attributes:
        name: as requests spell it; dotted where nested (``options.temperature``).
        treatment: what becomes of it.
        text: what it means, or why it is not honored; for the docs.
        kind: the values that an honored field may have; ``null`` is always its default.
        default: the value of an honored field that is missing.
        harmless: the values of a refused field that ask for nothing, besides ``null``.
    """

    name: str
    treatment: Treatment
    text: str
    kind: Kind | None = None
    default: Any = None
    harmless: tuple[object, ...] = ()


class HttpError(ProtocolError):
    """A request that cannot be answered.

    Attributes:
        status: of HTTP.
        field: the field at fault, if one is.
        retry_after_s: when to ask again, if that helps.
    """

    def __init__(self, status: int, message: str, *, field: str | None = None, retry_after_s: float | None = None):
        super().__init__(message)
        self.status = status
        self.field = field
        self.retry_after_s = retry_after_s


def honored(name: str, kind: Kind, text: str, default: object = None) -> Field:
    """A field that is honored."""
    return Field(name, Treatment.HONORED, text, kind, default)


def ignored(name: str, text: str) -> Field:
    """A field that is ignored, whatever its value."""
    return Field(name, Treatment.IGNORED, text)


def refused(name: str, text: str, *harmless: object) -> Field:
    """A field that is refused, but for values that ask for nothing."""
    return Field(name, Treatment.REFUSED, text, harmless=harmless)


def read(table: Sequence[Field], body: object) -> dict[str, Any]:
    """The values of the honored fields by name.

    Raises:
        HttpError: the body is no object, or a field has a value that it may not have.
    """
    if not isinstance(body, Mapping):
        raise HttpError(400, "the body is not a JSON object")
    values: dict[str, Any] = {}
    for field in table:
        given = _find(body, field.name)
        if field.treatment is Treatment.HONORED and field.kind is not None:
            values[field.name] = field.default if given is None else _checked(field, field.kind, given)
        elif field.treatment is Treatment.REFUSED and given is not None and not _is_one_of(given, field.harmless):
            raise HttpError(400, f"{field.name} is not supported: {field.text}; leave it out", field=field.name)
    return values


def _find(body: Mapping[str, Any], name: str) -> object:
    group, _, inner = name.rpartition(".")
    if not group:
        return body.get(name)
    nested = body.get(group)
    if nested is not None and not isinstance(nested, Mapping):
        raise HttpError(400, f"invalid {group} (expected an object)", field=group)
    return None if nested is None else nested.get(inner)


def _checked(field: Field, kind: Kind, given: object) -> object:
    try:
        return kind.accepted(kind.from_json(given))
    except ValueError:
        # The value may be the user's text, so that the message says only what is expected.
        raise HttpError(400, f"invalid {field.name} (expected {kind.allowed})", field=field.name) from None


def _is_one_of(given: object, values: Iterable[object]) -> bool:
    return any(type(given) is type(value) and given == value for value in values)


# --- kinds of values


def string() -> Kind:
    """A string, which may be empty."""
    return Kind("a string", {"type": "string"}, lambda value: isinstance(value, str))


def whole(low: int, high: int, *, clamps: bool = False) -> Kind:
    """A whole number, both limits included; as some clients' JSON has only floats, 16.0 is one.

    Args:
        low: the least.
        high: the greatest.
        clamps: whether a greater number means ``high``.
    """

    def from_json(value: object) -> object:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and clamps:
            return min(value, high)
        return value

    kind = integer(low, high)
    allowed = f"an integer of at least {low}" if clamps else kind.allowed
    return Kind(allowed, {"type": "integer"}, kind.accepts, from_json)


def token_limit(low: int) -> Kind:
    """A maximum number of tokens; more than there can be means as many as there can be."""
    return whole(low, MAX_NEW_TOKENS, clamps=True)


def temperature() -> Kind:
    """A temperature of sampling."""
    return number(0.0, 100.0)


def probability() -> Kind:
    """A share from 0 to 1."""
    return number(0.0, 1.0)


def any_integer() -> Kind:
    """Any whole number, such as a seed."""
    return whole(-(2**64), 2**64)


def stops() -> Kind:
    """A text that ends the output, or a list of some; empty ones mean nothing."""

    def from_json(value: object) -> object:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError("no list of strings")
        return tuple(text for text in texts if text)

    def accepts(value: object) -> bool:
        return isinstance(value, tuple) and len(value) <= MAX_STOPS and all(len(t) <= MAX_STOP_CHARS for t in value)

    allowed = f"a string, or a list of at most {MAX_STOPS}, each of at most {MAX_STOP_CHARS} characters"
    return Kind(allowed, {"type": ["string", "array"]}, accepts, from_json)


def strings(allowed: str, max_items: int) -> Kind:
    """A list of strings."""
    return _list_of(lambda item: isinstance(item, str), allowed, max_items)


def token_ids(max_items: int) -> Kind:
    """A list of token ids."""
    return _list_of(is_token, f"a list of at most {max_items} token ids", max_items)


def _list_of(is_item: Callable[[object], bool], allowed: str, max_items: int) -> Kind:
    def accepts(value: object) -> bool:
        return isinstance(value, list) and len(value) <= max_items and all(map(is_item, value))

    return Kind(allowed, {"type": "array"}, accepts)


def is_token(value: object) -> bool:
    """Whether a JSON value may be a token id; of which model it may be, the engine knows."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def prompts(is_prompt: Callable[[object], bool], allowed: str) -> Kind:
    """One prompt, or a list of some."""

    def from_json(value: object) -> object:
        return (value,) if is_prompt(value) else tuple(value) if isinstance(value, list) else value

    def accepts(value: object) -> bool:
        return isinstance(value, tuple) and 0 < len(value) <= MAX_ANSWERS and all(map(is_prompt, value))

    return Kind(allowed, {"type": ["string", "array"]}, accepts, from_json)


CLEAN = honored(
    "forelook_clean", boolean(), "Answer what Forelook's editors get: to the end of the scope, fitted to the text "
    "around the cursor. The header `X-Forelook-Clean: true` means the same.", default=False,
)  # fmt: skip
LANGUAGE = honored(
    "forelook_language", Kind(
        f"a string of at most {MAX_LANGUAGE_CHARS} characters", {"type": "string"},
        lambda value: isinstance(value, str) and len(value) <= MAX_LANGUAGE_CHARS,
    ), "LSP's id of the language, for `forelook_clean`.", default="",
)  # fmt: skip
OWN_FIELDS = (CLEAN, LANGUAGE)
