"""What calls may cost in all: requests, tokens or money, and what they have cost.

Owns the sums of one budget and the user's prices. Must never wait, or know a queue or
an answer: it is handed tokens.

What calls in flight may cost counts as estimated until they are settled, so a budget is
exceeded by no more than their estimates were too low. A settlement never blocks: it is
left in an inbox, which the next look at the sums empties.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from ratelimit.errors import BudgetSpent, InvalidArgument
from ratelimit.families import Patterns
from ratelimit.limits import amount_of, read_amount, whole
from ratelimit.locks import reentrant_use, wait_steps

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What a million tokens of one model cost, in any currency.

    :param input: of the prompt.
    :param output: of the answer.
    :param cached: of the part of the prompt that came from a cache; by default as much
        as the rest of it.

    Raises `InvalidArgument` for what is no amount. Source: the price list of the
    provider; none is built in.
    """

    input: float
    output: float
    cached: float | None = None

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached"):
            value = getattr(self, name)
            if value is not None:
                amount_of(value, f"Prices({name}=), for a million tokens,")

    def of(self, prompt: float, output: float, cached: float = 0.0) -> float:
        """Return the price of tokens; ``cached`` is a part of ``prompt``."""
        cached = min(cached, prompt)
        of_cached = self.input if self.cached is None else self.cached
        total = (prompt - cached) * self.input + cached * of_cached + output * self.output
        return total / 1e6

    @property
    def most(self) -> float:
        """The price of the dearest million of tokens."""
        return max(self.input, self.output, self.cached or 0.0)


class Spent(NamedTuple):
    """What calls have cost, or may cost."""

    requests: float = 0.0
    tokens: float = 0.0
    money: float = 0.0
    """0 where the budget is not of money."""


class Held:
    """What one call holds of a budget."""

    __slots__ = ("cost", "ended", "spent", "taken")

    def __init__(self, cost: Spent) -> None:
        self.cost = cost
        self.taken = False
        self.ended = False
        self.spent = Spent()


