"""The window that the guard parses: small, and what is left out of it explains no error."""

from __future__ import annotations

import pytest
from forelook.completion.cursor.parsing import errors_of, parse
from forelook.completion.cursor.stopping import look_around
from forelook.completion.cursor.window import Window, completed, window_of
from forelook.languages import language_for

MAX_CHARS = 9_000


def method(template: str) -> str:
    return "".join(template.replace("%", str(number)) for number in range(200))


DOCUMENTS = {
    "a class": ("java", "class A\n    extends B {\n", "  int f%(int a) {\n    return a + g(%);\n  }\n\n", "}\n"),
    "a bracket on its own line": (
        "csharp",
        "namespace N\n{\n    class A : B\n    {\n",
        "        int F%(int a,\n               int b)\n        {\n            return a;\n        }\n",
        "    }\n}\n",
    ),
    "an indented class": ("python", "class A(\n    B,\n):\n", "    def f%(self, a):\n        return g(%)\n\n", ""),
    "a long function": (
        "python",
        "def f(\n    a,\n    b,\n):\n    try:\n",
        "        if a > %:\n            print(a)\n        else:\n            b = {'c': %}\n",
        "    except E:\n        raise\n    finally:\n        b()\n",
    ),
    "branches": (
        "go",
        "package p\n\nfunc f(a int) int {\n\tif a > 0 {\n",
        "\t\tg(%, a)\n",
        "\t} else {\n\t\tg()\n\t}\n}\n",
    ),
    "a case": ("go", "package p\n\nfunc f(a int) {\n\tswitch a {\n\tcase 1:\n", "\t\tg(%)\n", "\tcase 2:\n\t}\n}\n"),
    "keywords": (
        "ruby",
        "module M\n  class A\n",
        "    def f%(a)\n      g(a) do |b|\n        b\n      end\n    end\n",
        "  end\nend\n",
    ),
    "a rescue": ("ruby", "def f\n  begin\n", "    g(%)\n", "  rescue E => e\n    h\n  else\n    i\n  end\nend\n"),
    "a loop": ("shellscript", "f() {\n  for a in 1 2\n  do\n", "    echo $a %\n", "  done\n}\n"),
    "arguments": ("javascript", "f(a,\n  {\n", "    b%: [1, %],\n", "  });\n"),
    "elements": (
        "typescriptreact",
        "const a = (\n  <A\n    b={c}\n  >\n",
        "    <B d={%}>\n      {e}\n    </B>\n",
        "  </A>\n);\n",
    ),
    "a document": (
        "html",
        "<!DOCTYPE html>\n<html>\n<body>\n<div>\n",
        "<p>\n  %\n</p>\n",
        "</div>\n</body>\n</html>\n",
    ),
    "an object": ("json", '{\n  "a": {\n', '    "b%": [\n      %\n    ],\n', '    "c": 0\n  }\n}\n'),
    "a namespace": ("cpp", "namespace n {\nnamespace m {\n", "int f%(\n    int a) {\n  return a;\n}\n\n", "}\n}\n"),
    "code in a page": (
        "php",
        "<p>\n<?php\nclass A\n{\n",
        "    function f%($a)\n    {\n        return g(%);\n    }\n",
        "}\n",
    ),
    "a long string": (
        "python",
        "x = 1\n",
        'def f%():\n    """It isn\'t long.\n\n  (But unindented:\n\nthis.\n    """\n',
        "x = 2\n",
    ),
    "a selector list": ("css", "@media print {\n", "  .a%,\n  .b% {\n    color: red;\n  }\n", "}\n"),
}


def window_at(language_id: str, text: str, offset: int) -> Window:
    language = language_for(language_id)
    cursor = look_around(language, text[:offset], text[offset:])
    window = window_of(language, cursor.before, cursor.after, cursor.inside)
    return completed(language, window, own_closed=True) if window.is_cut else window


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_window_of_a_long_document_is_small_and_parses_as_the_document_does(name: str) -> None:
    language_id, head, part, tail = DOCUMENTS[name]
    text = head + method(part) + tail
    whole = parse(language_for(language_id), text)
    assert whole is not None
    assert not errors_of(whole)
    unsound = []
    for offset in range(0, len(text), len(text) // 40 + 1):
        window = window_at(language_id, text, offset)
        assert len(window.before) + len(window.after) <= MAX_CHARS
        tree = parse(language_for(language_id), window.before + window.after)
        assert tree is not None
        if errors_of(tree):
            unsound.append(offset)
    assert len(unsound) <= 1, unsound


def test_the_cursors_line_is_in_the_window_as_it_is() -> None:
    language_id, head, part, tail = DOCUMENTS["a class"]
    text = head + method(part) + tail
    for offset in range(0, len(text), 333):
        window = window_at(language_id, text, offset)
        start = text.rfind("\n", 0, offset) + 1
        end = text.find("\n", offset)
        assert window.before.endswith(text[start:offset])
        assert window.after.startswith(text[offset:end])


def test_a_short_document_is_its_own_window() -> None:
    assert window_of(language_for("python"), "x = (\n", "  1)\n") == Window("x = (\n", "  1)\n", 0, 2, is_cut=False)
