"""Which clients can be wrapped.

Patched ones, subclasses and wrappers survive whole, or are refused with a way out.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest

from ratelimit import InvalidArgument, RateLimiter

URL = "http://x/v1"
ASK: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "Hello, who are you?"}],
    "max_tokens": 20,
}
ANSWER = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o",
    "choices": [],
    "usage": {"prompt_tokens": 13, "completion_tokens": 3, "total_tokens": 16},
}


def answering() -> httpx2.MockTransport:
    """A server that answers everything."""
    return httpx2.MockTransport(lambda _: httpx2.Response(200, json=ANSWER))


def openai_client(kind: Callable[..., Any] = openai.OpenAI, **options: Any) -> Any:
    """Make a client before that server."""
    http = httpx2.Client(transport=answering())
    return kind(api_key="none", base_url=URL, http_client=http, **options)


def admitted(limiter: RateLimiter) -> int:
    """Calls that the limiter has admitted."""
    return limiter.statistics().families["*"].admitted


def traced(method: Callable[..., Any], seen: list[str]) -> Callable[..., Any]:
    """Wrap a method as tracers do."""

    @functools.wraps(method)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        seen.append("called")
        return method(*args, **kwargs)

    return wrapper


# ---- patches ------------------------------------------------------------------------


def patch_create(client: Any) -> None:
    """Replace the method of a resource, as tracers do."""
    client.chat.completions.create = traced(client.chat.completions.create, [])


def patch_partial(client: Any) -> None:
    """Replace a method by a partial of it."""
    client.embeddings.create = functools.partial(client.embeddings.create, model="m")


def patch_raw(client: Any) -> None:
    """Replace the method of a resource's raw variant."""
    raw = client.chat.completions.with_raw_response
    raw.create = traced(raw.create, [])


def patch_resource(client: Any) -> None:
    """Replace a whole resource by an object around it."""

    class Traced:
        def __init__(self, chat: Any) -> None:
            self.completions = chat.completions

    client.chat = Traced(client.chat)


def patch_client(client: Any) -> None:
    """Replace a method of the client itself."""
    client.post = traced(client.post, [])


def patch_http(client: Any) -> None:
    """Replace a method of the HTTP client below."""
    client._client.send = traced(client._client.send, [])


def keep_helper(client: Any) -> None:
    """Keep something that calls the client."""
    client.ask = lambda: client.chat.completions.create(**ASK)


PATCHES = [
    patch_create,
    patch_partial,
    patch_raw,
    patch_resource,
    patch_client,
    patch_http,
    keep_helper,
]


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.__name__)
def test_a_patch_that_calls_the_given_client_is_refused_with_a_way_out(
    patch: Callable[[Any], None],
) -> None:
    """A copy would lose it, or send past the limiter. What the message says to type
    works: the patched client over a wrapped HTTP client is metered.
    """
    limiter = RateLimiter(rpm=1_000)
    client = openai_client()
    patch(client)

    with pytest.raises(InvalidArgument, match=r"http_client=limiter\.wrap\("):
        limiter.wrap(client)

    http = limiter.wrap(openai.DefaultHttpxClient(transport=answering()))
    below = openai.OpenAI(api_key="none", base_url=URL, http_client=http)
    if patch is not patch_http:
        patch(below)
    below.chat.completions.with_raw_response.create(**ASK)
    assert admitted(limiter) == 1


def test_a_wrapped_client_can_be_patched() -> None:
    """The other way out: wrap first."""
    limiter = RateLimiter(rpm=1_000)
    client = limiter.wrap(openai_client())
    seen: list[str] = []
    client.chat.completions.create = traced(client.chat.completions.create, seen)
    client.chat.completions.create(**ASK)

    assert seen == ["called"]
    assert admitted(limiter) == 1


