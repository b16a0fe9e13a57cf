"""The forward pass against transformers on the same weights, and against recomputation in float64."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from forelook.decoding.autoregressive import autoregressive
from forelook.decoding.layout import StepLayout, causal_layout
from forelook.decoding.limits import Limits
from forelook.decoding.lookahead.published import PublishedSettings
from forelook.decoding.request import DecodeRequest
from forelook.errors import ConfigError, ContextOverflowError, TokenizerError
from forelook.model.families import FAMILIES
from forelook.model.forward.attention import AttentionBackend, attend_torch_flash
from forelook.model.forward.llama import LlamaSequence
from forelook.model.forward.static_step import BucketedSequence, StepSpace
from forelook.model.forward.step_ops import plain_ops
from forelook.model.loading import STARTER_MODEL_PATH, LoadedModel, load_model
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel

from tests.decoding.streams import drafted, published
from tests.model.checkpoints import VARIANTS, build_reference, save

TOLERANCE = 1e-4


def load(model: PreTrainedModel, folder: Path, dtype: str = "float32") -> LoadedModel:
    return load_model(str(save(model, folder)), device="cpu", dtype=dtype)


def random_ids(count: int, vocab_size: int, seed: int = 1) -> list[int]:
    return np.random.default_rng(seed).integers(0, vocab_size, count).tolist()


def random_tree(num_tokens: int, start: int, vocab_size: int, seed: int) -> StepLayout:
    """A tail in which each token's parent is a random earlier one, or the committed prefix."""
    rng = np.random.default_rng(seed)
    visibility = np.eye(num_tokens, dtype=np.bool_)
    positions = np.full(num_tokens, start, dtype=np.int64)
    for row in range(1, num_tokens):
        parent = int(rng.integers(-1, row))
        if parent >= 0:
            visibility[row] |= visibility[parent]
            positions[row] = positions[parent] + 1
    ids = rng.integers(0, vocab_size, num_tokens)
    return StepLayout(ids, positions, visibility, np.arange(num_tokens))


@torch.no_grad()
def reference_step(model: PreTrainedModel, prefix: list[int], layout: StepLayout) -> torch.Tensor:
    """The same step through transformers: its own cache for the prefix, a 4-d mask for the tail."""
    cache = DynamicCache()  # which keeps what is behind the window, too
    if prefix:
        model(torch.tensor([prefix]), past_key_values=cache)
    num_tokens = len(layout)
    visible = np.ones((num_tokens, len(prefix) + num_tokens), dtype=np.bool_)
    visible[:, len(prefix) :] = np.tri(num_tokens, dtype=np.bool_) if layout.visibility is None else layout.visibility
    window = getattr(model.config, "sliding_window", None) or 10**9
    columns = np.concatenate([np.arange(len(prefix)), layout.positions])
    in_window = visible & (columns > layout.positions[:, None] - window)
    full, windowed = (
        torch.zeros(seen.shape).masked_fill_(~torch.from_numpy(seen), torch.finfo(torch.float32).min)[None, None]
        for seen in (visible, in_window)
    )
    has_kinds = getattr(model.config, "layer_types", None) is not None
    output = model(
        torch.from_numpy(layout.token_ids)[None],
        attention_mask={"full_attention": full, "sliding_attention": windowed} if has_kinds else windowed,
        position_ids=torch.from_numpy(layout.positions)[None],
        past_key_values=cache,
    )
    return output.logits[0, torch.from_numpy(layout.logit_rows)]


def padded(loaded: LoadedModel) -> BucketedSequence:
    """A sequence whose steps are those of a GPU."""
    return BucketedSequence(StepSpace(loaded.weights, plain_ops(loaded.config)))


