"""Learning from use, locally: how often suggestions were shown, taken and kept. Counts only, never text."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path

from forelook.errors import EndpointError
from forelook.local.files import file_lock, write_atomically

_LOG = logging.getLogger(__name__)
_VERSION = 1
_LOCK_TIMEOUT_S = 10.0  # chosen, not measured: a save takes milliseconds
EVENT_KINDS = frozenset(
    {
        "shown",
        "accepted",
        "accepted_word",
        "accepted_line",
        "typed_through",
        "rejected",
        "retained_30s",
        "retained_300s",
        "removed_30s",
        "removed_300s",
    }
)
# Characters the user did not have to type.
_SAVING_KINDS = frozenset({"accepted", "accepted_word", "accepted_line"})


class UsageCounters:
    """Counts per language and kind of event, kept in a file that several processes may share.

    Args:
        path: the file; ``None`` keeps counts in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._total = self._read()
        self._unsaved: Counter[str] = Counter()

    def record(self, language_id: str, kind: str, num_chars: int = 0) -> None:
        """Count one event.

        Args:
            language_id: of the document.
            kind: one of ``EVENT_KINDS``; others are ignored with a log line.
            num_chars: characters of the suggestion it concerns.
        """
        if kind not in EVENT_KINDS:
            _LOG.warning("usage event of unknown kind ignored")
            return
        language = language_id if language_id.isidentifier() and len(language_id) <= 40 else "other"
        self._add(f"{language}.{kind}", 1)
        if num_chars:
            self._add(f"{language}.{kind}_chars", num_chars)

    def to_dict(self) -> dict[str, object]:
        """Sums over languages, keystrokes saved, acceptance share, and the counts of each language."""
        sums: Counter[str] = Counter()
        languages: dict[str, dict[str, int]] = {}
        for key, count in sorted(self._total.items()):
            language, _, kind = key.partition(".")
            sums[kind] += count
            languages.setdefault(language, {})[kind] = count
        shown = sums["shown"]
        taken = sum(sums[kind] for kind in _SAVING_KINDS)
        saved = sum(sums[f"{kind}_chars"] - sums[kind] for kind in _SAVING_KINDS)
        return {
            **{kind: sums[kind] for kind in sorted(EVENT_KINDS)},
            "keystrokes_saved": max(0, saved),
            "accepted_share": min(1.0, taken / shown) if shown else 0.0,
            "languages": languages,
        }

    @property
    def has_unsaved(self) -> bool:
        """Whether a save would change the file."""
        return bool(self._unsaved)

    def save(self) -> None:
        """Add what is new to the file; a folder that cannot be written costs the counts, not the service."""
        if self._path is None or not self._unsaved:
            self._unsaved.clear()
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with file_lock(self._path.with_suffix(".lock"), _LOCK_TIMEOUT_S, "saving the usage counts"):
                merged = self._read()
                merged.update(self._unsaved)
                write_atomically(self._path, json.dumps({"version": _VERSION, "counts": dict(sorted(merged.items()))}))
        except (OSError, EndpointError) as error:
            _LOG.warning("usage counts cannot be saved to %s: %s", self._path, error)
            return
        self._total = merged
        self._unsaved.clear()

    def _add(self, key: str, count: int) -> None:
        self._total[key] += count
        self._unsaved[key] += count

    def _read(self) -> Counter[str]:
        if self._path is None or not self._path.is_file():
            return Counter()
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            if content["version"] != _VERSION:
                raise ValueError(f"version {content['version']!r} is not {_VERSION}")
            return Counter({str(key): int(count) for key, count in content["counts"].items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            _LOG.warning("usage counts in %s cannot be read (%s): starting from zero", self._path, type(error).__name__)
            return Counter()
