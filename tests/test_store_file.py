"""One quota for the processes of a machine: real processes, real files, real kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from ratelimit import (
    InvalidArgument,
    Limit,
    LimiterWarning,
    Limits,
    RateLimiter,
    StoreUnavailable,
    WouldBlock,
)
from ratelimit.stores import alone
from ratelimit.stores.folder import joined
from ratelimit.stores.folder.making import FILE_BYTES, FIRST, MAGIC, RECORD_BYTES, NoQuotaFile
from ratelimit.stores.folder.processes import Process, this_process
from ratelimit.stores.folder.quota_file import QuotaFile
from ratelimit.stores.folder.store import FileStore
from ratelimit.stores.payments import Payment
from ratelimit.testing import ThreadClock
from tests.quota_files import MachineClock, level, limiter, store_of

ROOT = Path(__file__).parents[1]

Program = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def program(store: str) -> Iterator[Program]:
    """Starts processes, each with a ``limiter`` of its own on the quota."""
    with ExitStack() as started:

        def start(body: str, limits: str) -> subprocess.Popen[str]:
            begin = f"""
                import os, sys, time
                from ratelimit import Limit, Limits, RateLimiter
                limiter = RateLimiter(arrival_slack=0, store={store!r}, {limits})
            """
            process = subprocess.Popen(
                [sys.executable, "-c", dedent(begin) + dedent(body)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stdin=subprocess.PIPE,
                text=True,
            )
            started.enter_context(process)
            started.callback(process.kill)
            return process

        yield start


def told(process: subprocess.Popen[str]) -> str:
    """The next line that a process prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_processes_share_one_quota(store: str, program: Program) -> None:
    """Three processes that take all they can get, together get what one would."""
    body = """
        taken = 0
        try:
            while True:
                limiter.acquire_nowait(tokens=1)
                taken += 1
        except Exception as error:
            print(taken)
    """
    processes = [program(body, "rpd=300") for _ in range(3)]
    taken = [int(told(one)) for one in processes]
    for one in processes:
        one.wait()

    assert sum(taken) == 300
    assert level(limiter(store, rpd=300), "requests/86400s") < 1


def test_a_program_that_is_started_again_goes_on_from_its_level(store: str) -> None:
    """Also without a cold start: the store knows what the server's bucket holds."""
    first = limiter(store, rpd=100)
    for _ in range(40):
        first.acquire_nowait(tokens=1)
    assert not store_of(first).remembers
    del first

    again = limiter(store, rpd=100)
    assert level(again, "requests/86400s") == pytest.approx(60, abs=0.1)
    assert store_of(again).remembers
    again._engine.listen()
    again.acquire_nowait(tokens=1)
    again.acquire_nowait(tokens=1)


def test_what_a_killed_process_had_in_flight_is_free_again(store: str, program: Program) -> None:
    """Its slots come back within two seconds; what it has debited stays debited."""
    process = program(
        """
        leases = [limiter.acquire_nowait(tokens=1) for _ in range(2)]
        print("ready", flush=True)
        time.sleep(100)
        """,
        "rpd=100, concurrency=2",
    )
    assert told(process) == "ready"
    clock = MachineClock()
    mine = limiter(store, rpd=100, concurrency=2, clock=clock)
    with pytest.raises(WouldBlock):
        mine.acquire_nowait(tokens=1)
    assert mine.statistics().families["*"].processes == 2

    process.kill()
    process.wait()
    before = clock.now()
    mine.acquire_sync(tokens=1)
    assert clock.now() - before < 2
    assert level(mine, "requests/86400s") == pytest.approx(97, abs=0.1)
    assert mine.statistics().families["*"].processes == 1


def test_killed_at_any_moment_it_leaves_a_whole_record(
    store: str, program: Program, tmp_path: Path
) -> None:
    """Many kills in the middle of takes and settlements: the file can be read, nothing
    is admitted beyond the limit, and the quota can be used up to it.
    """
    marks = tmp_path / "marks"
    body = f"""
        marks = os.open({str(marks)!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        while True:
            limiter.acquire_nowait(tokens=1).settle(tokens=1)
            os.write(marks, b"1")
            os.write(1, b"1")
    """
    kills = 5
    for number in range(kills):
        process = program(body, "limits=Limits(Limit('requests', 1e6, per=1e12))")
        assert process.stdout is not None
        assert process.stdout.read(1 + 61 * number)
        process.send_signal(signal.SIGKILL)
        process.wait()

    taken = marks.stat().st_size
    limits = Limits(Limit("requests", 1e6, per=1e12))
    spent = 1e6 - level(limiter(store, limits=limits), "requests/1e+12s")
    assert taken <= round(spent) <= taken + kills


