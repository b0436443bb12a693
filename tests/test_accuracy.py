"""The comparison with recorded calls: what it reads, what it leaves out, what it says.

The calls are invented; a recording of the same form is judged the same.
"""

from __future__ import annotations

import datetime as dt
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.accuracy import main, measure
from benchmarks.recordings import calls, charged, day
from benchmarks.second_calls import Second, second_calls
from ratelimit.estimate import Estimator

TEXT: dict[str, Any] = {"messages": [{"role": "user", "content": "Name a colour."}]}
BARE: dict[str, Any] = {
    "tools": [],
    "n_tools": 0,
    "tool_msgs": False,
    "images": False,
    "audio": False,
    "files": False,
    "response_format": None,
    "previous_response_id": False,
    "conversation": False,
    "prompt_template": False,
    "reasoning_items": False,
    "item_reference": False,
}


def call(more: int = 0, **fields: Any) -> dict[str, Any]:
    """A chat call that was billed so many tokens more than its estimate."""
    made = {
        "repo": "ours",
        "endpoint": "chat.completions",
        "azure": False,
        "model": "gpt-4o",
        "date": None,
        "stream": False,
        "response_id": None,
        "request": TEXT,
        "ratelimit": {},
        "has": BARE,
        **fields,
    }
    body = {"model": made["model"], **made["request"]}
    tokens = Estimator().estimate(body, endpoint=made["endpoint"]).prompt_tokens
    return {"usage": {"prompt_tokens": tokens + more, "completion_tokens": 5}, **made}


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write recorded calls into a file."""

    def written(*recorded: dict[str, Any], name: str = "a") -> Path:
        path = tmp_path / f"{name}.jsonl.gz"
        with gzip.open(path, "wt", encoding="utf-8") as lines:
            lines.writelines(json.dumps(one) + "\n" for one in recorded)

        return path

    return written


def without(field: str, recorded: dict[str, Any]) -> dict[str, Any]:
    """The call without one of its fields."""
    return {name: value for name, value in recorded.items() if name != field}


def test_a_call_without_a_model_is_compared(write: Write) -> None:
    """A body that names no model, as on Azure, is estimated like any other."""
    path = write(call(), without("model", call()), call() | {"model": None})

    assert measure(path)["estimable"]["n"] == 3


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None}, {"prompt_tokens": 0}, 7])
def test_a_call_without_a_bill_is_left_out(write: Write, usage: object) -> None:
    """No prompt costs nothing: a usage of 0 is of an answer that was cut off."""
    path = write(call(), call() | {"usage": usage}, without("usage", call()))

    assert measure(path)["estimable"]["n"] == 1


def test_what_is_no_estimates_job_is_left_out(write: Write) -> None:
    """Edits and images have bills of their own."""
    path = write(call(), call() | {"endpoint": "edits"}, call() | {"endpoint": "images"})

    assert [one["endpoint"] for one in calls(path)] == ["chat.completions"]


def test_each_distinct_body_counts_once(write: Write) -> None:
    """A body that was recorded often weighs as much as one that was recorded once."""
    other = {"messages": [{"role": "user", "content": "Name a town."}]}
    figures = measure(write(call(), call(), call()), write(call(1, request=other), name="b"))

    assert figures["estimable"]["exact"] == 0.75
    assert figures["estimable"]["exact_by_body"] == 0.5


@pytest.mark.parametrize(
    "name",
    [
        "resp_68c2f00000000000000000000000000000000000000000000000",
        "resp_0c07ba056a2a9dd40068c2f000819a9f3e6b5a4d2c1b0a9f8e",
        "resp_0c07ba056a2a9dd40168c2f000819a9f3e6b5a4d2c1b0a9f8e",
    ],
)
def test_the_id_of_a_response_holds_its_day(name: str) -> None:
    """Both forms of the id date a call that has no date of its own."""
    assert day(call(response_id=name)) == dt.date(2025, 9, 11)
    assert day(without("date", call(response_id=name))) == dt.date(2025, 9, 11)


LATER, EARLIER = "Thu, 08 Jan 2026 10:00:00 GMT", "Mon, 01 Dec 2025 10:00:00 GMT"


@pytest.mark.parametrize(
    ("model", "date", "stream", "shown"),
    [
        ("gpt-4o", LATER, False, True),
        ("gpt-4.1-mini", LATER, False, True),
        ("o4-mini", LATER, False, True),
        ("gpt-4.1", EARLIER, False, True),
        ("gpt-4.1", LATER, False, False),
        ("gpt-4.1-2025-04-14", LATER, False, False),
        ("gpt-4.1", LATER, True, True),
        ("gpt-5-mini", LATER, False, False),
        ("gpt-5-mini", LATER, True, True),
        ("gpt-5.4", LATER, False, False),
        ("o3", LATER, False, False),
    ],
)
def test_headers_that_were_written_after_the_bill_show_no_charge(
    model: str, date: str, stream: bool, shown: bool
) -> None:
    """Which answers of Responses show what was taken at admission."""
    recorded = call(
        endpoint="responses",
        request={"input": "Name a colour."},
        model=model,
        date=date,
        stream=stream,
        ratelimit={
            "x-ratelimit-limit-tokens": "30000",
            "x-ratelimit-remaining-tokens": "29970",
        },
    )

    assert charged(recorded) == (30 if shown else None)


TOOLS: dict[str, Any] = {"tools": [{"type": "function", "function": {"name": "now"}}]}


def test_the_second_call_of_a_kind_is_estimated_after_one_bill(write: Write) -> None:
    """A server's own constant is off the first time, and known at the second call of
    the same server, model and kind; a third call says nothing.
    """
    tools = TEXT | TOOLS
    foreign = call(200, model="claude-sonnet", request=tools)
    path = write(
        *(foreign, foreign, foreign),
        *(call(3, repo="theirs"), call()),
        *(call(), call(4)),
    )

    assert second_calls(calls(path)) == [
        Second(first=-200, second=0, billed=foreign["usage"]["prompt_tokens"]),
        Second(first=0, second=0, billed=call()["usage"]["prompt_tokens"]),
    ]
    assert measure(path)["second"]["within_1"] == 1.0


def test_a_file_without_a_comparable_call_is_said_to_be_one(
    write: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing to compare with is a sentence, not a traceback."""
    path = write(call() | {"endpoint": "edits"})
    monkeypatch.setattr("sys.argv", ["accuracy.py", "--second", "--calls", str(path)])
    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 0
    assert "nothing to compare with" in capsys.readouterr().err


def test_bills_divided_by_the_calls_of_an_answer_are_counted_apart(write: Write) -> None:
    """Half a bill for two parallel calls is a miss, and said to be one that no body
    shows.
    """
    asked = {"input": "Sun?", "tools": [{"type": "function", "name": "now"}]}
    whole = call(endpoint="responses", request=asked, has=BARE | {"n_tools": 1})
    usage = {"input_tokens": whole["usage"]["prompt_tokens"] // 2, "output_tokens": 40}
    figures = measure(write(whole, whole | {"usage": usage}))["estimable"]

    assert (figures["n"], figures["divided"]) == (2, 1)
    assert (figures["within_2pct"], figures["within_2pct_undivided"]) == (0.5, 1.0)
