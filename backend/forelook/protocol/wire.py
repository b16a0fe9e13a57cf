"""Wire dataclasses to JSON and back. A dataclass's annotations are its validation rules. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, fields, is_dataclass, replace
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, TypeVar, Union, get_args, get_origin, get_type_hints

from forelook.errors import InvalidParamsError

T = TypeVar("T")

MAX_INTEGER = 2**53 - 1
"""Bound of every number, in both directions: what all JSON readers represent exactly."""

MAX_TEXT_LENGTH = 2**28
"""Bound of every string that has no bound of its own: document text, which the size of a message limits first."""


@dataclass(frozen=True, slots=True)
class AtLeast:
    """The annotated number is ``minimum`` or more, and at most ``maximum``."""

    minimum: int
    maximum: int = MAX_INTEGER


@dataclass(frozen=True, slots=True)
class Length:
    """The annotated string or array has ``minimum`` to ``maximum`` elements."""

    minimum: int
    maximum: int


def to_json(value: object) -> dict[str, object]:
    """Convert a wire dataclass to a JSON object."""
    if not is_dataclass(value) or isinstance(value, type):
        raise TypeError(f"{type(value).__name__} is not a wire dataclass")
    return asdict(value, dict_factory=_object)


def _object(fields_: list[tuple[str, Any]]) -> dict[str, object]:
    """The fields of a dataclass as a JSON object; enum members become their values."""
    return {name: value.value if isinstance(value, Enum) else value for name, value in fields_}


def from_json(cls: type[T], value: object, *, allow_unknown: bool = False) -> T:
    """Convert a JSON object to the wire dataclass ``cls`` and check every field.

    Args:
        cls: a wire dataclass.
        value: decoded JSON.
        allow_unknown: ignore fields that ``cls`` does not have. Clients set it, so that a newer backend may send
            more; the backend does not, so that a misspelled param is not lost.

    Raises:
        InvalidParamsError: with the field, its value and what was expected.
    """
    result: T = _Decoder.for_class(cls).decode(value, "", allow_unknown)
    return result


def describe_type(cls: type[object], name: str) -> str:
    """The type of a field in docs/protocol.md and error messages: ``"integer, 0 or more"``."""
    return _Decoder.for_class(cls).members[name].expected


_JSON_NAMES = {NoneType: "null", bool: "a boolean", int: "an integer", float: "a number", str: "a string"}


def json_kind(value: object) -> str:
    """The kind of a JSON value, for an error message: ``"an array"``."""
    if isinstance(value, list):
        return "an array"
    if isinstance(value, dict):
        return "an object"
    return _JSON_NAMES.get(type(value), type(value).__name__)


def _shown(value: object) -> str:
    """A value for an error message. Of text only the length: it may be document text."""
    if value is None:
        return "null"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_INTEGER:
        return f"an integer of {value.bit_length()} bits, over 53"  # Python refuses to print the longest
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)[:40]
    if isinstance(value, str):
        return f"a string of {len(value)} characters"
    return json_kind(value)


@dataclass(frozen=True, slots=True)
class _Member:
    """Reads values of one type.

    Attributes:
        expected: the type, in words.
        decode: converts a JSON value; raises InvalidParamsError.
        accepts: whether a JSON value has the right kind; chooses among the members of a union.
    """

    expected: str
    decode: Callable[[object, str, bool], Any]
    accepts: Callable[[object], bool]


def _refusal(field: str, message: str) -> InvalidParamsError:
    error = InvalidParamsError(message)
    error.field = field
    return error


def _wrong(where: str, value: object, expected: str) -> InvalidParamsError:
    return _refusal(where or "params", f"invalid {where or 'params'}: {_shown(value)} (expected {expected})")


def _scalar(expected: str, accepts: Callable[[Any], bool]) -> _Member:
    def decode(value: object, where: str, allow_unknown: bool) -> object:  # noqa: ARG001
        if not accepts(value):
            raise _wrong(where, value, expected)
        return value

    return _Member(expected, decode, accepts)


def _choice(cls: type[Enum]) -> _Member:
    members = {member.value: member for member in cls}
    name = _scalar(" or ".join(f'"{value}"' for value in members), lambda v: isinstance(v, str) and v in members)
    return replace(name, decode=lambda value, where, unknown: members[name.decode(value, where, unknown)])


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT_LENGTH


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -MAX_INTEGER <= value <= MAX_INTEGER


def _is_number(value: object) -> bool:
    # the comparison is false for NaN and the infinities, and never overflows, as a conversion to float would
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -MAX_INTEGER <= value <= MAX_INTEGER


def _limited(member: _Member, limit: AtLeast) -> _Member:
    most = limit.maximum
    allowed = f"{limit.minimum} or more" if most == MAX_INTEGER else f"{limit.minimum} to {most}"
    return _scalar(f"{member.expected}, {allowed}", lambda v: member.accepts(v) and limit.minimum <= v <= most)


def _sized(member: _Member, limit: Length) -> _Member:
    expected = f"{member.expected} of {limit.minimum} to {limit.maximum}"
    if member.expected == "string":
        return _scalar(
            expected + " characters",
            lambda v: isinstance(v, str) and limit.minimum <= len(v) <= limit.maximum,
        )

    def decode(value: object, where: str, allow_unknown: bool) -> object:
        if isinstance(value, list) and not limit.minimum <= len(value) <= limit.maximum:
            raise _refusal(where, f"invalid {where}: {len(value)} elements (expected {expected})")
        return member.decode(value, where, allow_unknown)

    return _Member(expected, decode, member.accepts)


def _array(item: _Member) -> _Member:
    expected = f"array of {item.expected}"

    def decode(value: object, where: str, allow_unknown: bool) -> object:
        if not isinstance(value, list):
            raise _wrong(where, value, expected)
        return tuple(item.decode(v, f"{where}[{i}]", allow_unknown) for i, v in enumerate(value))

    return _Member(expected, decode, lambda v: isinstance(v, list))


def _map(item: _Member | None) -> _Member:
    expected = "object" if item is None else f"object of {item.expected}"

    def decode(value: object, where: str, allow_unknown: bool) -> object:
        if not isinstance(value, dict):
            raise _wrong(where, value, expected)
        if item is None:
            return value
        return {key: item.decode(v, f"{where}.{key[:40]}", allow_unknown) for key, v in value.items()}

    return _Member(expected, decode, lambda v: isinstance(v, dict))


def _one_of(members: tuple[_Member, ...]) -> _Member:
    expected = " or ".join(member.expected for member in members)

    def decode(value: object, where: str, allow_unknown: bool) -> object:
        for member in members:
            if member.accepts(value):
                return member.decode(value, where, allow_unknown)
        raise _wrong(where, value, expected)

    return _Member(expected, decode, lambda v: any(member.accepts(v) for member in members))


_SCALARS: Mapping[object, _Member] = {
    str: _scalar("string", _is_text),
    bool: _scalar("boolean", lambda v: isinstance(v, bool)),
    int: _scalar("integer", _is_int),
    float: _scalar("number", _is_number),
    NoneType: _scalar("null", lambda v: v is None),
}


def _member(hint: Any) -> _Member:
    """The reader for an annotation."""
    if isinstance(hint, type) and hint in _SCALARS:
        return _SCALARS[hint]
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _choice(hint)
    if isinstance(hint, type) and is_dataclass(hint):
        decoder = _Decoder.for_class(hint)
        return _Member(hint.__name__, decoder.decode, lambda v: isinstance(v, dict))
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        base, limit = _member(args[0]), args[1]
        if isinstance(limit, Length):
            return _sized(base, limit)
        return _limited(base, limit)
    if origin is tuple:
        return _array(_member(args[0]))
    if origin is dict:
        return _map(None if args[1] is object else _member(args[1]))
    if origin in (UnionType, Union):
        return _one_of(tuple(_member(a) for a in args))
    raise TypeError(f"wire messages do not support {hint!r}")


@dataclass(frozen=True, slots=True)
class _Decoder:
    """Reads one wire dataclass; one instance per class."""

    cls: type[Any]
    members: Mapping[str, _Member]
    required: tuple[str, ...]
    _known: ClassVar[dict[type[Any], _Decoder]] = {}

    @classmethod
    def for_class(cls, wire_class: type[Any]) -> _Decoder:
        decoder = cls._known.get(wire_class)
        if decoder is None:
            hints = get_type_hints(wire_class, include_extras=True)
            declared: tuple[Field[Any], ...] = fields(wire_class)
            members = {f.name: _member(hints[f.name]) for f in declared}
            required = tuple(f.name for f in declared if f.default is MISSING and f.default_factory is MISSING)
            decoder = cls._known[wire_class] = cls(wire_class, members, required)
        return decoder

    def decode(self, value: object, where: str, allow_unknown: bool) -> Any:
        if not isinstance(value, dict):
            raise _wrong(where, value, f"an object with the fields of {self.cls.__name__}")
        dot = f"{where}." if where else ""
        members = self.members
        if not allow_unknown and not value.keys() <= members.keys():
            name = dot + next(key for key in value if key not in members)[:100]
            known = ", ".join(members) or "none"
            raise _refusal(name, f"unknown field {name} of {self.cls.__name__} (expected {known})")
        for name in self.required:
            if name not in value:
                raise _refusal(dot + name, f"missing {dot}{name} (expected {members[name].expected})")
        return self.cls(
            **{
                name: member.decode(value[name], dot + name, allow_unknown)
                for name, member in members.items()
                if name in value
            }
        )
