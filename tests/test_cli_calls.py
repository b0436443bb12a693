"""Files of calls: every form is read, and whatever is none is refused in one sentence
that names the line.
"""

from __future__ import annotations

import contextlib
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import InvalidArgument
from ratelimit.commands.calls import Call, read_calls, with_answers
from ratelimit.commands.demo.workload import make_calls

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}


def written(folder: Path, *lines: object) -> Path:
    """A file of these lines."""
    path = folder / "calls.jsonl"
    path.write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines),
        encoding="utf-8",
    )
    return path


def test_bodies_batch_lines_and_recorded_calls_are_read(tmp_path: Path) -> None:
    """The three forms of a line give the same body; a recorded bill goes with it."""
    batch = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": BODY}
    recorded = {
        "request": BODY,
        "endpoint": "chat.completions",
        "usage": {"prompt_tokens": 8, "completion_tokens": 5, "total_tokens": 13},
    }

    plain, batched, billed = read_calls(written(tmp_path, BODY, batch, "", recorded))

    assert plain.body == batched.body == billed.body == BODY
    assert plain.is_chat
    assert batched.is_chat
    assert billed.is_chat
    assert billed.usage == {"prompt_tokens": 8, "completion_tokens": 5}
    assert billed.origin.startswith("line 4 ")


def test_gzip_is_known_by_its_bytes(tmp_path: Path) -> None:
    """A compressed file is read whatever it is called."""
    path = tmp_path / "calls.txt"
    path.write_bytes(gzip.compress(json.dumps(BODY).encode()))

    assert [call.body for call in read_calls(path)] == [BODY]


def test_azure_bodies_take_the_model_of_their_line(tmp_path: Path) -> None:
    """A recorded body that leaves the model to the deployment is completed from its
    line.
    """
    line = {
        "request": {"messages": BODY["messages"]},
        "endpoint": "chat.completions",
        "model": "gpt-4o",
    }

    assert next(read_calls(written(tmp_path, line))).body["model"] == "gpt-4o"


def test_no_more_is_read_than_asked_for(tmp_path: Path) -> None:
    """A broken line behind the last call that is wanted does no harm."""
    calls = read_calls(written(tmp_path, BODY, "{broken"))

    assert next(calls).body == BODY
    with pytest.raises(InvalidArgument, match=r"line 2 .* is not JSON"):
        next(calls)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{oops", "is not JSON"),
        ("[1]", "is a JSON list"),
        ("7", "is a JSON number"),
        ("null", "is a JSON null"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": 1}', "is no request"),
        ('{"messages": [{}]}', 'no "model"'),
        ('{"model": "gpt-4o", "messages": []}', 'no "messages"'),
        (
            '{"custom_id": "a", "url": "/v1/chat/completions", "body": {"input": "x"}}',
            'no "messages"',
        ),
        ("9" * 5_000, "is not JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, expected: str) -> None:
    """What is no request is said with its line, before anything is sent."""
    with pytest.raises(InvalidArgument, match="line 2 of ") as caught:
        list(read_calls(written(tmp_path, BODY, line)))

    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"\x1f\x8bbroken", gzip.compress(b"{}" * 50, mtime=0)[:20]]
)
def test_binary_garbage_is_refused(tmp_path: Path, content: bytes) -> None:
    """Files that are no text, or cut off, are named."""
    path = tmp_path / "garbage"
    path.write_bytes(content)

    with pytest.raises(InvalidArgument, match="garbage"):
        list(read_calls(path))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """No content of a file gets past `InvalidArgument`."""
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    with contextlib.suppress(InvalidArgument):
        list(read_calls(path))


@pytest.mark.parametrize("path", [Path("/no/such/file"), Path("/")])
def test_a_missing_file_or_a_folder_is_said(path: Path) -> None:
    """What cannot be opened is one sentence too."""
    with pytest.raises(InvalidArgument, match="cannot read"):
        list(read_calls(path))


def test_answers_are_invented_within_the_bounds() -> None:
    """An invented answer fits its body, counts every choice, and is the same each time;
    a recorded one stays.
    """
    known = Call(BODY, usage={"prompt_tokens": 3, "completion_tokens": 9})
    bounded: list[dict[str, Any]] = [
        {**BODY, "max_tokens": 5, "n": 3},
        {**BODY, "max_completion_tokens": 2},
        {**BODY, "max_tokens": "x"},
    ]

    first = with_answers([known, *map(Call, bounded)], seed=1)
    answers = [call.usage["completion_tokens"] for call in first if call.usage]

    assert first == with_answers([known, *map(Call, bounded)], seed=1)
    assert answers[0] == 9
    assert answers[1] <= 15
    assert answers[1] % 3 == 0
    assert answers[2] <= 2
    assert answers[3] > 1


def test_our_own_workload_is_mixed_and_repeatable() -> None:
    """The same seed writes the same calls: small and large, bounded and not, with tools
    and streamed.
    """
    calls = make_calls(300, seed=0)
    sizes = sorted(len(json.dumps(call.body)) for call in calls)

    assert calls == make_calls(300, seed=0)
    assert calls != make_calls(300, seed=1)
    assert sizes[-1] > 20 * sizes[0]
    for feature in ("tools", "stream", "max_tokens"):
        assert 0 < sum(feature in call.body for call in calls) < 300
