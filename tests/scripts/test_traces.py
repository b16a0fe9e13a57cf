"""The latency benchmark's traces: replayed edits give the text they should, at a person's pace."""

from __future__ import annotations

import gzip
import json
import statistics
from itertools import islice
from pathlib import Path

from bench import traces


def replayed(session: traces.Session) -> str:
    text: str = session.text
    for edit in session.edits:
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


def test_recorded_session_ends_with_the_recorded_text(shared_dir: Path) -> None:
    path = shared_dir / "data" / "editing-traces" / "sveltecomponent.json.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        recorded = json.load(file)
    (session,) = traces.editing_sessions(10**9)
    assert replayed(session) == recorded["endContent"]


def test_typed_functions_are_python_again(shared_dir: Path) -> None:
    for session in traces.function_sessions(4):
        compile(replayed(session), session.name, "exec", dont_inherit=True)
        assert len(session.text) > 4000, "longer than the model's context"


def test_lines_of_a_folder_are_typed_where_they_stood(tmp_path: Path) -> None:
    text = "".join(f"value_{number} = compute({number})\n" for number in range(100))
    (tmp_path / "a.py").write_text(text, encoding="utf-8")
    (session,) = traces.folder_sessions(tmp_path, 5)
    assert replayed(session) == text
    assert len(session.edits) > 60


def test_a_human_types_five_to_eight_keys_a_second_between_pauses() -> None:
    session = traces.Session("a.py", "python", "", traces.typed(0, "value = compute(alpha, beta)\n" * 40))
    gaps = list(traces.gaps_s(session, "human", 20.0))
    assert gaps == list(traces.gaps_s(session, "human", 99.0)), "every engine meets the same typist"
    assert len(gaps) == len(session.edits)
    assert 1 / 8 < statistics.median(gaps) < 1 / 5
    assert max(gaps) > 1.0
    assert list(islice(traces.gaps_s(session, "steady", 20.0), 3)) == [0.05] * 3
