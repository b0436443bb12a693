"""The decorator: every kind of function keeps its kind, its signature and its
behaviour, and each call is admitted and settled.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from types import FunctionType
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

import anyio
import pytest

from ratelimit import EstimateWarning, InvalidArgument, Limit, Limits, RateLimiter, WaitTimeout
from ratelimit.testing import ThreadClock, VirtualClock

if TYPE_CHECKING:
    from tests.conftest import LoopClock

ANSWER = {
    "usage": {"prompt_tokens": 10, "completion_tokens": 30, "total_tokens": 40},
    "choices": [],
}
BODY: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 300,
}


def limiter(clock: Any = None, **options: Any) -> RateLimiter:
    """1,000 tokens and 10 requests a minute, on a clock that stands still."""
    options.setdefault("limits", Limits(Limit("requests", 10), Limit("tokens", 1_000)))
    return RateLimiter(arrival_slack=0, clock=clock or ThreadClock(), **options)


def spent(of: RateLimiter) -> float:
    """Tokens that are held or used."""
    return round(1_000 - of.statistics().families["*"].levels["tokens/60s"], 6)


def in_flight(of: RateLimiter) -> int:
    """Calls between admission and settlement."""
    return of.statistics().families["*"].in_flight


def run(function: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    """Await one call on a virtual loop."""
    return VirtualClock().run(functools.partial(function, *args, **kwargs))


# ---- kinds --------------------------------------------------------------------------


def test_an_async_function_stays_one_and_settles() -> None:
    """Admitted before, settled after, with the answer untouched and the kind, name,
    docstring and signature kept.
    """
    held = limiter()

    async def ask(model: str, *, messages: Any, max_tokens: int = 5) -> Any:
        """Ask."""
        assert in_flight(held) == 1
        assert spent(held) > 300
        return ANSWER | {"asked": (model, messages, max_tokens)}

    limited = held(ask)
    assert inspect.iscoroutinefunction(limited)
    assert (limited.__name__, limited.__doc__, inspect.signature(limited)) == (
        "ask",
        "Ask.",
        inspect.signature(ask),
    )
    assert run(limited, **BODY)["asked"] == ("gpt-4o", BODY["messages"], 300)
    assert (spent(held), in_flight(held)) == (40, 0)


def test_a_plain_function_stays_one_and_settles() -> None:
    """In threads likewise."""
    held = limiter()

    @held
    def ask(**request: Any) -> Any:
        assert in_flight(held) == 1
        return ANSWER | request

    assert ask(**BODY)["model"] == "gpt-4o"
    assert (spent(held), in_flight(held)) == (40, 0)


def test_methods_class_methods_static_methods_callables_and_partials() -> None:
    """`self` and `cls` are no part of the request; all of them are called as before."""
    held = limiter()
    seen: list[Any] = []

    class Client:
        @held
        def ask(self, **request: Any) -> Any:
            seen.append((type(self), request))
            return ANSWER

        @held
        async def ask_later(self, model: str, messages: Any) -> Any:
            seen.append((type(self), {"model": model, "messages": messages}))
            return ANSWER

        @classmethod
        @held
        def of_class(cls, **request: Any) -> Any:
            seen.append((cls, request))
            return ANSWER

        @staticmethod
        @held
        def of_nothing(model: str, messages: Any) -> Any:
            seen.append((Client, {"model": model, "messages": messages}))
            return ANSWER

        def __call__(self, **request: Any) -> Any:
            seen.append((Client, request))
            return ANSWER

    client = Client()
    body = {"model": "gpt-4o", "messages": []}
    client.ask(**body)
    run(client.ask_later, "gpt-4o", messages=[])
    Client.of_class(**body)
    client.of_nothing("gpt-4o", [])
    held(client)(**body)
    held(functools.partial(Client().__call__, model="gpt-4o"))(messages=[])
    assert seen == [(Client, body)] * 6
    assert spent(held) == 240


def test_an_object_with_an_async_call_is_awaited() -> None:
    """Callables are known by their `__call__`."""
    held = limiter()

    class Ask:
        async def __call__(self, **request: Any) -> Any:
            await anyio.lowlevel.checkpoint()
            return ANSWER | request

    assert run(held(Ask()), **BODY)["model"] == "gpt-4o"
    assert (spent(held), in_flight(held)) == (40, 0)


def test_a_function_that_returns_an_awaitable_settles_when_it_is_awaited() -> None:
    """A plain def around an async call, and a lambda: the call is in flight until its
    result is there.
    """
    held = limiter()

    async def inner() -> Any:
        await anyio.sleep(1)
        assert in_flight(held) == 1
        return ANSWER

    def ask(**_: Any) -> Awaitable[Any]:
        return inner()

    async def main() -> Any:
        later = held(ask)(**BODY)
        assert inspect.isawaitable(later)
        assert in_flight(held) == 1
        return await later

    assert run(main) == ANSWER
    assert (spent(held), in_flight(held)) == (40, 0)


def test_an_async_function_behind_a_plain_wrapper_waits_without_blocking_the_loop() -> None:
    """The SDK's own methods are such wrappers: what is `async def` underneath waits for
    its turn as a task, and others go on meanwhile.
    """
    clock = VirtualClock()
    held = limiter(clock, limits=Limits(concurrency=1))

    async def inner(**request: Any) -> Any:
        await asyncio.sleep(5)
        return ANSWER | request

    @functools.wraps(inner)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return inner(*args, **kwargs)

    limited = held(wrapper)

    async def main() -> list[Any]:
        return await asyncio.gather(*(limited(**BODY) for _ in range(3)))

    assert len(clock.run(main)) == 3
    assert clock.now() == pytest.approx(15)


# ---- arguments ----------------------------------------------------------------------


@pytest.mark.logs("returned no usage")
def test_positional_arguments_and_defaults_are_part_of_the_request() -> None:
    """By their names they are fields of the body, also those that the caller left to
    their defaults: the family's limits hold for them.
    """
    held = limiter(
        limits={"small": Limits(Limit("tokens", 1_000)), "big": Limits(Limit("tokens", 1_000))}
    )

    @held
    def ask(
        messages: Any, model: str = "small", *, max_tokens: int = 600, stop: Any = None, **more: Any
    ) -> Any:
        return (messages, model, max_tokens, stop, more)

    def level(family: str) -> float:
        return held.statistics().families[family].levels["tokens/60s"]

    assert ask([]) == ([], "small", 600, None, {})
    assert level("small") <= 400
    assert ask([], "big", max_tokens=10, user="me") == ([], "big", 10, None, {"user": "me"})
    assert 900 < level("big") < 1_000
    assert ask(messages=[])[1] == "small"
    assert level("small") < 10, (
        "what is left to its default counts as well when all is given by name"
    )


@pytest.mark.logs(r"among the arguments of .*ask_now")
def test_wrong_arguments_raise_as_ever_and_keep_no_slot() -> None:
    """A TypeError is the function's own; nothing stays in flight, and a plain call
    afterwards goes.
    """
    held = limiter(concurrency=1)

    @held
    async def ask(*, model: str, messages: Any) -> Any:
        return ANSWER | {"model": model, "messages": messages}

    @held
    def ask_now(model: str, messages: Any) -> Any:
        return ANSWER | {"model": model, "messages": messages}

    kept: list[TypeError] = []
    attempts: list[Callable[[], Any]] = [
        lambda: run(ask, model="gpt-4o"),
        lambda: run(ask, "gpt-4o"),
        lambda: ask_now("a", "b", "c"),  # type: ignore[call-arg]
        lambda: ask_now(nothing=1),  # type: ignore[call-arg]
    ]
    for attempt in attempts:
        with pytest.raises(TypeError, match="argument") as raised:
            attempt()
        kept.append(raised.value)  # and with it the frames in which it happened
        assert in_flight(held) == 0


@pytest.mark.logs("returned no usage")
def test_request_makes_the_body_of_any_arguments() -> None:
    """`request=` gets the call's arguments as they are."""
    held = limiter()

    @held.limit(
        request=lambda question, **_: {
            "model": "gpt-4o",
            "messages": [{"role": "user", "content": question}],
            "max_tokens": 200,
        }
    )
    def ask(question: str, *, verbose: bool = False) -> Any:
        return spent(held), question, verbose

    tokens, question, verbose = ask("why?", verbose=True)
    assert (question, verbose) == ("why?", True)
    assert 200 < tokens < 220


