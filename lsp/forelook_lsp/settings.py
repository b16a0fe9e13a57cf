"""Reads the settings that an editor sends. ``forelook.config`` is the table of them."""

from __future__ import annotations

from forelook.config import SETTINGS, EditorConfig, EngineConfig
from forelook.errors import ConfigError
from forelook.settings.kinds import Json
from forelook.settings.rows import Effect, as_json, read_json, rows_of

NOT_OURS = frozenset({"server", "trace", "editorInfo", "editorPluginInfo", "editorConfiguration"})
"""Keys that editors send along: how to reach this server, and what Copilot's clients say about themselves."""

EDITOR_SETTINGS = tuple(row for row in SETTINGS if row.in_editors)
_OF_ENGINE = frozenset(row.attribute for row in rows_of(EngineConfig))


def parse_settings(settings: Json) -> tuple[EditorConfig, list[ConfigError]]:
    """Read what an editor sent.

    Args:
        settings: the JSON value of the ``forelook`` section; ``None`` means all defaults.

    Returns:
        The settings, with the default in place of each value that is not allowed, and one error per such value.
    """
    values, problems = read_json(EDITOR_SETTINGS, settings, prefix="forelook.", ignored=NOT_OURS)
    engine = EngineConfig(**{name: value for name, value in values.items() if name in _OF_ENGINE})
    own = {name: value for name, value in values.items() if name not in _OF_ENGINE}
    return EditorConfig(engine, **own), problems


def backend_settings(config: EngineConfig) -> dict[str, Json]:
    """What a new backend must be started with, as JSON; other settings travel with each request."""
    return as_json(config, (Effect.RELOAD, Effect.RESTART, Effect.OTHER_BACKEND))


def effect_of_change(old: EditorConfig, new: EditorConfig) -> Effect:
    """What the backend needs for ``new`` to take effect."""
    changed = [
        row.effect
        for row in EDITOR_SETTINGS
        if getattr(old.engine if row.attribute in _OF_ENGINE else old, row.attribute)
        != getattr(new.engine if row.attribute in _OF_ENGINE else new, row.attribute)
    ]
    return max(changed, default=Effect.NONE)


def describe_settings() -> list[dict[str, Json]]:
    """The table as JSON, for editors."""
    return [
        {
            "name": row.name,
            "default": row.kind.to_json(row.default),
            "allowed": row.kind.allowed,
            "description": row.text,
            "machine": row.machine,
            "restarts": row.effect is not Effect.NONE,
        }
        for row in EDITOR_SETTINGS
    ]
