"""What the status item of an editor shows: one snapshot, and when it is worth sending."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from forelook.protocol.messages import Status as BackendStatus


@dataclass(slots=True)
class WindowStatus:
    """The state behind ``forelook/status``.

    Attributes:
        connected: whether there is a backend.
        backend: what the backend last said of its model.
        failure: why there is no backend, once an attempt has failed.
        num_running: completions under way.
        paused: whether suggestions are switched off in this window.
        withheld: why the last document asked about gets no suggestions, empty where it does.
    """

    connected: bool = False
    backend: BackendStatus | None = None
    failure: str = ""
    num_running: int = 0
    paused: bool = False
    withheld: str = ""
    last_latency_ms: float | None = None
    tokens_per_step: float | None = None
    accept_rate: float | None = None
    pool_tokens: int | None = None

    @property
    def ready(self) -> bool:
        """Whether a completion would be answered now."""
        return self.connected and self.backend is not None and self.backend.state == "ready"

    def snapshot(self) -> Snapshot:
        """What the editor is told."""
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
        if not self.connected or backend is None:
            if self.failure:
                return "error", self.failure, None
            return "starting", "starting the backend", None
        if backend.state in ("starting", "loading"):
            return "loading", backend.message or "loading the model", backend.progress
        if backend.state == "error":
            return "error", backend.message or "the backend reports an error; its log says more", None
        # Ready and busy with itself: it loads again after a rest, or prepares a step that it never ran before.
        busy = backend.message if backend.progress is not None else ""
        if self.num_running:
            return "completing", busy, backend.progress
        return "ready", busy or self.withheld, backend.progress


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The params of ``forelook/status``; ``None`` means not known yet."""

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
        """For ``forelook/status``."""
        return asdict(self)

    def to_copilot(self) -> dict[str, object]:
        """For ``didChangeStatus``, which clients of Copilot's language server understand."""
        kind = {"error": "Error", "paused": "Inactive"}.get(self.state, "Normal")
        return {
            "busy": self.state in ("starting", "loading", "completing"),
            "message": self.message,
            "kind": kind,
        }
