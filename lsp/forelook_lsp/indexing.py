"""Giving the backend the workspace's files, a small part at a time, and keeping secrets from it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from forelook.errors import ForelookError, PrivacyError
from forelook.privacy.rules import FORELOOKIGNORE, GITIGNORE
from forelook.protocol import messages

from forelook_lsp.backend_connection import BackendConnection, run_in_thread
from forelook_lsp.progress import Progress
from forelook_lsp.workspace_files import FileText, OpenFile, WorkspaceFiles, withheld_outside

logger = logging.getLogger(__name__)

FORGET_AT_ONCE = 1000
UNREADABLE_SETTING = "the setting forelook.ignore cannot be understood, so every file is withheld"


class Indexing:
    """The folders of one window."""

    def __init__(
        self, client: BackendConnection, show_progress: Callable[[str], Progress], log: Callable[[str], None]
    ) -> None:
        """Prepare.

        Args:
            client: the way to the backend.
            show_progress: makes a progress bar with this title.
            log: tells the user of an ignore file that cannot be understood.
        """
        self._client = client
        self._show_progress = show_progress
        self._log = log
        self._folders: dict[str, WorkspaceFiles] = {}
        self._roots: dict[str, Path] = {}
        self._sent: dict[str, set[Path]] = {}
        self._failed = False
        self._changed: dict[Path, None] = {}
        self._scan: asyncio.Task[None] | None = None
        self._sending: asyncio.Task[None] | None = None
        self._stop = threading.Event()

    # --- What may be read ------------------------------------------------------------------------------------

    def set_folders(self, roots: Mapping[str, Path], ignore_globs: Sequence[str]) -> None:
        """The window's folders by the name of their workspace, and the user's own patterns."""
        self._roots = dict(roots)
        self._folders = {}
        self._failed = False
        try:
            self._folders = {name: WorkspaceFiles(root, ignore_globs) for name, root in roots.items()}
        except PrivacyError as error:
            self._failed = True
            self._log(str(error))
        for name in [name for name in self._sent if name not in roots]:
            del self._sent[name]

    def workspace_of(self, path: Path) -> str | None:
        """The name of the folder that holds ``path``: the innermost one, where folders lie in each other."""
        holding = [name for name, root in self._roots.items() if path.is_relative_to(root)]
        return max(holding, key=lambda name: len(self._roots[name].parts), default=None)

    def is_ignore_file(self, path: Path) -> bool:
        """Whether a change of this file may change what is permitted."""
        return path.name in (GITIGNORE, FORELOOKIGNORE)

    def withheld(self, path: Path) -> str | None:
        """Why a file's text must not be sent; ``None`` where it may."""
        if self._failed:
            return UNREADABLE_SETTING
        name = self.workspace_of(path)
        if name is None:
            return withheld_outside(path)
        return self._folders[name].withheld(path)

    # --- Sending ---------------------------------------------------------------------------------------------

    def start(self, open_files: Mapping[Path, str]) -> None:
        """Send the folders' files, anew if that is under way, and take back those sent before that are not theirs now.

        Args:
            open_files: the open files' texts, by which the others are judged; they are not sent.
        """
        self.stop()
        if self._folders:
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
        """Send one file again: it was saved, or is no longer open. A thousand at once wait for each other."""
        self._changed[path] = None
        if self._sending is None:
            self._sending = asyncio.get_running_loop().create_task(self._send_changed())

    def forget(self, paths: Iterable[Path]) -> None:
        """These files are gone, or may no longer be read."""
        by_name: dict[str, list[str]] = {}
        for path in paths:
            name = self.workspace_of(path)
            if name is not None and name in self._folders:
                self._sent.get(name, set()).discard(path)
                by_name.setdefault(name, []).append(self._folders[name].key_of(path))
        for name, keys in by_name.items():
            for start in range(0, len(keys), FORGET_AT_ONCE):
                part = tuple(keys[start : start + FORGET_AT_ONCE])
                self._client.notify(messages.WORKSPACE_FORGET, messages.WorkspaceForgetParams(name, part))

    # --- Inside ----------------------------------------------------------------------------------------------

    async def _send_changed(self) -> None:
        try:
            while self._changed:
                path = next(iter(self._changed))
                del self._changed[path]
                name = self.workspace_of(path)
                folder = self._folders.get(name) if name is not None else None
                if name is None or folder is None or self._failed or not folder.lists(path):
                    continue
                file = await run_in_thread(partial(folder.read, path))
                if file is not None:
                    self._notify_files(name, [file])
                    self._sent.setdefault(name, set()).add(path)
                    await self._until_taken()
        except ForelookError as error:
            logger.info("changed files are not sent: %s", error)
        finally:
            self._sending = None

    async def _until_taken(self) -> None:
        """Wait until the backend has taken what was sent, which keeps its queue and ours short."""
        _, taken = self._client.request(messages.STATUS, messages.Empty())
        await taken

    async def _send_all(self, open_files: Sequence[OpenFile], stop: threading.Event) -> None:
        progress = self._show_progress("Forelook: reading the workspace")
        num_sent = 0
        try:
            for name, folder in list(self._folders.items()):
                paths = await run_in_thread(partial(folder.ranked, open_files, stop))
                paths = [path for path in paths if self.workspace_of(path) == name]
                for error in folder.errors:
                    self._log(str(error))
                self.forget(self._sent.get(name, set()).difference(paths))
                parts = folder.read_parts(paths, stop)
                while part := await run_in_thread(partial(_next_part, parts)):
                    self._notify_files(name, part)
                    self._sent.setdefault(name, set()).update(folder.root / file.path for file in part)
                    num_sent += len(part)
                    progress.report(min(1.0, num_sent / max(1, len(paths))), f"{num_sent} of {len(paths)} files")
                    await self._until_taken()
        except ForelookError as error:
            logger.info("reading the workspace stopped: %s", error)
        finally:
            progress.end(f"{num_sent} files")

    def _notify_files(self, name: str, files: Sequence[FileText]) -> None:
        wire = tuple(messages.WorkspaceFile(file.path, file.text) for file in files)
        self._client.notify(messages.WORKSPACE_FILES, messages.WorkspaceFilesParams(name, wire))


def _next_part(parts: Iterator[list[FileText]]) -> list[FileText] | None:
    return next(parts, None)
