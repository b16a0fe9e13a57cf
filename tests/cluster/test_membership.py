"""Which sessions must move when replicas come and go, as the routers of Ray place them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("ray", reason="needs the extra forelook[cluster]")

from forelook.cluster.membership import Membership
from forelook.cluster.ring import HashRing
from forelook.cluster.scaling import BUSY, BusySharePolicy
from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter

SESSIONS = [f"session {number}" for number in range(500)]


def test_the_ring_places_sessions_as_the_router_does() -> None:
    names = ["abc123", "def456", "ghi789"]
    router = ConsistentHashRouter.__new__(ConsistentHashRouter)
    router._num_virtual_nodes, router._num_fallback_replicas, router._deployment_id = 100, 0, "forelook"
    router._rebuild_ring(frozenset(ReplicaID(name, DeploymentID("forelook")) for name in names))
    ring = HashRing(names)
    for session in SESSIONS:
        assert [replica.unique_id for replica in router._lookup_ranked_replicas(session)] == [ring.owner(session)]


def test_a_replica_more_takes_its_share_of_the_sessions_and_no_other_moves() -> None:
    before, after = HashRing(["a", "b", "c"]), HashRing(["a", "b", "c", "d"])
    moved = [session for session in SESSIONS if before.owner(session) != after.owner(session)]
    assert {after.owner(session) for session in moved} == {"d"}
    assert 0.1 < len(moved) / len(SESSIONS) < 0.4
    assert HashRing([]).owner("x") is None


class Sessions:
    """A backend, as far as membership moves its sessions."""

    def __init__(self) -> None:
        self.moved: list[str] = []
        self.has_ended = False

    def move_sessions(self, is_elsewhere: Callable[[str], bool]) -> None:
        self.moved += [session for session in SESSIONS if is_elsewhere(session)]

    def end_sessions(self) -> None:
        self.has_ended = True


class Timer:
    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def run(self) -> None:
        if self._call is not None:
            self._call()

    def cancel(self) -> None:
        self._call = None


class Timers:
    """Calls that wait until the test lets time pass."""

    def __init__(self) -> None:
        self._waiting: list[Timer] = []

    def __call__(self, _delay_s: float, call: Callable[[], None]) -> Timer:
        self._waiting.append(Timer(call))
        return self._waiting[-1]

    def pass_time(self) -> None:
        while self._waiting:
            self._waiting.pop().run()


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()


@pytest.fixture
def timers() -> Timers:
    return Timers()


@pytest.fixture
def membership(sessions: Sessions, timers: Timers) -> Membership:
    return Membership(sessions, "a", timers)  # type: ignore[arg-type]  # as far as they are used


def test_sessions_that_another_replica_owns_move_once_the_change_has_settled(
    membership: Membership, sessions: Sessions, timers: Timers
) -> None:
    membership.update(frozenset("ab"))
    timers.pass_time()
    sessions.moved.clear()
    membership.update(frozenset("abc"))
    assert sessions.moved == [], "some routers may not have heard yet"
    timers.pass_time()
    ring = HashRing("abc")
    assert sessions.moved == [session for session in SESSIONS if ring.owner(session) != "a"]
    assert not sessions.has_ended


def test_sessions_return_to_the_replica_that_takes_a_dead_one_s_place(
    membership: Membership, sessions: Sessions, timers: Timers
) -> None:
    for replicas in ("ab", "a", "ac"):
        membership.update(frozenset(replicas))
        timers.pass_time()
    ring = HashRing("ac")
    assert sessions.moved == [session for session in SESSIONS if ring.owner(session) == "c"]


def test_a_replica_that_takes_no_requests_any_more_ends_its_sessions(
    membership: Membership, sessions: Sessions, timers: Timers
) -> None:
    membership.update(frozenset("b"))
    assert not sessions.has_ended, "it has not begun"
    membership.update(frozenset("ab"))
    membership.update(frozenset("abc"))
    membership.update(frozenset("bc"))
    assert sessions.has_ended
    timers.pass_time()
    assert sessions.moved == [], "all move anyway"


class Context:
    """What the policy reads of Ray's context."""

    def __init__(self, shares: dict[str, float] | None) -> None:
        self.aggregated_metrics = None if shares is None else {BUSY: shares}
        self.target_num_replicas = 3


@pytest.mark.parametrize(
    ("shares", "wanted"),
    [
        (None, 3),
        ({}, 3),
        ({"a": 0.5, "b": 0.5}, 2.0),
        ({"a": 0.9, "b": 0.9}, 3.6),
        ({"a": 0.05, "b": 0.05}, 0.2),
    ],
)
def test_replicas_follow_the_share_of_the_time_their_devices_are_busy(
    shares: dict[str, float] | None, wanted: float
) -> None:
    assert BusySharePolicy(0.5)(Context(shares)) == (pytest.approx(wanted), {})
