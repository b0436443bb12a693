"""The command line as a newcomer meets it: every mistake is one sentence and exit
status 2, and the commands do what they say.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ratelimit.cli import main
from ratelimit.commands.show import duration

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}
LOOSE = ("--rpm", "100k", "--tpm", "10m")  # limits that make no call wait


def status_of(*arguments: str) -> int:
    """Run the command line; argparse leaves by SystemExit."""
    try:
        return main(arguments)
    except SystemExit as left:
        return int(left.code or 0)


# a shell's background job ignores it
CTRL_C_WORKS = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
RUN = f"{CTRL_C_WORKS}; from ratelimit.cli import main; sys.exit(main(sys.argv[1:]))"


def started(*arguments: str) -> subprocess.Popen[str]:
    """The command in a process and session of its own, in which Ctrl-C works."""
    return subprocess.Popen(  # ourselves
        [sys.executable, "-c", RUN, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        env={**os.environ, "COLUMNS": "100", "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("frobnicate",),
        ("demo", "--limit", "0"),
        ("demo", "--limit", "many"),
        ("demo", "--rpm", "-5"),
        ("demo", "--tpm", "nan"),
        ("demo", "--tpm", "k"),
        ("demo", "--tpm", "1e400"),
        ("demo", "--seed", "-1"),
        ("demo", "--variant", "Z"),
        ("demo", "--calls"),
        ("demo", "--calls", "/no/such/file"),
        ("demo", "--calls", "/"),
        ("demo", "--json", "/"),
        ("demo", "--json", "/no/such/folder/out.json"),
        ("demo", "surplus"),
        ("estimate",),
        ("estimate", "/"),
        ("estimate", "--rpm", "0", "x"),
        ("serve", "--port", "99999"),
        ("serve", "--variant", "Y"),
        ("serve", "--host", "256.0.0.1"),
        ("serve", "--host", ""),  # of a variable that is not set: not every address
        ("serve", "--host", "ü..ü"),
        ("serve", "--host", "a" * 300),
    ],
)
def test_a_mistake_is_one_sentence(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Unusable arguments and files end with status 2 and one line on stderr, no
    traceback, nothing on stdout.
    """
    assert status_of(*arguments) == 2

    out, err = capsys.readouterr()
    assert not out
    assert len(err.splitlines()) == 1
    assert err.startswith("ratelimit")


