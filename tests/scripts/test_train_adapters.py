"""Low-rank training of real bases: gradients, merged weights, files, sentinels, resumption, accuracy, imports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from forelook.errors import CheckpointError, ModelNotFoundError, TokenizerError, UnsupportedArchitectureError
from forelook.model.adapter import base_sample
from forelook.model.loading import STARTER_MODEL_PATH, load_model
from forelook.model.token_healing import TokenHealer
from torch import Tensor, nn
from training import (
    adapter,
    bases,
    checkpoint,
    cleaning,
    corpus,
    samples,
    sentinels,
)
from training.network import Network, attend, load_network, module_name, saved_name
from training.setup import shelves

from tests.model.checkpoints import VARIANTS, build_reference, save
from tests.model.gguf_files import write_model
from tests.model.test_gguf import logits
from tests.scripts.test_train_starter_model import CODE, package
from tests.scripts.tiny_bases import base_folder, floats

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
IDS = torch.tensor([(7 * number) % 300 + 9 for number in range(40)])
TARGETS = IDS.roll(-1)
LENGTHS = [15, 25]
TRAINABLE = ("grouped_queries", "tied_head", "own_head_size", "llama3_scaling", "yarn_scaling", "qwen2_bias")


def low_rank(path: Path, row_ids: tuple[int, ...] = (2, 3, 5), *, rank: int = 4, alpha: float = 8.0) -> Network:
    """A network with low-rank parts that are not zero, as bfloat16 stores them."""
    network = load_network(path)
    network.attach(rank=rank, alpha=alpha, row_ids=row_ids, seed=1)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for _, parameter in network.trained():
            noise = torch.randn(parameter.shape, generator=generator) * 0.05
            parameter.copy_((parameter + noise).bfloat16().float())
    network.merge()
    return network


def merged_by_hand(path: Path, stored: dict[str, Tensor], scale: float, row_ids: tuple[int, ...]) -> Network:
    """The base with an adapter's tensors merged by PEFT's formulas, as a network without low-rank parts."""
    network = load_network(path)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            key = f"base_model.model.{saved_name(name)}".removesuffix(".weight")
            if f"{key}.lora_A.weight" in stored:
                weight += scale * stored[f"{key}.lora_B.weight"] @ stored[f"{key}.lora_A.weight"]
            elif f"{key}.lora_embedding_A" in stored:
                weight += scale * (stored[f"{key}.lora_embedding_B"] @ stored[f"{key}.lora_embedding_A"]).T
            elif f"{key}.weight" in stored:
                weight.copy_(stored[f"{key}.weight"])
        network.embed_tokens[list(row_ids)] = stored["sentinel_rows"]
        if network.lm_head is not None:
            network.lm_head[list(row_ids)] = stored["sentinel_head_rows"]
    return network


class _Reference(nn.Module):
    """The weighted mean loss of a network whose parameters are given from outside."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, weights: Tensor) -> Tensor:
        logits = self.network.hidden(IDS, LENGTHS) @ self.network.head.T
        per_token = F.cross_entropy(logits, TARGETS, reduction="none")
        return (per_token * weights).sum() / weights.sum()


