"""A vocabulary is never loaded in a thread that runs an event loop.

Loading takes half a second, for which every other task would stand still.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio

from ratelimit import RateLimiter
from ratelimit.estimate import Estimator, tokenizer
from ratelimit.estimate.quicktok import QuickCounters
from ratelimit.estimate.sources import from_quicktok
from ratelimit.estimate.vocabulary import Vocabularies

pytest.importorskip("quicktok", reason="needs a vocabulary that is here without the network")

ODD = "Write \U00010330\U00010331 and 𝐛𝐨𝐥𝐝 and \u088f, please."
PLAIN = "Write and bold, please: four letters a token."


def run_asyncio(work: Callable[[], Any]) -> Any:
    """Call `work` in a task of asyncio."""

    async def task() -> Any:
        return work()

    return asyncio.run(task())


def run_trio(work: Callable[[], Any]) -> Any:
    """Call `work` in a task of trio."""

    async def task() -> Any:
        return work()

    return trio.run(task)


LOOPS = pytest.mark.parametrize("run", [run_asyncio, run_trio], ids=["asyncio", "trio"])


@pytest.fixture
def loaders(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Begin with nothing loaded or counted; return the threads that load anything."""
    threads: list[int] = []

    def source(url: str, sha256: str) -> bytes:
        threads.append(threading.get_ident())
        return from_quicktok(url, sha256)

    def nothing(url: str, _sha256: str) -> bytes:
        raise OSError(f"no route to {url}")

    monkeypatch.setattr(tokenizer, "vocabularies", Vocabularies([source], nothing, patience=30))
    monkeypatch.setattr(tokenizer, "quick", QuickCounters(source))
    monkeypatch.setattr(tokenizer, "_memory", tokenizer._Memory(tokenizer.REMEMBERED))
    monkeypatch.setattr(tokenizer, "_preparing", set())
    return threads


def settle() -> None:
    """Wait until every thread that loads a vocabulary has ended."""
    for thread in threading.enumerate():
        if thread.name.startswith("prepare "):
            thread.join(60)


def asking(text: str) -> dict[str, Any]:
    """Make a request with one message."""
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}


@LOOPS
def test_a_first_odd_character_loads_nothing_on_the_loop(
    run: Callable[..., Any], loaders: list[int]
) -> None:
    """A character that quicktok is not trusted with counts its bytes in a task, on the
    safe side, and exactly in a thread that may wait.
    """
    tokenizer.count("a", "o200k_base")
    loaders.clear()
    on_the_loop = run(lambda: Estimator().estimate(asking(ODD)))

    assert threading.get_ident() not in loaders
    exact = Estimator().estimate(asking(ODD))
    assert exact.prompt_tokens <= on_the_loop.prompt_tokens <= 2 * exact.prompt_tokens
    assert (on_the_loop.confidence, exact.confidence) == ("guess", "exact")


@LOOPS
def test_a_first_count_on_the_loop_is_sized_and_prepares(
    run: Callable[..., Any], loaders: list[int]
) -> None:
    """Until the vocabulary is loaded, in a thread of its own, bytes are counted."""
    sized = run(lambda: Estimator().estimate(asking(PLAIN)))
    settle()

    assert loaders
    assert threading.get_ident() not in loaders
    exact = run(lambda: Estimator().estimate(asking(PLAIN)))
    assert sized.prompt_tokens >= exact.prompt_tokens
    assert (sized.confidence, exact.confidence) == ("guess", "exact")


@LOOPS
def test_without_quicktok_the_loop_loads_nothing_either(
    run: Callable[..., Any], loaders: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vocabulary of tiktoken is loaded in a thread of its own as well."""

    def absent(url: str, _sha256: str) -> bytes:
        raise FileNotFoundError(url)

    monkeypatch.setattr(tokenizer, "quick", QuickCounters(absent))
    sized = run(lambda: tokenizer.count(ODD, "cl100k_base"))
    settle()

    assert loaders
    assert threading.get_ident() not in loaders
    assert run(lambda: tokenizer.count(ODD, "cl100k_base")) <= 2 * sized


@pytest.mark.filterwarnings("ignore::ratelimit.errors.EstimateWarning")
def test_a_stand_in_is_not_loaded_on_the_loop(loaders: list[int]) -> None:
    """A vocabulary that is nowhere has a stand-in, which is loaded like any other."""
    run_asyncio(lambda: tokenizer.count(PLAIN, "p50k_base"))
    settle()
    run_asyncio(lambda: tokenizer.count(PLAIN, "p50k_base"))

    assert loaders
    assert threading.get_ident() not in loaders


def test_many_first_counts_prepare_once(loaders: list[int]) -> None:
    """A burst of tasks starts one thread."""

    def burst() -> int:
        for number in range(50):
            tokenizer.count(f"{PLAIN} {number}", "o200k_base")

        return sum(thread.name.startswith("prepare ") for thread in threading.enumerate())

    assert run_asyncio(burst) <= 1
    settle()
    assert len(set(loaders)) == 1


def test_no_thread_to_be_had_is_no_error(
    loaders: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that may start no thread counts bytes on the loop, and loads where it
    may wait.
    """

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        sized = run_asyncio(lambda: tokenizer.count(PLAIN, "o200k_base"))

    assert not loaders
    assert sized == -(-len(PLAIN) // tokenizer.BYTES_PER_TOKEN)
    assert tokenizer.count(PLAIN, "o200k_base") < sized


def test_a_reservation_in_a_task_waits_for_the_vocabulary(loaders: list[int]) -> None:
    """The first reserve of a task is counted in a worker thread, so it is exact."""
    limiter = RateLimiter(rpm=100, tpm=100_000)

    async def reserve() -> float:
        async with limiter.reserve(asking(PLAIN), endpoint="chat.completions") as lease:
            return lease.cost["input_tokens"]

    reserved = asyncio.run(reserve())

    assert threading.get_ident() not in loaders
    assert reserved == Estimator().estimate(asking(PLAIN)).prompt_tokens


def test_what_has_to_be_exact_is_loaded_where_it_stands(loaders: list[int]) -> None:
    """A server that bills by the count loads the vocabulary in its own event loop."""

    def billed() -> int:
        tokenizer.load("o200k_base")
        return tokenizer.count(PLAIN, "o200k_base")

    assert run_asyncio(billed) == tokenizer.count(PLAIN, "o200k_base")
    assert set(loaders) == {threading.get_ident()}


def test_prepared_is_ready(loaders: list[int]) -> None:
    """What a limiter prepares when it wraps a client is there for the first call."""
    estimator = Estimator()
    estimator.prepare()
    settle()

    assert len(set(loaders)) == 1
    assert threading.get_ident() not in loaders
    assert not estimator.needs_thread(asking(PLAIN))
