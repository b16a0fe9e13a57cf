"""Gradients of a step, added up in float32 over passes and ranks."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from training.network import Network
from training.ranks import Ranks


class Gradients:
    """The weighted mean of several passes' gradients, as one pass over all of their samples would give it.

    A step of small passes is faster on a CPU, whose caches then hold what a pass computes; bfloat16 sums over many
    passes would lose the small ones.
    """

    def __init__(self, network: Network) -> None:
        self._parameters = dict(network.trained())
        sizes = [parameter.numel() for parameter in self._parameters.values()]
        device = next(network.parameters()).device
        # The last element is the weight of all passes: it is added up over the ranks with the rest.
        self._flat = torch.zeros(sum(sizes) + 1, device=device)
        views = self._flat[:-1].split(sizes)
        self._sums = {
            name: view.view_as(parameter)
            for (name, parameter), view in zip(self._parameters.items(), views, strict=True)
        }

    @torch.no_grad()
    def add(self, weight: float) -> None:
        """Take over the parameters' gradients, those of a mean over samples that weigh ``weight``."""
        for name, parameter in self._parameters.items():
            if parameter.grad is not None:
                self._sums[name].add_(parameter.grad, alpha=weight)
                parameter.grad = None
        self._flat[-1] += weight

    @torch.no_grad()
    def take(self, ranks: Ranks) -> Mapping[str, torch.Tensor]:
        """The mean of everything added on any rank, in float32; valid until :meth:`clear`."""
        ranks.add_up(self._flat)
        self._flat[:-1] /= self._flat[-1].clamp_min(1e-9)
        return self._sums

    def clear(self) -> None:
        """Begin the next step."""
        self._flat.zero_()
