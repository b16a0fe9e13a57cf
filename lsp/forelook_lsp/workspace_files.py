"""Workspace files that are not open: which may be read, how they rank, and their texts in small parts.

All of it blocks, since it reads ignore files and runs git: it runs in threads, never on the event loop.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from forelook.errors import PrivacyError
from forelook.languages import IMPORT_LINE, INDEX_STEMS
from forelook.privacy.content import MAX_FILE_BYTES, is_generated_name
from forelook.privacy.ignore_files import FORELOOKIGNORE, GITIGNORE
from forelook.privacy.ignore_rules import IgnoreRules
from forelook.privacy.rules import WorkspacePrivacy
from forelook.privacy.secrets import is_secret_path
from forelook.protocol.messages import WorkspaceFile

logger = logging.getLogger(__name__)

# All chosen, not measured.
MAX_FILES = 20_000
MAX_TOTAL_BYTES = 32 * 2**20
CHUNK_FILES = 64
CHUNK_BYTES = 256 * 2**10

Stamp = tuple[int, int]
"""A file's time in nanoseconds and its size, which change with its content."""

_NAME = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class OpenFile:
    """An open file, which ranks the others."""

    path: Path
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
        self._is_listed = False
        self._listed: dict[str, Stamp] | None = None
        self._unwanted_keys: list[str] = []
        self._own_rules = IgnoreRules(text, strict=True, source="forelook.ignore")

    @property
    def errors(self) -> list[PrivacyError]:
        """Invalid ignore files; everything in their folders is excluded."""
        return self._privacy.errors

    @property
    def is_stale(self) -> bool:
        """Whether an ignore file that matters has changed since it was read."""
        return self._privacy.is_stale()

    @property
    def permitted_keys(self) -> tuple[str, ...]:
        """The names of all permitted files at the last listing."""
        return tuple(self._listed or ())

    def withheld(self, path: Path) -> str | None:
        """Return why a file must not be read, for people; ``None`` if it may be."""
        reason = self._privacy.reason(path)
        if reason is not None:
            return reason
        if not len(self._own_rules):
            return None
        is_below = path.is_relative_to(self.root)  # otherwise named through another link
        parts = path.relative_to(self.root).parts if is_below else path.resolve().relative_to(self._privacy.root).parts
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
        listed: dict[str, Stamp] = {}
        self._is_listed = True
        for path, info in self._permitted():
            if stop.is_set():
                return []
            listed[self.key_of(path)] = _stamp(info)
            if path in open_paths:
                continue
            stem = path.stem if path.stem not in INDEX_STEMS else path.parent.name
            rank = (stem not in imported, path.parent not in folders, path.suffix not in suffixes, -info.st_mtime)
            found.append((rank, path))
        found.sort()
        self._listed = listed
        return [path for _, path in found[:MAX_FILES]]

    def since_listing(self) -> tuple[list[Path], list[str]]:
        """List again; return the files created or changed since the last listing, and the names of those gone.

        Nothing before the first listing, which sends everything.
        """
        if self._listed is None:
            return [], []
        former, listed = self._listed, dict[str, Stamp]()
        changed: list[Path] = []
        for path, info in self._permitted():
            key, stamp = self.key_of(path), _stamp(info)
            listed[key] = stamp
            if former.get(key) != stamp:
                changed.append(path)
        self._listed = listed
        return changed[:MAX_FILES], [key for key in former if key not in listed]

    def contains_listed(self, folder: Path) -> bool:
        """Whether a folder contained files at the last listing, so that more than one file is gone with it."""
        prefix = f"{self.key_of(folder)}/"
        return any(key.startswith(prefix) for key in self.permitted_keys)

    def changed(self, paths: Sequence[Path]) -> list[Path]:
        """Return the files to send after changes: the files themselves, those in the folders, and those newly tracked.

        Nothing before the first listing, which sends everything.
        """
        if not self._is_listed:
            return []
        found: list[Path] = []
        for path in paths:
            if self.withheld(path) is not None:
                continue
            if not path.exists():
                self._unwanted_keys.append(self.key_of(path))
            elif path.is_dir():
                found += map(self._as_given, self._privacy.files(path.resolve()))
            elif not is_generated_name(path.name) and self._privacy.is_listed(path):
                found.append(path)
        found += map(self._as_given, self._privacy.newly_tracked())
        return [file for file in dict.fromkeys(found) if self.withheld(file) is None][:MAX_FILES]

    def read_parts(self, paths: Iterable[Path], stop: threading.Event) -> Iterator[list[WorkspaceFile]]:
        """Yield the files' texts in parts small enough to send between two requests."""
        part: list[WorkspaceFile] = []
        part_bytes = total_bytes = 0
        for path in paths:
            if stop.is_set() or total_bytes > MAX_TOTAL_BYTES:
                break
            file = self.read(path)
            if file is None:
                self._unwanted_keys.append(self.key_of(path))
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

    def read(self, path: Path) -> WorkspaceFile | None:
        """Return a file's text, ``None`` if it is excluded or unreadable."""
        if self.withheld(path) is not None:
            return None
        try:
            return WorkspaceFile(self.key_of(path), self._privacy.read(path))
        except PrivacyError:
            return None
        except OSError as error:
            logger.info("cannot read a workspace file: %s", error.strerror)
            return None

    def take_unwanted(self) -> list[str]:
        """Return, once, the names of files that turned out to be excluded by their content or unreadable."""
        unwanted, self._unwanted_keys = self._unwanted_keys, []
        return unwanted

    @property
    def is_in_repository(self) -> bool:
        """Whether a repository contains the folder."""
        return self._privacy.is_in_repository

    def key_of(self, path: Path) -> str:
        """Return a file's name in the workspace: its relative path with ``/``."""
        if path.is_relative_to(self.root):
            return path.relative_to(self.root).as_posix()
        resolved = path.resolve()
        root = self._privacy.root
        return (resolved.relative_to(root) if resolved.is_relative_to(root) else path).as_posix()

    def _permitted(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in map(self._as_given, self._privacy.files()):
            try:
                info = path.stat()
            except OSError:
                continue
            if info.st_size <= MAX_FILE_BYTES and not is_generated_name(path.name) and self.withheld(path) is None:
                yield path, info

    def tracked(self) -> list[Path] | None:
        """Return the files that git tracks here; ``None`` without a repository or tracked files."""
        tracked = self._privacy.tracked()
        return None if tracked is None else list(map(self._as_given, tracked))

    def _as_given(self, path: Path) -> Path:
        """A resolved path as the editor names it, whose folder may be a link."""
        root = self._privacy.root
        return self.root / path.relative_to(root) if path.is_relative_to(root) else path


def _stamp(info: os.stat_result) -> Stamp:
    return info.st_mtime_ns, info.st_size


def is_ignore_file(path: Path) -> bool:
    """Return whether a file with this path may say what is excluded."""
    return path.name in (GITIGNORE, FORELOOKIGNORE) or path.parts[-2:] == ("info", "exclude")


def keys_outside(root: Path, files: WorkspaceFiles) -> tuple[str, ...]:
    """Return the names of permitted files in a folder that is not scanned: those git tracks, or its own ones."""
    tracked = files.tracked()
    if tracked is None:
        try:
            tracked = [root / entry.name for entry in os.scandir(root) if entry.is_file()]
        except OSError:
            tracked = []
    return tuple(files.key_of(path) for path in tracked if files.withheld(path) is None)


def named_reason(path: str) -> str | None:
    """Return why a document without a file must not be read; only its name is known."""
    # Editors name objects of a repository by paths through its ".git", which say nothing about the file.
    parts = [part for part in path.replace("\\", "/").split("/") if part != ".git"]
    return "its name matches the secrets list" if is_secret_path("/".join(parts)) else None


def imported_names(texts: Iterable[str]) -> set[str]:
    """Return every name on an import line of these texts, in any supported language."""
    names: set[str] = set()
    for text in texts:
        for match in IMPORT_LINE.finditer(text[:200_000]):
            names.update(_NAME.findall(match.group(1) or match.group(2) or ""))
    return names