@pytest.mark.parametrize(
    "content", ["\n\n", "{oops", json.dumps({"model": "text-embedding-3-small", "input": "x"})]
)
def test_a_file_without_chat_calls_is_refused(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo says what is wrong with a file before it sends anything, and leaves no
    figures behind.
    """
    path, out = tmp_path / "calls.jsonl", tmp_path / "out.json"
    path.write_text(content, encoding="utf-8")

    assert status_of("demo", "--calls", str(path), "--json", str(out)) == 2
    assert str(path) in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("limits", [("--tpm", "1"), ("--rpm", "0.01"), ("--tpm", "500")])
def test_a_demo_that_would_take_days_is_refused(
    limits: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence says how long it would take, and what to change."""
    assert status_of("demo", *limits) == 2

    out, err = capsys.readouterr()
    assert not out
    assert re.search(r"the demo would take .*(day|h|min).*; raise --rpm or --tpm", err)


def test_the_version_is_the_distribution_s(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` names the installed version."""
    assert status_of("--version") == 0
    assert capsys.readouterr().out.startswith("ratelimit 0.")


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without rich or uvicorn the commands say what to install."""
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda module: None if module == "rich" else object()
    )
    monkeypatch.setattr("ratelimit.cli.install_command", lambda extra: f"install {extra}")

    assert status_of("demo") == 2
    assert "needs rich: install cli" in capsys.readouterr().err


INTERRUPTED = """
import sys

import ratelimit

class CtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            raise KeyboardInterrupt

sys.meta_path.insert(0, CtrlC())
known = set(sys.modules)
from ratelimit.cli import main
loaded = {
    name
    for name in sys.modules.keys() - known
    if name.startswith(("ratelimit", "openai", "rich"))
}
commands = {f"commands.{name}" for name in ("amounts", "arguments", "streams")}
light = {"cli", "commands", "installation", *commands}
assert loaded == {f"ratelimit.{name}" for name in light}, loaded
sys.exit(main(["estimate", "no-such-file"]))
"""


@pytest.mark.parametrize("module", ["ratelimit.commands.estimate", "rich.console"])
def test_ctrl_c_while_the_command_is_loaded_is_silent(module: str) -> None:
    """Loading a command takes a while: a user with second thoughts gets status 130, no
    traceback. Once the package is there, `main` is at once.
    """
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, module], capture_output=True, text=True, check=False
    )  # ourselves

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_ctrl_c_while_the_arguments_are_read_is_silent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From its first line `main` hears of Ctrl-C."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ratelimit.cli.make_parser", interrupted)

    assert status_of("estimate", "no-such-file") == 130
    assert capsys.readouterr() == ("", "")


def test_only_what_a_command_names_is_needed() -> None:
    """`estimate` and `run` ask for rich alone, so they start without what the demo and
    the fake server import.
    """
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['tenacity', 'uvicorn']));"
        "import ratelimit.commands.estimate, ratelimit.commands.run.command"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )  # ourselves

    assert done.returncode == 0, done.stderr


def test_estimate_sums_and_tells_the_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tokens by model and in all, the time at the given limits, each call
    in the JSON.
    """
    path, out = tmp_path / "calls.jsonl", tmp_path / "out.json"
    path.write_text(f"{json.dumps(BODY)}\n" * 30, encoding="utf-8")

    assert status_of("estimate", str(path), "--rpm", "10", "--json", str(out)) == 0

    shown, figures = capsys.readouterr().out, json.loads(out.read_text())
    assert "gpt-4o" in shown
    assert "2 min until the last call" in shown
    assert figures["total"] == {
        "calls": 30,
        "prompt_tokens": 240,
        "output_tokens": 600,
        "charge": 90,
    }
    assert len(figures["calls"]) == 30
    assert figures["seconds"] == 120


def test_estimate_shows_each_call_and_what_can_never_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--each` has a row for every line, and a call above the limit is named."""
    path = tmp_path / "calls.jsonl"
    path.write_text(f"{json.dumps(BODY)}\n\n{json.dumps(BODY)}\n", encoding="utf-8")

    assert status_of("estimate", str(path), "--each", "--tpm", "5") == 1

    shown = capsys.readouterr().out
    assert "line 1" in shown
    assert "line 3" in shown
    assert "more than the limit" in shown


def test_estimate_says_how_sure_each_prompt_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sum is as sure as its least sure call, so that no guess is taken for a bill."""
    path = tmp_path / "calls.jsonl"
    guessed = {**BODY, "messages": [{"role": "user", "content": [{"type": "dream", "of": "rain"}]}]}
    path.write_text(f"{json.dumps(BODY)}\n{json.dumps(guessed)}\n", encoding="utf-8")

    assert status_of("estimate", str(path), "--each") == 0

    sure = [line.split()[-2] for line in capsys.readouterr().out.splitlines() if " gpt-4o " in line]
    assert sure == ["exact", "guess"]
    assert status_of("estimate", str(path)) == 0
    total = [line for line in capsys.readouterr().out.splitlines() if " all " in line]
    assert total[0].split()[-2] == "guess"


def test_the_demo_runs_end_to_end_over_http(tmp_path: Path) -> None:
    """All three clients get their answers over real HTTP, and the JSON has every figure
    of each.
    """
    out = tmp_path / "out.json"
    with started("demo", "--limit", "12", *LOOSE, "--json", str(out)) as process:
        shown = process.communicate(timeout=100)[0]

    assert process.returncode == 0, shown
    figures = json.loads(out.read_text())
    for client in ("semaphore", "backoff", "limiter"):
        row = figures[client]
        assert (row["answered"], row["rejected"], row["failed"]) == (12, 0, 0)
        assert row.keys() == {
            "answered",
            "rejected",
            "failed",
            "seconds",
            "token_utilization",
            "longest_wait",
        }
        assert 0 < row["token_utilization"] < 1
        assert "12 of 12" in shown


def test_ctrl_c_ends_the_demo_with_the_partial_table(tmp_path: Path) -> None:
    """An interrupt in the middle of a race shows and writes what was done, ends with
    130, and leaves no process behind.
    """
    out = tmp_path / "out.json"
    with started("demo", "--limit", "20", "--rpm", "2", "--json", str(out)) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("semaphore"):  # done: now the back-off waits
                break
        os.killpg(process.pid, signal.SIGINT)
        lines.extend(process.stdout)
        process.wait(timeout=60)

    shown = "".join(lines)
    assert process.returncode == 130, shown
    assert "interrupted" in shown
    assert "Traceback" not in shown
    figures = json.loads(out.read_text())
    assert figures["settings"]["interrupted"] is True
    assert figures["semaphore"]["rejected"] > 0
    assert "limiter" not in figures


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0 s"),
        (0.4, "0 s"),
        (59, "59 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (7_500, "2 h 5 min"),
        (108_000, "1 day 6 h"),
        (367_200, "4 days 6 h"),
    ],
)
def test_durations_are_for_people(seconds: float, shown: str) -> None:
    """The two largest units that count."""
    assert duration(seconds) == shown
