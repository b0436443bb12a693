"""What stops a run in its middle: one failure over and over, with no answer between."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

import ratelimit
from ratelimit import RateLimiter
from ratelimit.batch import Result
from ratelimit.batch.failures import FEW_REFUSED_BODIES, MANY_ALIKE
from ratelimit.batch.results import read_result
from ratelimit.testing import FakeOpenAI
from ratelimit.testing.clocks import TrioClock, VirtualClock
from tests.batch_api import Api, bad, bodies, client_of, good, play
from tests.run_files import KEY, run

if TYPE_CHECKING:
    LoopClock = type[VirtualClock | TrioClock]

pytestmark = pytest.mark.usefixtures("vocabulary")

GOOD = 8
SLOTS = 4
ALL = GOOD + 2 * MANY_ALIKE + 2 * SLOTS
"""Requests: as many as end a run, and as many again that it must not send."""

REPLIES = {
    "model gone": (404, {"error": {"code": "model_not_found", "message": "no"}}),
    "access lost": (403, {"error": {"code": "forbidden", "message": "no"}}),
    "parameter gone": (400, {"error": {"code": "unsupported_parameter", "message": "no"}}),
    "error in a 200": (200, {"error": {"code": "x", "message": "bad"}}),
    "day used up": (429, {"error": {"code": "rate_limit_exceeded", "message": "no"}}),
}


def late(loop_clock: LoopClock, requests: Any, api: Api) -> tuple[list[Result], Exception | None]:
    """Run; return the results, and the error that has ended the run."""
    clock = loop_clock()
    results: list[Result] = []

    async def main() -> Exception | None:
        async with client_of(api) as client:
            try:
                async for result in ratelimit.run(
                    requests, client, RateLimiter(clock=clock), concurrency=SLOTS
                ):
                    results.append(result)  # noqa: PERF401  # what came before the error is kept
            except Exception as error:  # noqa: BLE001  # it is what the test looks at
                return error
        return None

    return results, clock.run(main)


@pytest.mark.parametrize("name", REPLIES)
def test_what_begins_to_fail_in_the_middle_ends_the_run(loop_clock: LoopClock, name: str) -> None:
    """A key that is cut off after an hour does not burn the rest of the file."""
    status, body = REPLIES[name]

    def reply(number: int) -> httpx2.Response:
        return good(number) if number < GOOD else httpx2.Response(status, json=body)

    api = Api(0.5, reply)
    results, error = late(loop_clock, bodies(ALL), api)

    assert error is not None
    assert GOOD + MANY_ALIKE <= len(api.requests) < GOOD + MANY_ALIKE + 2 * SLOTS
    assert sum(result.ok for result in results) == GOOD


def test_a_second_model_that_takes_no_line_ends_the_run(loop_clock: LoopClock) -> None:
    """The answers of one model prove nothing about what another takes."""

    def mixed() -> Iterator[dict[str, Any]]:
        for number, body in enumerate(bodies(ALL)):
            yield body | {"model": "gpt-4o-mini"} if number % 2 else body

    class Picky(Api):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            answer = await super().handle_async_request(request)
            return bad(400, "unsupported_parameter") if b"mini" in request.content else answer

    api = Picky(0.5)
    _, error = late(loop_clock, mixed(), api)

    assert error is not None
    assert len(api.requests) < 2 * MANY_ALIKE + 4 * SLOTS


@pytest.mark.parametrize("code", ["content_filter", "context_length_exceeded"])
def test_prompts_that_are_refused_for_what_they_say_stop_nothing(
    loop_clock: LoopClock, code: str
) -> None:
    """A file that is sorted by length or topic has many such lines in a row."""

    def reply(number: int) -> httpx2.Response:
        return good(number) if number < GOOD else bad(400, code)

    results = play(loop_clock, Api(0.5, reply), bodies(ALL), concurrency=SLOTS)

    assert len(results) == ALL


def test_failures_that_differ_stop_nothing(loop_clock: LoopClock) -> None:
    """Each of many lines may have a fault of its own."""

    def reply(number: int) -> httpx2.Response:
        return good(number) if number < GOOD else bad(400, f"fault_{number % 10}")

    results = play(loop_clock, Api(0.5, reply), bodies(ALL), concurrency=SLOTS)

    assert len(results) == ALL


class FailingServer(FakeOpenAI):
    """A server that gives other replies, in turns, from some request on."""

    asked = 0
    good = GOOD
    replies: Sequence[tuple[int, Any]] = ()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked += scope["type"] == "http"
        if not self.replies or self.asked <= self.good:
            await super().__call__(scope, receive, send)
            return

        status, body = self.replies[self.asked % len(self.replies)]
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})


def written(path: Path, count: int) -> Path:
    """Write bodies without a name."""
    body = {"model": "text-embedding-3-small", "input": [1, 2, 3]}
    rows = (body | {"user": str(number)} for number in range(count))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the SDK repeat nothing."""
    monkeypatch.setattr("ratelimit.commands.run.session.RETRIES", 0)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.mark.usefixtures("one_attempt")
@pytest.mark.parametrize(
    ("name", "again", "said"),
    [
        ("model gone", (), "has no model 'text-embedding-3-small'"),
        ("access lost", (), "refuses access to text-embedding-3-small"),
        ("parameter gone", ("--retry-failed",), "--retry-failed"),
        ("error in a 200", ("--retry-failed",), "--retry-failed"),
    ],
)
def test_the_command_says_so_and_loses_nothing(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    name: str,
    again: tuple[str, ...],
    said: str,
) -> None:
    """The sentence says that it began late and what to do, and what it says has every
    answer in the end.
    """
    requests, output = written(tmp_path / "in", ALL), tmp_path / "out"
    server = FailingServer(rpm=None, tpm=None, latency=0)
    server.replies = [REPLIES[name]]
    with server.serve() as url:
        command = (requests, "-o", output, "--base-url", url, "--concurrency", SLOTS)
        assert run(*command) == 1
        sent, last = server.asked, capfd.readouterr().err.splitlines()[-1]
        server.replies = ()
        for remedy in dict.fromkeys((again, ())):
            status = run(*command, *remedy)

    found = map(read_result, output.read_bytes().splitlines())
    answered = {name for name, is_answered in found if is_answered}
    assert sent < GOOD + MANY_ALIKE + 2 * SLOTS
    assert (
        f"{MANY_ALIKE} requests of text-embedding-3-small failed alike, with no answer of it"
        " between" in last
    )
    assert said in last
    assert len(answered) == ALL
    assert status == 0


@pytest.mark.usefixtures("one_attempt")
def test_failures_that_differ_are_not_called_alike(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Where nothing is answered, the reason that is named is that of as many as are
    named; there may be further ones.
    """
    requests, output = written(tmp_path / "in", ALL), tmp_path / "out"
    server = FailingServer(rpm=None, tpm=None, latency=0)
    server.good = 0
    server.replies = [REPLIES["parameter gone"], REPLIES["error in a 200"]]
    with server.serve() as url:
        assert run(requests, "-o", output, "--base-url", url, "--concurrency", SLOTS) == 1
    last = capfd.readouterr().err.splitlines()[-1]

    assert f"no request of this run was answered, and {FEW_REFUSED_BODIES} failed alike" in last
    assert "all requests" not in last
