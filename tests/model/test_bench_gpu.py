"""The GPU benchmark's whole code path runs on a CPU, and where no web package is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

WEB_PACKAGES = ("starlette", "uvicorn", "websockets", "pygls", "lsprotocol", "rich", "platformdirs", "huggingface_hub")
BLOCK = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {WEB_PACKAGES!r}:
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, Blocked())
"""


def test_decoding_and_model_import_without_web_packages(repository: Path) -> None:
    modules = sorted(
        ".".join(path.relative_to(repository / "backend").with_suffix("").parts)
        for folder in ("decoding", "model")
        for path in (repository / "backend" / "forelook" / folder).rglob("*.py")
        if path.name != "__init__.py" and not path.name.startswith("triton_")  # those need the package triton
    )
    assert len(modules) > 30
    code = BLOCK + "".join(f"import {module}\n" for module in modules)
    environment = {"PYTHONPATH": str(repository / "backend"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_smoke_run_reports_every_row_that_must_be_reached(repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, "scripts/bench_gpu.py", "--smoke", "--plots", str(tmp_path)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert [row["bar"] for row in report["must_reach"]] == ["<= 1.25", "<= 1.15", ">= 5", "<= 0.3", ">= 1.2"]
    assert all(isinstance(row["value"], float) for row in report["must_reach"])
    assert all(row["reached"] is None for row in report["must_reach"]), "a CPU's figures must not look like a GPU's"
    assert {row["name"] for row in report["attention"]} == {"triton-tree", "flash-attn", "torch-varlen", "masked"}
    assert all(row["reason"] for row in report["attention"] if row["step_ms"] is None)
    assert isinstance(report["transformers"]["HF sdpa"], float)
    assert isinstance(report["transformers"]["HF compiled, static cache"], float)
    assert report["generation"]["common_tokens"] == 8
    assert (tmp_path / "step_time.png").stat().st_size > 1000
