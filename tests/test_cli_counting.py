"""`estimate` and `run --dry-run` count one file in one way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ratelimit import Estimate, RateLimiter
from ratelimit.cli import main
from ratelimit.commands.counting import count
from ratelimit.estimate import Estimator
from ratelimit.testing import VirtualClock


def chat(content: str, **fields: Any) -> dict[str, Any]:
    """A request body."""
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": content}], **fields}


LONG_OUTPUT = [chat("Write a book.", max_tokens=9_000)] * 4
CHARGED_BEYOND_THE_BILL = [chat(" " * 4_000, max_tokens=1)] * 40
MIXED = [chat("Hi", max_tokens=5), {"model": "text-embedding-3-small", "input": [1] * 900}] * 20


@pytest.mark.parametrize("bodies", [LONG_OUTPUT, CHARGED_BEYOND_THE_BILL, MIXED])
@pytest.mark.parametrize(
    "limits", [("--rpm", "3"), ("--tpm", "5k"), ("--tpm", "20"), ("--rpm", "0.5", "--tpm", "5k")]
)
def test_both_commands_agree(
    tmp_path: Path, bodies: list[dict[str, Any]], limits: tuple[str, ...]
) -> None:
    """What can never go, what the rest takes, and for how long: a difference would show
    that one of them is wrong.
    """
    path, one, other = tmp_path / "in", tmp_path / "estimate", tmp_path / "run"
    path.write_text("".join(json.dumps(body) + "\n" for body in bodies))

    statuses = [
        main(["estimate", str(path), *limits, "--json", str(one)]),
        main(["run", str(path), "--dry-run", *limits, "--json", str(other)]),
    ]
    estimated, forecast = json.loads(one.read_text()), json.loads(other.read_text())

    assert statuses[0] == statuses[1]
    assert estimated["seconds"] == forecast["seconds"]
    assert estimated["hopeless"] == forecast["hopeless"]
    assert estimated["total"]["calls"] == forecast["requests"] + forecast["hopeless"]


@pytest.mark.parametrize("command", [("estimate",), ("run", "--dry-run")])
def test_each_body_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """Counting is what such a command takes its time for."""
    path, counted = tmp_path / "in", list[object]()
    path.write_text("".join(json.dumps(chat(f"Say {number}.")) + "\n" for number in range(5)))
    real = Estimator.estimate

    def estimate(self: Estimator, body: object, **options: Any) -> Estimate:
        counted.append(body)
        return real(self, body, **options)

    monkeypatch.setattr(Estimator, "estimate", estimate)
    main([command[0], str(path), *command[1:], "--tpm", "30k"])

    assert len(counted) == 5


def test_the_time_is_unknown_without_limits(tmp_path: Path) -> None:
    """In both figures; 0 seconds would be a promise."""
    path, one, other = tmp_path / "in", tmp_path / "estimate", tmp_path / "run"
    path.write_text(json.dumps(chat("Hi")) + "\n")
    main(["estimate", str(path), "--json", str(one)])
    main(["run", str(path), "--dry-run", "--json", str(other)])

    assert json.loads(one.read_text())["seconds"] is None
    assert json.loads(other.read_text())["seconds"] is None


def test_a_call_takes_what_the_limiter_reserves() -> None:
    """The charge where that is larger than prompt and answer together."""
    body = CHARGED_BEYOND_THE_BILL[0]
    limiter = RateLimiter(tpm=100_000, arrival_slack=0, clock=VirtualClock())
    counted = count(limiter, body)
    lease = limiter.acquire_nowait(body)
    level = limiter.statistics().families["*"].levels["tokens/60s"]
    lease.close()

    assert counted.reserved == 100_000 - level
    assert counted.estimate.charge > counted.estimate.prompt_tokens + 1
