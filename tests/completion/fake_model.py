"""A model that knows how documents go on, byte by byte, behind the interface of a loaded one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from forelook.decoding.layout import StepLayout
from forelook.decoding.prefill import PrefillSpeed
from forelook.decoding.stats import DecodingStats
from forelook.model.confidence import ConfidenceTable
from forelook.model.infill import InfillFormat
from forelook.model.infill_templates import InfillOrder
from forelook.model.token_healing import TokenHealer

from tests.fakes import ByteTokenizer, ScriptedModel


class FullByteTokenizer(ByteTokenizer):
    """With the byte table that token healing reads."""

    control_names: dict[int, str] = {  # noqa: RUF012
        ByteTokenizer.START: "<s>",
        ByteTokenizer.PREFIX: "<PRE>",
        ByteTokenizer.SUFFIX: "<SUF>",
        ByteTokenizer.MIDDLE: "<MID>",
    }

    @property
    def all_bytes(self) -> tuple[bytes, ...]:
        return tuple(self.token_bytes(token) for token in range(self.vocab_size))


class ScriptedSequence(ScriptedModel):
    nbytes = 1000


class FakeFiles:
    """Files that change when a test says so."""

    has_changed = False

    def changed(self) -> bool:
        return self.has_changed


class SteadySpeed(PrefillSpeed):
    """The speed of a device; forwards of a fake model say nothing about it."""

    def observe(self, stats: DecodingStats) -> None:
        del stats


@dataclass
class FakeModel:
    """Answers with what follows in ``target``; ends the middle where the document differs from it, or at its end.

    Attributes:
        target: the text of the whole document as the model would have it.
        on_forward: called at each forward of any sequence.
        forwards: the layouts of all forwards, in order.
    """

    target: str = ""
    on_forward: Callable[[StepLayout], None] = lambda _layout: None
    max_positions: int = 4096
    window: int | None = None
    name: str = "fake"
    fingerprint: str = "fake-1"
    status_line: str = ""
    weight_format: str = "float32"
    confidence: ConfidenceTable = field(default_factory=ConfidenceTable)
    pairs_path: Path | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    files: FakeFiles = field(default_factory=FakeFiles)
    forwards: list[StepLayout] = field(default_factory=list)
    sequences: list[ScriptedSequence] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tokenizer = FullByteTokenizer()
        self.healer = TokenHealer(self.tokenizer)  # type: ignore[arg-type]
        ids = ByteTokenizer
        self.stop_token_ids = frozenset({ids.END, ids.END_OF_INFILL})
        self.infill = InfillFormat(
            "bytes",
            InfillOrder.SUFFIX_FIRST,
            (ids.START, ids.PREFIX, ids.SUFFIX, "{suffix}", ids.MIDDLE, "{context}", "{prefix}"),
            self.stop_token_ids,
            bos_token_id=ids.START,
        )
        self.infill_formats = (self.infill,)

    def new_sequence(self, max_positions: int | None = None) -> ScriptedSequence:
        sequence = ScriptedSequence(
            self._next_token, max_positions=max_positions or self.max_positions, on_forward=self._forward
        )
        self.sequences.append(sequence)
        return sequence

    def _forward(self, layout: StepLayout) -> None:
        self.forwards.append(layout)
        self.on_forward(layout)

    def _next_token(self, seen: tuple[int, ...]) -> int:
        if ByteTokenizer.MIDDLE not in seen:
            return ByteTokenizer.PAD
        shown = bytes(token for token in seen[seen.index(ByteTokenizer.MIDDLE) + 1 :] if token < 256)
        target = self.target.encode()
        return (
            target[len(shown)] if target.startswith(shown) and len(shown) < len(target) else ByteTokenizer.END_OF_INFILL
        )
