"""Tenants: each gets its share while others wait, and nobody starves."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ratelimit
from ratelimit import InvalidArgument, Lease, Limits, RateLimiter, WaitTimeout, WouldBlock
from ratelimit.admission.fair import FairQueue
from ratelimit.admission.queue import Queue, Waiter
from ratelimit.testing import ThreadClock, VirtualClock
from tests.payments import Sleeper, waiter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RATE = 10  # tokens a second of most limiters in here


def limiter_of(clock: Any, shares: Mapping[str, float] | None, **options: Any) -> RateLimiter:
    """Return a limiter of 600 tokens a minute that begins empty."""
    return RateLimiter(
        tpm=60 * RATE, shares=shares, clock=clock, initial_level=0, arrival_slack=0, **options
    )


def admitted(
    calls: Sequence[tuple[str, float]], shares: Mapping[str, float] | None, **options: Any
) -> list[str]:
    """Return the tenants in the order of their admissions; all call at once."""
    clock = VirtualClock()
    limiter = limiter_of(clock, shares)
    found: list[str] = []

    async def one(tenant: str, tokens: float) -> None:
        (await limiter.acquire(tokens=tokens, tenant=tenant, **options)).close()
        found.append(tenant)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for call in calls:
                group.start_soon(one, *call)

    clock.run(main)
    return found


def test_tenants_go_in_proportion_to_their_shares() -> None:
    """With shares 3:1 three calls of one go for each of the other, from the start."""
    found = admitted([("b", 60)] * 20 + [("a", 60)] * 60, {"a": 3, "b": 1})

    for count in range(4, 80, 4):
        firsts = Counter(found[:count])
        assert abs(firsts["a"] - 3 * firsts["b"]) <= 3


def test_shares_are_of_tokens_and_not_of_calls() -> None:
    """A tenant with calls of ten times the size gets no more tokens for it."""
    found = admitted([("big", 100)] * 20 + [("small", 10)] * 200, {})

    half = Counter(found[:110])
    assert abs(100 * half["big"] - 10 * half["small"]) <= 100


def test_an_unknown_tenant_has_a_share_of_one() -> None:
    """So have calls without a tenant, all together."""
    calls = [("c", 60), ("", 60), ("b", 60)] * 20

    firsts = Counter(admitted(calls, {"b": 2})[:40])
    assert (firsts["b"], firsts["c"], firsts[""]) == (20, 10, 10)


def test_an_idle_share_goes_to_the_others_and_is_not_saved_up() -> None:
    """Who comes late gets its share from then on, and nothing for the time before."""
    clock = VirtualClock()
    limiter = limiter_of(clock, {"a": 3, "b": 1})
    found: list[str] = []

    async def one(tenant: str) -> None:
        (await limiter.acquire(tokens=60, tenant=tenant)).close()
        found.append(tenant)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(60):
                group.start_soon(one, "b")
            await anyio.sleep(121)
            assert found == ["b"] * 20  # the whole limit
            for _ in range(60):
                group.start_soon(one, "a")
            await anyio.sleep(240)
            since = Counter(found[20:])
            assert since["a"] + since["b"] == 40
            assert abs(since["a"] - 30) <= 1

    clock.run(main)


def test_shares_are_of_what_was_used() -> None:
    """A tenant with estimates that are ten times too high gets its share as well."""
    clock = VirtualClock()
    limiter = limiter_of(clock, {"a": 1, "b": 1})
    used: Counter[str] = Counter()

    async def worker(tenant: str, estimated: int) -> None:
        while True:
            async with limiter.reserve(tokens=estimated, tenant=tenant) as lease:
                await anyio.sleep(0.5)
                lease.settle(tokens=10)
            used[tenant] += 10

    async def main() -> None:
        with anyio.move_on_after(600):
            async with anyio.create_task_group() as group:
                for _ in range(10):
                    group.start_soon(worker, "a", 100)
                    group.start_soon(worker, "b", 10)

    clock.run(main)
    assert abs(used["a"] / used.total() - 0.5) < 0.05


def test_priorities_hold_within_a_tenant() -> None:
    """An urgent call overtakes those of its own tenant, and no other's turn."""
    clock = VirtualClock()
    limiter = limiter_of(clock, {"a": 1, "b": 1})
    found: list[str] = []

    async def one(name: str, tenant: str, priority: str) -> None:
        (await limiter.acquire(tokens=60, tenant=tenant, priority=priority)).close()
        found.append(name)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for call in ("a1", "a2", "b1", "b2"):
                group.start_soon(one, call, call[0], "batch")
            await anyio.sleep(1)
            group.start_soon(one, "a!", "a", "interactive")

    clock.run(main)
    assert found == ["a!", "b1", "a1", "b2", "a2"]


