"""Prompts that drafting is tuned on: gaps in the files of some folders, and texts that end where these gaps begin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from forelook.model.loading import LoadedModel

from bench.datasets import BenchPrompt, workspace_prompts


def tuning_prompts(
    folders: Sequence[Path], model: LoadedModel, *, limit: int, max_new_tokens: int, max_prompt_tokens: int
) -> Iterator[BenchPrompt]:
    """Yield prompts of each folder, every second one infilling; of both every second one knows the other files.

    Args:
        folders: of Python sources.
        model: its tokenizer and infill format.
        limit: prompts of each folder.
        max_new_tokens: room for the output.
        max_prompt_tokens: longest prompt.
    """
    start = [] if model.config.bos_token_id is None else [model.config.bos_token_id]
    for folder in folders:
        prompts = workspace_prompts(
            folder, model, limit=limit, max_new_tokens=max_new_tokens, max_prompt_tokens=max_prompt_tokens
        )
        for index, prompt in enumerate(prompts):
            ids = prompt.context[len(start) - max_prompt_tokens :]
            plain = replace(prompt, prompt_ids=[*start, *ids], context=ids, after=[])
            chosen = prompt if index % 2 else plain
            yield chosen if index % 4 > 1 else replace(chosen, documents=None)
