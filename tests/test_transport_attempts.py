import asyncio
import multiprocessing
import socket
import threading
from collections.abc import Callable, Iterator
from multiprocessing.pool import Pool
from typing import Any

import anyio
import httpx2
import openai
import pytest

from ratelimit import Lease, RateLimiter, RequestTooLarge, WaitTimeout
from ratelimit.testing import FakeOpenAI, VirtualClock

ASK: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "Hello, who are you?"}],
    "max_tokens": 20,
}
Ask = Callable[[RateLimiter, str, int], list[object]]


@pytest.fixture(scope="module")
def fake() -> Iterator[tuple[FakeOpenAI, str]]:
    """One server of loopback HTTP for the whole file; each test looks at the entries it
    added.
    """
    server = FakeOpenAI(rpm=100_000, tpm=10_000_000, latency=0.001, output=10)
    with server.serve() as url:
        yield server, url


def sync(limiter: RateLimiter, url: str, count: int) -> list[object]:
    """Ask from threads."""
    answers: list[object] = []
    with limiter.wrap(openai.OpenAI(api_key="none", base_url=url, max_retries=2)) as client:

        def one() -> None:
            try:
                answers.append(client.chat.completions.create(**ASK))
            except openai.APIError as error:
                answers.append(error)

        threads = [threading.Thread(target=one) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return answers


def tasks(backend: str) -> Ask:
    """Ask from tasks of one event loop."""

    def run(limiter: RateLimiter, url: str, count: int) -> list[object]:
        answers: list[object] = []

        async def main() -> None:
            async with limiter.wrap(
                openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=2)
            ) as client:

                async def one() -> None:
                    try:
                        answers.append(await client.chat.completions.create(**ASK))
                    except openai.APIError as error:
                        answers.append(error)

                async with anyio.create_task_group() as group:
                    for _ in range(count):
                        group.start_soon(one)

        anyio.run(main, backend=backend)
        return answers

    return run


def decorated(limiter: RateLimiter, url: str, count: int) -> list[object]:
    """Ask through the decorator and the wrapped client at once."""
    client = limiter.wrap(openai.OpenAI(api_key="none", base_url=url, max_retries=2))

    @limiter
    def ask(**request: Any) -> object:
        return client.chat.completions.create(**request)

    answers: list[object] = []
    for _ in range(count):
        try:
            answers.append(ask(**ASK))
        except openai.APIError as error:
            answers.append(error)
    client.close()
    return answers


def reserved(limiter: RateLimiter, url: str, count: int) -> list[object]:
    """Ask within the context manager, with the wrapped client, and settle by hand as
    well.
    """
    client = limiter.wrap(openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=2))
    answers: list[object] = []

    async def main() -> None:
        for _ in range(count):
            try:
                async with limiter.reserve(**ASK) as lease:
                    answers.append(await client.chat.completions.create(**ASK))
                    lease.settle(answers[-1])
            except openai.APIError as error:
                answers.append(error)
        await client.close()

    asyncio.run(main())
    return answers


WAYS = pytest.mark.parametrize(
    "ask",
    [sync, tasks("asyncio"), tasks("trio"), decorated, reserved],
    ids=["sync", "asyncio", "trio", "decorated", "reserved"],
)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the SDK and the closed line pause for milliseconds; what is tested here is
    who is counted, not when.
    """
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.002)
    monkeypatch.setattr("ratelimit.control.pause.FIRST_PAUSE", 0.01)


@WAYS
@pytest.mark.parametrize("fault", [None, "500", "503", "drop", "429"])
def test_every_attempt_is_admitted_once(fake: tuple[FakeOpenAI, str], ask: Ask, fault: Any) -> None:
    """The SDK sends up to three requests per call: the limiter has admitted as many as
    the server saw, whoever asked.
    """
    server, url = fake
    before = len(server.ledger)
    if fault:
        server.inject(fault, count=3)
    limiter = RateLimiter(rpm=100_000, tpm=10_000_000)
    answers = ask(limiter, url, 4)
    family = limiter.statistics().families["*"]

    assert len(answers) == 4
    assert family.admitted == len(server.ledger) - before
    assert family.admitted >= 4 + 2 * bool(fault)
    assert family.in_flight == 0
    assert fault in {"429", "503"} or family.refused == 0


@WAYS
def test_an_attempt_is_paid_once_by_all_ways_together(
    fake: tuple[FakeOpenAI, str], ask: Ask
) -> None:
    """Ten answers cost what the server billed for ten, with decorator, context manager
    and wrapped client at once.
    """
    server, url = fake
    before = len(server.ledger)
    limiter = RateLimiter(
        tpd=100_000, arrival_slack=0
    )  # a day's limit hardly refills while the test runs
    ask(limiter, url, 10)
    billed = sum(entry.usage.total_tokens for entry in list(server.ledger)[before:] if entry.usage)
    spent = 100_000 - limiter.statistics().families["*"].levels["tokens/86400s"]

    assert billed > 0
    assert spent == pytest.approx(billed, abs=10)


@pytest.mark.parametrize("ask", [decorated, reserved])
def test_a_refusal_is_counted_once_by_all_ways_together(
    fake: tuple[FakeOpenAI, str], ask: Ask
) -> None:
    """The transport sees the answer and the decorator the exception it becomes: one 429
    is one 429.
    """
    server, url = fake
    server.inject("429", count=3)
    limiter = RateLimiter(rpm=100_000, tpm=10_000_000)
    ask(limiter, url, 2)

    assert limiter.statistics().families["*"].refused == 3


@pytest.mark.parametrize("error", [httpx2.ConnectError("no"), httpx2.PoolTimeout("full")])
def test_an_attempt_that_was_sent_at_the_second_try_is_paid_once(error: Exception) -> None:
    """The second attempt has a lease of its own; the decorator must not debit its usage
    to the first one's as well.
    """
    tries: list[httpx2.Request] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        tries.append(request)
        if len(tries) == 1:
            raise error
        return httpx2.Response(
            200,
            json={
                "usage": {"prompt_tokens": 13, "completion_tokens": 3, "total_tokens": 16},
                "choices": [],
            },
        )

    limiter = RateLimiter(tpd=100_000, arrival_slack=0)
    http = httpx2.Client(transport=httpx2.MockTransport(handle))
    client = limiter.wrap(openai.OpenAI(api_key="none", base_url="http://x/v1", http_client=http))

    @limiter
    def ask(**request: Any) -> object:
        return client.chat.completions.create(**request)

    ask(**ASK)

    assert len(tries) == 2
    assert 100_000 - limiter.statistics().families["*"].levels["tokens/86400s"] == pytest.approx(
        16, abs=3
    )


def test_a_call_that_never_left_costs_nothing() -> None:
    """A refused connection gives everything back, attempt by attempt."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = openai.OpenAI(
            api_key="none", base_url=f"http://127.0.0.1:{taken.getsockname()[1]}/v1", max_retries=1
        )
        limiter = RateLimiter(rpd=1_000)
        with pytest.raises(openai.APIConnectionError):
            limiter.wrap(client).chat.completions.create(**ASK)
        family = limiter.statistics().families["*"]

    assert family.admitted == 2
    assert family.in_flight == 0
    assert family.levels["requests/86400s"] == pytest.approx(1_000, abs=0.1)  # the slack of a debit