def test_a_newcomers_timeout_is_judged_by_its_share() -> None:
    """A call is turned away for a long queue of its own tenant, not of another."""
    clock = VirtualClock()
    limiter = limiter_of(clock, {"a": 1, "b": 1})

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(_acquire, limiter, 60, "a")
            await anyio.sleep(1)
            before = clock.now()
            lease = await limiter.acquire(tokens=60, tenant="b", timeout=15)
            assert clock.now() - before < 12
            lease.close()
            with pytest.raises(WaitTimeout):
                await limiter.acquire(requests=1, tokens=60, tenant="a", timeout=15)
            group.cancel_scope.cancel()

    clock.run(main)


async def _acquire(limiter: RateLimiter, tokens: float, tenant: str) -> Lease:
    lease = await limiter.acquire(tokens=tokens, tenant=tenant)
    lease.close()
    return lease


def test_explain_counts_who_waits_by_tenant() -> None:
    """It names the tenants with the most calls that wait, and a key is not shown."""
    clock = VirtualClock()
    limiter = limiter_of(clock, {"a": 1})

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for tenant in ["a"] * 3 + ["", "b", "sk-proj-abcdefghijklmnopqrstuvwx"]:
                group.start_soon(_acquire, limiter, 60, tenant)
            await anyio.sleep(1)
            family = limiter.explain().families["*"]
            assert dict(family.waiting_by_tenant) | {"": 1} == family.waiting_by_tenant
            assert family.waiting_by_tenant["a"] == 3
            assert str(family).startswith("6 wait (a: 3, no tenant: 1, b: 1, ")
            assert "sk-proj-abc" not in str(family)
            assert limiter.statistics().waiting == 6
            group.cancel_scope.cancel()

    clock.run(main)
    assert limiter.explain().families["*"].waiting_by_tenant == {}


def test_without_tenants_the_queue_stays_what_it_was() -> None:
    """Tenants begin with the first one that is named, also while others wait."""
    clock = VirtualClock()
    limiter = limiter_of(clock, None)
    family = limiter._engine.only
    assert family is not None
    queue = family.admission.queue
    assert type(queue) is Queue
    found: list[str] = []

    async def one(name: str, tenant: str | None) -> None:
        (await limiter.acquire(tokens=60, tenant=tenant)).close()
        found.append(name)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(one, f"plain {number}", None)
            await anyio.sleep(1)
            group.start_soon(one, "of a tenant", "a")

    clock.run(main)
    assert type(queue) is FairQueue
    assert found[1] == "of a tenant"
    assert [name for name in found if "plain" in name] == [f"plain {n}" for n in range(4)]


@pytest.mark.parametrize("shares", [{"a": 0}, {"a": -1}, {"a": "x"}, {"a": True}, [3, 1], {1: 2}])
def test_shares_that_cannot_be_are_refused_in_words(shares: Any) -> None:
    """A share is a number above zero, by the name of a tenant."""
    with pytest.raises(InvalidArgument, match="share"):
        RateLimiter(rpm=60, shares=shares)


@pytest.mark.parametrize("door", ["reserve", "acquire_sync", "acquire_nowait", "limit"])
def test_a_tenant_is_a_name(door: str) -> None:
    """Anything else is refused in words at every door, and a misspelling is found."""
    limiter = RateLimiter(rpm=60)
    with pytest.raises(InvalidArgument, match="tenant= is a text"):
        getattr(limiter, door)(tenant=3)
    with pytest.raises(InvalidArgument, match="did you mean tenant="):
        limiter.reserve(tenat="a")


def test_nobody_is_passed_without_waiting() -> None:
    """`acquire_nowait` takes nothing while any tenant waits."""
    clock = ThreadClock()
    limiter = limiter_of(clock, {"a": 1, "b": 1})

    def waits() -> None:
        limiter.acquire_sync(tokens=60, tenant="a").close()

    def looks() -> None:
        clock.sleep(1)
        with pytest.raises(WouldBlock):
            limiter.acquire_nowait(tokens=1, tenant="b")

    clock.run(waits, looks)


def test_a_call_inside_a_call_goes_before_all_tenants() -> None:
    """The call around it holds a slot until the inner one ends."""
    clock = VirtualClock()
    limiter = limiter_of(clock, {"a": 1, "b": 1}, concurrency=1)
    found: list[str] = []

    async def other() -> None:
        await anyio.sleep(7)
        async with limiter.reserve(tokens=30, tenant="b"):
            found.append("b")

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(other)
            async with limiter.reserve(tokens=60, tenant="a"):
                await anyio.sleep(4)
                async with limiter.reserve(tokens=60, tenant="a"):
                    found.append("inner")

    clock.run(main)
    assert found == ["inner", "b"]


CALL = st.tuples(
    st.sampled_from(["a", "b", "c", ""]),
    st.integers(0, 200).map(lambda n: n / 10),  # when
    st.integers(1, 60),
    st.sampled_from([None, None, 3.0, 20.0]),  # timeout
    st.sampled_from([None, None, 2.5, 11.0]),  # cancelled after
    st.sampled_from([0.0, 3.0]),  # in flight
    st.sampled_from([0.2, 1.0, 2.0]),  # used, of the estimate
    st.sampled_from(["interactive", "batch"]),
)


