"""Events of waits, limits and answers: what they say, when, and that they are data."""

from __future__ import annotations

import dataclasses
import pickle
from contextlib import suppress
from typing import Any

import anyio
import pytest

from ratelimit import InvalidArgument, Limits, RateLimiter, RequestTooLarge, WaitTimeout, events
from ratelimit.events import (
    Admission,
    Concluded,
    Degraded,
    Event,
    LimitsChanged,
    Recovered,
    Refused,
    Settled,
    Waited,
    Waiting,
)
from ratelimit.testing import ThreadClock, VirtualClock
from tests.answers import HEADERS, refuse

BODY: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "a private prompt"}],
    "max_tokens": 20,
}


def watched(*kinds: type[Event], **options: Any) -> tuple[RateLimiter, list[Any]]:
    """Return a limiter on a virtual clock, and the list that its events go to."""
    limiter = RateLimiter(arrival_slack=0, clock=ThreadClock(), **options)
    seen: list[Any] = []
    limiter.subscribe(seen.append, *kinds)
    return limiter, seen


def test_a_wait_is_reported_at_its_beginning_and_its_end() -> None:
    """Why, which limit, the position, and the predicted and the real seconds."""
    limiter, seen = watched(Waiting, Waited, tpm=600)
    limiter.acquire_sync(tokens=600).close()

    lease = limiter.acquire_sync(tokens=100)
    assert events.flush(10)

    begins, ends = seen
    assert (begins.reason, begins.limit, begins.position) == ("limit", "tokens/60s", 0)
    assert (begins.needs, begins.level, begins.amount) == (100, 0, 600)
    assert begins.predicted == pytest.approx(10)
    assert (ends.outcome, ends.limit) == ("admitted", "tokens/60s")
    assert ends.seconds == pytest.approx(10)
    assert lease.waited == pytest.approx(10)


def test_a_call_that_goes_at_once_has_not_waited() -> None:
    """Nothing is reported of it, and its lease says 0 seconds."""
    limiter, seen = watched(Waiting, Waited, tpm=600)

    lease = limiter.acquire_sync(tokens=5)
    assert events.flush(10)

    assert seen == []
    assert lease.waited == 0


def test_positions_count_the_calls_in_front() -> None:
    """Each waiter says how many calls go before it."""
    clock = VirtualClock()
    limiter = RateLimiter(tpm=600, arrival_slack=0, clock=clock)
    seen: list[Waiting] = []
    limiter.subscribe(seen.append, Waiting)

    async def wait(tokens: int) -> None:
        (await limiter.acquire(tokens=tokens)).close()

    async def main() -> None:
        await wait(600)
        async with anyio.create_task_group() as group:
            for tokens in (10, 20, 30):
                group.start_soon(wait, tokens)

    clock.run(main)
    assert events.flush(10)

    assert [event.position for event in seen] == [0, 1, 2]


@pytest.mark.parametrize(
    ("timeout", "outcome"), [(1, "timed_out"), (None, "cancelled")], ids=["timeout", "cancel"]
)
def test_a_wait_that_ends_in_vain_is_reported(timeout: float | None, outcome: str) -> None:
    """With how it ended and how long it took."""
    clock = VirtualClock()
    limiter = RateLimiter(concurrency=1, arrival_slack=0, clock=clock)
    seen: list[Waited] = []
    limiter.subscribe(seen.append, Waited)

    async def main() -> None:
        lease = await limiter.acquire(tokens=1)
        with anyio.move_on_after(2 if timeout else 1), suppress(WaitTimeout):
            await limiter.acquire(tokens=1, timeout=timeout)
        lease.close()

    clock.run(main)
    assert events.flush(10)

    (event,) = seen
    assert (event.outcome, event.reason, event.limit) == (outcome, "concurrency", None)
    assert event.predicted is None
    assert event.seconds == pytest.approx(1)


def test_a_timeout_says_what_the_call_waited_for() -> None:
    """The message of the error explains its own wait."""
    limiter, _ = watched(tpm=600)
    limiter.acquire_sync(tokens=600).close()

    with pytest.raises(WaitTimeout, match=r"needs 100 of tokens/60s, where 0 of 600 are left"):
        limiter.acquire_sync(tokens=100, timeout=3)


def test_a_timeout_names_the_calls_in_flight_that_it_waited_for() -> None:
    """Where only the end of a call helps, the message says so."""
    limiter, _ = watched(concurrency=1)
    lease = limiter.acquire_sync(tokens=1)

    with pytest.raises(WaitTimeout, match="as many calls are in flight as may be"):
        limiter.acquire_sync(tokens=1, timeout=1)
    lease.close()


