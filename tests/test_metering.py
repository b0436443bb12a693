"""What a meter takes a body for, by its first bytes alone."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import RateLimiter
from ratelimit.integrations.metering import BodyMeter, body_meter
from ratelimit.lease import AdmittedLease
from ratelimit.testing import ThreadClock

USED = {"usage": {"prompt_tokens": 10, "completion_tokens": 30, "total_tokens": 40}}
EVENT = json.dumps(USED).encode()
BODY: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 100,
}

ANSWERS = [
    EVENT,
    b"\r\n  " + EVENT,
    b"\xef\xbb\xbf" + EVENT,
    b"[" + EVENT + b"]",
    b"data: " + EVENT + b"\n\n",
    b"data:" + EVENT,
    b"\n\n\xef\xbb\xbfdata: " + EVENT + b"\n\ndata: [DONE]\n\n",
    b": a comment\n\ndata: " + EVENT + b"\n\n",
    b"event: completion\ndata: " + EVENT + b"\n\n",
    b"id: 5\rdata: " + EVENT + b"\r\r",
    b"id:5\r\ndata: " + EVENT + b"\r\n\r\n",
    b"retry: 3000\n\ndata: " + EVENT + b"\n\n",
]
TEXTS = [
    *(b"data", b"d", b"dates and events", b"e", b"eventually", b"idea: " + EVENT, b"id est:"),
    *(b"retrying", b"ready\ndata: " + EVENT, b"i", b"Data: " + EVENT, b"I think", b"\xff", b""),
    *(b"1\n00:00:00,000 --> 00:00:02,000\nevent: " + EVENT, b"<html>", b"WEBVTT\n\ndata: " + EVENT),
]


def packed(body: bytes, coding: str) -> bytes:
    """Encode a body; "twice" in two members, as programs that append do."""
    if not coding:
        return body
    if coding.endswith("twice"):
        half = len(body) // 2
        return packed(body[:half], "gzip") + packed(body[half:], "gzip")
    packer = zlib.compressobj(wbits={"gzip": 31, "deflate": 15, "deflate raw": -15}[coding])
    return packer.compress(body) + packer.flush()


def metered(body: bytes, cuts: list[int], coding: str = "") -> tuple[BodyMeter, AdmittedLease]:
    """Meter a body in these pieces; return its meter, and the lease of its call."""
    limiter = RateLimiter(tpm=100_000, arrival_slack=0, clock=ThreadClock())
    lease = limiter.acquire_sync(BODY)
    assert isinstance(lease, AdmittedLease)
    meter = body_meter(lease, [(b"content-encoding", coding.partition(" ")[0].encode())], "")
    body = packed(body, coding)
    places = sorted(cut % (len(body) + 1) for cut in cuts)
    for start, end in zip([0, *places], [*places, len(body)], strict=True):
        meter.pass_on(body[start:end])
    return meter, lease


@pytest.mark.parametrize("coding", ["", "gzip", "gzip twice", "deflate", "deflate raw"])
@pytest.mark.parametrize("body", ANSWERS)
@settings(max_examples=30)
@given(cuts=st.lists(st.integers(0, 500), max_size=8))
def test_usage_is_found_however_a_body_begins_and_is_cut(
    body: bytes, cuts: list[int], coding: str
) -> None:
    """JSON and events are known by their first bytes, which may come one by one."""
    meter, lease = metered(body, cuts, coding)
    meter.end(complete=True)

    assert lease.cost["tokens"] == 40


@pytest.mark.parametrize("body", TEXTS)
@settings(max_examples=30)
@given(cuts=st.lists(st.integers(0, 500), max_size=8))
def test_a_text_is_neither_json_nor_a_stream(body: bytes, cuts: list[int]) -> None:
    """A transcript may begin like an event's name; its reserve stays, and where it
    broke off the client may try again.
    """
    meter, lease = metered(body, cuts)
    meter.break_off()
    reserved = lease.cost["tokens"]
    lease.settle(tokens=1)  # of the next attempt

    assert reserved > 100
    assert lease.cost["tokens"] == reserved


@pytest.mark.parametrize("kind", [bytearray, memoryview])
@pytest.mark.parametrize("coding", ["", "gzip"])
@pytest.mark.parametrize("body", [EVENT, b"data: " + EVENT + b"\n\n", b"\r\ndata: " + EVENT])
def test_pieces_of_any_kind_of_bytes_pass(body: bytes, coding: str, kind: Any) -> None:
    """A transport may hand on a part of its buffer."""
    lease = RateLimiter(tpm=100_000, clock=ThreadClock()).acquire_sync(BODY)
    assert isinstance(lease, AdmittedLease)
    meter = body_meter(lease, [(b"content-encoding", coding.encode())], "")
    raw = packed(body, coding)
    for start in range(0, len(raw), 9):
        meter.pass_on(kind(raw[start : start + 9]))
    meter.end(complete=True)

    assert lease.cost["tokens"] == 40
