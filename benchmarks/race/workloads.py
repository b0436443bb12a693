"""The work of the race: the same bodies, arrivals and answers for every client.

Owns what is asked, when it arrives, and how many tokens it will be billed, all drawn
from one seed. Must never contain clients, servers, clocks or measuring.

A job carries its bill in the header `x-fake-usage`, so that the server bills every
client the same and the lower bound can count with it; no client reads that header.
Prompts are billed by tiktoken (or as recorded), answers are drawn here. Limits are
small and calls few, so that ten to twenty minutes of waiting, in which start and end
decide nothing, are simulated in a second or two.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ratelimit.testing import Usage
from ratelimit.testing.prompts import count_prompt

MODEL: Final = "gpt-4o"
VOCABULARY: Final = (
    "the of and to in is that for it as was with be by on not he his but at are this have from or"
    " had an they which "
    "one you summary report customers"
)
"""A text of these words is charged 1.05 times what it is billed; the median of 614
recorded chat calls is 1.08.
"""
SATURATED: Final = 1.5
"""Work that is not said to come otherwise arrives at this multiple of the pace that the
limits allow, so that a line forms.
"""
MOST_MORE: Final = 2.0
LONGEST: Final = 50_000
"""Characters; longer bodies are counted in a worker thread, and a thread's time is not
virtual: the race leaves them out.
"""


Call = tuple[Mapping[str, Any], Usage]
Taken = Callable[[Mapping[str, Any], Usage], float]


def in_full(_: Mapping[str, Any], usage: Usage) -> float:
    """What a server takes for good that settles to the usage."""
    return usage.total_tokens


@dataclass(frozen=True, slots=True)
class Job:
    """One call: its arrival in seconds after the start, its body and its bill."""

    number: int
    arrival: float
    body: Mapping[str, Any]
    usage: Usage

    @property
    def headers(self) -> dict[str, str]:
        """What tells the server the bill, and the ledger the job."""
        billed = {
            "prompt_tokens": self.usage.prompt_tokens,
            "completion_tokens": self.usage.completion_tokens,
        }
        return {"x-fake-usage": json.dumps(billed), "x-client-request-id": str(self.number)}


@dataclass(frozen=True, slots=True)
class Course:
    """One workload, drawn: jobs in the order of arrival, limits, and levels."""

    name: str
    jobs: Sequence[Job]
    limits: Mapping[str, float]
    level: float = 1.0


@dataclass(frozen=True, slots=True)
class Workload:
    """How a course is drawn.

    `calls`: on a server that settles to the usage; one that takes less for good is
    given more, so that it is as busy for as long. `draw(random)` makes one call: words
    of prompt, max_tokens (None: the body sets no bound), tokens of the answer. `load`:
    arrivals as a multiple of what the limits allow; None: all at once. `poisson`:
    arrivals at random moments instead of even ones.
    """

    name: str
    what: str
    calls: int
    draw: Callable[[random.Random], tuple[int, int | None, int]]
    rpm: float = 500
    tpm: float = 30_000
    load: float | None = SATURATED
    poisson: bool = False
    level: float = 1.0
    daily: Mapping[str, float] = field(default_factory=lambda: {"rpd": 10_000, "tpd": 2_000_000})

    def scaled(self, calls: float, limits: float) -> Workload:
        """The same with more or fewer calls and with other limits, both as factors."""
        return replace(
            self,
            calls=max(1, round(self.calls * calls)),
            rpm=self.rpm * limits,
            tpm=self.tpm * limits,
        )

    def course(self, seed: int, *, daily: bool = False, taken: Taken = in_full) -> Course:
        """Draw the jobs; the same seed, the same jobs.

        :param daily: the server has daily limits as well.
        :param taken: tokens that a server takes for good for a body and its bill; what
            the limits allow follows from it.
        """
        generator = random.Random(f"{self.name} {seed}")
        calls = [_call(generator, *self.draw(generator)) for _ in range(self.calls)]
        limits = {"rpm": self.rpm, "tpm": self.tpm} | (dict(self.daily) if daily else {})
        more = (
            round(
                self.calls
                * min(_pace(calls, limits, taken) / _pace(calls, limits, in_full), MOST_MORE)
            )
            - self.calls
        )
        calls += [_call(generator, *self.draw(generator)) for _ in range(more)]
        pace = _pace(calls, limits, taken)
        return Course(
            self.name,
            _arranged(generator, calls, self.load and self.load * pace, poisson=self.poisson),
            limits,
            self.level,
        )


def _call(generator: random.Random, words: int, most: int | None, answer: int) -> Call:
    text = " ".join(generator.choices(VOCABULARY.split(), k=words))
    body: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
    if most is not None:
        body["max_tokens"] = most
    return body, Usage(
        count_prompt("chat.completions", body), answer if most is None else min(answer, most)
    )


def _pace(calls: Sequence[Call], limits: Mapping[str, float], taken: Taken) -> float:
    """Calls a second that the minute's limits allow in the long run."""
    tokens = sum(taken(body, usage) for body, usage in calls) / len(calls)
    return min(limits["rpm"], limits["tpm"] / tokens) / 60


