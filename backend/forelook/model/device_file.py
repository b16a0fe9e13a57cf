"""Measurements of a model on a device, kept between starts: one JSON file per device, model and dtype."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch

from forelook.compiled import cpu_info
from forelook.local.files import read_or_set_aside, write_atomically

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DeviceFile(Generic[T]):
    """A kind of measurement.

    Attributes:
        kind: what its files are called.
        format: its number; files of another format are not found.
        parse: the measurement in a file's content, or a ``ValueError`` or ``KeyError``.
        content: what a file has of a measurement.
    """

    kind: str
    format: int
    parse: Callable[[bytes], T]
    content: Callable[[T], Mapping[str, object]]

    def path(self, cache_dir: Path, fingerprint: str, device: torch.device, dtype: torch.dtype) -> Path:
        """The file of a model on a device."""
        text = f"{self.format} {fingerprint} {device_key(device)} {dtype} torch {torch.__version__}"
        return cache_dir / f"{self.kind}-{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"

    def read(self, path: Path) -> T | None:
        """The measurement in a file; ``None`` if there is none that can be read."""
        return read_or_set_aside(path, self.parse)

    def write(self, path: Path, measured: T) -> None:
        """Keep a measurement for the next start.

        Raises:
            OSError: the file cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"format": self.format, **self.content(measured)}, allow_nan=False))


def device_key(device: torch.device) -> str:
    """Identifies a device and its speed: its name and, for a CPU, the number of threads."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    cpu_name = cpu_info("model name") or platform.processor() or "cpu"
    return f"{platform.machine()} {cpu_name} x{torch.get_num_threads()}"
