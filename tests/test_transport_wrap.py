import asyncio
import copy
import gc
import re
from typing import Any

import httpx2
import openai
import pytest

import ratelimit
from ratelimit import InvalidArgument, RateLimiter
from ratelimit.integrations.transport import AsyncTransport, Transport
from ratelimit.testing import FakeOpenAI, Latency

URL = "http://127.0.0.1:9/v1"


class Quiet:
    """An inner transport of no library's class."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.closed = 0

    def handle_request(self, request: Any) -> Any:
        self.seen.append(request)
        return httpx2.Response(200, json={"object": "list", "data": []})

    async def handle_async_request(self, request: Any) -> Any:
        return self.handle_request(request)

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1

    def __enter__(self) -> "Quiet":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> "Quiet":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def quiet() -> Any:
    """Make one; only the libraries' types ask for their own base class."""
    return Quiet()


class OwnClient(openai.OpenAI):
    """A user's subclass."""


@pytest.mark.parametrize(
    "client",
    [
        openai.OpenAI(api_key="none", base_url=URL),
        OwnClient(api_key="none", base_url=URL),
        openai.AsyncOpenAI(api_key="none", base_url=URL),
        openai.AzureOpenAI(
            api_key="none", azure_endpoint="http://127.0.0.1:9", api_version="2024-10-21"
        ),
        openai.AsyncAzureOpenAI(
            api_key="none", azure_endpoint="http://127.0.0.1:9", api_version="2024-10-21"
        ),
        openai.AsyncOpenAI(api_key="none", base_url=URL, http_client=openai.DefaultAioHttpClient()),
        httpx2.Client(),
        httpx2.AsyncClient(),
    ],
    ids=lambda client: type(client).__name__,
)
def test_a_wrapped_client_keeps_its_type_and_leaves_the_given_one_alone(client: Any) -> None:
    """The wrapped client fits wherever the given one did, and the given one is not
    metered behind its owner's back.
    """
    limiter = RateLimiter(rpm=60)
    wrapped = limiter.wrap(client)
    http, before = getattr(wrapped, "_client", wrapped), getattr(client, "_client", client)

    assert type(wrapped) is type(client)
    assert wrapped is not client
    assert type(http) is type(before)
    assert isinstance(http._transport, (Transport, AsyncTransport))
    assert not isinstance(before._transport, (Transport, AsyncTransport))


def test_settings_survive_wrapping() -> None:
    """Key, address, headers, timeout and retries are the given client's."""
    client = openai.OpenAI(
        api_key="k",
        base_url=URL,
        organization="o",
        max_retries=7,
        timeout=3.5,
        default_headers={"x": "y"},
    )
    wrapped = RateLimiter(rpm=60).wrap(client)

    assert (wrapped.api_key, str(wrapped.base_url), wrapped.organization) == ("k", URL + "/", "o")
    assert (wrapped.max_retries, wrapped.timeout, wrapped.default_headers["x"]) == (7, 3.5, "y")


def test_copies_of_a_wrapped_client_are_metered() -> None:
    """with_options makes a new client over the same HTTP client: no way around the
    limiter.
    """
    wrapped = RateLimiter(rpm=60).wrap(openai.OpenAI(api_key="none", base_url=URL))

    assert isinstance(wrapped.with_options(timeout=1)._client._transport, Transport)
    assert isinstance(wrapped.copy()._client._transport, Transport)


def test_proxies_are_metered() -> None:
    """A client with proxies sends through its mounts: each is wrapped, exclusions stay
    exclusions.
    """
    client = httpx2.Client(mounts={"http://": httpx2.HTTPTransport(), "all://localhost": None})
    wrapped = RateLimiter(rpm=60).wrap(client)

    assert {type(transport).__name__ for transport in wrapped._mounts.values()} == {
        "Transport",
        "NoneType",
    }
    assert {type(transport).__name__ for transport in client._mounts.values()} == {
        "HTTPTransport",
        "NoneType",
    }


def test_wrapping_twice_meters_once() -> None:
    """One limiter does not make a call pay twice; another one is paid as well."""
    limiter = RateLimiter(rpm=60)
    once = limiter.wrap(httpx2.Client(transport=quiet()))
    twice = limiter.wrap(once)
    other = RateLimiter(rpm=60).wrap(once)

    assert twice._transport is once._transport
    assert other._transport is not once._transport


