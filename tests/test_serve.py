"""FakeOpenAI over real HTTP, and the command `ratelimit serve`: how they begin and how
they end.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
import tiktoken

from ratelimit.commands import CommandError
from ratelimit.commands import serve as command
from ratelimit.commands.serve import serve
from ratelimit.commands.streams import OutputLost
from ratelimit.testing import FakeOpenAI, prompts

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
    """The address in the command's first line."""
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
    """The caller sees a broken connection, the block raises its own exception, and no
    traceback of the web server is printed.
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
    loaded: dict[str, Any] = {}
    monkeypatch.setattr(prompts, "_encoders", loaded)
    prompts._count.cache_clear()
    FakeOpenAI().transport()
    with FakeOpenAI(count_prompt=lambda *_: 1).serve():
        assert loaded == {}
    with FakeOpenAI().serve():
        assert "o200k_base" in loaded


def test_a_server_without_a_vocabulary_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache, no package, no internet: prompts are estimated by their size, and
    nothing fails, even where warnings are errors.
    """

    def nothing(_encoding: str) -> tiktoken.Encoding:
        raise OSError("no route to host")

    monkeypatch.setattr(prompts, "_encoders", {})
    monkeypatch.setattr(prompts, "_from_package", lambda _: None)
    monkeypatch.setattr(tiktoken, "get_encoding", nothing)
    prompts._count.cache_clear()
    try:
        with FakeOpenAI(latency=0).serve() as url:
            prompt = ask(url).json()["usage"]["prompt_tokens"]
    finally:
        prompts._count.cache_clear()

    assert prompt == 8  # 3 + 3, and one each for "user" and "hi"


def test_the_command_summarises_requests_and_ends_with_ctrl_c() -> None:
    """The address comes first, then how to stop it, then what came since the last look,
    with the last sentence of each kind of refusal, and a closing line.
    """
    lines: list[str] = []
    looks = iter([True, False])

    def wait(_: float) -> None:
        if not next(looks):
            raise KeyboardInterrupt

        for _number in range(4):
            ask(address_in(lines))

    status = serve(variant="I", rpm=2, tpm=None, port=0, show=lines.append, wait=wait)

    assert status == 0
    assert "variant I, 2 RPM: http://127.0.0.1:" in lines[0]
    assert lines[2] == f"Ctrl-C or `kill {os.getpid()}` stops it."
    assert re.match(r" +\d+\.\d s  2 admitted, 2 refused$", lines[3])
    assert lines[4].strip().startswith("2 x 429  gpt-4o  Rate limit reached for gpt-4o")
    assert lines[5:] == ["Stopped: 2 requests admitted, 2 refused."]


