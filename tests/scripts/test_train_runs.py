"""Runs of the trainer on real bases: losses, resumption, accuracy, the ending token, what must be installed."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import train_starter_model
from forelook.model.adapter import base_sample
from forelook.model.loading import STARTER_MODEL_PATH, load_model
from forelook.model.token_healing import TokenHealer
from training import (
    accuracy,
    adapter,
    archive,
    bases,
    cleaning,
    corpus,
    ends,
    loop,
    prefetch,
    samples,
    sentinels,
)
from training.arguments import parser
from training.held_out import difference
from training.network import Network, load_network
from training.setup import make_trainer, shelves

from tests.scripts.test_train_starter_model import package
from tests.scripts.tiny_bases import floats

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


class TestPrefetcher:
    def test_its_batches_are_those_of_its_maker(self, prepared: Path, base: Path) -> None:
        vocabulary = sentinels.vocabulary_of(bases.read_base(base))
        mix = samples.SampleMix({"python": 1.0}, max_tokens=120, min_tokens=60)
        maker = samples.SampleMaker(
            shelves(prepared, "train"), vocabulary, TokenHealer(vocabulary.tokenizer), mix, seed=4
        )
        ahead = prefetch.Prefetcher(maker, 2)
        try:
            for stride in (1, 2):
                first = other = 7 * stride
                for _ in range(4):
                    expected, first = maker.batch(first, 900, stride)
                    found, other = ahead.batch(other, 900, stride)
                    assert found == expected
                    assert other == first
            assert ahead.batch(3, 100) == maker.batch(3, 100), "a resumed run begins anywhere"
            assert ahead.make(9) == maker.make(9)
        finally:
            ahead.close()


class TestLosses:
    def test_only_answers_teach_and_their_end_counts_most(self, base: Path) -> None:
        vocabulary = sentinels.vocabulary_of(bases.read_base(base))
        settings = loop.LoopSettings(prompt_weight=0.0, middle_weight=2.0, end_weight=3.0)
        infill = samples.Sample([0, 2, 3, 40, 4, 50, 60, 61, 5], 6, "mid line")
        plain = samples.Sample([0, 40, 50, 1], 0, "plain")
        _, targets, weights, is_middle, lengths = loop.pack([infill, plain], settings, vocabulary)
        assert weights.tolist() == [0, 0, 0, 0, 0, 2, 2, 6, 1, 1, 1]
        assert targets[is_middle].tolist() == [60, 61, 5]
        assert lengths == [8, 3]
        prompts_too = loop.pack([infill], loop.LoopSettings(), vocabulary)[2]
        assert prompts_too.tolist() == [0, 0, 1, 0, 1, 2, 2, 2], "control tokens of a prompt are given"


def line_of(prepared: Path, base: Path, to: Path, *more: str) -> list[str]:
    """A tiny low-rank run measured in steps."""
    line = (
        f"train {prepared} --to {to} --init {base} --rank 4 --max-tokens 150 --min-tokens 60 --tokens-per-step 400 "
        "--steps 6 --warmup-steps 2 --held-out-bytes 3000 --questions 6 --threads 1 --factor-lr 0.01 --row-lr 0.01"
    )
    return [*line.split(), *more]


def run(prepared: Path, base: Path, to: Path, stop_after: int | None = None, *more: str) -> loop.Trainer:
    torch.set_num_threads(1)
    trainer = make_trainer(parser().parse_args(line_of(prepared, base, to, *more)), prepared, to)
    trainer.resume()
    trainer.run(lambda _report: None, lambda: stop_after is not None and trainer.schedule.num_steps >= stop_after)
    return trainer


class TestRuns:
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_a_stopped_run_ends_with_the_bits_of_one_that_was_not(
        self, prepared: Path, base: Path, tmp_path: Path, dtype: str
    ) -> None:
        run(prepared, base, tmp_path / "whole", None, "--dtype", dtype)
        for stop_after in (2, 5, None):
            run(prepared, base, tmp_path / "parts", stop_after, "--dtype", dtype)
        states = [torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "parts")]
        assert states[0]["next_sample"] == states[1]["next_sample"]
        for part in ("masters", "first", "second"):
            mine, theirs = states[0]["optimizer"][part], states[1]["optimizer"][part]
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
        files = [(tmp_path / name / "adapter" / adapter.WEIGHTS_NAME).read_bytes() for name in ("whole", "parts")]
        assert files[0] == files[1]

    def test_it_learns_the_rows_of_its_tokens_and_leaves_the_base_alone(
        self, prepared: Path, base: Path, tmp_path: Path
    ) -> None:
        trainer = run(prepared, base, tmp_path)
        plain = load_network(base)
        assert all(
            torch.equal(weight.to(own.dtype), own)  # bfloat16 where the processor has it
            for name, weight in plain.named_parameters()
            for own in [trainer.network.get_parameter(name)]
            if not name.endswith("norm") and name not in ("embed_tokens", "lm_head")
        )
        stored = floats(tmp_path / "adapter" / adapter.WEIGHTS_NAME)
        moved = (stored["sentinel_head_rows"] - plain.lm_head[:8]).norm(dim=1)
        assert moved[5] > 0.05, "the end of a middle"
        config = json.loads((tmp_path / "adapter" / adapter.CONFIG_NAME).read_text())
        assert config["forelook"]["tokens"]["<fim_middle>"] == 4
        with bases.read_base(base).opened() as read:
            assert config["forelook"]["base"]["sample"] == base_sample(read)
            assert config["forelook"]["base"]["sample"][0] == float(read("model.embed_tokens.weight")[100][0])

    def test_a_run_goes_on_from_an_adapter_with_its_losses(self, prepared: Path, base: Path, tmp_path: Path) -> None:
        first = run(prepared, base, tmp_path / "first", None, "--dtype", "float32")
        line = line_of(prepared, base, tmp_path / "second", "--init-adapter", str(tmp_path / "first" / "adapter"))
        second = make_trainer(parser().parse_args([*line, "--dtype", "float32"]), prepared, tmp_path / "second")
        assert second.measure()["python"] == pytest.approx(first.history[-1]["bits_per_byte"]["python"], abs=2e-3)
        line[line.index("--rank") + 1] = "8"
        with pytest.raises(ValueError, match="differs from the adapter's 4"):
            make_trainer(parser().parse_args(line), prepared, tmp_path / "third")

    def test_a_state_of_something_else_is_not_resumed(self, prepared: Path, base: Path, tmp_path: Path) -> None:
        run(prepared, base, tmp_path, 1)
        line = line_of(prepared, base, tmp_path)
        line[line.index("--rank") + 1] = "2"
        with pytest.raises(ValueError, match="choose another --to"):
            make_trainer(parser().parse_args(line), prepared, tmp_path).resume()

    def test_the_curve_has_a_point_per_measurement(self, prepared: Path, base: Path, tmp_path: Path) -> None:
        trainer = run(prepared, base, tmp_path, None, "--held-out-s", "0")
        points = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
        assert [point["step"] for point in points] == [1, 2, 3, 4, 5, 6]
        assert points[-1]["num_tokens"] == trainer.num_tokens
        assert points[-1]["infilling"]["questions"] == 6
        assert points[-1]["bits_per_byte"]["python"] > 0

    def test_an_archive_is_a_corpus(self, prepared: Path, base: Path, tmp_path: Path) -> None:
        line = ["pack", str(prepared), "--to", str(tmp_path / "c.tar.xz"), "--bytes", "20000", "--held-out", "3000"]
        assert train_starter_model.pack(parser().parse_args(line)) == 0
        folder = archive.unpacked(tmp_path / "c.tar.xz")
        for split, whole in (("train", 20_000), ("held_out", 3_000)):
            packed, all_of_it = (corpus.Shelf(each, "python", split) for each in (folder, prepared))
            assert whole <= packed.num_bytes < all_of_it.num_bytes
            texts = {all_of_it[index] for index in range(len(all_of_it))}
            assert all(packed[index] in texts for index in range(len(packed)))
        options = parser().parse_args(line_of(tmp_path / "c.tar.xz", base, tmp_path / "run", "--steps", "1"))
        assert train_starter_model.train(options) == 0

    def test_adapters_are_measured_next_to_their_base(
        self, prepared: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run(prepared, base, tmp_path)
        line = ["measure", str(prepared), "--model", str(base), "--adapter", str(tmp_path / "adapter")]
        assert train_starter_model.measure(parser().parse_args([*line, "--questions", "4", "--max-tokens", "150"])) == 0
        figures = json.loads(capsys.readouterr().out.splitlines()[-1])
        bits = figures["bits_per_byte"]
        assert bits[str(tmp_path / "adapter")]["python"] < bits[str(base)]["python"]
        assert figures["infilling"][str(base)]["questions"] == 4
        low, high = figures["above_the_base"][str(tmp_path / "adapter")]["python"]
        assert low <= bits[str(tmp_path / "adapter")]["python"] - bits[str(base)]["python"] <= high < 0

    def test_the_interval_of_a_difference_is_that_of_the_same_pieces(self) -> None:
        first = [(float(8 * number), 10) for number in range(1, 30)]  # pieces differ much more than models
        assert difference(first, first) == [0.0, 0.0]
        assert difference(first, [(bits - 5.0, size) for bits, size in first]) == [-0.5, -0.5]
        halved = [(bits - (5.0 if number % 2 else 0.0), size) for number, (bits, size) in enumerate(first)]
        low, high = difference(first, halved)
        assert -0.4 < low < -0.25 < high < -0.1

    def test_all_weights_of_a_base_are_trained_and_serve(self, prepared: Path, base: Path, tmp_path: Path) -> None:
        line = [*line_of(prepared, base, tmp_path, "--dtype", "float32"), "--rank", "0"]
        trainer = make_trainer(parser().parse_args(line), prepared, tmp_path)
        trainer.run(lambda _report: None)
        model = load_model(str(tmp_path / "model"), dtype="float32")
        assert model.infill.template == trainer.vocabulary.infill.template
        assert model.stop_token_ids == {1, 5}
        again = load_network(tmp_path / "model")
        assert not torch.allclose(again.embed_tokens, load_network(base).embed_tokens)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Network, sentinels.Vocabulary, list[samples.Sample]]:
    """The starter model, and cursors in this project's own text: it knows some answers."""
    folder = tmp_path_factory.mktemp("own")
    files = {path.name: path.read_text("utf-8") for path in sorted((SCRIPTS / "training").glob("*.py"))}
    package(folder / "sources", "training", files)
    corpus.prepare([folder / "sources"], folder / "out", benchmarks=cleaning.Benchmarks(()), held_out_share=0.0)
    vocabulary = sentinels.vocabulary_of(bases.read_base(STARTER_MODEL_PATH))
    healer, shelf = TokenHealer(vocabulary.tokenizer), shelves(folder / "out", "train")
    mix = samples.SampleMix({"python": 1.0}, max_tokens=220)
    questions = accuracy.held_out_questions(shelf, vocabulary, healer, mix, 30)
    assert questions == accuracy.held_out_questions(shelf, vocabulary, healer, mix, 30)
    return load_network(STARTER_MODEL_PATH), vocabulary, questions