def test_a_frozen_process_holds_nobody_up(store: str, program: Program) -> None:
    """A process that was stopped with the lock in its hands counts as a lost store, and
    as none when it goes on.
    """
    clock = MachineClock()
    mine = limiter(store, rpm=60, clock=clock)
    process = program(
        """
        held = limiter._engine.only.admission.store._file
        print(held.lock(), flush=True)
        sys.stdin.readline()
        held.unlock()
        print("free", flush=True)
        sys.stdin.readline()
        """,
        "rpm=60",
    )
    assert told(process) == "True"
    with pytest.warns(LimiterWarning, match="stays locked by another process"):
        mine.acquire_sync(tokens=1)

    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert told(process) == "free"
    clock.sleep(alone.ASK_SECONDS)
    mine.acquire_nowait(tokens=1)
    assert store_of(mine)._file is not None
    process.communicate("\n")


def test_a_busy_lock_is_no_frozen_one(store: str, path: Path) -> None:
    """Where many processes are at work, one may find the file locked for seconds; while
    its records go on, none of them is frozen.
    """
    clock = ThreadClock()
    mine, busy = store_of(limiter(store, rpm=60, clock=clock)), QuotaFile(path)
    assert busy.lock()
    for _ in range(4):
        assert mine.take(Payment({"requests": 1}), clock.now()) is not None
        record = busy.read()
        assert record is not None
        busy.write(record)
        clock.sleep(2 * joined.STUCK_SECONDS)
    busy.unlock()

    assert mine.take(Payment({"requests": 1}), clock.now()) is None
    assert level(limiter(store, rpm=60, clock=clock)) == pytest.approx(59, abs=0.1)


def test_a_forked_worker_goes_on_with_the_same_quota(store: str) -> None:
    """It spends nothing twice, and what its parent has in flight is its parent's."""
    mine = limiter(store, rpd=100)
    lease = mine.acquire_nowait(tokens=1)
    child = os.fork()
    if not child:
        status = 1
        try:
            lease.settle(tokens=1)
            del lease
            mine.acquire_nowait(tokens=1).settle(tokens=1)
            status = 0 if round(level(mine, "requests/86400s")) == 98 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    assert level(mine, "requests/86400s") == pytest.approx(98, abs=0.1)
    assert mine.statistics().families["*"].in_flight == 1
    lease.settle(tokens=1)
    assert mine.statistics().families["*"].in_flight == 0


def test_learned_limits_and_pauses_are_everybodys(store: str) -> None:
    """What one process is told by the server, the others need not be told."""
    clock = ThreadClock()
    one, other = limiter(store, clock=clock), limiter(store, clock=clock)
    lease = one.acquire_nowait(tokens=1)
    lease.observe({"x-ratelimit-limit-requests": "50", "x-ratelimit-remaining-requests": "20"})
    lease.settle(tokens=1)

    assert level(other) == pytest.approx(20)
    one._engine.families()["*"].admission.close(30.0)
    with pytest.raises(WouldBlock):
        other.acquire_nowait(tokens=1)
    clock.sleep(30)
    other.acquire_nowait(tokens=1)


def test_processes_with_different_limits_are_told(store: str) -> None:
    """The newest hold, so that a changed program works, and the difference is said."""
    clock = ThreadClock()
    first = limiter(store, rpm=60, clock=clock)
    with pytest.warns(LimiterWarning, match="different limits"):
        second = limiter(store, rpm=30, clock=clock)

    assert level(second) == level(first) == 30


def test_the_machines_restart_is_told_by_the_calendar(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that starts anew does not keep a debt for good, nor forget it."""
    first = limiter(store, clock=ThreadClock(), rpm=60)
    first.acquire_nowait(requests=60)
    wall = time.time()
    monkeypatch.setattr(time, "time", lambda: wall + 30)
    clock = ThreadClock()
    clock.sleep(500_000)

    assert level(limiter(store, clock=clock, rpm=60)) == pytest.approx(30, abs=1)


@pytest.mark.parametrize("wall", [-86_400.0, 86_400.0])
def test_the_calendar_may_jump(store: str, wall: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the machine runs, no level depends on the time of the day."""
    clock = ThreadClock()
    first = limiter(store, rpm=60, clock=clock)
    first.acquire_nowait(requests=60)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + wall)
    clock.sleep(5)

    assert level(limiter(store, rpm=60, clock=clock)) == pytest.approx(5)


