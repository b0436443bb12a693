"""The live view: what it shows, where it stays quiet, and that it breaks no program."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from typing import Any

import pytest
from rich.console import Console

import ratelimit
from ratelimit import InvalidArgument, Limits, RateLimiter, events
from ratelimit.events import Settled, Waited
from ratelimit.telemetry.figures import MOST_KEPT, Recent
from ratelimit.telemetry.live import MOST_FAMILIES, View, pause_after
from ratelimit.testing import ThreadClock
from tests.answers import refuse

BODY: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "Hi"}],
    "max_tokens": 20,
}


def terminal(file: Any = None) -> Console:
    """Return a console that takes its file for a terminal."""
    return Console(
        file=io.StringIO() if file is None else file,
        force_terminal=True,
        width=140,
        _environ={"TERM": "xterm"},
    )


def drawn(view: View) -> str:
    """Return the table of a view as text."""
    console = terminal()
    console.print(view.table())
    text: str = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    return text


def test_the_table_shows_levels_waits_refusals_and_tokens() -> None:
    """One row a limit, and the figures of its family beside the first."""
    limiter = RateLimiter(rpm=60, tpm=600, arrival_slack=0, clock=ThreadClock())
    view = View(limiter)
    with limiter.subscribe(view.recent, Waited, Settled):
        limiter.acquire_sync(tokens=600).close()
        limiter.acquire_sync(tokens=100).close()
        limiter.acquire_sync(BODY).settle({"prompt_tokens": 10, "completion_tokens": 5})
        refuse(limiter)
        assert events.flush(10)

        text = drawn(view)

    assert "60 requests/min" in text
    assert "600 tokens/min" in text
    assert "\u2591" in text
    assert "/ 10.0 s" in text
    row = next(line for line in text.splitlines() if "60 requests/min" in line)
    assert [cell.strip() for cell in row.split("\u2502")][-2] == "15"


def test_a_family_without_limits_is_shown() -> None:
    """Nothing is known of it yet."""
    assert "none known" in drawn(View(RateLimiter(clock=ThreadClock())))


def test_many_families_are_cut_to_the_busiest() -> None:
    """A terminal has few lines, and those with calls come first."""
    limits = {f"model-{number}": Limits(rpm=5) for number in range(MOST_FAMILIES + 3)}
    limiter = RateLimiter(limits=limits, clock=ThreadClock())
    lease = limiter.acquire_sync(tokens=1, model=f"model-{MOST_FAMILIES + 2}")

    text = drawn(View(limiter))
    lease.close()

    assert f"model-{MOST_FAMILIES + 2}" in text
    assert "and 3 more families" in text


def bill(family: str, at: float) -> Settled:
    """Return a bill of 7 tokens."""
    return Settled(at=at, family=family, estimated=10, used=7, operation="")


def wait(family: str, seconds: float) -> Waited:
    """Return a wait of that many seconds."""
    return Waited(
        at=0.0,
        family=family,
        call=1,
        outcome="admitted",
        reason="limit",
        limit=None,
        position=0,
        predicted=None,
        seconds=seconds,
        operation="",
    )


def test_tokens_older_than_a_minute_do_not_count() -> None:
    """The figure is what was billed of late."""
    recent = Recent()
    for at in (0.0, 50.0):
        recent(bill("*", at))

    assert recent.tokens("*", 55.0) == 14
    assert recent.tokens("*", 70.0) == 7
    assert recent.tokens("another", 70.0) is None


def test_percentiles_are_those_of_the_calls_that_waited() -> None:
    """The median and the 95th percentile of twenty waits, and none without any."""
    recent = Recent()
    for number in range(1, 21):
        recent(wait("*", float(number)))

    assert recent.percentiles("*") == (10, 19)
    assert recent.percentiles("another") is None


def test_what_the_program_prints_goes_where_it_is_sent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its output may be a file or a pipe, while the view is on the terminal."""
    with ratelimit.live(RateLimiter(rpm=60), console=terminal()):
        print("an answer")
        print("an error", file=sys.stderr)

    assert capsys.readouterr() == ("an answer\n", "an error\n")


