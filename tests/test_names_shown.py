"""Names that come from requests: a key in their place is shown nowhere."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from rich.console import Console

from ratelimit import LimiterWarning, Limits, RateLimiter, events
from ratelimit.events.records import LONGEST_NAME, name_of
from ratelimit.integrations import settlement
from ratelimit.lease import AdmittedLease
from ratelimit.telemetry.live import View
from ratelimit.testing import ThreadClock
from tests.answers import refuse

KEY = "sk-proj-0123456789abcdefABCDEF"


@pytest.fixture
def limiter() -> RateLimiter:
    """A limiter that was asked for a model, and given a pattern, that are keys."""
    made = RateLimiter(limits={KEY: Limits(rpm=5)}, clock=ThreadClock())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LimiterWarning)
        made.acquire_sync(model=f"{KEY}2", tokens=1).close()
    return made


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[warnings.WarningMessage]]:
    """The warnings of a process that has not warned before."""
    monkeypatch.setattr(settlement, "_warned", set())
    with warnings.catch_warnings(record=True) as recorded:
        warnings.simplefilter("always")
        yield recorded


@pytest.mark.parametrize(
    "said",
    [
        lambda one: str(one.explain()),
        lambda one: repr(one.explain()),
        lambda one: str(one.explain(KEY)),
        lambda one: str(one.statistics()),
        lambda one: repr(one.statistics()),
        repr,
    ],
    ids=["explain", "repr of it", "of one model", "statistics", "repr of them", "limiter"],
)
def test_what_a_limiter_prints_of_itself_holds_no_key(limiter: RateLimiter, said: Any) -> None:
    """Explanations and snapshots are put into logs and issues."""
    assert "_key_" in said(limiter)
    assert "sk-proj" not in said(limiter)


def test_a_snapshot_keeps_the_names_that_its_families_have(limiter: RateLimiter) -> None:
    """They are looked up by them: only what is printed is masked."""
    assert set(limiter.statistics().families) == {KEY, f"{KEY}2"}
    assert set(limiter.explain(KEY).families) == {KEY}


def test_the_live_view_and_the_log_hold_no_key(
    limiter: RateLimiter, caplog: pytest.LogCaptureFixture
) -> None:
    """A terminal is recorded, and a log is sent elsewhere."""
    caplog.set_level(logging.DEBUG, "ratelimit")
    console = Console(file=io.StringIO(), width=140)
    refuse(limiter, request={"model": KEY, "messages": [], "max_tokens": 5})
    console.print(View(limiter).table())
    assert events.flush(10)

    shown = caplog.text + console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert "_key_" in shown
    assert "sk-proj" not in shown


def test_a_warning_of_a_model_without_limits_holds_no_key(
    given: list[warnings.WarningMessage],
) -> None:
    """Programs send the key for the model by mistake."""
    limiter = RateLimiter(limits={"gpt-4o": Limits(rpm=5)}, clock=ThreadClock())
    limiter.acquire_sync(model=KEY, tokens=1).close()

    assert "no limit is given for model '_key_'" in str(given[0].message)


def test_a_warning_of_smaller_limits_holds_no_key(given: list[warnings.WarningMessage]) -> None:
    """What is named once stays in the log."""
    limiter = RateLimiter(clock=ThreadClock())
    for model, limit in (("gpt-4o", "1000"), (KEY, "10")):
        lease = limiter.acquire_sync(model=model, messages=[], max_tokens=1)
        lease.observe(
            {"x-ratelimit-limit-requests": limit, "x-ratelimit-remaining-requests": limit}
        )
        lease.close()

    assert "the server limits model '_key_'" in str(given[0].message)


def test_a_warning_of_an_answer_without_usage_holds_no_key(
    given: list[warnings.WarningMessage],
) -> None:
    """Nor does it hold more of a model's name than a record."""
    limiter = RateLimiter(tpm=100_000, clock=ThreadClock())
    answers = httpx2.MockTransport(lambda _: httpx2.Response(200, json={"choices": []}))
    body = {"model": KEY, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}
    limiter.wrap(httpx2.Client(transport=answers)).post("http://x/v1/chat/completions", json=body)

    said = [str(one.message) for one in given if "without usage" in str(one.message)]
    assert len(said) == 1
    assert "of _key_ ended" in said[0]


def test_a_warning_of_an_address_holds_no_key(given: list[warnings.WarningMessage]) -> None:
    """Gateways have the account's key in the path of the base URL."""
    limiter = RateLimiter(rpm=5, clock=ThreadClock())
    answers = httpx2.MockTransport(lambda _: httpx2.Response(200, json={}))
    limiter.wrap(httpx2.Client(transport=answers)).post(f"http://x/v1/{KEY}/search", json={})

    assert "POST /v1/_key_/search is no endpoint" in str(given[0].message)


@pytest.mark.parametrize(
    "text",
    [
        "sk-proj-0123456789abcdef",
        "_sk-proj-0123456789abcdef",
        "gsk_0123456789abcdefABCDEF",
        "r8_0123456789abcdefABCDEF0123456789abcd",
        "AIza0123456789abcdefABCDEFxyz",
        "0123456789abcdef0123456789abcdef",
        "AbCdEfGhIjKlMnOpQrStUvWxYz012345",
        "0123456789abcdef0123456789abcdef_",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w",
        f"sk-{'a' * 5_000}",
    ],
)
def test_a_key_in_the_place_of_a_name_is_not_kept(text: str) -> None:
    """It would be in logs and metrics."""
    assert name_of(text).strip("_") == "key"


@pytest.mark.parametrize(
    "name",
    [
        "gpt-4o-mini-2024-07-18",
        "ft:gpt-4o-2024-08-06:my-org:name:9XyZ12ab",
        "gpt-4o-mini*|gpt-4.1-mini*",
        "my-disk-encryption-helper",
        "accounts/fireworks/models/llama-v3p1-405b-instruct-turbo",
        "meta-llama/Meta-Llama-3.1-70B-Instruct-Turbo",
        "anthropic.claude-3-5-sonnet-20240620-v1:0",
    ],
)
def test_the_name_of_a_model_stays_as_it_is(name: str) -> None:
    """A word that ends like the beginning of a key is a word."""
    assert name_of(name) == name


def test_a_name_is_short() -> None:
    """Whatever a request brings, a record keeps a line of it."""
    assert len(name_of("a b" * 1_000_000)) <= LONGEST_NAME


def test_a_warning_of_an_answer_that_cannot_be_counted_holds_no_text(
    given: list[warnings.WarningMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's errors of encoding quote all that they could not encode."""
    limiter = RateLimiter(tpm=100_000, clock=ThreadClock())
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}
    lease = limiter.acquire_sync(body)
    assert isinstance(lease, AdmittedLease)

    def fail(text: str, _: str) -> int:
        raise UnicodeEncodeError("utf-8", text, 0, 1, "surrogates not allowed")

    monkeypatch.setattr(limiter._engine.estimator, "count_text", fail)
    lease.settle_by_text("a private answer")

    said = [str(one.message) for one in given]
    assert said == [
        "could not count what a stream has answered (UnicodeEncodeError); its reserve is kept"
    ]
