"""A pool's choice of a member: who is asked first, who waits, and who is left out."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI, OpenAI

from ratelimit import (
    InvalidArgument,
    Member,
    Pool,
    RateLimiter,
    RequestTooLarge,
    WaitTimeout,
    current_lease,
    events,
)
from ratelimit.testing import FakeOpenAI, VirtualClock
from tests.pools import HELLO, Site, ask, fake_client, pool_of, sites


async def many(client: AsyncOpenAI, calls: int, **body: Any) -> Counter[str]:
    """Ask at once; return how many each member has answered."""
    return Counter(await asyncio.gather(*(ask(client, **body) for _ in range(calls))))


def test_equal_members_take_turns_and_their_limits_add_up() -> None:
    """Three members of 60 a minute let 180 through at once, and no 429 comes."""
    clock = VirtualClock()
    places = sites(clock, "a", "b", "c")
    client = pool_of(*(place.member() for place in places)).client()

    async def main() -> None:
        await ask(client)  # the first calls go alone, and learn the level
        found = await many(client, 170)
        assert max(found.values()) - min(found.values()) <= 10
        assert clock.now() < 5

    clock.run(main)
    assert sum(place.refused for place in places) == 0


def test_a_call_goes_to_a_free_member_though_another_has_a_queue() -> None:
    """Calls that wait at one member alone hold up none that can go elsewhere."""
    clock = VirtualClock()
    first, second = Site("first", clock, rpm=2), Site("second", clock)
    pool = pool_of(first.member(), second.member(models=["gpt-4o"]))

    async def main() -> None:
        client = pool.client()
        only_first = [asyncio.ensure_future(ask(client, model="gpt-4o-mini")) for _ in range(6)]
        await asyncio.sleep(5)
        assert first.limiter.statistics().waiting == 1  # the head; the rest wait in the pool
        assert pool.statistics().waiting == 4
        began = clock.now()
        assert await ask(client) == "second"
        assert clock.now() - began < 1
        assert await asyncio.gather(*only_first) == ["first"] * 6

    clock.run(main)


def test_a_preferred_member_is_taken_first_and_waited_for_so_long() -> None:
    """The paid member gets nothing while the first is free, then after its seconds."""
    clock = VirtualClock()
    cheap, paid = Site("cheap", clock, rpm=10), Site("paid", clock)
    client = pool_of(cheap.member(), paid.member(prefer=1, after=3)).client()

    async def main() -> None:
        await ask(client)
        assert await many(client, 9) == {"cheap": 9}
        began = clock.now()
        assert await ask(client) == "paid"
        assert clock.now() - began == pytest.approx(3.5, abs=0.1)

    clock.run(main)


def test_preference_without_seconds_never_waits() -> None:
    """A member of a higher number takes at once what the preferred one cannot."""
    clock = VirtualClock()
    cheap, paid = Site("cheap", clock, rpm=10), Site("paid", clock)
    client = pool_of(paid.member(prefer=1), cheap.member()).client()

    async def main() -> None:
        await ask(client)
        assert await many(client, 12) == {"cheap": 9, "paid": 3}

    clock.run(main)


def test_weights_share_out_calls() -> None:
    """A member of weight 3 gets three calls for each of the other's."""
    clock = VirtualClock()
    big, small = sites(clock, "big", "small")
    client = pool_of(big.member(weight=3), small.member()).client()

    async def main() -> None:
        found = Counter([await ask(client) for _ in range(20)])
        assert found == {"big": 15, "small": 5}

    clock.run(main)


def test_a_prompt_stays_with_the_member_that_has_it_cached() -> None:
    """Calls with a long common prefix go to one member, and away when it is full."""
    clock = VirtualClock()
    places = sites(clock, "a", "b", rpm=20)
    client = pool_of(*(place.member() for place in places)).client()
    prefix = "You are a careful clerk. " * 250

    async def main() -> None:
        found = [await ask(client, prefix + str(number)) for number in range(10)]
        assert len(set(found)) == 1
        more = Counter(await asyncio.gather(*(ask(client, prefix + str(n)) for n in range(20))))
        assert len(more) == 2  # its home is full: the rest does not wait for long
        assert clock.now() < 9

    clock.run(main)


@pytest.mark.parametrize("field", ["prompt_cache_key", "user"])
def test_a_key_for_the_cache_decides_as_well(field: str) -> None:
    """Short prompts with one key go to one member, others take turns."""
    clock = VirtualClock()
    client = pool_of(*(place.member() for place in sites(clock, "a", "b"))).client()

    async def main() -> None:
        keyed = [await ask(client, **{field: "alice"}) for _ in range(6)]
        free = [await ask(client) for _ in range(6)]
        assert len(set(keyed)) == 1
        assert set(free) == {"a", "b"}

    clock.run(main)