def test_cancelled_while_waiting_nothing_is_sent_or_paid() -> None:
    """A task that is cancelled while it waits for its turn sends and pays nothing."""
    clock = VirtualClock()
    server = FakeOpenAI(rpm=100_000, tpm=10_000_000, latency=0)
    limiter = RateLimiter(rpd=2, arrival_slack=0, clock=clock)

    async def main() -> None:
        http = httpx2.AsyncClient(transport=server.transport())
        async with limiter.wrap(
            openai.AsyncOpenAI(api_key="none", base_url="http://fake/v1", http_client=http)
        ) as client:
            await client.chat.completions.create(**ASK)
            await client.chat.completions.create(**ASK)
            with anyio.move_on_after(10) as scope:
                await client.chat.completions.create(**ASK)
            assert scope.cancelled_caught

    clock.run(main)
    family = limiter.statistics().families["*"]

    assert clock.now() == pytest.approx(10, abs=1)
    assert len(server.ledger) == 2
    assert (family.admitted, family.waiting) == (2, 0)


def too_large() -> None:
    """Ask, in another process, for what the limit can never hold."""
    http = httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(200)))
    client = openai.OpenAI(api_key="none", base_url="http://x/v1", http_client=http)
    body = ASK | {"messages": [{"role": "user", "content": "Hello " * 500}]}
    RateLimiter(tpm=100).wrap(client).chat.completions.create(**body)


def too_late() -> None:
    """Wait, in another process, for longer than the timeout."""
    http = httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, json={})))
    client = openai.OpenAI(api_key="none", base_url="http://x/v1", http_client=http)
    wrapped = RateLimiter(rpm=1).wrap(client, timeout=0)
    for _ in range(2):
        wrapped.chat.completions.create(**ASK)


@pytest.fixture(scope="module")
def worker() -> Iterator[Pool]:
    """A process of its own, for several calls."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        yield pool


@pytest.mark.parametrize(("ask", "kind"), [(too_large, RequestTooLarge), (too_late, WaitTimeout)])
def test_an_error_of_a_worker_process_arrives_with_its_figures(
    worker: Pool, ask: Callable[[], None], kind: type[Exception]
) -> None:
    """It is the limiter's error and the SDK's, and passes a pool's pipe as both."""
    with pytest.raises(kind) as raised:
        worker.apply(ask)
    error: Any = raised.value
    figures = error.limit if kind is RequestTooLarge else error.retry_after

    assert isinstance(raised.value, openai.OpenAIError)
    assert figures > 1


def test_a_lease_of_another_limiter_is_not_used() -> None:
    """A call inside the decorator of one limiter still has to pass the other one that
    wraps its client.
    """
    outer, inner = RateLimiter(rpd=100), RateLimiter(rpd=100)
    http = httpx2.Client(
        transport=httpx2.MockTransport(
            lambda _: httpx2.Response(200, json={"usage": {"total_tokens": 5}})
        )
    )
    client = inner.wrap(http)
    with outer.reserve(**ASK) as lease:
        client.post("http://x/v1/chat/completions", json=ASK)
        assert isinstance(lease, Lease)

    assert inner.statistics().families["*"].admitted == 1
