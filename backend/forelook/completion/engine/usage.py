"""How often suggestions were shown, accepted and kept, over all starts of the backend. Counts only, never text."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path

from forelook.errors import EndpointError
from forelook.local.files import file_lock, read_or_set_aside, write_atomically
from forelook.protocol.events import ACCEPTANCES, EventCounts, EventKind
from forelook.protocol.messages import CompletionEventParams

logger = logging.getLogger(__name__)
_VERSION = 1
_LOCK_TIMEOUT_S = 10.0  # chosen, not measured: a save takes milliseconds
_MAX_COUNT = 2**62
_MAX_LANGUAGES = 200  # chosen, not measured; further ones count as "other"
_MAX_COUNTS = 100 * _MAX_LANGUAGES


class UsageCounters:
    """Counts per language and kind of event, kept in a file that several processes may share.

    Args:
        path: the file; ``None`` keeps counts in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._total = self._read()
        self._unsaved: Counter[str] = Counter()
        self._languages = {key.partition(".")[0] for key in self._total}

    def record(self, event: CompletionEventParams) -> None:
        """Count one event."""
        language = self._language(event.language_id)
        kind = f"{language}.{event.kind.value}"
        for key, count in ((kind, 1), (f"{kind}_chars", event.num_chars), (f"{language}.used", int(event.first_use))):
            if count:
                self._total[key] = min(_MAX_COUNT, self._total[key] + count)
                self._unsaved[key] += count

    def _language(self, language_id: str) -> str:
        """The name a language is counted under; what a client sends must not let the file grow without end."""
        if not language_id.isidentifier() or not language_id.isascii() or len(language_id) > 40:
            return "other"
        if language_id not in self._languages:
            if len(self._languages) >= _MAX_LANGUAGES:
                return "other"
            self._languages.add(language_id)
        return language_id

    def to_dict(self) -> dict[str, object]:
        """Sums over all languages, accept rate, saved keystrokes, and the counts of each language."""
        sums = EventCounts()
        languages: dict[str, dict[str, int]] = {}
        for key, count in sorted(self._total.items()):
            language, _, name = key.partition(".")
            if name.endswith("_chars"):
                sums.chars[name.removesuffix("_chars")] += count
            else:
                sums.counts[name] += count
            languages.setdefault(language, {})[name] = count
        return {
            **{kind.value: sums.counts[kind.value] for kind in EventKind},
            "used": sums.counts["used"],
            "num_keystrokes_saved": sums.num_keystrokes_saved,
            "accept_rate": sums.accept_rate,
            "languages": languages,
        }

    @property
    def has_unsaved(self) -> bool:
        """Whether a save would change the file."""
        return bool(self._unsaved)

    def save(self) -> None:
        """Add the new counts to the file; if it cannot be written, log that and keep them for the next save."""
        if self._path is None or not self._unsaved:
            self._unsaved.clear()
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with file_lock(self._path.with_suffix(".lock"), _LOCK_TIMEOUT_S, "saving the usage counts"):
                merged = self._read()
                for key, count in self._unsaved.items():
                    merged[key] = min(_MAX_COUNT, merged[key] + count)
                write_atomically(self._path, json.dumps({"version": _VERSION, "counts": dict(sorted(merged.items()))}))
        except (OSError, EndpointError) as error:
            logger.warning("cannot save the usage counts to %s: %s", self._path, error)
            return
        self._total = merged
        self._unsaved.clear()

    def _read(self) -> Counter[str]:
        read = None if self._path is None else read_or_set_aside(self._path, _parse)
        return Counter() if read is None else read


def _parse(data: bytes) -> Counter[str]:
    content = json.loads(data)
    if content["version"] != _VERSION:
        raise ValueError(f"version {content['version']!r} is not {_VERSION}")
    counts = {str(key): int(count) for key, count in content["counts"].items()}
    if len(counts) > _MAX_COUNTS or not all(0 <= count <= _MAX_COUNT for count in counts.values()):
        raise ValueError("counts that no use adds up to")
    return _with_uses(Counter(counts))


def _with_uses(counts: Counter[str]) -> Counter[str]:
    """Counts with ``used``, which 0.1.0 did not write: its accept rate counted every acceptance, up to all shown."""
    if any(key.endswith(".used") for key in counts):
        return counts
    for language in [key.removesuffix(".shown") for key in counts if key.endswith(".shown")]:
        accepted = sum(counts[f"{language}.{kind.value}"] for kind in ACCEPTANCES)
        counts[f"{language}.used"] = min(counts[f"{language}.shown"], accepted)
    return counts
