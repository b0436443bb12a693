"""The command in a process of its own, which is ended in rude ways. Each run starts an
interpreter, so there are few of them.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ratelimit.testing import FakeOpenAI

KEY = "sk-canary-7d1f0c52a9e84b36"
START = "import sys; from ratelimit.cli import main; sys.exit(main())"
ALL = 120
PATIENCE = 100.0  # seconds; nothing here takes as long, unless something hangs

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    """Requests that the server's ledger can tell apart, by their models; of token
    numbers, so that no process has to load a vocabulary.
    """
    path = tmp_path / "in"
    rows = (
        {
            "custom_id": f"m-{n}",
            "url": "/v1/embeddings",
            "body": {"model": f"m-{n}", "input": [1, 2, 3]},
        }
        for n in range(ALL)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@contextmanager
def serving(seconds: float) -> Iterator[tuple[FakeOpenAI, dict[str, str]]]:
    """A server with answers of `seconds`, and the environment that leads to it."""
    server = FakeOpenAI(
        rpm=60_000, tpm=60_000_000, latency=seconds, output=300, count_prompt=lambda *_: 10
    )
    with server.serve() as url:
        yield server, os.environ | {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": url}


def unmeasured(environment: dict[str, str]) -> dict[str, str]:
    """The environment without what lets coverage measure a process: one that is killed
    has nothing to show for the time that takes.
    """
    return {name: value for name, value in environment.items() if "COVERAGE" not in name}


@contextmanager
def running(
    requests: Path, output: Path, environment: dict[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """The command, until the block ends."""
    command: list[str | Path] = [
        sys.executable,
        "-c",
        START,
        "run",
        requests,
        "-o",
        output,
        "--rpm",
        "60000",
        "--concurrency",
        "8",
    ]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:  # ourselves
        try:
            yield process
        finally:
            process.kill()


def written(output: Path) -> list[str]:
    """Names of the whole lines."""
    whole = output.read_bytes().rpartition(b"\n")[0] if output.exists() else b""
    return [json.loads(line)["custom_id"] for line in whole.split(b"\n") if line]


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Look often until it has."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.timeout(400)  # three interpreters start one after the other
def test_killed_at_random_moments_it_still_asks_everything_once(
    requests: Path, tmp_path: Path
) -> None:
    """Twice SIGKILL: no line is broken, nothing that was written is asked again,
    in the end every name stands there once.
    """
    chance, output = random.Random(5), tmp_path / "out"
    for _ in range(2):
        before = written(output)
        enough = len(before) + chance.randint(1, 20)
        with (
            serving(0.02) as (server, environment),
            running(requests, output, unmeasured(environment)) as process,
        ):
            wait_for(lambda enough=enough: len(written(output)) >= enough, process)  # type: ignore[misc]  # a default binds the loop's variable
            time.sleep(chance.uniform(0, 0.02))
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert not {entry.model for entry in server.ledger} & set(before)
    before = written(output)
    with (
        serving(0.02) as (server, environment),
        running(requests, output, unmeasured(environment)) as process,
    ):
        said, _ = process.communicate(timeout=PATIENCE)
    sent = [entry.model for entry in server.ledger]

    assert process.returncode == 0, said
    assert sorted(sent + before) == sorted(f"m-{n}" for n in range(ALL))
    assert sorted(written(output)) == sorted(f"m-{n}" for n in range(ALL))
    assert output.read_bytes().endswith(b"\n")


def test_interrupted_once_it_finishes_what_is_in_flight(requests: Path, tmp_path: Path) -> None:
    """Ctrl-C: what was sent is paid, so its answers are waited for and written; no
    further request goes out.
    """
    output = tmp_path / "out"
    with serving(0.3) as (server, environment), running(requests, output, environment) as process:
        wait_for(lambda: len(written(output)) > 3, process)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=PATIENCE)

    assert process.returncode == 130
    assert "finishing what is in flight" in said
    assert {entry.model for entry in server.ledger} == set(written(output))
    assert len(written(output)) < ALL
    assert all(entry.status == 200 for entry in server.ledger)
    assert KEY not in said
    assert not (tmp_path / "out.lock").exists()


def test_interrupted_twice_it_stops_now(requests: Path, tmp_path: Path) -> None:
    """A user need not wait for a long answer; what was written stays whole. SIGTERM, as
    a system sends it when it goes down, counts as Ctrl-C does.
    """
    output = tmp_path / "out"
    with serving(600) as (server, environment), running(requests, output, environment) as process:
        wait_for(lambda: len(server.ledger) > 0, process)
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert any("finishing" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=PATIENCE)

    assert process.returncode == 130, said
    assert written(output) == []
    assert "Traceback" not in said
