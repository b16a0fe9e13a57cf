"""The open documents and files of the workspaces on their way to the engine's thread.

A command says which document changed, not what its text is: when it runs, it takes the newest snapshot. So the texts of
a fast typist never queue up behind a slow forward, and of each document one text waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from forelook.budgets import text_bytes
from forelook.completion.document_store import Document, DocumentStore
from forelook.completion.engine.inbox import Inbox
from forelook.completion.engine.model_state import Loaded, ModelState
from forelook.completion.engine.pool_keys import pool_key
from forelook.completion.engine.pools import WorkspacePools
from forelook.completion.engine.users import OWNER, Users
from forelook.errors import LimitError
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.protocol.messages import TextChange


class DocumentFeed:
    """Applies what clients send to the mirror at once, and to pools, context and speculation on the engine's thread.

    Args:
        store: the mirror.
        inbox: leads to the engine's thread.
        model, pools, users: belong to the engine's thread.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        store: DocumentStore,
        inbox: Inbox,
        model: ModelState,
        pools: WorkspacePools,
        users: Users,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._inbox = inbox
        self._model = model
        self._pools = pools
        self._users = users
        self._clock = clock
        # Held to ask whether a command waits and to leave it a place: it must not run in between and find none.
        self._places = threading.Lock()
        self._cursors: dict[DocumentKey, int | None] = {}  # of documents whose change waits
        self._rests: dict[DocumentKey, int] = {}  # where a cursor rests, until the engine's thread knows

    # --- the callers' threads

    def open(self, workspace: WorkspaceKey, key: DocumentKey, language_id: str, version: int, text: str) -> None:
        """Mirror a document.

        Raises:
            LimitError: too much waits for the engine.
        """
        former = self._store.find(key)
        document = self._store.open(workspace, key, language_id, version, text)
        if former is not None and former.workspace != workspace:
            self._inbox.command(partial(self._leave, former), is_bounded=False)
        try:
            self._inbox.command(partial(self._opened, key), wants_model=True)
        except LimitError:
            self._store.close(document.key)
            raise

    def change(
        self, key: DocumentKey, version: int, changes: Sequence[TextChange], max_bytes: int | None = None
    ) -> None:
        """Apply changes, each to the text that those before it left; the result may have ``max_bytes`` as UTF-8.

        Raises:
            DocumentError: one of its kinds; nothing was applied.
        """
        self._store.change(key, version, changes, max_bytes=max_bytes)
        with self._places:
            is_waiting = key in self._cursors
            if changes or not is_waiting:
                self._cursors[key] = changes[-1].start + len(changes[-1].text) if changes else None
        if not is_waiting:  # at most one command per document waits
            self._inbox.command(partial(self._changed, key), wants_model=True, is_bounded=False)

    def move_cursor(self, key: DocumentKey, version: int, offset: int) -> None:
        """The cursor rests at a place of a version; a place that has changed meanwhile is ignored.

        Raises:
            UnknownDocumentError: it is not open.
        """
        document = self._store.get(key)
        if version != document.version or offset > len(document.text):
            return
        with self._places:
            is_waiting = key in self._rests
            self._rests[key] = offset
        if not is_waiting:  # at most one command per document waits
            self._inbox.command(partial(self._rested, key), is_bounded=False)

    def close(self, key: DocumentKey) -> None:
        """Forget a document; its text stays in the pool of its workspace.

        Raises:
            UnknownDocumentError: it is not open.
        """
        document = self._store.close(key)
        user, num_bytes = document.workspace.principal, text_bytes(document.text)
        try:
            self._inbox.command(partial(self._closed, document), user=user, num_bytes=num_bytes, is_bounded=False)
        except LimitError:
            document = replace(document, text="")  # the pool keeps what it has of it
            self._inbox.command(partial(self._closed, document), is_bounded=False)

    def add_files(self, workspace: WorkspaceKey, files: Sequence[tuple[str, str]]) -> None:
        """Index files that are not open, at low priority.

        Raises:
            LimitError: too much waits for the engine.
        """

        def add() -> None:
            if (pool := self._pools.get(workspace)) is not None:
                pool.add_files(files)

        num_bytes = sum(text_bytes(text) for _, text in files)
        self._inbox.command(add, wants_model=True, user=workspace.principal, num_bytes=num_bytes)

    def remove_files(self, workspace: WorkspaceKey, paths: Sequence[str]) -> None:
        """Drop files from the pool, or folders with all that is below them."""
        self._inbox.command(partial(self._pools.remove, workspace, paths), is_bounded=False)

    def keep_files(self, workspace: WorkspaceKey, paths: frozenset[str]) -> None:
        """Drop all files from the pool but these and open documents."""
        self._inbox.command(partial(self._pools.keep, workspace, paths), wants_model=True, is_bounded=False)

    # --- the engine's thread

    def _opened(self, key: DocumentKey) -> None:
        document = self._store.find(key)
        if document is None:
            return  # closed again; that command follows
        self._users.of(document.workspace.principal).context.touch(document)
        if (pool := self._pools.get(document.workspace)) is not None:
            pool.open_document(pool_key(document.workspace, key), document.text)

    def _changed(self, key: DocumentKey) -> None:
        with self._places:
            cursor = self._cursors.pop(key, None)
        document = self._store.find(key)
        if document is None:
            return
        self._users.of(document.workspace.principal).context.touch(document)
        if (pool := self._pools.get(document.workspace)) is not None:
            pool.change_document(pool_key(document.workspace, key), document.text)
        if cursor is not None:
            self._users.of(document.workspace.principal).speculation.edited(key, cursor, self._clock())

    def _rested(self, key: DocumentKey) -> None:
        with self._places:
            offset = self._rests.pop(key, None)
        document = self._store.find(key)
        if document is not None and offset is not None:
            self._users.of(document.workspace.principal).speculation.edited(key, offset, self._clock())

    def _closed(self, document: Document) -> None:
        key, user = document.key, self._users.of(document.workspace.principal)
        user.context.forget(key)
        user.speculation.forget(key)
        user.answers.forget(key)
        if (loaded := self._model.loaded) is not None:
            loaded.completer(user.name).forget(key)
            self.drop_unused(user.name, loaded)
        self._leave(document)

    def drop_unused(self, name: str, loaded: Loaded) -> None:
        """Free the KV caches of a user without documents; the owner's are kept."""
        if name != OWNER and not self._users.of(name).keeps_caches and self._store.count(name) == 0:
            loaded.drop(name)

    def _leave(self, document: Document) -> None:
        """The document is open in its workspace no longer; its last text stays in the pool."""
        pool = self._pools.get(document.workspace)
        if pool is None:
            return
        name = pool_key(document.workspace, document.key)
        if document.text and not pool.is_open(name):
            pool.open_document(name, document.text)  # closed before its command ran
        elif document.text:
            pool.change_document(name, document.text)
        pool.close_document(name)
