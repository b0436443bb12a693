"""Whatever a server answers passes a wrapped client as it is, and ends its call."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import RateLimiter
from ratelimit.testing import ThreadClock

BODY: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 100,
}
USED = {"usage": {"prompt_tokens": 10, "completion_tokens": 30}}
PIECES = st.binary(max_size=20) | st.sampled_from(
    [
        *(b"data: ", b"\n\n", b"\r\n", b"\r", b"event: error\n", b": ping\n", b"[DONE]", b"data:"),
        *(b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b"null", b"-1", b"1e999", b"NaN"),
        *(b'"usage":', b'"error":', b'"choices":', b'"prompt_tokens":', b'"code":', b"429"),
        *(b"\xef\xbb\xbf", b"\xff\xfe", "é😀".encode(), "é😀".encode()[:3], b"\x1f\x8b", b"\x00"),
        *(json.dumps(USED).encode(), b'{"error": {"code": 429, "message": "try again in 1s"}}'),
        *(b"[" * 2_000, b'{"a":' * 2_000, b"9" * 5_000),
    ]
)
STATUSES = st.sampled_from([200, 200, 200, 201, 204, 302, 400, 402, 403, 404, 413, 429, 500, 503])
CODINGS = st.sampled_from(["", "", "", "gzip", "deflate", "identity", "br", "gzip, deflate", "x"])
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            *("retry-after", "retry-after-ms", "date", "content-type", "x-groq-region"),
            *("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "ratelimit-policy"),
            *("x-ratelimit-reset-tokens", "anthropic-ratelimit-requests-reset", "ratelimit"),
        ]
    ),
    st.sampled_from(
        ["", "0", "-1", "1e999", "nan", "5", "9" * 400, "1h", "x", '"p";q=5;w=1', "\x7f"]
    ),
    max_size=4,
)


def encoded(body: bytes, coding: str) -> bytes:
    """Encode a body where the coding is known; leave it as it is where it is not."""
    if coding == "gzip":
        return gzip.compress(body)
    return zlib.compress(body) if coding == "deflate" else body


@pytest.mark.filterwarnings("ignore::ratelimit.LimiterWarning")
@settings(max_examples=200)
@given(
    pieces=st.lists(PIECES, max_size=12),
    status=STATUSES,
    coding=CODINGS,
    honest=st.booleans(),
    headers=HEADERS,
)
def test_any_answer_passes_as_it_is(
    pieces: list[bytes], status: int, coding: str, honest: bool, headers: dict[str, str]
) -> None:
    """Bodies that are cut, no JSON, or not encoded as they say break nothing here."""
    body = b"".join(pieces)
    raw = encoded(body, coding) if honest else body
    places = range(0, len(raw), 7)

    def answer(_: httpx2.Request) -> httpx2.Response:
        sent = {"content-encoding": coding, **headers} if coding else headers
        return httpx2.Response(
            status, headers=sent, content=(raw[place : place + 7] for place in places)
        )

    limiter = RateLimiter(rpm=600, tpm=100_000, arrival_slack=0, clock=ThreadClock())
    client = limiter.wrap(httpx2.Client(transport=httpx2.MockTransport(answer)))
    with client.stream("POST", "http://x/v1/chat/completions", json=BODY) as response:
        passed = b"".join(response.iter_raw())
    family = limiter.statistics().families["*"]

    if status != 402:  # to which advice may be added
        assert passed == raw
    assert response.status_code == status
    assert family.in_flight == 0
    if family.closed_for == 0:  # a pause takes its whole length's tokens
        assert -100_000 <= family.levels["tokens/60s"] <= 100_000
