"""benchmarks/README.md names commands that there are."""

from __future__ import annotations

import re
from pathlib import Path

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
COMMANDS = re.findall(r"`(\w+\.py)((?: [^`]+)?)`", (BENCHMARKS / "README.md").read_text("utf-8"))


def test_every_option_of_the_page_is_one_of_its_script() -> None:
    """A reader who types what stands there is not refused."""
    unknown = [
        f"{script} {option}"
        for script, options in COMMANDS
        for option in re.findall(r"--[a-z-]+", options)
        if f'"{option}"' not in (BENCHMARKS / script).read_text("utf-8")
    ]

    assert len(COMMANDS) > 15
    assert unknown == []
