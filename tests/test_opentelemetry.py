"""OpenTelemetry: metrics and spans through the real SDK, and Prometheus over HTTP."""

from __future__ import annotations

import gc
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, start_http_server

from ratelimit import InvalidArgument, Limits, RateLimiter, RequestTooLarge, WaitTimeout, events
from ratelimit.telemetry.opentelemetry import MOST_FAMILIES, MOST_MODELS, instrument
from ratelimit.testing import ThreadClock
from tests.answers import refuse, refused_for

BODY: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "a private prompt"}],
    "max_tokens": 20,
}
COMMON = {"gen_ai.provider.name": "openai", "ratelimit.family": "*"}
CHAT = {**COMMON, "gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o"}


class Meters:
    """The real SDK with a reader in memory."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader])

    def points(self, name: str) -> list[Any]:
        """Return the data points of one instrument."""
        assert events.flush(10)
        data: Any = self.reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == f"ratelimit.client.{name}"
            for point in metric.data.data_points
        ]


@pytest.fixture
def meters() -> Iterator[Meters]:
    """Return meters that are shut down after the test."""
    made = Meters()
    yield made
    made.provider.shutdown()


def make(**options: Any) -> RateLimiter:
    """Return a limiter on a virtual clock."""
    return RateLimiter(arrival_slack=0, clock=ThreadClock(), **options)


def test_requests_are_counted_by_their_result(meters: Meters) -> None:
    """Admitted, timed out and too large, with the attributes of the conventions."""
    limiter = make(tpm=600)
    with instrument(limiter, meter_provider=meters.provider):
        limiter.acquire_sync(BODY).close()
        limiter.acquire_sync(tokens=500).close()
        with pytest.raises(WaitTimeout):
            limiter.acquire_sync(tokens=500, timeout=1)
        with pytest.raises(RequestTooLarge):
            limiter.acquire_sync(tokens=601)
        points = meters.points("requests")

    assert {tuple(sorted(one.attributes.items())): one.value for one in points} == {
        tuple(sorted({**CHAT, "ratelimit.result": "admitted"}.items())): 1,
        tuple(sorted({**COMMON, "ratelimit.result": "admitted"}.items())): 1,
        tuple(sorted({**COMMON, "ratelimit.result": "timed_out"}.items())): 1,
        tuple(sorted({**COMMON, "ratelimit.result": "too_large"}.items())): 1,
    }


def test_the_time_in_the_queue_is_a_histogram_in_seconds(meters: Meters) -> None:
    """Of the calls that waited, and of no other."""
    limiter = make(tpm=600)
    with instrument(limiter, meter_provider=meters.provider):
        limiter.acquire_sync(tokens=600).close()
        limiter.acquire_sync(tokens=100).close()
        (point,) = meters.points("request.time_in_queue")

    assert (point.count, point.sum) == (1, pytest.approx(10))
    assert dict(point.attributes) == {**COMMON, "ratelimit.result": "admitted"}


def test_what_is_read_when_asked_for_is_up_to_date(meters: Meters) -> None:
    """Limits, levels, queue and calls in flight."""
    limiter = make(tpm=600)
    with instrument(limiter, name="mine", meter_provider=meters.provider):
        lease = limiter.acquire_sync(tokens=100)
        (limit,) = meters.points("limit")
        (level,) = meters.points("level")
        (flying,) = meters.points("active_leases")
        (queued,) = meters.points("queued_requests")
        lease.close()

    assert (limit.value, level.value, flying.value, queued.value) == (600, 500, 1, 0)
    assert dict(limit.attributes) == {
        "ratelimit.limiter": "mine",
        "ratelimit.family": "*",
        "ratelimit.limit": "tokens/60s",
    }


def test_a_scrape_looks_at_a_limiter_once(meters: Meters, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its figures belong to one moment, and a limiter of many families is read once."""
    limiter, looks = make(tpm=600), 0
    explain = limiter.explain

    def counted() -> Any:
        nonlocal looks
        looks += 1
        return explain()

    monkeypatch.setattr(limiter, "explain", counted)
    with instrument(limiter, meter_provider=meters.provider):
        meters.points("limit")
        lease = limiter.acquire_sync(tokens=100)
        (level,) = meters.points("level")
        lease.close()

    assert looks == 2
    assert level.value == 500


