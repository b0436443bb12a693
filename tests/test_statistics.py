"""Snapshots travel: they are pickled, copied, and written as JSON."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import asdict
from typing import Any

import pytest

from ratelimit import Limits, RateLimiter
from ratelimit.statistics import Statistics
from ratelimit.testing import ThreadClock


@pytest.fixture
def snapshot() -> Statistics:
    """A snapshot with figures in most of its fields."""
    limiter = RateLimiter(limits={"gpt-4o": Limits(rpm=60, tpm=1_000)}, clock=ThreadClock())
    limiter.acquire_sync(model="gpt-4o", messages=[], max_tokens=5).settle(
        {"usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}
    )
    lease = limiter.acquire_sync(tokens=100, model="gpt-4o")
    lease.observe({"x-ratelimit-limit-tokens": "1000", "x-ratelimit-remaining-tokens": "100"})
    return limiter.statistics()


@pytest.mark.parametrize(
    "way",
    [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))],  # noqa: S301  # our own bytes
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_copy_is_equal_and_says_the_same(snapshot: Statistics, way: Any) -> None:
    """Also one that has been sent to another process."""
    twin = way(snapshot)

    assert twin == snapshot
    assert str(twin) == str(snapshot)
    assert twin.in_flight == snapshot.in_flight == 1


def test_a_snapshot_is_plain_data(snapshot: Statistics) -> None:
    """`asdict` and JSON keep every figure."""
    fields = asdict(snapshot)
    text = json.dumps(fields)

    assert json.dumps(json.loads(text)) == text
    assert json.loads(text)["families"] == fields["families"]
    assert fields["families"]["gpt-4o"]["levels"].keys() == {"requests/60s", "tokens/60s"}
    assert fields["families"]["gpt-4o"]["admitted"] == 2
