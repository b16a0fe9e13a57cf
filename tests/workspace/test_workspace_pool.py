"""What a workspace's pool knows after documents open, change and close, files come and go, and text is taken."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from forelook.decoding.drafting.sources.prompt import PromptSource
from forelook.decoding.ngrams.pool import NgramPool
from forelook.workspace.cache import PoolCache
from forelook.workspace.cache_worker import CacheWorker
from forelook.workspace.line_tokens import MAX_PART_CHARS
from forelook.workspace.pool import WorkspacePool

from tests.workspace.conftest import MakePool, drafted, encode_bytes, settle

HELPER = "def convert_everything(values):\n    return [convert(value) for value in values]\n"


def pool_with(*files: tuple[str, str]) -> WorkspacePool:
    pool = WorkspacePool(encode_bytes)
    pool.add_files(files)
    settle(pool)
    return pool


def test_a_file_that_is_not_open_drafts_for_one_that_is() -> None:
    pool = pool_with(("helper.py", HELPER))
    pool.open_document("main.py", "x = 1\n")
    assert drafted(pool, "main.py", "def convert_every") == "thing(values"


def test_an_opened_document_drafts_without_a_slice_in_between() -> None:
    pool = WorkspacePool(encode_bytes, catch_up_s=60.0)
    pool.open_document("main.py", HELPER)
    source = PromptSource(encode_bytes("def convert_every"), pool.tokens_after("main.py", 0))
    first = source.propose(encode_bytes("def convert_every"), max_candidates=1, max_length=5)[0]
    assert bytes(first.token_ids) == b"thing"


def test_a_changed_line_is_learned_and_its_old_text_is_gone() -> None:
    pool = WorkspacePool(encode_bytes)
    pool.open_document("helper.py", HELPER)
    pool.open_document("main.py", "")
    settle(pool)
    pool.change_document("helper.py", HELPER.replace("convert_everything", "convert_all_of_it"))
    settle(pool)
    assert drafted(pool, "main.py", "def convert_all") == "_of_it(value"
    assert drafted(pool, "main.py", "def convert_every") != "thing(values"
    assert pool.stats().num_tokens == len(HELPER) - 1


def test_many_changes_before_a_slice_end_in_the_last_text() -> None:
    pool = WorkspacePool(encode_bytes)
    pool.open_document("a.py", "")
    for length in range(len(HELPER)):
        pool.change_document("a.py", HELPER[: length + 1])
        if length % 7 == 0:
            pool.run_slice(0.0001)
    settle(pool)
    assert pool.stats().num_tokens == len(HELPER)
    pool.open_document("b.py", "")
    assert drafted(pool, "b.py", "[convert(value) for ") == "value in val"


def test_a_closed_document_stays_as_a_file_with_its_last_text() -> None:
    pool = WorkspacePool(encode_bytes)
    pool.open_document("helper.py", "")
    pool.change_document("helper.py", HELPER)
    pool.close_document("helper.py")
    settle(pool)
    assert pool.stats().num_open == 0
    pool.open_document("main.py", "")
    assert drafted(pool, "main.py", "def convert_every") == "thing(values"


def test_a_file_does_not_replace_the_open_document_of_its_name() -> None:
    pool = WorkspacePool(encode_bytes)
    pool.add_files([("a.py", "on disk before")])
    pool.open_document("a.py", "in the editor")
    pool.add_files([("a.py", "on disk after")])
    settle(pool)
    assert pool.stats().num_tokens == len("in the editor")


def test_removed_files_are_gone_even_while_they_wait() -> None:
    pool = WorkspacePool(encode_bytes)
    pool.add_files([("helper.py", HELPER)])
    pool.remove_files(["helper.py", "unknown.py"])
    settle(pool)
    assert pool.stats().num_tokens == 0
    pool.add_files([("helper.py", HELPER)])
    settle(pool)
    pool.remove_files(["helper.py"])
    assert pool.stats().num_tokens == 0


def test_a_removed_open_document_comes_back_with_its_next_change() -> None:
    pool = WorkspacePool(encode_bytes)
    pool.open_document("a.py", HELPER)
    settle(pool)
    pool.remove_files(["a.py"])
    assert pool.stats().num_tokens == 0
    pool.change_document("a.py", HELPER + "x")
    settle(pool)
    assert pool.stats().num_tokens == len(HELPER) + 1


def test_open_documents_come_before_files() -> None:
    pool = WorkspacePool(encode_bytes)
    pool.add_files([(f"{number}.py", "filler " * 5000) for number in range(20)])
    pool.open_document("helper.py", HELPER)
    while pool.stats().num_documents == 0:
        pool.run_slice(0.0001)
    assert pool.stats().num_tokens == len(HELPER)
    assert pool.stats().num_waiting >= 19


def test_accepted_text_is_learned_and_outweighs_a_file() -> None:
    context = "connection = open_connection("
    pool = pool_with(("a.py", context + "host, port)\n"))
    pool.open_document("main.py", "")
    assert drafted(pool, "main.py", context, 4) == "host"
    pool.accept(encode_bytes(context + "address)"))
    assert drafted(pool, "main.py", context, 4) == "addr"
    assert pool.stats().num_accepted > 0


def test_texts_accepted_one_after_another_do_not_join() -> None:
    pool = WorkspacePool(encode_bytes)
    pool.accept(encode_bytes("first_accepted_text"))
    pool.accept(encode_bytes("second"))
    assert not drafted(pool, "main.py", "first_accepted_text").startswith("s")


def test_a_file_that_accepted_text_stands_in_outweighs_one_that_it_does_not() -> None:
    pool = pool_with(("taken.py", "width = measure(left)\n"), ("other.py", "width = measure(right)\n"))
    pool.open_document("main.py", "")
    settle(pool)
    assert drafted(pool, "main.py", "width = measure(") == "right)\n"  # the file that came last
    for _ in range(10):
        pool.accept(encode_bytes("= measure(left)"))
    pool._pool.remove_document("\0accepted")  # what accepted text says itself is another test's
    assert drafted(pool, "main.py", "width = measure(") == "left)\n"


def test_accepted_text_is_bounded() -> None:
    pool = WorkspacePool(encode_bytes)
    for number in range(200):
        pool.accept(encode_bytes(f"{number:04} " * 60))
    assert pool.stats().num_accepted < 20_000
    pool.open_document("main.py", "")
    assert drafted(pool, "main.py", "0199 0199 0199 ", 4) == "0199"


def test_accepted_text_that_goes_while_it_is_counted_is_none() -> None:
    class Vanishing(NgramPool):
        def __contains__(self, key: object) -> bool:
            found = super().__contains__(key)
            self._documents.pop(key, None)  # as the engine's thread may after this look
            return found

    pool = WorkspacePool(encode_bytes)
    pool.accept(encode_bytes("taken"))
    assert pool.stats().num_accepted > 0
    pool._pool = Vanishing()
    pool._pool.set_document("\0accepted", encode_bytes("taken"))
    assert pool.stats().num_documents == 0


def test_output_is_not_learned_unless_it_is_taken() -> None:
    pool = WorkspacePool(encode_bytes)
    pool.open_document("main.py", "x = ")
    pool.source("main.py").extend(encode_bytes("rejected_name + rejected_name + "))
    assert drafted(pool, "main.py", "x = rejected_") == ""


def test_text_after_the_cursor_is_drafted_from() -> None:
    text = "first = 1\n\nvalues = compute_values(first, second)\n"
    pool = WorkspacePool(encode_bytes, catch_up_s=60.0)
    pool.open_document("main.py", text)
    context = encode_bytes(text[:10] + "values = comp")
    source = PromptSource(context, pool.tokens_after("main.py", 10))
    drafts = source.propose(context, max_candidates=1, max_length=6)
    assert bytes(drafts[0].token_ids) == b"ute_va"


def test_the_lines_after_the_cursor_are_the_first_guess_where_nothing_matches() -> None:
    pool = WorkspacePool(encode_bytes)
    before, after = "~", "\nQWERTYUIOP\n"
    pool.open_document("main.py", before + after)
    settle(pool)
    source = PromptSource(encode_bytes(before), pool.tokens_after("main.py", len(before)))
    draft = source.propose(encode_bytes(before), max_candidates=1, max_length=6)[0]
    assert bytes(draft.token_ids) == b"\nQWERT"
    source.extend(encode_bytes("z"))
    assert source.propose(encode_bytes(before + "z"), max_candidates=1, max_length=6) == []


def test_a_request_for_an_unknown_document_still_has_the_workspace() -> None:
    pool = pool_with(("helper.py", HELPER))
    assert drafted(pool, "unknown.py", "def convert_every") == "thing(values"


def test_what_the_cache_held_is_there_after_a_start(make_pool: MakePool) -> None:
    pool = make_pool()
    pool.add_files([("helper.py", HELPER)])
    pool.accept(encode_bytes("taken_by_the_user = 1"))
    settle(pool)
    pool.close()
    again = make_pool()
    settle(again)
    assert replace(again.stats(), nbytes=0) == replace(pool.stats(), nbytes=0)
    again.open_document("main.py", "")
    assert drafted(again, "main.py", "def convert_every") == "thing(values"
    assert drafted(again, "main.py", "taken_by_the_") == "user = 1"


def test_completions_are_served_while_the_cache_is_read(make_pool: MakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_pool()
    first.add_files([("helper.py", HELPER)])
    settle(first)
    first.close()
    may_read = threading.Event()
    read = CacheWorker._restore
    monkeypatch.setattr(CacheWorker, "_restore", lambda worker: may_read.wait(60.0) and read(worker))
    again = make_pool(catch_up_s=60.0)
    again.open_document("main.py", "alpha_beta_gamma\nalpha_")
    assert drafted(again, "main.py", "alpha_beta") == ""
    context = encode_bytes("alpha_beta")
    source = PromptSource(context, again.tokens_after("main.py", 0))
    assert bytes(source.propose(context, max_candidates=1, max_length=4)[0].token_ids) == b"_gam"
    may_read.set()
    settle(again)
    assert drafted(again, "main.py", "def convert_every") == "thing(values"


def test_a_file_that_did_not_change_is_not_tokenised_again(make_pool: MakePool, tmp_path: Path) -> None:
    first = make_pool()
    first.add_files([("a.py", HELPER), ("b.py", HELPER + "b")])
    settle(first)
    first.close()
    seen: list[str] = []

    def encode(text: str) -> list[int]:
        seen.append(text)
        return encode_bytes(text)

    again = WorkspacePool(encode, cache=PoolCache(tmp_path / "pools", "file:///w", "model"))
    seen.clear()  # the samples that find the cut rule
    again.add_files([("a.py", HELPER), ("b.py", HELPER + "changed")])
    settle(again)
    assert "".join(seen) == HELPER + "changed"
    assert again.stats().num_tokens == 2 * len(HELPER) + len("changed")
    again.close()


def test_saves_are_incremental_and_add_up(make_pool: MakePool) -> None:
    pool = make_pool()
    pool.open_document("a.py", HELPER)
    settle(pool)
    for number in range(30):
        pool.change_document("a.py", HELPER + f"value_{number} = {number}\n")
        settle(pool)
        pool.save()
        pool.wait_saved()
    pool.add_files([("b.py", "b = 2\n")])
    settle(pool)
    pool.remove_files(["b.py"])
    pool.save()
    pool.wait_saved()
    text = bytes(pool.tokens_of("a.py")).decode()
    pool.close()
    again = make_pool()
    settle(again)
    assert bytes(again.tokens_of("a.py")).decode() == text == HELPER + "value_29 = 29\n"
    assert again.stats().num_documents == 1


def test_workspaces_and_models_never_see_each_other(make_pool: MakePool) -> None:
    first = make_pool("file:///one", "model")
    first.add_files([("secret.py", HELPER)])
    settle(first)
    first.close()
    for workspace, fingerprint in (("file:///two", "model"), ("file:///one", "other model")):
        other = make_pool(workspace, fingerprint)
        settle(other)
        assert other.stats().num_tokens == 0
        assert drafted(other, "main.py", "def convert_every") == ""


def test_what_may_no_longer_be_read_is_dropped_when_restored(make_pool: MakePool) -> None:
    first = make_pool()
    first.add_files([("a.py", HELPER), ("b.env", HELPER)])
    settle(first)
    first.close()
    again = make_pool(permits=lambda key: not key.endswith(".env"))
    settle(again)
    assert again.stats().num_documents == 1


LEFT = "left_the_project = 1\n"


@pytest.mark.parametrize("is_restored_first", [True, False])
def test_what_may_not_be_read_now_leaves_the_pool_and_the_disk(
    make_pool: MakePool, tmp_path: Path, is_restored_first: bool
) -> None:
    first = make_pool()
    first.add_files([("a.py", HELPER), ("gone.py", LEFT), ("a.py#window=2", HELPER), ("gone.py#window=2", LEFT)])
    first.add_files([("file:///elsewhere/gone.py", LEFT), ("open.py", HELPER)])
    settle(first)
    first.accept(encode_bytes(LEFT))
    first.close()
    assert is_on_disk(tmp_path, LEFT), "the test can see it there"
    again = make_pool()
    if is_restored_first:
        again.wait_restored()
    again.open_document("open.py", HELPER)
    again.keep_files(frozenset({"a.py"}))
    again.add_files([("new.py", HELPER)])
    again.wait_restored()
    settle(again)
    kept = {name for name in ("a.py", "a.py#window=2", "open.py", "new.py") if again.tokens_of(name)}
    assert kept == {"a.py", "a.py#window=2", "open.py", "new.py"}
    assert again.stats().num_documents == 4
    assert again.stats().num_accepted == 0, "nobody knows which file accepted text came from"
    again.save()
    again.wait_saved()
    assert not is_on_disk(tmp_path, LEFT)
    again.close()
    assert not is_on_disk(tmp_path, LEFT)


def test_a_folders_path_stands_for_all_below_it(make_pool: MakePool, tmp_path: Path) -> None:
    pool = make_pool()
    names = ("src/a.py", "src/deep/b.py", "src/deep/b.py#window=2", "srcs/c.py", "src.py", "other/src/d.py")
    pool.add_files([(name, LEFT if name.startswith("src/") else HELPER) for name in names])
    settle(pool)
    pool.save()
    pool.wait_saved()
    pool.remove_files(["src/"])
    assert [name for name in names if pool.tokens_of(name)] == ["srcs/c.py", "src.py", "other/src/d.py"]
    settle(pool)
    pool.save()
    pool.wait_saved()
    assert not is_on_disk(tmp_path, LEFT)


def is_on_disk(folder: Path, text: str) -> bool:
    """Whether the tokens of a text, which are its bytes, stand in a file of the cache."""
    tokens = np.array(encode_bytes(text), dtype=np.int32).tobytes()
    return any(tokens in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_clear_forgets_memory_and_disk_but_not_what_is_open(make_pool: MakePool, tmp_path: Path) -> None:
    pool = make_pool()
    pool.add_files([("a.py", HELPER)])
    pool.open_document("open.py", "still_open = 1\n")
    settle(pool)
    pool.save()
    pool.wait_saved()
    pool.clear()
    assert pool.stats().num_tokens == 0
    assert [path.name for path in (tmp_path / "pools").rglob("*") if path.is_file()] == ["lock"]
    settle(pool)
    assert pool.stats().num_tokens == len("still_open = 1\n")


@pytest.mark.parametrize("budget_s", [0.0, 0.001])
def test_a_slice_says_whether_work_is_left(budget_s: float) -> None:
    pool = WorkspacePool(encode_bytes)
    assert pool.run_slice(60.0) is False
    pool.add_files([("a.py", "x = 1\n" * 20_000)])
    assert pool.run_slice(budget_s) is True
    settle(pool)
    assert pool.run_slice(60.0) is False


def test_a_request_does_not_wait_for_a_large_document_to_be_indexed() -> None:
    encoded: list[int] = []

    def encode(text: str) -> list[int]:
        encoded.append(len(text))
        return encode_bytes(text)

    pool = WorkspacePool(encode, catch_up_s=0.0)
    encoded.clear()
    pool.open_document("large.py", HELPER * 100)
    assert pool.tokens_after("large.py", 0) is None
    assert encoded == []
    settle(pool)
    assert sum(encoded) >= len(HELPER) * 100
    assert drafted(pool, "main.py", "def convert_every") == "thing(values"


def test_no_step_tokenizes_a_long_line() -> None:
    encoded: list[int] = []

    def encode(text: str) -> list[int]:
        encoded.append(len(text))
        return encode_bytes(text)

    pool = WorkspacePool(encode, catch_up_s=60.0)
    encoded.clear()
    text = "first = 1\n" + "b, " * 300_000 + "\nlast = 2\n"
    pool.add_files([("file.py", text)])
    pool.open_document("open.py", text)
    settle(pool)
    pool.change_document("open.py", text.replace("b, b", "c", 1))
    assert pool.tokens_after("open.py", 0) is not None
    settle(pool)
    assert max(encoded) <= MAX_PART_CHARS
    assert bytes(pool.tokens_of("file.py")) == b"first = 1\nlast = 2\n"