def test_429s_and_estimates_are_recorded_without_a_text(meters: Meters) -> None:
    """Which limit it was, and by how many tokens the estimate was off."""
    limiter = make(tpm=6_000)
    expected = limiter.estimate(BODY).prompt_tokens + 20
    with instrument(limiter, meter_provider=meters.provider):
        limiter.acquire_sync(BODY).settle({"prompt_tokens": 100, "completion_tokens": 1})
        refuse(limiter, request=BODY)
        (refusal,) = meters.points("refusals")
        (error,) = meters.points("estimate.error")

    assert refusal.value == 1
    assert refusal.attributes["ratelimit.limit"] == "unknown"
    assert error.attributes["ratelimit.bill"] == "above"
    assert error.sum == 101 - expected
    assert "secret" not in repr(refusal)


def test_a_closed_instrumentation_records_nothing(meters: Meters) -> None:
    """Neither events nor what is read when asked for."""
    limiter = make(tpm=600)
    with instrument(limiter, meter_provider=meters.provider):
        pass
    limiter.acquire_sync(tokens=100).close()

    assert meters.points("requests") == []
    assert meters.points("level") == []


def test_two_limiters_share_the_instruments(meters: Meters) -> None:
    """They are told apart by name, and registering twice makes no second set."""
    first, second = make(tpm=600), make(tpm=900)
    with (
        instrument(first, name="a", meter_provider=meters.provider),
        instrument(second, name="b", meter_provider=meters.provider),
    ):
        points = meters.points("limit")

    assert sorted((one.attributes["ratelimit.limiter"], one.value) for one in points) == [
        ("a", 600),
        ("b", 900),
    ]


GLOBAL = """
import logging
logging.basicConfig(level="WARNING")
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from ratelimit import RateLimiter
from ratelimit.telemetry.opentelemetry import instrument
reader = InMemoryMetricReader()
provider = MeterProvider([reader])
limiters = [RateLimiter(tpm=600), RateLimiter(tpm=900), RateLimiter(tpm=300)]
kept = [instrument(limiters[0], name="before", meter_provider={before})]
metrics.set_meter_provider(provider)
kept.append(instrument(limiters[1], name="after"))
kept.append(instrument(limiters[2], name="by hand", meter_provider=provider))
print(len({id(one._instruments) for one in kept}))
for resource in reader.get_metrics_data().resource_metrics:
    for scope in resource.scope_metrics:
        for metric in scope.metrics:
            if metric.name == "ratelimit.client.limit":
                print(sorted(point.value for point in metric.data.data_points))
"""


@pytest.mark.parametrize(
    "before",
    ["None", "metrics.get_meter_provider()", "provider"],
    ids=["global", "proxy", "by hand"],
)
def test_before_and_after_the_global_provider_is_set_is_one_set(before: str) -> None:
    """A second set of instruments would be warned of by the SDK, and counted apart."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", GLOBAL.replace("{before}", before)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout.splitlines() == ["1", "[300.0, 600.0, 900.0]"]
    assert done.stderr == ""


def test_a_limiter_is_instrumented_once(meters: Meters) -> None:
    """Twice would count everything twice."""
    limiter = make(tpm=600)
    with (
        instrument(limiter, meter_provider=meters.provider),
        pytest.raises(InvalidArgument, match="instrumented already"),
    ):
        instrument(limiter, meter_provider=meters.provider)


def test_an_instrumented_limiter_can_go(meters: Meters) -> None:
    """What is read when asked for holds no limiter."""
    kept = instrument(make(tpm=600), meter_provider=meters.provider)
    gc.collect()

    assert list(kept.snapshot()) == []
    assert meters.points("limit") == []


def test_a_meter_provider_that_is_shut_down_touches_no_call() -> None:
    """Calls go on, and nothing is raised into them."""
    meters = Meters()
    limiter = make(tpm=600)
    with instrument(limiter, meter_provider=meters.provider) as instrumented:
        meters.provider.shutdown()
        limiter.acquire_sync(tokens=100).close()
        assert events.flush(10)

    assert instrumented._subscription.failures == 0
    assert limiter.statistics().families["*"].admitted == 1


def test_models_beyond_a_number_are_counted_together(meters: Meters) -> None:
    """Their names come from requests, and each would be a time series."""
    limiter = make(limits={"model-?": Limits(rpm=9_000), "model-*": Limits(rpm=9_000)})
    with instrument(limiter, meter_provider=meters.provider):
        for number in range(MOST_MODELS + 5):
            body = {**BODY, "model": f"model-{number}", "max_tokens": 1}
            limiter.acquire_sync(body).close()
        points = meters.points("requests")

    models = {one.attributes.get("gen_ai.request.model") for one in points}
    assert "_OTHER" in models
    assert len(models) == MOST_MODELS + 1


def test_families_beyond_a_number_are_read_together(meters: Meters) -> None:
    """Each would be a time series of four instruments; nobody's limit is theirs."""
    names = [f"model-{number}" for number in range(MOST_FAMILIES + 5)]
    limiter = make(limits=dict.fromkeys(names, Limits(rpm=5)))
    leases = [limiter.acquire_sync(model=name, tokens=1) for name in names]
    with instrument(limiter, meter_provider=meters.provider):
        flying = {one.attributes["ratelimit.family"]: one for one in meters.points("active_leases")}
        limits = {one.attributes["ratelimit.family"] for one in meters.points("limit")}
    for lease in leases:
        lease.close()

    assert len(flying) == MOST_FAMILIES + 1
    assert flying["_OTHER"].value == 5
    assert limits == flying.keys() - {"_OTHER"}


