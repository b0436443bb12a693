"""The HTTP client of `ratelimit run`: where it asks, and why it cannot be made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ratelimit.commands.run.client import make_client
from ratelimit.commands.secrets import Address
from ratelimit.testing import FakeOpenAI
from tests.run_files import KEY, results, run, serving, write


class Queries(FakeOpenAI):
    """A server that notes where each request was sent."""

    def __init__(self) -> None:
        super().__init__(latency=0)
        self.seen: list[tuple[str, str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.seen.append((scope["path"], scope["query_string"].decode()))
        await super().__call__(scope, receive, send)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("?api-version=2024-10-21", "api-version=2024-10-21"),
        ("/?api-version=2024-10-21", "api-version=2024-10-21"),
        ("?api-version=1&flag=&tag=a&tag=b%20c", "api-version=1&flag=&tag=a&tag=b"),
        ("?a=1#part", "a=1"),
        ("#part", ""),
    ],
)
def test_the_query_of_a_base_url_is_sent_with_each_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, sent: str
) -> None:
    """Gateways ask for a version or a tenant there; the path stays the endpoint's."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = Queries()
    requests, output = write(tmp_path / "in", 2), tmp_path / "out"
    with server.serve() as url:
        status = run(requests, "-o", output, "--base-url", url + given)

    assert status == 0
    assert {path for path, _ in server.seen} == {"/v1/chat/completions"}
    assert all(query.startswith(sent) for _, query in server.seen)
    assert len(results(output)) == 2


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HTTP_PROXY", "socks9://127.0.0.1:1", "socks9://127.0.0.1:1"),
        ("ALL_PROXY", "socks5://me:pa55word@127.0.0.1:1", "socksio"),
        ("HTTPS_PROXY", "http://me:pa55word@proxy:port", "port"),
        ("SSL_CERT_FILE", "missing.pem", "No such file"),
    ],
)
def test_a_client_that_cannot_be_made_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    name: str,
    value: str,
    said: str,
) -> None:
    """It names the settings that may be wrong; nothing is sent, and no file is left."""
    monkeypatch.setenv(name, value)
    requests, output = write(tmp_path / "in", 1), tmp_path / "out"
    with serving() as fake:
        status = run(requests, "-o", output)
    error = capfd.readouterr().err

    assert status == 2
    assert "Traceback" not in error
    assert said in error
    assert "HTTPS_PROXY" in error
    assert "pa55word" not in error
    assert error.count("\n") == 1
    assert not fake.ledger.entries()
    assert not output.exists()


@pytest.mark.parametrize("host", ["a\x00b", "[::1", "h:99999", "xn--a-ü"])
def test_an_address_that_no_client_takes_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    host: str,
) -> None:
    """Whatever is wrong with it, the sentence says that it is the base URL."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    requests = write(tmp_path / "in", 1)

    assert run(requests, "-o", tmp_path / "out", "--base-url", f"http://{host}/v1") == 2
    assert "the base URL" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENAI_ORG_ID", "Jürgen"),
        ("OPENAI_PROJECT_ID", "proj\n"),
        ("OPENAI_CUSTOM_HEADERS", "X-Tenant: a\rb"),
        ("OPENAI_CUSTOM_HEADERS", "X Tenant: a"),
    ],
)
def test_settings_that_fit_in_no_header_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    name: str,
    value: str,
) -> None:
    """The SDK sends them with each request, so each would fail alike."""
    monkeypatch.setenv(name, value)
    requests, output = write(tmp_path / "in", 1), tmp_path / "out"
    with serving():
        status = run(requests, "-o", output)

    assert status == 2
    assert name in capfd.readouterr().err


def test_an_empty_address_in_the_environment_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a shell variable that is not set; the SDK alone would ask nowhere."""
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    client = make_client("any", Address.read(None), 0, _ignore)

    assert str(client.base_url) == "https://api.openai.com/v1/"


async def _ignore(_: object) -> None:
    """Take no notice of an answer."""
