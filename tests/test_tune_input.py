"""What `benchmarks/tune.py` is given is read, described, or refused in one sentence.

Owns files and arguments, usable and not. Must never run a simulation.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest

from benchmarks import tune
from benchmarks.tuning.quota import limits_for, other_tiers, recorded
from benchmarks.tuning.sources import arranged, described, read
from benchmarks.tuning.traffic import Spread
from ratelimit.errors import InvalidArgument
from ratelimit.estimate import Estimator
from ratelimit.testing import Latency

EVERYTHING = 1e9


def body(**more: Any) -> dict[str, Any]:
    """A request body."""
    return {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "Why is the sky blue?"}],
        **more,
    }


def written(path: Path, *lines: object) -> Path:
    """A file of these lines; texts as they are."""
    path.write_text(
        "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines),
        encoding="utf-8",
    )
    return path


def reading(path: Path, **more: Any) -> Any:
    """The traffic in a file, whatever model it is for."""
    return read(
        path,
        **{"model": None, "every_model": False, "skip_bad": False, "largest": EVERYTHING, **more},
    )


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the script says of arguments it cannot use: one sentence, exit status 2, no
    traceback.
    """
    try:
        status = tune.main(arguments)
    except SystemExit as exit_:
        status = exit_.code  # type: ignore[assignment]  # argparse gives a number
    said = capsys.readouterr().err.strip()

    assert status == 2
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1
    return said


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "holds no requests"),
        ([body()] * 16 + ["{broken"], "line 17 of"),
        ([body(), [1, 2]], "line 2 of"),
        ([body(), {"hello": "world"}], "line 2 of"),
        ([body(), {**body(), "priority": "urgent"}], "interactive, normal, batch"),
        ([body(max_tokens=31_000)], "lower its max_tokens"),
        ([{**body(), "model": "gpt-5"}], "--every-model"),
    ],
    ids=["empty", "broken", "a list", "no request", "priority", "too dear", "another model"],
)
def test_nonsense_is_named_with_its_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: list[object], said: str
) -> None:
    """Broken input never runs, and never ends in a traceback."""
    path = written(tmp_path / "calls.jsonl", *lines)

    assert said in refused(capsys, "--calls", str(path), "--model", "gpt-4o", "--tier", "1")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--requests", "5"], "--rpm and --tpm"),
        (["--rpm", "5"], "--calls"),
        (["--requests", "5", "--tier", "1"], "--model"),
        (["--requests", "5", "--tier", "9", "--model", "gpt-4o"], "none of"),
        (["--requests", "5", "--rpm", "-1"], "above 0"),
        (["--requests", "0", "--rpm", "5"], "at least 1"),
        (["--requests", "5", "--rpm", "5", "--prompt-tokens", "many"], "800±600"),
        (["--requests", "5", "--rpm", "5", "--prompt-tokens", "8±6±5"], "800±600"),
        (["--requests", "5", "--rpm", "5", "--network", "0.1-0.2-0.3"], "0.02-0.1"),
        (["--requests", "5", "--tpm", "1000", "--max-tokens", "2000"], "lower --max-tokens"),
        (["--requests", "5", "--rpm", "5", "--arrivals", "soon"], "5/s"),
        (["--requests", "5", "--rpm", "5", "--arrivals", "recorded"], "timestamp"),
        (["--requests", "5", "--rpm", "5", "--variant", "Z"], "letters"),
        (["--calls", "/nowhere/at/all", "--rpm", "5"], "cannot read"),
        (["--validate"], "--json"),
        (["--validate", "--json", "/nowhere/at/all"], "without --validate"),
    ],
)
def test_unusable_arguments_are_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """Every mistake on the command line says what to do instead."""
    assert said in refused(capsys, *arguments)


def test_rest_of_a_broken_file_is_used_when_asked(tmp_path: Path) -> None:
    """--skip-bad leaves out what cannot be used, and says how much that was."""
    path = written(tmp_path / "calls.jsonl", body(), "{broken", body(max_tokens=50_000), body())
    traffic = reading(path, skip_bad=True, largest=30_000)

    assert len(traffic) == 2
    assert traffic.notes[0].startswith("2 lines")
    with pytest.raises(InvalidArgument, match=r"line 2 .*--skip-bad"):
        reading(path)


def test_calls_of_other_models_do_not_count(tmp_path: Path) -> None:
    """Each model has limits of its own: only what counts against these is simulated,
    snapshots and nameless ones included.
    """
    names = ["gpt-4o", "gpt-4o-2024-08-06", "gpt-4o-mini", "gpt-5"]
    path = written(
        tmp_path / "calls.jsonl",
        *({**body(), "model": name} for name in names),
        {"messages": body()["messages"], "model": "gpt-4o"},
    )

    assert len(reading(path, model="gpt-4o")) == 3
    assert len(reading(path, model="gpt-4o", every_model=True)) == 5


def test_usage_of_a_recorded_call_is_its_bill(tmp_path: Path) -> None:
    """Usage in either form is what the server will bill; without one the answer's
    length is left to chance.
    """
    chat = {
        "request": body(),
        "endpoint": "chat.completions",
        "usage": {"prompt_tokens": 40, "completion_tokens": 7},
    }
    responses = {
        "request": {"model": "gpt-4o", "input": "Hi"},
        "endpoint": "responses",
        "usage": {"input_tokens": 9, "output_tokens": 30},
    }
    items = reading(written(tmp_path / "calls.jsonl", chat, responses, body())).items

    assert [(item.prompt, item.answer) for item in items[:2]] == [(40, 7), (9, 30)]
    assert items[2].answer is None


