"""FakeOpenAI: an OpenAI API that enforces its limits, as an ASGI app and over HTTP.

Owns the arguments, and hands each request to a session. Must never hold arithmetic
(that is `buckets`, `charges` and `admission`), shapes of answers (`replies`,
`refusals`, `headers`), or anything of the limiter, which this server is there to judge.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

from ratelimit.testing import settings
from ratelimit.testing.answers import Answers, Latency
from ratelimit.testing.contents import ToolUse
from ratelimit.testing.faults import Fault, FaultKind, Faults, Unit
from ratelimit.testing.inprocess import InProcess
from ratelimit.testing.ledger import Ledger
from ratelimit.testing.prompts import PromptCounter
from ratelimit.testing.quotas import Quota, Quotas
from ratelimit.testing.requests import find_deployment, read_call
from ratelimit.testing.session import Connections, Session
from ratelimit.testing.settings import Setup
from ratelimit.testing.state import ServerState
from ratelimit.testing.variants import CacheReads, NamedWait, Style, Tenant

__all__ = ["FakeOpenAI"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class FakeOpenAI:
    """An OpenAI API with limits that are really enforced.

    All time is the running loop's, so a virtual loop makes the server virtual. One
    server belongs to one event loop; when that is closed and another one calls, it
    starts afresh with full buckets and keeps its ledger.

    :param variant: which server it is, see `ratelimit.testing.variants.rules_of`. "P"
        behaves like OpenAI today, "nginx" lets a rate of requests through, and names
        combine ("F+P", "H+L").
    :param rpm: requests a minute, as `tpm` tokens, `ipm` images; `rpd` and `tpd` by the
        day, `rps` by the second; None switches one off. They hold for all models
        together but those that `models` names.
    :param models: limits of single families, {"gpt-4o*": {"rpm": 500, "tpm": 30_000}};
        each entry has buckets of its own.
    :param projects: further limits by `OpenAI-Project`.
    :param keys: accepted API keys and the organisation of each; None accepts every key
        as one organisation.
    :param deployments: the names that calls may give as their model, as Azure's
        deployments are, each with a model; any other one is answered by a 404. None
        takes every model.
    :param latency: a `Latency`, or seconds that every answer takes.
    :param output: median tokens of an answer, bounded by what the body allows;
        `output_spread` is the standard deviation of their logarithm.
    :param count_prompt: counts the tokens of a prompt, `(endpoint, body)`, in place of
        tiktoken. The header `x-fake-usage` sets the usage of one call.
    :param tool_calls: when offered tools are called: "asked" where `tool_choice` asks
        for it or the user's last message names the tool, "always", or "never".
    :param level: how full the buckets start, 0 to 1, or by unit ({"tokens": 0.5}).
    :param headers_at: whether headers show the state after admission or, where the
        answer is not streamed, after settlement.
    :param refusals_cost_requests: whether a refused call takes one request.
    :param seed: of everything random.
    :param faults: failures from the start, see `inject`.
    :param neighbour: F, the largest share another tenant takes; `tenant` says how:
        "drawn" (a share drawn anew about every ten seconds) or "minutes" (every
        minute), "gulps" (always this share), each in one gulp a second; or "steady".
    :param limit_changes: G, pairs of seconds after the first call and factor on the
        configured limits; with `hidden_changes` headers keep showing the old limits.
    :param ramp_from: J, tokens a minute from which growth is watched.
    :param max_in_flight: K, most calls at the same time.
    :param header_faults: L, out of missing, -1, stale, project-only, 0s.
    :param header_style: openai, azure, groq, mistral, litellm; nginx, plain, qwen or
        bedrock, which show none; or slowapi, flask, ietf, ietf-7, ietf-6, which show
        windows of requests.
    :param request_window: E, seconds in which requests are counted.
    :param burst: nginx, requests that may come at once; None for those of one second.
    :param window: clock and fixed, seconds of a window; None for a minute or second.
    :param retry_after: nginx, R, clock and fixed: the seconds that a 429 names, "wait"
        for the true wait, None for no header.
    :param hidden: S, limits that no header shows, such as ["rpm"].
    :param cache_reads: N, whether prompt tokens in the cache are "counted", "free", or
        "refunded" when the call ends.
    :param output_weight: O, tokens that one token of the answer counts as in the end.
    :param queue: R, seconds that a call waits in the server before it is refused.
    :param pieces: events of a stream's text.

    Raises InvalidArgument for a value that cannot be used.
    """

    def __init__(
        self,
        variant: str | Iterable[str] = "P",
        *,
        rpm: float | None = 500,
        tpm: float | None = 30_000,
        rpd: float | None = None,
        tpd: float | None = None,
        rps: float | None = None,
        ipm: float | None = None,
        models: Mapping[str, Quota] | None = None,
        projects: Mapping[str, Quota] | None = None,
        keys: Mapping[str, str] | None = None,
        deployments: Mapping[str, str] | None = None,
        latency: Latency | float | None = None,
        output: float = 150,
        output_spread: float = 0.6,
        count_prompt: PromptCounter | None = None,
        tool_calls: ToolUse = "asked",
        level: float | Mapping[str, float] = 1.0,
        headers_at: Literal["admission", "settle"] = "admission",
        refusals_cost_requests: bool = False,
        seed: int = 0,
        faults: Sequence[Fault] = (),
        neighbour: float | None = None,
        limit_changes: Sequence[tuple[float, float]] | None = None,
        hidden_changes: bool = False,
        ramp_from: float = 1_000_000,
        max_in_flight: int | None = None,
        header_faults: Sequence[str] | None = None,
        header_style: Style | None = None,
        request_window: float = 10.0,
        burst: float | None = None,
        retry_after: NamedWait | Literal["variant"] = "variant",
        tenant: Tenant | None = None,
        hidden: Sequence[str] | None = None,
        cache_reads: CacheReads | None = None,
        output_weight: float | None = None,
        queue: float | None = None,
        window: float | None = None,
        pieces: int = 8,
    ) -> None:
        rules = settings.rules(
            variant,
            retry_after=retry_after,
            style=header_style,
            neighbour=neighbour,
            tenant=tenant,
            changes=limit_changes,
            in_flight=max_in_flight,
            header_faults=header_faults,
            hidden=hidden,
            cache_reads=cache_reads,
            output_weight=output_weight,
            queue=queue,
        )
        limits = {"rpd": rpd, "rpm": rpm, "rps": rps, "tpd": tpd, "tpm": tpm, "ipm": ipm}
        levels = level
        if not isinstance(levels, Mapping):
            levels = dict.fromkeys(("requests", "tokens", "images"), levels)

        self.ledger = Ledger()
        self._setup = Setup(
            rules=rules,
            quotas=Quotas(
                limits,
                models,
                projects,
                rules=rules,
                request_window=request_window,
                burst=None if burst is None else settings.at_least_one(burst, "burst"),
                window=None if window is None else settings.above_zero(window, "window"),
            ),
            answers=Answers(
                output=output,
                spread=output_spread,
                counter=count_prompt,
                seed=seed,
                tool_use=settings.tool_use(tool_calls),
            ),
            latency=settings.latency_of(latency),
            level={
                unit: settings.share(share, f"level of {unit}") for unit, share in levels.items()
            },
            headers_at=headers_at,
            refusals_cost_requests=refusals_cost_requests,
            hidden_changes=hidden_changes,
            ramp_from=ramp_from,
            pieces=settings.whole(pieces, "pieces"),
            seed=seed,
        )
        self._keys = keys
        self._deployments = deployments
        self._faults = Faults(tuple(faults), seed)
        self._state: ServerState | None = None
        self._connections: Connections = {}

    def __repr__(self) -> str:
        return f"<FakeOpenAI: {self._setup.rules}, {self.ledger!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] != "http":
            await send(
                {"type": "websocket.close", "code": 1000, "reason": "this server speaks HTTP only"}
            )
        else:
            state = self._state_here()
            raw = await _body(receive)
            call = read_call(scope["method"], scope["path"], scope["headers"], raw, self._keys)
            find_deployment(call, self._deployments)
            call.query = scope.get("query_string", b"").decode("latin-1")
            session = Session(
                self._setup,
                state,
                call,
                receive,
                send,
                connection=self._connections.get(scope.get("client")),
            )
            await session.run(self._faults)

    def serve(self, *, host: str = "127.0.0.1", port: int = 0) -> AbstractContextManager[str]:
        """Serve real HTTP from a thread of its own, `with server.serve() as base_url:`.

        Once the block is entered, no call has to wait for a vocabulary to be loaded.
        When it is left, calls in flight are cut off and the thread has ended. Needs the
        extra `testing`.

        :param port: 0 takes a free one.
        """
        from ratelimit.testing.loopback import serving  # noqa: PLC0415  # uvicorn is an extra

        return serving(self, self._connections, host, port, self._setup.answers.prepare)

    def transport(self) -> InProcess:
        """Return a transport for `httpx2.AsyncClient`: this server in process.

        It runs on asyncio only, and its streams stream:

            http = httpx2.AsyncClient(transport=server.transport())
            AsyncOpenAI(base_url="http://fake/v1", api_key="any", http_client=http)
        """
        return InProcess(self)

    def inject(
        self,
        kind: FaultKind,
        *,
        count: int | None = None,
        probability: float = 1.0,
        seconds: float = 0.0,
        endpoint: str = "",
        model: str = "",
        value: float | None = None,
        unit: Unit = "",
        code: int = 429,
    ) -> None:
        """Let the next `count` requests fail, or each with `probability`.

        See `ratelimit.testing.faults.Fault` for the kinds and what the rest means.
        """
        self._faults.add(
            Fault(
                kind,
                count=count,
                probability=probability,
                seconds=seconds,
                endpoint=endpoint,
                model=model,
                value=value,
                unit=unit,
                code=code,
            )
        )

    def heal(self) -> None:
        """Take back every fault that is still in force."""
        self._faults.clear()

    def levels(self) -> dict[str, float]:
        """Return what every bucket has left now, by names like "org-fake/tpm".

        Empty before the first call. Any thread may call this. Once the server's event
        loop is closed, time stands still, and the levels last returned are returned
        again.
        """
        return self._state.levels() if self._state else {}

    def _state_here(self) -> ServerState:
        loop, state = asyncio.get_running_loop(), self._state
        if state is None or (state.loop is not loop and state.loop.is_closed()):
            state = self._state = ServerState(self._setup, self.ledger)

        if state.loop is not loop:
            raise RuntimeError(
                "this FakeOpenAI serves another event loop; share it between loops and threads by "
                "serve()"
            )

        return state


async def _body(receive: Receive) -> bytes:
    """Return the whole request body."""
    message = await receive()
    if not message.get("more_body"):
        return bytes(message.get("body", b""))

    chunks = [message.get("body", b"")]
    while message.get("more_body"):
        message = await receive()
        chunks.append(message.get("body", b""))

    return b"".join(chunks)


async def _live(receive: Receive, send: Send) -> None:
    """Answer the lifespan protocol; nothing has to be started or stopped."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