def test_it_draws_while_the_block_runs() -> None:
    """And leaves the last figures on the screen."""
    console = terminal()
    limiter = RateLimiter(rpm=60)

    with ratelimit.live(limiter, console=console):
        limiter.acquire_sync(tokens=5).close()

    text: str = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert "60 requests/min" in text
    assert limiter._engine.unwatched is not None


@pytest.mark.parametrize(
    "console",
    [
        Console(file=io.StringIO()),
        Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"}),
    ],
    ids=["pipe", "dumb"],
)
def test_it_is_quiet_where_there_is_no_terminal(console: Console) -> None:
    """A pipe, a file and a dumb terminal get nothing."""
    limiter = RateLimiter(rpm=60)
    with ratelimit.live(limiter, console=console):
        limiter.acquire_sync(tokens=5).close()

    assert console.file.getvalue() == ""  # type: ignore[attr-defined]  # a StringIO


class Lost(io.StringIO):
    """A terminal that is gone."""

    def write(self, _: str) -> int:
        """Fail."""
        raise BrokenPipeError("gone")


@pytest.mark.logs("live view of the limiter has ended", "could not be ended")
def test_a_terminal_that_is_lost_breaks_no_program() -> None:
    """One sentence, and the block goes on to its end."""
    limiter = RateLimiter(rpm=60)
    with ratelimit.live(limiter, console=terminal(Lost())):
        limiter.acquire_sync(tokens=5).close()

    assert limiter.statistics().families["*"].ended == 1


class Stopped(io.StringIO):
    """A terminal that takes nothing more, as after Ctrl-S."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def write(self, text: str) -> int:
        """Wait until it goes on."""
        self.go_on.wait()
        return super().write(text)


def test_a_terminal_that_is_stopped_holds_up_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """The block ends, though its last figures cannot be drawn."""
    monkeypatch.setattr("ratelimit.telemetry.live.LAST_SECONDS", 0.0)
    terminal_file = Stopped()
    limiter = RateLimiter(rpm=60)
    with ratelimit.live(limiter, console=terminal(terminal_file)):
        limiter.acquire_sync(tokens=5).close()
    terminal_file.go_on.set()

    assert limiter.statistics().families["*"].ended == 1


def test_a_look_takes_a_tenth_of_a_core_at_most() -> None:
    """With thousands of families one look takes longer than the pause asked for."""
    assert pause_after(0.01, every=0.25) == 0.25
    assert pause_after(1.0, every=0.25) == 9


@pytest.mark.parametrize("family", ["*", "another"])
def test_what_is_kept_of_families_is_bounded(family: str) -> None:
    """Their names come from requests; the latest are shown."""
    recent = Recent()
    for number in range(MOST_KEPT + 5):
        recent(bill(f"model-{number}", at=0.0))
        recent(wait(f"model-{number}", 1.0))
    recent(bill(family, at=1.0))

    assert len(recent._bills) == MOST_KEPT
    assert len(recent._waits) == MOST_KEPT
    assert recent.tokens(family, 1.0) == 7
    assert recent.tokens("model-0", 1.0) is None


def test_bills_of_a_family_that_is_not_shown_go_too() -> None:
    """What is older than a minute is dropped when the next bill comes."""
    recent = Recent()
    for at in range(200):
        recent(bill("*", at=float(at)))

    assert len(recent._bills["*"]) == 61


def test_an_error_of_the_block_passes() -> None:
    """The view ends, and the program's own error is its own."""
    with pytest.raises(ZeroDivisionError), ratelimit.live(RateLimiter(), console=terminal()):
        _ = 1 / 0


def test_a_pace_that_cannot_be_is_answered_in_a_sentence() -> None:
    """Before anything is drawn."""
    with pytest.raises(InvalidArgument, match="every="), ratelimit.live(RateLimiter(), every=-1):
        pass


ABSENT = """
import sys
sys.modules["rich.live"] = None
import ratelimit
try:
    ratelimit.live(ratelimit.RateLimiter()).__enter__()
except ratelimit.InvalidArgument as error:
    print(error)
"""


def test_a_missing_library_is_named_with_its_command() -> None:
    """It says what to install."""
    done = subprocess.run(
        [sys.executable, "-c", ABSENT], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.startswith("rich is not installed: ")
