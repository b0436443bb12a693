"""The face of a limiter: what it shows, copies, and says of a misspelled option."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import pickle
from typing import Any

import pytest

import ratelimit
from ratelimit import InvalidArgument, Limits, RateLimiter
from ratelimit.testing import ThreadClock

TAUGHT = {
    "RateLimiter": {
        "acquire",
        "acquire_nowait",
        "acquire_sync",
        "estimate",
        "explain",
        "limit",
        "limits",
        "price",
        "replace",
        "reserve",
        "statistics",
        "subscribe",
        "wrap",
    },
    "Lease": {"cancel", "close", "cost", "fail", "observe", "settle", "waited"},
}


@pytest.mark.parametrize("name", TAUGHT)
def test_nothing_is_public_but_what_the_readme_teaches(name: str) -> None:
    """`help()` shows what users are told of and no more."""
    public = {one for one in dir(getattr(ratelimit, name)) if not one.startswith("_")}

    assert public == TAUGHT[name]


def test_the_four_ways_to_reserve_take_the_same_options() -> None:
    """An option is spelled the same way at every entry point."""
    doors = (
        RateLimiter.reserve,
        RateLimiter.acquire,
        RateLimiter.acquire_sync,
        RateLimiter.acquire_nowait,
    )

    parameters = [inspect.signature(door).parameters for door in doors]
    assert all(one == parameters[0] for one in parameters)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("timout", "timeout"),
        ("Timeout", "timeout"),
        ("time_out", "timeout"),
        ("priorty", "priority"),
        ("token", "tokens"),
        ("costs", "cost"),
        ("request", "requests"),
        ("end_point", "endpoint"),
    ],
)
def test_a_misspelled_option_is_an_error_that_names_the_right_one(wrong: str, meant: str) -> None:
    """It is never carried along as a field of the request body."""
    limiter = RateLimiter(clock=ThreadClock())
    options: dict[str, Any] = {wrong: 3}

    for door in (limiter.reserve, limiter.acquire_sync, limiter.acquire_nowait):
        with pytest.raises(InvalidArgument, match=f"did you mean {meant}="):
            door(model="gpt-4o", **options)


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda _: RateLimiter(500), "RateLimiter\\(rpm=500"),  # type: ignore[call-arg]
        (lambda _: RateLimiter(tmp=500), "did you mean tpm="),  # type: ignore[call-arg]
        (lambda limiter: limiter.limit(print), "@limiter.limit\\(request="),
        (lambda limiter: limiter.limit(timout=3), "did you mean timeout="),
        (lambda limiter: limiter.wrap(object(), prority=3), "did you mean priority="),
    ],
)
def test_arguments_that_cannot_be_are_answered_in_a_sentence(act: Any, sentence: str) -> None:
    """By position or misspelled: the message says what to write."""
    limiter = RateLimiter(clock=ThreadClock())

    with pytest.raises(InvalidArgument, match=sentence):
        act(limiter)


def test_amounts_may_be_texts() -> None:
    """What users write as text in one place they may write in all."""
    limiter = RateLimiter(rpm="500", tpm="30k", clock=ThreadClock())

    assert limiter.limits() == Limits(rpm=500, tpm=30_000)


def test_a_copy_of_a_limiter_is_the_limiter() -> None:
    """Configurations are copied; a second limiter would spend the limits once more."""
    limiter = RateLimiter(rpm=5, clock=ThreadClock())

    assert copy.copy(limiter) is limiter
    assert copy.deepcopy({"limiter": limiter})["limiter"] is limiter


def test_pickling_a_limiter_says_what_to_do_instead() -> None:
    """What was admitted stays in its process: each process makes its own."""
    with pytest.raises(InvalidArgument, match="one in each process"):
        pickle.dumps(RateLimiter(rpm=5, clock=ThreadClock()))


def test_limiter_lease_and_statistics_print_readably() -> None:
    """A person sees limits, levels and who waits, not an address."""
    limiter = RateLimiter(rpm=60, arrival_slack=0, clock=ThreadClock())
    lease = limiter.acquire_sync(tokens=5)

    assert repr(limiter) == "<RateLimiter *: <Limits 60 requests/min>; 1 in flight, 0 waiting>"
    assert repr(lease) == "<Lease requests=1, tokens=5, in flight>"
    assert "59 requests/60s; 1 in flight" in str(limiter.statistics())


def test_statistics_turn_into_json() -> None:
    """Also of a head that waits for a call to end: nothing in it is infinite."""
    limiter = RateLimiter(rpm=60, concurrency=1, clock=ThreadClock())
    lease = limiter.acquire_sync(tokens=5)

    text = json.dumps(dataclasses.asdict(limiter.statistics()), allow_nan=False)
    assert json.loads(text)["families"]["*"]["in_flight"] == 1
    lease.close()


def test_a_price_is_what_a_call_takes() -> None:
    """`price` shows it without taking anything."""
    limiter = RateLimiter(rpm=60, tpm=60_000, clock=ThreadClock())
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}

    price = limiter.price(body)

    assert limiter.statistics().families["*"].admitted == 0
    assert limiter.acquire_sync(body).cost == price


def test_a_price_takes_an_estimate_as_well() -> None:
    """What is counted already is not counted again; fields of a body beside it are an
    error, as they would change nothing.
    """
    limiter = RateLimiter(rpm=60, tpm=60_000, clock=ThreadClock())
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}
    estimate = limiter.estimate(body)

    assert limiter.price(estimate) == limiter.price(body)
    for options in ({"endpoint": "embeddings"}, {"max_tokens": 900}):
        with pytest.raises(InvalidArgument, match="mapping"):
            limiter.price(estimate, **options)
