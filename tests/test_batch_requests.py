"""Requests: every form is read, and what is none is refused in a sentence."""

from __future__ import annotations

import gzip
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI

from ratelimit import InvalidArgument, RateLimiter
from ratelimit.batch import lines, run
from ratelimit.batch.journal import Done
from ratelimit.batch.lines import parse_line, read_lines
from ratelimit.batch.requests import PATHS, Request, key_of, read_endpoint, read_request
from ratelimit.batch.survey import SHOWN, Source
from ratelimit.estimate.endpoints import ENDPOINTS, endpoint_named

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(
    st.sampled_from(
        [
            "custom_id",
            "method",
            "url",
            "body",
            "request",
            "endpoint",
            "messages",
            "input",
            "prompt",
            "model",
            "instructions",
            "stream",
        ]
    ),
    JSON,
)


def write(path: Path, *rows: Any) -> Path:
    """Write rows as lines; bytes as they are."""
    path.write_bytes(
        b"".join(
            row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows
        )
    )
    return path


@pytest.mark.parametrize(
    ("line", "endpoint"),
    [
        (CHAT, "chat.completions"),
        ({"model": "gpt-4o", "input": "Hi"}, "responses"),
        ({"model": "text-embedding-3-small", "input": "Hi"}, "embeddings"),
        ({"model": "davinci-002", "prompt": "Hi"}, "completions"),
        (
            {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": CHAT},
            "chat.completions",
        ),
        (
            {
                "custom_id": "a",
                "url": "https://api.openai.com/v1/embeddings",
                "body": {"model": "m", "input": "Hi"},
            },
            "embeddings",
        ),
        ({"body": CHAT}, "chat.completions"),
        ({"request": CHAT, "endpoint": "chat.completions", "usage": {}}, "chat.completions"),
        (
            {
                "request": {"messages": CHAT["messages"]},
                "endpoint": "chat.completions",
                "model": "azure-name",
            },
            "chat.completions",
        ),
    ],
)
def test_every_form_of_a_request_is_read(line: dict[str, Any], endpoint: str) -> None:
    """The same file works for the Batch API and here; plain bodies do as well."""
    request = read_request(line, 1)

    assert (request.endpoint, request.path) == (endpoint, PATHS[endpoint])
    assert request.model
    assert request.given is line


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ([], "no JSON object"),
        ({}, "no request"),
        ({"model": "gpt-4o"}, "no request"),
        ({"body": CHAT, "url": "/v1/chat/completion"}, "/v1/chat/completions is"),
        ({"body": CHAT, "url": "chat-completions"}, "no endpoint"),
        ({"body": CHAT, "url": "/v1/chat/completions", "method": "GET"}, "GET"),
        ({"messages": CHAT["messages"]}, 'no "model"'),
        ({"model": "gpt-4o", "messages": []}, 'no "messages"'),
        ({"custom_id": 5, "body": CHAT}, "custom_id"),
        ({"custom_id": "", "body": CHAT}, '"custom_id" is empty'),
        ({"url": 5, "body": CHAT}, "not 5"),
        ({"url": "", "body": CHAT}, "not ''"),
        ({"endpoint": ["/v1/chat/completions"], "request": CHAT}, "should be a text"),
        ({"url": "/v1/audio/speech", "body": {"input": "Hi"}}, "no JSON"),
        ({"url": "/v1/audio/transcriptions", "body": {"file": "a.wav"}}, "no JSON"),
        ({"url": "/v1/files", "body": {"file": "a.jsonl"}}, "no JSON"),
        ({"url": "audio.speech", "body": {"input": "Hi"}}, "no JSON"),
        ({"model": "gpt-4o", "messages": [object()]}, "JSON"),
    ],
)
def test_what_is_no_request_is_told(line: object, expected: str) -> None:
    """A bad line is refused with its place and the reason, before anything is sent."""
    with pytest.raises(InvalidArgument, match=expected) as caught:
        read_request(line, 7)

    assert str(caught.value).startswith("request 7")


@given(line=FIELDS | JSON)
def test_any_json_is_a_request_or_refused(line: object) -> None:
    """No line of any file ends in another error."""
    try:
        request = read_request(line, 1)
    except InvalidArgument:
        return

    assert request.custom_id
    assert request.path.startswith("/")


