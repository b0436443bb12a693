"""What api.openai.com charged at admission on a day in the past.

Owns the charge rules that no longer hold, for recordings that are older than today's.
Must never know the rules of today: those are the estimator's.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

from ratelimit.estimate import Estimate

WITHOUT_ANSWER_SINCE: Final = dt.date(2025, 3, 20)
"""The day since which Chat and the legacy completions do not charge `max_tokens`.

Before, the charge was within {0, +1} on 98.7 % of 4,385 chat calls, and on 52 of 54
completions.
"""

ABSENT_BOUND: Final = 16
"""Tokens that were charged for an answer without `max_tokens`."""


def charge_on(day: dt.date, estimate: Estimate, body: Mapping[str, Any]) -> int:
    """Return the charge of `body` by the rule of `day`.

    Today each choice takes one token. Then it took the body's `max_tokens`;
    `max_completion_tokens` was never charged.

    :param estimate: the estimate of `body`, with the charge of today.
    """
    if day >= WITHOUT_ANSWER_SINCE or estimate.endpoint not in {"chat.completions", "completions"}:
        return estimate.charge

    bound = body.get("max_tokens")
    return estimate.charge + estimate.choices * ((ABSENT_BOUND if bound is None else bound) - 1)
