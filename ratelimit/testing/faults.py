"""Faults that a test injects: which request goes wrong, and how.

Owns the kinds and the choice of the request. Must never answer a request: the server
plays the fault that `Faults.draw` returns.
"""

from __future__ import annotations

import math
import random
import threading
from dataclasses import dataclass
from typing import Final, Literal, get_args

from ratelimit.errors import InvalidArgument

__all__ = ["Fault", "FaultKind", "Faults"]

FaultKind = Literal[
    "429",
    "quota",
    "slow_down",
    "flex",
    "redirect",
    "error_200",
    "wrong_refusal",
    "wrong_wait",
    "wrong_limit",
    "wrong_level",
    "wrong_reset",
    "wrong_period",
    "wrong_usage",
    "500",
    "503",
    "drop",
    "slow",
    "broken_stream",
]
Stage = Literal["arrival", "answer"]
Unit = Literal["", "requests", "tokens", "images"]

_INSTEAD: Final = frozenset(
    {"429", "quota", "slow_down", "flex", "redirect", "error_200", "wrong_refusal", "wrong_wait"}
)
"""Kinds that are answered in place of admission."""
_HEADERS: Final = frozenset({"wrong_limit", "wrong_level", "wrong_reset", "wrong_period"})
"""Kinds that change what the headers show, and nothing else."""


@dataclass(slots=True)
class Fault:
    """One kind of failure, for the next `count` requests or each with `probability`.

    In place of admission, costing nothing: `429` (a refusal without any rate-limit
    header), `quota` (insufficient_quota), `slow_down` (rate_limit_error), `flex` (no
    resources for flex processing), `redirect` (a 308 to the same path with a slash at
    its end, where the call is served), `error_200` (HTTP 200 with an error object of
    `code` as its body), `wrong_refusal` (a refusal that names `value` as the limit of
    `unit`), `wrong_wait` (a refusal that names a wait of `value` seconds).

    Wrong figures in the headers of an answer that is otherwise ordinary: `wrong_limit`,
    `wrong_level` (what remains) and `wrong_reset` show `value` in place of the truth,
    for `unit` or, when it is "", for all; `wrong_period` shows the resets that a limit
    per `value` seconds has. `wrong_usage` shows `value` tokens in the body; the bill,
    and the ledger, have the truth.

    After admission, keeping the charge: `500`, `503`, `drop` (the connection is cut
    without an answer), `broken_stream` (200, then an error event; other answers become
    a 500). `slow`: an ordinary answer, `seconds` later.

    `count=1` is once, `count=2` twice in a row, `probability=0.1` one in ten.
    """

    kind: FaultKind
    count: int | None = None
    """How many requests it hits; None for every one."""
    probability: float = 1.0
    seconds: float = 0.0
    endpoint: str = ""
    """The only endpoint it hits, such as "chat.completions"; "" for all."""
    model: str = ""
    """The only model it hits; "" for all."""
    value: float | None = None
    """The wrong figure, of the kinds that begin with ``wrong_`` and of no other."""
    unit: Unit = ""
    code: int = 429
    """The code of `error_200`."""

    def __post_init__(self) -> None:
        kinds = get_args(FaultKind)
        if self.kind not in kinds:
            raise InvalidArgument(f"fault {self.kind!r}: name one of {', '.join(kinds)}")

        if self.count is not None and self.count < 1:
            raise InvalidArgument(
                f"fault count={self.count!r}: how many requests it hits, at least 1, or None for "
                "every one"
            )

        if not 0 < self.probability <= 1:
            raise InvalidArgument(
                f"fault probability={self.probability!r}: a number above 0, at most 1"
            )

        if not 0 <= self.seconds < math.inf:
            raise InvalidArgument(f"fault seconds={self.seconds!r}: finite and not negative")

        if self.unit not in get_args(Unit):
            raise InvalidArgument(f"fault unit={self.unit!r}: requests, tokens, images or ''")

        if self.kind.startswith("wrong_") != (self.value is not None):
            raise InvalidArgument(
                f"fault {self.kind!r}, value={self.value!r}: the kinds that begin with 'wrong_' "
                "need the wrong figure as value=, the other kinds take none"
            )

        least = 1 if self.kind in {"wrong_limit", "wrong_period", "wrong_refusal"} else 0
        if self.value is not None and not least <= self.value < math.inf:
            raise InvalidArgument(f"fault value={self.value!r}: finite, and at least {least}")

    @property
    def stage(self) -> Stage:
        """Where it acts: when a call arrives, or when it is answered."""
        return "arrival" if self.kind in _INSTEAD | _HEADERS else "answer"

    @property
    def instead(self) -> bool:
        """Whether it is answered in place of admission."""
        return self.kind in _INSTEAD

    def hits(self, endpoint: str, model: str, path: str, stage: Stage) -> bool:
        """Return whether it concerns such a request; a redirected one is served."""
        return (
            self.stage == stage
            and self.endpoint in {"", endpoint}
            and self.model in {"", model}
            and not (self.kind == "redirect" and path.endswith("/"))
        )


class Faults:
    """The faults in force, in the order of their injection; any thread may add one."""

    def __init__(self, faults: tuple[Fault, ...], seed: int) -> None:
        self._faults = list(faults)
        self._random = random.Random(f"faults {seed}")
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        """Put one more in force."""
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """Let every further request succeed."""
        with self._lock:
            self._faults.clear()

    def draw(self, endpoint: str, model: str, path: str, stage: Stage) -> Fault | None:
        """Return the first fault that hits this request, and count it as used."""
        if not self._faults:
            return None

        with self._lock:
            for fault in self._faults:
                if not fault.hits(endpoint, model, path, stage):
                    continue

                if self._random.random() >= fault.probability:
                    continue

                if fault.count is not None:
                    fault.count -= 1
                    if fault.count == 0:
                        self._faults.remove(fault)

                return fault

        return None
