from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.control.drift import Drift, LimitsSeen, level_of
from ratelimit.feedback.headers import Reading, read_headers
from ratelimit.limits import Limit

FULL = Reading("tokens", 30_000, 30_000, 0.0, None, drips=True)
MINUTE = Reading("tokens", 30_000, 29_000, 2.0, 60.0, drips=True)
DAILY = Reading("requests", 200, 199, 432.0, 86_400.0, drips=True)


def test_the_first_figures_are_believed() -> None:
    """A limiter that was given nothing holds what the first answer shows."""
    knowledge = LimitsSeen()

    assert knowledge.hear([MINUTE, DAILY]) == [
        Limit("tokens", 30_000, per=60),
        Limit("requests", 200, per=86_400),
    ]
    assert knowledge.hear([MINUTE, DAILY]) is None


def test_a_period_that_is_told_later_replaces_the_guess() -> None:
    """A full bucket does not tell its period: it is taken for a minute until an answer
    says a day.
    """
    knowledge = LimitsSeen()
    full = DAILY._replace(remaining=200, reset=0.0, period=None)

    assert knowledge.hear([full]) == [Limit("requests", 200, per=60)]
    assert knowledge.hear([DAILY]) == [Limit("requests", 200, per=86_400)]
    assert knowledge.hear([full]) is None


def test_a_right_guess_stays() -> None:
    """When the period is a minute after all, nothing changes."""
    knowledge = LimitsSeen()
    knowledge.hear([FULL])

    assert knowledge.hear([MINUTE]) is None


def test_a_changed_limit_is_believed_when_two_answers_agree() -> None:
    """One header that lies closes nothing and opens nothing; a limit that was really
    changed shows it again.
    """
    knowledge = LimitsSeen()
    knowledge.hear([MINUTE])
    half = MINUTE._replace(limit=15_000)

    assert knowledge.hear([half]) is None
    assert knowledge.hear([MINUTE]) is None
    assert knowledge.hear([half]) is None
    assert knowledge.hear([half]) == [Limit("tokens", 15_000, per=60)]


def test_what_one_answer_alone_has_said_is_forgotten_where_it_forbids_a_call() -> None:
    """A limit of 1 would refuse every call for good; said once more it is believed for
    good.
    """
    knowledge = LimitsSeen()
    lie = MINUTE._replace(limit=1)
    knowledge.hear([lie, DAILY])

    assert knowledge.doubt("tokens", 1) is None
    assert knowledge.doubt("tokens", 2) == [Limit("requests", 200, per=86_400)]
    assert knowledge.doubt("tokens", 2) is None
    assert knowledge.hear([lie]) == [Limit("requests", 200, per=86_400), Limit("tokens", 1, per=60)]
    assert knowledge.doubt("tokens", 2) is None


def test_what_two_answers_have_said_is_not_doubted() -> None:
    """From then on it is sure that a larger call can never pass."""
    knowledge = LimitsSeen()
    knowledge.hear([MINUTE])
    knowledge.hear([MINUTE])

    assert knowledge.doubt("tokens", 40_000) is None
    for _ in range(2):
        knowledge.hear([MINUTE._replace(limit=100)])
    assert knowledge.doubt("tokens", 40_000) is None
    assert knowledge.limits() == [Limit("tokens", 100, per=60)]


def test_a_limit_that_a_refusal_names_holds_beside_what_headers_show() -> None:
    """It is only ever lower, survives headers that say what they always said, and goes
    when those change.
    """
    knowledge = LimitsSeen()
    knowledge.hear([MINUTE])
    low = [Limit("tokens", 10_000, per=60)]

    assert knowledge.refuse("project_tokens", 60.0, 40_000) is None
    assert knowledge.refuse("tokens", 60.0, 10_000) == low
    assert knowledge.refuse("tokens", 60.0, 10_000) is None
    assert knowledge.doubt("tokens", 20_000) is None
    for _ in range(3):
        knowledge.hear([MINUTE])
    assert knowledge.limits() == low
    for _ in range(2):
        knowledge.hear([MINUTE._replace(limit=60_000)])
    assert knowledge.limits() == [Limit("tokens", 60_000, per=60)]


def test_nonsense_in_a_refusal_teaches_nothing() -> None:
    """Neither a limit of next to nothing nor of a thing nobody counts."""
    knowledge = LimitsSeen()

    assert knowledge.refuse("tokens", 60.0, 1e-6) is None
    assert knowledge.refuse("moons", 60.0, 5) is None
    assert knowledge.limits() == []


def test_a_missing_header_takes_nothing_back() -> None:
    """Refusals and proxies may show no headers, or some: what is known stays known."""
    knowledge = LimitsSeen()
    knowledge.hear([MINUTE, DAILY])

    assert knowledge.hear([]) is None
    assert knowledge.hear([MINUTE]) is None
    assert len(knowledge.limits()) == 2


