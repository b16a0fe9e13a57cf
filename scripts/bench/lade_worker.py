"""The authors' lookahead decoding (``lade``) in an interpreter of its own, asked by JSON lines.

    PYTHON -I lade_worker.py MODEL THREADS

MODEL is a folder with a Llama in float32. The first line on standard output says which versions run; then one request
per line of standard input gets one answer: the generated tokens, the seconds, the steps. A request without ``window``
is transformers' own greedy decoding, on the same weights in memory.

It imports nothing of Forelook: ``lade`` needs a transformers that Forelook cannot use.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import random
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import lade  # type: ignore[import-not-found,unused-ignore]
import torch
import transformers
from lade.models.modeling_llama import LlamaForCausalLM  # type: ignore[import-not-found,unused-ignore]

_SEED = 10  # of the first window's tokens, which are chosen from the prompt
_MODE = "USE_LADE"


class Watch(transformers.StoppingCriteria):  # type: ignore[misc,unused-ignore]
    """Called after a step, unless the output has reached its length: ends it at a stop token, and keeps the time.

    Args:
        num_prompt_tokens: of the request.
        stop_ids: what ends the output.
    """

    def __init__(self, num_prompt_tokens: int, stop_ids: set[int]) -> None:
        self.times: list[float] = []
        self._place = num_prompt_tokens
        self._stop_ids = stop_ids

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> bool:  # type: ignore[override,unused-ignore]
        del scores, kwargs
        self.times.append(time.perf_counter())
        new = input_ids[0, self._place :].tolist()
        self._place = input_ids.shape[1]
        return not self._stop_ids.isdisjoint(new)


def load(path: str) -> tuple[Any, Any]:
    """Return the authors' model, and transformers' with the same tensors.

    The authors' has plain attention, the only kind that their code has on a CPU; transformers' has what it chooses.
    """
    theirs = LlamaForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
    plain = transformers.LlamaForCausalLM.from_pretrained(path).eval()
    plain.load_state_dict(theirs.state_dict(), strict=False, assign=True)
    plain.tie_weights()
    lade.augment_generate()
    return theirs, plain


def versions() -> dict[str, str]:
    """What runs here; the hash tells apart the states of a package whose version stays the same."""
    source = b"".join(path.read_bytes() for path in sorted(Path(lade.__file__).parent.rglob("*.py")))
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("lade", "torch", "transformers")},
        "lade_sha256": hashlib.sha256(source).hexdigest()[:16],
    }


def answer(request: dict[str, Any], theirs: Any, plain: Any) -> dict[str, Any]:
    """Generate greedily for one request."""
    stop_ids = set(request["stop_ids"])
    ids = torch.tensor([request["prompt_ids"]])
    watch = Watch(ids.shape[1], stop_ids)
    window = request.get("window")
    model = plain if window is None else theirs
    os.environ[_MODE] = "0" if window is None else "1"
    if window is not None:
        size, ngram, candidates = window
        lade.config_lade(
            WINDOW_SIZE=size,
            LEVEL=ngram,
            GUESS_SET_SIZE=candidates,
            POOL_FROM_PROMPT=bool(request["prompt_as_reference"]),
            DEBUG=0,
        )
    random.seed(_SEED)
    forwards: list[None] = []
    counter = model.lm_head.register_forward_hook(lambda *_: forwards.append(None))
    started = time.perf_counter()
    with torch.inference_mode():
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=request["max_new_tokens"],
            do_sample=False,
            stopping_criteria=transformers.StoppingCriteriaList([watch]),
        )
    total_s = time.perf_counter() - started
    counter.remove()
    new = output[0, ids.shape[1] :].tolist()
    ends = [place for place, token in enumerate(new) if token in stop_ids]
    return {
        "token_ids": new[: min([len(new), *ends])],
        "total_s": total_s,
        "first_s": watch.times[0] - started if watch.times else total_s,
        "num_steps": len(forwards),
    }


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    path, threads = sys.argv[1:3]
    torch.set_num_threads(int(threads))
    theirs, plain = load(path)
    for model in (theirs, plain):
        model.generation_config.eos_token_id = None  # the authors' code knows one such token; the watch knows all
        model.generation_config.pad_token_id = None
    print(json.dumps({"versions": versions(), "threads": torch.get_num_threads()}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), theirs, plain)), file=answers, flush=True)


if __name__ == "__main__":
    main()
