"""Malformed, huge and strange documents: a sane answer or none, never a crash."""

from __future__ import annotations

import random
import time

import pytest
from forelook.completion.completer import Completer
from forelook.completion.document_store import Document
from forelook.completion.requests import Completed, Hints, RequestControl
from forelook.config import EngineConfig
from forelook.errors import PositionError
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.model.loading import load_model
from forelook.protocol.messages import CompletionParams, CompletionResult, MultiLine, TriggerKind
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.completion.cursor.golden import check_edit, suggest

WORKSPACE, KEY = WorkspaceKey("", "w"), DocumentKey(1, "u")
LANGUAGE_IDS = (
    "python",
    "typescript",
    "go",
    "ruby",
    "shellscript",
    "html",
    "yaml",
    "json",
    "plaintext",
    "no such language",
)
STRANGE = "ab_ (){}[]\"'`#/\\$<>:;,=\n\r\t\f\v\0é漢🙂\u202e\u05d0\ud800\udfff\u2028\x85"


@pytest.fixture(scope="module")
def completer() -> Completer:
    return Completer(load_model(None), EngineConfig())


def complete(completer: Completer, text: str, offset: int, **options: object) -> CompletionResult:
    document = Document(WORKSPACE, KEY, str(options.pop("language_id", "python")), 1, text)
    request = CompletionParams(KEY.uri, 1, offset, **options)  # type: ignore[arg-type]
    now = time.monotonic()
    outcome = completer.complete(document, request, RequestControl(now, now + 20.0), Hints())
    assert isinstance(outcome, Completed)
    result = outcome.result
    for suggestion in result.suggestions:
        line_start, line_end = document.line_start(offset), document.line_end(offset)
        assert line_start <= suggestion.start <= offset <= suggestion.end <= line_end
        check_edit(text, offset, suggestion)
        suggestion.text.encode("utf-8")
    return result


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "\0",
        "\ud800",
        "x = \ud83d\n",
        "# " + "\U0001f600" * 300,
        "def f():\r\n    return \r\n",
        "x = 1\ry = \r",
        "\f\ndef f():\n    ",
        "\tif x:\n\t\t",
        "# שלום עולם\nשם = ",
        "'" * 5000,
        "(" * 5000,
        ")" * 5000,
        '"""' * 999,
        "\\" * 3000,
        "${" * 2000,
        "`${`" * 1000,
        " " * 4000,
        "\n" * 4000,
        "\u2028" * 100,
    ],
)
@pytest.mark.parametrize("language_id", ["python", "typescript"])
def test_strange_documents_get_a_sane_answer(completer: Completer, text: str, language_id: str) -> None:
    for offset in sorted({0, len(text) // 2, max(0, len(text) - 1), len(text)}):
        complete(completer, text, offset, language_id=language_id)


def test_a_line_of_20000_characters(completer: Completer) -> None:
    text = "x = [" + ", ".join(map(str, range(4000)))
    assert len(text) > 20_000
    for offset in (5, 10_000, len(text)):
        complete(completer, text + "\n", offset)


def test_five_megabytes_are_no_slower_than_their_window(completer: Completer) -> None:
    line = "value_of_something = compute(alpha, beta)  # a comment\n"
    text = line * (5_000_000 // len(line))
    offset = len(text) // 2
    stats = complete(completer, text[:offset] + "value_of" + text[offset:], offset + 8).stats
    assert stats.num_prompt_tokens <= 1024


def test_a_cursor_outside_is_an_error(completer: Completer) -> None:
    for offset in (-1, 6):
        with pytest.raises(PositionError):
            complete(completer, "x = 1", offset)


def test_output_has_no_carriage_return_in_a_file_that_has(completer: Completer) -> None:
    text = "def f(x):\r\n    \r\n\r\ndef g(y):\r\n    return y\r\n"
    result = complete(completer, text, text.index("    ") + 4, trigger=TriggerKind.INVOKED, num_suggestions=3)
    assert all("\r" not in suggestion.text for suggestion in result.suggestions)


def test_explicit_request_returns_up_to_three_different_suggestions(completer: Completer) -> None:
    text = "import os\n\n\ndef read(path):\n    with open("
    result = complete(completer, text, len(text), trigger=TriggerKind.INVOKED, num_suggestions=3)
    texts = [suggestion.text for suggestion in result.suggestions]
    assert 2 <= len(texts) <= 3
    assert len(set(texts)) == len(texts)
    again = complete(completer, text, len(text), trigger=TriggerKind.INVOKED, num_suggestions=3)
    assert [suggestion.text for suggestion in again.suggestions] == texts, "sampling is seeded"


def test_automatic_request_returns_one(completer: Completer) -> None:
    text = "import os\n\n\ndef read(path):\n    with open("
    assert len(complete(completer, text, len(text), num_suggestions=3).suggestions) <= 1


def test_never_means_one_line(completer: Completer) -> None:
    text = "def fibonacci(n):\n    "
    result = complete(completer, text, len(text), multi_line=MultiLine.NEVER)
    assert all("\n" not in suggestion.text for suggestion in result.suggestions)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.text(STRANGE, max_size=120), st.integers(0, 120), st.text(STRANGE, max_size=60), st.sampled_from(LANGUAGE_IDS)
)
def test_whatever_a_model_says_the_edit_is_sane(text: str, at: int, said: str, language_id: str) -> None:
    text, said = text.replace("\r", ""), said.replace("\r", "")
    offset = min(at, len(text))
    for invoked in (False, True):
        edit = suggest(language_id, text[:offset], text[offset:], said, invoked=invoked, interrupted=len(said) % 2 == 0)
        if edit is not None:
            check_edit(text, offset, edit)


def test_stopping_does_not_depend_on_how_text_arrives() -> None:
    random_ = random.Random(5)
    words = ["x", " = ", "(", ")", "\n", "    ", "return ", '"', "}", "{", ":", ", ", "# c", "if "]
    for _ in range(400):
        before = "".join(random_.choices(words, k=12))
        after = "".join(random_.choices(words, k=6))
        said = "".join(random_.choices(words, k=20))
        language_id = random_.choice(["python", "javascript", "ruby"])
        whole = suggest(language_id, before, after, said, invoked=True)
        for piece in (1, 4):
            assert suggest(language_id, before, after, said, invoked=True, piece=piece) == whole
