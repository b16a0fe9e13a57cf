"""Infilling accuracy on held-out files, without generating: is every next token of the true middle the most likely one?

Greedy decoding writes the true middle exactly if it is, so one forward per question is enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from forelook.model.token_healing import TokenHealer
from torch import Tensor

from training.corpus import Shelf
from training.network import Network
from training.samples import Sample, SampleMaker, SampleMix, passes
from training.sentinels import Vocabulary

_CURSORS = {"empty line": 1.0, "indented line": 1.0, "mid line": 1.0}


def held_out_questions(
    shelves: Mapping[str, Shelf], vocabulary: Vocabulary, healer: TokenHealer, mix: SampleMix, count: int
) -> list[Sample]:
    """Cursors on single lines of held-out files, suffix first; always the same ones for one corpus.

    Args:
        shelves: held-out shelves.
        vocabulary: of the model.
        healer: its token healing.
        mix: of the run; languages and lengths are taken from it.
        count: of questions.
    """
    if not count or not any(len(shelf) and mix.languages.get(name) for name, shelf in shelves.items()):
        return []
    asked = SampleMix(
        mix.languages,
        plain=0.0,
        prefix_first=0.0,
        context=0.0,
        long=0.0,
        min_tokens=mix.min_tokens,
        max_tokens=mix.max_tokens,
        cursors=_CURSORS,
    )
    maker = SampleMaker(shelves, vocabulary, healer, asked, seed=0)
    return [maker.make(number) for number in range(count)]


def answer_states(
    network: Network, samples: Sequence[Sample], tokens_per_pass: int
) -> Iterator[tuple[Sample, Tensor, list[int]]]:
    """Yield each sample with the hidden states that predict its answer, and the answer."""
    device = network.embed_tokens.device
    for part in passes(samples, tokens_per_pass):
        ids = torch.tensor([token for sample in part for token in sample.ids[:-1]], device=device)
        lengths = [len(sample.ids) - 1 for sample in part]
        for sample, states in zip(part, network.hidden(ids, lengths).split(lengths), strict=True):
            yield sample, states[sample.middle_start - 1 :], sample.ids[sample.middle_start :]


@torch.no_grad()
def answered(
    network: Network, vocabulary: Vocabulary, healer: TokenHealer, questions: Sequence[Sample], tokens_per_pass: int
) -> dict[str, float]:
    """Shares of questions that greedy decoding answers.

    Returns:
        ``truncated``: the first line is the true one. ``raw``: and the model then ends by itself. ``ends``: the second
        as a share of the first. ``nats``: mean loss of an answer's tokens, its end included.
    """
    right = complete = num_tokens = 0
    nats = 0.0
    stops = vocabulary.infill.stop_token_ids
    for sample, states, answer in answer_states(network, questions, tokens_per_pass):
        logits = (states @ network.head.T).float()
        targets = torch.tensor(answer, device=states.device)
        nats += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
        num_tokens += len(answer)
        *choices, last = choices_of(logits, answer, sample.forced, healer)
        if choices != answer[:-1]:
            continue
        right += last in stops or vocabulary.tokenizer.token_bytes(last).startswith(b"\n")
        complete += last in stops
    count = max(1, len(questions))
    return {
        "questions": len(questions),
        "truncated": round(right / count, 4),
        "raw": round(complete / count, 4),
        "ends": round(complete / right, 4) if right else 0.0,
        "nats": round(nats / max(1, num_tokens), 4),
    }


def num_forced(answer: Sequence[int], forced: bytes, healer: TokenHealer) -> int:
    """How many of an answer's tokens are constrained, because the prompt ends before its first bytes."""
    if not forced:
        return 0
    constraint = healer.constraint(forced)
    return next(place for place in range(len(answer)) if constraint.allowed_ids(answer[:place]) is None)


def choices_of(logits: Tensor, answer: Sequence[int], forced: bytes, healer: TokenHealer) -> list[int]:
    """What greedy decoding chooses after each token of the true answer."""
    choices: list[int] = logits.argmax(-1).tolist()
    for place in range(num_forced(answer, forced, healer)):
        allowed = healer.constraint(forced).allowed_ids(answer[:place])
        assert allowed is not None
        masked = torch.full_like(logits[place], -math.inf)
        places = torch.from_numpy(allowed).to(logits.device)
        masked[places] = logits[place][places]
        choices[place] = int(masked.argmax())
    return choices
