"""FakeOpenAI over real HTTP, and the command `ratelimit serve`: how they begin and how
they end.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from ratelimit.estimate import tokenizer
from ratelimit.estimate.quicktok import QuickCounters
from ratelimit.estimate.vocabulary import Vocabularies
from ratelimit.testing import FakeOpenAI, serving
from ratelimit.testing.serving import serve_command

BODY: Mapping[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 1,
}
FOREVER = 3_600.0  # seconds that an answer takes


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """For calls that are still in flight when a server ends; each of them has ended
    after the test.
    """
    with ThreadPoolExecutor() as pool:
        yield pool


def ask(url: str, body: Mapping[str, Any] = BODY) -> httpx2.Response:
    """One call, however long it takes."""
    return httpx2.post(f"{url}/chat/completions", json=body, timeout=FOREVER)


def in_flight(
    threads: ThreadPoolExecutor, server: FakeOpenAI, url: str, body: Mapping[str, Any] = BODY
) -> Future[httpx2.Response]:
    """A call that the server has admitted."""
    call = threads.submit(ask, url, body)
    while not server.ledger:
        assert not call.done(), call.result()
        threading.Event().wait(0.005)
    return call


def address_in(lines: list[str]) -> str:
    """What the command says first."""
    return lines[0].split()[-1]


def stop(_: float) -> None:
    """Press Ctrl-C in place of waiting."""
    raise KeyboardInterrupt


def test_leaving_serve_is_quick_and_final() -> None:
    """A call in flight is cut off, the port is closed, and the next serve() works."""
    server = FakeOpenAI("I", latency=FOREVER)
    with server.serve() as url:
        http = httpx2.Client(base_url=url)
        with pytest.raises(httpx2.ReadTimeout):
            http.post("/chat/completions", json=BODY, timeout=0.1)
        before = time.monotonic()
    with pytest.raises(httpx2.ConnectError):
        http.get("/models")
    http.close()
    with server.serve() as url:
        assert httpx2.get(f"{url}/models").status_code == 200

    assert time.monotonic() - before < 30
    assert server.ledger[0].status == 499


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_calls_in_flight_are_cut_off_in_silence(
    threads: ThreadPoolExecutor,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    stream: bool,
) -> None:
    """The caller sees a broken connection, whoever left the block his own exception,
    and nobody a traceback of the web server.
    """
    server = FakeOpenAI("I", latency=FOREVER)

    def leave() -> Future[httpx2.Response]:
        with server.serve() as url:
            calls.append(in_flight(threads, server, url, {**BODY, "stream": stream}))
            raise ZeroDivisionError

    calls: list[Future[httpx2.Response]] = []
    with pytest.raises(ZeroDivisionError):
        leave()

    assert isinstance(calls[0].exception(timeout=60), httpx2.TransportError)
    assert server.ledger[0].reason == "aborted"
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("bug", [ZeroDivisionError, asyncio.CancelledError])
def test_a_real_failure_of_the_app_is_still_seen(
    caplog: pytest.LogCaptureFixture, bug: type[BaseException]
) -> None:
    """Only the end of the server is silent: what goes wrong while it serves is answered
    with a 500 and logged with its traceback.
    """

    def broken(*_: object) -> int:
        raise bug

    with FakeOpenAI(count_prompt=broken).serve() as url:
        assert ask(url).status_code == 500

    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [bug]


def test_the_vocabulary_is_loaded_before_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who times calls does not time the loading; a server in process, or one with a
    counter of its own, loads nothing for it.
    """
    encodings = []
    real = tokenizer.count

    def noting(text: str, encoding: str) -> int:
        encodings.append(encoding)
        return real(text, encoding)

    monkeypatch.setattr(tokenizer, "count", noting)
    FakeOpenAI().transport()
    with FakeOpenAI(count_prompt=lambda *_: 1).serve():
        assert encodings == []
    with FakeOpenAI().serve():
        assert "o200k_base" in encodings