def test_models_have_the_names_that_each_member_gives_them() -> None:
    """The body names the member's own model, the answer's header tells it."""
    clock = VirtualClock()
    here, there = Site("here", clock), Site("there", clock)
    pool = pool_of(
        here.member(models=["gpt-4o"]), there.member(models={"gpt-4o": "deepseek-chat"}, after=1)
    )

    async def main() -> None:
        client = pool.client()
        here.server.inject("500", count=1)
        raw = await client.chat.completions.with_raw_response.create(model="gpt-4o", messages=HELLO)
        assert raw.headers["x-ratelimit-member"] == "there"
        assert raw.headers["x-ratelimit-model"] == "deepseek-chat"
        assert raw.parse().model == "deepseek-chat"
        with pytest.raises(InvalidArgument, match=r"no member of the pool serves .*gpt-5"):
            await client.chat.completions.create(model="gpt-5", messages=HELLO)

    clock.run(main)


def test_a_hook_drops_what_a_server_does_not_know() -> None:
    """request= makes the body of one member; the call's own body stays."""
    clock = VirtualClock()
    place = Site("there", clock)
    seen: list[dict[str, Any]] = []

    def without_seed(body: dict[str, Any]) -> dict[str, Any]:
        seen.append(dict(body))
        body.pop("seed")
        return body

    client = pool_of(place.member(models={"gpt-4o": "other"}, request=without_seed)).client()

    async def main() -> None:
        await ask(client, seed=7)

    clock.run(main)
    assert seen[0]["model"] == "other"
    assert seen[0]["seed"] == 7
    assert [entry.model for entry in place.server.ledger] == ["other"]


def test_an_azure_deployment_gets_its_path_key_and_version() -> None:
    """The member's own client writes the request, as it always does."""
    clock = VirtualClock()
    sent: list[httpx2.Request] = []
    server = FakeOpenAI(
        latency=0.1, keys={"azure-key": "org"}, deployments={"my-deployment": "gpt-4o"}
    )
    transport = server.transport()

    async def note(request: httpx2.Request) -> None:
        sent.append(request)

    http = httpx2.AsyncClient(transport=transport, event_hooks={"request": [note]})
    azure = AsyncAzureOpenAI(
        api_key="azure-key",
        azure_endpoint="https://res.openai.azure.com",
        api_version="2024-10-21",
        http_client=http,
    )
    member = Member(
        azure, limiter=RateLimiter(rpm=60, clock=clock), models={"gpt-4o": "my-deployment"}
    )
    client = pool_of(member).client()

    async def main() -> None:
        assert await ask(client) == "res.openai.azure.com"

    clock.run(main)
    request = sent[0]
    assert str(request.url) == (
        "https://res.openai.azure.com/openai/deployments/my-deployment/chat/completions"
        "?api-version=2024-10-21"
    )
    assert request.headers["api-key"] == "azure-key"
    assert "authorization" not in request.headers
    assert [entry.model for entry in server.ledger] == ["gpt-4o"]


def test_a_deployment_that_is_not_there_parks_that_model_alone() -> None:
    """The call goes on, and other models of the member are asked as before."""
    clock = VirtualClock()
    azure = Site("azure", clock, server_options={"deployments": {"mini": "gpt-4o-mini"}})
    other = Site("other", clock)
    pool = pool_of(
        azure.member(models={"gpt-4o": "gone", "gpt-4o-mini": "mini"}), other.member(prefer=1)
    )

    async def main() -> None:
        client = pool.client()
        assert [await ask(client) for _ in range(3)] == ["other"] * 3
        assert await ask(client, model="gpt-4o-mini") == "azure"

    clock.run(main)
    assert pool.statistics().members["azure"].calls == 2
    assert "does not serve the model gone" in str(pool.explain())


def test_a_hook_that_fails_is_named() -> None:
    """What request= raises comes out of the call in words, and is no failed member."""
    place = Site("h", clock := VirtualClock())
    pool = pool_of(place.member(request=lambda body: body["nothing"]))

    async def main() -> None:
        with pytest.raises(InvalidArgument, match="'h' raised KeyError"):
            await ask(pool.client())

    clock.run(main)
    assert not pool.statistics().members["h"].parked_because


