"""The languages' table contains every special case, so that a new language is one row."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from forelook import languages
from forelook.completion.cursor.brackets import scan_brackets
from forelook.completion.cursor.cleanup import clean
from forelook.completion.cursor.parsing import parser_for
from forelook.completion.cursor.stopping import find_end, look_around, wants_block
from forelook.completion.cursor.syntax import Place
from forelook.completion.document_store import Document
from forelook.completion.prompt.context import ContextChooser, imported_names, signatures_of
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.languages import (
    ID_BY_SUFFIX,
    LANGUAGES,
    PLAIN,
    ROWS,
    Language,
    ScopeRule,
    StringForm,
    ids_by_suffix,
    import_line,
    language_for,
    language_id_of,
    rows_by_id,
)

REPOSITORY = Path(__file__).resolve().parents[1]
# Words that are a language's id or suffix and mean something else where they are.
OTHER_MEANINGS = {
    ("commands/doctor.py", "python"): "the check of the interpreter",
    ("model/infill_templates.py", "plain"): "the prompt format without sentinels",
    ("model/adapter_config.py", "r"): "the rank of an adapter, as the peft package names it",
    ("forward/kernel_choice.py", "plain"): "the product of unpacked weights",
    ("forelook_lsp/dependencies.py", "go"): "the program, and the folders it makes",
    ("commands/cluster.py", "json"): "an option of the command line",
}
OWN_FILES = {".json"}  # a format that Forelook writes itself


def test_no_other_source_names_a_language() -> None:
    words = set(LANGUAGES) | {row.name for row in ROWS} | set(ID_BY_SUFFIX) - OWN_FILES
    sources = [*(REPOSITORY / "backend" / "forelook").rglob("*.py"), *(REPOSITORY / "lsp").rglob("*.py")]
    found: set[tuple[str, str]] = set()
    for path in sources:
        if path.name == "languages.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in words:
                found.add(("/".join(path.parts[-2:]), node.value))
    assert found - OTHER_MEANINGS.keys() == set(), "give the language's row a field for it"
    assert OTHER_MEANINGS.keys() - found == set(), "no longer there: remove it from OTHER_MEANINGS"


def test_ids_and_suffixes_belong_to_one_row_each() -> None:
    ids = [language_id for row in ROWS for language_id in row.ids]
    suffixes = [suffix for row in ROWS for group in row.ids.values() for suffix in group]
    assert len(ids) == len(set(ids))
    assert len(suffixes) == len(set(suffixes))
    assert all(re.fullmatch(r"\.[a-z0-9]+", suffix) for suffix in suffixes)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_is_complete(row: Language) -> None:
    assert any(row.ids.values()), "no file suffix leads to it"
    for pattern in (row.opener, row.closing_line or "", row.not_after, row.not_before, *row.opaque):
        re.compile(pattern)
    assert (row.closing_line is not None) == (row.scope is ScopeRule.KEYWORDS)
    openers = [form.opener for form in row.strings]
    assert all(not later.startswith(first) for i, first in enumerate(openers) for later in openers[i + 1 :])


@pytest.mark.parametrize("row", [row for row in ROWS if row.grammar], ids=lambda row: row.name)
def test_every_node_type_of_a_row_exists_in_its_grammar(row: Language) -> None:
    """A misspelled node type never matches, and nothing else would fail."""
    parser = parser_for(row)
    assert parser is not None
    grammar = parser.language
    assert grammar is not None
    known = {grammar.node_kind_for_id(number) for number in range(grammar.node_kind_count)}
    wanted = row.delimiter_nodes | row.wrapper_nodes | row.import_nodes | row.signature_nodes
    assert wanted <= known


@pytest.mark.parametrize("row", [row for row in ROWS if row.grammar], ids=lambda row: row.name)
def test_every_grammar_is_a_dependency_and_pinned(row: Language) -> None:
    assert row.grammar is not None
    package = row.grammar[0].replace("_", "-")
    for name in ("pyproject.toml", "constraints.txt"):
        assert re.search(rf"\b{package}[=>]", (REPOSITORY / name).read_text(encoding="utf-8")), f"add it to {name}"


@pytest.mark.parametrize(
    ("suffix", "language_id"),
    [
        (".py", "python"),
        (".PY", "python"),
        (".jsx", "javascriptreact"),
        (".tsx", "typescriptreact"),
        (".h", "c"),
        (".hpp", "cpp"),
        (".sh", "shellscript"),
        (".md", "markdown"),
        (".unknown", "plaintext"),
        ("", "plaintext"),
    ],
)
def test_a_suffix_implies_a_language_id(suffix: str, language_id: str) -> None:
    assert language_id_of(suffix) == language_id


def test_an_id_without_a_row_is_plain() -> None:
    assert language_for("no such language") is PLAIN
    assert language_for("Python") is language_for("python")


@dataclass(frozen=True)
class Quill:
    """A language that exists in this test only."""

    row: Language
    language_id: str = "quill"


@pytest.fixture
def quill(monkeypatch: pytest.MonkeyPatch) -> Quill:
    row = replace(
        language_for("go"),
        name="quill",
        ids={"quill": (".quill",)},
        line_comments=("%%",),
        not_after=r"\w",
        strings=(StringForm("«", "»", multi_line=True, substitutions=True),),
        opaque=(r"\?.",),
        trailing_comma=False,
        scope_closers="}]",
        import_words=("import", "summon"),
        index_stems=("root",),
    )
    monkeypatch.setattr(languages, "LANGUAGES", rows_by_id((*ROWS, row)))
    monkeypatch.setattr(languages, "ID_BY_SUFFIX", ids_by_suffix((*ROWS, row)))
    return Quill(row)


def test_a_new_row_is_found_by_suffix_and_id(quill: Quill) -> None:
    assert language_id_of(".quill") == quill.language_id
    assert language_for(quill.language_id) is quill.row
    match = import_line((*ROWS, quill.row)).search("  summon ink.well\n")
    assert match is not None
    assert match.group(1) == " ink.well"


def test_a_new_row_gets_brackets_comments_and_strings(quill: Quill) -> None:
    assert [each.character for each in scan_brackets(quill.row, "f(?) [ %% {\n x%%{").open] == ["(", "[", "{"]
    assert scan_brackets(quill.row, "a := «text (").inside == "»"
    assert [each.character for each in scan_brackets(quill.row, "a := «text ${f(").open] == ["$", "("]
    assert scan_brackets(quill.row, "a := «text ${f()} ( »").open == ()


def test_a_new_row_gets_syntax_stopping_and_cleanup(quill: Quill) -> None:
    cursor = look_around(quill.row, "func f() {\n\t", "\n}\n\nfunc g() {\n}\n")
    assert cursor.syntax.place is Place.CODE
    assert cursor.syntax.empty_block, "the grammar sees the block"
    assert wants_block(cursor, invoked=False)
    raw = "return 1\n}\n\nfunc h() {\n"
    assert raw[: find_end(cursor, raw, multi_line=True)] == "return 1"
    cursor = look_around(quill.row, "a := []int{\n\t1,\n\t", "\n}\n")
    cleaned = clean(cursor, "2,", multi_line=False)
    assert cleaned is not None
    assert cleaned.text == "2", "no trailing comma"


def test_a_new_row_gets_context_for_its_prompts(quill: Quill) -> None:
    ink = "package ink\n\nfunc Blot(size int) int {\n\treturn size\n}\n"
    assert signatures_of(quill.row, ink) == {"Blot": "func Blot(size int) int"}
    main_text = 'package main\n\nimport "Blot"\n\nfunc main() {\n\tsize := Blot(1)\n'
    assert "Blot" in imported_names(quill.row, main_text)
    main = Document(WorkspaceKey("", "w"), DocumentKey(1, "file:///main.quill"), quill.language_id, 1, main_text)
    chooser = ContextChooser()
    chooser.touch(Document(WorkspaceKey("", "w"), DocumentKey(1, "file:///ink.quill"), quill.language_id, 1, ink))
    chooser.touch(main)
    chooser.choose(main, len(main_text))
    while chooser.has_work:
        chooser.work()
    texts = chooser.choose(main, len(main_text))
    assert texts[0].commented == "func Blot(size int) int\n"
    assert any(text.commented.startswith("%% ink.quill\n") for text in texts)
