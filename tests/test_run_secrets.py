"""No output of `ratelimit run` shows the key, a password or a prompt."""

from __future__ import annotations

import base64
import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from ratelimit.batch import Request, Result
from ratelimit.batch.results import read_result
from ratelimit.cli import main
from ratelimit.commands import CommandError
from ratelimit.commands.calls import Call
from ratelimit.commands.run.settings import RunSettings
from ratelimit.commands.secrets import DEEPEST, Address, Secrets, environment_secrets
from ratelimit.testing import FakeOpenAI

KEYS = ["sk-canary-7d1f0c52a9e84b36", "hunter2", "ab\"c'd", "p\\w/1", "topsecret", "k3"]
PASSWORD = "pa55 wörd"  # noqa: S105  # of nothing


class Echo(FakeOpenAI):
    """A server that answers with whatever it was sent: key, login and model."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status
        self.seen: list[dict[bytes, bytes]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return

        body = json.loads((await receive())["body"])
        headers = dict(scope["headers"])
        self.seen.append(headers)
        said = f"You sent {headers[b'authorization'].decode()} for {body['model']}."
        answer: dict[str, Any] = {"error": {"message": said, "code": "echo", "param": said}}
        if self.status == 200:
            answer = {"choices": [{"message": {"content": said}}], "note": [said]}
        await send(
            {
                "type": "http.response.start",
                "status": self.status,
                "headers": [(b"content-type", b"application/json")],
            }
        )
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


@pytest.fixture(autouse=True)
def _no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's retries wait between them."""
    monkeypatch.setattr("ratelimit.commands.run.session.RETRIES", 0)


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    """Three requests of token numbers, which no vocabulary has to count."""
    path = tmp_path / "in"
    body = {"model": "text-embedding-3-small", "input": [1, 2, 3]}
    path.write_text(f"{json.dumps(body)}\n" * 3)
    return path


def outputs(tmp_path: Path, capfd: pytest.CaptureFixture[str], requests: Path) -> str:
    """All that was printed and written, as read from JSON where it is JSON."""
    written = "".join(path.read_text() for path in tmp_path.iterdir() if path != requests)
    lines = [json.loads(line) for line in written.splitlines() if line.startswith("{")]
    return "".join(capfd.readouterr()) + written + repr(lines) + str(lines)


@pytest.mark.parametrize("status", [200, 400, 401, 404, 500])
@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_a_server_repeats_is_masked(
    tmp_path: Path,
    requests: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    status: int,
) -> None:
    """Short ones, and ones with quotes, which JSON and Python write differently."""
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with Echo(status).serve() as url:
        main(["run", str(requests), "-o", str(tmp_path / "out"), "--base-url", url])
    shown = outputs(tmp_path, capfd, requests)

    if key.isalpha() and status == 200:  # a word like any other of an answer
        shown = shown.replace(f"Bearer {key}", "")
    for form in {key, json.dumps(key)[1:-1], repr(key)[1:-1]}:
        assert form not in shown.replace(str(tmp_path), "")


def test_a_placeholder_for_a_key_leaves_answers_as_they_are() -> None:
    """With "any" for a server that asks for no key, the words of answers stay; an error
    that repeats it is masked all the same.
    """
    request = Request("a", "chat.completions", {})
    answer = Result(request, 200, {"choices": [{"text": "Is there any? Many!"}]})
    error = Result(request, 400, {"error": {"message": "any is no key. Many are."}})
    secrets = Secrets(["any"])

    assert secrets.mask_result(answer) == answer
    assert secrets.mask_result(error).reason == "HTTP 400: *** is no key. Many are."


