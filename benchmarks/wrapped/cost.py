"""Measure the CPU that wrapping costs a call, beside the least that any limiter costs.

Owns the request body that `transport.py` sends, its prompts, and the three clients that
are compared, call by call in turns. Must never contain faults or limits that bind.
"""

from __future__ import annotations

import copy
import json
import multiprocessing
import random
import statistics
import time
from multiprocessing.connection import Connection
from typing import Any, Final

import openai
from rich.console import Console
from rich.table import Table

from ratelimit import RateLimiter
from ratelimit.estimate.tokenizer import count
from ratelimit.feedback import read_usage
from ratelimit.integrations.bodies import MeteredBody
from ratelimit.testing import FakeOpenAI

MODEL: Final = "gpt-4o"
WORDS: Final = (
    "the of and to in is that for it as was with be by on not he his but at are this have "
    "from or had an they which one you were all her she there would their we him been has "
    "when who will no more if out so up said what its about than into them can only other "
    "time new some could these two may first then do any like my now over such our man me "
    "even most made after also did many before must through"
)
"""What prompts are made of: one token each."""


def request(text: str = "Hello, who are you?") -> dict[str, Any]:
    """Make one request body."""
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 60}


def prompt(generator: random.Random, size: int = 1_024) -> str:
    """Make a text that nobody has counted yet."""
    words = WORDS.split()
    text = ""
    while len(text) < size:
        sentence = " ".join(generator.choice(words) for _ in range(generator.randint(6, 16)))
        text += sentence.capitalize() + ". "
    return text[:size]


def _serve(pipe: Connection) -> None:
    server = FakeOpenAI(rpm=1e9, tpm=1e12, latency=0.0, output=100, output_spread=0.0)
    with server.serve() as url:
        pipe.send(url)
        pipe.recv()


class _Usage:
    """Finds the usage in a body that passes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.feed = self._parts.append

    def end(self, *, complete: bool = False) -> None:
        if complete:
            read_usage(b"".join(self._parts))


class _Least:
    """A transport that does only what no limiter with a tokenizer can leave out."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def handle_request(self, request: Any) -> Any:
        body = json.loads(request.content)
        count(body["messages"][0]["content"], "o200k_base")
        response = self._inner.handle_request(request)
        response.stream = MeteredBody(response.stream, _Usage())  # type: ignore[arg-type]  # the names of a meter that are used
        return response

    def close(self) -> None:
        pass


def _counting(client: openai.OpenAI) -> openai.OpenAI:
    inner = copy.copy(client._client)  # noqa: SLF001  # as the door does it
    inner._transport = _Least(inner._transport)  # type: ignore[assignment]  # noqa: SLF001
    return client.copy(http_client=inner)


def overhead(console: Console, calls: int) -> dict[str, Any]:
    """Measure the CPU of one thread per call, wrapped and not in turns.

    The server has a process of its own.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    generator = random.Random(0)
    spent: dict[str, list[float]] = {"bare": [], "least": [], "wrapped": []}
    try:
        with openai.OpenAI(api_key="none", base_url=ours.recv()) as bare:
            clients = {
                "bare": bare,
                "least": _counting(bare),
                "wrapped": RateLimiter(rpm=1e9, tpm=1e12).wrap(bare),
            }
            for number in range(calls):
                for name, client in clients.items():
                    body = request(prompt(generator))
                    start = time.thread_time_ns()
                    client.chat.completions.create(**body)
                    if number >= calls // 10:  # after the first ones have warmed everything
                        spent[name].append((time.thread_time_ns() - start) / 1_000)
    finally:
        ours.send(None)
        process.join()
    medians = {name: statistics.median(times) for name, times in spent.items()}
    ratios = {
        name: statistics.median(a / b for a, b in zip(times, spent["bare"], strict=True))
        for name, times in spent.items()
    }
    table = Table(
        "client", "CPU per call, median", "ratio, median", title="overhead, prompt of 1 KB"
    )
    for name, median in medians.items():
        table.add_row(name, f"{median:,.0f} us", f"{ratios[name]:.3f}")
    console.print(table)
    return {f"cpu_us_{name}": median for name, median in medians.items()} | {
        "overhead_ratio": ratios["wrapped"],
        "least_ratio": ratios["least"],
    }
