"""Muon for whole matrices, Adam for the rest, on float32 masters of weights that compute in bfloat16 or float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


@dataclass(frozen=True, slots=True)
class Rates:
    """Learning rates at their highest.

    Attributes:
        muon: of the layers' matrices.
        adam: of embedding, head, norms and biases.
        factors: of low-rank factors.
        rows: of control tokens' rows.
    """

    muon: float
    adam: float
    factors: float = 0.0
    rows: float = 0.0


FRESH = Rates(muon=0.01, adam=0.001)
"""For weights from scratch, and for those of the starter model."""
PRETRAINED = Rates(muon=0.003, adam=0.0005)
"""For all weights of a pretrained base: those of the first adapter's run, docs/training.md."""
LOW_RANK = Rates(muon=0.0, adam=0.0002, factors=0.0003, rows=0.001)
"""For low-rank differences. Chosen, not measured."""


class MuonAdam:
    """One optimizer over all parameters of a network.

    Matrices of the layers take Muon steps (Jordan et al., 2024): Nesterov momentum, orthogonalized by five
    Newton-Schulz iterations and scaled by ``sqrt(max(1, rows / columns))``. Everything else takes Adam steps: a
    low-rank factor is no matrix of its own. Matrices of one shape are orthogonalized together.

    Args:
        parameters: names and parameters; they may be bfloat16, the masters are float32.
        rates: learning rates.
        momentum: of Muon.
        weight_decay: of the matrices, decoupled, per unit of learning rate.
    """

    def __init__(
        self,
        parameters: Sequence[tuple[str, nn.Parameter]],
        *,
        rates: Rates,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        self._rates = rates
        self._momentum, self._weight_decay = momentum, weight_decay
        self._parameters = dict(parameters)
        self.masters = {name: parameter.detach().float().clone() for name, parameter in parameters}
        self._first = {name: torch.zeros_like(master) for name, master in self.masters.items()}
        self._second = {
            name: torch.zeros_like(master) for name, master in self.masters.items() if not _is_matrix(name, master)
        }
        self._num_steps = 0

    @torch.no_grad()
    def step(self, scale: float, gradients: Mapping[str, Tensor]) -> float:
        """One step at ``scale`` times the learning rates; returns the gradient's norm before clipping at 1.

        Args:
            scale: of the learning rates.
            gradients: by parameter name, float32.
        """
        norm = float(torch.stack([gradient.square().sum() for gradient in gradients.values()]).sum().sqrt())
        clip = min(1.0, 1.0 / (norm + 1e-9))
        self._num_steps += 1
        by_shape: dict[tuple[int, ...], list[str]] = {}
        for name, gradient in gradients.items():
            if _is_matrix(name, gradient):
                by_shape.setdefault(tuple(gradient.shape), []).append(name)
            else:
                self._adam(name, gradient * clip, scale)
        for names in by_shape.values():
            self._muon(names, [gradients[name] for name in names], scale)
        for name, parameter in self._parameters.items():
            parameter.copy_(self.masters[name])
        return norm

    def state_dict(self) -> dict[str, Any]:
        """All that a later run needs to go on as if it had not stopped."""
        return {"masters": self.masters, "first": self._first, "second": self._second, "num_steps": self._num_steps}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state, and the parameters with it."""
        for mine, other in (
            (self.masters, state["masters"]),
            (self._first, state["first"]),
            (self._second, state["second"]),
        ):
            for name, value in mine.items():
                value.copy_(other[name])
        self._num_steps = state["num_steps"]
        for name, parameter in self._parameters.items():
            parameter.copy_(self.masters[name])

    def _adam(self, name: str, gradient: Tensor, scale: float) -> None:
        first, second = self._first[name], self._second[name]
        first.lerp_(gradient, 1 - 0.9)
        second.lerp_(gradient.square(), 1 - 0.98)
        rate = _adam_rate(name, self._rates) * scale
        corrected = (second / (1 - 0.98**self._num_steps)).sqrt_().add_(1e-10)
        self.masters[name].addcdiv_(first, corrected, value=-rate / (1 - 0.9**self._num_steps))

    def _muon(self, names: Sequence[str], gradients: Sequence[Tensor], scale: float) -> None:
        updates = []
        for name, gradient in zip(names, gradients, strict=True):
            momentum = self._first[name].lerp_(gradient, 1 - self._momentum)
            updates.append(gradient.lerp(momentum, self._momentum))
        rate = self._rates.muon * scale
        rows, columns = updates[0].shape
        for name, update in zip(names, orthogonalize(torch.stack(updates)), strict=True):
            master = self.masters[name]
            master.mul_(1 - rate * self._weight_decay)
            master.add_(update, alpha=-rate * max(1.0, rows / columns) ** 0.5)


def orthogonalize(matrices: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices, about: singular values come out between 0.7 and 1.2.

    Args:
        matrices: ``[matrices, rows, columns]``.
    """
    a, b, c = _NEWTON_SCHULZ
    result = matrices.bfloat16()
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    if is_tall:
        result = result.mT
    result = result / (result.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = result @ result.mT
        result = a * result + (b * gram + c * gram @ gram) @ result
    return (result.mT if is_tall else result).float()


def _is_matrix(name: str, value: Tensor) -> bool:
    return value.ndim == 2 and not {"embed_tokens", "lm_head", "parts", "table", "head_table"} & set(name.split("."))


def _adam_rate(name: str, rates: Rates) -> float:
    _, _, last = name.rpartition(".")
    return rates.rows if last == "rows" else rates.factors if last in ("up", "down", "left", "right") else rates.adam
