"""The settings an editor may send, each with its range: one table that validation and the editors' schemas share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from forelook.errors import ConfigError

Check = Callable[[Any], bool]

NOT_OURS = frozenset({"server", "trace", "editorInfo", "editorPluginInfo", "editorConfiguration"})
"""Keys that editors keep beside the settings: how to reach this server, and what Copilot's clients say about them."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its name in the editor, what it may be, and what it does.

    Attributes:
        name: the editor's name, dotted where nested (``lookahead.window``).
        allowed: the allowed values, in words, for messages.
        check: whether a JSON value is allowed.
        description: what it does, for people.
        machine: whether a workspace's own settings file must not set it, since it names a program, path or address.
        restarts: whether the backend must be started anew for it to take effect.
    """

    name: str
    allowed: str
    check: Check
    description: str
    machine: bool = False
    restarts: bool = False


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_switch(value: Any) -> bool:
    return value == "auto" or isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return value is None or (isinstance(value, str) and 0 < len(value) <= 4096)


def _within(low: int, high: int, *others: object) -> Check:
    def check(value: Any) -> bool:
        if isinstance(value, int) and not isinstance(value, bool):
            return low <= value <= high
        return any(value is other or (isinstance(other, str) and value == other) for other in others)

    return check


def _one_of(*names: str) -> Check:
    return lambda value: isinstance(value, str) and value in names


def _matches(pattern: str) -> Check:
    compiled = re.compile(pattern)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


def _is_url(value: Any) -> bool:
    return value is None or (
        isinstance(value, str) and re.fullmatch(r"wss?://[^\s/?#@]+(/[^\s?#]*)?", value) is not None
    )


def _is_language_map(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) and isinstance(on, bool) for key, on in value.items())


def _is_glob_list(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 1000 and all(isinstance(glob, str) and glob for glob in value)


@dataclass(frozen=True, slots=True)
class Options:
    """The settings in force, one attribute per entry of ``SETTINGS``; the defaults are the product's."""

    enable: bool = True
    languages: Mapping[str, bool] = field(default_factory=dict)
    model: str | None = None
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    lookahead_window: int | str = "auto"
    lookahead_ngram: int | str = "auto"
    lookahead_max_candidates: int | str = "auto"
    max_new_tokens: int | None = None
    deadline_ms: int | None = None
    multi_line: Literal["auto", "always", "never"] = "auto"
    num_suggestions: int = 3
    delay_ms: int | str = "auto"
    speculate: bool | str = "auto"
    cross_file: bool = True
    index_workspace: bool = True
    pool_tokens: int | None = None
    ignore: tuple[str, ...] = ()
    completion_fallback: bool = False
    backend_start: bool = True
    backend_url: str | None = None
    backend_token_file: str | None = None
    command_suffix: str = ""
    status_notifications: bool = True

    def wants_language(self, language_id: str) -> bool:
        """Whether suggestions are wanted in this language, where they are wanted at all."""
        return self.languages.get(language_id, self.languages.get("*", True))


