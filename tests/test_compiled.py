"""C sources compiled on this machine: once, by the first compiler that can, and kept."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from forelook import compiled
from forelook.compiled import CSource, compilers, load_compiled

from tests.compilers import program

needs_compiler = pytest.mark.skipif(not compilers(), reason="no C compiler")


def source_in(folder: Path, text: str = "int answer(void) { return 42; }\n", **parts: tuple[str, ...]) -> CSource:
    path = folder / "sources" / "answer.c"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return CSource(path, ("-shared", "-fPIC"), **parts)


def answer(path: Path) -> Callable[[], int]:
    function: Callable[[], int] = ctypes.CDLL(os.fspath(path)).answer
    return function


def is_right(function: Callable[[], int]) -> bool:
    return function() == 42


def test_compilers_that_fail_are_named_and_nothing_is_kept(tmp_path: Path) -> None:
    source, kept = source_in(tmp_path), tmp_path / "kept"
    assert load_compiled(source, answer, is_right, kept, []).reason.startswith(
        "no C compiler was found; install a C compiler"
    )
    failing = program(tmp_path, "failing", "echo unknown option >&2; exit 1")
    empty = program(tmp_path, "empty", "exit 0")
    found = load_compiled(source, answer, is_right, kept, [failing, empty, [str(tmp_path / "absent")]])
    assert found.functions is None
    assert found.reason == "nothing that failing and empty and absent compiled works here; the log says why"
    assert not kept.exists()


@needs_compiler
def test_compiled_file_is_kept_and_a_damaged_one_replaced(tmp_path: Path) -> None:
    source, kept = source_in(tmp_path), tmp_path / "kept"
    found = load_compiled(source, answer, is_right, kept, compilers())
    assert "compiled for this processor by" in found.reason
    assert found.functions is not None
    assert found.functions() == 42
    (path,) = kept.iterdir()
    assert load_compiled(source, answer, is_right, kept, []).reason == "compiled earlier for this processor"
    damaged = tmp_path / "damaged" / path.name
    damaged.parent.mkdir()
    damaged.write_bytes(b"not a library")
    assert load_compiled(source, answer, is_right, damaged.parent, []).functions is None
    assert load_compiled(source, answer, is_right, damaged.parent, compilers()).functions is not None
    assert damaged.stat().st_size == path.stat().st_size


@needs_compiler
def test_another_source_header_or_flag_is_another_file(tmp_path: Path) -> None:
    first = source_in(tmp_path)
    paths = {first.compiled_path(tmp_path), CSource(first.path, ("-O1",)).compiled_path(tmp_path)}
    (first.path.parent / "part.h").write_text("// part\n")
    paths.add(first.compiled_path(tmp_path))
    paths.add(source_in(tmp_path, "int answer(void) { return 6 * 7; }\n").compiled_path(tmp_path))
    assert len(paths) == 4


@needs_compiler
def test_what_computes_something_else_is_refused(tmp_path: Path) -> None:
    source, kept = source_in(tmp_path, "int answer(void) { return 41; }\n"), tmp_path / "kept"
    assert load_compiled(source, answer, is_right, kept, compilers()).functions is None
    assert not kept.exists()


@needs_compiler
def test_a_flag_that_a_compiler_lacks_is_left_out(tmp_path: Path) -> None:
    source = source_in(tmp_path, variants=("-fno-such-flag", ""))
    assert load_compiled(source, answer, is_right, tmp_path / "kept", compilers()).functions is not None


def test_folder_that_cannot_be_written_costs_a_compilation_per_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    built = tmp_path / "built.so"
    built.write_bytes(b"x")
    compiled._keep(built, file / "answer.so")
    assert "answer is compiled at every start" in caplog.text
