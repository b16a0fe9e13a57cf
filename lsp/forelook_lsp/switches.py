"""Whether suggestions are on, per language: the settings, and what the user has toggled in this window since."""

from __future__ import annotations

from forelook.config import EditorConfig

_ALL = "*"


class Switches:
    """The switches of one window."""

    def __init__(self) -> None:
        self._config = EditorConfig()
        self._toggled: dict[str, bool] = {}

    def configure(self, config: EditorConfig) -> None:
        """Apply new settings; a changed setting overrides earlier toggles."""
        old, self._config = self._config, config
        if config.enable != old.enable:
            self._toggled.pop(_ALL, None)
        if config.languages != old.languages:
            self._toggled = {name: on for name, on in self._toggled.items() if name == _ALL}

    def is_on(self, language_id: str | None = None) -> bool:
        """Return whether suggestions are on in this window, or in one of its languages."""
        on = self._toggled.get(_ALL, self._config.enable)
        if language_id is None or not on:
            return on
        return self._toggled.get(language_id, self._config.wants_language(language_id))

    def toggle(self, language_id: str | None = None) -> bool:
        """Switch suggestions on or off in this window or in one language; return whether they are on now."""
        on = not self.is_on(language_id)
        self._toggled[language_id if language_id is not None else _ALL] = on
        if on:
            self._toggled[_ALL] = True
        return on
