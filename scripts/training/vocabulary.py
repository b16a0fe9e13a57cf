"""A byte-level BPE vocabulary of a corpus, with the sentinels of infilling as its first ids."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from forelook.errors import ConfigError
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.trainers import BpeTrainer

from training.corpus import Shelf

SENTINELS = ("<s>", "</s>", "<PRE>", "<SUF>", "<MID>", "<EOT>", "<pad>", "<file>")
"""Control tokens by id; ``training.network`` writes the first two and ``<pad>`` into a model's config.json."""

# A line break with the indentation after it, spaces before a line break, a word or signs with the space before
# them, single digits: what people type in one go, so that a cursor is rarely inside a token.
_PIECES = r"\n[ \t]*|[ \t]+(?=\n)| ?[A-Za-z_]+| ?[0-9]| ?[^\sA-Za-z0-9_]+|[ \t]+"


def train_tokenizer(
    shelves: Mapping[str, Shelf], shares: Mapping[str, float], *, vocab_size: int, num_bytes: int
) -> Tokenizer:
    """Learn merges from text in the given mix of languages; the same text gives the same vocabulary.

    Args:
        shelves: training text by language.
        shares: weight of each language; those the corpus lacks are left out.
        vocab_size: entries, sentinels and the 256 bytes included.
        num_bytes: about how much text to learn from; less where there is less.

    Raises:
        ConfigError: ``vocab_size`` has no room for sentinels and bytes.
        ValueError: there is no text in any of the languages.
    """
    least = len(SENTINELS) + 256
    if vocab_size < least:
        raise ConfigError("vocab_size", vocab_size, f"at least {least}: the sentinels and every byte")
    wanted = {name: shares[name] for name, shelf in shelves.items() if shares.get(name) and shelf.num_bytes}
    if not wanted:
        raise ValueError("no text in any language of the mix; check the corpus folder and its report.json")
    tokenizer = Tokenizer(BPE())
    pieces = Split(Regex(_PIECES), behavior="isolated")
    tokenizer.pre_tokenizer = Sequence([pieces, ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SENTINELS),
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    total = sum(wanted.values())
    texts = (
        shelves[name][index].text
        for name, share in sorted(wanted.items())
        for index in shelves[name].scattered(int(num_bytes * share / total))
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def bytes_per_token(tokenizer: Tokenizer, texts: Mapping[str, tuple[str, ...]]) -> dict[str, float]:
    """Return the bytes per token in each language: the quality of a vocabulary."""
    return {
        name: round(
            sum(len(text.encode()) for text in pieces)
            / max(1, sum(len(encoding.ids) for encoding in tokenizer.encode_batch(list(pieces)))),
            3,
        )
        for name, pieces in texts.items()
    }


def save_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    """Write a ``tokenizer.json``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tokenizer.to_str(pretty=False) + "\n", "utf-8")
