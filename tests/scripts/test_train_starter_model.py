"""The trainer's promises: clean text, samples as the product asks, runs that can be stopped and repeated."""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import train_starter_model
from forelook.completion.completer import Completer
from forelook.completion.document_store import Document
from forelook.config import EngineConfig
from forelook.errors import ConfigError
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.model.loading import STARTER_MODEL_PATH, load_model
from forelook.model.tokenizer import CodeTokenizer
from training import cleaning, corpus, licenses, samples
from training.arguments import parser
from training.bases import read_base
from training.checkpoint import save_network
from training.gradients import Gradients
from training.loop import Trainer
from training.network import load_network
from training.optimizer import orthogonalize
from training.ranks import Ranks
from training.schedule import Schedule
from training.sentinels import vocabulary_of
from training.setup import make_trainer
from training.vocabulary import SENTINELS

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
MIT = "Permission is hereby granted, free of charge, to any person obtaining a copy"
CODE = '''"""Accounts."""

import logging


class Account:
    """Money of one owner."""

    def __init__(self, owner, balance=0):
        self.owner = owner
        self.balance = balance

    def deposit(self, amount):
        if amount <= 0:
            raise ValueError(f"amount = {amount} must be positive")
        self.balance += amount
        logging.info("deposit of %s by %s", amount, self.owner)
        return self.balance

    def transfer(self, other, amount):
        self.withdraw(amount)
        other.deposit(amount)


def total(accounts):
    result = 0
    for account in accounts:
        result = result + account.balance
    return max(result, sum([0, 1], start=2))
'''


def words(seed: int, count: int) -> str:
    """Text that looks like nothing else."""
    random_ = random.Random(seed)
    lines = []
    for _ in range(count):
        name, left, right = ("".join(random_.choices("abcdefghijklmnop", k=7)) for _ in range(3))
        lines.append(f"def {name}({left}):\n    return {left}.{right}({random_.randrange(1000)})\n")
    return "\n".join(lines)


def package(folder: Path, name: str, files: dict[str, str], license_text: str | None = MIT) -> None:
    root = folder / name
    root.mkdir(parents=True)
    if license_text is not None:
        (root / "LICENSE").write_text(license_text)
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small prepared corpus."""
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(6):
        text = {f"m{index}.py": words(100 * number + index, 30) for index in range(6)}
        package(folder / "sources", f"p{number}", {**text, "bank.py": CODE.replace("Account", f"Account{number}")})
    corpus.prepare([folder / "sources"], folder / "out", benchmarks=cleaning.Benchmarks(()), held_out_share=0.15)
    return folder / "out"


def options(prepared: Path, to: Path, *more: str) -> argparse.Namespace:
    """A tiny run measured in steps."""
    return parser().parse_args([*train_line(prepared, to).split(), *more])


def train_line(prepared: Path, to: Path) -> str:
    return (
        f"train {prepared} --to {to} --from-scratch --hidden-size 32 --intermediate-size 64 --layers 2 --heads 2 "
        "--max-tokens 256 --tokens-per-step 512 --steps 8 --warmup-steps 2 --held-out-bytes 4000 --threads 1"
    )


@pytest.fixture(scope="module")
def trainer(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A trainer that has not begun."""
    folder = tmp_path_factory.mktemp("run")
    return make_trainer(options(prepared, folder), prepared, folder)