def test_families_that_look_alike_are_read_together(meters: Meters) -> None:
    """Two keys in the place of names are one time series, of no limit of its own."""
    keys = [f"sk-proj-0123456789abcdef{letter}" for letter in "AB"]
    limiter = make(limits=dict.fromkeys(keys, Limits(rpm=5)))
    leases = [limiter.acquire_sync(model=key, tokens=1) for key in keys]
    with instrument(limiter, meter_provider=meters.provider):
        (flying,) = meters.points("active_leases")
        limits = meters.points("limit")
    for lease in leases:
        lease.close()

    assert (flying.attributes["ratelimit.family"], flying.value) == ("_key_", 2)
    assert limits == []


def test_the_limits_of_refusals_are_of_a_number(meters: Meters) -> None:
    """A server names them, and each would be a time series."""
    limiter = make(rpm=9_000)
    with instrument(limiter, meter_provider=meters.provider) as instrumented:
        for number in range(MOST_MODELS + 5):
            instrumented._record(refused_for(f"tokens/{number}s"))
        points = meters.points("refusals")

    assert len(points) == MOST_MODELS + 1


@pytest.mark.parametrize("seconds", ["5", -1, float("nan"), None])
def test_a_span_of_no_length_is_answered_in_a_sentence(meters: Meters, seconds: Any) -> None:
    """Before anything is recorded: a hook that fails is noticed late."""
    with pytest.raises(InvalidArgument, match="span_seconds="):
        instrument(make(rpm=5), meter_provider=meters.provider, span_seconds=seconds)


def test_a_long_wait_is_a_span_below_the_callers() -> None:
    """With its reason, the predicted seconds, and no span for a short wait."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    limiter = make(tpm=600)
    with (
        instrument(limiter, tracer_provider=provider, meter_provider=Meters().provider),
        provider.get_tracer("test").start_as_current_span("caller") as caller,
    ):
        limiter.acquire_sync(tokens=600).close()
        limiter.acquire_sync(tokens=5).close()
        limiter.acquire_sync(tokens=100).close()
        assert events.flush(10)

    (span, _) = exporter.get_finished_spans()
    assert span.name == "ratelimit.wait"
    assert span.parent is not None
    assert span.parent.span_id == caller.get_span_context().span_id
    assert span.attributes is not None
    assert span.attributes["ratelimit.limit"] == "tokens/60s"
    assert span.attributes["ratelimit.predicted"] == pytest.approx(10)
    assert (span.end_time or 0) - (span.start_time or 0) == pytest.approx(10e9)


def test_prometheus_scrapes_it_over_http() -> None:
    """Through OpenTelemetry's own exporter, with base units in the names."""
    registry = CollectorRegistry()
    provider = MeterProvider([PrometheusMetricReader(registry=registry)])
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    limiter = make(tpm=600)
    try:
        with instrument(limiter, meter_provider=provider):
            limiter.acquire_sync(BODY).close()
            limiter.acquire_sync(tokens=600).close()
            assert events.flush(10)
            url = f"http://127.0.0.1:{server.server_port}/metrics"
            with urllib.request.urlopen(url) as response:  # our own server
                text = response.read().decode()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        provider.shutdown()

    lines = [line.split("{")[0] for line in text.splitlines() if not line.startswith("#")]
    assert {
        "ratelimit_client_request_time_in_queue_seconds_bucket",
        "ratelimit_client_requests_total",
        "ratelimit_client_active_leases",
        "ratelimit_client_limit",
        "ratelimit_client_level",
    } <= set(lines)
    assert "private" not in text


ABSENT = """
import sys
sys.modules["opentelemetry"] = None
from ratelimit import InvalidArgument, RateLimiter
from ratelimit.telemetry.opentelemetry import instrument
try:
    instrument(RateLimiter())
except InvalidArgument as error:
    print(error)
"""


def test_a_missing_library_is_named_with_its_command() -> None:
    """It says what to install."""
    done = subprocess.run(
        [sys.executable, "-c", ABSENT], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.startswith("OpenTelemetry is not installed: ")
    assert "otel" in done.stdout
