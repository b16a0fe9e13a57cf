"""How much each user of a team has asked, per day: counts only, never text.

Several servers may share the file: each adds what it has counted since its last save, under a lock, and reads the sums.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from pathlib import Path

from forelook.errors import EndpointError
from forelook.local.files import file_lock, read_or_set_aside, write_atomically

logger = logging.getLogger(__name__)

DAY_S = 86_400
NUM_DAYS = 31  # kept

_VERSION = 1
_LOCK_TIMEOUT_S = 2.0  # chosen, not measured: a save takes milliseconds, and the next one comes soon
_MAX_COUNT = 2**53 - 1
_MAX_ENTRIES = 1_000_000  # chosen, not measured

_Entry = tuple[str, str, str]
"""A day, a user and the name of a count."""


@dataclass(slots=True)
class Usage:
    """What one user did in some time.

    Attributes:
        requests: that were admitted.
        refused: that were over a quota.
        answers: to them, empty ones too.
        used: suggestions that the user accepted, at least in part.
        tokens: prompt tokens that were computed, and tokens that were generated.
    """

    requests: int = 0
    refused: int = 0
    answers: int = 0
    used: int = 0
    tokens: int = 0


COUNTS = tuple(field.name for field in fields(Usage))


def usage_path_of(keys_path: Path) -> Path:
    """The file of the usage that belongs to a file of keys."""
    return keys_path.resolve().with_suffix(".usage.json")


class UsageLedger:
    """The counts of all users; any thread may call it.

    Args:
        path: the file; ``None`` keeps the counts in memory.
        now: seconds since 1970.
    """

    def __init__(self, path: Path | None, now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._now = now
        self._trouble = ""
        self._lock = threading.Lock()
        self._saving = threading.Lock()  # held until what was saved is no longer unsaved: no save counts it again
        self._saved: Counter[_Entry] = self._read()
        self._unsaved: Counter[_Entry] = Counter()

    def add(self, principal: str, **counts: int) -> None:
        """Add to some of ``COUNTS`` of today."""
        today = self.today
        with self._lock:
            for name, count in counts.items():
                if count:
                    self._unsaved[today, principal, name] += count

    def today_of(self, principal: str) -> Usage:
        """What a user did today, in UTC, on all servers that have saved."""
        entries = {name: (self.today, principal, name) for name in COUNTS}
        with self._lock:
            return Usage(**{name: self._saved[entry] + self._unsaved[entry] for name, entry in entries.items()})

    def lately_of(self, principal: str) -> Usage:
        """What a user did in the days that are kept."""
        usage = Usage()
        with self._lock:
            entries = [*self._saved.items(), *self._unsaved.items()]
        for (_, user, name), count in entries:
            if user == principal:
                setattr(usage, name, getattr(usage, name) + count)
        return usage

    @property
    def today(self) -> str:
        """The day, in UTC."""
        return datetime.fromtimestamp(self._now(), timezone.utc).strftime("%Y-%m-%d")

    @property
    def seconds_left_today(self) -> float:
        """Until the counts of a new day start."""
        return DAY_S - self._now() % DAY_S

    @property
    def has_unsaved(self) -> bool:
        """Whether a save would change the file."""
        return bool(self._unsaved)

    def save(self) -> None:
        """Add the new counts to the file and read those of the others; if that fails, keep them for the next save."""
        if self._path is not None:
            with self._saving:
                self._save(self._path)

    def _save(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with file_lock(path.with_suffix(".lock"), _LOCK_TIMEOUT_S, "saving the usage"):
                with self._lock:
                    taken = dict(self._unsaved)
                merged = self._read()
                for entry, count in taken.items():
                    merged[entry] = min(_MAX_COUNT, merged[entry] + count)
                if taken:
                    write_atomically(path, _encoded(merged, self._oldest_day))
        except (OSError, EndpointError) as error:
            if not self._trouble:
                logger.warning("cannot save the usage to %s; counting on in memory: %s", path, error)
            self._trouble = str(error)
            return
        self._trouble = ""
        with self._lock:
            self._saved = merged
            self._unsaved -= Counter(taken)

    @property
    def _oldest_day(self) -> str:
        return datetime.fromtimestamp(self._now() - (NUM_DAYS - 1) * DAY_S, timezone.utc).strftime("%Y-%m-%d")

    def _read(self) -> Counter[_Entry]:
        read = None if self._path is None else read_or_set_aside(self._path, _decoded)
        return Counter() if read is None else read


def _encoded(counts: Mapping[_Entry, int], oldest_day: str) -> str:
    days: dict[str, dict[str, dict[str, int]]] = {}
    for (day, user, name), count in sorted(counts.items()):
        if day >= oldest_day:
            days.setdefault(day, {}).setdefault(user, {})[name] = count
    return json.dumps({"version": _VERSION, "days": days})


def _decoded(data: bytes) -> Counter[_Entry]:
    content = json.loads(data)
    if content["version"] != _VERSION:
        raise ValueError(f"version {content['version']!r} is not {_VERSION}")
    found: Counter[_Entry] = Counter()
    for day, users in content["days"].items():
        datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=timezone.utc)
        for user, counts in users.items():
            for name, count in counts.items():
                if name not in COUNTS or type(count) is not int or not 0 <= count <= _MAX_COUNT:
                    raise ValueError("a count that no use adds up to")
                found[day, user, name] = count
    if len(found) > _MAX_ENTRIES:
        raise ValueError("more users than there are keys")
    return found
