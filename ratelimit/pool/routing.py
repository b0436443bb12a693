"""The way of one HTTP attempt through a pool, written once.

Owns the order of events: admit, send, judge, and go on to another member while nothing
of an answer has arrived. Must never wait, send or import an HTTP library: it yields
what has to be done outside and is sent the answer. `transport.py` has one driver for
async code and one for threads.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ratelimit.errors import LimiterError, WaitTimeout
from ratelimit.events.records import Routed, name_of
from ratelimit.lease import enclosing_lease
from ratelimit.pool.core import Core
from ratelimit.pool.leases import AdmittedMemberLease, standing_of
from ratelimit.pool.members.member import Member
from ratelimit.pool.members.quotas import SharedQuotas
from ratelimit.pool.members.standing import Standing
from ratelimit.pool.members.state import IdMeter
from ratelimit.pool.members.verdict import Verdict, has_to_be_read, of_answer, of_error
from ratelimit.pool.requests import PoolCall
from ratelimit.pool.reservation import PoolCallReservation

MEMBER_HEADER: Final = "x-ratelimit-member"
MODEL_HEADER: Final = "x-ratelimit-model"
"""Headers of an answer: the member that gave it, and its name for the model."""


@dataclass(frozen=True, slots=True)
class Admit:
    """Wait for a member; the answer is its lease."""

    reservation: PoolCallReservation


@dataclass(frozen=True, slots=True)
class Send:
    """Send the call to a member; the answer is the response, with its body unread.

    :param lease: what admits it; None: it costs nothing, or the member's own transport
        admits it.
    """

    standing: Standing
    model: str
    body: Mapping[str, Any] | None
    lease: AdmittedMemberLease | None


@dataclass(frozen=True, slots=True)
class Read:
    """Read a response's body and return it; the response is closed."""

    response: Any


@dataclass(frozen=True, slots=True)
class Drop:
    """Close a response that is not handed on."""

    response: Any


Command = Admit | Send | Read | Drop


@dataclass(frozen=True, slots=True)
class Answered:
    """How an attempt ended: the response to hand on."""

    response: Any
    standing: Standing
    model: str
    body: bytes | None
    """Where it was read."""
    meter: IdMeter | None
    """What reads its ids while it passes."""


