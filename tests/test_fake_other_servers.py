"""Servers other than OpenAI's: weights of tokens, Qwen, queues, hidden limits, plain
windows and tenants. Time is the loop's, turned by hand or virtual.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import openai
import pytest

from ratelimit.errors import InvalidArgument
from ratelimit.testing import FakeOpenAI, Fault
from ratelimit.testing.clocks import run_virtual
from tests.test_fake_variants import World, live

LONG: Any = [{"role": "user", "content": "one and the same prompt, again and again " * 400}]


def sdk(server: FakeOpenAI) -> openai.AsyncOpenAI:
    """The real client, without retries, on the server in process."""
    http = httpx2.AsyncClient(transport=server.transport())
    return openai.AsyncOpenAI(
        base_url="http://fake/v1", api_key="x", max_retries=0, http_client=http
    )


def test_n_charges_nothing_for_what_the_cache_has() -> None:
    """Of five equal prompts only the first and the rests of the others are counted."""
    server = FakeOpenAI("I+N", tpm=100_000, latency=0)

    async def main() -> None:
        client = sdk(server)
        for _ in range(5):
            await client.chat.completions.create(model="gpt-4o", messages=LONG, max_tokens=10)

    run_virtual(main)

    first, *later = server.ledger.admitted
    assert all(entry.usage is not None for entry in later)
    cached = [entry.usage.cached_tokens if entry.usage else 0 for entry in later]
    assert min(cached) > 2_000
    assert [entry.charge for entry in later] == [first.charge - read for read in cached]


@pytest.mark.parametrize(("base", "left"), [("P", 9_200), ("I", 9_200), ("C", 9_201)])
def test_cache_reads_come_back_at_the_end(base: str, left: int) -> None:
    """With "refunded" a call is charged in full and given back the cached tokens."""

    async def life(world: World) -> None:
        await world.ask(1_000, headers=known(prompt_tokens=1_000, cached_tokens=200))

        assert world.server.ledger[0].charge == 1_000 + (15 if base == "C" else 0)
        assert round(world.left("/tpm")) == left

    live(FakeOpenAI(base, tpm=10_000, latency=0, cache_reads="refunded"), life)


def known(**figures: int) -> dict[str, str]:
    """The header that sets the usage of a call."""
    return {"x-fake-usage": str({"completion_tokens": 0, **figures}).replace("'", '"')}


def test_o_weighs_the_answer_five_times() -> None:
    """The bound is held at admission; in the end each token of the answer is five."""

    async def life(world: World) -> None:
        await world.ask(100, headers=known(prompt_tokens=100, completion_tokens=50))

        assert world.server.ledger[0].charge == 100 - 1 + 16
        assert round(world.left("/tpm")) == 10_000 - 100 - 5 * 50

    live(FakeOpenAI("O", tpm=10_000, latency=0), life)


def test_bedrock_says_nothing_but_too_many_tokens() -> None:
    """Its style has no header at all, and the SDK raises its RateLimitError."""
    server = FakeOpenAI("O", tpm=200, rpm=None, latency=0, header_style="bedrock")

    async def main() -> openai.RateLimitError:
        client = sdk(server)
        await client.embeddings.create(model="e", input="x" * 600)
        with pytest.raises(openai.RateLimitError, match="Too many tokens") as refused:
            await client.embeddings.create(model="e", input="x" * 600)

        return refused.value

    names = set(run_virtual(main).response.headers)

    assert not [name for name in names if "limit" in name or "retry" in name]


def test_q_enforces_by_the_second_and_calls_a_tokens_limit_a_quota() -> None:
    """60,000 a minute are 1,000 at once; a larger call passes a full bucket, and the
    codes are Qwen's.
    """
    server = FakeOpenAI("Q", rpm=600, tpm=60_000, latency=0, output=1, output_spread=0)

    async def main() -> list[object]:
        client = sdk(server)
        codes: list[object] = []

        async def ask(size: int) -> None:
            try:
                answer = await client.embeddings.with_raw_response.create(
                    model="e", input="x" * 4 * size
                )
                codes.append(None)
                assert not [name for name in answer.headers if "ratelimit" in name]
            except openai.RateLimitError as error:
                codes.append(error.code)

        for size in (3_000, 10):
            await ask(size)

        await asyncio.sleep(4)
        for _ in range(11):
            await ask(10)

        await ask(70_000)
        return codes

    codes = run_virtual(main)

    assert codes[:2] == [None, "insufficient_quota"]
    assert codes[2:-1] == [None] * 10 + ["limit_requests"]
    assert codes[-1] == "insufficient_quota"


def test_q_guards_against_a_ramp() -> None:
    """More growth than its guard allows is refused as `limit_burst_rate`."""

    async def life(world: World) -> None:
        answers = [await world.ask(50, usage=50) for _ in range(3)]

        assert answers[1].status_code == 200
        assert answers[2].json()["error"]["code"] == "limit_burst_rate"

    live(FakeOpenAI("Q", rpm=None, tpm=600_000, latency=0, ramp_from=100), life)


def test_r_queues_and_then_refuses_without_a_word() -> None:
    """Calls wait in the order of their arrival; what waits too long gets a bare 429."""
    server = FakeOpenAI("R", rpm=60, tpm=None, latency=0, level=0.0, queue=3.5)

    async def main() -> tuple[list[tuple[float, int]], set[str]]:
        client, loop = sdk(server), asyncio.get_running_loop()
        ended: list[tuple[float, int]] = []
        names: set[str] = set()

        async def ask(number: int) -> None:
            await asyncio.sleep(number / 1000)
            try:
                answer = await client.embeddings.with_raw_response.create(model="e", input="a")
                ended.append((round(loop.time(), 1), number))
            except openai.RateLimitError as error:
                ended.append((round(loop.time(), 1), -number))
                names.update(error.response.headers)
            else:
                names.update(name for name in answer.headers if "limit" in name)

        await asyncio.gather(*(ask(number) for number in range(1, 6)))
        return ended, names

    ended, names = run_virtual(main)

    assert ended == [(1.0, 1), (2.0, 2), (3.0, 3), (3.5, -4), (3.5, -5)]
    assert names == {"date", "content-type", "content-length"}


def test_r_can_wait_for_a_slot() -> None:
    """With a cap on calls in flight the next one goes when one has ended."""
    server = FakeOpenAI("R", rpm=None, tpm=None, latency=2.0, max_in_flight=1, queue=3.0)

    async def main() -> list[object]:
        client = sdk(server)
        asked = (client.embeddings.create(model="e", input="a") for _ in range(3))
        return await asyncio.gather(*asked, return_exceptions=True)

    outcomes = run_virtual(main)

    assert [isinstance(each, openai.RateLimitError) for each in outcomes] == [False, False, True]
    assert [entry.time for entry in server.ledger.admitted] == [0.0, 2.0]


def test_s_hides_the_minute_behind_the_day() -> None:
    """The headers show the daily limit; the minute's is enforced."""

    async def life(world: World) -> None:
        answers = [await world.ask() for _ in range(4)]

        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert answers[0].headers["x-ratelimit-limit-requests"] == "10000"
        assert "(RPM): Limit 3" in answers[3].text

    live(FakeOpenAI("S", rpm=3, latency=0), life)