def test_of_a_projects_and_an_organizations_limit_the_lower_counts() -> None:
    """Both hold for the same tokens."""
    project = MINUTE._replace(name="project_tokens", limit=10_000)

    assert LimitsSeen().hear([MINUTE, project]) == [Limit("tokens", 10_000, per=60)]
    assert LimitsSeen().hear([project]) == [Limit("tokens", 10_000, per=60)]
    assert level_of([MINUTE, project._replace(remaining=9_999, reset=0.006)], "tokens", 60) == 9_999


def test_two_periods_of_one_thing_are_two_limits() -> None:
    """Tokens a minute and tokens a month hold side by side."""
    readings = read_headers(
        {"x-ratelimit-limit-tokens-minute": "50000", "x-ratelimit-limit-tokens-month": "4000000"}
    )

    assert LimitsSeen().hear(readings) == [
        Limit("tokens", 50_000, per=60),
        Limit("tokens", 4_000_000, per=30 * 86_400),
    ]


def test_a_level_that_contradicts_its_reset_is_not_believed() -> None:
    """Half empty and full in 0 s: one of the two lies, so neither moves anything."""
    assert level_of([MINUTE._replace(remaining=15_000, reset=0.0)], "tokens", 60) is None
    assert level_of([MINUTE], "tokens", 60) == 29_000
    assert (
        level_of([MINUTE._replace(remaining=15_000, reset=0.0, drips=False)], "tokens", 60)
        == 15_000
    )
    assert level_of([DAILY], "tokens", 60) is None


class World:
    """A server's bucket and ours, of 60 requests a minute: one second a request."""

    def __init__(self) -> None:
        self.server = 0.0
        self.ours = 0.0
        self.corrected = 0.0
        self.drift = Drift()

    def admit(self, now: float) -> float:
        self.ours = max(self.ours, now) + 1
        return self.ours - self.corrected

    def arrive(self, now: float) -> float:
        self.server = max(self.server, now) + 1
        return int(60 - (self.server - now))

    def hear(
        self, level: float, sent: float, heard: float, mark: float, later: int, alone: bool
    ) -> float:
        moved = self.drift.hear(
            level,
            burst=60,
            seconds_per_unit=1,
            sent=sent,
            heard=heard,
            full_at=mark,
            corrected=self.corrected,
            excess=0,
            travelling=0,
            later=later,
            alone=alone,
            input_only=False,
        )
        self.ours = max(self.ours, heard) + moved
        self.corrected += moved
        return moved


@given(
    st.lists(
        st.tuples(st.floats(0, 3), st.floats(0.01, 0.5), st.floats(0.01, 2)),
        min_size=1,
        max_size=30,
    )
)
def test_a_lone_caller_is_never_believed_richer_than_the_server(
    calls: list[tuple[float, float, float]],
) -> None:
    """Call by call, whatever the times in between: what a header cannot show (the way
    there, a part of a unit) is all we may be off by.
    """
    world = World()
    now = 1_000.0
    for pause, way, work in calls:
        now += pause
        mark = world.admit(now)
        level = world.arrive(now + way)
        heard = now + way + work
        world.hear(level, now, heard, mark, 0, alone=True)
        assert max(world.ours, heard) >= max(world.server, heard) - 1 - 0.5
        now = heard


def test_another_tenant_is_noticed_at_the_next_answer() -> None:
    """Thirty requests of somebody else: our level is the server's right after one
    answer.
    """
    world = World()
    world.server = 1_030.0
    mark = world.admit(1_000.0)
    moved = world.hear(world.arrive(1_000.1), 1_000.0, 1_000.5, mark, 0, alone=True)

    assert 28 <= moved <= 30
    assert abs(world.ours - world.server) <= 1.1


@pytest.mark.parametrize("seed", range(50))
def test_calls_that_overtake_each_other_are_not_taken_for_another_tenant(seed: int) -> None:
    """A burst arrives out of order, as networks have it: our level must not sink for
    the debits of calls that came early.
    """
    generator = Random(seed)
    world = World()
    now = 1_000.0
    marks = [world.admit(now) for _ in range(24)]
    before = world.ours
    for call in sorted(range(24), key=lambda number: number + generator.gauss(0, 4)):
        level = world.arrive(now + 0.1)
        world.hear(level, now, now + 0.2, marks[call], 23 - call, alone=False)

    assert world.ours >= world.server - 1
    assert world.ours - before <= 3


@given(
    st.floats(allow_nan=False, allow_infinity=False, min_value=0, max_value=1e15),
    st.integers(0, 10_000),
    st.booleans(),
)
def test_drift_is_always_a_finite_number(level: float, later: int, alone: bool) -> None:
    """Whatever a header shows, what comes out can be applied."""
    world = World()

    assert (
        abs(world.hear(level, 1_000.0, 1_000.5, world.admit(1_000.0), later, alone=alone)) <= 1e15
    )
