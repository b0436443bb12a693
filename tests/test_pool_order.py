"""A pool's order: a call is never overtaken by a later one that fits the same members.

Owns the property, over members of unequal limits, preference, waiting and faults.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI, OpenAI

from ratelimit import Limit, Limits, Member, Pool, RateLimiter, WaitTimeout
from ratelimit.pool.leases import AdmittedMemberLease
from ratelimit.pool.members.health import UNREACHABLE
from ratelimit.pool.members.verdict import Verdict
from ratelimit.testing import ThreadClock, TrioClock, VirtualClock

MODELS = ["both", "both", "both", "first", "second"]
"""What calls ask for: a model of all members, or of some."""

CALL = st.fixed_dictionaries(
    {
        "at": st.sampled_from([0.0, 1.0, 5.0]) | st.floats(0, 30, allow_subnormal=False),
        "tokens": st.sampled_from([0.0, 1.0, 10.0, 60.0, 100.0]),
        "model": st.sampled_from(MODELS),
        "cancel": st.sampled_from([None, None, 2.5, 11.0]),
        "timeout": st.sampled_from([None, None, 5.0, 30.0]),
        "hold": st.sampled_from([0.0, 4.0]),
        "used": st.sampled_from([None, 0.0, 10.0, 150.0]),
        "fails": st.sampled_from([False, False, False, True]),
    }
)
MEMBER = st.fixed_dictionaries(
    {
        "tokens": st.sampled_from([100, 150]),
        "requests": st.sampled_from([2, 6]),
        "after": st.sampled_from([0.0, 0.0, 3.0]),
        "prefer": st.sampled_from([0, 0, 1]),
    }
)
SERVED = [["both", "first"], ["both", "first", "second"], ["both", "second"]]


def pool_over(clock: Any, members: list[dict[str, Any]], client: Any) -> Pool:
    """Make a pool of three members, of which each serves some of the models."""
    return Pool(
        [
            Member(
                client,
                name=f"m{place}",
                limiter=RateLimiter(
                    limits=Limits(
                        Limit("tokens", given["tokens"], 10),
                        Limit("requests", given["requests"], 10),
                    ),
                    clock=clock,
                    arrival_slack=0.0,
                ),
                models=SERVED[place],
                after=given["after"],
                prefer=given["prefer"],
            )
            for place, given in enumerate(members)
        ]
    )


def check(played: list[dict[str, Any]]) -> None:
    """No admitted call was overtaken by a later one of its model."""
    for model in set(MODELS):
        mine = sorted(
            (one for one in played if one["model"] == model and one.get("admitted") is not None),
            key=lambda one: one["serial"],
        )
        for earlier, later in pairwise(mine):
            assert earlier["admitted"] <= later["admitted"] + 1e-5, (model, mine)


@settings(max_examples=60)
@given(
    script=st.lists(CALL, min_size=2, max_size=14),
    members=st.lists(MEMBER, min_size=3, max_size=3),
)
@pytest.mark.parametrize("kind", [VirtualClock, TrioClock])
def test_no_later_call_of_the_same_members_overtakes(
    kind: Any, script: list[Any], members: list[Any]
) -> None:
    """Whatever is refunded, cancelled, parked or waited for, arrivals stay in order."""
    clock = kind()
    pool = pool_over(clock, members, AsyncOpenAI(api_key="none", base_url="http://x/v1"))
    played = [
        dict(call, serial=place, at=call["at"] + place * 0.013)
        for place, call in enumerate(sorted(script, key=lambda call: call["at"]))
    ]

    async def one(call: dict[str, Any]) -> None:
        await anyio.sleep(call["at"])
        lease = None
        cancel = float("inf") if call["cancel"] is None else call["cancel"]
        try:
            with anyio.move_on_after(cancel):
                lease = await pool.acquire(
                    model=call["model"], tokens=call["tokens"], timeout=call["timeout"], priority=0
                )
        except WaitTimeout:
            return
        if lease is None:
            return
        call["admitted"] = clock.now()
        await anyio.sleep(call["hold"])
        if call["fails"]:
            assert isinstance(lease, AdmittedMemberLease)
            lease.note(Verdict(moves=True, fault=UNREACHABLE))
        if call["used"] is None:
            lease.close()
        else:
            lease.settle(tokens=call["used"])

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for call in played:
                group.start_soon(one, call)

    clock.run(main)

    check(played)
    assert pool.statistics().waiting == 0
    assert pool.statistics().in_flight == 0


@settings(max_examples=25)
@given(
    script=st.lists(CALL, min_size=2, max_size=8),
    members=st.lists(MEMBER, min_size=3, max_size=3),
)
def test_threads_keep_the_order_too(script: list[Any], members: list[Any]) -> None:
    """Threads that wait are served in the order of their arrival."""
    clock = ThreadClock()
    pool = pool_over(clock, members, OpenAI(api_key="none", base_url="http://x/v1"))
    played = [
        dict(call, serial=place, at=call["at"] + place * 0.013)
        for place, call in enumerate(sorted(script, key=lambda call: call["at"]))
    ]

    def one(call: dict[str, Any]) -> None:
        clock.sleep(call["at"])
        try:
            lease = pool.acquire_sync(
                model=call["model"], tokens=call["tokens"], timeout=call["timeout"], priority=0
            )
        except WaitTimeout:
            return
        call["admitted"] = clock.now()
        clock.sleep(call["hold"])
        lease.settle(tokens=call["used"] or 0)

    clock.run(*(lambda call=call: one(call) for call in played))

    check(played)
    assert pool.statistics().waiting == 0