@pytest.fixture(params=["deleted", "damaged"])
def lost(request: pytest.FixtureRequest, path: Path) -> Callable[[], None]:
    """Makes the file go away in the middle, one way or another."""

    def lose() -> None:
        if request.param == "deleted":
            path.unlink()
            path.parent.rmdir()
            path.parent.touch()  # nothing can be made there
        else:
            path.write_bytes(MAGIC + b"\xff" * (FILE_BYTES - 16))

    return lose


def test_without_its_file_a_process_goes_on_with_its_share(
    store: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one warning; and what it spent is debited when the file is back."""
    clock = ThreadClock()
    mine = limiter(store, rpm=60, clock=clock)
    monkeypatch.setattr(FileStore, "processes", 2)
    mine.acquire_nowait(requests=60)
    clock.sleep(60)
    kept = path.read_bytes()
    path.unlink()
    path.parent.rmdir()
    path.parent.touch()
    with pytest.warns(LimiterWarning, match="1/2 of each limit"):
        mine.acquire_nowait(requests=1)
    for _ in range(29):
        mine.acquire_nowait(requests=1)
    with pytest.raises(WouldBlock):
        mine.acquire_nowait(requests=1)

    path.parent.unlink()
    path.parent.mkdir()
    path.write_bytes(kept)
    clock.sleep(2)
    assert level(mine) == pytest.approx(60 - 30, abs=3)


def test_a_lost_file_raises_where_that_was_asked_for(store: str, lost: Callable[[], None]) -> None:
    """At once, in words; settling never raises."""
    clock = ThreadClock()
    mine = limiter(store, rpm=60, clock=clock, on_store_error="raise")
    lease = mine.acquire_nowait(tokens=1)
    lost()
    clock.sleep(joined.LOOK_SECONDS)
    with pytest.warns(LimiterWarning, match="is lost"):
        lease.settle(tokens=1)
    with pytest.raises(StoreUnavailable, match="on_store_error"):
        mine.acquire_nowait(tokens=1)


def test_a_lost_file_opens_where_that_was_asked_for(store: str, lost: Callable[[], None]) -> None:
    """Calls go without limits; the warning says so."""
    clock = ThreadClock()
    mine = limiter(store, rpm=1, clock=clock, on_store_error="open")
    mine.acquire_nowait(tokens=1)
    lost()
    clock.sleep(joined.LOOK_SECONDS)
    with pytest.warns(LimiterWarning, match="without limits"):
        mine.acquire_nowait(tokens=1).settle(tokens=1)
    for _ in range(5):
        mine.acquire_nowait(tokens=1).settle(tokens=1)


def test_a_deleted_file_is_made_anew_from_what_is_known(store: str, path: Path) -> None:
    """An emptied store is no reason to send a full burst again."""
    clock = ThreadClock()
    mine = limiter(store, rpd=100, clock=clock)
    mine.acquire_nowait(requests=80)
    path.unlink()
    clock.sleep(2)
    with pytest.warns(LimiterWarning, match="deleted or replaced"):
        mine.acquire_nowait(requests=1)
    clock.sleep(2)

    assert level(mine, "requests/86400s") == pytest.approx(19, abs=1)
    assert level(limiter(store, rpd=100, clock=clock), "requests/86400s") == pytest.approx(
        19, abs=1
    )


def test_a_full_disk_is_said_and_holds_nobody_up(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by a signal when the map is used."""

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.warns(LimiterWarning, match="No space left on device"):
        mine = limiter(store, rpm=60)
    mine.acquire_nowait(tokens=1)


def test_a_file_of_something_else_is_left_alone(path: Path) -> None:
    """No byte of it changes."""
    path.parent.mkdir()
    path.write_text("the diary of somebody", "utf-8")

    with pytest.raises(NoQuotaFile, match="something else"):
        QuotaFile(path)
    assert path.read_text("utf-8") == "the diary of somebody"


def test_the_file_is_the_users_alone(store: str, path: Path) -> None:
    """Nobody else reads or writes the levels."""
    limiter(store, rpm=60)

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "given",
    [
        "",
        "file:",
        "file://",
        "redis://user:secret@host:port/0",
        "http://user:secret@host/0",
        "/a/quota",
        5,
        b"file:/x",
    ],
)
def test_what_is_no_store_is_refused_in_a_sentence(given: Any) -> None:
    """It shows how to write one, and no password."""
    with pytest.raises(InvalidArgument, match=r"store= is (an address|.*\"file:\" and)") as raised:
        RateLimiter(rpm=60, store=given)

    assert "secret" not in str(raised.value)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    """Before anything is sent."""
    (tmp_path / "quota").touch()

    with pytest.raises(InvalidArgument, match="names a folder"):
        limiter(f"file:{tmp_path}/quota", rpm=60)


