"""The transports of a pool's clients: they carry out what `routing.py` yields.

Owns the two, for threads and for tasks, which only translate. Any HTTP client of
httpx's or httpx2's shape is used by its names. Must never choose a member or judge an
answer.
"""

from __future__ import annotations

from contextlib import nullcontext
from types import TracebackType
from typing import Any, Self

from ratelimit.errors import LimiterError
from ratelimit.integrations.bodies import AsyncMeteredBody, MeteredBody
from ratelimit.integrations.transport import as_sdk_error
from ratelimit.pool.core import Core
from ratelimit.pool.members.quotas import SharedQuotas
from ratelimit.pool.requests import options_for, read_request, with_content
from ratelimit.pool.routing import Admit, Answered, Read, Route, Send, response_of


class _Routes:
    """What the transports of one pool share.

    :param timeout: seconds that one attempt may wait at most.
    :param patience: seconds by which later attempts of less patience may overtake.
    """

    def __init__(
        self, core: Core, quotas: SharedQuotas, timeout: float | None, patience: float
    ) -> None:
        self._core = core
        self._quotas = quotas
        self._timeout = timeout
        self._patience = patience

    def _route(self, request: Any) -> tuple[Route, Any]:
        call = read_request(request)
        return Route(self._core, self._quotas, call, self._timeout, self._patience), call


class PoolTransport(_Routes):
    """The transport of a pool's sync client."""

    def handle_request(self, request: Any) -> Any:
        """Send the request to the members that its route goes to."""
        request.read()
        try:
            answered = self._drive(*self._route(request))
        except LimiterError as error:
            raise as_sdk_error(error)  # noqa: B904  # it is the same error
        stream = answered.response.stream
        if answered.meter is not None:
            stream = MeteredBody(stream, answered.meter)
        return response_of(request, answered, stream)

    def _drive(self, route: Route, call: Any) -> Answered:
        steps = route.go()
        answer: Any = None
        error: BaseException | None = None
        try:
            while True:
                command = steps.send(answer) if error is None else steps.throw(error)
                answer, error = None, None
                try:
                    if isinstance(command, Admit):
                        answer = command.reservation.admit()
                    elif isinstance(command, Send):
                        answer = _send(command, call)
                    elif isinstance(command, Read):
                        answer = command.response.read()
                    else:
                        command.response.close()
                except BaseException as raised:  # noqa: BLE001  # the route decides
                    error = raised
        except StopIteration as end:
            found: Answered = end.value
            return found
        finally:
            steps.close()

    def close(self) -> None:
        """Close nothing: the members' clients are the user's."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


class AsyncPoolTransport(_Routes):
    """The transport of a pool's async client."""

    async def handle_async_request(self, request: Any) -> Any:
        """Send the request to the members that its route goes to."""
        await request.aread()
        try:
            answered = await self._drive(*self._route(request))
        except LimiterError as error:
            raise as_sdk_error(error)  # noqa: B904  # it is the same error
        stream = answered.response.stream
        if answered.meter is not None:
            stream = AsyncMeteredBody(stream, answered.meter)
        return response_of(request, answered, stream)

    async def _drive(self, route: Route, call: Any) -> Answered:
        steps = route.go()
        answer: Any = None
        error: BaseException | None = None
        try:
            while True:
                command = steps.send(answer) if error is None else steps.throw(error)
                answer, error = None, None
                try:
                    if isinstance(command, Admit):
                        answer = await command.reservation.admit_async()
                    elif isinstance(command, Send):
                        answer = await _send_async(command, call)
                    elif isinstance(command, Read):
                        answer = await command.response.aread()
                    else:
                        await command.response.aclose()
                except BaseException as raised:  # noqa: BLE001  # the route decides
                    error = raised
        except StopIteration as end:
            found: Answered = end.value
            return found
        finally:
            steps.close()

    async def aclose(self) -> None:
        """Close nothing: the members' clients are the user's."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


def _send(command: Send, call: Any) -> Any:
    sdk = command.standing.sender
    options = options_for(call, command.standing.member, command.model, command.body)
    options = sdk._prepare_options(options)  # noqa: SLF001  # as the SDK sends
    built = sdk._build_request(options)  # noqa: SLF001
    built = with_content(sdk._client, built, call, command.model)  # noqa: SLF001
    sdk._prepare_request(built)  # noqa: SLF001
    with nullcontext() if command.lease is None else command.lease.current():
        return sdk._client.send(built, stream=True, **_auth(sdk))  # noqa: SLF001


async def _send_async(command: Send, call: Any) -> Any:
    sdk = command.standing.sender
    options = options_for(call, command.standing.member, command.model, command.body)
    options = await sdk._prepare_options(options)  # noqa: SLF001  # as the SDK sends
    built = sdk._build_request(options)  # noqa: SLF001
    built = with_content(sdk._client, built, call, command.model)  # noqa: SLF001
    await sdk._prepare_request(built)  # noqa: SLF001
    with nullcontext() if command.lease is None else command.lease.current():
        return await sdk._client.send(built, stream=True, **_auth(sdk))  # noqa: SLF001


def _auth(sdk: Any) -> dict[str, Any]:
    auth = getattr(sdk, "custom_auth", None)
    return {} if auth is None else {"auth": auth}
