"""The syntax at a cursor: line or block, code or text, with a grammar and without."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from forelook.completion.cursor.brackets import scan_brackets
from forelook.completion.cursor.parsing import parser_for
from forelook.completion.cursor.stopping import look_around, wants_block
from forelook.completion.cursor.syntax import CursorSyntax, Place, inspect_cursor, window_before
from forelook.languages import LANGUAGES, language_for

GRAMMAR_IDS = (
    *("python", "javascript", "typescript", "typescriptreact", "go", "rust", "java", "c", "cpp", "csharp", "ruby"),
    *("php", "shellscript", "json", "yaml", "html", "css"),
)


def at(language_id: str, document: str) -> CursorSyntax:
    before, after = document.split("‸")
    language = language_for(language_id)
    return inspect_cursor(language, before, after, scan_brackets(language, before))


@pytest.mark.parametrize("language_id", GRAMMAR_IDS)
def test_every_language_has_its_grammar(language_id: str) -> None:
    assert parser_for(language_for(language_id)) is not None


@pytest.mark.parametrize(
    ("language_id", "document"),
    [
        ("python", "def f(x):\n    ‸\n\ny = 1\n"),
        ("python", 'class A:\n    """Doc."""\n\n    ‸\n'),
        ("python", "if x:\n    # why\n    ‸\nelse:\n    pass\n"),
        ("javascript", "function f() {\n  ‸\n}\n"),
        ("javascript", "const f = () => {\n  ‸\n};\n"),
        ("typescript", "interface A {\n  ‸\n}\n"),
        ("typescriptreact", "function A() {\n  ‸\n}\n"),
        ("go", "func f() {\n\t‸\n}\n"),
        ("rust", "fn f() {\n    ‸\n}\n"),
        ("java", "class A {\n    void f() {\n        ‸\n    }\n}\n"),
        ("c", "int f(void) {\n    ‸\n}\n"),
        ("cpp", "class A {\n    ‸\n};\n"),
        ("csharp", "class A {\n    void F() {\n        ‸\n    }\n}\n"),
        ("ruby", "def f\n  ‸\nend\n"),
        ("php", "<?php\nfunction f() {\n    ‸\n}\n"),
        ("shellscript", "for x in a b; do\n  ‸\ndone\n"),
        ("json", '{\n  "a": {\n    ‸\n  }\n}\n'),
        ("yaml", "a:\n  ‸\nb: 1\n"),
        ("html", "<div>\n  ‸\n</div>\n"),
        ("css", ".a {\n  ‸\n}\n"),
        ("lua", "function f()\n  ‸\nend\n"),
        ("kotlin", "fun f() {\n    ‸\n}\n"),
    ],
)
def test_empty_blocks_are_seen(language_id: str, document: str) -> None:
    assert at(language_id, document).empty_block


@pytest.mark.parametrize(
    ("language_id", "document"),
    [
        ("python", "def f(x):\n    y = x\n    ‸\n"),
        ("python", "x = 1\n‸\n"),
        ("javascript", "function f() {\n  a();\n  ‸\n}\n"),
        ("go", "func f() {\n\ta()\n\t‸\n}\n"),
        ("java", "class A {\n    int x;\n    ‸\n}\n"),
        ("ruby", "def f\n  a\n  ‸\nend\n"),
        ("css", ".a {\n  color: red;\n  ‸\n}\n"),
        ("json", '{\n  "a": 1,\n  ‸\n}\n'),
    ],
)
def test_blocks_with_content_are_not_empty(language_id: str, document: str) -> None:
    assert not at(language_id, document).empty_block


@pytest.mark.parametrize(
    ("language_id", "document", "expected"),
    [
        ("python", "def f(x):‸\n", True),
        ("python", "def f(x):‸\n    return x\n", False),
        ("python", "x = {'a':‸\n", False),
        ("python", "x = 1‸\n", False),
        ("javascript", "if (x) {‸\n", True),
        ("javascript", "if (x) {‸}\n", True),
        ("javascript", "if (x) {‸\n  y();\n}\n", False),
        ("go", "func f() {‸\n", True),
        ("ruby", "def f(x)‸\n", True),
        ("shellscript", "if true; then‸\n", True),
    ],
)
def test_block_openers_are_seen(language_id: str, document: str, expected: bool) -> None:
    assert at(language_id, document).after_opener is expected


@pytest.mark.parametrize(
    ("language_id", "document", "place"),
    [
        ("python", "# a ‸\n", Place.COMMENT),
        ("python", "x = 1  # a‸\n", Place.COMMENT),
        ("python", 'x = "a‸"\n', Place.STRING),
        ("python", 'x = "a‸\n', Place.STRING),
        ("python", '"""Doc\n‸\n"""\n', Place.STRING),
        ("python", 'x = "a"‸\n', Place.CODE),
        ("javascript", "// a ‸\n", Place.COMMENT),
        ("javascript", "/* a\n ‸\n*/\n", Place.COMMENT),
        ("javascript", "const s = `a ‸`;\n", Place.STRING),
        ("rust", "fn f<'a>(‸) {}\n", Place.CODE),
        ("c", '#include <stdio.h>\nchar *s = "‸";\n', Place.STRING),
        ("html", "<!-- a ‸ -->\n", Place.COMMENT),
        ("shellscript", 'echo "a ‸"\n', Place.STRING),
        ("sql", "-- a ‸\n", Place.COMMENT),
    ],
)
def test_comments_and_strings_are_told_from_code(language_id: str, document: str, place: Place) -> None:
    assert at(language_id, document).place is place


def test_a_comment_line_above_is_seen() -> None:
    assert at("python", "x = 1\n# then this\n‸\n").after_comment
    assert not at("python", "# first\nx = 1\n‸\n").after_comment
    assert not at("c", "#include <a.h>\n‸\n").after_comment


@pytest.mark.parametrize(
    ("document", "automatic", "invoked"),
    [
        ("def f():\n    ‸\n", True, True),
        ("def f():\n    x = 1\n    ‸\n", False, True),
        ("x = f(‸)\n", False, False),
        ("x = ‸\n", False, True),
        ("# note ‸\n", False, False),
        ("x = ‸ + 1\n", False, False),
        ("def f():‸\n", True, True),
    ],
)
def test_lines_or_a_block(document: str, automatic: bool, invoked: bool) -> None:
    before, after = document.split("‸")
    cursor = look_around(language_for("python"), before, after)
    assert wants_block(cursor, invoked=False) is automatic
    assert wants_block(cursor, invoked=True) is invoked


def test_reparsing_after_keystrokes_says_what_a_fresh_parse_says() -> None:
    language = language_for("python")
    source = Path(argparse.__file__).read_text(encoding="utf-8")[:9000]
    typed = 'def area(self):\n        # a note\n        text = "b"\n        if text:\n            return [1, 2]\n'
    place = source.index("\n    def ") + 5
    for count in range(len(typed)):
        before, after = source[:place] + typed[:count], source[place:]
        scan = scan_brackets(language, before)
        again = inspect_cursor(language, before, after, scan)
        # a far-off text in between leaves nothing to reparse from
        inspect_cursor(language, "", "", scan_brackets(language, ""))
        assert inspect_cursor(language, before, after, scan) == again


def test_languages_are_found_by_their_ids() -> None:
    assert {language_for(name).name for name in GRAMMAR_IDS} == {
        *("python", "javascript", "typescript", "tsx", "go", "rust", "java", "c", "cpp", "csharp", "ruby", "php"),
        *("bash", "json", "yaml", "html", "css"),
    }
    assert language_for("no such language").name == "plain"
    assert set(LANGUAGES) >= {"lua", "kotlin", "toml"}


def test_window_starts_at_an_unindented_line() -> None:
    text = "def f():\n    x = 1\n    return x\n\n\n" * 100
    window = window_before(text, 500)
    assert text.endswith(window)
    assert window.startswith("def f():")
    assert 300 <= len(window) <= 500
