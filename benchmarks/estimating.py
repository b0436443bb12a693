"""What an estimate costs in time and memory, beside tiktoken on the same text.

Owns six measures, taken in one process and run. A ratio is taken pair by pair, the two
in turns, and the median is shown. Times are CPU times of the measuring thread, but for
the stall and the first use, which are what a clock on the wall shows.

* first count: one request with a text never seen before, against tiktoken's `encode` of
  that text;
* conversation: 40 turns that grow, each estimated when it is sent, against tiktoken
  counting the whole history each time;
* stall: the longest the event loop stands still while 8 prompts of 1 MB are reserved in
  a limiter at once;
* memory: what 100,000 distinct messages leave behind, by tracemalloc;
* pathological texts: time and distance to tiktoken's figure;
* fuzz: the slowest of 20,000 broken requests, those of `tests/estimate_bodies.py`.

The texts are the standard library's own sources: code, comments and prose that every
machine with a Python has.

    python benchmarks/estimating.py --json estimating.json
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import statistics
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
import tiktoken
from rich.console import Console
from rich.table import Table

from ratelimit import RateLimiter
from ratelimit.estimate import Estimator
from ratelimit.estimate import tokenizer as counting

MODEL: Final = "gpt-4o"
ENCODING: Final = "o200k_base"

SIZES: Final = {"1k": 1_000, "10k": 10_000, "100k": 100_000, "1m": 1_000_000}
"""Characters."""

TALKS: Final = {"": (2_500, 1_500), "_chat": (300, 1_200)}
"""Characters that a turn adds, in and out.

They are an agent's tool results and steps, and a chat's questions and answers.
"""

TICK: Final = 0.001
"""Seconds between two looks at the event loop."""


def sources() -> Iterator[str]:
    """Read the standard library's sources, over and over."""
    files = sorted(Path(os.__file__).parent.glob("*.py"))
    yield from cycle([file.read_text(encoding="utf-8") for file in files])


def texts(size: int) -> Iterator[str]:
    """Cut the sources into texts of `size` characters, each with a number in front."""
    corpus = "".join(islice(sources(), 150))
    for number in range(sys.maxsize):
        start = number * size % (len(corpus) - size)
        yield f"{size}.{number} {corpus[start : start + size]}"


def asking(text: str) -> dict[str, Any]:
    """Make a request with `text` as its prompt."""
    return {"model": MODEL, "messages": [{"role": "user", "content": text}]}


def timed(work: Callable[[], object]) -> float:
    """Return the CPU milliseconds that `work` takes in this thread."""
    start = time.thread_time()
    work()
    return (time.thread_time() - start) * 1e3


def first_count(tokenizer: tiktoken.Encoding, size: int, pairs: int) -> tuple[float, float, float]:
    """Return the median milliseconds of an estimate and of tiktoken, and their ratio.

    The ratio is that of neighbours, which are measured in turns.
    """
    estimator = Estimator()
    ours: list[float] = []
    raw: list[float] = []
    for number, text in enumerate(islice(texts(size), pairs)):
        body = asking(text)
        ways: list[tuple[list[float], Callable[[], object]]] = [
            (ours, lambda body=body: estimator.estimate(body)),  # type: ignore[misc]
            (raw, lambda text=text: len(tokenizer.encode(text, disallowed_special=()))),  # type: ignore[misc]
        ]
        for into, work in reversed(ways) if number % 2 else ways:
            into.append(timed(work))
    return (
        statistics.median(ours),
        statistics.median(raw),
        statistics.median(a / b for a, b in zip(ours, raw, strict=True)),
    )


def conversation(
    tokenizer: tiktoken.Encoding, sizes: tuple[int, int], start: int, turns: int = 40
) -> tuple[float, float]:
    """Return the milliseconds of all turns of one conversation, ours and tiktoken's.

    It is estimated as it grows, and counted whole by tiktoken at each turn.

    :param sizes: characters that a turn adds, in and out.
    """
    estimator = Estimator()
    asked, answered = (islice(texts(size), start, None) for size in sizes)
    messages: list[dict[str, str]] = [{"role": "system", "content": next(asked)}]
    ours = raw = 0.0
    for _ in range(turns):
        messages.append({"role": "user", "content": next(asked)})
        body = {"model": MODEL, "messages": list(messages)}
        ours += timed(lambda body=body: estimator.estimate(body))  # type: ignore[misc]
        raw += timed(
            lambda: [
                len(tokenizer.encode(message["content"], disallowed_special=()))
                for message in messages
            ]
        )
        messages.append({"role": "assistant", "content": next(answered)})
    return ours, raw


