"""The thread governor: a team while it pays, one thread while it does not."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from forelook.model.cpu_threads import ThreadGovernor, _count_own


class Machine:
    """A fake clock and forwards that take as long as a test says."""

    def __init__(self, max_threads: int = 2, num_cores: int = 8) -> None:
        self.now = 100.0
        self.runnable: int | None = None
        self.own = 1
        self.governor = ThreadGovernor(
            max_threads,
            count_runnable=lambda: self.runnable,
            count_own=lambda: self.own,
            num_cores=num_cores,
            clock=lambda: self.now,
        )

    def run(self, *, single_s: float, team_s: float, num_tokens: int = 1, prefix_length: int = 256) -> int:
        threads = self.governor.choose(num_tokens, prefix_length)
        elapsed = single_s if threads == 1 else team_s
        self.now += elapsed
        self.governor.observe(num_tokens, prefix_length, threads, elapsed)
        return threads

    def quiet(self, **size: int) -> int:
        return self.run(single_s=0.002, team_s=0.0015, **size)

    def busy(self, **size: int) -> int:
        return self.run(single_s=0.002, team_s=0.1, **size)


def test_first_forward_of_a_size_is_single_then_the_team_works() -> None:
    machine = Machine()
    assert [machine.quiet() for _ in range(4)] == [1, 2, 2, 2]
    assert [machine.quiet(num_tokens=16) for _ in range(2)] == [1, 2]
    assert machine.quiet(num_tokens=12) == 2  # same size as 16
    assert machine.quiet(num_tokens=1, prefix_length=900) == 1


def test_the_first_prefill_is_not_slowed_down_for_a_reference() -> None:
    machine = Machine()
    assert [machine.quiet(num_tokens=512) for _ in range(3)] == [2, 2, 2]
    assert [machine.run(single_s=0.2, team_s=3.0, num_tokens=512) for _ in range(3)] == [2, 2, 2]


def test_a_slow_team_hands_over_to_a_single_thread_once_it_is_awake() -> None:
    machine = Machine()
    assert [machine.busy() for _ in range(7)] == [1, 2, 2, 1, 1, 1, 1]


def test_one_slow_forward_does_not_stop_a_team_and_three_in_a_row_do() -> None:
    machine = Machine()
    assert [machine.quiet() for _ in range(2)] == [1, 2]
    for _ in range(20):
        assert machine.run(single_s=0.002, team_s=0.005) == 2
        assert machine.quiet() == 2
    assert [machine.run(single_s=0.002, team_s=0.005) for _ in range(4)] == [2, 2, 2, 1]


def test_waking_up_is_not_held_against_a_team() -> None:
    machine = Machine()
    assert machine.quiet() == 1
    for _ in range(3):
        machine.now += 60.0
        assert machine.run(single_s=0.002, team_s=0.008) == 2
        assert [machine.quiet() for _ in range(3)] == [2, 2, 2]


def test_team_is_tried_again_ever_less_often_while_the_machine_stays_busy() -> None:
    machine = Machine()
    team_times = [machine.now for _ in range(10_000) if machine.busy() == 2]
    gaps = [later - earlier for earlier, later in pairwise(team_times) if later - earlier > 0.2]
    assert gaps == sorted(gaps)
    assert gaps[0] < 0.5
    assert 8.0 <= gaps[-1] < 8.5


def test_a_quiet_machine_gets_its_team_back_and_forgets_the_long_pauses() -> None:
    machine = Machine()
    for _ in range(3000):
        machine.busy()
    machine.now += 10
    assert [machine.quiet() for _ in range(2)] == [2, 2]
    assert machine.busy() == 2
    before = machine.now
    while machine.busy() == 1:
        pass
    assert machine.now - before < 0.5


def test_a_little_noise_does_not_stop_the_team() -> None:
    machine = Machine()
    assert machine.run(single_s=0.002, team_s=0.0028) == 1
    assert [machine.run(single_s=0.002, team_s=0.0028) for _ in range(3)] == [2, 2, 2]


def test_one_core_leaves_nothing_to_choose() -> None:
    machine = Machine(max_threads=1)
    assert [machine.quiet() for _ in range(3)] == [1, 1, 1]


def test_torchs_setting_is_the_teams_again_after_a_forward() -> None:
    before = torch.get_num_threads()
    governor = ThreadGovernor(before)
    with governor.forward(1, 0):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with pytest.raises(RuntimeError, match="inside"), governor.forward(1, 0):
        raise RuntimeError("inside")
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("runnable", "expected"), [(1, 8), (4, 5), (8, 1), (9, 1), (20, 1), (None, 8)])
def test_cores_that_other_programs_use_stay_theirs(runnable: int | None, expected: int) -> None:
    machine = Machine(max_threads=8)
    machine.quiet()
    machine.runnable = runnable
    assert machine.quiet() == expected


def test_the_teams_own_spinning_threads_are_not_somebody_elses() -> None:
    machine = Machine(max_threads=2, num_cores=2)
    machine.quiet()
    machine.runnable = 1
    assert machine.quiet() == 2
    machine.runnable = 2  # this thread, and the other one of the team, which spins
    assert [machine.quiet() for _ in range(3)] == [2, 2, 2]
    machine.runnable = 3
    assert machine.quiet() == 1
    machine.now += 1.0
    machine.runnable = 2  # the team sleeps: the other one is a stranger
    assert machine.quiet() == 1
    machine.own = 2  # or a thread of this process that something else woke
    assert machine.quiet() == 2


def test_this_process_has_a_runnable_thread() -> None:
    assert _count_own() >= 1
