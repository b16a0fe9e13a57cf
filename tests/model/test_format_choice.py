"""Which format ``auto`` chooses, and which kernel, by simulated times."""

from __future__ import annotations

import pytest
import torch
from forelook.compiled import Compiled
from forelook.model import format_choice
from forelook.model.config import LlamaConfig, parse_config
from forelook.model.forward.kernel_choice import NATIVE, PLAIN, STEP_SIZES, KernelChoice, choose, kernel_choice
from forelook.model.forward.matrix import dense
from forelook.model.forward.native.kernels import Kernels
from forelook.model.forward.quantized import NEVER, STEP_ROWS, IntegerMatrix8, Matrix4, Matrix8
from forelook.model.matrix_formats import CpuQuantizedFormat, NativeFormat

CPU = torch.device("cpu")
SMOL = {
    "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}  # fmt: skip


@pytest.fixture
def config() -> LlamaConfig:
    return parse_config(SMOL, "config.json")


def flat(**seconds: float) -> dict[str, dict[int, float]]:
    return {name: dict.fromkeys(STEP_SIZES, value) for name, value in seconds.items()}


def prefill(kept: list[float], converted: list[float]) -> dict[str, dict[int, float]]:
    sizes = (32, 64, 128)
    return {"kept": dict(zip(sizes, kept, strict=True)), "converted": dict(zip(sizes, converted, strict=True))}


SLOW_CONVERSION = prefill([1, 2, 4], [9, 9, 9])


def test_fastest_kernel_of_a_step_is_chosen() -> None:
    assert choose(flat(float=2, integer=1, plain=4), SLOW_CONVERSION).kernel == "integer"
    assert choose(flat(float=1, integer=2, plain=4), SLOW_CONVERSION).kernel == "float"


def test_a_kernel_that_is_slower_than_floats_is_not_used() -> None:
    found = choose(flat(float=2, integer=3, plain=1.9), SLOW_CONVERSION)
    assert found.kernel == PLAIN
    assert found.step_s == found.plain_step_s == dict.fromkeys(STEP_SIZES, 1.9)
    assert choose(flat(float=1.0, plain=1.01), SLOW_CONVERSION).kernel == PLAIN, "a tie is no gain"


def test_matrix_is_converted_from_the_number_of_rows_where_that_is_faster_and_stays_so() -> None:
    assert choose(flat(float=1, plain=2), prefill([1, 2, 4], [2, 1, 1])).dense_from == 64
    assert choose(flat(float=1, plain=2), prefill([4, 4, 4], [1, 5, 1])).dense_from == 128
    assert choose(flat(float=1, plain=2), prefill([4, 4, 4], [1, 1, 1])).dense_from == 32 > STEP_ROWS
    assert choose(flat(float=1, plain=2), SLOW_CONVERSION).dense_from == NEVER


@pytest.mark.parametrize(
    ("kernel", "kind"), [("float", Matrix8), ("integer", IntegerMatrix8), (PLAIN, type(dense(torch.ones(64, 64))))]
)
def test_matrices_are_kept_for_the_chosen_kernel(kernel: str, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernel == "integer" and not IntegerMatrix8.serves():
        pytest.skip("torch has no integer kernel here")
    chosen = KernelChoice(kernel, NEVER, {}, {})
    monkeypatch.setattr("forelook.model.matrix_formats.kernel_choice", lambda *_args, **_kwargs: chosen)
    generator = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(rows, 64, generator=generator) for rows in (64, 2))
    kept = CpuQuantizedFormat("int8", torch.float32, is_cold=False)
    assert type(kept.layer(weight)) is kind
    table = kept.embedding(weight)
    head = kept.tied_head(table, weight)
    assert (head is table) == (kernel == "float"), "one copy, unless its kernel cannot read rows"
    torch.testing.assert_close(head.product(x, None), x @ table.rows(torch.arange(64)).T, atol=0.2, rtol=0.02)
    if kernel != "integer":
        four = CpuQuantizedFormat("int4", torch.float32, is_cold=False).layer(weight)
        assert type(four) is (Matrix4 if kernel == "float" else kind)


def test_a_measurement_covers_all_sizes_and_takes_little_time() -> None:
    found = kernel_choice("int8", (96, 64), torch.float32, is_cold=False)
    assert set(found.step_s) == set(found.plain_step_s) == set(STEP_SIZES)
    assert all(seconds > 0 for seconds in found.step_s.values())
    wide = kernel_choice("int8", (4 * 2048, 64), torch.float32, is_cold=False)
    narrow = kernel_choice("int8", (2048, 64), torch.float32, is_cold=False)
    assert wide.step_s[1] == pytest.approx(4 * narrow.step_s[1]), "a wide matrix is measured in part"


def simulate(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    def choice(kind: str, shape: tuple[int, int], *_args: object, **_kwargs: object) -> KernelChoice:
        size = shape[0] * shape[1] / 1e6
        plain = dict.fromkeys(STEP_SIZES, seconds["plain"] * size)
        best = min(seconds[kind], seconds["plain"])
        return KernelChoice("float", NEVER, dict.fromkeys(STEP_SIZES, best * size), plain)

    monkeypatch.setattr(format_choice, "kernel_choice", choice)
    monkeypatch.setattr(format_choice, "native_kernels", lambda: Compiled(None, "no C compiler was found"))


def simulate_native(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    """Compiled kernels that take so long per million weights."""

    def choice(kind: str, shape: tuple[int, int], *_args: object, **_kwargs: object) -> KernelChoice:
        size = shape[0] * shape[1] / 1e6
        times = (dict.fromkeys(STEP_SIZES, seconds[name] * size) for name in (kind, "torch"))
        return KernelChoice(NATIVE, NEVER, *times)

    monkeypatch.setattr(format_choice, "native_choice", choice)
    kernels = Kernels(None, None)  # nothing is multiplied here
    monkeypatch.setattr(format_choice, "native_kernels", lambda: Compiled(kernels, "compiled for this test"))


def test_compiled_kernels_serve_all_matrices_or_none(config: LlamaConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(monkeypatch, int8=1e-5, int4=1e-5, plain=2e-5)
    simulate_native(monkeypatch, int8=0.5e-5, int4=0.7e-5, plain=1e-5, torch=2e-5)
    found = format_choice.choose_format("auto", torch.float32, CPU, config, 1.0)
    assert found.name == "int8"
    assert isinstance(found.matrices, NativeFormat)
    assert "compiled for this test take 25% of the time of torch's float32 products" in found.reason
    assert format_choice.LOSS in found.reason
    assert format_choice.choose_format("int4", torch.float32, CPU, config).name == "int4"
    assert "as set" in format_choice.choose_format("float32", torch.float32, CPU, config).reason
    # Torch's operators cost a part of a step that products do not show.
    simulate_native(monkeypatch, int8=1.2e-5, torch=2e-5)
    assert isinstance(format_choice.choose_format("auto", torch.float32, CPU, config).matrices, NativeFormat)
    simulate_native(monkeypatch, int8=1.4e-5, torch=2e-5)
    assert isinstance(format_choice.choose_format("auto", torch.float32, CPU, config).matrices, CpuQuantizedFormat)


def test_four_bits_of_the_file_stay_where_compiled_kernels_are_fastest_with_them(
    config: LlamaConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(monkeypatch, int8=1e-5, int4=1e-5, plain=2e-5)
    simulate_native(monkeypatch, int8=0.7e-5, int4=0.5e-5, torch=2e-5)
    assert format_choice.choose_format("auto", torch.float32, CPU, config, 1.0).name == "int4"
    assert format_choice.choose_format("auto", torch.float32, CPU, config, 0.1).name == "int8"


def test_small_models_stay_floats_by_compiled_kernels_too(monkeypatch: pytest.MonkeyPatch) -> None:
    small = parse_config({**SMOL, "num_hidden_layers": 2}, "config.json")
    simulate(monkeypatch, int8=1e-5, int4=1e-5, plain=2e-5)
    simulate_native(monkeypatch, plain=1e-5, torch=2e-5)
    found = format_choice.choose_format("auto", torch.float32, CPU, small)
    assert found.name == "float32"
    assert isinstance(found.matrices, NativeFormat)
    assert "below 100 million parameters" in found.reason


def test_auto_is_the_fastest_that_loses_little(config: LlamaConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(monkeypatch, int8=1e-5, int4=0.5e-5, plain=2e-5)
    found = format_choice.choose_format("auto", torch.float32, CPU, config)
    assert (found.quantized, found.name, found.dtype) == ("int8", "int8", torch.float32)
    assert "int8 1.3 ms, float32 2.7 ms" in found.reason
    assert format_choice.LOSS in found.reason
    assert "int4" not in found.reason, "four bits lose more than is allowed"


def test_auto_keeps_a_files_own_four_bits(config: LlamaConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(monkeypatch, int8=1e-5, int4=0.5e-5, plain=2e-5)
    found = format_choice.choose_format("auto", torch.float32, CPU, config, four_bit_share=1.0)
    assert found.name == "int4"
    assert "as in the file" in found.reason
    simulate(monkeypatch, int8=0.5e-5, int4=1e-5, plain=2e-5)
    assert format_choice.choose_format("auto", torch.float32, CPU, config, four_bit_share=1.0).name == "int8"


def test_auto_keeps_floats_where_they_are_faster_or_the_model_is_small(
    config: LlamaConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(monkeypatch, int8=2e-5, int4=2e-5, plain=1e-5)
    assert format_choice.choose_format("auto", torch.float32, CPU, config, 1.0).name == "float32"
    simulate(monkeypatch, int8=1e-5, int4=1e-5, plain=2e-5)
    small = parse_config({**SMOL, "num_hidden_layers": 2}, "config.json")
    found = format_choice.choose_format("auto", torch.bfloat16, CPU, small)
    assert found.name == "bfloat16"
    assert "below 100 million parameters" in found.reason
    odd = parse_config({**SMOL, "intermediate_size": 1540}, "config.json")
    assert format_choice.choose_format("auto", torch.float32, CPU, odd).name == "float32"


def test_a_set_format_is_not_measured_against_others(config: LlamaConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(monkeypatch, int8=2e-5, int4=2e-5, plain=1e-5)
    assert format_choice.choose_format("int4", torch.float32, CPU, config).quantized == "int4"
    assert format_choice.choose_format("float32", torch.float32, CPU, config).quantized is None
    assert format_choice.choose_format("auto", torch.bfloat16, torch.device("cuda"), config).name == "bfloat16"
