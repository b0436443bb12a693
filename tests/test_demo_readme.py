"""The README and the pages that it leads to first are true: their programs and commands
run, each on its own, against a server with limits, and the error tree is the real one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ratelimit.errors
from ratelimit.testing import FakeOpenAI, Latency

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOORS = (ROOT / "docs" / "doors.md").read_text(encoding="utf-8")
HOW = (ROOT / "docs" / "how.md").read_text(encoding="utf-8")
RUN_EACH = """
import json, sys
kept = []  # a client that is not closed is not collected in the event loop of the next
for number, program in enumerate(json.load(sys.stdin)):
    kept.append({"__name__": "__main__"})
    exec(compile(program, f"program {number}", "exec"), kept[-1])
"""
"""Runs programs one after the other, each with names of its own."""


@pytest.mark.parametrize(
    ("page", "programs", "calls"),
    [
        ("README.md", 1, 1),
        ("docs/doors.md", 5, 6),
        ("docs/limits.md", 3, 0),
        ("docs/testing.md", 4, 0),
    ],
)
def test_the_programs_run(page: str, programs: int, calls: int, tmp_path: Path) -> None:
    """Every block of Python runs as it stands, without a 429, a warning or an error."""
    texts = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    server = FakeOpenAI(rpm=500, tpm=30_000, latency=Latency(0.01, 0, 0))
    with server.serve() as base_url:
        environment = {**os.environ, "OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "any"}
        environment["HOME"] = str(tmp_path)
        done = subprocess.run(
            [sys.executable, "-c", RUN_EACH],
            cwd=tmp_path,
            env=environment,
            input=json.dumps(texts),
            capture_output=True,
            check=False,
            encoding="utf-8",
            timeout=100,
        )

    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert (len(texts), len(server.ledger.admitted)) == (programs, calls)
    assert not server.ledger.refused


def test_the_commands_run(tmp_path: Path) -> None:
    """The lines of shell that make a file of requests and ask them leave an answer for
    each.
    """
    (commands,) = re.findall(r"```\n(echo .*?)```", DOORS, re.DOTALL)
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
        )

    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 1


def test_the_errors_are_spelled_out() -> None:
    """The tree on the page names every public error, as errors.py draws it."""
    drawn = [line.split()[:2] for line in HOW.splitlines() if line.startswith(("├── ", "└── "))]
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
