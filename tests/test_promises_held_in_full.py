"""The seventh promise: what is not known to be less is held in full.

An answer without usage, or an error after which something may have been sent, gives
nothing back.
"""

from __future__ import annotations

import gc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import InvalidArgument, Lease, Limit, Limits, RateLimiter
from ratelimit.testing import ThreadClock

WITHOUT_USAGE = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "choices", "usage", "content", "error", "model"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
ERRORS = st.sampled_from(
    [
        ValueError("broken"),
        TimeoutError(),
        ConnectionResetError(),
        KeyboardInterrupt(),
        EOFError(),
        ExceptionGroup("", [ConnectionRefusedError(), ValueError()]),
    ]
)
STEP = st.one_of(
    st.tuples(st.just("settle"), WITHOUT_USAGE),
    st.tuples(st.just("observe"), st.sampled_from([200, 400, 500, 503])),
    st.tuples(st.just("fail"), ERRORS),
    st.tuples(st.just("close"), st.none()),
)


def step(lease: Lease, kind: str, value: Any) -> None:
    """Do one thing that shows nothing of what the call used."""
    if kind == "settle":
        with pytest.raises(InvalidArgument):
            lease.settle(value)
    elif kind == "observe":
        lease.observe({}, status=value)
    elif kind == "fail":
        lease.fail(value)
    else:
        lease.close()


@pytest.mark.parametrize("deferring", [False, True], ids=["by hand", "deferring"])
@settings(max_examples=15)
@given(steps=st.lists(STEP, max_size=4))
def test_without_usage_the_whole_reserve_stays_debited(deferring: bool, steps: Any) -> None:
    """Whatever comes in place of a usage, also where the output was only deferred."""
    held = RateLimiter(
        limits=Limits(Limit("tokens", 1e6, 1e12)), arrival_slack=0, clock=ThreadClock()
    )
    if deferring:
        lease = held.acquire_nowait(
            model="gpt-4o", messages=[{"role": "user", "content": "hi"}], max_tokens=500
        )
    else:
        lease = held.acquire_nowait(tokens=700)
    reserve = lease.cost["tokens"]
    for kind, value in steps:
        step(lease, kind, value)
    assert lease.cost["tokens"] == reserve
    del lease
    gc.collect()

    family = held.statistics().families["*"]
    assert family.in_flight == 0
    assert round(1e6 - family.levels["tokens/1e+12s"]) == reserve > 0
