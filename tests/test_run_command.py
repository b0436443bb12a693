"""`ratelimit run`: a file of requests becomes a file of answers, also in
several runs.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ratelimit.testing import FakeOpenAI
from tests.journal_files import result
from tests.run_files import results, run, serving, write

Run = Callable[..., int]


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    """A server of one key with high limits and quick answers."""
    with serving() as fake:
        yield fake


@pytest.mark.usefixtures("server")
def test_a_file_of_requests_becomes_a_file_of_answers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every request has its answer in the Batch API's form, the figures are shown, and
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
    expected = json.loads(figures.read_text())
    assert (expected["answered"], expected["failed"], expected["rejected"]) == (40, 0, 0)
    assert expected["output_tokens"] == sum(
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


@pytest.mark.parametrize("again", [(), ("--retry-failed",)])
@pytest.mark.parametrize("missing", [0, 1])
def test_a_killed_retry_is_tidied_up_by_any_next_run(
    server: FakeOpenAI, tmp_path: Path, again: tuple[str, ...], missing: int
) -> None:
    """Also by one that has nothing to send: no request is sent that has its answer, no
    answer is lost, and each request has one line.
    """
    requests, output = write(tmp_path / "in", 3 + missing), tmp_path / "out"
    lines = [result("r-0", 500), result("r-1", 500), result("r-2"), result("r-0"), result("r-1")]
    output.write_bytes(b"".join(line.line() for line in lines))
    assert run(requests, "-o", output, *again) == 0

    sent = 0 if again else missing
    assert len(server.ledger) == sent
    assert len(results(output)) == 3 + sent
    assert all(line["response"]["status_code"] == 200 for line in results(output).values())


def test_a_model_can_be_put_in_place(server: FakeOpenAI, tmp_path: Path) -> None:
    """--model asks the same questions of another model."""
    assert run(write(tmp_path / "in", 2), "-o", tmp_path / "out", "--model", "gpt-4.1-mini") == 0

    assert {entry.model for entry in server.ledger} == {"gpt-4.1-mini"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{}\n" * 7, "line 5 of .*; and 2 more like these. Nothing was sent"),
        ('{"model": "gpt-4o"', "line 1 of .* is not JSON"),
        ("{}\n[]\n", "line 1 of .* is no request.*line 2 of .* is a JSON list"),
    ],
)
def test_broken_lines_stop_before_anything_is_sent(
    server: FakeOpenAI,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    content: str,
    expected: str,
) -> None:
    """A file with broken lines costs nothing: each is named, none is sent, the output
    is not begun.
    """
    (tmp_path / "in").write_text(content)
    assert run(tmp_path / "in", "-o", tmp_path / "out") == 2

    said = capfd.readouterr().err
    assert len(said.splitlines()) == 1
    assert re.search(expected, said)
    assert len(server.ledger) == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("none", "-o", "out"), "cannot read none: No such file"),
        (("in",), "Give -o FILE"),
        (("in", "-o", "."), "no ordinary file"),
        (("in", "-o", "in"), "in is the file of requests"),
        (("in", "-o", "nowhere/out"), "No such file"),
        (("in", "-o", "out", "--base-url", "127.0.0.1:8000"), "http://"),
        (("in", "-o", "out", "--tier", "9"), "tier '9' is none of"),
        (("in", "-o", "out", "--tier", "2", "--model", "other"), "no limits for other at tier 2"),
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
    expected: str,
) -> None:
    """Status 2, one sentence, no traceback, nothing sent, nothing left lying about."""
    monkeypatch.chdir(tmp_path)
    write(Path("in"), 1)
    assert run(*arguments) == 2

    said = capfd.readouterr().err
    assert said.startswith("ratelimit run: ")
    assert expected in said
    assert len(said.splitlines()) == 1
    assert len(server.ledger) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


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
