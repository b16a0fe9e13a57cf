"""What 8 and 4 bits cost: bits per byte of text in each format of a model's weights, through the product's own forward.

    python scripts/eval_formats.py [--model FOLDER_OR_FILE] [--formats float32 int8 int4] [--bytes 24000] [--files …]

The text is Python's standard library unless files are given, in pieces of about 1,200 bytes; all formats see the same.
It runs in tails of 16 tokens, as a decode step would, so the numbers are those that drafts are verified with. Besides
the loss it counts the tokens whose most probable successor differs from the first format's. The last line is one JSON
object.
"""

from __future__ import annotations

import math
import sysconfig
from pathlib import Path

import torch
from bench.arguments import benchmark_parser
from bench.results import print_result, public_name
from forelook.decoding.layout import causal_layout
from forelook.model.forward.quantized import STEP_ROWS
from forelook.model.loading import LoadedModel, load_model

PIECE_BYTES = 1200


def pieces(files: list[Path], num_bytes: int) -> list[str]:
    """Return pieces from the middle of evenly spaced files."""
    count = max(1, num_bytes // PIECE_BYTES)
    found = sorted(path for path in files if path.stat().st_size > 2 * PIECE_BYTES)
    chosen = found[:: max(1, len(found) // count)][:count]
    texts = []
    for path in chosen:
        text = path.read_text(encoding="utf-8", errors="replace")
        start = text.find("\n", len(text) // 2 - PIECE_BYTES // 2) + 1
        texts.append(text[start : start + PIECE_BYTES])
    return texts


def score(model: LoadedModel, texts: list[str]) -> tuple[float, torch.Tensor]:
    """Return the bits per byte of texts, and the most probable successor of every token."""
    sequence = model.new_sequence(PIECE_BYTES + 2)
    first = model.config.bos_token_id or min(model.stop_token_ids)
    nats, num_bytes, choices = 0.0, 0, []
    for text in texts:
        ids = [first, *model.tokenizer.encode(text)]
        sequence.truncate(0)
        for start in range(0, len(ids) - 1, STEP_ROWS):
            tail = ids[start : start + STEP_ROWS]
            targets = torch.tensor(ids[start + 1 : start + len(tail) + 1])
            logits = sequence.forward(causal_layout(tail, start, last_logits_only=False))[: len(targets)]
            nats -= float(logits.log_softmax(-1).gather(1, targets[:, None]).sum())
            choices.append(logits.argmax(-1))
            sequence.commit(range(len(tail)))
        num_bytes += len(text.encode())
    return nats / math.log(2) / num_bytes, torch.cat(choices)


def main() -> None:
    parser = benchmark_parser(__doc__, "model", "threads")
    parser.add_argument("--formats", nargs="+", default=["float32", "int8", "int4"], help="(default: %(default)s)")
    parser.add_argument("--bytes", type=int, default=24_000, help="of text (default: %(default)s)")
    parser.add_argument("--files", type=Path, nargs="+", help="text to score (default: the standard library)")
    options = parser.parse_args()
    library = Path(sysconfig.get_paths()["stdlib"])
    texts = pieces(options.files or list(library.glob("*.py")), options.bytes)
    rows = []
    reference = torch.empty(0)
    for name in options.formats:
        model = load_model(options.model, device="cpu", dtype=name)
        bits, choices = score(model, texts)
        reference = choices if not rows else reference
        rows.append(
            {
                "format": name,
                "bits_per_byte": round(bits, 4),
                "other_choices": round(float((choices != reference).double().mean()), 4),
                "mib": round(model.weights.nbytes / 2**20),
            }
        )
        change = 100 * (bits / rows[0]["bits_per_byte"] - 1)
        print(
            f"{public_name(options.model or 'starter')} {name}: {bits:.4f} bits per byte ({change:+.2f}%), "
            f"{100 * rows[-1]['other_choices']:.1f}% other choices, {rows[-1]['mib']} MiB",
            flush=True,
        )
    print_result("formats", {"model": public_name(options.model or "starter"), "rows": rows}, options.json)


if __name__ == "__main__":
    main()
