"""The light simulation of `benchmarks/tune.py` does what the whole stack would do.

Owns small traffics that are run by both, and miniatures beside the whole. Must never
wait in real time.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import openai
import pytest

from benchmarks.tuning.plans import Plan, arithmetic, binding, bounds_of, miniature, work_of
from benchmarks.tuning.simulate import simulate
from benchmarks.tuning.sources import arranged, described
from benchmarks.tuning.traffic import Job, Traffic
from benchmarks.tuning.world import Settings, World
from ratelimit import RateLimiter
from ratelimit.testing import FakeOpenAI, Latency, VirtualClock

pytestmark = pytest.mark.no_cover  # long simulations, which coverage would make twice as long

EVEN = Latency(spread=0.0, jitter=(0.05, 0.05))
"""The same seconds in the light simulation and in the server's own session."""


def traffic(calls: int = 80, most: int | None = 400) -> Traffic:
    """Short calls with short answers."""
    return described(calls, (500, 400), (150, 100), most, "gpt-4o")


def through_the_sdk(jobs: list[Job], settings: Settings, world: World) -> tuple[float, int]:
    """Seconds until the last answer and 429s, with the real client, HTTP messages and
    the fake server's own session.
    """
    clock = VirtualClock()
    limits: dict[str, Any] = {"rpm": None, "tpm": None, **world.limits}
    server = FakeOpenAI(world.variant, **limits, latency=world.latency)
    given: dict[str, Any] = {**world.limits, **settings.arguments()}
    limiter = RateLimiter(**given, clock=clock)

    async def main() -> float:
        http = httpx2.AsyncClient(transport=server.transport(), timeout=None)
        client = limiter.wrap(
            openai.AsyncOpenAI(base_url="http://fake/v1", api_key="any", http_client=http)
        )

        async def ask(job: Job) -> None:
            await asyncio.sleep(job.arrival)
            usage = {"prompt_tokens": job.item.prompt, "completion_tokens": job.output}
            headers = {"x-fake-usage": json.dumps(usage)}
            await client.chat.completions.create(**job.item.body, extra_headers=headers)

        await asyncio.gather(*[ask(job) for job in jobs], return_exceptions=True)
        return clock.now()

    return clock.run(main), len(server.ledger.refused)


@pytest.mark.parametrize(
    ("variant", "settings"),
    [
        ("P", Settings()),
        ("P", Settings(output="learned", burst_share=0.5)),
        ("P", Settings(concurrency=3)),
        ("A", Settings(accounting="never_refund")),
        ("C", Settings(accounting="refund", arrival_slack=0.5)),
        ("P", Settings(accounting="charge")),
    ],
    ids=str,
)
def test_light_simulation_is_what_the_whole_stack_does(variant: str, settings: Settings) -> None:
    """SDK and HTTP, which the simulation leaves out, change the seconds by less than a
    hundredth, and by 3 % amid 429s.
    """
    world = World({"rpm": 500, "tpm": 20_000}, variant, EVEN, client=0.0)
    jobs = traffic().jobs(1, EVEN)

    light = simulate(jobs, settings, world)
    seconds, rejected = through_the_sdk(jobs, settings, world)

    assert light.seconds == pytest.approx(seconds, rel=0.01 if not rejected else 0.03)
    assert (light.rejected == 0) == (rejected == 0)


def test_arrivals_are_kept_by_both() -> None:
    """Calls that come in by and by are simulated as they come."""
    world = World({"rpm": 500, "tpm": 20_000}, latency=EVEN, client=0.0)
    jobs = arranged(traffic(60), "30/min", 0.0).jobs(3, EVEN)

    assert simulate(jobs, Settings(), world).seconds == pytest.approx(
        through_the_sdk(jobs, Settings(), world)[0], rel=0.001
    )
    assert jobs[-1].arrival > 60


