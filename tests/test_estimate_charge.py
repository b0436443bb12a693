"""What the server's limiter takes at admission: bytes and counts, by the rule of the
day.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from ratelimit.estimate import Estimator
from ratelimit.estimate.charge import DATED, NAMED, rule_for
from ratelimit.estimate.models import family
from ratelimit.estimate.totals import Totals

BEFORE, AFTER = dt.date(2025, 3, 19), dt.date(2025, 3, 20)
TEXT = "äöü und sonst nichts"  # 20 characters, 23 bytes


def charge(
    body: dict[str, Any], regime: str | dt.date | None = None, endpoint: str | None = None
) -> int:
    """The charge of a body."""
    return Estimator(charge=regime).estimate({"model": "gpt-4o", **body}, endpoint=endpoint).charge


def chat(**body: Any) -> dict[str, Any]:
    """A chat body with one message."""
    return {"messages": [{"role": "user", "content": TEXT}], **body}


def test_chat_is_charged_by_bytes() -> None:
    """A quarter of the bytes, rounded up once over all messages, one for each message,
    one for each choice.
    """
    assert charge(chat()) == 6 + 1 + 1
    assert charge({"messages": [{"role": "user", "content": "a"}] * 5}) == 2 + 5 + 1
    assert charge(chat(n=3)) == 6 + 1 + 3


def test_chat_leaves_out_what_only_the_bill_knows() -> None:
    """Names, tools, formats, calls and bounds are not charged."""
    tools = [{"type": "function", "function": {"name": "now"}}]
    call = {
        "role": "assistant",
        "tool_calls": [{"function": {"name": "now", "arguments": '{"a": 1}'}}],
    }

    assert charge(chat(tools=tools, max_tokens=500, max_completion_tokens=500)) == charge(chat())
    assert (
        charge({"messages": [{"role": "user", "content": TEXT, "name": "ann"}, call]})
        == charge(chat()) + 1
    )


def test_a_picture_and_a_file_have_one_price() -> None:
    """Every picture and every file is charged 765, whatever its size."""
    part = {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}}
    file = {"type": "file", "file": {"file_id": "file-1"}}

    assert (
        charge(
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": TEXT}, part, part, file]}
                ]
            }
        )
        == charge(chat()) + 3 * 765
    )


def test_the_rule_of_the_day_holds() -> None:
    """Until March 2025 chat reserved max_tokens, sixteen by default, for each choice;
    max_completion_tokens never.
    """
    assert charge(chat(max_tokens=300, n=2), BEFORE) == 6 + 1 + 600
    assert charge(chat(), BEFORE) == 6 + 1 + 16
    assert charge(chat(max_completion_tokens=300), BEFORE) == 6 + 1 + 16
    assert charge(chat(max_tokens=300, n=2), AFTER) == charge(chat(n=2)) == 6 + 1 + 2


def test_the_table_is_in_order_and_reaches_back() -> None:
    """Every endpoint's lines stand in the order of their dates, and a day before the
    first has the first rule.
    """
    for endpoint in {name for name, _, _ in DATED}:
        dates = [since for name, since, _ in DATED if name == endpoint]
        assert dates == sorted(set(dates))
        assert rule_for(endpoint, dates[0]) is next(
            rule for name, _, rule in DATED if name == endpoint
        )


def test_embeddings_are_charged_by_bytes_or_numbers() -> None:
    """A quarter of the bytes of all texts, rounded down; token numbers one each."""
    assert charge({"input": [TEXT, TEXT]}, endpoint="embeddings") == 46 // 4
    assert charge({"input": [[1, 2, 3], [4]]}, endpoint="embeddings") == 4


def test_completions_are_charged_for_each_prompt() -> None:
    """A quarter of the bytes, and one, or the bound in older days, for each choice of
    each prompt.
    """
    body = {"prompt": [TEXT, TEXT], "n": 2, "max_tokens": 10}

    assert charge(body, endpoint="completions") == 46 // 4 + 4
    assert charge(body, BEFORE, endpoint="completions") == 46 // 4 + 40


def test_responses_are_charged_their_prompt_and_the_hidden_one() -> None:
    """Responses pay the prompt and what the server writes before it; with a picture
    only the picture.
    """
    plain = Estimator().estimate({"model": "gpt-4o", "input": TEXT})
    tools = Estimator().estimate(
        {"model": "gpt-4o", "input": TEXT, "tools": [{"type": "function", "name": "now"}]}
    )
    picture = {
        "role": "user",
        "content": [{"type": "input_image", "image_url": "https://example.org/a.png"}],
    }

    assert plain.charge == plain.prompt_tokens + 19
    assert tools.charge == tools.prompt_tokens + 217
    assert charge({"input": [picture]}) == 765


def test_servers_with_other_rules_are_named() -> None:
    """A rule by name holds for every endpoint; an unknown name is refused at once, and
    says which there are.
    """
    load = Totals(family("gpt-4o"))
    load.choices, load.max_tokens, load.tokens = 2, 50, 70

    assert [
        rule_for("responses", name)(load)
        for name in ("prompt", "prompt+max", "max(prompt,max)", "nothing")
    ] == [70, 170, 100, 0]
    assert charge(chat(max_tokens=50), "nothing") == 0
    with pytest.raises(ValueError, match=r"prompt\+max"):
        Estimator(charge="azure-ish")
    assert all(rule_for("chat.completions", name) is NAMED[name] for name in NAMED)


def test_endpoints_without_a_token_limit_are_charged_nothing() -> None:
    """Pictures and sound have limits of their own."""
    assert charge({"prompt": TEXT, "n": 2, "model": "gpt-image-1"}, endpoint="images") == 0
    assert charge({"input": TEXT}, endpoint="audio") == 0
