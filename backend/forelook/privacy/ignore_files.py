"""The ignore files around and below a workspace folder, as git and Forelook read them."""

from __future__ import annotations

import errno
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from forelook.errors import PrivacyError
from forelook.local.files import read_regular_file
from forelook.privacy.ignore_rules import MAX_IGNORE_BYTES, IgnoreRules
from forelook.privacy.repository import Repository, Signature, is_repository, signature_of

GITIGNORE = ".gitignore"
FORELOOKIGNORE = ".forelookignore"

Parts = tuple[str, ...]
"""A path as its parts below the root of the file system."""


@dataclass(slots=True)
class FolderRules:
    """The ignore rules in one folder."""

    git: IgnoreRules | None = None
    own: IgnoreRules | None = None
    error: PrivacyError | None = None


@dataclass(slots=True)
class Scope:
    """What ``.gitignore`` files below one folder have in common: a repository, or a workspace folder without one.

    Attributes:
        top: its topmost folder.
        repository: ``None`` without one.
        shared: ``info/exclude`` and the user's own ignore file, the stronger one first.
        ignore_case: whether patterns match without regard to case.
        error: a shared file that cannot be used; everything in the repository is excluded.
        ignored: the verdicts on folders so far.
    """

    top: Parts
    repository: Repository | None
    shared: tuple[IgnoreRules, ...] = ()
    ignore_case: bool = False
    error: PrivacyError | None = None
    ignored: dict[Parts, bool] = field(default_factory=dict)


