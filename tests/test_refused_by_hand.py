"""Calls without headers, by hand or decorated, heal like those of a wrapped client."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from ratelimit import Limit, LimiterWarning, Limits, RateLimiter, WaitTimeout, WouldBlock
from ratelimit.control.limits_seen import REFUSED_SECONDS
from ratelimit.control.pause import AGAIN_SECONDS, HEAVIEST, Repetition
from ratelimit.testing import ThreadClock

NAMED = (
    "Rate limit reached for gpt-4o in organization o on {unit} per {period}: Limit {limit}. "
    "Please try again in 1s."
)

BODY: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}


class Refused(Exception):
    """A 429 as an SDK raises it, without headers."""

    def __init__(self, message: str = "", code: str = "rate_limit_exceeded") -> None:
        super().__init__(message)
        self.status_code = 429
        self.body = {"error": {"message": message, "type": code, "code": code}}


class Calls:
    """Calls of one limiter on a clock that only moves when a call waits."""

    def __init__(self, **options: Any) -> None:
        self.clock = ThreadClock()
        self.limiter = RateLimiter(arrival_slack=0, clock=self.clock, **options)

    @property
    def family(self) -> Any:
        """Everything of the one family."""
        return self.limiter._engine.families()["*"]

    def refused(self, error: Refused) -> None:
        """One call that is refused."""
        try:
            with self.limiter.reserve(tokens=1):
                raise error
        except Refused:
            pass

    def two(self, body: dict[str, Any], answer: object) -> None:
        """A call that is answered after two seconds, and one that may wait for ten."""
        first = self.limiter.acquire_sync(body)

        def end() -> None:
            self.clock.sleep(2)
            first.settle(answer)

        self.clock.run(end, lambda: self.limiter.acquire_sync(body, timeout=10).close())

    def answered(self, calls: int = 1) -> None:
        """Calls that are answered."""
        for _ in range(calls):
            self.limiter.acquire_sync(tokens=1).settle(tokens=1)


@pytest.mark.parametrize("door", ["settle", "with", "decorator", "observe"])
def test_an_answer_through_any_door_ends_what_a_refusal_has_named(door: str) -> None:
    """A limit that one refusal named is dropped in time, whoever answers after it."""
    calls = Calls(rpm=600, tpm=100_000)
    calls.refused(Refused(NAMED.format(unit="requests", period="min (RPM)", limit=3)))
    assert Limit("requests", 3) in list(calls.limiter.limits("gpt-4o"))

    @calls.limiter.limit(request=lambda: BODY)
    def ask() -> str:
        return "an answer"

    calls.clock.sleep(REFUSED_SECONDS + 1)
    if door == "settle":
        calls.answered()
    elif door == "with":
        with calls.limiter.reserve(tokens=1):
            pass
    elif door == "decorator":
        with pytest.warns(LimiterWarning, match="returned no usage"):
            ask()
    else:
        calls.limiter.acquire_sync(tokens=1).observe({})

    assert Limit("requests", 600) in list(calls.limiter.limits("gpt-4o"))


def test_answers_without_headers_let_more_calls_fly_again() -> None:
    """A refusal that names nothing bounds calls in flight; each answer adds one."""
    calls = Calls(rpm=6_000)
    calls.refused(Refused())
    bound = calls.family.admission.store.concurrency
    calls.answered(30)

    assert (bound, calls.family.admission.store.concurrency) == (1, 31)


def test_answers_between_two_refusals_for_credit_show_that_it_is_not_spent() -> None:
    """With a server that names a rate by that code no call is refused for good."""
    calls = Calls(rpm=600)
    for _ in range(3):
        calls.refused(Refused("allocated quota exceeded", "insufficient_quota"))
        calls.answered(20)

    assert calls.family.controller._quota._first_at == inf


def test_a_refusal_that_names_no_period_costs_no_day() -> None:
    """It empties the shortest bucket: a day's would stop the program until tomorrow."""
    calls = Calls(rpm=600, rpd=10_000)
    calls.refused(Refused())
    calls.answered(300)

    assert calls.clock.now() < 120


def test_a_refusal_that_names_a_period_empties_that_bucket() -> None:
    """A day's limit that is at an end leaves a minute's as it is."""
    calls = Calls(rpm=600, rpd=1_000)
    message = "You have reached the limit of requests per day."
    calls.refused(Refused(message))
    levels = calls.limiter.statistics().families["*"].levels

    assert levels["requests/86400s"] <= 2
    assert levels["requests/60s"] > 590


def test_calls_that_are_refused_together_make_the_next_question_no_later() -> None:
    """The server is asked after a minute, then after two, whatever flies together."""
    calls = Calls(rpm=6_000)
    trust = calls.family.controller._trust
    assert trust.is_over(-inf, 100.0)
    for _ in range(40):
        trust.refused(100.0)

    assert trust.seconds == 120
    trust.answered()
    trust.refused(101.0)
    assert trust.seconds == 60


def test_two_calls_that_are_too_large_together_are_one_word() -> None:
    """Only a server that says it again when asked is believed."""
    said = Calls(rpm=6_000).family.controller._too_large
    for _ in range(5):
        said.refused("tokens", 1_000, 0.0, 1.0)
    assert not said.is_sure("tokens", 2_000, 2.0)

    said.refused("tokens", 1_000, 1.5, 2.0)
    assert said.is_sure("tokens", 2_000, 3.0)
    assert not said.is_sure("tokens", 900, 3.0)
    assert not said.is_sure("tokens", 2_000, 3_000.0)


