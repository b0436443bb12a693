"""Whatever a decorated function returns comes back, and no call hangs by it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, ClassVar

import httpx2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import EstimateWarning, RateLimiter
from ratelimit.integrations import settlement
from ratelimit.testing import ThreadClock

REQUEST = httpx2.Request("POST", "https://api.openai.com/v1/chat/completions")

BODY: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 100,
}


class Unbound:
    """Raises at every look, its class included, as a proxy that stands for nothing."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("no request")


class Detached:
    """Raises where it lacks an attribute, as an object of a database without it."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("no session")


class Lazy(dict[str, Any]):
    """A dictionary that fails to load."""

    def get(self, key: str, default: Any = None) -> Any:
        raise OSError(key, default)


class Remote(Mapping[str, Any]):
    """A mapping that fails to load."""

    def __getitem__(self, key: str) -> Any:
        raise OSError(key)

    def __iter__(self) -> Iterator[str]:
        raise OSError

    def __len__(self) -> int:
        raise OSError


class Query(list[Any]):
    """A list that fails to load."""

    def __iter__(self) -> Iterator[Any]:
        raise OSError

    def __bool__(self) -> bool:
        raise OSError


class Number(int):
    """A number that cannot be compared."""

    def __le__(self, other: object) -> bool:
        raise ValueError(other)

    __ge__ = __float__ = __le__  # type: ignore[assignment]


class Unhashable(Exception):
    """A refusal that raises when it is asked for its hash, or for its response."""

    status_code = 429
    headers: ClassVar[dict[str, str]] = {"retry-after": "3"}

    @property
    def response(self) -> Any:
        """Fail to load."""
        raise ValueError("no response")

    def __hash__(self) -> int:
        raise ValueError("no hash")

    def __eq__(self, other: object) -> bool:
        raise ValueError("cannot be compared")


class AnyName:
    """Has whatever is asked of it, as a stand-in of a test or a remote object."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: AnyName()


RESULTS: list[Any] = [
    *(Unbound(), Detached(), Lazy(a=1), Remote(), Query([1]), AnyName(), io.BytesIO(b"a sound")),
    *({"usage": Lazy(a=1)}, {"usage": Remote()}, {"error": Remote()}, {"choices": Query([1])}),
    *({"usage": {"prompt_tokens": Number(5)}}, [Lazy(a=1), Remote()], {"errors": Query([1])}),
]


def sync(held: RateLimiter, result: Any) -> Any:
    """Return it from a function."""
    return held(lambda **_: result)(**BODY)


def asynchronous(held: RateLimiter, result: Any) -> Any:
    """Return it from a coroutine function."""

    @held
    async def ask(**_body: Any) -> Any:
        return result

    return asyncio.run(ask(**BODY))


def future(held: RateLimiter, result: Any) -> Any:
    """Return a future of it."""
    made: Future[Any] = Future()

    @held
    def ask(**_body: Any) -> Any:
        return made

    found = ask(**BODY)
    made.set_result(result)
    return found.result()


def chunk(held: RateLimiter, result: Any) -> Any:
    """Yield it."""

    @held
    def ask(**_body: Any) -> Any:
        yield result

    return next(iter(list(ask(**BODY))))


@pytest.mark.filterwarnings("ignore::ratelimit.LimiterWarning")
@pytest.mark.parametrize("door", [sync, asynchronous, future, chunk])
@pytest.mark.parametrize("number", range(len(RESULTS)))
def test_any_result_comes_back_and_ends_its_call(
    door: Callable[[RateLimiter, Any], Any], number: int
) -> None:
    """What cannot be read keeps its reserve; the user's call has succeeded."""
    held = RateLimiter(tpm=100_000, arrival_slack=0, clock=ThreadClock())
    found = door(held, RESULTS[number])
    family = held.statistics().families["*"]

    assert found is RESULTS[number]
    assert family.in_flight == 0
    assert family.levels["tokens/60s"] == pytest.approx(100_000 - 108, abs=1)


def test_an_answer_that_cannot_be_read_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reserve stays debited, which nothing else shows."""
    monkeypatch.setattr(settlement, "_warned", set())
    held = RateLimiter(tpm=100_000, arrival_slack=0, clock=ThreadClock())
    ask: Callable[..., Any] = held(lambda **_: Unbound())
    with pytest.warns(EstimateWarning, match="could not be read"):
        ask(**BODY)
    ask(**BODY)  # every warning is an error here

    assert held.statistics().in_flight == 0


def test_an_error_without_a_hash_is_raised_as_it_is() -> None:
    """It cannot be marked as counted; it is counted all the same."""
    held = RateLimiter(tpm=100_000, arrival_slack=0, clock=ThreadClock())

    def ask(**_body: Any) -> None:
        raise Unhashable

    with pytest.raises(Unhashable):
        held(ask)(**BODY)

    assert held.statistics().refused == 1


def test_a_refusal_behind_a_chunk_that_cannot_be_read_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The stream goes on for its reader, and so for its meter."""
    monkeypatch.setattr(settlement, "_warned", set())
    held = RateLimiter(tpm=100_000, arrival_slack=0, clock=ThreadClock())

    @held
    def ask(**_body: Any) -> Any:
        yield Unbound()
        yield {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
        httpx2.Response(429, request=REQUEST).raise_for_status()

    with pytest.raises(httpx2.HTTPStatusError), pytest.warns(EstimateWarning, match="not be read"):
        list(ask(**BODY))

    assert held.statistics().refused == 1


NUMBERS = st.integers() | st.floats() | st.sampled_from([200, 429, 503, -1, 10**400, np.int64(429)])
LEAVES = st.none() | st.booleans() | NUMBERS | st.text(max_size=9) | st.binary(max_size=9)
NAMES = st.sampled_from(
    [
        *("usage", "prompt_tokens", "completion_tokens", "total_tokens", "usageMetadata", "error"),
        *("choices", "index", "delta", "finish_reason", "message", "content", "text", "response"),
        *("status", "status_code", "headers", "code", "type", "_content", "body", "x_groq", "data"),
        *("base_resp", "errors", "success", "detail", "metadata", "details", "retry-after", "url"),
    ]
)
SHAPES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(NAMES, inner, max_size=5)
        | st.dictionaries(NAMES, inner, max_size=5).map(lambda each: SimpleNamespace(**each))
    ),
    max_leaves=12,
)


@pytest.mark.filterwarnings("ignore::ratelimit.LimiterWarning")
@pytest.mark.parametrize("door", [sync, chunk])
@given(result=SHAPES)
def test_a_result_of_any_shape_settles_within_bounds(
    door: Callable[[RateLimiter, Any], Any], result: Any
) -> None:
    """What looks like usage takes at most two periods' tokens, and gives back no more
    than was reserved.
    """
    held = RateLimiter(tpm=100_000, arrival_slack=0, clock=ThreadClock())
    found = door(held, result)
    family = held.statistics().families["*"]

    assert found is result
    assert (family.in_flight, family.refused <= 1) == (0, True)
    assert -100_000 <= family.levels["tokens/60s"] <= 100_000
