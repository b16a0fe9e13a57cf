"""How good are the drafts on real edits? Replays a repository's history against an oracle, with no model in the way.

For each of the last commits the workspace stands as before the commit. Every run of added lines is then "generated":
the cursor stands at the end of the line above, and an oracle names the true next token. Each method drafts at most
``--budget`` tokens a step; the longest drafted path the oracle agrees with is accepted, plus the oracle's next token,
exactly as a decode step would. The added lines are in no index; what a method may learn from them is its own output so
far. All methods see the same text:

- ``prompt_lookup``: the rule of transformers' prompt lookup over prompt and output (first earlier occurrence of the
  last n tokens, longest n first), all its tokens in one chain.
- ``published``: lookahead decoding's n-gram pool of one call, filled from prompt and output, keyed by one token.
- ``pool_cold``: Forelook's pool with the edited file alone.
- ``pool_warm``: Forelook's pool with the whole workspace.
- ``pool_session``: the same, and what the earlier edits of the same commit put out has been accepted, as the product
  learns it. It alone knows added lines of other edits, so it stands beside the contest and not in it.

The prompt is an editor's: text after the cursor, then text before it, as much of each as fits ``--prompt-tokens``.

Lines that an edit replaces can be treated in two ways, and both are measured: ``methods`` leaves them in the file,
right after the cursor, for every method; ``methods_replaced_deleted`` takes them out of the prompt and of the edited
file for every method, as if the user had deleted them before typing. ``insertions`` are the edits that replace nothing.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
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
from forelook.decoding.drafting.budget import CostCurve
from forelook.decoding.drafting.calibration import AcceptanceCalibration
from forelook.decoding.drafting.draft import DraftSource
from forelook.decoding.drafting.tree import CandidateTree, DraftTree
from forelook.decoding.lookahead.published_pool import PublishedPool
from forelook.decoding.ngrams.index import BORDER
from forelook.decoding.ngrams.pool import NgramPool
from forelook.privacy.rules import content_reason, is_generated_name, is_secret_path
from forelook.workspace.pool import ACCEPTED_WEIGHT
from forelook.workspace.source import WorkspaceSource
from tokenizers import Tokenizer

CODE_SUFFIXES = (
    *(".py", ".pyi", ".js", ".mjs", ".cjs", ".jsx", ".ts", ".tsx", ".go", ".rs", ".java", ".kt", ".scala", ".c", ".h"),
    *(".cc", ".cpp", ".hpp", ".cs", ".rb", ".php", ".swift", ".lua", ".sh", ".el"),
)
TEXT_SUFFIXES = (
    *CODE_SUFFIXES,
    *(".md", ".rst", ".txt", ".toml", ".cfg", ".ini", ".yml", ".yaml", ".json", ".html", ".css", ".vim"),
)
TOKENIZER_PATH = Path(__file__).resolve().parents[1] / "backend/forelook/starter_model/tokenizer.json"
SEPARATOR = -2
"""Stands between the two halves of a prompt, as a sentinel would; equal to no token."""
ACCEPTED = "\0accepted"
"""Key of what the edits of a commit have put out so far."""
FLOOR = 0.004
"""Paths less probable than this are not drafted; a step costs the same whatever it carries."""


@dataclass(frozen=True)
class Edit:
    """One run of added lines.

    Attributes:
        path: the edited file.
        before: tokens of the file before the cursor.
        added: tokens to generate.
        after: tokens of the file after the cursor, as before the commit.
        after_deleted: the same without the lines that the edit replaces.
        replaces: whether there are such lines.
    """

    path: str
    before: list[int]
    added: list[int]
    after: list[int]
    after_deleted: list[int]
    replaces: bool


@dataclass
class Tally:
    """Counts of one method."""

    num_tokens: int = 0
    num_steps: int = 0
    num_drafted: int = 0
    num_accepted: int = 0
    seconds: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    @property
    def tokens_per_step(self) -> float:
        return self.num_tokens / max(1, self.num_steps)

    def summary(self) -> dict[str, float]:
        return {
            "tokens_per_step": round(self.tokens_per_step, 4),
            "accepted_share": round(self.num_accepted / max(1, self.num_drafted), 4),
            "num_drafted": self.num_drafted,
            "num_accepted": self.num_accepted,
            "draft_us_per_step": round(1e6 * self.seconds / max(1, self.num_steps)),
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
        assert self._batch.stdin is not None
        assert self._batch.stdout is not None
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


def edits_of(
    repository: Repository, encoder: Encoder, parent: str, commit: str, tree: dict[str, str], limit: int
) -> list[Edit]:
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
        # A line break belongs to what follows it, in every token of this tokenizer.
        break_before = "\n" if cut else ""
        added_ids = encoder(break_before + "\n".join(added))[:limit]
        after, after_deleted = (encoder(break_before + "\n".join(lines[place:])) for place in (cut, cut + count))
        edits.append(Edit(path, encoder("\n".join(lines[:cut])), added_ids, after, after_deleted, count > 0))
    return edits


# -- methods -----------------------------------------------------------------------------------------------------------


class Method(Protocol):
    """Drafts for one edit."""

    def draft(self) -> DraftTree: ...

    def learn(self, accepted: list[int]) -> None: ...


def prompt_of(edit: Edit, after: list[int], num_tokens: int) -> list[int]:
    """What an editor's prompt would hold: suffix, then prefix, which gets three quarters where both are long."""
    for_before = max(num_tokens * 3 // 4, num_tokens - len(after))
    before = edit.before[-for_before:]
    return [*after[: max(0, num_tokens - len(before))], SEPARATOR, *before]


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
        candidates = self._candidates = CandidateTree(self._calibration, self._budget, FLOOR)
        for source in self._sources:
            for draft in source.propose(self._context, max_candidates=self._budget, max_length=self._budget):
                candidates.add(draft)
        # The oracle's steps cost the same whatever they carry, so every draft that is allowed pays.
        return candidates.select(CostCurve.of([1.0] * (self._budget + 1)), self._budget).tree

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


METHODS = ("prompt_lookup", "published", "pool_cold", "pool_warm", "pool_session")


@dataclass
class Contest:
    """All methods on the same edits, with replaced lines treated in one way."""

    deletes_replaced: bool
    calibrations: dict[str, AcceptanceCalibration] = field(
        default_factory=lambda: {name: AcceptanceCalibration() for name in METHODS}
    )
    replacing: dict[str, Tally] = field(default_factory=lambda: {name: Tally() for name in METHODS})
    inserting: dict[str, Tally] = field(default_factory=lambda: {name: Tally() for name in METHODS})

    def run(self, edit: Edit, pools: dict[str, NgramPool], arguments: argparse.Namespace) -> None:
        after = edit.after_deleted if self.deletes_replaced else edit.after
        prompt = prompt_of(edit, after, arguments.prompt_tokens)
        budget, tail = arguments.budget, np.array(after, dtype=np.int32)
        for name in METHODS:
            if name == "prompt_lookup":
                room = len(edit.added) + budget
                method: Method = PromptLookup(prompt, arguments.lookup_ngram, budget, room)
            elif name == "published":
                method = Published(prompt, arguments.published_n, arguments.published_g, budget)
            else:
                source = WorkspaceSource(pools.get(name) or NgramPool(), edit.path, tail)
                method = PoolMethod([source], edit.before, self.calibrations[name], budget)
            replay(method, edit.added, (self.replacing if edit.replaces else self.inserting)[name])

    def summary(self) -> dict[str, dict[str, float]]:
        found = {name: (self.replacing[name] + self.inserting[name]).summary() for name in METHODS}
        for name, summary in found.items():
            summary["insertions_tokens_per_step"] = round(self.inserting[name].tokens_per_step, 4)
        return found


def run(arguments: argparse.Namespace) -> dict[str, object]:
    """Replay the last commits, the oldest of them first."""
    repository = Repository(arguments.repo)
    encoder = Encoder()
    chosen = list(itertools.islice(repository.commits(), arguments.commits))
    contests = (Contest(deletes_replaced=False), Contest(deletes_replaced=True))
    pools = {name: NgramPool(1 << 22) for name in ("pool_warm", "pool_session")}
    held: dict[str, dict[str, str]] = {name: {} for name in pools}
    num_edits = num_tokens = 0
    for number, (commit, parent) in enumerate(reversed(chosen), 1):
        tree = repository.tree(parent)
        edits = edits_of(repository, encoder, parent, commit, tree, arguments.edit_tokens)
        if edits:
            for name, pool in pools.items():
                sync(pool, held[name], tree, repository, encoder)
            session = pools["pool_session"]
            session.set_document(ACCEPTED, [])
            session.set_weight(ACCEPTED, ACCEPTED_WEIGHT)
        for edit in edits:
            num_edits += 1
            num_tokens += len(edit.added)
            for contest in contests:
                contest.run(edit, pools, arguments)
            num_accepted = session.num_tokens_of(ACCEPTED)
            session.replace_tokens(ACCEPTED, num_accepted, num_accepted, [BORDER, *edit.added])
        if number % 20 == 0:
            print(f"{number}/{len(chosen)} commits, {num_edits} edits", file=sys.stderr, flush=True)
    repository.close()
    methods, deleted = (contest.summary() for contest in contests)
    return {
        "repo": arguments.name or arguments.repo.resolve().name,
        "num_edits": num_edits,
        "num_tokens": num_tokens,
        "num_pool_tokens": pools["pool_warm"].num_tokens,
        "methods": methods,
        "methods_replaced_deleted": deleted,
    }


def plot(result: dict[str, object], path: Path) -> None:
    """Tokens per step, and drafts accepted, by method."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6))
    kinds = {"methods": "replaced lines kept", "methods_replaced_deleted": "replaced lines deleted"}
    for axis, measure in zip(axes, ("tokens_per_step", "accepted_share"), strict=True):
        for offset, (kind, label) in enumerate(kinds.items()):
            methods = result[kind]
            assert isinstance(methods, dict)
            places = [number + 0.4 * offset for number in range(len(methods))]
            bars = axis.bar(places, [methods[name][measure] for name in METHODS], width=0.38, label=label)
            axis.bar_label(bars, fmt="%.2f", fontsize=8)
        axis.set_xticks([number + 0.2 for number in range(len(METHODS))], METHODS, fontsize=8)
        axis.set_title(f"{result['repo']}: {measure.replace('_', ' ')}")
        axis.legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", type=Path, required=True, help="a git repository")
    parser.add_argument("--name", help="what to call it in the result; default: its folder's name")
    parser.add_argument("--commits", type=int, default=100, help="how many, the newest first")
    parser.add_argument("--budget", type=int, default=15, help="most draft tokens a step")
    parser.add_argument("--prompt-tokens", type=int, default=4096)
    parser.add_argument("--edit-tokens", type=int, default=256, help="most tokens generated of one edit")
    parser.add_argument("--lookup-ngram", type=int, default=2, help="max_matching_ngram_size; 2 is the default there")
    parser.add_argument("--published-n", type=int, default=5, help="N")
    parser.add_argument("--published-g", type=int, default=15, help="G; the budget cuts what does not fit")
    parser.add_argument("--out", type=Path, help="where to write the plot, as PNG")
    arguments = parser.parse_args()
    result = run(arguments)
    if arguments.out is not None:
        plot(result, arguments.out)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
