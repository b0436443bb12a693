"""`ratelimit run --dry-run`: what a file takes, without sending any of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratelimit import RateLimiter
from ratelimit.testing import FakeOpenAI
from tests.run_files import run, serving, write


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    """A server of one key with high limits and quick answers."""
    with serving() as fake:
        yield fake


def test_a_dry_run_sends_nothing_and_says_what_it_takes(
    server: FakeOpenAI, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Tokens, money and time of what is left to do, without a key, a server or an
    output.
    """
    requests, output, figures = write(tmp_path / "in", 90), tmp_path / "out", tmp_path / "figures"
    options = (
        "--dry-run",
        "--rpm",
        30,
        "--tpm",
        "1m",
        "--price-in",
        10,
        "--price-out",
        100,
        "--json",
        figures,
    )
    assert run(requests, *options) == 0
    expected = json.loads(figures.read_text())
    estimate = RateLimiter().estimate(
        model="gpt-4o", messages=[{"role": "user", "content": "Say 10."}]
    )

    assert expected["requests"] == 90
    assert expected["seconds"] == pytest.approx(120)
    assert expected["prompt_tokens"] == pytest.approx(90 * estimate.prompt_tokens, rel=0.05)
    assert expected["output_tokens"] == 90 * 20
    assert expected["cost"] == pytest.approx(
        (10 * expected["prompt_tokens"] + 100 * expected["output_tokens"]) / 1e6
    )
    assert "At least 2 min." in capfd.readouterr().out
    assert len(server.ledger) == 0
    assert not output.exists()


def test_a_dry_run_tells_of_requests_that_can_never_pass(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Better known before than found as a failure in the end."""
    assert run(write(tmp_path / "in", 2), "--dry-run", "--tpm", "5") == 1

    assert "2 requests are larger than a whole limit" in capfd.readouterr().out


def test_a_dry_run_takes_output_beyond_a_limit_for_possible(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Such a request is admitted from a full bucket."""
    assert run(write(tmp_path / "in", 2, max_tokens=9_000), "--dry-run", "--tpm", "5k") == 0

    assert "larger than a whole limit" not in capfd.readouterr().out


def test_a_dry_run_without_limits_leaves_the_time_open(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is invented where the limits are still to be learned."""
    assert run(write(tmp_path / "in", 2), "--dry-run") == 0

    assert "depends on your limits" in capfd.readouterr().out
