"""Ranks other than 0: each runs the requests that rank 0 sends on its own replica of the model."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

from forelook.decoding.drafting.drafter import NO_DRAFTS
from forelook.decoding.layout import StepModel
from forelook.decoding.loop import decode
from forelook.decoding.parallel.exchange import RankSteps, RequestEndedError
from forelook.decoding.parallel.group import RankGroup
from forelook.decoding.parallel.messages import DISMISS, LOAD, UNLOAD, RequestMessage, recipe_from_json
from forelook.errors import ForelookError, RankLostError

logger = logging.getLogger(__name__)

# (max positions) → an empty sequence of this rank's replica
NewSequence = Callable[[int], StepModel]


def follow(
    group: RankGroup,
    new_sequence: NewSequence,
    *,
    load: Callable[[], str] = lambda: "",
    unload: Callable[[], None] = lambda: None,
) -> None:
    """Serve as a rank other than 0 until rank 0 dismisses it.

    Args:
        group: this rank's.
        new_sequence: makes a sequence of this rank's replica; loads the replica first if it is unloaded.
        load: loads the replica, unless it is loaded; returns the name of its weights.
        unload: frees the replica; all its sequences are gone before.

    Raises:
        RankLostError: rank 0, or another rank, is lost.
    """
    sequences: dict[int, StepModel] = {}
    model: StepModel | None = None
    while (values := group.receive()) != DISMISS:
        if values == UNLOAD:
            model = None
            sequences.clear()
            unload()
            continue
        if values == LOAD:
            group.compare_weights(load())
            continue
        message = RequestMessage.from_ints(values)
        for number in set(sequences) - set(message.live_sequences):
            del sequences[number]
        model = sequences.get(message.sequence)
        if model is None:
            model = sequences[message.sequence] = new_sequence(message.max_positions)
        try:
            _follow_request(group, model, message)
        except RankLostError:
            raise
        except ForelookError as error:  # rank 0 knows already; its next request may succeed
            logger.error("rank %d: a request failed: %s", group.rank, error)  # noqa: TRY400 - expected, no traceback


def _follow_request(group: RankGroup, model: StepModel, message: RequestMessage) -> None:
    request = message.request
    recipe = recipe_from_json(message.recipe)
    drafter = NO_DRAFTS if recipe is None else recipe.drafter(request)
    steps = RankSteps(group, message)
    with contextlib.suppress(RequestEndedError), steps:
        for _ in decode(request, model, drafter, partition=steps):
            pass
