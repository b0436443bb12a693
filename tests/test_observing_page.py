"""The page about looking at a limiter is true: its programs run, its dashboard asks for
metrics that exist.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from ratelimit import events
from ratelimit.events import Event
from ratelimit.telemetry.instruments import SCOPE, Instruments
from ratelimit.testing import FakeOpenAI

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "observing.md").read_text(encoding="utf-8")
DASHBOARD = json.loads((DOCS / "grafana.json").read_text(encoding="utf-8"))


def test_the_programs_run(tmp_path: Path) -> None:
    """One after the other as they are read, and the log says what the page says."""
    programs = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    program = tmp_path / "observing.py"
    program.write_text("\n".join(programs).replace("9464", "0"), encoding="utf-8")
    with FakeOpenAI(latency=0.01).serve() as base_url:
        done = subprocess.run(
            [sys.executable, str(program)],
            env={**os.environ, "OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "sk-secret"},
            capture_output=True,
            check=False,
            encoding="utf-8",
            timeout=60,
        )

    assert done.returncode == 0, done.stderr
    assert "limits: 500 requests/min (given;" in done.stdout
    assert "Traceback" not in done.stderr
    assert len(programs) == 5


def test_every_event_is_on_the_page() -> None:
    """And no other."""
    named = set(re.findall(r"^\| `(\w+)`(?:, `(\w+)`)? \|", PAGE, re.MULTILINE))
    kinds = {
        name
        for name, value in vars(events).items()
        if isinstance(value, type) and issubclass(value, Event) and value is not Event
    }

    assert {name for pair in named for name in pair if name} >= kinds


class Meter:
    """Takes down the names of instruments."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __getattr__(self, name: str) -> object:
        return lambda instrument, *_, **__: self.names.add(instrument)


def test_every_instrument_is_on_the_page_and_in_the_dashboard() -> None:
    """A panel asks for no metric that there is not, and each is asked for."""
    meter = Meter()
    Instruments(meter)  # type: ignore[arg-type]  # of our own
    short = {name.removeprefix(f"{SCOPE}.client.") for name in meter.names}

    asked = " ".join(target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"])
    metrics = set(re.findall(r"ratelimit_client_(\w+?)(?:_total|(?:_seconds)?_bucket)?\{", asked))
    assert metrics == {name.replace(".", "_") for name in short}
    assert all(f".{name}`" in PAGE for name in short)
