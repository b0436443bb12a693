"""The limits that a server was given: which numbers, for whom, and their names.

Owns the reading of `rpm=`, `tpm=`, `models=` and `projects=`, and refuses what cannot
be a limit. Must never hold state that a call changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, NamedTuple

from ratelimit.errors import InvalidArgument

if TYPE_CHECKING:
    from ratelimit.testing.variants import Rules

__all__ = ["KINDS", "Dimension", "Quota", "Quotas"]

Quota = Mapping[str, float | None]

DAY: Final = 86_400.0
"""Seconds."""
MONTH: Final = 30 * DAY
"""Seconds. Recorded: of 100,000 tokens a month one is refilled every 25.92 s."""


class _Kind(NamedTuple):
    """What one of the arguments `rpm=`, `tpm=`, ... limits."""

    unit: str
    period: float
    label: str
    """Its name in a refusal."""
    header: str
    """The end of its headers' names."""


KINDS: Final = {
    "rpd": _Kind("requests", DAY, "requests per day (RPD)", "requests"),
    "rpm": _Kind("requests", 60.0, "requests per min (RPM)", "requests"),
    "rps": _Kind("requests", 1.0, "requests per sec (RPS)", "requests"),
    "tpd": _Kind("tokens", DAY, "tokens per day (TPD)", "tokens"),
    "tpmonth": _Kind("tokens", MONTH, "tokens per month", "tokens"),
    "tpm": _Kind("tokens", 60.0, "tokens per min (TPM)", "tokens"),
    "ipm": _Kind("images", 60.0, "images per min (IPM)", "input-images"),
}
_SHOWN: Final = {
    "requests": ("rpd", "rpm", "rps"),
    "tokens": ("tpm", "tpd", "tpmonth"),
    "images": ("ipm",),
}
"""Which of several limits of one unit the headers show: the first that was given.
Recorded: RPM is not shown where a daily limit exists.
"""


@dataclass(frozen=True, slots=True)
class Dimension:
    """One limit: `limit` units in `period` seconds."""

    name: str
    unit: str
    limit: float
    period: float
    label: str
    header: str
    """"" for a limit that is enforced and not shown."""
    largest: float = 0.0
    """The largest single call, where that is more than the limit: it passes a full
    bucket and leaves it in debt.
    """


class Quotas:
    """All limits of a server.

    :param default: holds for all models together that no pattern of `models` names.
    :param models: patterns and their limits. A pattern is a model's name, may hold `*`
        and `?`, and several are joined by commas; the models that one entry names are
        a family and share its buckets. The first entry that fits counts.
    :param projects: further limits by project id (header `OpenAI-Project`), beside
        those of the organisation.
    :param request_window: seconds in which variant E counts requests.
    :param burst: requests that may come at once under variant nginx, None for those of
        one second.
    :param window: seconds of the windows of variants clock and fixed, None for those of
        the limit itself.
    """

    def __init__(
        self,
        default: Quota,
        models: Mapping[str, Quota] | None,
        projects: Mapping[str, Quota] | None,
        *,
        rules: Rules,
        request_window: float,
        burst: float | None = None,
        window: float | None = None,
    ) -> None:
        self._rules, self._request_window = rules, request_window
        self._burst, self._window = burst, window
        self._models = {
            pattern: self._read(quota, f"models[{pattern!r}]")
            for pattern, quota in (models or {}).items()
        }
        self._projects = {
            name: self._project(quota, name) for name, quota in (projects or {}).items()
        }
        self._default = self._read(default, "FakeOpenAI")
        self._families: dict[str, str] = {}

    def family(self, model: str) -> str:
        """Return the entry of `models` that names `model`, "" for the default."""
        if model not in self._families:
            fits = (
                each
                for each in self._models
                if any(fnmatchcase(model, part.strip()) for part in each.split(","))
            )
            self._families[model] = next(fits, "")

        return self._families[model]

    def model_names(self) -> list[str]:
        """Return the names in `models` that hold no wildcard."""
        return [
            part.strip()
            for pattern in self._models
            for part in pattern.split(",")
            if not {"*", "?"} & set(part)
        ]

    def dimensions(self, family: str) -> list[Dimension]:
        """Return the organisation's limits for a family."""
        return self._models[family] if family else self._default

    def project(self, name: str) -> list[Dimension]:
        """Return a project's own limits; none for a project that was not named."""
        return self._projects.get(name, [])

    def _project(self, quota: Quota, name: str) -> list[Dimension]:
        dimensions = self._read(quota, f"projects[{name!r}]", daily=False)
        return [
            replace(each, header=f"project-{each.header}" if each.header else "")
            for each in dimensions
        ]

    def _read(self, quota: Quota, where: str, *, daily: bool = True) -> list[Dimension]:
        given = {
            name: _limit(value, f"{where}: {name}")
            for name, value in quota.items()
            if value is not None
        }
        unknown = given.keys() - KINDS.keys()
        if unknown:
            raise InvalidArgument(
                f"{where}: unknown limit {min(unknown)!r}; name {', '.join(KINDS)}"
            )

        if daily and "rpd" not in given and (self._rules.daily or self._rules.style == "groq"):
            given["rpd"] = 10_000.0

        visible = given.keys() - set(self._rules.hidden)
        shown = {next((name for name in names if name in visible), "") for names in _SHOWN.values()}
        found: list[Dimension] = []
        for name, kind in KINDS.items():
            if name in given:
                header = kind.header if name in shown else ""
                each = Dimension(name, kind.unit, given[name], kind.period, kind.label, header)
                found += self._enforced(each)

        return found

    def _enforced(self, given: Dimension) -> list[Dimension]:
        """Return how the variant enforces one limit.

        D enforces a minute's limit by the second, E requests in a short window beside
        the minute; nginx, clock and fixed enforce the rate of requests and nothing
        else.
        """
        if self._rules.window == "burst":
            return [self._with_burst(given)] if given.name in {"rpm", "rps"} else []

        if self._rules.requests_alone:
            return [self._in_window(given)] if given.name in {"rpm", "rps"} else []

        if given.period == 60 and self._rules.window == "second":
            period = max(1.0, 60 / given.limit)  # at least one unit fits
            limit, label = given.limit * period / 60, given.label.replace("min", "sec")
            largest = given.limit if self._rules.large_when_full else 0.0
            return [replace(given, limit=limit, period=period, label=label, largest=largest)]

        if given.name == "rpm" and self._rules.request_window == "fixed":
            window = max(self._request_window, 60 / given.limit)
            limit = given.limit * window / 60
            return [replace(given, limit=limit, period=window, header=""), given]

        return [given]

    def _with_burst(self, given: Dimension) -> Dimension:
        rate = given.limit / given.period
        burst = max(1.0, rate) if self._burst is None else self._burst
        return replace(given, limit=burst, period=burst / rate, header="")

    def _in_window(self, given: Dimension) -> Dimension:
        period = given.period if self._window is None else self._window
        limit = max(1.0, given.limit * period / given.period)
        return replace(given, limit=limit, period=period, header="requests")


def _limit(value: float, where: str) -> float:
    """Return a positive, finite number."""
    if not 0 < value < math.inf:
        raise InvalidArgument(
            f"{where} is {value!r}; a limit is a positive, finite number, or None for no limit"
        )
    return float(value)
