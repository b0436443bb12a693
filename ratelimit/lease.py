"""What a call holds from its admission to its settlement.

Owns the translation of answers, refusals and exceptions into amounts, by the accounting
that was chosen. Waits for nothing: a lease may be settled from any thread, task,
finalizer or signal handler.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Literal

from ratelimit.errors import EstimateWarning, InvalidArgument, caution
from ratelimit.feedback import (
    Refusal,
    Usage,
    read_exception,
    read_headers,
    read_refusal,
    read_usage,
)
from ratelimit.limits import LARGEST, Cost, amount_of
from ratelimit.stores import NOTHING
from ratelimit.stores.bucket import HELD

if TYPE_CHECKING:
    from ratelimit.control.family import ModelFamily
    from ratelimit.estimate import Estimate
    from ratelimit.stores import Grant

Accounting = Literal["reconcile", "refund", "never_refund", "charge"]

current: ContextVar[Lease | None] = ContextVar("ratelimit_current_lease", default=None)


def current_lease() -> Lease | None:
    """The lease of the decorator or context manager around this code, if any: what it
    admitted need not pay again.
    """
    return current.get()


class Current:
    """While entered, `current_lease` is this lease."""

    __slots__ = ("_lease", "_token")

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._token: Token[Lease | None] | None = None

    def __enter__(self) -> Lease:
        self._token = current.set(self._lease)
        return self._lease

    def __exit__(self, *_: object) -> None:
        token, self._token = self._token, None
        if token is not None:
            try:
                current.reset(token)
            # left in another context than entered (a generator closed by the event
            # loop): set nothing there
            except ValueError:
                current.set(None)


class Lease:
    """One admitted call: what was paid for it, and how that is settled.

    ``cost`` is what it holds now. It ends at its first `settle`, `cancel`, `refuse` or
    `close`, which frees its concurrency slot; later figures still correct the buckets:
    the newest counts.
    """

    # No __slots__: with defaults on the class a lease is made in five assignments, and
    # one is made for every call.
    _spent: dict[str, float] | None = None
    _ended = False
    _claimed = False
    _lost = False
    _headers_seen = False
    travelling: Cost = NOTHING
    """What was charged shortly before this call and may arrive after it, by dimension;
    noted where headers are listened to.
    """

    def __init__(
        self,
        lane: ModelFamily,
        cost: dict[str, float],
        estimate: Estimate | None,
        grant: Grant,
        sent_at: float,
    ) -> None:
        self._lane = lane
        # after a fork the lane has another one: this call ends where it was admitted
        self._store = lane.store
        self.grant = grant
        self.reserved = cost
        self.estimate = estimate
        self.sent_at = sent_at

    def __del__(self) -> None:
        # else it was interrupted while it was made
        if not self._ended and "sent_at" in self.__dict__:
            self.close()

    @property
    def cost(self) -> dict[str, float]:
        """What it holds now, by dimension: what was reserved until it is settled, then
        what was used.
        """
        cost = self.reserved if self._spent is None else self.reserved | self._spent
        return {name: amount for name, amount in cost.items() if name != HELD}

    def __repr__(self) -> str:
        held = ", ".join(f"{name}={amount:,.12g}" for name, amount in self.cost.items())
        return f"<Lease {held}, {'ended' if self._ended else 'in flight'}>"

    def current(self) -> Current:
        """Make this the `current_lease` while the returned context manager is entered."""
        return Current(self)

    def claim(self) -> bool:
        """Use the admission for one HTTP attempt; True the first time only: a retry has
        to be admitted on its own.
        """
        if self._claimed:
            return False
        self._claimed = True
        return True

    def settle(
        self, answer: object = None, /, *, tokens: float | None = None, **amounts: float
    ) -> None:
        """Replace the reserve by what was really used; the difference goes back, or is
        debited late.

        :param answer: anything that carries usage: an SDK response, its ``usage``, a
            dict of either, the JSON text; or the tokens as a number.
        :param tokens: the tokens used, given by hand; other dimensions likewise by
            their names.

        With ``accounting="reconcile"`` a known admission charge is the least that stays
        debited (a server that takes a charge and does not settle has taken it for
        good). With "never_refund" and "charge" the reserve stays: the server keeps it,
        whatever was used. Settling twice is allowed; the newest figure counts. Raises
        `InvalidArgument` on what carries no usage or amounts that cannot be: then
        nothing has changed.
        """
        if tokens.__class__ is int and answer is None and not amounts and 0 <= tokens <= LARGEST:
            used = {"tokens": tokens}
        elif answer.__class__ is Usage and tokens is None and not amounts:
            used = self._billed(answer)
        else:
            used = self._amounts(answer, tokens, amounts)
        if not self._lost:
            self._book(used if self._lane.settles else {})

    def _book(self, used: dict[str, float]) -> None:
        """End the call, and let what was used take the place of what was held of it;
        the difference goes back, or is debited late.
        """
        # No call stands between these lines, so nothing comes between them: no other
        # thread, no signal handler, no finalizer that settles too.
        before, ended = self._spent, self._ended
        self._spent = used if before is None else before | used
        self._ended = True
        lane = self._lane
        now = self.sent_at  # early enough for a refund; a late debit needs the time
        back = {}
        for name, amount in used.items():
            back[name] = difference = (
                before[name] if before and name in before else self.reserved.get(name, 0)
            ) - amount
            if difference < 0:
                now = lane.now()
        if HELD in self.reserved and not ended:
            back[HELD] = self.reserved[HELD]
            now = lane.now()
        self._store.give(back, now, not ended)
        if lane.line.entries:
            lane.line.nudge()

    def _amounts(
        self, answer: object, tokens: float | None, amounts: dict[str, float]
    ) -> dict[str, float]:
        used = amounts if answer is None else {**self._read(answer), **amounts}
        if tokens is not None:
            used["tokens"] = tokens
        for name, amount in used.items():
            # of an answer's they all are: spare them the message
            if not (amount.__class__ is int and 0 <= amount <= LARGEST):
                amount_of(amount, f"settle({name}=)")
        if not used:
            raise InvalidArgument(
                "settle() needs the answer, its usage, or amounts such as tokens=1200; to keep the reserve call close()"
            )
        return used

    def _read(self, answer: object) -> dict[str, float]:
        if isinstance(answer, (int, float)) and not isinstance(answer, bool):
            return {"tokens": answer}
        usage = read_usage(answer)
        if usage is None:
            raise InvalidArgument(
                f"settle() found no usage in a {type(answer).__name__}; pass the response, its usage, or tokens=...; the reserve is kept"
            )
        return self._billed(usage)

    def _billed(self, usage: Usage, *, counted: bool = False) -> dict[str, float]:
        """Say what a call took, and learn from its bill; unless that is only what was
        counted here.
        """
        estimate = self.estimate
        prompt, output, tokens = usage.prompt_tokens, usage.output_tokens, usage.total_tokens
        if estimate is not None:
            lane = self._lane
            if not counted:
                lane.estimator.learn(
                    estimate,
                    prompt_tokens=prompt,
                    output_tokens=output,
                    response_id=usage.response_id,
                    reasoning_tokens=usage.reasoning_tokens,
                )
            # a Response is settled to its usage: 80 of 80 recorded ones
            if estimate.endpoint != "responses":
                if self.grant:
                    lane.steering.billed(tokens - estimate.charge)
                tokens = lane.price(prompt, output, estimate.charge)[0]
        return {"tokens": tokens, "input_tokens": prompt, "output_tokens": output}

    def close(self) -> None:
        """End the call and keep the reserve: nothing is known of what it used."""
        if not self._ended:
            self._book({})

    def lose(self) -> None:
        """Keep the reserve of an HTTP attempt that failed: the call's answer, if any,
        belongs to another, with its own lease.
        """
        self._lost = True
        self.close()

    def cancel(self) -> None:
        """Give everything back: nothing was sent."""
        self._book(dict.fromkeys(self.cost, 0))

    def fail(self, error: BaseException) -> None:
        """Settle by an exception: nothing was sent - give back all; a 429 - as `refuse`
        says; anything else - keep the reserve.

        A call that has ended before stays as it is: the error is of something after it,
        or was heard of already, by its headers.
        """
        if self._ended:
            return
        self._lost = self._claimed
        outcome = read_exception(error)
        if outcome.kind == "nothing_sent":
            self.cancel()
        elif outcome.refusal is not None:
            self.refuse(outcome.refusal)
        else:
            self.close()

    def refuse(self, refusal: Refusal) -> None:
        """Hear that the server refused this call: count it, close the line until the
        named moment, believe what it says of its level.

        The reserve is not simply given back: the refusal proves that our level was too
        high, and a refund would bring the next one (simulated: 59 of 300 calls lost
        with the refund, 1 without). When the refusal names what was used, the level is
        set from that instead.
        """
        self._lost = self._claimed
        lane = self._lane
        lane.refused += not refusal.overloaded  # a server without capacity refuses no limit
        lane.steering.refused(refusal, self.sent_at)
        limit, used = refusal.limit, refusal.used
        if limit is not None and used is not None and refusal.kind in self.cost:
            self._book({name: 0 for name in self.cost if name != "requests"})
            lane.leaves(refusal.kind, refusal.period, limit - used)
        else:
            self.close()

    def observe(
        self, headers: Mapping[str, str], *, status: int = 200, body: object = None
    ) -> None:
        """Hear the answer's headers as soon as they are there: limits, levels, and with
        a status of 429 or the like a refusal.
        """
        lane = self._lane
        if not lane.store.marking:
            lane.steering.listen()
        refusal = read_refusal(status, headers, body)
        if refusal is not None:
            self.refuse(refusal)
            return
        now = lane.now()
        if not self._headers_seen:
            self.arrived(now)
            lane.read_at = now
            lane.steering.heard(self, read_headers(headers), now)

    def arrived(self, now: float) -> None:
        """Hear that the answer's headers came at ``now``, in seconds of the limiter's
        clock, without reading them.
        """
        if not self._headers_seen:
            self._headers_seen = True
            lane = self._lane
            if lane.slack.observe(now - self.sent_at):
                lane.store.expect(lane.slack.seconds)

    def text(self, text: str) -> None:
        """Settle by the text that passed when a stream ended without usage: prompt as
        estimated, output as counted.
        """
        if self.estimate is None or self._ended:
            self.close()
            return
        try:
            output = self._lane.estimator.count_text(text, self.estimate.model)
        except Exception as error:  # noqa: BLE001  # the stream is the user's: it must not end in a failure of ours
            self.close()
            caution(
                f"could not count what a stream has answered ({error!r}); its reserve is kept",
                EstimateWarning,
            )
            return
        self.settle(
            **self._billed(
                Usage(self.estimate.prompt_tokens, output, self.estimate.prompt_tokens + output),
                counted=True,
            )
        )
