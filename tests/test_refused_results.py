"""A refusal that a decorated function catches counts, in whatever form it comes out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest

from ratelimit import Limits, RateLimiter
from ratelimit.testing import ThreadClock

REQUEST = httpx2.Request("POST", "https://api.openai.com/v1/chat/completions")
BODY: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 100,
}
FAILURE = {"error": {"message": "Slow down", "code": "rate_limit_exceeded"}}
USED = {
    "usage": {"prompt_tokens": 10, "completion_tokens": 30, "total_tokens": 40},
    "choices": [],
}


def response() -> httpx2.Response:
    """Make the answer of a server that refuses."""
    return httpx2.Response(429, json=FAILURE, headers={"retry-after": "7"}, request=REQUEST)


def answered() -> httpx2.Response:
    """Make the answer of a server that has one."""
    return httpx2.Response(200, json={"choices": []}, request=REQUEST)


def error() -> openai.RateLimitError:
    """Make the SDK's exception of it."""
    return openai.RateLimitError("no", response=response(), body=FAILURE["error"])


def limiter() -> RateLimiter:
    """Limits that hold nothing up, on a clock that stands still."""
    return RateLimiter(rpm=600, tpm=100_000, arrival_slack=0, clock=ThreadClock())


def refused(held: RateLimiter) -> tuple[int, int, bool]:
    """How many refusals were counted, what is in flight, and whether a pause is on."""
    family = held.statistics().families["*"]
    return family.refused, family.in_flight, family.closed_for > 0


@pytest.mark.parametrize(
    "result",
    [
        error(),
        (response(), 1),
        [None, response()],
        ("label", error()),
        (429, FAILURE),
        [USED, error()],
        ExceptionGroup("both", [ValueError(), error()]),
    ],
    ids=["exception", "pair", "list", "labelled", "body", "gathered", "group"],
)
def test_a_refusal_that_is_returned_is_counted(result: Any) -> None:
    """`gather(return_exceptions=True)` and result types return what failed."""
    held = limiter()

    async def ask(**_: Any) -> Any:
        return result

    assert held(lambda **_: result)(**BODY) is result
    assert refused(held) == (1, 0, True)
    again = limiter()
    assert asyncio.run(again(ask)(**BODY)) is result
    assert again.statistics().refused == 1


def test_a_call_that_never_left_costs_nothing_when_its_error_is_returned() -> None:
    """A returned exception means what a raised one means."""
    held = limiter()
    held(lambda **_: httpx2.ConnectError("refused", request=REQUEST))(**BODY)

    assert held.statistics().families["*"].levels["tokens/60s"] == 100_000


@pytest.mark.logs("returned no usage")
@pytest.mark.parametrize("result", [(), (1, "x"), [[error()]], (answered(), 1), [{"error": 3}]])
def test_what_holds_no_refusal_counts_none(result: Any) -> None:
    """Only what stands in the result itself is looked at."""
    held = limiter()
    held(lambda **_: result)(**BODY)

    assert refused(held) == (0, 0, False)


def raise_own() -> None:
    """Raise an error of the function's own in a handler."""
    try:
        raise error()
    except openai.RateLimitError:
        raise KeyError("no answer")  # noqa: B904  # that is what is tested


def raise_twice() -> None:
    """Raise a third error while the second is handled."""
    try:
        raise_own()
    except KeyError:
        raise ValueError("no answer")  # noqa: B904  # that is what is tested


def yield_and_raise() -> Any:
    """Raise it within a stream."""
    yield {"choices": []}
    raise_own()


def by_async(ask: Callable[[], None]) -> Callable[..., Any]:
    """Make a coroutine function of it."""

    async def call(**_: Any) -> None:
        ask()

    return call


@pytest.mark.parametrize("ask", [raise_own, raise_twice])
def test_a_refusal_behind_an_error_of_ones_own_is_counted(ask: Callable[[], None]) -> None:
    """`raise AppError()` in a handler lacks its `from` more often than not."""
    held = limiter()
    with pytest.raises(LookupError if ask is raise_own else ValueError):
        held(lambda **_: ask())(**BODY)

    assert refused(held) == (1, 0, True)
    again = limiter()
    with pytest.raises(LookupError if ask is raise_own else ValueError):
        asyncio.run(again(by_async(ask))(**BODY))
    assert again.statistics().refused == 1


