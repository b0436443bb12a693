"""Which limits hold, as headers and refusals have shown them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ratelimit.control.limits_seen import (
    CONTRADICTIONS,
    LONGEST_REFUSED_SECONDS,
    MODEL_SECONDS,
    MODELS,
    REFUSED_SECONDS,
    LimitsOfModels,
    LimitsSeen,
    level_of,
)
from ratelimit.feedback.headers import Reading, read_headers
from ratelimit.limits import Limit

FULL = Reading("tokens", 30_000, 30_000, 0.0, None, drips=True)
MINUTE = Reading("tokens", 30_000, 29_000, 2.0, 60.0, drips=True)
DAILY = Reading("requests", 200, 199, 432.0, 86_400.0, drips=True)


def test_the_first_figures_count_at_once() -> None:
    """Where no limits were given, the first answer's hold."""
    seen = LimitsSeen()

    assert seen.on_headers([MINUTE, DAILY], 0.0) == [
        Limit("tokens", 30_000, per=60),
        Limit("requests", 200, per=86_400),
    ]
    assert seen.on_headers([MINUTE, DAILY], 0.0) is None


def test_a_period_that_is_shown_later_replaces_the_guess() -> None:
    """A full bucket shows no period: it is taken for a minute until an answer says a
    day.
    """
    seen = LimitsSeen()
    full = DAILY._replace(remaining=200, reset=0.0, period=None)

    assert seen.on_headers([full], 0.0) == [Limit("requests", 200, per=60)]
    assert seen.on_headers([DAILY], 0.0) == [Limit("requests", 200, per=86_400)]
    assert seen.on_headers([full], 0.0) is None


def test_a_right_guess_stays() -> None:
    """When the period is a minute after all, nothing changes."""
    seen = LimitsSeen()
    seen.on_headers([FULL], 0.0)

    assert seen.on_headers([MINUTE], 0.0) is None


def test_a_changed_limit_counts_when_two_answers_agree() -> None:
    """One wrong header closes nothing and opens nothing; a real change is shown
    again.
    """
    seen = LimitsSeen()
    seen.on_headers([MINUTE], 0.0)
    half = MINUTE._replace(limit=15_000)

    assert seen.on_headers([half], 0.0) is None
    assert seen.on_headers([MINUTE], 0.0) is None
    assert seen.on_headers([half], 0.0) is None
    assert seen.on_headers([half], 0.0) == [Limit("tokens", 15_000, per=60)]


def test_what_answers_have_shown_is_retracted_where_it_forbids_a_call() -> None:
    """However often it was shown, a limit that only answers showed closes nothing."""
    seen = LimitsSeen()
    small = MINUTE._replace(limit=1)
    for _ in range(3):
        seen.on_headers([small, DAILY], 0.0)

    assert not seen.retract("tokens", 1)
    assert seen.retract("tokens", 2)
    assert seen.limits() == [Limit("requests", 200, per=86_400)]
    assert not seen.retract("tokens", 2)
    assert seen.on_headers([small], 0.0) == [
        Limit("requests", 200, per=86_400),
        Limit("tokens", 1, per=60),
    ]


def test_a_limit_that_a_refusal_names_goes_when_answers_contradict_it() -> None:
    """It holds at once, beside a header's, and one wrong refusal does not hold for
    good.
    """
    seen = LimitsSeen()
    seen.on_headers([MINUTE], 0.0)
    low = [Limit("tokens", 10_000, per=60)]

    assert seen.on_refusal("project_tokens", 60.0, 40_000, 0.0, 0.0) is None
    assert seen.on_refusal("tokens", 60.0, 10_000, 0.0, 0.0) == low
    assert seen.on_refusal("tokens", 60.0, 10_000, 0.0, 0.0) is None
    for _ in range(CONTRADICTIONS - 1):
        assert seen.on_headers([MINUTE], 1.0) is None
    assert seen.on_headers([MINUTE], 1.0) == [Limit("tokens", 30_000, per=60)]


def test_a_limit_that_no_header_shows_is_tried_again_later_each_time() -> None:
    """Headers cannot contradict it, so time does: after a while, then after twice
    that.
    """
    seen = LimitsSeen()
    seen.on_headers([DAILY], 0.0)

    assert seen.on_refusal("requests", 60.0, 3, 0.0, 0.0) is not None
    assert seen.on_headers([DAILY], REFUSED_SECONDS - 1) is None
    assert seen.on_headers([DAILY], REFUSED_SECONDS) == [Limit("requests", 200, per=86_400)]
    again = REFUSED_SECONDS + 10
    assert seen.on_refusal("requests", 60.0, 3, again, again) is not None
    assert seen.on_headers([DAILY], again + 2 * REFUSED_SECONDS - 1) is None
    assert seen.on_headers([DAILY], again + 2 * REFUSED_SECONDS) is not None


def test_calls_that_are_refused_together_say_a_limit_once() -> None:
    """Forty calls of one burst do not keep a limit forty times as long, and no number
    of refusals keeps one for more than hours.
    """
    seen = LimitsSeen()
    seen.on_headers([DAILY], 0.0)
    for _ in range(40):
        seen.on_refusal("requests", 60.0, 3, 0.0, 1.0)
    assert seen.on_headers([DAILY], 1.0 + REFUSED_SECONDS) is not None

    now = 0.0
    for _ in range(40):
        now += LONGEST_REFUSED_SECONDS + 1
        seen.on_refusal("requests", 60.0, 3, now, now)
    assert not seen.expire(now + LONGEST_REFUSED_SECONDS - 1)
    assert seen.expire(now + LONGEST_REFUSED_SECONDS)