class TestNetwork:
    @pytest.mark.parametrize("variant", TRAINABLE)
    def test_losses_are_those_of_the_forward_that_serves(self, variant: str, tmp_path: Path) -> None:
        path = save(build_reference(variant), tmp_path / "base")
        served = load_model(str(path), dtype="float32", device="cpu")
        network = load_network(path)
        losses = network.token_losses(IDS, TARGETS, LENGTHS)
        start = 0
        for length in LENGTHS:
            ids, wanted = IDS[start : start + length], TARGETS[start : start + length]
            hidden = network.hidden(ids, [length])
            alone = F.cross_entropy(hidden @ network.head.T, wanted, reduction="none").detach()
            torch.testing.assert_close(losses[start : start + length], alone, atol=1e-4, rtol=1e-4)
            reference = build_reference(variant)(ids[None]).logits[0]
            expected = F.cross_entropy(reference, wanted, reduction="none").detach()
            torch.testing.assert_close(alone, expected, atol=2e-3, rtol=1e-3)
            start += length
        assert served.config == replace(network.config)

    @pytest.mark.parametrize(
        "variant", ["qwen3", "gemma", "starcoder2", "granite", "mistral_with_window", "all_biases"]
    )
    def test_what_is_not_computed_is_refused_by_name(self, variant: str, tmp_path: Path) -> None:
        assert variant in VARIANTS
        with pytest.raises(UnsupportedArchitectureError, match="training does not compute"):
            bases.read_base(save(build_reference(variant), tmp_path / "base"))

    @pytest.mark.parametrize("kind", ["F32", "Q8_0"])
    def test_a_gguf_base_has_the_weights_and_the_text_of_its_folder(self, kind: str, tmp_path: Path) -> None:
        shapes = {"hidden_size": 64, "intermediate_size": 96}  # blocks of quantized rows are of 32 values
        model = write_model(build_reference("grouped_queries", **shapes), tmp_path / "base.gguf", kind=kind)
        path = save(model, tmp_path / "folder")
        losses = [load_network(each).token_losses(IDS, TARGETS, LENGTHS) for each in (tmp_path / "base.gguf", path)]
        torch.testing.assert_close(losses[0], losses[1], atol=1e-5, rtol=1e-5)
        read = bases.read_base(tmp_path / "base.gguf")
        assert bases.config_fields(read.config)["num_key_value_heads"] == 2

    def test_padded_attention_is_that_of_each_sample(self) -> None:
        query, key, value = (torch.randn(40, heads, 8) for heads in (4, 2, 2))
        at_once, one_by_one = (attend(query, key, value, LENGTHS, is_padded=each) for each in (True, False))
        torch.testing.assert_close(at_once, one_by_one)


class TestLowRank:
    @pytest.mark.parametrize("variant", ["grouped_queries", "tied_head", "qwen2_bias"])
    def test_gradients_are_those_of_the_merged_weights(self, variant: str, tmp_path: Path) -> None:
        path = base_folder(tmp_path, variant)
        network, plain = low_rank(path), load_network(path)
        weights = torch.linspace(0, 2, len(IDS))
        weights[3:9] = 0
        loss, per_token = network.losses(IDS, TARGETS, LENGTHS, weights)
        loss.backward()
        assert not per_token[3:9].any()
        assert all(parameter.grad is None for _, parameter in network.named_parameters() if not parameter.requires_grad)
        found = {name: parameter.grad.clone() for name, parameter in network.trained()}
        network.zero_grad()

        merged: dict[str, Tensor] = {}
        for number, layer in enumerate(network.each_layer()):
            for name in layer.parts:
                part, full = layer.part(name), f"layers.{number}.{name}"
                merged[full] = plain.get_parameter(full).detach() + part.scale * part.up @ part.down
        for name, parameter in network.trained():
            if name.endswith("norm"):
                merged[name] = parameter
        for name, table in (("embed_tokens", network.table), ("lm_head", network.head_table)):
            if table is not None:
                whole = plain.get_parameter(name).detach() + table.scale * table.left @ table.right
                merged[name] = whole.index_copy(0, table.row_ids, table.rows)
        given = {f"network.{name}": tensor for name, tensor in merged.items()}
        expected = torch.func.functional_call(_Reference(plain), given, (weights,))
        expected.backward()
        torch.testing.assert_close(loss, expected)
        for name, parameter in network.trained():
            torch.testing.assert_close(found[name], parameter.grad, atol=1e-5, rtol=1e-3, msg=name)

    def test_fresh_parts_change_nothing(self, base: Path) -> None:
        network, plain = load_network(base), load_network(base)
        network.attach(rank=4, alpha=4.0, row_ids=(0, 1), seed=0)
        assert torch.equal(network.hidden(IDS, LENGTHS), plain.hidden(IDS, LENGTHS))

    def test_the_last_layers_alone_have_their_gradients_and_the_others_none(self, base: Path) -> None:
        whole, last = low_rank(base), low_rank(base)
        last.freeze_below(1, [3])
        for network in (whole, last):
            network.losses(IDS, TARGETS, LENGTHS, torch.ones(len(IDS)))[0].backward()
        trained = dict(last.trained())
        assert {name.split(".")[1] for name in trained if name.startswith("layers.")} == {"2"}
        assert not {name for name in trained if name.endswith(("left", "right"))}
        for name, parameter in trained.items():
            mine, theirs = parameter.grad, whole.get_parameter(name).grad
            if name == "head_table.rows":
                assert not mine[[0, 2]].any(), "only the row of token 3 is trained"
                mine, theirs = mine[1], theirs[1]
            if name != "table.rows":  # inputs that lie below what is trained
                torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-4)


