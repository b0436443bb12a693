"""A lease of a limiter with a budget.

Owns what a call holds of the budget and how its end is counted there. Must never change
what the buckets make of it.
"""

from __future__ import annotations

from ratelimit.budget import Budget, Held, Spent
from ratelimit.control.family import ModelFamily
from ratelimit.estimate import Estimate
from ratelimit.feedback import Refusal, Usage
from ratelimit.lease.admitted import AdmittedLease
from ratelimit.stores.payments import Payment


class BudgetedLease(AdmittedLease):
    """A lease that holds a part of a budget as well, from its delivery on.

    What is known of a call's usage counts, and its estimate where nothing is. A call
    that was refused with a 429, or was not sent, costs nothing.

    :param model: the model that is asked for; "" where the cost is given by hand.

    Raises `BudgetSpent` for a call that is beyond the budget whatever becomes of those
    in flight.
    """

    __slots__ = ("_bill", "_budget", "_held", "_model")

    def __init__(
        self,
        family: ModelFamily,
        payment: Payment,
        estimate: Estimate | None,
        budget: Budget,
        model: str,
    ) -> None:
        super().__init__(family, payment, estimate)
        self._budget = budget
        self._model = model
        self._bill: Spent | None = None
        self._held = Held(self._expected())
        budget.refuse(self._held.cost)

    def _expected(self) -> Spent:
        estimate, amounts = self._estimate, self._payment.amounts
        requests = amounts.get("requests", 1)
        if estimate is None:
            return self._budget.cost_by_hand(self._model, amounts.get("tokens", 0), requests)
        output = estimate.output_tokens
        return self._budget.cost(self._model, estimate.prompt_tokens, output, 0.0, requests)

    def deliver(self) -> AdmittedLease:
        """Return the lease once it is paid and has its part of the budget.

        Raises `BudgetSpent` where that is too much with those in flight; then
        everything is given back.
        """
        try:
            self._budget.take(self._held)
        except BaseException:
            self.cancel()
            raise
        return super().deliver()

    def _taken(self, usage: Usage) -> dict[str, float]:
        most = self._most("tokens")
        prompt, output = min(usage.prompt_tokens, most), min(usage.output_tokens, most)
        requests = self._payment.amounts.get("requests", 1)
        self._bill = self._budget.cost(self._model, prompt, output, usage.cached_tokens, requests)
        return super()._taken(usage)

    def settle(
        self, answer: object = None, /, *, tokens: float | None = None, **amounts: float
    ) -> None:
        """Replace the reserve by what was used, here and in the budget."""
        self._bill = None
        super().settle(answer, tokens=tokens, **amounts)
        if self._notes is not None and self._notes.abandoned:
            return
        if tokens is None and isinstance(answer, (int, float)):
            tokens = answer
        self._count(self._bill or self._by_hand(tokens))

    def _end(self, used: dict[str, float]) -> None:
        super()._end(used)
        if used and not any(used.values()) and "requests" in used:
            self._count(Spent())  # nothing was sent
        else:
            self._count(self._by_hand(used.get("tokens")))

    def _count(self, spent: Spent) -> None:
        if self._held.taken:
            self._budget.settle(self._held, spent)

    def _by_hand(self, tokens: float | None) -> Spent:
        """Return what a call has cost of which no bill is known, or only the sum."""
        if tokens is None:
            return self._held.spent if self._held.ended else self._held.cost
        estimate = self._estimate
        requests = self._payment.amounts.get("requests", 1)
        if estimate is None:
            return self._budget.cost_by_hand(self._model, tokens, requests)
        prompt = min(tokens, estimate.prompt_tokens)
        return self._budget.cost(self._model, prompt, tokens - prompt, 0.0, requests)

    def _refuse(self, refusal: Refusal) -> Refusal:
        begun = self._has_headers
        refusal = super()._refuse(refusal)
        if not begun:
            self._count(Spent())
        return refusal
