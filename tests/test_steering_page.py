"""docs/steering.md is true: its programs run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ratelimit.commands.arguments import make_parser
from ratelimit.commands.run.control import NAMES
from ratelimit.testing import FakeOpenAI, Latency

PAGE = (Path(__file__).parent.parent / "docs" / "steering.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


PRINTED = {
    "limiter.replace": "100 requests/min, 10,000 tokens/min",
    "shares=": "nobody waits",
    "Budget(": "of 5.00 spent, 0.00 in flight",
}


@pytest.mark.parametrize("what", PRINTED)
def test_a_program_runs(what: str, tmp_path: Path) -> None:
    """On its own, against a server with limits, without a warning."""
    (program,) = (one for one in PROGRAMS if what in one)
    path = tmp_path / "program.py"
    path.write_text(program, encoding="utf-8")
    with FakeOpenAI(rpm=5_000, tpm=450_000, latency=Latency(0.01, 0, 0)).serve() as base_url:
        done = subprocess.run(
            [sys.executable, str(path)],
            env={**os.environ, "OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "any"},
            capture_output=True,
            check=False,
            encoding="utf-8",
            timeout=60,
        )

    assert (done.returncode, done.stderr) == (0, "")
    assert PRINTED[what] in done.stdout
    assert len(PROGRAMS) == len(PRINTED)


def test_the_command_and_the_file_are_as_the_page_says() -> None:
    """The options exist, and the file's settings are all that there are."""
    (line,) = re.findall(r"^ratelimit (run .*)$", PAGE, re.MULTILINE)
    arguments = re.findall(r'"([^"]*)"|(\S+)', line)
    chosen = make_parser().parse_args([quoted or plain for quoted, plain in arguments])
    assert chosen.budget == {"tokens": 2_000_000}

    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert set(tomllib.loads(text)) <= set(NAMES)
    assert all(name in text for name in NAMES)
