"""The README is true: its programs and commands run, in their order, against a server
with limits, and its error tree is the real one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import ratelimit.errors
from ratelimit.testing import FakeOpenAI, Latency

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_programs_run(tmp_path: Path) -> None:
    """Every block of Python runs as it stands, one after the other as they are read,
    without a 429, a warning or an error.
    """
    server = FakeOpenAI(rpm=500, tpm=30_000, latency=Latency(0.01, 0, 0))
    program = tmp_path / "readme.py"
    program.write_text("\n".join(PROGRAMS), encoding="utf-8")
    with server.serve() as base_url:
        environment = {**os.environ, "OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "any"}
        environment["HOME"] = str(tmp_path)  # a program makes a quota there
        done = subprocess.run(
            [sys.executable, str(program)],
            env=environment,
            capture_output=True,
            check=False,
            encoding="utf-8",
            timeout=100,
        )  # our own README

    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert len(PROGRAMS) > 5
    assert len(server.ledger.admitted) == 6
    assert not server.ledger.refused


def test_the_commands_run(tmp_path: Path) -> None:
    """The lines of shell that make a file of requests and ask them leave an answer for
    each.
    """
    (commands,) = re.findall(r"```\n(echo .*?)```", README, re.DOTALL)
    with FakeOpenAI(latency=0.01).serve() as base_url:
        environment = {**os.environ, "OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "any"}
        environment["PATH"] = os.pathsep.join(
            (str(Path(sys.executable).parent), environment["PATH"])
        )
        done = subprocess.run(
            ["sh", "-ec", commands],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            check=False,
            text=True,
            timeout=100,
        )  # our own README

    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 1


def test_the_errors_are_spelled_out() -> None:
    """The tree in the README names every public error, as errors.py draws it."""
    drawn = [line.split()[:2] for line in README.splitlines() if line.startswith(("├── ", "└── "))]
    real = [
        line.split()[:2]
        for line in (ratelimit.errors.__doc__ or "").splitlines()
        if line.lstrip().startswith(("├── ", "└── "))
    ]

    assert drawn == real


def test_the_first_screen_has_what_a_stranger_needs() -> None:
    """Within forty lines: what it is, how to install it, a program; the commands that
    make the figures follow.
    """
    screen = "\n".join(README.splitlines()[:40])

    assert "pip install '.[cli]'" in screen, "without the extra no command of this page runs"
    assert "```python" in screen
    assert "make demo" in screen
    assert "@@" not in README