class TestAccuracy:
    def test_it_is_that_of_greedy_decoding(
        self, asked: tuple[Network, sentinels.Vocabulary, list[samples.Sample]]
    ) -> None:
        network, vocabulary, questions = asked
        healer = TokenHealer(vocabulary.tokenizer)
        stops = vocabulary.infill.stop_token_ids
        right = complete = 0
        posed: list[samples.Sample] = []
        for number, sample in enumerate(questions):
            prompt, written = sample.ids[: sample.middle_start], list[int]()
            while len(written) < 24 and not (written and written[-1] in stops):
                ids = torch.tensor([*prompt, *written])
                with torch.no_grad():
                    logits = network.hidden(ids, [len(ids)])[-1] @ network.head.T
                allowed = healer.constraint(sample.forced).allowed_ids(written) if sample.forced else None
                if allowed is not None:
                    mask = torch.full_like(logits, -math.inf)
                    mask[torch.from_numpy(allowed)] = 0
                    logits = logits + mask
                written.append(int(logits.argmax()))
            # For most questions what it writes becomes the true answer: up to its end, to a line break, or cut short.
            cut = len(written) - 1 if number % 4 else 2
            answer = written[:cut] if number % 5 else sample.ids[sample.middle_start : -1]
            posed.append(replace(sample, ids=[*prompt, *answer, vocabulary.end_id]))
            if answer == written[: len(answer)] and len(answer) < len(written):
                last = written[len(answer)]
                right += last in stops or vocabulary.tokenizer.token_bytes(last).startswith(b"\n")
                complete += last in stops
        figures = accuracy.answered(network, vocabulary, healer, posed, 700)
        assert 0 < complete <= right < len(posed)
        assert figures["truncated"] == pytest.approx(right / len(posed), abs=1e-4)
        assert figures["raw"] == pytest.approx(complete / len(posed), abs=1e-4)
        assert figures["ends"] == pytest.approx(complete / right, abs=1e-4)

    def test_questions_are_single_lines(
        self, asked: tuple[Network, sentinels.Vocabulary, list[samples.Sample]]
    ) -> None:
        _, vocabulary, questions = asked
        for sample in questions:
            text = vocabulary.tokenizer.decode(sample.ids[sample.middle_start : -1])
            assert "\n" not in text[len(sample.forced.decode()) :]
            assert sample.ids[-1] == vocabulary.end_id


