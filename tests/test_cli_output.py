"""What the commands print where it cannot be written, and their last sentences."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from ratelimit import RateLimiter
from ratelimit.batch import Result
from ratelimit.batch.asking import Ending
from ratelimit.batch.outage import Outage
from ratelimit.batch.requests import read_request
from ratelimit.cli import main
from ratelimit.commands.run.ending import explain
from ratelimit.commands.run.meter import Meter
from ratelimit.commands.secrets import Address
from ratelimit.commands.show import money
from ratelimit.testing import FakeOpenAI

KEY = "sk-canary-7d1f0c52a9e84b36"
FULL = Path("/dev/full")
BODY = {"model": "text-embedding-3-small", "input": [1, 2, 3]}
CHAT = {"model": "gpt-4o", "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]}
needs_full = pytest.mark.skipif(not FULL.exists(), reason="a device of Linux")


def write(path: Path, *lines: dict[str, Any]) -> Path:
    """Write a file of requests."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def run_full(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a process with a full disk under its output."""
    with FULL.open("w") as full:
        return subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; from ratelimit.cli import main; sys.exit(main())",
                *map(str, arguments),
            ],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
            check=False,
        )


@needs_full
@pytest.mark.parametrize("command", [["estimate"], ["run", "--dry-run"]])
def test_a_full_disk_is_one_sentence(tmp_path: Path, command: list[str]) -> None:
    """No traceback is shown, and the exit status tells."""
    ended = run_full(*command, write(tmp_path / "in", BODY))

    assert ended.stderr == "ratelimit: cannot write the output: No space left on device\n"
    assert ended.returncode == 1


@needs_full
def test_a_full_disk_under_the_messages_leaves_a_run_its_status(tmp_path: Path) -> None:
    """The answers are safe, and the summary is read on stderr."""
    output = tmp_path / "out"
    with FakeOpenAI(latency=0).serve() as url:
        requests = write(tmp_path / "in", BODY)
        options = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": url}
        first = run_full("run", requests, "-o", output, **options)
        again = run_full("run", requests, "-o", output, **options)

    assert first.returncode == again.returncode == 0
    assert "No space left on device" in first.stderr
    assert "answered" in first.stderr
    assert "has its result" in again.stderr
    assert "Traceback" not in first.stderr + again.stderr
    assert output.read_text().count("\n") == 1


def run(*arguments: object) -> int:
    """Run the command in this process."""
    return main(["run", *map(str, arguments)])


def test_an_empty_base_url_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A shell variable that is not set must not send a key to another server."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    requests = write(tmp_path / "in", BODY)

    assert run(requests, "-o", tmp_path / "out", "--base-url", "") == 2
    assert "base URL should begin with http" in capfd.readouterr().err


def test_a_refused_login_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The key is not sent then, so another key would not help."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with FakeOpenAI(latency=0, keys={KEY: "org-a"}).serve() as url:
        address = url.replace("://", "://somebody:hunter2-secret@")
        requests = write(tmp_path / "in", BODY)
        assert run(requests, "-o", tmp_path / "out", "--base-url", address) == 1

    said = capfd.readouterr()

    assert "refuses the user and password of the base URL" in said.err
    assert "hunter2" not in said.out + said.err


@pytest.mark.parametrize("plain", [True, False])
def test_the_remedy_for_requests_that_all_fail_alike_works(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    plain: bool,
) -> None:
    """A mended plain body is another request; a named line keeps its name."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def lines(**fields: Any) -> list[dict[str, Any]]:
        bodies = [{**CHAT, "seed": number, **fields} for number in range(20)]
        if plain:
            return bodies
        return [
            {"custom_id": f"r-{number}", "url": "/v1/chat/completions", "body": body}
            for number, body in enumerate(bodies)
        ]

    requests, output = tmp_path / "in", tmp_path / "out"
    with FakeOpenAI(latency=0).serve() as url:
        command = (requests, "-o", output, "--base-url", url)
        write(requests, *lines(n=0))
        assert run(*command) == 1
        said = capfd.readouterr().err
        failed = output.read_text().count("\n")
        write(requests, *lines())
        if plain:
            assert run(*command) == 0
        else:
            assert run(*command, "--retry-failed") == 0
            assert run(*command) == 0

    last = capfd.readouterr().out

    assert failed > 0
    assert "mend the file and" in said
    assert "run the command again to go on" not in said
    assert ("run the same command again" in said) is plain
    assert ("--retry-failed" in said) is not plain
    assert (f"{failed} results are failures of lines that are no longer" in last) is plain


def test_no_end_is_estimated_from_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several answers and some seconds are needed for a guess that is worth showing."""
    now = 100.0
    monkeypatch.setattr("ratelimit.commands.run.meter.time.monotonic", lambda: now)
    meter = Meter(RateLimiter(), 100, 0, ["gpt-4o"], None)
    request = read_request(BODY, 1, where="line 1", model=None, endpoint=None)
    result = Result(request, body={"usage": {}})
    now += 10
    meter.record(result)
    after_one = meter.remaining()
    for _ in range(9):
        meter.record(result)

    assert after_one is None
    assert meter.remaining() == pytest.approx(90)


def test_calls_that_can_never_go_take_no_time(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """`estimate` and `run --dry-run` agree: status 1, and no days of waiting."""
    requests = write(tmp_path / "in", *({**BODY, "input": [1, n]} for n in range(50)))
    statuses = [
        run(requests, "--dry-run", "--tpm", "1"),
        main(["estimate", str(requests), "--tpm", "1"]),
    ]
    said = capfd.readouterr().out

    assert statuses == [1, 1]
    assert "50 requests are larger than a whole limit" in said
    assert "50 calls are larger than a whole limit" in said
    assert "At least" not in said
    assert "until the last call" not in said


def test_a_price_is_no_limit(capfd: pytest.CaptureFixture[str]) -> None:
    """The sentence speaks of what was asked for."""
    with pytest.raises(SystemExit):
        run("in", "--price-in", "foo")

    assert "a price cannot be read from 'foo'" in capfd.readouterr().err


def test_a_bound_of_the_cost_is_never_below_it() -> None:
    """Small costs are shown with more digits, and bounds are rounded up."""
    assert money(0.000123, up=True) == "0.00013"
    assert money(1.001, up=True) == "1.01"
    assert money(0.3, up=True) == "0.30"
    assert money(0) == "0.00"
    assert money(1234.5) == "1,234.50"


def test_the_end_of_patience_says_how_long_it_waited() -> None:
    """The last look may end later than the time that was given."""

    async def said() -> str:
        error = ConnectionError("refused")
        outage = Outage(error, anyio.current_time() - 9.2, patience=5)
        return explain(error, Ending(), Address.read(None), outage)

    assert ", for 9 s; a longer --patience" in anyio.run(said)


@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        (["run", "--dry-run"], 'name it: "url" in the line, or --endpoint'),
        (["estimate"], 'name it: "url" in the line'),
    ],
)
def test_the_remedy_for_a_line_without_an_endpoint_is_the_commands_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], command: list[str], remedy: str
) -> None:
    """No sentence of a command names a parameter of Python."""
    requests = tmp_path / "in"
    requests.write_text('{"query": "x"}\n')

    assert main([*command, str(requests)]) == 2
    said = " ".join(capfd.readouterr().err.split())
    assert said.removesuffix(". Nothing was sent").endswith(remedy)
    assert "endpoint=" not in said
