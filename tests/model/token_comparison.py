"""The tokens that prompts get, against the tokenizer's own, over source files.

``python -m tests.model.token_comparison FOLDER TOKENIZER...`` compares about a million characters of the files below
the folder; a tokenizer is a ``tokenizer.json`` or a GGUF file. ``test_tokenizer_borders`` compares a few.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from forelook.completion.prompt.prompt import LineEncoder
from forelook.languages import language_for, language_id_of
from forelook.model.gguf.header import read_gguf
from forelook.model.gguf.vocabulary import tokenizer_pipeline
from forelook.model.tokenizer import Border, CodeTokenizer

NUM_CHARS = 1_000_000
MAX_FILE_CHARS = 20_000  # of one file, so that many count
_NUM_WHOLE_CHARS = 100_000  # where every text is tokenized whole, there is little to compare


def tokenizer_at(path: Path) -> CodeTokenizer:
    """The tokenizer of a ``tokenizer.json`` or of a GGUF file."""
    if path.suffix != ".gguf":
        return CodeTokenizer.from_file(path)
    return CodeTokenizer(tokenizer_pipeline(read_gguf(path)), str(path), "")


def sources(folder: Path) -> list[str]:
    """Source files of all languages, in a random order that is always the same."""
    paths = [
        path for path in sorted(folder.rglob("*")) if language_for(language_id_of(path.suffix)).grammar is not None
    ]
    random.Random(6).shuffle(paths)
    texts: list[str] = []
    num_chars = 0
    for path in paths:
        try:
            text = path.read_text("utf-8")[:MAX_FILE_CHARS]
        except (OSError, UnicodeDecodeError):
            continue
        texts.append(text)
        num_chars += len(text)
        if num_chars >= NUM_CHARS:
            break
    return texts


def different(tokenizer: CodeTokenizer, texts: list[str]) -> tuple[int, int]:
    """How many texts get other tokens than the tokenizer's own, and how many tokens were compared."""
    encoder, num_different, num_tokens = LineEncoder(tokenizer), 0, 0
    for text in texts:
        whole, start = tokenizer.encode(text), tokenizer.encode_prefix(text)
        num_different += encoder.encode(text) != whole or encoder.encode(text, starts_document=True) != start
        num_tokens += len(whole)
    return num_different, num_tokens


def main() -> None:
    """Compare each tokenizer; the last line is one JSON object, and the exit status says whether all are equal."""
    texts = sources(Path(sys.argv[1]))
    rows = []
    for name in sys.argv[2:]:
        tokenizer = tokenizer_at(Path(name))
        border = tokenizer.splitter.border
        chosen = texts if border is not Border.NOWHERE else texts[: max(1, len(texts) * _NUM_WHOLE_CHARS // NUM_CHARS)]
        num_different, num_tokens = different(tokenizer, chosen)
        label = "/".join(Path(name).parts[-4:])
        row = {"tokenizer": label, "border": border.name, "files": len(chosen), "chars": sum(map(len, chosen))}
        rows.append({**row, "tokens": num_tokens, "different": num_different})
        print(rows[-1], flush=True)
    print(json.dumps({"benchmark": "token-comparison", "tokenizers": rows}))
    sys.exit(any(row["different"] for row in rows))


if __name__ == "__main__":
    main()
