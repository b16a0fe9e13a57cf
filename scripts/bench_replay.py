"""How good are the drafts on real edits? Replays a repository's history against an oracle, with no model in the way.

For each of the last commits the workspace stands as before the commit. Every run of added lines is then "generated":
the cursor stands at the end of the line above, and an oracle names the true next token. Each method drafts at most
``--budget`` tokens a step; the longest drafted path the oracle agrees with is accepted, plus the oracle's next token,
exactly as a decode step would. The added lines are in no index; what a method may learn from them is its own output so
far. All methods see the same text:

- ``prompt_lookup``: the rule of transformers' prompt lookup over prompt and output (first earlier occurrence of the last
  n tokens, longest n first), all its tokens in one chain.
- ``published``: lookahead decoding's n-gram pool of one call, filled from prompt and output, keyed by one token.
- ``pool_cold``: Forelook's pool with the edited file alone.
- ``pool_warm``: Forelook's pool with the whole workspace.

The prompt is an editor's: text after the cursor, then text before it, as much of each as fits ``--prompt-tokens``.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
from tokenizers import Tokenizer

from forelook.decoding.calibration import AcceptanceCalibration
from forelook.decoding.draft_tree import CandidateTree, DraftTree
from forelook.decoding.drafts import DraftSource
from forelook.decoding.ngram_pool import NgramPool
from forelook.decoding.prompt_ngrams import PromptNgrams
from forelook.decoding.published_pool import PublishedPool
from forelook.privacy import content_reason, is_generated_name, is_secret_path
from forelook.workspace.workspace_source import WorkspaceSource

CODE_SUFFIXES = frozenset(
    ".py .pyi .js .mjs .cjs .jsx .ts .tsx .go .rs .java .kt .scala .c .h .cc .cpp .hpp .cs .rb .php .swift .lua .sh .el".split()
)
TEXT_SUFFIXES = CODE_SUFFIXES | frozenset(".md .rst .txt .toml .cfg .ini .yml .yaml .json .html .css .vim".split())
TOKENIZER_PATH = Path(__file__).resolve().parents[1] / "backend/forelook/starter_model/tokenizer.json"
SEPARATOR = -2
"""Stands between the two halves of a prompt, as a sentinel would; equal to no token."""


@dataclass(frozen=True)
class Edit:
    """One run of added lines.

    Attributes:
        path: the edited file.
        before: tokens of the file before the cursor.
        added: tokens to generate.
        after: tokens of the file after the cursor, as before the commit.
    """

    path: str
    before: list[int]
    added: list[int]
    after: list[int]
    replaces: bool


@dataclass
class Tally:
    """Counts of one method."""

    num_tokens: int = 0
    num_steps: int = 0
    num_drafted: int = 0
    num_accepted: int = 0
    seconds: float = 0.0
    curve: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        return {
            "tokens_per_step": round(self.num_tokens / max(1, self.num_steps), 4),
            "accepted_share": round(self.num_accepted / max(1, self.num_drafted), 4),
            "drafted": self.num_drafted,
            "accepted": self.num_accepted,
        }


# -- history -----------------------------------------------------------------------------------------------------------


class Repository:
    """Reads commits, trees and files through git's plumbing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._batch = subprocess.Popen(
            ["git", "-C", str(path), "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._trees: dict[str, dict[str, str]] = {}

    def close(self) -> None:
        self._batch.communicate()

    def _git(self, *arguments: str) -> bytes:
        return subprocess.run(["git", "-C", str(self._path), *arguments], check=True, stdout=subprocess.PIPE).stdout

    def commits(self) -> Iterator[tuple[str, str]]:
        """(commit, parent), newest first, merges left out."""
        for line in self._git("log", "--no-merges", "--topo-order", "--format=%H %P").decode().splitlines():
            commit, *parents = line.split()
            if len(parents) == 1:
                yield commit, parents[0]

    def tree(self, commit: str) -> dict[str, str]:
        """Path → blob of all plain files."""
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
        """A file's content."""
        assert self._batch.stdin is not None and self._batch.stdout is not None
        self._batch.stdin.write(name.encode() + b"\n")
        self._batch.stdin.flush()
        header = self._batch.stdout.readline().split()
        if len(header) != 3:
            raise SystemExit(f"git cannot read object {name}: is the clone complete?")
        data = self._batch.stdout.read(int(header[2]))
        self._batch.stdout.read(1)
        return data

    def hunks(self, parent: str, commit: str) -> list[tuple[str, int, int, list[str]]]:
        """(path, first old line, number of old lines, added lines) of all files that are there before and after."""
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


class Encoder:
    """The starter tokenizer, with every blob encoded once."""

    def __init__(self) -> None:
        self._tokenizer = Tokenizer.from_file(str(TOKENIZER_PATH))
        self._blobs: dict[str, np.ndarray | None] = {}

    def __call__(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def blob(self, repository: Repository, name: str) -> np.ndarray | None:
        """Tokens of a file, or ``None`` where its content is not wanted."""
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


def edits_of(repository: Repository, encoder: Encoder, parent: str, commit: str, tree: dict[str, str], limit: int, drop_replaced: bool=False) -> list[Edit]:
    """The edits of one commit, each against the file as before the commit."""
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
        before = "\n".join(lines[:cut])
        after = "\n".join(lines[cut + (count if drop_replaced else 0) :])
        text = "\n".join(added)
        if cut:
            text, after = "\n" + text, "\n" + after  # the line break belongs to what follows it, in every token
        edits.append(Edit(path, encoder(before), encoder(text)[:limit], encoder(after), count > 0))
    return edits


# -- methods -----------------------------------------------------------------------------------------------------------


class Method(Protocol):
    """Drafts for one edit."""

    def draft(self) -> DraftTree: ...

    def learn(self, accepted: list[int]) -> None: ...


def prompt_of(edit: Edit, num_tokens: int) -> list[int]:
    """What an editor's prompt would hold: suffix, then prefix, the prefix getting three quarters where both are long."""
    for_before = max(num_tokens * 3 // 4, num_tokens - len(edit.after))
    before = edit.before[-for_before:]
    return [*edit.after[: max(0, num_tokens - len(before))], SEPARATOR, *before]


class PromptLookup:
    """transformers' ``PromptLookupCandidateGenerator``, in numpy."""

    def __init__(self, prompt: Sequence[int], max_ngram: int, num_output_tokens: int, room: int) -> None:
        self._ids = np.full(len(prompt) + room, SEPARATOR, dtype=np.int64)
        self._ids[: len(prompt)] = prompt
        self._length = len(prompt)
        self._max_ngram = max_ngram
        self._num_output_tokens = num_output_tokens

    def draft(self) -> DraftTree:
        tree = DraftTree()
        ids, length = self._ids, self._length
        for size in range(min(self._max_ngram, length - 1), 0, -1):
            ends = np.arange(size - 1, length - 1)
            for back in range(size):
                ends = ends[ids[ends - back] == ids[length - 1 - back]]
            if len(ends):
                start = int(ends[0]) + 1
                chain = ids[start : min(start + self._num_output_tokens, length)].tolist()
                tree.add_path(chain)
                break
        return tree

    def learn(self, accepted: list[int]) -> None:
        self._ids[self._length : self._length + len(accepted)] = accepted
        self._length += len(accepted)


class Published:
    """The verification branch of published lookahead decoding with the prompt as reference."""

    def __init__(self, prompt: Sequence[int], ngram_size: int, max_candidates: int, budget: int) -> None:
        self._pool = PublishedPool(ngram_size, max_candidates)
        self._pool.insert_text(prompt, frozenset((SEPARATOR,)))
        self._size = ngram_size
        self._tail = list(prompt[-ngram_size:])
        self._budget = budget

    def draft(self) -> DraftTree:
        tree = DraftTree()
        for candidate in self._pool.candidates(self._tail[-1]):
            tree.add_path(candidate, self._budget)
        return tree

    def learn(self, accepted: list[int]) -> None:
        text = self._tail + accepted
        self._pool.insert_text(text[max(0, len(self._tail) - self._size + 1) :], frozenset((SEPARATOR,)))
        self._tail = text[-self._size :]


class PoolMethod:
    """Forelook's sources in one tree, calibrated as they go."""

    def __init__(
        self, sources: Sequence[DraftSource], context: Sequence[int], calibration: AcceptanceCalibration, budget: int
    ) -> None:
        self._sources = sources
        self._context = list(context)
        self._calibration = calibration
        self._budget = budget
        self._candidates: CandidateTree | None = None

    def draft(self) -> DraftTree:
        candidates = self._candidates = CandidateTree(self._calibration, self._budget, 0.01)
        for source in self._sources:
            for draft in source.propose(self._context, max_candidates=10, max_length=self._budget):
                candidates.add(draft)
        return candidates.select(self._budget)[0]

    def learn(self, accepted: list[int]) -> None:
        assert self._candidates is not None
        self._candidates.learn(accepted)
        self._context += accepted
        for source in self._sources:
            source.extend(accepted)


def replay(method: Method, target: Sequence[int], tally: Tally) -> None:
    """Generate ``target`` with the drafts of a method."""
    done = 0
    started = time.perf_counter()
    while done < len(target):
        tree = method.draft()
        node, depth = 0, 0
        while done + depth < len(target):
            child = tree.children[node].get(target[done + depth])
            if child is None:
                break
            node, depth = child, depth + 1
        accepted = target[done : done + depth + 1]  # the bonus token included
        tally.num_steps += 1
        tally.num_drafted += len(tree)
        tally.num_accepted += depth
        tally.num_tokens += len(accepted)
        done += len(accepted)
        method.learn(list(accepted))
    tally.seconds += time.perf_counter() - started
    tally.curve.append(tally.num_tokens / tally.num_steps)


# -- the run -----------------------------------------------------------------------------------------------------------


def sync(pool: NgramPool, held: dict[str, str], tree: dict[str, str], repository: Repository, encoder: Encoder) -> None:
    """Bring the pool from the tree it holds to another."""
    for path in [path for path in held if path not in tree]:
        pool.remove_document(path)
        del held[path]
    for path, blob in tree.items():
        if held.get(path) == blob or not is_wanted(path):
            continue
        tokens = encoder.blob(repository, blob)
        if tokens is None:
            pool.remove_document(path)
        else:
            pool.set_document(path, tokens)
        held[path] = blob
    pool.settle()


def run(arguments: argparse.Namespace) -> dict[str, object]:
    repository = Repository(arguments.repo)
    encoder = Encoder()
    chosen: list[tuple[str, str]] = []
    for commit, parent in repository.commits():
        if len(chosen) == arguments.commits:
            break
        chosen.append((commit, parent))
    budget = arguments.budget
    names = ("prompt_lookup", "published", "pool_cold", "pool_warm")
    tallies = {name: Tally() for name in names}
    insertions = {name: Tally() for name in names}
    calibrations = {name: AcceptanceCalibration() for name in names}
    pool = NgramPool(1 << 22)
    held: dict[str, str] = {}
    num_edits = 0
    for commit, parent in reversed(chosen):
        tree = repository.tree(parent)
        edits = edits_of(repository, encoder, parent, commit, tree, arguments.edit_tokens)
        if not edits:
            continue
        sync(pool, held, tree, repository, encoder)
        for edit in edits:
            num_edits += 1
            prompt = prompt_of(edit, arguments.prompt_tokens)
            room = len(edit.added) + budget
            after = np.array(edit.after, dtype=np.int32)
            for name in names:
                if name == "prompt_lookup":
                    method: Method = PromptLookup(prompt, arguments.lookup_ngram, budget, room)
                elif name == "published":
                    method = Published(prompt, arguments.published_n, arguments.published_g, budget)
                else:
                    if name == "pool_warm":
                        source = WorkspaceSource(pool, edit.path, after)
                    else:
                        alone = NgramPool()
                        alone.set_document(edit.path, edit.before + edit.after)
                        alone.settle()
                        source = WorkspaceSource(alone, edit.path, after)
                    output = PromptNgrams(prompt, edit.before, room, frozenset((SEPARATOR,)))
                    sources: list[DraftSource] = [output, source] if not arguments.pool_only else [source]
                    method = PoolMethod(sources, edit.before, calibrations[name], budget)
                replay(method, edit.added, tallies[name] if edit.replaces else insertions[name])
    repository.close()
    methods = {}
    for name in names:
        whole = Tally(
            *(getattr(tallies[name], n) + getattr(insertions[name], n) for n in ("num_tokens", "num_steps", "num_drafted", "num_accepted", "seconds"))
        )
        methods[name] = {**whole.summary(), "insertions": insertions[name].summary()["tokens_per_step"], "us_per_step": round(1e6*whole.seconds/max(1,whole.num_steps))}
    return {"repo": arguments.repo.name, "num_edits": num_edits, "num_tokens": whole.num_tokens, "pool_tokens": pool.num_tokens, "methods": methods}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", type=Path, required=True)
    parser.add_argument("--commits", type=int, default=200)
    parser.add_argument("--budget", type=int, default=15)
    parser.add_argument("--prompt-tokens", type=int, default=4096)
    parser.add_argument("--edit-tokens", type=int, default=256)
    parser.add_argument("--lookup-ngram", type=int, default=2)
    parser.add_argument("--published-n", type=int, default=5)
    parser.add_argument("--published-g", type=int, default=15)
    parser.add_argument("--pool-only", action="store_true")
    arguments = parser.parse_args()
    print(json.dumps(run(arguments)))


if __name__ == "__main__":
    main()