async def longest_gap(work: Callable[[], Any]) -> float:
    """Return the most milliseconds for which the loop stood still while `work` ran.

    The loop's own sleep is left out.
    """
    task = asyncio.ensure_future(work())
    worst = 0.0
    while not task.done():
        start = time.perf_counter()
        await asyncio.sleep(TICK)
        worst = max(worst, time.perf_counter() - start - TICK)
    await task
    return worst * 1e3


async def stalls(tokenizer: tiktoken.Encoding, rounds: int) -> dict[str, float]:
    """Return the longest gap of each kind of work, in milliseconds.

    It is the median over `rounds`, in each of which 8 prompts of 1 MB are read at once.
    """
    limiter = RateLimiter(rpm=1e9, tpm=1e15)
    prompts = texts(1_000_000)

    async def reserve(text: str) -> None:
        async with limiter.reserve(**asking(text)):
            pass

    async def reserves(batch: list[str]) -> None:
        await asyncio.gather(*map(reserve, batch))

    async def one_off_the_loop(batch: list[str]) -> None:
        for text in batch:
            await anyio.to_thread.run_sync(tokenizer.encode_ordinary, text)

    async def on_the_loop(batch: list[str]) -> None:
        for text in batch:
            tokenizer.encode_ordinary(text)
            await asyncio.sleep(3 * TICK)

    async def idle(batch: list[str]) -> None:
        del batch
        await asyncio.sleep(0.5)

    gaps: dict[str, list[float]] = {
        "": [],
        "_idle": [],
        "_tiktoken_thread": [],
        "_tiktoken_inline": [],
    }
    for _ in range(rounds):
        for name, work in zip(gaps, (reserves, idle, one_off_the_loop, on_the_loop), strict=True):
            batch = list(islice(prompts, 8))
            gc.collect()
            gaps[name].append(await longest_gap(partial(work, batch)))
    return {f"stall_ms{name}": statistics.median(worst) for name, worst in gaps.items()} | {
        "stall_ms_worst": max(gaps[""])
    }


