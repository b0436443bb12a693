"""Runs that end at once: the key, the account or the address is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratelimit.batch.asking import Asker
from ratelimit.batch.running import FIRST_SLOTS
from ratelimit.testing import FakeOpenAI
from tests.run_files import KEY, results, run, serving, write


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    """A server of one key with high limits and quick answers."""
    with serving() as fake:
        yield fake


@pytest.fixture
def let_go(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many requests the limits had let go at each moment at which a run was asked
    to stop.
    """
    seen: list[int] = []
    real = Asker.stop

    def noting(asker: Asker) -> None:
        families = asker._limiter.statistics().families
        seen.append(sum(family.admitted for family in families.values()))
        real(asker)

    monkeypatch.setattr(Asker, "stop", noting)
    return seen


@pytest.mark.parametrize("key", ["", "sk-with\n-break-0123456789", "sk-ключ-0123456789"])
def test_a_key_that_is_none_is_told_without_showing_it(
    server: FakeOpenAI,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    key: str,
) -> None:
    """A missing key, or one with a line break from some shell: an HTTP library's error
    about it would print it.
    """
    monkeypatch.setenv("OPENAI_API_KEY", key)
    assert run(write(tmp_path / "in", 1), "-o", tmp_path / "out") == 2

    said = "".join(capfd.readouterr())
    assert "OPENAI_API_KEY" in said
    assert not key or key[:6] not in said
    assert len(server.ledger) == 0


def test_a_refused_key_ends_the_run_at_once(
    server: FakeOpenAI,
    let_go: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """One sentence instead of a thousand failures; nothing is written, so the next run
    asks everything.
    """
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-canary-0123456789")
    assert run(write(tmp_path / "in", 200), "-o", tmp_path / "out") == 1

    said = capfd.readouterr()
    assert said.err.splitlines()[-1].startswith("ratelimit run: http://127.0.0.1")
    assert "refuses the API key" in said.err
    assert "sk-wrong" not in said.err + said.out
    # the next in line may be let go before the first refusal is read
    assert 1 <= len(server.ledger) <= let_go[0] <= FIRST_SLOTS
    assert (tmp_path / "out").read_bytes() == b""


def test_a_server_that_is_away_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What was done is kept; the sentence says what cannot be reached."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("ratelimit.commands.run.session.RETRIES", 0)
    assert (
        run(
            write(tmp_path / "in", 5), "-o", tmp_path / "out", "--base-url", "http://127.0.0.1:9/v1"
        )
        == 1
    )

    assert "cannot reach http://127.0.0.1:9/v1: " in capfd.readouterr().err


def test_a_used_up_account_ends_the_run(
    server: FakeOpenAI, let_go: list[int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Waiting does not help, and a retry of a thousand requests does not either."""
    server.inject("quota")
    assert run(write(tmp_path / "in", 200), "-o", tmp_path / "out") == 1

    assert "credit" in capfd.readouterr().err
    assert 1 <= len(server.ledger) <= let_go[0] <= FIRST_SLOTS


def test_a_retry_that_is_refused_can_be_repeated(
    server: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failures stay failures until they have a newer result: the same command sends
    them when the key is mended.
    """
    monkeypatch.setattr("ratelimit.commands.run.session.RETRIES", 0)
    requests, output = write(tmp_path / "in", 3), tmp_path / "out"
    server.inject("500", count=1)
    assert run(requests, "-o", output, "--concurrency", 1) == 1
    command = requests, "-o", output, "--retry-failed"
    with monkeypatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "sk-wrong-canary-0123456789")
        assert run(*command) == 1
    server.ledger.clear()

    assert run(*command) == 0
    assert len(server.ledger) == 1
    assert [line["response"]["status_code"] for line in results(output).values()] == [200] * 3


@pytest.mark.usefixtures("server")
def test_the_key_shows_up_nowhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Not in the results, the figures, the screen or the log, even where a server
    echoes it in its answer.
    """
    caplog.set_level("DEBUG")
    requests, output, figures = write(tmp_path / "in", 3), tmp_path / "out", tmp_path / "figures"
    text = requests.read_text() + json.dumps(
        {
            "custom_id": "echo",
            "body": {"model": KEY, "messages": [{"role": "user", "content": "Hi"}]},
        }
    )
    requests.write_text(
        text
        + "\n"
        + json.dumps({"custom_id": "bad", "body": {"model": KEY, "messages": [{}], "n": 0}})
        + "\n"
    )
    run(requests, "-o", output, "--json", figures, "--rpm", "1000")
    run(requests, "-o", output, "--retry-failed")
    # its refusal names the model, which is the key
    with FakeOpenAI(tpm=1, latency=0).serve() as url:
        run(requests, "-o", tmp_path / "other", "--base-url", url)
    run(requests, "--dry-run", "--model", "gpt-4o")

    written = "".join(path.read_text() for path in tmp_path.iterdir() if path != requests)
    assert "echo" in written
    assert KEY not in written
    assert KEY not in "".join(capfd.readouterr())
    assert KEY not in caplog.text.replace(repr(KEY), "")