def test_patches_that_do_not_call_the_given_client_survive() -> None:
    """A test's double stays a double, and a method that is bound to the given client is
    bound to its copy.
    """
    limiter = RateLimiter(rpm=1_000)
    client = openai_client()
    client.embeddings.create = lambda **_: "double"
    client.chat.completions.ask = types.MethodType(
        lambda self: self.create(**ASK), client.chat.completions
    )
    client.ask = types.MethodType(lambda self: self.chat.completions.create(**ASK), client)
    wrapped = limiter.wrap(client)

    assert wrapped.embeddings.create() == "double"
    assert wrapped.chat.completions.ask().usage.total_tokens == 16
    assert wrapped.ask().usage.total_tokens == 16
    assert admitted(limiter) == 2
    client.ask()
    assert admitted(limiter) == 2, "the given client stays unmetered"


# ---- subclasses ---------------------------------------------------------------------


class Tenant(openai.OpenAI):
    """A subclass with a constructor and state of its own."""

    def __init__(self, tenant: str, registry: dict[str, Any]) -> None:
        super().__init__(
            api_key="none", base_url=URL, http_client=httpx2.Client(transport=answering())
        )
        self.tenant = tenant
        self.registry = registry
        self.bound = self.ask

    @functools.cached_property
    def helper(self) -> Any:
        """Made once for each client."""
        return types.SimpleNamespace(completions=self.chat.completions)

    def ask(self) -> Any:
        """Ask through the resource."""
        return self.chat.completions.create(**ASK)


class Eager(openai.OpenAI):
    """Its resources are attributes, as in older versions of the SDK."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.eager = openai.resources.Chat(self)


def test_a_subclass_with_its_own_constructor_survives() -> None:
    """Its constructor is not called, its attributes are there, and all that leads to
    the client leads to the copy.
    """
    limiter = RateLimiter(rpm=1_000)
    registry: dict[str, Any] = {}
    client = Tenant("acme", registry)
    assert client.helper.completions.create(**ASK)
    wrapped = limiter.wrap(client)

    assert type(wrapped) is Tenant
    assert wrapped.tenant == "acme"
    assert wrapped.registry is registry
    for number, ask in enumerate((wrapped.ask, wrapped.bound, wrapped.helper.completions.create)):
        ask(**ASK) if number == 2 else ask()
        assert admitted(limiter) == number + 1


def test_resources_made_in_the_constructor_are_made_anew() -> None:
    """They send by the copy."""
    limiter = RateLimiter(rpm=1_000)
    wrapped = limiter.wrap(openai_client(Eager))
    wrapped.eager.completions.create(**ASK)

    assert admitted(limiter) == 1


def test_settings_of_azure_and_of_with_options_survive() -> None:
    """Deployment, version, timeout and headers are the given client's."""
    limiter = RateLimiter(rpm=1_000)
    http = httpx2.Client(transport=answering())
    azure = openai.AzureOpenAI(
        api_key="none",
        azure_endpoint="http://x",
        api_version="2024-10-21",
        azure_deployment="mine",
        http_client=http,
    )
    wrapped = limiter.wrap(
        azure.with_options(timeout=7, default_headers={"a": "b"}).with_options(max_retries=5)
    )
    wrapped.with_options(timeout=3).chat.completions.create(**ASK)

    assert type(wrapped) is openai.AzureOpenAI
    assert (wrapped.timeout, wrapped.max_retries) == (7, 5)
    assert wrapped.default_headers["a"] == "b"
    assert str(wrapped.base_url) == "http://x/openai/deployments/mine/"
    assert admitted(limiter) == 1


class Session(httpx2.Client):
    """An HTTP client with a constructor and behaviour of its own."""

    def __init__(self, name: str) -> None:
        super().__init__(transport=answering())
        self.name = name

    def send(self, request: Any, **options: Any) -> Any:
        """Add a header."""
        request.headers["x-name"] = self.name
        return super().send(request, **options)


