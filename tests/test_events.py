"""Events: what a limiter reports to subscribers, and that no hook touches a call."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from ratelimit import InvalidArgument, RateLimiter, events
from ratelimit.events import Admission, Degraded, Refused, Subscription
from ratelimit.testing import ThreadClock
from tests import answers
from tests.answers import LIMIT_REACHED
from tests.interruptions import Interruption, interruptions

BODY: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "a private prompt"}],
    "max_tokens": 20,
}


def refuse(limiter: RateLimiter) -> None:
    """Make one call that is refused with figures."""
    said = LIMIT_REACHED.format(limit=200, used=190, wait=6)
    answers.refuse(limiter, answers.TooMany(said), BODY)


@pytest.fixture
def limiter(vocabulary: None) -> RateLimiter:  # noqa: ARG001  # it is loaded first
    """Return a limiter on a clock that only moves when a call waits."""
    return RateLimiter(tpm=300, arrival_slack=0, clock=ThreadClock())


def test_a_refusal_is_reported_with_what_was_said_and_believed(limiter: RateLimiter) -> None:
    """A subscriber gets the limit, the server's figures and ours, and what to do."""
    seen: list[Refused] = []
    limiter.subscribe(seen.append, Refused)

    refuse(limiter)
    assert events.flush(10)

    (event,) = seen
    assert (event.family, event.model, event.limit) == ("*", "gpt-4o", "tokens/60s")
    assert (event.server_limit, event.server_used, event.server_wait) == (200, 190, 6.001)
    assert event.believed_limit == 300
    assert event.pause == 6.001
    assert "lower than the one held here" in event.remedy
    assert "secret" not in repr(event)


def test_a_refusal_is_logged(limiter: RateLimiter, caplog: pytest.LogCaptureFixture) -> None:
    """Every 429 is a WARNING with the limit, the numbers and the remedy."""
    caplog.set_level(logging.INFO, "ratelimit")

    refuse(limiter)
    assert events.flush(10)

    (record,) = [one for one in caplog.records if one.levelno > logging.INFO]
    assert record.levelno == logging.WARNING
    assert "429" in record.getMessage()
    assert "tokens/60s (rate_limit_exceeded); it says: limit 200" in record.getMessage()
    assert "family * goes on in 6.0 s" in record.getMessage()


def test_a_hook_that_raises_is_reported_once(limiter: RateLimiter) -> None:
    """No call is touched by it, and the subscription goes on."""

    def hook(_: Refused) -> None:
        raise ValueError("of the hook")

    subscription = limiter.subscribe(hook, Refused)
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("ratelimit.events.delivery.caution", said.append)
        refuse(limiter)
        refuse(limiter)
        assert subscription.flush(10)

    assert subscription.failures == 2
    assert len(said) == 1
    assert "ValueError('of the hook')" in said[0]


class Unspeakable(Exception):
    """An error that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("of its repr")


@pytest.mark.logs("raised Unspeakable at Refused")
def test_an_error_that_cannot_be_shown_ends_no_delivery(limiter: RateLimiter) -> None:
    """It is named by its class, and the next event still comes."""
    seen: list[int] = []

    def hook(event: Refused) -> None:
        seen.append(event.refusals)
        raise Unspeakable

    subscription = limiter.subscribe(hook, Refused)
    refuse(limiter)
    refuse(limiter)
    assert subscription.flush(10)

    assert seen == [1, 2]
    assert subscription.failures == 2


@pytest.mark.logs("of the hook.* \\(RuntimeError\\)")
def test_a_warning_that_raises_ends_no_delivery(
    limiter: RateLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program may show warnings in its own way, and that may fail."""

    def show(*_: object, **__: object) -> None:
        raise RuntimeError("of the program's own")

    seen: list[int] = []

    def hook(event: Refused) -> None:
        seen.append(event.refusals)
        raise ValueError("of the hook")

    subscription = limiter.subscribe(hook, Refused)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", show)
        refuse(limiter)
        refuse(limiter)
        assert subscription.flush(10)

    assert seen == [1, 2]
    assert subscription.failures == 2


