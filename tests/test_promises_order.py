"""The third promise: nobody starves, and within one priority arrivals are in order.

Patience bounds overtaking.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import Limit, Limits
from ratelimit.control.engine import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.conftest import Call, Player

CALL = st.fixed_dictionaries(
    {
        "at": st.sampled_from([0.0, 1.0, 5.0]) | st.floats(0, 30, allow_subnormal=False),
        "tokens": st.sampled_from([0.0, 1.0, 10.0, 60.0, 100.0]),
        "cancel": st.sampled_from([None, None, 2.5, 11.0]),
        "timeout": st.sampled_from([None, None, 5.0, 30.0]),
        "hold": st.sampled_from([0.0, 4.0]),
        "end": st.sampled_from(["settle", "close", "cancel"]),
        "used": st.sampled_from([0.0, 10.0, 150.0]),
    }
)
SCRIPT = st.lists(CALL, min_size=2, max_size=14)
LIMITS = Limits(Limit("tokens", 100, 10), Limit("requests", 6, 10))


def one_by_one(script: Any) -> Any:
    """Give every call a moment of its own: then threads, too, arrive in a known
    order.
    """
    return [call | {"at": call["at"] + index * 0.013} for index, call in enumerate(script)]


@settings(max_examples=40)
@given(script=SCRIPT)
def test_first_come_first_served_whatever_the_size(player: Player, script: Any) -> None:
    """In one priority no admitted call was overtaken, whatever was refunded or
    cancelled.
    """
    play = player(one_by_one(script), limits=LIMITS)

    arrivals = sorted(
        (call for call in play.calls if call.admitted is not None), key=lambda call: call.serial
    )
    moments = [call.admitted or 0.0 for call in arrivals]
    assert all(earlier <= later + 1e-5 for earlier, later in pairwise(moments))


@settings(max_examples=40)
@given(
    script=SCRIPT, patience=st.lists(st.sampled_from([0.0, 2.0, 15.0]), min_size=14, max_size=14)
)
def test_only_a_more_urgent_call_overtakes_and_only_within_the_patience(
    player: Player, script: Any, patience: list[float]
) -> None:
    """A call that goes while another one waits has the earlier arrival + patience.

    So a patient call is overtaken for its patience at most.
    """
    script = [
        call | {"patience": seconds}
        for call, seconds in zip(one_by_one(script), patience, strict=False)
    ]
    play = player(script, limits=LIMITS)

    for waited in play.calls:
        end = waited.admitted if waited.admitted is not None else waited.gone
        for other in play.admitted:
            if end is not None and waited.arrived + 1e-4 < (other.admitted or 0.0) < end - 1e-4:
                assert (
                    other.arrived + other.call["patience"]
                    <= waited.arrived + waited.call["patience"] + 1e-4
                )


def endless(*, until: float, patience: float = 0.0) -> list[Call]:
    """Small calls that ask for twice what the limit gives, of one patience."""
    return [
        {"at": index * 0.25, "tokens": 5.0, "patience": patience}
        for index in range(int(until / 0.25))
    ]


def asked_before(calls: Sequence[Call], moment: float) -> float:
    """Tokens of all calls that came before ``moment``."""
    return sum(call["tokens"] for call in calls if call["at"] < moment)


@pytest.mark.parametrize("big", [60.0, 100.0])
def test_a_big_call_is_served_within_the_time_the_arithmetic_says(
    player: Player, big: float
) -> None:
    """60 % of the capacity, or all of it, behind endless small calls.

    It goes when the amounts before it and its own are refilled, not later.
    """
    small = endless(until=60)
    play = player([*small, {"at": 15.1, "tokens": big}], limits=Limits(Limit("tokens", 100, 10)))

    bound = (asked_before(small, 15.1) + big - 100) / 10
    assert play.calls[-1].admitted == pytest.approx(bound, abs=1e-3)


def test_a_batch_call_is_overtaken_for_its_patience_and_no_longer(player: Player) -> None:
    """Behind endless interactive calls it goes when those within its patience have
    gone.
    """
    small = endless(until=60, patience=PATIENCE["interactive"])
    play = player(
        [*small, {"at": 5.1, "tokens": 60.0, "patience": 10.0}],
        limits=Limits(Limit("tokens", 100, 10)),
    )

    bound = (asked_before(small, 15.1) + 60 - 100) / 10
    assert play.calls[-1].admitted == pytest.approx(bound, abs=1e-3)


def test_an_urgent_call_goes_before_patient_ones(player: Player) -> None:
    """An interactive call that comes last goes first among those that wait."""
    play = player(
        [
            {"at": 0, "tokens": 100},
            {"at": 1, "tokens": 50, "patience": PATIENCE["batch"]},
            {"at": 2, "tokens": 50, "patience": PATIENCE["normal"]},
            {"at": 3, "tokens": 50, "patience": PATIENCE["interactive"]},
        ],
        limits=Limits(Limit("tokens", 100, 10)),
    )

    assert [call.admitted for call in play.calls] == [
        0,
        *(pytest.approx(moment, abs=1e-5) for moment in (15, 10, 5)),
    ]