def test_members_of_one_quota_share_a_limiter() -> None:
    """Two keys of one organisation are one bucket, whichever is used."""
    clock = VirtualClock()
    place = Site("org", clock, rpm=10)
    one = place.member(quota="org")
    two = Member(fake_client(place.server, "org", "second"), name="two", quota="org")
    pool = pool_of(one, two)
    assert two.limiter is place.limiter

    async def main() -> None:
        found = await many(pool.client(), 30)
        assert set(found) == {"org", "two"}

    clock.run(main)
    assert place.refused == 0


@pytest.mark.logs(r"'a' and 'b' are answered by one account with the same limits")
def test_members_that_drain_one_bucket_are_said_to_once() -> None:
    """Two limiters over one organisation are noticed by its answers."""
    clock = VirtualClock()
    place = Site("a", clock, rpm=100)
    other = Member(
        fake_client(place.server, "a", "second"),
        limiter=RateLimiter(rpm=100, clock=clock),
        name="b",
    )
    client = pool_of(place.member(), other).client()

    async def main() -> None:
        for _ in range(6):
            await ask(client)

    clock.run(main)


def test_a_timeout_is_predicted_over_all_members() -> None:
    """A call that no member can take in time is refused at once, and takes nothing."""
    clock = VirtualClock()
    places = sites(clock, "a", "b", rpm=10)
    pool = pool_of(*(place.member() for place in places))
    client = pool.client(timeout=2)

    async def main() -> None:
        waiting = [asyncio.ensure_future(ask(pool.client())) for _ in range(40)]
        await asyncio.sleep(3)
        began = clock.now()
        with pytest.raises(WaitTimeout, match="the timeout is 2"):
            await ask(client)
        assert clock.now() == began
        await asyncio.gather(*waiting)

    clock.run(main)


def test_a_call_that_one_member_can_never_take_goes_to_another() -> None:
    """RequestTooLarge is raised where no member has the room, and only there."""
    clock = VirtualClock()
    small, big = Site("small", clock, tpm=200), Site("big", clock, tpm=100_000)
    pool = pool_of(small.member(), big.member(prefer=1, after=60))
    alone = pool_of(small.member())

    async def main() -> None:
        assert await ask(pool.client(), "word " * 400) == "big"
        assert clock.now() < 2
        with pytest.raises(RequestTooLarge):
            await ask(alone.client(), "word " * 400)

    clock.run(main)


def test_reserve_and_the_decorator_name_the_member() -> None:
    """A call by hand is handed a client and the body for it; the pool's own uses it."""
    clock = VirtualClock()
    places = sites(clock, "a", "b")
    pool = pool_of(places[0].member(models={"gpt-4o": "here"}), places[1].member())
    client = pool.client()

    @pool
    async def asked(**request: Any) -> Any:
        lease = current_lease()
        assert lease is not None
        return await client.chat.completions.create(**request)

    async def main() -> None:
        async with pool.reserve(model="gpt-4o", messages=HELLO) as lease:
            assert lease.member.name == "a"
            assert lease.request["model"] == "here"
            answer = await lease.member.client.chat.completions.create(**lease.request)
            lease.settle(answer)
        await asked(model="gpt-4o", messages=HELLO)

    clock.run(main)
    admitted = [
        family.admitted
        for place in places
        for family in place.limiter.statistics().families.values()
    ]
    assert admitted == [1, 1]  # the decorator's admission is the call's: none is paid twice
    assert pool.statistics().in_flight == 0
    assert [place.answered for place in places] == [1, 1]


def test_a_decorated_call_that_is_moved_uses_its_admission_once() -> None:
    """The first attempt has the decorator's lease, the next one waits for its own."""
    clock = VirtualClock()
    places = sites(clock, "a", "b")
    pool = pool_of(*(place.member() for place in places))
    client = pool.client()
    places[0].server.inject("500", count=1)

    @pool
    async def asked(**request: Any) -> Any:
        return await client.chat.completions.create(**request)

    async def main() -> None:
        await asked(model="gpt-4o", messages=HELLO)

    clock.run(main)
    assert pool.statistics().moved == 1
    assert pool.statistics().in_flight == 0
    assert [place.limiter.statistics().families["*"].admitted for place in places] == [1, 1]


def test_each_attempt_is_reported_with_its_member() -> None:
    """Telemetry is handed the member, the model asked for, and the one that served."""
    clock = VirtualClock()
    places = sites(clock, "a", "b")
    pool = pool_of(places[0].member(models={"gpt-4o": "own"}), places[1].member(prefer=1))
    seen: list[tuple[str, str, str, bool]] = []

    def note(event: events.Routed) -> None:
        seen.append((event.member, event.asked, event.model, event.moves))

    kept = [place.limiter.subscribe(note, events.Routed) for place in places]
    places[0].server.inject("500", count=1)

    async def main() -> None:
        await ask(pool.client())

    clock.run(main)
    events.flush()
    assert sorted(seen) == [("a", "gpt-4o", "own", True), ("b", "gpt-4o", "gpt-4o", False)]
    for subscription in kept:
        subscription.close()


