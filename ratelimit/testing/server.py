"""FakeOpenAI: an OpenAI API that enforces its limits, as an ASGI app and over loopback
HTTP.

Owns: the configuration and the life of one request: read, admitted or refused, answered
in its time, settled. What must never come in: arithmetic (that is `buckets`, `charges`,
`gates`), shapes of answers (`replies`, `refusals`, `headers`), and anything of the
limiter, which this server is there to judge.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Literal

from ratelimit.errors import InvalidArgument
from ratelimit.testing.answers import Answers, Latency, PromptCounter
from ratelimit.testing.faults import Fault, FaultKind, Faults
from ratelimit.testing.inprocess import InProcess
from ratelimit.testing.ledger import Ledger
from ratelimit.testing.quotas import Quota, Quotas
from ratelimit.testing.requests import read_call
from ratelimit.testing.session import Connections, Session
from ratelimit.testing.state import Desk, Setup
from ratelimit.testing.variants import HEADER_FAULTS, Style, rules_of

__all__ = ["FakeOpenAI"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class FakeOpenAI:
    """An OpenAI API with limits that are really enforced.

    `variant`: which server it is, see `ratelimit.testing.variants`; "P" behaves like
    OpenAI today, and letters combine ("F+P", "H+L"). `rpm`, `tpm`, `rpd`, `tpd`, `rps`,
    `ipm`: requests, tokens and images per minute, day or second; None switches one off.
    They hold for all models together but those that `models` names ({"gpt-4o*": {"rpm":
    500, "tpm": 30_000}}, each entry one family with buckets of its own). `projects`:
    further limits per `OpenAI-Project`. `keys`: accepted API keys and the organisation
    of each; None accepts every key as one organisation.

    `latency`: a `Latency`, or seconds that every answer takes. `output`,
    `output_spread`: median and logarithmic spread of the answers' tokens, bounded by
    what the body allows; `count_prompt(endpoint, body)` counts prompts in place of
    tiktoken; the header `x-fake-usage` overrides both for one call. `level`: how full
    the buckets start, 0 to 1, or per unit ({"tokens": 0.5}). `headers_at`: whether
    headers tell the state after admission or, where the answer is not streamed, after
    settlement. `refusals_cost_requests`: a refused call takes one request all the same.
    `seed`: of everything random.

    `faults`: failures from the start, see `inject`. The rest belongs to single
    variants: `neighbour` (F: the largest share another tenant takes), `limit_changes`
    (G: pairs of seconds after the first call and factor on the configured limits) and
    `hidden_changes` (headers go on showing the old limits), `ramp_from` (J: tokens a
    minute from which growth is watched), `max_in_flight` (K), `header_faults` (L: out
    of missing, -1, stale, project-only, 0s), `header_style` (openai, azure, groq,
    mistral), `request_window` (E: seconds in which requests are counted), `pieces`
    (events of a stream's text).

    All time is the running loop's, so a virtual loop makes the server virtual. One
    server belongs to one event loop; when that is closed and another one calls, it
    starts afresh with full buckets and keeps its ledger. Raises InvalidArgument for a
    value that cannot be used.
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
        latency: Latency | float | None = None,
        output: float = 150,
        output_spread: float = 0.6,
        count_prompt: PromptCounter | None = None,
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
        pieces: int = 8,
    ) -> None:
        rules = rules_of(variant)
        rules = replace(
            rules,
            style=header_style or rules.style,
            neighbour=rules.neighbour if neighbour is None else _between(neighbour, "neighbour"),
            changes=rules.changes if limit_changes is None else _changes(limit_changes),
            in_flight=rules.in_flight
            if max_in_flight is None
            else _whole(max_in_flight, "max_in_flight"),
            header_faults=rules.header_faults if header_faults is None else _chosen(header_faults),
        )
        limits = {"rpd": rpd, "rpm": rpm, "rps": rps, "tpd": tpd, "tpm": tpm, "ipm": ipm}
        if not isinstance(latency, Latency):
            latency = (
                Latency() if latency is None else Latency(base=latency, per_token=0.0, spread=0.0)
            )
        levels = (
            level
            if isinstance(level, Mapping)
            else dict.fromkeys(("requests", "tokens", "images"), level)
        )
        self.ledger = Ledger()
        self._setup = Setup(
            rules=rules,
            quotas=Quotas(limits, models, projects, rules=rules, request_window=request_window),
            answers=Answers(output=output, spread=output_spread, counter=count_prompt, seed=seed),
            latency=latency,
            level={unit: _between(share, f"level of {unit}") for unit, share in levels.items()},
            headers_at=headers_at,
            refusals_cost_requests=refusals_cost_requests,
            hidden_changes=hidden_changes,
            ramp_from=ramp_from,
            pieces=_whole(pieces, "pieces"),
            seed=seed,
        )
        self._keys = keys
        self._faults = Faults(tuple(faults), seed)
        self._desk: Desk | None = None
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
            desk = self._desk_here()
            raw = await _body(receive)
            call = read_call(scope["method"], scope["path"], scope["headers"], raw, self._keys)
            session = Session(
                self._setup,
                desk,
                call,
                receive,
                send,
                connection=self._connections.get(scope.get("client")),
            )
            await session.run(self._faults)

    def serve(self, *, host: str = "127.0.0.1", port: int = 0) -> AbstractContextManager[str]:
        """Serve real HTTP on loopback from a thread of its own: `with server.serve() as
        base_url: ...`; port 0 takes a free one.

        Needs the extra `testing`. Once entered, no call has to wait for a vocabulary to
        be loaded. On leaving, calls in flight are cut off and the thread has ended.
        """
        from ratelimit.testing.loopback import serving  # noqa: PLC0415 - in process the app needs no web server

        return serving(self, self._connections, host, port, self._setup.answers.prepare)

    def transport(self) -> InProcess:
        """A transport for `httpx2.AsyncClient`: this server in process, asyncio only,
        with streams that stream.

        `AsyncOpenAI(base_url="http://fake/v1", api_key="any",
        http_client=httpx2.AsyncClient(transport=server.transport()))`
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
    ) -> None:
        """Let the next `count` requests fail, or each with `probability`; see
        `ratelimit.testing.faults.Fault` for the kinds.
        """
        self._faults.add(
            Fault(kind, count=count, probability=probability, seconds=seconds, endpoint=endpoint)
        )

    def heal(self) -> None:
        """Take back every fault that is still in force."""
        self._faults.clear()

    def levels(self) -> dict[str, float]:
        """What every bucket has left now, by names like "org-fake/tpm"; empty before
        the first call. Any thread may ask.

        Once the server's event loop is closed, time stands still: the last levels that
        were asked for.
        """
        return self._desk.levels() if self._desk else {}

    def _desk_here(self) -> Desk:
        loop = asyncio.get_running_loop()
        if self._desk is None or (self._desk.loop is not loop and self._desk.loop.is_closed()):
            self._desk = Desk(self._setup, self.ledger)
        if self._desk.loop is not loop:
            raise RuntimeError(
                "this FakeOpenAI serves another event loop; share it between loops and threads by serve()"
            )
        return self._desk


async def _body(receive: Receive) -> bytes:
    """The whole request body."""
    message = await receive()
    if not message.get("more_body"):
        return bytes(message.get("body", b""))
    chunks = [message.get("body", b"")]
    while message.get("more_body"):
        message = await receive()
        chunks.append(message.get("body", b""))
    return b"".join(chunks)


async def _live(receive: Receive, send: Send) -> None:
    """Nothing has to be started or stopped."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _between(value: float, name: str) -> float:
    if not 0 <= value <= 1:
        raise InvalidArgument(f"{name} is {value!r}; it is a share between 0 and 1")
    return value


def _whole(value: int, name: str) -> int:
    if value < 1 or value != int(value):
        raise InvalidArgument(f"{name} is {value!r}; it is a whole number, at least 1")
    return value


def _changes(changes: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    if not all(after >= 0 and 0 < factor < float("inf") for after, factor in changes):
        raise InvalidArgument(
            f"limit_changes={changes!r}: pairs of seconds after the first call and a positive factor"
        )
    return tuple(changes)


def _chosen(faults: Sequence[str]) -> tuple[str, ...]:
    if unknown := set(faults) - set(HEADER_FAULTS):
        raise InvalidArgument(
            f"header_faults: unknown {sorted(unknown)}; choose out of {', '.join(HEADER_FAULTS)}"
        )
    return tuple(faults)
