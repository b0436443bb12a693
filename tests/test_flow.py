"""How a call is admitted, driven by hand: what it asks for, in which order.

And what it leaves behind.
"""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from ratelimit import RequestTooLarge, WaitTimeout
from ratelimit.admission.flow import Park, Predict, Take, admit
from ratelimit.admission.queue import Queue, Waiter
from ratelimit.stores.payments import Wait
from tests.payments import Sleeper, waiter


def until(moment: float) -> Wait:
    """Return the answer of a store that may admit from that moment on, or before it."""
    return Wait(moment)


def surely(moment: float) -> Wait:
    """Return the answer of a store that certainly admits nothing before that moment."""
    return Wait(moment, moment)


def woken(of: Waiter) -> int:
    """Return how often a waiter was woken."""
    assert isinstance(of.parker, Sleeper)
    return of.parker.woken


def end(flow: Any) -> None:
    """Answer the last command with a payment, which must end the flow."""
    with pytest.raises(StopIteration):
        flow.send(None)


def test_the_head_pays_at_once_and_leaves() -> None:
    """With nobody before it a call asks the store first, and is gone when it has
    paid.
    """
    queue, one = Queue(), waiter()
    flow: Any = admit(queue, one, 0.0)
    assert flow.send(None) == Take(one.payment, one.rank)
    assert len(queue) == 1

    end(flow)
    assert len(queue) == 0


def test_a_refused_head_rests_until_the_moment_and_asks_again() -> None:
    """Only the head waits on time; woken early it asks again, so a refund takes
    effect.
    """
    queue, one = Queue(), waiter()
    flow: Any = admit(queue, one, 0.0)
    flow.send(None)
    assert flow.send(until(7.5)) == Park(7.5)
    assert flow.send(3.0) == Take(one.payment, one.rank)
    assert flow.send(until(5.0)) == Park(5.0)
    assert flow.send(5.0) == Take(one.payment, one.rank)
    end(flow)


def test_the_rest_of_the_queue_is_woken_and_never_asks_the_store() -> None:
    """A call that is not the head has no moment; the head that leaves wakes the next
    one.
    """
    queue = Queue()
    a, b, c = waiters = [waiter() for _ in range(3)]
    first, second, third = flows = [admit(queue, one, 0.0) for one in waiters]
    del flows
    first.send(None)
    assert second.send(None) == Park(inf)
    assert third.send(None) == Park(inf)
    end(first)
    assert [woken(one) for one in (a, b, c)] == [0, 1, 0]
    assert third.send(1.0) == Park(inf)
    assert second.send(1.0) == Take(b.payment, b.rank)

    second.close()
    assert woken(c) == 1
    assert third.send(2.0) == Take(c.payment, c.rank)


def test_a_cancelled_waiter_leaves_the_queue_as_if_it_had_never_come() -> None:
    """Closing a flow anywhere takes its waiter out, and wakes nobody but a new head."""
    queue, head, other = Queue(), waiter(), waiter()
    first: Any = admit(queue, head, 0.0)
    second: Any = admit(queue, other, 0.0)
    first.send(None)
    second.send(None)
    second.close()
    assert len(queue) == 1
    assert woken(head) == woken(other) == 0

    first.close()
    assert len(queue) == 0
    assert queue.ahead_of(9) == {}


def test_an_overtaken_head_waits_on_time_no_longer() -> None:
    """When a more urgent call has come, the old head rests until that one wakes it."""
    queue, slow, fast = Queue(), waiter(10), waiter(1)
    patient: Any = admit(queue, slow, 0.0)
    patient.send(None)
    assert patient.send(until(4.0)) == Park(4.0)
    urgent: Any = admit(queue, fast, 1.0)
    assert urgent.send(None) == Take(fast.payment, fast.rank)
    assert urgent.send(until(6.0)) == Park(6.0)
    assert patient.send(4.0) == Park(inf)

    urgent.send(6.0)
    end(urgent)
    assert woken(slow) == 1
    assert patient.send(6.0) == Take(slow.payment, slow.rank)


def test_a_waiter_that_the_queue_has_passed_over_joins_again() -> None:
    """Its event loop was stopped: the queue went on, and it has its turn when it is
    back.
    """
    queue, one, other = Queue(), waiter(), waiter()
    assert isinstance(one.parker, Sleeper)
    flow: Any = admit(queue, one, 0.0)
    flow.send(None)
    flow.send(until(5.0))
    queue.join(other)
    one.parker.stopped = True
    queue.nudge()
    assert queue.head is other
    one.parker.stopped = False
    assert flow.send(5.0) == Park(inf)
    queue.leave(other)

    assert woken(one) == 2
    assert flow.send(5.0) == Take(one.payment, one.rank)
    end(flow)
    assert len(queue) == 0


