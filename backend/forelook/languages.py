"""The languages, as one table: what completion, the commands and the language server need to know of each.

A new language is a row in ``ROWS``, plus its tree-sitter grammar in ``pyproject.toml`` and ``constraints.txt``. Ids are
LSP language identifiers. A document whose id has no row uses ``PLAIN``: indentation and brackets only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType


class ScopeRule(Enum):
    """What closes a block."""

    BRACKETS = "brackets"
    INDENTATION = "indentation"
    KEYWORDS = "keywords"  # indentation, and a closing line such as ``end`` belongs to the block


@dataclass(frozen=True, slots=True)
class StringForm:
    """One string syntax.

    Attributes:
        opener, closer: delimiters.
        multi_line: whether it may contain line breaks.
        escapes: whether a backslash escapes the next character.
        substitutions: whether ``${`` opens code inside it, as in a JavaScript template.
    """

    opener: str
    closer: str
    multi_line: bool = False
    escapes: bool = True
    substitutions: bool = False


def _nodes(names: str) -> frozenset[str]:
    """Kinds of grammar nodes, from their names separated by spaces."""
    return frozenset(names.split())


_DOUBLE = StringForm('"', '"')
_SINGLE = StringForm("'", "'")
_BRACE = r"\{\s*$"


class LibraryLayout(Enum):
    """How an import names files of installed libraries."""

    MODULES = "modules"
    """A dotted name is the path of a file below one folder."""
    PACKAGES = "packages"
    """A quoted path is a folder."""


@dataclass(frozen=True, slots=True, eq=False)
class Language:
    """One language. The defaults are those of the C family.

    Attributes:
        name: for messages and tests.
        ids: LSP language ids, each with the file suffixes that imply it.
        grammar: module and function of the tree-sitter grammar; ``None`` if there is none.
        scope: what closes a block.
        scope_closers: closing brackets that complete a multi-line suggestion when the scope rule is brackets.
        line_comments: markers of a comment that ends with the line.
        not_after, not_before: regular expressions; a line comment starts neither right after nor right before a match.
        block_comments: delimiters of other comments.
        strings: string forms. If two share a prefix, the longer opener wins.
        opaque: regular expressions of tokens to skip as a whole, because brackets, quotes or comment markers inside
            them mean nothing: character literals, regular expression literals, shell escapes.
        case_parentheses: whether a ``)`` without an opener is ordinary (shell ``case`` labels).
        trailing_comma: whether a comma may precede a closing bracket.
        island: where the language is embedded in other text, as PHP is: what starts and what ends a part in it, and a
            whole line that starts one.
        unindented_blocks: whether blocks around unindented lines are usual, as C++ namespaces.
        opener: regular expression of a line end that opens a block; used without a grammar and where it is unsure.
        closing_line: regular expression of a whole line that closes a keyword block.
        placeholder: represents the code to come when the grammar parses an empty place.
        body_nodes: grammar nodes that contain the statements, members or items of a block.
        delimiter_nodes: named grammar nodes that delimit a block, such as tags.
        comment_nodes, string_nodes: grammar nodes of comments and strings.
        signature_nodes: grammar nodes whose head is worth showing to other files as a signature.
        wrapper_nodes: grammar nodes that may contain such definitions: exports, decorators, namespaces.
        import_nodes: grammar nodes of top-level imports.
        import_words: words that start an import line.
        import_calls: functions whose call imports a file.
        libraries: how an import names files of installed libraries; ``None`` where they are not looked for.
        title: the name in prose; empty if it is the name with a capital.
        index_stems: file stems that represent their folder in an import, such as ``__init__``.
    """

    name: str
    ids: Mapping[str, tuple[str, ...]]
    grammar: tuple[str, str] | None = None
    scope: ScopeRule = ScopeRule.BRACKETS
    scope_closers: str = "}"
    line_comments: tuple[str, ...] = ("//",)
    not_after: str = ""
    not_before: str = ""
    block_comments: tuple[tuple[str, str], ...] = (("/*", "*/"),)
    strings: tuple[StringForm, ...] = (_DOUBLE, _SINGLE)
    opaque: tuple[str, ...] = ()
    case_parentheses: bool = False
    trailing_comma: bool = True
    island: tuple[str, str, str] | None = None
    unindented_blocks: bool = False
    opener: str = _BRACE
    closing_line: str | None = None
    placeholder: str = "forelookcursor"
    body_nodes: frozenset[str] = frozenset()
    delimiter_nodes: frozenset[str] = frozenset()
    comment_nodes: frozenset[str] = _nodes("comment line_comment block_comment")
    string_nodes: frozenset[str] = frozenset()
    signature_nodes: frozenset[str] = frozenset()
    wrapper_nodes: frozenset[str] = frozenset()
    import_nodes: frozenset[str] = frozenset()
    import_words: tuple[str, ...] = ()
    import_calls: tuple[str, ...] = ()
    index_stems: tuple[str, ...] = ()
    libraries: LibraryLayout | None = None
    title: str = ""

    @property
    def suffix(self) -> str:
        """The usual suffix of its files."""
        return next(iter(self.ids.values()))[0]


_PYTHON = Language(
    "python",
    {"python": (".py", ".pyi"), "cython": (".pyx", ".pxd"), "starlark": (".bzl", ".star")},
    ("tree_sitter_python", "language"),
    ScopeRule.INDENTATION,
    line_comments=("#",),
    block_comments=(),
    strings=(StringForm('"""', '"""', multi_line=True), StringForm("'''", "'''", multi_line=True), _DOUBLE, _SINGLE),
    opener=r":\s*$",
    body_nodes=_nodes("block"),
    string_nodes=_nodes("string string_content concatenated_string"),
    signature_nodes=_nodes("function_definition class_definition"),
    wrapper_nodes=_nodes("decorated_definition"),
    import_nodes=_nodes("import_statement import_from_statement future_import_statement"),
    import_words=("from", "import"),
    index_stems=("__init__",),
    libraries=LibraryLayout.MODULES,
)
# A slash where an expression may start: after an operator, an opening bracket or a separator.
_REGEX_LITERAL = r"(?<=[(,=:\[!&|?{};])[ \t]*/(?![/*\s])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n\[])+/"
_JAVASCRIPT_BODIES = _nodes("statement_block class_body object switch_body switch_case switch_default jsx_element")
_JAVASCRIPT_SIGNATURES = _nodes(
    "function_declaration generator_function_declaration class_declaration method_definition"
)
_TYPESCRIPT_BODIES = _JAVASCRIPT_BODIES | _nodes("interface_body object_type enum_body")
_TYPESCRIPT_SIGNATURES = _JAVASCRIPT_SIGNATURES | _nodes(
    "abstract_class_declaration interface_declaration type_alias_declaration function_signature"
)


def _ecma(
    name: str,
    ids: Mapping[str, tuple[str, ...]],
    grammar: tuple[str, str],
    bodies: frozenset[str],
    signatures: frozenset[str],
    title: str,
) -> Language:
    return Language(
        name,
        ids,
        grammar,
        title=title,
        strings=(StringForm("`", "`", multi_line=True, substitutions=True), _DOUBLE, _SINGLE),
        opaque=(_REGEX_LITERAL,),
        opener=r"(?:\{|=>)\s*$",
        body_nodes=bodies,
        string_nodes=_nodes("string string_fragment template_string"),
        signature_nodes=signatures,
        wrapper_nodes=_nodes("export_statement"),
        import_nodes=_nodes("import_statement"),
        import_words=("import", "export"),
        import_calls=("require",),
        index_stems=("index",),
    )


_JAVASCRIPT = _ecma(
    "javascript",
    {"javascript": (".js", ".mjs", ".cjs"), "javascriptreact": (".jsx",)},
    ("tree_sitter_javascript", "language"),
    _JAVASCRIPT_BODIES,
    _JAVASCRIPT_SIGNATURES,
    title="JavaScript",
)
_TYPESCRIPT = _ecma(
    "typescript",
    {"typescript": (".ts", ".mts", ".cts")},
    ("tree_sitter_typescript", "language_typescript"),
    _TYPESCRIPT_BODIES,
    _TYPESCRIPT_SIGNATURES,
    title="TypeScript",
)
_TSX = _ecma(
    "tsx",
    {"typescriptreact": (".tsx",)},
    ("tree_sitter_typescript", "language_tsx"),
    _TYPESCRIPT_BODIES,
    _TYPESCRIPT_SIGNATURES,
    title="TypeScript with JSX",
)
_GO = Language(
    "go",
    {"go": (".go",)},
    ("tree_sitter_go", "language"),
    strings=(StringForm("`", "`", multi_line=True, escapes=False), _DOUBLE, _SINGLE),
    body_nodes=_nodes("block field_declaration_list interface_type literal_value expression_case default_case"),
    string_nodes=_nodes("interpreted_string_literal raw_string_literal rune_literal"),
    signature_nodes=_nodes("function_declaration method_declaration type_declaration"),
    import_nodes=_nodes("import_declaration"),
    import_words=("import",),
    libraries=LibraryLayout.PACKAGES,
)
_RUST = Language(
    "rust",
    {"rust": (".rs",)},
    ("tree_sitter_rust", "language"),
    strings=(
        StringForm('r##"', '"##', multi_line=True, escapes=False),
        StringForm('r#"', '"#', multi_line=True, escapes=False),
        StringForm('"', '"', multi_line=True),
    ),
    opaque=(r"'(?:\\[^\n]{1,8}?|[^'\\\n])'",),  # a character; a lifetime has no second quote
    body_nodes=_nodes("block declaration_list field_declaration_list enum_variant_list match_block"),
    string_nodes=_nodes("string_literal raw_string_literal char_literal string_content"),
    signature_nodes=_nodes("function_item struct_item enum_item trait_item function_signature_item"),
    import_nodes=_nodes("use_declaration"),
    import_words=("use", "mod"),
    index_stems=("mod",),
)
_JAVA = Language(
    "java",
    {"java": (".java",)},
    ("tree_sitter_java", "language"),
    strings=(StringForm('"""', '"""', multi_line=True), _DOUBLE, _SINGLE),
    body_nodes=_nodes(
        "block class_body interface_body enum_body constructor_body switch_block switch_block_statement_group"
    ),
    string_nodes=_nodes("string_literal character_literal string_fragment"),
    signature_nodes=_nodes("method_declaration class_declaration interface_declaration"),
    import_nodes=_nodes("import_declaration"),
    import_words=("import",),
)
_C_BODIES = _nodes("compound_statement field_declaration_list enumerator_list case_statement")
_C_STRINGS = _nodes("string_literal char_literal string_content raw_string_literal system_lib_string")
_C = Language(
    "c",
    {"c": (".c", ".h"), "objective-c": (".m",)},
    ("tree_sitter_c", "language"),
    unindented_blocks=True,
    body_nodes=_C_BODIES,
    string_nodes=_C_STRINGS,
    signature_nodes=_nodes("function_definition struct_specifier declaration"),
    import_nodes=_nodes("preproc_include"),
    import_words=(r"#[ \t]*include",),
)
_CPP = Language(
    "cpp",
    {"cpp": (".cc", ".cpp", ".cxx", ".hh", ".hpp"), "cuda-cpp": (".cu", ".cuh")},
    ("tree_sitter_cpp", "language"),
    unindented_blocks=True,
    strings=(StringForm('R"(', ')"', multi_line=True, escapes=False), _DOUBLE, _SINGLE),
    body_nodes=_C_BODIES | _nodes("declaration_list"),
    string_nodes=_C_STRINGS,
    signature_nodes=_nodes("function_definition class_specifier struct_specifier declaration"),
    wrapper_nodes=_nodes("namespace_definition declaration_list"),
    import_nodes=_nodes("preproc_include using_declaration"),
    import_words=(r"#[ \t]*include", "using"),
    title="C++",
)
_CSHARP = Language(
    "csharp",
    {"csharp": (".cs",), "cs": ()},
    ("tree_sitter_c_sharp", "language"),
    strings=(
        StringForm('"""', '"""', multi_line=True, escapes=False),
        StringForm('@"', '"', multi_line=True, escapes=False),
        _DOUBLE,
        _SINGLE,
    ),
    body_nodes=_nodes("block declaration_list accessor_list enum_member_declaration_list switch_body switch_section"),
    string_nodes=_nodes("string_literal verbatim_string_literal character_literal interpolated_string_expression"),
    signature_nodes=_nodes("method_declaration class_declaration interface_declaration"),
    import_nodes=_nodes("using_directive"),
    import_words=("using",),
    title="C#",
)
_RUBY = Language(
    "ruby",
    {"ruby": (".rb",)},
    ("tree_sitter_ruby", "language"),
    ScopeRule.KEYWORDS,
    line_comments=("#",),
    block_comments=(("\n=begin", "\n=end"),),
    strings=(StringForm('"', '"', multi_line=True), StringForm("'", "'", multi_line=True)),
    opener=r"(?:\bdo(?:\s*\|[^|]*\|)?|\bthen|\belse|\bbegin|\bensure|^\s*(?:def|class|module|if|unless|while|until|case|"
    r"when|elsif|rescue|for)\b.*|\{(?:\s*\|[^|]*\|)?)\s*$",
    closing_line=r"(?:end\b.*|[}\])].*)",
    body_nodes=_nodes("body_statement then else do do_block block block_body begin when"),
    string_nodes=_nodes("string string_content heredoc_body heredoc_content"),
    signature_nodes=_nodes("method singleton_method class module"),
    import_words=("require", "require_relative", "include"),
)
_PHP = Language(
    "php",
    {"php": (".php",)},
    ("tree_sitter_php", "language_php"),
    line_comments=("//", "#"),
    not_before=r"\[",  # an attribute
    island=("<?", "?>", "<?php"),
    strings=(StringForm('"', '"', multi_line=True), StringForm("'", "'", multi_line=True)),
    body_nodes=_nodes("compound_statement declaration_list match_block switch_block case_statement"),
    string_nodes=_nodes("string string_content encapsed_string heredoc heredoc_body"),
    signature_nodes=_nodes("function_definition method_declaration class_declaration"),
    import_nodes=_nodes("namespace_use_declaration"),
    import_words=("use", "include", "require"),
    import_calls=("require",),
    title="PHP",
)
_BASH = Language(
    "bash",
    {"shellscript": (".sh", ".bash"), "bash": (), "sh": (), "zsh": (".zsh",)},
    ("tree_sitter_bash", "language"),
    ScopeRule.KEYWORDS,
    line_comments=("#",),
    not_after=r"[^\s;(]",  # a hash inside a word
    block_comments=(),
    strings=(StringForm('"', '"', multi_line=True), StringForm("'", "'", multi_line=True, escapes=False)),
    opaque=(r"\\.", r"\$\#", r"\$\{\#"),
    case_parentheses=True,
    opener=r"(?:\bdo|\bthen|\belse|\{|\bin|^\s*[^()\s]+\))\s*$",
    closing_line=r"(?:fi|done|esac|\}|;;)(?:\s*(?:[|;&<>)].*)?)?",
    body_nodes=_nodes("do_group compound_statement if_statement else_clause elif_clause case_item"),
    string_nodes=_nodes("string raw_string string_content heredoc_body"),
    signature_nodes=_nodes("function_definition"),
    import_words=("source",),
    title="Shell",
)
_JSON = Language(
    "json",
    {"json": (".json",), "jsonc": (".jsonc",)},
    ("tree_sitter_json", "language"),
    scope_closers="}]",
    strings=(_DOUBLE,),
    trailing_comma=False,
    opener=r"[{\[(]\s*$",
    placeholder='"forelookcursor": 0',
    body_nodes=_nodes("object array"),
    string_nodes=_nodes("string string_content"),
    title="JSON",
)
_YAML = Language(
    "yaml",
    {"yaml": (".yaml", ".yml"), "dockercompose": ()},
    ("tree_sitter_yaml", "language"),
    ScopeRule.INDENTATION,
    line_comments=("#",),
    not_after=r"[^\s;(]",
    block_comments=(),
    strings=(),
    opener=r":\s*[|>]?[-+]?\s*$",
    string_nodes=_nodes("double_quote_scalar single_quote_scalar"),
    title="YAML",
)
_HTML = Language(
    "html",
    {"html": (".html", ".htm")},
    ("tree_sitter_html", "language"),
    ScopeRule.KEYWORDS,
    line_comments=(),
    block_comments=(("<!--", "-->"),),
    strings=(),
    opener=r"<(?!/|!|(?:area|base|br|col|embed|hr|img|input|link|meta|source|track|wbr)\b)[A-Za-z][^<>]*(?<!/)>\s*$",
    closing_line=r"</[A-Za-z][\w:.-]*>\s*",
    body_nodes=_nodes("element"),
    delimiter_nodes=_nodes("start_tag end_tag"),
    string_nodes=_nodes("attribute_value quoted_attribute_value"),
    title="HTML",
)
_CSS = Language(
    "css",
    {"css": (".css",), "scss": (".scss",), "less": (".less",)},
    ("tree_sitter_css", "language"),
    line_comments=(),
    placeholder="forelookcursor: 0;",
    body_nodes=_nodes("block"),
    string_nodes=_nodes("string_value"),
    import_nodes=_nodes("import_statement"),
    title="CSS",
)
_LUA = Language(
    "lua",
    {"lua": (".lua",)},
    scope=ScopeRule.KEYWORDS,
    line_comments=("--",),
    block_comments=(("--[[", "]]"),),
    opener=r"(?:\bthen|\bdo|\belse|\brepeat|\bfunction\b[^()]*\([^()]*\)|\{)\s*$",
    closing_line=r"(?:end\b.*|until\b.*|\}.*)",
    import_calls=("require",),
)
_TOML = Language("toml", {"toml": (".toml",)}, line_comments=("#",), block_comments=(), opener=r"[{\[(]\s*$")
_SQL = Language("sql", {"sql": (".sql",)}, line_comments=("--",), strings=(_SINGLE,), opener=r"\(\s*$", title="SQL")

PLAIN = Language(
    "plain",
    {"plaintext": (".txt",), "markdown": (".md",)},
    scope=ScopeRule.INDENTATION,
    line_comments=(),
    block_comments=(),
    strings=(_DOUBLE,),
    opener=r"[{(\[:]\s*$",
)

ROWS: tuple[Language, ...] = (
    *(_PYTHON, _JAVASCRIPT, _TYPESCRIPT, _TSX, _GO, _RUST, _JAVA, _C, _CPP, _CSHARP, _RUBY, _PHP, _BASH),
    *(_JSON, _YAML, _HTML, _CSS, _LUA, _TOML, _SQL, PLAIN),
    Language("kotlin", {"kotlin": (".kt", ".kts")}, import_words=("import",)),
    Language("swift", {"swift": (".swift",)}, import_words=("import",)),
    Language("scala", {"scala": (".scala",)}, import_words=("import",)),
    Language("dart", {"dart": (".dart",)}, import_words=("import", "export")),
    Language("zig", {"zig": (".zig",)}),
    Language("perl", {"perl": (".pl", ".pm")}, line_comments=("#",), import_words=("use", "require")),
    Language("r", {"r": (".r",)}, line_comments=("#",)),
    Language("terraform", {"terraform": (".tf",)}, line_comments=("#", "//")),
    Language("proto", {"proto": (".proto",)}, import_words=("import",)),
)


def rows_by_id(rows: Iterable[Language]) -> Mapping[str, Language]:
    """The rows by LSP language id."""
    return MappingProxyType({language_id: row for row in rows for language_id in row.ids})


def ids_by_suffix(rows: Iterable[Language]) -> Mapping[str, str]:
    """LSP language ids by lower-case file suffix, dot included."""
    return MappingProxyType(
        {suffix: language_id for row in rows for language_id, suffixes in row.ids.items() for suffix in suffixes}
    )


def import_line(rows: Iterable[Language]) -> re.Pattern[str]:
    """A pattern of import lines in all languages; group 1 or 2 is what is imported."""
    rows = tuple(rows)
    words = "|".join(dict.fromkeys(word for row in rows for word in row.import_words))
    calls = "|".join(dict.fromkeys(call for row in rows for call in row.import_calls))
    return re.compile(rf"^[ \t]*(?:{words})\b(.{{0,300}})|\b(?:{calls})\((.{{0,200}}?)\)", re.MULTILINE)


LANGUAGES = rows_by_id(ROWS)
ID_BY_SUFFIX = ids_by_suffix(ROWS)
IMPORT_LINE = import_line(ROWS)
INDEX_STEMS = frozenset(stem for row in ROWS for stem in row.index_stems)


def language_for(language_id: str) -> Language:
    """The row of an LSP language id; ``PLAIN`` if it has none."""
    return LANGUAGES.get(language_id.lower(), PLAIN)


def language_id_of(suffix: str) -> str:
    """The LSP language id that a file suffix such as ``.py`` implies; ``"plaintext"`` if unknown."""
    return ID_BY_SUFFIX.get(suffix.lower(), "plaintext")


UNKNOWN_LANGUAGE = "plaintext"
"""The language id of a text whose language cannot be known."""

CELL_MAGICS: Mapping[str, str] = {
    **dict.fromkeys(("bash", "sh", "script", "system", "sx", "!"), "shellscript"),
    **dict.fromkeys(("html", "HTML"), "html"),
    **dict.fromkeys(("javascript", "js"), "javascript"),
    **{name: name for name in ("markdown", "latex", "ruby", "perl", "sql")},
    **dict.fromkeys(("R", "r"), "r"),
    **dict.fromkeys(("SVG", "svg"), "xml"),
}
"""Language ids of the cell magics of IPython that run the rest of a notebook's cell in another language."""

KEEPING_MAGICS = frozenset(
    ("capture", "debug", "memit", "mprun", "prun", "pypy", "python", "python2", "python3", "time", "timeit", "lprun")
)
"""Cell magics that keep the cell's language."""