def test_arguments_that_are_no_request_are_told_once_for_each_function() -> None:
    """Whoever decorates `ask(question)` learns that its tokens are a guess and what to
    do: once, where he calls it, by position or by name.
    """
    held = limiter(limits=Limits(Limit("requests", 10)))

    def ask(question: str, model: str = "gpt-4o") -> Any:
        return question, model

    async def ask_later(question: str) -> Any:
        return question

    first, second, third = held(ask), held(ask), held(ask_later)
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        for _ in range(2):
            assert first("why?") == second(question="why?") == ("why?", "gpt-4o")
            assert run(third, "why?") == "why?"

    assert [warning.category for warning in given] == [EstimateWarning] * 3
    assert [warning.filename for warning in given[:2]] == [__file__] * 2
    assert all(
        re.search(
            r"arguments of .*ask(_later)?\(question.* no messages, input or prompt.*request=",
            str(one.message),
        )
        for one in given
    )


@pytest.mark.parametrize(
    "body",
    [
        BODY,
        {"model": "gpt-4o", "input": "hi"},
        {"model": "gpt-3.5-turbo-instruct", "prompt": "hi"},
        {"prompt": {"id": "pmpt_1"}},
        {"model": "whisper-1", "file": b""},
        {"model": "gpt-4o"},
    ],
)
def test_arguments_that_are_a_request_are_taken_in_silence(
    body: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """One known field is enough, also where a field of it is a mapping."""
    limiter()(lambda **_: ANSWER)(**body)

    assert not caplog.records


def test_one_argument_may_be_the_whole_request(caplog: pytest.LogCaptureFixture) -> None:
    """A body that is handed over as it is, alone or beside a session, costs what its
    fields cost.
    """
    held = limiter()
    held_for: list[float] = []

    def ask(request: Any) -> Any:
        held_for.append(spent(held))
        return ANSWER | {"asked": request}

    def ask_beside(session: Any, request: Any, **_: Any) -> Any:
        return ask(request) | {"through": session}

    held(ask)(BODY)
    held(ask_beside)({"a": "mapping"}, request=BODY, verbose=True)

    assert 300 < held_for[0] < 320
    assert 340 < held_for[1] < 360
    assert not caplog.records


@pytest.mark.parametrize(
    "decorate",
    [
        lambda held: held(5),
        lambda held: held("ask"),
        lambda held: held(lambda: None),
        lambda held: held(lambda *args: None),  # noqa: ARG005
        lambda held: held(classmethod(lambda cls: None)),  # noqa: ARG005
        lambda held: held(dict),
        lambda held: held.limit(request=5)(print),
        lambda held: held.limit(request=lambda question: {})(lambda answer: None),  # noqa: ARG005
        lambda held: held.limit(request=FunctionType)(lambda answer: None),  # noqa: ARG005
        lambda held: held.limit(timeout=-1),
        lambda held: held.limit(timeout="soon"),
        lambda held: held.limit(priority="urgent"),
        lambda held: held.limit(priority=-1),
    ],
)
def test_what_cannot_work_is_said_when_it_is_decorated(decorate: Any) -> None:
    """Not at the first call, at night."""
    with pytest.raises(InvalidArgument):
        decorate(limiter())


@pytest.mark.parametrize("made", [None, 5, "body", [("model", "x")]])
def test_request_must_make_a_mapping(made: Any) -> None:
    """Said by name, and nothing was taken."""
    held = limiter()
    limited: Any = held.limit(request=lambda: made)(lambda: None)
    with pytest.raises(InvalidArgument, match=r"request= of .* must return the request body"):
        limited()
    assert (spent(held), in_flight(held)) == (0, 0)


def test_the_timeout_and_the_priority_of_the_decorator_hold() -> None:
    """A wait that must be longer raises out of the call, and the function is never
    entered.
    """
    held = limiter()
    entered: list[int] = []
    held.acquire_nowait(tokens=1_000)

    @held.limit(timeout=1, priority="batch")
    def ask(**_: Any) -> None:
        entered.append(1)

    with pytest.raises(WaitTimeout):
        ask(**BODY)
    assert entered == []


# ---- errors -------------------------------------------------------------------------


class Refused(Exception):
    """A 429 as an SDK raises it, with the level or without."""

    def __init__(self, used: int | None = None) -> None:
        super().__init__("429")
        self.status_code = 429
        text = (
            "Rate limit reached for m in organization on tokens per min (TPM): Limit 1000,"
            f" Used {used}, Requested 9. Please try again in 1s"
        )
        self.body = (
            None
            if used is None
            else {"error": {"message": text, "type": "tokens", "code": "rate_limit_exceeded"}}
        )
        self.response = type("Response", (), {"status_code": 429, "headers": {}})()


@pytest.mark.parametrize("kind", ["async", "plain", "generator", "async generator", "awaitable"])
@pytest.mark.parametrize(
    ("error", "kept", "refused"),
    [
        (ConnectionRefusedError(), False, 0),
        (URLError(ConnectionRefusedError()), False, 0),
        (Refused(), True, 1),
        (Refused(used=700), 700, 1),
        (ValueError("broken"), True, 0),
        (KeyboardInterrupt(), True, 0),
    ],
    ids=["nothing sent", "nothing sent by urllib", "429", "429 with level", "other", "interrupt"],
)
def test_an_error_settles_by_what_is_known_in_every_kind_of_function(
    kind: str, error: BaseException, kept: float, refused: int
) -> None:
    """The error comes out as it is; the reserve goes back, becomes the server's level,
    or stays.
    """
    held = limiter()

    def fail(**_: Any) -> Any:
        raise error

    async def fail_async(**_: Any) -> Any:
        raise error

    def generate(**_: Any) -> Generator[int]:
        yield from ()
        raise error

    async def generate_async(**_: Any) -> AsyncGenerator[int]:
        for each in range(0):
            yield each
        raise error

    def returning_awaitable(**request: Any) -> Awaitable[Any]:
        return fail_async(**request)

    async def all_of(stream: Any) -> None:
        async for _ in stream:
            pass

    calls: dict[str, Callable[[], Any]] = {
        "async": lambda: run(held(fail_async), **BODY),
        "plain": lambda: held(fail)(**BODY),
        "generator": lambda: list(held(generate)(**BODY)),
        "async generator": lambda: run(all_of, held(generate_async)(**BODY)),
        "awaitable": lambda: run(held(returning_awaitable), **BODY),
    }
    with pytest.raises(type(error)) as raised:
        calls[kind]()
    assert raised.value is error
    assert in_flight(held) == 0
    assert held.statistics().refused == refused
    assert spent(held) == (kept if kept > 1 else pytest.approx(308, abs=10) if kept else 0)


def test_a_cancelled_call_keeps_its_reserve_and_its_slot_falls_free(loop_clock: LoopClock) -> None:
    """What was sent may have been counted; no call behind it is held up."""
    clock = loop_clock()
    held = limiter(clock, concurrency=1)

    @held
    async def ask(**_: Any) -> Any:
        await anyio.sleep(100)

    async def main() -> None:
        with anyio.move_on_after(1):
            await ask(**BODY)
        with anyio.move_on_after(1):
            await ask(**BODY)

    clock.run(main)
    assert in_flight(held) == 0
    assert spent(held) == pytest.approx(2 * 308 - 2 * 1_000 / 60, abs=20)


# ---- generators ---------------------------------------------------------------------


def conversation(**_: Any) -> Generator[Any, Any, str]:
    """A generator that uses the whole protocol."""
    got = yield "first"
    while True:
        try:
            got = yield ("got", got)
        except KeyError as error:
            got = ("caught", str(error))
        if got == "stop":
            return "done"


async def conversation_async(**_: Any) -> AsyncGenerator[Any, Any]:
    """The same, async."""
    got = yield "first"
    while True:
        try:
            got = yield ("got", got)
        except KeyError as error:
            got = ("caught", str(error))
        if got == "stop":
            return


@pytest.mark.logs("returned no usage")
def test_a_generator_keeps_send_throw_close_and_its_value() -> None:
    """Through the limiter it behaves as without; it is in flight until it ends."""
    held = limiter()
    limited = held(conversation)
    assert inspect.isgeneratorfunction(limited)
    talk = limited(**BODY)
    assert in_flight(held) == 0, "a generator that was not begun has sent nothing"
    assert next(talk) == "first"
    assert in_flight(held) == 1
    assert talk.send(1) == ("got", 1)
    assert talk.throw(KeyError("x")) == ("got", ("caught", "'x'"))
    with pytest.raises(StopIteration) as done:
        talk.send("stop")
    assert done.value.value == "done"
    assert in_flight(held) == 0

    talk = limited(**BODY)
    next(talk)
    talk.close()
    with pytest.raises(StopIteration):
        next(talk)
    assert in_flight(held) == 0


@pytest.mark.logs("returned no usage")
def test_an_async_generator_keeps_asend_athrow_and_aclose() -> None:
    """The same protocol, awaited: an error that is thrown in can be caught by the
    function and is no end.
    """
    held = limiter()
    limited = held(conversation_async)
    assert inspect.isasyncgenfunction(limited)

    async def main() -> None:
        talk = limited(**BODY)
        assert in_flight(held) == 0
        assert await anext(talk) == "first"
        assert in_flight(held) == 1
        assert await talk.asend(1) == ("got", 1)
        assert await talk.athrow(KeyError("x")) == ("got", ("caught", "'x'"))
        assert in_flight(held) == 1
        with pytest.raises(StopAsyncIteration):
            await talk.asend("stop")
        assert in_flight(held) == 0
        talk = limited(**BODY)
        await anext(talk)
        with pytest.raises(ValueError, match="thrown"):
            await talk.athrow(ValueError("thrown"))
        assert in_flight(held) == 0
        talk = limited(**BODY)
        await anext(talk)
        await talk.aclose()
        assert in_flight(held) == 0

    run(main)


CHUNKS: list[Any] = [
    {"choices": [{"delta": {"content": "Hello "}}]},
    {"choices": [{"delta": {"content": "world"}}]},
    {"choices": [], "usage": {"prompt_tokens": 8, "completion_tokens": 70, "total_tokens": 78}},
]
END = {"choices": [{"delta": {}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    ("chunks", "tokens"), [(CHUNKS, 78), ([*CHUNKS[:2], END], 11)], ids=["with usage", "without"]
)
def test_generators_of_chunks_settle_by_usage_or_by_the_text_that_passed(
    chunks: Any, tokens: float
) -> None:
    """Sync and async: the last chunk's usage, else the estimated prompt and the words
    that came.
    """
    held = limiter()

    @held
    def stream(**_: Any) -> Generator[Any]:
        yield from chunks

    @held
    async def stream_async(**_: Any) -> AsyncGenerator[Any]:
        for chunk in chunks:
            yield chunk

    async def collect() -> list[Any]:
        return [chunk async for chunk in stream_async(**BODY)]

    assert list(stream(**BODY)) == chunks
    assert spent(held) == pytest.approx(tokens, abs=3)
    assert run(collect) == chunks
    assert spent(held) == pytest.approx(2 * tokens, abs=6)


def test_a_stream_left_early_keeps_its_reserve() -> None:
    """What the server still generates is not known, so it stays debited."""
    held = limiter()

    @held
    def stream(**_: Any) -> Generator[Any]:
        yield from CHUNKS

    for _ in stream(**BODY):
        break

    assert in_flight(held) == 0
    assert spent(held) == pytest.approx(308, abs=3)


@pytest.mark.logs("returned no usage")
def test_the_limiter_knows_which_call_is_around_the_code() -> None:
    """Inside a decorated function and inside each step of a generator its lease is the
    current one, and nowhere else.
    """
    from ratelimit.lease import current_lease

    held = limiter()
    seen: list[bool] = []

    @held
    async def ask(**_: Any) -> Any:
        await anyio.lowlevel.checkpoint()
        seen.append(current_lease() is not None)

    @held
    def stream(**_: Any) -> Generator[int]:
        seen.append(current_lease() is not None)
        yield 1
        seen.append(current_lease() is not None)

    async def main() -> None:
        await ask(**BODY)
        seen.append(current_lease() is None)
        seen.extend(current_lease() is None for _ in stream(**BODY))

    run(main)
    assert seen == [True] * 5
    assert current_lease() is None


@pytest.mark.logs("returned no usage")
@pytest.mark.parametrize("figure", [10**18, -5, "x", None, 1e300, {"a": 1}])
def test_an_absurd_usage_does_not_break_the_call(figure: Any) -> None:
    """The answer is the user's; what cannot be believed keeps the reserve."""
    held = limiter()
    answer = {
        "usage": {"prompt_tokens": figure, "completion_tokens": figure, "total_tokens": figure}
    }
    assert held(lambda **_: answer)(**BODY) == answer
    assert in_flight(held) == 0
    assert 0 <= spent(held) <= 400
