"""More golden cases, so that every language has at least five."""

from __future__ import annotations

from collections import Counter

import pytest
from forelook.completion.cursor.cleanup import next_line
from forelook.languages import language_for
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.completion.cursor.golden import check
from tests.completion.cursor.test_golden import CASES as FIRST_CASES

CASES: dict[str, tuple[str, str, str, str | None]] = {
    # --- TypeScript
    "ts_interface_members": (
        "typescript",
        "interface User {\n  ‸\n}\n",
        "id: number;\n  name: string;\n}\n\ninterface Post {\n",
        "interface User {\n  id: number;\n  name: string;‸\n}\n",
    ),
    "ts_generic_argument": (
        "typescript",
        "const seen = new Map<‸>();\n",
        "string, number>();\n",
        "const seen = new Map<string, number‸>();\n",
    ),
    "ts_template_string": (
        "typescript",
        "const url = `/users/${‸}`;\n",
        "user.id}`;\n",
        "const url = `/users/${user.id‸}`;\n",
    ),
    # --- TSX
    "tsx_closing_tag_is_there": (
        "typescriptreact",
        "const a = <p>‸</p>;\n",
        "Hello</p>;\n",
        "const a = <p>Hello‸</p>;\n",
    ),
    "tsx_expression_in_braces": (
        "typescriptreact",
        "const a = <p>{‸}</p>;\n",
        "user.name}</p>;\n",
        "const a = <p>{user.name‸}</p>;\n",
    ),
    "tsx_attribute_string": (
        "typescriptreact",
        'const a = <div className="‸" />;\n',
        'card wide" />;\n',
        'const a = <div className="card wide‸" />;\n',
    ),
    # --- Go
    "go_next_statement_is_single_line": (
        "go",
        "func f() {\n\tx := 1\n\t‸\n}\n",
        "y := x + 1\n\tfmt.Println(y)\n}\n",
        "func f() {\n\tx := 1\n\ty := x + 1‸\n}\n",
    ),
    # --- arrows are no closers
    "ts_arrow_in_generic": (
        "typescript",
        "type F = Array<‸>;\n",
        "(x: number) => string>;\n",
        "type F = Array<(x: number) => string‸>;\n",
    ),
    # --- Rust
    "rust_use_braces": (
        "rust",
        "use std::collections::{‸};\n",
        "HashMap, HashSet};\n",
        "use std::collections::{HashMap, HashSet‸};\n",
    ),
    "rust_next_line_is_there": (
        "rust",
        "fn f() -> i32 {\n    let x = 1;\n    ‸\n    x + y\n}\n",
        "let y = 2;\n    x + y\n}\n",
        "fn f() -> i32 {\n    let x = 1;\n    let y = 2;‸\n    x + y\n}\n",
    ),
    # --- Java
    "java_for_header": (
        "java",
        "for (‸) {\n    use(item);\n}\n",
        "Item item : items) {\n",
        "for (Item item : items‸) {\n    use(item);\n}\n",
    ),
    "java_generic_in_generic": (
        "java",
        "List<‸>\n",
        "Map<String, Integer>>\n",
        "List<Map<String, Integer>‸>\n",
    ),
    "java_annotation_argument": (
        "java",
        '@GetMapping("‸")\nvoid list() {}\n',
        '/users")\n',
        '@GetMapping("/users‸")\nvoid list() {}\n',
    ),
    "java_comment_line": (
        "java",
        "class A {\n    // Returns the ‸\n    int f() { return 1; }\n}\n",
        "first item.\n    // Never null.\n",
        "class A {\n    // Returns the first item.‸\n    int f() { return 1; }\n}\n",
    ),
    # --- C
    "c_include": ("c", "#include <‸>\n", "stdio.h>\n#include <stdlib.h>\n", "#include <stdio.h‸>\n"),
    "c_if_condition": (
        "c",
        "int f(int *p) {\n    if (‸) {\n        return 0;\n    }\n}\n",
        "p == NULL) {\n        return -1;\n",
        "int f(int *p) {\n    if (p == NULL‸) {\n        return 0;\n    }\n}\n",
    ),
    # --- C++
    "cpp_class_members": (
        "cpp",
        "class Point {\n  ‸\n};\n",
        " public:\n  int x;\n  int y;\n};\n\nint main() {\n",
        "class Point {\n  public:\n  int x;\n  int y;‸\n};\n",
    ),
    "cpp_template_argument": (
        "cpp",
        "std::vector<‸> items;\n",
        "std::string> items;\n",
        "std::vector<std::string‸> items;\n",
    ),
    "cpp_stream_goes_on": (
        "cpp",
        "std::cout << ‸;\n",
        '"total: " << total << std::endl;\n',
        'std::cout << "total: " << total << std::endl‸;\n',
    ),
    # --- C#
    "csharp_interpolated_string": (
        "csharp",
        'var s = $"Hello {‸}";\n',
        'name}";\n',
        'var s = $"Hello {name‸}";\n',
    ),
    "csharp_lambda_argument": (
        "csharp",
        "var evens = items.Where(‸);\n",
        "x => x % 2 == 0);\n",
        "var evens = items.Where(x => x % 2 == 0‸);\n",
    ),
    "csharp_brace_on_its_own_line": (
        "csharp",
        "class A\n{\n    void F()\n    {\n        ‸\n    }\n}\n",
        "Run();\n        Stop();\n    }\n\n    void G()\n",
        "class A\n{\n    void F()\n    {\n        Run();\n        Stop();‸\n    }\n}\n",
    ),
    # --- Ruby
    "ruby_hash_argument": (
        "ruby",
        "post(url, {‸})\n",
        "name: name, size: 3})\n",
        "post(url, {name: name, size: 3‸})\n",
    ),
    "ruby_string_substitution": (
        "ruby",
        'puts "Hello #{‸}"\n',
        'name}"\n',
        'puts "Hello #{name‸}"\n',
    ),
    # --- PHP
    "php_call_argument": (
        "php",
        "<?php\n$x = strlen(‸);\n",
        "$name);\n",
        "<?php\n$x = strlen($name‸);\n",
    ),
    "php_if_block": (
        "php",
        "<?php\nif ($x === null) {\n    ‸\n}\n",
        "return;\n}\n\nfoo();\n",
        "<?php\nif ($x === null) {\n    return;‸\n}\n",
    ),
    "php_array_literal": (
        "php",
        "<?php\n$a = [\n    ‸\n];\n",
        "'x' => 1,\n    'y' => 2,\n];\n",
        "<?php\n$a = [\n    'x' => 1,‸\n];\n",
    ),
    # --- Bash
    "bash_test_brackets": (
        "shellscript",
        "if [[ ‸ ]]; then\n  exit 1\nfi\n",
        '-z "$1" ]]; then\n',
        'if [[ -z "$1" ]]; then\n  exit 1\nfi\n'.replace(" ]]", "‸ ]]"),
    ),
    "bash_variable_braces": (
        "shellscript",
        'echo "${‸}"\n',
        'HOME}"\n',
        'echo "${HOME‸}"\n',
    ),
    # --- JSON
    "json_array_item": (
        "json",
        '{\n  "files": ["a.py", ‸]\n}\n',
        '"b.py"]\n}\n',
        '{\n  "files": ["a.py", "b.py"‸]\n}\n',
    ),
    "json_no_comma_before_the_end": (
        "json",
        '{\n  "a": 1,\n  ‸\n}\n',
        '"b": 2,\n  "c": 3\n}\n',
        '{\n  "a": 1,\n  "b": 2‸\n}\n',
    ),
    "json_key": ("json", '{\n  "‸": 1\n}\n', 'name": 1\n}\n', '{\n  "name‸": 1\n}\n'),
    # --- YAML
    "yaml_list_item": (
        "yaml",
        "steps:\n  - run: make\n  - ‸\n",
        "run: make test\n  - run: make check\n",
        "steps:\n  - run: make\n  - run: make test‸\n",
    ),
    "yaml_flow_list": ("yaml", "branches: [‸]\n", "main, dev]\n", "branches: [main, dev‸]\n"),
    "yaml_comment": (
        "yaml",
        "# Runs on ‸\non: push\n",
        "every push\non: push\n",
        "# Runs on every push‸\non: push\n",
    ),
    # --- HTML
    "html_end_tag_is_there": ("html", "<h1>‸</h1>\n", "Welcome</h1>\n<p>x</p>\n", "<h1>Welcome‸</h1>\n"),
    "html_comment": (
        "html",
        "<!-- The ‸ -->\n<p></p>\n",
        "header -->\n",
        "<!-- The header‸ -->\n<p></p>\n",
    ),
    # --- CSS
    "css_selector_opens_rule": (
        "css",
        ".card {‸\n",
        "\n  color: red;\n}\n\n.other {\n",
        ".card {\n  color: red;\n}‸\n",
    ),
    "css_function_argument": (
        "css",
        ".a {\n  color: var(‸);\n}\n",
        "--accent);\n  margin: 0;\n",
        ".a {\n  color: var(--accent‸);\n}\n",
    ),
    "css_media_query": (
        "css",
        "@media (‸) {\n  .a { color: red; }\n}\n",
        "max-width: 600px) {\n",
        "@media (max-width: 600px‸) {\n  .a { color: red; }\n}\n",
    ),
    # --- line ends, tabs, right-to-left
    "py_right_to_left_comment": (
        "python",
        "# שלום ‸\nx = 1\n",
        "עולם\ny = 2\n",
        "# שלום עולם‸\nx = 1\n",
    ),
    "py_form_feed_above": (
        "python",
        "x = 1\n\f\ndef f():\n    ‸\n",
        "return 1\n\n\ndef g():\n",
        "x = 1\n\f\ndef f():\n    return 1‸\n",
    ),
    "go_tabs_stay_tabs": (
        "go",
        "func f() {\n\tif ok {\n\t\t‸\n\t}\n}\n",
        "for i := range xs {\n\t\t\tuse(i)\n\t\t}\n\t}\n}\n",
        "func f() {\n\tif ok {\n\t\tfor i := range xs {\n\t\t\tuse(i)\n\t\t}‸\n\t}\n}\n",
    ),
}

