"""What a call costs where limits weigh tokens: cache reads free, output five times.

Owns the conversion of estimates and usages into weighed ones, and what is learned of
cache reads for the reserve. Must never touch a bucket, a queue or a clock.

An estimate and a usage that are weighed before anything is priced need no other
arithmetic: the accounting of a server is the same, in other units. How much of a prompt
a cache will have is in no body. So nothing is taken for cached at first; after `ENOUGH`
answers of one call site the least of the last `ANSWERS` counts, in tokens and as a
share of the prompt. The usage settles what a call really took. Where a limit of tokens
refuses all the same, perhaps as the server charges the whole prompt until a call ends,
the whole is reserved for `FIRST_DISTRUST` seconds, and after each further refusal for
twice as long.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from math import inf
from typing import Final, NamedTuple

from ratelimit.estimate import Estimate
from ratelimit.feedback import Refusal, Usage
from ratelimit.limits import Limit
from ratelimit.weights import COUNTED, weights_of

ENOUGH: Final = 3
"""Answers before anything is taken for cached."""
ANSWERS: Final = 8
"""Answers of which the least counts."""
SITES: Final = 512
"""Models and call sites; the longest unused goes first."""
LIFETIME: Final = 300.0
"""Seconds after which a cache may have dropped what it had (OpenAI, Anthropic: five
minutes at the least)."""
FIRST_DISTRUST: Final = 600.0
LONGEST_DISTRUST: Final = 3_600.0
"""Seconds."""

_LIMITED: Final = frozenset({None, "tokens", "input_tokens"})


class CacheReads:
    """How many tokens of a prompt a cache will have, by model and call site."""

    __slots__ = ("_distrust", "_distrusted_until", "_seen")

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str], tuple[float, deque[tuple[int, int]]]] = (
            OrderedDict()
        )
        self._distrusted_until = -inf
        self._distrust = FIRST_DISTRUST

    def learn(self, estimate: Estimate, prompt: int, cached: int, now: float) -> None:
        """Take the bill of one call: tokens of its prompt, and those from a cache."""
        if prompt <= 0 or not 0 <= cached <= prompt:
            return
        key = estimate.model, estimate.basis.site
        at, answers = self._seen.pop(key, (now, deque[tuple[int, int]](maxlen=ANSWERS)))
        if now - at > LIFETIME:
            answers.clear()
        answers.append((cached, prompt))
        self._seen[key] = now, answers
        while len(self._seen) > SITES:
            self._seen.popitem(last=False)

    def expected(self, estimate: Estimate, now: float) -> int:
        """Return the tokens of a prompt that a cache will have, at least."""
        at, answers = self._seen.get((estimate.model, estimate.basis.site), (-inf, ()))
        if len(answers) < ENOUGH or now - at > LIFETIME or now < self._distrusted_until:
            return 0
        known = list(answers)
        share = min(cached / prompt for cached, prompt in known)
        return int(min(*(cached for cached, _ in known), share * estimate.prompt_tokens))

    def refused(self, now: float) -> None:
        """Take nothing for cached for a while."""
        if now >= self._distrusted_until:
            self._distrusted_until = now + self._distrust
            self._distrust = min(2 * self._distrust, LONGEST_DISTRUST)


class Weighing:
    """The weights of one family's limits.

    :param weights: those of the kinds of tokens, by dimension.
    """

    __slots__ = ("_weights", "cache")

    def __init__(self, weights: Mapping[str, tuple[float, float, float]]) -> None:
        self._weights = {**COUNTED, **weights}
        self.cache = CacheReads()

    def expected(
        self, estimate: Estimate, output: int, now: float, most: float = inf
    ) -> tuple[Estimate, int]:
        """Return the estimate and the expected output in units of the limit of tokens.

        :param most: the smallest such limit. What the whole prompt would cost above it
            refuses no call that a cache could make fit.
        """
        cached = self.cache.expected(estimate, now)
        weighed = self.estimate(estimate, cached)
        least = self._weighed("tokens", 0, estimate.prompt_tokens, 0)
        if weighed.prompt_tokens > most >= least:
            whole = int(most)
            weighed = weighed._replace(prompt_tokens=whole, charge=min(weighed.charge, whole))
        return weighed, self._output(output)

    def amounts(
        self, estimate: Estimate, output: int, now: float, smallest: Mapping[str, float]
    ) -> dict[str, float]:
        """Return what a call takes of the limits of input and output tokens.

        :param smallest: the smallest limit of each dimension; see `expected`.
        """
        prompt, cached = estimate.prompt_tokens, self.cache.expected(estimate, now)
        found = {}
        for name in ("input_tokens", "output_tokens"):
            amount = self._weighed(name, prompt - cached, cached, output)
            most = smallest.get(name, inf)
            could_fit = amount > most >= self._weighed(name, 0, prompt, output)
            found[name] = most if could_fit else amount
        return found

    def billed(self, estimate: Estimate | None, usage: Usage) -> Bill:
        """Return the bill of a call, weighed; see `billed`."""
        cached = _cached(usage)
        fresh, output = usage.prompt_tokens - cached, usage.output_tokens
        prompt, answer = round(self._weighed("tokens", fresh, cached, 0)), self._output(output)
        weighed = usage._replace(
            prompt_tokens=prompt, output_tokens=answer, total_tokens=prompt + answer
        )
        used = {
            name: self._weighed(name, fresh, cached, output)
            for name in ("input_tokens", "output_tokens")
        }
        return Bill(estimate and self.estimate(estimate, cached), weighed, used)

    def learn(self, estimate: Estimate, usage: Usage, now: float) -> None:
        """Take the bill of one call."""
        self.cache.learn(estimate, usage.prompt_tokens, _cached(usage), now)

    def on_refusal(self, refusal: Refusal, now: float) -> None:
        """Take a refusal: of tokens, it shows that too little was reserved."""
        if refusal.kind in _LIMITED and not refusal.overloaded and not refusal.hopeless:
            self.cache.refused(now)

    def estimate(self, estimate: Estimate, cached: int) -> Estimate:
        """Return an estimate in units of the limit of tokens.

        The charge is of the prompt, whatever the answer will be.
        """
        prompt = estimate.prompt_tokens
        cached = min(cached, prompt)
        weighed = self._weighed("tokens", prompt - cached, cached, 0)
        most = estimate.max_output_tokens
        share = weighed / prompt if prompt else 1.0
        return estimate._replace(
            prompt_tokens=round(weighed),
            output_tokens=self._output(estimate.output_tokens),
            max_output_tokens=None if most is None else self._output(most),
            charge=max(round(estimate.charge * share), 0),
        )

    def _output(self, tokens: int) -> int:
        return round(self._weighed("tokens", 0, 0, tokens))

    def _weighed(self, name: str, fresh: float, cached: float, output: float) -> float:
        of_input, of_cached, of_output = self._weights[name]
        return of_input * fresh + of_cached * cached + of_output * output


class Bill(NamedTuple):
    """What one call has used."""

    estimate: Estimate | None
    usage: Usage
    """Both in units of the limit of tokens."""
    used: dict[str, float]
    """Of the other limits of tokens, by dimension."""


def billed(weighing: Weighing | None, estimate: Estimate | None, usage: Usage) -> Bill:
    """Return the bill of a call, whether limits weigh tokens or not."""
    if weighing is not None:
        return weighing.billed(estimate, usage)
    used = {"input_tokens": usage.prompt_tokens, "output_tokens": usage.output_tokens}
    return Bill(estimate, usage, used)  # type: ignore[arg-type]  # whole numbers are amounts


def as_priced(
    weighing: Weighing | None, estimate: Estimate | None, admitted_at: float
) -> Estimate | None:
    """Return the estimate as it was priced, for what is learned of the server."""
    if weighing is None or estimate is None:
        return estimate
    return weighing.estimate(estimate, weighing.cache.expected(estimate, admitted_at))


def weighing_of(limits: Iterable[Limit]) -> Weighing | None:
    """Return what the given limits weigh; None where each token counts as one."""
    weights = {
        limit.name: weights_of(limit.name, limit.weights) for limit in limits if limit.weights
    }
    return Weighing(weights) if weights else None


def _cached(usage: Usage) -> int:
    return min(max(usage.cached_tokens, 0), usage.prompt_tokens)
