"""One git repository: where its ignore files are and which files it tracks, as git says."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from forelook.local.files import read_regular_file
from forelook.privacy.git import run_git, user_excludes_file

_LINK_BYTES = 1 << 16  # of a .git file, which contains one path; chosen, not measured
_LAYOUT_TIMEOUT_S = 5.0  # chosen, not measured: git answers in milliseconds unless its configuration is a pipe
_SUBMODULE_MODE = b"160000"

Signature = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Tracked:
    """What an index contains, as paths relative to the repository's top.

    Attributes:
        files: tracked files; those of submodules are in their own repositories.
        submodules: the tops of submodules.
    """

    files: frozenset[bytes]
    submodules: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class _Layout:
    exclude: Path
    index: Path


class Repository:
    """A repository with a working tree. Its methods may run git, so call them off the event loop.

    Args:
        top: the folder that contains ``.git``, symlinks resolved.
    """

    def __init__(self, top: Path) -> None:
        self.top = top
        self._tracked: Tracked | None = None
        self._signature: Signature | None = None
        self._is_listed = False

    @property
    def exclude_file(self) -> Path:
        """``info/exclude``, also of a worktree or a submodule."""
        return self._layout.exclude

    @cached_property
    def user_excludes(self) -> Path | None:
        """The file that ``core.excludesFile`` names, or git's default for it."""
        named = self._config("core.excludesFile", "path")
        if named is None:
            return user_excludes_file()
        return self.top / named if named else None

    @cached_property
    def ignores_case(self) -> bool | None:
        """``core.ignoreCase``; ``None`` where it is not set."""
        value = self._config("core.ignoreCase", "bool")
        return None if value is None else value == "true"

    def tracked(self) -> Tracked | None:
        """What the index contains now; ``None`` without git or for an index that git cannot read by itself."""
        signature = signature_of(self._layout.index)
        if not self._is_listed or signature != self._signature:
            self._signature, self._tracked = signature, self._list()
            self._is_listed = True
        return self._tracked

    def _list(self) -> Tracked | None:
        output = run_git(self.top, "ls-files", "-z", "--stage")
        if output is None:
            return None
        files: set[bytes] = set()
        submodules: set[bytes] = set()
        for entry in output.split(b"\0"):
            details, _, name = entry.partition(b"\t")
            if name:
                (submodules if details.startswith(_SUBMODULE_MODE) else files).add(name)
        return Tracked(frozenset(files), frozenset(submodules))

    @cached_property
    def _layout(self) -> _Layout:
        names = ("info/exclude", "index")
        arguments = [part for name in names for part in ("--git-path", name)]
        output = run_git(self.top, "rev-parse", *arguments, timeout_s=_LAYOUT_TIMEOUT_S)
        lines = (output or b"").split(b"\n")
        if len(lines) == 3:  # a path with a line end in it cannot be told from two
            exclude, index = (self.top / os.fsdecode(line) for line in lines[:2])
            return _Layout(exclude, index)
        own, common = _git_folders(self.top)
        return _Layout(common / "info" / "exclude", own / "index")

    def _config(self, name: str, kind: str) -> str | None:
        output = run_git(self.top, "config", "--null", f"--type={kind}", "--get", name, timeout_s=_LAYOUT_TIMEOUT_S)
        return None if output is None else os.fsdecode(output.rstrip(b"\0"))


def is_repository(folder: Path) -> bool:
    """Whether a folder is the top of a repository's working tree, by the files that git looks for."""
    git = folder / ".git"
    try:
        if git.is_dir():
            is_whole = all((git / name).is_dir() for name in ("objects", "refs")) or (git / "commondir").is_file()
            return is_whole and os.path.lexists(git / "HEAD")
        return git.is_file() and read_regular_file(git, _LINK_BYTES, follows_links=True).startswith(b"gitdir:")
    except (OSError, ValueError):
        return False


def project_of(path: Path) -> Path:
    """The innermost repository that contains a file; without one, the folder that the file is in."""
    return next((folder for folder in path.resolve().parents if is_repository(folder)), path.parent)


def workspace_of(project: Path) -> str:
    """The name of the workspace of files outside all folders of a window.

    A repository's is its URI. Another folder is no project: its name is no URI, so the backend keeps its pool in memory
    only.
    """
    uri = project.as_uri()
    return uri if is_repository(project) else uri.removeprefix("file:")


def _git_folders(top: Path) -> tuple[Path, Path]:
    """The folder of a working tree's own files and that of the repository, without git's help."""
    own = top / ".git"
    try:
        if own.is_file():
            link = read_regular_file(own, _LINK_BYTES, follows_links=True)
            own = top / os.fsdecode(link.removeprefix(b"gitdir:").strip())
        common = own / os.fsdecode(read_regular_file(own / "commondir", _LINK_BYTES).strip())
    except (OSError, ValueError):
        common = own
    return own, common


def signature_of(path: Path) -> Signature | None:
    """What changes with a file's content: time, size and inode; ``None`` if it cannot be looked at."""
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_mtime_ns, info.st_size, info.st_ino
