"""Command-line options that several benchmarks share."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import os
import shutil
from pathlib import Path
from typing import Any, TypeVar

from bench.results import DATA

T = TypeVar("T")

LLAMA_SERVER = "LLAMA_SERVER"  # environment variable: llama.cpp's server


def executable(program: str | Path | None) -> Path | None:
    """Return an executable by its path or its name in ``PATH``; ``None`` where there is none."""
    found = None if program is None else shutil.which(program)
    return None if found is None else Path(found)


def default_llama_server() -> Path | None:
    """Return llama.cpp's server on this machine; ``None`` where there is none."""
    return executable(os.environ.get(LLAMA_SERVER, "llama-server"))


def torch_threads(text: str) -> int:
    """Make torch compute with so many threads from now on, and return their number."""
    import torch

    torch.set_num_threads(int(text))
    return torch.get_num_threads()


OPTIONS: dict[str, dict[str, Any]] = {
    "model": {"help": "smollm2-135m, a checkpoint folder or a hub id (default: the starter model)"},
    "adapter": {"metavar": "FOLDER", "help": "a low-rank adapter for the model"},
    "device": {"default": "auto", "help": "auto, cpu or cuda"},
    "dtype": {"default": "auto", "help": "of the weights: auto, bfloat16, float16, float32 or float64"},
    "threads": {"type": torch_threads, "help": "torch's threads (default: all cores)"},
    "data": {"type": Path, "default": DATA, "help": "folder of data sets"},
    "limit": {"type": int, "help": "maximum number of prompts, evenly spread (default: all)"},
    "max-new-tokens": {
        "type": int,
        "default": 64,
        "help": "maximum number of tokens per prompt (default: %(default)s)",
    },
    "llama-server": {
        "type": Path,
        "metavar": "PROGRAM",
        "default": default_llama_server,
        "help": f"llama.cpp's server (default: ${LLAMA_SERVER}, or llama-server on PATH)",
    },
    "plot": {"type": Path, "metavar": "FILE", "help": "also write a plot, as PNG"},
    "json": {"type": Path, "metavar": "FILE", "help": "also write the JSON object to this file"},
}


def benchmark_parser(doc: str | None, *names: str, **defaults: object) -> argparse.ArgumentParser:
    """Return a parser with the named shared options and ``--json``.

    Args:
        doc: the executable's docstring, shown as its help.
        names: rows of ``OPTIONS``.
        defaults: other defaults than the rows', by attribute.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in (*names, "json"):
        row = OPTIONS[name]
        default = row.get("default")
        parser.add_argument(f"--{name}", **row | {"default": default() if callable(default) else default})
    parser.set_defaults(**defaults)
    return parser


def settings_of(kind: type[T], options: argparse.Namespace, **others: object) -> T:
    """Return a dataclass of the options that its fields are named after, and of ``others``."""
    names = (field.name for field in dataclasses.fields(kind))  # type: ignore[arg-type]
    return kind(**{name: getattr(options, name) for name in names if hasattr(options, name)} | others)


def add_fields(parser: argparse.ArgumentParser, settings: type) -> None:
    """Add an option per field of a dataclass that has a default; the class's docstring explains them."""
    for field in dataclasses.fields(settings):
        if isinstance(field.default, (int, float, str)):
            flag = f"--{field.name.replace('_', '-')}"
            parser.add_argument(flag, type=type(field.default), default=field.default, help="(default: %(default)s)")
    parser.epilog = inspect.getdoc(settings)
