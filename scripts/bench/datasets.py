"""Prompts of the decoding benchmarks: published data sets, and infilling in a folder of source files."""

from __future__ import annotations

import argparse
import ast
import gzip
import json
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forelook.model.loading import LoadedModel

DATASET_FILES = {
    "humaneval": "humaneval/HumanEval.jsonl.gz",
    "classeval": "classeval/ClassEval_data.json",
    "mbpp": "mbpp/mbpp-test-11-110.jsonl",
    "gsm8k": "gsm8k/test.jsonl",
    "mtbench": "mtbench/question.jsonl",
    "humaneval-infilling": "humaneval-infilling/HumanEval-SingleLineInfilling.jsonl.gz",
}
DATASETS = (*DATASET_FILES, "workspace")
_SUFFIX_SHARE = 0.3


@dataclass(frozen=True)
class BenchPrompt:
    """One prompt.

    Attributes:
        name: for reports.
        prompt_ids: input of the model.
        context: the tokens before the cursor.
        documents: content of the workspace pool for this prompt, key → ids; ``None`` for a cold one.
        after: the tokens after the cursor.
    """

    name: str
    prompt_ids: list[int]
    context: list[int]
    documents: dict[str, list[int]] | None = field(default=None, repr=False)
    after: list[int] = field(default_factory=list, repr=False)


