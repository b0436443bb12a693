"""How near an estimate comes once one bill of its kind was seen.

Owns the pairs: the first and the second recorded call of one server, model, endpoint
and kind of content. Must never keep what one pair taught for another.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from benchmarks.recordings import billed
from ratelimit.estimate import Estimator
from ratelimit.estimate.responses import is_divided

NEAR: Final = 1
"""Tokens by which the second estimate may be off."""


class Second(NamedTuple):
    """The errors of a first and of a second estimate, estimate - bill, in tokens."""

    first: int

    second: int

    billed: int
    """The bill of the second call."""


def second_calls(recorded: Iterable[dict[str, Any]]) -> list[Second]:
    """Pair the recorded calls, in their order.

    The second of a pair is estimated after the bill of the first.
    """
    reader = Estimator()
    firsts: dict[tuple[object, ...], dict[str, Any]] = {}
    found: dict[tuple[object, ...], Second] = {}
    for call in recorded:
        estimate = reader.estimate(_body(call), endpoint=call["endpoint"])
        server = call["repo"], call["azure"]
        kind = (*server, call["model"], call["endpoint"], estimate.basis.kind)
        if kind not in firsts:
            firsts[kind] = call
        elif kind not in found:
            found[kind] = _pair(firsts[kind], call)

    return list(found.values())


def figures(pairs: list[Second]) -> dict[str, float]:
    """Return the figures as the JSON shows them.

    "undivided" leaves out the second calls with a bill that was divided by the parallel
    calls of an answer: neither a body nor another bill shows that.
    """
    undivided = [pair for pair in pairs if not is_divided(pair.second + pair.billed, pair.billed)]
    return {
        "n": len(pairs),
        "first_exact": _share(pair.first == 0 for pair in pairs),
        "exact": _share(pair.second == 0 for pair in pairs),
        "within_1": _share(abs(pair.second) <= NEAR for pair in pairs),
        "undivided": len(undivided),
        "within_1_undivided": _share(abs(pair.second) <= NEAR for pair in undivided),
    }


def _body(call: dict[str, Any]) -> dict[str, Any]:
    return {"model": call["model"], **call["request"]}


def _pair(first: dict[str, Any], second: dict[str, Any]) -> Second:
    estimator = Estimator()
    before = estimator.estimate(_body(first), endpoint=first["endpoint"])
    bill = billed(first) or 0
    estimator.learn(before, prompt_tokens=bill, output_tokens=None)
    after = estimator.estimate(_body(second), endpoint=second["endpoint"])
    next_bill = billed(second) or 0
    return Second(
        first=before.prompt_tokens - bill,
        second=after.prompt_tokens - next_bill,
        billed=next_bill,
    )


def _share(held: Iterable[bool]) -> float:
    every = list(held)
    return round(sum(every) / len(every), 4) if every else 0.0
