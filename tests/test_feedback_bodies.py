"""JSON bodies that pass in pieces: what settles a call is found wherever it stands."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.feedback import JsonReader, Usage, read_usage
from ratelimit.feedback import bodies as reading
from ratelimit.feedback.bodies import KEPT_WHOLE, WANTED, Members

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
USED = Usage(10, 5, 15)
LARGE = 3 * KEPT_WHOLE


def passed(body: bytes, size: int = 10_000) -> JsonReader:
    """Let a body pass in pieces."""
    reader = JsonReader()
    for start in range(0, len(body), size):
        reader.feed(body[start : start + size])
    reader.close()
    return reader


@pytest.mark.no_cover  # half a million steps, which coverage would make thrice as long
@pytest.mark.parametrize(
    "filler", ["A" * LARGE, [0.5] * (LARGE // 4), ['"', "\\", {"usage": {}}] * 30_000]
)
@pytest.mark.parametrize("order", [("usage", "data"), ("data", "usage")])
def test_usage_is_found_before_and_behind_any_data(order: tuple[str, str], filler: Any) -> None:
    """A picture, numbers or texts of any size may come on either side of it."""
    members = {"usage": USAGE, "data": filler}
    body = json.dumps({"object": "list", **{name: members[name] for name in order}, "n": 1})

    reader = passed(body.encode())

    assert reader.usage == USED
    assert passed(body.encode(), 999).usage == USED


def test_memory_stays_bounded_whatever_the_size() -> None:
    """Of fifty megabytes no more is held than of a small answer."""
    reader = JsonReader()
    reader.feed(json.dumps({"usage": USAGE, "x": 1}).encode()[:-1] + b', "data": ["')
    for _ in range(50):
        reader.feed(b"A" * 1_000_000)
        assert reader._members is not None
        assert len(reader._body) + len(reader._members._member) <= 2_000_000
    reader.feed(b'"], "error": null}')
    reader.close()

    assert reader.usage == USED
    assert reader.error is None


def test_the_usage_of_a_large_response_names_it() -> None:
    """A Response may be built on by a later one, so its id is kept as well."""
    body = {
        "id": "resp_1",
        "output": ["A" * LARGE],
        "tools": [{"parameters": {"properties": {"usage": {"input_tokens": 1}}}}],
        "usage": {"input_tokens": 10, "output_tokens": 5},
        "metadata": {"usage": {"input_tokens": 1}},
    }

    assert passed(json.dumps(body).encode()).usage == Usage(10, 5, 15, response_id="resp_1")


def test_a_large_list_of_chunks_is_read_element_by_element() -> None:
    """Gemini streams a JSON list: its last usage counts."""
    chunks = [
        {"text": "A" * 5_000, "usageMetadata": {"promptTokenCount": 3, "totalTokenCount": total}}
        for total in range(4, 204)
    ]

    assert passed(json.dumps(chunks).encode()).usage == Usage(3, 200, 203)


def test_an_error_object_is_kept() -> None:
    """A body of a 200 may be an error, small or beside a lot of data."""
    error = {"message": "slow", "code": 429}

    assert passed(json.dumps({"error": error}).encode()).error == error
    assert passed(json.dumps({"trace": "A" * LARGE, "error": error}).encode()).error == error
    assert passed(b"no JSON").error is None
    assert passed(b'["list"]').error is None


TEXTS = st.text(st.sampled_from('ab"\\{}[],: \né'), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from([*sorted(WANTED), "response", "data"]) | TEXTS
DOCUMENTS = st.dictionaries(NAMES, VALUES | st.dictionaries(NAMES, VALUES, max_size=3), max_size=6)


@settings(max_examples=150)
@given(DOCUMENTS, st.data(), st.booleans(), st.sampled_from([None, 1]))
def test_the_members_that_are_kept_are_those_of_the_document(
    document: dict[str, Any], data: st.DataObject, ascii_only: bool, indent: int | None
) -> None:
    """However a document is written and cut, each member that is kept has the value
    that a JSON decoder gives it.
    """
    body = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    members = Members()
    for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
        members.feed(body[start:end])

    inner = document.get("response")
    expected = inner if isinstance(inner, dict) else {}
    expected = {name: value for name, value in expected.items() if name != "response"}
    wanted = {name: value for name, value in (expected | document).items() if name in WANTED}
    nested = json.dumps(inner).count('"response"') if isinstance(inner, dict) else 0
    if not nested:
        assert members.found == wanted


@given(
    st.lists(st.binary(max_size=40) | st.sampled_from([b'{"usage":', b"}", b"]", b"{", b'"', b","]))
)
def test_garbage_never_raises(pieces: list[bytes]) -> None:
    """Whatever comes as JSON, large or small, is at most no usage."""
    reader, members = JsonReader(), Members()
    for piece in pieces:
        reader.feed(piece)
        members.feed(piece)
    reader.close()

    assert reader.usage is None or reader.usage.total_tokens > 0
    assert set(members.found) <= WANTED


@given(DOCUMENTS, st.integers(1, 50))
def test_a_small_body_means_what_its_document_means(document: dict[str, Any], size: int) -> None:
    """In pieces or whole, the same usage comes out."""
    assert passed(json.dumps(document).encode(), size).usage == read_usage(document)


@pytest.mark.no_cover  # half a million steps, which coverage would make thrice as long
def test_a_large_body_of_many_marks_is_passed_in_linear_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No byte is copied once for every bracket behind it."""
    copied = 0
    keep = reading.Members._keep

    def counted(self: Members, piece: bytes) -> None:
        nonlocal copied
        copied += len(piece)
        keep(self, piece)

    monkeypatch.setattr(reading.Members, "_keep", counted)
    body = json.dumps({"data": [{"a": ["b", "c"]}] * 60_000, "usage": USAGE}).encode()
    reader = passed(body)

    assert reader.usage == USED
    assert copied <= 2 * len(body)
