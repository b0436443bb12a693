"""What a run shows of itself: figures of the last minute, shares, the end, money."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from ratelimit import Prices, RateLimiter
from ratelimit.batch import Request, Result
from ratelimit.commands.run import display as shown
from ratelimit.commands.run import meter as metering
from ratelimit.commands.run.display import display, status, table_of
from ratelimit.commands.run.meter import Meter


class Time:
    """What `time` shows to the meter."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    """A clock that is set by hand, of the meter and of its limiter."""
    clock = Time()
    monkeypatch.setattr(metering, "time", clock)
    monkeypatch.setattr(shown, "time", clock)
    return clock


class Hand(Meter):
    """A meter whose requests are answered by a call."""

    def __init__(
        self, clock: Time, left: int = 100, prices: Prices | None = None, **limits: Any
    ) -> None:
        from ratelimit.admission.clock import Clock

        own = Clock()
        own.now = clock.monotonic
        self.limiter = RateLimiter(clock=own, arrival_slack=0, **limits)
        self.clock = clock
        self.amounts: dict[str, float] = {}
        """Limits per minute in place of the limiter's."""
        super().__init__(self.limiter, left, 0, ["gpt-4o"], prices)

    def limits(self) -> dict[tuple[str, float], float]:
        """The limiter's, or those that a test sets."""
        changed = {(name, 60.0): amount for name, amount in self.amounts.items()}
        return changed or super().limits()

    def go(self, count: int, seconds: float, *, ok: bool = True) -> None:
        """Play `count` calls of 10 tokens in, 20 out, evenly over the seconds."""
        body = {"usage": {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}}
        for _ in range(count):
            self.clock.seconds += seconds / count
            self.limiter.acquire_nowait(tokens=30).close()
            self.on_response()
            self.record(
                Result(Request("a", "chat.completions", {}), 200 if ok else 500, body if ok else {})
            )
            self.sample()


def test_what_was_used_is_that_of_the_last_minute(clock: Time) -> None:
    """RPM and TPM are shown beside their limits, as the server counts: over a minute,
    not over the run.
    """
    meter = Hand(clock, rpm=600, tpm=30_000)
    meter.go(120, 60)
    meter.go(30, 60)

    assert [(use.name, round(use.used, -1), use.allowed) for use in meter.uses()] == [
        ("RPM", 30, 600),
        ("TPM", 900, 30_000),
    ]
    assert (meter.done, meter.failed, meter.answered, meter.tokens) == (150, 0, 150, 4_500)


def test_the_share_of_a_limit_counts_its_full_bucket(clock: Time) -> None:
    """A full bucket and its refill are all there is of a limit; the waits for the first
    answer and after the last sending count only for the whole run.
    """
    meter = Hand(clock, rpm=60)
    clock.seconds += 10
    meter.go(60, 0.001)
    meter.go(60, 60)
    clock.seconds += 20

    assert meter.share()["requests", 60.0] == pytest.approx(1, abs=0.01)
    assert meter.share(whole=True)["requests", 60.0] == pytest.approx(120 / (60 + 90), abs=0.01)


def test_a_full_bucket_is_told_apart_from_the_rate(clock: Time) -> None:
    """A server lets a full bucket through at once, and refills it meanwhile: 237 in the
    first minute are no more than a limit of 200 allows, and are shown so.
    """
    meter = Hand(clock, rpm=200)
    meter.go(200, 0.001)
    meter.go(37, 11.1)

    assert "200/200 RPM and 37 of the full bucket" in status(meter)
    assert meter.share()["requests", 60.0] == pytest.approx(1, abs=0.01)
    for _ in range(70):
        clock.seconds += 1
        meter.sample()
    meter.go(10, 3)
    assert "10/200 RPM" in status(meter)


def test_a_steady_rate_is_no_more_than_the_limit(clock: Time) -> None:
    """Samples are a second apart: what lies beyond the minute is not counted."""
    meter = Hand(clock, rpm=200)
    meter.go(200, 0.001)
    meter.go(600, 180)

    assert "200/200 RPM," in status(meter)


def test_attempts_that_reach_no_server_are_not_counted(clock: Time) -> None:
    """Retries in an outage have used nothing of a limit."""
    meter = Hand(clock, rpm=200)
    meter.go(20, 6)
    for _ in range(150):
        clock.seconds += 0.1
        meter.limiter.acquire_nowait(tokens=30).cancel()
        meter.sample()

    assert "20/200 RPM" in status(meter)
    assert meter.share()["requests", 60.0] < 0.11


