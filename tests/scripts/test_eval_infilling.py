"""The quality benchmark: where it puts the cursor, how it scores, and that a tested program cannot do harm."""

import pytest
from bench import sandbox
from bench.infilling import Problem, Score


@pytest.mark.parametrize(
    "program",
    [
        "import os; os.system('true')",
        "import os; os.fork()",
        "import os; os.posix_spawn('/bin/true', ['true'], {})",
        "import os; os.open('left_behind', os.O_CREAT | os.O_WRONLY)",
        "import subprocess; subprocess.run(['true'])",
        "import socket; socket.socket()",
        "open('left_behind', 'w')",
        "import shutil; shutil.rmtree('.')",
        "bytearray(3 << 30)",
        "def f(",
        "raise SystemExit(0)  # leaves before its tests",
        "import os; os._exit(0)",
        "assert False",
    ],
)
def test_program_that_does_harm_or_leaves_early_does_not_pass(program: str) -> None:
    assert not sandbox.passes(program)


def test_endless_program_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "TEST_TIMEOUT_S", 1.0)
    assert not sandbox.passes("while True: pass")


def test_ordinary_program_passes() -> None:
    assert sandbox.passes("import hashlib, math, re\nassert math.gcd(4, 6) == 2\nassert hashlib.md5(b'x').hexdigest()")


def test_cuts_join_to_the_missing_line() -> None:
    problem = Problem("p", "f", "def f():\n", "    return y\n", "    y = g(x, 1)", "")
    assert problem.cut("line") == ("", "    y = g(x, 1)")
    assert problem.cut("indented") == ("    ", "y = g(x, 1)")
    assert problem.cut("middle") == ("    y =", " g(x, 1)")
    assert Problem("p", "f", "", "", "    pass", "").cut("middle") is None


def test_score_counts_exact_lines_and_their_interval() -> None:
    score = Score()
    for answer in ("a = 1", " a = 1 ", "a = 2", ""):
        score.add(answer, "    a = 1")
    figures = score.to_json()
    assert figures["exact_match"] == 0.5
    assert figures["empty_share"] == 0.25
    low, high = figures["exact_match_interval"]
    assert 0.14 < low < 0.16
    assert 0.84 < high < 0.86
