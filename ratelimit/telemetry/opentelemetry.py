"""Metrics and spans of a limiter, by OpenTelemetry's API (the extra `otel`).

Owns what is recorded of which event, and its attributes. Must never record what the
SDK's own instrumentation records (tokens, durations of calls), or hold a free text or a
key.

What events say is recorded in the thread of a subscription; queues, calls in flight,
limits and levels are read when an exporter asks. Nothing is recorded in the thread of a
call.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from ratelimit.errors import InvalidArgument
from ratelimit.events import Admission, Event, Refused, Routed, Settled, Subscription, Waited
from ratelimit.events.records import name_of
from ratelimit.events.sentences import label_of
from ratelimit.installation import install_command, version
from ratelimit.limiter import RateLimiter
from ratelimit.limits import amount_of
from ratelimit.statistics import FamilyExplanation
from ratelimit.telemetry.instruments import SCOPE, Attributes, Instruments, instruments_of

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Tracer, TracerProvider

SPAN_SECONDS: Final = 1.0
"""Seconds from which a wait is a span of its own."""
MOST_MODELS: Final = 100
"""Models, and limits of refusals, kept apart by one instrumented limiter; further ones
are "_OTHER", as in other conventions: their names come from requests and servers.
"""
MOST_FAMILIES: Final = 500
"""Families that are kept apart likewise."""
OPERATIONS: Final[Mapping[str, str]] = {
    "chat.completions": "chat",
    "responses": "chat",
    "completions": "text_completion",
}
"""`gen_ai.operation.name` of an endpoint; of any other it is the endpoint itself."""


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

    :param name: tells several limiters of one program apart: ``ratelimit.limiter``.
    :param provider: ``gen_ai.provider.name``, such as "openai" or "azure.ai.openai".
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

    instruments = instruments_of(meter_provider, metrics)
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
        self._span_seconds = amount_of(span_seconds, "span_seconds=, of the shortest span,")
        self._models: set[str] = set()
        self._limits: set[str] = set()
        self._families: set[str] = set()
        for known in instruments.living:
            if isinstance(known, Instrumentation) and known._records(limiter, name):  # noqa: SLF001
                raise InvalidArgument(
                    "this limiter is instrumented already; close() that first, or give name="
                )
        kinds: tuple[type[Event], ...] = (Admission, Refused, Routed, Settled, Waited)
        self._subscription: Subscription = limiter.subscribe(self._record, *kinds)
        instruments.living.add(self)

    def _records(self, limiter: RateLimiter, name: str) -> bool:
        return self._limiter() is limiter and self._common.get("ratelimit.limiter", "") == name

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
                attributes["ratelimit.limit"] = _bounded(self._limits, event.limit or "unknown")
                self._instruments.refusals.add(1, attributes)
            case Settled():
                attributes = self._attributes(event, event.operation)
                above = event.used > event.estimated
                attributes["ratelimit.bill"] = "above" if above else "within"
                self._instruments.error.record(abs(event.used - event.estimated), attributes)
            case Routed():
                attributes = self._attributes(event)
                attributes["ratelimit.member"] = event.member
                attributes["ratelimit.moves"] = "yes" if event.moves else "no"
                if event.asked:
                    attributes["gen_ai.request.model"] = _bounded(self._models, event.asked)
                    attributes["gen_ai.response.model"] = _bounded(self._models, event.model)
                self._instruments.member_calls.add(1, attributes)
            case _:
                pass

    def _attributes(self, event: Event, operation: str = "") -> Attributes:
        attributes = {
            **self._common,
            "gen_ai.provider.name": self._provider,
            "ratelimit.family": _bounded(self._families, event.family, MOST_FAMILIES),
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
        for name, families in self._by_name(limiter.explain().families).items():
            attributes = {**self._common, "ratelimit.family": name}
            yield "queued_requests", sum(family.waiting for family in families), attributes
            yield "active_leases", sum(family.in_flight for family in families), attributes
            for known in families[0].limits if len(families) == 1 and name != "_OTHER" else ():
                limit = known.limit
                by_limit = {**attributes, "ratelimit.limit": label_of(limit.name, limit.per)}
                yield "limit", limit.amount, by_limit
                yield "level", known.level, by_limit

    def _by_name(
        self, families: Mapping[str, FamilyExplanation]
    ) -> dict[str, list[FamilyExplanation]]:
        """Return families by the name of their time series, those with limits first."""
        found: dict[str, list[FamilyExplanation]] = {}
        for name, family in sorted(families.items(), key=lambda one: not one[1].limits):
            shown = _bounded(self._families, name_of(name), MOST_FAMILIES)
            found.setdefault(shown, []).append(family)
        return found

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


def _bounded(known: set[str], name: str, most: int = MOST_MODELS) -> str:
    """Return a name, or "_OTHER" where as many as may be are known already."""
    if name not in known and len(known) >= most:
        return "_OTHER"
    known.add(name)
    return name