def test_a_refusal_that_names_the_known_limit_makes_no_later_lie_last() -> None:
    """Only a limit that is named again is kept for longer, and a refusal that names
    more contradicts it like an answer.
    """
    seen = LimitsSeen()
    for now in range(10):
        seen.on_refusal("tokens", 60.0, 12_000, float(now), float(now))
    seen.on_refusal("tokens", 60.0, 1_000, 20.0, 20.0)
    assert seen.expire(20.0 + REFUSED_SECONDS)

    seen.on_refusal("tokens", 60.0, 1_000, 2_000.0, 2_000.0)
    seen.on_refusal("tokens", 60.0, 12_000, 2_001.0, 2_001.0)
    seen.on_refusal("tokens", 60.0, 12_000, 2_070.0, 2_070.0)
    assert seen.expire(2_071.0)


def test_a_contradicted_limit_is_forgotten_with_its_time() -> None:
    """After a lie that answers contradicted, the next refusal counts as the first."""
    seen = LimitsSeen()
    seen.on_headers([MINUTE], 0.0)
    for now in (0.0, 10.0, 20.0):
        seen.on_refusal("tokens", 60.0, 10_000, now, now)
    for _ in range(CONTRADICTIONS):
        seen.on_headers([MINUTE], 21.0)
    assert seen.limits() == [Limit("tokens", 30_000, per=60)]

    seen.on_refusal("tokens", 60.0, 10_000, 30.0, 30.0)
    assert seen.expire(30.0 + REFUSED_SECONDS)


def test_a_changed_limit_replaces_what_a_refusal_named() -> None:
    """When the server changes its limit, an older refusal says nothing any more."""
    seen = LimitsSeen()
    seen.on_headers([MINUTE], 0.0)
    seen.on_refusal("tokens", 60.0, 10_000, 0.0, 0.0)

    for _ in range(2):
        seen.on_headers([MINUTE._replace(limit=60_000)], 0.0)

    assert seen.limits() == [Limit("tokens", 60_000, per=60)]


def test_of_several_models_the_highest_limit_counts() -> None:
    """A small limit may be that of one model; it counts alone when the others are
    gone.
    """
    models = LimitsOfModels()
    for _ in range(3):
        models.of("large").on_headers([MINUTE], 0.0)
        models.of("small").on_headers([MINUTE._replace(limit=1_000)], 5.0)

    assert models.limits(6.0) == [Limit("tokens", 30_000, per=60)]
    assert models.limits(MODEL_SECONDS + 1) == [Limit("tokens", 1_000, per=60)]


@given(st.lists(st.text(max_size=3), max_size=60))
def test_models_are_kept_within_bounds(names: list[str]) -> None:
    """Names come from requests: any number of them takes little memory."""
    models = LimitsOfModels()
    for moment, name in enumerate(names):
        models.of(name).on_headers([MINUTE], float(moment))

    assert len(models._models) <= MODELS


def test_nonsense_in_a_refusal_changes_nothing() -> None:
    """Neither a limit of next to nothing nor one of an unknown dimension."""
    seen = LimitsSeen()

    assert seen.on_refusal("tokens", 60.0, 1e-6, 0.0, 0.0) is None
    assert seen.on_refusal("moons", 60.0, 5, 0.0, 0.0) is None
    assert seen.limits() == []


def test_a_missing_header_removes_no_limit() -> None:
    """Refusals and proxies may show no headers, or some: known limits stay."""
    seen = LimitsSeen()
    seen.on_headers([MINUTE, DAILY], 0.0)

    assert seen.on_headers([], 0.0) is None
    assert seen.on_headers([MINUTE], 0.0) is None
    assert len(seen.limits()) == 2


def test_of_a_projects_and_an_organizations_limit_the_lower_counts() -> None:
    """Both hold for the same tokens."""
    project = MINUTE._replace(name="project_tokens", limit=10_000)

    assert LimitsSeen().on_headers([MINUTE, project], 0.0) == [Limit("tokens", 10_000, per=60)]
    assert LimitsSeen().on_headers([project], 0.0) == [Limit("tokens", 10_000, per=60)]
    assert level_of([MINUTE, project._replace(remaining=9_999, reset=0.006)], "tokens", 60) == 9_999


def test_two_periods_of_one_dimension_are_two_limits() -> None:
    """Tokens a minute and tokens a month hold side by side."""
    readings = read_headers(
        {"x-ratelimit-limit-tokens-minute": "50000", "x-ratelimit-limit-tokens-month": "4000000"}
    )

    assert LimitsSeen().on_headers(readings, 0.0) == [
        Limit("tokens", 50_000, per=60),
        Limit("tokens", 4_000_000, per=30 * 86_400),
    ]


def test_a_level_that_contradicts_its_reset_is_not_used() -> None:
    """Half empty and full in 0 s: one of the two is wrong, so neither counts."""
    assert level_of([MINUTE._replace(remaining=15_000, reset=0.0)], "tokens", 60) is None
    assert level_of([MINUTE], "tokens", 60) == 29_000
    assert (
        level_of([MINUTE._replace(remaining=15_000, reset=0.0, drips=False)], "tokens", 60)
        == 15_000
    )
    assert level_of([DAILY], "tokens", 60) is None
