"""What completion needs to know of each language, as one table: comments, strings, blocks, grammar.

Ids are LSP's language identifiers. A language without a row is treated by ``PLAIN``: indentation and brackets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType


class ScopeRule(Enum):
    """What closes a block."""

    BRACKETS = "brackets"
    INDENTATION = "indentation"
    KEYWORDS = "keywords"  # indentation, and a closing line such as ``end`` belongs to the block


@dataclass(frozen=True, slots=True)
class StringForm:
    """One way to write a string: its delimiters, and whether it may span lines and has backslash escapes."""

    opener: str
    closer: str
    multi_line: bool = False
    escapes: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Language:
    """One language.

    Attributes:
        name: for messages and tests.
        grammar: module and function of the tree-sitter grammar, where there is one.
        scope: what closes a block.
        line_comments: what starts a comment that ends with the line.
        block_comments: delimiters of other comments.
        strings: string forms, longest opener first.
        regex_literals: whether ``/…/`` may be a literal.
        case_parentheses: whether a lone ``)`` is ordinary (shell ``case`` labels).
        opener: pattern of a line's end that opens a block, for languages and places no grammar can tell.
        closing_line: pattern of a whole line that closes a keyword block.
        body_nodes: grammar's node types that hold the statements, members or items of a block.
        comment_nodes, string_nodes: grammar's node types.
        signature_nodes: node types whose head is worth showing as a signature to other files.
    """

    name: str
    grammar: tuple[str, str] | None
    scope: ScopeRule
    line_comments: tuple[str, ...]
    block_comments: tuple[tuple[str, str], ...]
    strings: tuple[StringForm, ...]
    regex_literals: bool = False
    case_parentheses: bool = False
    opener: str = r"[{\[(]\s*$"
    closing_line: str | None = None
    body_nodes: frozenset[str] = field(default_factory=frozenset)
    comment_nodes: frozenset[str] = field(
        default_factory=lambda: frozenset({"comment", "line_comment", "block_comment"})
    )
    string_nodes: frozenset[str] = field(default_factory=frozenset)
    signature_nodes: frozenset[str] = field(default_factory=frozenset)


_DOUBLE = StringForm('"', '"')
_SINGLE = StringForm("'", "'")
_C_COMMENTS = (("/*", "*/"),)
_BRACE = r"\{\s*$"

_PYTHON = Language(
    "python",
    ("tree_sitter_python", "language"),
    ScopeRule.INDENTATION,
    ("#",),
    (),
    (StringForm('"""', '"""', multi_line=True), StringForm("'''", "'''", multi_line=True), _DOUBLE, _SINGLE),
    opener=r":\s*$",
    body_nodes=frozenset({"block"}),
    string_nodes=frozenset({"string", "string_content", "concatenated_string"}),
    signature_nodes=frozenset({"function_definition", "class_definition"}),
)
_JAVASCRIPT_STRINGS = (StringForm("`", "`", multi_line=True), _DOUBLE, _SINGLE)
_JAVASCRIPT_STRING_NODES = frozenset({"string", "string_fragment", "template_string"})
_JAVASCRIPT_BODIES = frozenset(
    {"statement_block", "class_body", "object", "switch_body", "switch_case", "switch_default", "jsx_element"}
)
_TYPESCRIPT_BODIES = _JAVASCRIPT_BODIES | {"interface_body", "object_type", "enum_body"}
_JAVASCRIPT_SIGNATURES = frozenset(
    {"function_declaration", "generator_function_declaration", "class_declaration", "method_definition"}
)
_TYPESCRIPT_SIGNATURES = _JAVASCRIPT_SIGNATURES | {
    "abstract_class_declaration",
    "interface_declaration",
    "type_alias_declaration",
    "function_signature",
}


def _ecma(name: str, module: str, function: str, bodies: frozenset[str], signatures: frozenset[str]) -> Language:
    return Language(
        name,
        (module, function),
        ScopeRule.BRACKETS,
        ("//",),
        _C_COMMENTS,
        _JAVASCRIPT_STRINGS,
        regex_literals=True,
        opener=r"(?:\{|=>)\s*$",
        body_nodes=bodies,
        string_nodes=_JAVASCRIPT_STRING_NODES,
        signature_nodes=signatures,
    )


_JAVASCRIPT = _ecma("javascript", "tree_sitter_javascript", "language", _JAVASCRIPT_BODIES, _JAVASCRIPT_SIGNATURES)
_TYPESCRIPT = _ecma(
    "typescript", "tree_sitter_typescript", "language_typescript", _TYPESCRIPT_BODIES, _TYPESCRIPT_SIGNATURES
)
_TSX = _ecma("tsx", "tree_sitter_typescript", "language_tsx", _TYPESCRIPT_BODIES, _TYPESCRIPT_SIGNATURES)
_GO = Language(
    "go",
    ("tree_sitter_go", "language"),
    ScopeRule.BRACKETS,
    ("//",),
    _C_COMMENTS,
    (StringForm("`", "`", multi_line=True, escapes=False), _DOUBLE, _SINGLE),
    opener=_BRACE,
    body_nodes=frozenset(
        {"block", "field_declaration_list", "interface_type", "literal_value", "expression_case", "default_case"}
    ),
    string_nodes=frozenset({"interpreted_string_literal", "raw_string_literal", "rune_literal"}),
    signature_nodes=frozenset({"function_declaration", "method_declaration", "type_declaration"}),
)
_RUST = Language(
    "rust",
    ("tree_sitter_rust", "language"),
    ScopeRule.BRACKETS,
    ("//",),
    _C_COMMENTS,
    (
        StringForm('r##"', '"##', multi_line=True, escapes=False),
        StringForm('r#"', '"#', multi_line=True, escapes=False),
        StringForm('"', '"', multi_line=True),
    ),
    opener=_BRACE,
    body_nodes=frozenset({"block", "declaration_list", "field_declaration_list", "enum_variant_list", "match_block"}),
    string_nodes=frozenset({"string_literal", "raw_string_literal", "char_literal", "string_content"}),
    signature_nodes=frozenset({"function_item", "struct_item", "enum_item", "trait_item", "function_signature_item"}),
)
_JAVA = Language(
    "java",
    ("tree_sitter_java", "language"),
    ScopeRule.BRACKETS,
    ("//",),
    _C_COMMENTS,
    (StringForm('"""', '"""', multi_line=True), _DOUBLE, _SINGLE),
    opener=_BRACE,
    body_nodes=frozenset(
        {
            "block",
            "class_body",
            "interface_body",
            "enum_body",
            "constructor_body",
            "switch_block",
            "switch_block_statement_group",
        }
    ),
    string_nodes=frozenset({"string_literal", "character_literal", "string_fragment"}),
    signature_nodes=frozenset({"method_declaration", "class_declaration", "interface_declaration"}),
)
_C_BODIES = frozenset({"compound_statement", "field_declaration_list", "enumerator_list", "case_statement"})
_C_STRINGS = frozenset({"string_literal", "char_literal", "string_content", "raw_string_literal", "system_lib_string"})
_C = Language(
    "c",
    ("tree_sitter_c", "language"),
    ScopeRule.BRACKETS,
    ("//",),
    _C_COMMENTS,
    (_DOUBLE, _SINGLE),
    opener=_BRACE,
    body_nodes=_C_BODIES,
    string_nodes=_C_STRINGS,
    signature_nodes=frozenset({"function_definition", "struct_specifier", "declaration"}),
)
_CPP = Language(
    "cpp",
    ("tree_sitter_cpp", "language"),
    ScopeRule.BRACKETS,
    ("//",),
    _C_COMMENTS,
    (StringForm('R"(', ')"', multi_line=True, escapes=False), _DOUBLE, _SINGLE),
    opener=_BRACE,
    body_nodes=_C_BODIES | {"declaration_list"},
    string_nodes=_C_STRINGS,
    signature_nodes=frozenset({"function_definition", "class_specifier", "struct_specifier", "declaration"}),
)
_CSHARP = Language(
    "csharp",
    ("tree_sitter_c_sharp", "language"),
    ScopeRule.BRACKETS,
    ("//",),
    _C_COMMENTS,
    (
        StringForm('"""', '"""', multi_line=True, escapes=False),
        StringForm('@"', '"', multi_line=True, escapes=False),
        _DOUBLE,
        _SINGLE,
    ),
    opener=_BRACE,
    body_nodes=frozenset(
        {"block", "declaration_list", "accessor_list", "enum_member_declaration_list", "switch_body", "switch_section"}
    ),
    string_nodes=frozenset(
        {"string_literal", "verbatim_string_literal", "character_literal", "interpolated_string_expression"}
    ),
    signature_nodes=frozenset({"method_declaration", "class_declaration", "interface_declaration"}),
)
_RUBY = Language(
    "ruby",
    ("tree_sitter_ruby", "language"),
    ScopeRule.KEYWORDS,
    ("#",),
    (("\n=begin", "\n=end"),),
    (StringForm('"', '"', multi_line=True), StringForm("'", "'", multi_line=True)),
    opener=r"(?:\bdo(?:\s*\|[^|]*\|)?|\bthen|\belse|\bbegin|\bensure|^\s*(?:def|class|module|if|unless|while|until|case|"
    r"when|elsif|rescue|for)\b.*|\{(?:\s*\|[^|]*\|)?)\s*$",
    closing_line=r"(?:end\b.*|[}\])].*)",
    body_nodes=frozenset({"body_statement", "then", "else", "do", "do_block", "block", "block_body", "begin", "when"}),
    string_nodes=frozenset({"string", "string_content", "heredoc_body", "heredoc_content"}),
    signature_nodes=frozenset({"method", "singleton_method", "class", "module"}),
)
_PHP = Language(
    "php",
    ("tree_sitter_php", "language_php"),
    ScopeRule.BRACKETS,
    ("//", "#"),
    _C_COMMENTS,
    (StringForm('"', '"', multi_line=True), StringForm("'", "'", multi_line=True)),
    opener=_BRACE,
    body_nodes=frozenset({"compound_statement", "declaration_list", "match_block", "switch_block", "case_statement"}),
    string_nodes=frozenset({"string", "string_content", "encapsed_string", "heredoc", "heredoc_body"}),
    signature_nodes=frozenset({"function_definition", "method_declaration", "class_declaration"}),
)
_BASH = Language(
    "bash",
    ("tree_sitter_bash", "language"),
    ScopeRule.KEYWORDS,
    ("#",),
    (),
    (StringForm('"', '"', multi_line=True), StringForm("'", "'", multi_line=True, escapes=False)),
    case_parentheses=True,
    opener=r"(?:\bdo|\bthen|\belse|\{|\bin|^\s*[^()\s]+\))\s*$",
    closing_line=r"(?:fi|done|esac|\}|;;)(?:\s*(?:[|;&<>)].*)?)?",
    body_nodes=frozenset({"do_group", "compound_statement", "if_statement", "else_clause", "elif_clause", "case_item"}),
    string_nodes=frozenset({"string", "raw_string", "string_content", "heredoc_body"}),
    signature_nodes=frozenset({"function_definition"}),
)
_JSON = Language(
    "json",
    ("tree_sitter_json", "language"),
    ScopeRule.BRACKETS,
    ("//",),
    _C_COMMENTS,
    (_DOUBLE,),
    body_nodes=frozenset({"object", "array"}),
    string_nodes=frozenset({"string", "string_content"}),
)
_YAML = Language(
    "yaml",
    ("tree_sitter_yaml", "language"),
    ScopeRule.INDENTATION,
    ("#",),
    (),
    (),
    opener=r":\s*[|>]?[-+]?\s*$",
    string_nodes=frozenset({"double_quote_scalar", "single_quote_scalar"}),
)
_HTML = Language(
    "html",
    ("tree_sitter_html", "language"),
    ScopeRule.KEYWORDS,
    (),
    (("<!--", "-->"),),
    (),
    opener=r"<(?!/|!|(?:area|base|br|col|embed|hr|img|input|link|meta|source|track|wbr)\b)[A-Za-z][^<>]*(?<!/)>\s*$",
    closing_line=r"</[A-Za-z][\w:.-]*>\s*",
    body_nodes=frozenset({"element"}),
    string_nodes=frozenset({"attribute_value", "quoted_attribute_value"}),
)
_CSS = Language(
    "css",
    ("tree_sitter_css", "language"),
    ScopeRule.BRACKETS,
    (),
    _C_COMMENTS,
    (_DOUBLE, _SINGLE),
    opener=_BRACE,
    body_nodes=frozenset({"block"}),
    string_nodes=frozenset({"string_value"}),
)


def _braces_only(name: str, *line_comments: str) -> Language:
    return Language(
        name, None, ScopeRule.BRACKETS, line_comments or ("//",), _C_COMMENTS, (_DOUBLE, _SINGLE), opener=_BRACE
    )


_LUA = Language(
    "lua",
    None,
    ScopeRule.KEYWORDS,
    ("--",),
    (("--[[", "]]"),),
    (_DOUBLE, _SINGLE),
    opener=r"(?:\bthen|\bdo|\belse|\brepeat|\bfunction\b[^()]*\([^()]*\)|\{)\s*$",
    closing_line=r"(?:end\b.*|until\b.*|\}.*)",
)
_TOML = Language("toml", None, ScopeRule.BRACKETS, ("#",), (), (_DOUBLE, _SINGLE))
_SQL = Language("sql", None, ScopeRule.BRACKETS, ("--",), _C_COMMENTS, (_SINGLE,), opener=r"\(\s*$")

PLAIN = Language("plain", None, ScopeRule.INDENTATION, (), (), (_DOUBLE,), opener=r"[{(\[:]\s*$")

LANGUAGES = MappingProxyType(
    {
        "python": _PYTHON,
        "cython": _PYTHON,
        "starlark": _PYTHON,
        "javascript": _JAVASCRIPT,
        "javascriptreact": _JAVASCRIPT,
        "typescript": _TYPESCRIPT,
        "typescriptreact": _TSX,
        "go": _GO,
        "rust": _RUST,
        "java": _JAVA,
        "c": _C,
        "cpp": _CPP,
        "objective-c": _C,
        "cuda-cpp": _CPP,
        "csharp": _CSHARP,
        "cs": _CSHARP,
        "ruby": _RUBY,
        "php": _PHP,
        "shellscript": _BASH,
        "bash": _BASH,
        "sh": _BASH,
        "zsh": _BASH,
        "json": _JSON,
        "jsonc": _JSON,
        "yaml": _YAML,
        "dockercompose": _YAML,
        "html": _HTML,
        "css": _CSS,
        "scss": _CSS,
        "less": _CSS,
        "kotlin": _braces_only("kotlin"),
        "swift": _braces_only("swift"),
        "scala": _braces_only("scala"),
        "dart": _braces_only("dart"),
        "zig": _braces_only("zig"),
        "perl": _braces_only("perl", "#"),
        "r": _braces_only("r", "#"),
        "terraform": _braces_only("terraform", "#", "//"),
        "proto": _braces_only("proto"),
        "lua": _LUA,
        "toml": _TOML,
        "sql": _SQL,
    }
)


def language_for(language_id: str) -> Language:
    """The row of an LSP language id; ``PLAIN`` for one without."""
    return LANGUAGES.get(language_id.lower(), PLAIN)
