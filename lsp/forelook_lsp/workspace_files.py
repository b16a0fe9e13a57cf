"""Workspace files that are not open: which may be read, how they rank, and their texts in small parts.

All of it blocks and runs in a thread of its own, except ``withheld``, which reads only names and ignore files.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from forelook.errors import PrivacyError
from forelook.languages import IMPORT_LINE, INDEX_STEMS
from forelook.privacy.ignore_rules import IgnoreRules
from forelook.privacy.rules import MAX_FILE_BYTES, WorkspacePrivacy, is_generated_name
from forelook.privacy.secrets import is_secret_path

logger = logging.getLogger(__name__)

# All chosen, not measured.
MAX_FILES = 20_000
MAX_TOTAL_BYTES = 32 * 2**20
CHUNK_FILES = 64
CHUNK_BYTES = 256 * 2**10
GIT_TIMEOUT_S = 20.0

_NAME = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class OpenFile:
    """An open file, which ranks the others."""

    path: Path
    text: str


@dataclass(frozen=True, slots=True)
class FileText:
    """A file's text, with its path relative to the folder."""

    path: str
    text: str


class WorkspaceFiles:
    """What may be read of one workspace folder, by the ignore files and settings at its creation."""

    def __init__(self, root: Path, ignore_globs: Sequence[str]) -> None:
        """Read the user's globs.

        Args:
            root: the folder.
            ignore_globs: the user's globs, as in ``.gitignore``.

        Raises:
            PrivacyError: a glob is invalid.
        """
        self.root = root
        self._privacy = WorkspacePrivacy(root)
        text = "\n".join(ignore_globs).encode("utf-8", "surrogatepass")
        self._tracked: frozenset[Path] | None = None
        self._is_listed = False
        self._own_rules = IgnoreRules(text, strict=True, source="forelook.ignore")

    @property
    def errors(self) -> list[PrivacyError]:
        """Invalid ignore files; everything in their folders is excluded."""
        return self._privacy.errors

    def withheld(self, path: Path) -> str | None:
        """Return why a file must not be read, for people; ``None`` if it may be."""
        reason = self._privacy.reason(path)
        if reason is not None:
            return reason
        try:
            parts = path.relative_to(self.root).parts
        except ValueError:
            return None  # outside the folder, for example through a link: the globs have no path to match
        if not len(self._own_rules):
            return None
        for depth in range(1, len(parts) + 1):
            below = os.fsencode("/".join(parts[:depth]))
            if self._own_rules.verdict(below, is_directory=depth < len(parts)):
                return "matched by the setting forelook.ignore"
        return None

    def ranked(self, open_files: Sequence[OpenFile], stop: threading.Event) -> list[Path]:
        """Return the permitted files that are not open, the most useful first.

        Files imported by an open one come first, then those in the same folders, then those in the same languages;
        equals are ordered by their last edit.
        """
        open_paths = {file.path for file in open_files}
        folders = {file.path.parent for file in open_files}
        suffixes = {file.path.suffix for file in open_files}
        imported = imported_names(file.text for file in open_files)
        found: list[tuple[tuple[bool, bool, bool, float], Path]] = []
        for path in self._candidates():
            if stop.is_set():
                return []
            if path in open_paths:
                continue
            try:
                info = path.stat()
            except OSError:
                continue
            if info.st_size > MAX_FILE_BYTES or is_generated_name(path.name) or self.withheld(path) is not None:
                continue
            stem = path.stem if path.stem not in INDEX_STEMS else path.parent.name
            rank = (stem not in imported, path.parent not in folders, path.suffix not in suffixes, -info.st_mtime)
            found.append((rank, path))
        found.sort()
        return [path for _, path in found[:MAX_FILES]]

    def lists(self, path: Path) -> bool:
        """Whether to send a changed file: in a repository, only files tracked at the last listing."""
        if not self._is_listed or is_generated_name(path.name):
            return False
        return self._tracked is None or path in self._tracked

    def read_parts(self, paths: Iterable[Path], stop: threading.Event) -> Iterator[list[FileText]]:
        """Yield the files' texts in parts small enough to send between two requests."""
        part: list[FileText] = []
        part_bytes = total_bytes = 0
        for path in paths:
            if stop.is_set() or total_bytes > MAX_TOTAL_BYTES:
                break
            file = self.read(path)
            if file is None:
                continue
            size = len(file.text)
            if part and (len(part) == CHUNK_FILES or part_bytes + size > CHUNK_BYTES):
                yield part
                part, part_bytes = [], 0
            part.append(file)
            part_bytes += size
            total_bytes += size
        if part and not stop.is_set():
            yield part

    def read(self, path: Path) -> FileText | None:
        """Return a file's text, ``None`` if it is excluded or unreadable."""
        if self.withheld(path) is not None:
            return None
        try:
            return FileText(self.key_of(path), self._privacy.read(path))
        except PrivacyError:
            return None
        except OSError as error:
            logger.info("cannot read a workspace file: %s", error.strerror)
            return None

    def key_of(self, path: Path) -> str:
        """Return a file's name in the workspace: its relative path with ``/``."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.as_posix()

    def _candidates(self) -> Iterator[Path]:
        tracked = tracked_files(self.root)
        self._tracked = frozenset(tracked) if tracked is not None else None
        self._is_listed = True
        if tracked is not None:
            yield from tracked
            return
        for path in self._privacy.walk():  # resolved paths; the editor's root may be a link
            yield self.root / path.relative_to(self._privacy.root)


def withheld_outside(path: Path) -> str | None:
    """Return why a file outside all folders must not be read; only its name is known."""
    return "its name matches the secrets list" if is_secret_path(path.as_posix()) else None


def tracked_files(root: Path) -> list[Path] | None:
    """Return the files git tracks below ``root``; ``None`` without git, a repository or tracked files."""
    # A repository's configuration must not start programs, as fsmonitor and hooks would.
    command = ["git", "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}", "ls-files", "-z", "--cached"]
    try:
        done = subprocess.run(
            command, cwd=root, stdin=subprocess.DEVNULL, capture_output=True, timeout=GIT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.info("git cannot list the workspace: %s", type(error).__name__)
        return None
    if done.returncode != 0:
        return None
    return [root / os.fsdecode(name) for name in done.stdout.split(b"\0") if name] or None


def imported_names(texts: Iterable[str]) -> set[str]:
    """Return every name on an import line of these texts, in any supported language."""
    names: set[str] = set()
    for text in texts:
        for match in IMPORT_LINE.finditer(text[:200_000]):
            names.update(_NAME.findall(match.group(1) or match.group(2) or ""))
    return names
