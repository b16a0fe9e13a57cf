"""The engine's model over time: loaded, let go when unused, loaded again; and what clients are told of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from forelook.completion.completer import CompletionModel
from forelook.completion.engine.drafting import Drafting
from forelook.completion.faults import guarded, where
from forelook.completion.request import EngineState, EngineStatus
from forelook.errors import DecodingError, ForelookError

_LOG = logging.getLogger(__name__)


class EngineModel(CompletionModel, Protocol):
    """What the engine needs of a loaded model."""

    @property
    def name(self) -> str:
        """As the user gave it."""
        ...

    @property
    def fingerprint(self) -> str:
        """Names model, revision and tokenizer."""
        ...

    @property
    def weight_format(self) -> str:
        """The number format of the weights, as users know it."""
        ...

    @property
    def status_line(self) -> str:
        """What a user should know about this model."""
        ...


LoadModel = Callable[[Callable[[float, str], None]], EngineModel]
MakeDrafting = Callable[[EngineModel], Drafting]


class ModelHolder:
    """Loads and unloads; only the engine's thread calls it, any thread may read ``status``.

    Args:
        load: makes the model, telling its progress.
        make_drafting: measures what drafting wants to know of a model, once.
        release_memory: gives back to the system what an unloaded model held.
        take: given each model that was loaded, before anybody is told that it is ready.
        on_status: told every change of status.
    """

    def __init__(
        self,
        load: LoadModel,
        make_drafting: MakeDrafting,
        release_memory: Callable[[], None],
        take: Callable[[EngineModel], None],
        on_status: Callable[[EngineStatus], None],
    ) -> None:
        self._load = load
        self._make_drafting = make_drafting
        self._release_memory = release_memory
        self._take = take
        self._on_status = on_status
        self.status = EngineStatus(EngineState.STARTING, message="starting")
        self.model: EngineModel | None = None
        self.drafting = Drafting()
        self.is_unloaded = False

    def load(self) -> None:
        """Load for the first time; a failure becomes the status, and every request then gets no suggestion."""
        try:
            self._set_status(EngineState.LOADING, progress=0.0, message="loading")
            model = self._load(self._told)
            self.drafting = self._make_drafting(model)
            self._take(model)
        except ForelookError as error:
            self._set_status(EngineState.ERROR, message=str(error))
        except Exception as error:  # noqa: BLE001 - border of the thread: users are told, requests get no suggestion
            _LOG.error("loading the model failed: %s", where(error))
            reason = f"the model cannot be loaded ({type(error).__name__}); run `forelook doctor`"
            self._set_status(EngineState.ERROR, message=reason)
        else:
            self._is_ready(model)

    def unload(self, unused_s: float) -> None:
        """Let go of the weights; what drafting learned of the model stays."""
        self.model = None
        self.is_unloaded = True
        guarded("giving memory back", self._release_memory)
        self._set_ready_status(None, f"unloaded after {unused_s:g} s without use; loads again when you edit")

    def reload(self) -> ForelookError | None:
        """Load the model again. Clients are told that it is ready all the while, as their requests wait for it."""
        try:
            model = self._load(self._told)
            self._take(model)
        except ForelookError as error:
            failure: ForelookError = error
        except Exception as error:  # noqa: BLE001 - border of the thread: what waits is told, the next one tries again
            _LOG.error("loading the model again failed: %s", where(error))
            failure = DecodingError(f"the model cannot be loaded again ({type(error).__name__}); see the backend's log")
        else:
            self.is_unloaded = False
            self._is_ready(model)
            return None
        self._set_ready_status(None, f"not loaded: {failure}")
        return failure

    def _is_ready(self, model: EngineModel) -> None:
        self.model = model
        self.status = EngineStatus(
            EngineState.READY, None, model.status_line, model.name, str(model.device), model.weight_format
        )
        self._on_status(self.status)

    def _told(self, share: float, line: str) -> None:
        """Progress of the model: while it loads, and when it prepares a step that was never run before."""
        if self.status.state is not EngineState.READY:
            if line:
                self._set_status(EngineState.LOADING, progress=share, message=line)
        elif line:
            self._set_ready_status(share, line)
        elif self.model is not None:
            self._set_ready_status(None, self.model.status_line)

    def _set_ready_status(self, progress: float | None, message: str) -> None:
        self.status = replace(self.status, state=EngineState.READY, progress=progress, message=message)
        self._on_status(self.status)

    def _set_status(self, state: EngineState, *, progress: float | None = None, message: str = "") -> None:
        self.status = EngineStatus(state, progress, message)
        self._on_status(self.status)
