"""Documents and cursors for requests over HTTP: this repository's own sources, in the shape in which llama.vim asks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.results import REPOSITORY

LINES_BEFORE, LINES_AFTER = 40, 16  # of a prompt that fits the starter model's context
LLAMA_VIM_LINES = (256, 64)  # these and the limits below are llama.vim's defaults
_LLAMA_VIM_FIELDS = ("content", "timings/prompt_n", "timings/predicted_n", "truncated", "tokens_cached")
NUM_KEYS = 8


@dataclass(frozen=True, slots=True)
class Place:
    """A cursor in a document: text before its line, before it in its line, typed next, and after its line."""

    before: str
    line: str
    typed: str
    after: str

    def after_key(self, number: int) -> Place:
        """The place after that many typed characters."""
        return replace(self, line=self.line + self.typed[:number], typed=self.typed[number:])

    def unique(self, mark: str) -> Place:
        """The same with a comment first and last, so that no cache of an earlier prompt serves it."""
        return replace(self, before=f"# {mark}\n{self.before}", after=f"{self.after}# {mark}\n")

    @property
    def text(self) -> str:
        """The document."""
        return f"{self.before}{self.line}\n{self.after}"

    @property
    def offset(self) -> int:
        """The cursor, in code points."""
        return len(self.before) + len(self.line)

    def infill(self, num_tokens: int, **more: Any) -> dict[str, Any]:
        """The body of a request to `/infill`, decoded greedily."""
        return {
            "input_prefix": self.before,
            "input_suffix": f"\n{self.after}",
            "input_extra": [],
            "prompt": self.line,
            "n_predict": num_tokens,
            "temperature": 0.0,
            "top_k": 1,
            "samplers": ["top_k"],
            "cache_prompt": True,
            "stream": False,
            **more,
        }

    def llama_vim(self, *, warms: bool = False) -> dict[str, Any]:
        """The body that llama.vim sends for this cursor, or as warming after it moved; but decoded greedily."""
        if warms:
            return self.infill(0, t_max_prompt_ms=1, t_max_predict_ms=1, response_fields=[""])
        return self.infill(
            128,
            n_indent=len(self.line) - len(self.line.lstrip()),
            t_max_prompt_ms=500,
            t_max_predict_ms=1000,
            response_fields=list(_LLAMA_VIM_FIELDS),
        )


def places(
    limit: int,
    folder: Path = REPOSITORY / "backend",
    seed: int = 20,
    lines: tuple[int, int] = (LINES_BEFORE, LINES_AFTER),
) -> Iterator[Place]:
    """Yield cursors within lines of the Python files of a folder, in an order of the seed, with lines around them."""
    num_before, num_after = lines
    chance = random.Random(seed)
    paths = sorted(folder.rglob("*.py"))
    chance.shuffle(paths)
    found = 0
    while found < limit:
        for path in paths:
            text = path.read_text(encoding="utf-8").splitlines()
            rows = [row for row, line in enumerate(text) if row > 10 and len(line.strip()) > NUM_KEYS + 4]
            if not rows:
                continue
            row = chance.choice(rows)
            line = text[row]
            column = len(line) - len(line.lstrip()) + chance.randrange(2, len(line.strip()) - NUM_KEYS)
            before, after = text[max(0, row - num_before) : row], text[row + 1 : row + 1 + num_after]
            yield Place(
                "".join(f"{one}\n" for one in before),
                line[:column],
                line[column:],
                "".join(f"{one}\n" for one in after),
            )
            found += 1
            if found == limit:
                return
