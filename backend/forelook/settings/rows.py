"""A setting is a row of a table: a field of a frozen dataclass, made by :func:`setting`. Standard library only.

Name, range, default and text are declared in the row and nowhere else. Validation, JSON, command-line flags, the schema
for editors and the documentation derive from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum, IntEnum
from typing import Any

from forelook.errors import ConfigError
from forelook.settings.kinds import Json, Kind


class Audience(Enum):
    """Who may change a setting."""

    USER = "user"
    """Users: in every editor's settings, and by the setting's flags."""
    PLUGIN = "plugin"
    """An editor's plug-in, not its user."""
    SHELL = "shell"
    """Whoever runs ``forelook serve``: by flag or ``--config``, not in editors."""
    INTERNAL = "internal"
    """Tests and benchmarks."""


class Effect(IntEnum):
    """What a change in an editor does to the backend, mildest first."""

    NONE = 0
    RELOAD = 1
    """As a restart, but a window is content with a running backend that has another value: its model is loaded."""
    RESTART = 2
    OTHER_BACKEND = 3


@dataclass(frozen=True, slots=True)
class Flag:
    """A setting's flag on the command line.

    Attributes:
        name: such as ``--window-size``.
        commands: which commands have it.
        metavar: the argument's name in the help.
        help: by default the setting's own text.
        means: the value of a flag without argument; ``None``: the flag has an argument.
        off: the argument that means unset.
    """

    name: str
    commands: tuple[str, ...] = ("serve",)
    metavar: str | None = None
    help: str = ""
    means: object = None
    off: str | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table.

    Attributes:
        attribute: the field of the settings class.
        name: as editors and JSON spell it, dotted where nested (``lookahead.window``).
        kind: the allowed values.
        default: the value where none is given.
        text: what the setting does: one text for editors, ``--help`` and documentation.
        group: where editors and ``--help`` show it.
        audience: who may change it.
        machine: whether a workspace's own settings file must not set it, since it names a program, path or address.
        effect: what a change does to the backend.
        flag: the setting's flag, if any.
    """

    attribute: str
    name: str
    kind: Kind
    default: Any
    text: str
    group: str
    audience: Audience
    machine: bool
    effect: Effect
    flag: Flag | None

    @property
    def in_editors(self) -> bool:
        """Whether the language server reads it."""
        return self.audience in (Audience.USER, Audience.PLUGIN)

    def from_json(self, value: Json, prefix: str = "") -> object:
        """The value that JSON spells.

        Raises:
            ConfigError: it is not allowed.
        """
        try:
            return self.kind.accepted(self.kind.from_json(value))
        except ValueError:
            raise ConfigError(prefix + self.name, value, self.kind.allowed) from None

    def from_text(self, text: str) -> object:
        """The value that a command-line argument spells.

        Raises:
            ValueError: it is not allowed; the message says what is.
        """
        if self.flag is not None and text == self.flag.off:
            return None
        try:
            return self.kind.accepted(self.kind.from_text(text))
        except ValueError:
            expected = self.kind.in_shell or self.kind.allowed
            raise ValueError(f"invalid value {text!r} (expected {expected})") from None


def setting(
    default: Any,
    kind: Kind,
    text: str,
    *,
    name: str = "",
    group: str = "",
    audience: Audience | None = None,
    machine: bool = False,
    effect: Effect = Effect.NONE,
    flag: Flag | None = None,
) -> Any:
    """A field of a settings class, which is a row of the table; without a name only code can change it."""
    if audience is None:
        audience = Audience.USER if name else Audience.INTERNAL
    row = Setting("", name, kind, default, text, group, audience, machine, effect, flag)
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata={"setting": row})
    return field(default=default, metadata={"setting": row})


def rows_of(*classes: type) -> tuple[Setting, ...]:
    """The rows of settings classes, in the order of their declaration."""
    return tuple(
        replace(item.metadata["setting"], attribute=item.name)
        for cls in classes
        for item in fields(cls)
        if "setting" in item.metadata
    )


def check(config: object) -> None:
    """Check every field against its row.

    Raises:
        ConfigError: a value is not allowed.
    """
    for row in rows_of(type(config)):
        value = getattr(config, row.attribute)
        if not row.kind.accepts(value):
            raise ConfigError(row.attribute, value, row.kind.allowed)


def read_json(
    rows: Iterable[Setting], settings: Json, *, prefix: str = "", ignored: Iterable[str] = ()
) -> tuple[dict[str, Any], list[ConfigError]]:
    """Read settings from JSON.

    Args:
        rows: the settings there are.
        settings: a JSON object; groups such as ``lookahead`` may be nested or dotted. ``None`` is an empty one.
        prefix: precedes the names in errors.
        ignored: names, or groups of names, that belong to somebody else.

    Returns:
        The allowed values by attribute, and an error for each other one.
    """
    if settings is None:
        return {}, []
    if not isinstance(settings, Mapping):
        return {}, [ConfigError(prefix.rstrip(".") or "settings", type(settings).__name__, "an object of settings")]
    by_name = {row.name: row for row in rows}
    values: dict[str, Any] = {}
    problems: list[ConfigError] = []
    for name, value in _flatten(settings, {name.split(".")[0] for name in by_name if "." in name}).items():
        row = by_name.get(name)
        if row is not None:
            try:
                values[row.attribute] = row.from_json(value, prefix)
            except ConfigError as error:
                problems.append(error)
        elif name.split(".")[0] not in ignored:
            problems.append(ConfigError(prefix + name, value, "a setting of this version; remove it or update"))
    return values, problems


def as_json(config: object, effects: Iterable[Effect]) -> dict[str, Json]:
    """The settings that differ from their defaults, as JSON names and spells them; those with one of the effects."""
    wanted = frozenset(effects)
    return {
        row.name: row.kind.to_json(value)
        for row in rows_of(type(config))
        if row.effect in wanted and (value := getattr(config, row.attribute)) != row.default
    }


def _flatten(settings: Mapping[Any, Json], groups: set[str]) -> dict[str, Json]:
    flat: dict[str, Json] = {}
    for key, value in settings.items():
        if key in groups and isinstance(value, Mapping):
            flat.update({f"{key}.{inner}": inner_value for inner, inner_value in value.items()})
        else:
            flat[str(key)] = value
    return flat
