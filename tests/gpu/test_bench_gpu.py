"""The benchmark of the GPU path on the GPU itself, in small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_benchmark_captures_and_reports(repository: Path) -> None:
    command = [sys.executable, "scripts/bench_gpu.py", "--smoke", "--shape", "tiny", "--without-transformers"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1])["must_reach"]
