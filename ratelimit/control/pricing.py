"""What a call takes from the buckets, and what stays taken when it ends.

Owns the accounting of one family's server, as given or as found out. Must never see a
header or a refusal: `ratelimit.control.evidence` changes what is known here.
"""

from __future__ import annotations

from math import inf
from typing import Literal, NamedTuple

from ratelimit.control.pause import Repetition

Accounting = Literal["reconcile", "refund", "never_refund", "charge"]


class Price(NamedTuple):
    """Tokens that one call takes."""

    tokens: int
    """In all: debited at admission, and deferred."""
    deferred: int = 0
    """Of these, what the server debits only when the call ends."""
    least: int = 0
    """Of these, what stays debited however little the call uses."""


class Pricing:
    """The accounting of one family of models; see `RateLimiter` for its names."""

    def __init__(self, accounting: Accounting) -> None:
        self.accounting: Accounting = accounting
        self.settles = accounting in {"reconcile", "refund"}
        """Whether what a call did not use comes back when it ends."""
        self.charges_input_only = False
        """Whether headers have shown that the server charges no output at admission."""
        self.repetition = Repetition()
        """As how many requests one counts; more where refusals show no burst at all."""
        self.sees_headers = False
        """Whether headers are listened to, which tell how the server charges."""

    @property
    def reconciles(self) -> bool:
        """Whether calls are settled to the larger of usage and admission charge."""
        return self.accounting == "reconcile"

    @property
    def defers(self) -> bool:
        """Whether the output is taken for debited at the end of a call only."""
        if not self.settles or self.accounting != "reconcile":
            return False
        return self.charges_input_only or not self.sees_headers

    def price(self, prompt: int, output: int, charge: int, most: float = inf) -> Price:
        """Return what a call takes, as far as it is known how the server counts.

        A server that settles to the usage has taken no less than the charge in the end,
        or never settles. One that charges the maximum and gives back what was not
        answered keeps its own count of the prompt. While headers have not shown which,
        the larger is reserved.

        :param prompt: tokens that will be billed for the prompt.
        :param output: tokens that the answer is expected to have.
        :param charge: tokens that the server takes at admission.
        :param most: the smallest limit of tokens. While it is not known that the server
            charges the maximum output, a maximum above the limit is no reason to
            refuse: the call goes from a full bucket.
        """
        if self.accounting == "charge":
            return Price(charge, 0, charge)
        if self.defers:
            beyond = prompt + output - charge
            if beyond > 0:
                return Price(prompt + output, beyond, charge)
            return Price(charge, 0, charge)
        tokens = max(prompt, charge) + output
        if not self.settles:
            return Price(tokens, 0, tokens)
        if not self.reconciles:
            return Price(tokens)
        if tokens > most >= charge:
            tokens = int(most)
        return Price(tokens, 0, charge)

    def settled(self, prompt: int, output: int, charge: int) -> int:
        """Return the tokens that a call took in the end, by its bill and charge."""
        return self.price(prompt, output, charge).tokens
