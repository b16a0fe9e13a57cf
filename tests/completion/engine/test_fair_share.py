"""Whose turn it is."""

from __future__ import annotations

from forelook.completion.engine.fair_share import FairShare


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_the_user_who_has_had_the_least_is_first() -> None:
    shares = FairShare(Clock())
    shares.charge("a", 2.0)
    shares.charge("b", 1.0)
    assert shares.first(["a", "b"]) == "b"
    assert shares.first(["a", "b", "new"]) == "new"
    assert shares.first(["a"]) == "a"


def test_a_running_request_goes_on_unless_another_user_has_had_clearly_less() -> None:
    shares = FairShare(Clock())
    shares.charge("a", 0.01)
    assert shares.first(["a", "b"], current="a") == "a"
    shares.charge("a", 1.0)
    assert shares.first(["a", "b"], current="a") == "b"


def test_whoever_had_the_device_in_the_last_minute_is_company_for_the_others() -> None:
    clock = Clock()
    shares = FairShare(clock)
    assert not shares.has_company("a")
    shares.charge("a", 5.0)
    assert not shares.has_company("a"), "nobody is one's own company"
    shares.charge("b", 0.01)
    clock.now_s += 60.0
    assert shares.has_company("a")
    clock.now_s += 1_000.0
    assert not shares.has_company("a")


def test_what_was_used_fades() -> None:
    clock = Clock()
    shares = FairShare(clock)
    shares.charge("a", 4.0)
    clock.now_s += 30.0  # three half-lives
    shares.charge("b", 0.6)
    assert shares.first(["a", "b"]) == "a"
    clock.now_s += 1_000.0
    shares.charge("b", 0.1)
    assert shares._used.keys() == {"b"}, "nobody is remembered for ever"


def test_users_who_always_want_more_get_equal_time() -> None:
    shares = FairShare(Clock())
    spent = {"a": 0.0, "b": 0.0, "c": 0.0}
    seconds = {"a": 0.5, "b": 0.01, "c": 0.1}  # per slice
    current = None
    for _ in range(2_000):
        current = shares.first(spent, current)
        spent[current] += seconds[current]
        shares.charge(current, seconds[current])
    assert max(spent.values()) - min(spent.values()) < 0.6