def test_timestamps_are_replayed(tmp_path: Path) -> None:
    """Seconds, ISO 8601 and HTTP dates: the calls come in the order and at the
    distances they were recorded.
    """
    moments = ["2025-01-01T00:00:10+00:00", "Wed, 01 Jan 2025 00:00:00 GMT", 1_735_689_604]
    lines = [
        {"custom_id": f"c{number}", "body": body(), "timestamp": moment}
        for number, moment in enumerate(moments)
    ]
    traffic = arranged(reading(written(tmp_path / "calls.jsonl", *lines)), "recorded", 0.0)

    assert [job.arrival for job in traffic.jobs(1, Latency())] == [0.0, 4.0, 10.0]


def test_description_is_drawn_as_described() -> None:
    """Mean and deviation are those that were asked for."""
    generator = random.Random(1)
    drawn = [Spread.around(800, 600).draw(generator) for _ in range(20_000)]

    assert fmean(drawn) == pytest.approx(800, rel=0.03)
    assert stdev(drawn) == pytest.approx(600, rel=0.08)


def test_no_answer_exceeds_what_its_body_allows() -> None:
    """A smaller max_tokens cuts the answers that are longer, in every call."""
    traffic = described(50, (100, 50), (300, 300), 1_000, "gpt-4o").capped(200)

    assert max(job.output for job in traffic.jobs(1, Latency())) == 200
    assert {item.body["max_tokens"] for item in traffic.items} == {200}


AS_TEXT = """HTTP/1.1 200 OK
X-RateLimit-Limit-Requests: 500
x-ratelimit-remaining-requests: 499
x-ratelimit-reset-requests: 120ms
x-ratelimit-limit-tokens: 30000
x-ratelimit-remaining-tokens: 29000
x-ratelimit-reset-tokens: 2s
"""
AS_JSON = json.dumps(
    {"ratelimit": {"x-ratelimit-limit-requests": "500", "x-ratelimit-limit-tokens": "30000"}}
)


@pytest.mark.parametrize("text", [AS_TEXT, AS_JSON], ids=["text", "json"])
def test_limits_are_learned_from_recorded_headers(tmp_path: Path, text: str) -> None:
    """One answer's headers are enough: as curl writes them, or as JSON."""
    path = tmp_path / "headers"
    path.write_text(text, encoding="utf-8")

    assert recorded(path) == {"rpm": 500.0, "tpm": 30_000.0}


def test_numbers_win_over_the_tier() -> None:
    """A limit given by hand replaces the tier's; the other limits stay."""
    assert limits_for({"tpm": 50_000.0, "rpm": None}, "1", "gpt-4o", None) == {
        "rpm": 500.0,
        "tpm": 50_000.0,
    }


def test_next_tiers_are_those_of_the_table() -> None:
    """Where the table of tiers knows more, it is compared; where it knows none,
    multiples are.
    """
    assert list(other_tiers("3", "gpt-5.5", {"tpm": 1.0})) == ["tier 4", "tier 5"]
    assert list(other_tiers("1", "gpt-4o", {"tpm": 1.0})) == [f"tier {tier}" for tier in "2345"]
    assert other_tiers("1", "gpt-3", {"tpm": 3.0}) == {
        "2 times the limits": {"tpm": 6.0},
        "10 times the limits": {"tpm": 30.0},
    }


def test_search_results_are_not_charged_before_they_exist(tmp_path: Path) -> None:
    """What a built-in tool adds to the bill is debited at the end: no server can charge
    it when the call arrives.
    """
    body = {"model": "gpt-4o", "input": "Who wrote it?", "tools": [{"type": "file_search"}]}
    usage = {"input_tokens": 5_000, "output_tokens": 10, "total_tokens": 5_010}
    path = tmp_path / "calls.jsonl"
    path.write_text(json.dumps({"request": body, "usage": usage}) + "\n", encoding="utf-8")

    (item,) = read(path, model="gpt-4o", every_model=False, skip_bad=False, largest=1e9).items

    assert item.prompt == 5_000
    assert item.prompt - item.late == item.counted.prompt_tokens


@pytest.mark.parametrize("date", [None, "2025-03-12T00:00:00Z"])
def test_a_hidden_prompt_that_was_billed_is_charged_once(tmp_path: Path, date: str | None) -> None:
    """In March 2025 the hidden prompt was part of the bill: the server adds it once."""
    body = {"model": "gpt-4o", "input": "Who wrote it?"}
    counted = Estimator().estimate(body, endpoint="responses").prompt_tokens
    usage = {"input_tokens": counted + 18, "output_tokens": 10, "total_tokens": counted + 28}
    line = {"request": body, "usage": usage} | ({} if date is None else {"date": date})
    path = tmp_path / "calls.jsonl"
    path.write_text(json.dumps(line) + "\n", encoding="utf-8")

    (item,) = read(path, model="gpt-4o", every_model=False, skip_bad=False, largest=1e9).items

    assert item.late == 19