def prefilled(loaded: LoadedModel, prefix: list[int]) -> LlamaSequence:
    sequence = loaded.new_sequence()
    if prefix:
        sequence.forward(causal_layout(prefix, 0))
        sequence.commit(range(len(prefix)))
    return sequence


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_transformers_for_prefill_one_token_and_tree_step(variant: str, tmp_path: Path) -> None:
    model = build_reference(variant)
    loaded = load(model, tmp_path)
    vocab_size = loaded.config.vocab_size
    prefix = random_ids(41, vocab_size)
    steps = {
        "prefill": ([], causal_layout(prefix, 0, last_logits_only=False)),
        "one token": (prefix, causal_layout([7], len(prefix))),
        "chunk": (prefix, causal_layout(random_ids(9, vocab_size, 2), len(prefix), last_logits_only=False)),
        "long chunk": (prefix, causal_layout(random_ids(70, vocab_size, 5), len(prefix), last_logits_only=False)),
        "tree": (prefix, random_tree(23, len(prefix), vocab_size, 3)),
        "tree without prefix": ([], random_tree(6, 0, vocab_size, 4)),
    }
    for name, (committed, layout) in steps.items():
        expected = reference_step(model, committed, layout)
        actual = prefilled(loaded, committed).forward(layout)
        assert expected.std() > 0.1, "the reference must not be flat, or equality proves little"
        torch.testing.assert_close(
            actual, expected, atol=TOLERANCE, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize(
    "variant", ["llama", "grouped_queries", "granite", "qwen2_with_windowed_layers", "qwen3", "gemma", "starcoder2"]
)
def test_prefix_and_tail_merged_give_the_same_logits(variant: str, tmp_path: Path) -> None:
    """The path of a GPU, with the flash kernel that a CPU has."""
    model = build_reference(variant)
    loaded = load(model, tmp_path)
    backend = AttentionBackend(
        "torch-flash", "for this test", attend_torch_flash, masks_prefix=False, masks_causal=False
    )
    loaded = replace(loaded, weights=replace(loaded.weights, attention=backend))
    prefix = random_ids(41, loaded.config.vocab_size)
    for committed, layout in (
        ([], causal_layout(prefix, 0, last_logits_only=False)),
        (prefix, causal_layout([7], 41)),
        (prefix, causal_layout(prefix[:9], 41, last_logits_only=False)),
        (prefix, random_tree(23, 41, loaded.config.vocab_size, 3)),
    ):
        actual = prefilled(loaded, committed).forward(layout)
        torch.testing.assert_close(actual, reference_step(model, committed, layout), atol=TOLERANCE, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.5)])
def test_logits_on_a_gpu_equal_the_cpus(dtype: str, tolerance: float) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device; this torch sees none")
    on_cpu, on_gpu = load_model(None, device="cpu", dtype="float32"), load_model(None, device="cuda", dtype=dtype)
    prompt = [0, *on_cpu.tokenizer.encode_prefix("def fibonacci(n):\n    if n < 2:\n        return n\n")]
    for committed, layout in (
        ([], causal_layout(prompt, 0, last_logits_only=False)),
        (prompt, causal_layout([9], len(prompt))),
        (prompt, random_tree(33, len(prompt), on_cpu.config.vocab_size, 3)),
    ):
        expected = prefilled(on_cpu, committed).forward(layout)
        actual = prefilled(on_gpu, committed).forward(layout).cpu()
        torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)


def greedy_ids(loaded: LoadedModel, prompt: list[int], count: int) -> list[int]:
    sequence = loaded.new_sequence()
    logits = sequence.forward(causal_layout(prompt, 0))
    sequence.commit(range(len(prompt)))
    output: list[int] = []
    while len(output) < count:
        output.append(int(logits[0].argmax()))
        logits = sequence.forward(causal_layout(output[-1:], len(sequence.cached_ids)))
        sequence.commit([0])
    return output


def transformers_greedy_ids(model: PreTrainedModel, prompt: list[int], count: int) -> list[int]:
    output = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        max_new_tokens=count,
        min_new_tokens=count,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return output[0, len(prompt) :].tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_drafts_leave_the_greedy_output_of_every_family_as_it_is(family: str, tmp_path: Path) -> None:
    """Token for token that of transformers: autoregressive, with the draft tree, and lookahead as published."""
    variant = {"qwen2": "qwen2_bias", "starcoder2": "starcoder2_with_window"}.get(family, family)
    model = build_reference(variant, vocab_size=258)
    loaded = load(model, tmp_path / "model")
    prompt = random_ids(12, 258) * 3
    expected = transformers_greedy_ids(model, prompt, 64)
    request = DecodeRequest(prompt, Limits(64))
    for run in (autoregressive, drafted, partial(published, settings=PublishedSettings(5, 4, 5))):
        for sequence in (loaded.new_sequence(), padded(loaded)):
            assert [token for ids in run(request, sequence) for token in ids] == expected


