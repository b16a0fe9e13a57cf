"""Usage counts of a team: by user and day, kept over restarts, summed over servers, never lost to a bad folder."""

from __future__ import annotations

import contextlib
import json
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forelook.local import usage_ledger
from forelook.local.files import file_lock
from forelook.local.usage_ledger import DAY_S, NUM_DAYS, Usage, UsageLedger, usage_path_of

ANN, BOB = "a" * 16, "b" * 16


class Calendar:
    """A clock of days."""

    def __init__(self) -> None:
        self.now_s = 20_000.0 * DAY_S + 3_600

    def __call__(self) -> float:
        return self.now_s


def test_counts_are_a_user_s_own_and_start_again_each_day() -> None:
    calendar = Calendar()
    ledger = UsageLedger(None, calendar)
    ledger.add(ANN, requests=2, tokens=10)
    ledger.add(BOB, tokens=5)
    assert ledger.today_of(ANN) == Usage(requests=2, tokens=10)
    assert ledger.seconds_left_today == DAY_S - 3_600
    calendar.now_s += DAY_S
    assert ledger.today_of(ANN) == Usage()
    ledger.add(ANN, tokens=1)
    assert ledger.lately_of(ANN) == Usage(requests=2, tokens=11)


def test_servers_that_share_a_file_see_the_sum_and_count_nothing_twice(tmp_path: Path) -> None:
    calendar, path = Calendar(), usage_path_of(tmp_path / "keys.json")
    first, second = UsageLedger(path, calendar), UsageLedger(path, calendar)
    first.add(ANN, tokens=10)
    second.add(ANN, tokens=5)
    for ledger in (first, second, first, second):
        ledger.save()
    assert first.today_of(ANN).tokens == second.today_of(ANN).tokens == 15
    first.add(ANN, tokens=1)
    assert first.today_of(ANN).tokens == 16, "what is not saved yet counts"
    first.save()
    assert UsageLedger(path, calendar).today_of(ANN).tokens == 16
    assert not first.has_unsaved
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_save_that_meets_the_end_of_another_counts_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "u.json"
    ledger = UsageLedger(path, Calendar())
    second = threading.Thread(target=ledger.save)

    @contextlib.contextmanager
    def locked(*arguments: Any) -> Iterator[None]:
        with file_lock(*arguments):
            yield
        if threading.current_thread() is not second:
            second.start()
            second.join(0.3)  # on its own it takes a millisecond, and here it has to wait

    monkeypatch.setattr(usage_ledger, "file_lock", locked)
    ledger.add(ANN, requests=1)
    ledger.save()
    second.join()
    assert UsageLedger(path, Calendar()).today_of(ANN).requests == 1


def test_old_days_leave_the_file(tmp_path: Path) -> None:
    calendar, path = Calendar(), tmp_path / "u.json"
    ledger = UsageLedger(path, calendar)
    for _ in range(NUM_DAYS + 5):
        ledger.add(ANN, requests=1)
        ledger.save()
        calendar.now_s += DAY_S
    assert len(json.loads(path.read_text())["days"]) == NUM_DAYS


def test_a_folder_that_goes_away_loses_no_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    calendar, folder = Calendar(), tmp_path / "shared"
    ledger = UsageLedger(folder / "u.json", calendar)
    ledger.add(ANN, tokens=1)
    ledger.save()
    folder.rename(tmp_path / "away")
    folder.write_text("a file")
    for _ in range(2):
        ledger.add(ANN, tokens=1)
        ledger.save()
    assert len(caplog.records) == 1
    assert ledger.today_of(ANN).tokens == 3
    folder.unlink()
    (tmp_path / "away").rename(folder)
    ledger.save()
    assert UsageLedger(folder / "u.json", calendar).today_of(ANN).tokens == 3


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"version": 2, "days": {}}',
        '{"version": 1, "days": {"yesterday": {}}}',
        '{"version": 1, "days": {"2024-10-04": {"a": {"tokens": -1}}}}',
        '{"version": 1, "days": {"2024-10-04": {"a": {"tokens": "9"}}}}',
        '{"version": 1, "days": {"2024-10-04": {"a": {"text": 1}}}}',
        "[" * 100_000,
    ],
)
def test_a_damaged_file_is_set_aside(tmp_path: Path, content: str) -> None:
    path = tmp_path / "u.json"
    path.write_text(content)
    ledger = UsageLedger(path, Calendar())
    ledger.add(ANN, tokens=1)
    ledger.save()
    assert ledger.today_of(ANN).tokens == 1
    assert (tmp_path / "u.json.damaged").read_text() == content
