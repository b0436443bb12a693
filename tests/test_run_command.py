from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ratelimit import RateLimiter
from ratelimit.batch import Batch
from ratelimit.batch.running import FIRST_SLOTS
from ratelimit.cli import main
from ratelimit.testing import FakeOpenAI

KEY = "sk-canary-7d1f0c52a9e84b36"
Run = Callable[..., int]


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    """A server of one key with high limits and quick answers."""
    fake = FakeOpenAI(rpm=60_000, tpm=60_000_000, latency=0.01, output=20, keys={KEY: "org-a"})
    with fake.serve() as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", KEY)
        patch.setenv("OPENAI_BASE_URL", url)
        yield fake


@pytest.fixture
def let_go(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many requests the limits had let go at each moment at which a run was told to
    stop.
    """
    seen: list[int] = []
    real = Batch.stop

    def noting(batch: Batch) -> None:
        seen.append(
            sum(family.admitted for family in batch._limiter.statistics().families.values())
        )
        real(batch)

    monkeypatch.setattr(Batch, "stop", noting)
    return seen


def write(path: Path, count: int, **fields: Any) -> Path:
    """Write so many requests, named r-0 and so on."""
    body = {"model": "gpt-4o", "max_tokens": 20, **fields}
    rows = (
        {
            "custom_id": f"r-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": body | {"messages": [{"role": "user", "content": f"Say {number}."}]},
        }
        for number in range(count)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def results(path: Path) -> dict[str, Any]:
    """Read a file of results; each name may stand there once."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    found = {line["custom_id"]: line for line in lines}
    assert len(found) == len(lines)
    return found


def run(*arguments: object) -> int:
    """Run the command in this process."""
    return main(["run", *map(str, arguments)])


@pytest.mark.usefixtures("server")
def test_a_file_of_requests_becomes_a_file_of_answers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every request has its answer in the Batch API's form, the figures are told, and
    the status says that all is well.
    """
    requests, output, figures = write(tmp_path / "in", 40), tmp_path / "out", tmp_path / "figures"
    assert (
        run(
            requests,
            "-o",
            output,
            "--rpm",
            "60k",
            "--tpm",
            "60m",
            "--price-in",
            1,
            "--price-out",
            2,
            "--json",
            figures,
        )
        == 0
    )

    found = results(output)
    assert set(found) == {f"r-{number}" for number in range(40)}
    assert all(
        line["response"]["body"]["choices"][0]["message"]["content"] for line in found.values()
    )
    told = json.loads(figures.read_text())
    assert (told["answered"], told["failed"], told["rejected"]) == (40, 0, 0)
    assert told["output_tokens"] == sum(
        line["response"]["body"]["usage"]["completion_tokens"] for line in found.values()
    )
    assert "cost" in capfd.readouterr().out


@pytest.mark.usefixtures("server")
def test_the_limits_are_learned_when_none_are_given(tmp_path: Path) -> None:
    """Without limits the first answer's headers bring them, for each model family
    apart.
    """
    figures = tmp_path / "figures"
    assert run(write(tmp_path / "in", 5), "-o", tmp_path / "out", "--json", figures) == 0

    assert set(json.loads(figures.read_text())["utilization"]) == {"requests/60s", "tokens/60s"}


def test_the_same_command_again_sends_what_is_missing(server: FakeOpenAI, tmp_path: Path) -> None:
    """Resuming asks nothing twice, and repairs a line that was cut."""
    output = tmp_path / "out"
    assert run(write(tmp_path / "in", 10), "-o", output) == 0
    output.write_bytes(output.read_bytes()[:-9])
    server.ledger.clear()
    assert run(write(tmp_path / "in", 12), "-o", output) == 0

    assert len(server.ledger) == 3
    assert set(results(output)) == {f"r-{number}" for number in range(12)}
    server.ledger.clear()
    assert run(tmp_path / "in", "-o", output) == 0
    assert len(server.ledger) == 0


def test_failures_are_written_and_only_sent_again_when_asked(
    server: FakeOpenAI,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A failure is a result: the status tells of it, a second run leaves it,
    --retry-failed sends it and nothing else.
    """
    output = tmp_path / "out"
    monkeypatch.setattr("ratelimit.commands.run.session.RETRIES", 0)  # the SDK waits between them
    server.inject("500", count=2)
    assert run(write(tmp_path / "in", 10), "-o", output, "--concurrency", 1) == 1
    failed = {
        name for name, line in results(output).items() if line["response"]["status_code"] == 500
    }
    assert failed == {"r-0", "r-1"}
    assert "2 failed by HTTP 500" in capfd.readouterr().out

    server.ledger.clear()
    write(tmp_path / "in", 11)
    assert run(tmp_path / "in", "-o", output, "--retry-failed") == 0
    assert len(server.ledger) == 2
    assert len(results(output)) == 10

    assert run(tmp_path / "in", "-o", output) == 0
    assert len(results(output)) == 11


def test_a_model_can_be_put_in_place(server: FakeOpenAI, tmp_path: Path) -> None:
    """--model asks the same questions of another model."""
    assert run(write(tmp_path / "in", 2), "-o", tmp_path / "out", "--model", "gpt-4.1-mini") == 0

    assert {entry.model for entry in server.ledger} == {"gpt-4.1-mini"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{}\n" * 7, "line 5 of .*; and 2 more like these. Nothing was sent"),
        ('{"model": "gpt-4o"', "line 1 of .* is not JSON"),
        ("{}\n[]\n", "line 1 of .* is no request.*line 2 of .* is a JSON list"),
    ],
)
def test_broken_lines_stop_before_anything_is_sent(
    server: FakeOpenAI, tmp_path: Path, capfd: pytest.CaptureFixture[str], content: str, told: str
) -> None:
    """A file with broken lines costs nothing: each is told, none is sent, the output is
    not begun.
    """
    (tmp_path / "in").write_text(content)
    assert run(tmp_path / "in", "-o", tmp_path / "out") == 2

    said = capfd.readouterr().err
    assert len(said.splitlines()) == 1
    assert re.search(told, said)
    assert len(server.ledger) == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("none", "-o", "out"), "cannot read none: No such file"),
        (("in",), "Give -o FILE"),
        (("in", "-o", "."), "no ordinary file"),
        (("in", "-o", "in"), "in is the file of requests"),
        (("in", "-o", "nowhere/out"), "No such file"),
        (("in", "-o", "out", "--base-url", "127.0.0.1:8000"), "http://"),
        (("in", "-o", "out", "--tier", "9"), "tier '9' is none of"),
        (("in", "-o", "out", "--tier", "2"), "no limits for gpt-4o at tier 2"),
        (("in", "-o", "out", "--tier", "1", "--rpm", "5"), "a tier or limits"),
        (("in", "-o", "out", "--json", "nowhere/figures"), "cannot write nowhere/figures"),
    ],
)
def test_unusable_arguments_are_told_in_a_sentence(
    server: FakeOpenAI,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    told: str,
) -> None:
    """Status 2, one sentence, no traceback, nothing sent, nothing left lying about."""
    monkeypatch.chdir(tmp_path)
    write(Path("in"), 1)
    assert run(*arguments) == 2

    said = capfd.readouterr().err
    assert said.startswith("ratelimit run: ")
    assert told in said
    assert len(said.splitlines()) == 1
    assert len(server.ledger) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


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


