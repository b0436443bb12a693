"""Measure how long a lie of the server slows the limiter down.

    python benchmarks/heal.py --json out.json
    python benchmarks/heal.py --kind refusal --times twice

Owns the measurement: an honest server with a queue that never runs empty, answers that
lie - once, twice in a row, one in ten - and honest answers afterwards, on a virtual
clock. Full speed is back from the moment after which `WINDOW` seconds pass at
`FULL` of the server's rate. A lie after which that does not happen within `HORIZON`
seconds is listed under `never`.
Must never contain the lies themselves (`healing/lies.py`) or anything of the limiter's
inside.

Exit status: 0; 1 when full speed never comes back after some lie.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import time
import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a script sees its own folder only

import httpx2
from rich.console import Console
from rich.table import Table

from benchmarks.healing.lies import LIES, TIMES, Lie, Lying, Times
from ratelimit import LimiterError, Limits, RateLimiter
from ratelimit.testing import FakeOpenAI, Latency, VirtualClock

RPM: Final = 600
TPM: Final = 12_000
"""The server's limits; the tokens bind."""
RPD: Final = 100_000
"""A limit that is given besides, which no call comes near."""
PROMPT: Final = 50
OUTPUT: Final = 150
"""Billed tokens of each call: one call a second is full speed."""
WORKERS: Final = 12
"""Calls that are waiting or in flight at any time."""
WARM: Final = 60.0
"""Seconds of honest answers before the lie."""
WINDOW: Final = 60.0
"""Seconds over which speed is measured."""
FULL: Final = 0.9
"""Share of the server's rate that counts as full speed."""
HORIZON: Final = 7_200.0
"""Seconds of honest answers after which a lie counts as never forgotten."""
LONGEST_PAUSE: Final = 60.0
"""Seconds that a worker waits at most before it tries again after a failure."""

URL: Final = "http://fake/v1/chat/completions"
BODY: Final = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "What is it?"}],
    "max_tokens": 200,
}
USAGE: Final = json.dumps({"prompt_tokens": PROMPT, "completion_tokens": OUTPUT})


Origin = Literal["given", "learned", "decorated"]

ORIGINS: Final[tuple[Origin, ...]] = ("given", "learned", "decorated")
"""Whether limits were given to the limiter or learned from headers; a decorated
function has limits given, and its answers show no headers.
"""


@dataclass(frozen=True, slots=True)
class Case:
    """One lie, how often it was said, and what came of it."""

    kind: str
    lie: str
    times: str
    limits: Origin
    seconds: float | None
    """From the last lie until full speed is back; None: not within `HORIZON`."""

    @property
    def name(self) -> str:
        """The case in words."""
        return f"{self.kind}: {self.lie}, {self.times}, limits {self.limits}"


