"""The status of one window: what it consists of, and when the editor is sent which part of it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict, dataclass
from typing import Protocol

from forelook.protocol.messages import EngineState
from forelook.protocol.messages import Status as BackendStatus

logger = logging.getLogger(__name__)

SHOW_AFTER_S = 0.1  # chosen, not measured: docs/decisions.md, "Parts of a running request"


UNSURE = "unsure: the suggestion here is not shown; ask for it, or set forelook.confidence"


class Progress(Protocol):
    """A progress bar of the editor."""

    def report(self, share: float | None, message: str) -> None:
        """Show progress from 0 to 1."""

    def end(self, message: str) -> None:
        """Remove the bar."""


class Editor(Protocol):
    """What a window needs of its editor. Called on the event loop; must not block."""

    def show_status(self, snapshot: Snapshot) -> None:
        """Show a changed status."""

    def show_progress(self, title: str) -> Progress:
        """Show a progress bar, if the editor has one."""

    def log(self, message: str, *, is_error: bool) -> None:
        """Add a line to the editor's log of this server."""

    def tell(self, message: str) -> None:
        """Show a message to the user, who need not react."""


@dataclass(slots=True)
class WindowStatus:
    """The state behind ``forelook/status``.

    Attributes:
        connected: whether the backend is connected.
        backend: the last status of the backend, also of one that is gone; ``None`` before another one is started.
        failure: why there is no backend, after a failed attempt.
        num_running: number of running completions.
        paused: whether suggestions are switched off in this window.
        withheld: why the last document queried gets no suggestions; empty if it does.
        is_unsure: whether the model was not sure enough of the last suggestion to show it.
        over_quota: why the backend answers nothing for now, where the user's key is used up; empty otherwise.
        not_in_effect: which settings of this window the backend does not have, and the fix; empty if it has all.
        last_latency_ms: of the last answer that needed the backend.
        tokens_per_step: of the last completion.
        accept_rate: suggestions used at least in part, over suggestions shown.
        pool_tokens: tokens in the workspace's pool.
    """

    connected: bool = False
    backend: BackendStatus | None = None
    failure: str = ""
    num_running: int = 0
    paused: bool = False
    withheld: str = ""
    is_unsure: bool = False
    over_quota: str = ""
    not_in_effect: str = ""
    last_latency_ms: float | None = None
    tokens_per_step: float | None = None
    accept_rate: float | None = None
    pool_tokens: int | None = None

    @property
    def ready(self) -> bool:
        """Whether a completion would be answered now."""
        return self.connected and self.backend is not None and self.backend.state is EngineState.READY

    @property
    def model_failure(self) -> str:
        """Why the model cannot be loaded, and the remedy; empty unless the last backend said so, which then exits."""
        if self.backend is None or self.backend.state is not EngineState.ERROR:
            return ""
        return f"{self.backend.message or 'the backend reports an error; see its log'}; then restart the backend"

    def snapshot(self) -> Snapshot:
        """Return the status as the editor is sent it."""
        state, message, progress = self._state()
        backend = self.backend
        return Snapshot(
            state=state,
            message=message,
            progress=progress,
            model=backend.model if backend else "",
            device=backend.device if backend else "",
            last_latency_ms=round(self.last_latency_ms, 1) if self.last_latency_ms is not None else None,
            tokens_per_step=round(self.tokens_per_step, 2) if self.tokens_per_step is not None else None,
            accept_rate=round(self.accept_rate, 3) if self.accept_rate is not None else None,
            pool_tokens=self.pool_tokens,
        )

    def _state(self) -> tuple[str, str, float | None]:
        backend = self.backend
        if self.paused:
            return "paused", "suggestions are switched off", None
        if self.model_failure:
            return "error", self.model_failure, None
        if not self.connected or backend is None:
            if self.failure:
                return "error", self.failure, None
            return "starting", "starting the backend", None
        if backend.state in (EngineState.STARTING, EngineState.LOADING):
            return "loading", backend.message or "loading the model", backend.progress
        # A ready backend with progress does more than wait: it reloads the model, prepares a new step or learns.
        busy = backend.message if backend.progress is not None else ""
        if self.num_running:
            return "completing", busy, backend.progress
        # Without progress the backend's message is what it has to say about its model.
        unsure = UNSURE if self.is_unsure else ""
        said = self.withheld or self.over_quota or self.not_in_effect or unsure or backend.message
        return "ready", busy or said, backend.progress


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The params of ``forelook/status``; ``None`` means unknown."""

    state: str
    message: str
    progress: float | None
    model: str
    device: str
    last_latency_ms: float | None
    tokens_per_step: float | None
    accept_rate: float | None
    pool_tokens: int | None

    def to_json(self) -> dict[str, object]:
        """Return the params of ``forelook/status``."""
        return asdict(self)

    def to_copilot(self) -> dict[str, object]:
        """Return the params of ``didChangeStatus``, which clients of Copilot's language server understand."""
        kind = {"error": "Error", "paused": "Inactive"}.get(self.state, "Normal")
        return {"busy": self.state in ("starting", "loading", "completing"), "message": self.message, "kind": kind}


class StatusPresenter:
    """Shows a window's status to its editor when it has changed; errors go to the editor's log too, once."""

    def __init__(self, editor: Editor) -> None:
        """Create a presenter; it shows nothing before ``start``.

        Args:
            editor: where status, progress and log lines go.
        """
        self.status = WindowStatus()
        self.sends_notifications = True
        self._editor = editor
        self._started = False
        self._shown: Snapshot | None = None
        self._loading: Progress | None = None
        self._logged: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Show the status from now on."""
        self._started = True
        self.show()

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def show_soon(self) -> None:
        """Show the status in a moment: an answer has precedence, and a quick one must not make the status flicker."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SHOW_AFTER_S, self.show)

    def show(self) -> None:
        """Show the status if it has changed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        snapshot = self.status.snapshot()
        if not self._started or snapshot == self._shown:
            return
        self._shown = snapshot
        if snapshot.state == "error":
            logger.warning("no suggestions: %s", snapshot.message)
            self.log_once(snapshot.message)  # an editor may not show the status
        if self.sends_notifications:
            self._editor.show_status(snapshot)
        loading = snapshot.state in ("starting", "loading")
        if loading and self._loading is None:
            self._loading = self._editor.show_progress("Forelook: loading the model")
        if self._loading is not None:
            if loading:
                self._loading.report(snapshot.progress, snapshot.message)
            else:
                self._loading.end(snapshot.message or snapshot.state)
                self._loading = None

    def show_progress(self, title: str) -> Progress:
        """Show a progress bar, if the editor has one."""
        return self._editor.show_progress(title)

    def log_once(self, message: str) -> None:
        """Add an error to the editor's log, unless it is there already."""
        if message not in self._logged:
            self._logged.add(message)
            self._editor.log(message, is_error=True)
