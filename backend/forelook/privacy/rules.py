"""Which files of a workspace may be read: ``.gitignore``, ``.forelookignore``, the secrets list, and their content.

``.gitignore`` files follow git's rules. ``.forelookignore`` has the same syntax but is strict: a line that git would
silently never match is a :class:`~forelook.errors.PrivacyError`, and everything in that folder is excluded until the
line is fixed. No ignore file can include a name on the secrets list.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from forelook.errors import PrivacyError
from forelook.privacy.content import MAX_FILE_BYTES, content_reason, is_generated_name
from forelook.privacy.ignore_files import FORELOOKIGNORE, GITIGNORE, IgnoreFiles, Parts, joined
from forelook.privacy.repository import Repository, Tracked, is_repository
from forelook.privacy.secrets import is_secret_path
from forelook.uris import resolved

SKIPPED_DIRECTORIES: frozenset[str] = frozenset(
    {
        "node_modules", "bower_components", "__pycache__", ".venv", "venv", ".tox", ".nox", ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache", ".hypothesis", ".eggs", "site-packages", ".gradle", ".next", ".nuxt", ".cache", "DerivedData",
    }
)  # fmt: skip
"""Folders of dependencies and build products: not secret, but useless as a source of drafts."""


class WorkspacePrivacy:
    """What may be read of one workspace. Ignore files are read once: create a new object when one has changed.

    A path is excluded if it lies outside the workspace, if its name is on the secrets list, if it lies in a folder of
    dependencies, if git ignores it, if ``.forelookignore`` matches it, or if an ignore file above it cannot be read or
    parsed. What git ignores is decided by the repository that the file is in, which may be nested in the workspace or
    around it: by its ``.gitignore`` files, its ``info/exclude``, the user's ``core.excludesFile``, and by its index,
    since a tracked file is not ignored. Methods may run git: call them off the event loop.
    """

    def __init__(self, root: Path, *, ignore_case: bool | None = None) -> None:
        """Create the rules of a workspace folder; nothing is read yet.

        Args:
            root: the folder.
            ignore_case: match ignore patterns without regard to case; by default as the repository's configuration
                says, and where it says nothing, as git does on this platform.
        """
        self._given_root = _normal(root)
        self._root = resolved(self._given_root)
        self._root_parts = self._root.parts[1:]
        self._ignore_files = IgnoreFiles(self._root, ignore_case)
        self._own_verdicts: dict[Parts, str | None] = {}
        self._listed: dict[Path, Tracked] = {}

    @property
    def root(self) -> Path:
        """The workspace folder, symlinks resolved."""
        return self._root

    @property
    def is_in_repository(self) -> bool:
        """Whether a repository contains the workspace."""
        return self._ignore_files.scope(self._root_parts).repository is not None

    @property
    def errors(self) -> list[PrivacyError]:
        """The ignore files so far that cannot be read or parsed; everything below them is excluded."""
        return self._ignore_files.errors

    def is_stale(self) -> bool:
        """Whether an ignore file that matters was created, changed or deleted since it was read."""
        return any(map(self._matters, self._ignore_files.changed()))

    def _matters(self, ignore_file: Path) -> bool:
        """Whether an ignore file may change a verdict: not in a folder that is excluded whatever the file says."""
        if ignore_file.name in (GITIGNORE, FORELOOKIGNORE) and ignore_file.is_relative_to(self._root):
            if self._own_reason(ignore_file.parts[1:-1], is_directory=True) is not None:
                return False
            if ignore_file.name == GITIGNORE and self._ignore_files.is_in_ignored_folder(ignore_file):
                return False
        return True

    def permits(self, path: Path) -> bool:
        """Whether the path is not excluded; the content of the file is not read."""
        return self.reason(path) is None

    def reason(self, path: Path) -> str | None:
        """Why a path is excluded, for messages; ``None`` if it is permitted.

        Both the name of a symbolic link and its target are checked.

        Args:
            path: absolute, or relative to the workspace. It need not exist.
        """
        absolute = _normal(self._root / path)
        if absolute.is_relative_to(self._given_root):
            absolute = self._root / absolute.relative_to(self._given_root)
        try:
            target = absolute.resolve()
        except (OSError, RuntimeError, ValueError):
            return "a broken link"
        if not absolute.is_relative_to(self._root):
            # Named through another link: the folders compare equal once resolved, and the name itself still counts.
            absolute = resolved(absolute.parent) / absolute.name
        for candidate in dict.fromkeys((absolute, target)):
            if not candidate.is_relative_to(self._root):
                return "outside the workspace"
            excluded = self._reason(candidate.parts[1:], is_directory=candidate.is_dir())
            if excluded is not None:
                return excluded
        return None

    def files(self, below: Path | None = None) -> Iterator[Path]:
        """All files permitted by name, in a stable order: those that git tracks, in folders without git all.

        Args:
            below: the folder to begin at, in the workspace; by default the workspace.
        """
        start = self._root if below is None else below
        repository = self._ignore_files.scope(start.parts[1:]).repository
        if repository is None:
            yield from self._walk(start)
        else:
            yield from self._repository_files(repository, start)

    def newly_tracked(self) -> list[Path]:
        """Permitted files that git has tracked since the last listing, in the repositories met so far."""
        found: list[Path] = []
        for scope in self._ignore_files.scopes:
            repository = scope.repository
            tracked = None if repository is None else repository.tracked()
            if repository is None or tracked is None or repository.top not in self._listed:
                continue
            former, self._listed[repository.top] = self._listed[repository.top], tracked
            if former is tracked:
                continue
            paths = (repository.top / os.fsdecode(name) for name in tracked.files - former.files)
            found += [path for path in paths if path.is_relative_to(self._root) and self.permits(path)]
        return found

    def tracked(self) -> list[Path] | None:
        """The files in the workspace that its repository tracks; ``None`` without a repository or tracked files."""
        repository = self._ignore_files.scope(self._root_parts).repository
        tracked = None if repository is None else repository.tracked()
        if repository is None or tracked is None or not tracked.files:
            return None
        paths = (repository.top / os.fsdecode(name) for name in sorted(tracked.files))
        return [path for path in paths if path.is_relative_to(self._root)]

    def is_listed(self, path: Path) -> bool:
        """Whether :meth:`files` would list a permitted file: outside of repositories all, inside what git tracks."""
        target = resolved(path)
        repository = self._ignore_files.scope(target.parts[1:-1]).repository
        tracked = None if repository is None else repository.tracked()
        if repository is None or tracked is None or not tracked.files:
            return True
        return joined(target.parts[len(repository.top.parts) :]) in tracked.files

    def read(self, path: Path) -> str:
        """The text of a permitted file.

        Raises:
            PrivacyError: the path is excluded, or its content is too large, binary, not UTF-8, minified, generated,
                or contains a secret.
            OSError: the file cannot be read.
        """
        excluded = self.reason(path)
        if excluded is not None:
            raise PrivacyError(f"{path} is excluded: {excluded}")
        target = (self._root / path).resolve()
        # Without O_NONBLOCK, opening a named pipe would wait for its writer.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(target, flags)
        with os.fdopen(descriptor, "rb") as file:
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode):
                raise PrivacyError(f"{path} is excluded: not a regular file")
            # The name may have become another file since it was checked: what counts is the file that is open.
            opened = _name_of(descriptor, target)
            excluded = self.reason(opened)
            if excluded is not None or not os.path.samestat(info, opened.lstat()):
                raise PrivacyError(f"{path} is excluded: {excluded or 'replaced while it was opened'}")
            data = file.read(MAX_FILE_BYTES + 1)
        excluded = content_reason(data)
        if excluded is not None:
            raise PrivacyError(f"{path} is excluded: {excluded}")
        return data.decode("utf-8")

    # --- listing

    def _repository_files(self, repository: Repository, start: Path) -> Iterator[Path]:
        tracked = repository.tracked()
        if tracked is None or not tracked.files:
            yield from self._walk(start)
            return
        self._listed[repository.top] = tracked
        below = start if start.is_relative_to(self._root) else self._root
        prefix = joined(below.parts[len(repository.top.parts) :])
        prefix += b"/" if prefix else b""
        for name in sorted(name for name in tracked.files if name.startswith(prefix)):
            path = repository.top / os.fsdecode(name)
            if not is_generated_name(path.name) and self.permits(path):
                yield path
        for name in sorted(name for name in tracked.submodules if name.startswith(prefix)):
            top = repository.top / os.fsdecode(name)
            if is_repository(top) and self.permits(top):
                yield from self.files(top)

    def _walk(self, start: Path) -> Iterator[Path]:
        """Files by the entries of folders; linked folders are not entered, repositories are listed by git."""
        pending = [start]
        while pending:
            folder = pending.pop()
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError:
                continue  # a folder that cannot be read has no files for us
            below: list[Path] = []
            for entry in entries:
                path = folder / entry.name
                if entry.is_dir(follow_symlinks=False):
                    if self._reason(path.parts[1:], is_directory=True) is not None:
                        continue
                    if is_repository(path):
                        yield from self.files(path)
                    else:
                        below.append(path)
                elif self._wanted(entry, path):
                    yield path
            pending.extend(reversed(below))

    def _wanted(self, entry: os.DirEntry[str], path: Path) -> bool:
        """Whether a directory entry is a permitted file worth reading."""
        try:
            if not entry.is_file() or entry.stat().st_size > MAX_FILE_BYTES or is_generated_name(entry.name):
                return False
        except OSError:
            return False  # deleted meanwhile
        if entry.is_symlink():
            return self.permits(path)
        return self._reason(path.parts[1:], is_directory=False) is None

    # --- verdicts

    def _reason(self, parts: Parts, *, is_directory: bool) -> str | None:
        """Why a path within the workspace is excluded."""
        own = self._own_reason(parts, is_directory=is_directory)
        if own is not None or len(parts) <= len(self._root_parts):
            return own
        return self._ignore_files.git_reason(parts, is_directory=is_directory)

    def _own_reason(self, parts: Parts, *, is_directory: bool) -> str | None:
        """Forelook's own reasons; a folder's applies to everything below it, whatever git tracks."""
        if parts in self._own_verdicts:
            return self._own_verdicts[parts]
        if len(parts) <= len(self._root_parts):
            return None
        excluded = self._own_reason(parts[:-1], is_directory=True) or self._own_rules(parts, is_directory=is_directory)
        if is_directory:
            self._own_verdicts[parts] = excluded
        return excluded

    def _own_rules(self, parts: Parts, *, is_directory: bool) -> str | None:
        below_root = parts[len(self._root_parts) :]
        if is_secret_path("/".join((*below_root, "_") if is_directory else below_root)):
            return "its name is on the secrets list"
        if is_directory and parts[-1] in SKIPPED_DIRECTORIES:
            return "a folder of dependencies or build products"
        return self._ignore_files.own_reason(parts, is_directory=is_directory)


def _name_of(descriptor: int, name: Path) -> Path:
    """The path of an open file as the system knows it, where it tells; otherwise ``name``."""
    try:
        return Path(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115 - the link's text, not a path to follow
    except OSError:
        return name


def _normal(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute keeps ".."
