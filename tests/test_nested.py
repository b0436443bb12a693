"""Calls inside calls: a nested call uses the concurrency slot of the call around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from contextvars import Context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import Limit, Limits, RateLimiter, ReentrantUse, WaitTimeout, WouldBlock
from ratelimit.testing import ThreadClock, VirtualClock

if TYPE_CHECKING:
    from tests.conftest import LoopClock


def limiter(concurrency: int, clock: Any) -> RateLimiter:
    """Return a limiter of so many slots; a token a second is its only other limit."""
    return RateLimiter(
        limits=Limits(Limit("tokens", 100, 100), concurrency=concurrency),
        arrival_slack=0,
        clock=clock,
    )


def assert_idle(held: RateLimiter, slots: int) -> None:
    """Assert that nothing is in flight and that exactly so many calls can be."""
    family = held.statistics().families["*"]
    assert (family.waiting, family.in_flight) == (0, 0)
    taken = [held.acquire_nowait(tokens=0) for _ in range(slots)]
    with pytest.raises(WouldBlock):
        held.acquire_nowait(tokens=0)
    for lease in taken:
        lease.close()


def run(clock: VirtualClock, function: Any) -> None:
    """Run an async function; raise where it hangs."""

    async def bounded() -> None:
        await asyncio.wait_for(function(), 1e6)

    clock.run(bounded)


def test_with_in_with_three_deep() -> None:
    """One slot is enough for any depth, in a thread."""
    held = limiter(1, ThreadClock())
    with held.reserve(tokens=1), held.reserve(tokens=1), held.reserve(tokens=1):
        assert held.statistics().in_flight == 3

    assert_idle(held, 1)


def test_async_with_in_async_with_three_deep() -> None:
    """One slot is enough for any depth, in a task; also where the tokens are waited
    for.
    """
    clock = VirtualClock()
    held = limiter(1, clock)

    async def main() -> None:
        async with held.reserve(tokens=80), held.reserve(tokens=80), held.reserve(tokens=80):
            assert held.statistics().in_flight == 3

    run(clock, main)
    assert clock.now() == pytest.approx(140)
    assert_idle(held, 1)


def test_a_blocking_call_inside_a_task_uses_its_slot() -> None:
    """It borrows at once, so it does not stop the loop; also with calls waiting."""
    clock = VirtualClock()
    held = limiter(1, clock)

    async def other() -> None:
        async with held.reserve(tokens=1):
            pass

    async def main() -> None:
        async with held.reserve(tokens=1):
            task = asyncio.create_task(other())
            await asyncio.sleep(1)
            with held.reserve(tokens=1):
                pass
            held.acquire_sync(tokens=1).close()
            held.acquire_nowait(tokens=1).close()
        await task

    run(clock, main)
    assert_idle(held, 1)


@pytest.mark.logs("returned no usage")
@pytest.mark.usefixtures("vocabulary")
def test_a_decorated_function_may_call_decorated_functions() -> None:
    """Of whatever kind, and several at once, under one slot."""
    clock = VirtualClock()
    held = limiter(1, clock)

    @held.limit(request=lambda: {"model": "gpt-4o"})
    def inner() -> int:
        return held.statistics().in_flight

    @held.limit(request=lambda: {"model": "gpt-4o"})
    async def middle() -> int:
        return inner()

    @held.limit(request=lambda: {"model": "gpt-4o"})
    async def outer() -> int:
        return max(await asyncio.gather(middle(), middle(), middle()))

    async def main() -> None:
        assert await outer() == 3

    run(clock, main)
    assert_idle(held, 1)


def test_siblings_take_turns_in_the_slot_of_their_parent() -> None:
    """Three nested calls at once under one slot run one after the other."""
    clock = VirtualClock()
    held = limiter(1, clock)
    begun: list[float] = []

    async def child() -> None:
        async with held.reserve(tokens=1):
            begun.append(clock.now())
            await asyncio.sleep(2)

    async def main() -> None:
        async with held.reserve(tokens=1):
            await asyncio.gather(child(), child(), child())

    run(clock, main)
    assert begun == [0, 2, 4]
    assert_idle(held, 1)


def test_children_of_different_parents_do_not_wait_for_each_other() -> None:
    """Under two slots, each of two parents has a child in flight at once."""
    clock = VirtualClock()
    held = limiter(2, clock)
    begun: list[float] = []

    async def child() -> None:
        async with held.reserve(tokens=1):
            begun.append(clock.now())
            await asyncio.sleep(5)

    async def parent() -> None:
        async with held.reserve(tokens=1):
            await asyncio.sleep(1)
            await child()

    async def main() -> None:
        await asyncio.gather(*(parent() for _ in range(4)))

    run(clock, main)
    assert begun == [1, 1, 7, 7]
    assert_idle(held, 2)


def test_a_nested_call_that_outlives_its_parent_keeps_the_slot() -> None:
    """Until it ends itself: the slot is neither lost nor there twice."""
    clock = VirtualClock()
    held = limiter(1, clock)

    async def main() -> None:
        async with AsyncExitStack() as inside:
            async with held.reserve(tokens=1):
                inner = await held.acquire(tokens=1)
            with pytest.raises(WouldBlock):
                held.acquire_nowait(tokens=1)
            with pytest.raises(WaitTimeout):
                await held.acquire(tokens=1, timeout=5)
            inside.callback(inner.close)
        held.acquire_nowait(tokens=1).close()

    run(clock, main)
    assert_idle(held, 1)


def test_a_nested_call_that_waits_when_its_parent_ends_goes_next() -> None:
    """Its parent's slot is free then; it stands before calls that came earlier."""
    clock = VirtualClock()
    held = limiter(1, clock)
    order: list[str] = []

    async def call(name: str) -> None:
        async with held.reserve(tokens=1):
            order.append(name)
            await asyncio.sleep(1)

    async def main() -> None:
        async with held.reserve(tokens=1):
            tasks = [asyncio.create_task(call("borrower"))]
            await asyncio.sleep(0)
            tasks.append(asyncio.create_task(call("nested")))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)

    async def all_of_it() -> None:
        first = asyncio.create_task(main())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.gather(first, call("root"))

    run(clock, all_of_it)
    assert order == ["borrower", "nested", "root"]
    assert_idle(held, 1)