@pytest.mark.parametrize(
    ("variant", "settings"),
    [
        ("P", Settings()),
        ("P", Settings(output=10, arrival_slack=0.1)),
        ("I", Settings()),
        ("I", Settings(accounting="charge")),
        ("I", Settings(output=10, arrival_slack=0.1)),
        ("A", Settings()),
        ("A", Settings(accounting="never_refund")),
        ("C", Settings()),
        ("C", Settings(accounting="refund")),
    ],
    ids=str,
)
def test_no_setting_is_faster_than_the_lower_bound(variant: str, settings: Settings) -> None:
    """The bound that the advice names holds for every kind of server and for every
    setting that loses no call.
    """
    world = World({"rpm": 60, "tpm": 15_000}, variant)
    jobs = traffic(80).jobs(2, world.latency)
    least = max(bounds_of(jobs, world).values())

    outcome = simulate(jobs, settings, world)

    assert outcome.failed == 0
    assert outcome.makespan >= least * (1 - 1e-6)


@pytest.mark.parametrize(
    ("limits", "pace", "binds"),
    [
        ({"rpm": 500.0, "tpm": 10_000.0}, "at once", "tpm"),
        ({"rpm": 10.0, "tpm": 1e6}, "at once", "rpm"),
        ({"rpm": 5_000.0, "tpm": 1e7}, "at once", "answers"),
        ({"rpm": 500.0, "tpm": 1e6}, "10/min", "arrivals"),
        ({"rpm": 500.0, "tpm": 1e6, "rpd": 20.0}, "at once", "rpd"),
    ],
)
def test_the_limit_that_binds_is_named(limits: dict[str, float], pace: str, binds: str) -> None:
    """RPM, TPM, a daily limit, the answers or the arrivals: whichever takes longest."""
    plan = Plan(arranged(traffic(100), pace, 0.0), World(limits))

    assert binding(plan.bounds(0)) == binds


def test_miniature_takes_as_long_as_the_whole() -> None:
    """A tenth of the calls against lowered limits takes as long as all of them, so the
    search may use it.
    """
    whole = Plan(traffic(1_000, most=200), World({"rpm": 1_000, "tpm": 300_000}))
    small = miniature(whole, 100)

    assert len(small.traffic) == 100
    assert small.scale == pytest.approx(0.1, rel=0.15)
    assert small.run(Settings(), 1).makespan == pytest.approx(
        whole.run(Settings(), 1).makespan, rel=0.12
    )


def test_miniature_leaves_room_for_the_largest_call() -> None:
    """However small a sample, its limits let the largest call through several times."""
    whole = Plan(traffic(2_000, most=4_000), World({"rpm": 1_000, "tpm": 40_000}))
    small = miniature(whole, 20)

    assert (
        small.world.limits["tpm"] >= 4 * max(item.reserve for item in small.traffic.items) * 0.999
    )


def test_plain_arithmetic_is_what_exceeds_a_full_bucket() -> None:
    """300 calls at 60 a minute: 240 of them, one a second."""
    plan = Plan(traffic(300), World({"rpm": 60}))

    assert arithmetic(work_of(plan.traffic, plan.world), plan.world) == {"rpm": pytest.approx(240)}


def test_same_seed_same_run() -> None:
    """A run depends on its seed alone, so compared settings meet the same luck."""
    plan = Plan(traffic(60, most=None), World({"rpm": 500, "tpm": 10_000}))

    assert plan.run(Settings(), 7) == plan.run(Settings(), 7)
    assert plan.run(Settings(), 7).makespan != plan.run(Settings(), 8).makespan


def test_urgent_calls_wait_less_with_more_patience() -> None:
    """The patience of the batch class lets interactive calls pass it; it is searched
    where the traffic has both classes.
    """
    calls = arranged(traffic(150), "at once", 0.2)
    plan = Plan(Traffic(calls.items, span=180.0), World({"rpm": 500, "tpm": 12_000}))
    urgent = [max(plan.run(Settings(patience=patience), 1).urgent) for patience in (0.0, 600.0)]

    assert urgent[1] < urgent[0] / 3
