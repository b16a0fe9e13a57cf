"""The models that benchmarks run in their own process, found as the product finds them."""

from __future__ import annotations

from forelook.commands.cli import command_context
from forelook.local.identity import BackendIdentity
from forelook.model.default_model import load_user_model
from forelook.model.loading import LoadedModel

STARTER = "starter-model"


def load_named(
    model: str | None, *, adapter: str | None = None, device: str = "auto", dtype: str = "auto"
) -> LoadedModel:
    """Load a model by the value of ``--model``; the bundled starter model where none is given.

    Raises:
        ModelError: a subclass that names the problem and the fix.
    """
    identity = BackendIdentity(model or STARTER, None, device, dtype, adapter).normalized()
    return load_user_model(identity, command_context().paths)
