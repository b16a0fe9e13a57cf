"""Sends the workspace's files to the backend in small parts, and excludes those that must not be read."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from forelook.errors import ForelookError, PrivacyError
from forelook.keys import DEPENDENCIES
from forelook.privacy.content import secret_reason
from forelook.protocol import messages
from forelook.uris import local_path, named_paths, resolved

from forelook_lsp.backend_connection import BackendConnection, run_in_thread
from forelook_lsp.status import StatusPresenter

if TYPE_CHECKING:
    from forelook_lsp.dependencies import Dependencies
    from forelook_lsp.workspace_files import OpenFile, WorkspaceFiles

logger = logging.getLogger(__name__)

NO_WORKSPACE = "no folder"
FORGET_AT_ONCE = 1000  # chosen, not measured
KEEP_AT_ONCE = 4096  # the protocol's limit of paths in one message
INVALID_SETTING = "the setting forelook.ignore is invalid; all files are excluded until it is fixed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a document may be used for.

    Attributes:
        workspace: whose pool it belongs to.
        withheld: why it must not be sent; empty if it may be.
    """

    workspace: str
    withheld: str


class Indexing:
    """The folders of one window."""

    def __init__(
        self,
        backend: BackendConnection,
        presenter: StatusPresenter,
        open_paths: Callable[[], Collection[Path]] = frozenset,
    ) -> None:
        """Create an instance without folders.

        Args:
            backend: the connection to the backend.
            presenter: shows progress, and errors in ignore files.
            open_paths: the open documents, which the backend has from the editor.
        """
        self._backend = backend
        self._presenter = presenter
        self._roots: dict[str, Path] = {}
        self._ignore_globs: tuple[str, ...] = ()
        self._made_folders: dict[str, WorkspaceFiles] | None = None
        self._failed = False
        self._outside: dict[str, WorkspaceFiles] = {}
        self._kept_outside: set[str] = set()
        self._resolved_roots: dict[str, Path] = {}
        self._keeping: set[asyncio.Task[None]] = set()
        self._changed: dict[Path, None] = {}
        self._scan: asyncio.Task[None] | None = None
        self._sending: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._must_look = False  # whether a look was asked for since the last one began
        self._reading: asyncio.Task[None] | None = None
        self._dependencies: Dependencies | None = None
        self._importing: Callable[[], Mapping[Path, str]] | None = None  # the files whose libraries are to be sent
        self._stop = threading.Event()
        self._open_paths = open_paths

    # --- What may be read ------------------------------------------------------------------------------------

    def set_folders(self, roots: Mapping[str, Path], ignore_globs: Sequence[str]) -> None:
        """Set the window's folders by workspace name, and the user's globs; ignore files are read again."""
        self._roots = dict(roots)
        self._resolved_roots = {}
        self._ignore_globs = tuple(ignore_globs)
        self._made_folders = None
        self._outside.clear()
        self._kept_outside.clear()
        self._failed = False

    @property
    def workspaces(self) -> list[str]:
        """The names of the folders' workspaces."""
        return list(self._roots)

    def is_stale(self, changed: Iterable[Path] | None = None) -> bool:
        """Whether an ignore file that matters has changed since it was read. Blocks: run it in a thread.

        Args:
            changed: what has changed on disk, to do nothing where that is ordinary files only; ``None`` if unknown.
        """
        from forelook_lsp.workspace_files import is_ignore_file

        # A folder may contain ignore files, and what is gone may have been a folder.
        if changed is not None and not any(is_ignore_file(path) or not path.is_file() for path in changed):
            return False
        folders = [*self._folders.values(), *self._outside.values()]
        return any(folder.is_stale for folder in folders)

    def judge(self, uri: str, text: str) -> Verdict:
        """Decide on a document, however its URI is spelled. Blocks: run it in a thread."""
        path = local_path(uri)
        if not self._folders and self._failed:
            return Verdict(NO_WORKSPACE, INVALID_SETTING)
        if path is None:
            workspace = next(iter(self._roots)) if len(self._roots) == 1 else NO_WORKSPACE
            withheld = next(filter(None, map(self._reason_of_name, named_paths(uri))), "")
        else:
            workspace, withheld = self._judge_file(Path(os.path.normpath(path)))
        return Verdict(workspace, withheld or secret_reason(text) or "")

    def _judge_file(self, path: Path) -> tuple[str, str]:
        from forelook.privacy.repository import project_of, workspace_of

        from forelook_lsp.workspace_files import WorkspaceFiles, named_reason

        name = self._folder_of(path)
        if name is not None:
            folder = self._folders.get(name)
            return name, (folder.withheld(path) or "") if folder is not None else INVALID_SETTING
        root = project_of(path)
        name = workspace_of(root)
        files = self._outside.get(name)
        if files is None:
            files = self._outside[name] = WorkspaceFiles(root, self._ignore_globs)
        is_alone = root == path.parent and not files.is_in_repository
        # Without a project around it all of the path counts, as in "~/.aws/config".
        return name, (named_reason(path.as_posix()) if is_alone else None) or files.withheld(path) or ""

    def _reason_of_name(self, name: str) -> str:
        """Why a document that is no file is excluded: by what it is called, or by the file it is a version of."""
        from forelook_lsp.workspace_files import named_reason

        path = Path(os.path.normpath(name))
        folder = self._folders.get(self._folder_of(path) or "") if path.is_absolute() else None
        return (folder.withheld(path) if folder is not None else None) or named_reason(name) or ""

    # --- Sending ---------------------------------------------------------------------------------------------

    def start(self, open_files: Mapping[Path, str], *, with_dependencies: bool) -> None:
        """Send the folders' files, restarting a running scan, and forget files sent before that are excluded now.

        Args:
            open_files: the open files' texts, which rank the others; they are not sent.
            with_dependencies: whether to send the libraries that they import too.
        """
        self.stop()
        if self._folders:
            self._scan = asyncio.get_running_loop().create_task(
                self._send_all(self._as_open_files(open_files), self._stop, with_dependencies=with_dependencies)
            )

    def stop(self) -> None:
        """Stop sending."""
        self._stop.set()
        self._stop = threading.Event()
        if self._scan is not None:
            self._scan.cancel()
            self._scan = None
        self._changed.clear()
        for task in (self._sending, self._looking, self._reading):
            if task is not None:
                task.cancel()
        self._sending = self._looking = self._reading = None
        self._dependencies = None
        self._importing = None

    def send_later(self, paths: Iterable[Path]) -> None:
        """Send files again after they were changed, saved or closed."""
        self._changed.update(dict.fromkeys(paths))
        if self._changed and self._sending is None:
            self._sending = asyncio.get_running_loop().create_task(self._send_changed())

    def forget_dependencies(self) -> None:
        """Remove the libraries from the backend, those that other windows sent too."""
        self._dependencies = None
        self._keep(DEPENDENCIES, [])

    def send_dependencies(self, get_open_files: Callable[[], Mapping[Path, str]]) -> None:
        """Send the libraries that the open files import, after the folders' own files and earlier libraries."""
        if not self._folders:
            return
        self._importing = get_open_files  # not the files: an editor that opens a thousand would have each looked at
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._send_later_dependencies(self._stop))

    def forget(self, paths: Iterable[Path]) -> None:
        """Remove files, or folders with all below them, from the backend: they were deleted, or are excluded now."""
        by_name: dict[str, list[str]] = {}
        for path in paths:
            name = self._folder_of(path)
            if name is not None and name in self._folders:
                by_name.setdefault(name, []).append(self._folders[name].key_of(path))
        for name, keys in by_name.items():
            self._forget_keys(name, keys)

    async def forget_deleted(self, paths: Sequence[Path]) -> None:
        """Remove deleted files and folders; after a folder, look for its files elsewhere."""
        permitted, is_folder = await run_in_thread(partial(self._look_at_deleted, paths))
        self.forget(permitted)
        if is_folder:
            self.look_again()

    def look_again(self) -> None:
        """List the folders again and send what differs, for changes that no event reports."""
        self._must_look = True  # one that has begun may have passed over what has changed
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look_again())

    def keep_outside(self, workspace: str) -> None:
        """Send the names of the permitted files of a workspace that is no folder of the window, once."""
        files = self._outside.get(workspace)
        if files is not None and workspace not in self._kept_outside and self._backend.connected:
            self._kept_outside.add(workspace)
            task = asyncio.get_running_loop().create_task(self._keep_outside(workspace, files))
            self._keeping.add(task)
            task.add_done_callback(self._keeping.discard)

    # --- Inside ----------------------------------------------------------------------------------------------

    def _look_at_deleted(self, paths: Sequence[Path]) -> tuple[list[Path], bool]:
        """The deleted paths that were not excluded, and whether a folder is among them."""
        permitted: list[Path] = []
        is_folder = False
        for path in paths:
            folder = self._folders.get(self._folder_of(path) or "")
            if folder is not None and folder.withheld(path) is None:
                permitted.append(path)
                is_folder = is_folder or folder.contains_listed(path)
        return permitted, is_folder

    async def _look_again(self) -> None:
        try:
            while self._must_look:
                self._must_look = False
                for name, folder in list(self._folders.items()):
                    changed, gone = await run_in_thread(folder.since_listing)
                    self._forget_keys(name, gone)
                    await self._send_files(name, folder, changed)
        except ForelookError as error:
            logger.info("looking for changed files stopped: %s", error)
        finally:
            if self._looking is asyncio.current_task():
                self._looking = None

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
        """The innermost folder that contains ``path``, also where the two are named through different links."""
        containing = [name for name, root in self._roots.items() if path.is_relative_to(root)]
        if not containing:
            if not self._resolved_roots:
                self._resolved_roots = {name: resolved(root) for name, root in self._roots.items()}
            target = resolved(path)
            containing = [name for name, root in self._resolved_roots.items() if target.is_relative_to(root)]
        return max(containing, key=lambda name: len(self._roots[name].parts), default=None)

    def _forget_keys(self, name: str, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), FORGET_AT_ONCE):
            part = tuple(keys[start : start + FORGET_AT_ONCE])
            self._backend.notify(messages.WORKSPACE_FORGET, messages.WorkspaceForgetParams(name, part))

    def _keep(self, name: str, keys: Sequence[str]) -> None:
        """Send the whole list of permitted files; the backend drops the rest."""
        parts = [tuple(keys[start : start + KEEP_AT_ONCE]) for start in range(0, len(keys), KEEP_AT_ONCE)] or [()]
        for number, part in enumerate(parts):
            params = messages.WorkspaceKeepParams(name, part, number, number == len(parts) - 1)
            self._backend.notify(messages.WORKSPACE_KEEP, params)

    async def _keep_outside(self, name: str, files: WorkspaceFiles) -> None:
        from forelook_lsp.workspace_files import keys_outside

        self._keep(name, await run_in_thread(partial(keys_outside, files.root, files)))

    async def _send_changed(self) -> None:
        try:
            while self._changed:
                by_name: dict[str, list[Path]] = {}
                for path in self._changed:
                    by_name.setdefault(self._folder_of(path) or "", []).append(path)
                self._changed.clear()
                for name in by_name.keys() & self._folders.keys():
                    folder = self._folders[name]
                    await self._send_files(name, folder, await run_in_thread(partial(folder.changed, by_name[name])))
        except ForelookError as error:
            logger.info("sending changed files stopped: %s", error)
        finally:
            if self._sending is asyncio.current_task():
                self._sending = None

    async def _send_files(self, name: str, folder: WorkspaceFiles, paths: Sequence[Path]) -> None:
        """Send the texts of files that are not open, and forget those that turn out to be excluded."""
        open_paths = self._open_paths()
        wanted = [path for path in paths if path not in open_paths and self._folder_of(path) == name]
        async for _ in self._send_parts(name, folder.read_parts(wanted, self._stop)):
            pass
        self._forget_keys(name, folder.take_unwanted())

    async def _send_parts(self, name: str, parts: Iterator[list[messages.WorkspaceFile]]) -> AsyncIterator[int]:
        """Send texts part by part, each once the backend has the one before; yield how many files a part has."""
        while part := await run_in_thread(partial(next, parts, None)):
            self._backend.notify(messages.WORKSPACE_FILES, messages.WorkspaceFilesParams(name, tuple(part)))
            yield len(part)
            await self._backend.request(messages.STATUS, messages.Empty())  # which keeps both queues short

    async def _send_all(
        self, open_files: Sequence[OpenFile], stop: threading.Event, *, with_dependencies: bool
    ) -> None:
        progress = self._presenter.show_progress("Forelook: reading the workspace")
        num_sent = 0
        try:
            for name, folder in list(self._folders.items()):
                paths = await run_in_thread(partial(folder.ranked, open_files, stop))
                paths = [path for path in paths if self._folder_of(path) == name]
                for error in folder.errors:
                    self._presenter.log_once(str(error))
                if stop.is_set():
                    break
                self._keep(name, folder.permitted_keys)
                async for num_files in self._send_parts(name, folder.read_parts(paths, stop)):
                    num_sent += num_files
                    progress.report(min(1.0, num_sent / max(1, len(paths))), f"{num_sent} of {len(paths)} files")
                self._forget_keys(name, folder.take_unwanted())
            if with_dependencies:
                await self._send_dependencies(open_files, stop)
        except ForelookError as error:
            logger.info("reading the workspace stopped: %s", error)
        finally:
            progress.end(f"{num_sent} files")

    @staticmethod
    def _as_open_files(texts: Mapping[Path, str]) -> list[OpenFile]:
        from forelook_lsp.workspace_files import OpenFile

        return [OpenFile(path, text) for path, text in texts.items()]

    async def _send_later_dependencies(self, stop: threading.Event) -> None:
        if self._scan is not None:
            await asyncio.wait({self._scan})
        while (get_open_files := self._importing) is not None:
            self._importing = None
            await self._send_dependencies(self._as_open_files(get_open_files()), stop)

    async def _send_dependencies(self, open_files: Sequence[OpenFile], stop: threading.Event) -> None:
        from forelook_lsp.dependencies import Dependencies

        try:
            if self._dependencies is None:
                roots = list(self._roots.values())
                self._dependencies = Dependencies(roots, lambda path: self._folder_of(path) is not None)
            async for _ in self._send_parts(DEPENDENCIES, self._dependencies.new_parts(open_files, stop)):
                pass
        except ForelookError as error:
            logger.info("reading libraries stopped: %s", error)