def test_starter_model_greedy_ids_equal_transformers_generate() -> None:
    loaded = load_model(None, device="cpu", dtype="float32")
    model = AutoModelForCausalLM.from_pretrained(STARTER_MODEL_PATH, dtype=torch.float32)
    for text in ("def fibonacci(n):\n", "import os\nimport sys\n\n\nclass Stack:\n    def push(self, item):\n"):
        prompt = [0, *loaded.tokenizer.encode_prefix(text)]
        assert greedy_ids(loaded, prompt, 48) == transformers_greedy_ids(model, prompt, 48)


def test_codellama_shaped_checkpoint_greedy_ids_equal_transformers_generate(tmp_path: Path, shared_dir: Path) -> None:
    """CodeLlama's vocabulary, base frequency and untied head, in a small body, in shards."""
    model = build_reference(
        "llama",
        vocab_size=32016,
        max_position_embeddings=16384,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        bos_token_id=1,
        eos_token_id=2,
    )
    folder = save(
        model,
        tmp_path / "CodeLlama-7b-hf",
        max_shard_size="3MB",
        tokenizer=shared_dir / "data" / "codellama-tokenizer" / "tokenizer.json",
    )
    assert len(list(folder.glob("*.safetensors"))) > 1
    loaded = load_model(str(folder), device="cpu", dtype="float32")
    assert loaded.infill.name == "codellama"
    prefix, suffix = "def remove_non_ascii(s: str) -> str:\n    ", "\n    return result\n"
    for infill in loaded.infill_formats:
        prompt = infill.build(loaded.tokenizer.encode_prefix(prefix), loaded.tokenizer.encode(suffix))
        assert greedy_ids(loaded, prompt, 32) == transformers_greedy_ids(model, prompt, 32)


def test_codellama_shaped_generation_stops_where_transformers_does(tmp_path: Path, shared_dir: Path) -> None:
    """At 32010, the end of the infilled middle, and at 2, the end of the text; with and without drafts."""
    tokenizer = shared_dir / "data" / "codellama-tokenizer" / "tokenizer.json"
    sizes = {"vocab_size": 32016, "max_position_embeddings": 16384, "bos_token_id": 1, "eos_token_id": 2}
    model = build_reference("llama", **sizes, rope_parameters={"rope_type": "default", "rope_theta": 1e6}, seed=4)
    first = load_model(
        str(save(model, tmp_path / "CodeLlama-7b-hf", tokenizer=tokenizer)), device="cpu", dtype="float32"
    )
    assert first.stop_token_ids == {2, 32010}
    prompt = first.infill.build(
        first.tokenizer.encode_prefix("def f(x):\n    "), first.tokenizer.encode("\n    return y\n")
    )
    free = greedy_ids(first, prompt, 24)
    for stop, place in ((32010, 6), (2, 11)):
        place = free.index(free[place])
        changed = copy.deepcopy(model)
        with torch.no_grad():  # what the model said there is now the stop's row of the head
            rows = changed.lm_head.weight
            rows[[free[place], stop]] = rows[[stop, free[place]]]
        folder = save(changed, tmp_path / str(stop) / "CodeLlama-7b-hf", max_shard_size="3MB", tokenizer=tokenizer)
        loaded = load_model(str(folder), device="cpu", dtype="float32")
        output = changed.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=24,
            do_sample=False,
            eos_token_id=[2, 32010],
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        assert output[-1] == stop
        assert len(output) == place + 1
        for run in (autoregressive, drafted):
            request = DecodeRequest(prompt, Limits(24, loaded.stop_token_ids))
            steps = run(request, loaded.new_sequence(256))
            assert [token for ids in steps for token in ids] == output[:-1], run.__name__


