"""What is worth computing between requests, and what becomes of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from forelook.completion.document_store import Document
from forelook.completion.engine.answers import Answer, LatestAnswers
from forelook.completion.engine.speculation import PREWARM_AFTER_S, Speculation
from forelook.completion.requests import Completed
from forelook.finish_reason import FinishReason
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.protocol.messages import (
    CompletionParams,
    CompletionResult,
    MultiLine,
    SelectedCompletion,
    Suggestion,
    TriggerKind,
)

WORKSPACE, OTHER = WorkspaceKey("", "w"), WorkspaceKey("", "other")
A, B = DocumentKey(1, "file:///a.py"), DocumentKey(1, "file:///b.py")


def completed(*suggestions: Suggestion) -> Completed:
    return Completed(CompletionResult(suggestions, FinishReason.SCOPE_END), raw_tail="\ny = 2")


def answer(
    text: str = "x = ", suggested: str = "", key: DocumentKey = A, workspace: WorkspaceKey = WORKSPACE
) -> Answer:
    document = Document(workspace, key, "python", 1, text)
    suggestions = [Suggestion(suggested, len(text), len(text))] if suggested else []
    return Answer(document, CompletionParams(key.uri, 1, len(text)), completed(*suggestions))


def request_at(offset: int, selected: SelectedCompletion | None = None) -> CompletionParams:
    return CompletionParams(A.uri, 2, offset, selected=selected)


def test_the_follow_up_of_a_shown_suggestion_is_the_document_with_the_suggestion_in_it() -> None:
    speculation = Speculation(prewarm=True)
    speculation.shown(answer("x = ", "compute(1)"))
    follow_up = speculation.take_follow_up()
    assert follow_up is not None
    assert follow_up.document.text == "x = compute(1)"
    assert follow_up.request.offset == len("x = compute(1)")
    assert speculation.take_follow_up() is None, "it is computed once"


def test_without_a_suggestion_there_is_no_follow_up() -> None:
    speculation = Speculation(prewarm=True)
    speculation.shown(answer())
    assert speculation.take_follow_up() is None


def test_a_result_is_used_for_exactly_its_text_and_cursor() -> None:
    speculation = Speculation(prewarm=True)
    speculation.shown(answer("x = ", "1"))
    follow_up = speculation.take_follow_up()
    assert follow_up is not None
    result = completed()
    speculation.add_result(follow_up, result)
    assert speculation.result_for(follow_up.document, request_at(5)) is result
    assert speculation.result_for(follow_up.document, request_at(4)) is None
    assert speculation.result_for(answer("x = 2").document, request_at(5)) is None
    assert speculation.result_for(follow_up.document, request_at(5, SelectedCompletion(4, 5, "10"))) is None
    speculation.forget(A)
    assert speculation.result_for(follow_up.document, request_at(5)) is None


@pytest.mark.parametrize(
    "other",
    [
        {"trigger": TriggerKind.INVOKED},
        {"num_suggestions": 2},
        {"max_new_tokens": 8},
        {"multi_line": MultiLine.NEVER},
        {"selected": SelectedCompletion(4, 5, "10")},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_result_is_used_for_no_other_request(other: dict[str, Any]) -> None:
    speculation = Speculation(prewarm=True)
    speculation.shown(answer("x = ", "1"))
    follow_up = speculation.take_follow_up()
    assert follow_up is not None
    speculation.add_result(follow_up, completed())
    same = replace(request_at(5), partial=True, deadline_ms=200)
    assert speculation.result_for(follow_up.document, same) is not None
    assert speculation.result_for(follow_up.document, replace(same, **other)) is None
    assert speculation.result_for(replace(follow_up.document, language_id="ruby"), same) is None


def test_a_follow_up_is_computed_under_the_settings_of_its_request() -> None:
    speculation = Speculation(prewarm=True)
    given = answer("x = ", "1")
    asked = replace(given.request, max_new_tokens=7, multi_line=MultiLine.NEVER, trigger=TriggerKind.INVOKED)
    speculation.shown(replace(given, request=asked))
    follow_up = speculation.take_follow_up()
    assert follow_up is not None
    assert (follow_up.request.max_new_tokens, follow_up.request.multi_line) == (7, MultiLine.NEVER)
    assert follow_up.request.trigger is TriggerKind.AUTOMATIC


def test_old_results_make_room() -> None:
    speculation = Speculation(prewarm=True)
    documents: list[Document] = []
    for number in range(12):
        speculation.shown(answer("x" * number, "y"))
        follow_up = speculation.take_follow_up()
        assert follow_up is not None
        speculation.add_result(follow_up, completed())
        documents.append(follow_up.document)
    kept = [speculation.result_for(each, request_at(len(each.text))) is not None for each in documents]
    assert kept == [False] * 4 + [True] * 8


def test_an_edit_is_prefilled_once_it_is_due() -> None:
    speculation = Speculation(prewarm=True)
    assert speculation.prewarm_due_s == math.inf
    speculation.edited(A, 5, now_s=10.0)
    due_s = speculation.prewarm_due_s
    assert due_s == 10.0 + PREWARM_AFTER_S
    assert speculation.take_prewarm(due_s - 0.01) is None
    prewarm = speculation.take_prewarm(due_s)
    assert prewarm is not None
    assert (prewarm.key, prewarm.offset) == (A, 5)
    assert speculation.take_prewarm(due_s) is None


def test_a_request_of_the_document_makes_its_prefill_needless() -> None:
    speculation = Speculation(prewarm=True)
    speculation.edited(A, 5, now_s=10.0)
    speculation.answered(B)
    assert speculation.prewarm_due_s < math.inf
    speculation.answered(A)
    assert speculation.prewarm_due_s == math.inf


def test_without_prewarming_edits_lead_to_nothing() -> None:
    speculation = Speculation(prewarm=False)
    speculation.edited(A, 5, now_s=10.0)
    assert speculation.prewarm_due_s == math.inf


def test_an_unloaded_model_has_no_pending_work() -> None:
    speculation = Speculation(prewarm=True)
    speculation.edited(A, 5, now_s=10.0)
    speculation.shown(answer("x = ", "1"))
    speculation.clear_pending()
    assert speculation.take_follow_up() is None
    assert speculation.prewarm_due_s == math.inf


class TestLatestAnswers:
    def test_each_document_has_its_own(self) -> None:
        answers = LatestAnswers()
        first, second, third = answer("a"), answer("b", key=B), answer("c")
        for each in (first, second, third):
            answers.add(each)
        assert (answers.of(A), answers.of(B)) == (third, second)
        answers.forget(A)
        assert (answers.of(A), answers.of(B)) == (None, second)

    def test_a_workspace_sees_the_latest_of_its_own_documents(self) -> None:
        answers = LatestAnswers()
        own, foreign = answer("a"), answer("b", key=B, workspace=OTHER)
        answers.add(own)
        answers.add(foreign)
        assert answers.latest_in(WORKSPACE) == own
        assert answers.latest_in(OTHER) == foreign
        assert answers.latest_in(WorkspaceKey("ada", "w")) is None

    def test_the_least_recently_answered_documents_are_dropped(self) -> None:
        answers = LatestAnswers()
        keys = [DocumentKey(1, f"file:///{number}.py") for number in range(17)]
        for key in [*keys[:16], keys[0], keys[16]]:
            answers.add(answer(key=key))
        assert [number for number, key in enumerate(keys) if answers.of(key) is None] == [1]


def test_a_request_that_its_deadline_cut_off_is_prefilled_at_once() -> None:
    speculation = Speculation(prewarm=True)
    speculation.cut_off(A, 5, now_s=10.0)
    prewarm = speculation.take_prewarm(10.0)
    assert prewarm is not None
    assert (prewarm.key, prewarm.offset) == (A, 5)
    without = Speculation(prewarm=False)
    without.cut_off(A, 5, now_s=10.0)
    assert without.prewarm_due_s == math.inf
