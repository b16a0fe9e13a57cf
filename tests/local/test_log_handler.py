"""No peer can fill a disk with log lines."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from forelook.local.log_handler import MAX_REPEATS, PERIOD_S, LogHandler, stderr_handler


class Log:
    """A logger with one handler, a clock, and what was written."""

    def __init__(self, path: Path, max_bytes: int = 1_000_000) -> None:
        self.path, self.now_s = path, 0.0
        self.stream = path.open("a", encoding="utf-8")
        self.handler = LogHandler(self.stream, path, max_bytes=max_bytes, clock=lambda: self.now_s)
        self.logger = logging.Logger("test")  # noqa: LOG001 - no other test may see it
        self.logger.addHandler(self.handler)

    def lines(self) -> list[str]:
        return self.path.read_text().splitlines()


def test_repeated_lines_are_counted_in_one(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    for number in range(1_000):
        log.logger.warning("refused %d", number)
        log.logger.warning("another")
    assert len(log.lines()) == 2 * MAX_REPEATS
    log.now_s += PERIOD_S
    log.logger.warning("refused %d", 1_000)
    assert log.lines()[2 * MAX_REPEATS :] == [
        f"repeated {1_000 - MAX_REPEATS} times in 60 s: refused %d",
        f"repeated {1_000 - MAX_REPEATS} times in 60 s: another",
        "refused 1000",
    ]


def test_what_was_counted_is_written_at_the_end(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    for _ in range(MAX_REPEATS + 5):
        log.logger.warning("refused")
    log.handler.close()
    assert log.lines()[-1] == "repeated 5 times in 0 s: refused"


def test_texts_that_always_differ_take_no_memory(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    for number in range(5_000):
        log.logger.warning(f"kind {number}")  # noqa: G004 - the kind of call that this is about
    assert len(log.handler._repeats._kinds) <= 257
    assert len(log.lines()) == 5_000


def test_a_log_is_rotated_while_it_is_written(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", max_bytes=10_000)
    for number in range(3_000):
        log.logger.warning(f"{number:099d}")  # noqa: G004 - a kind of its own each time
    assert (tmp_path / "log").stat().st_size <= 11_000
    assert (tmp_path / "log.1").stat().st_size <= 11_000
    assert int(log.lines()[-1]) == 2_999
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_two_processes_rotate_one_log_and_lose_no_late_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    first, second = Log(path, max_bytes=5_000), Log(path, max_bytes=5_000)
    for number in range(200):
        for name, log in (("first", first), ("second", second)):
            log.logger.warning(f"{name} {number:092d}")  # noqa: G004 - a kind of its own each time
    kept = ((tmp_path / "log.1").read_text() + path.read_text()).splitlines()
    assert [int(line.split()[1]) for line in kept if line.startswith("second")][-10:] == list(range(190, 200))
    assert path.stat().st_size <= 6_000


@pytest.mark.skipif(sys.platform == "win32", reason="a file that is open cannot be renamed there")
def test_standard_error_is_rotated_if_it_is_the_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    code = (
        "import logging, sys; from pathlib import Path; from forelook.local import log_handler as h\n"
        "h.MAX_LOG_BYTES = 5_000; h.LogHandler.__init__.__kwdefaults__['max_bytes'] = 5_000\n"
        f"logging.basicConfig(handlers=[h.stderr_handler(Path({str(path)!r}), sys.stderr)])\n"
        "for i in range(200): logging.warning(f'{i:099d}')\n"
        "print('a crash', file=sys.stderr)"
    )
    with path.open("ab") as stderr:
        subprocess.run([sys.executable, "-c", code], stderr=stderr, check=True)
    assert path.stat().st_size <= 6_000
    assert path.read_text().endswith("a crash\n")
    assert (tmp_path / "log.1").exists()


def test_another_stream_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    with (tmp_path / "other").open("a") as stream:
        assert stderr_handler(tmp_path / "log", stream)._path is None
        assert stderr_handler(tmp_path / "other", stream)._path == tmp_path / "other"
