"""`ratelimit run --control` and `--budget`: steered, ended, and gone on with."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ratelimit import Limits, RateLimiter
from ratelimit.commands import CommandError
from ratelimit.commands.amounts import read_budget
from ratelimit.commands.run.control import Control
from ratelimit.testing import FakeOpenAI
from tests.run_files import results, run, serving, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    """A server of one key; the environment leads to it."""
    with serving() as fake:
        yield fake


@pytest.fixture
def control(tmp_path: Path) -> Path:
    """The path of a control file; nothing stands there."""
    return tmp_path / "run.control"


def obeyed(control: Control) -> str:
    """Look until a text counts; return the sentence."""
    return control.look() or control.look()


def when(happened: Callable[[], bool], then: Callable[[], object]) -> threading.Thread:
    """Do something in a thread of its own as soon as something has happened."""

    def wait() -> None:
        end = time.monotonic() + 30
        while not happened() and time.monotonic() < end:
            time.sleep(0.01)
        then()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_settings_count_once_two_looks_have_found_them_alike(control: Path) -> None:
    """A text that an editor is still writing changes nothing."""
    limiter = RateLimiter(rpm=500, tpm=30_000)
    steered = Control(control, limiter, {"*": Limits(rpm=500, tpm=30_000)})
    control.write_text("rpm = 1")
    assert steered.look() == ""
    control.write_text("rpm = 100\ntpm = '20k'\n")
    assert steered.look() == ""
    assert limiter.limits() == Limits(rpm=500, tpm=30_000)

    assert steered.look() == "run.control: rpm 100, tpm 20k"

    assert limiter.limits() == Limits(rpm=100, tpm=20_000)
    assert steered.look() == ""
    control.write_text("rpm = 100\npause = true")
    assert obeyed(steered) == "run.control: paused; what is in flight is finished"
    assert steered.paused
    assert limiter.limits() == Limits(rpm=100, tpm=30_000)
    control.unlink()
    assert obeyed(steered) == "run.control: goes on, as the command was started"
    assert not steered.paused
    assert limiter.limits() == Limits(rpm=500, tpm=30_000)


def test_limits_that_are_learned_are_lowered_and_learned_again(control: Path) -> None:
    """What the file does not name stays as it was learned, of each family."""
    limiter = RateLimiter(limits={"a": Limits(), "b": Limits()})
    lease = limiter.acquire_sync(model="a", messages=[])
    lease.observe(
        {
            "x-ratelimit-limit-tokens": "30000",
            "x-ratelimit-remaining-tokens": "29990",
            "x-ratelimit-reset-tokens": "20ms",
        }
    )
    steered = Control(control, limiter, {"a": Limits(), "b": Limits()})
    control.write_text("rpm = 10")
    obeyed(steered)
    assert limiter.limits("a") == Limits("30k tpm", "10 rpm")
    assert limiter.limits("b") == Limits(rpm=10)

    control.write_text("")
    obeyed(steered)
    assert limiter.limits("a") == Limits(tpm=30_000)
    assert limiter.limits("b") == Limits()
    lease.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"rpm = ", "cannot be read"),
        (b"\xff\xfe", "no UTF-8"),
        (b"rmp = 5", "did you mean rpm?"),
        (b"speed = 5", "there are pause, rpm"),
        (b"pause = 1", "pause is true or false"),
        (b"rpm = 0", "above 0"),
        (b"tpm = 'many'", "many"),
        (b"rpm = [1]", "rpm"),
        (b"rpm = 1979-05-27", "rpm"),
        (b"concurrency = 1.5", "concurrency"),
        (b"x = " + b"[" * 9_000, "cannot be read"),
        (b"#" * 70_000, "too long"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_nonsense_is_one_sentence_and_changes_nothing(
    control: Path, text: bytes, said: str
) -> None:
    """Said once, until the file can be used; at the start nothing is sent."""
    limiter = RateLimiter(rpm=500)
    control.write_text("pause = true\nrpm = 100")
    steered = Control(control, limiter, {"*": Limits(rpm=500)})
    control.write_bytes(text)

    sentence = obeyed(steered)

    assert said in sentence
    assert sentence.endswith("; the settings stay as they were")
    assert "\n" not in sentence
    assert [steered.look() for _ in range(3)] == [""] * 3
    assert steered.paused
    assert limiter.limits() == Limits(rpm=100)
    with pytest.raises(CommandError, match="nothing was sent"):
        Control(control, limiter, {"*": Limits(rpm=500)})
    control.write_text("rpm = 200")
    assert obeyed(steered) == "run.control: goes on, rpm 200"


def test_a_folder_and_a_pipe_steer_nothing(tmp_path: Path) -> None:
    """One sentence, and nobody waits for somebody to write into the pipe."""
    limiter = RateLimiter(rpm=5)
    with pytest.raises(CommandError, match=r"cannot read|no ordinary file"):
        Control(tmp_path, limiter, {"*": Limits(rpm=5)})


def test_a_run_pauses_and_goes_on(
    server: FakeOpenAI, tmp_path: Path, control: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """While it is paused nothing is sent; then everything is, once."""
    requests, output = write(tmp_path / "in", 60), tmp_path / "out"
    control.write_text("pause = true")
    sent: list[int] = []

    def go_on() -> None:
        sent.append(len(server.ledger))
        control.write_text("rpm = 50_000")

    started = time.monotonic()
    thread = when(lambda: time.monotonic() > started + 1, go_on)
    assert run(requests, "-o", output, "--control", control) == 0
    thread.join()

    assert sent == [0]
    assert len(results(output)) == len(server.ledger) == 60
    shown = "".join(capfd.readouterr())
    assert "paused from the start" in shown
    assert "run.control: goes on, rpm 50000" in shown
    assert "by the control file" in shown


def test_a_pause_takes_back_who_waits_for_the_limits(
    server: FakeOpenAI, tmp_path: Path, control: Path
) -> None:
    """No call leaves the queue in a pause, and none is lost or sent twice by it."""
    requests, output = write(tmp_path / "in", 40), tmp_path / "out"
    during: list[int] = []

    def pause() -> None:
        control.write_text("pause = true\nrpm = 60_000")
        time.sleep(1.2)
        during.append(len(server.ledger))
        time.sleep(0.6)
        during.append(len(server.ledger))
        control.write_text("rpm = 60_000")

    thread = when(lambda: len(server.ledger) > 2, pause)
    assert run(requests, "-o", output, "--control", control, "--rpm", 4) == 0
    thread.join()

    assert during[0] == during[1] < 40
    assert len(results(output)) == len(server.ledger) == 40


def test_a_budget_ends_a_run_that_can_be_gone_on_with(
    server: FakeOpenAI, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """With a status and a sentence of its own; the next part counts what was spent."""
    requests, output = write(tmp_path / "in", 50), tmp_path / "out"

    assert run(requests, "-o", output, "--budget", "20 requests") == 3
    shown = capfd.readouterr()
    assert "the budget of 20 requests does not allow this call" in shown.err
    assert "30 requests are left; what was done is kept" in shown.err
    assert "20 of 20 requests spent, 0 in flight" in shown.out
    assert len(results(output)) == len(server.ledger) == 20

    assert run(requests, "-o", output, "--budget", "20 requests") == 3
    assert len(server.ledger) == 20
    assert run(requests, "-o", output, "--budget", "35 requests") == 3
    assert len(results(output)) == len(server.ledger) == 35
    assert run(requests, "-o", output, "--budget", "50 requests") == 0
    assert len(results(output)) == 50


def test_a_budget_of_tokens_is_used_up_and_not_exceeded(server: FakeOpenAI, tmp_path: Path) -> None:
    """Estimates of calls in flight, ten times too high, end no run too early."""
    requests, output = write(tmp_path / "in", 60, max_tokens=200), tmp_path / "out"

    assert run(requests, "-o", output, "--budget", "1,000 tokens") == 3

    lines = results(output).values()
    used = [line["response"]["body"]["usage"]["total_tokens"] for line in lines]
    assert 1_000 - 220 <= sum(used) <= 1_000
    assert len(used) == len(server.ledger)


def test_a_budget_of_money_needs_prices(
    server: FakeOpenAI, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """They are the user's own, and the summary shows what was spent."""
    requests, output = write(tmp_path / "in", 40), tmp_path / "out"
    assert run(requests, "-o", output, "--budget", "0.01") == 2
    assert "--price-in and --price-out" in capfd.readouterr().err
    assert not server.ledger

    priced = ("--price-in", 10, "--price-out", 200, "--price-cached", 1)
    assert run(requests, "-o", output, "--budget", "0.05", *priced) == 3
    assert "of 0.0500 spent" in capfd.readouterr().out
    assert 5 < len(results(output)) < 40


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2M tokens", {"tokens": 2_000_000}),
        ("1,000 requests, 30k tokens", {"requests": 1_000, "tokens": 30_000}),
        ("5", {"money": 5}),
        ("12.50,3 requests", {"money": 12.5, "requests": 3}),
    ],
)
def test_a_budget_is_written_as_people_write_it(text: str, found: dict[str, Any]) -> None:
    """Amounts with their unit, and money without one."""
    assert read_budget(text) == found


@pytest.mark.parametrize("text", ["", "lots", "5 euros", "-3 tokens", "1 2 tokens", "nan"])
def test_a_budget_that_cannot_be_read_is_an_error_of_the_option(
    text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """One sentence, with an example."""
    with pytest.raises(SystemExit) as ended:
        run("in", "-o", "out", f"--budget={text}")

    assert ended.value.code == 2
    assert "--budget" in capfd.readouterr().err


def test_results_without_a_bill_count_as_requests(tmp_path: Path, server: FakeOpenAI) -> None:
    """Failures of earlier parts were sent, too."""
    requests, output = write(tmp_path / "in", 3), tmp_path / "out"
    line = {"custom_id": "r-0", "response": None, "error": {"code": "x", "message": "y"}}
    output.write_text(json.dumps({"id": "x", **line}) + "\n")

    assert run(requests, "-o", output, "--budget", "2 requests") == 3
    assert len(server.ledger) == 1