def test_each_admission_is_reported_where_it_is_asked_for() -> None:
    """Also of the shortest way, and with what can never go."""
    limiter, seen = watched(Admission, tpm=600)
    clock = VirtualClock()
    other = RateLimiter(tpm=600, arrival_slack=0, clock=clock)
    other.subscribe(seen.append, Admission)

    limiter.acquire_sync(BODY).close()
    with pytest.raises(RequestTooLarge):
        limiter.acquire_sync(tokens=700)
    clock.run(lambda: other.acquire(tokens=5))
    assert events.flush(10)

    shown = sorted((event.outcome, event.operation, event.model) for event in seen)
    assert shown == [
        ("admitted", "", ""),
        ("admitted", "chat.completions", "gpt-4o"),
        ("too_large", "", ""),
    ]


def test_the_shortest_way_comes_back_when_nobody_looks() -> None:
    """A closed subscription costs nothing any more."""
    limiter, _ = watched(tpm=600)
    subscription = limiter.subscribe(print, Admission)
    assert limiter._engine.unwatched is None

    for one in (subscription, *limiter._engine.hooks.subscriptions):
        one.close()

    assert limiter._engine.unwatched is not None


def test_a_bill_is_compared_with_its_estimate() -> None:
    """Both in tokens; the text of neither is in the record."""
    limiter, seen = watched(Settled, tpm=600)

    limiter.acquire_sync(BODY).settle({"prompt_tokens": 10, "completion_tokens": 5})
    assert events.flush(10)

    (event,) = seen
    assert (event.used, event.operation) == (15, "chat.completions")
    assert event.estimated == limiter.estimate(BODY).prompt_tokens + 20


def test_limits_that_are_learned_are_reported() -> None:
    """By what, and what held before."""
    limiter, seen = watched(LimitsChanged)

    limiter.acquire_sync(model="gpt-4o", messages=[], max_tokens=5).observe(HEADERS)
    assert events.flush(10)

    (event,) = seen
    assert (event.before, event.after) == (Limits(), Limits(tpm=30_000))
    assert event.source == "header"


def test_a_conclusion_is_reported() -> None:
    """That the server charges the input only shows in the first headers."""
    limiter, seen = watched(Concluded, tpm=30_000)
    limiter._engine.listen()
    body = {**BODY, "max_tokens": 5_000}

    full = {"x-ratelimit-remaining-tokens": "29990", "x-ratelimit-reset-tokens": "20ms"}
    limiter.acquire_sync(body).observe({**HEADERS, **full})
    assert events.flush(10)

    (event,) = seen
    assert (event.about, event.before, event.after) == ("charges_input_only", False, True)


def test_the_end_of_refusals_is_reported() -> None:
    """By the first answer after the pause, with how long they went on."""
    limiter, seen = watched(Recovered, tpm=30_000)
    for _ in range(2):
        refuse(limiter)

    limiter.acquire_sync(tokens=1).settle(tokens=1)
    assert events.flush(10)

    (event,) = seen
    assert event.refusals == 2
    assert event.seconds > 1


@pytest.mark.logs("tokens of `messages` are guessed")
def test_an_estimate_that_is_a_guess_is_reported() -> None:
    """Once a kind, and without anything of the body."""
    limiter, seen = watched(Degraded)

    for _ in range(2):
        limiter.estimate(model="gpt-4o", messages=iter(["a private prompt"]))
    assert events.flush(10)

    (event,) = seen
    assert "are guessed" in event.reason
    assert "private" not in repr(event)


def test_records_are_frozen_and_can_be_pickled() -> None:
    """What subscribers get can be kept, sent and compared."""
    limiter, seen = watched(tpm=40_000)
    limiter.acquire_sync(BODY).settle({"prompt_tokens": 10, "completion_tokens": 5})
    limiter.acquire_sync(tokens=39_980).close()
    limiter.acquire_sync(tokens=100).observe(HEADERS)
    refuse(limiter, request=BODY)
    assert events.flush(10)

    assert {type(one) for one in seen} == {
        *(Waiting, Waited, Settled, Admission, LimitsChanged, Refused, Concluded)
    }
    assert pickle.loads(pickle.dumps(seen)) == seen  # noqa: S301  # our own bytes
    assert "private" not in repr(seen)
    for event in seen:
        with pytest.raises(dataclasses.FrozenInstanceError):
            event.family = "another"


@pytest.mark.parametrize("name", ["free text of a user", "sk-1234 secret", "a\nb"])
def test_a_name_holds_no_free_text(name: str) -> None:
    """A model's name comes from a request, and only what names consist of is kept."""
    limiter, seen = watched(Admission, rpm=5)

    limiter.acquire_sync(model=name, messages=[], max_tokens=5).close()
    assert events.flush(10)

    assert " " not in seen[0].model
    assert "\n" not in seen[0].model


def test_a_kind_of_its_own_is_refused() -> None:
    """A misspelled kind is an error instead of silence."""
    limiter, _ = watched()

    with pytest.raises(InvalidArgument, match="kinds of events"):
        limiter.subscribe(repr, dict)  # type: ignore[arg-type]  # on purpose
