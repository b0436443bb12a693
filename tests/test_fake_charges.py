"""The server's own admission charges: against the recorded rules and against the
recordings.
"""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from ratelimit.testing.charges import Charge, charge
from ratelimit.testing.variants import ChargeRule

CALLS = Path(__file__).parent.parent.parent / "shared" / "truth" / "calls.jsonl.gz"
TODAY = datetime(2025, 3, 20, tzinfo=UTC)

HELLO = {
    "model": "gpt-4o",
    "messages": [{"role": "system", "content": "12345"}, {"role": "user", "content": "1234"}],
}
SEEN = [
    {"type": "text", "text": "12"},
    {"type": "image_url", "image_url": {"url": "x"}},
    {"type": "file", "file": {}},
]


@pytest.mark.parametrize(
    ("endpoint", "body", "rule", "expected"),
    [
        ("chat.completions", HELLO, "input", Charge(3 + 2 + 1)),
        ("chat.completions", HELLO | {"n": 3, "max_tokens": 50}, "input", Charge(3 + 2 + 3)),
        ("chat.completions", HELLO, "sum", Charge(3 + 2 + 16, output=16)),
        (
            "chat.completions",
            HELLO | {"n": 3, "max_tokens": 50},
            "sum",
            Charge(3 + 2 + 150, output=150),
        ),
        (
            "chat.completions",
            HELLO | {"max_completion_tokens": 50},
            "sum",
            Charge(3 + 2 + 16, output=16),
        ),
        (
            "chat.completions",
            HELLO | {"max_completion_tokens": 50},
            "whole",
            Charge(3 + 2 + 50, output=50),
        ),
        ("chat.completions", HELLO | {"max_tokens": 3}, "larger", Charge(5, output=3)),
        ("chat.completions", HELLO | {"max_tokens": 50}, "larger", Charge(50, output=50)),
        ("chat.completions", HELLO | {"max_tokens": 50}, "nothing", Charge(0)),
        (
            "chat.completions",
            {"messages": [{"role": "user", "content": "né"}]},
            "input",
            Charge(1 + 1 + 1),
        ),
        (
            "chat.completions",
            {"messages": [{"role": "user", "content": SEEN}]},
            "input",
            Charge(1 + 1 + 1 + 2 * 765, images=1),
        ),
        ("completions", {"prompt": "12345678", "n": 2}, "input", Charge(2 + 2)),
        (
            "completions",
            {"prompt": ["1234", "123"], "max_tokens": 7},
            "sum",
            Charge(1 + 14, output=14),
        ),
        ("completions", {"prompt": [1, 2, 3]}, "input", Charge(3 + 1)),
        ("embeddings", {"input": ["12345", "12"]}, "input", Charge(1)),
        ("embeddings", {"input": [[1, 2], [3]]}, "sum", Charge(3)),
        ("responses", {"model": "gpt-4o", "input": "x"}, "input", Charge(100 + 19)),
        (
            "responses",
            {"model": "gpt-4o", "input": "x", "max_output_tokens": 9},
            "sum",
            Charge(128, output=9),
        ),
        (
            "responses",
            {"model": "gpt-5.5", "tools": [{"type": "function"}]},
            "input",
            Charge(100 + 455),
        ),
        (
            "responses",
            {"model": "gpt-4-0613", "tools": [{"type": "web_search"}]},
            "input",
            Charge(100 + 5),
        ),
        (
            "responses",
            {"input": [{"content": [{"type": "input_image"}] * 2}]},
            "input",
            Charge(2 * 765, images=2),
        ),
        ("moderations", {"input": "x" * 99}, "sum", Charge(0)),
    ],
)
def test_rules(endpoint: str, body: dict[str, Any], rule: ChargeRule, expected: Charge) -> None:
    """Each row of the recorded rules, by hand."""
    assert charge(endpoint, body, rule, lambda: 100) == expected


@pytest.mark.skipif(not CALLS.exists(), reason="the recorded calls are not beside this checkout")
@pytest.mark.parametrize("endpoint", ["chat.completions", "embeddings", "completions"])
def test_recorded_admissions(endpoint: str) -> None:
    """What real buckets lost to recorded calls is what this server would take, +1 for
    the recorded truncation.
    """
    matches = []
    with gzip.open(CALLS, "rt") as lines:
        for call in map(json.loads, lines):
            headers = call["ratelimit"]
            limit, remaining = (
                headers.get(f"x-ratelimit-{kind}-tokens", "") for kind in ("limit", "remaining")
            )
            if (
                call["endpoint"] == endpoint
                and not call["azure"]
                and limit.isdigit()
                and remaining.isdigit()
            ):
                rule: ChargeRule = (
                    "input" if parsedate_to_datetime(call["date"]) >= TODAY else "sum"
                )
                more = (
                    int(limit)
                    - int(remaining)
                    - charge(endpoint, call["request"], rule, lambda: 0).tokens
                )
                matches.append(more in {0, 1} or (int(limit) >= 150_000_000 and abs(more) <= 2))

    assert len(matches) >= 13
    assert sum(matches) / len(matches) >= 0.98