def _arranged(
    generator: random.Random, calls: Sequence[Call], pace: float | None, *, poisson: bool
) -> list[Job]:
    jobs, moment = [], 0.0
    for number, (body, usage) in enumerate(calls):
        jobs.append(Job(number, moment, body, usage))
        if pace:
            moment += generator.expovariate(pace) if poisson else 1 / pace
    return jobs


def _mixed(generator: random.Random) -> tuple[int, int | None, int]:
    most = generator.choice([100, 400, 1_000, 1_600])
    return generator.choice([40, 120, 400, 1_200]), most, round(most * generator.uniform(0.3, 1.0))


def _tiny(generator: random.Random) -> tuple[int, int | None, int]:
    return 8, 16, generator.randint(4, 16)


def _huge(generator: random.Random) -> tuple[int, int | None, int]:
    if generator.random() < 0.02:
        return 4_500, 2_500, generator.randint(1_000, 2_500)
    return 150, 200, generator.randint(100, 200)


def _brief(generator: random.Random) -> tuple[int, int | None, int]:
    return generator.randint(100, 200), 60, generator.randint(30, 60)


def _short(generator: random.Random) -> tuple[int, int | None, int]:
    return 50, 2_000, generator.randint(20, 120)


def _long(generator: random.Random) -> tuple[int, int | None, int]:
    return 50, None, generator.randint(800, 2_000)


WORKLOADS: Final = {
    each.name: each
    for each in (
        Workload("tiny", "many tiny calls: requests bind", 500, _tiny, rpm=45),
        Workload("tokens", "prompts and answers of all sizes: tokens bind", 360, _mixed),
        Workload("huge", "one call in fifty takes half of the bucket", 400, _huge, tpm=15_000),
        Workload("at once", "all calls arrive in the same moment", 360, _mixed, load=None),
        Workload("short", "answers a thirtieth of max_tokens", 500, _short, tpm=6_000),
        Workload("long", "no max_tokens, answers of 800 to 2,000 tokens", 220, _long, rpm=30),
        Workload(
            "half empty", "the server's buckets are half empty at the start", 360, _mixed, level=0.5
        ),
        Workload(
            "poisson 50",
            "random arrivals at 50 % of the limit",
            170,
            _mixed,
            load=0.5,
            poisson=True,
        ),
        Workload(
            "poisson 90",
            "random arrivals at 90 % of the limit",
            310,
            _mixed,
            load=0.9,
            poisson=True,
        ),
        Workload(
            "poisson 120",
            "random arrivals at 120 % of the limit",
            400,
            _mixed,
            load=1.2,
            poisson=True,
        ),
        Workload(
            "brief",
            "a minute of short calls, all at once: tokens bind",
            150,
            _brief,
            tpm=15_000,
            load=None,
        ),
    )
}
RECORDED: Final = "calls"
"""The name of the workload that is read from a file."""


def recorded(
    path: Path, seed: int, *, daily: bool = False, taken: Taken = in_full, most: int = 400
) -> Course:
    """Read recorded chat calls with their bill, in an order drawn from the seed.

    :param path: JSON lines, gzipped, each with `endpoint`, `request` and `usage`.
    :param most: take no more calls than that.
    """
    generator = random.Random(f"{RECORDED} {seed}")
    limits = {"rpm": 60.0, "tpm": 15_000.0} | (
        {"rpd": 10_000.0, "tpd": 2_000_000.0} if daily else {}
    )
    calls: list[Call] = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            call = json.loads(line)
            body, usage = call["request"], call["usage"]
            bounds = [body.get(name) for name in ("max_tokens", "max_completion_tokens")]
            whole = all(bound is None or (isinstance(bound, int) and bound > 0) for bound in bounds)
            if (
                call["endpoint"] != "chat.completions"
                or not usage
                or not whole
                or not body.get("messages")
                or body.get("stream")
            ):
                continue
            billed = Usage(usage["prompt_tokens"], usage.get("completion_tokens", 0))
            if len(json.dumps(body)) <= LONGEST and billed.total_tokens < limits["tpm"] / 4:
                calls.append((body, billed))
    generator.shuffle(calls)
    calls = calls[:most]
    return Course(
        RECORDED,
        _arranged(generator, calls, SATURATED * _pace(calls, limits, taken), poisson=False),
        limits,
    )
