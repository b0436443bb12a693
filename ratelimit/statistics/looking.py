"""What a limiter shows of itself, and that it is never copied.

Owns the part of its face that looks and changes nothing. Must never admit a call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Never, Self

from ratelimit.arguments import body_of
from ratelimit.control.engine import Engine
from ratelimit.errors import InvalidArgument
from ratelimit.estimate import Estimate
from ratelimit.events import Event, Subscription
from ratelimit.limits import Limits
from ratelimit.statistics.explanation import Explanation, explanation_of
from ratelimit.statistics.snapshot import Statistics, described, statistics_of


class Looking:
    """The part of a `RateLimiter` that looks."""

    _engine: Engine

    def estimate(
        self,
        request: Mapping[str, Any] | None = None,
        /,
        *,
        endpoint: str | None = None,
        **body: Any,
    ) -> Estimate:
        """Return what a request would cost, in tokens, without taking it."""
        return self._engine.estimate(body_of(request, body), endpoint=endpoint)

    def price(
        self,
        request: Mapping[str, Any] | Estimate | None = None,
        /,
        *,
        endpoint: str | None = None,
        **body: Any,
    ) -> dict[str, float]:
        """Return what a request, or the `Estimate` of one, would take from the buckets.

        Takes nothing. By dimension, as far as it is known how the server counts.
        """
        if not isinstance(request, Estimate) or body or endpoint is not None:
            request = self._engine.estimate(body_of(request, body), endpoint=endpoint)
        return dict(self._engine.payment(request, self._engine.family(request.model)).amounts)

    def limits(self, model: str = "") -> Limits:
        """Return the limits that a model's calls must fit now, given or learned."""
        return self._engine.family(model).admission.store.limits

    def statistics(self) -> Statistics:
        """Return a snapshot: levels, waiting calls, calls in flight, 429s seen."""
        return statistics_of(self._engine)

    def explain(self, model: str | None = None) -> Explanation:
        """Return who waits for what, and which limits hold and why. It prints readably.

        :param model: explain only the family of this model.
        """
        return explanation_of(self._engine, model)

    def subscribe(self, hook: Callable[[Any], object], /, *kinds: type[Event]) -> Subscription:
        """Have ``hook`` called with each event, a frozen record of `ratelimit.events`.

        It runs in a thread of its own, so it may block or raise. The subscription lasts
        until its ``close()``. Raises `InvalidArgument` for what cannot be called.

        :param kinds: of events, such as `ratelimit.events.Refused`; all by default.
        """
        return self._engine.hooks.subscribe(hook, kinds)

    def __copy__(self) -> Self:
        return self  # a copy would spend the same limits once more

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> Never:
        raise InvalidArgument(
            "a limiter cannot be pickled: what it has admitted stays in its process. Create one "
            'in each process, all with the same store="file:...", or each with its share of the '
            "limits: RateLimiter(rpm=..., tpm=...)"
        )

    def __repr__(self) -> str:
        return described(self._engine)
