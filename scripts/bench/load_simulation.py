"""A cluster that exists only as a queue per replica: recorded typists, their requests' measured costs, and the clock.

What is simulated is the wait for the device. Everything else is replayed: gaps between keys, which keys ask, what each
request cost the device, and what a reply took beside it (network, protocol, the first wait behind work in pauses). As
in the engine, a replica runs one request at a time, oldest first; a newer request of a typist takes the place of the
one that waits, and ends the one that runs at its next forward. A typist belongs to one replica, drawn by a hash, so
replicas are not equally full.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

from bench.load import Key, Typed
from bench.summary import rounded_percentile

Event = tuple[float, int, int, int]
"""Time, number, replica or typist, and the version of a replica's request; a key has version -1."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one request costs.

    Attributes:
        service_s: time of the device.
        beside_s: time of the reply that does not depend on the load.
        forwards: passes of the model, between which it can be ended.
    """

    service_s: float
    beside_s: float
    forwards: int


@dataclass(frozen=True, slots=True)
class Step:
    """A key: the time since the one before, and whether it asked."""

    gap_s: float
    asks: bool


@dataclass(frozen=True)
class Recording:
    """What the simulation replays.

    Attributes:
        steps: of each recorded typist.
        costs: of each one's answered requests; some type what is asked for often and costs much.
    """

    steps: tuple[tuple[Step, ...], ...]
    costs: tuple[tuple[Cost, ...], ...]

    @classmethod
    def of(cls, typed: Sequence[Typed]) -> Recording:
        """The recording of real runs, best of one typist alone each.

        Raises:
            ValueError: nothing was answered in it.
        """
        steps, costs = [], []
        for one in typed:
            if answered := [key for key in one.keys if key.latency_ms is not None]:
                steps.append(tuple(Step(key.gap_s, key.reply is not None) for key in one.keys))
                costs.append(tuple(map(_cost_of, answered)))
        if not costs:
            raise ValueError("no request of the recording was answered")
        return cls(tuple(steps), tuple(costs))

    @property
    def service_p50_ms(self) -> float:
        """Median time that a request has the device."""
        return median(cost.service_s for costs in self.costs for cost in costs) * 1e3

    def faster(self, factor: float) -> Recording:
        """The same typists on a device that needs 1/factor of the time."""
        faster = [
            tuple(Cost(cost.service_s / factor, cost.beside_s, cost.forwards) for cost in costs) for costs in self.costs
        ]
        return Recording(self.steps, tuple(faster))


def _cost_of(key: Key) -> Cost:
    assert key.reply is not None
    assert key.latency_ms is not None
    service_s = key.reply.service_ms / 1e3
    return Cost(service_s, max(0.0, key.latency_ms / 1e3 - service_s), max(1, key.reply.forwards))


@dataclass(slots=True)
class _Request:
    typist: int
    arrived_s: float
    cost: Cost
    started_s: float = 0.0
    is_superseded: bool = False


@dataclass
class _Replica:
    waiting: OrderedDict[int, _Request] = field(default_factory=OrderedDict)
    running: _Request | None = None
    version: int = 0
    busy_s: float = 0.0


class Simulation:
    """One run.

    Args:
        recording: who types and what requests cost.
        num_typists, num_replicas: of the cluster.
        seconds: that count, after a tenth of them as a warm-up.
        seed: of all chance.
    """

    def __init__(
        self, recording: Recording, num_typists: int, num_replicas: int, seconds: float = 60.0, seed: int = 0
    ) -> None:
        self._chance = random.Random(seed)
        self._warm_s, self._ends_s = seconds / 10, seconds * 1.1
        self._replicas = [_Replica() for _ in range(num_replicas)]
        self._home = [self._chance.randrange(num_replicas) for _ in range(num_typists)]
        who = [number % len(recording.steps) for number in range(num_typists)]  # as the runs number them
        self._steps = [recording.steps[number] for number in who]
        self._costs = [recording.costs[number] for number in who]
        self._place = [self._chance.randrange(len(steps)) for steps in self._steps]
        self._latest_key_s = [0.0] * num_typists
        self._events: list[Event] = []
        self._num_events = 0
        self.latencies_ms: list[float] = []
        self.num_requests = self.num_in_time = self.num_superseded = 0
        self._pending: dict[int, list[tuple[float, float]]] = {}

    def run(self) -> dict[str, Any]:
        """Run, and return the figures that a real run has too."""
        for typist, steps in enumerate(self._steps):
            self._push(self._chance.uniform(0.0, steps[self._place[typist]].gap_s), typist, -1)
        while self._events:
            now_s, _, number, version = heapq.heappop(self._events)
            if now_s > self._ends_s:
                break
            if version < 0:
                self._key(number, now_s)
            elif self._replicas[number].version == version:
                self._finish(self._replicas[number], number, now_s)
        busy = [replica.busy_s / self._ends_s for replica in self._replicas]
        return {
            "typists": len(self._steps),
            "replicas": len(self._replicas),
            "requests": self.num_requests,
            "p50_ms": rounded_percentile(self.latencies_ms, 50),
            "p95_ms": rounded_percentile(self.latencies_ms, 95),
            "in_time_share": round(self.num_in_time / max(1, self.num_requests), 4),
            "superseded_share": round(self.num_superseded / max(1, self.num_requests), 4),
            "busy_share": round(sum(busy) / len(busy), 4),
            "busiest_share": round(max(busy), 4),
        }

    def _push(self, at_s: float, number: int, version: int) -> None:
        self._num_events += 1
        heapq.heappush(self._events, (at_s, self._num_events, number, version))

    def _key(self, typist: int, now_s: float) -> None:
        steps, place = self._steps[typist], self._place[typist]
        self._place[typist] = (place + 1) % len(steps)
        self._latest_key_s[typist] = now_s
        self._push(now_s + steps[self._place[typist]].gap_s, typist, -1)
        number = self._home[typist]
        replica = self._replicas[number]
        running = replica.running
        runs = running is not None and running.typist == typist and not running.is_superseded
        # Without its answer a key that was typed through a suggestion has none to show, and asks.
        if not steps[place].asks and not (runs or typist in replica.waiting):
            return
        if replica.waiting.pop(typist, None) is not None:
            self._count_superseded(now_s)
        if running is not None and runs:
            running.is_superseded = True
            self._count_superseded(now_s)
            step_s = running.cost.service_s / running.cost.forwards
            num_steps = math.floor((now_s - running.started_s) / step_s) + 1 if step_s > 0 else 0
            replica.version += 1
            self._push(
                min(running.started_s + running.cost.service_s, running.started_s + num_steps * step_s),
                number,
                replica.version,
            )
        if now_s >= self._warm_s:
            self.num_requests += 1
        replica.waiting[typist] = _Request(typist, now_s, self._chance.choice(self._costs[typist]))
        if replica.running is None:
            self._start(replica, number, now_s)

    def _count_superseded(self, now_s: float) -> None:
        if now_s >= self._warm_s:
            self.num_superseded += 1

    def _start(self, replica: _Replica, number: int, now_s: float) -> None:
        _, request = replica.waiting.popitem(last=False)
        request.started_s = now_s
        replica.running = request
        replica.version += 1
        self._push(now_s + request.cost.service_s, number, replica.version)

    def _finish(self, replica: _Replica, number: int, now_s: float) -> None:
        request = replica.running
        assert request is not None
        replica.running = None
        replica.busy_s += now_s - request.started_s
        if not request.is_superseded and request.arrived_s >= self._warm_s:
            reply_s = now_s + request.cost.beside_s
            self.latencies_ms.append((reply_s - request.arrived_s) * 1e3)
            next_key_s = self._latest_key_s[request.typist] + self._gap_after(request.typist)
            self.num_in_time += reply_s <= next_key_s and self._latest_key_s[request.typist] == request.arrived_s
        if replica.waiting:
            self._start(replica, number, now_s)

    def _gap_after(self, typist: int) -> float:
        return self._steps[typist][self._place[typist]].gap_s


def simulated(
    recording: Recording, num_typists: int, num_replicas: int, *, seconds: float = 60.0, runs: int = 3
) -> dict[str, Any]:
    """The mean of some runs with different chance."""
    results = [Simulation(recording, num_typists, num_replicas, seconds, seed).run() for seed in range(runs)]
    return {
        name: round(sum(result[name] or 0.0 for result in results) / runs, 4) if isinstance(value, float) else value
        for name, value in results[0].items()
    }


def alone_in_time_share(recording: Recording) -> float:
    """The share of the answers in time that a recorded typist has alone, on average."""
    each = zip(recording.steps, recording.costs, strict=True)
    return fmean(simulated(Recording((steps,), (costs,)), 1, 1)["in_time_share"] for steps, costs in each)


def replicas_needed(
    recording: Recording, num_typists: int, *, in_time_share: float, most: int = 256, seconds: float = 30.0
) -> dict[str, Any] | None:
    """The smallest cluster in which a share of the answers comes before the next key; ``None`` if ``most`` do not.

    One that is larger is not always better by a little, as the hash spreads typists by chance; so the search is by
    halves, and the result is good to about a replica in ten.
    """
    low, high, best = 1, 1, None
    while high <= most:
        found = simulated(recording, num_typists, high, seconds=seconds, runs=2)
        if found["in_time_share"] >= in_time_share:
            best = found
            break
        low, high = high + 1, high * 2
    if best is None:
        return None
    while low < high:
        middle = (low + high) // 2
        found = simulated(recording, num_typists, middle, seconds=seconds, runs=2)
        if found["in_time_share"] >= in_time_share:
            best, high = found, middle
        else:
            low = middle + 1
    return best