def test_a_stream_that_raises_its_own_error_counts_the_refusal_behind_it() -> None:
    """A generator catches and raises like any function."""
    held = limiter()

    @held
    def ask(**_: Any) -> Any:
        yield from yield_and_raise()

    with pytest.raises(KeyError):
        list(ask(**BODY))

    assert refused(held) == (1, 0, True)


def test_a_block_that_raises_its_own_error_counts_the_refusal_behind_it() -> None:
    """The context manager means what the decorator means."""
    held = limiter()
    with pytest.raises(KeyError), held.reserve(BODY):
        raise_own()

    assert refused(held) == (1, 0, True)


def test_a_refusal_is_not_counted_again_by_the_call_that_replaces_it() -> None:
    """A fallback within a handler has its own failure; the 429 was the first call's."""
    held = limiter()

    @held
    def ask(*, fails: Callable[[], None], **_: Any) -> None:
        fails()

    def fall_back() -> None:
        raise ValueError("the fallback's own")

    def first() -> None:
        raise error()

    try:
        ask(fails=first, **BODY)
    except openai.RateLimitError:
        with pytest.raises(ValueError, match="own"):
            ask(fails=fall_back, **BODY)

    assert held.statistics().refused == 1


def raise_plain() -> None:
    """Raise an error of the block's own."""
    raise ValueError("its own")


def raise_twice_plain() -> None:
    """Raise it in the handler of another one of the block's own."""
    try:
        BODY["first"]
    except KeyError:
        raise_plain()


def left_implicitly(held: RateLimiter) -> None:
    """Replace a refusal in a block's own frame."""
    with held.reserve(BODY):
        try:
            raise error()
        except openai.RateLimitError:
            raise KeyError("no answer")  # noqa: B904  # that is what is tested


def left_from_none(held: RateLimiter) -> None:
    """Replace it, and say that it has nothing to do with that."""
    with held.reserve(BODY):
        try:
            raise error()
        except openai.RateLimitError:
            raise KeyError("no answer") from None


def left_twice(held: RateLimiter) -> None:
    """Replace it in one block, and the replacement in a block around that."""
    with held.reserve(tokens=0):
        try:
            left_from_none(held)
        except KeyError as inner:
            raise KeyError("outer", inner.args) from None


def left_in_a_handler(held: RateLimiter) -> None:
    """Replace it in the handler of an older refusal."""
    try:
        raise error()
    except openai.RateLimitError:
        left_from_none(held)


def left_asynchronously(held: RateLimiter) -> None:
    """Replace it in an `async with`, in the handler of an older refusal."""

    async def ask() -> None:
        try:
            raise error()
        except openai.RateLimitError:
            async with held.reserve(BODY):
                try:
                    raise error()
                except openai.RateLimitError:
                    raise KeyError("no answer") from None

    asyncio.run(ask())


@pytest.mark.parametrize(
    "leave",
    [left_implicitly, left_from_none, left_twice, left_in_a_handler, left_asynchronously],
)
def test_a_refusal_that_a_block_replaces_in_its_own_frame_is_counted_once(
    leave: Callable[[RateLimiter], None],
) -> None:
    """The handler stands in the block itself; what it says of the cause changes
    nothing.
    """
    held = limiter()
    with pytest.raises(KeyError):
        leave(held)

    assert refused(held) == (1, 0, True)


@pytest.mark.parametrize("fails", [raise_plain, raise_twice_plain])
def test_a_refusal_before_a_block_is_not_counted_by_it(fails: Callable[[], None]) -> None:
    """A fallback within a handler has its own failure, in a block as in a function."""
    held = limiter()

    def fall_back() -> None:
        try:
            raise error()
        except openai.RateLimitError:
            with held.reserve(BODY):
                fails()

    with pytest.raises(ValueError, match="its own"):
        fall_back()

    assert held.statistics().refused == 0


def test_a_refusal_that_a_wrapped_client_has_counted_is_not_counted_again() -> None:
    """The block holds a call of another model, so the client's call has its own."""
    limits = {"gpt-4o": Limits(rpm=600), "*": Limits(rpm=600)}
    held = RateLimiter(limits=limits, arrival_slack=0, clock=ThreadClock())
    http = httpx2.Client(transport=httpx2.MockTransport(lambda _: response()))
    client = held.wrap(openai.OpenAI(api_key="any", http_client=http, max_retries=0))

    def ask() -> None:
        with held.reserve(tokens=0, model="another"):
            try:
                client.chat.completions.create(**BODY)
            except openai.RateLimitError:
                raise KeyError("no answer") from None

    with pytest.raises(KeyError):
        ask()

    assert held.statistics().refused == 1
