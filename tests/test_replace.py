"""`RateLimiter.replace`: other limits while calls wait; what was used stays used."""

from __future__ import annotations

import itertools
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import InvalidArgument, Limit, Limits, RateLimiter, RequestTooLarge, WaitTimeout
from ratelimit.events import LimitsChanged, flush
from ratelimit.stores.payments import Payment
from ratelimit.testing import VirtualClock

if TYPE_CHECKING:
    from benchmarks.sharing.redis_server import RedisServer


def level(limiter: RateLimiter, label: str, model: str = "*") -> float:
    """Return the level of one bucket."""
    return limiter.statistics().families[model].levels[label]


def empty(clock: VirtualClock, **options: Any) -> RateLimiter:
    """Return a limiter that begins with empty buckets."""
    return RateLimiter(clock=clock, initial_level=0, arrival_slack=0, **options)


def test_who_waits_goes_by_the_new_limits_at_once() -> None:
    """A call that would go in a minute goes in a second, and the other way round."""
    clock = VirtualClock()
    limiter = empty(clock, rpm=1)
    went: list[float] = []

    async def one() -> None:
        (await limiter.acquire()).close()
        went.append(clock.now())

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(one)
            await anyio.sleep(1)
            limiter.replace(rpm=60)
            await anyio.sleep(1.5)
            assert len(went) == 1
            limiter.replace(rpm=1)
            group.start_soon(one)
            await anyio.sleep(20)
            assert len(went) == 1
            limiter.replace(limits=Limits("60 rpm"))

    clock.run(main)
    assert went[1] < 24


def test_a_call_that_can_never_fit_any_more_says_so_at_once() -> None:
    """Wherever it stands in the queue; those that fit go on."""
    clock = VirtualClock()
    limiter = empty(clock, tpm=600)
    ended: list[tuple[str, float]] = []

    async def one(name: str, tokens: int) -> None:
        try:
            (await limiter.acquire(tokens=tokens)).close()
        except RequestTooLarge as error:
            assert "400 tokens" in str(error)  # noqa: PT017  # which of the calls is said below
            name = f"{name} refused"
        ended.append((name, clock.now()))

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for name, tokens in (("first", 100), ("second", 400), ("third", 100)):
                group.start_soon(one, name, tokens)
            await anyio.sleep(1)
            limiter.replace(tpm=300)
            await anyio.sleep(0.1)
            assert [name for name, _ in ended] == ["second refused"]

    clock.run(main)
    assert [name for name, _ in ended] == ["second refused", "first", "third"]


def test_an_estimate_that_was_only_expected_is_cut_and_not_refused() -> None:
    """What no body asks for refuses no call, under the new limits either."""
    clock = VirtualClock()
    limiter = empty(clock, tpm=100_000, output=5_000)
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello!"}]}

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(_ask, limiter, body)
            await anyio.sleep(0.1)
            limiter.replace(tpm=1_000)

    clock.run(main)
    assert limiter.statistics().families["*"].admitted == 3


async def _ask(limiter: RateLimiter, body: dict[str, Any]) -> None:
    (await limiter.acquire(body)).close()


@pytest.mark.parametrize(
    ("new", "label", "expected"),
    [
        ({"tpm": 2_000}, "tokens/60s", 1_400),  # more is left by what is added
        ({"tpm": 700}, "tokens/60s", 100),
        ({"tpm": 300}, "tokens/60s", 0),  # no debt: the former limit was too high
        ({"limits": Limits("500 tokens/10s")}, "tokens/10s", 0),
        ({"limits": Limits("5000 tokens/10m")}, "tokens/600s", 4_400),
    ],
)
def test_what_was_used_stays_used(new: Any, label: str, expected: float, store: str) -> None:
    """In a bucket of the same period and of another one, here and in a file."""
    for where in (None, store):
        clock = VirtualClock()
        limiter = RateLimiter(tpm=1_000, clock=clock, arrival_slack=0, store=where)
        limiter.acquire_sync(tokens=600).close()

        limiter.replace(**new)

        assert level(limiter, label) == pytest.approx(expected, abs=1)
        assert limiter.limits() == new.get("limits", Limits(tpm=new.get("tpm")))


