"""What the doors of this package do with a lease, and which lease is the current one.

Owns the context in which a function runs between admission and settlement, so that a
call inside a call is recognised. Must never wait or read an answer.
"""

from __future__ import annotations

import weakref
from contextvars import ContextVar, Token
from functools import partial
from typing import Final

from ratelimit.control.family import ModelFamily
from ratelimit.errors import EstimateWarning, caution
from ratelimit.estimate import Estimate, Estimator
from ratelimit.feedback import Refusal, Usage, read_exception_of_block
from ratelimit.lease.counted import mark
from ratelimit.lease.lease import Lease
from ratelimit.stores.payments import Payment

CURRENT: Final[ContextVar[weakref.ref[AdmittedLease] | None]] = ContextVar(
    "ratelimit_lease", default=None
)
"""The lease of the call that this code runs in.

The code holds it. A context that held it as well would keep a call in flight for good
which Ctrl-C ended before its context was left.
"""


class AdmittedLease(Lease):
    """A lease, and what the doors of this package do with it besides."""

    __slots__ = ()

    @property
    def around(self) -> AdmittedLease | None:
        """The lease that was the current one when this one became it."""
        around: AdmittedLease | None = None if self._notes is None else self._notes.around
        return around

    @around.setter
    def around(self, lease: AdmittedLease | None) -> None:
        if lease is not None or self._notes is not None:
            self._noted.around = lease

    @property
    def family(self) -> ModelFamily:
        """The family of models that admitted the call."""
        return self._family

    @property
    def estimate(self) -> Estimate | None:
        """What the call was expected to cost; None where the cost was given by hand."""
        return self._estimate

    @property
    def waited(self) -> float:
        """For how many seconds the call has waited for its turn."""
        return super().waited

    @waited.setter
    def waited(self, seconds: float) -> None:
        if seconds:
            self._noted.waited = seconds

    @property
    def model(self) -> str:
        """The model that was asked for; "" where the cost was given by hand."""
        return "" if self._estimate is None else self._estimate.model

    @property
    def operation(self) -> str:
        """The endpoint that was asked; "" where the cost was given by hand."""
        return "" if self._estimate is None else self._estimate.endpoint

    @property
    def payment(self) -> Payment:
        """What the call has paid."""
        return self._payment

    @property
    def ended(self) -> bool:
        """Whether the call is over."""
        return self._over

    def shares(self, family: ModelFamily) -> bool:
        """Return whether a call of this family, made inside it, may use its slot."""
        return self._family is family and self._store is family.admission.store

    def belongs_to(self, estimator: Estimator) -> bool:
        """Return whether the limiter of this estimator has admitted the call."""
        return self._family.estimator is estimator

    def deliver(self) -> AdmittedLease:
        """Return the lease once it is paid: from now on its call may have been sent."""
        if self._payment.evidence is not None:
            self._noted.record = self._family.controller.on_admission(self._record)
        self._payment.delivered = True
        return self

    @property
    def claimed(self) -> bool:
        """Whether an HTTP attempt was sent with this admission."""
        return self._notes is not None and self._notes.claimed

    def claim(self) -> bool:
        """Use the admission for one HTTP attempt.

        True the first time only: a retry has to be admitted by itself.
        """
        attempt = self._noted
        if attempt.claimed or self._over:
            return False
        attempt.claimed = True
        return True

    def abandon(self) -> None:
        """Keep the reserve of an HTTP attempt that failed.

        The call's answer, if any, belongs to another attempt with its own lease.
        """
        self._noted.abandoned = True
        self.close()

    def break_off(self, error: BaseException) -> None:
        """End the call by an exception that came after its answer began.

        As `fail` does, but that something was sent is known.
        """
        self._fail(error, begun=True)

    def leave(self, error: BaseException, handled: BaseException | None) -> None:
        """End a call by the exception that has left its block.

        :param handled: what was being handled when the block was entered.
        """
        read = partial(read_exception_of_block, handled=handled)
        self._fail(error, begun=self._has_headers, read=read)

    def redirect(self) -> None:
        """End an HTTP attempt that was answered by a redirect, which costs nothing.

        The request that follows it uses the admission of the decorator around both.
        """
        attempt = self._noted
        if attempt.claimed:
            attempt.claimed = False
        else:
            self.cancel()

    def refuse(self, refusal: Refusal, response: object = None) -> Refusal:
        """End the call by a refusal, pause the queue, and return it as judged.

        The reserve is not simply given back. The refusal proves that our level was too
        high, and a refund would bring the next refusal (simulated: 59 of 300 calls lost
        with the refund, 1 without). When the refusal names what was used, the level is
        set from that instead.

        :param response: what brought it: the error that an SDK makes of it, at a door
            further out, is the same refusal.
        """
        if response is not None:
            mark(response, self._family.estimator, self._family.admission.now())
        return self._refuse(refusal)

    def answered(self) -> None:
        """End a call that was answered without usage; its reserve stays."""
        self._note_answer()
        self.close()

    def headers_arrived(self) -> None:
        """Take the time at which an answer's headers came, without reading them."""
        if self._noted.headers_at is None:
            self._time_headers()

    def settle_by_text(self, text: str) -> None:
        """End a stream without usage by the text that passed.

        The prompt counts as estimated, the output as counted; nothing is learned.
        """
        estimate = self._estimate
        if estimate is None or self._over:
            self.close()
            return
        try:
            output = self._family.estimator.count_text(text, estimate.model)
        except Exception as error:  # noqa: BLE001  # the user's stream must not end in our failure
            self.close()
            caution(
                f"could not count what a stream has answered ({type(error).__name__}); its reserve "
                "is kept",
                EstimateWarning,
            )
            return
        prompt = estimate.prompt_tokens
        self.settle(**self._taken(Usage(prompt, output, prompt + output)))

    def current(self) -> Current:
        """Make this the `current_lease` while the returned manager is entered."""
        return Current(self)


class Current:
    """While entered, `current_lease` is this lease."""

    __slots__ = ("_lease", "_token")

    def __init__(self, lease: AdmittedLease) -> None:
        self._lease = lease
        self._token: Token[weakref.ref[AdmittedLease] | None] | None = None

    def __enter__(self) -> AdmittedLease:
        around = _in_flight(_current())
        if around is not None and around is not self._lease:  # entered once more
            self._lease.around = around
        self._token = CURRENT.set(weakref.ref(self._lease))
        return self._lease

    def __exit__(self, *_: object) -> None:
        token, self._token = self._token, None
        if token is None:
            return
        try:
            CURRENT.reset(token)
        except ValueError:  # left in another context, as a generator closed by its event loop
            CURRENT.set(None)


def current_lease() -> Lease | None:
    """Return the lease of the decorator or context manager around this code, if any.

    Settle it where the function itself returns no usage:
    ``ratelimit.current_lease().settle(response)``.
    """
    return _current()


def _current() -> AdmittedLease | None:
    current = CURRENT.get()
    return None if current is None else current()


def enclosing_lease() -> AdmittedLease | None:
    """Return the lease around this code, as long as its call is in flight."""
    lease = _current()
    return lease if lease is not None and not lease.ended else None


def payment_around(family: ModelFamily) -> Payment | None:
    """Return the innermost call around this code that has a slot of this family."""
    lease = _in_flight(_current())
    while lease is not None and not lease.shares(family):
        lease.around = _in_flight(lease.around)
        lease = lease.around
    return None if lease is None else lease.payment


def _in_flight(lease: AdmittedLease | None) -> AdmittedLease | None:
    """Return this lease or the innermost around it with a call in flight."""
    while lease is not None and lease.ended:
        lease = lease.around
    return lease