def test_a_request_without_a_name_gets_the_same_one_in_every_run() -> None:
    """Resuming rests on names: they must not depend on key order, the run or other
    lines, and tell equal bodies apart.
    """
    one, again = read_request(CHAT, 3), read_request(dict(reversed(CHAT.items())), 3)

    assert one.custom_id == again.custom_id == "3-e715f0a7a679"
    assert read_request(CHAT, 4).custom_id != one.custom_id
    assert read_request(CHAT, 3, model="other").custom_id == one.custom_id
    assert read_request(CHAT | {"user": "x"}, 3).custom_id != one.custom_id


def test_a_model_may_be_put_in_place_of_the_one_named() -> None:
    """The same file can be asked of another model, and one without a model of any."""
    assert read_request(CHAT, 1, model="other").body["model"] == "other"
    assert read_request({"messages": CHAT["messages"]}, 1, model="other").model == "other"


def test_a_stream_is_not_asked_for() -> None:
    """A whole answer is kept, so it is asked for whole; the caller's own body stays as
    it was.
    """
    body = CHAT | {"stream": True, "stream_options": {"include_usage": True}}
    request = read_request(body, 1)

    assert dict(request.body) == CHAT
    assert request.given["stream"] is True


@given(st.text(), st.text())
def test_names_are_told_apart_by_their_keys(one: str, other: str) -> None:
    """16 bytes stand for a name, also for one with half a character in it."""
    assert (key_of(one) == key_of(other)) == (one == other)
    assert len(key_of(one + "\ud800")) == 16


def test_files_are_read_plain_and_gzipped(tmp_path: Path) -> None:
    """Blank lines and a byte order mark mean nothing, line numbers count all lines."""
    text = b"\xef\xbb\xbf" + json.dumps(CHAT).encode() + b"\n\n  \r\n" + json.dumps(CHAT).encode()
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    plain.write_bytes(text)
    packed.write_bytes(gzip.compress(text))

    for path in (plain, packed):
        assert [(number, parse_line(raw, "")) for number, raw in read_lines(path)] == [
            (1, CHAT),
            (4, CHAT),
        ]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a thing of Unix")
@pytest.mark.parametrize("packed", [False, True])
def test_a_pipe_is_read_once_and_not_asked_from(tmp_path: Path, packed: bool) -> None:
    """`estimate` counts what another program writes; a run reads its file twice, and
    would find nothing left to send.
    """
    path = tmp_path / "pipe"
    os.mkfifo(path)
    text = json.dumps(CHAT).encode() + b"\n"
    data = gzip.compress(text) if packed else text
    writer = threading.Thread(target=path.write_bytes, args=(data,))
    writer.start()
    found = list(read_lines(path))
    writer.join()

    assert found == [(1, text)]
    with pytest.raises(InvalidArgument, match="is no ordinary file"):
        Source(path, Done()).survey()


