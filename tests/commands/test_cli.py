"""The shell's commands: what they print, and the exit status that tells scripts what went wrong."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from forelook import __version__
from forelook.commands import cli
from forelook.completion.engine.usage import UsageCounters
from forelook.errors import (
    AuthenticationError,
    BackendUnreachableError,
    ConfigError,
    DecodingError,
    ForelookError,
    ModelNotFoundError,
    PositionError,
    ProtocolVersionError,
)
from forelook.finish_reason import FinishReason
from forelook.keys import WorkspaceKey
from forelook.protocol.events import EventKind
from forelook.protocol.jsonrpc import ErrorResponse
from forelook.protocol.messages import CompletionEventParams, CompletionResult, EngineState, Suggestion
from hypothesis import given
from hypothesis import strategies as st

from tests.server.fake_engine import FakeEngine
from tests.server.harness import Running, running


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "xdg"))


async def forelook(server: Running, *arguments: str) -> int:
    """Run a command against a server, in a thread as the server needs this one."""
    return await asyncio.to_thread(cli.main, [*arguments, "--endpoint", f"unix:{server.address}"])


async def loaded(server: Running) -> None:
    """Wait until the engine is there and has said that it is ready."""
    await server.made.wait()
    for _ in range(3_000):
        if server.engine.status.state is EngineState.READY:
            return
        await asyncio.sleep(0.01)
    pytest.fail("the engine is not ready")


def complete(*arguments: str) -> int:
    return cli.main(["complete", *arguments])


# --- without a backend


def test_version_and_help_need_no_model() -> None:
    code = (
        "import sys; from forelook.commands import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'starlette', 'websockets'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for command in ("serve", "complete", "doctor", "status", "stats", "stop", "pool", "exit status:"):
        assert command in done.stdout
    done = subprocess.run([sys.executable, "-m", "forelook", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"forelook {__version__}\n"


@pytest.mark.parametrize("position", ["", "1", "1:", ":1", "a:1", "1:-1", "1.5:1", "1:1:1"])
def test_a_position_that_is_none_is_a_usage_error(position: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        complete("x.py", "--at", position)
    assert caught.value.code == cli.EXIT_USAGE
    assert "is not LINE:COL" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "position", "offset"),
    [
        ("", (1, 1), 0),
        ("ab", (1, 3), 2),
        ("ab\ncd", (2, 1), 3),
        ("ab\n", (2, 1), 3),
        ("ab\r\ncd", (1, 3), 2),
        ("ab\r\ncd", (2, 2), 5),
        ("ab\rcd", (2, 1), 3),
        ("a\r\r\nb", (3, 1), 4),
        ("é😀x\ny", (1, 3), 2),
        ("a\x0cb\u2028c\x85d\ne", (2, 2), 9),
    ],
)
def test_lines_and_columns_count_from_one_in_code_points(text: str, position: tuple[int, int], offset: int) -> None:
    assert cli.cursor_offset(text, *position) == offset


@given(st.text(alphabet="a\r\n é\u2028"), st.data())
def test_every_place_between_characters_has_its_position(text: str, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, len(text)))
    if text[offset - 1 : offset + 1] == "\r\n" and offset > 0:
        return  # between the halves of one line end
    before = text[:offset]
    line_starts = [0] + [match.end() for match in re.finditer("\r\n|\r|\n", before)]
    assert cli.cursor_offset(text, len(line_starts), offset - line_starts[-1] + 1) == offset


@pytest.mark.parametrize(
    ("text", "position", "said"),
    [
        ("ab\ncd", (3, 1), "line = 3 is outside the file, which has 2 lines"),
        ("ab\ncd", (0, 1), "line = 0 is outside the file; lines count from 1"),
        ("ab\ncd", (1, 4), "column = 4 is outside line 1; its columns are 1 to 3"),
        ("ab\ncd", (2, 0), "column = 0 is outside line 2"),
        ("", (1, 2), "column = 2 is outside line 1; its columns are 1 to 1"),
        ("ab\r\n", (1, 4), "column = 4 is outside line 1; its columns are 1 to 3"),
    ],
)
def test_a_cursor_outside_is_named_with_what_there_is(text: str, position: tuple[int, int], said: str) -> None:
    with pytest.raises(PositionError, match=re.escape(said)):
        cli.cursor_offset(text, *position)


def test_a_file_that_is_not_utf8_is_named_with_the_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "latin.py"
    path.write_bytes(b"# caf\xe9\n")
    assert complete(str(path), "--at", "1:1") == cli.EXIT_DOCUMENT
    error = capsys.readouterr().err
    assert f"{path} is not UTF-8: byte 0xe9 at offset 5; convert it" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(("name", "said"), [("none.py", "No such file"), ("", "Is a directory")])
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complete(str(tmp_path / name), "--at", "1:1") == cli.EXIT_DOCUMENT
    assert said in capsys.readouterr().err


def test_a_cursor_outside_the_file_exits_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.py"
    path.write_text("x = 1\n")
    assert complete(str(path), "--at", "9:1") == cli.EXIT_DOCUMENT
    assert "line = 9 is outside the file, which has 2 lines" in capsys.readouterr().err


def test_a_withheld_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".forelookignore").write_text("private/\n")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / "private").mkdir()
    for path in (tmp_path / ".env", tmp_path / "private" / "a.py"):
        path.write_text("x = 1\n")
        assert complete(str(path), "--at", "1:1") == cli.EXIT_DOCUMENT
        assert f"{path} is excluded (" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--device", "tpu"), "--device: invalid value 'tpu' (expected auto, cpu, cuda or cuda:N)"),
        (("--dtype", "int3"), "--dtype: invalid value 'int3' (expected auto, bfloat16,"),
        (
            ("--max-new-tokens", "0"),
            "--max-new-tokens: invalid value '0' (expected an integer from 1 to 4096)",
        ),
        (("--suggestions", "99"), "--suggestions: invalid value '99' (expected an integer from 1 to 8)"),
    ],
)
def test_a_setting_outside_its_range_is_a_usage_error(
    tmp_path: Path, arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.py"
    path.write_text("x = 1\n")
    with pytest.raises(SystemExit) as caught:
        complete(str(path), "--at", "1:1", *arguments)
    assert caught.value.code == cli.EXIT_USAGE
    assert said in capsys.readouterr().err


def test_serve_refuses_an_open_address_without_tls() -> None:
    command = [sys.executable, "-m", "forelook", "serve", "--port", "0", "--host", "0.0.0.0", "--announce"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == cli.EXIT_USAGE
    assert "invalid host: '0.0.0.0' (expected a loopback address" in done.stderr
    assert "a loopback address" in json.loads(done.stdout)["error"]


def test_stats_are_shown_though_nothing_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    usage = UsageCounters(tmp_path / "xdg" / "forelook" / "statistics.json")
    usage.record(CompletionEventParams("w", "python", EventKind.SHOWN))
    usage.record(CompletionEventParams("w", "python", EventKind.ACCEPTED, 12))
    usage.save()
    assert cli.main(["stats", "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["engine"]["usage"]["num_keystrokes_saved"] == 11
    assert cli.main(["stats"]) == 0
    assert "engine.usage.accepted: 1\n" in capsys.readouterr().out


def test_asking_when_nothing_runs_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status"]) == cli.EXIT_BACKEND
    assert "no backend is running" in capsys.readouterr().err


def test_stopping_when_nothing_runs_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["stop", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("a", 1, "2"), cli.EXIT_USAGE),
        (ErrorResponse(1, ConfigError.code, "a = 1").to_error(), cli.EXIT_USAGE),
        (PositionError("x"), cli.EXIT_DOCUMENT),
        (ModelNotFoundError("x"), cli.EXIT_MODEL),
        (BackendUnreachableError("x"), cli.EXIT_BACKEND),
        (AuthenticationError("x"), cli.EXIT_BACKEND),
        (ProtocolVersionError("x"), cli.EXIT_BACKEND),
        (DecodingError("x"), cli.EXIT_FAULT),
    ],
)
def test_each_kind_of_error_has_its_exit_status(error: ForelookError, status: int) -> None:
    assert cli.exit_status(error) == status


def test_doctor_names_each_fault_with_its_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "no-model")
    assert cli.main(["doctor", "--model", missing, "--json"]) == cli.EXIT_FAULT
    report = json.loads(capsys.readouterr().out)
    faults = [check for check in report["checks"] if check["is_fault"]]
    assert report["num_faults"] == len(faults) == 1
    assert faults[0]["name"] == "model"
    assert missing in faults[0]["detail"]
    assert faults[0]["remedy"]
    for name in ("CPU kernels", "pool lookups"):
        assert any(check["name"] == name and check["detail"] for check in report["checks"])


def test_doctor_names_a_device_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--device", "cuda:63"]) == cli.EXIT_FAULT
    printed = capsys.readouterr().out
    assert re.search(r"^fault +device ", printed, re.MULTILINE)
    assert "fix: choose another --device" in printed


def test_doctor_works_where_nothing_is_installed(repository: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(repository / "backend")}
    bare = [sys.executable, "-S", "-m", "forelook"]  # -S: without site-packages
    done = subprocess.run([*bare, "doctor"], env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (cli.EXIT_FAULT, "")
    for package in ("torch", "numpy", "tokenizers", "websockets", "uvicorn", "tree-sitter"):
        assert re.search(rf"^fault +{package} ", done.stdout, re.MULTILINE), package
    assert "fix: pip install websockets" in done.stdout
    done = subprocess.run(
        [*bare, "status", "--endpoint", "unix:/x"], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == cli.EXIT_FAULT
    assert done.stderr == "forelook: the package websockets is not installed; run `forelook doctor`\n"


def test_doctor_names_a_folder_it_cannot_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "xdg").mkdir()
    (tmp_path / "xdg" / "forelook").touch()
    assert cli.main(["doctor", "--json"]) == cli.EXIT_FAULT
    found = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert found["cache folder"]["is_fault"]
    assert "mode 700" in found["cache folder"]["remedy"]


# --- with a backend


async def test_complete_prints_just_what_to_insert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.py"
    path.write_text("x = 1\n    ret\n")
    async with running(tmp_path) as server:
        await server.made.wait()
        ghost = CompletionResult((Suggestion("    return x", 6, 13),), FinishReason.SCOPE_END)
        server.engine.answer = lambda _request, _text: ghost
        assert await forelook(server, "complete", str(path), "--at", "2:8") == 0
        assert capsys.readouterr().out == "urn x\n"
        request = server.engine.requests[0]
        assert (request.offset, request.trigger.value) == (13, "invoked")


async def test_a_terminal_shows_the_ghost_text_in_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.py"
    path.write_text("first = 1\n\x1b]0;title\x07\nx = [ret\nlast = [/]\n")
    offset = path.read_text().index("ret") + 3
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    async with running(tmp_path) as server:
        await server.made.wait()
        ghost = CompletionResult((Suggestion("urn x", offset, offset),), FinishReason.SCOPE_END)
        server.engine.answer = lambda _request, _text: ghost
        assert await forelook(server, "complete", str(path), "--at", "3:9") == 0
    printed = capsys.readouterr().out
    for shown in ("first = 1", "x = [return x", "last = [/]", "a.py:3:9", "drafts accepted, fake on cpu"):
        assert shown in printed
    assert "\x1b]0;" not in printed
    assert "\x07" not in printed


async def test_complete_as_json_has_latency_and_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "é.py"
    path.write_text("x = 1\n")
    async with running(tmp_path) as server:
        assert await forelook(server, "complete", str(path), "--at", "1:6", "--json") == 0
        printed = json.loads(capsys.readouterr().out)
        assert printed["suggestions"] == [{"insert": "6@5", "text": "6@5", "start": 5, "end": 5}]
        assert printed["tokens_per_step"] == 1.5
        assert printed["latency_ms"] > 0
        assert (printed["model"], printed["device"], printed["line"], printed["column"]) == ("fake", "cpu", 1, 6)


async def test_complete_takes_an_empty_file_and_one_of_five_megabytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, large = tmp_path / "empty.py", tmp_path / "large.py"
    empty.write_bytes(b"")
    large.write_text("value = 1  # é\n" * 340_000)
    assert large.stat().st_size > 5_000_000
    async with running(tmp_path) as server:
        assert await forelook(server, "complete", str(empty), "--at", "1:1") == 0
        assert await forelook(server, "complete", str(large), "--at", "340000:3") == 0
        assert capsys.readouterr().out == f"0@0\n{14 * 340_000 + 340_000}@{339_999 * 15 + 2}\n"


async def test_complete_refuses_a_file_over_the_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "huge.py"
    path.write_text("x" * 9_000_000)
    async with running(tmp_path) as server:
        assert await forelook(server, "complete", str(path), "--at", "1:1") == cli.EXIT_DOCUMENT
        assert "has 9000000 bytes, over the limit of 8388608" in capsys.readouterr().err


async def test_no_suggestion_says_why_and_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.py"
    path.write_text("")
    async with running(tmp_path) as server:
        await server.made.wait()
        server.engine.answer = lambda _request, _text: CompletionResult((), FinishReason.EMPTY_PROMPT)
        assert await forelook(server, "complete", str(path), "--at", "1:1") == 0
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "no suggestion (empty_prompt)" in captured.err


async def test_status_stats_and_pool_are_printed_plain_or_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(tmp_path) as server:
        await loaded(server)
        assert await forelook(server, "status") == 0
        assert "state: ready\n" in capsys.readouterr().out
        assert await forelook(server, "stats", "--json") == 0
        (stats,) = json.loads(capsys.readouterr().out)
        assert stats["engine"] == {"num_requests": 0}
        assert await forelook(server, "pool", "stats", "--workspace", str(tmp_path)) == 0
        assert "pool.num_tokens: 0\n" in capsys.readouterr().out
        assert await forelook(server, "pool", "clear", "--workspace", str(tmp_path)) == 0
        assert server.engine.cleared == [WorkspaceKey("", tmp_path.as_uri())]


async def test_a_model_that_cannot_be_loaded_is_a_model_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(on_status: object) -> FakeEngine:
        raise ModelNotFoundError("model = 'x' is neither a folder nor a hub id")

    path = tmp_path / "a.py"
    path.write_text("x")
    async with running(tmp_path, make_engine=broken) as server:
        assert await forelook(server, "complete", str(path), "--at", "1:1") == cli.EXIT_MODEL
        assert "neither a folder nor a hub id" in capsys.readouterr().err


def test_an_endpoint_where_nothing_listens_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--endpoint", f"unix:{tmp_path}/none"]) == cli.EXIT_BACKEND
    assert f"no backend answers at unix:{tmp_path}/none" in capsys.readouterr().err
