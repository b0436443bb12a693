"""What may be spent: `Limit`, `Limits`, the cost of a call, and which limits a model
falls under.

Owns names, units and their validation. Knows no clock, no state and no server: what is
left of a limit is `bucket.py`'s business.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ratelimit.errors import InvalidArgument

Cost = Mapping[str, float]
"""Named amounts, such as ``{"requests": 1, "tokens": 1200}``; a dimension that is not
named costs nothing.
"""

LARGEST: Final = 1e15
"""No amount is believed beyond this: up to here a float still counts single tokens
exactly, and no API bills more in a day.
"""

SMALLEST: Final = 1e-9
"""No limit and no period is smaller: their quotient, the seconds per unit, stays a
number that floats can count with.
"""

PERIODS: Final = {
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
}
SHORT_FORMS: Final = {
    "rps": ("requests", 1.0),
    "rpm": ("requests", 60.0),
    "rpd": ("requests", 86400.0),
    "tps": ("tokens", 1.0),
    "tpm": ("tokens", 60.0),
    "tpd": ("tokens", 86400.0),
    "ipm": ("images", 60.0),
    "itpm": ("input_tokens", 60.0),
    "otpm": ("output_tokens", 60.0),
}
_TEXT = re.compile(
    r"\s*(?P<amount>[\d_.,]+)\s*(?P<scale>[kKmM]?)\s*(?:(?P<short>[a-z]+)|(?P<name>[a-z_]+)\s*(?:/|per)\s*(?P<per>[a-z]+))\s*"
)


def amount_of(value: object, what: str) -> float:
    """Return ``value`` as a finite amount between 0 and `LARGEST`, or say why it is
    none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidArgument(f"{what} must be a number, not {value!r}")
    if not 0 <= value <= LARGEST:  # False for NaN as well
        # Python refuses to print 4,300
        shown = (
            repr(value) if isinstance(value, float) or abs(value) <= LARGEST else "so many digits"
        )
        raise InvalidArgument(f"{what} must be between 0 and {LARGEST:.0e}, not {shown}")
    return value