def test_any_limit_can_be_hidden() -> None:
    """Tokens that no header shows are enforced all the same."""

    async def life(world: World) -> None:
        answers = [await world.ask(600) for _ in range(2)]

        assert [answer.status_code for answer in answers] == [200, 429]
        assert not [name for name in answers[0].headers if "tokens" in name]

    live(FakeOpenAI(tpm=1_000, latency=0, hidden=["tpm"]), life)


@pytest.mark.parametrize(
    ("options", "named"),
    [({}, "4"), ({"retry_after": 2}, "2"), ({"retry_after": None}, None)],
)
@pytest.mark.parametrize("variant", ["clock", "fixed"])
def test_plain_windows_say_nothing_but_a_wait(
    variant: str, options: dict[str, Any], named: str | None
) -> None:
    """Ten seconds by the clock, or from the first call on; no header of a limit."""

    async def life(world: World) -> None:
        world.now = 26.5
        answers = [await world.ask(20_000) for _ in range(3)]
        answers.append(await world.ask())
        end = 30.0 if variant == "clock" else 36.5
        for world.now in (end - 0.1, end):
            answers.append(await world.ask())

        assert [answer.status_code for answer in answers] == [200] * 3 + [429, 429, 200]
        wait = named if variant == "clock" or named != "4" else "10"
        assert answers[3].headers.get("retry-after") == wait
        assert not [name for answer in answers for name in answer.headers if "ratelimit" in name]

    live(FakeOpenAI(variant, rpm=18, window=10, latency=0, **options), life)