class Run:
    """One limiter and one server on a clock of their own."""

    def __init__(self, lie: Lie | None, times: Times, limits: Origin) -> None:
        self._lie, self._times, self._limits = lie, times, limits
        self._clock = VirtualClock()
        given = Limits() if limits == "learned" else Limits(rpm=RPM, tpm=TPM, rpd=RPD)
        self._limiter = RateLimiter(limits=given, clock=self._clock)
        # load the vocabulary here: a thread would not follow the virtual clock
        self._limiter.estimate(BODY)
        latency = Latency(base=0.4, per_token=0.0, spread=0.0, jitter=(0.02, 0.05))
        server = FakeOpenAI("P", rpm=RPM, tpm=TPM, latency=latency, level=0.1)
        self._lying = Lying(server.transport(), self._ended)
        self._answered: deque[float] = deque()
        self._after: float | None = None
        self._full = asyncio.Event()
        self.seconds: float | None = None

    def __call__(self) -> float | None:
        """Measure; return the seconds to full speed, None for never."""
        self._clock.run(self._run)
        return self.seconds

    async def _run(self) -> None:
        http = httpx2.AsyncClient(transport=self._lying, timeout=None)
        client = http if self._limits == "decorated" else self._limiter.wrap(http)

        async def ask() -> object:
            answer = await client.post(URL, json=BODY, headers={"x-fake-usage": USAGE})
            answer.raise_for_status()
            return answer.json()

        if self._limits == "decorated":
            ask = self._limiter.limit(request=lambda: BODY)(ask)
        workers = [asyncio.ensure_future(self._work(ask)) for _ in range(WORKERS)]
        await asyncio.sleep(WARM)
        if self._lie is None:
            self._ended()
        else:
            self._lying.begin(self._lie, self._times)
        try:
            async with asyncio.timeout(HORIZON):
                await self._full.wait()
        except TimeoutError:
            pass  # `seconds` stays None, which the table calls "never"
        for worker in workers:
            worker.cancel()
        results = await asyncio.gather(*workers, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):  # not the cancellation
                raise result

    def _ended(self) -> None:
        """Start to measure: from now on every answer is honest."""
        self._after = self._clock.now()
        self._answered.clear()

    async def _work(self, ask: Callable[[], Awaitable[object]]) -> None:
        pause = 1.0
        while True:
            try:
                await ask()
                answered = True
            except (LimiterError, httpx2.HTTPError):
                answered = False  # slow down, as a program does that tries again
            if answered:
                pause = 1.0
                self._count()
            else:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _count(self) -> None:
        """Note an answer; end the run when the last `WINDOW` seconds hold enough."""
        if self._after is None:
            return
        now = self._clock.now()
        answered = self._answered
        answered.append(now)
        needed = int(FULL * TPM / 60 * WINDOW / (PROMPT + OUTPUT))
        while len(answered) > needed:
            answered.popleft()
        if len(answered) == needed and now - answered[0] <= WINDOW and not self._full.is_set():
            self.seconds = max(0.0, answered[0] - self._after)
            self._full.set()


def measure(lies: Iterable[Lie], times: Sequence[Times]) -> list[Case]:
    """Run each lie as often as named, in each of the three ways of `ORIGINS`."""
    planned = [(lie, often, limits) for lie in lies for often in times for limits in ORIGINS]
    with ProcessPoolExecutor(initializer=_be_quiet) as pool:
        return list(pool.map(_case, *zip(*planned, strict=True), chunksize=4))


def _case(lie: Lie, times: Times, limits: Origin) -> Case:
    seconds = Run(lie, times, limits)()
    rounded = None if seconds is None else round(seconds, 1)
    return Case(lie.kind, lie.name, times, limits, rounded)


def _be_quiet() -> None:
    """Drop the limiter's warnings: it is made to read what is false."""
    warnings.simplefilter("ignore")
    logging.getLogger("ratelimit").setLevel(logging.CRITICAL)


def by_kind(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """For each kind of lie the longest time to full speed, and what never came back."""
    found = []
    for kind in dict.fromkeys(case.kind for case in cases):
        mine = [case for case in cases if case.kind == kind]
        healed = [case.seconds for case in mine if case.seconds is not None]
        found.append(
            {
                "kind": kind,
                "worst_seconds_to_full_speed": max(healed, default=None),
                "never": [case.name for case in mine if case.seconds is None],
            }
        )
    return found


def _show(console: Console, kinds: Sequence[dict[str, Any]]) -> None:
    table = Table(title="Seconds of honest answers until full speed is back")
    for column in ("kind of lie", "worst", "never comes back after"):
        table.add_column(column)
    for row in kinds:
        worst = row["worst_seconds_to_full_speed"]
        shown = "-" if worst is None else f"{worst:,.1f} s"
        table.add_row(row["kind"], shown, "\n".join(row["never"]) or "-")
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and show; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--kind", choices=sorted({lie.kind for lie in LIES}))
    parser.add_argument("--times", choices=TIMES)
    options = parser.parse_args(arguments)

    _be_quiet()
    console = Console()
    started = time.monotonic()
    honest = Run(None, "once", "given")()
    lies = [lie for lie in LIES if options.kind in {None, lie.kind}]
    cases = measure(lies, [options.times] if options.times else TIMES)
    kinds = by_kind(cases)
    _show(console, kinds)
    console.print(
        f"{len(cases)} runs in {time.monotonic() - started:.0f} s; without a lie:"
        f" {'never' if honest is None else f'{honest:.1f} s'}"
    )
    if options.json:
        document = {"kinds": kinds, "honest": honest, "cases": [asdict(case) for case in cases]}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 1 if any(row["never"] for row in kinds) else 0


if __name__ == "__main__":
    sys.exit(main())
