"""No suggestion makes a file that parses unparsable, whatever the model says and wherever the cursor is."""

from __future__ import annotations

import time

import pytest
from bench import breakage
from forelook.completion.cursor import guard, window
from forelook.completion.cursor.parsing import ParseBudget, Reparser, errors_of, parse, parser_for
from forelook.completion.cursor.stopping import look_around
from forelook.languages import ROWS, language_for
from forelook.model.loading import load_model
from forelook.protocol.messages import Suggestion

from tests.completion.cursor.golden import apply, check, check_edit, suggest

NUM_PLACES = 2_040  # 120 per language


@pytest.fixture
def small_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows that cut the samples, which are short."""
    monkeypatch.setattr(window, "_CHARS_BEFORE", 400)
    monkeypatch.setattr(window, "_CHARS_AFTER", 200)
    monkeypatch.setattr(window, "_SLACK", 200)
    monkeypatch.setattr(window, "_STEP", 64)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [7, 8])
def test_no_suggestion_adds_a_syntax_error_to_a_file_that_parses(seed: int, request: pytest.FixtureRequest) -> None:
    if seed % 2 == 0:
        request.getfixturevalue("small_window")
    files = breakage.sources([breakage.SAMPLES])
    assert sorted(files) == sorted(row.name for row in ROWS if row.grammar is not None)
    tokenizer = load_model(None).tokenizer
    chosen = list(breakage.cases(files, NUM_PLACES, breakage.SCRIPTED, tokenizer, seed))
    for kind in ("word", "string", "comment", "call", "markup", "interpolation", "line"):
        assert sum(case.kind == kind for case in chosen) >= 10, kind
    edits = [(case, breakage.said_edit(case)) for case in chosen]
    broken = breakage.measure(iter(chosen), dict(edits).get)
    assert broken.examples == []
    assert broken.total.shown >= NUM_PLACES // 5, "the property must be about suggestions, not about silence"
    for case, edit in edits:
        if edit is not None:
            check_edit(case.text, case.offset, edit)


def test_the_measure_sees_what_breaks() -> None:
    text = "names = ['ada']\n"
    case = breakage.Case("python", text, 9, "other", "", None, ended=True, invoked=False)
    assert breakage.breaks(case, Suggestion("'x', (", 9, 9))
    assert not breakage.breaks(case, Suggestion("'x', ", 9, 9))


# --- a cursor inside a word


@pytest.mark.parametrize(
    ("language_id", "document", "said"),
    [
        ("python", "import os\nprint(os.pa‸th.join('a', 'b'))\n", "th.join(os.path.join('a', 'b'))\n"),
        ("python", "res‸ult += item.price\n", "result.append(item)\n"),
        ("python", "res‸ult += item.price\n", "ponse"),
        ("javascript", "const to‸tal = 1;\n", "day = new Date();\n"),
        ("go", "package main\n\nfunc ma‸in() {\n}\n", "ke(n int) []int {\n"),
        ("python", "x = 12‸34\n", "5 + 6\n"),
        ("python", "# It is al‸ready there\n", "ways so\n"),
        ("plaintext", "Some wo‸rds here\n", "nderful things\n"),
    ],
)
def test_inside_a_word_nothing_comes_while_typing(language_id: str, document: str, said: str) -> None:
    check(language_id, document, said, None)


@pytest.mark.parametrize(
    ("document", "said", "expect"),
    [
        ("x = get_‸name(user)\n", "full_name\n", "x = get_full_‸name(user)\n"),
        ("x = get_‸name(user)\n", "full_name(user)\n", "x = get_full_‸name(user)\n"),
        ("print(‸x)\n", "'x =', x\n", "print('x =', ‸x)\n"),
    ],
)
def test_a_text_that_ends_with_the_rest_of_the_word_covers_it(document: str, said: str, expect: str) -> None:
    check("python", document, said, expect)


def test_a_model_that_ends_before_the_rest_of_the_word_continues_into_it() -> None:
    before, after = "x = get_", "name(user)\n"
    assert suggest("python", before, after, "full_") is None
    edit = suggest("python", before, after, "full_", ended=True)
    assert apply(before + after, edit) == "x = get_full_name(user)\n"
    assert suggest("python", before, after, "full(", ended=True) is None, "it breaks the line"
    assert suggest("python", before, after, "full_\ny = ", ended=True) is None, "it ends elsewhere"


def test_on_request_a_word_may_replace_the_rest_of_the_word() -> None:
    before, after = "res", "ult += item.price\n"
    assert suggest("python", before, after, "ults_by_name += 1\n") is None
    edit = suggest("python", before, after, "ults_by_name += 1\n", invoked=True)
    assert edit is not None
    assert (edit.text, edit.start, edit.end) == ("ults_by_name", 3, 6)
    assert apply(before + after, edit) == "results_by_name += item.price\n"
    assert suggest("python", before, after, "ponse = 1\n", invoked=True) is None, "what was typed is not deleted"


# --- closers that were there


@pytest.mark.parametrize(
    ("language_id", "document", "said", "expect"),
    [
        ("python", 'names = ["ada", "‸"]\n', 'ada", "', 'names = ["ada", "ada‸"]\n'),
        ("python", 'names = ["ada", "‸"]\n', 'ada", "bob', 'names = ["ada", "ada", "bob‸"]\n'),
        ("python", "os.path.join(‸)\n", "os.path.join(\n", "os.path.join(os.path.join‸)\n"),
        ("json", '{"name": "‸"}\n', 'Basic"}, "name": "Basic"', '{"name": "Basic‸"}\n'),
        ("javascript", "call(‸);\n", "a, {\n", "call(a‸);\n"),
        ("rust", "fn f() { g(&[‸]); }\n", "1, 2]); h(&[", "fn f() { g(&[1, 2‸]); }\n"),
        ("lua", "print(‸)\n", "a, f(\n", "print(a, f‸)\n"),
    ],
)
def test_text_and_rest_are_as_balanced_as_the_line_was(language_id: str, document: str, said: str, expect: str) -> None:
    check(language_id, document, said, expect)


# --- the guard


def test_a_line_that_opens_a_block_for_nothing_is_cut_before_it() -> None:
    check("javascript", "f();\n‸\ng();\n", "if (ready) {\n", "f();\nif (ready)‸\ng();\n")
    check("go", "package main\n\nfunc f() {\n\t‸\n}\n", "for i := range xs {\n", None)


@pytest.mark.parametrize("said", ["return total", "total += item.price", "raise ValueError(total)"])
def test_an_error_that_is_there_withholds_nothing(said: str) -> None:
    for before in ("def f(items:\n    ", "x = (\n\ndef f(items):\n    ", "class A\n    def f(self):\n        "):
        check("python", f"{before}‸\n", said + "\n", f"{before}{said}‸\n")


def test_unfinished_lines_may_stay_unfinished() -> None:
    check("python", "x = ‸\n", "compute(first,\n", "x = compute(first,‸\n")
    check("javascript", "const x = ‸\n", "items.map((item) => {\n", "const x = items.map((item) => {‸\n")


def test_a_whole_block_is_cut_at_its_last_line_that_parses() -> None:
    check(
        "javascript",
        "function f(a) {\n  // twice\n  ‸\n}\n",
        "const b = 2 * a;\n  return b;\n  return (b;\n",
        "function f(a) {\n  // twice\n  const b = 2 * a;\n  return b;‸\n}\n",
        invoked=True,
    )


def test_text_that_cannot_be_parsed_within_the_budget_is_judged_by_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_BASE_REPORTS", 1)
    text = "".join(f"value_{number} = compute({number})\n" for number in range(200))
    assert suggest("python", text + "x = 1\n", "\n", "y = = 2\n") is not None
    assert suggest("python", text + "call(", ")\n", "f(\n") is not None
    assert apply("(", suggest("python", text + "call(", ")\n", "f(\n")) != "f("


def test_a_line_of_hundreds_of_thousands_of_characters_is_judged_by_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reparser, "parse_within", lambda *_: pytest.fail("such a line must not be parsed"))
    before, after = "f(1, 2);" * 40_000, "g(1, 2);" * 40_000
    cursor = look_around(language_for("javascript"), before, after)
    judge = guard.SyntaxGuard(cursor)
    assert judge.allows("h(1);", 0)
    assert not judge.allows("h(1);}", 0)


def test_a_budget_ends_a_parse_and_the_parser_stays_usable() -> None:
    language = language_for("python")
    parser = parser_for(language)
    assert parser is not None
    parses, text = Reparser(parser), "x = (1, 2)\n" * 2_000
    assert parses.parse_within(text, ParseBudget(3)) is None
    tree = parses.parse_within(text, ParseBudget(100_000))
    assert tree is not None
    assert not errors_of(tree)
    variant = parses.parse_variant(4, 5, b"", ParseBudget(100_000))
    assert variant is not None
    assert errors_of(variant)
    assert parses.parse_variant(4, 5, b"[", ParseBudget(1)) is None
    assert parses.parse_within(text, ParseBudget(1)) is tree


@pytest.mark.parametrize("row", [row for row in ROWS if row.grammar is not None], ids=lambda row: row.name)
@pytest.mark.usefixtures("small_window")
def test_a_window_and_the_whole_file_judge_alike(row: object) -> None:
    ((language_id, text),) = breakage.sources([breakage.SAMPLES])[row.name]  # type: ignore[attr-defined]
    language = language_for(language_id)
    for offset in range(0, len(text), 97):
        cursor = look_around(language, text[:offset], text[offset:])
        for said in ("(", ")", " x ", '"', "}\n", "1 +"):
            whole = parse(language, text[:offset] + said + text[offset:])
            assert whole is not None
            assert guard.SyntaxGuard(cursor).allows(said, 0) <= (not errors_of(whole)), (offset, said)


@pytest.mark.slow
def test_typing_in_a_file_of_2000_lines_costs_the_guard_milliseconds() -> None:
    ((_, sample),) = breakage.sources([breakage.SAMPLES])["python"]
    text = sample * (2_000 // sample.count("\n") + 1)
    language, times = language_for("python"), []
    line = "    result = os.path.join(folder, str(value), 'name')"
    for typed in range(8, len(line)):
        cursor = look_around(language, text[:40_000] + "\n" + line[:typed], "\n" + text[40_000:])
        started_s = time.thread_time()
        guard.SyntaxGuard(cursor).allows(line[typed:], 0)
        times.append(time.thread_time() - started_s)
    whole: list[float] = []
    for _ in range(5):
        started_s = time.thread_time()
        parse(language, text)
        whole.append(time.thread_time() - started_s)
    assert sorted(times)[len(times) // 2] < sorted(whole)[2] / 2, "what parsing the whole file would take"