class TestAdapterFiles:
    @pytest.mark.parametrize("variant", ["grouped_queries", "tied_head"])
    def test_merged_weights_are_the_adapters_forward(self, variant: str, tmp_path: Path) -> None:
        path, row_ids = base_folder(tmp_path / "base", variant), (2, 3, 5)
        network = low_rank(path, row_ids)
        read = bases.read_base(path)
        vocabulary = replace(sentinels.vocabulary_of(read), row_ids=row_ids)
        with read.opened() as tensor:
            config = adapter.adapter_config(network, read, vocabulary, base_sample(tensor), rank=4, alpha=8.0)
        adapter.save_adapter(network, tmp_path / "adapter", config)
        assert config["forelook"]["sentinel_ids"] == [2, 3, 5]
        assert config["lora_alpha"] / config["r"] == 2.0
        served = load_model(str(path), adapter=tmp_path / "adapter", dtype="float32", device="cpu")
        with torch.no_grad():
            mine = network.hidden(IDS, [len(IDS)]) @ network.head.T
        torch.testing.assert_close(logits(served, IDS.tolist()), mine, atol=2e-3, rtol=1e-3)
        by_hand = merged_by_hand(path, floats(tmp_path / "adapter" / adapter.WEIGHTS_NAME), 2.0, row_ids)
        found, expected = (each.token_losses(IDS, TARGETS, LENGTHS) for each in (network, by_hand))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(expected, load_network(path).token_losses(IDS, TARGETS, LENGTHS), atol=1e-2)

    def test_an_adapter_of_another_scale_goes_on_with_the_same_weights(self, base: Path, tmp_path: Path) -> None:
        network, read = low_rank(base), bases.read_base(base)
        vocabulary = replace(sentinels.vocabulary_of(read), row_ids=(2, 3, 5))
        config = adapter.adapter_config(network, read, vocabulary, [0.0], rank=4, alpha=8.0)
        adapter.save_adapter(network, tmp_path, config)
        again = load_network(base)
        again.attach(rank=4, alpha=4.0, row_ids=(1, 2, 3, 5), seed=9)
        adapter.load_adapter(again, tmp_path, (1, 2, 3, 5))
        losses = [each.token_losses(IDS, TARGETS, LENGTHS) for each in (network, again)]
        torch.testing.assert_close(losses[0], losses[1], atol=1e-3, rtol=1e-3)

    def test_what_does_not_fit_is_refused(self, base: Path, tmp_path: Path) -> None:
        network, read = low_rank(base), bases.read_base(base)
        config = adapter.adapter_config(network, read, sentinels.vocabulary_of(read), [0.0], rank=4, alpha=8.0)
        adapter.save_adapter(network, tmp_path / "a", config | {"forelook": {"sentinel_ids": [2, 3, 7]}})
        with pytest.raises(CheckpointError, match="rows of the tokens"):
            adapter.load_adapter(low_rank(base), tmp_path / "a", (2, 3, 5))
        other = base_folder(tmp_path / "other", "own_head_size")
        with pytest.raises(CheckpointError, match="has shape"):
            adapter.load_adapter(low_rank(other), tmp_path / "a", (2, 3, 7))
        tied = base_folder(tmp_path / "tied", "tied_head")
        with pytest.raises(CheckpointError, match=r"has shape|does not have"):
            adapter.load_adapter(low_rank(tied), tmp_path / "a", (2, 3, 7))
        with pytest.raises(ModelNotFoundError, match=r"lacks adapter_config\.json"):
            adapter.load_adapter(low_rank(other), tmp_path / "other", (2, 3, 7))


