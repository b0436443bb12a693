"""The limiter as it is configured: families of models, accounting, burst, slack."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from ratelimit import Limit, Limits, RateLimiter, WouldBlock
from ratelimit.control.concurrency import RAISE_SECONDS
from ratelimit.control.engine import PATIENCE
from ratelimit.control.slack import MARGIN, SAMPLES, Slack
from ratelimit.testing import ThreadClock

if TYPE_CHECKING:
    from tests.conftest import LoopClock

BODY: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 300,
}


def test_models_that_share_a_family_share_its_buckets() -> None:
    """Snapshots and names of one pattern draw on one bucket, unnamed models on "*"."""
    limits = {"gpt-4o": Limits(tpm=1_000), "gpt-4o-mini*": Limits(tpm=2_000), "*": Limits(tpm=500)}
    held = RateLimiter(limits=limits, arrival_slack=0, clock=ThreadClock())
    for model in (
        "gpt-4o",
        "gpt-4o-2024-08-06",
        "gpt-4o-mini",
        "gpt-4o-mini-2024-07-18",
        "o3",
        "o1",
    ):
        held.acquire_nowait(tokens=100, model=model).close()
    levels = {
        name: family.levels["tokens/60s"] for name, family in held.statistics().families.items()
    }
    assert levels == {"gpt-4o": 800, "gpt-4o-mini*": 1_800, "*": 300}


def test_families_do_not_wait_for_each_other() -> None:
    """A full queue of one model holds no call of another."""
    held = RateLimiter(
        limits={"slow": Limits(rpm=1), "fast": Limits(rpm=100)},
        arrival_slack=0,
        clock=ThreadClock(),
    )
    held.acquire_sync(tokens=0, model="slow")
    held.acquire_sync(tokens=0, model="fast")
    assert held._engine.clock.now() == 0
    held.acquire_sync(tokens=0, model="slow")
    assert held._engine.clock.now() == pytest.approx(60)


@pytest.mark.parametrize(
    ("accounting", "reserved", "settled"),
    [("reconcile", 308, 48), ("never_refund", 308, 308), ("charge", 3, 3)],
)
def test_each_accounting_reserves_and_settles_as_it_says(
    accounting: Any, reserved: float, settled: float
) -> None:
    """Prompt and maximum with settlement, the same for good, or the charge only."""
    held = RateLimiter(tpm=10_000, accounting=accounting, arrival_slack=0, clock=ThreadClock())

    def spent() -> float:
        return round(10_000 - held.statistics().families["*"].levels["tokens/60s"])

    lease = held.acquire_nowait(BODY)
    assert spent() == reserved
    lease.settle({"usage": {"prompt_tokens": 8, "completion_tokens": 40, "total_tokens": 48}})
    assert spent() == settled


def test_estimating_takes_nothing() -> None:
    """`estimate` says what a call would cost, from a body whole or by its fields."""
    held = RateLimiter(tpm=1_000, clock=ThreadClock())
    assert held.estimate(BODY) == held.estimate(**BODY)
    assert held.estimate(BODY).max_output_tokens == 300
    assert held.statistics().families["*"].levels["tokens/60s"] == 1_000
    assert held.statistics().families["*"].admitted == 0


def test_every_short_form_is_its_own_bucket() -> None:
    """rpm, tpm, rpd, tpd and rps hold together; a call must fit every one."""
    held = RateLimiter(
        rpm=100, tpm=1_000, rpd=1_000, tpd=10_000, rps=2, arrival_slack=0, clock=ThreadClock()
    )
    levels = dict(held.statistics().families["*"].levels)
    assert levels == {
        "requests/60s": 100,
        "tokens/60s": 1_000,
        "requests/86400s": 1_000,
        "tokens/86400s": 10_000,
        "requests/1s": 2,
    }
    for _ in range(5):
        held.acquire_sync(tokens=1)
    assert held._engine.clock.now() == pytest.approx(1.5)


def test_a_burst_is_a_share_of_each_limit_that_has_none_of_its_own() -> None:
    """With a burst of a tenth, no more goes at once, and the rate stays."""
    held = RateLimiter(
        limits=Limits(Limit("tokens", 600), Limit("requests", 60, burst=5)),
        burst_share=0.1,
        arrival_slack=0,
        clock=ThreadClock(),
    )
    assert dict(held.statistics().families["*"].levels) == {"tokens/60s": 60, "requests/60s": 5}
    for _ in range(10):
        held.acquire_sync(tokens=30)
    assert held._engine.clock.now() == pytest.approx(24)


def test_without_limits_everything_passes() -> None:
    """Without any limit no call waits."""
    held = RateLimiter(clock=ThreadClock())
    for _ in range(100):
        held.acquire_sync(tokens=10**9).close()
    assert held._engine.clock.now() == 0


def test_priorities_are_names_for_patience() -> None:
    """The names are the documented ones unless other ones are given."""
    assert dict(PATIENCE) == {"interactive": 0.0, "normal": 10.0, "batch": 60.0}
    held = RateLimiter(rpm=60, priorities={"normal": 0, "later": 3}, clock=ThreadClock())
    held.acquire_sync(tokens=0, priority="later")
    held.acquire_sync(tokens=0)


def test_the_snapshot_is_frozen_and_shows_the_queue(loop_clock: LoopClock) -> None:
    """Levels, waiters, the head's moment, calls in flight and the longest wait.

    As they were when it was made.
    """
    clock = loop_clock()
    held = RateLimiter(
        limits=Limits(Limit("tokens", 100, 10), concurrency=9), arrival_slack=0, clock=clock
    )

    async def main() -> None:
        first = await held.acquire(tokens=100)
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(lambda: held.acquire(tokens=50))
            await anyio.sleep(1)
            family = held.statistics().families["*"]
            assert (family.waiting, family.in_flight, family.admitted, family.ended) == (2, 1, 1, 0)
            assert family.next_in == pytest.approx(4)
            assert held.statistics().waiting == 2
        first.close()

    clock.run(main)
    statistics = held.statistics()
    assert statistics.families["*"].longest_wait == pytest.approx(10)
    assert statistics.waiting == statistics.refused == 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        statistics.families["*"].waiting = 5  # type: ignore[misc]
    dict(statistics.families)["*"].levels["tokens/10s"] = 5  # type: ignore[index]
    assert held.statistics().families["*"].levels["tokens/10s"] != 5


def test_a_head_that_waits_for_a_call_to_end_has_no_moment(loop_clock: LoopClock) -> None:
    """`next_in` is None where only a settlement helps, and where nobody waits."""
    clock = loop_clock()
    held = RateLimiter(concurrency=1, clock=clock)

    async def main() -> None:
        assert held.statistics().families["*"].next_in is None
        lease = await held.acquire(tokens=1)
        async with anyio.create_task_group() as group:
            group.start_soon(held.acquire)
            await anyio.sleep(1)
            assert held.statistics().families["*"].waiting == 1
            assert held.statistics().families["*"].next_in is None
            lease.close()

    clock.run(main)


def test_the_slack_follows_the_slowest_headers_seen_lately_and_never_grows() -> None:
    """A guess until enough was seen; then the longest time to headers, plus half.

    Of the last two batches, and at most the guess.
    """
    slack = Slack(2.0)
    for _ in range(SAMPLES - 1):
        slack.observe(0.1)
        assert slack.seconds == 2.0
    slack.observe(0.1)
    slack.observe(0.1)
    assert slack.seconds == pytest.approx(0.1 * MARGIN)
    assert slack.observe(0.4)
    assert slack.seconds == pytest.approx(0.4 * MARGIN)
    slack.observe(60.0)
    assert slack.seconds == 2.0
    for _ in range(3 * SAMPLES):
        slack.observe(0.2)
    assert slack.seconds == pytest.approx(0.2 * MARGIN)


def test_the_concurrency_that_was_given_holds_whatever_refusals_show() -> None:
    """A learned bound on calls in flight grows again, but never past the given one."""
    clock = ThreadClock()
    held = RateLimiter(concurrency=2, clock=clock)
    held.acquire_sync(tokens=1).observe({})
    with held.reserve(tokens=1) as lease:
        held.acquire_sync(tokens=1).observe(
            {}, status=429, body={"error": {"message": "Rate limit reached"}}
        )
        lease.observe({})
    for _ in range(6):
        clock.sleep(RAISE_SECONDS + 1)
        with held.reserve(tokens=1) as lease:
            lease.observe({})

    taken = [held.acquire_nowait(tokens=1) for _ in range(2)]
    with pytest.raises(WouldBlock):
        held.acquire_nowait(tokens=1)
    assert len(taken) == 2


REFUSED = {"status": 429, "body": "<html>429 Too Many Requests</html>"}


def test_calls_that_were_refused_together_are_one_refusal() -> None:
    """Of 100 calls in flight 60 are refused: 40 may be in flight from then on.

    One more is tried from time to time.
    """
    clock = ThreadClock()
    limiter = RateLimiter(clock=clock)
    limiter.acquire_sync(tokens=1).observe({})
    leases = [limiter.acquire_sync(tokens=1) for _ in range(100)]
    for number, lease in enumerate(leases):
        clock.sleep(0.001)
        lease.observe({}, **(REFUSED if number % 5 < 3 else {}))  # type: ignore[arg-type]
    for lease in leases:
        lease.close()

    assert limiter.statistics().families["*"].concurrency == pytest.approx(40, abs=2)
    clock.sleep(RAISE_SECONDS + 1)
    limiter.acquire_sync(tokens=1).observe({})
    assert limiter.statistics().families["*"].concurrency == pytest.approx(41, abs=2)


def test_where_all_were_refused_every_answer_allows_one_more() -> None:
    """A gateway that refuses all calls for a while shows nothing of how many fit.

    Soon as many are in flight again as before.
    """
    clock = ThreadClock()
    limiter = RateLimiter(clock=clock)
    limiter.acquire_sync(tokens=1).observe({})
    for lease in [limiter.acquire_sync(tokens=1) for _ in range(100)]:
        lease.observe({}, **REFUSED)  # type: ignore[arg-type]
    assert limiter.statistics().families["*"].concurrency == 1
    clock.sleep(60)
    for rounds in range(7):
        for lease in [limiter.acquire_nowait(tokens=1) for _ in range(2**rounds)]:
            lease.observe({})
            lease.close()

    assert limiter.statistics().families["*"].concurrency == 128


def test_refusals_weeks_apart_do_not_end_all_refunds() -> None:
    """Only a server that refuses again and again is one that keeps what was reserved.

    Even there refunds are tried once more an hour later.
    """
    clock = ThreadClock()
    limiter = RateLimiter(tpm=30_000, clock=clock)
    body = {
        "error": {
            "message": "Rate limit reached for gpt-4o on tokens per min (TPM): Limit "
            "30000, Used 29990, Requested 1000.",
            "type": "tokens",
        }
    }

    def refunded() -> bool:
        clock.sleep(600)
        lease = limiter.acquire_sync(tokens=4_000)
        lease.observe({})
        lease.settle(tokens=10)
        return lease.cost["tokens"] == 10

    def refuse(gap: float) -> None:
        for _ in range(3):
            clock.sleep(gap)
            limiter.acquire_sync(tokens=1_000).observe({}, status=429, body=body)

    refunded()
    refuse(86_400)
    assert refunded()
    refuse(60)
    assert not refunded()
    clock.sleep(3_600)
    refunded()
    assert refunded()


def test_after_a_fork_the_headers_of_the_parents_calls_move_no_bucket_of_the_child() -> None:
    """Such an answer shows the level of buckets that the child does not have."""
    clock = ThreadClock()
    held = RateLimiter(rpm=1_000, tpm=100_000, clock=clock)
    headers = {
        "x-ratelimit-limit-tokens": "100000",
        "x-ratelimit-remaining-tokens": "50000",
        "x-ratelimit-reset-tokens": "30s",
    }
    held.acquire_sync(tokens=10).observe(headers)
    leases = [held.acquire_sync(tokens=10) for _ in range(10)]
    clock.sleep(100)
    held._engine.reset_after_fork()

    for lease in leases:
        lease.observe(headers)
        lease.settle(tokens=5)

    assert held.statistics().families["*"].levels == {"requests/60s": 1_000, "tokens/60s": 100_000}


def test_a_projects_level_below_its_organizations_raises_ours() -> None:
    """Of two limits that an answer shows the lower is held, and followed up as well."""
    limiter = RateLimiter(arrival_slack=0, clock=ThreadClock())

    def answer(left: int) -> float:
        lease = limiter.acquire_nowait(tokens=10)
        headers = {
            "x-ratelimit-limit-project-tokens": "10000",
            "x-ratelimit-remaining-project-tokens": str(left),
            "x-ratelimit-limit-tokens": "30000",
            "x-ratelimit-remaining-tokens": "29000",
        }
        lease.observe(headers)
        lease.settle(tokens=10)
        return limiter.statistics().families["*"].levels["tokens/60s"]

    assert answer(5_000) <= 5_000
    assert answer(9_990) > 9_900


def test_what_was_learned_before_a_fork_was_not_given() -> None:
    """A limit that answers have shown holds in the child, and answers can change it."""
    limiter = RateLimiter(clock=ThreadClock())
    family = limiter._engine.family("")
    learned = Limits(rpm=60)
    family.admission.store.replace(learned, family.admission.now())
    limiter._engine.reset_after_fork()

    assert limiter.limits() == learned
    assert family.given == Limits()