class Budget:
    """What all calls of a limiter may cost together.

    :param requests: a number or a text such as "10k"; likewise ``tokens``, of prompts
        and answers.
    :param money: in the currency of the ``prices``, which it needs.
    :param prices: `Prices` of all models, or a mapping from patterns of model names, as
        ``limits=`` has them, to `Prices`.

    It counts for as long as the object lives, in this process; the same one may be
    given to several limiters. Raises `InvalidArgument` on what cannot be used.
    """

    def __init__(
        self,
        *,
        requests: float | str | None = None,
        tokens: float | str | None = None,
        money: float | str | None = None,
        prices: Prices | Mapping[str, Prices] | None = None,
    ) -> None:
        given = {"requests": requests, "tokens": tokens, "money": money}
        self.most = {
            name: read_amount(value, f"Budget({name}=)")
            for name, value in given.items()
            if value is not None
        }
        """By name, what may be spent."""
        if not self.most:
            raise InvalidArgument(
                "a budget is of requests=, tokens= or money=, as in Budget(tokens=2_000_000)"
            )
        by_model = {"*": prices} if isinstance(prices, Prices) else prices
        if by_model is not None and not _are_prices(by_model):
            raise InvalidArgument(
                "prices= is Prices(input=..., output=...), or a mapping from model names to them, "
                f"not {prices!r}"
            )
        if "money" in self.most and not by_model:
            raise InvalidArgument(
                "a budget of money needs the prices of a million tokens, as none are built in: "
                "Budget(money=5, prices=Prices(input=2.5, output=10))"
            )
        self._prices = dict(by_model or {})
        self._pattern_of = Patterns(self._prices).of
        self._spent = self._reserved = Spent()
        self._lock = threading.Lock()
        self._wait_steps = wait_steps(self._lock)
        self._inbox: deque[tuple[Held, Spent]] = deque()

    @property
    def spent(self) -> Spent:
        """What calls have cost that are over."""
        return self._locked(lambda: self._spent)

    @property
    def in_flight(self) -> Spent:
        """What calls in flight may cost, by their estimates."""
        return self._locked(lambda: self._reserved)

    def add(
        self,
        *,
        model: str = "",
        prompt: float = 0,
        output: float = 0,
        cached: float = 0,
        requests: float = 1,
    ) -> None:
        """Count what was spent before, or elsewhere, in tokens.

        :param cached: the part of ``prompt`` that came from a cache.
        """
        amounts = (prompt, output, cached, requests)
        for amount in amounts:
            amount_of(amount, "what a budget counts")
        more = self.cost(model, prompt, output, cached, requests)

        def add() -> None:
            self._spent = _plus(self._spent, more)

        self._locked(add)

    def cost(
        self, model: str, prompt: float, output: float, cached: float = 0.0, requests: float = 1
    ) -> Spent:
        """Return what a call of a model costs."""
        prices = self.prices(model)
        money = 0.0 if prices is None else prices.of(prompt, output, cached)
        return Spent(requests, prompt + output, money)

    def cost_by_hand(self, model: str, tokens: float, requests: float) -> Spent:
        """Return what a call costs at most of which only the sum of tokens is known."""
        prices = self.prices(model)
        return Spent(requests, tokens, 0.0 if prices is None else tokens * prices.most / 1e6)

    def prices(self, model: str) -> Prices | None:
        """Return the prices of a model; None where the budget needs none.

        Raises `InvalidArgument` where it needs them and has none.
        """
        if "money" not in self.most:
            return None
        pattern = self._pattern_of(model)
        if pattern is None:
            raise InvalidArgument(
                f"the budget is of money, and no price is given for model {model[:80]!r}: add it, "
                'or "*", to prices='
            )
        return self._prices[pattern]

    def refuse(self, cost: Spent) -> None:
        """Raise `BudgetSpent` for a call that would exceed what is left for sure."""
        self._locked(self._refuse, cost, Spent())

    def take(self, held: Held) -> None:
        """Let a call hold its cost; raise `BudgetSpent` if that is too much."""
        self._locked(self._take, held)

    def _take(self, held: Held) -> None:
        self._refuse(held.cost, self._reserved)
        reserved = _plus(self._reserved, held.cost)

        # Nothing may come between these lines: no call, no loop.
        self._reserved = reserved
        held.taken = True

    def _refuse(self, cost: Spent, reserved: Spent) -> None:
        for name, most in self.most.items():
            spent, flying = getattr(self._spent, name), getattr(reserved, name)
            needs = getattr(cost, name)
            if needs and spent + flying + needs > most * (1 + 1e-9):
                raise BudgetSpent(
                    f"the budget of {_shown(name, most)} does not allow this call: "
                    f"{_shown(name, spent, bare=True)} are spent, {_shown(name, flying, bare=True)}"
                    f" in flight, and it may cost {_shown(name, needs, bare=True)}; give a larger "
                    "budget to go on",
                    name=name,
                    budget=most,
                    spent=spent,
                )

    def settle(self, held: Held, spent: Spent) -> None:
        """End a call, or correct what it has cost. Never blocks."""
        self._inbox.append((held, spent))

    def _apply_inbox(self) -> None:
        # An entry is taken out only after it is applied, and applying it once more,
        # when a signal came in between, changes nothing.
        while self._inbox:
            held, now = self._inbox[0]
            reserved = self._reserved if held.ended else _plus(self._reserved, held.cost, -1)
            spent = _plus(_plus(self._spent, held.spent, -1), now)

            # Nothing may come between these lines: no call, no loop.
            self._reserved = reserved
            self._spent = spent
            held.spent = now
            held.ended = True

            self._inbox.popleft()

    def _locked(self, act: Callable[..., T], *arguments: object) -> T:
        for waited in self._wait_steps:
            if waited:
                break
            raise reentrant_use()
        try:
            self._apply_inbox()
            return act(*arguments)
        finally:
            self._lock.release()

    def reset_after_fork(self) -> None:
        """Go on alone in a forked process: calls in flight are the parent's."""
        self._lock = threading.Lock()
        self._wait_steps = wait_steps(self._lock)
        self._inbox.clear()
        self._reserved = Spent()

    def __repr__(self) -> str:
        parts = [f"{name}={whole(most)}" for name, most in self.most.items()]
        return f"Budget({', '.join(parts)})"

    def __str__(self) -> str:
        spent, flying = self.spent, self.in_flight
        return "; ".join(
            f"{_shown(name, getattr(spent, name), bare=True)} of {_shown(name, most)} spent, "
            f"{_shown(name, getattr(flying, name), bare=True)} in flight"
            for name, most in self.most.items()
        )


def check_budget(budget: object) -> Budget | None:
    """Return a limiter's budget, if any; raise `InvalidArgument` for anything else."""
    if budget is None or isinstance(budget, Budget):
        return budget
    raise InvalidArgument(
        "budget= is a Budget, such as ratelimit.Budget(tokens=2_000_000), not "
        f"{type(budget).__name__}"
    )


def _are_prices(prices: object) -> bool:
    return isinstance(prices, Mapping) and all(
        isinstance(name, str) and isinstance(one, Prices) for name, one in prices.items()
    )


def _plus(one: Spent, other: Spent, times: float = 1) -> Spent:
    """Return a sum; what rounding would leave below zero is nothing."""
    return Spent(*(max(a + times * b, 0.0) for a, b in zip(one, other, strict=True)))


def _shown(name: str, amount: float, *, bare: bool = False) -> str:
    if name == "money":
        return f"{amount:,.4f}" if 0 < amount < 1 else f"{amount:,.2f}"
    return whole(round(amount)) if bare else f"{whole(round(amount))} {name}"
