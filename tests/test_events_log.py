"""The log: one line says what happens and what to do, at the level that it is worth."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from dataclasses import replace
from math import inf
from typing import Any

import pytest

from ratelimit import RateLimiter, events
from ratelimit.events import delivery
from ratelimit.events.log import MOST_FAMILIES, MOST_REFUSED, MOST_WATCHED, QUIET_SECONDS, Log
from ratelimit.testing import FakeOpenAI, Fault, ThreadClock
from tests.answers import HEADERS, TooMany, refuse, refused_for


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Return what is logged at DEBUG and above."""
    caplog.set_level(logging.DEBUG, "ratelimit")
    return caplog


def lines(log: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return the levels and the lines once all are written."""
    assert events.flush(10)
    return [(record.levelname, record.getMessage()) for record in log.records]


def make(**options: Any) -> RateLimiter:
    """Return a limiter on a virtual clock."""
    return RateLimiter(arrival_slack=0, clock=ThreadClock(), **options)


def test_many_429s_are_one_line_with_their_number(log: pytest.LogCaptureFixture) -> None:
    """The warnings are rate-limited themselves, and none is lost from the count."""
    limiter = make()
    for _ in range(5):  # after pauses of 1, 2, 4 and 8 s
        refuse(limiter)

    warnings = [line for level, line in lines(log) if level == "WARNING"]
    assert len(warnings) == 2
    assert "give yours, RateLimiter(rpm=..., tpm=...)" in warnings[0]
    assert "(3 more since the last line)" in warnings[1]


def test_many_final_429s_are_one_line_with_their_number(log: pytest.LogCaptureFixture) -> None:
    """Where no wait helps a program may ask thousands of times a second."""
    clock = ThreadClock()
    limiter = RateLimiter(rpm=500, clock=clock)
    for _ in range(3):
        refuse(limiter, TooMany(code="credit_balance_exhausted"))
    clock.sleep(QUIET_SECONDS)
    refuse(limiter, TooMany(code="credit_balance_exhausted"))

    warnings = [line for level, line in lines(log) if level == "WARNING"]
    assert len(warnings) == 2
    assert "(2 more since the last line)" in warnings[1]


def test_a_final_429_is_not_silenced_by_a_passing_one(log: pytest.LogCaptureFixture) -> None:
    """What ends by itself and what a user has to mend are two lines."""
    limiter = make(rpm=500)
    refuse(limiter)
    refuse(limiter, TooMany(code="credit_balance_exhausted"))

    assert [level for level, _ in lines(log)].count("WARNING") == 2


def test_more_families_than_are_kept_are_quiet_too(log: pytest.LogCaptureFixture) -> None:
    """Their names come from requests; all further ones share a line, and count."""
    written = Log(ThreadClock().now)
    for number in range(MOST_REFUSED + 50):
        written.write(refused_for(None, f"model-{number}", at=0.0))
    written.write(refused_for(None, "model-0", at=1.0))
    written.write(refused_for(None, "model-x", at=QUIET_SECONDS))

    assert len(log.records) == MOST_REFUSED + 2
    assert "(50 more since the last line)" in log.records[-1].getMessage()


def test_two_limiters_do_not_silence_each_other(log: pytest.LogCaptureFixture) -> None:
    """Each one's first 429 is said, though their families have one name."""
    refuse(make())
    refuse(make())

    assert [level for level, _ in lines(log)].count("WARNING") == 2


def test_a_log_line_holds_no_text_of_the_server(log: pytest.LogCaptureFixture) -> None:
    """What a server writes may quote a key or a prompt."""
    refuse(make(rpm=5))

    assert lines(log)
    assert not re.search("secret|private", log.text)


def test_the_first_long_wait_of_a_family_is_said_at_info(log: pytest.LogCaptureFixture) -> None:
    """As it begins, so that nobody takes it for a hang; all further ones at DEBUG."""
    limiter = make(tpm=600)
    limiter.acquire_sync(tokens=600).close()
    for _ in range(2):
        limiter.acquire_sync(tokens=100).close()

    waits = [(level, line) for level, line in lines(log) if "waits" in line]
    assert [level for level, _ in waits] == ["INFO", "DEBUG"]
    assert "it needs 100 of tokens/60s, where 0 of 600 are left" in waits[0][1]
    assert "it goes in 10.0 s at the earliest" in waits[0][1]


def waiting(call: int) -> events.Waiting:
    """Return the beginning of a wait that nobody knows the end of."""
    return events.Waiting(
        at=0.0,
        family="*",
        call=call,
        reason="concurrency",
        limit=None,
        position=0,
        predicted=None,
        needs=None,
        level=None,
        amount=None,
    )


def waited(call: int, seconds: float) -> events.Waited:
    """Return its end."""
    return events.Waited(
        at=seconds,
        family="*",
        call=call,
        outcome="admitted",
        reason="concurrency",
        limit=None,
        position=0,
        predicted=None,
        seconds=seconds,
        operation="",
    )


def test_a_wait_of_unknown_end_is_said_once_it_is_long(log: pytest.LogCaptureFixture) -> None:
    """While it lasts: nobody can tell it from a hang."""
    clock = ThreadClock()
    written = Log(clock.now)
    written.write(waiting(1))
    assert written.due() == 5
    clock.sleep(5)
    written.tick()

    said = [record.getMessage() for record in log.records if record.levelname == "INFO"]
    assert written.due() is None
    assert len(said) == 1
    assert "has waited for 5 s at position 0: as many calls are in flight" in said[0]


def test_a_short_wait_of_unknown_end_is_watched_no_longer(log: pytest.LogCaptureFixture) -> None:
    """Nor does it take the place of the first long one."""
    written = Log(ThreadClock().now)
    written.write(waiting(1))
    written.write(waited(1, 0.1))
    written.write(waiting(2))
    assert written.due() == 5
    written.write(waited(2, 7.0))

    said = [record.getMessage() for record in log.records if record.levelname == "INFO"]
    assert written.due() is None
    assert said == ["family *: a call was admitted after 7.0 s of waiting"]


def test_a_later_wait_is_said_where_the_first_was_short(log: pytest.LogCaptureFixture) -> None:
    """The call that hangs need not be the one that began to wait first."""
    clock = ThreadClock()
    written = Log(clock.now)
    written.write(waiting(1))
    clock.sleep(1)
    written.write(waiting(2))
    written.write(waited(1, 1.0))
    clock.sleep(written.due() or 0)
    written.tick()

    said = [record.getMessage() for record in log.records if record.levelname == "INFO"]
    assert clock.now() == 6
    assert len(said) == 1
    assert "has waited for 5 s" in said[0]


def test_of_many_calls_that_wait_a_number_is_watched(log: pytest.LogCaptureFixture) -> None:
    """Memory is bounded, and their family is said once."""
    log.set_level(logging.INFO, "ratelimit")
    clock = ThreadClock()
    written = Log(clock.now)
    for call in range(MOST_WATCHED + 5):
        written.write(waiting(call))
    watched = len(written._watched)
    clock.sleep(5)
    written.tick()

    assert watched == MOST_WATCHED
    assert written.due() is None
    assert [record.levelname for record in log.records].count("INFO") == 1


def test_long_waits_are_said_of_a_number_of_families(log: pytest.LogCaptureFixture) -> None:
    """Names come from requests; what would not be said any more is not asked for."""
    log.set_level(logging.INFO, "ratelimit")
    written = Log(ThreadClock().now)
    for number in range(MOST_FAMILIES):
        assert written.wants(events.Waiting, f"model-{number}")
        written.write(replace(waited(number, 7.0), family=f"model-{number}"))

    assert len(log.records) == MOST_FAMILIES
    assert not written.wants(events.Waiting, "another")


def test_a_forked_process_says_nothing_of_its_parents_calls() -> None:
    """Nobody waits there, and nobody would end such a wait."""
    written = Log(ThreadClock().now)
    written.write(waiting(1))
    delivery._reset_after_fork()

    assert written.due() is None


def test_a_short_wait_is_said_at_debug(log: pytest.LogCaptureFixture) -> None:
    """It is what the limiter is for."""
    limiter = make(tpm=600)
    limiter.acquire_sync(tokens=600).close()
    limiter.acquire_sync(tokens=10).close()

    assert {level for level, _ in lines(log)} == {"DEBUG"}


def test_limits_and_the_end_of_refusals_are_said_at_info(log: pytest.LogCaptureFixture) -> None:
    """A user sees which limits hold now, and that it goes on."""
    limiter = make()
    limiter.acquire_sync(model="gpt-4o", messages=[], max_tokens=5).observe(HEADERS)
    refuse(limiter)
    limiter.acquire_sync(tokens=1).settle(tokens=1)

    said = [line for level, line in lines(log) if level == "INFO"]
    assert "family *: limits learned: <Limits 30,000 tokens/min> (by: header)" in said
    assert any("answered again" in line for line in said)


def test_nothing_is_written_below_the_level(caplog: pytest.LogCaptureFixture) -> None:
    """A line that nobody reads is not even put into the queue."""
    caplog.set_level(logging.ERROR, "ratelimit")
    limiter = make(tpm=600)
    (log,) = limiter._engine.hooks.subscriptions
    refuse(limiter)
    limiter.acquire_sync(tokens=600).close()
    limiter.acquire_sync(tokens=100).close()

    assert log._started_at == -inf  # no event has started its thread
    assert lines(caplog) == []


NEW_USER = """
import logging
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
logging.getLogger("httpx2").setLevel(logging.WARNING)
from openai import OpenAI, RateLimitError
from ratelimit import RateLimiter

client = RateLimiter().wrap(OpenAI(max_retries=0))
try:
    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}])
except RateLimitError:
    print("refused")
"""


def test_the_first_line_of_a_new_user_is_the_429() -> None:
    """With logging at INFO and a server that answers nothing but 429s, it says what
    happens and what to do, also where the program ends at once.
    """
    server = FakeOpenAI(faults=[Fault("429")])
    with server.serve() as base_url:
        done = subprocess.run(
            [sys.executable, "-c", NEW_USER],
            env={**os.environ, "OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "sk-secret"},
            capture_output=True,
            check=False,
            encoding="utf-8",
            timeout=60,
        )

    first = done.stderr.splitlines()[0]
    assert done.stdout == "refused\n"
    assert first.startswith("WARNING 429: the server refused a call of gpt-4o")
    assert "give yours" in first
    assert "secret" not in done.stderr