def test_an_address_that_is_in_use_is_one_sentence() -> None:
    """What takes the port is named, and what to type instead."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError) as refused:
            serve(port=port, show=lambda _: None, wait=stop)

    assert str(refused.value) == (
        f"cannot listen at 127.0.0.1:{port}: Address already in use; name another --port, or 0 for "
        "any free one"
    )


def test_a_host_that_is_not_known_is_named() -> None:
    """Another port would not help: the sentence speaks of --host."""
    with pytest.raises(CommandError) as refused:
        serve(host="nowhere.invalid", port=0, show=lambda _: None, wait=stop)

    assert str(refused.value).startswith("cannot listen at host nowhere.invalid: ")
    assert "--host takes" in str(refused.value)
    assert "--port" not in str(refused.value)


def test_output_that_cannot_be_written_does_not_end_the_server(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A full disk, or `| head -1`: one sentence on stderr, and the server goes on."""
    lines: list[str] = []
    looks = iter([True, True, False])
    answers: list[int] = []

    def failing(line: str) -> None:
        lines.append(line)
        if len(lines) > 3:
            raise OutputLost(OSError(errno.ENOSPC, "No space left on device"))

    def wait(_: float) -> None:
        if not next(looks):
            raise KeyboardInterrupt

        answers.append(ask(address_in(lines)).status_code)

    assert serve(port=0, show=failing, wait=wait) == 0
    assert answers == [200, 200]
    assert capfd.readouterr().err == (
        "ratelimit serve: cannot write the output: No space left on device; the server goes on,"
        " and prints no more\n"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_real_process_serves_on_with_a_full_disk() -> None:
    """Nothing of what could not be written spoils the exit status either."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        " from ratelimit.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "serve", "--port", str(port)]
    with (
        Path("/dev/full").open("w") as full,
        subprocess.Popen(command, stdout=full, stderr=subprocess.PIPE, text=True) as process,
    ):
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            assert ask(f"http://127.0.0.1:{port}/v1").status_code == 200
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
            process.wait(timeout=60)
        finally:
            process.kill()

    assert "No space left on device; the server goes on" in said
    assert rest == ""
    assert process.returncode == 0


def test_errors_are_counted_apart_from_refusals_and_by_their_sentence() -> None:
    """A 404 and two different 400s are three lines, and "refused" means a 429 in an
    interval as at the end.
    """
    lines: list[str] = []
    looks = iter([True, False])

    def wait(_: float) -> None:
        if not next(looks):
            raise KeyboardInterrupt

        url = address_in(lines)
        ask(url, {**BODY, "model": "gpt-4o-mini", "messages": 3})
        ask(url, {**BODY, "model": "gpt-4.1-mini", "max_tokens": "x"})
        httpx2.post(f"{url}/nothing", json=BODY)
        ask(url)
        ask(url)

    serve(variant="I", rpm=3, tpm=None, port=0, show=lines.append, wait=wait)
    kinds = [line.split()[:3] for line in lines[4:-1]]

    assert lines[3].endswith("s  1 admitted, 1 refused, 3 errors")
    assert lines[-1] == "Stopped: 1 requests admitted, 1 refused, 3 errors."
    assert sorted(kinds) == [["1", "x", status] for status in ("400", "400", "404", "429")]


@pytest.mark.parametrize(
    ("limits", "shown"),
    [
        ({"rpm": 1e6, "tpm": 2.5e9}, ", 1,000,000 RPM, 2,500,000,000 TPM: "),
        (
            {"rpm": 0.5, "tpm": 1e12, "rpd": 1_234_567.0},
            ", 0.5 RPM, 1,000,000,000,000 TPM, 1,234,567 RPD: ",
        ),
        ({"rpm": None, "tpm": None}, ", no limits: "),
        ({"variant": "nginx", "rpm": 60.0}, "variant nginx, 60 RPM: "),
    ],
)
def test_the_command_shows_limits_to_read(limits: dict[str, Any], shown: str) -> None:
    """A million is 1,000,000, not 1e+06; a limit that is not enforced is not shown."""
    lines: list[str] = []
    serve(**limits, port=0, show=lines.append, wait=stop)

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

    monkeypatch.setattr(command, "FakeOpenAI", slow)

    assert serve(port=0, show=lines.append, wait=wait) == 0
    assert lines[3:] == ["Stopped: 1 requests admitted, 0 refused."]
    assert isinstance(calls[0].exception(timeout=60), httpx2.TransportError)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "kill"])
def test_a_real_process_writes_into_a_file_at_once_and_ends_quietly(
    tmp_path: Path, ending: signal.Signals
) -> None:
    """The whole of it once, its output a file and its environment plain: the address is
    there while it runs, and it ends in the midst of a stream with status 0, the closing
    line, and no traceback.
    """
    program = (
        # a shell's background job ignores it
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        " from ratelimit.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    output = tmp_path / "output"
    command = [sys.executable, "-c", program, "serve", "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with (
        output.open("w") as file,
        subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment
        ) as process,
    ):
        try:
            while output.read_text().count("\n") < 3:
                assert process.poll() is None
                threading.Event().wait(0.01)

            lines = output.read_text().splitlines()
            endless = {"x-fake-usage": '{"completion_tokens": 1000000}'}
            with httpx2.stream(
                "POST",
                f"{address_in(lines)}/chat/completions",
                json={**BODY, "stream": True},
                headers=endless,
            ) as answer:
                assert answer.status_code == 200
                process.send_signal(ending)
                process.wait(timeout=60)
        finally:
            process.kill()

    rest = output.read_text().splitlines()[len(lines) :]

    assert process.returncode == 0
    assert lines[2] == f"Ctrl-C or `kill {process.pid}` stops it."
    assert rest[-1] == "Stopped: 1 requests admitted, 0 refused."
    assert all(line.endswith("1 admitted, 0 refused") for line in rest[:-1])
