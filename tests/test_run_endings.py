"""How `ratelimit run` ends, and how it goes on, where the server is wrong or away."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from ratelimit.batch import outage
from ratelimit.batch.failures import FEW
from ratelimit.batch.running import FIRST_SLOTS
from ratelimit.commands.run.ending import why_away
from ratelimit.testing import FakeOpenAI
from tests.run_files import KEY, run

MANY = 300


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's retries and the looks at a server that is away take no time."""
    monkeypatch.setattr("ratelimit.commands.run.session.RETRIES", 0)
    monkeypatch.setattr(outage, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(outage, "LONGEST_DELAY", 0.05)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def server() -> FakeOpenAI:
    """A server with high limits and quick answers."""
    return FakeOpenAI(rpm=600_000, tpm=600_000_000, latency=0.01, output=20)


def write(path: Path, count: int, **fields: Any) -> Path:
    """Write requests whose prompts are token numbers, so that none has to
    be counted.
    """
    body = {"model": "text-embedding-3-small", "input": [1, 2, 3], **fields}
    rows = ({"custom_id": f"r-{n}", "url": "/v1/embeddings", "body": body} for n in range(count))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def names(path: Path) -> list[str]:
    """Names in a file of results."""
    return [json.loads(line)["custom_id"] for line in path.read_text().splitlines()]


class Restarted:
    """A server that goes away after some requests, and comes back at the same port."""

    def __init__(self, server: FakeOpenAI, after: int) -> None:
        self.server = server
        self.after = after
        self.port = 0
        self.is_up = threading.Event()
        self.may_come_back = threading.Event()
        self.is_over = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> str:
        self._thread.start()
        self.is_up.wait()
        return f"http://127.0.0.1:{self.port}/v1"

    def __exit__(self, *_: object) -> None:
        self.may_come_back.set()
        self.is_over.set()
        self._thread.join()

    def _serve(self) -> None:
        with self.server.serve() as url:
            self.port = int(url.rpartition(":")[2].partition("/")[0])
            self.is_up.set()
            while len(self.server.ledger) < self.after and not self.is_over.wait(0.005):
                pass
        self.may_come_back.wait()
        if not self.is_over.is_set():
            with self.server.serve(port=self.port):
                self.is_over.wait()


@pytest.fixture
def shown_away(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when a run has shown that it waits for its server."""
    event = threading.Event()

    def noting(*arguments: Any) -> str:
        event.set()
        return why_away(*arguments)

    monkeypatch.setattr("ratelimit.commands.run.session.why_away", noting)
    return event


def test_a_server_that_restarts_costs_nothing(
    server: FakeOpenAI,
    shown_away: threading.Event,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The run says what it waits for, goes on by itself, and has every answer."""
    # calls that were in flight when the server went are sent again by the SDK
    monkeypatch.setattr("ratelimit.commands.run.session.RETRIES", 1)
    restarted = Restarted(server, after=20)

    def come_back() -> None:
        shown_away.wait()
        restarted.may_come_back.set()

    helper = threading.Thread(target=come_back)
    helper.start()
    requests, output = write(tmp_path / "in", 200), tmp_path / "out"
    with restarted as url:
        status = run(requests, "-o", output, "--base-url", url, "--concurrency", 4)
    shown_away.set()
    helper.join()
    shown = capfd.readouterr().err

    assert status == 0
    assert f"cannot reach {url}: " in shown
    assert "trying again for up to 10 min" in shown
    assert "answers again after" in shown
    assert len(set(names(output))) == len(names(output)) == 200


def test_a_server_that_stays_away_is_given_up(
    server: FakeOpenAI, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The patience is the user's; what was done is kept, and the same
    command goes on.
    """
    requests, output = write(tmp_path / "in", 200), tmp_path / "out"
    with Restarted(server, after=20) as url:
        status = run(
            requests, "-o", output, "--base-url", url, "--concurrency", 4, "--patience", "0.5s"
        )
    last = capfd.readouterr().err.splitlines()[-1]

    assert status == 1
    assert last.startswith(f"ratelimit run: cannot reach {url}: ")
    assert "--patience" in last
    assert 0 < len(names(output)) < 200


def test_a_misspelled_model_stops_the_run_and_costs_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence names the model and the remedy, nothing counts as done, and the
    remedy works.
    """
    requests, output = write(tmp_path / "in", MANY, model="text-embeding"), tmp_path / "out"
    asked: list[str] = []

    class Named(FakeOpenAI):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            message = await receive()
            body = json.loads(message["body"]) if message.get("body") else {}
            asked.append(body.get("model", ""))
            if body.get("model") == "text-embeding":
                error = {
                    "message": "The model 'text-embeding' does not exist",
                    "code": "model_not_found",
                }
                await send(
                    {
                        "type": "http.response.start",
                        "status": 404,
                        "headers": [(b"content-type", b"application/json")],
                    }
                )
                content = json.dumps({"error": error}).encode()
                await send({"type": "http.response.body", "body": content})
                return

            async def again() -> Any:
                return message

            await super().__call__(scope, again, send)

    with Named(rpm=None, tpm=None, latency=0).serve() as url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        assert run(requests, "-o", output) == 1
        sent = len(asked)
        last = capfd.readouterr().err.splitlines()[-1]
        assert run(requests, "-o", output, "--model", "text-embedding-3-small") == 0

    assert FEW <= sent < FEW + FIRST_SLOTS
    assert "has no model 'text-embeding'" in last
    assert "--model" in last
    assert len(set(names(output))) == MANY


def test_a_steady_server_error_stops_the_run(
    server: FakeOpenAI, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A file is not sent in vain; when the server is well, the same command
    does all.
    """
    requests, output = write(tmp_path / "in", MANY), tmp_path / "out"
    server.inject("500")
    with server.serve() as url:
        assert run(requests, "-o", output, "--base-url", url) == 1
        sent = len(server.ledger)
        last = capfd.readouterr().err.splitlines()[-1]
    with FakeOpenAI(rpm=None, tpm=None, latency=0).serve() as url:
        assert run(requests, "-o", output, "--base-url", url) == 0

    assert FEW <= sent < FEW + FIRST_SLOTS
    assert "several requests in a row failed by the server (HTTP 500" in last
    assert len(set(names(output))) == MANY


def test_failures_of_a_short_file_are_written(server: FakeOpenAI, tmp_path: Path) -> None:
    """Too few to say that every request fails: each is its request's result."""
    output = tmp_path / "out"
    server.inject("500")
    with server.serve() as url:
        status = run(write(tmp_path / "in", FEW - 1), "-o", output, "--base-url", url)

    assert status == 1
    assert len(names(output)) == FEW - 1


def test_a_wrong_path_names_the_base_url(
    server: FakeOpenAI, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A user who left out the /v1 learns it from the sentence."""
    requests = write(tmp_path / "in", MANY)
    # the fake server knows an endpoint by the end of its path
    requests.write_text(requests.read_text().replace("/v1/embeddings", "/v1/nowhere"))
    with server.serve() as url:
        status = run(requests, "-o", tmp_path / "out", "--base-url", url)

    assert status == 1
    assert "--base-url (which usually ends in /v1)" in capfd.readouterr().err