class Reminder(Subscription):
    """A subscription that has something to do by itself, once, and fails at it."""

    pending = False

    def due(self) -> float | None:
        """Return 0 as long as it is pending."""
        return 0.0 if self.pending else None

    def tick(self) -> None:
        """Fail."""
        self.pending = False
        raise ValueError("of the reminder")


@pytest.mark.logs("raised ValueError\\('of the reminder'\\)")
def test_what_a_subscription_does_by_itself_may_fail() -> None:
    """It is reported like an error of the hook, and its events still come."""
    seen: list[Degraded] = []
    reminder = Reminder(seen.append)
    event = Degraded(at=0.0, family="", reason="")
    reminder.pending = True
    reminder.put(event)
    while reminder.pending:
        assert reminder.flush(10)
    reminder.put(event)
    assert reminder.flush(10)

    assert (reminder.failures, len(seen)) == (1, 2)


def test_a_hook_that_blocks_holds_up_no_call(limiter: RateLimiter) -> None:
    """Calls go on while a hook blocks, and it may ask the limiter anything."""
    go_on, seen = threading.Event(), []

    def hook(event: Refused) -> None:
        go_on.wait()
        seen.append((event.refusals, limiter.statistics().refused))

    subscription = limiter.subscribe(hook, Refused)
    refuse(limiter)
    refuse(limiter)
    assert seen == []
    go_on.set()
    assert subscription.flush(10)

    assert seen == [(1, 2), (2, 2)]


def test_a_closed_subscription_gets_nothing_more(limiter: RateLimiter) -> None:
    """What happened before is still delivered."""
    seen: list[Refused] = []
    with limiter.subscribe(seen.append, Refused):
        refuse(limiter)
    refuse(limiter)
    assert events.flush(10)

    assert [event.refusals for event in seen] == [1]


@pytest.mark.logs("subscribed to the limiter already")
def test_a_hook_that_is_subscribed_twice_is_called_once(limiter: RateLimiter) -> None:
    """The second subscription is the first one, with a warning."""
    seen: list[Refused] = []
    first = limiter.subscribe(seen.append, Refused)

    assert limiter.subscribe(seen.append, Refused) is first
    refuse(limiter)
    assert events.flush(10)
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("hook", "kinds", "said"),
    [
        (3, (), "function of one event"),
        (print, (int,), "kinds of events"),
        (print, ("Refused",), "kinds of events"),
    ],
)
def test_what_cannot_be_subscribed_is_answered_in_a_sentence(
    limiter: RateLimiter, hook: Any, kinds: Any, said: str
) -> None:
    """A hook is a function, and kinds are classes of events."""
    with pytest.raises(InvalidArgument, match=said):
        limiter.subscribe(hook, *kinds)


async def coroutine(_: object) -> None:
    """Do nothing, later."""


class Async:
    """An object that is called like a coroutine function."""

    async def __call__(self, _: object) -> None:
        """Do nothing, later."""


def generator(event: object) -> Iterator[object]:
    """Yield it."""
    yield event


@pytest.mark.parametrize("hook", [coroutine, Async(), partial(coroutine), generator])
def test_a_hook_that_would_never_run_is_refused(limiter: RateLimiter, hook: Any) -> None:
    """A thread calls it, and what an async function returns is awaited by nobody."""
    with pytest.raises(InvalidArgument, match="takes a plain function"):
        limiter.subscribe(hook)


def test_a_hook_may_end_and_begin_subscriptions(limiter: RateLimiter) -> None:
    """Its own too: it is called with what has happened by then, and with no more."""
    first: list[int] = []
    second: list[Refused] = []

    def hook(event: Refused) -> None:
        first.append(event.refusals)
        subscription.close()
        limiter.subscribe(second.append, Refused)

    subscription = limiter.subscribe(hook, Refused)
    for _ in range(3):
        refuse(limiter)
        assert events.flush(10)

    assert first == [1]
    assert [event.refusals for event in second] == [2, 3]


