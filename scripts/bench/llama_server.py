"""llama.cpp as a method: its own server on loopback, on the same weights in a format of its own, ended afterwards."""

from __future__ import annotations

import contextlib
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from forelook.model.gguf.files import read_parts

from bench.http_servers import Connection, Server, llama_server
from bench.methods import Run

PRECISIONS = {"bf16": "BF16", "q8_0": "Q8_0", "q4_1": "Q4_1"}
"""Formats of weights by the end of a method's name, as ``llama-quantize`` spells them."""
SPECULATION = {"ngram_mod": "ngram-mod", "ngram_simple": "ngram-simple", "ngram_cache": "ngram-cache"}
"""Values of the server's ``--spec-type`` by the end of a method's name."""

_PLAIN_STEPS = 16  # whose mean is the time of a step of one token


class LlamaServerError(RuntimeError):
    """The quantizer failed, or the server did something else than it was asked."""


def quantized(model: Path, precision: str, server: Path, folder: Path) -> Path:
    """Return a GGUF file with the model's weights in a format: the model's own, or one that ``llama-quantize`` makes.

    Args:
        model: a GGUF file; what it lost when it was quantized stays lost, for every format.
        precision: key of ``PRECISIONS``.
        server: the server's executable, next to which the quantizer is looked for.
        folder: where to write it.

    Raises:
        LlamaServerError: there is no quantizer, or it failed.
    """
    sizes = Counter[str]()
    for file in read_parts(model):
        for place in file.tensors.values():
            sizes[place.type.name] += place.num_bytes
    if sizes.most_common(1)[0][0] == PRECISIONS[precision]:
        return model
    tool, target = server.parent / "llama-quantize", folder / f"{precision}.gguf"
    if target.exists():
        return target
    if not tool.is_file():
        raise LlamaServerError(f"{tool} is missing; build llama-quantize next to llama-server")
    command = [str(tool), "--allow-requantize", str(model), str(target), PRECISIONS[precision]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LlamaServerError(f"llama-quantize to {precision} failed: {(done.stdout + done.stderr)[-500:]}")
    return target


class LlamaServer:
    """A running server of one model with one slot; its own clock times every request, without HTTP.

    Args:
        server: listens on loopback.
    """

    def __init__(self, server: Server) -> None:
        self._connection = Connection(server)

    def run(self, prompt_ids: Sequence[int], max_new_tokens: int) -> Run:
        """Generate greedily from an empty cache."""
        answer = self._complete(prompt_ids, max_new_tokens, reuse=False)
        timings = answer["timings"]
        first_s = timings["prompt_ms"] / 1e3
        num_steps = timings["predicted_n"] - timings.get("draft_n_accepted", 0)
        return Run(tuple(answer["tokens"]), first_s + timings["predicted_ms"] / 1e3, first_s, num_steps)

    def prefill_s(self, prompt_ids: Sequence[int]) -> float:
        """Return the seconds of a prompt from an empty cache."""
        return float(self._complete(prompt_ids, 1, reuse=False)["timings"]["prompt_ms"]) / 1e3

    def step_s(self, prefix: Sequence[int], tail: Sequence[int]) -> float:
        """Return the seconds of a forward of ``tail`` after a cached prefix; the logits of its last row only.

        Of one token it is the mean of several plain decode steps.
        """
        if len(tail) == 1:
            timings = self._complete(prefix, _PLAIN_STEPS + 1, reuse=True, ignore_eos=True)["timings"]
            return float(timings["predicted_ms"]) / 1e3 / (timings["predicted_n"] - 1)
        self._complete(prefix, 1, reuse=True)
        timings = self._complete([*prefix, *tail], 1, reuse=True)["timings"]
        if timings["prompt_n"] != len(tail):
            raise LlamaServerError(f"the server ran {timings['prompt_n']} tokens in place of {len(tail)}")
        return float(timings["prompt_ms"]) / 1e3

    def _complete(
        self, prompt_ids: Sequence[int], max_new_tokens: int, *, reuse: bool, ignore_eos: bool = False
    ) -> Mapping[str, Any]:
        body = {
            "prompt": list(prompt_ids),
            "n_predict": max_new_tokens,
            "samplers": ["top_k"],
            "top_k": 1,
            "temperature": 0.0,
            "cache_prompt": reuse,
            "ignore_eos": ignore_eos,
            "return_tokens": True,
        }
        return self._connection.post("/completion", body)[0]


@contextlib.contextmanager
def serving(
    server: Path, model: Path, *, num_threads: int, max_positions: int, spec_type: str | None = None
) -> Iterator[LlamaServer]:
    """Start a server on a free port of loopback, wait until it answers, and end it afterwards.

    Args:
        server: its executable.
        model: a GGUF file.
        num_threads: of its computations.
        max_positions: of its only slot.
        spec_type: how it speculates; ``None``: not at all.

    Raises:
        RuntimeError: it ended, or did not answer in time; the message holds the end of its log.
    """
    options: dict[str, object] = {"-t": num_threads, "-tb": num_threads, "-c": max_positions, "-cram": 0}
    if spec_type is not None:
        options["--spec-type"] = spec_type
    with llama_server(server, model, [str(part) for option in options.items() for part in option]) as started:
        yield LlamaServer(started)
