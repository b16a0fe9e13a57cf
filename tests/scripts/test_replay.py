"""The replay benchmark: its rivals keep their own rules, and no method sees the lines it is to write."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import numpy as np
import pytest
from bench import replay, replay_model, rivals
from forelook.decoding.drafting.calibration import AcceptanceCalibration
from forelook.decoding.drafting.draft import pair_of
from forelook.decoding.drafting.sources.prompt import PromptSource
from forelook.decoding.drafting.sources.successors import PairTable, SuccessorSeeds, SuccessorTable
from forelook.model.loading import load_model


def git(root: Path, *arguments: str) -> None:
    environment = {
        **os.environ,
        **dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "A"),
        **dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "a@example.org"),
        **dict.fromkeys(("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"), os.devnull),
    }
    subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, env=environment)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Files that a second commit gives the same line, made of tokens that occur nowhere before."""
    git(tmp_path, "init", "-q")
    for name in ("a.py", "b.py", "c.py"):
        (tmp_path / name).write_text("import os\n\n\ndef f():\n    return os\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    for name in ("a.py", "b.py", "c.py"):
        (tmp_path / name).write_text(
            "import os\nzebra = [quartz.vixen(7351), jumbled / 99, 'wyvern ~ 42']\n\n\ndef f():\n    return os\n"
        )
    git(tmp_path, "commit", "-q", "-a", "-m", "two")
    return tmp_path


def test_prompt_lookup_drafts_what_transformers_would() -> None:
    torch = pytest.importorskip("torch")
    generators = pytest.importorskip("transformers.generation.candidate_generator")
    generator = generators.PromptLookupCandidateGenerator(
        num_output_tokens=15, max_matching_ngram_size=2, max_length=10_000
    )
    chooser = random.Random(0)
    for _ in range(200):
        ids = chooser.choices(range(chooser.choice([3, 30])), k=chooser.randint(2, 60))
        found, _ = generator.get_candidates(torch.tensor([ids]))
        ours = rivals.PromptLookup(ids[:1], 2, 15, len(ids) + 15)
        ours.learn(ids[1:])
        assert ours.draft().token_ids == found[0, len(ids) :].tolist()


def test_a_step_yields_the_drafts_that_agree_and_one_token_more() -> None:
    class Clairvoyant:
        def __init__(self) -> None:
            self.done = 0

        def draft(self) -> object:
            tree = replay.DraftTree()
            tree.add_path([*range(self.done, self.done + 4), 99])
            return tree

        def learn(self, accepted: list[int], rows: object) -> None:
            del rows
            self.done += len(accepted)

    tally = replay.Tally()
    replay.replay(Clairvoyant(), list(range(12)), tally)
    assert (tally.num_steps, tally.num_tokens, tally.num_drafted, tally.num_accepted) == (3, 12, 15, 10)


def test_added_lines_are_in_no_index_but_the_sessions(repository: Path) -> None:
    result = replay.run(repository, "r", replay.ReplaySettings(commits=5))
    assert result["num_edits"] == 3
    for kind in ("methods", "methods_replaced_deleted"):
        methods = result[kind]
        for name in ("prompt_lookup", "published", "pool_cold", "pool_warm"):
            assert methods[name]["tokens_per_step"] < 1.4, name
        for name in ("pool_session", "forelook"):
            assert methods[name]["tokens_per_step"] > 1.5 * methods["pool_warm"]["tokens_per_step"], name


def test_every_method_drafts_a_models_own_output_and_changes_none_of_it(repository: Path) -> None:
    model = load_model(None, device="cpu", dtype="float32")
    result = replay_model.run_with_model(repository, "r", replay.ReplaySettings(commits=5, edit_tokens=12), model)
    assert result["num_edits"] == 3
    assert result["num_outputs_different"] == 0
    assert set(result["methods"]) == set(replay.METHODS) - {"pool_session", "pool_libraries", "forelook"}
    assert all(figures["tokens_per_step"] >= 1.0 for figures in result["methods"].values())


def tokens_per_step(table: SuccessorTable, target: list[int]) -> float:
    before = [8, 9]
    method = replay.ForelookMethod(PromptSource(before, []), [], before, AcceptanceCalibration(), 15, table)
    tally = replay.Tally()
    replay.replay(method, target, tally)
    return tally.tokens_per_step


def test_published_pairs_and_earlier_outputs_are_drafts_where_nothing_else_matches() -> None:
    target = list(range(10, 50))
    firsts = range(8, 48)
    pairs = np.array([pair_of(first, first + 1) for first in firsts])
    counts = np.ones(len(pairs), dtype=np.int64)
    known = PairTable(pairs, counts, np.array([first + 2 for first in firsts]), np.full(len(pairs), 0.9))
    assert tokens_per_step(SuccessorTable(SuccessorSeeds(60, published=known)), target) > 3
    table = SuccessorTable()
    assert tokens_per_step(table, target) == 1
    assert tokens_per_step(table, target) > 3


def test_the_tokens_are_the_vocabularys_and_its_model_may_publish_pairs(repository: Path) -> None:
    model = load_model(None, device="cpu", dtype="float32")
    vocabulary = replay.Vocabulary.of(model)
    assert vocabulary.seeds is not None
    assert vocabulary.encode is not None
    assert vocabulary.encode("import os") == model.tokenizer.encode("import os")
    seen: list[str] = []

    def encode(text: str) -> list[int]:
        seen.append(text)
        return model.tokenizer.encode(text)

    settings = replay.ReplaySettings(commits=1, methods="prompt_lookup,forelook")
    replay.run(repository, "r", settings, replay.Vocabulary(encode, vocabulary.seeds))
    assert any("zebra" in text for text in seen)


def test_limited_edits_are_spread_over_all_commits() -> None:
    edits = [[f"{commit}.{number}" for number in range(10)] for commit in range(4)]
    kept = replay.spread(edits, 8)
    assert [len(found) for found in kept] == [2, 2, 2, 2]
    assert replay.spread(edits, 0) == edits
