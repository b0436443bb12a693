"""What sets the variants apart over time, with the loop's clock turned by hand: the
enforcement itself never waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import httpx2
import pytest

from ratelimit.testing import FakeOpenAI


class World:
    """One server in process and the clock it lives by; `now` in seconds."""

    def __init__(self, server: FakeOpenAI) -> None:
        self.now = 0.0
        self.server = server
        self._http = httpx2.AsyncClient(transport=server.transport(), base_url="http://fake/v1")

    async def ask(
        self,
        prompt: int = 4,
        *,
        usage: int | None = None,
        model: str = "m",
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """A chat call that is charged `prompt` tokens by its bytes; its usage is the
        same where none is given.
        """
        known = {"prompt_tokens": prompt if usage is None else usage, "completion_tokens": 0}
        body = {"model": model, "messages": [{"role": "user", "content": "x" * 4 * (prompt - 2)}]}
        sent = {"x-fake-usage": str(known).replace("'", '"'), **(headers or {})}
        return await self._http.post("/chat/completions", json=body, headers=sent)

    def left(self, name: str) -> float:
        """What a bucket has left, by the end of its name."""
        return next(level for known, level in self.server.levels().items() if known.endswith(name))


def live(server: FakeOpenAI, life: Callable[[World], Awaitable[None]]) -> None:
    """Run `life` in a loop that lives in the world's time."""
    world = World(server)

    async def inside() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio.get_running_loop(), "time", lambda: world.now)
            await life(world)

    asyncio.run(inside())


def test_p_shows_headers_as_recorded() -> None:
    """`reset` is what was used over the rate, cut to milliseconds; both limits drip
    back.
    """

    async def life(world: World) -> None:
        first = await world.ask(100)
        world.now = 0.1
        second = await world.ask(400)

        assert first.headers["x-ratelimit-limit-requests"] == "10000"
        assert first.headers["x-ratelimit-reset-requests"] == "6ms"
        assert first.headers["x-ratelimit-remaining-tokens"] == "29900"
        assert first.headers["x-ratelimit-reset-tokens"] == "200ms"
        assert second.headers["x-ratelimit-remaining-tokens"] == "29550"
        assert second.headers["x-ratelimit-reset-tokens"] == "900ms"

    live(FakeOpenAI(rpm=10_000, latency=0), life)


def test_headers_can_tell_the_state_after_settlement() -> None:
    """With headers_at="settle" an answer's headers already show its usage, as recorded
    for Responses in 2026.
    """

    async def life(world: World) -> None:
        answer = await world.ask(100, usage=5_000)

        assert answer.headers["x-ratelimit-remaining-tokens"] == "25000"

    live(FakeOpenAI(headers_at="settle", latency=0), life)


def test_d_has_the_burst_of_one_second() -> None:
    """60,000 a minute is 1,000 a second: no more at once, and as much again a second
    later.
    """

    async def life(world: World) -> None:
        answers = [await world.ask(400) for _ in range(3)]
        large = await world.ask(1_001)
        world.now = 1.0
        later = await world.ask(1_000)

        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[0].headers["x-ratelimit-limit-tokens"] == "1000"
        assert answers[0].headers["x-ratelimit-reset-tokens"] == "400ms"
        assert "Request too large" in large.text
        assert later.status_code == 200

    live(FakeOpenAI("D", rpm=600, tpm=60_000, latency=0), life)


def test_e_counts_in_windows() -> None:
    """Azure: tokens in a fixed minute, requests in ten seconds, integer resets, its own
    sentence, and all comes back at once.
    """

    async def life(world: World) -> None:
        calls = [await world.ask(4) for _ in range(11)]
        world.now = 10.0
        heavy = await world.ask(900)
        refused = await world.ask(900)
        world.now = 59.9
        still = await world.ask(900)
        world.now = 60.0
        again = await world.ask(900)

        assert [call.status_code for call in calls] == [200] * 10 + [429]
        assert calls[0].headers["x-ratelimit-reset-tokens"] == "60"
        assert calls[0].headers["x-ratelimit-remaining-requests"] == "59"
        assert "have exceeded call rate limit" in calls[10].text
        assert calls[10].headers["retry-after"] == "10"
        assert [answer.status_code for answer in (heavy, refused, still, again)] == [
            200,
            429,
            429,
            200,
        ]
        assert (
            "have exceeded token rate limit of your current OpenAI S0 pricing tier. "
            "Please retry after 50 seconds." in refused.text
        )
        assert refused.headers["retry-after-ms"] == "50000"
        assert still.headers["x-ratelimit-reset-tokens"] == "1"

    live(FakeOpenAI("E", rpm=60, tpm=1_500, latency=0), life)