LANGUAGES = {
    "python",
    "javascript",
    "typescript",
    "typescriptreact",
    "go",
    "rust",
    "java",
    "c",
    "cpp",
    "csharp",
    "ruby",
    "php",
    "shellscript",
    "json",
    "yaml",
    "html",
    "css",
}


@pytest.mark.parametrize("name", CASES)
def test_suggestion_is_what_a_person_expects(name: str) -> None:
    check(*CASES[name])


@pytest.mark.parametrize(
    ("after", "tail", "expect"),
    [
        ("\n", "\n    y = 2\n    z", "\n    y = 2"),
        ("\n", "\n\n    y = 2\n", "\n\n    y = 2"),
        ("\n    y = 2\n", "\n    y = 2\n", ""),  # the existing text
        ("\n", "\n    y = co", ""),  # half a line
        ("\n", " + 1\n", ""),
        ("\n", "\n    y = 2)\n", "\n    y = 2"),
        (")\n", "\n    y = 2\n", ""),  # the cursor's line continues
    ],
)
def test_the_line_after_a_suggestion_is_cleaned_too(after: str, tail: str, expect: str) -> None:
    assert next_line(language_for("python"), "def f():\n    x = 1", after, tail) == expect


@settings(max_examples=200, deadline=None)
@given(
    st.text("ab ()[]{}:\n\t\"'#", max_size=60),
    st.text("ab ()[]{}:\n\t\"'#", max_size=40),
    st.text("ab ()[]{}:\n\t\"'#", max_size=60),
)
def test_the_line_after_a_suggestion_is_one_whole_line_of_the_tail(before: str, after: str, tail: str) -> None:
    line = next_line(language_for("python"), before, after, tail)
    if line:
        body = line.lstrip("\n")
        assert line.startswith("\n")
        assert body.strip()
        assert "\n" not in body
        assert tail.startswith(line[: len(line) - len(body)])
        assert not after.split("\n", 1)[0].strip()


def test_every_language_has_five_cases() -> None:
    counts = Counter(case[0] for cases in (FIRST_CASES, CASES) for case in cases.values())
    assert {language: counts[language] for language in LANGUAGES if counts[language] < 5} == {}
    assert not set(CASES) & set(FIRST_CASES)
