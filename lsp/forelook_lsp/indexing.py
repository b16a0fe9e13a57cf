"""Sends the workspace's files to the backend in small parts, and excludes those that must not be read."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from forelook.errors import ForelookError, PrivacyError
from forelook.protocol import messages

from forelook_lsp.backend_connection import BackendConnection, run_in_thread
from forelook_lsp.status import StatusPresenter

if TYPE_CHECKING:
    from forelook_lsp.workspace_files import FileText, OpenFile, WorkspaceFiles

logger = logging.getLogger(__name__)

NO_WORKSPACE = "no folder"
FORGET_AT_ONCE = 1000  # chosen, not measured
INVALID_SETTING = "the setting forelook.ignore is invalid; all files are excluded until it is fixed"


class Indexing:
    """The folders of one window."""

    def __init__(self, backend: BackendConnection, presenter: StatusPresenter) -> None:
        """Create an instance without folders.

        Args:
            backend: the connection to the backend.
            presenter: shows progress, and errors in ignore files.
        """
        self._backend = backend
        self._presenter = presenter
        self._roots: dict[str, Path] = {}
        self._ignore_globs: tuple[str, ...] = ()
        self._made_folders: dict[str, WorkspaceFiles] | None = None
        self._failed = False
        self._sent: dict[str, set[Path]] = {}
        self._changed: dict[Path, None] = {}
        self._scan: asyncio.Task[None] | None = None
        self._sending: asyncio.Task[None] | None = None
        self._stop = threading.Event()

    # --- What may be read ------------------------------------------------------------------------------------

    def set_folders(self, roots: Mapping[str, Path], ignore_globs: Sequence[str]) -> None:
        """Set the window's folders by workspace name, and the user's globs; ignore files are read again."""
        self._roots = dict(roots)
        self._ignore_globs = tuple(ignore_globs)
        self._made_folders = None
        self._failed = False
        for name in [name for name in self._sent if name not in roots]:
            del self._sent[name]

    @property
    def workspaces(self) -> list[str]:
        """The names of the folders' workspaces."""
        return list(self._roots)

    def workspace_of(self, path: Path | None) -> str:
        """Return the workspace of ``path``, or of a document without a file."""
        if path is None:
            return next(iter(self._roots)) if len(self._roots) == 1 else NO_WORKSPACE
        return self._folder_of(path) or NO_WORKSPACE

    def is_ignore_file(self, path: Path) -> bool:
        """Whether a change of this file may change what is excluded."""
        from forelook.privacy.rules import FORELOOKIGNORE, GITIGNORE

        return path.name in (GITIGNORE, FORELOOKIGNORE)

    def withheld(self, path: Path | None) -> str:
        """Return why a document must not be sent; empty if it may be."""
        if path is None:
            return ""
        folders = self._folders
        if self._failed:
            return INVALID_SETTING
        name = self._folder_of(path)
        if name is not None:
            return folders[name].withheld(path) or ""
        from forelook_lsp.workspace_files import withheld_outside

        return withheld_outside(path) or ""

    # --- Sending ---------------------------------------------------------------------------------------------

    def start(self, open_files: Mapping[Path, str]) -> None:
        """Send the folders' files, restarting a running scan, and forget files sent before that are excluded now.

        Args:
            open_files: the open files' texts, which rank the others; they are not sent.
        """
        self.stop()
        if self._folders:
            from forelook_lsp.workspace_files import OpenFile

            self._stop = threading.Event()
            self._scan = asyncio.get_running_loop().create_task(
                self._send_all([OpenFile(path, text) for path, text in open_files.items()], self._stop)
            )

    def stop(self) -> None:
        """Stop sending."""
        self._stop.set()
        if self._scan is not None:
            self._scan.cancel()
            self._scan = None
        self._changed.clear()
        if self._sending is not None:
            self._sending.cancel()

    def send_later(self, path: Path) -> None:
        """Send one file again after it was saved or closed; files are sent one at a time."""
        self._changed[path] = None
        if self._sending is None:
            self._sending = asyncio.get_running_loop().create_task(self._send_changed())

    def forget(self, paths: Iterable[Path]) -> None:
        """Remove files from the backend: they were deleted, or are excluded now."""
        by_name: dict[str, list[str]] = {}
        for path in paths:
            name = self._folder_of(path)
            if name is not None and name in self._folders:
                self._sent.get(name, set()).discard(path)
                by_name.setdefault(name, []).append(self._folders[name].key_of(path))
        for name, keys in by_name.items():
            for start in range(0, len(keys), FORGET_AT_ONCE):
                part = tuple(keys[start : start + FORGET_AT_ONCE])
                self._backend.notify(messages.WORKSPACE_FORGET, messages.WorkspaceForgetParams(name, part))

    # --- Inside ----------------------------------------------------------------------------------------------

    @property
    def _folders(self) -> dict[str, WorkspaceFiles]:
        """Made when first needed: the import would delay ``initialize``."""
        if self._made_folders is None:
            from forelook_lsp.workspace_files import WorkspaceFiles

            try:
                self._made_folders = {
                    name: WorkspaceFiles(root, self._ignore_globs) for name, root in self._roots.items()
                }
            except PrivacyError as error:
                self._made_folders = {}
                self._failed = True
                self._presenter.log_once(str(error))
        return self._made_folders

    def _folder_of(self, path: Path) -> str | None:
        """The innermost folder that contains ``path``."""
        containing = [name for name, root in self._roots.items() if path.is_relative_to(root)]
        return max(containing, key=lambda name: len(self._roots[name].parts), default=None)

    async def _send_changed(self) -> None:
        try:
            while self._changed:
                path = next(iter(self._changed))
                del self._changed[path]
                name = self._folder_of(path)
                folder = self._folders.get(name) if name is not None else None
                if name is None or folder is None or self._failed or not folder.lists(path):
                    continue
                file = await run_in_thread(partial(folder.read, path))
                if file is not None:
                    self._notify_files(name, [file])
                    self._sent.setdefault(name, set()).add(path)
                    await self._until_received()
        except ForelookError as error:
            logger.info("sending changed files stopped: %s", error)
        finally:
            self._sending = None

    async def _until_received(self) -> None:
        """Wait until the backend has received the files, which keeps both queues short."""
        await self._backend.request(messages.STATUS, messages.Empty())

    async def _send_all(self, open_files: Sequence[OpenFile], stop: threading.Event) -> None:
        progress = self._presenter.show_progress("Forelook: reading the workspace")
        num_sent = 0
        try:
            for name, folder in list(self._folders.items()):
                paths = await run_in_thread(partial(folder.ranked, open_files, stop))
                paths = [path for path in paths if self._folder_of(path) == name]
                for error in folder.errors:
                    self._presenter.log_once(str(error))
                self.forget(self._sent.get(name, set()).difference(paths))
                parts = folder.read_parts(paths, stop)
                while part := await run_in_thread(partial(next, parts, None)):
                    self._notify_files(name, part)
                    self._sent.setdefault(name, set()).update(folder.root / file.path for file in part)
                    num_sent += len(part)
                    progress.report(min(1.0, num_sent / max(1, len(paths))), f"{num_sent} of {len(paths)} files")
                    await self._until_received()
        except ForelookError as error:
            logger.info("reading the workspace stopped: %s", error)
        finally:
            progress.end(f"{num_sent} files")

    def _notify_files(self, name: str, files: Sequence[FileText]) -> None:
        wire = tuple(messages.WorkspaceFile(file.path, file.text) for file in files)
        self._backend.notify(messages.WORKSPACE_FILES, messages.WorkspaceFilesParams(name, wire))