def amounts_of(value: object, what: str) -> dict[str, float]:
    """Return ``value`` as named amounts, or say why it is none."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise InvalidArgument(
            f'{what} must be a mapping from names to amounts, such as {{"tokens": 1200}}, not {value!r}'
        )
    return {name: amount_of(amount, f"{what} of {name!r}") for name, amount in value.items()}


def cost_by_hand(tokens: object, requests: object, cost: object) -> dict[str, float]:
    """Return what a call costs whose user says so: one request, unless something else
    is said.
    """
    paid: dict[str, float] = {"requests": 1}
    if tokens is not None:
        paid["tokens"] = amount_of(tokens, "tokens=")
    if cost is not None:
        paid.update(amounts_of(cost, "the cost"))
    if requests is not None:
        paid["requests"] = amount_of(requests, "requests=")
    return paid


def _positive(value: object, what: str) -> float:
    if amount_of(value, what) < SMALLEST:
        raise InvalidArgument(
            f"{what} must be above 0, at least {SMALLEST:g}; to forbid calls make none, to allow any leave the limit out"
        )
    return float(value)  # type: ignore[arg-type]  # amount_of let only numbers pass


@dataclass(frozen=True, slots=True)
class Limit:
    """``amount`` of one dimension per ``per`` seconds.

    :param name: the dimension: "requests", "tokens", "input_tokens", "output_tokens",
        "images" or any name of your own.
    :param amount: how much of it per period, above 0.
    :param per: the period in seconds.
    :param burst: how much may go at once, in the unit of ``amount``; a full period's
        amount by default, as api.openai.com allows (source: 14,375 recorded ``reset``
        headers: capacity is one period's amount, refilled continuously).
    """

    name: str
    amount: float
    per: float = 60.0
    burst: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InvalidArgument(
                f'a limit needs the name of what it limits, such as "requests" or "tokens", not {self.name!r}'
            )
        _positive(self.amount, f"the limit of {self.name}")
        _positive(self.per, f"the period of the limit of {self.name}, in seconds,")
        if (
            self.burst is not None
            and _positive(self.burst, f"the burst of {self.name}") > self.amount
        ):
            raise InvalidArgument(
                f"the burst of {self.name} ({self.burst:g}) cannot exceed its limit ({self.amount:g} per {self.per:g} s)"
            )

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Read "500 rpm", "30k tpm", "10 requests per second" or "1m tokens/day"."""
        found = _TEXT.fullmatch(text.lower()) if isinstance(text, str) else None
        if found:
            name, per = SHORT_FORMS.get(
                found["short"] or "", (found["name"], PERIODS.get(found["per"] or ""))
            )
            digits = found["amount"].replace(",", "").replace("_", "")
            if name and per and digits.count(".") < 2 and digits.strip("."):
                return cls(name, float(digits) * {"": 1, "k": 1e3, "m": 1e6}[found["scale"]], per)
        raise InvalidArgument(
            f'cannot read the limit {text!r}; write "500 rpm", "30k tpm", "10 requests per second" or Limit("requests", 10, per=1)'
        )

    def with_burst(self, share: float) -> Limit:
        """Return this limit with a burst of ``share`` (0 < share <= 1) of its amount,
        unless it has a burst of its own.
        """
        return (
            self
            if self.burst is not None
            else Limit(self.name, self.amount, self.per, self.amount * share)
        )

    def at_most(self, amount: float) -> Limit:
        """Return this limit, or one of ``amount`` if that is lower; the burst keeps its
        share.
        """
        if amount >= self.amount:
            return self
        # whatever rounding does
        burst = (
            None
            if self.burst is None
            else min(max(self.burst * amount / self.amount, SMALLEST), amount)
        )
        return Limit(self.name, amount, self.per, burst)

    def __str__(self) -> str:
        period = {1.0: "s", 60.0: "min", 3600.0: "h", 86400.0: "day"}.get(
            float(self.per), f"{self.per:g} s"
        )
        return f"{self.amount:,.12g} {self.name}/{period}"


class Limits:
    """All limits that hold together for one model or family of models: a call must fit
    every one of them.

    ``Limits(rpm=500, tpm=30_000)``, ``Limits(Limit("requests", 10, per=1), "30k tpm",
    concurrency=20)``.

    :param concurrency: at most so many calls in flight (between admission and
        settlement); no bound when None.
    """

    __slots__ = ("_limits", "concurrency")

    def __init__(
        self,
        *limits: Limit | str,
        rps: float | None = None,
        rpm: float | None = None,
        rpd: float | None = None,
        tps: float | None = None,
        tpm: float | None = None,
        tpd: float | None = None,
        concurrency: int | None = None,
    ) -> None:
        given = {"rps": rps, "rpm": rpm, "rpd": rpd, "tps": tps, "tpm": tpm, "tpd": tpd}
        read: list[Limit] = []
        for limit in limits:
            if not isinstance(limit, (Limit, str)):
                raise InvalidArgument(
                    f'a limit is a Limit or a text such as "500 rpm", not {limit!r}'
                )
            read.append(Limit.parse(limit) if isinstance(limit, str) else limit)
        for key, amount in given.items():
            if amount is not None:
                name, per = SHORT_FORMS[key]
                read.append(Limit(name, _positive(amount, f"{key}="), per))
        if concurrency is not None and (
            isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1
        ):
            raise InvalidArgument(
                f"concurrency= must be a whole number of at least 1, not {concurrency!r}"
            )
        seen: set[tuple[str, float]] = set()
        for limit in read:
            if (limit.name, limit.per) in seen:
                raise InvalidArgument(
                    f"two limits of {limit.name} per {limit.per:g} s were given; keep the smaller one"
                )
            seen.add((limit.name, limit.per))
        self._limits = tuple(read)
        self.concurrency = concurrency

    def with_burst(self, share: float) -> Limits:
        """Return these limits, each with a burst of ``share`` (0 < share <= 1) of its
        amount, unless it has a burst of its own.
        """
        return (
            self
            if share == 1
            else Limits(
                *(limit.with_burst(share) for limit in self._limits), concurrency=self.concurrency
            )
        )

    def __iter__(self) -> Iterator[Limit]:
        return iter(self._limits)

    def __len__(self) -> int:
        return len(self._limits)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Limits) and (self._limits, self.concurrency) == (
            other._limits,
            other.concurrency,
        )

    def __hash__(self) -> int:
        return hash((self._limits, self.concurrency))

    def __repr__(self) -> str:
        parts = [str(limit) for limit in self._limits] + (
            [f"concurrency={self.concurrency}"] if self.concurrency else []
        )
        return f"<Limits {', '.join(parts) or 'none'}>"


def whole(amount: float) -> str:
    """Show an amount for people: ``30,000``, ``0.5``."""
    return f"{amount:,.0f}" if math.isfinite(amount) and amount == int(amount) else f"{amount:,.4g}"
