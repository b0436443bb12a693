"""What may be spent: `Limit`, `Limits` and the cost of a call.

Owns names, units and periods, how people write amounts, and their validation. Must
never know a clock, a level or a server: what is left of a limit is in `stores/`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from ratelimit.errors import InvalidArgument, shown
from ratelimit.weights import Weights, check_alike, read_weights

Amounts = Mapping[str, float]
"""Named amounts, such as ``{"requests": 1, "tokens": 1200}``; a dimension that is not
named costs nothing.
"""

LARGEST: Final = 10**15
"""The largest amount, in any unit: up to here a float still counts single tokens
exactly, and no API bills more in a day.
"""

SMALLEST: Final = 1e-9
"""The smallest limit and period: their quotient, the seconds per unit, stays finite."""

SECOND: Final = 1.0
MINUTE: Final = 60.0
HOUR: Final = 3_600.0
DAY: Final = 86_400.0
MONTH: Final = 30 * DAY
"""Seconds. A monthly limit refills over 30 days (recorded: 25.92 s a token)."""

PERIODS: Final[Mapping[str, float]] = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), SECOND),
    **dict.fromkeys(("m", "min", "minute", "minutes"), MINUTE),
    **dict.fromkeys(("h", "hour", "hours"), HOUR),
    **dict.fromkeys(("d", "day", "days"), DAY),
    "month": MONTH,
}
"""Seconds of a period by its name, as users, headers and refusals spell it."""

SHORT_FORMS: Final[Mapping[str, tuple[str, float]]] = {
    "rps": ("requests", SECOND),
    "rpm": ("requests", MINUTE),
    "rpd": ("requests", DAY),
    "tps": ("tokens", SECOND),
    "tpm": ("tokens", MINUTE),
    "tpd": ("tokens", DAY),
    "ipm": ("images", MINUTE),
    "itpm": ("input_tokens", MINUTE),
    "otpm": ("output_tokens", MINUTE),
}
"""Dimension and period in seconds of the usual abbreviations."""

_SCALES: Final = {"": 1, "k": 1_000, "m": 1_000_000}
_NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+(?:_[0-9]+)*)(?:\.[0-9]+)?|\.[0-9]+"
_AMOUNT: Final = re.compile(rf"\s*(?P<number>{_NUMBER})\s*(?P<scale>[km]?)\s*")
_LIMIT: Final = re.compile(
    rf"""\s*(?P<number>{_NUMBER})\s*
    (?:(?P<scale>[km])(?=\s|(?:{"|".join(SHORT_FORMS)})\s*$))?\s*   # "5 messages": no scale
    (?:(?P<short>{"|".join(SHORT_FORMS)})
      |(?P<name>(?![km]\b)[a-z_][a-z0-9_-]*)\s*(?:/|\bper\b)\s*(?P<count>{_NUMBER})?\s*(?P<period>[a-z]+))
    \s*""",
    re.VERBOSE,
)


def amount_of(value: object, what: str) -> float:
    """Check that ``value`` is a finite number between 0 and `LARGEST`; return it.

    :param what: what the amount is of, for the message of `InvalidArgument`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidArgument(f"{what} must be a number, not {shown(value)}")

    if not 0 <= value <= LARGEST:  # False for NaN as well
        raise InvalidArgument(f"{what} must be between 0 and {LARGEST:.0e}, not {shown(value)}")

    return value


def amounts_of(value: object, what: str) -> dict[str, float]:
    """Check that ``value`` maps names to amounts; return it as a new dict.

    :param what: what the amounts are, for the message of `InvalidArgument`.
    """
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise InvalidArgument(
            f'{what} must be a mapping from names to amounts, such as {{"tokens": 1200}}, '
            f"not {shown(value)}"
        )
    return {name: amount_of(amount, f"{what} of {shown(name)}") for name, amount in value.items()}


def read_amount(value: object, what: str) -> float:
    """Read an amount as people write it.

    A number, or a text: "500", "30k", "1.5M", "30_000" or "30,000".

    :param what: what the amount is of, for the message of `InvalidArgument`.
    """
    if not isinstance(value, str):
        return amount_of(value, what)

    found = _AMOUNT.fullmatch(value.lower())
    if found is None:
        raise InvalidArgument(
            f'{what} cannot be read from {shown(value)}; write a number, or a text such as "500", '
            '"30k", "1.5M" or "30,000"'
        )
    return amount_of(_scaled(found["number"], found["scale"]), what)