def test_f_lets_another_tenant_take_a_share() -> None:
    """What the other tenant takes is missing, between nothing and the largest share,
    the same for the same seed; it combines with C as with P.
    """

    def drained(variant: str, seed: int) -> float:
        levels = []

        async def life(world: World) -> None:
            await world.ask(4)
            for world.now in range(1, 61):
                while (await world.ask(500)).status_code == 200:
                    pass
            levels.append(sum(entry.charge for entry in world.server.ledger.admitted))

        live(FakeOpenAI(variant, rpm=None, tpm=60_000, latency=0, seed=seed, level=0.1), life)
        return levels[0]

    alone, shared = drained("P", 1), drained("F+P", 1)

    assert 0.3 * alone < shared < 0.95 * alone
    assert drained("F", 1) == shared
    assert drained("F", 2) != shared
    assert drained("C+F", 1) < drained("C", 1)


def test_g_changes_its_limits_on_the_way() -> None:
    """Limits halve and come back; the headers show it, or hide it."""

    async def life(world: World) -> None:
        shown = []
        for world.now in (0.0, 10.0, 30.0):
            shown.append((await world.ask(100)).headers["x-ratelimit-limit-tokens"])
        full = [await world.ask(4_900), await world.ask(200)]

        assert shown == expected
        assert [answer.status_code for answer in full] == [200, 200]

    expected = ["10000", "5000", "10000"]
    live(FakeOpenAI("G", tpm=10_000, latency=0, limit_changes=[(10, 0.5), (30, 1.0)]), life)

    async def hidden(world: World) -> None:
        await world.ask(100)
        world.now = 10.0
        answer, refused = await world.ask(4_900), await world.ask(200)

        assert answer.headers["x-ratelimit-limit-tokens"] == "10000"
        assert answer.headers["x-ratelimit-remaining-tokens"] == "5100"
        assert refused.status_code == 429

    live(
        FakeOpenAI("G", tpm=10_000, latency=0, limit_changes=[(10, 0.5)], hidden_changes=True),
        hidden,
    )


def test_h_enforces_days_and_minutes_together() -> None:
    """The headers show the daily request limit instead of the minute's, and either of
    the two refuses.
    """

    async def life(world: World) -> None:
        calls = [await world.ask(4) for _ in range(4)]
        world.now = 60.0
        calls += [await world.ask(4) for _ in range(3)]

        assert [call.status_code for call in calls] == [200, 200, 200, 429, 200, 200, 429]
        assert calls[0].headers["x-ratelimit-limit-requests"] == "5"
        assert calls[0].headers["x-ratelimit-reset-requests"] == "4h48m0s"
        assert "(RPM): Limit 3, Used 3" in calls[3].text
        assert "(RPD): Limit 5, Used 5, Requested 1. Please try again in 4h4" in calls[6].text

    live(FakeOpenAI("H", rpm=3, rpd=5, tpd=1_000, latency=0), life)


def test_j_refuses_traffic_that_grows_too_fast() -> None:
    """From `ramp_from` on, a quarter of an hour may be half as busy again as the one
    before, and no more.
    """

    async def life(world: World) -> None:
        calls = []
        for world.now in (0.0, 900.0, 1_800.0):
            calls.append([(await world.ask(100)).status_code for _ in range(30)].count(200))
        refused = await world.ask(100)

        assert calls == [10, 15, 22]
        assert refused.json()["error"]["code"] == "slow_down"
        assert refused.headers["retry-after"] == "60"

    live(FakeOpenAI("J", rpm=None, tpm=1_000_000, latency=0, ramp_from=1_000), life)


def test_k_caps_what_is_in_flight() -> None:
    """The third call at the same time is refused, one after another they all pass."""

    async def main() -> list[int]:
        world = World(FakeOpenAI("K", max_in_flight=2, latency=0.01))
        together = await asyncio.gather(*(world.ask() for _ in range(3)))
        alone = [await world.ask() for _ in range(3)]
        return [answer.status_code for answer in (*together, *alone)]

    assert asyncio.run(main()) == [200, 200, 429, 200, 200, 200]