def test_a_call_inside_a_call_of_another_family_inside_its_own_family() -> None:
    """The innermost call uses the slot of the outermost: the one between is of
    another.
    """
    clock = VirtualClock()
    held = RateLimiter(
        limits={"a": Limits(concurrency=1), "b": Limits(concurrency=1)},
        arrival_slack=0,
        clock=clock,
    )

    async def main() -> None:
        async with AsyncExitStack() as calls:
            for model in ("a", "b", "a", "b"):
                await calls.enter_async_context(held.reserve(tokens=1, model=model))
            assert held.statistics().in_flight == 4

    run(clock, main)
    assert held.statistics().in_flight == 0


@pytest.mark.usefixtures("vocabulary")
def test_a_nested_call_does_not_wait_for_the_output_of_the_call_around_it() -> None:
    """That output is deferred until its call ends, which waits for the nested one."""
    clock = VirtualClock()
    held = RateLimiter(tpm=1_000, arrival_slack=0, clock=clock)
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}

    async def main() -> None:
        async with held.reserve(body, max_tokens=800) as outer:
            async with held.reserve(body, max_tokens=900) as inner:
                inner.settle(tokens=10)
            with pytest.raises(WouldBlock):
                Context().run(held.acquire_nowait, body, max_tokens=900)
            outer.settle(tokens=10)

    run(clock, main)
    assert held.statistics().families["*"].levels["tokens/60s"] == pytest.approx(980, abs=1)


def test_a_nested_call_that_is_refused_a_place_gives_the_slot_back() -> None:
    """A timeout of a nested call ends nothing but itself."""
    clock = VirtualClock()
    held = limiter(1, clock)

    async def main() -> None:
        async with held.reserve(tokens=100):
            with pytest.raises(WaitTimeout):
                await held.acquire(tokens=50, timeout=10)
            async with held.reserve(tokens=50):
                pass

    run(clock, main)
    assert_idle(held, 1)


@dataclass
class Node:
    """One call, its nested calls, and how it ends."""

    tokens: float
    before: float
    after: float
    gathered: bool
    early: bool
    """Whether the call is settled before its nested calls are made."""
    late: bool
    """Whether the call ends while its nested calls go on."""
    children: list[Node] = field(default_factory=list)


def nodes(children: Any) -> Any:
    """Return a strategy of calls with these nested calls."""
    moments = st.sampled_from([0.0, 0.0, 1.0, 3.0])
    return st.builds(
        Node,
        tokens=st.sampled_from([0.0, 1.0, 60.0]),
        before=moments,
        after=moments,
        gathered=st.booleans(),
        early=st.sampled_from([False, False, True]),
        late=st.sampled_from([False, False, True]),
        children=children,
    )


TREE = nodes(
    st.lists(
        nodes(st.lists(nodes(st.lists(nodes(st.just([])), max_size=1)), max_size=2)), max_size=3
    )
)


