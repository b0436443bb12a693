"""The instruments of a limiter's metrics, shared by all limiters of a meter provider.

Owns their names, their units, and that a limiter is read once for those that an
exporter asks for. Must never know an event.

The names are our own, in the shape of .NET's stable metrics of rate limiting, because
the conventions for generative AI have none for waiting yet. Their attributes are those
of these conventions where there is one.

    ratelimit.client.request.time_in_queue   histogram, s     of the calls that waited
    ratelimit.client.requests                counter          by ratelimit.result
    ratelimit.client.refusals                counter          429s, by ratelimit.limit
    ratelimit.client.estimate.error          histogram, token estimate against bill
    ratelimit.client.member.calls            counter          by ratelimit.member
    ratelimit.client.queued_requests         up-down counter  by family
    ratelimit.client.active_leases           up-down counter  by family
    ratelimit.client.limit                   gauge            by family and limit
    ratelimit.client.level                   gauge            by family and limit
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol

from ratelimit.installation import version

if TYPE_CHECKING:
    from opentelemetry.metrics import (
        CallbackOptions,
        Counter,
        Histogram,
        Meter,
        MeterProvider,
        Observation,
    )

SCOPE: Final = "ratelimit"
"""The name of the meter and of the tracer."""
SECONDS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 900)
"""Bounds of the buckets of `time_in_queue`."""
TOKENS: Final = (0, 1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
"""Bounds of the buckets of `estimate.error`."""
READ: Final = ("queued_requests", "active_leases", "limit", "level")
"""The instruments that are read when an exporter asks."""
SCRAPE_SECONDS: Final = 1.0
"""Seconds for which what was read of a limiter serves the instruments of one scrape."""

Attributes = dict[str, str]


class Read(Protocol):
    """A limiter that is read when an exporter asks."""

    def snapshot(self) -> Iterator[tuple[str, float, Attributes]]:
        """Yield instrument, value and attributes of all that `READ` names."""


class Instruments:
    """The instruments of one meter provider, shared by all instrumented limiters."""

    def __init__(self, meter: Meter) -> None:
        self.living: set[Read] = set()
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
        self.member_calls: Counter = meter.create_counter(
            f"{prefix}.member.calls", "{request}", "Attempts of pools, by member."
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

    def drop(self, limiter: Read) -> None:
        """Read nothing more of a limiter."""
        self.living.discard(limiter)
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

    def __init__(self, living: Iterable[Read]) -> None:
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


def instruments_of(provider: MeterProvider | None, metrics: Any) -> Instruments:
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