def test_a_full_disk_keeps_what_was_done(
    server: FakeOpenAI,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The file stays whole, the sentence names it, the next run goes on."""
    requests, output = write(tmp_path / "in", 30), tmp_path / "out"
    real = os.write

    def refuse(descriptor: int, data: bytes) -> int:
        if bytes(data[:5]) == b'{"id"' and output.stat().st_size > 5_000:
            raise OSError(28, "No space left on device")
        return int(real(descriptor, data))

    with monkeypatch.context() as patch:
        patch.setattr("os.write", refuse)
        assert run(requests, "-o", output) == 1
    kept = len(results(output))
    server.ledger.clear()

    assert f"cannot write {output}: No space left" in capfd.readouterr().err
    assert 0 < kept < 30
    assert run(requests, "-o", output) == 0
    assert len(server.ledger) == 30 - kept


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
    told = json.loads(figures.read_text())
    estimate = RateLimiter().estimate(
        model="gpt-4o", messages=[{"role": "user", "content": "Say 10."}]
    )

    assert told["requests"] == 90
    assert told["seconds"] == pytest.approx(120)
    assert told["prompt_tokens"] == pytest.approx(90 * estimate.prompt_tokens, rel=0.05)
    assert told["output_tokens"] == 90 * 20
    assert told["cost"] == pytest.approx(
        (10 * told["prompt_tokens"] + 100 * told["output_tokens"]) / 1e6
    )
    assert "At least 2 min." in capfd.readouterr().out
    assert len(server.ledger) == 0
    assert not output.exists()


def test_a_dry_run_tells_of_requests_that_can_never_pass(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Better known before than found as a failure in the end."""
    assert run(write(tmp_path / "in", 2, max_tokens=9_000), "--dry-run", "--tpm", "5k") == 1

    assert "2 requests are larger than a whole limit" in capfd.readouterr().out


def test_a_dry_run_without_limits_leaves_the_time_open(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is invented where the limits are still to be learned."""
    assert run(write(tmp_path / "in", 2), "--dry-run") == 0

    assert "depends on your limits" in capfd.readouterr().out