def memory(messages: int) -> dict[str, float]:
    """Return the megabytes that distinct messages leave behind.

    They are looked at after three tenths of the messages and after all.
    """
    estimator = Estimator()
    figures: dict[str, float] = {}
    lines = texts(300)
    tracemalloc.start()
    for number in range(1, messages + 1):
        estimator.estimate(asking(next(lines)))
        if number in (messages * 3 // 10, messages):
            gc.collect()
            figures[f"memory_mb_{number // 1_000}k"] = tracemalloc.get_traced_memory()[0] / 1e6
    tracemalloc.stop()
    few, many = figures.values()
    return figures | {"memory_growth_mb": many - few}


def pathological() -> dict[str, str]:
    """Make the texts that no reader would write."""
    chance = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz"
    return {
        "1,000,000 equal letters": "a" * 1_000_000,
        "400 KB of one ideograph": "国" * 133_000,
        "400 KB of ideographs, no sign": "".join(
            chance.choices([chr(code) for code in range(0x4E00, 0x6E00)], k=133_000)
        ),
        "1 MB of binary": "".join(map(chr, chance.choices(range(256), k=700_000))),
        "1 MB of random letters": "".join(chance.choices(letters, k=1_000_000)),
        "1 MB of base64": "".join(
            chance.choices(letters + letters.upper() + "0123456789+/", k=1_000_000)
        ),
        "1,000,000 line ends": "\n" * 1_000_000,
        # tiktoken panics here, so its time and figure are missing
        "1,000,000 blanks": " " * 1_000_000,
    }


def fuzz(number: int) -> dict[str, float]:
    """Return the CPU milliseconds of the slowest broken request and of the median one.

    The benchmark's own garbage is left out.
    """
    from tests.estimate_bodies import bodies  # noqa: PLC0415  # no other measure needs it

    estimator = Estimator()
    spent: list[float] = []
    gc.collect()
    gc.freeze()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for body, endpoint in bodies(number):
            spent.append(timed(partial(estimator.estimate, body, endpoint=endpoint)))
    gc.unfreeze()
    return {
        "fuzz_slowest_ms": max(spent),
        "fuzz_median_ms": statistics.median(spent),
        "fuzz_bodies": number,
    }


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument(
        "--quick", action="store_true", help="fewer texts and rounds, for a first look"
    )
    arguments = parser.parse_args()
    console = Console()
    figures: dict[str, Any] = {}
    with console.status("first use") as status, warnings.catch_warnings():
        # older encodings are in no package; their stand-in is as fast
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        counting.count("a", ENCODING)
        figures["first_use_ms"] = (time.perf_counter() - start) * 1e3
        for encoding in ("cl100k_base", "p50k_base", "r50k_base"):
            counting.count("a", encoding)
        tokenizer = counting.vocabularies.load(ENCODING)
        if tokenizer is None:
            raise SystemExit(
                f"no vocabulary {ENCODING} on this machine:"
                " pip install 'ratelimit-openai[vocabulary]'"
            )

        scale = 1 if arguments.quick else 4
        for name, size in SIZES.items():
            status.update(f"first count, {name}")
            pairs = max(5, min(500, 5_000_000 // size)) * scale
            ours, raw, ratio = first_count(tokenizer, size, pairs)
            figures |= {
                f"first_count_ms_{name}": ours,
                f"first_count_ms_{name}_tiktoken": raw,
                f"first_count_ratio_{name}": ratio,
            }
        status.update("conversation")
        for kind, sizes in TALKS.items():
            talks = [conversation(tokenizer, sizes, 100 * number) for number in range(3 * scale)]
            figures |= {
                f"conversation{kind}_ms": statistics.median(ours for ours, _ in talks),
                f"conversation{kind}_ms_tiktoken": statistics.median(raw for _, raw in talks),
                f"conversation{kind}_ratio": statistics.median(ours / raw for ours, raw in talks),
            }
        status.update("stalls of the event loop")
        figures |= asyncio.run(stalls(tokenizer, 3 * scale))
        texts_without_seams: dict[str, dict[str, float | None]] = {}
        for name, text in pathological().items():
            status.update(name)
            ours = timed(lambda text=text: counting.count(text, ENCODING))  # type: ignore[misc]
            tokens = counting.count(text, ENCODING)
            whole: int | None = None
            raw_ms: float | None = None
            if "blanks" not in name:
                start = time.thread_time()
                whole = len(tokenizer.encode_ordinary(text))
                raw_ms = (time.thread_time() - start) * 1e3
            texts_without_seams[name] = {
                "ms": ours,
                "ms_tiktoken": raw_ms,
                "tokens": tokens,
                "tokens_tiktoken": whole,
            }
        figures["pathological"] = texts_without_seams
        status.update("fuzz")
        figures |= fuzz(20_000 if scale > 1 else 2_000)
        status.update("memory")
        figures |= memory(100_000)
    show(console, figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def show(console: Console, figures: dict[str, Any]) -> None:
    """Print one table of what was promised and one of the pathological texts."""
    table = Table(
        "measure", "ratelimit", "tiktoken", "ratio", "promised", title="Cost of an estimate"
    )
    row = "{:,.2f}".format
    for name in SIZES:
        key = f"first_count_ms_{name}"
        table.add_row(
            f"first count, {name} characters, ms",
            row(figures[key]),
            row(figures[f"{key}_tiktoken"]),
            row(figures[f"first_count_ratio_{name}"]),
            "1.15",
        )
    for kind, label in zip(TALKS, ("an agent", "a chat"), strict=True):
        key = f"conversation{kind}"
        table.add_row(
            f"40 turns of {label}, ms",
            row(figures[f"{key}_ms"]),
            row(figures[f"{key}_ms_tiktoken"]),
            f"{figures[f'{key}_ratio']:.3f}",
            "0.10",
        )
    table.add_row(
        "event loop stalls for, ms",
        row(figures["stall_ms"]),
        row(figures["stall_ms_tiktoken_inline"]),
        "",
        "10 ms",
    )
    table.add_row("  the worst round", row(figures["stall_ms_worst"]), "", "", "10 ms")
    table.add_row(
        "  idle; tiktoken in a thread",
        row(figures["stall_ms_idle"]),
        row(figures["stall_ms_tiktoken_thread"]),
        "",
        "",
    )
    table.add_row("after 30,000 messages, MB", row(figures["memory_mb_30k"]), "", "", "")
    table.add_row("after 100,000 messages, MB", row(figures["memory_mb_100k"]), "", "", "bounded")
    table.add_row(
        f"slowest of {figures['fuzz_bodies']:,} odd bodies, ms",
        row(figures["fuzz_slowest_ms"]),
        "",
        "",
        "50 ms",
    )
    table.add_row("first use, ms", row(figures["first_use_ms"]), "", "", "")
    console.print(table)
    table = Table("text", "ms", "tiktoken ms", "tokens", "off by", title="Pathological texts")
    for name, figure in figures["pathological"].items():
        whole = figure["tokens_tiktoken"]
        table.add_row(
            name,
            f"{figure['ms']:.0f}",
            "panics" if whole is None else f"{figure['ms_tiktoken']:.0f}",
            f"{figure['tokens']:,}",
            "" if whole is None else f"{figure['tokens'] / whole - 1:+.3%}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
