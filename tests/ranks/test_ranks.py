"""Several processes decode together behind the engine: started, used, killed, and started again."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from forelook.completion.engine.drafting import Drafting
from forelook.decoding.autoregressive import autoregressive
from forelook.decoding.limits import Limits
from forelook.decoding.lookahead.published import PublishedSettings
from forelook.decoding.request import DecodeRequest
from forelook.errors import ConfigError, RankLostError
from forelook.local.identity import BackendIdentity
from forelook.model.loading import STARTER_MODEL_NAME, STARTER_MODEL_PATH, load_model
from forelook.ranks.ranks import Ranks, rank_device
from forelook.ranks.source import RankSource, torchrun_rank
from safetensors.torch import load_file

from tests.decoding.streams import drafted, published


def wait_for(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come about in time"
        time.sleep(0.05)


def resident_bytes(process_id: int) -> int:
    pages = Path(f"/proc/{process_id}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def test_a_killed_rank_ends_one_request_and_the_group_is_started_again():
    model = load_model(None, device="cpu", dtype="float32")
    prompt = model.tokenizer.encode("def add(first, second):\n    return first + second\n\n\ndef sub(first, second):\n")
    request = DecodeRequest(prompt, Limits(60))
    expected = [t for ids in autoregressive(request, model.new_sequence(512)) for t in ids]
    weight_bytes = 4 * sum(weight.numel() for weight in load_file(STARTER_MODEL_PATH / "model.safetensors").values())
    identity = BackendIdentity(model=STARTER_MODEL_NAME, device="cpu", dtype="float32")
    command = [sys.executable, "-m", "forelook", "follow", *identity.command_arguments()]
    ranks = Ranks(RankSource(2, command))
    ranks.load(lambda: model)
    try:
        drafting = ranks.shared(Drafting())
        sequence = model.new_sequence(512)

        def decoded() -> list[int]:
            steps = drafted(request, sequence, loop=drafting.loop, budget=drafting.budget)
            return [token for ids in steps for token in ids]

        assert decoded() == expected, "alone, while the other rank is loading"
        wait_for(lambda: ranks.is_ready, 60)
        assert decoded() == expected, "together"
        resident = resident_bytes(ranks.process_ids[0])
        ranks.unload()
        wait_for(lambda: resident_bytes(ranks.process_ids[0]) < resident - weight_bytes // 2, 10)
        ranks.load(lambda: model)
        assert ranks.is_ready
        assert decoded() == expected, "together after a rest"
        (first,) = ranks.process_ids
        long = DecodeRequest(prompt, Limits(400))
        steps = published(long, sequence, PublishedSettings(5, 4, 5), loop=drafting.loop)
        next(steps)
        os.kill(first, signal.SIGKILL)
        started_s = time.monotonic()
        with pytest.raises(RankLostError, match="lost contact with another rank"):
            list(steps)
        assert time.monotonic() - started_s < 10, "a rank that hangs would be waited for for a minute"
        assert decoded() == expected, "alone again at once"
        wait_for(lambda: ranks.is_ready, 60)
        assert ranks.process_ids != [first]
        assert decoded() == expected, "together again"
        last = ranks.process_ids
    finally:
        ranks.close()
    assert not ranks.is_ready
    for process_id in last:
        with pytest.raises(ProcessLookupError):
            os.kill(process_id, 0)


def test_a_rank_with_another_model_does_not_decode(caplog: pytest.LogCaptureFixture) -> None:
    """As after a model's files changed between the two loads."""
    model = replace(load_model(None, device="cpu", dtype="float32"), fingerprint="of the files before")
    identity = BackendIdentity(model=STARTER_MODEL_NAME, device="cpu", dtype="float32")
    ranks = Ranks(RankSource(2, [sys.executable, "-m", "forelook", "follow", *identity.command_arguments()]))
    ranks.load(lambda: model)
    try:
        ranks.shared(Drafting())
        wait_for(lambda: "other weights than rank 0 has were loaded by rank 1" in caplog.text, 60)
        assert not ranks.is_ready
        ranks.load(lambda: load_model(None, device="cpu", dtype="float32"))
        wait_for(lambda: ranks.is_ready, 60)
    finally:
        ranks.close()


def test_a_close_that_comes_as_ranks_are_gathered_again_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Ranks(RankSource(2, ["forelook", "follow"]))

    class LostJustNow(threading.Event):
        def clear(self) -> None:
            ranks._closing.set()
            self.set()  # as `close` does, from another thread
            super().clear()

    def gather(_folder: Path) -> None:
        raise AssertionError("ranks are gathered though it closes")

    monkeypatch.setattr(ranks, "_lost", LostJustNow())
    monkeypatch.setattr(ranks, "_gather", gather)
    ranks._keep()


def test_devices_that_are_not_there_are_a_setting_out_of_range():
    with pytest.raises(ConfigError, match="invalid devices: 1"):
        RankSource(1)
    with pytest.raises(ConfigError, match=r"invalid devices: 4096 \(expected at most the \d+ CPU cores"):
        Ranks(RankSource(4096)).prepare("cpu")
    with pytest.raises(ConfigError, match="where several devices are used"):
        rank_device("cuda:1", 0)


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({}, None),
        ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}, (1, 2)),
        ({"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}, None),
        ({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}, None),
        ({"RANK": "x", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}, None),
        ({"RANK": "1", "WORLD_SIZE": "2"}, None),  # somebody else's variables
    ],
)
def test_torchruns_variables_say_which_rank_this_is(environ, place):
    assert torchrun_rank(environ) == place