def test_an_unknown_answer_to_a_loss_is_refused() -> None:
    """By the known ones."""
    with pytest.raises(InvalidArgument, match="'local', 'raise', 'open'"):
        RateLimiter(rpm=60, on_store_error="panic")  # type: ignore[arg-type]


def test_families_have_files_of_their_own(tmp_path: Path) -> None:
    """Whatever their names hold: slashes, stars, 500 letters."""
    names = ["gpt-4o*|gpt-4.1", "../up", "x" * 500, "x" * 499 + "y"]
    RateLimiter(
        limits={name: RateLimiter(rpm=60).limits("any") for name in names},
        store=f"file:{tmp_path}/quota",
    )

    assert len(list((tmp_path / "quota").iterdir())) == 4
    assert [one.name for one in tmp_path.iterdir()] == ["quota"]


def test_a_process_is_known_by_more_than_its_number() -> None:
    """A number is given to another process later; a dead child keeps it for a while."""
    me = this_process()
    child = subprocess.Popen(["sleep", "100"])
    theirs = Process(child.pid, me.space, 0)
    assert me.runs
    assert theirs.runs
    assert not me._replace(started=me.started + 1).runs
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is dead, and not yet buried

    assert not theirs._replace(started=5).runs
    child.wait()
    assert not theirs.runs


@pytest.mark.parametrize("size", [0, 100, 16_384])
def test_a_file_that_is_cut_short_ends_no_process(store: str, path: Path, size: int) -> None:
    """What is missing of it is not read, which would be a bus error: the file is lost,
    and made whole again.
    """
    clock = ThreadClock()
    mine = limiter(store, rpd=100, clock=clock)
    mine.acquire_nowait(requests=1)
    os.truncate(path, size)
    with pytest.warns(LimiterWarning, match="cut short"):
        mine.acquire_nowait(requests=1)
    clock.sleep(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LimiterWarning)  # that the rest of it is damaged
        mine.acquire_nowait(requests=1)

    assert level(limiter(store, rpd=100, clock=clock), "requests/86400s") == pytest.approx(
        97, abs=1
    )


@pytest.mark.parametrize("damage", ["zeros", "noise", "heads"])
def test_a_damaged_file_is_written_anew(store: str, path: Path, damage: str) -> None:
    """As a loss of power leaves it: by who runs, and by who starts, who is warned."""
    clock = ThreadClock()
    mine = limiter(store, rpd=100, clock=clock)
    mine.acquire_nowait(requests=10)
    size = path.stat().st_size
    at, noise = {
        "zeros": ([0], bytes(size)),
        "noise": ([len(MAGIC)], os.urandom(size - len(MAGIC))),
        "heads": ([FIRST + 16, FIRST + RECORD_BYTES + 16], os.urandom(40)),  # behind the checksum
    }[damage]
    with path.open("r+b") as file:
        for place in at:
            file.seek(place)
            file.write(noise)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", LimiterWarning)
        started = limiter(store, rpd=100, clock=clock)
    started.acquire_nowait(requests=1)
    clock.sleep(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LimiterWarning)
        mine.acquire_nowait(requests=1)
    clock.sleep(2)
    mine.acquire_nowait(requests=1)

    assert ["was damaged" in str(one.message) for one in seen] == [True][: damage != "zeros"]
    assert store_of(mine)._file is not None
    assert level(started, "requests/86400s") == level(mine, "requests/86400s")
