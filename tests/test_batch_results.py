"""The lines of a file of results: written as the Batch API does, and read."""

from __future__ import annotations

import json
import math

import pytest

from ratelimit import InvalidArgument
from ratelimit.batch.requests import read_request
from ratelimit.batch.results import OPENING, Result, read_result
from tests.journal_files import result

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}


def test_a_line_is_the_batch_apis() -> None:
    """A reader of the Batch API's results reads these, whatever it takes for a line
    end.
    """
    raw = result("a").line()
    line = json.loads(raw)

    assert raw.startswith(OPENING)
    assert raw.isascii()
    assert len(raw.decode().splitlines()) == 1
    assert set(line) == {"id", "custom_id", "response", "error"}
    assert line["response"] == {
        "status_code": 200,
        "request_id": "req_1",
        "body": {"text": "é\n\u2028 ok"},
    }
    assert line["error"] is None
    assert json.loads(result("b", None).line())["response"] is None
    assert result("a").line() != raw  # each has an id of its own


def test_a_number_that_is_none_is_written_as_null() -> None:
    """Some servers answer with NaN, which would make the line unreadable for all but
    Python.
    """
    body = {"scores": [0.5, math.nan, {"least": -math.inf}], "text": "NaN"}
    answer = Result(read_request(CHAT, 1), 200, body)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    line = json.loads(answer.line(), parse_constant=refuse)

    assert line["response"]["body"] == {"scores": [0.5, None, {"least": None}], "text": "NaN"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (result("a").line(), ("a", True)),
        (result("a", 400).line(), ("a", False)),
        (result("a", None).line(), ("a", False)),
        (
            (
                b'{"id": "batch_req_1", "custom_id": "a", "error": null,'
                b' "response": {"status_code": 200, "body": {}}}'
            ),
            ("a", True),
        ),
        (
            (
                b'{"id": "batch_req_1", "custom_id": "a", "response": null,'
                b' "error": {"code": "batch_expired"}}'
            ),
            ("a", False),
        ),
    ],
)
def test_results_are_distinguished_from_failures(line: bytes, expected: tuple[str, bool]) -> None:
    """Ours and the Batch API's own lines say whether there is an answer."""
    assert read_result(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b'{"custom_id": "a"}',
        b'{"custom_id": 1, "response": null}',
        b"\xff",
        b"[" * 99_999,
    ],
)
def test_other_lines_are_refused(line: bytes) -> None:
    """A file of something else is not taken for results."""
    with pytest.raises(InvalidArgument):
        read_result(line)
