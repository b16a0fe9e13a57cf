"""Context from other open files: what is chosen, and that the choice is stable."""

from __future__ import annotations

from forelook.completion.document_store import Document
from forelook.completion.prompt.context import ContextChooser, imported_names, signatures_of
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.languages import language_for

SHAPES = '''\
import math

class Circle(Shape):
    """A circle."""

    def __init__(self, radius: float) -> None:
        self.radius = radius

    def area(self) -> float:
        return math.pi * self.radius ** 2

def unit_circle() -> Circle:
    return Circle(1.0)
'''
COLORS = "def mix(first, second):\n    return [(a + b) // 2 for a, b in zip(first, second)]\n"
MAIN = "from shapes import Circle\n\ncircle = Circle(2.0)\nprint(circle.radius, circle.area())\nprint(circle."


def document(name: str, text: str, workspace: str = "w", version: int = 1, language_id: str = "python") -> Document:
    return Document(WorkspaceKey("", workspace), DocumentKey(1, f"file:///{name}"), language_id, version, text)


def chosen(chooser: ContextChooser, main: Document, offset: int | None = None) -> tuple[str, ...]:
    offset = len(main.text) if offset is None else offset
    chooser.choose(main, offset)
    while chooser.has_work:
        chooser.work()
    return tuple(other.commented for other in chooser.choose(main, offset))


def open_all(*documents: Document) -> ContextChooser:
    chooser = ContextChooser()
    for item in documents:
        chooser.touch(item)
    return chooser


def test_signatures_of_imported_names_come_first() -> None:
    main = document("main.py", MAIN)
    context = chosen(open_all(document("shapes.py", SHAPES), document("colors.py", COLORS), main), main)
    assert context[0].startswith("class Circle(Shape):\n    def __init__(self, radius: float) -> None:")
    assert "def area(self) -> float:" in context[0]
    assert "unit_circle" not in context[0], "it is not imported"


def test_similar_windows_are_named_by_their_file() -> None:
    main = document("main.py", MAIN)
    context = chosen(open_all(document("shapes.py", SHAPES), document("colors.py", COLORS), main), main)
    assert any(text.startswith("# shapes.py\n") for text in context)
    assert not any("mix" in text for text in context), "nothing in common"


def test_other_workspaces_and_languages_stay_out() -> None:
    main = document("main.py", MAIN)
    others = (document("shapes.py", SHAPES, workspace="other"), document("shapes.ts", SHAPES, language_id="typescript"))
    assert chosen(open_all(*others, main), main) == ()


def test_the_first_request_does_not_wait_for_context() -> None:
    main = document("main.py", MAIN)
    chooser = open_all(document("shapes.py", SHAPES), main)
    assert tuple(chooser.choose(main, len(MAIN))) == ()
    assert chooser.has_work


def test_context_stands_still_while_the_user_types() -> None:
    main = document("main.py", MAIN)
    chooser = open_all(document("shapes.py", SHAPES), main)
    first = chosen(chooser, main)
    assert first
    for count in range(1, 12):
        main = document("main.py", MAIN + "area_of_it"[:count], version=count + 1)
        chooser.touch(main)
        assert tuple(other.commented for other in chooser.choose(main, len(main.text))) == first
        assert not chooser.has_work, "nothing is looked for again"


def test_a_closed_file_leaves_every_context() -> None:
    main = document("main.py", MAIN)
    chooser = open_all(document("shapes.py", SHAPES), main)
    assert chosen(chooser, main)
    chooser.forget(DocumentKey(1, "file:///shapes.py"))
    assert tuple(chooser.choose(main, len(MAIN))) == ()
    assert chosen(chooser, main) == ()


def test_order_does_not_depend_on_which_file_was_touched_last() -> None:
    main = document("main.py", MAIN)
    files = [document(f"shapes{number}.py", SHAPES.replace("unit", f"unit{number}")) for number in range(4)]
    orders = {chosen(open_all(*order, main), main) for order in (files, files[::-1])}
    assert len(orders) == 1


def test_signatures_in_other_languages() -> None:
    code = (
        "export class Cache<K> {\n  get(key: K): string {\n    return '';\n  }\n}\n"
        "export function load(path: string): Cache<string> {\n}\n"
    )
    found = signatures_of(language_for("typescript"), code)
    assert found["Cache"].startswith("class Cache<K>")
    assert "get(key: K): string" in found["Cache"]
    assert found["load"] == "function load(path: string): Cache<string>"
    assert signatures_of(language_for("plaintext"), "anything") == {}
    go = signatures_of(language_for("go"), "package a\n\nfunc Add(a, b int) int {\n\treturn a + b\n}\n")
    assert go == {"Add": "func Add(a, b int) int"}


def test_imports_are_read_from_the_tree() -> None:
    assert {"shapes", "Circle"} <= imported_names(language_for("python"), MAIN)
    assert "circle" not in imported_names(language_for("python"), MAIN)
    assert "load" in imported_names(language_for("typescript"), "import { load } from './cache';\nconst x = 1;\n")
