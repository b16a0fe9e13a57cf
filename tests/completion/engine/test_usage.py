"""Counts of use: never text, shared by processes, harmless when damaged."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from forelook.completion.engine.usage import UsageCounters
from forelook.config import EngineConfig
from forelook.errors import ConfigError
from forelook.protocol.events import EventCounts, EventKind
from forelook.protocol.messages import CompletionEventParams
from hypothesis import given
from hypothesis import strategies as st


def event(kind: EventKind, num_chars: int = 0, language_id: str = "python", **more: bool) -> CompletionEventParams:
    return CompletionEventParams("w", language_id, kind, num_chars, **more)


def test_counts_are_summed_over_languages_and_kept_per_language() -> None:
    usage = UsageCounters(None)
    usage.record(event(EventKind.SHOWN, 20))
    usage.record(event(EventKind.ACCEPTED, 20, first_use=True))
    usage.record(event(EventKind.SHOWN, 8, "go"))
    usage.record(event(EventKind.ACCEPTED_WORD, 4, "go", first_use=True))
    usage.record(event(EventKind.ACCEPTED_WORD, 4, "go"))
    counts = usage.to_dict()
    assert (counts["shown"], counts["accepted_word"], counts["used"]) == (2, 2, 2)
    assert counts["num_keystrokes_saved"] == 19 + 3 + 3
    assert counts["languages"] == {
        "go": {"accepted_word": 2, "accepted_word_chars": 8, "shown": 1, "shown_chars": 8, "used": 1},
        "python": {"accepted": 1, "accepted_chars": 20, "shown": 1, "shown_chars": 20, "used": 1},
    }


@given(st.lists(st.tuples(st.sampled_from(EventKind), st.integers(0, 40), st.booleans()), max_size=30))
def test_window_and_backend_derive_the_same_figures(events: list[tuple[EventKind, int, bool]]) -> None:
    window, backend = EventCounts(), UsageCounters(None)
    for number, (kind, num_chars, first_use) in enumerate(events):
        window.add(kind, num_chars, first_use=first_use)
        backend.record(event(kind, num_chars, ("python", "go")[number % 2], first_use=first_use))
    counts = backend.to_dict()
    assert counts["accept_rate"] == window.accept_rate
    assert counts["num_keystrokes_saved"] == window.num_keystrokes_saved


def test_a_file_of_0_1_0_keeps_its_accept_rate(tmp_path: Path) -> None:
    path = tmp_path / "statistics.json"
    counts = {
        "go.shown": 1,
        "go.accepted_word": 3,
        "python.shown": 9,
        "python.accepted": 2,
        "python.accepted_chars": 30,
    }
    path.write_text(json.dumps({"version": 1, "counts": counts}))
    usage = UsageCounters(path)
    assert usage.to_dict()["accept_rate"] == (1 + 2) / 10
    usage.record(event(EventKind.ACCEPTED, 5, first_use=True))
    usage.save()
    assert UsageCounters(path).to_dict()["accept_rate"] == (1 + 3) / 10


def test_processes_add_up_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "statistics.json"
    first, second = UsageCounters(path), UsageCounters(path)
    for usage, times in ((first, 3), (second, 4)):
        for _ in range(times):
            usage.record(event(EventKind.SHOWN))
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
    assert "set aside" in caplog.text
    assert not path.exists()
    assert path.with_name("statistics.json.damaged").exists()
    usage.record(event(EventKind.SHOWN))
    usage.save()
    assert json.loads(path.read_text())["counts"] == {"python.shown": 1}


def test_a_folder_that_cannot_be_written_costs_the_counts_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    usage = UsageCounters(blocker / "statistics.json")
    usage.record(event(EventKind.SHOWN))
    usage.save()
    assert "cannot save the usage counts" in caplog.text
    assert usage.to_dict()["shown"] == 1


def test_nothing_but_counts_reaches_the_file(tmp_path: Path) -> None:
    path = tmp_path / "statistics.json"
    usage = UsageCounters(path)
    usage.record(event(EventKind.SHOWN, 3, "my secret = 1"))
    for kind in EventKind:
        usage.record(event(kind, 1))
    usage.save()
    assert "secret" not in path.read_text()
    assert all(isinstance(count, int) for count in json.loads(path.read_text())["counts"].values())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0),
        ("deadline_ms", 0),
        ("suffix_share", 0.9),
        ("context_share", -0.1),
        ("kv_cache_bytes", -1),
        ("sampling_temperature", 0.0),
        ("index_slice_s", 0.0),
    ],
)
def test_settings_name_what_is_wrong(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        EngineConfig(**{name: value})  # type: ignore[arg-type]
