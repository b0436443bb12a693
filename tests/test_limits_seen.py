"""Which limits hold, as headers and refusals have shown them."""

from __future__ import annotations

from ratelimit.control.limits_seen import LimitsSeen, level_of
from ratelimit.feedback.headers import Reading, read_headers
from ratelimit.limits import Limit

FULL = Reading("tokens", 30_000, 30_000, 0.0, None, drips=True)
MINUTE = Reading("tokens", 30_000, 29_000, 2.0, 60.0, drips=True)
DAILY = Reading("requests", 200, 199, 432.0, 86_400.0, drips=True)


def test_the_first_figures_count_at_once() -> None:
    """Where no limits were given, the first answer's hold."""
    seen = LimitsSeen()

    assert seen.on_headers([MINUTE, DAILY]) == [
        Limit("tokens", 30_000, per=60),
        Limit("requests", 200, per=86_400),
    ]
    assert seen.on_headers([MINUTE, DAILY]) is None


def test_a_period_that_is_shown_later_replaces_the_guess() -> None:
    """A full bucket shows no period: it is taken for a minute until an answer says a day."""
    seen = LimitsSeen()
    full = DAILY._replace(remaining=200, reset=0.0, period=None)

    assert seen.on_headers([full]) == [Limit("requests", 200, per=60)]
    assert seen.on_headers([DAILY]) == [Limit("requests", 200, per=86_400)]
    assert seen.on_headers([full]) is None


def test_a_right_guess_stays() -> None:
    """When the period is a minute after all, nothing changes."""
    seen = LimitsSeen()
    seen.on_headers([FULL])

    assert seen.on_headers([MINUTE]) is None


def test_a_changed_limit_counts_when_two_answers_agree() -> None:
    """One wrong header closes nothing and opens nothing; a real change is shown again."""
    seen = LimitsSeen()
    seen.on_headers([MINUTE])
    half = MINUTE._replace(limit=15_000)

    assert seen.on_headers([half]) is None
    assert seen.on_headers([MINUTE]) is None
    assert seen.on_headers([half]) is None
    assert seen.on_headers([half]) == [Limit("tokens", 15_000, per=60)]


def test_what_one_answer_alone_has_shown_is_retracted_where_it_forbids_a_call() -> None:
    """A limit of 1 would refuse every call for good; shown once more it stays."""
    seen = LimitsSeen()
    lie = MINUTE._replace(limit=1)
    seen.on_headers([lie, DAILY])

    assert seen.retract_unconfirmed("tokens", 1) is None
    assert seen.retract_unconfirmed("tokens", 2) == [Limit("requests", 200, per=86_400)]
    assert seen.retract_unconfirmed("tokens", 2) is None
    assert seen.on_headers([lie]) == [
        Limit("requests", 200, per=86_400),
        Limit("tokens", 1, per=60),
    ]
    assert seen.retract_unconfirmed("tokens", 2) is None


def test_what_two_answers_have_shown_is_not_retracted() -> None:
    """From then on it is sure that a larger call can never pass."""
    seen = LimitsSeen()
    seen.on_headers([MINUTE])
    seen.on_headers([MINUTE])

    assert seen.retract_unconfirmed("tokens", 40_000) is None
    for _ in range(2):
        seen.on_headers([MINUTE._replace(limit=100)])
    assert seen.retract_unconfirmed("tokens", 40_000) is None
    assert seen.limits() == [Limit("tokens", 100, per=60)]


def test_a_limit_that_a_refusal_names_holds_beside_those_of_headers() -> None:
    """It is only ever lower, survives headers that do not change, and goes with them."""
    seen = LimitsSeen()
    seen.on_headers([MINUTE])
    low = [Limit("tokens", 10_000, per=60)]

    assert seen.on_refusal("project_tokens", 60.0, 40_000) is None
    assert seen.on_refusal("tokens", 60.0, 10_000) == low
    assert seen.on_refusal("tokens", 60.0, 10_000) is None
    assert seen.retract_unconfirmed("tokens", 20_000) is None
    for _ in range(3):
        seen.on_headers([MINUTE])
    assert seen.limits() == low
    for _ in range(2):
        seen.on_headers([MINUTE._replace(limit=60_000)])
    assert seen.limits() == [Limit("tokens", 60_000, per=60)]


def test_nonsense_in_a_refusal_changes_nothing() -> None:
    """Neither a limit of next to nothing nor one of an unknown dimension."""
    seen = LimitsSeen()

    assert seen.on_refusal("tokens", 60.0, 1e-6) is None
    assert seen.on_refusal("moons", 60.0, 5) is None
    assert seen.limits() == []


def test_a_missing_header_removes_no_limit() -> None:
    """Refusals and proxies may show no headers, or some: known limits stay."""
    seen = LimitsSeen()
    seen.on_headers([MINUTE, DAILY])

    assert seen.on_headers([]) is None
    assert seen.on_headers([MINUTE]) is None
    assert len(seen.limits()) == 2


def test_of_a_projects_and_an_organizations_limit_the_lower_counts() -> None:
    """Both hold for the same tokens."""
    project = MINUTE._replace(name="project_tokens", limit=10_000)

    assert LimitsSeen().on_headers([MINUTE, project]) == [Limit("tokens", 10_000, per=60)]
    assert LimitsSeen().on_headers([project]) == [Limit("tokens", 10_000, per=60)]
    assert level_of([MINUTE, project._replace(remaining=9_999, reset=0.006)], "tokens", 60) == 9_999


def test_two_periods_of_one_dimension_are_two_limits() -> None:
    """Tokens a minute and tokens a month hold side by side."""
    readings = read_headers(
        {"x-ratelimit-limit-tokens-minute": "50000", "x-ratelimit-limit-tokens-month": "4000000"}
    )

    assert LimitsSeen().on_headers(readings) == [
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