@pytest.mark.parametrize("variant", ["L", "H+L"])
def test_l_shows_every_fault_and_enforces_all_the_same(variant: str) -> None:
    """Headers go missing, stale, below zero, to the project or reset at once; most are
    right.
    """

    async def life(world: World) -> None:
        answers = []
        for world.now in range(60):
            answers.append((await world.ask(100, usage=100)).headers)
        tokens = [headers.get("x-ratelimit-remaining-tokens") for headers in answers]

        assert any("x-ratelimit-remaining-tokens" not in headers for headers in answers)
        assert any("x-ratelimit-remaining-project-tokens" in headers for headers in answers)
        assert "-1" in tokens
        assert any(headers.get("x-ratelimit-reset-tokens") == "0s" for headers in answers)
        assert 50_000 > world.left("/tpm") > 49_000

    live(FakeOpenAI(variant, tpm=50_000, latency=0, seed=3), life)


def test_m_takes_only_what_was_used_and_shuts_afterwards() -> None:
    """Anything passes while something is left in the minute; the usage counts when it
    is known.
    """

    async def life(world: World) -> None:
        answers = [await world.ask(100, usage=500) for _ in range(3)]
        world.now = 60.0
        answers.append(await world.ask(100, usage=700))

        assert [answer.status_code for answer in answers] == [200, 200, 429, 200]
        assert answers[0].headers["x-ratelimit-limit-tokens-minute"] == "1000"
        assert answers[0].headers["x-ratelimit-remaining-req-minute"] == "499"
        assert answers[2].json()["message"] == "Rate limit exceeded"

    live(FakeOpenAI("M", tpm=1_000, latency=0), life)


def test_groq_counts_requests_per_day() -> None:
    """In Groq's dialect -requests is the day's limit and resets show nanoseconds."""

    async def life(world: World) -> None:
        answer = await world.ask(100)

        assert answer.headers["x-ratelimit-limit-requests"] == "14400"
        assert answer.headers["x-ratelimit-reset-requests"] == "6s"
        assert answer.headers["x-ratelimit-reset-tokens"] == "333.333333ms"

    live(FakeOpenAI("I", rpm=30, rpd=14_400, tpm=18_000, header_style="groq", latency=0), life)


def test_families_share_and_strangers_do_not() -> None:
    """Models of one family share buckets, other families, organisations and projects
    have their own; the project's limit comes on top.
    """

    async def life(world: World) -> None:
        await world.ask(100, model="gpt-4o", headers=one)
        await world.ask(100, model="gpt-4o-2024-08-06", headers={"authorization": "Bearer sk-b"})
        await world.ask(100, model="gpt-4o-mini", headers=one)
        await world.ask(100, model="o3", headers={"authorization": "Bearer sk-c"})
        shown = await world.ask(100, model="gpt-4o", headers=one | {"openai-project": "proj"})
        refused = await world.ask(100, model="gpt-4o", headers=one | {"openai-project": "proj"})

        levels = {name: round(level) for name, level in world.server.levels().items()}
        assert levels["one/gpt-4o,gpt-4o-2*/tpm"] == 10_000 - 3 * 100
        assert levels["one/gpt-4o-mini/tpm"] == 20_000 - 100
        assert levels["two/tpm"] == 30_000 - 100
        assert levels["one/proj/gpt-4o,gpt-4o-2*/tpm"] == 50
        assert shown.headers["x-ratelimit-remaining-project-tokens"] == "50"
        assert shown.headers["x-ratelimit-remaining-tokens"] == "9700"
        assert refused.status_code == 429

    one = {"authorization": "Bearer sk-a"}
    server = FakeOpenAI(
        "I",
        keys={"sk-a": "one", "sk-b": "one", "sk-c": "two"},
        models={"gpt-4o,gpt-4o-2*": {"rpm": 500, "tpm": 10_000}, "gpt-4o-mini": {"tpm": 20_000}},
        projects={"proj": {"tpm": 150}},
        latency=0,
    )
    live(server, life)


def test_images_have_a_limit_of_their_own() -> None:
    """Pictures in a chat are counted and shown as input-images."""

    async def life(world: World) -> None:
        http = httpx2.AsyncClient(transport=world.server.transport(), base_url="http://fake/v1")
        picture = [{"type": "image_url", "image_url": {"url": "data:,"}}] * 2
        body = {"model": "m", "messages": [{"role": "user", "content": picture}]}
        answers = [await http.post("/chat/completions", json=body) for _ in range(3)]

        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[0].headers["x-ratelimit-remaining-input-images"] == "3"
        assert "images per min (IPM): Limit 5, Used 4, Requested 2" in answers[2].text

    live(FakeOpenAI("I", ipm=5, latency=0), life)