def test_limits_that_were_learned_still_count() -> None:
    """A lower limit that the server shows holds, also where none is given any more."""
    clock = VirtualClock()
    limiter = RateLimiter(clock=clock)
    lease = limiter.acquire_sync(tokens=10)
    headers = {
        "x-ratelimit-limit-tokens": "30000",
        "x-ratelimit-remaining-tokens": "29990",
        "x-ratelimit-reset-tokens": "20ms",
    }
    lease.observe(headers)
    assert limiter.limits() == Limits(tpm=30_000)

    limiter.replace(tpm=10_000)
    assert limiter.limits() == Limits(tpm=10_000)
    limiter.replace(tpm=50_000)
    assert limiter.limits() == Limits(tpm=30_000)
    limiter.replace()
    assert limiter.limits() == Limits(tpm=30_000)
    lease.close()


def test_a_store_that_is_at_work_holds_them_as_soon_as_it_is_free() -> None:
    """What is replaced meanwhile is neither lost nor mixed with the former limits."""
    limiter = RateLimiter(tpm=10_000)
    lease = limiter.acquire_sync(tokens=10)
    lease.observe({"x-ratelimit-limit-tokens": "5000", "x-ratelimit-remaining-tokens": "4990"})
    assert limiter.limits() == Limits(tpm=5_000)
    family = limiter._engine.only
    assert family is not None
    store = family.admission.store
    with store._lock:
        limiter.replace(tpm=3_000)
        limiter.replace(tpm=4_000)
    lease.settle(tokens=10)

    assert limiter.limits() == store.given == Limits(tpm=4_000)


def test_a_limiter_by_model_changes_what_is_named() -> None:
    """The others keep their limits, and what was never given is refused in words."""
    limiter = RateLimiter(limits={"gpt-4o": Limits(rpm=5), "*": Limits(rpm=9)})

    limiter.replace(limits={"gpt-4o": Limits(rpm=7)})

    assert limiter.limits("gpt-4o") == Limits(rpm=7)
    assert limiter.limits("other") == Limits(rpm=9)
    for options, said in (
        ({"rpm": 3}, "names those that change: any of gpt-4o, "),
        ({"limits": {"gpt-4o": Limits(rpm=1), "gpt-5": Limits(rpm=1)}}, "not those of gpt-5"),
        ({"limit": Limits(rpm=3)}, "did you mean limits="),
        ({"rpm": 0}, "above 0"),
    ):
        with pytest.raises(InvalidArgument, match=said):
            limiter.replace(**options)
    assert limiter.limits("gpt-4o") == Limits(rpm=7)


def test_the_share_that_may_go_at_once_stays() -> None:
    """``burst_share=`` is of every limit that the limiter is given."""
    limiter = RateLimiter(rpm=60, burst_share=0.1)
    limiter.replace(rpm=120)

    assert limiter.limits() == Limits(Limit("requests", 120, 60, burst=12))


def test_it_is_an_event_and_explained_as_given() -> None:
    """Whoever looks sees that the user has changed the limits."""
    limiter, seen = RateLimiter(rpm=60), list[LimitsChanged]()
    with limiter.subscribe(seen.append, LimitsChanged):
        limiter.replace(rpm=120)
        flush()

    assert [(one.source, one.after) for one in seen] == [("given", Limits(rpm=120))]
    assert "120 requests/min (given;" in str(limiter.explain())


def test_concurrency_is_replaced_too() -> None:
    """Who waits for the end of a call goes when more may be in flight."""
    clock = VirtualClock()
    limiter = RateLimiter(concurrency=1, clock=clock)

    async def main() -> None:
        first = await limiter.acquire()
        async with anyio.create_task_group() as group:
            group.start_soon(limiter.acquire)
            await anyio.sleep(1)
            assert limiter.statistics().waiting == 1
            limiter.replace(concurrency=2)
            await anyio.sleep(1)
            assert limiter.statistics().waiting == 0
        first.close()

    clock.run(main)


STEP = st.one_of(
    st.tuples(st.just("call"), st.integers(1, 120), st.sampled_from([None, None, 9.0])),
    st.tuples(st.just("call"), st.integers(1, 120), st.just(None)),
    st.tuples(
        st.just("replace"),
        st.sampled_from([20, 60, 120, 600]),
        st.sampled_from([1.0, 10.0, 60.0]),
    ),
)


