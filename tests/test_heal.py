"""`benchmarks/heal.py`: what it calls a lie and full speed must be what it says."""

from __future__ import annotations

import pytest

from benchmarks.heal import ORIGINS, Case, Origin, Run, by_kind
from benchmarks.healing.lies import LIES, TIMES, Lie, Times, schedule

KINDS = {"limit", "level", "reset", "usage", "retry-after", "refusal", "period"}


@pytest.mark.parametrize(
    ("times", "lies", "answers"), [("once", 1, 1), ("twice", 2, 2), ("one in ten", 10, 100)]
)
def test_lies_are_said_as_often_as_named(times: Times, lies: int, answers: int) -> None:
    """Once, twice in a row, or in every tenth of a hundred answers."""
    said = list(schedule(times))

    assert (sum(said), len(said), said[-1]) == (lies, answers, True)


def test_every_kind_of_statement_from_outside_is_lied_about() -> None:
    """Limits, levels, resets, usages, pauses, refusals and periods are all lied
    about.
    """
    assert {lie.kind for lie in LIES} == KINDS
    assert len({(lie.kind, lie.name) for lie in LIES}) == len(LIES)
    assert TIMES == ("once", "twice", "one in ten")


@pytest.mark.parametrize("limits", ORIGINS)
def test_an_honest_server_is_at_full_speed_at_once(limits: Origin) -> None:
    """Without a lie nothing is measured but the time to the next answer."""
    seconds = Run(None, "once", limits)()

    assert seconds is not None
    assert seconds < 5


def test_a_pause_that_was_named_is_measured() -> None:
    """A refusal that names ten seconds costs ten seconds, and no more."""
    error = {"message": "Rate limit reached.", "type": "tokens", "code": "rate_limit_exceeded"}
    seconds = Run(Lie("retry-after", "10 s", {"retry-after": "10"}, None, error), "once", "given")()

    assert seconds == pytest.approx(10, abs=2)


def test_the_worst_and_what_never_heals_are_named_by_kind() -> None:
    """One row a kind: the longest time to full speed, and every case without an end."""
    cases = [
        Case("limit", "small", "once", "given", 3.0),
        Case("limit", "small", "twice", "given", 9.0),
        Case("limit", "small", "twice", "learned", None),
    ]

    assert by_kind(cases) == [
        {
            "kind": "limit",
            "worst_seconds_to_full_speed": 9.0,
            "never": ["limit: small, twice, limits learned"],
        }
    ]
