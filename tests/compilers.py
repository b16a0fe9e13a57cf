"""Programs in the place of a C compiler."""

from __future__ import annotations

import stat
from pathlib import Path


def program(folder: Path, name: str, text: str) -> list[str]:
    """The command of a shell script."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(stat.S_IRWXU)
    return [str(path)]


def compiler_of(folder: Path, real: str, source: str) -> list[str]:
    """A compiler that compiles another source, whatever it is asked for."""
    other = folder / "other.c"
    other.write_text(source)
    skip = 'while [ "$1" != -o ]; do shift; done'
    return program(folder, "cc", f'{skip}; exec {real} -shared -fPIC -o "$2" {other}')
