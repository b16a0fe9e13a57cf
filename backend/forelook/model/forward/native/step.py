"""A decode step on a CPU by the compiled kernels: one call for all layers."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forelook.decoding.layout import StepLayout
from forelook.errors import InsufficientMemoryError
from forelook.model.config import LlamaConfig
from forelook.model.families import Activation
from forelook.model.forward.kv_cache import KVCache
from forelook.model.forward.layers import LlamaWeights, Norm
from forelook.model.forward.native.kernels import Kernels
from forelook.model.forward.native.matrices import INPUTS_MULTIPLE, MatrixStruct, NativeMatrix
from forelook.model.forward.projection import Projection

_SIZE_MULTIPLE = 8  # of a head: kernels read eight floats at once


class _LayerStruct(ctypes.Structure):
    """``Layer`` of step.c."""

    _fields_ = (
        ("attention_norm", ctypes.c_void_p),
        ("qkv", MatrixStruct),
        ("head_norm", ctypes.c_void_p),
        ("output", MatrixStruct),
        ("mlp_norm", ctypes.c_void_p),
        ("gate_up", MatrixStruct),
        ("down", MatrixStruct),
    )


class _ModelStruct(ctypes.Structure):
    """``Model`` of step.c."""

    _fields_ = (
        ("num_layers", ctypes.c_int64),
        ("hidden", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("kv_heads", ctypes.c_int64),
        ("head_size", ctypes.c_int64),
        ("norm_eps", ctypes.c_float),
        ("attention_scale", ctypes.c_float),
        ("residual_multiplier", ctypes.c_float),
        ("unused", ctypes.c_float),
        ("layers", ctypes.c_void_p),
        ("final_norm", ctypes.c_void_p),
        ("head", MatrixStruct),
        ("rotations", ctypes.c_void_p),
    )


class _StepStruct(ctypes.Structure):
    """``Step`` of step.c."""

    _fields_ = (
        ("num_tokens", ctypes.c_int64),
        ("prefix", ctypes.c_int64),
        ("cache", ctypes.c_void_p),
        ("layer_stride", ctypes.c_int64),
        ("head_stride", ctypes.c_int64),
        ("positions", ctypes.c_void_p),
        ("visible", ctypes.c_void_p),
        ("logit_rows", ctypes.c_void_p),
        ("num_logit_rows", ctypes.c_int64),
        ("hidden", ctypes.c_void_p),
        ("logits", ctypes.c_void_p),
        ("num_threads", ctypes.c_int64),
    )


def serves_native(config: LlamaConfig) -> bool:
    """Whether ``step.c`` has the mathematics of a model, and its shapes suit the kernels."""
    inputs = (config.hidden_size, config.intermediate_size, config.num_heads * config.head_size)
    return (
        not config.layer_norms
        and config.is_gated
        and config.activation is Activation.SILU
        and config.window is None
        and config.head_size % _SIZE_MULTIPLE == 0
        and all(size % INPUTS_MULTIPLE == 0 for size in inputs)
    )


class NativeStep:
    """Runs the small steps of a model's sequences."""

    def __init__(self, weights: LlamaWeights, kernels: Kernels) -> None:
        """Describe the model to the kernels.

        Args:
            weights: whose matrices are all :class:`~forelook.model.forward.native.matrices.NativeMatrix`.
            kernels: the compiled functions.
        """
        config = weights.config
        self._weights, self._kernels = weights, kernels
        self._kept: list[Tensor] = []  # what the structures point to
        self._layers = (_LayerStruct * config.num_layers)()
        for struct, layer in zip(self._layers, weights.layers, strict=True):
            struct.attention_norm = self._norm(layer.attention_norm)
            struct.qkv = self._matrix(layer.qkv)
            struct.head_norm = None if layer.head_norm is None else self._pointer(layer.head_norm)
            struct.output = self._matrix(layer.output)
            struct.mlp_norm = self._norm(layer.mlp_norm)
            struct.gate_up = self._matrix(layer.gate_up)
            struct.down = self._matrix(layer.down)
        self._model = _ModelStruct(
            config.num_layers,
            config.hidden_size,
            config.num_heads,
            config.num_kv_heads,
            config.head_size,
            config.norm_eps,
            config.attention_scale,
            config.residual_multiplier,
            0.0,
            ctypes.addressof(self._layers),
            self._norm(weights.final_norm),
            self._matrix(weights.head),
            self._pointer(torch.view_as_real(weights.rotations)),
        )

    @staticmethod
    def serves(weights: LlamaWeights) -> bool:
        """Whether a model's matrices were stored for the kernels, which then are there."""
        return isinstance(weights.head.matrix, NativeMatrix) and serves_native(weights.config)

    @staticmethod
    def of(weights: LlamaWeights) -> NativeStep | None:
        """The step of a model that it serves, or ``None``."""
        matrix = weights.head.matrix
        if not isinstance(matrix, NativeMatrix) or not NativeStep.serves(weights):
            return None
        return NativeStep(weights, matrix.kernels)

    def forward(self, cache: KVCache, layout: StepLayout) -> Tensor:
        """Run a tail, as :func:`forelook.model.forward.llama.forward` would.

        Returns:
            [R, V] float32 logits of the layout's logit rows.

        Raises:
            InsufficientMemoryError: there is no memory for the step.
        """
        config, num_tokens = self._weights.config, len(layout)
        hidden = self._weights.embedding.rows(torch.from_numpy(layout.token_ids)).float().contiguous()
        if config.embedding_multiplier != 1.0:
            hidden.mul_(config.embedding_multiplier)
        positions = np.ascontiguousarray(layout.positions, dtype=np.int64)
        rows = np.ascontiguousarray(layout.logit_rows, dtype=np.int64)
        visible = None if layout.visibility is None else np.ascontiguousarray(layout.visibility, dtype=np.bool_)
        logits = torch.empty(len(rows), config.vocab_size)
        storage = cache.storage
        step = _StepStruct(
            num_tokens,
            cache.length,
            storage.data_ptr(),
            storage.stride(0),
            storage.stride(1),
            _address(positions),
            None if visible is None else _address(visible),
            _address(rows) if len(rows) < num_tokens else None,
            len(rows),
            hidden.data_ptr(),
            logits.data_ptr(),
            torch.get_num_threads(),
        )
        if self._kernels.step(ctypes.addressof(self._model), ctypes.addressof(step)):
            raise InsufficientMemoryError(
                f"a step of {num_tokens} tokens ran out of memory; close other programs or choose a smaller model"
            )
        return logits if config.logits_divisor == 1.0 else logits.div_(config.logits_divisor)

    def _matrix(self, projection: Projection) -> MatrixStruct:
        matrix, bias = projection.matrix, projection.bias
        assert isinstance(matrix, NativeMatrix), "all matrices of a model have one kind of format"
        if bias is not None:
            bias = bias.float().contiguous()
            self._kept.append(bias)
        return matrix.struct(bias)

    def _norm(self, norm: Norm) -> int:
        return self._pointer(norm.weight[: self._weights.config.hidden_size])

    def _pointer(self, tensor: Tensor) -> int:
        self._kept.append(tensor.float().contiguous())
        return self._kept[-1].data_ptr()


def _address(array: NDArray[Any]) -> int:
    return int(array.ctypes.data)
