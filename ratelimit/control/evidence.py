"""How a family's server counts, found out from levels, bills and refusals.

Owns three conclusions about the accounting: that the server charges the input only,
that it does or does not settle to the usage, and that it keeps what calls do not use.
Writes them into `Pricing`. Must never touch a bucket or read a clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Final, Literal

from ratelimit.control.admitted import Admitted
from ratelimit.control.pricing import Accounting, Pricing
from ratelimit.events.records import Conclusion

BILLS: Final = 10
"""Answers with usage that are needed before settlement is judged."""
SURE_SHARE: Final = 0.5
"""The share of the limit by which usages and charges have to differ before it is
judged.

Simulated: one correction that repays earlier calls, or the slack lent at a full bucket,
looks like a server that does not settle for up to a fifth of the limit.
"""
REFUSALS: Final = 3
"""Refusals for tokens within `REFUSAL_SECONDS` that end refunds for `KEEP_SECONDS`."""
REFUSAL_SECONDS: Final = 600.0
KEEP_SECONDS: Final = 3_600.0


class AccountingEvidence:
    """What one family's answers and refusals have shown of its server's accounting.

    :param report: called with the name of a conclusion, what held and what holds now.
    """

    def __init__(
        self, pricing: Pricing, report: Callable[[Conclusion, str | int, str | int], object]
    ) -> None:
        self._pricing = pricing
        self._report = report
        self._refused_at: deque[float] = deque(maxlen=REFUSALS)
        self._keeps_until = inf
        self._usage_above_charge = 0.0
        self._usage_below_charge = 0.0
        self._corrected = 0.0  # tokens by which headers have raised the level since then
        self._bills = 0
        self._found_unsettled = False

    def on_level(self, admitted: Admitted, used: float) -> None:
        """Take the tokens that the server's bucket lacks right after a call's charge.

        If they are fewer than this call's maximum or reserve, the server charges the
        input only on arrival.
        """
        estimate = admitted.estimate
        if self._pricing.accounting != "reconcile" or estimate is None:
            return
        if used < 0.9 * (estimate.max_output_tokens or estimate.output_tokens):
            self._conclude("charges_input_only", holds=True)

    def on_bill(self, beyond: float) -> None:
        """Take by how many tokens a usage was above its admission charge (or below)."""
        if beyond > 0:
            self._usage_above_charge += beyond
        else:
            self._usage_below_charge -= beyond
        self._bills += 1

    def on_unsettled(self, beyond: float) -> None:
        """Take what a call without usage keeps debited above its charge, in tokens.

        Headers give them back, whether the server settles or not.
        """
        self._corrected -= beyond

    def on_correction(self, tokens: float, limit: float) -> None:
        """Take by how many tokens headers have raised the level; judge settlement.

        Calls are settled to the larger of charge and usage. If the server settles, its
        headers give back what usages were below their charges; if it does not, what
        they were above. While it is taken for one that does not settle, it shows that
        it does by debiting the difference of the two.

        :param limit: tokens per period of the bucket that was corrected.
        """
        self._corrected += tokens
        pricing = self._pricing
        above, below = self._usage_above_charge, self._usage_below_charge
        apart = above - below
        if not pricing.charges_input_only or self._bills < BILLS or apart < limit * SURE_SHARE:
            return
        if self._found_unsettled and self._corrected < -apart / 2:
            self._set_accounting("reconcile")
        elif pricing.accounting == "reconcile" and self._corrected > (above + below) / 2:
            self._set_accounting("charge")
        self._start_over()

    def _start_over(self) -> None:
        self._usage_above_charge = self._usage_below_charge = self._corrected = 0.0
        self._bills = 0

    def on_tokens_refused(self, now: float) -> None:
        """Take a refusal for tokens although what calls did not use was given back.

        Servers that keep the reserve (OpenAI until 2025, Azure) refuse again and again
        where a limiter gives back; one that was seen to charge the input only is not
        one of them. Other clients of the same key can be the reason too, so this is
        dropped after `KEEP_SECONDS`.
        """
        if self._found_unsettled:  # it takes more than was counted: it settles after all
            self._set_accounting("reconcile")
            self._start_over()
        if self._pricing.charges_input_only or not self._pricing.sees_headers:
            return
        self._refused_at.append(now)
        if len(self._refused_at) == REFUSALS and now - self._refused_at[0] <= REFUSAL_SECONDS:
            self._conclude("settles", holds=False)
            self._keeps_until = now + KEEP_SECONDS

    def on_answer(self, now: float) -> None:
        """Give back again what calls do not use, some time after the refusals."""
        if now >= self._keeps_until:
            self._keeps_until = inf
            self._conclude("settles", holds=True)

    def _conclude(self, about: Literal["charges_input_only", "settles"], *, holds: bool) -> None:
        before = getattr(self._pricing, about)
        if before != holds:
            setattr(self._pricing, about, holds)
            self._report(about, before, holds)

    def _set_accounting(self, accounting: Accounting) -> None:
        before, self._pricing.accounting = self._pricing.accounting, accounting
        self._found_unsettled = accounting == "charge"
        self._report("accounting", before, accounting)
