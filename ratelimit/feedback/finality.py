"""Whether waiting can help against a refusal, and what helps where it cannot.

Owns the codes of refusals and the rule by which one is final. Must never do I/O, read a
clock or act on anything. Never raises.

One code does not mean the same everywhere. `insufficient_quota` is OpenAI's word for
spent credit, and Alibaba's for a minute's token limit that recovers by itself. So it is
final on the hosts of OpenAI and Azure, and with words about billing in its text; where
the text names a rate it is a refusal like any other. Anywhere else it *may* be final:
it is when a pause of a minute did not end it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from enum import Enum
from typing import Final, NamedTuple

from ratelimit.limits import MINUTE

FINAL_CODES: Final = frozenset({"credit_balance_exhausted", "insufficient_balance"})
BILLING_PREFIXES: Final = ("billing_", "account_deactivated", "access_terminated")
SPENT_SUFFIXES: Final = ("_spend_limit_exceeded", "_usage_limit_exceeded")
QUOTA_CODES: Final = frozenset(
    {"insufficient_quota", "quota_exceeded", "exceeded_current_quota_error"}
)
"""Codes of a quota that may be money or a rate."""

OVERLOADED_CODES: Final = frozenset(
    {
        "server_is_overloaded",
        "server_overloaded",
        "overloaded_error",
        "engine_overloaded",
        "engine_overloaded_error",
        "service_tier_capacity_exceeded",
        "unavailable",  # Google
        "temporary-reduced-capacity",  # a problem type of the IETF's draft
    }
)
SLOW_DOWN_CODES: Final = frozenset({"slow_down", "limit_burst_rate", "throttling.burstrate"})
"""Codes for a rate that grew too fast; the second and third are Alibaba's."""

KIND_CODES: Final[Mapping[str, tuple[str, float | None]]] = {
    "tokens": ("tokens", None),
    "requests": ("requests", None),
    "images": ("images", None),
    "input-images": ("input_images", None),
    "limit_requests": ("requests", MINUTE),  # Alibaba, as all below
    "limitrequests": ("requests", MINUTE),
    "throttling.ratequota": ("requests", MINUTE),
    "throttling.allocationquota": ("tokens", MINUTE),
}
"""What ran out, named as in `Reading.name`, and its period in seconds, by code."""

LIMITED_CODES: Final = frozenset(
    {
        "rate_limit_exceeded",
        "rate_limit_error",
        "rate_limited",
        "rate_limit_reached_error",  # Moonshot
        "too_many_requests",
        "resource_exhausted",  # Google
        "throttling",
        "throttlingexception",  # Bedrock
        *SLOW_DOWN_CODES,
        *KIND_CODES,
    }
)

_MONEY: Final = re.compile(
    r"\b(?:billing|credits?|balance|payment|top up|prepaid)\b", re.IGNORECASE
)
_RATE: Final = re.compile(
    r"\b[RTI]P[SMHD]\b|\bper (?:second|minute|min|hour)\b|rate limit|throttl", re.IGNORECASE
)
_FINAL_HOSTS: Final = ("openai.com", "azure.com", "azure.us", "azure.cn")
_RATE_HOSTS: Final = ("aliyuncs.com", "alibabacloud.com", "aliyun.com")

BILLING_ADVICE: Final = (
    "The account's billing is not active. Add or correct the payment method in the provider's "
    "billing settings; waiting does not help."
)
CREDIT_ADVICE: Final = (
    "The account's credit or monthly spending limit is used up. Add credit, or raise the limit in "
    "the billing settings of the organization or project; waiting does not help before the next "
    "billing period."
)
NO_ACCESS_ADVICE: Final = (
    "The account's limit for this model is 0: it can never pass. Use another model, or a plan "
    "that includes this one."
)


class Finality(Enum):
    """Whether a refusal goes away by waiting."""

    PASSES = "passes"
    MAY_BE_FINAL = "may be final"
    FINAL = "final"


class Verdict(NamedTuple):
    """Whether a refusal is final; `advice` says what helps where waiting does not."""

    finality: Finality
    advice: str = ""


PASSES: Final = Verdict(Finality.PASSES)


def judge(status: int, codes: Collection[str], message: str, host: str) -> Verdict:
    """Tell whether money or a rate ran out.

    :param status: the HTTP status.
    :param codes: the error's code and type, in lower case.
    :param message: its text.
    :param host: the server's host name, "" when it is not known.
    """
    if any(code.startswith(BILLING_PREFIXES) for code in codes):
        return Verdict(Finality.FINAL, BILLING_ADVICE)

    if status == 402 or any(code in FINAL_CODES or code.endswith(SPENT_SUFFIXES) for code in codes):
        return Verdict(Finality.FINAL, CREDIT_ADVICE)

    if not is_quota(codes):
        return PASSES

    if _within(host, _FINAL_HOSTS):
        return Verdict(Finality.FINAL, CREDIT_ADVICE)

    if _RATE.search(message):
        return PASSES

    spent = _MONEY.search(message) and not _within(host, _RATE_HOSTS)
    return Verdict(Finality.FINAL if spent else Finality.MAY_BE_FINAL, CREDIT_ADVICE)


def too_large(limit: float | None, requested: float | None) -> str:
    """Return the advice for a request that is larger than its whole limit."""
    over = limit is not None and requested is not None and requested > limit
    sizes = f" ({requested:,.0f} asked, {limit:,.0f} allowed)" if over else ""
    return (
        f"This one request is larger than the whole limit{sizes}: it can never pass. Shorten the "
        "prompt or lower max_tokens, split the request, use a model with a higher limit, or raise "
        "the usage tier."
    )


def is_quota(codes: Collection[str]) -> bool:
    """Tell whether an error with these codes is about a quota: of money, or a rate."""
    return not QUOTA_CODES.isdisjoint(codes)


def is_refusing(codes: Collection[str]) -> bool:
    """Tell whether an error with these codes, in lower case, is a refusal."""
    return any(
        code in FINAL_CODES
        or code in QUOTA_CODES
        or code in LIMITED_CODES
        or code.startswith(BILLING_PREFIXES)
        or code.endswith(SPENT_SUFFIXES)
        for code in codes
    )


def _within(host: str, domains: tuple[str, ...]) -> bool:
    host = host.lower().rstrip(".")
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)
