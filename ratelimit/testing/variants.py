"""What each kind of server does, as data.

Owns the names P, I, A, B, C, E, M, O, Q, R, nginx, windows, clock and fixed of the
bases (how a call is charged and settled), D, F, G, H, J, K, L, N and S of the modifiers
(what happens on top of it), and the rules they stand for. Must never enforce anything
or hold a number that changes while a server runs. `"F+P"`, `"H+L"` and `["C", "K"]`
combine them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from ratelimit.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["HEADER_FAULTS", "Rules", "rules_of"]

ChargeRule = Literal["input", "sum", "larger", "whole", "nothing"]
SettleRule = Literal["never", "usage", "refund"]
Window = Literal["period", "second", "burst", "fixed", "clock"]
Style = Literal[
    "openai",
    "azure",
    "groq",
    "mistral",
    "nginx",
    "litellm",
    "plain",
    "qwen",
    "bedrock",
    "slowapi",
    "flask",
    "ietf",
    "ietf-7",
    "ietf-6",
]
CacheReads = Literal["counted", "free", "refunded"]
Tenant = Literal["drawn", "minutes", "steady", "gulps"]
NamedWait = float | Literal["wait"] | None

HEADER_FAULTS: Final = ("missing", "-1", "stale", "project-only", "0s")
"""The faults of variant L, as seen in the wild."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How one server counts; the defaults are those of variant P."""

    charge: ChargeRule = "input"
    """What a call takes when it arrives: its input (the recorded rule of today), the
    sum of input and `max_tokens`, the larger of the two, the whole of input and
    whichever bound the body has, or nothing.
    """
    settle: SettleRule = "usage"
    """What happens when a call ends: nothing, its charge is replaced by its usage, or
    the part of the bound that was not used is refunded.
    """
    window: Window = "period"
    """How tokens are counted: a bucket with the capacity of the whole period, of one
    second, or of a given burst; a window that starts with the first call and is empty
    again when its time is over; or the same by the clock's minutes.
    """
    request_window: Window = "period"
    """How requests are counted."""
    requests_alone: bool = False
    """Whether the windows count requests and nothing else."""
    style: Style = "openai"
    """The server that headers and refusals imitate."""
    neighbour: float = 0.0
    """Largest share of the limit that another tenant takes."""
    tenant: Tenant = "drawn"
    """How the other tenant takes it: a share that is drawn anew about every ten seconds
    or every minute, or always the whole share; in one gulp a second, or steadily.
    """
    changes: tuple[tuple[float, float], ...] = ()
    """Seconds after the first call, and the factor on every limit from then on."""
    daily: bool = False
    """Whether a daily request limit exists even where none was given."""
    hidden: tuple[str, ...] = ()
    """Limits that are enforced and not shown in headers, such as "rpm"."""
    cache_reads: CacheReads = "counted"
    """Whether the prompt tokens that the cache has are charged, are free when the call
    arrives, or are charged and given back when it ends.
    """
    output_weight: float = 1.0
    """Tokens that one token of the answer counts as when a call is settled."""
    large_when_full: bool = False
    """Whether a call above the capacity, and within the given limit, passes a full
    bucket and leaves it in debt; else it is refused for good.
    """
    queue: float = 0.0
    """Seconds that a call waits in the server for its turn before it is refused."""
    retry_after: NamedWait = 1.0
    """What a refusal of a plain server names: seconds, "wait" for the true wait, None
    for nothing.
    """
    ramp: bool = False
    in_flight: int | None = None
    header_faults: tuple[str, ...] = ()


_BASES: Final = {
    "P": Rules(),
    "I": Rules(settle="never"),
    "A": Rules(charge="sum", settle="never"),
    "B": Rules(charge="larger", settle="never"),
    "C": Rules(charge="whole", settle="refund"),
    "E": Rules(charge="sum", settle="never", window="fixed", request_window="fixed", style="azure"),
    "M": Rules(charge="nothing", settle="usage", window="fixed", style="mistral"),
    # Bedrock: whatever bound the body has is held, and output counts five times
    "O": Rules(charge="whole", output_weight=5.0),
    # Qwen: the minute's limits by the second, a ramp guard, and its own codes
    "Q": Rules(
        window="second", request_window="second", ramp=True, large_when_full=True, style="qwen"
    ),
    # vLLM, NIM and relays: no header at all, a queue, and then a bare 429
    "R": Rules(queue=5.0, style="plain", retry_after=None),
    # limit_req of nginx: a rate and a burst of requests, and a bare 429
    "nginx": Rules(
        charge="nothing", settle="never", window="burst", request_window="burst", style="nginx"
    ),
    # LiteLLM's proxy: windows by the clock's minute, and a 429 without any header
    "windows": Rules(
        charge="nothing", settle="usage", window="clock", request_window="clock", style="litellm"
    ),
    # gateways: requests in a window of the clock, or from the first call on
    "clock": Rules(
        charge="nothing",
        settle="never",
        window="clock",
        request_window="clock",
        requests_alone=True,
        style="plain",
        retry_after="wait",
    ),
    "fixed": Rules(
        charge="nothing",
        settle="never",
        window="fixed",
        request_window="fixed",
        requests_alone=True,
        style="plain",
        retry_after="wait",
    ),
}

_MODIFIERS: Final[dict[str, dict[str, Any]]] = {
    "D": {"window": "second", "request_window": "second"},
    "F": {"neighbour": 0.6},
    "G": {"changes": ((20.0, 0.5), (80.0, 2.0))},
    "H": {"daily": True},
    "J": {"ramp": True},
    "K": {"in_flight": 10},
    "L": {"header_faults": HEADER_FAULTS},
    "N": {"cache_reads": "free"},
    "S": {"daily": True, "hidden": ("rpm",)},
}


def rules_of(variant: str | Iterable[str]) -> Rules:
    """Return the rules of `"P"`, `"F+P"`, `"nginx"` or `["H", "L"]`.

    :param variant: at most one base (P when none is named) and any modifiers, in any
        order and case.

    Raises InvalidArgument for an unknown name, a name given twice, two bases, or D with
    a base that does not refill by the period.
    """
    given = variant.split("+") if isinstance(variant, str) else list(variant)
    known = {name.upper(): name for name in (*_BASES, *_MODIFIERS)}
    names = [known.get(part.strip().upper(), "") for part in given]
    if not names or not all(names):
        raise InvalidArgument(
            f"variant {variant!r}: write letters or names out of {' '.join(known.values())}, "
            "joined by '+'"
        )

    bases = [name for name in names if name in _BASES]
    if len(set(names)) < len(names) or len(bases) > 1:
        raise InvalidArgument(
            f"variant {variant!r}: write each name once, and at most one of {' '.join(_BASES)}"
        )

    rules = _BASES[bases[0] if bases else "P"]
    if "D" in names and rules.window != "period":
        raise InvalidArgument(
            f"variant {variant!r}: D shortens a bucket that refills by the period, which "
            f"{bases[0]} has not"
        )

    for name in names:
        rules = replace(rules, **_MODIFIERS.get(name, {}))

    return rules
