"""Golden cases: what the model generates, and the resulting file."""

from __future__ import annotations

import pytest

from tests.completion.cursor.golden import check

CASES: dict[str, tuple[str, str, str, str | None]] = {
    # --- one line, and where it ends
    "py_rest_of_statement": (
        "python",
        "def mean(values):\n    return sum(values) ‸\n",
        "/ len(values)\n\n\ndef median(values):\n",
        "def mean(values):\n    return sum(values) / len(values)‸\n",
    ),
    "py_line_ends_suggestion": (
        "python",
        "x = 1\ny = ‸\nz = 3\n",
        "2\nw = 4\n",
        "x = 1\ny = 2‸\nz = 3\n",
    ),
    "py_finished_line_gets_nothing": ("python", "import os‸\n", "\nimport sys\n", None),
    "py_trailing_space_goes": ("python", "x = ‸\n", "compute()   \n", "x = compute()‸\n"),
    "py_only_spaces_is_nothing": ("python", "x = 1 ‸\n", "   ", None),
    "py_word_in_the_middle": (
        "python",
        "result = calc‸\n",
        "ulate(1, 2)\nprint(result)\n",
        "result = calculate(1, 2)‸\n",
    ),
    # --- closers that already follow the cursor
    "py_call_closed_by_editor": (
        "python",
        "print(‸)\n",
        '"hello")\n',
        'print("hello"‸)\n',
    ),
    "py_call_goes_on_behind_closer": (
        "python",
        "x = len(‸)\n",
        "items) + 1\n",
        "x = len(items) + 1‸\n",
    ),
    "py_inner_call_is_kept_whole": (
        "python",
        "print(‸)\n",
        "len(items))\n",
        "print(len(items)‸)\n",
    ),
    "py_balanced_inner_call": (
        "python",
        "print(‸)\n",
        "len(items)\n",
        "print(len(items)‸)\n",
    ),
    "py_two_closers_one_said": (
        "python",
        "print(len(‸))\n",
        "items)\n",
        "print(len(items‸))\n",
    ),
    "py_two_closers_both_said": (
        "python",
        "print(len(‸))\n",
        "items))\n",
        "print(len(items‸))\n",
    ),
    "py_signature_with_colon": (
        "python",
        "def area(‸):\n",
        "width, height):\n    return width * height\n",
        "def area(width, height‸):\n",
    ),
    "py_quote_closed_by_editor": (
        "python",
        'open("‸")\n',
        'data.txt")\n',
        'open("data.txt‸")\n',
    ),
    "py_quote_and_second_argument": (
        "python",
        'with open("‸")\n',
        'data.txt", "rb") as file:\n',
        'with open("data.txt", "rb") as file:‸\n',
    ),
    "py_subscript_closed": ("python", "x = table[‸]\n", "key]\n", "x = table[key‸]\n"),
    "py_missing_closer_is_added": ("python", "print(‸\n", "value)\n", "print(value)‸\n"),
    "py_excess_closer_is_dropped": ("python", "x = 1 + ‸\n", "2)\n", "x = 1 + 2‸\n"),
    "py_closer_below_is_not_doubled": (
        "python",
        "names = [\n    'a',\n    ‸\n]\n",
        "'b',\n]\n",
        "names = [\n    'a',\n    'b',‸\n]\n",
    ),
    "py_only_the_closer_again": ("python", "print(x‸)\n", ")\n", None),
    "py_only_an_opener_is_nothing": ("python", "x = ‸\n", "{\n    'a': 1,\n}\n", None),
    "py_only_quotes_is_nothing": ("python", "def f():\n    x = 1\n    ‸\n", '"""\n    Text\n', None),
    "py_empty_brackets_are_something": ("python", "x = ‸\n", "{}\n", "x = {}‸\n"),
    "py_string_end_is_something": ("python", 'x = "abc‸\n', '"\n', 'x = "abc"‸\n'),
    # --- text behind the cursor
    "py_mid_line_stops_at_what_follows": (
        "python",
        "total = add(‸, b)\n",
        "a, b)\n",
        "total = add(a‸, b)\n",
    ),
    "py_mid_line_echo_of_rest": (
        "python",
        "if ‸ is None:\n",
        "value is None:\n    return\n",
        "if value‸ is None:\n",
    ),
    "py_mid_line_never_spans_lines": (
        "python",
        "x = ‸ + y\n",
        "a\nb = 2\n",
        "x = a‸ + y\n",
    ),
    # --- echoes
    "py_next_line_already_there": (
        "python",
        "def f():\n    x = 1\n    ‸\n    return x\n",
        "return x\n",
        None,
    ),
    "py_block_stops_before_next_line": (
        "python",
        "def f(items):\n    ‸\n    return total\n",
        "total = sum(items)\n    return total\n",
        "def f(items):\n    total = sum(items)‸\n    return total\n",
    ),
    "py_previous_line_again": (
        "python",
        "self.width = width\n‸\n",
        "self.width = width\nself.height = height\n",
        None,
    ),
    "py_repetition_is_cut": (
        "python",
        "def f():\n    ‸\n",
        "print(x)\n    print(x)\n    print(x)\n    print(x)\n",
        "def f():\n    print(x)‸\n",
    ),
    "py_repetition_within_line": (
        "python",
        "x = ‸\n",
        "a or b or b or b or b or b or b or b or b",
        "x = a or b‸\n",
    ),
    # --- blocks
    "py_empty_function_body": (
        "python",
        "def mean(values):\n    ‸\n\n\ndef other():\n    pass\n",
        "total = sum(values)\n    return total / len(values)\n\n\ndef third():\n    pass\n",
        "def mean(values):\n    total = sum(values)\n    return total / len(values)‸\n\n\ndef other():\n    pass\n",
    ),
    "py_body_after_docstring": (
        "python",
        'def mean(values):\n    """Mean."""\n    ‸\n',
        "total = sum(values)\n    return total / len(values)\n\ndef x():\n",
        'def mean(values):\n    """Mean."""\n    total = sum(values)\n    return total / len(values)‸\n',
    ),
    "py_body_after_colon": (
        "python",
        "def double(x):‸\n",
        "\n    return 2 * x\n\n\ndef triple(x):\n    return 3 * x\n",
        "def double(x):\n    return 2 * x‸\n",
    ),
    "py_colon_but_body_is_there": (
        "python",
        "def double(x):‸\n    return 2 * x\n",
        "\n    y = x\n",
        None,
    ),
    "py_if_body_ends_at_else": (
        "python",
        "def f(x):\n    if x:\n        ‸\n    return 2\n",
        "x += 1\n    else:\n        x -= 1\n",
        "def f(x):\n    if x:\n        x += 1‸\n    return 2\n",
    ),
    "py_second_statement_is_single_line": (
        "python",
        "def f(x):\n    y = x\n    ‸\n",
        "z = y + 1\n    return z\n",
        "def f(x):\n    y = x\n    z = y + 1‸\n",
    ),
    "py_comment_announces_block": (
        "python",
        "def f(x):\n    y = x\n    # add one and return\n    ‸\n",
        "z = y + 1\n    return z\n\n    dead = 1\n",
        "def f(x):\n    y = x\n    # add one and return\n    z = y + 1\n    return z‸\n",
    ),
    "py_string_at_column_zero_is_no_dedent": (
        "python",
        "def usage():\n    ‸\n",
        'text = """\nUsage: tool FILE\n"""\n    print(text)\nx = 1\n',
        'def usage():\n    text = """\nUsage: tool FILE\n"""\n    print(text)‸\n',
    ),
    "py_open_bracket_is_no_dedent": (
        "python",
        "def f():\n    ‸\n",
        "return [\n  1,\n  2,\n]\n\nf()\n",
        "def f():\n    return [\n  1,\n  2,\n]‸\n",
    ),
    "py_nested_blocks_inside": (
        "python",
        "def f(xs):\n    ‸\n",
        "for x in xs:\n        if x:\n            yield x\n\n    return\nf([])\n",
        "def f(xs):\n    for x in xs:\n        if x:\n            yield x\n\n    return‸\n",
    ),
    "py_comment_is_single_line": (
        "python",
        "# The quick ‸\n",
        "brown fox\n# jumps over\n",
        "# The quick brown fox‸\n",
    ),
    "py_docstring_end_is_not_doubled": (
        "python",
        'def f():\n    """Return ‸\n    """\n',
        'the answer."""\n    return 42\n',
        'def f():\n    """Return the answer.‸\n    """\n',
    ),
    # --- indentation
    "py_excess_indentation_goes": (
        "python",
        "def f(n):\n    ‸",
        "    return n\n\n    def g():\n",
        "def f(n):\n    return n‸",
    ),
    "py_leading_blank_line_goes": (
        "python",
        "def f(n):\n    ‸\n",
        "\n    return n\n",
        "def f(n):\n    return n‸\n",
    ),
    "py_tabs_as_the_file_has": (
        "python",
        "def f(n):\n\tif n:\n\t\treturn 1\n\ndef g(n):\n\t‸\n",
        "if n:\n        return 2\n    return 3\n",
        "def f(n):\n\tif n:\n\t\treturn 1\n\ndef g(n):\n\tif n:\n\t\treturn 2\n\treturn 3‸\n",
    ),
    "go_spaces_become_tabs": (
        "go",
        "func f() {\n\ta()\n}\n\nfunc g() {\n\t‸\n}\n",
        "if x {\n        b()\n    }\n}\n",
        "func f() {\n\ta()\n}\n\nfunc g() {\n\tif x {\n\t\tb()\n\t}‸\n}\n",
    ),
    "js_tabs_become_spaces": (
        "javascript",
        "function f() {\n    a();\n}\n\nfunction g() {\n    ‸\n}\n",
        "if (x) {\n\t\tb();\n\t}\n}\n",
        "function f() {\n    a();\n}\n\nfunction g() {\n    if (x) {\n        b();\n    }‸\n}\n",
    ),
    # --- JavaScript, TypeScript, TSX
    "js_body_ends_before_brace_below": (
        "javascript",
        "function add(a, b) {\n  ‸\n}\n",
        "return a + b;\n}\n\nfunction sub(a, b) {\n",
        "function add(a, b) {\n  return a + b;‸\n}\n",
    ),
    "js_body_brings_missing_brace": (
        "javascript",
        "function add(a, b) {\n  ‸",
        "return a + b;\n}\n\nfunction sub(a, b) {\n",
        "function add(a, b) {\n  return a + b;\n}‸",
    ),
    "js_body_after_brace": (
        "javascript",
        "function add(a, b) {‸\n",
        "\n  return a + b;\n}\n\nadd(1, 2);\n",
        "function add(a, b) {\n  return a + b;\n}‸\n",
    ),
    "js_auto_closed_braces": (
        "javascript",
        "function add(a, b) {‸}\n",
        "\n  return a + b;\n}\n",
        "function add(a, b) {\n  return a + b;\n‸}\n",
    ),
    "js_arrow_argument": (
        "javascript",
        "items.map(‸);\n",
        "(item) => item.name);\n",
        "items.map((item) => item.name‸);\n",
    ),
    "js_closer_then_chain": (
        "javascript",
        "fetch(‸)\n",
        "url).then((r) => r.json())\n",
        "fetch(url).then((r) => r.json())‸\n",
    ),
    "js_template_string": (
        "javascript",
        "const s = `Hello ‸`;\n",
        "${name}`;\n",
        "const s = `Hello ${name}‸`;\n",
    ),
    "js_regex_is_no_bracket": (
        "javascript",
        "const m = text.match(‸);\n",
        "/[(]/g);\n",
        "const m = text.match(/[(]/g‸);\n",
    ),
    "js_callback_block": (
        "javascript",
        "test('adds', () => {\n  ‸\n});\n",
        "expect(add(1, 2)).toBe(3);\n});\n\ntest('x', () => {\n",
        "test('adds', () => {\n  expect(add(1, 2)).toBe(3);‸\n});\n",
    ),
    "ts_interface_member": (
        "typescript",
        "interface User {\n  ‸\n}\n",
        "id: number;\n  name: string;\n}\n",
        "interface User {\n  id: number;\n  name: string;‸\n}\n",
    ),
    "ts_generic_call": (
        "typescript",
        "const m = new Map<string, number>(‸);\n",
        "[['a', 1]]);\n",
        "const m = new Map<string, number>([['a', 1]]‸);\n",
    ),
    "ts_type_annotation": (
        "typescript",
        "function f(x: ‸) {\n  return x;\n}\n",
        "string) {\n",
        "function f(x: string‸) {\n  return x;\n}\n",
    ),
    "tsx_element_attribute": (
        "typescriptreact",
        "const a = <Button onClick={‸} />;\n",
        "() => save()} />;\n",
        "const a = <Button onClick={() => save()‸} />;\n",
    ),
    "tsx_component_body": (
        "typescriptreact",
        "function App() {\n  ‸\n}\n",
        'return (\n    <div className="app">\n      <Header />\n    </div>\n  );\n}\n',
        'function App() {\n  return (\n    <div className="app">\n      <Header />\n    </div>\n  );‸\n}\n',
    ),
    # --- Go
    "go_error_block": (
        "go",
        "func f() error {\n\tif err != nil {\n\t\t‸\n\t}\n\treturn nil\n}\n",
        "return err\n\t}\n\treturn nil\n}\n",
        "func f() error {\n\tif err != nil {\n\t\treturn err‸\n\t}\n\treturn nil\n}\n",
    ),
    "go_call_argument": (
        "go",
        'func main() {\n\tfmt.Println("‸")\n}\n',
        'hello, world")\n}\n',
        'func main() {\n\tfmt.Println("hello, world‸")\n}\n',
    ),
    "go_struct_fields": (
        "go",
        "type Point struct {\n\t‸\n}\n",
        "X int\n\tY int\n}\n\nfunc main() {\n",
        "type Point struct {\n\tX int\n\tY int‸\n}\n",
    ),
    # --- Rust
    "rust_lifetime_is_no_string": (
        "rust",
        "fn first<'a>(s: &'a str) -> &'a str {\n    ‸\n}\n",
        's.split(" ").next().unwrap_or("")\n}\n\nfn main() {\n',
        'fn first<\'a>(s: &\'a str) -> &\'a str {\n    s.split(" ").next().unwrap_or("")‸\n}\n',
    ),
    "rust_match_arms": (
        "rust",
        "match x {\n    ‸\n}\n",
        "Some(v) => v,\n    None => 0,\n}\n",
        "match x {\n    Some(v) => v,\n    None => 0,‸\n}\n",
    ),
    "rust_char_bracket": (
        "rust",
        "if c == ‸ {\n    depth += 1;\n}\n",
        "'(' {\n        depth\n",
        "if c == '('‸ {\n    depth += 1;\n}\n",
    ),
    # --- Java, C, C++, C#
    "java_method_body": (
        "java",
        "class A {\n    int twice(int x) {\n        ‸\n    }\n}\n",
        "return 2 * x;\n    }\n\n    int thrice(int x) {\n",
        "class A {\n    int twice(int x) {\n        return 2 * x;‸\n    }\n}\n",
    ),
    "java_statement_semicolon": (
        "java",
        "String s = String.format(‸);\n",
        '"%d", n);\n',
        'String s = String.format("%d", n‸);\n',
    ),
    "c_for_header": (
        "c",
        "int f(int n) {\n    for (‸)\n        g(i);\n}\n",
        "int i = 0; i < n; i++)\n",
        "int f(int n) {\n    for (int i = 0; i < n; i++‸)\n        g(i);\n}\n",
    ),
    "c_preprocessor_at_column_zero": (
        "c",
        "int f(void) {\n    ‸\n}\n",
        "int x = 0;\n#ifdef DEBUG\n    x = 1;\n#endif\n    return x;\n}\n\nint g(void) {\n",
        "int f(void) {\n    int x = 0;\n#ifdef DEBUG\n    x = 1;\n#endif\n    return x;‸\n}\n",
    ),
    "c_struct_missing_end": (
        "c",
        "struct point {‸\n",
        "\n    int x;\n    int y;\n};\n\nint main(void) {\n",
        "struct point {\n    int x;\n    int y;\n};‸\n",
    ),
    "cpp_range_for": (
        "cpp",
        "for (‸) {\n    use(x);\n}\n",
        "const auto& x : items) {\n",
        "for (const auto& x : items‸) {\n    use(x);\n}\n",
    ),
    "cpp_lambda_body": (
        "cpp",
        "std::sort(v.begin(), v.end(), [](int a, int b) {\n    ‸\n});\n",
        "return a < b;\n});\n",
        "std::sort(v.begin(), v.end(), [](int a, int b) {\n    return a < b;‸\n});\n",
    ),
    "csharp_property": (
        "csharp",
        "class A {\n    public int X { ‸ }\n}\n",
        "get; set; }\n",
        "class A {\n    public int X { get; set;‸ }\n}\n",
    ),
    "csharp_method_body": (
        "csharp",
        "class A {\n    int F() {\n        ‸\n    }\n}\n",
        "return 1;\n    }\n}\n",
        "class A {\n    int F() {\n        return 1;‸\n    }\n}\n",
    ),
    # --- Ruby, PHP, Bash
    "ruby_method_without_end": (
        "ruby",
        "def add(a, b)\n  ‸",
        "a + b\nend\n\ndef sub(a, b)\n",
        "def add(a, b)\n  a + b\nend‸",
    ),
    "ruby_end_is_not_doubled": (
        "ruby",
        "def add(a, b)\n  ‸\nend\n",
        "a + b\nend\n\ndef sub(a, b)\n",
        "def add(a, b)\n  a + b‸\nend\n",
    ),
    "ruby_block_argument": (
        "ruby",
        "names.each do |name|\n  ‸\nend\n",
        "puts name\nend\n",
        "names.each do |name|\n  puts name‸\nend\n",
    ),
    "php_function_body": (
        "php",
        "<?php\nfunction add($a, $b) {\n    ‸\n}\n",
        "return $a + $b;\n}\n\nfunction sub($a, $b) {\n",
        "<?php\nfunction add($a, $b) {\n    return $a + $b;‸\n}\n",
    ),
    "php_array_access": (
        "php",
        "<?php\n$x = $row['‸'];\n",
        "name'];\n",
        "<?php\n$x = $row['name‸'];\n",
    ),
    "bash_if_without_fi": (
        "shellscript",
        'if [ -f "$1" ]; then\n  ‸',
        'cat "$1"\nfi\n\necho done\n',
        'if [ -f "$1" ]; then\n  cat "$1"\nfi‸',
    ),
    "bash_done_is_not_doubled": (
        "shellscript",
        "for f in *.txt; do\n  ‸\ndone\n",
        'echo "$f"\ndone\n',
        'for f in *.txt; do\n  echo "$f"‸\ndone\n',
    ),
    "bash_case_label_is_no_bracket": (
        "shellscript",
        'case "$1" in\n  ‸\nesac\n',
        "start) run ;;\nesac\n",
        'case "$1" in\n  start) run ;;‸\nesac\n',
    ),
    # --- JSON, YAML, HTML, CSS
    "json_value": (
        "json",
        '{\n  "name": "‸"\n}\n',
        'forelook",\n  "version": "1.0"\n',
        '{\n  "name": "forelook‸"\n}\n',
    ),
    "json_empty_object": (
        "json",
        '{\n  "scripts": {\n    ‸\n  }\n}\n',
        '"build": "tsc",\n    "test": "vitest"\n  }\n}\n',
        '{\n  "scripts": {\n    "build": "tsc",\n    "test": "vitest"‸\n  }\n}\n',
    ),
    "yaml_block_of_key": (
        "yaml",
        "services:\n  web:\n    ‸\n  db:\n    image: postgres\n",
        "image: nginx\n    ports:\n      - 80\n  cache:\n    image: redis\n",
        "services:\n  web:\n    image: nginx\n    ports:\n      - 80‸\n  db:\n    image: postgres\n",
    ),
    "yaml_value": ("yaml", "name: ‸\non: push\n", "build\non: push\n", "name: build‸\non: push\n"),
    "html_element_content": (
        "html",
        "<ul>\n  ‸\n</ul>\n",
        "<li>One</li>\n  <li>Two</li>\n</ul>\n",
        "<ul>\n  <li>One</li>\n  <li>Two</li>‸\n</ul>\n",
    ),
    "html_missing_end_tag": (
        "html",
        "<ul>\n  ‸",
        "<li>One</li>\n</ul>\n<p>more</p>\n",
        "<ul>\n  <li>One</li>\n</ul>‸",
    ),
    "html_attribute_value": (
        "html",
        '<a href="‸">x</a>\n',
        'https://example.org">x</a>\n',
        '<a href="https://example.org‸">x</a>\n',
    ),
    "css_rule_body": (
        "css",
        ".card {\n  ‸\n}\n",
        "color: red;\n  margin: 0;\n}\n\n.other {\n",
        ".card {\n  color: red;\n  margin: 0;‸\n}\n",
    ),
    "css_value": ("css", ".a {\n  color: ‸;\n}\n", "red;\n  margin: 0;\n", ".a {\n  color: red‸;\n}\n"),
    # --- languages without a grammar
    "lua_function_end": (
        "lua",
        "local function add(a, b)\n  ‸",
        "return a + b\nend\n\nlocal x = 1\n",
        "local function add(a, b)\n  return a + b\nend‸",
    ),
    "kotlin_body": (
        "kotlin",
        "fun add(a: Int, b: Int): Int {\n    ‸\n}\n",
        "return a + b\n}\n\nfun sub() {\n",
        "fun add(a: Int, b: Int): Int {\n    return a + b‸\n}\n",
    ),
    "plain_text_is_single_line": (
        "plaintext",
        "Dear ‸\n",
        "reader,\nwelcome.\n",
        "Dear reader,‸\n",
    ),
    "makefile_recipe": (
        "makefile",
        "test:\n\t‸\n",
        "pytest\n\nclean:\n\trm -rf build\n",
        "test:\n\tpytest‸\n",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_suggestion_is_what_a_person_expects(name: str) -> None:
    check(*CASES[name])


def test_there_are_enough_cases_over_all_languages() -> None:
    languages = {language for language, *_ in CASES.values()}
    assert len(CASES) >= 80
    assert languages >= {
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


def test_invoked_spans_lines_within_the_scope() -> None:
    check(
        "python",
        "def f(x):\n    y = x\n    ‸\n",
        "z = y + 1\n    return z\n\n\ndef g():\n",
        "def f(x):\n    y = x\n    z = y + 1\n    return z‸\n",
        invoked=True,
    )


def test_invoked_at_top_level_ends_with_the_paragraph() -> None:
    check(
        "python",
        "import os\n\n‸\n",
        "def f():\n    x = 1\n\n    return x\n\n\ndef g():\n    pass\n",
        "import os\n\ndef f():\n    x = 1\n\n    return x‸\n",
        invoked=True,
    )


def test_lines_said_in_circles_are_said_once() -> None:
    round_ = '        text = text.replace("\\n", "")\n    if text.startswith("\\n"):\n'
    check(
        "python",
        "def clean(text):\n    ‸\n",
        'if text.startswith("\\n"):\n' + 4 * round_,
        'def clean(text):\n    if text.startswith("\\n"):\n        text = text.replace("\\n", "")‸\n',
    )


def test_two_pairs_of_lines_that_differ_stay() -> None:
    said = 'self.first = first\n    self.log("first is set")\n    self.second = second\n    self.log("second is set")\n'
    expect = "def f(self):\n    " + said.rstrip() + "‸\n"
    check("python", "def f(self):\n    ‸\n", said, expect)


def test_short_lines_may_come_in_pairs() -> None:
    check(
        "javascript",
        "function f() {\n  ‸\n}\n",
        "up();\n  go();\n  up();\n  go();\n  end();\n}\n",
        "function f() {\n  up();\n  go();\n  up();\n  go();\n  end();‸\n}\n",
    )


def test_interrupted_line_loses_its_half_word() -> None:
    check("python", "x = ‸\n", "compute(first_val", "x = compute(‸\n", interrupted=True)


@pytest.mark.parametrize(
    ("document", "said", "expect"),
    [
        ("x = ‸\n", "np.array([1, 2, 10", "x = np.array([1, 2,‸\n"),
        ("x = ‸\n", "np.array([1.5, 3.", "x = np.array([1.5,‸\n"),
        ("x = ‸\n", "scale(0x1f", "x = scale(‸\n"),
        ("x = ‸\n", "a1.b2.comp", "x = a1.b2.‸\n"),
        ("x = ‸\n", "3.14", None),
        ("def f():\n    ‸\n", 'raise ValueError("no such fi', "def f():\n    raise ValueError‸\n"),
        ("def f():\n    ‸\n", "raise ValueError(f'{path} is n", "def f():\n    raise ValueError‸\n"),
        ("def f():\n    ‸\n", 'call("whole", oth', "def f():\n    call‸\n"),
        ("x = ‸\n", '"no such fi', None),
        ("x = '‸\n", "no such fi", "x = 'no such‸\n"),
        ("def f():\n    ‸\n", '"""Say what is n', None),
        ('def f():\n    """‸', "Say what is n", 'def f():\n    """Say what is‸'),
        ("x = 1  # ‸\n", "it isn't ready, and was n", "x = 1  # it isn't ready, and was‸\n"),
    ],
)
def test_interrupted_line_ends_before_a_half_string_number_or_word(
    document: str, said: str, expect: str | None
) -> None:
    check("python", document, said, expect, interrupted=True)


def test_interrupted_prose_keeps_its_words() -> None:
    check("markdown", "‸\n", "The file isn't there, and n", "The file isn't there, and‸\n", interrupted=True)


def test_interrupted_block_keeps_whole_lines() -> None:
    check(
        "python",
        "def f(x):\n    ‸\n",
        "y = x + 1\n    return y + compu",
        "def f(x):\n    y = x + 1‸\n",
        interrupted=True,
    )


def test_half_a_first_word_is_nothing() -> None:
    check("python", "x = ‸\n", "comp", None, interrupted=True)