def test_a_limit_that_falls_has_allowed_what_it_allowed(clock: Time) -> None:
    """The share follows the limit that held at each moment: a server that lowers it
    late in the run does not make it 269 %.
    """
    meter = Hand(clock, rpm=600)
    meter.go(600, 0.001)
    meter.go(600, 60)
    meter.amounts = {"requests": 60.0}
    meter.go(10, 10)

    assert meter.share()["requests", 60.0] == pytest.approx(1, abs=0.02)


def test_a_limit_that_is_learned_late_is_not_overused(clock: Time) -> None:
    """What went before its first header was not under it."""
    meter = Hand(clock)
    meter.go(1_000, 60)
    meter.amounts = {"requests": 60.0}
    meter.sample()
    meter.go(60, 60)

    assert meter.share()["requests", 60.0] <= 1


def test_nothing_is_said_of_the_limits_before_an_answer(clock: Time) -> None:
    """A run that is stopped before it sends anything has used no part of a limit,
    though a call may have been let go and taken home.
    """
    meter = Hand(clock, rpm=20)
    meter.limiter.acquire_nowait(tokens=30).cancel()
    meter.sample()

    assert meter.share() == meter.share(whole=True) == {}
    meter.go(1, 1)
    assert meter.share().keys() == {("requests", 60.0)}


def test_the_end_is_told_by_limits_and_speed(clock: Time) -> None:
    """A full bucket at the start flatters the speed: the limits know better. Where none
    are known, the speed is all there is.
    """
    limited = Hand(clock, left=220, rpm=60)
    limited.go(60, 1)
    free = Hand(clock, left=220)
    free.go(20, 10)

    assert limited.remaining() == pytest.approx(160, abs=12)
    assert free.remaining() == pytest.approx(100, abs=5)
    assert Hand(clock).remaining() is None


def test_money_is_counted_where_prices_are_known(clock: Time) -> None:
    """Per million tokens, in and out; nothing is shown without a price."""
    meter = Hand(clock, prices=Prices(input=1_000, output=10_000))
    meter.go(2, 1)
    meter.go(1, 1, ok=False)

    assert meter.cost == pytest.approx(2 * (10 * 1_000 + 20 * 10_000) / 1e6)
    assert "1 failed, 0 429s" in status(meter)
    assert "cost 0.42" in status(meter)
    assert Hand(clock).cost is None


SCREENS = pytest.mark.parametrize(
    ("terminal", "term"),
    [(True, "xterm"), (False, "xterm"), (True, "dumb")],
    ids=["terminal", "pipe", "dumb"],
)


def console_of(screen: io.StringIO, terminal: bool, term: str) -> Console:
    """A console on a terminal of a kind, or on none."""
    return Console(file=screen, force_terminal=terminal, width=200, _environ={"TERM": term})


@SCREENS
def test_it_is_shown_on_terminals_and_in_logs(clock: Time, terminal: bool, term: str) -> None:
    """In place where a terminal can do that, else a line every five seconds."""
    screen = io.StringIO()
    console = console_of(screen, terminal, term)
    terminal = terminal and term != "dumb"
    meter = Hand(clock, left=10, rpm=600)
    with display(console, meter) as look:
        look()
        meter.go(3, 6)
        look()
        look()

    assert "3/600 RPM" in screen.getvalue()
    assert ("3 of 10 done" in screen.getvalue()) != terminal
    assert terminal or screen.getvalue().count("\n") == 1


@SCREENS
def test_the_limiter_is_drawn_below_the_progress_if_wanted(
    clock: Time, terminal: bool, term: str
) -> None:
    """Its levels and waits, on a terminal alone; elsewhere nothing is gathered."""
    screen = io.StringIO()
    console = console_of(screen, terminal, term)
    terminal = terminal and term != "dumb"
    limiter = RateLimiter(rpm=60)
    hooks = limiter._engine.hooks
    before = hooks.subscriptions
    with (
        table_of(console, limiter, wanted=True) as table,
        display(console, Hand(clock), below=table),
    ):
        assert (hooks.subscriptions != before) == terminal

    assert ("60 requests/min" in screen.getvalue()) == terminal
    with table_of(console, limiter, wanted=False) as none:
        assert none is None
        assert hooks.subscriptions == before