def test_a_server_without_a_vocabulary_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache, no package, no internet: prompts are estimated by their size, and
    nothing fails, even where warnings are errors.
    """

    def nothing(_url: str, _sha256: str) -> bytes:
        raise OSError("no route to host")

    monkeypatch.setattr(tokenizer, "vocabularies", Vocabularies([], nothing))
    monkeypatch.setattr(tokenizer, "quick", QuickCounters(nothing))
    monkeypatch.setattr(tokenizer, "_memory", tokenizer._Memory(10))
    with FakeOpenAI(latency=0).serve() as url:
        assert ask(url).json()["usage"]["prompt_tokens"] > 0


def test_the_command_tells_every_refusal_and_ends_with_ctrl_c() -> None:
    """It prints the address, one line a refusal, and a closing line when interrupted."""
    lines: list[str] = []

    def wait(_: float) -> None:
        if ask(address_in(lines)).status_code == 429 and len(lines) > 2:
            raise KeyboardInterrupt

    status = serve_command(variant="I", rpm=2, tpm=None, port=0, print=lines.append, wait=wait)

    assert status == 0
    assert "variant I, 2 RPM: http://127.0.0.1:" in lines[0]
    assert re.match(r" +[\d,]+\.\d{3} s  429  gpt-4o  Rate limit reached for gpt-4o", lines[2])
    assert lines[-1] == "2 calls admitted, 2 refused."


@pytest.mark.parametrize(
    ("limits", "shown"),
    [
        ({"rpm": 1e6, "tpm": 2.5e9}, ", 1,000,000 RPM, 2,500,000,000 TPM: "),
        (
            {"rpm": 0.5, "tpm": 1e12, "rpd": 1_234_567.0},
            ", 0.5 RPM, 1,000,000,000,000 TPM, 1,234,567 RPD: ",
        ),
        ({"rpm": None, "tpm": None}, ", no limits: "),
    ],
)
def test_the_command_shows_limits_to_read(limits: dict[str, float | None], shown: str) -> None:
    """A million is 1,000,000, not 1e+06."""
    lines: list[str] = []
    serve_command(**limits, port=0, print=lines.append, wait=stop)  # type: ignore[arg-type]

    assert shown in lines[0]


def test_ctrl_c_while_calls_are_in_flight_shows_the_closing_line_alone(
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """They are cut off, and nothing but the sum is printed."""
    servers: list[FakeOpenAI] = []
    calls: list[Future[httpx2.Response]] = []
    lines: list[str] = []

    def slow(*arguments: Any, **options: Any) -> FakeOpenAI:
        servers.append(FakeOpenAI(*arguments, **options, latency=FOREVER))
        return servers[0]

    def wait(_: float) -> None:
        calls.append(in_flight(threads, servers[0], address_in(lines)))
        raise KeyboardInterrupt

    monkeypatch.setattr(serving, "FakeOpenAI", slow)

    assert serve_command(port=0, print=lines.append, wait=wait) == 0
    assert lines[2:] == ["1 calls admitted, 0 refused."]
    assert isinstance(calls[0].exception(timeout=60), httpx2.TransportError)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_a_real_ctrl_c_ends_a_real_process_in_the_midst_of_a_stream() -> None:
    """The whole of it once: status 0, the closing line, no traceback."""
    program = (
        # a shell's background job ignores it
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        " from ratelimit.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "serve", "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:  # ourselves
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline(), process.stdout.readline()]
            endless = {"x-fake-usage": '{"completion_tokens": 1000000}'}
            with httpx2.stream(
                "POST",
                f"{address_in(lines)}/chat/completions",
                json={**BODY, "stream": True},
                headers=endless,
            ) as answer:
                assert answer.status_code == 200
                process.send_signal(signal.SIGINT)
                rest, _ = process.communicate(timeout=60)
        finally:
            process.kill()

    assert (process.returncode, rest) == (0, "1 calls admitted, 0 refused.\n")
