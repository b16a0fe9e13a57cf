"""Results: every benchmark ends with one JSON object on its last line, which says where it was measured."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = REPOSITORY.parent / "shared" / "data"
"""Data sets, which are not part of the checkout."""
_MEASURED = ("backend", "lsp", "extension", "scripts")  # folders
_PRIVATE_OPTIONS = ("--json", "--data", "--out", "--plot", "--plots", "--lade-python")


def provenance(device: str | None = None) -> dict[str, Any]:
    """Return machine, versions, commit and date of a measurement; no host name and no path.

    Args:
        device: what ran the model, where that is not the CPU.
    """
    torch = sys.modules.get("torch")
    return {
        "device": device or "cpu",
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads() if torch is not None else None,
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": _version("torch"),
        "transformers": _version("transformers"),
        "commit": _git("rev-parse", "--short", "HEAD"),
        # Results and pages that earlier benchmarks of a run have written change no measurement.
        "is_dirty": bool(_git("status", "--porcelain", "--untracked-files=no", "--", *_MEASURED)),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def public_name(source: str) -> str:
    """Return the name of a model or data set without the path of a folder or file on this machine."""
    return Path(source).name if Path(source).exists() else source


def public_command(arguments: Sequence[str]) -> str:
    """Return the command line of a benchmark without folders of this machine and without where its result went."""
    words, rest = ["python", f"scripts/{Path(arguments[0]).name}"], list(arguments[1:])
    while rest:
        word = rest.pop(0)
        if word in _PRIVATE_OPTIONS:
            del rest[:1]
        else:
            words.append(Path(word).name if Path(word).is_absolute() else word)
    return shlex.join(words)


def print_result(benchmark: str, content: dict[str, Any], path: Path | None = None, device: str | None = None) -> None:
    """Print the JSON object of a benchmark as the last line, and write it to ``path`` where one is given."""
    result = write_result(benchmark, content, path, device)
    print(json.dumps(result), flush=True)


def write_result(
    benchmark: str, content: dict[str, Any], path: Path | None, device: str | None = None
) -> dict[str, Any]:
    """Write what is measured so far to ``path``, so that an end before the last measurement loses nothing.

    Returns:
        What was written; a whole file takes the place of the one before.
    """
    result = {"benchmark": benchmark, **content, "command": public_command(sys.argv), "provenance": provenance(device)}
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        part.replace(path)
    return result


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """Return git's output, or ``None`` where there is no git or no repository."""
    try:
        done = subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