def test_an_http_client_of_the_users_own_class_survives() -> None:
    """Below an SDK client and bare."""
    limiter = RateLimiter(rpm=1_000)
    wrapped = limiter.wrap(openai.OpenAI(api_key="x", base_url=URL, http_client=Session("mine")))
    wrapped.chat.completions.create(**ASK)
    bare = limiter.wrap(Session("bare"))
    answered = bare.post(URL + "/chat/completions", json=ASK)

    assert type(wrapped._client) is Session
    assert answered.request.headers["x-name"] == "bare"
    assert admitted(limiter) == 2


# ---- what only looks like a client --------------------------------------------------


class Instructor:
    """Passes look-ups on to its client, as instructor and tracing proxies do."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)


class Proxy:
    """Passes for its client with isinstance as well, as wrapt's proxies do."""

    def __init__(self, client: Any) -> None:
        object.__setattr__(self, "wrapped", client)

    @property  # type: ignore[misc]  # as wrapt has it
    def __class__(self) -> type:
        return type(self.wrapped)

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]  # as wrapt has it
        fields: dict[str, Any] = vars(self.wrapped)
        return fields

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "wrapped"), name)


@pytest.mark.parametrize("kind", [Instructor, Proxy])
def test_a_wrapper_around_a_client_is_refused_and_never_unpacked(kind: Any) -> None:
    """The bare client would come back without what the wrapper does; built around the
    wrapped client it is metered.
    """
    limiter = RateLimiter(rpm=1_000)
    with pytest.raises(InvalidArgument, match="build it around the wrapped one"):
        limiter.wrap(kind(openai_client()))

    kind(limiter.wrap(openai_client())).chat.completions.create(**ASK)
    assert admitted(limiter) == 1


class Uncopied(httpx2.Client):
    """Refuses to be copied."""

    def __copy__(self) -> httpx2.Client:
        raise RuntimeError("one of a kind")


class CopiedAsOther(httpx2.Client):
    """Makes something else when it is copied."""

    def __copy__(self) -> httpx2.Client:
        return httpx2.Client()


@pytest.mark.parametrize("kind", [Uncopied, CopiedAsOther])
def test_a_client_that_cannot_be_copied_is_refused(kind: Any) -> None:
    """In a sentence, not in an error of the copy module."""
    with pytest.raises(InvalidArgument, match=f"cannot copy this {kind.__name__}"):
        RateLimiter(rpm=1_000).wrap(openai.OpenAI(api_key="x", http_client=kind()))


def test_wrapping_again_with_other_settings_counts_and_pays_once() -> None:
    """The last timeout and priority hold; an attempt is still one."""
    limiter = RateLimiter(rpm=1, arrival_slack=0)
    once = limiter.wrap(openai_client())
    patient = limiter.wrap(once, timeout=0)

    assert limiter.wrap(once) is once
    once.chat.completions.create(**ASK)
    with pytest.raises(openai.OpenAIError, match="timeout"):
        patient.chat.completions.create(**ASK)
    assert admitted(limiter) == 1


class Passing:
    """A callable object that calls the given client."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)


GIVEN: Any = None


def send_by_a_global(*args: Any, **kwargs: Any) -> Any:
    """A patch at the top of a module: the method that it calls is a global of it."""
    return GIVEN(*args, **kwargs)


def send_by_a_comprehension(*args: Any, **kwargs: Any) -> Any:
    """The same from a function inside."""
    return next(GIVEN(*args, **kwargs) for _ in range(1))


@pytest.mark.parametrize("patch", [send_by_a_global, send_by_a_comprehension, Passing])
@pytest.mark.parametrize("name", ["post", "_client.send", "chat.completions.create"])
def test_a_patch_at_the_top_of_a_module_is_refused_too(
    patch: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever way it reaches the given client, no call passes by the limiter."""
    client: Any = openai.OpenAI(api_key="any")
    *path, last = name.split(".")
    holder = functools.reduce(getattr, path, client)
    original = getattr(holder, last)
    monkeypatch.setitem(globals(), "GIVEN", original)
    setattr(holder, last, Passing(original) if patch is Passing else patch)

    with pytest.raises(InvalidArgument, match="calls the given client"):
        RateLimiter(rpm=60).wrap(client)
