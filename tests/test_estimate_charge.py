"""What the server's limiter takes at admission: bytes and counts, by the rule of the
day.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from benchmarks.past_charges import charge_on
from ratelimit.estimate import Estimator
from ratelimit.estimate.charge import hidden_tokens
from ratelimit.estimate.models import traits_of
from ratelimit.testing.charges import hidden_prompt

BEFORE, AFTER = dt.date(2025, 3, 19), dt.date(2025, 3, 20)
TEXT = "äöü und sonst nichts"  # 20 characters, 23 bytes


def charge(body: dict[str, Any], day: dt.date = dt.date.max, endpoint: str | None = None) -> int:
    """The charge of a body."""
    estimate = Estimator().estimate({"model": "gpt-4o", **body}, endpoint=endpoint)
    return charge_on(day, estimate, body)


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


@pytest.mark.parametrize("functions", [False, True])
@pytest.mark.parametrize(
    "model",
    [
        *(
            "gpt-5",
            "gpt-5-mini",
            "gpt-5-nano",
            "gpt-5.4",
            "gpt-5.4-mini",
            "gpt-5.5",
            "gpt-5.6-terra",
        ),
        *("gpt-4o", "gpt-4.1-mini", "gpt-4", "gpt-3.5-turbo", "o3-mini", "o4-mini", "other"),
    ],
)
def test_the_fake_server_hides_the_same_prompt(model: str, functions: bool) -> None:
    """The estimate and the server that judges it were written apart; where they differ
    one of them is wrong.
    """
    body = {"model": model, "tools": [{"type": "function", "name": "now"}] if functions else []}

    assert hidden_tokens(traits_of(model), functions=functions) == hidden_prompt(body)


def test_endpoints_without_a_token_limit_are_charged_nothing() -> None:
    """Pictures and sound have limits of their own."""
    assert charge({"prompt": TEXT, "n": 2, "model": "gpt-image-1"}, endpoint="images") == 0
    assert charge({"input": TEXT}, endpoint="audio") == 0