@pytest.mark.parametrize(
    "thing",
    [None, "client", 5, object(), openai, ratelimit],
    ids=["None", "text", "number", "object", "openai", "ratelimit"],
)
def test_what_cannot_be_wrapped_is_told(thing: Any) -> None:
    """A mistake is said at once, with what would do."""
    with pytest.raises(InvalidArgument, match="OpenAI"):
        RateLimiter().wrap(thing)


def test_a_client_that_takes_an_http_client_is_advised_to_be_given_one() -> None:
    """SDKs that are not built like OpenAI's are metered below: the error says so."""
    client = httpx2.Client()
    holder = type("Mistral", (), {"client": client})()

    with pytest.raises(InvalidArgument, match="HTTP client") as raised:
        RateLimiter().wrap(holder)
    (advised,) = re.findall(r"=(limiter\.wrap\(.*?\)\))", str(raised.value))
    metered = eval(advised, {"limiter": RateLimiter(), "httpx": httpx2})  # noqa: S307  # ours
    assert isinstance(metered._transport, Transport)


@pytest.mark.parametrize("options", [{"timeout": -1}, {"timeout": "soon"}, {"priority": "urgent"}])
def test_bad_options_are_told_when_wrapping(options: dict[str, Any]) -> None:
    """A wrong timeout or priority is said before the first call."""
    with pytest.raises(InvalidArgument):
        RateLimiter(rpm=60).wrap(httpx2.Client(), **options)


def test_the_given_client_may_be_forgotten() -> None:
    """`limiter.wrap(OpenAI())` drops the only reference to the given client; its end
    must not close the shared connections.
    """
    inner = quiet()
    client = openai.OpenAI(api_key="none", base_url=URL)
    client._client._transport = inner
    wrapped = RateLimiter(rpm=60).wrap(client)
    del client
    gc.collect()

    assert inner.closed == 0
    assert wrapped.models.list().data == []


def test_closing_reaches_the_inner_transport() -> None:
    """A with-block around the wrapped client closes the connections."""
    inner = quiet()
    with RateLimiter(rpm=60).wrap(httpx2.Client(transport=inner)) as client:
        client.get(URL)

    assert inner.closed == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_closing_reaches_the_inner_async_transport(backend: str) -> None:
    """The same for async clients, on both event loops."""
    import anyio

    inner = quiet()

    async def main() -> None:
        async with RateLimiter(rpm=60).wrap(httpx2.AsyncClient(transport=inner)) as client:
            await client.get(URL)

    anyio.run(main, backend=backend)

    assert inner.closed == 1


def test_a_wrapped_client_can_be_copied_shallowly() -> None:
    """Frameworks copy clients; the copy still passes the limiter."""
    wrapped = RateLimiter(rpm=60).wrap(httpx2.Client(transport=quiet()))

    assert isinstance(copy.copy(wrapped)._transport, Transport)


async def ask_once(client: Any, given: Any, url: str, body: Any) -> Any:
    """Send one request and close the given client."""
    async with given:
        return await client.post(url, json=body)


@pytest.mark.parametrize("kind", [httpx2.Client, httpx2.AsyncClient])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_passes_through_two_limiters(kind: Any, stream: bool) -> None:
    """One of a team and one of a program, say: both admit and settle each call."""
    team, program = RateLimiter(tpm=20_000), RateLimiter(tpm=10_000)
    body = {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 900,
        "stream": stream,
        **({"stream_options": {"include_usage": True}} if stream else {}),
    }
    with FakeOpenAI(latency=Latency(base=0, per_token=0)).serve() as url:
        given = kind()
        client = program.wrap(team.wrap(given))
        if kind is httpx2.Client:
            answer = client.post(f"{url}/chat/completions", json=body)
            given.close()
        else:
            answer = asyncio.run(ask_once(client, given, f"{url}/chat/completions", body))

    assert answer.status_code == 200
    for limiter in (team, program):
        family = limiter.statistics().families["*"]
        assert (family.admitted, family.in_flight) == (1, 0)
