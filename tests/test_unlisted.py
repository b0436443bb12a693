"""Models that no limit was given for: their names come from requests, and may be any
text, in any number, from any thread.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator

import pytest

from ratelimit import LimiterWarning, Limits, RateLimiter
from ratelimit.control import engine as unlisted
from ratelimit.families import LONGEST_NAME
from ratelimit.testing import ThreadClock


@pytest.fixture
def limiter() -> RateLimiter:
    """A limiter that was given limits for one family."""
    return RateLimiter(limits={"gpt-4o": Limits(rpm=1_000)}, clock=ThreadClock())


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Let only three idle families be kept, without warnings."""
    monkeypatch.setattr(unlisted, "MOST", 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LimiterWarning)
        yield 3


def test_a_models_name_is_never_taken_for_a_pattern(limiter: RateLimiter) -> None:
    """A request for "*" catches no other model.

    Each is met with a warning of its own, at the caller's line.
    """
    for model in ("*", "o*|gpt*", "never-seen", "o3"):
        with pytest.warns(LimiterWarning, match="no limit is given for model") as warned:
            limiter.acquire_sync(model=model, tokens=1).close()
        assert [warning.filename for warning in warned] == [__file__]

    assert set(limiter.statistics().families) == {"gpt-4o", "*", "o*|gpt*", "never-seen", "o3"}


def test_snapshots_and_fine_tunes_share_the_family_of_their_model(limiter: RateLimiter) -> None:
    """Whichever of them is met first, and as with families that limits are given
    for.
    """
    with pytest.warns(LimiterWarning):
        limiter.acquire_sync(model="gpt-4o-mini-2024-07-18", tokens=1)
    for model in ("gpt-4o-mini", "ft:gpt-4o-mini-2024-07-18:us::7", "gpt-4o-2024-08-06"):
        limiter.acquire_sync(model=model, tokens=1)

    admitted = {name: one.admitted for name, one in limiter.statistics().families.items()}
    assert admitted == {"gpt-4o-mini": 3, "gpt-4o": 1}


def test_families_that_were_not_used_lately_are_dropped_but_not_their_refusals(
    limiter: RateLimiter, few: int
) -> None:
    """Any number of names takes the memory of a few.

    A 429 is counted all the same, and a family that is used stays.
    """
    limiter.acquire_sync(model="early", tokens=1).observe({}, status=429, body=None)
    for number in range(20):
        limiter.acquire_sync(model=f"model {number}", tokens=1).close()
        limiter.acquire_sync(model="used", tokens=1).close()

    statistics = limiter.statistics()
    assert set(statistics.families) == {"gpt-4o", "model 18", "model 19", "used"}
    assert len(statistics.families) == 1 + few
    assert statistics.families["used"].admitted == 20
    assert statistics.refused == statistics.dropped_refusals == 1


def test_a_family_with_calls_in_flight_is_not_dropped(limiter: RateLimiter, few: int) -> None:
    """Its calls still count when the next one comes, however many models were met."""
    leases = [limiter.acquire_sync(model=f"busy {number}", tokens=1) for number in range(few + 2)]
    for number in range(20):
        limiter.acquire_sync(model=f"model {number}", tokens=1).close()

    in_flight = {
        name: family.in_flight
        for name, family in limiter.statistics().families.items()
        if family.in_flight
    }
    assert in_flight == {f"busy {number}": 1 for number in range(len(leases))}


@pytest.mark.usefixtures("few")
def test_names_without_end_are_warned_of_a_few_times_only(limiter: RateLimiter) -> None:
    """Python remembers every warning's text for good; a name may be long."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for number in range(20):
            limiter.acquire_sync(model=f"{number} {'x' * 1_000_000}", tokens=1).close()

    assert 1 <= len(warned) <= 3
    assert max(len(str(warning.message)) for warning in warned) < LONGEST_NAME + 200
    assert max(map(len, limiter.statistics().families)) <= LONGEST_NAME


@pytest.mark.usefixtures("few")
def test_threads_may_meet_new_models_while_all_are_looked_at(limiter: RateLimiter) -> None:
    """Neither a call nor a snapshot fails while families are made and dropped."""
    errors: list[Exception] = []

    def call(thread: int) -> None:
        try:
            for number in range(200):
                limiter.acquire_sync(model=f"{thread} {number}", tokens=1).close()
                limiter.acquire_sync(model="shared", tokens=1).close()
                limiter.statistics()
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the finding
            errors.append(error)

    threads = [threading.Thread(target=call, args=(thread,)) for thread in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)

    assert not errors
    assert len(limiter.statistics().families) <= 1 + 3 + len(threads)
