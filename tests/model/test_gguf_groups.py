"""4-bit blocks of GGUF files are kept as they are: the same codes, scales and minima, in the order of the forward."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from forelook.errors import CheckpointError
from forelook.model.checkpoint import read_weights
from forelook.model.gguf.blocks import GROUP_READERS, dequantize, read_groups
from forelook.model.gguf.checkpoint import read_checkpoint
from forelook.model.gguf.header import TensorPlace, block_type
from forelook.model.matrix_formats import PlainFormat
from forelook.model.quantization import Groups4
from torch import Tensor

from tests.model.checkpoints import build_reference
from tests.model.gguf_files import write_model

KINDS = ["Q4_0", "Q4_1", "Q4_K"]


def floats(groups: Groups4) -> Tensor:
    scales, minima = (part.repeat_interleave(groups.group_size, 1) for part in (groups.scales, groups.minima))
    return groups.codes * scales + minima


class Recording(PlainFormat):
    """Keeps matrices as floats, and notes which came in 4 bits."""

    takes_groups = True

    def __init__(self) -> None:
        super().__init__(torch.float32)
        self.in_groups: list[Tensor] = []
        self.as_floats: list[Tensor] = []

    def layer(self, weight: Tensor):
        self.as_floats.append(weight)
        return super().layer(weight)

    def layer_of_groups(self, groups: Groups4):
        self.in_groups.append(floats(groups))
        return super().layer(floats(groups))


def read(path: Path, matrices: PlainFormat):
    checkpoint = read_checkpoint(path)
    source = checkpoint.tensors(torch.float32)
    cpu = torch.device("cpu")
    return read_weights(path, checkpoint.config, torch.float32, cpu, lambda _share: None, matrices, source)


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_have_the_values_of_the_gguf_package(kind: str) -> None:
    code = gguf.GGMLQuantizationType[kind]
    form = block_type(code)
    assert form is not None
    rows, blocks = 6, 300_000 // form.num_values // 6 + 1  # more than one chunk
    data = np.random.default_rng(0).integers(0, 256, (rows, blocks * form.num_bytes), dtype=np.uint8)
    halves = data.view(np.float16)
    halves[~np.isfinite(halves)] = 0.25
    place = TensorPlace((rows, blocks * form.num_values), code, form, 0, data.nbytes)
    groups = read_groups(torch.from_numpy(data).view(-1), place)
    assert groups.codes.dtype is torch.uint8
    assert int(groups.codes.max()) == 15
    assert groups.group_size == 32
    expected, _ = dequantize(torch.from_numpy(data).view(-1), place, torch.float32, "test")
    # The formulas round in another order: within a bit of the larger summand.
    scale = 16 * groups.scales.abs().repeat_interleave(32, 1) + groups.minima.abs().repeat_interleave(32, 1)
    assert ((floats(groups) - expected).abs() <= 2e-7 * scale).all()
    assert set(GROUP_READERS) == set(KINDS)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1"])
@pytest.mark.parametrize("variant", ["grouped_queries", "qwen2_bias", "qwen3", "gemma", "starcoder2"])
def test_every_matrix_of_the_layers_arrives_in_its_own_bits_and_order(kind: str, variant: str, tmp_path: Path) -> None:
    model = build_reference(variant, hidden_size=64, intermediate_size=128, num_hidden_layers=2)
    write_model(model, tmp_path / "model.gguf", kind=kind)
    kept, plain = Recording(), Recording()
    plain.takes_groups = False
    read(tmp_path / "model.gguf", kept)
    read(tmp_path / "model.gguf", plain)
    assert (len(kept.in_groups), len(kept.as_floats)) == (8, 0)
    assert read_checkpoint(tmp_path / "model.gguf").four_bit_share == 1.0
    for found, expected in zip(kept.in_groups, plain.as_floats, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_other_formats_are_read_as_floats(tmp_path: Path) -> None:
    model = build_reference("grouped_queries", hidden_size=64, intermediate_size=128, num_hidden_layers=2)
    write_model(model, tmp_path / "model.gguf", kind="Q8_0")
    kept = Recording()
    read(tmp_path / "model.gguf", kept)
    assert (len(kept.in_groups), len(kept.as_floats)) == (0, 8)
    assert read_checkpoint(tmp_path / "model.gguf").four_bit_share == 0.0


def test_a_scale_that_is_not_finite_is_reported(tmp_path: Path) -> None:
    model = build_reference("grouped_queries", hidden_size=64, intermediate_size=128, num_hidden_layers=1)
    write_model(model, tmp_path / "model.gguf", kind="Q4_0")
    checkpoint = read_checkpoint(tmp_path / "model.gguf")
    place = checkpoint.files[0].tensors["blk.0.ffn_down.weight"]
    content = bytearray((tmp_path / "model.gguf").read_bytes())
    content[place.offset : place.offset + 2] = np.float16("inf").tobytes()
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"blk\.0\.ffn_down\.weight contains values that are not finite"):
        read(tmp_path / "model.gguf", Recording())