def test_a_password_in_the_address_is_used_and_never_shown(
    tmp_path: Path,
    requests: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It goes to the server, as the user meant, and into no sentence, file or log."""
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    caplog.set_level("DEBUG")
    app = Echo(500)
    with app.serve() as url:
        private = url.replace("://", "://me:pa55%20w%C3%B6rd@") + "?api-key=s3cr3t"
        main(["run", str(requests), "-o", str(tmp_path / "out"), "--base-url", private])
    monkeypatch.setenv("OPENAI_BASE_URL", "http://me:pa55%20w%C3%B6rd@127.0.0.1:9/v1?sig=s3cr3t")
    assert main(["run", str(requests), "-o", str(tmp_path / "again")]) == 1
    shown = outputs(tmp_path, capfd, requests) + caplog.text

    login = base64.b64encode(f"me:{PASSWORD}".encode())
    assert {headers[b"authorization"] for headers in app.seen} == {b"Basic " + login}
    assert "cannot reach http://127.0.0.1:9/v1: " in shown
    for secret in (PASSWORD, "pa55", login.decode()):
        assert secret not in shown
    assert "s3cr3t" not in shown.replace(caplog.text, "")


@pytest.mark.parametrize(
    "text", ["me:pa55word@host/v1", "ftp://me:pa55word@host", "http://me:pa55word@", "https://"]
)
def test_an_address_that_is_none_is_refused_without_its_password(text: str) -> None:
    """The sentence shows what is left."""
    with pytest.raises(CommandError, match="base URL should begin") as caught:
        Address.read(text)

    assert "pa55word" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "found"),
    [
        ("HTTPS_PROXY", "http://me:pa55%21@proxy:3128", "pa55!"),
        ("all_proxy", "me:pa55word@proxy:3128", "pa55word"),
        ("HTTP_PROXY", "http://t0ken-of-a-proxy@proxy:3128", "t0ken-of-a-proxy"),
        ("HTTP_PROXY", "http://t0ken-of-a-proxy:x@proxy:3128", "t0ken-of-a-proxy"),
        ("OPENAI_CUSTOM_HEADERS", "X-Tenant: a\nX-Api-Key: s3cr3t", "s3cr3t"),
        ("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer s3cr3t", "s3cr3t"),
    ],
)
def test_secrets_of_the_environment_are_found(variable: str, value: str, found: str) -> None:
    """Errors of the HTTP client may name its proxy, and servers repeat headers."""
    secrets = Secrets(environment_secrets({"https_proxy": "http://[", "X": "", variable: value}))

    assert secrets.mask(f"cannot use {found!r}") == "cannot use '***'"


def test_a_plain_user_name_is_no_secret() -> None:
    """Masking it would only make errors hard to read."""
    secrets = Secrets(environment_secrets({"HTTP_PROXY": "http://me:pa55word@proxy"}))

    assert secrets.mask("the proxy knows me") == "the proxy knows me"


@pytest.mark.parametrize("login", ["t0ken-in-the-url", "t0ken-in-the-url:x", "abcdef:"])
def test_a_token_in_the_place_of_a_user_name_is_masked(login: str) -> None:
    """Git hosts and gateways take one there, with an empty or any password."""
    token = login.partition(":")[0]
    address = Address.read(f"https://{login}@host/v1")

    assert token not in Secrets(address.secrets).mask(f"who is {token}?")
    assert token not in address.shown


@pytest.mark.parametrize("key", ["any", KEYS[0]])
def test_an_answer_nested_without_end_is_a_failure_of_its_own(key: str) -> None:
    """It could be neither masked nor read again; a run must not end by it, nor its file
    become unreadable.
    """
    body: Any = 1
    for _ in range(DEEPEST + 1):
        body = {"a": body}
    answer = Result(Request("a", "chat.completions", {}), 200, body)
    within = Result(answer.request, 200, body["a"])

    masked = Secrets([key]).mask_result(answer)

    assert (masked.custom_id, masked.ok, masked.code) == ("a", False, "unreadable_answer")
    assert read_result(masked.line()) == ("a", False)
    assert read_result(Secrets([key]).mask_result(within).line()) == ("a", True)


def test_warnings_are_masked(
    tmp_path: Path,
    requests: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the limiter warns of while the command runs."""
    monkeypatch.setenv("OPENAI_API_KEY", KEYS[0])

    def warn(*_: object) -> None:
        warnings.warn(f"odd: {KEYS[0]}", RuntimeWarning, stacklevel=1)
        raise CommandError("enough")

    monkeypatch.setattr("ratelimit.commands.run.command.make_limiter", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["run", str(requests), "-o", str(tmp_path / "out")]) == 2

    assert "note: odd: ***" in capfd.readouterr().err


def test_representations_show_no_prompt_and_no_password() -> None:
    """Requests, results and calls end up in logs and tracebacks."""
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "my diary"}]}
    request = Request("r-1", "chat.completions", body, {"body": body})
    answer = {"choices": [{"message": {"content": "my diary"}}]}
    error = {"code": "echo", "message": "my diary"}
    shown = [
        repr(request),
        repr(Result(request, 200, answer)),
        repr(Result(request, 400, {"error": error})),
        repr(Result(request, error=error)),
        repr(Call(body, "chat.completions", "line 1")),
        repr(RunSettings(Path("in"), base_url="http://me:my diary@host")),
        repr(Address.read("http://me:my diary@host")),
    ]

    assert "my diary" not in "".join(shown)
    assert shown[:3] == [
        "<Request 'r-1' for chat.completions>",
        "<Result 'r-1': answered>",
        "<Result 'r-1': failed by echo (HTTP 400)>",
    ]
