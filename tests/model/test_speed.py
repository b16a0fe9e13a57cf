"""How fast a model would be: the arithmetic, the measurement, and how long that is kept."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from forelook.model import speed as speed_module
from forelook.model.catalogue import CATALOGUE, in_words
from forelook.model.speed import Estimate, MachineSpeed, machine_speed, measure_speed, step_parameters

SPEED = MachineSpeed(50e9, 400e9, 2e-4, 1e-8, "cpu", "bfloat16", 2, 1.0, "2026-11-29", was_busy=False)
ROWS = {row.model: row.config for row in CATALOGUE}


def test_a_step_reads_every_weight_and_a_prompt_multiplies_with_those_of_the_layers() -> None:
    config = ROWS["Qwen/Qwen2.5-Coder-0.5B"]
    found = SPEED.estimate(config)
    assert found.tokens_per_s == pytest.approx(1 / (493_961_216 * 2 / 50e9 + 24 * 2e-4))
    assert found.prompt_s == pytest.approx(2 * 512 * 357_826_560 / 400e9 + 512 * 896 * 24 * 1e-8)


def test_an_embedding_that_is_not_the_head_is_not_read() -> None:
    config = ROWS["deepseek-ai/deepseek-coder-1.3b-base"]
    assert step_parameters(config) == 1_346_371_584 - 32_256 * 2048
    assert step_parameters(replace(config, tied_head=True)) == 1_346_371_584 - 32_256 * 2048


def test_wider_weights_take_longer_to_read() -> None:
    config = ROWS["codellama/CodeLlama-7b-hf"]
    assert replace(SPEED, dtype="float32").estimate(config).tokens_per_s < 0.6 * SPEED.estimate(config).tokens_per_s


def test_large_models_run_in_8_bits_where_that_is_faster() -> None:
    config = ROWS["Qwen/Qwen2.5-Coder-0.5B"]
    found = replace(SPEED, int8_step_share=0.5)
    assert found.estimate(config).tokens_per_s == pytest.approx(1 / (493_961_216 / 50e9 + 24 * 2e-4))
    assert (found.weight_bytes(493_961_216), SPEED.weight_bytes(493_961_216)) == (1, 2)
    assert found.weight_bytes(7_000_000) == 2


def test_words_have_two_digits() -> None:
    assert in_words(Estimate(1047.0, 0.0341)) == "about 1000 tokens/s, 512 new tokens of prompt in 0.034 s"
    assert in_words(Estimate(41.7, 1.234)) == "about 42 tokens/s, 512 new tokens of prompt in 1.2 s"


def test_the_measurement_gives_possible_rates_in_little_time() -> None:
    started_s = time.process_time()
    found = measure_speed(torch.float32)
    assert time.process_time() - started_s < 4.0, "four times the bar, as other programs may have the caches"
    assert 1e8 < found.bytes_per_s < 1e13
    assert 1e8 < found.flops_per_s < 1e15
    assert 1e-7 < found.layer_s < 1.0
    assert 0 <= found.row_s < 1e-3
    assert 0.1 < found.int8_step_share <= 1.0


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[MachineSpeed]:
    """What the next measurements give."""
    results = [replace(SPEED, bytes_per_s=1e9 * number) for number in (3, 2, 1)]
    monkeypatch.setattr(speed_module, "measure_speed", lambda _dtype: results.pop())
    return results


def test_it_is_measured_once(measured: list[MachineSpeed], tmp_path: Path) -> None:
    first = machine_speed(torch.float32, tmp_path)
    assert machine_speed(torch.float32, tmp_path) == first
    assert len(measured) == 2
    assert machine_speed(torch.bfloat16, tmp_path) != first, "another dtype is another measurement"
    assert machine_speed(torch.float32, tmp_path, remeasure=True).bytes_per_s == 3e9
    assert machine_speed(torch.float32, tmp_path).bytes_per_s == 3e9


def test_a_busy_machine_is_measured_again(measured: list[MachineSpeed], tmp_path: Path) -> None:
    measured[-1] = replace(measured[-1], was_busy=True)
    assert machine_speed(torch.float32, tmp_path).was_busy
    assert machine_speed(torch.float32, tmp_path).bytes_per_s == 2e9
    assert machine_speed(torch.float32, tmp_path).bytes_per_s == 2e9


@pytest.mark.parametrize("content", ["", "{}", '{"bytes_per_s": 0}'])
def test_a_damaged_file_is_measured_again(measured: list[MachineSpeed], tmp_path: Path, content: str) -> None:
    machine_speed(torch.float32, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_text(content)
    assert machine_speed(torch.float32, tmp_path).bytes_per_s == 2e9
