"""Sends a window's status, progress and log lines to its editor as LSP notifications."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

from lsprotocol import types
from pygls.exceptions import JsonRpcException

from forelook_lsp.status import Progress, Snapshot

if TYPE_CHECKING:
    from forelook_lsp.lsp_protocol import ForelookProtocol

STATUS_METHOD = "forelook/status"
COPILOT_STATUS_METHOD = "didChangeStatus"


class LspEditor:
    """One editor on one connection.

    Attributes:
        shows_progress: whether the client supports ``window.workDoneProgress``.
        speaks_copilot: whether it also receives Copilot's ``didChangeStatus``.
    """

    def __init__(self, protocol: ForelookProtocol) -> None:
        """Create an editor without progress bars.

        Args:
            protocol: the connection.
        """
        self._protocol = protocol
        self.shows_progress = False
        self.speaks_copilot = False

    def show_status(self, snapshot: Snapshot) -> None:
        """Send the status in each form that the editor understands."""
        self._protocol.notify(STATUS_METHOD, snapshot.to_json())
        if self.speaks_copilot:
            self._protocol.notify(COPILOT_STATUS_METHOD, snapshot.to_copilot())

    def show_progress(self, title: str) -> Progress:
        """Show a progress bar, if the editor has one."""
        return _LspProgress(self._protocol, title) if self.shows_progress else _NoProgress()

    def log(self, message: str, *, is_error: bool) -> None:
        """Add a line to the editor's log of this server."""
        kind = types.MessageType.Error if is_error else types.MessageType.Info
        self._protocol.notify(types.WINDOW_LOG_MESSAGE, types.LogMessageParams(kind, message))

    def tell(self, message: str) -> None:
        """Show a message to the user, who need not react."""
        params = types.ShowMessageParams(types.MessageType.Info, message)
        self._protocol.notify(types.WINDOW_SHOW_MESSAGE, params)


class _NoProgress:
    def report(self, share: float | None, message: str) -> None:
        pass

    def end(self, message: str) -> None:
        pass


class _LspProgress:
    """A progress bar; it shows the latest report once the editor has created it."""

    def __init__(self, protocol: ForelookProtocol, title: str) -> None:
        self._protocol = protocol
        self._title = title
        self._token = str(uuid.uuid4())
        self._shown: tuple[int | None, str] | None = None
        self._latest: tuple[int | None, str] = (None, "")
        self._started = False
        self._ended: str | None = None
        self._creating = asyncio.get_running_loop().create_task(self._create())

    def report(self, share: float | None, message: str) -> None:
        self._latest = (round(share * 100) if share is not None else None, message)
        if self._started and self._latest != self._shown:
            self._shown = self._latest
            self._send(types.WorkDoneProgressReport(percentage=self._latest[0], message=self._latest[1]))

    def end(self, message: str) -> None:
        self._ended = message
        if self._started:
            self._started = False
            self._send(types.WorkDoneProgressEnd(message=message))

    async def _create(self) -> None:
        params = types.WorkDoneProgressCreateParams(self._token)
        try:
            await self._protocol.send_request_async(types.WINDOW_WORK_DONE_PROGRESS_CREATE, params)
        except JsonRpcException:
            return  # the editor refused it
        if self._ended is not None:
            return
        self._started = True
        self._shown = self._latest
        percentage, message = self._latest
        self._send(types.WorkDoneProgressBegin(title=self._title, percentage=percentage or 0, message=message))

    def _send(
        self, value: types.WorkDoneProgressBegin | types.WorkDoneProgressReport | types.WorkDoneProgressEnd
    ) -> None:
        self._protocol.notify(types.PROGRESS, types.ProgressParams(self._token, value))