class Route:
    """One attempt of the pool's client.

    :param timeout: seconds that it waits for a member at most.
    """

    def __init__(
        self,
        core: Core,
        quotas: SharedQuotas,
        call: PoolCall,
        timeout: float | None,
        patience: float,
    ) -> None:
        self._core = core
        self._quotas = quotas
        self._call = call
        self._timeout = timeout
        self._patience = patience
        self._arrival = core.clock.now()
        self._excluded: set[str] = set()
        self._failed: tuple[Answered | None, Exception | None] = (None, None)

    def go(self) -> Generator[Command, Any, Answered]:
        """Go from member to member until one answers, or no move is left."""
        moves = self._core.moves
        lease = self._lease_around()
        while True:
            try:
                send = yield from self._next(lease)
            except WaitTimeout as error:
                return self._given_up(error)
            lease = None
            standing, now = send.standing, self._core.clock.now()
            verdict, answered, failure = yield from self._attempt(send)
            self._note(send, verdict, now)
            if verdict.excludes:
                self._excluded.add(standing.member.name)
            if not verdict.moves or moves <= 0 or not self._can_move(send, verdict):
                if answered is None:
                    assert failure is not None  # noqa: S101  # one of both came
                    raise failure
                return answered
            moves -= 1
            self._core.moved += 1
            if answered is not None and answered.body is None:
                yield Drop(answered.response)
                answered = None
            self._failed = answered, failure

    def _note(self, send: Send, verdict: Verdict, sent_at: float) -> None:
        """Take note of what an attempt has shown of its member."""
        if send.lease is None:
            send.standing.end(send.model, verdict, sent_at, self._core.clock.now())
            return
        send.lease.note(verdict)
        reports = send.lease.family.reports
        if reports.wants(Routed):
            reports.put(
                Routed,
                model=send.model,
                member=name_of(send.standing.member.name),
                asked=name_of(self._call.model),
                moves=verdict.moves,
            )

    def _lease_around(self) -> AdmittedMemberLease | None:
        """Return the lease of this pool around the call, if it has one to use."""
        lease, call = enclosing_lease(), self._call
        if (
            isinstance(lease, AdmittedMemberLease)
            and standing_of(lease) in self._core.standings
            and not lease.claimed
            and call.metered is not None
            and call.metered.fits(lease.estimate)
            and lease.member.serves(call.model) is not None
        ):
            return lease
        return None

    def _next(self, lease: AdmittedMemberLease | None) -> Generator[Command, Any, Send]:
        """Find the member that is asked next."""
        call = self._call
        if lease is not None:
            own = lease.member.serves(call.model) or ""
            return Send(standing_of(lease), own, self._body(lease.member, own), lease)
        if call.is_admitted:
            reservation = PoolCallReservation(
                self._core,
                call,
                explicit_cost={"requests": 1.0} if call.costs_a_request else None,
                timeout=self._timeout,
                patience=self._patience,
                endpoint=None if call.metered is None else call.metered.endpoint,
                arrival=self._arrival,
                excluded=self._excluded,
                is_attempt=True,
            )
            found: AdmittedMemberLease = yield Admit(reservation)
            body = None if call.body is None else found.request
            return Send(standing_of(found), found.own_model, body, found)
        standing, own = self._free()
        standing.begin(own, self._core.clock.now())
        return Send(standing, own, self._body(standing.member, own), None)

    def _body(self, member: Member, own: str) -> Mapping[str, Any] | None:
        return None if self._call.body is None else self._call.body_for(member, own)

    def _free(self) -> tuple[Standing, str]:
        """Return the member for a call that costs nothing: it waits for no limit."""
        now = self._core.clock.now()
        serving = self._core.serving(self._call, self._excluded)
        return min(
            serving,
            key=lambda one: (
                max(one[0].opens(one[1], now), now),
                one[0].member.prefer,
                one[0].member.after,
            ),
        )

    def _attempt(
        self, send: Send
    ) -> Generator[Command, Any, tuple[Verdict, Answered | None, Exception | None]]:
        """Send; return what follows, and the answer or the exception."""
        standing, call = send.standing, self._call
        try:
            response = yield send
        except LimiterError:
            raise
        except Exception as error:  # noqa: BLE001  # it is raised again where no other member is asked
            return of_error(error), None, error
        except BaseException as error:
            self._note(send, of_error(error), self._core.clock.now())
            raise
        finally:
            if send.lease is not None and send.lease.claim():  # no attempt has used it
                send.lease.cancel()
        body: bytes | None = None
        status: int = response.status_code
        if status >= 400 and has_to_be_read(status):
            body = yield Read(response)
        host = response.url.host
        has_state = bool(call.names)
        verdict = of_answer(status, response.headers, body or b"", host, has_state=has_state)
        meter = None
        if status < 400:
            self._quotas.look(standing.member, response.headers)
            for name in call.names:
                self._core.stored.keep(name, standing.member.name)
            if call.stores:
                coding = response.headers.get("content-encoding", "")
                meter = IdMeter(self._core.stored, standing.member.name, coding)
        return verdict, Answered(response, standing, send.model, body, meter), None

    def _can_move(self, send: Send, verdict: Verdict) -> bool:
        """Return whether another member may be asked."""
        try:
            serving = self._core.serving(self._call, self._excluded)
        except LimiterError:
            return False
        rest = [one for one in serving if one[0] is not send.standing]
        if verdict.fault is not None and not verdict.fault.is_outage:
            # Members that are parked for what waiting does not mend are not waited for.
            return any(not standing.is_out(own) for standing, own in rest)
        return bool(rest)

    def _given_up(self, error: WaitTimeout) -> Answered:
        """Hand on what the last member said where no other one can be waited for."""
        answered, failure = self._failed
        if answered is not None:
            return answered
        raise failure or error


def response_of(request: Any, answered: Answered, stream: Any) -> Any:
    """Return the response for the pool's client, of the library of its request.

    :param stream: the body that passes, where it was not read.
    """
    library = sys.modules[type(request).__module__.partition(".")[0]]
    inner = answered.response
    headers = [
        (name, value)
        for name, value in inner.headers.raw
        if answered.body is None
        or name.lower() not in {b"content-encoding", b"content-length", b"transfer-encoding"}
    ]
    headers += [
        (MEMBER_HEADER.encode(), answered.standing.member.name.encode()),
        (MODEL_HEADER.encode(), answered.model.encode("ascii", "replace")),
    ]
    body = {"stream": stream} if answered.body is None else {"content": answered.body}
    return library.Response(inner.status_code, headers=headers, extensions=inner.extensions, **body)
