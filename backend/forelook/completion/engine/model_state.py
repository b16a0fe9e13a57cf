"""The engine's model over time: loaded, unloaded when idle, reloaded on use; and the status that clients see."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from forelook.completion.completer import Completer
from forelook.completion.engine.drafting import Drafting
from forelook.completion.engine.learning import QUIET_S
from forelook.completion.engine.users import OWNER
from forelook.completion.sequences import SequencePool
from forelook.config import EngineConfig
from forelook.decoding.layout import IntArray
from forelook.decoding.loop import DecodeLoop, decode
from forelook.errors import DecodingError, ForelookError
from forelook.failures import log_failure, logged
from forelook.model.loading import LoadedModel
from forelook.model.model_files import ModelFiles
from forelook.model.tokenizer import CodeTokenizer
from forelook.protocol.generation import ModelFacts
from forelook.protocol.messages import EngineState, Status

_LEARNING = "learning in idle time; requests come first"
_TOLD_SHARE = 0.1  # of the learning between two reports; chosen, not measured

OnProgress = Callable[[float, str], None]
LoadModel = Callable[[OnProgress], LoadedModel]
MakeDrafting = Callable[[LoadedModel], Drafting]


class Loaded:
    """A model in memory, and one completer per user: its KV caches and tokenized lines are that user's alone.

    Args:
        model: shared by all users.
        new_completer: makes a completer without caches.
        loop: runs the decode steps.
    """

    def __init__(self, model: LoadedModel, new_completer: Callable[[], Completer], loop: DecodeLoop = decode) -> None:
        self.model = model
        self.loop = loop
        self._new_completer = new_completer
        self._completers: dict[str, Completer] = {}

    def completer(self, user: str) -> Completer:
        """The completer of a user, made on first use. Only the engine's thread asks."""
        completer = self._completers.get(user)
        if completer is None:
            completer = self._completers[user] = self._new_completer()
        return completer

    def drop(self, user: str) -> None:
        """Free what is cached for a user."""
        self._completers.pop(user, None)

    def caches(self, user: str | None) -> tuple[SequencePool, ...]:
        """The KV caches of a user, ``None`` for all; any thread may ask."""
        completers = tuple(self._completers.items())
        return tuple(completer.sequences for name, completer in completers if user is None or name == user)