@settings(max_examples=80)
@given(
    trees=st.lists(st.tuples(st.sampled_from([0.0, 0.0, 2.0]), TREE), min_size=1, max_size=4),
    slots=st.integers(1, 3),
)
def test_any_tree_of_calls_ends_within_its_slots(
    trees: list[tuple[float, Node]], slots: int
) -> None:
    """Nothing hangs, no more calls use slots than there are, and all are free at the
    end.

    A call in flight lends its slot to one nested call at most.
    """
    clock = VirtualClock()
    held = limiter(slots, clock)
    store = held._engine.family("").admission.store
    parents: dict[int, int | None] = {}
    flying: set[int] = set()

    def around(name: int) -> int | None:
        parent = parents[name]
        while parent is not None and parent not in flying:
            parent = parents[parent]
        return parent

    def check() -> None:
        lenders = {around(name) for name in flying} - {None}
        roots = [name for name in flying if parents[name] is None]
        assert len(flying) - len(lenders) <= slots
        assert len(roots) <= slots
        assert 0 <= store.in_flight - store._borrowing <= slots

    async def call(node: Node, parent: int | None, left: list[asyncio.Task[None]]) -> None:
        async with held.reserve(tokens=node.tokens) as lease:
            parents[id(node)] = parent
            flying.add(id(node))
            check()
            await asyncio.sleep(node.before)
            if node.early:
                flying.discard(id(node))
                lease.settle(tokens=node.tokens / 2)
            nested = [call(child, id(node), left) for child in node.children]
            if node.late:
                left += [asyncio.ensure_future(one) for one in nested]
                await asyncio.sleep(0)
            elif node.gathered:
                await asyncio.gather(*nested)
            else:
                for one in nested:
                    await one
            await asyncio.sleep(node.after)
            flying.discard(id(node))

    async def main() -> None:
        left: list[asyncio.Task[None]] = []

        async def root(arrival: float, node: Node) -> None:
            await asyncio.sleep(arrival)
            await call(node, None, left)

        await asyncio.gather(*(root(arrival, node) for arrival, node in trees))
        while left:
            await left.pop()

    run(clock, main)
    assert not flying
    assert store._borrowing == 0
    assert_idle(held, slots)


@pytest.mark.usefixtures("vocabulary")
@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_call_beside_an_open_stream_of_the_same_task_goes_on(concurrency: int) -> None:
    """The stream has the slot of the call around it, and waits for this very task."""
    clock = VirtualClock()
    held = RateLimiter(concurrency=concurrency, arrival_slack=0, clock=clock)
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}

    @held.limit(request=lambda: body, settle="text")
    async def stream() -> AsyncGenerator[str, None]:
        for piece in "abc":
            await asyncio.sleep(0.1)
            yield piece

    @held.limit(request=lambda: body, settle="text")
    async def tool() -> str:
        await asyncio.sleep(0.1)
        return "t"

    @held.limit(request=lambda: body, settle="text")
    async def agent() -> str:
        async for _ in stream():
            await tool()
        return "done"

    answers: list[str] = []

    async def main() -> None:
        answers.extend(await asyncio.gather(*[agent() for _ in range(4)]))

    run(clock, main)
    assert answers == ["done"] * 4
    assert_idle(held, concurrency)


def test_a_blocking_call_behind_a_task_of_its_own_loop_is_refused() -> None:
    """It would stop the very loop in which the slot could become free."""
    clock = VirtualClock()
    held = RateLimiter(concurrency=1, arrival_slack=0, clock=clock)

    async def holder() -> None:
        async with held.reserve(tokens=1):
            await asyncio.sleep(1)

    async def main() -> None:
        task = asyncio.create_task(holder())
        await asyncio.sleep(0.1)
        with pytest.raises(ReentrantUse, match="would block the event loop"):
            held.acquire_sync(tokens=1)
        await task

    run(clock, main)
    assert_idle(held, 1)


@pytest.mark.parametrize("limiters", [1, 2])
def test_calls_nested_crosswise_hang_nobody(loop_clock: LoopClock, limiters: int) -> None:
    """Of two calls that each hold what the other one needs, of two families or of two
    limiters, one is refused at once in words, and the other one goes.
    """
    clock = loop_clock()
    limits = {name: Limits(rpm=600, concurrency=1) for name in "ab"}
    one = RateLimiter(limits=limits, clock=clock)
    other = one if limiters == 1 else RateLimiter(limits=limits, clock=clock)
    ended: list[str] = []

    async def agent(first: RateLimiter, outer: str, second: RateLimiter, inner: str) -> None:
        try:
            async with first.reserve(requests=1, model=outer):
                await anyio.sleep(1)
                async with second.reserve(requests=1, model=inner):
                    ended.append("went")
        except ReentrantUse as error:
            ended.append("refused" if "in one order" in str(error) else str(error))

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(agent, one, "a", other, "b")
            group.start_soon(agent, other, "b", one, "a")

    clock.run(main)
    assert sorted(ended) == ["refused", "went"]
    assert one.statistics().in_flight == other.statistics().in_flight == 0


def test_a_call_inside_another_waits_for_one_that_will_end(loop_clock: LoopClock) -> None:
    """Of another family, where nobody waits for anybody who waits: it is admitted."""
    clock = loop_clock()
    limits = {name: Limits(rpm=600, concurrency=1) for name in "ab"}
    limiter = RateLimiter(limits=limits, clock=clock)
    went: list[str] = []

    async def call(model: str, seconds: float, inner: str = "") -> None:
        async with limiter.reserve(requests=1, model=model):
            await anyio.sleep(seconds)
            if inner:
                async with limiter.reserve(requests=1, model=inner):
                    went.append(f"{inner} in {model}")
        went.append(model)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(call, "b", 5)
            group.start_soon(call, "a", 1, "b")
            group.start_soon(call, "a", 1)

    clock.run(main)
    assert sorted(went) == ["a", "a", "b", "b in a"]
