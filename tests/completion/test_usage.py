"""Counts of use: never text, shared by processes, harmless when damaged."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from forelook.completion.engine.usage import EVENT_KINDS, UsageCounters
from forelook.completion.settings import EngineSettings
from forelook.errors import ConfigError


def test_keystrokes_saved_are_the_characters_beyond_the_accepting_key() -> None:
    usage = UsageCounters(None)
    usage.record("python", "shown", 20)
    usage.record("python", "accepted", 20)
    usage.record("go", "shown", 8)
    usage.record("go", "accepted_word", 4)
    counts = usage.to_dict()
    assert counts["keystrokes_saved"] == 19 + 3
    assert counts["accepted_share"] == 1.0
    assert counts["languages"] == {
        "go": {"accepted_word": 1, "accepted_word_chars": 4, "shown": 1, "shown_chars": 8},
        "python": {"accepted": 1, "accepted_chars": 20, "shown": 1, "shown_chars": 20},
    }


def test_processes_add_up_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "statistics.json"
    first, second = UsageCounters(path), UsageCounters(path)
    for usage, times in ((first, 3), (second, 4)):
        for _ in range(times):
            usage.record("python", "shown")
    threads = [threading.Thread(target=usage.save) for usage in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert UsageCounters(path).to_dict()["shown"] == 7
    assert first.has_unsaved is second.has_unsaved is False


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 99, "counts": {}}', '{"version": 1, "counts": {"a": "x"}}']
)
def test_a_damaged_file_starts_from_zero(tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "statistics.json"
    path.write_text(content)
    usage = UsageCounters(path)
    assert usage.to_dict()["shown"] == 0
    assert "starting from zero" in caplog.text
    usage.record("python", "shown")
    usage.save()
    assert json.loads(path.read_text())["counts"] == {"python.shown": 1}


def test_a_folder_that_cannot_be_written_costs_the_counts_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    usage = UsageCounters(blocker / "statistics.json")
    usage.record("python", "shown")
    usage.save()
    assert "cannot be saved" in caplog.text
    assert usage.to_dict()["shown"] == 1


def test_nothing_but_counts_reaches_the_file(tmp_path: Path) -> None:
    path = tmp_path / "statistics.json"
    usage = UsageCounters(path)
    usage.record("my secret = 1", "shown", 3)
    usage.record("python", "no such event")
    for kind in EVENT_KINDS:
        usage.record("python", kind, 1)
    usage.save()
    assert "secret" not in path.read_text()
    assert all(isinstance(count, int) for count in json.loads(path.read_text())["counts"].values())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_line_tokens", 0),
        ("deadline_ms", 0),
        ("max_prompt_tokens", 3),
        ("suffix_share", 0.9),
        ("context_share", -0.1),
        ("kv_cache_bytes", -1),
        ("sampling_temperature", 0.0),
        ("index_slice_s", 0.0),
    ],
)
def test_settings_name_what_is_wrong(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        EngineSettings(**{name: value})  # type: ignore[arg-type]
