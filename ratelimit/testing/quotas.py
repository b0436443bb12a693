"""The limits a server was given: which numbers, for whom, and what each is called.

Owns: reading `rpm=`, `tpm=`, `models=`, `projects=` and refusing what cannot be a
limit. What must never come in: state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ratelimit.errors import InvalidArgument

if TYPE_CHECKING:
    from ratelimit.testing.variants import Rules

__all__ = ["Dimension", "Quota", "Quotas"]

Quota = Mapping[str, float | None]

DAY = 86_400.0
MONTH = 30 * DAY  # as recorded: 100,000 tokens a month come back one every 25.92 s

# name of the argument: (unit, period in seconds, what a refusal calls it, its header's
# name)
_KNOWN = {
    "rpd": ("requests", DAY, "requests per day (RPD)", "requests"),
    "rpm": ("requests", 60.0, "requests per min (RPM)", "requests"),
    "rps": ("requests", 1.0, "requests per sec (RPS)", "requests"),
    "tpd": ("tokens", DAY, "tokens per day (TPD)", "tokens"),
    "tpmonth": ("tokens", MONTH, "tokens per month", "tokens"),
    "tpm": ("tokens", 60.0, "tokens per min (TPM)", "tokens"),
    "ipm": ("images", 60.0, "images per min (IPM)", "input-images"),
}
# Which of several limits of one unit the headers show: RPM is not shown where a daily
# limit exists, as recorded.
_SHOWN = {
    "requests": ("rpd", "rpm", "rps"),
    "tokens": ("tpm", "tpd", "tpmonth"),
    "images": ("ipm",),
}


@dataclass(frozen=True, slots=True)
class Dimension:
    """One limit: `limit` units per `period` seconds. `header` is "" for one that is
    enforced and not shown.
    """

    name: str
    unit: str
    limit: float
    period: float
    label: str
    header: str


class Quotas:
    """All limits of a server.

    `default` holds for every model that no pattern of `models` names, all of them
    together. A pattern is a model's name, may hold `*` and `?`, and several are joined
    by commas; the models that one entry names are a family and share its buckets. The
    first entry that fits counts. `projects`: further limits per project id (header
    `OpenAI-Project`), beside those of the organisation.
    """

    def __init__(
        self,
        default: Quota,
        models: Mapping[str, Quota] | None,
        projects: Mapping[str, Quota] | None,
        *,
        rules: Rules,
        request_window: float,
    ) -> None:
        self._rules, self._request_window = rules, request_window
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
        """The entry of `models` that names `model`, "" for the default."""
        if model not in self._families:
            fits = (
                each
                for each in self._models
                if any(fnmatchcase(model, part.strip()) for part in each.split(","))
            )
            self._families[model] = next(fits, "")
        return self._families[model]

    def models(self) -> list[str]:
        """Names without wildcards, for the list of models."""
        return [
            part.strip()
            for pattern in self._models
            for part in pattern.split(",")
            if not {"*", "?"} & set(part)
        ]

    def dimensions(self, family: str) -> list[Dimension]:
        """The organisation's limits for a family."""
        return self._models[family] if family else self._default

    def project(self, name: str) -> list[Dimension]:
        """A project's own limits; none for one that was not named."""
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
        if unknown := given.keys() - _KNOWN.keys():
            raise InvalidArgument(
                f"{where}: unknown limit {min(unknown)!r}; name {', '.join(_KNOWN)}"
            )
        if daily and "rpd" not in given and (self._rules.daily or self._rules.style == "groq"):
            given["rpd"] = 10_000.0
        shown = {
            unit: next((name for name in names if name in given), "")
            for unit, names in _SHOWN.items()
        }
        found = []
        for name in (name for name in _KNOWN if name in given):
            unit, period, label, header = _KNOWN[name]
            found.append(
                Dimension(
                    name, unit, given[name], period, label, header if shown[unit] == name else ""
                )
            )
        return self._windowed(found)

    def _windowed(self, dimensions: list[Dimension]) -> list[Dimension]:
        """Limits per minute as the variant enforces them: per second (D), or requests
        per short window beside the minute (E).
        """
        found = []
        for each in dimensions:
            if each.period == 60 and self._rules.window == "second":
                period = max(1.0, 60 / each.limit)  # at least one unit fits
                found.append(
                    replace(
                        each,
                        limit=each.limit * period / 60,
                        period=period,
                        label=each.label.replace("min", "sec"),
                    )
                )
            elif each.name == "rpm" and self._rules.request_window == "fixed":
                window = max(self._request_window, 60 / each.limit)
                found.append(
                    replace(each, limit=each.limit * window / 60, period=window, header="")
                )
                found.append(each)
            else:
                found.append(each)
        return found


def _limit(value: float, where: str) -> float:
    """A positive, finite number."""
    if not 0 < value < math.inf:
        raise InvalidArgument(
            f"{where} is {value!r}; a limit is a positive, finite number, or None for no limit"
        )
    return float(value)