DIMENSIONS: Final = ("requests", "tokens", "input_tokens", "output_tokens", "images")
"""What the limiter counts by itself; users may give others, with amounts by hand."""

ALIKE: Final = 0.85
"""The similarity (`difflib`, 0 to 1) that makes a name a misspelled one."""


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Limit:
    """``amount`` of one dimension per ``per`` seconds.

    :param name: the dimension: "requests", "tokens", "input_tokens", "output_tokens",
        "images" or any name of your own.
    :param amount: how much of it per period, above 0: a number, or a text such as
        "30k", "1.5M" or "30,000".
    :param per: the period in seconds, or its name, such as "minute" or "day".
    :param burst: how much may go at once, in the unit of ``amount``; a full period's
        amount by default, as api.openai.com allows (source: 14,375 recorded ``reset``
        headers: capacity is one period's amount, refilled continuously).
    :param weights: as how many tokens one of a kind counts, of "input", "cached" and
        "output", such as {"cached": 0} or {"output": 5}; the others count as ever.
        Limits that differ by it alone are equal.
    """

    name: str
    amount: float
    per: float = MINUTE
    burst: float | None = None
    weights: Weights = field(default=(), compare=False)

    def __init__(
        self,
        name: str,
        amount: float | str,
        per: float | str = MINUTE,
        burst: float | str | None = None,
        weights: Mapping[str, float] | Weights | None = None,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise InvalidArgument(
                'a limit needs the name of what it limits, such as "requests" or "tokens", '
                f'not {shown(name)}; write Limit("requests", 500) or Limit.parse("500 rpm")'
            )
        meant = difflib.get_close_matches(name, DIMENSIONS, 1, ALIKE)
        if meant and name not in DIMENSIONS:
            raise InvalidArgument(
                f'there is no limit of {shown(name)}; did you mean "{meant[0]}"? A dimension of '
                "your own has a name of its own"
            )
        amount = _positive(amount, f"the limit of {name}")
        if isinstance(per, str) and per in PERIODS:
            per = PERIODS[per]
        per = _positive(per, f"the period of the limit of {name}, in seconds,")

        if burst is not None:
            burst = _positive(burst, f"the burst of {name}")
            if burst > amount:
                raise InvalidArgument(
                    f"the burst of {name} ({burst:g}) cannot exceed its limit "
                    f"({amount:g} per {per:g} s)"
                )

        read = read_weights(name, weights)
        for attribute, value in zip(self.__slots__, (name, amount, per, burst, read), strict=True):
            object.__setattr__(self, attribute, value)

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Read "500 rpm", "30k tpm", "10 requests per second" or "1m tokens/day"."""
        found = _LIMIT.fullmatch(text.lower()) if isinstance(text, str) else None
        if found and found["short"]:
            name, per = SHORT_FORMS[found["short"]]
            return cls(name, _scaled(found["number"], found["scale"]), per)

        if found and found["period"] in PERIODS:
            per = PERIODS[found["period"]] * _scaled(found["count"] or "1", None)
            return cls(found["name"], _scaled(found["number"], found["scale"]), per)

        raise InvalidArgument(
            f'cannot read the limit {shown(text)}; write "500 rpm", "30k tpm", '
            '"10 requests per second" or Limit("requests", 10, per=1)'
        )

    def with_burst(self, share: float) -> Limit:
        """Return this limit with its own burst, or else with a share of its amount.

        :param share: above 0 and at most 1.
        """
        if self.burst is not None:
            return self
        return Limit(self.name, self.amount, self.per, self.amount * share, self.weights)

    def at_most(self, amount: float) -> Limit:
        """Return this limit, lowered to ``amount``; a burst keeps its share."""
        if amount >= self.amount:
            return self

        burst = self.burst
        if burst is not None:
            # rounding must not push it out of its bounds
            burst = min(max(burst * amount / self.amount, SMALLEST), amount)
        return Limit(self.name, amount, self.per, burst, self.weights)

    def __str__(self) -> str:
        names = {SECOND: "s", MINUTE: "min", HOUR: "h", DAY: "day"}
        period = names.get(self.per, f"{_plain(self.per)} s")
        return f"{_plain(self.amount, ',')} {self.name}/{period}"

    def __repr__(self) -> str:
        burst = "" if self.burst is None else f", burst={_plain(self.burst)}"
        weights = f", weights={dict(self.weights)}" if self.weights else ""
        return (
            f"Limit({self.name!r}, {_plain(self.amount)}, per={_plain(self.per)}{burst}{weights})"
        )


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Limits:
    """All limits that hold together for one model or family of models.

    ``Limits(rpm=500, tpm=30_000)``, ``Limits("500 rpm", "30k tpm")``,
    ``Limits(Limit("requests", 10, per=1), tpm="30k", concurrency=20)``.

    :param limits: each a `Limit` or a text such as "500 rpm".
    :param rpm: requests per minute, a number or a text such as "30k"; likewise
        requests and tokens per second, minute and day.
    :param concurrency: the largest number of calls in flight (between admission and
        settlement); unlimited when None.
    """

    _limits: tuple[Limit, ...]
    concurrency: int | None

    def __init__(
        self,
        *limits: Limit | str,
        rps: float | str | None = None,
        rpm: float | str | None = None,
        rpd: float | str | None = None,
        tps: float | str | None = None,
        tpm: float | str | None = None,
        tpd: float | str | None = None,
        concurrency: int | None = None,
    ) -> None:
        read = [_limit_of(limit) for limit in limits]
        given = {"rps": rps, "rpm": rpm, "rpd": rpd, "tps": tps, "tpm": tpm, "tpd": tpd}
        for key, amount in given.items():
            if amount is not None:
                name, per = SHORT_FORMS[key]
                read.append(Limit(name, _positive(amount, f"{key}="), per))

        if concurrency is not None and (
            isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1
        ):
            raise InvalidArgument(
                "concurrency= must be a whole number of at least 1, or None for no bound, "
                f"not {shown(concurrency)}"
            )
        _check_distinct(read)
        check_alike((limit.name, limit.weights) for limit in read)
        object.__setattr__(self, "_limits", tuple(read))
        object.__setattr__(self, "concurrency", concurrency)

    def with_burst(self, share: float) -> Limits:
        """Return these limits, each with its own burst or else a share of its amount.

        :param share: above 0 and at most 1.
        """
        if share == 1:
            return self
        limits = [limit.with_burst(share) for limit in self._limits]
        return Limits(*limits, concurrency=self.concurrency)

    def __iter__(self) -> Iterator[Limit]:
        return iter(self._limits)

    def __len__(self) -> int:
        return len(self._limits)

    def __repr__(self) -> str:
        parts = [str(limit) for limit in self._limits]
        if self.concurrency is not None:
            parts.append(f"concurrency={self.concurrency}")
        return f"<Limits {', '.join(parts) or 'none'}>"


def whole(amount: float) -> str:
    """Show an amount for people: ``30,000``, ``0.5``."""
    exact = math.isfinite(amount) and amount == int(amount)
    return f"{amount:,.0f}" if exact else f"{amount:,.4g}"


def _positive(value: object, what: str) -> float:
    amount = read_amount(value, what)
    if amount < SMALLEST:
        raise InvalidArgument(
            f"{what} must be above 0, at least {SMALLEST:g}; to forbid calls make none, "
            "to allow any leave the limit out"
        )
    return float(amount)


def _scaled(number: str, scale: str | None) -> float:
    return float(number.replace(",", "").replace("_", "")) * _SCALES[scale or ""]


def _limit_of(limit: object) -> Limit:
    """Read one positional argument of `Limits`."""
    if isinstance(limit, Limit):
        return limit

    if isinstance(limit, str):
        return Limit.parse(limit)

    if isinstance(limit, (int, float)) and not isinstance(limit, bool):
        remedy = "a number needs its unit: write Limits(rpm=500, tpm=30_000)"
    elif isinstance(limit, Iterable):
        remedy = "write Limits(*limits) for limits that come together"
    else:
        remedy = 'write Limits("500 rpm", "30k tpm")'
    raise InvalidArgument(
        f'a limit is a Limit or a text such as "500 rpm", not {shown(limit)}; {remedy}'
    )


def _check_distinct(limits: Iterable[Limit]) -> None:
    seen: set[tuple[str, float]] = set()
    for limit in limits:
        if (limit.name, limit.per) in seen:
            raise InvalidArgument(
                f"two limits of {limit.name} per {limit.per:g} s were given; keep the smaller one"
            )
        seen.add((limit.name, limit.per))


def _plain(amount: float, separator: str = "_") -> str:
    """Write an amount as it can be read back, with ``separator`` between thousands."""
    return f"{int(amount):{separator}}" if amount == int(amount) else repr(amount)
