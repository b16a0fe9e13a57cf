"""Thousands of cursors in real files: no suggestion deletes what was typed or doubles a bracket that is there.

The files are balanced, so a closer that the suggestion did not open is a duplicate.
"""

from __future__ import annotations

import argparse
import asyncio.base_events
import json.decoder
import random
import re
from pathlib import Path

import pytest
from forelook.completion.cursor.parsing import parser_for
from forelook.languages import language_for
from forelook.protocol.messages import Suggestion

from tests.completion.cursor.golden import check_edit, suggest

_SUFFIXES = {".py": "python", ".ts": "typescript", ".js": "javascript", ".json": "json", ".sh": "shellscript"}
_QUOTED = r"\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'"
_PYTHON_STRINGS = re.compile(r"\"\"\"[^\"]*\"\"\"|" + _QUOTED + r"|#[^\n]*")
_STRINGS = re.compile(r"`[^`]*`|" + _QUOTED + r"|//[^\n]*|/\*[^*]*\*/|/\[[^\n]*\]/g")
_CURSORS_PER_FILE = 120
_NOISE = (
    ")",
    "]",
    "}",
    ")]}",
    '")',
    "')",
    "):\n",
    "});\n",
    "}\n}\n",
    '"""\n',
    "`)",
    ",\n    )\n",
    "x",
    " ",
    "\n",
    "\t\n}",
)

TYPESCRIPT = """\
import { readFileSync } from 'node:fs';

export interface Options { readonly path: string; retries?: number }

/** Reads (and parses) a file. */
export async function load<T>({ path, retries = 3 }: Options): Promise<T | undefined> {
  for (let attempt = 0; attempt < retries; attempt++) {
    try {
      const text = readFileSync(path, 'utf8').replace(/[(\\[{]/g, "");
      return JSON.parse(`{"text": "${text.trim()}"}`) as T;
    } catch (error) {
      console.warn(`attempt ${attempt} of ${retries}: ${String(error)}`);
      await new Promise((resolve) => setTimeout(resolve, 10 * attempt));
    }
  }
  return undefined;
}

export class Cache<K, V> {
  private readonly entries = new Map<K, V>();

  constructor(private readonly limit: number) {}

  get(key: K): V | undefined {
    const value = this.entries.get(key);
    if (value !== undefined) {
      this.entries.delete(key);
      this.entries.set(key, value);
    }
    return value;
  }

  set(key: K, value: V): void {
    if (this.entries.size >= this.limit) {
      const [oldest] = this.entries.keys();
      this.entries.delete(oldest);
    }
    this.entries.set(key, value);
  }
}
"""
GO = """\
package main

import (
\t"fmt"
\t"os"
)

type Point struct {
\tX, Y int
}

func (p Point) Add(q Point) Point {
\treturn Point{p.X + q.X, p.Y + q.Y}
}

func main() {
\tpoints := []Point{{1, 2}, {3, 4}}
\tfor i, p := range points {
\t\tif p.X > 2 && (i%2 == 0 || p.Y < 3) {
\t\t\tfmt.Printf("%d: (%v)\\n", i, p.Add(Point{X: 1}))
\t\t} else if err := os.Chdir("/tmp"); err != nil {
\t\t\tfmt.Fprintln(os.Stderr, `raw "(" string`, '(')
\t\t}
\t}
}
"""
RUST = """\
use std::collections::HashMap;

#[derive(Debug, Clone)]
pub struct Index<'a> {
    words: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Index<'a> {
    pub fn new(text: &'a str) -> Self {
        let mut words: HashMap<&'a str, Vec<usize>> = HashMap::new();
        for (line, content) in text.lines().enumerate() {
            for word in content.split(|c: char| !c.is_alphanumeric() || c == '(') {
                words.entry(word).or_default().push(line);
            }
        }
        Index { words }
    }

    pub fn find(&self, word: &str) -> Option<&[usize]> {
        match self.words.get(word) {
            Some(lines) if !lines.is_empty() => Some(&lines[..]),
            _ => None,
        }
    }
}
"""


def real_files(repository: Path) -> list[tuple[str, str]]:
    files = [("typescript", TYPESCRIPT), ("go", GO), ("rust", RUST)]
    library = [argparse, asyncio.base_events, json.decoder, random]
    paths = [Path(str(module.__file__)) for module in library]
    for folder in ("backend/forelook/completion", "backend/forelook/decoding", "extension/src", "tests/completion"):
        paths += sorted(path for path in (repository / folder).rglob("*") if path.suffix in _SUFFIXES)
    for path in paths:
        text = path.read_text(encoding="utf-8")
        # A file that is itself about unbalanced brackets in strings is still real.
        files.append((_SUFFIXES[path.suffix], text[:24_000].rsplit("\n\n", 1)[0] + "\n"))
    return files


