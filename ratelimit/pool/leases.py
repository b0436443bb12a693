"""The lease of a call that a pool has admitted: it names the member and the body.

Owns what users of `Pool.reserve` and the decorator see of a member, and that the end of
such a call is noted with the member. Must never choose a member.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ratelimit.control.family import ModelFamily
from ratelimit.estimate import Estimate
from ratelimit.estimate.models import traits_of
from ratelimit.feedback import Outcome, read_exception
from ratelimit.lease import AdmittedLease, Lease
from ratelimit.pool.members.member import Member, engine_of
from ratelimit.pool.members.standing import Standing
from ratelimit.pool.members.verdict import ANSWERED, UNKNOWN, Verdict, of_exception
from ratelimit.reservation import CallReservation
from ratelimit.stores.payments import Payment


class MemberLease(Lease):
    """A lease of a pool: where the call goes, and the body for it."""

    __slots__ = ("_model", "_seen", "_standing", "request")

    request: Mapping[str, Any]
    """The body as the member's client is to send it."""
    _model: str
    _standing: Standing | None
    _seen: bool

    @property
    def member(self) -> Member:
        """The member of the pool that the call goes to; send with its ``client``."""
        return standing_of(self).member


class AdmittedMemberLease(AdmittedLease, MemberLease):
    """A pool's lease, and what the pool does with it besides."""

    __slots__ = ()

    def goes_to(self, standing: Standing, model: str) -> None:
        """Begin the attempt: from now on its end is noted, once.

        :param model: the member's name for the model.
        """
        self._standing, self._model, self._seen = standing, model, False
        standing.begin(model, self._payment.admitted_at)

    @property
    def own_model(self) -> str:
        """The member's name for the model."""
        return self._model

    def note(self, verdict: Verdict) -> None:
        """Take note of what the attempt has shown of the member, once."""
        if self._seen or self._standing is None:
            return
        self._seen = True
        now = self._family.admission.now()
        self._standing.end(self._model, verdict, self._payment.admitted_at, now)

    def _end(self, used: dict[str, float]) -> None:
        super()._end(used)
        if not self.claimed:  # the transport notes what its answer says
            self.note(ANSWERED if any(used.values()) else UNKNOWN)

    def _fail(
        self,
        error: BaseException,
        *,
        begun: bool,
        read: Callable[[BaseException], Outcome] = read_exception,
    ) -> None:
        if not self._over and not self.claimed:
            self.note(of_exception(error))
        super()._fail(error, begun=begun, read=read)


def standing_of(lease: MemberLease) -> Standing:
    """Return what the pool knows of the member that a call goes to."""
    standing = lease._standing  # noqa: SLF001  # of this file
    assert standing is not None  # noqa: S101  # `goes_to` comes first
    return standing


class MemberReservation(CallReservation):
    """A call as one member's limiter admits it.

    :param model: the member's name for the model.
    :param asked: the name that was asked for.
    :param request: the body that tells what it costs.
    :param sent: the body for this member.
    """

    def __init__(
        self,
        member: Member,
        model: str,
        asked: str,
        request: Mapping[str, Any],
        sent: Mapping[str, Any],
        *,
        explicit_cost: Mapping[str, float] | None,
        endpoint: str | None,
        site: str,
    ) -> None:
        # An Azure deployment may have any name: what it costs is what the model costs
        # that was asked for.
        unknown = model != asked and not traits_of(model).openai and traits_of(asked).openai
        super().__init__(
            engine_of(member),
            {**request, "model": asked} if unknown and "model" in request else request,
            explicit_cost=explicit_cost,
            endpoint=endpoint,
            site=site,
        )
        self._model = model
        self._sent = sent

    @property
    def family(self) -> ModelFamily:
        """The family that the member's limiter has the model in."""
        return self._engine.only or self._engine.family(self._model)

    def _model_of(self, estimate: Estimate) -> str:
        return self._model or estimate.model

    def _make_lease(
        self, family: ModelFamily, payment: Payment, estimate: Estimate | None
    ) -> AdmittedLease:
        lease = AdmittedMemberLease(family, payment, estimate)
        lease._standing, lease._model, lease._seen = None, self._model, True  # noqa: SLF001  # of this file
        lease.request = self._sent
        return lease
