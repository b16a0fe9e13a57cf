"""The latency benchmark's baseline: ``forelook serve`` on transformers' model and cache, greedy.

Same prompts, token healing, stop rules, limits and clean-up; but one token per forward, and every prompt recomputed
in one forward, as ``generate`` does. Accepts the options of ``forelook serve``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import torch
import transformers
from bench.models import STARTER
from bench.transformers_model import transformers_model
from forelook.commands import cli
from forelook.completion.completer import Completer
from forelook.completion.engine import model_state
from forelook.config import EngineConfig
from forelook.decoding.autoregressive import autoregressive
from forelook.decoding.layout import StepLayout
from forelook.decoding.request import DecodeRequest
from forelook.model.loading import STARTER_MODEL_PATH, LoadedModel


class HfSequence:
    """transformers' model and cache behind the decoding protocol, for causal tails."""

    def __init__(self, model: transformers.PreTrainedModel, max_positions: int) -> None:
        self._model = model
        self._cache = transformers.DynamicCache(config=model.config)
        self.cached_ids: list[int] = []
        self.max_positions = max_positions
        self.vocab_size = int(model.config.vocab_size)
        self.tail_sizes = None
        self.nbytes = 0
        self._tail: list[int] = []

    @torch.inference_mode()
    def forward(self, layout: StepLayout) -> torch.Tensor:
        self._tail = layout.token_ids.tolist()
        ids = torch.tensor([self._tail], device=self._model.device)
        out = self._model(input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        return out.logits[0].float()

    def commit(self, rows: Iterable[int]) -> None:
        self.cached_ids += [self._tail[row] for row in rows]
        assert len(self.cached_ids) == self._cache.get_seq_length(), "a causal tail is committed whole"

    def truncate(self, length: int) -> None:
        if length < len(self.cached_ids):
            self._cache.crop(length - len(self.cached_ids))
            del self.cached_ids[length:]


class HfModel:
    """A loaded checkpoint whose sequences are transformers'."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        path = str(STARTER_MODEL_PATH) if loaded.name == STARTER else loaded.name
        self._model = transformers_model(path, loaded.dtype, loaded.device)

    def __getattr__(self, name: str) -> object:
        return getattr(self._loaded, name)

    def new_sequence(self, max_positions: int | None = None) -> HfSequence:
        return HfSequence(self._model, max_positions or self._loaded.max_positions)


class HfCompleter(Completer):
    """Every prompt from its first token, as ``generate`` does; all threads at every step."""

    def __init__(self, model: LoadedModel, settings: EngineConfig, **_drafting: object) -> None:
        super().__init__(HfModel(model), settings)  # type: ignore[arg-type]

    def prefill(self, *_request: object) -> tuple[int, int]:
        """Warm nothing: it would be forgotten before it is of use, and a request would wait for it."""
        return 0, 0

    def _steps(self, prompt, _hints, limits, sampling, stats, **_scoring):  # type: ignore[no-untyped-def]
        """The plain loop, the prompt in one forward."""
        request = DecodeRequest(prompt.ids, limits, sampling, prompt.healing.constraint, prefill_chunk=1 << 20)
        return autoregressive(request, self._model.new_sequence(self.num_positions), stats)


def main() -> int:
    # The engine makes its completer by this name; the baseline must be the command in everything else.
    model_state.Completer = HfCompleter  # type: ignore[misc,assignment]
    return cli.main(["serve", "--autoregressive", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