@settings(max_examples=80)
@given(
    script=st.lists(st.tuples(st.integers(0, 40), STEP), max_size=25),
    in_a_file=st.booleans(),
    shares=st.sampled_from([None, {"a": 2}]),
)
def test_never_more_than_the_larger_bound_and_nobody_is_lost(
    loop_clock: Any, script: list[Any], in_a_file: bool, shares: Any
) -> None:
    """In a window over a change no more goes than the larger burst and rate let go.

    Every call goes, or is refused in words because it is above the limit of then.
    """
    clock = loop_clock()
    with tempfile.TemporaryDirectory() as folder:
        limiter = RateLimiter(
            limits=Limits(Limit("tokens", 60, 10)),
            clock=clock,
            store=f"file:{folder}" if in_a_file else None,
            shares=shares,
        )
        held = [(0.0, 60, 10.0)]
        went: list[tuple[float, int]] = []
        ended: list[int] = []

        async def one(number: int, tokens: int, timeout: float | None) -> None:
            try:
                tenant = "ab"[number % 2] if shares else None
                lease = await limiter.acquire(tokens=tokens, timeout=timeout, tenant=tenant)
            except RequestTooLarge as error:
                assert tokens > error.limit  # noqa: PT017  # not each call is refused
            except WaitTimeout:
                assert timeout is not None  # likewise
            else:
                went.append((clock.now(), tokens))
                lease.settle(tokens=tokens)
            ended.append(number)

        async def main() -> None:
            async with anyio.create_task_group() as group:
                for number, (pause, step) in enumerate(script):
                    await anyio.sleep(pause / 10)
                    if step[0] == "call":
                        group.start_soon(one, number, *step[1:])
                    else:
                        held.append((clock.now(), *step[1:]))
                        limiter.replace(limits=Limits(Limit("tokens", *step[1:])))

        clock.run(main)
    assert len(ended) == sum(step[0] == "call" for _, step in script)
    for first, last in itertools.combinations_with_replacement(range(len(went)), 2):
        begin, end = went[first][0], went[last][0]
        total = sum(tokens for _, tokens in went[first : last + 1])
        ends = [moment for moment, _, _ in held[1:]] + [float("inf")]
        pairs = zip(held, ends, strict=True)
        of_window = [one for one, until in pairs if one[0] <= end and until >= begin]
        if len(of_window) > 2:  # a debt that one change forgives, the next one does not know
            continue
        burst = max(amount for _, amount, _ in of_window)
        rate = max(amount / per for _, amount, per in of_window)
        assert total <= burst + rate * (end - begin) + 1e-3


def test_another_process_sees_it_with_its_next_look(store: str) -> None:
    """One quota has one set of limits: the newest that was given."""
    clock = VirtualClock()
    one = RateLimiter(tpm=1_000, clock=clock, store=store)
    other = RateLimiter(tpm=1_000, clock=clock, store=store)

    one.replace(tpm=600)

    assert level(other, "tokens/60s") == pytest.approx(600)
    assert other.limits() == Limits(tpm=600)
    with pytest.raises(RequestTooLarge):
        other.acquire_sync(tokens=700)


def test_processes_of_a_server_see_it(redis_server: RedisServer) -> None:
    """A call that waits in another process goes by the new limits."""
    url = f"{redis_server.url}?quota=replaced"
    one, other = RateLimiter(rpm=1, store=url), RateLimiter(rpm=1, store=url)
    one.acquire_sync().close()
    went = threading.Event()

    def waits() -> None:
        other.acquire_sync().close()
        went.set()

    thread = threading.Thread(target=waits, daemon=True)
    thread.start()
    time.sleep(0.1)  # it is on its way to the server, which has a clock of its own
    assert not went.is_set()

    one.replace(rpm=6_000)

    assert went.wait(10)
    assert other.limits() == Limits(rpm=6_000)


def test_what_is_replaced_while_a_file_is_lost_is_known_to_all_later(store: str) -> None:
    """The file is not asked for the former limits when it is back."""
    clock = VirtualClock()
    one = RateLimiter(tpm=1_000, clock=clock, store=store)
    family = one._engine.only
    assert family is not None
    held: Any = family.admission.store
    with pytest.warns(RuntimeWarning, match="lost"):
        held._lose(OSError("it is full"), clock.now())
    one.replace(tpm=600)
    clock.jump(5)

    assert held.take(Payment({"tokens": 1}), clock.now()) is None

    assert one.limits() == Limits(tpm=600)
    other = RateLimiter(store=store, clock=clock)
    assert other.limits() == Limits(tpm=600)
