"""What `--tier` stands for."""

import pytest

from ratelimit import InvalidArgument, Limits, RateLimiter
from ratelimit.commands.tiers import AS_OF, TIERS, limits_of


def test_a_tier_stands_for_limits_by_model() -> None:
    """Snapshots fall under their model, each model has limits of its own, and a limiter
    takes them as they are.
    """
    found = limits_of("1", ["gpt-4o-2024-08-06", "gpt-4o", "gpt-4o-mini", "gpt-6"])

    assert found["gpt-4o"] == Limits(rpm=500, tpm=30_000)
    assert set(found) == {"gpt-4o", "gpt-4o-mini", "gpt-6"}
    assert RateLimiter(limits=found).limits("gpt-4o-2024-08-06") == found["gpt-4o"]
    assert [TIERS[tier]["gpt-6"] for tier in "12345"] == sorted(
        (TIERS[tier]["gpt-6"] for tier in "12345"),
        key=lambda limits: [limit.amount for limit in limits],
    )


@pytest.mark.parametrize(
    ("tier", "model", "expected"),
    [
        ("6", "gpt-6", "none of free, 1"),
        ("5", "gpt-3", "no limits for gpt-3"),
        ("1", "", "without a model"),
    ],
)
def test_what_the_table_does_not_know_is_not_guessed(tier: str, model: str, expected: str) -> None:
    """A wrong limit costs 429s or time: the table says from when it is and what to do
    instead.
    """
    with pytest.raises(InvalidArgument, match=expected) as caught:
        limits_of(tier, [model])

    assert tier == "6" or str(AS_OF) in str(caught.value)


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4.1", "gpt-4o-mini", "gpt-4.1-nano", "gpt-4"])
def test_every_paid_tier_of_the_older_models_is_known(model: str) -> None:
    """Tiers 1 to 5 are there for the models of the gpt-4 generation too, and grow."""
    tpm = [limits_of(tier, [model])[model] for tier in "12345"]
    amounts = [next(each.amount for each in limits if each.name == "tokens") for limits in tpm]

    assert amounts == sorted(set(amounts))
