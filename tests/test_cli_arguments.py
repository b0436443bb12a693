"""Amounts, times and prices on the command line are read as everywhere else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ratelimit import Limits
from ratelimit.cli import main
from ratelimit.commands.arguments import make_parser

BODY = {"model": "text-embedding-3-small", "input": [1, 2, 3]}


@pytest.mark.parametrize(
    "text", ["500", "30k", "1.5M", "30_000", "30,000", "1,500.5", ".5", "30 k"]
)
def test_a_limit_is_written_as_on_the_face(text: str) -> None:
    """Whatever `RateLimiter(tpm=...)` takes as a text."""
    chosen = make_parser().parse_args(["run", "in", "--tpm", text, "--rpd", text])
    (limit,) = Limits(tpm=text)

    assert chosen.tpm == chosen.rpd == limit.amount


@pytest.mark.parametrize("text", ["0", "-5", "nan", "inf", "1e5", "30x", "k", "1e400", "9" * 5_000])
@pytest.mark.parametrize("option", ["--rpm", "--tpm"])
def test_what_is_no_limit_is_refused_with_examples(
    capfd: pytest.CaptureFixture[str], option: str, text: str
) -> None:
    """In one sentence of a length that can be read."""
    with pytest.raises(SystemExit) as ended:
        main(["estimate", "in", f"{option}={text}"])
    said = capfd.readouterr().err

    assert ended.value.code == 2
    assert f"argument {option}: " in said
    assert len(said) < 300


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("10m", 600),
        ("10 min", 600),
        ("1,000s", 1_000),
        ("1.5 hours", 5_400),
    ],
)
def test_a_time_has_the_units_of_a_limit(text: str, seconds: float) -> None:
    """As in "10 requests per minute"; the m is a minute here, and no million."""
    assert make_parser().parse_args(["run", "in", "--patience", text]).patience == seconds


@pytest.mark.parametrize(
    ("arguments", "value"), [(("--concurrency", "1,000"), 1_000), (("--concurrency", "2k"), 2_000)]
)
def test_a_whole_number_is_an_amount(arguments: tuple[str, str], value: int) -> None:
    """One way to write numbers is enough."""
    assert make_parser().parse_args(["run", "in", *arguments]).concurrency == value


@pytest.mark.parametrize("text", ["0", "1.5", "many", "-1", "9" * 5_000])
def test_what_is_no_whole_number_is_refused(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Half a request cannot be in flight."""
    with pytest.raises(SystemExit) as ended:
        main(["run", "in", f"--concurrency={text}"])

    assert ended.value.code == 2
    assert "whole number of at least 1" in capfd.readouterr().err


@pytest.mark.parametrize("given", ["--price-in", "--price-out"])
def test_one_price_asks_for_the_other(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], given: str
) -> None:
    """A cost that counts the rest as free would be believed."""
    path = tmp_path / "in"
    path.write_text(json.dumps(BODY) + "\n")

    assert main(["run", str(path), "--dry-run", given, "2.5"]) == 2
    assert "--price-in and --price-out" in capfd.readouterr().err


def test_a_price_may_be_zero(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Embeddings have no output to pay for."""
    path = tmp_path / "in"
    path.write_text(json.dumps(BODY) + "\n")
    prices = ("--price-in", "1,000", "--price-out", "0")

    assert main(["run", str(path), "--dry-run", *prices]) == 0
    assert "0.0030" in capfd.readouterr().out
