"""How a call is admitted, driven by hand: what it asks for, in which order, and what it
leaves behind.
"""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from ratelimit import RequestTooLarge, WaitTimeout
from ratelimit.admission.flow import Rest, Take, When, admit
from ratelimit.admission.queue import Queue, Waiter


class Hand:
    """Drives flows without a loop, a clock or a store."""

    def __init__(self) -> None:
        self.line = Queue()
        self.woken: list[str] = []

    def place(self, name: str, rank: float = 0.0, **cost: float) -> Waiter:
        def wake() -> bool:
            self.woken.append(name)
            return True

        return Waiter(rank, cost or {"tokens": 1}, wake)


def ended(flow: Any, answer: object) -> Any:
    """Send the last answer and return what the flow returns."""
    with pytest.raises(StopIteration) as done:
        flow.send(answer)
    return done.value.value


def test_the_head_pays_at_once_and_leaves() -> None:
    """With nobody before it a call asks the store first, and is gone from the line when
    it has paid.
    """
    hand = Hand()
    flow: Any = admit(hand.line, hand.place("a"), 0.0)
    assert flow.send(None) == Take({"tokens": 1})
    assert len(hand.line) == 1
    grant, paid = ended(flow, ())
    assert (grant, paid) == ((), {"tokens": 1})
    assert len(hand.line) == 0


def test_a_refused_head_rests_until_the_moment_and_asks_again() -> None:
    """Only the head waits on time; woken early it asks again, so that a refund is heard
    of.
    """
    hand = Hand()
    flow: Any = admit(hand.line, hand.place("a"), 0.0)
    flow.send(None)
    assert flow.send(7.5) == Rest(7.5)
    assert flow.send(3.0) == Take({"tokens": 1})
    assert flow.send(5.0) == Rest(5.0)
    assert flow.send(5.0) == Take({"tokens": 1})
    ended(flow, ())


def test_the_others_rest_until_woken_and_never_ask_the_store() -> None:
    """Whoever is not first knows no moment; the head that leaves wakes the next one."""
    hand = Hand()
    first: Any = admit(hand.line, hand.place("first"), 0.0)
    second: Any = admit(hand.line, hand.place("second"), 0.0)
    third: Any = admit(hand.line, hand.place("third"), 0.0)
    first.send(None)
    assert second.send(None) == Rest(inf)
    assert third.send(None) == Rest(inf)
    ended(first, ())
    assert hand.woken == ["second"]
    assert third.send(1.0) == Rest(inf)
    assert second.send(1.0) == Take({"tokens": 1})
    second.close()
    assert hand.woken == ["second", "third"]
    assert third.send(2.0) == Take({"tokens": 1})


def test_a_cancelled_waiter_leaves_the_line_as_if_it_had_never_come() -> None:
    """Closing a flow anywhere takes its place out, and wakes nobody but a new head."""
    hand = Hand()
    first: Any = admit(hand.line, hand.place("first"), 0.0)
    second: Any = admit(hand.line, hand.place("second"), 0.0)
    first.send(None)
    second.send(None)
    second.close()
    assert len(hand.line) == 1
    assert hand.woken == []
    first.close()
    assert len(hand.line) == 0
    assert hand.line.ahead_of(9) == {}


def test_an_overtaken_head_waits_on_time_no_longer() -> None:
    """When a more urgent call has come, the old head rests until that one wakes it."""
    hand = Hand()
    patient: Any = admit(hand.line, hand.place("patient", rank=10), 0.0)
    patient.send(None)
    assert patient.send(4.0) == Rest(4.0)
    urgent: Any = admit(hand.line, hand.place("urgent", rank=1), 1.0)
    assert urgent.send(None) == Take({"tokens": 1})
    assert urgent.send(6.0) == Rest(6.0)
    assert patient.send(4.0) == Rest(inf)
    urgent.send(6.0)
    ended(urgent, ())
    assert hand.woken == ["patient"]
    assert patient.send(6.0) == Take({"tokens": 1})


def test_a_deadline_asks_first_when_it_would_be() -> None:
    """With a timeout the moment behind all who are ahead is asked for; when it is too
    late, the line is never joined.
    """
    hand = Hand()
    ahead: Any = admit(hand.line, hand.place("ahead", tokens=30), 0.0)
    ahead.send(None)
    flow: Any = admit(hand.line, hand.place("late", tokens=5), 2.0, deadline=10.0)
    assert flow.send(None) == When({"tokens": 5}, {"tokens": 30})
    with pytest.raises(WaitTimeout, match=r"would be 10.0 s, the timeout is 8.0 s") as told:
        flow.send(12.0)
    assert told.value.retry_after == 10.0
    assert len(hand.line) == 1


@pytest.mark.parametrize(
    ("moment", "deadline", "told"),
    [
        (0.1, 0.05, "be 0.10 s, the timeout is 0.05 s"),
        (30.004, 30.0, "be 30.004 s, the timeout is 30.000 s"),
        (1_200.0, 0.0, "be 1,200.0 s, the timeout is 0.0 s"),
        (1.0 + 1e-12, 1.0, "be 1.0 s, the timeout is 1.0 s"),
    ],
)
def test_a_wait_and_a_timeout_that_differ_look_different(
    moment: float, deadline: float, told: str
) -> None:
    """Nobody is told that 0.1 s is more than 0.1 s, down to a billionth of a second."""
    flow: Any = admit(Queue(), Hand().place("a"), 0.0, deadline)
    flow.send(None)
    with pytest.raises(WaitTimeout, match=told):
        flow.send(moment)


def test_a_deadline_ends_the_wait() -> None:
    """Woken at its deadline a call asks once more, then gives up and passes the turn
    on.
    """
    hand = Hand()
    flow: Any = admit(hand.line, hand.place("a"), 0.0, deadline=5.0)
    next_one: Any = admit(hand.line, hand.place("b"), 0.0)
    flow.send(None)
    assert flow.send(1.0) == Take({"tokens": 1})
    next_one.send(None)
    assert flow.send(inf) == Rest(5.0)
    assert flow.send(5.0) == Take({"tokens": 1})
    with pytest.raises(WaitTimeout, match="no capacity within the timeout"):
        flow.send(inf)
    assert hand.woken == ["b"]


def test_a_deadline_moves_the_head_out_when_a_debit_makes_it_hopeless() -> None:
    """A head whose moment moves beyond its deadline is told at once, not at the
    deadline.
    """
    hand = Hand()
    flow: Any = admit(hand.line, hand.place("a"), 0.0, deadline=5.0)
    flow.send(None)
    flow.send(1.0)
    assert flow.send(4.0) == Rest(4.0)
    flow.send(2.0)
    with pytest.raises(WaitTimeout, match="would be"):
        flow.send(50.0)
    assert len(hand.line) == 0


def test_an_error_of_the_store_leaves_the_line() -> None:
    """Whatever is thrown into the wait, the place is given up and the next one woken."""
    hand = Hand()
    flow: Any = admit(hand.line, hand.place("a"), 0.0)
    other: Any = admit(hand.line, hand.place("b"), 0.0)
    flow.send(None)
    other.send(None)
    with pytest.raises(RequestTooLarge):
        flow.throw(RequestTooLarge("never"))
    assert hand.woken == ["b"]