class ModelState:
    """Loads and unloads the model. Only the engine's thread calls it; any thread may read ``status`` and ``loaded``.

    The status is READY while an idle model is unloaded: requests are answered, after a reload.

    Args:
        load: loads the model and reports progress as a share and a line of text.
        make_drafting: what drafting knows about a model at first.
        config: the engine's.
        release_memory: returns the memory of an unloaded model to the system.
        on_status: called with every change of the status.

    Attributes:
        loaded: ``None`` while no model is in memory.
        drafting: kept while the model is unloaded.
        tokenizer, facts: likewise; ``None`` before the model was loaded first.
        status: the latest status.
    """

    def __init__(
        self,
        load: LoadModel,
        make_drafting: MakeDrafting,
        config: EngineConfig,
        release_memory: Callable[[], None],
        on_status: Callable[[Status], None],
    ) -> None:
        self._load = load
        self._make_drafting = make_drafting
        self._config = config
        self._release_memory = release_memory
        self._on_status = on_status
        self.loaded: Loaded | None = None
        self._files: ModelFiles | None = None
        self.drafting = Drafting()
        self.tokenizer: CodeTokenizer | None = None
        self.facts: ModelFacts | None = None
        self.status = Status(EngineState.STARTING, message="starting")

    def load(self) -> None:
        """Load for the first time. After a failure the status is ERROR for good."""
        self._set_status(Status(EngineState.LOADING, 0.0, "loading"))
        try:
            model = self._load(self._report_progress)
            self.drafting = self._make_drafting(model)
            self._set_loaded(model)
        except ForelookError as error:
            self._set_status(Status(EngineState.ERROR, message=str(error)))
        except Exception as error:  # noqa: BLE001 - edge of the thread
            log_failure("loading the model", error)
            reason = f"the model cannot be loaded ({type(error).__name__}); run `forelook doctor`"
            self._set_status(Status(EngineState.ERROR, message=reason))

    def reload(self) -> ForelookError | None:
        """Load an unloaded model again; returns why that failed. The next call tries again."""
        try:
            self._set_loaded(self._load(self._report_progress))
        except ForelookError as error:
            failure: ForelookError = error
        except Exception as error:  # noqa: BLE001 - edge of the thread
            log_failure("reloading the model", error)
            failure = DecodingError(f"the model cannot be reloaded ({type(error).__name__}); see the backend's log")
        else:
            return None
        self._set_message(f"not loaded: {failure}")
        return failure

    def unload(self, idle_s: float) -> None:
        """Free the weights and caches but keep the draft statistics."""
        self.loaded = None
        if self.drafting.learning is not None:
            self.drafting.learning.release()
        with logged("releasing memory"):
            self._release_memory()
        self._set_message(f"unloaded after {idle_s:g} s idle; reloads on the next edit")

    def give_up(self, reason: str) -> None:
        """The engine cannot answer any more; another process takes its place."""
        self._set_status(Status(EngineState.STARTING, message=reason))

    @property
    def has_changed_on_disk(self) -> bool:
        """Whether the files of the model, loaded or not, are others than those that were loaded."""
        return self._files is not None and self._files.changed()

    @property
    def is_unloaded(self) -> bool:
        """Whether there is a model that must be reloaded before use."""
        return self.loaded is None and self.status.state is EngineState.READY

    def _set_loaded(self, model: LoadedModel) -> None:
        self._files = model.files
        drafting = self.drafting
        new_completer = partial(
            Completer, model, self._config, budget=drafting.budget, loop=drafting.loop, prefill=drafting.prefill
        )
        self.loaded = Loaded(model, new_completer, drafting.loop)
        self.tokenizer = model.tokenizer
        self.facts = ModelFacts(
            model.name,
            self.loaded.completer(OWNER).num_positions,
            model.tokenizer.vocab_size,
            model.infill.name if model.infill.sees_suffix else "",
            int(time.time()) if self.facts is None else self.facts.loaded_s,
        )
        device = str(model.device)
        self._set_status(Status(EngineState.READY, None, model.status_line, model.name, device, model.weight_format))

    # --- learning in idle time

    def text_changed(self) -> None:
        """Documents or pools may have tokens that the model was not asked about."""
        if self.drafting.learning is not None:
            self.drafting.learning.text_changed()

    def learn_due_s(self, used_s: float) -> float:
        """When the next slice is due after the last use; infinite if there is nothing to learn."""
        learning = self.drafting.learning
        is_due = learning is not None and learning.has_work and self.loaded is not None
        return used_s + QUIET_S if is_due else math.inf

    def learn(self, count_uses: Callable[[int], IntArray], pairs_in_use: Callable[[], IntArray]) -> None:
        """Ask the model about a few tokens or pairs; see :meth:`SuccessorLearning.run_slice`."""
        learning, loaded = self.drafting.learning, self.loaded
        if learning is None or loaded is None:
            return
        if not learning.run_slice(loaded.model, count_uses, pairs_in_use) or not learning.has_work:
            self._set_message(loaded.model.status_line)
        elif self.status.progress is None or learning.share >= self.status.progress + _TOLD_SHARE:
            note = loaded.model.status_line
            self._set_message(f"{note}; {_LEARNING}" if note else _LEARNING, learning.share)

    def _report_progress(self, share: float, line: str) -> None:
        """Progress of the model: while it loads, and while it prepares a step of a new size."""
        if self.status.state is not EngineState.READY:
            if line:
                self._set_status(Status(EngineState.LOADING, share, line))
        elif line:
            self._set_message(line, share)
        elif self.loaded is not None:
            self._set_message(self.loaded.model.status_line)

    def _set_message(self, message: str, progress: float | None = None) -> None:
        self._set_status(replace(self.status, progress=progress, message=message))

    def _set_status(self, status: Status) -> None:
        if status == self.status:
            return
        self.status = status
        with logged("reporting the status"):
            self._on_status(status)