def test_codellama_34b_is_refused_for_infilling_and_taken_left_to_right(tmp_path: Path, shared_dir: Path) -> None:
    """It has the same text pieces, and no embeddings for the sentinels."""
    raw = json.loads((shared_dir / "data" / "codellama-tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = raw["model"]["vocab"] = {piece: index for piece, index in raw["model"]["vocab"].items() if index < 32000}
    raw["added_tokens"] = [token for token in raw["added_tokens"] if token["id"] < 32000]
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in raw["model"]["merges"]]
    raw["model"]["merges"] = [pair for pair in pairs if {*pair, "".join(pair)} <= vocab.keys()]
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text(json.dumps(raw), encoding="utf-8")
    model = build_reference("llama", vocab_size=32000, bos_token_id=1, eos_token_id=2)
    folder = str(save(model, tmp_path / "CodeLlama-34b-hf", tokenizer=tokenizer))
    with pytest.raises(TokenizerError, match=r"would ignore the text after the cursor.*--left-to-right"):
        load_model(folder, device="cpu", allow_left_to_right=False)
    loaded = load_model(folder, device="cpu", dtype="float32")
    assert "not trained to infill" in loaded.status_line
    prompt = loaded.infill.build(loaded.tokenizer.encode_prefix("def f(x):"), loaded.tokenizer.encode("ignored"))
    assert greedy_ids(loaded, prompt, 16) == transformers_greedy_ids(model, prompt, 16)


@pytest.mark.parametrize("variant", ["mistral_with_window", "qwen2_with_windowed_layers", "starcoder2_with_window"])
def test_generation_beyond_the_window_equals_transformers(variant: str, tmp_path: Path) -> None:
    model = build_reference(variant)
    loaded = load(model, tmp_path)
    assert loaded.config.window == 7
    assert loaded.max_positions == 160
    prompt = random_ids(30, loaded.config.vocab_size)
    assert greedy_ids(loaded, prompt, 40) == transformers_greedy_ids(model, prompt, 40)


def test_only_requested_rows_get_logits_in_their_order(tmp_path: Path) -> None:
    loaded = load(build_reference("grouped_queries"), tmp_path)
    ids = random_ids(12, loaded.config.vocab_size)
    every = loaded.new_sequence().forward(causal_layout(ids, 0, last_logits_only=False)).clone()
    layout = causal_layout(ids, 0)
    some = StepLayout(layout.token_ids, layout.positions, None, np.array([2, 5, 11]))
    torch.testing.assert_close(loaded.new_sequence().forward(some), every[[2, 5, 11]], atol=1e-5, rtol=0)


def test_sequences_share_weights_but_not_their_caches(tmp_path: Path) -> None:
    loaded = load(build_reference("llama"), tmp_path)
    first, second = loaded.new_sequence(), loaded.new_sequence(64)
    ids = random_ids(10, loaded.config.vocab_size)
    for sequence, own in ((first, ids), (second, ids[::-1])):
        sequence.forward(causal_layout(own, 0))
        sequence.commit(range(len(own)))
    for sequence, own in ((first, ids), (second, ids[::-1])):
        expected = prefilled(loaded, own).forward(causal_layout([3], 10))
        torch.testing.assert_close(sequence.forward(causal_layout([3], 10)), expected, atol=1e-5, rtol=0)
    assert second.max_positions == 64


def test_step_beyond_the_positions_is_refused_and_leaves_the_sequence_usable(tmp_path: Path) -> None:
    loaded = load(build_reference("llama"), tmp_path)
    sequence = loaded.new_sequence(16)
    ids = random_ids(16, loaded.config.vocab_size)
    sequence.forward(causal_layout(ids[:12], 0))
    sequence.commit(range(12))
    with pytest.raises(ContextOverflowError, match="12 cached and 5 new tokens"):
        sequence.forward(causal_layout(ids[:5], 12))
    assert sequence.forward(causal_layout(ids[12:], 12)).shape == (1, loaded.config.vocab_size)
    with pytest.raises(ConfigError, match="max_positions"):
        loaded.new_sequence(loaded.max_positions + 1)