@settings(max_examples=60)
@given(script=st.lists(CALL, max_size=25), concurrency=st.sampled_from([None, None, 1, 2]))
def test_nobody_is_lost_and_never_too_much_goes(
    loop_clock: Any, script: list[Any], concurrency: int | None
) -> None:
    """For any calls of any tenants, cancelled, timed out and settled both ways."""
    clock = loop_clock()
    limiter = RateLimiter(
        limits=Limits(tpm=600, concurrency=concurrency),
        shares={"a": 3, "b": 0.5},
        clock=clock,
        burst_share=0.1,
    )
    ended: list[str] = []
    log: list[tuple[float, bool, float]] = []

    async def one(call: Any) -> None:
        tenant, at, tokens, timeout, cancelled, seconds, used, priority = call
        await anyio.sleep(at)
        with anyio.move_on_after(cancelled) if cancelled else anyio.CancelScope():
            try:
                async with limiter.reserve(
                    tokens=tokens, tenant=tenant, timeout=timeout, priority=priority
                ) as lease:
                    log.append((clock.now(), True, tokens))
                    await anyio.sleep(seconds)
                    lease.settle(tokens=round(tokens * used))
                    log.append((clock.now(), False, round(tokens * used) - tokens))
            except WaitTimeout:
                pass
        ended.append(tenant)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for call in script:
                group.start_soon(one, call)

    clock.run(main)
    assert len(ended) == len(script)
    assert limiter.statistics().waiting == limiter.statistics().in_flight == 0
    level, moment = 60.0, 0.0
    for time, is_admission, amount in log:
        level, moment = min(60.0, level + (time - moment) * RATE), time
        assert not is_admission or level > amount - 1e-3
        level -= amount
    family = limiter._engine.only
    assert family is not None
    assert isinstance(family.admission.queue, FairQueue)
    assert family.admission.queue.head is None


@settings(max_examples=150)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["join", "pay first", "leave", "pay any"]),
            st.integers(0, 1_000),
            st.sampled_from(["a", "b", "c"]),
            st.sampled_from([0.0, 10.0]),
        ),
        max_size=60,
    )
)
def test_the_head_is_woken_whenever_it_becomes_the_head(steps: list[Any]) -> None:
    """Whatever joins, leaves or was paid behind the head: no wake-up is lost."""
    queue = Queue()
    FairQueue.become(queue, {"a": 3}, lambda amounts: amounts.get("tokens", 0) / 10 or 1)
    waiting: list[Waiter] = []

    def settled(one: Waiter) -> None:
        before = queue.head
        counts = {id(each): _woken(each) for each in waiting}
        waiting.remove(one)
        queue.leave(one)
        head = queue.head
        assert (head is None) == (not waiting)
        if head is not None and head is not before:
            assert _woken(head) > counts[id(head)]

    for number, (step, choice, tenant, patience) in enumerate(steps):
        if step == "join":
            one = waiter(number + patience, patience=patience, tokens=choice % 50 + 1)
            one.tenant = tenant
            queue.join(one)
            waiting.append(one)
            assert queue.head in waiting
            assert queue.first(len(waiting))[0].payment is _head(queue).payment
            assert len(queue.first(100)) == len(waiting)
        elif waiting:
            one = _head(queue) if step == "pay first" else waiting[choice % len(waiting)]
            one.payment.paid = step != "leave"
            settled(one)


def _head(queue: Queue) -> Waiter:
    head = queue.head
    assert head is not None
    return head


def _woken(of: Waiter) -> int:
    assert isinstance(of.parker, Sleeper)
    return of.parker.woken


def test_many_tenants_that_come_and_go_are_not_kept() -> None:
    """A tenant without calls is forgotten as soon as a fresh start changes nothing."""
    queue = Queue()
    FairQueue.become(queue, {}, lambda _: 1.0)
    assert isinstance(queue, FairQueue)
    for number in range(5_000):
        for tenant in ("stays", f"user {number}"):
            one = waiter(float(number), tokens=1)
            one.tenant = tenant
            queue.join(one)
        while len(queue) > 1:
            head = _head(queue)
            head.payment.paid = True
            queue.leave(head)

    assert len(queue.turns._tenants) < 200
    assert len(queue.turns._order) < 2_000


def test_a_batch_is_of_a_tenant() -> None:
    """`ratelimit.run` takes the option under the same name."""
    with pytest.raises(InvalidArgument, match="tenant= is a text"):
        ratelimit.run([], _Client(), RateLimiter(rpm=5), tenant=3)  # type: ignore[arg-type]


class _Client:
    max_retries = 0

    async def post(self) -> None:
        """Do nothing."""