def test_sync_clients_have_a_sync_pool() -> None:
    """Threads use `OpenAI`, and their members' clients are sync."""
    server = FakeOpenAI(latency=0.01)
    with server.serve() as base:
        members = [
            Member(OpenAI(api_key=name, base_url=base), limiter=RateLimiter(rpm=600), name=name)
            for name in ("a", "b")
        ]
        members[1].limiter = members[0].limiter
        client = Pool(members).client()
        assert isinstance(client, OpenAI)
        raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=HELLO)
        assert raw.headers["x-ratelimit-member"] == "a"
        stream = client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
        assert list(stream)


def limiter() -> RateLimiter:
    """Make one that never matters."""
    return RateLimiter(rpm=60)


AnyPool: Any = Pool
AnyMember: Any = Member
"""The two without their types: what they refuse is no type either."""


def client_of(kind: type = AsyncOpenAI) -> Any:
    """Make a client that sends nothing."""
    return kind(api_key="none", base_url="http://x/v1")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: AnyPool([]), "at least one member"),
        (lambda: AnyPool(AnyMember(client_of(), limiter=limiter())), "takes a list of members"),
        (lambda: AnyPool([client_of()]), "takes Members"),
        (lambda: AnyPool([AnyMember(client_of())]), "'x' has no limiter"),
        (
            lambda: AnyPool([AnyMember(client_of(), limiter=limiter()) for _ in range(2)]),
            "two members are called 'x'",
        ),
        (
            lambda: AnyPool(
                [
                    AnyMember(client_of(), limiter=limiter(), name="one"),
                    AnyMember(client_of(OpenAI), limiter=limiter(), name="two"),
                ]
            ),
            r"'two' \(OpenAI\) and 'one' \(AsyncOpenAI\) are of two kinds",
        ),
        (
            lambda: AnyPool(
                [
                    AnyMember(client_of(), limiter=limiter(), name="a", quota="q"),
                    AnyMember(client_of(), limiter=limiter(), name="b", quota="q"),
                ]
            ),
            "quota='q' have different limiters",
        ),
        (
            lambda: AnyPool(
                [
                    AnyMember(client_of(), limiter=RateLimiter(clock=VirtualClock()), name="a"),
                    AnyMember(client_of(), limiter=RateLimiter(clock=VirtualClock()), name="b"),
                ]
            ),
            "different clocks",
        ),
        (lambda: AnyPool([AnyMember(client_of(), limiter=limiter())], moves=-1), "moves="),
        (
            lambda: AnyPool([AnyMember(client_of(), limiter=limiter())], affinty=1),
            "did you mean affin",
        ),
        (lambda: AnyMember("sk-not-a-client", limiter=limiter()), "not str"),
        (lambda: AnyMember(client_of(), limiter="60 rpm"), "is a RateLimiter, not str"),
        (lambda: AnyMember(client_of(), limiter=limiter(), models={}), "at least one model"),
        (lambda: AnyMember(client_of(), limiter=limiter(), models="gpt-4o"), "mapping such as"),
        (lambda: AnyMember(client_of(), limiter=limiter(), weight=0), "weight= is above 0"),
        (lambda: AnyMember(client_of(), limiter=limiter(), after=-1), "after="),
        (lambda: AnyMember(client_of(), limiter=limiter(), prefer="low"), "prefer="),
        (lambda: AnyMember(client_of(), limiter=limiter(), name="a\nb"), "name="),
        (lambda: AnyMember(client_of(), limiter=limiter(), request=3), "request="),
        (lambda: AnyMember(client_of(), limiter=limiter(), prefr=3), "did you mean prefer="),
    ],
)
def test_what_cannot_be_used_is_answered_in_a_sentence(make: Any, sentence: str) -> None:
    """Each mistake raises InvalidArgument, says what would do and shows no key."""
    with pytest.raises(InvalidArgument, match=sentence) as found:
        make()
    assert "sk-" not in str(found.value)


def test_a_wait_timeout_is_no_api_error_to_retry() -> None:
    """The SDK raises the limiter's error at once, and it is one of its kind."""
    clock = VirtualClock()
    place = Site("a", clock, rpm=1)
    pool = pool_of(place.member())

    async def main() -> None:
        await ask(pool.client())
        with pytest.raises(openai.OpenAIError) as found:
            await ask(pool.client(timeout=1))
        assert isinstance(found.value, WaitTimeout)

    clock.run(main)
