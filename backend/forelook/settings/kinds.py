"""The kinds of values a setting may have. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

Json = Any
"""A value as ``json`` reads it."""

_MAX_TEXT_CHARS = 4096  # chosen, not measured
_MAX_ITEMS = 1000  # chosen, not measured


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class Kind:
    """Which values a setting may have, and how JSON and a command line spell them.

    Attributes:
        allowed: the allowed JSON values, in words.
        schema: their JSON schema, with VS Code's extensions.
        accepts: whether the setting may have a value.
        from_json: the value that JSON spells, which must still be accepted; a ValueError if it spells none.
        to_json: the inverse.
        from_text: the value that a command-line argument spells; likewise.
        in_shell: the allowed arguments, in words.
    """

    allowed: str
    schema: Mapping[str, Json]
    accepts: Callable[[Any], bool]
    from_json: Callable[[Json], object] = _same
    to_json: Callable[[Any], Json] = _same
    from_text: Callable[[str], object] = _same
    in_shell: str = ""

    def accepted(self, value: object) -> object:
        """The value that ``from_json`` or ``from_text`` has read.

        Raises:
            ValueError: the setting may not have it.
        """
        if not self.accepts(value):
            raise ValueError(value)
        return value


def boolean() -> Kind:
    """True or false; on or off on a command line."""

    def from_text(text: str) -> bool:
        if text not in ("on", "off"):
            raise ValueError(text)
        return text == "on"

    return Kind(
        "true or false", {"type": "boolean"}, lambda v: isinstance(v, bool), from_text=from_text, in_shell="on or off"
    )


def integer(low: int, high: int) -> Kind:
    """A whole number, both limits included."""

    def accepts(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    schema = {"type": "integer", "minimum": low, "maximum": high}
    return Kind(f"an integer from {low} to {high}", schema, accepts, from_text=int)


def number(low: float, high: float) -> Kind:
    """A number, both limits included."""

    def accepts(value: object) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high

    schema = {"type": "number", "minimum": low, "maximum": high}
    return Kind(f"a number from {low:g} to {high:g}", schema, accepts, from_text=float)


def choice(words: Sequence[str] | Mapping[str, str]) -> Kind:
    """One of some words; a mapping also says what each of them means."""
    *most, last = (f'"{word}"' for word in words)
    allowed = f"{', '.join(most)} or {last}"
    schema: dict[str, Json] = {"type": "string", "enum": [*words]}
    if isinstance(words, Mapping):
        schema["enumDescriptions"] = [*words.values()]
    return Kind(allowed, schema, lambda v: isinstance(v, str) and v in words, in_shell=allowed.replace('"', ""))


def word_or(words: Sequence[str], kind: Kind) -> Kind:
    """One of some words, or a value of another kind that is no string."""
    named = choice(words)
    comma = ", " if len(words) > 1 else " "
    allowed = f"{named.allowed.replace(' or ', ', ')}{comma}or {kind.allowed}"

    def from_text(text: str) -> object:
        return text if text in words else kind.from_text(text)

    schema: dict[str, Json] = {
        **kind.schema,
        "type": ["string", kind.schema["type"]],
        "pattern": f"^({'|'.join(words)})$",
        "patternErrorMessage": f"Expected {allowed}.",
    }
    return Kind(
        allowed,
        schema,
        lambda v: named.accepts(v) or kind.accepts(v),
        from_text=from_text,
        in_shell=allowed.replace('"', ""),
    )


def pattern(regex: str, allowed: str) -> Kind:
    """A string that matches a regular expression, one that Python and JavaScript read alike."""
    compiled = re.compile(regex)
    schema = {"type": "string", "pattern": f"^({regex})$", "patternErrorMessage": f"Expected {allowed}."}
    return Kind(
        allowed,
        schema,
        lambda v: isinstance(v, str) and compiled.fullmatch(v) is not None,
        in_shell=allowed.replace('"', ""),
    )


def text(allowed: str) -> Kind:
    """A string that is neither empty nor very long."""

    def accepts(value: object) -> bool:
        return isinstance(value, str) and 0 < len(value) <= _MAX_TEXT_CHARS and "\0" not in value

    return Kind(allowed, {"type": "string", "minLength": 1, "maxLength": _MAX_TEXT_CHARS}, accepts)


def path(allowed: str) -> Kind:
    """A file's path: a :class:`~pathlib.Path` inside."""
    spelled = text(allowed)

    def from_json(value: Json) -> Path:
        if not spelled.accepts(value):
            raise ValueError(value)
        return Path(value)

    return replace(
        spelled, accepts=lambda v: isinstance(v, Path), from_json=from_json, to_json=str, from_text=from_json
    )


def texts(allowed: str) -> Kind:
    """A list of strings, none of them empty: a tuple inside, and a repeated flag on a command line."""

    def accepts(value: object) -> bool:
        return (
            isinstance(value, tuple)
            and len(value) <= _MAX_ITEMS
            and all(isinstance(item, str) and item and "\0" not in item for item in value)
        )

    schema = {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": _MAX_ITEMS}
    return Kind(
        allowed,
        schema,
        accepts,
        from_json=lambda v: tuple(v) if isinstance(v, list) else v,
        to_json=list,
        from_text=lambda item: (item,),
    )


def switches(allowed: str) -> Kind:
    """A mapping from names to true or false."""

    def accepts(value: object) -> bool:
        return isinstance(value, Mapping) and all(isinstance(on, bool) for on in value.values())

    return Kind(allowed, {"type": "object", "additionalProperties": {"type": "boolean"}}, accepts)


def auto(kind: Kind) -> Kind:
    """Another kind, or ``"auto"``, which is ``None`` inside."""
    comma = ", " if " or " in kind.allowed else " or "
    allowed = f'"auto"{comma}{kind.allowed}'

    def from_json(value: Json) -> object:
        if value is None:
            raise ValueError("null")
        return None if value == "auto" else kind.from_json(value)

    schema: dict[str, Json] = {**kind.schema, "type": [kind.schema["type"], "string"]}
    if kind.schema["type"] == "boolean":
        schema["enum"] = ["auto", True, False]
    else:
        schema |= {"pattern": "^auto$", "patternErrorMessage": f"Expected {allowed}."}
    return Kind(
        allowed,
        schema,
        lambda v: v is None or kind.accepts(v),
        from_json,
        to_json=lambda v: "auto" if v is None else kind.to_json(v),
        from_text=lambda text: None if text == "auto" else kind.from_text(text),
        in_shell=f"auto{comma}{kind.in_shell or kind.allowed}",
    )


def unset(kind: Kind, meaning: str = "") -> Kind:
    """Another kind, or ``null``, which is ``None`` inside; on a command line the flag is left out."""
    return Kind(
        f"{kind.allowed}, or null{meaning and f' for {meaning}'}",
        {**kind.schema, "type": [kind.schema["type"], "null"]},
        lambda v: v is None or kind.accepts(v),
        from_json=lambda v: None if v is None else kind.from_json(v),
        to_json=lambda v: None if v is None else kind.to_json(v),
        from_text=kind.from_text,
        in_shell=kind.in_shell or kind.allowed,
    )


DEVICE = pattern(r"auto|cpu|cuda(:[0-9]{1,2})?", '"auto", "cpu", "cuda" or "cuda:N"')
"""Where a model may run."""