class TestCleaning:
    def test_a_copy_with_other_layout_is_an_exact_duplicate(self) -> None:
        seen = cleaning.Duplicates()
        assert seen.is_new(CODE)
        assert not seen.is_new(CODE.replace("    ", "\t") + "\n\n")

    def test_a_few_changed_lines_are_a_near_duplicate_and_other_text_is_not(self) -> None:
        seen = cleaning.Duplicates()
        text = words(1, 60)
        assert seen.is_new(text)
        assert not seen.is_new(text.replace("\n\n", "\n# a note\n", 2))
        assert seen.is_new(words(2, 60))
        assert seen.is_new(text[: len(text) // 2] + words(3, 30))

    def test_a_benchmark_is_found_inside_other_text_however_it_is_laid_out(self) -> None:
        secret = "def sum_of_even_at_odd(lst, offset):\n    return sum(x for i, x in enumerate(lst) if i % 2 == offset)"
        benchmarks = cleaning.Benchmarks([secret])
        assert len(benchmarks) > 0
        assert benchmarks.hit(CODE + "\n\nclass A:\n" + secret.replace("\n", "\n        ") + "\n" + words(5, 3))
        assert not benchmarks.hit(CODE + words(5, 30))

    @pytest.mark.parametrize(
        ("text", "suffix", "reason"),
        [
            ("x = 1\n", ".py", "size"),
            ("# Code generated by protoc. DO NOT EDIT.\n" + CODE, ".py", "generated"),
            ("# GNU General Public License v3\n" + CODE, ".py", "license"),
            ("var a=function(b){return b};" * 60, ".js", "minified"),
            ("x = [\n" + "    0, 1, 2, 3, 4, 5, 6, 7,\n" * 40 + "]\n", ".py", "data"),
            (CODE, ".py", None),
        ],
    )
    def test_text_nobody_wrote_is_left_out(self, text: str, suffix: str, reason: str | None) -> None:
        assert cleaning.reason_to_leave_out(text, suffix) == reason


class TestLicenses:
    @pytest.mark.parametrize(
        "expression",
        [
            "MIT",
            "BSD-3-Clause",
            "Apache-2.0 OR GPL-2.0",
            "MIT AND (Apache-2.0)",
            "Unlicense/MIT",
            "BSD License",
            "Apache Software License",
            "MIT OR Apache-2.0 WITH LLVM-exception",
            "PSF-2.0",
            "Apache License, Version 2.0",
        ],
    )
    def test_permissive(self, expression: str) -> None:
        assert licenses.judge(expression)

    @pytest.mark.parametrize(
        "expression",
        ["GPL-3.0", "MIT AND LGPL-2.1", "MPL-2.0", "UNLICENSED", "SEE LICENSE IN LICENSE.md", "", "AGPL-3.0"],
    )
    def test_not_permissive(self, expression: str) -> None:
        assert not licenses.judge(expression)

    def test_a_package_says_it_in_the_file_of_its_registry(self, tmp_path: Path) -> None:
        package(tmp_path, "node", {"package.json": json.dumps({"license": "MIT"})}, None)
        package(tmp_path, "closed", {"package.json": json.dumps({"license": "GPL-3.0"})}, MIT)
        package(tmp_path, "wheel", {"w-1.dist-info/METADATA": "Name: w\nLicense-Expression: BSD-2-Clause\n\nMIT"}, None)
        package(
            tmp_path,
            "crate",
            {"usr/share/cargo/registry/c-1/Cargo.toml": '[package]\nlicense = "MIT OR GPL-3.0"'},
            None,
        )
        package(tmp_path, "none", {"a.py": CODE}, None)
        found = {path.name: licenses.license_of(path) for path in tmp_path.iterdir()}
        assert {name: stated is not None and stated.permissive for name, stated in found.items()} == {
            "node": True,
            "closed": False,
            "wheel": True,
            "crate": True,
            "none": False,
        }


class TestCorpus:
    def test_only_licensed_new_text_outside_the_benchmarks_is_kept(self, tmp_path: Path) -> None:
        sources = tmp_path / "sources"
        package(sources, "a", {"one.py": words(1, 30), "copy.py": words(1, 30), "secret.py": words(2, 30)})
        package(sources, "b", {"two.py": words(3, 30)}, None)
        package(sources, "c", {"three.py": words(4, 30)}, "GNU General Public License")
        report = corpus.prepare(
            [sources], tmp_path / "out", benchmarks=cleaning.Benchmarks([words(2, 30)]), held_out_share=0
        )
        assert report["files"] == {"python.train": {"files": 1, "bytes": len(words(1, 30))}}
        assert report["left_out"] == {"duplicate": 1, "benchmark": 1, "package without a permissive license": 2}

    def test_no_file_is_in_both_splits(self, prepared: Path) -> None:
        paths = [set(json.loads((prepared / f"python.{split}.json").read_text())["paths"]) for split in corpus.SPLITS]
        assert all(paths)
        assert not paths[0] & paths[1]

    def test_a_byte_finds_the_file_it_is_in(self, prepared: Path) -> None:
        shelf = corpus.Shelf(prepared, "python", "train")
        sizes = [len(shelf[index].text.encode()) for index in range(len(shelf))]
        assert sum(sizes) == shelf.num_bytes
        assert shelf.at_byte(0) == 0
        assert shelf.at_byte(sizes[0] - 1) == 0
        assert shelf.at_byte(sizes[0]) == 1
        assert shelf.at_byte(shelf.num_bytes - 1) == len(shelf) - 1


class TestVocabulary:
    def learn(self, prepared: Path, to: Path, *more: str) -> dict[str, object]:
        line = ["tokenizer", str(prepared), "--to", str(to), "--vocab-size", "600", *more]
        assert train_starter_model.tokenizer(parser().parse_args(line)) == 0
        read: dict[str, object] = json.loads(to.read_text())
        return read

    def test_every_text_comes_back_and_the_sentinels_are_the_first_ids(self, prepared: Path, tmp_path: Path) -> None:
        self.learn(prepared, tmp_path / "tokenizer.json")
        learned = CodeTokenizer.from_file(tmp_path / "tokenizer.json")
        assert [learned.token_id(name) for name in SENTINELS] == list(range(8))
        assert learned.vocab_size == 600
        for text in (CODE, "\tif x:\r\n  é ☃ \U0001f600\n", "<PRE>", words(7, 3)):
            ids = learned.encode(text)
            assert b"".join(map(learned.token_bytes, ids)).decode() == text
            assert not set(ids) & set(range(8)), "text must not become control tokens"
        assert len(learned.encode("    return total\n")) < 9, "it has learned nothing"

    def test_the_same_text_gives_the_same_vocabulary(self, prepared: Path, tmp_path: Path) -> None:
        assert self.learn(prepared, tmp_path / "a.json") == self.learn(prepared, tmp_path / "b.json")

    def test_too_small_a_vocabulary_is_refused(self, prepared: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"invalid vocab_size: 200 \(expected at least 264"):
            self.learn(prepared, tmp_path / "a.json", "--vocab-size", "200")

    def test_fresh_weights_with_a_vocabulary_of_their_own_serve(self, prepared: Path, tmp_path: Path) -> None:
        path = tmp_path / "tokenizer.json"
        self.learn(prepared, path)
        line = options(prepared, tmp_path / "run", "--tokenizer", str(path), "--steps", "2")
        trainer = make_trainer(line, prepared, tmp_path / "run")
        trainer.run(lambda _report: None)
        model = load_model(str(tmp_path / "run" / "model"))
        assert model.config.vocab_size == model.tokenizer.vocab_size == 600
        assert model.infill.template == load_model(None).infill.template
        line.from_scratch = False
        with pytest.raises(ValueError, match="--tokenizer is for fresh weights"):
            make_trainer(line, prepared, tmp_path / "run")


class TestSamples:
    def test_every_kind_of_cursor_leaves_text_that_joins_to_the_file(self) -> None:
        random_ = random.Random(0)
        kinds: dict[str, str] = {}
        for _ in range(600):
            chosen = samples.choose_cursor(CODE, random_)
            if chosen is not None:
                kind, start, end = chosen
                assert CODE[start:end].strip()
                kinds[kind] = CODE[start:end]
        assert set(kinds) == set(samples._CURSORS)

    def test_a_body_is_all_of_what_its_head_opens(self) -> None:
        bodies = {
            CODE[start:end]
            for seed in range(200)
            for start, end in [samples._body(CODE, random.Random(seed)) or (0, 0)]
        }
        assert "\n        self.owner = owner\n        self.balance = balance" in bodies
        assert "result = result + account.balance" in bodies

    def test_prompts_are_those_of_the_product(self, prepared: Path) -> None:
        """The ids of a training prompt are what a completion of the same document at the same cursor is given."""
        model = load_model(None)
        completer = Completer(model, EngineConfig())
        shelf = corpus.Shelf(prepared, "python", "train")
        maker = samples.SampleMaker(
            {"python": shelf},
            vocabulary_of(read_base(STARTER_MODEL_PATH)),
            model.healer,
            samples.SampleMix({"python": 1.0}, plain=0.0, prefix_first=0.0, context=0.0, max_tokens=800),
            seed=3,
        )
        compared = 0
        for number in range(500):
            sample = maker.make(number)
            prompt, answer = sample.ids[: sample.middle_start], sample.ids[sample.middle_start :]
            assert answer[-1] in model.stop_token_ids
            text = b"".join(map(model.tokenizer.token_bytes, answer)).decode()
            suffix_at, prefix_at = prompt.index(3) + 1, prompt.index(4) + 1
            prefix = b"".join(map(model.tokenizer.token_bytes, prompt[prefix_at:])).decode()
            suffix = b"".join(map(model.tokenizer.token_bytes, prompt[suffix_at : prefix_at - 1])).decode()
            whole = next(
                (
                    file.text
                    for file in map(shelf.__getitem__, range(len(shelf)))
                    if prefix + text + suffix == file.text
                ),
                None,
            )
            if whole is None:
                continue  # The window did not hold the whole file.
            # Every cursor in the answer whose healed prompt is this one: the sample's own is among them.
            found = False
            for offset in range(len(prefix), len(prefix + text) + 1):
                document = Document(WorkspaceKey("", "w"), DocumentKey(1, "u"), "python", 1, whole[:offset] + suffix)
                found = found or completer.prepare(document, offset).ids == prompt
            assert found, sample.kind
            compared += 1
        assert compared >= 5

    def test_prompts_have_context_from_files_of_the_same_package(self, tmp_path: Path) -> None:
        uses = (
            f"def owner_{number}(accounts, amount):\n    account = Account({number})\n    account.deposit(amount)\n"
            "    return total(accounts) + account.balance\n"
            for number in range(30)
        )
        files = {"bank.py": CODE, "use.py": "\n".join(["from p.bank import Account, total\n\n", *uses])}
        package(tmp_path / "sources", "p", files)
        corpus.prepare([tmp_path / "sources"], tmp_path / "out", benchmarks=cleaning.Benchmarks(()), held_out_share=0.0)
        model = load_model(None)
        maker = samples.SampleMaker(
            {"python": corpus.Shelf(tmp_path / "out", "python", "train")},
            vocabulary_of(read_base(STARTER_MODEL_PATH)),
            model.healer,
            samples.SampleMix({"python": 1.0}, plain=0.0, context=1.0, long=1.0),
            seed=1,
        )
        prompts = [model.tokenizer.decode(maker.make(number).ids) for number in range(20)]
        both = [prompt for prompt in prompts if "class Account" in prompt and "def owner_" in prompt]
        assert both, "no prompt has text of both files"

    def test_a_sample_is_a_function_of_its_number_and_the_seed(self, trainer: Trainer) -> None:
        maker = trainer.maker
        assert [maker.make(number) for number in range(20)] == [maker.make(number) for number in range(20)]
        assert len({tuple(maker.make(number).ids) for number in range(20)}) > 10

    def test_the_prefix_first_order_has_the_same_parts(self) -> None:
        infill = SimpleNamespace(template=(0, 2, 3, "{suffix}", 4, "{context}", "{prefix}"))
        assert samples.prefix_first(infill, [10, 11], [20], [30]) == [0, 2, 30, 10, 11, 3, 20, 4]

    def test_no_sample_is_longer_than_asked(self, trainer: Trainer) -> None:
        assert max(len(trainer.maker.make(number).ids) for number in range(60)) <= 256


class TestNetwork:
    def test_losses_are_those_of_the_forward_that_serves(self) -> None:
        model = load_model(str(STARTER_MODEL_PATH), dtype="float32", device="cpu")
        network = load_network(STARTER_MODEL_PATH)
        first, second = model.tokenizer.encode(CODE)[:60], model.tokenizer.encode(words(1, 5))[:50]
        ids = torch.tensor(first[:-1] + second[:-1])
        targets = torch.tensor(first[1:] + second[1:])
        lengths = [len(first) - 1, len(second) - 1]
        _, per_token = network.losses(ids, targets, lengths, torch.ones(len(ids)))
        reference = []
        for row in (first, second):
            hidden = network.hidden(torch.tensor(row[:-1]), [len(row) - 1])
            reference.append(
                torch.nn.functional.cross_entropy(
                    hidden @ network.embed_tokens.T, torch.tensor(row[1:]), reduction="none"
                )
            )
        torch.testing.assert_close(per_token, torch.cat(reference).detach(), atol=1e-4, rtol=1e-4)

    def test_gradients_of_the_blockwise_loss_are_those_of_cross_entropy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("training.cross_entropy._MAX_LOGITS", 16 * 8192)
        network = load_network(STARTER_MODEL_PATH)
        row = torch.tensor([token % 8192 for token in range(1, 4000, 97)])
        weights = torch.linspace(0, 2, len(row) - 1)
        loss, _ = network.losses(row[:-1], row[1:], [len(row) - 1], weights)
        loss.backward()
        mine = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
        network.zero_grad()
        logits = network.hidden(row[:-1], [len(row) - 1]) @ network.embed_tokens.T
        per_token = torch.nn.functional.cross_entropy(logits, row[1:], reduction="none")
        ((per_token * weights).sum() / weights.sum()).backward()
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(mine[name], parameter.grad, atol=1e-5, rtol=1e-3)

    def test_a_saved_network_serves_and_can_be_trained_on(self, tmp_path: Path) -> None:
        network = load_network(STARTER_MODEL_PATH, max_positions=2048)
        save_network(network, tmp_path / "model", (STARTER_MODEL_PATH / "tokenizer.json").read_text())
        assert load_model(str(tmp_path / "model")).max_positions == 2048
        again = load_network(tmp_path / "model")
        assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))

    def test_muon_steps_have_singular_values_near_one(self) -> None:
        matrices = torch.randn(2, 24, 64, generator=torch.Generator().manual_seed(0))
        values = torch.linalg.svdvals(orthogonalize(matrices))
        assert 0.5 < values.min() < values.max() < 1.4


