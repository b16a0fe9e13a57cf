"""The kernels of quantized matrices on a CPU: close to a float reference, and the same for a row in whatever tail."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from forelook.errors import UnsupportedArchitectureError
from forelook.model.forward.matrix import Matrix
from forelook.model.forward.quantized import STEP_ROWS, IntegerMatrix8, Matrix4, Matrix8, converted
from forelook.model.quantization import Groups4, Rows8, quantize_groups, quantize_rows
from torch import Tensor

INPUTS = 96

needs_integers = pytest.mark.skipif(not IntegerMatrix8.serves(), reason="torch has no integer kernel here")
Build = Callable[[Tensor, torch.dtype], Matrix]
KERNELS: dict[str, Build] = {
    "int8": lambda weight, dtype: Matrix8(quantize_rows(weight), dtype),
    "integer": lambda weight, dtype: IntegerMatrix8(quantize_rows(weight), dtype),
    "int4": lambda weight, dtype: Matrix4(quantize_groups(weight), dtype),
}
kernels = pytest.mark.parametrize("kernel", ["int8", pytest.param("integer", marks=needs_integers), "int4"])


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def floats(stored: Rows8 | Groups4) -> Tensor:
    """The weight that a quantized matrix stands for."""
    if isinstance(stored, Rows8):
        return stored.codes * stored.scales.float()[:, None]
    scales, minima = (part.repeat_interleave(32, 1) for part in (stored.scales, stored.minima))
    return stored.codes * scales + minima


@kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_rows", [1, 2, 5, 16, 40])
def test_product_is_that_of_the_quantized_weight(kernel: str, dtype: torch.dtype, num_rows: int) -> None:
    weight, bias = random(80, INPUTS), random(80, seed=1)
    x = random(num_rows, INPUTS, seed=2) * torch.logspace(-2, 2, num_rows)[:, None]
    x[:, 7] *= 30  # models have such inputs
    x = x.to(dtype)
    stored = quantize_groups(weight) if kernel == "int4" else quantize_rows(weight)
    expected = x.float() @ floats(stored).T + bias.to(dtype).float()
    found = KERNELS[kernel](weight, dtype).product(x, bias.to(dtype))
    assert found.dtype is dtype
    error = (found.float() - expected).norm(dim=1) / expected.norm(dim=1)
    # Activations have 14 bits in the integer kernel and 8 in the others.
    assert float(error.max()) < (0.002 if kernel == "integer" and dtype is torch.float32 else 0.01)


@kernels
@pytest.mark.parametrize("outputs", [64, 80, 272])
def test_a_row_has_the_same_numbers_in_whatever_tail(kernel: str, outputs: int) -> None:
    matrix = KERNELS[kernel](random(outputs, 2 * INPUTS), torch.float32)
    x = random(STEP_ROWS, 2 * INPUTS, seed=3)
    whole = matrix.product(x, None)
    for count in range(1, STEP_ROWS + 1):
        assert torch.equal(matrix.product(x[:count], None), whole[:count])
        other = torch.cat([100 * random(STEP_ROWS - count, 2 * INPUTS, seed=4), x[:count]])
        assert torch.equal(matrix.product(other, None)[STEP_ROWS - count :], whole[:count])


@needs_integers
def test_a_row_of_zeros_is_no_division_by_zero() -> None:
    assert torch.equal(
        KERNELS["integer"](random(32, 64), torch.float32).product(torch.zeros(2, 64), None), torch.zeros(2, 32)
    )


@pytest.mark.parametrize("outputs", [16, 64, 80, 192, 4176])
@pytest.mark.parametrize("bits", [8, 4])
def test_matrices_convert_back_to_the_weights_they_stand_for(bits: int, outputs: int) -> None:
    weight = random(outputs, 64)
    stored: Rows8 | Groups4 = quantize_rows(weight) if bits == 8 else quantize_groups(weight)
    matrix = Matrix8(stored, torch.float32) if isinstance(stored, Rows8) else Matrix4(stored, torch.float32)
    expected = floats(stored)
    # A zero point is stored in bfloat16.
    torch.testing.assert_close(matrix.transposed(0, outputs).T, expected, atol=0.03, rtol=0.01)
    if isinstance(stored, Rows8):
        assert torch.equal(matrix.transposed(0, outputs).T, expected)
        assert torch.equal(Matrix8(stored, torch.float32).rows(torch.tensor([7, 0, 7])), expected[[7, 0, 7]])
    x = random(3, 64, seed=5)
    exact = x @ matrix.transposed(0, outputs)
    torch.testing.assert_close(converted(matrix).product(x, None), exact, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kernel", ["int8", "int4"])
def test_many_rows_are_multiplied_with_floats(kernel: str) -> None:
    weight, x, bias = random(128, INPUTS), random(20, INPUTS, seed=6), random(128, seed=7)
    stored = quantize_groups(weight) if kernel == "int4" else quantize_rows(weight)
    build = Matrix4 if isinstance(stored, Groups4) else Matrix8
    kept, converted = build(stored, torch.float32), build(stored, torch.float32, 20)  # type: ignore[arg-type]
    exact = x @ kept.transposed(0, 128) + bias
    torch.testing.assert_close(converted.product(x, bias), exact, atol=1e-4, rtol=1e-4)
    assert float((kept.product(x, bias) - exact).abs().max()) > 1e-3, "the kernel itself rounds activations"
    assert torch.equal(converted.product(x[:19], bias), kept.product(x[:19], bias)), "fewer rows do not convert"


def test_large_matrices_are_converted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forelook.model.forward.quantized._MAX_DENSE_VALUES", 64 * 64)
    weight, x, bias = random(208, 64), random(3, 64, seed=8), random(208, seed=9)
    for matrix in (
        Matrix8(quantize_rows(weight), torch.float32, 1),
        Matrix4(quantize_groups(weight), torch.float32, 1),
    ):
        exact = x @ matrix.transposed(0, 208) + bias
        torch.testing.assert_close(matrix.product(x, bias), exact, atol=1e-4, rtol=1e-4)


def test_four_bit_codes_are_stored_as_they_are() -> None:
    """A matrix whose scales and zero points bfloat16 can hold has exactly the weights that it was made of."""
    generator = torch.Generator().manual_seed(10)
    codes = torch.randint(0, 16, (80, 64), generator=generator, dtype=torch.uint8)
    scales = 2.0 ** torch.randint(-6, 3, (80, 2), generator=generator)
    groups = Groups4(codes, scales, -8 * scales)
    assert torch.equal(Matrix4(groups, torch.float32).transposed(0, 80).T, floats(groups))
    eye = Matrix4(groups, torch.float32).product(torch.eye(64), None)
    assert torch.equal(eye.T, floats(groups)), "the kernel's own weights"


@pytest.mark.parametrize("shape", [(64, 48), (72, 64)])
def test_shapes_without_a_kernel_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(UnsupportedArchitectureError, match="choose dtype int8"):
        Matrix4.check_shape(*shape)
    assert not Matrix8.serves(24)