def test_files_that_cannot_be_read_are_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing, a directory, cut off, far too long: the reason and the file."""
    packed = tmp_path / "cut.gz"
    packed.write_bytes(gzip.compress(json.dumps(CHAT).encode() * 100)[:-20])
    monkeypatch.setattr(lines, "LONGEST_LINE", 10_000)
    for path, expected in (
        (tmp_path / "none", "No such file"),
        (tmp_path, "directory"),
        (packed, "broken gzip file"),
        (write(tmp_path / "long", b"x" * 20_000), "longer than 10,000 bytes"),
    ):
        with pytest.raises(InvalidArgument, match=expected) as caught:
            list(read_lines(path))
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"temperature": NaN}', "not JSON: NaN is no number there"),
        (b'{"temperature": -Infinity}', "not JSON: -Infinity is no number there"),
        (b"[1]", "JSON list"),
        (b"null", "JSON null"),
        (b"1", "JSON number"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_broken_lines_are_told_in_a_sentence(raw: bytes, expected: str) -> None:
    """What a line is instead of a JSON object."""
    with pytest.raises(InvalidArgument, match=f"^line 3 is (a )?{expected}"):
        parse_line(raw, "line 3")


def test_a_survey_tells_what_is_wrong_and_what_is_left(tmp_path: Path) -> None:
    """All broken lines are counted, the first few spelled out; two requests of one name
    are a problem, two equal bodies are not.
    """
    named = {"custom_id": "twice", "body": CHAT}
    path = write(tmp_path / "requests", CHAT, CHAT, named, named, *[b"{\n"] * 7)
    found = Source(path, Done()).survey()

    assert (found.total, found.left, found.broken) == (4, 4, 8)
    assert len(found.problems) == SHOWN
    assert "line 4" in found.problems[0]
    assert "'twice'" in found.problems[0]
    assert found.models == {"gpt-4o": 4}


def test_a_source_leaves_out_what_is_done(tmp_path: Path) -> None:
    """Resuming sends what has no result; retrying sends what failed, and only that."""
    path = write(tmp_path / "requests", *({"custom_id": name, "body": CHAT} for name in "abcd"))
    done = Done()
    done.answered, done.failed = {key_of("a")}, {key_of("c")}

    def sent(source: Source) -> list[str]:
        return [request.custom_id for request in source]

    assert sent(Source(path, Done())) == ["a", "b", "c", "d"]
    assert sent(Source(path, done)) == ["b", "d"]
    assert sent(Source(path, done, retry=True)) == ["c"]
    assert sent(Source(path, Done(), retry=True)) == []
    assert Source(path, done).survey().left == 2


def test_a_request_can_be_made_by_hand() -> None:
    """A name and a body are enough; no line of a file is needed."""
    assert Request("mine", "responses", {"model": "gpt-4o", "input": "Hi"}).path == "/responses"


@pytest.mark.parametrize(
    "body",
    [
        {"model": "tts-1", "input": "Hello", "voice": "alloy"},
        {"model": "whisper-1", "file": "a.wav"},
    ],
)
def test_a_body_without_an_answer_in_json_is_refused_by_its_name(body: dict[str, object]) -> None:
    """A request for speech is one, so it is not said to lack a prompt; its answer would
    be paid for, and lost.
    """
    with pytest.raises(InvalidArgument, match="'audio' takes or gives what is no JSON") as refused:
        read_request(body, 1)

    assert "neither" not in str(refused.value)


@pytest.mark.parametrize("endpoint", ["audio", "audio.speech", "/v1/audio/speech", "/v1/uploads"])
def test_an_endpoint_without_answers_in_json_is_refused(endpoint: str) -> None:
    """Before anything is sent, however it is named."""
    with pytest.raises(InvalidArgument, match="no JSON"):
        read_endpoint(endpoint)
    with pytest.raises(InvalidArgument, match="no JSON"):
        run([CHAT], AsyncOpenAI(api_key="any"), RateLimiter(), endpoint=endpoint)


def test_what_is_only_counted_needs_no_answer() -> None:
    """A log of calls may hold some for speech; they have their cost as well."""
    body = {"model": "tts-1", "input": "Hello", "voice": "alloy"}
    named = read_request({"endpoint": "audio.speech", "request": body}, 1, counted=True)
    bare = read_request(body, 2, counted=True)

    assert RateLimiter().estimate(named.body, endpoint=named.endpoint).endpoint == "audio"
    assert bare.endpoint == "audio"


@given(
    st.sampled_from(
        sorted({*ENDPOINTS, *PATHS, "images.edits", "rerank", "vector_stores/a/files"})
    ),
    st.sampled_from(["{}", "/{}", "/v1/{}", "https://host/openai/v1/{}", "/v1/{}/"]),
    st.sampled_from(["", "?api-version=1"]),
)
def test_one_endpoint_is_read_in_one_way(name: str, form: str, query: str) -> None:
    """What a request is counted for is what it is sent to, however that is named."""
    named = form.format(name) + query
    try:
        endpoint = read_endpoint(named)
    except InvalidArgument:
        assert endpoint_named(named) in {"audio", "files", "other"}
        return

    assert endpoint_named(endpoint) == endpoint_named(named)
    assert read_endpoint(endpoint) == endpoint
    assert endpoint_named(Request("a", named, {}).path) == endpoint_named(named)


def test_the_method_of_an_sdk_names_its_endpoint() -> None:
    """As the estimates take it."""
    assert read_endpoint("chat.completions.create") == "chat.completions"
    assert read_endpoint("/v1/responses/compact") == "/responses/compact"


def test_an_endpoint_that_is_null_is_none() -> None:
    """Recorded calls have the field and no value for it."""
    line = {"url": None, "endpoint": "chat.completions", "request": CHAT}

    assert read_request(line, 1).endpoint == "chat.completions"
    assert read_request({"url": None, "body": CHAT}, 1).endpoint == "chat.completions"