class TestHeldOut:
    def test_projects_elsewhere_have_every_language_and_nothing_that_was_trained_on(
        self, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shelf = corpus.Shelf(prepared, "python", "train")
        project = tmp_path / "elsewhere" / "project"
        project.mkdir(parents=True)
        (project / "known.py").write_text(shelf[0].text + "\n")
        (project / "new.py").write_text("def shape_of(part):\n    return part.width * part.height\n" * 4)
        (project / "new.lua").write_text("local function area(part)\n  return part.width * part.height\nend\n" * 4)
        (project / "notes.unknown").write_text("words " * 100)
        command = ["hold-out", str(tmp_path / "elsewhere"), "--to", str(tmp_path / "out"), "--trained", str(prepared)]
        assert train_starter_model.hold_out_projects(parser().parse_args(command)) == 0
        files = json.loads(capsys.readouterr().out.splitlines()[-1])["files"]
        assert {name: found["files"] for name, found in files.items()} == {"lua": 1, "python": 1}
        assert corpus.Shelf(tmp_path / "out", "python", "held_out")[0].path == "project/new.py"

    def test_models_of_different_lengths_are_measured_on_the_same_text(
        self, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """One network with positions for 128 and for 512 tokens, on pieces of some 900: one figure."""
        tokenizer_json = (STARTER_MODEL_PATH / "tokenizer.json").read_text()
        for most in (128, 512):
            network = load_network(STARTER_MODEL_PATH, max_positions=most)
            save_network(network, tmp_path / str(most), tokenizer_json)
        command = ["measure", str(prepared), "--model", str(tmp_path / "128"), "--model", str(tmp_path / "512")]
        assert train_starter_model.measure(parser().parse_args(command)) == 0
        figures = json.loads(capsys.readouterr().out.splitlines()[-1])["bits_per_byte"]
        assert figures[str(tmp_path / "128")] == figures[str(tmp_path / "512")]
        assert 1.0 < figures[str(tmp_path / "128")]["python"] < 8.0


class TestSchedule:
    def test_a_pause_does_not_count_and_the_rates_end_low(self) -> None:
        schedule = Schedule(100.0, warmup_steps=5, decay_share=0.5)
        scales = []
        for number in range(400):
            scales.append(schedule.scale)
            schedule.count(30.0 if number == 50 else 0.5)
            if schedule.is_done:
                break
        assert 190 <= schedule.num_steps <= 201
        assert scales[0] == pytest.approx(0.2)
        assert max(scales) == 1.0
        assert scales[-1] < 0.03

    def test_the_rates_have_fallen_by_the_time_of_day(self) -> None:
        schedule = Schedule(1000.0, warmup_steps=1)
        left, scale = 50.0, 1.0
        while not schedule.is_done:
            scale = schedule.scale
            left -= 1.0
            schedule.count(1.0, clock_left_s=left)
        assert -1.0 <= left <= 1.0
        assert scale < 0.1


class TestRuns:
    def run(self, prepared: Path, to: Path, stop_after: int | None = None, *more: str) -> bytes:
        torch.set_num_threads(1)
        trainer = make_trainer(options(prepared, to, *more), prepared, to)
        trainer.resume()
        trainer.run(lambda _report: None, lambda: stop_after is not None and trainer.schedule.num_steps >= stop_after)
        return (to / "model" / "model.safetensors").read_bytes()

    def test_a_stopped_run_ends_with_the_weights_of_one_that_was_not(self, prepared: Path, tmp_path: Path) -> None:
        whole = self.run(prepared, tmp_path / "whole")
        self.run(prepared, tmp_path / "parts", stop_after=3)
        assert self.run(prepared, tmp_path / "parts") == whole

    def test_the_seed_decides_the_weights(self, prepared: Path, tmp_path: Path) -> None:
        assert self.run(prepared, tmp_path / "a") == self.run(prepared, tmp_path / "b")
        assert self.run(prepared, tmp_path / "c", None, "--seed", "1") != self.run(prepared, tmp_path / "a")

    def test_a_half_written_checkpoint_is_not_read(self, prepared: Path, tmp_path: Path) -> None:
        self.run(prepared, tmp_path / "run", stop_after=2)
        (tmp_path / "run" / "state.pt.partial").write_bytes(b"half")
        trainer = make_trainer(options(prepared, tmp_path / "run"), prepared, tmp_path / "run")
        assert trainer.resume()
        assert trainer.schedule.num_steps == 2

    def test_passes_add_up_to_the_gradient_of_the_whole_step(self, prepared: Path, tmp_path: Path) -> None:
        taken: list[dict[str, torch.Tensor]] = []
        for tokens_per_pass in ("150", "100000"):
            line = options(prepared, tmp_path, "--dtype", "float32", "--tokens-per-pass", tokens_per_pass)
            trainer = make_trainer(line, prepared, tmp_path)
            gradients = Gradients(trainer.network)
            trainer._forward_backward(gradients)
            taken.append(dict(gradients.take(Ranks())))
        for name, small in taken[0].items():
            torch.testing.assert_close(small, taken[1][name], atol=1e-6, rtol=1e-4)

    def test_parts_are_all_of_the_samples_in_order(self) -> None:
        made = [samples.Sample(list(range(length)), 0, "plain") for length in (5, 90, 3, 200, 4, 4)]
        parts = list(samples.passes(made, 100))
        assert [len(part) for part in parts] == [3, 1, 2]
        assert [sample for part in parts for sample in part] == made

    def test_two_ranks_take_the_step_of_both_their_samples(self, prepared: Path, tmp_path: Path) -> None:
        flats: list[torch.Tensor] = []
        counts: list[int] = []
        for rank in range(2):
            line = options(prepared, tmp_path, "--dtype", "float32", "--steps", "1")
            place = SimpleNamespace(rank=rank, size=2, sums=lambda values, _device: values)
            place.add_up = lambda flat: flats.append(flat.clone())
            trainer = make_trainer(line, prepared, tmp_path, place)
            gradients = Gradients(trainer.network)
            counts.append(trainer._forward_backward(gradients)[2])
            gradients.take(place)
        assert not torch.equal(flats[0], flats[1]), "both ranks had the same samples"
        place.add_up = lambda flat: flat.copy_(flats[0] + flats[1])
        trainer.optimizer.step(0.5, gradients.take(place))

        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += [str(SCRIPTS / "train_starter_model.py"), *train_line(prepared, tmp_path / "run").split()]
        command += ["--dtype", "float32", "--steps", "1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])["num_tokens"] == sum(counts)
        state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
        for name, mine in trainer.optimizer.masters.items():
            torch.testing.assert_close(state["optimizer"]["masters"][name], mine, atol=1e-5, rtol=1e-4)

    def test_the_smoke_run_learns(self) -> None:
        command = [sys.executable, str(SCRIPTS / "train_starter_model.py"), "train", "--smoke", "--threads", "1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        figures = json.loads(done.stdout.splitlines()[-1])
        assert figures["after"]["python"] < figures["before"]["python"]
        assert "commit" in figures["provenance"]

    def test_a_smoke_run_without_held_out_text_has_learned_nothing(self) -> None:
        assert not train_starter_model.has_learned({}, {})
        assert not train_starter_model.has_learned({"python": 2.0, "go": 2.0}, {"python": 1.0, "go": 2.0})
        assert train_starter_model.has_learned({"python": 2.0}, {"python": 1.0})
