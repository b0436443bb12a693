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

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry

from ratelimit import RateLimiter, events
from ratelimit.events import Event, Routed
from ratelimit.telemetry.instruments import SCOPE, Instruments
from ratelimit.telemetry.opentelemetry import instrument
from ratelimit.testing import FakeOpenAI, ThreadClock
from tests.answers import refuse
from tests.test_demo_readme import RUN_EACH

Metrics = dict[str, set[str]]
"""The labels of each metric, by its name."""

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "observing.md").read_text(encoding="utf-8")
DASHBOARD = json.loads((DOCS / "grafana.json").read_text(encoding="utf-8"))


def test_the_programs_run(tmp_path: Path) -> None:
    """Each on its own, at any free port, and the first prints what the page says."""
    programs = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    texts = [program.replace("9464", "0") for program in programs]
    with FakeOpenAI(latency=0.01).serve() as base_url:
        done = subprocess.run(
            [sys.executable, "-c", RUN_EACH],
            input=json.dumps(texts),
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": str(DOCS.parent),
                "OPENAI_BASE_URL": base_url,
                "OPENAI_API_KEY": "sk-secret",
            },
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


METRIC = re.compile(r"\bratelimit_client_\w+")
LABEL = re.compile(r"(?:(?<=by \()|(?<=, )|(?<=\{))(ratelimit_\w+|le)(?=[,)=])")


@pytest.fixture(scope="module")
def scrape() -> Metrics:
    """What Prometheus gets of a limiter that has admitted, held up and been refused."""
    registry = CollectorRegistry()
    provider = MeterProvider([PrometheusMetricReader(registry=registry)])
    limiter = RateLimiter(rpm=500, tpm=600, clock=ThreadClock())
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi!"}], "max_tokens": 9}
    try:
        with instrument(limiter, meter_provider=provider):
            with limiter.reserve(body) as lease:
                lease.settle({"usage": {"prompt_tokens": 9, "completion_tokens": 1}})
            limiter.acquire_sync(tokens=600).close()
            refuse(limiter)
            limiter._engine.hooks.put(
                Routed(at=0.0, family="*", model="gpt-4o", member="a", asked="gpt-4o", moves=False)
            )  # as a pool does, of which the limiter is a member's
            assert events.flush(10)
            found: Metrics = {}
            for metric in registry.collect():
                for sample in metric.samples:
                    found.setdefault(sample.name, set()).update(sample.labels)
            return found
    finally:
        provider.shutdown()


def test_every_query_finds_its_metric_and_labels(scrape: Metrics) -> None:
    """Panels, the variable of the dashboard and the alerts of the page ask for nothing
    that a real exporter does not show.
    """
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    variables = [one["query"] for one in DASHBOARD["templating"]["list"]]
    (alerts,) = re.findall(r"Alerts .*?```\n(.*?)```", PAGE, re.DOTALL)
    queries = [*panels, *variables, *alerts.splitlines()]
    missing = {
        (metric, label)
        for query in queries
        for metric in METRIC.findall(query)
        for label in LABEL.findall(query) or [""]
        if metric not in scrape or label not in {"", *scrape[metric]}
    }

    assert missing == set()
    assert len(queries) > 10


def test_grafana_can_draw_the_dashboard() -> None:
    """Panels and queries have what Grafana's schema asks for, and do not overlap.

    The keys are those of its schema, version 39.
    """
    known = {one["name"] for one in DASHBOARD["templating"]["list"]}
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert DASHBOARD.keys() >= {"title", "uid", "schemaVersion", "time", "templating", "panels"}
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    for panel in DASHBOARD["panels"]:
        assert panel.keys() >= {"id", "type", "title", "gridPos", "datasource", "targets"}
        references = [target["refId"] for target in panel["targets"]]
        assert len(references) == len(set(references))
        assert set(re.findall(r"\$\{?(\w+)", json.dumps(panel))) <= known


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
