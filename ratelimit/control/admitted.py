"""What the control room reads of an admitted call, as data.

Owns the record. Must never hold a lease or settle anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ratelimit.estimate import Estimate
from ratelimit.stores.bucket import DEFERRING
from ratelimit.stores.payments import NOTHING, Payment


class Admitted(NamedTuple):
    """One call that has been admitted."""

    payment: Payment
    estimate: Estimate | None
    """None where the cost was given by hand."""
    in_transit: Mapping[str, float] = NOTHING
    """What was charged shortly before this call and may arrive after it, by dimension.
    """

    @property
    def model(self) -> str:
        """Return the model that was asked for, or ""."""
        return self.estimate.model if self.estimate else ""

    @property
    def charged(self) -> float:
        """Return the tokens that were debited when the call was admitted."""
        return self.payment.amounts.get(DEFERRING, 0) - self.payment.deferred

    def excess(self, name: str) -> float:
        """Return what was debited beyond the server's charge, mostly expected output.

        :param name: the dimension; the amount is in its unit.
        """
        if name == DEFERRING and self.estimate is not None:
            return max(self.charged - self.estimate.charge, 0)
        return self.payment.amounts.get(name, 0) if name == "output_tokens" else 0

    def refundable(self, name: str) -> float:
        """Return all that was debited and may come back when the call is settled.

        All of its tokens, because a charge that was estimated too high comes back too.
        """
        if name == DEFERRING and self.estimate is not None:
            return self.charged
        return self.payment.amounts.get(name, 0) if name == "output_tokens" else 0