@pytest.mark.parametrize("dimension", ["tokens", "input_tokens", "output_tokens"])
def test_an_impossible_usage_costs_two_periods_of_whatever_is_limited(dimension: str) -> None:
    """A bill of fifty million tokens closes no limit for longer than that."""
    calls = Calls(limits=Limits(Limit(dimension, 30_000)))
    usage = dict.fromkeys(("prompt_tokens", "completion_tokens"), 50_000_000)
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}
    calls.limiter.acquire_sync(body).settle({"usage": usage})
    calls.limiter.acquire_sync(body).close()

    assert calls.clock.now() <= 130


def test_a_shorter_pause_later_is_as_short_as_it_says() -> None:
    """A pause of an hour that was given up does not come back with the next refusal."""
    calls = Calls(rpm=600)
    calls.refused(Refused("Please try again in 1h0m0s."))
    calls.answered()  # asks after a minute
    assert calls.clock.now() < 100
    started = calls.clock.now()
    calls.family.admission.close(1.0)

    assert calls.limiter.statistics().families["*"].closed_for == 1
    calls.answered()
    assert calls.clock.now() - started <= 1.1


def test_a_forked_process_keeps_to_a_pause() -> None:
    """The server's word holds for the child as well."""
    calls = Calls(rpm=600)
    calls.family.admission.close(30.0)
    calls.limiter._engine.reset_after_fork()
    calls.limiter._engine.forked = False

    with pytest.raises(WouldBlock):
        calls.limiter.acquire_nowait(tokens=1)


def test_no_timeout_is_certain_while_an_answer_may_give_back() -> None:
    """What a call in flight has reserved of an output limit comes back by its usage."""
    calls = Calls(limits=Limits(Limit("tokens", 100_000), Limit("output_tokens", 100)))
    body: dict[str, Any] = {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 100,
    }
    usage = {"prompt_tokens": 8, "completion_tokens": 1, "total_tokens": 9}
    calls.two(body, {"usage": usage})

    assert calls.clock.now() < 10


def test_no_timeout_is_certain_while_a_response_may_cost_less_than_its_charge() -> None:
    """A Response is settled to its usage, which is below its charge at times."""
    calls = Calls(tpm=10_000)
    body: dict[str, Any] = {"model": "gpt-4o", "input": "word " * 9_000, "max_output_tokens": 9}
    usage = {"input_tokens": 10, "output_tokens": 1, "total_tokens": 11}
    calls.two(body, {"usage": usage})

    assert calls.clock.now() < 10


def test_a_timeout_is_certain_where_nothing_comes_back() -> None:
    """A call that cannot go in time is told so at once."""
    calls = Calls(rpm=1)
    calls.answered()

    with pytest.raises(WaitTimeout):
        calls.limiter.acquire_sync(tokens=1, timeout=10)
    assert calls.clock.now() == 0


def test_a_level_that_lets_too_many_go_is_not_believed_twice() -> None:
    """A server with a smaller burst than it says: after the second refusal the calls
    go at the limit's rate, though the refusal says that more is left.
    """
    calls = Calls(rpm=600)
    message = "Rate limit reached on requests per min (RPM): Limit 600, Used 500, Requested 1."
    calls.refused(Refused(message))
    calls.clock.sleep(2)
    assert calls.limiter.statistics().families["*"].levels["requests/60s"] > 90

    calls.refused(Refused(message))
    calls.clock.sleep(1)
    assert calls.limiter.statistics().families["*"].levels["requests/60s"] < 20


def test_calls_that_are_refused_together_repeat_nothing() -> None:
    """They were sent before the first refusal came."""
    repetition = Repetition()

    assert [repetition.refused(None, 0.0, 1.0 + number) for number in range(5)] == [False] * 5
    assert repetition.refused(None, 6.0, 6.5)
    assert not repetition.refused(None, 100.0, 100.5)


def test_repeated_refusals_make_a_request_count_for_more_and_time_for_less() -> None:
    """Never for more than one and a half, and in the end for one again; a refusal for
    tokens says nothing of requests.
    """
    repetition = Repetition()
    for number in range(10):
        repetition.refused("tokens", float(number), number + 0.5)
    assert repetition.weight == 1

    for number in range(10, 30):
        repetition.refused("requests", float(number), number + 0.5)
    assert repetition.weight == HEAVIEST

    repetition.answered(31.0)
    assert repetition.weight == HEAVIEST
    for minute in range(1, 7):
        repetition.answered(30.0 + minute * AGAIN_SECONDS)
    assert repetition.weight == 1


def test_a_server_that_is_busy_again_and_again_is_asked_slowly() -> None:
    """Nginx refuses by a 503 where nothing else is set up."""
    calls = Calls(rpm=600)
    busy = Refused("busy")
    busy.status_code = 503
    calls.refused(busy)
    calls.clock.sleep(3)
    assert calls.limiter.statistics().families["*"].levels["requests/60s"] > 500

    calls.refused(busy)
    calls.clock.sleep(1)
    assert calls.limiter.statistics().families["*"].levels["requests/60s"] < 20