class TestEnds:
    def test_along_the_answers_it_counts_what_greedy_decoding_answers(
        self, asked: tuple[Network, sentinels.Vocabulary, list[samples.Sample]]
    ) -> None:
        network, vocabulary, questions = asked
        # Answers cut after two tokens as well: their true end is where the model would rather go on.
        short = [replace(each, ids=[*each.ids[: each.middle_start + 2], vocabulary.end_id]) for each in questions]
        healer = TokenHealer(vocabulary.tokenizer)
        posed = [*questions, *short]
        expected = accuracy.answered(network, vocabulary, healer, posed, 700)
        said = ends.along_answers(network, vocabulary, healer, posed, 700)
        found = said.accuracy(network.head[vocabulary.end_id].detach())
        # The other stop, the end of the text, is one of the other tokens here.
        assert {name: found[name] for name in ("questions", "truncated", "raw")} == {
            name: expected[name] for name in ("questions", "truncated", "raw")
        }

    def test_a_row_that_never_ends_learns_to_and_nothing_else_changes(
        self, asked: tuple[Network, sentinels.Vocabulary, list[samples.Sample]]
    ) -> None:
        network, vocabulary, questions = asked
        healer = TokenHealer(vocabulary.tokenizer)
        said = ends.along_answers(network, vocabulary, healer, questions, 700)
        blank = torch.zeros(network.config.hidden_size)
        fitted = ends.fitted_row(said, blank, end_weight=1.0)
        known = network.head[vocabulary.end_id].detach()
        for end_weight in (1.0, 4.0):
            assert said.loss(fitted, end_weight) < said.loss(blank, end_weight)
        assert said.loss(fitted, 1.0) < said.loss(known, 1.0), "the row of the model itself"
        at_ends = said.hidden[said.is_end] @ fitted - said.others[said.is_end]
        elsewhere = said.hidden[~said.is_end] @ fitted - said.others[~said.is_end]
        assert at_ends.mean() > elsewhere.mean() + 2

    def test_the_command_changes_one_row_of_an_adapter(
        self, prepared: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run(prepared, base, tmp_path / "run", 1)
        line = f"ends {prepared} --to {tmp_path / 'new'} --init {base} --init-adapter {tmp_path / 'run' / 'adapter'} "
        line += "--samples 12 --questions 6 --max-tokens 150 --min-tokens 60 --plain-share 0 --end-weight 3"
        assert train_starter_model.fit_ends(parser().parse_args(line.split())) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["after"]["questions"] == 6
        before, after = (
            floats(folder / adapter.WEIGHTS_NAME) for folder in (tmp_path / "run" / "adapter", tmp_path / "new")
        )
        assert before.keys() == after.keys()
        assert {name for name, tensor in before.items() if not torch.equal(tensor, after[name])} == {
            "sentinel_head_rows"
        }
        changed = (before["sentinel_head_rows"] != after["sentinel_head_rows"]).any(1)
        assert changed.nonzero().flatten().tolist() == [5]


_ONLY_TORCH = """
import importlib.abc, sys
ALLOWED = {"torch", "transformers", "tokenizers", "safetensors", "numpy", "huggingface_hub", "tqdm", "regex", "yaml",
           "filelock", "packaging", "typing_extensions", "sympy", "mpmath", "networkx", "jinja2", "markupsafe",
           "fsspec", "torchgen", "functorch", "forelook", "training", "bench", "train_starter_model"}
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top not in ALLOWED and top not in sys.stdlib_module_names and not top.startswith("_"):
            raise ModuleNotFoundError(f"{name} is not there", name=name)
sys.meta_path.insert(0, Blocker())
import train_starter_model
sys.argv = ["train_starter_model.py", *sys.argv[1:]]
sys.exit(train_starter_model.main())
"""


def test_training_needs_torch_and_transformers_only(prepared: Path, base: Path, tmp_path: Path) -> None:
    """The whole of a run, context of other files included, without tree-sitter, rich or a web package."""
    line = line_of(prepared, base, tmp_path, "--max-tokens", "500", "--context-room", "100", "--context-share", "1")
    command = [sys.executable, "-c", _ONLY_TORCH, *line]
    path = {"PYTHONPATH": f"{SCRIPTS}:{SCRIPTS.parent / 'backend'}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "adapter" / adapter.WEIGHTS_NAME).is_file()
