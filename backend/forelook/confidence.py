"""How sure the model must be of a suggestion to show it unasked: one vocabulary from the settings to the model."""

from __future__ import annotations

from enum import Enum


class Confidence(Enum):
    """A level; what it means for a model and a language is the calibration's to say."""

    OFF = "off"
    DEFAULT = "default"
    STRICT = "strict"