class IgnoreFiles:
    """Ignore files by folder, each read once. Methods may run git: call them off the event loop.

    Args:
        root: the workspace folder, symlinks resolved; ``.forelookignore`` counts from it downwards.
        ignore_case: match patterns without regard to case; ``None`` for what the repository's configuration says, and
            where it says nothing, for what git does on this platform.
    """

    def __init__(self, root: Path, ignore_case: bool | None) -> None:
        self._anchor = Path(root.anchor)
        self._root_parts = root.parts[1:]
        self._ignore_case = ignore_case
        self._folders: dict[Parts, FolderRules] = {}
        self._scopes: dict[Parts, Scope] = {}
        self._signatures: dict[Path, Signature | None] = {}

    @property
    def errors(self) -> list[PrivacyError]:
        """The ignore files so far that cannot be read or parsed."""
        found = [folder.error for folder in self._folders.values()]
        found += [scope.error for scope in self.scopes]
        return [error for error in found if error is not None]

    def changed(self) -> list[Path]:
        """The ignore files that were created, changed or deleted since they were looked for."""
        return [path for path, signature in list(self._signatures.items()) if signature_of(path) != signature]

    def is_in_ignored_folder(self, path: Path) -> bool:
        """Whether git ignores the folder of a path, so that a ``.gitignore`` there changes nothing."""
        parts = path.parent.parts[1:]
        return self._is_matched(self.scope(parts), parts, is_directory=True)

    @property
    def scopes(self) -> list[Scope]:
        """The repositories met so far, and the workspace where a folder is in none."""
        return list({id(scope): scope for scope in list(self._scopes.values())}.values())

    def scope(self, folder: Parts) -> Scope:
        """The innermost repository that contains a folder; without one, the workspace."""
        found = self._scopes.get(folder)
        if found is None:
            path = self._anchor.joinpath(*folder)
            if is_repository(path):
                found = self._repository_scope(folder, path)
            elif folder:
                found = self.scope(folder[:-1])
            else:
                found = Scope(self._root_parts, None, ignore_case=self._matches_any_case(None))
            self._scopes[folder] = found
        return found

    def folder(self, parts: Parts) -> FolderRules:
        """The rules in one folder."""
        found = self._folders.get(parts)
        if found is None:
            found = FolderRules()
            path = self._anchor.joinpath(*parts)
            ignore_case = self.scope(parts).ignore_case
            try:
                found.git = self._read_rules(path / GITIGNORE, ignore_case=ignore_case)
                if len(parts) >= len(self._root_parts):
                    found.own = self._read_rules(
                        path / FORELOOKIGNORE, ignore_case=ignore_case, strict=True, follows_links=True
                    )
            except PrivacyError as error:
                found.error = error
            self._folders[parts] = found
        return found

    def git_reason(self, parts: Parts, *, is_directory: bool) -> str | None:
        """Why git ignores a path; ``None`` if it does not. A tracked file is not ignored."""
        scope = self.scope(parts[:-1])
        if scope.error is not None:
            return str(scope.error)
        for depth in range(len(scope.top), len(parts)):
            if (error := self.folder(parts[:depth]).error) is not None:
                return str(error)
        if not self._is_matched(scope, parts, is_directory=is_directory):
            return None
        if not is_directory and scope.repository is not None:
            tracked = scope.repository.tracked()
            if tracked is not None and joined(parts[len(scope.top) :]) in tracked.files:
                return None
        return f"listed in {GITIGNORE}"

    def own_reason(self, parts: Parts, *, is_directory: bool) -> str | None:
        """Why ``.forelookignore`` files exclude a path; those of the folders above it included."""
        for depth in range(len(parts) - 1, len(self._root_parts) - 1, -1):
            folder = self.folder(parts[:depth])
            if folder.error is not None:
                return str(folder.error)
            rules = folder.own
            verdict = None if rules is None else rules.verdict(joined(parts[depth:]), is_directory=is_directory)
            if verdict is not None:
                return f"listed in {FORELOOKIGNORE}" if verdict else None
        return None

    def _is_matched(self, scope: Scope, parts: Parts, *, is_directory: bool) -> bool:
        """Whether git's patterns match a path of a scope or a folder above it."""
        if len(parts) <= len(scope.top):
            return False
        found = scope.ignored.get(parts)
        if found is None:
            found = self._is_matched(scope, parts[:-1], is_directory=True) or self._verdict(
                scope, parts, is_directory=is_directory
            )
            if is_directory:
                scope.ignored[parts] = found
        return found

    def _verdict(self, scope: Scope, parts: Parts, *, is_directory: bool) -> bool:
        """The verdict of the ignore files from the path's own folder upwards; the first verdict wins."""
        for depth in range(len(parts) - 1, len(scope.top) - 1, -1):
            rules = self.folder(parts[:depth]).git
            verdict = None if rules is None else rules.verdict(joined(parts[depth:]), is_directory=is_directory)
            if verdict is not None:
                return verdict
        below_top = joined(parts[len(scope.top) :])
        verdicts = (rules.verdict(below_top, is_directory=is_directory) for rules in scope.shared)
        return next((verdict for verdict in verdicts if verdict is not None), False)

    def _repository_scope(self, folder: Parts, path: Path) -> Scope:
        repository = Repository(path)
        ignore_case = self._matches_any_case(repository.ignores_case)
        scope = Scope(folder, repository, ignore_case=ignore_case)
        try:
            files = (repository.exclude_file, repository.user_excludes)
            found = [
                self._read_rules(file, ignore_case=ignore_case, follows_links=True)
                for file in files
                if file is not None
            ]
            scope.shared = tuple(rules for rules in found if rules is not None)
        except PrivacyError as error:
            scope.error = error
        return scope

    def _read_rules(
        self, path: Path, *, ignore_case: bool, strict: bool = False, follows_links: bool = False
    ) -> IgnoreRules | None:
        """Read an ignore file; git follows no link named ``.gitignore``."""
        self._signatures[path] = signature_of(path)  # before it is read: a change meanwhile is noticed
        try:
            text = read_regular_file(path, MAX_IGNORE_BYTES, follows_links=follows_links)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.ELOOP and not follows_links:
                return None
            raise PrivacyError(
                f"{path} cannot be read ({error.strerror}); until it can, everything in its folder is excluded"
            ) from error
        return IgnoreRules(text, ignore_case=ignore_case, strict=strict, source=str(path))

    def _matches_any_case(self, configured: bool | None) -> bool:
        if self._ignore_case is not None:
            return self._ignore_case
        return sys.platform in ("win32", "darwin") if configured is None else configured


def joined(parts: Parts) -> bytes:
    """A path as git spells it."""
    return b"/".join(map(os.fsencode, parts))