def test_a_minute_is_the_window_where_none_is_given() -> None:
    """`rpm` is counted by the clock's minute."""

    async def life(world: World) -> None:
        answers = []
        for world.now in (50.0, 59.0, 59.9, 60.0):
            answers.append((await world.ask()).status_code)

        assert answers == [200, 200, 429, 200]

    live(FakeOpenAI("clock", rpm=2, latency=0), life)


@pytest.mark.parametrize(
    ("tenant", "levels"),
    [("steady", [306.0, 309.0, 480.0]), ("gulps", [306.0, 311.0, 480.0])],
)
def test_a_tenant_takes_a_fixed_share(tenant: Any, levels: list[float]) -> None:
    """40 % of the refill is missing at every moment, or a second's share at once."""

    async def life(world: World) -> None:
        await world.ask(4)
        found = []
        for world.now in (1.0, 1.5, 30.0):
            found.append(world.left("/rpm") + 1)

        assert found == pytest.approx(levels)

    server = FakeOpenAI(
        "F+I", rpm=600, tpm=1_000_000, latency=0, neighbour=0.4, tenant=tenant, level=0.5
    )
    live(server, life)


def test_a_tenant_can_change_with_the_minute() -> None:
    """Its share is drawn anew each minute, and the same for the same seed."""

    def shares(seed: int) -> list[int]:
        counts = [0] * 6

        async def life(world: World) -> None:
            await world.ask(4)
            for world.now in range(1, 360):
                while (await world.ask(10)).status_code == 200:
                    counts[int(world.now // 60)] += 1

        live(
            FakeOpenAI("F+I", rpm=600, tpm=None, latency=0, tenant="minutes", level=0.0, seed=seed),
            life,
        )
        return counts

    counts = shares(1)

    assert len(set(counts[1:])) >= 4
    assert all(0.38 * 600 <= count <= 605 for count in counts[1:])
    assert shares(1) == counts


def test_random_refusals_of_a_share() -> None:
    """A tenth of all calls gets a bare 429, whatever is left."""
    fault = Fault("429", probability=0.1)

    async def life(world: World) -> None:
        answers = [(await world.ask()).status_code for _ in range(1_000)]

        assert 70 <= answers.count(429) <= 130

    live(FakeOpenAI("clock", rpm=60_000, latency=0, faults=[fault]), life)


@pytest.mark.parametrize(
    "arguments",
    [
        {"tenant": "greedy"},
        {"hidden": "rpm"},
        {"hidden": ["rpx"]},
        {"cache_reads": "dear"},
        {"output_weight": 0.5},
        {"queue": -1},
        {"window": 0},
        {"retry_after": "soon"},
        {"header_style": "apache"},
        {"variant": "O+P"},
        {"variant": "Q+D"},
    ],
)
def test_what_cannot_be_is_refused_in_words(arguments: dict[str, Any]) -> None:
    """Each value that cannot be used is named in the error."""
    with pytest.raises(InvalidArgument, match=str(next(iter(arguments)))):
        FakeOpenAI(**arguments)
