"""Stands in for the authors' package: it keeps what it was told, and decodes greedily with transformers' own model."""

from typing import Any

CONFIG: dict[str, Any] = {}


def config_lade(**values: Any) -> None:
    CONFIG.update(values)


def augment_generate() -> None:
    pass