def test_a_signal_handler_may_end_a_subscription(limiter: RateLimiter) -> None:
    """At any step of another one's beginning or end, it waits for nobody and lasts."""
    hooks = limiter._engine.hooks
    kept = hooks.subscriptions

    def change() -> None:
        limiter.subscribe(repr, Admission).close()

    moments = 0
    while True:
        doomed = limiter.subscribe(print, Admission)
        with Interruption(moments, doomed.close) as interruption:
            change()
        if not interruption.came:
            break
        moments += 1
        assert hooks.subscriptions == kept
        assert not hooks.per_call
    assert moments > 3


def test_flush_goes_on_while_limiters_are_made() -> None:
    """In other threads, at any of its steps, as in a server that is about to end."""
    kept: list[Subscription] = []

    def make() -> None:
        kept[:] = [Subscription(repr)]

    moments = 0
    for _ in interruptions(lambda: events.flush(0), make):
        moments += 1
    assert moments > 3


FORKED = """
import os, sys
from ratelimit import RateLimiter, events
from ratelimit.events import Degraded, Refused
class TooMany(Exception):
    status_code = 429
    body = {"error": {"message": "no", "code": "rate_limit_exceeded"}}
def refuse():
    try:
        with limiter.reserve(tokens=1):
            raise TooMany
    except TooMany:
        pass
seen = []
limiter = RateLimiter()
limiter.subscribe(seen.append, Refused)
refuse()
events.flush(10)
child = os.fork()
if child == 0:
    os._exit(10 * bool(refuse() or events.flush(10)) + len(seen))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(seen))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
def test_a_forked_process_delivers_its_own_events() -> None:
    """Its copy of the thread is gone, and a new one is started."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout.split() == ["12", "1"]


def test_a_start_that_was_cut_short_is_made_up_for(limiter: RateLimiter) -> None:
    """Ctrl-C, or a system without threads to spare, costs no event."""
    seen: list[Refused] = []
    subscription = limiter.subscribe(seen.append, Refused)
    with pytest.MonkeyPatch.context() as patch:

        def fail(*_: object) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr("_thread.start_new_thread", fail)
        refuse(limiter)
    refuse(limiter)
    assert subscription.flush(10)

    assert [event.refusals for event in seen] == [1, 2]


def test_ctrl_c_at_any_step_ends_no_delivery(
    limiter: RateLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it cuts short, the next event is delivered, by one thread."""
    monkeypatch.setattr("ratelimit.events.delivery.START_SECONDS", 0.0)
    monkeypatch.setattr("ratelimit.events.delivery.LINGER", 0.0)
    seen: list[Degraded] = []
    subscription = limiter.subscribe(seen.append)
    event = Degraded(at=0.0, family="", reason="")

    moments = 0
    for _ in interruptions(lambda: subscription.put(event)):
        moments += 1
        before = len(seen)
        subscription.put(event)
        assert subscription.flush(10)
        assert len(seen) > before
    assert moments > 3


@pytest.mark.logs("is too slow: 1 events were dropped")
def test_a_hook_that_is_too_slow_loses_events_with_a_warning(limiter: RateLimiter) -> None:
    """Its queue is bounded, and what was lost is counted."""
    entered, go_on, seen = threading.Event(), threading.Event(), []

    def hook(event: Refused) -> None:
        entered.set()
        go_on.wait()
        seen.append(event)

    subscription = limiter.subscribe(hook, Refused)
    subscription._most = 1
    refuse(limiter)
    assert entered.wait(10)
    refuse(limiter)
    refuse(limiter)
    go_on.set()
    assert subscription.flush(10)

    assert (len(seen), subscription.dropped) == (2, 1)