def unmatched_closers(language_id: str, code: str) -> str:
    """Closers without an opener in a piece of code, by plain counting once strings and comments are taken out."""
    stack: list[str] = []
    unmatched = ""
    for character in _STRINGS.sub("", code) if language_id != "python" else _PYTHON_STRINGS.sub("", code):
        if character in "([{":
            stack.append(character)
        elif character in ")]}":
            opener = {")": "(", "]": "[", "}": "{"}[character]
            if opener in stack:
                del stack[len(stack) - 1 - stack[::-1].index(opener) :]
            else:
                unmatched += character
    return unmatched


def is_code(language_id: str, text: str, offset: int) -> bool:
    """Whether the grammar sees neither a string nor a comment around ``offset``."""
    parser = parser_for(language_for(language_id))
    assert parser is not None
    position = len(text[:offset].encode())
    node = parser.parse(text.encode()).root_node.descendant_for_byte_range(max(0, position - 1), position)
    while node is not None:
        touches = node.start_byte < position <= node.end_byte
        if touches and re.search("string|comment|template|char|rune|regex|interpolation", node.type):
            return False
        node = node.parent
    return True


def is_parsed_cleanly(language_id: str, text: str) -> bool:
    parser = parser_for(language_for(language_id))
    return parser is not None and not parser.parse(text.encode()).root_node.has_error


def try_cursor(language_id: str, text: str, offset: int, said: str, *, invoked: bool) -> Suggestion | None:
    edit = suggest(language_id, text[:offset], text[offset:], said, invoked=invoked)
    if edit is not None:
        check_edit(text, offset, edit)
        inserted, covered = edit.text[offset - edit.start :], text[offset : edit.end]
        # A quote without its partner makes code of text and text of code; what is doubled then is in the reader's eye.
        paired = all(line.count(quote) % 2 == 0 for line in inserted.split("\n") for quote in "\"'`")
        paired = paired and '"""' not in inserted and inserted.count("/*") == inserted.count("*/")
        if paired and is_code(language_id, text, offset):
            doubled = unmatched_closers(language_id, inserted)
            assert doubled == unmatched_closers(language_id, covered), (
                f"{doubled!r} at {offset}: {text[max(0, offset - 60) : offset]!r} ‸ "
                f"{text[offset : offset + 40]!r} + {edit.text!r} ({said[:60]!r})"
            )
    return edit


def cursors(text: str, random_: random.Random, count: int) -> list[int]:
    interesting = [index for index, character in enumerate(text) if character in "()[]{}\"'`:\n"]
    chosen = [random_.randrange(len(text) + 1) for _ in range(count // 2)]
    return chosen + [random_.choice(interesting) + random_.randrange(2) for _ in range(count - count // 2)]


@pytest.mark.slow
def test_no_suggestion_doubles_a_closer_or_deletes_typed_text(repository: Path) -> None:
    random_ = random.Random(20)
    num_cursors = num_suggestions = 0
    for language_id, text in real_files(repository):
        if not is_parsed_cleanly(language_id, text):
            continue
        for offset in cursors(text, random_, _CURSORS_PER_FILE):
            elsewhere = random_.randrange(len(text))
            said = random_.choice(
                (
                    text[offset : offset + 200],  # the existing text
                    text[elsewhere : elsewhere + 200],
                    random_.choice(_NOISE) + text[elsewhere : elsewhere + 80],
                    text[elsewhere : elsewhere + 20] + random_.choice(_NOISE) + text[offset : offset + 60],
                )
            )
            num_cursors += 1
            edit = try_cursor(language_id, text, offset, said, invoked=random_.random() < 0.3)
            num_suggestions += edit is not None
    assert num_cursors >= 3000
    assert num_suggestions >= num_cursors // 4, "the property must be about suggestions, not about silence"


def test_the_oracle_sees_a_doubled_closer() -> None:
    assert unmatched_closers("python", "x))  # :)\n") == "))"
    assert unmatched_closers("typescript", "f({ a: ')' }); // :)\n") == ""
    assert is_code("python", "x = f(1)\n", 6)
    assert not is_code("python", "x = '(1)'\n", 6)
