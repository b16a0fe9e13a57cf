"""Applies the editor's document changes to the mirror and sends them to the backend, except for excluded documents."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from forelook.budgets import ByteBudget, text_bytes
from forelook.errors import LimitError
from forelook.heap import trim_heap
from forelook.privacy.content import LONGEST_SECRET, secret_reason
from forelook.protocol import messages
from forelook.text import utf8_size_above
from forelook.uris import local_path

from forelook_lsp.backend_connection import BackendConnection, run_in_thread
from forelook_lsp.batch_edits import MIN_EDITS, BatchEdits, edit_in_order
from forelook_lsp.indexing import NO_WORKSPACE, Indexing
from forelook_lsp.mirror import Cell, Document, EditorChange, Mirror, Part, smallest_edit
from forelook_lsp.notebooks import Notebook
from forelook_lsp.positions import Lines, PositionEdit
from forelook_lsp.suggestions.requests import SuggestionRequests

logger = logging.getLogger(__name__)

NOT_JUDGED = "it is not known yet whether it may be read"
CONTAINS = "it contains"  # begins every reason that lies in the text
MAX_LOOKED_AT_CHARS = 20_000  # of inserted text on the event loop: 3 ms; chosen, not measured
RETRY_S, MAX_RETRY_S = 2.0, 60.0  # chosen, not measured
TRIM_CHARS = 4_000_000  # closed since memory was last returned; chosen, not measured
TRIM_AFTER_S = 1.0  # chosen, not measured: files are closed together
LINE_BYTES = 40  # of a line's entry in the table of lines: an integer and its place
MAX_CHANGE_CHARS = 1_000_000  # a larger change is sent as a new document; chosen, not measured


@dataclass(frozen=True, slots=True)
class _Unmirrored:
    """An open document that there is no memory for: without its text, its changes mean nothing."""

    language_id: str
    reason: str


def _count_line_ends(text: str) -> int:
    """At least the number of line ends: those of two characters count twice."""
    return text.count("\n") + text.count("\r")


class DocumentSync:
    """The open documents and notebooks of one window."""

    def __init__(
        self,
        mirror: Mirror,
        backend: BackendConnection,
        indexing: Indexing,
        suggestions: SuggestionRequests,
        budget: ByteBudget,
    ) -> None:
        """Create an instance.

        Args:
            mirror: the editor's documents, kept up to date here.
            backend: where the documents are sent.
            indexing: knows each document's workspace and whether it is excluded.
            suggestions: informed of every edit.
            budget: memory for the mirrors of all windows of the process.
        """
        self._budget = budget
        self._window = f"window {id(self)}"
        self._sizes: dict[str, int] = {}  # of the documents in the budget
        self._unmirrored: dict[str, _Unmirrored] = {}
        self._mirror = mirror
        self._backend = backend
        self._indexing = indexing
        self._suggestions = suggestions
        self._notebooks: dict[str, Notebook] = {}
        self._notebook_of: dict[str, Notebook] = {}
        self._num_freed_chars = 0
        self._trim: asyncio.TimerHandle | None = None

    # --- The editor ------------------------------------------------------------------------------------------

    def open(self, uri: str, language_id: str, version: int, text: str) -> None:
        """A document was opened; an open one is replaced."""
        if uri in self._mirror.cells:
            return  # its notebook has it
        self.close(uri)
        if reason := self._reserve(uri, text, _count_line_ends(text)):
            self._unmirrored[uri] = _Unmirrored(language_id, reason)
        else:
            self._add(uri, language_id, version, Lines(text))

    def change(self, uri: str, version: int, changes: Sequence[EditorChange]) -> None:
        """A document or a notebook's cell was changed."""
        part = self._mirror.part(uri)
        if part is None:
            unmirrored = self._unmirrored.get(uri)
            if unmirrored is None:
                logger.warning("changed document is not open; change ignored")
            elif changes and isinstance(changes[-1], str):  # all of its text
                self.open(uri, unmirrored.language_id, version, changes[-1])
            return
        if not changes and version == part.editor_version:
            return  # Neovim up to 0.7 repeats a version so
        if len(changes) < MIN_EDITS:
            self._edit(part, (self._mirror.edit_of(part, change) for change in changes))
        else:
            self._edit_at_once(part, changes)
        cell = self._mirror.cells.get(uri)
        if cell is None:
            document = part.document
            document.editor_version = version
            if reason := self._reserve(uri, document.text, document.lines.num_lines):
                self.close(uri)
                self._unmirrored[uri] = _Unmirrored(document.language_id, reason)
        else:
            cell.version = version
            self._arrange(self._notebook_of[uri])

    def close(self, uri: str) -> bool:
        """A document was closed; return whether the backend had it."""
        self._unmirrored.pop(uri, None)
        self._budget.resize(self._window, self._sizes.pop(uri, 0), 0)
        document = self._mirror.documents.pop(uri, None)
        if document is None:
            return False
        if document.judged is not None:
            document.judged.cancel()
            document.judged = None  # a cancelled task keeps its frame, and that the document: its text would stay
        self._suggestions.closed(uri)
        self._freed(len(document.text))
        if document.sent:
            self._backend.notify(messages.DOCUMENT_CLOSE, messages.DocumentCloseParams(uri))
            self._send_refused()
        return document.sent

    def close_all(self) -> None:
        """The window is gone."""
        for uri in tuple(self._sizes):
            self._budget.resize(self._window, self._sizes.pop(uri), 0)

    def unmirrored(self, uri: str) -> str:
        """Why an open document is not known here; empty if it is."""
        found = self._unmirrored.get(uri)
        return "" if found is None else found.reason

    # --- Notebooks -------------------------------------------------------------------------------------------

    def open_notebook(self, uri: str, cells: Sequence[Cell]) -> None:
        """A notebook was opened; an open one is replaced."""
        self.close_notebook(uri)
        self._notebooks[uri] = notebook = Notebook(uri)
        self._add_cells(notebook, 0, 0, cells)

    def change_notebook(
        self, uri: str, start: int, num_deleted: int, order: Sequence[str], opened: Sequence[Cell]
    ) -> None:
        """Cells were added to a notebook, removed or moved.

        Args:
            uri: the notebook.
            start: the first cell that is replaced.
            num_deleted: number of cells that are replaced.
            order: the URIs of the cells that take their place.
            opened: those of them that are new.
        """
        notebook = self._notebooks.get(uri)
        if notebook is None:
            logger.warning("changed notebook is not open; change ignored")
            return
        known = {**{cell.uri: cell for cell in notebook.cells}, **{cell.uri: cell for cell in opened}}
        self._add_cells(notebook, start, num_deleted, [known[name] for name in order if name in known])

    def close_notebook(self, uri: str) -> bool:
        """A notebook was closed; return whether the backend had any of it."""
        notebook = self._notebooks.pop(uri, None)
        if notebook is None:
            return False
        for cell in notebook.cells:
            self._forget_cell(cell)
        was_sent = [self.close(document.uri) for document in notebook.documents.values()]
        return any(was_sent)

    def _add_cells(self, notebook: Notebook, start: int, num_deleted: int, cells: Sequence[Cell]) -> None:
        for cell in notebook.cells[start : start + num_deleted]:
            self._forget_cell(cell)
        notebook.cells[start : start + num_deleted] = cells
        for cell in notebook.cells:
            self._mirror.cells[cell.uri] = cell
            self._notebook_of[cell.uri] = notebook
        self._arrange(notebook)

    def _forget_cell(self, cell: Cell) -> None:
        self._mirror.cells.pop(cell.uri, None)
        self._notebook_of.pop(cell.uri, None)

    def _arrange(self, notebook: Notebook) -> None:
        """Make the notebook's documents those of its cells."""
        texts = notebook.texts()
        for language in notebook.documents.keys() - texts.keys():
            self.close(notebook.documents.pop(language).uri)
        for language, text in texts.items():
            document = notebook.documents.get(language)
            uri = notebook.document_uri(language)
            if self._reserve(uri, text, _count_line_ends(text)):
                self.close_notebook(notebook.uri)
                return
            if document is None:
                notebook.documents[language] = self._add(uri, language, 1, Lines(text))
            elif document.text != text:
                edit = smallest_edit(document.text, text)
                self._edit(Part(document, document.lines, 0, 0), (edit,))
        notebook.place_cells()

    # --- The backend -----------------------------------------------------------------------------------------

    def send_all(self) -> None:
        """Send all documents to a new backend."""
        for document in self._mirror.documents.values():
            self._send(document)

    def backend_lost(self) -> None:
        """The backend has no documents any more."""
        for document in self._mirror.documents.values():
            document.sent, document.refused = False, ""

    def refused(self, error: messages.NotificationErrorParams) -> None:
        """The backend has refused a document, or a change, and closed it."""
        document = self._mirror.documents.get(error.uri) if error.uri is not None else None
        if document is None:
            return
        document.sent = False
        self._suggestions.closed(document.uri)
        if error.method == messages.DOCUMENT_CHANGE.name:
            self._send(document)  # the two copies differed
        else:
            document.refused = error.message
            document.refused_length = None if error.code == LimitError.code else len(document.text)
            if error.code == LimitError.code:
                self._retry_later(document)

    # --- Exclusion -------------------------------------------------------------------------------------------

    def recheck(self) -> None:
        """Apply changed folders or ignore rules: withdraw documents that are excluded now, send those that are not."""
        for document in self._mirror.documents.values():
            self._judge(document)

    async def judged(self, uri: str) -> None:
        """Wait until it is known whether a document, or a cell's notebook, may be sent."""
        # A verdict may be replaced by another one, as when the folders change.
        while (
            (part := self._mirror.part(uri)) is not None
            and (verdict := part.document.judged) is not None
            and not verdict.done()
        ):
            await asyncio.wait([verdict])

    @property
    def paths(self) -> frozenset[Path]:
        """The files of all open documents."""
        return frozenset(path for uri in self._mirror.documents if (path := local_path(uri)) is not None)

    def open_files(self) -> dict[Path, str]:
        """Return the texts of the open files that are not excluded."""
        return {
            path: document.text
            for document in self._mirror.documents.values()
            if (path := local_path(document.uri)) is not None and not document.withheld
        }

    def workspaces(self) -> list[str]:
        """Return the workspaces of this window's folders and documents."""
        documents = self._mirror.documents.values()
        return sorted({*self._indexing.workspaces, *(document.workspace for document in documents)})

    # --- Memory ----------------------------------------------------------------------------------------------

    def _reserve(self, uri: str, text: str, num_lines: int) -> str:
        """Count a document's memory; return why there is none for it, else an empty text."""
        size = text_bytes(text) + LINE_BYTES * num_lines
        try:
            self._budget.resize(self._window, self._sizes.get(uri, 0), size)
        except LimitError as error:
            logger.warning("a document is left out: %s", error)
            return str(error)
        self._sizes[uri] = size
        return ""

    # --- Inside ----------------------------------------------------------------------------------------------

    def _add(self, uri: str, language_id: str, version: int, lines: Lines) -> Document:
        document = Document(uri, language_id, version, lines, NO_WORKSPACE, NOT_JUDGED)
        document.editor_version = version
        self._mirror.documents[uri] = document
        self._judge(document)
        return document

    def _edit(self, part: Part, changes: Iterable[messages.TextChange]) -> None:
        """Apply changes and send them; an iterator computes each after those before it were applied."""
        document = part.document
        edits: list[messages.TextChange] = []
        for edit in changes:
            self._suggestions.will_edit(document.uri, document.text, edit)
            part.apply(edit)
            edits.append(edit)
        self._edited(document, edits)
        if edits:
            self._suggestions.edited(document, edits[0] if len(edits) == 1 else None)

    def _edit_at_once(self, part: Part, changes: Sequence[EditorChange]) -> None:
        """Apply many changes, and send the one change that has the same effect."""
        document, lines, old = part.document, part.lines, part.lines.text
        is_whole = lines is document.lines
        edits: list[PositionEdit] = []
        for change in changes:
            if isinstance(change, str):  # what came before it is replaced
                lines, edits = Lines(change), []
            else:
                edits.append(change)
        follows = lines is document.lines and self._suggestions.follows(document.uri)
        edited = None if follows else edit_in_order(lines, edits, self._mirror.encoding)
        if edited is None:
            batch = BatchEdits(lines, self._mirror.encoding)
            batch.apply(edits, partial(self._suggestions.will_edit, document.uri) if follows else None)
            edited = batch.lines()
        edit = smallest_edit(old, edited.text)
        whole = messages.TextChange(edit.start + part.start, edit.end + part.start, edit.text)
        if not follows:
            self._suggestions.will_edit(document.uri, document.text, whole)
        part.lines.become(edited)
        if not is_whole:
            document.lines.replace(whole.start, whole.end, whole.text)
        self._edited(document, [whole])
        self._suggestions.edited(document, None)

    def _edited(self, document: Document, edits: Sequence[messages.TextChange]) -> None:
        """Send the edits of a document, or all of its text."""
        document.version += 1
        self._look_for_secrets(document, edits)
        if document.sent:
            if sum(len(edit.text) for edit in edits) > MAX_CHANGE_CHARS or self._too_large(document):
                self._withdraw(document)
                self._send(document)
            else:
                params = messages.DocumentChangeParams(document.uri, document.version, tuple(edits))
                self._backend.notify(messages.DOCUMENT_CHANGE, params)
        elif document.retry is None and (
            document.refused_length is None or len(document.text) < document.refused_length
        ):
            self._send(document)  # what prevented it may have passed

    def _too_large(self, document: Document) -> str:
        limits = self._backend.limits
        if limits is None or utf8_size_above(document.text, limits.max_document_bytes) is None:
            return ""
        return f"longer than {limits.max_document_bytes} bytes, the backend's limit"

    def _too_many(self) -> str:
        limits = self._backend.limits
        num_sent = sum(document.sent for document in self._mirror.documents.values())
        if limits is None or num_sent < limits.max_documents:
            return ""
        return f"more than {limits.max_documents} open documents, the backend's limit; close some"

    def _judge(self, document: Document) -> None:
        """Find out in a thread whether a document may be sent: that reads ignore files and may run git."""
        if document.judged is not None:
            document.judged.cancel()
        document.judged = asyncio.get_running_loop().create_task(self._apply_verdict(document))

    async def _apply_verdict(self, document: Document) -> None:
        verdict = await run_in_thread(partial(self._indexing.judge, document.uri, document.text))
        if self._mirror.documents.get(document.uri) is not document:
            return
        document.judged = None
        if (verdict.withheld, verdict.workspace) == (document.withheld, document.workspace) and document.sent:
            return
        was_sent = document.sent
        document.withheld, document.workspace = verdict.withheld, verdict.workspace
        self._withdraw(document)
        if document.withheld and was_sent:
            self._forget(document)
        self._send(document)
        self._indexing.keep_outside(document.workspace)

    def _look_for_secrets(self, document: Document, edits: Sequence[messages.TextChange]) -> None:
        """Withdraw a document into which a secret is written; judge it once more when an edit may have removed it."""
        if document.withheld.startswith(CONTAINS):
            self._judge(document)
        if document.withheld or not edits:
            return
        inserted = "\n".join(edit.text for edit in edits)
        if len(inserted) > MAX_LOOKED_AT_CHARS:
            self._withdraw(document)
            document.withheld = NOT_JUDGED
            self._judge(document)
            return
        withheld = secret_reason(inserted)
        if withheld is None and len(edits) == 1:
            start = edits[0].start  # typing or a paste may complete a secret that began before
            end = start + len(edits[0].text) + LONGEST_SECRET
            withheld = secret_reason(document.text[max(0, start - LONGEST_SECRET) : end])
        elif withheld is None:
            self._judge(document)
        if withheld is not None:
            document.withheld = withheld
            self._withdraw(document)
            self._forget(document)

    def _freed(self, num_chars: int) -> None:
        """Return memory to the system once documents of some size were closed."""
        self._num_freed_chars += num_chars
        if self._num_freed_chars >= TRIM_CHARS and self._trim is None:
            self._trim = asyncio.get_running_loop().call_later(TRIM_AFTER_S, self._return_memory)

    def _return_memory(self) -> None:
        self._trim, self._num_freed_chars = None, 0
        trim_heap()

    def _forget(self, document: Document) -> None:
        path = local_path(document.uri)
        if path is not None:
            self._indexing.forget([path])

    def _send(self, document: Document) -> None:
        """Send a document, unless it is excluded or over a limit; it is tried again with each change."""
        if document.withheld:
            return
        document.refused_length = None
        document.refused = self._too_large(document) or self._too_many()
        if document.refused:
            return
        params = messages.DocumentOpenParams(
            document.workspace, document.uri, document.language_id, document.version, document.text
        )
        document.sent = self._backend.notify(messages.DOCUMENT_OPEN, params)

    def _retry_later(self, document: Document) -> None:
        """Send a document again that the backend had no room for; other windows make room without notice."""
        document.retry_s = min(2 * document.retry_s, MAX_RETRY_S) or RETRY_S
        document.retry = asyncio.get_running_loop().call_later(document.retry_s, self._retry, document)

    def _retry(self, document: Document) -> None:
        document.retry = None
        if self._mirror.documents.get(document.uri) is document and not document.sent:
            self._send(document)

    def _send_refused(self) -> None:
        """There is room for one more document: send the one opened last of those that were refused."""
        for document in reversed(self._mirror.documents.values()):
            if document.refused and document.refused_length is None:
                self._send(document)
                if document.sent:
                    return

    def _withdraw(self, document: Document) -> None:
        if document.sent:
            document.sent = False
            self._backend.notify(messages.DOCUMENT_CLOSE, messages.DocumentCloseParams(document.uri))
            self._suggestions.closed(document.uri)
            self._send_refused()
