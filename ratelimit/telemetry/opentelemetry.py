"""Metrics and spans of a limiter, by OpenTelemetry's API (the extra `otel`).

Owns the names of the instruments, their units and their attributes. Must never record
what the SDK's own instrumentation records (tokens, durations of calls), or hold a free
text or a key.

The names are our own, in the shape of .NET's stable metrics of rate limiting, because
the conventions for generative AI have none for waiting yet. Their attributes are those
of these conventions where there is one.

    ratelimit.client.request.time_in_queue   histogram, s     of the calls that waited
    ratelimit.client.requests                counter          by ratelimit.result
    ratelimit.client.refusals                counter          429s, by ratelimit.limit
    ratelimit.client.estimate.error          histogram, token estimate against bill
    ratelimit.client.queued_requests         up-down counter  by family
    ratelimit.client.active_leases           up-down counter  by family
    ratelimit.client.limit                   gauge            by family and limit
    ratelimit.client.level                   gauge            by family and limit

What events say is recorded in the thread of a subscription; the last four are read when
an exporter asks. Nothing is recorded in the thread of a call.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from ratelimit.errors import InvalidArgument
from ratelimit.events import Admission, Event, Refused, Settled, Subscription, Waited
from ratelimit.events.records import name_of
from ratelimit.events.sentences import label_of
from ratelimit.installation import install_command, version
from ratelimit.limiter import RateLimiter

if TYPE_CHECKING:
    from opentelemetry.metrics import (
        CallbackOptions,
        Counter,
        Histogram,
        Meter,
        MeterProvider,
        Observation,
    )
    from opentelemetry.trace import Tracer, TracerProvider

SCOPE: Final = "ratelimit"
"""The name of the meter and of the tracer."""
SPAN_SECONDS: Final = 1.0
"""Seconds from which a wait is a span of its own."""
MOST_MODELS: Final = 100
"""Models, and families, kept apart by one instrumented limiter; further ones are
"_OTHER", as in other conventions: their names come from requests.
"""
SECONDS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 900)
"""Bounds of the buckets of `time_in_queue`."""
TOKENS: Final = (0, 1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
"""Bounds of the buckets of `estimate.error`."""

OPERATIONS: Final[Mapping[str, str]] = {
    "chat.completions": "chat",
    "responses": "chat",
    "completions": "text_completion",
}
"""`gen_ai.operation.name` of an endpoint; of any other it is the endpoint itself."""

READ: Final = ("queued_requests", "active_leases", "limit", "level")
"""The instruments that are read when an exporter asks."""
SCRAPE_SECONDS: Final = 1.0
"""Seconds for which what was read of a limiter serves the instruments of one scrape."""

Attributes = dict[str, str]


def instrument(
    limiter: RateLimiter,
    *,
    name: str = "",
    provider: str = "openai",
    meter_provider: MeterProvider | None = None,
    tracer_provider: TracerProvider | None = None,
    span_seconds: float = SPAN_SECONDS,
) -> Instrumentation:
    """Record a limiter's metrics, and a span for each long wait, until it is closed.

    :param name: tells several limiters of one program apart: `ratelimit.limiter`.
    :param provider: `gen_ai.provider.name`, such as "openai" or "azure.ai.openai".
    :param meter_provider: the global one by default; likewise ``tracer_provider``.
    :param span_seconds: how long a wait has to be for a span, a child of the caller's.

    Raises `InvalidArgument` where OpenTelemetry is not installed, and for a limiter
    that is instrumented already under this name.
    """
    try:
        from opentelemetry import metrics, trace  # noqa: PLC0415  # an extra
    except ImportError as missing:
        raise InvalidArgument(
            f"OpenTelemetry is not installed: {install_command('otel')}"
        ) from missing

    instruments = _instruments_of(meter_provider, metrics)
    tracers = trace.get_tracer_provider() if tracer_provider is None else tracer_provider
    tracer = tracers.get_tracer(SCOPE, version())
    return Instrumentation(limiter, instruments, tracer, name, provider, span_seconds)


class Instrumentation:
    """One instrumented limiter; `close` it, or use it with ``with``, to end that."""

    def __init__(
        self,
        limiter: RateLimiter,
        instruments: Instruments,
        tracer: Tracer,
        name: str,
        provider: str,
        span_seconds: float,
    ) -> None:
        self._limiter = weakref.ref(limiter)
        self._instruments = instruments
        self._tracer = tracer
        self._common: Attributes = {"ratelimit.limiter": name} if name else {}
        self._provider = provider
        self._span_seconds = span_seconds
        self._models: set[str] = set()
        self._families: set[str] = set()
        for known in instruments.living:
            if known._limiter() is limiter and known._common == self._common:  # noqa: SLF001
                raise InvalidArgument(
                    "this limiter is instrumented already; close() that first, or give name="
                )
        kinds: tuple[type[Event], ...] = (Admission, Refused, Settled, Waited)
        self._subscription: Subscription = limiter.subscribe(self._record, *kinds)
        instruments.living.add(self)

    def _record(self, event: Event) -> None:
        """Record one event; called in the thread of the subscription."""
        match event:
            case Admission():
                attributes = self._attributes(event, event.operation)
                attributes["ratelimit.result"] = event.outcome
                self._instruments.requests.add(1, attributes)
            case Waited():
                attributes = self._attributes(event, event.operation)
                attributes["ratelimit.result"] = event.outcome
                self._instruments.time_in_queue.record(event.seconds, attributes)
                if event.seconds >= self._span_seconds:
                    self._trace(event, attributes)
            case Refused():
                attributes = self._attributes(event)
                attributes["ratelimit.limit"] = event.limit or "unknown"
                self._instruments.refusals.add(1, attributes)
            case Settled():
                attributes = self._attributes(event, event.operation)
                above = event.used > event.estimated
                attributes["ratelimit.bill"] = "above" if above else "within"
                self._instruments.error.record(abs(event.used - event.estimated), attributes)
            case _:
                pass

    def _attributes(self, event: Event, operation: str = "") -> Attributes:
        attributes = {
            **self._common,
            "gen_ai.provider.name": self._provider,
            "ratelimit.family": _bounded(self._families, event.family),
        }
        if operation:
            attributes["gen_ai.operation.name"] = OPERATIONS.get(operation, operation)
        if event.model:
            attributes["gen_ai.request.model"] = _bounded(self._models, event.model)
        return attributes

    def _trace(self, event: Waited, attributes: Attributes) -> None:
        """Write the span of a wait, a child of the span that the call was made in."""
        late = time.monotonic() - event.at
        end = time.time_ns() - int((late if 0 <= late < 60 else 0.0) * 1e9)
        more: dict[str, str | float] = {"ratelimit.reason": event.reason}
        if event.limit is not None:
            more["ratelimit.limit"] = event.limit
        if event.predicted is not None:
            more["ratelimit.predicted"] = event.predicted
        span = self._tracer.start_span(
            "ratelimit.wait",
            attributes={**attributes, **more, "ratelimit.position": event.position},
            start_time=end - int(event.seconds * 1e9),
        )
        span.end(end)

    def snapshot(self) -> Iterator[tuple[str, float, Attributes]]:
        """Yield instrument, value and attributes of all that is read when asked for."""
        limiter = self._limiter()
        if limiter is None:
            self._instruments.drop(self)
            return
        for name, family in limiter.explain().families.items():
            attributes = {**self._common, "ratelimit.family": name_of(name)}
            yield "queued_requests", family.waiting, attributes
            yield "active_leases", family.in_flight, attributes
            for known in family.limits:
                limit = known.limit
                by_limit = {**attributes, "ratelimit.limit": label_of(limit.name, limit.per)}
                yield "limit", limit.amount, by_limit
                yield "level", known.level, by_limit

    def close(self) -> None:
        """Record nothing more of this limiter."""
        self._subscription.close()
        self._instruments.drop(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _bounded(known: set[str], name: str) -> str:
    """Return a name, or "_OTHER" where as many as may be are known already."""
    if name not in known and len(known) >= MOST_MODELS:
        return "_OTHER"
    known.add(name)
    return name


class Instruments:
    """The instruments of one meter provider, shared by all instrumented limiters."""

    def __init__(self, meter: Meter) -> None:
        self.living: set[Instrumentation] = set()
        self._scrape: _Scrape | None = None
        prefix = f"{SCOPE}.client"
        self.time_in_queue: Histogram = meter.create_histogram(
            f"{prefix}.request.time_in_queue",
            "s",
            "Time that a call waited for its turn.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self.requests: Counter = meter.create_counter(
            f"{prefix}.requests", "{request}", "Calls, by how their admission ended."
        )
        self.refusals: Counter = meter.create_counter(
            f"{prefix}.refusals", "{refusal}", "429s that happened all the same."
        )
        self.error: Histogram = meter.create_histogram(
            f"{prefix}.estimate.error",
            "{token}",
            "Tokens between what was estimated and what was billed.",
            explicit_bucket_boundaries_advisory=TOKENS,
        )
        meter.create_observable_up_down_counter(
            f"{prefix}.queued_requests",
            [self._reader("queued_requests")],
            "{request}",
            "Calls that wait.",
        )
        meter.create_observable_up_down_counter(
            f"{prefix}.active_leases",
            [self._reader("active_leases")],
            "{lease}",
            "Calls in flight: admitted and not yet ended.",
        )
        meter.create_observable_gauge(
            f"{prefix}.limit", [self._reader("limit")], "", "A limit, per its period."
        )
        meter.create_observable_gauge(
            f"{prefix}.level", [self._reader("level")], "", "What is left of a limit now."
        )

    def drop(self, instrumentation: Instrumentation) -> None:
        """Read nothing more of a limiter."""
        self.living.discard(instrumentation)
        self._scrape = None

    def _reader(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        """Return the callback of one instrument that is read when asked for."""
        from opentelemetry.metrics import Observation  # noqa: PLC0415  # an extra

        def read(_: CallbackOptions) -> Iterable[Observation]:
            scrape = self._scrape
            values = None if scrape is None else scrape.values(name)
            if values is None:
                self._scrape = scrape = _Scrape(list(self.living))
                values = scrape.values(name)
            return [Observation(value, attributes) for value, attributes in values or ()]

        return read


class _Scrape:
    """The figures of one scrape, in which each instrument asks for its own."""

    def __init__(self, living: Iterable[Instrumentation]) -> None:
        self._at = time.monotonic()
        self._values: dict[str, list[tuple[float, Attributes]]] = {name: [] for name in READ}
        for one in living:
            for name, value, attributes in one.snapshot():
                self._values[name].append((value, attributes))

    def values(self, name: str) -> list[tuple[float, Attributes]] | None:
        """Return the figures of an instrument; None: they belong to a scrape before."""
        if time.monotonic() - self._at > SCRAPE_SECONDS:
            return None
        return self._values.pop(name, None)


def _instruments_of(provider: MeterProvider | None, metrics: Any) -> Instruments:
    """Return the instruments of a meter provider, made where there are none yet.

    The global one is known by its module too: what stands in for it hands over to the
    one that the program sets later.

    :param metrics: OpenTelemetry's module of that name.
    """
    globally = metrics.get_meter_provider()
    meters = globally if provider is None else provider
    keys = (metrics, meters) if meters is globally else (meters,)
    known = [_instruments[key] for key in keys if key in _instruments]
    made = known[0] if known else Instruments(meters.get_meter(SCOPE, version()))
    for key in keys:
        _instruments[key] = made
    return made


_instruments: Final[weakref.WeakKeyDictionary[Any, Instruments]] = weakref.WeakKeyDictionary()
