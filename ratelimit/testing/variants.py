"""What each kind of server does, as data.

Owns: the letters P, I, A, B, C, D, E, F, G, H, J, K, L, M and the rules they stand for.
What must never come in: numbers that change while a server runs, anything that
enforces. A letter is either a base (how a call is charged and settled) or a modifier
(what happens on top of it); `"F+P"`, `"H+L"` and `["C", "K"]` combine them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ratelimit.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Rules", "rules_of"]

ChargeRule = Literal["input", "sum", "larger", "whole", "nothing"]
SettleRule = Literal["never", "usage", "refund"]
Window = Literal["period", "second", "fixed"]
Style = Literal["openai", "azure", "groq", "mistral"]

HEADER_FAULTS = ("missing", "-1", "stale", "project-only", "0s")


@dataclass(frozen=True, slots=True)
class Rules:
    """How one server counts.

    `charge`: what a call takes when it arrives: its input (the recorded rule of today),
    the sum of input and `max_tokens`, the larger of the two, the whole of input and
    whichever bound the body has, or nothing. `settle`: what happens when it ends:
    nothing, the charge is replaced by the usage, or the part of the most that was not
    answered comes back. `window`: a bucket that drips over the whole period, the same
    with the capacity of one second, or a window that empties at once when its time is
    over. The other fields belong to single modifiers; their defaults switch them off.
    """

    charge: ChargeRule = "input"
    settle: SettleRule = "usage"
    window: Window = "period"  # of tokens; requests follow unless the field below says otherwise
    request_window: Window = "period"
    style: Style = "openai"
    neighbour: float = 0.0  # largest share of the limit that another tenant takes
    # (seconds after the first call, factor on every limit)
    changes: tuple[tuple[float, float], ...] = ()
    daily: bool = False  # a daily request limit exists even where none was given
    ramp: bool = False
    in_flight: int | None = None
    header_faults: tuple[str, ...] = ()


_BASES = {
    "P": Rules(),
    "I": Rules(settle="never"),
    "A": Rules(charge="sum", settle="never"),
    "B": Rules(charge="larger", settle="never"),
    "C": Rules(charge="whole", settle="refund"),
    "E": Rules(charge="sum", settle="never", window="fixed", request_window="fixed", style="azure"),
    "M": Rules(charge="nothing", settle="usage", window="fixed", style="mistral"),
}


_MODIFIERS: dict[str, dict[str, Any]] = {
    "D": {"window": "second", "request_window": "second"},
    "F": {"neighbour": 0.6},
    "G": {"changes": ((20.0, 0.5), (80.0, 2.0))},
    "H": {"daily": True},
    "J": {"ramp": True},
    "K": {"in_flight": 10},
    "L": {"header_faults": HEADER_FAULTS},
}


def rules_of(variant: str | Iterable[str]) -> Rules:
    """The rules of `"P"`, `"F+P"`, `["H", "L"]`: at most one base (P when none is
    named) and any modifiers.

    Raises InvalidArgument for an unknown letter, a letter named twice or two bases; D
    needs a base whose bucket drips.
    """
    parts = variant.split("+") if isinstance(variant, str) else list(variant)
    letters = [part.strip().upper() for part in parts]
    if not letters or not set(letters) <= _BASES.keys() | _MODIFIERS.keys():
        raise InvalidArgument(
            f"variant {variant!r}: name letters out of P I A B C D E F G H J K L M, joined by '+'"
        )
    bases = [letter for letter in letters if letter in _BASES]
    if len(set(letters)) < len(letters) or len(bases) > 1:
        raise InvalidArgument(
            f"variant {variant!r}: name each letter once, and one of P I A B C E M at most"
        )
    rules = _BASES[bases[0] if bases else "P"]
    if "D" in letters and rules.window == "fixed":
        raise InvalidArgument(
            f"variant {variant!r}: D shortens a bucket that drips; E and M have windows"
        )
    for letter in letters:
        rules = replace(rules, **_MODIFIERS.get(letter, {}))
    return rules