SETTINGS: Mapping[str, Setting] = {
    "enable": Setting("enable", "true or false", _is_bool, "Suggest code while you type."),
    "languages": Setting(
        "languages",
        'an object of language ids and true or false, "*" for all others',
        _is_language_map,
        "Switch suggestions on or off per language.",
    ),
    "model": Setting(
        "model",
        "a folder or a hub id of a Llama-family checkpoint, or null for the starter model",
        _is_text,
        "The model to run.",
        machine=True,
        restarts=True,
    ),
    "revision": Setting(
        "revision", "a hub revision, or null", _is_text, "The model's revision.", machine=True, restarts=True
    ),
    "device": Setting(
        "device",
        '"auto", "cpu", "cuda" or "cuda:N"',
        _matches(r"auto|cpu|cuda(:\d{1,2})?"),
        "Where the model runs.",
        machine=True,
        restarts=True,
    ),
    "dtype": Setting(
        "dtype",
        '"auto", "bfloat16", "float16", "float32", "float64", "int8" or "int4"',
        _one_of("auto", "bfloat16", "float16", "float32", "float64", "int8", "int4"),
        "The number format of the weights.",
        machine=True,
        restarts=True,
    ),
    "lookahead_window": Setting(
        "lookahead.window",
        '"auto" or an integer from 0 to 64',
        _within(0, 64, "auto"),
        "Lookahead window size W; 0 switches the lookahead branch off.",
        restarts=True,
    ),
    "lookahead_ngram": Setting(
        "lookahead.ngram",
        '"auto" or an integer from 2 to 16',
        _within(2, 16, "auto"),
        "Lookahead n-gram size N.",
        restarts=True,
    ),
    "lookahead_max_candidates": Setting(
        "lookahead.maxCandidates",
        '"auto" or an integer from 0 to 64',
        _within(0, 64, "auto"),
        "Most candidates G verified in a decode step.",
        restarts=True,
    ),
    "max_new_tokens": Setting(
        "maxNewTokens",
        "an integer from 1 to 4096, or null for the backend's choice",
        _within(1, 4096, None),
        "Longest suggestion, in tokens.",
    ),
    "deadline_ms": Setting(
        "deadlineMs",
        "an integer from 1 to 600000, or null for the backend's choice",
        _within(1, 600_000, None),
        "Longest time for a suggestion while you type; what is good by then is shown.",
    ),
    "multi_line": Setting(
        "multiLine",
        '"auto", "always" or "never"',
        _one_of("auto", "always", "never"),
        "Whether a suggestion may span lines.",
    ),
    "num_suggestions": Setting(
        "numSuggestions",
        "an integer from 1 to 8",
        _within(1, 8),
        "Most different suggestions when you ask for them by a command.",
    ),
    "delay_ms": Setting(
        "delayMs",
        '"auto" or an integer from 0 to 2000',
        _within(0, 2000, "auto"),
        "Wait before asking the model; automatic waits only where the model is slow.",
    ),
    "speculate": Setting(
        "speculate",
        '"auto", true or false',
        _is_switch,
        "Compute what follows a suggestion while it is shown; automatic means on a GPU only.",
        restarts=True,
    ),
    "cross_file": Setting(
        "crossFile",
        "true or false",
        _is_bool,
        "Let other open files of the workspace into the prompt; a prompt on a CPU has no room for them.",
        restarts=True,
    ),
    "index_workspace": Setting(
        "indexWorkspace",
        "true or false",
        _is_bool,
        "Let the drafts learn from files of the workspace that are not open.",
    ),
    "pool_tokens": Setting(
        "poolTokens",
        "an integer from 1000 to 100000000, or null for the backend's choice",
        _within(1000, 100_000_000, None),
        "Most tokens kept in a workspace's n-gram pool.",
        restarts=True,
    ),
    "ignore": Setting(
        "ignore",
        "a list of globs as in .gitignore",
        _is_glob_list,
        "Files that must not be read, beyond .gitignore, .forelookignore and the built-in list of secrets.",
    ),
    "completion_fallback": Setting(
        "completionFallback",
        "true or false",
        _is_bool,
        "Also offer suggestions in the completion popup, for editors without inline completion.",
    ),
    "backend_start": Setting(
        "backend.start", "true or false", _is_bool, "Start the backend when none is running.", machine=True
    ),
    "backend_url": Setting(
        "backend.url",
        "a ws:// or wss:// address without user or query, or null for the backend of this machine",
        _is_url,
        "A backend on another machine.",
        machine=True,
        restarts=True,
    ),
    "backend_token_file": Setting(
        "backend.tokenFile",
        "the path of a file only you can read, or null",
        _is_text,
        "The token for backend.url.",
        machine=True,
        restarts=True,
    ),
    "command_suffix": Setting(
        "commandSuffix",
        "up to 64 of A-Z a-z 0-9 _ . -",
        _matches(r"[A-Za-z0-9_.-]{0,64}"),
        "Set by an editor whose command names are shared by all its windows; read once, at start.",
    ),
    "status_notifications": Setting(
        "statusNotifications",
        "true or false",
        _is_bool,
        "Send forelook/status; switch off in an editor that complains of notifications it does not know.",
    ),
}


def parse_options(settings: object) -> tuple[Options, list[ConfigError]]:
    """Read what an editor sent.

    Args:
        settings: the JSON value of the ``forelook`` section; ``None`` means all defaults.

    Returns:
        The options, with the default wherever a value is not allowed, and one error per such value.
    """
    problems: list[ConfigError] = []
    if settings is None:
        return Options(), problems
    if not isinstance(settings, Mapping):
        return Options(), [ConfigError("forelook", type(settings).__name__, "an object of settings")]
    flat = _flatten(settings)
    values: dict[str, Any] = {}
    for attribute, setting in SETTINGS.items():
        if setting.name not in flat:
            continue
        value = flat.pop(setting.name)
        if setting.check(value):
            values[attribute] = tuple(value) if isinstance(value, list) else value
        else:
            problems.append(ConfigError(f"forelook.{setting.name}", value, setting.allowed))
    problems.extend(
        ConfigError(f"forelook.{name}", value, "a setting of this version, which it is not; remove it or update")
        for name, value in flat.items()
        if name.split(".")[0] not in NOT_OURS
    )
    return Options(**values), problems


def describe_options() -> list[dict[str, object]]:
    """The table as JSON: what an editor's own schema is compared with."""
    defaults = Options()
    return [
        {
            "name": setting.name,
            "default": list(default) if isinstance(default := getattr(defaults, attribute), tuple) else default,
            "allowed": setting.allowed,
            "description": setting.description,
            "machine": setting.machine,
            "restarts": setting.restarts,
        }
        for attribute, setting in SETTINGS.items()
    ]


def needs_other_backend(old: Options, new: Options) -> bool:
    """Whether ``new`` names another backend than ``old`` did: another model or device, or another address."""
    names = ("model", "revision", "device", "dtype", "backend_url", "backend_token_file")
    return any(getattr(old, name) != getattr(new, name) for name in names)


def needs_restart(old: Options, new: Options) -> bool:
    """Whether a backend started with ``old`` cannot serve ``new``."""
    return any(
        SETTINGS[item.name].restarts and getattr(old, item.name) != getattr(new, item.name) for item in fields(Options)
    )


def _flatten(settings: Mapping[Any, Any]) -> dict[str, Any]:
    """Nested groups (``lookahead``, ``backend``) as dotted names; dotted names pass as they are."""
    groups = {setting.name.split(".")[0] for setting in SETTINGS.values() if "." in setting.name}
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if key in groups and isinstance(value, Mapping):
            flat.update({f"{key}.{inner}": inner_value for inner, inner_value in value.items()})
        else:
            flat[str(key)] = value
    return flat
