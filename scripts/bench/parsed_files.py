"""Source files that parse, in every language with a grammar."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from forelook.completion.cursor.parsing import parse
from forelook.languages import language_for, language_id_of


def parsed_files(folders: Sequence[Path], max_bytes: int) -> Iterator[tuple[str, str, str]]:
    """Yield name of the language, language id and text of the files that parse, in languages with a grammar."""
    for path in sorted(path for folder in folders for path in folder.rglob("*") if path.is_file()):
        language_id = language_id_of(path.suffix)
        language = language_for(language_id)
        if language.grammar is None or path.stat().st_size > max_bytes:
            continue
        try:
            text = path.read_text(encoding="utf-8").replace("\r\n", "\n")
        except UnicodeDecodeError:
            continue
        tree = parse(language, text)
        if tree is not None and not tree.root_node.has_error:
            yield language.name, language_id, text