class TestSentinels:
    def test_unused_control_tokens_get_the_names_that_other_programs_know(self, base: Path) -> None:
        vocabulary = sentinels.vocabulary_of(bases.read_base(base))
        assert vocabulary.infill.template == (0, 2, 3, "{suffix}", 4, "{context}", "{prefix}")
        assert vocabulary.infill.stop_token_ids == {1, 5}
        assert vocabulary.infill.files.file == (7, "{path}\n")
        assert (vocabulary.bos_id, vocabulary.eos_id, vocabulary.end_id) == (0, 1, 5)
        assert vocabulary.row_ids == tuple(range(8))
        tokenizer = vocabulary.tokenizer
        assert [tokenizer.token_id(name) for name in ("<fim_prefix>", "<EOT>", "<file_sep>")] == [2, 5, 7]
        assert tokenizer.token_id("<|g|>") == 8
        assert not set(tokenizer.encode("<fim_prefix><EOT><file_sep>")) & set(range(9)), "text must not become one"

    def test_a_renamed_token_begins_as_the_one_that_had_its_name(self, base: Path) -> None:
        assert sentinels.vocabulary_of(bases.read_base(base)).initial_rows == {1: 0, 7: 5}

    def test_a_base_that_can_infill_keeps_its_own_tokens(self) -> None:
        vocabulary = sentinels.vocabulary_of(bases.read_base(STARTER_MODEL_PATH))
        assert not vocabulary.renamed
        assert vocabulary.infill == load_model(None).infill
        assert (vocabulary.bos_id, vocabulary.eos_id, vocabulary.end_id) == (0, 1, 5)

    def test_a_base_with_too_few_control_tokens_is_refused(self, tmp_path: Path) -> None:
        few = base_folder(tmp_path, control=("<s>", "</s>"))
        with pytest.raises(TokenizerError, match="2 control tokens, and infilling takes 8"):
            sentinels.vocabulary_of(bases.read_base(few))

    def test_prompts_name_other_files_behind_the_separator(
        self, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uses = (
            f"def owner_{number}(accounts, amount):\n    account = Account({number})\n    account.deposit(amount)\n"
            for number in range(20)
        )
        files = {"bank.py": CODE, "use.py": "\n".join(["from p.bank import Account, total\n\n", *uses])}
        package(tmp_path / "sources", "p", files)
        corpus.prepare([tmp_path / "sources"], tmp_path / "out", benchmarks=cleaning.Benchmarks(()), held_out_share=0.0)
        vocabulary = sentinels.vocabulary_of(bases.read_base(base))
        mix = samples.SampleMix({"python": 1.0}, plain=0.0, context=1.0, context_room=600, long=1.0, max_tokens=3000)
        maker = samples.SampleMaker(
            shelves(tmp_path / "out", "train"), vocabulary, TokenHealer(vocabulary.tokenizer), mix, seed=1
        )
        made = [maker.make(number).ids for number in range(20)]
        assert any(7 in ids for ids in made)
        short = replace(mix, context_room=300, context_size=0.5, min_tokens=600, max_tokens=800, long=0.0)

        def made_short(tokens_per_line: int) -> list[list[int]]:
            monkeypatch.setattr(samples, "_TOKENS_PER_LINE", tokens_per_line)
            short_maker = samples.SampleMaker(
                shelves(tmp_path / "out", "train"), vocabulary, TokenHealer(vocabulary.tokenizer), short, seed=1
            )
            return [short_maker.make(number).ids for number in range(40)]

        found, whole = made_short(40), made_short(1)  # this tokenizer's tokens are bytes; windows of 24 lines
        others = [sum(7 in ids for ids in each) for each in (found, whole)]
        assert others[0] > others[1] + 5, "a short prompt holds a smaller piece of another file"
        assert all(len(ids) <= 800 for ids in found)
        for ids in [*made, *found]:
            after = [
                vocabulary.tokenizer.decode(ids[place + 1 : place + 14]) for place, each in enumerate(ids) if each == 7
            ]
            assert len(after) != 1, "the file itself is named, too"
            assert all(text.startswith(("bank.py\n", "use.py\n")) for text in after)


def test_modules_have_their_names_in_the_checkpoint(base: Path) -> None:
    """What the adapter's file calls a module is what the base's does."""
    network = load_network(base)
    with bases.read_base(base).opened() as read:
        for number, layer in enumerate(network.each_layer()):
            for name in ("q_proj", "o_proj", "up_proj", "down_proj"):
                assert torch.equal(read(f"{module_name(number, name)}.weight"), layer.get_parameter(name))
    assert checkpoint.trained_fields({"a": 1}, sentinels.vocabulary_of(bases.read_base(STARTER_MODEL_PATH))) == {"a": 1}