def load_prompts(
    dataset: str, model: LoadedModel, *, data_dir: Path, limit: int | None, max_new_tokens: int
) -> list[BenchPrompt]:
    """Prompts of a named data set, of a file (.jsonl, .json, .gz) or of a folder of source files.

    Args:
        dataset: a name of ``DATASETS``, a path, or a hub id such as ``openai/openai_humaneval``.
        model: tokenizer, infill format and positions.
        data_dir: folder of the named data sets.
        limit: maximum number of prompts, spread evenly over the data set.
        max_new_tokens: room to leave after each prompt.
    """
    path = Path(dataset).expanduser()
    if path.is_dir():
        return workspace_prompts(path, model, limit=limit or 100, max_new_tokens=max_new_tokens)
    if dataset in DATASET_FILES:
        rows = list(records(data_dir / DATASET_FILES[dataset]))
    elif path.is_file():
        rows = list(records(path))
    elif "/" in dataset:
        rows = _hub_records(dataset)
    else:
        raise SystemExit(
            f"invalid --dataset: {dataset} (expected one of {', '.join(DATASETS)}, a file, a folder or a hub id)"
        )
    if limit is not None and limit < len(rows):
        rows = [rows[index * len(rows) // limit] for index in range(limit)]
    room = model.max_positions - max_new_tokens
    kind = dataset if dataset in DATASET_FILES else _kind(rows[0])
    return [_prompt(kind, index, record, model, room) for index, record in enumerate(rows)]


def asked_prompts(dataset: str, model: LoadedModel, options: argparse.Namespace) -> list[BenchPrompt]:
    """Prompts as ``--data``, ``--limit`` and ``--max-new-tokens`` ask for them."""
    return load_prompts(
        dataset, model, data_dir=options.data, limit=options.limit, max_new_tokens=options.max_new_tokens
    )


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a JSON or JSON lines file, which may be compressed."""
    if not path.exists():
        raise SystemExit(f"{path} is missing; pass --data with the folder of data sets, or --dataset with a path")
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    if path.name.removesuffix(".gz").endswith(".json"):
        content = json.loads(text)
        yield from content if isinstance(content, list) else [content]
    else:
        yield from (json.loads(line) for line in text.splitlines() if line.strip())


def source_tokens(
    folders: Iterable[Path], encode: Callable[[str], list[int]], num_tokens: int
) -> Iterator[tuple[Path, list[int]]]:
    """Yield Python files as tokens until there are ``num_tokens``; the last file is cut there."""
    for path in (path for folder in folders for path in sorted(folder.rglob("*.py"))):
        if num_tokens <= 0:
            return
        ids = encode(path.read_text("utf-8", "replace"))[:num_tokens]
        num_tokens -= len(ids)
        yield path, ids


def _hub_records(dataset: str) -> list[dict[str, Any]]:
    try:
        import datasets  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise SystemExit(f"--dataset {dataset} needs the datasets package; pip install datasets") from error
    loaded = datasets.load_dataset(dataset)
    return list(loaded["test" if "test" in loaded else next(iter(loaded))])


def _listed(value: Any) -> list[str]:
    """Return a list that some of these files spell as Python source."""
    return [str(item) for item in (ast.literal_eval(value) if isinstance(value, str) else value)]


def _mbpp_text(record: dict[str, Any]) -> str:
    tests = "\n".join(_listed(record["test_list"]))
    return f'"""\n{record["text"]}\n{tests}\n"""\n'


_FORMATS: dict[str, tuple[set[str], Callable[[dict[str, Any]], str] | None]] = {
    "humaneval-infilling": ({"prompt", "suffix", "canonical_solution"}, None),
    "classeval": (
        {"skeleton"},
        lambda record: f"{record['skeleton'].rstrip()}\n\n\n{record['class_constructor'].rstrip()}\n",
    ),
    "gsm8k": ({"question", "answer"}, lambda record: f"Question: {record['question']}\nAnswer:"),
    "mtbench": ({"turns"}, lambda record: f"User: {_listed(record['turns'])[0]}\nAssistant:"),
    "mbpp": ({"text", "test_list"}, _mbpp_text),
    "humaneval": ({"prompt"}, lambda record: str(record["prompt"])),
}
"""Prompt formats: the fields of a record, and its text before the cursor; ``None`` for infilling."""


def _kind(record: dict[str, Any]) -> str:
    """Return the name of the prompt format that fits a record."""
    for kind, (fields, _) in _FORMATS.items():
        if fields <= record.keys():
            return kind
    raise SystemExit(f"no prompt format fits records with the fields {sorted(record)}")


def _prompt(kind: str, index: int, record: dict[str, Any], model: LoadedModel, room: int) -> BenchPrompt:
    name = f"{kind}/{record.get('task_id', record.get('question_id', index))}"
    text_of = _FORMATS[kind][1]
    if text_of is None:
        return _infill_prompt(name, record["prompt"], record["canonical_solution"], record["suffix"], model, room)
    turn = None if kind != "mtbench" else _chat_turn(_listed(record["turns"])[0], model)
    if turn is not None:
        return BenchPrompt(name, turn[-room:], turn[-room:])
    ids = model.tokenizer.encode_prefix(text_of(record))
    start = [] if model.config.bos_token_id is None else [model.config.bos_token_id]
    ids = ids[-(room - len(start)) :]
    return BenchPrompt(name, [*start, *ids], ids)


def _chat_turn(text: str, model: LoadedModel) -> list[int] | None:
    """Return a user's turn in the ChatML format; ``None`` for a model without its tokens."""
    start, end = (model.tokenizer.token_id(token) for token in ("<|im_start|>", "<|im_end|>"))
    if start is None or end is None:
        return None
    user, line, assistant = (model.tokenizer.encode(part) for part in (f"user\n{text}", "\n", "assistant\n"))
    return [start, *user, end, *line, start, *assistant]


def _infill_prompt(
    name: str,
    prefix: str,
    target: str,
    suffix: str,
    model: LoadedModel,
    room: int,
    documents: dict[str, list[int]] | None = None,
) -> BenchPrompt:
    prefix_ids = prefix_tokens(model.tokenizer, prefix, target)
    suffix_ids = model.tokenizer.encode(suffix)
    room -= model.infill.num_sentinels
    suffix_ids = suffix_ids[: max(int(room * _SUFFIX_SHARE), room - len(prefix_ids))]
    prefix_ids = prefix_ids[-(room - len(suffix_ids)) :]
    return BenchPrompt(name, model.infill.build(prefix_ids, suffix_ids), prefix_ids, documents, suffix_ids)


def prefix_tokens(tokenizer: Any, prefix: str, target: str) -> list[int]:
    """Return the tokens of the text before the target, and of the white space that the target begins with.

    A token that reaches into the target's first word is left to the model. Where prompts ended before a line break, a
    model that was trained to end its middles had nothing to write: an editor's cursor is after the indentation.
    """
    ids: list[int] = tokenizer.encode_prefix(prefix + target)
    left = len(target.lstrip().encode())  # bytes that are not in the prompt
    while ids and left > 0:
        left -= len(tokenizer.token_bytes(ids.pop()))
    return ids


def workspace_prompts(
    folder: Path,
    model: LoadedModel,
    *,
    limit: int,
    max_new_tokens: int,
    max_prompt_tokens: int | None = None,
    seed: int = 1,
    only: Collection[str] | None = None,
) -> list[BenchPrompt]:
    """Return infilling prompts at seeded places of a folder's Python files, the rest of the folder as warm documents.

    The target, from a place inside or at the end of a line to the end of one to four lines, is in no document: its
    file is split into the text before and after it, and files that contain the same span are left out. ``only`` names
    the files with places, by default all.
    """
    texts = {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8", errors="replace")
        for path in sorted(folder.rglob("*.py"))
        if not any(part.startswith(".") or part == "node_modules" for part in path.relative_to(folder).parts)
    }
    if not texts:
        raise SystemExit(f"{folder} has no Python file; name another folder")
    encoded = {name: model.tokenizer.encode(text) for name, text in texts.items()}
    chooser = random.Random(seed)
    names = [name for name, text in texts.items() if text.count("\n") > 20 and (only is None or name in only)]
    room = min(model.max_positions - max_new_tokens, max_prompt_tokens or model.max_positions)
    prompts: list[BenchPrompt] = []
    while len(prompts) < limit and names:
        name = chooser.choice(names)
        lines = texts[name].splitlines(keepends=True)
        first = chooser.randrange(5, len(lines) - 5)
        body = lines[first].strip()
        if len(body) < 8:
            continue
        words = [place for place in range(1, len(body)) if body[place] == " "]
        indent = len(lines[first]) - len(lines[first].lstrip())
        column = chooser.choice([indent, *(indent + place for place in words)])
        span_lines = chooser.choice([1, 1, 2, 4])
        prefix = ("".join(lines[:first]) + lines[first][:column]).rstrip()
        suffix = "".join(lines[first + span_lines :])
        target = texts[name][len(prefix) : len(texts[name]) - len(suffix)].strip()
        documents = {
            other: ids
            for other, ids in encoded.items()
            if other != name and (len(target) < 40 or target not in texts[other])
        }
        documents[f"{name}:before"] = model.tokenizer.encode(prefix)
        documents[f"{name}:after"] = model.tokenizer.encode(suffix)
        place = f"{name}:{first + 1}:{column + 1}"
        following = texts[name][len(prefix) : len(texts[name]) - len(suffix)]
        prompts.append(_infill_prompt(place, prefix, following, suffix, model, room, documents))
    return prompts


def has_repetition(token_ids: Sequence[int], size: int = 8, times: int = 3) -> bool:
    """Return whether a run of ``size`` tokens occurs ``times`` times: small models loop, which flatters speculation."""
    counts: dict[tuple[int, ...], int] = {}
    for start in range(len(token_ids) - size + 1):
        ngram = tuple(token_ids[start : start + size])
        counts[ngram] = counts.get(ngram, 0) + 1
        if counts[ngram] >= times:
            return True
    return False