def test_a_deadline_asks_first_from_when_it_can_be() -> None:
    """With a timeout the certain moment behind all calls ahead is asked for.

    When it is too late, the queue is never joined.
    """
    queue, head, late = Queue(), waiter(tokens=30), waiter(tokens=5)
    ahead: Any = admit(queue, head, 0.0)
    ahead.send(None)
    flow: Any = admit(queue, late, 2.0, deadline=10.0)
    assert flow.send(None) == Predict(late.payment, {"tokens": 30})
    with pytest.raises(WaitTimeout, match=r"would be 10.0 s, the timeout is 8.0 s") as raised:
        flow.send(12.0)

    assert raised.value.retry_after == 10.0
    assert len(queue) == 1


@pytest.mark.parametrize(
    ("moment", "deadline", "text"),
    [
        (0.1, 0.05, "be 0.10 s, the timeout is 0.05 s"),
        (30.004, 30.0, "be 30.004 s, the timeout is 30.000 s"),
        (1_200.0, 0.0, "be 1,200.0 s, the timeout is 0.0 s"),
        (1.0 + 1e-12, 1.0, "be 1.000000000 s, the timeout is 1.000000000 s"),
    ],
)
def test_a_wait_and_a_timeout_that_differ_look_different(
    moment: float, deadline: float, text: str
) -> None:
    """The sentence never says that 0.1 s is more than 0.1 s, down to a billionth."""
    flow: Any = admit(Queue(), waiter(), 0.0, deadline)
    flow.send(None)
    with pytest.raises(WaitTimeout, match=text):
        flow.send(moment)


def test_a_deadline_ends_the_wait_without_another_try() -> None:
    """Woken at its deadline a call gives up and passes the turn on.

    Even where it would fit by now: nothing is admitted after the deadline.
    """
    queue, one, other = Queue(), waiter(), waiter()
    flow: Any = admit(queue, one, 0.0, deadline=5.0)
    next_one: Any = admit(queue, other, 0.0)
    flow.send(None)
    assert flow.send(1.0) == Take(one.payment, one.rank)
    next_one.send(None)
    assert flow.send(until(inf)) == Park(5.0)
    with pytest.raises(WaitTimeout, match="no capacity within the timeout"):
        flow.send(5.0)

    assert woken(other) == 1


def test_a_timeout_of_zero_asks_the_store_of_a_free_queue() -> None:
    """`admit` is reached only where it did not fit: then zero seconds are over at
    once.
    """
    flow: Any = admit(Queue(), waiter(), 3.0, deadline=3.0)
    flow.send(None)
    with pytest.raises(WaitTimeout):
        flow.send(-inf)


def test_a_head_leaves_when_a_debit_makes_its_deadline_certainly_too_early() -> None:
    """It raises when its certain moment moves beyond the deadline, not at the
    deadline.
    """
    queue, one = Queue(), waiter()
    flow: Any = admit(queue, one, 0.0, deadline=5.0)
    flow.send(None)
    flow.send(1.0)
    assert flow.send(surely(4.0)) == Park(4.0)
    flow.send(2.0)
    with pytest.raises(WaitTimeout, match="would be"):
        flow.send(surely(50.0))

    assert len(queue) == 0


def test_a_head_waits_for_its_deadline_while_calls_in_flight_may_give_back() -> None:
    """A late moment that a refund may move is no reason to give up."""
    queue, one = Queue(), waiter()
    flow: Any = admit(queue, one, 0.0, deadline=5.0)
    flow.send(None)
    flow.send(1.0)
    assert flow.send(Wait(50.0, 4.0)) == Park(5.0)
    assert flow.send(4.5) == Take(one.payment, one.rank)
    end(flow)


def test_the_price_is_set_anew_at_each_turn() -> None:
    """More is known of the server by then; and the head looks again when that says."""
    prices: list[int] = []
    queue, one = Queue(), waiter()

    def prepare() -> float:
        prices.append(len(prices))
        return 0.5

    one.prepare = prepare
    other: Any = admit(queue, waiter(), 0.0)
    other.send(None)
    flow: Any = admit(queue, one, 0.0)
    flow.send(None)
    assert prices == []
    end(other)
    flow.send(1.0)
    assert flow.send(until(2.0)) == Park(1.5)
    flow.send(2.0)

    assert prices == [0, 1]


def test_an_error_of_the_store_leaves_the_queue() -> None:
    """Whatever is thrown into the wait, the waiter leaves and the next one is woken."""
    queue, one, behind = Queue(), waiter(), waiter()
    flow: Any = admit(queue, one, 0.0)
    other: Any = admit(queue, behind, 0.0)
    flow.send(None)
    other.send(None)
    with pytest.raises(RequestTooLarge):
        flow.throw(RequestTooLarge("never"))

    assert woken(behind) == 1
