"""Windows of requests that headers show: kept by what is left, to their end.

Owns gateways' headers, of the IETF's drafts, slowapi and Flask-Limiter, with the real
client and nothing given. Time is virtual.
"""

from __future__ import annotations

from typing import Any

import pytest

from ratelimit import RateLimiter
from ratelimit.control.learning.windows import ROUNDED, UNANSWERED, Windows
from ratelimit.feedback import Reading
from ratelimit.testing import FakeOpenAI, Latency
from tests.test_outside_words import Play

pytestmark = pytest.mark.usefixtures("vocabulary")

STYLES = ["slowapi", "flask", "ietf", "ietf-7", "ietf-6"]
LATENCY = Latency(base=0.3, per_token=0, spread=0.4, jitter=(0.0, 0.08))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("variant", ["clock", "fixed"])
@pytest.mark.parametrize(("rpm", "window", "seconds"), [(30, 60, 64), (60, 10, 56)])
def test_a_gateway_refuses_nothing_with_nothing_given(
    style: Any, variant: str, rpm: int, window: float, seconds: float
) -> None:
    """60 calls at once: one goes first, its headers tell the rest how many may follow,
    and all go on when the window opens.
    """
    fake = FakeOpenAI(variant, rpm=rpm, window=window, header_style=style, latency=LATENCY)
    play = Play(fake, retries=0)

    errors = play.at_once(60)

    assert (errors, play.refusals) == ([], 0)
    assert play.clock.now() < seconds


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("latency", [0.0, 1.0, 5.0])
def test_windows_of_a_second_and_slow_answers_are_kept(style: Any, latency: float) -> None:
    """Whatever an answer takes, no more are in flight than are left."""
    fake = FakeOpenAI("clock", rpm=300, window=1, header_style=style, latency=latency)

    play = Play(fake, retries=0)

    assert (play.at_once(30), play.refusals) == ([], 0)


def test_given_limits_are_kept_beside_a_larger_window() -> None:
    """A window that opens gives nothing back of a limit that was given."""
    fake = FakeOpenAI("clock", rpm=60, header_style="ietf", window=10, latency=0.1)
    play = Play(fake, rpm=20)

    assert play.at_once(40) == []
    assert 40 < play.clock.now() < 90
    admitted = [entry.time for entry in fake.ledger.admitted]
    most = max(sum(start <= time < start + 60 for time in admitted) for start in admitted)
    assert most <= 2 * 20 + 1


def test_another_user_of_the_window_costs_one_refusal_at_most() -> None:
    """What another client takes is missing in the headers; only the last request of a
    window may be gone before its answer shows it.
    """
    fake = FakeOpenAI("clock", rpm=60, header_style="ietf", latency=LATENCY)
    one, other = Play(fake), Play(fake)
    other.clock, other.limiter = one.clock, RateLimiter(clock=one.clock)

    async def main() -> list[object]:
        mine, theirs = one.client(), other.client()
        asked = []
        for _ in range(40):
            asked += [await one.ask(mine), await other.ask(theirs)]

        return asked

    asked = one.clock.run(main)

    assert [each for each in asked if isinstance(each, BaseException)] == []
    assert one.refusals <= 1


def reading(left: float, reset: float, period: float | None = 60) -> Reading:
    """What a gateway shows of a window."""
    return Reading("requests", 30, left, reset, period, windowed=True)


def test_the_least_counts_of_calls_that_were_in_flight_together() -> None:
    """Answers may come in any order; a call that was sent after one is newer."""
    windows = Windows()
    for left, admitted_at, now in [(29, 0, 1), (20, 1, 2), (25, 1, 3)]:
        windows.on_headers([reading(left, 10)], admitted_at, now)
    assert windows.left() == 20

    windows.on_headers([reading(29, 60)], 3.5, 4)
    assert windows.left() == 29


def test_a_used_up_window_opens_at_its_end() -> None:
    """A whole number of seconds may be cut: a second more is waited."""
    windows = Windows()
    windows.on_headers([reading(0, 10)], 0, 1)

    assert windows.opens() == 1 + 10 + ROUNDED
    assert windows.cap(None, None) == (1, 12 + UNANSWERED)


def test_the_cap_is_the_least_of_all_that_is_known() -> None:
    """What is left, what was learned and what was given."""
    windows = Windows()
    assert windows.cap(4, 9) == (4, float("inf"))

    windows.on_headers([reading(8, 10), reading(5, 100, 3_600)], 0, 1)

    assert windows.cap(None, None)[0] == 5
    assert windows.cap(3, None)[0] == 3
    assert windows.cap(None, 2)[0] == 2


def test_a_window_that_is_shown_no_longer_counts_no_longer() -> None:
    """When its end has passed and another answer does not show it."""
    windows = Windows()
    windows.on_headers([reading(1, 10, 60), reading(20, 100, 3_600)], 0, 1)
    windows.on_headers([reading(19, 80, 3_600)], 15, 16)

    assert windows.left() == 19


def test_what_is_no_window_is_left_alone() -> None:
    """A bucket that refills all the time has no end to wait for."""
    windows = Windows()

    assert not windows.on_headers([Reading("requests", 30, 0, 10, 60, drips=True)], 0, 1)
    assert windows.left() == float("inf")
