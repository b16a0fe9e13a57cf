"""Edits from a repository's history: what stood before a commit, and the lines that the commit added."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from forelook.privacy.content import content_reason, is_generated_name
from forelook.privacy.secrets import is_secret_path
from tokenizers import Tokenizer

from bench.results import REPOSITORY

CODE_SUFFIXES = (
    *(".py", ".pyi", ".js", ".mjs", ".cjs", ".jsx", ".ts", ".tsx", ".go", ".rs", ".java", ".kt", ".scala", ".c", ".h"),
    *(".cc", ".cpp", ".hpp", ".cs", ".rb", ".php", ".swift", ".lua", ".sh", ".el"),
)
TEXT_SUFFIXES = (
    *CODE_SUFFIXES,
    *(".md", ".rst", ".txt", ".toml", ".cfg", ".ini", ".yml", ".yaml", ".json", ".html", ".css", ".vim"),
)
TOKENIZER_PATH = REPOSITORY / "backend/forelook/starter_model/tokenizer.json"


@dataclass(frozen=True)
class Edit:
    """One run of added lines.

    Attributes:
        path: the edited file.
        before: tokens of the file before the cursor.
        added: tokens to generate.
        after: tokens of the file after the cursor, as before the commit.
        after_deleted: the same without the lines that the edit replaces.
        replaces: whether it replaces any.
    """

    path: str
    before: list[int]
    added: list[int]
    after: list[int]
    after_deleted: list[int]
    replaces: bool


class Repository:
    """Commits, trees and files, read through git's plumbing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._batch = subprocess.Popen(
            ["git", "-C", str(path), "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def close(self) -> None:
        self._batch.communicate()

    def _git(self, *arguments: str) -> bytes:
        return subprocess.run(["git", "-C", str(self._path), *arguments], check=True, stdout=subprocess.PIPE).stdout

    def commits(self) -> Iterator[tuple[str, str]]:
        """Yield (commit, parent), newest first, without merges."""
        for line in self._git("log", "--no-merges", "--topo-order", "--format=%H %P").decode().splitlines():
            commit, *parents = line.split()
            if len(parents) == 1:
                yield commit, parents[0]

    def tree(self, commit: str) -> dict[str, str]:
        """Return path → blob of all plain files."""
        found: dict[str, str] = {}
        for record in self._git("ls-tree", "-r", "-z", "--full-tree", commit).split(b"\0"):
            if not record:
                continue
            head, _, name = record.partition(b"\t")
            mode, _, blob = head.decode().split()
            if mode.startswith("100"):
                found[name.decode("utf-8", "surrogateescape")] = blob
        return found

    def blob(self, name: str) -> bytes:
        """Return a file's content."""
        assert self._batch.stdin is not None
        assert self._batch.stdout is not None
        self._batch.stdin.write(name.encode() + b"\n")
        self._batch.stdin.flush()
        header = self._batch.stdout.readline().split()
        if len(header) != 3:
            raise SystemExit(f"git cannot read object {name}; use a complete clone")
        data = self._batch.stdout.read(int(header[2]))
        self._batch.stdout.read(1)
        return data

    def hunks(self, parent: str, commit: str) -> list[tuple[str, int, int, list[str]]]:
        """Return (path, first old line, number of old lines, added lines) of all files that exist before and after."""
        diff = self._git(
            "-c", "core.quotepath=off", "diff-tree", "-r", "-p", "-U0", "--no-renames", "--no-ext-diff", "--no-color",
            parent, commit,
        )  # fmt: skip
        found: list[tuple[str, int, int, list[str]]] = []
        path: str | None = None
        added: list[str] | None = None
        for line in diff.decode("utf-8", "replace").split("\n"):
            if line.startswith("diff --git "):
                path, added = None, None
            elif line.startswith("+++ ") and added is None:
                path = line[6:] if line.startswith("+++ b/") else None
            elif line.startswith("@@ ") and path is not None:
                match = re.match(r"@@ -(\d+)(?:,(\d+))? \+\d+(?:,\d+)? @@", line)
                assert match is not None
                count = 1 if match[2] is None else int(match[2])
                added = []
                found.append((path, int(match[1]), count, added))
            elif line.startswith("+") and added is not None:
                added.append(line[1:])
        return [hunk for hunk in found if hunk[3]]


def starter_encode() -> Callable[[str], list[int]]:
    """The starter model's tokenizer."""
    tokenizer = Tokenizer.from_file(str(TOKENIZER_PATH))
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)


class Encoder:
    """A tokenizer, by default the starter model's; encodes every blob once."""

    def __init__(self, encode: Callable[[str], list[int]] | None = None) -> None:
        self._encode = encode or starter_encode()
        self._blobs: dict[str, np.ndarray | None] = {}

    def __call__(self, text: str) -> list[int]:
        return self._encode(text)

    def blob(self, repository: Repository, name: str) -> np.ndarray | None:
        """Return the tokens of a file, or ``None`` where its content is excluded."""
        if name not in self._blobs:
            data = repository.blob(name)
            wanted = content_reason(data) is None
            self._blobs[name] = np.array(self(data.decode()), dtype=np.int32) if wanted else None
        return self._blobs[name]


def is_wanted(path: str) -> bool:
    return (
        PurePosixPath(path).suffix in TEXT_SUFFIXES
        and not is_secret_path(path)
        and not is_generated_name(PurePosixPath(path).name)
    )


def edits_of(
    repository: Repository, encoder: Encoder, parent: str, commit: str, tree: dict[str, str], limit: int
) -> list[Edit]:
    """Return the edits of one commit, each against the file before the commit."""
    edits = []
    for path, first, count, added in repository.hunks(parent, commit):
        if PurePosixPath(path).suffix not in CODE_SUFFIXES or not is_wanted(path):
            continue
        old = ""
        if path in tree:
            data = repository.blob(tree[path])
            if content_reason(data) is not None:
                continue
            old = data.decode()
        if "\r" in old or not any(line.strip() for line in added):
            continue
        lines = old.split("\n")
        cut = first - 1 if count else first  # lines before the cursor
        # A line break belongs to what follows it, in every token of this tokenizer.
        break_before = "\n" if cut else ""
        added_ids = encoder(break_before + "\n".join(added))[:limit]
        after, after_deleted = (encoder(break_before + "\n".join(lines[place:])) for place in (cut, cut + count))
        edits.append(Edit(path, encoder("\n".join(lines[:cut])), added_ids, after, after_deleted, count > 0))
    return edits
