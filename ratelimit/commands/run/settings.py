"""The arguments of `ratelimit run`, and the limiter that they ask for.

Owns the two. Must never send or read files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ratelimit import Budget, Limits, Prices, RateLimiter
from ratelimit.batch.survey import Survey
from ratelimit.commands import CommandError
from ratelimit.commands.tiers import limits_of
from ratelimit.families import pattern_of
from ratelimit.stores.opening import refuse_store


@dataclass(frozen=True, slots=True)
class RunSettings:
    """The arguments of the command; see `ratelimit run --help`."""

    file: Path
    output: Path | None = None
    rpm: float | None = None
    tpm: float | None = None
    rpd: float | None = None
    tpd: float | None = None
    tier: str | None = None
    model: str | None = None
    endpoint: str | None = None
    base_url: str | None = field(default=None, repr=False)
    concurrency: int | None = None
    store: str | None = field(default=None, repr=False)
    pool: Path | None = None
    priority: str = "batch"
    patience: float | None = None
    retry_failed: bool = False
    dry_run: bool = False
    live: bool = False
    price_in: float | None = None
    price_out: float | None = None
    price_cached: float | None = None
    budget: Mapping[str, float] | None = None
    control: Path | None = None
    json_path: Path | None = None

    @property
    def prices(self) -> Prices | None:
        """Of a million tokens; None where they are not given."""
        if self.price_in is None or self.price_out is None:
            return None

        return Prices(input=self.price_in, output=self.price_out, cached=self.price_cached)

    def check(self) -> None:
        """Raise `CommandError` for arguments that contradict each other."""
        limits = (self.rpm, self.tpm, self.rpd, self.tpd)
        if self.tier is not None and any(limit is not None for limit in limits):
            raise CommandError("give a tier or limits, not both")

        if self.pool is not None:
            self._check_pool()

        if (self.price_in is None) != (self.price_out is None):
            raise CommandError(
                "give both --price-in and --price-out, 0 for what is free: with one of them the"
                " cost would be wrong"
            )

        if self.price_cached is not None and self.price_in is None:
            raise CommandError("--price-cached is a part of the price: give --price-in as well")

        if self.budget is not None and "money" in self.budget and self.prices is None:
            raise CommandError(
                "a --budget without a unit is money: give --price-in and --price-out, or a unit,"
                ' as in --budget "2M tokens"'
            )

    def _check_pool(self) -> None:
        """Raise `CommandError` for what stands in the pool's file instead."""
        given = ("rpm", "tpm", "rpd", "tpd", "tier", "base_url", "store")
        for name in given:
            if getattr(self, name) is not None:
                raise CommandError(
                    f"--{name.replace('_', '-')} goes into the file of --pool, for each member"
                )
        for name in ("dry_run", "live", "control", "budget"):
            if getattr(self, name):
                raise CommandError(
                    f"--{name.replace('_', '-')} shows one limiter; leave out --pool, or it"
                )

    def make_budget(self) -> Budget | None:
        """Make the budget that was asked for, if any."""
        return None if self.budget is None else Budget(**self.budget, prices=self.prices)


def limits_asked(settings: RunSettings, survey: Survey) -> dict[str, Limits]:
    """Return the limits that were given, or those of a tier, by pattern of models.

    Without either they are empty, to be learned from the server, of each model family
    apart.
    """
    if settings.tier is not None and survey.models:
        return limits_of(settings.tier, survey.models)

    given = Limits(rpm=settings.rpm, tpm=settings.tpm, rpd=settings.rpd, tpd=settings.tpd)
    families: list[str] = []
    # "gpt-4o" before its snapshots, which share its limits
    for model in sorted(survey.models, key=len):
        if pattern_of(model, families) is None:
            families.append(model)
    # Runs that share a quota may ask other models, which have limits of their own.
    fewest = 1 if settings.store is not None and not settings.dry_run else 2
    if len(given) or len(families) < fewest:
        return {"*": given}

    return {family: Limits() for family in families}


def make_limiter(
    settings: RunSettings, limits: Mapping[str, Limits], budget: Budget | None = None
) -> RateLimiter:
    """Make the limiter of a run.

    A dry run takes nothing, so it has no part in a quota that is shared.
    """
    store = settings.store
    if settings.dry_run and store is not None:
        refuse_store(store)
        store = None
    return RateLimiter(limits=limits, store=store, budget=budget)
