"""How sure a model must be of a line for it to be shown unasked: thresholds per language, measured for that model.

They lie in a file next to the weights, or next to an adapter's, and say which weights they were measured with.
``scripts/calibrate_confidence.py`` writes it; docs/confidence.md describes it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from forelook.confidence import Confidence

logger = logging.getLogger(__name__)

FILE_NAME = "confidence.json"
FORMAT = 1
ALL = "*"
"""The name under which a table has the thresholds of languages that it does not list."""

# measured: docs/decisions.md, "When the model is unsure"; between those of two models of 7 M and 135 M parameters
UNMEASURED: Mapping[Confidence, Mapping[str, float]] = {
    Confidence.DEFAULT: {ALL: 0.0015},
    Confidence.STRICT: {ALL: 0.015},
}

_MAX_FILE_BYTES = 1_000_000
_NUM_SAMPLES, _SAMPLE_BYTES = 64, 16_384


@dataclass(frozen=True, slots=True)
class ConfidenceTable:
    """The least probability of a suggestion's first line, per level and language.

    Attributes:
        least: by level, then by the language's name or ``ALL``.
        is_measured: whether it was measured with the model's weights.
    """

    least: Mapping[Confidence, Mapping[str, float]] = field(default_factory=lambda: UNMEASURED)
    is_measured: bool = False

    def least_log_prob(self, level: Confidence | float, language: str) -> float:
        """The logarithm of a threshold; minus infinity allows every line.

        Args:
            level: a level other than ``OFF``, or the threshold itself.
            language: a name in the language table.
        """
        if isinstance(level, Confidence):
            by_language = self.least[level]
            level = by_language.get(language, by_language[ALL])
        return math.log(level) if level > 0 else -math.inf


def read_confidence(path: Path) -> ConfidenceTable:
    """The table of a model or an adapter; one without a file, or with that of other weights, has the unmeasured one.

    Args:
        path: a folder with safetensors, or a GGUF file.
    """
    file = confidence_path(path)
    try:
        if not file.is_file():
            return ConfidenceTable()
        if file.stat().st_size > _MAX_FILE_BYTES:
            raise ValueError(f"more than {_MAX_FILE_BYTES} bytes")
        least, key = _parse(json.loads(file.read_text("utf-8")))
        if key != weights_key(path):
            raise ValueError("measured with other weights")
    except (OSError, ValueError, TypeError, KeyError) as error:
        logger.warning("%s is ignored: %s; scripts/calibrate_confidence.py writes another one", file, error)
        return ConfidenceTable()
    return ConfidenceTable(least, is_measured=True)


def confidence_path(path: Path) -> Path:
    """Where the table of a model lies: in the folder of its safetensors, or next to its GGUF file."""
    return path / FILE_NAME if path.is_dir() else path.with_suffix(f".{FILE_NAME}")


def weights_key(path: Path) -> str:
    """A hash of sizes and samples of the weights, which costs milliseconds whatever their size."""
    digest = hashlib.sha256()
    for file in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
        size = file.stat().st_size
        digest.update(f"{size} ".encode())
        with file.open("rb") as data:
            for number in range(_NUM_SAMPLES):
                data.seek(max(0, size - _SAMPLE_BYTES) * number // (_NUM_SAMPLES - 1))
                digest.update(data.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:24]


def write_confidence(path: Path, least: Mapping[Confidence, Mapping[str, float]], origin: Mapping[str, object]) -> None:
    """Write the table of the model or adapter at ``path``; ``origin`` says how it was measured, for people."""
    levels = {level.value: dict(sorted(values.items())) for level, values in least.items()}
    content = {"format": FORMAT, "weights": weights_key(path), "least": levels, "origin": origin}
    confidence_path(path).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _parse(content: Mapping[str, object]) -> tuple[dict[Confidence, dict[str, float]], object]:
    if content["format"] != FORMAT:
        raise ValueError(f"format {content['format']!r} is not {FORMAT}")
    levels = content["least"]
    least: dict[Confidence, dict[str, float]] = {}
    for level in (Confidence.DEFAULT, Confidence.STRICT):
        values = levels[level.value] if isinstance(levels, Mapping) else {}
        if ALL not in values or not all(_is_share(value) for value in values.values()):
            raise ValueError(f'"{level.value}" must have shares from 0 to 1 by language, "{ALL}" among them')
        least[level] = dict(values)
    return least, content["weights"]


def _is_share(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
