"""What the tests of `ratelimit run` give it: a server of one key, files of requests.

Owns no expectation, except that each name stands once in a file of results.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ratelimit.cli import main
from ratelimit.testing import FakeOpenAI

KEY = "sk-canary-7d1f0c52a9e84b36"


@contextmanager
def serving() -> Iterator[FakeOpenAI]:
    """Serve with one key, high limits and quick answers; the environment names both."""
    fake = FakeOpenAI(rpm=60_000, tpm=60_000_000, latency=0.01, output=20, keys={KEY: "org-a"})
    with fake.serve() as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", KEY)
        patch.setenv("OPENAI_BASE_URL", url)
        yield fake


def write(path: Path, count: int, **fields: Any) -> Path:
    """Write `count` requests, named r-0 and so on."""
    body = {"model": "gpt-4o", "max_tokens": 20, **fields}
    rows = (
        {
            "custom_id": f"r-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": body | {"messages": [{"role": "user", "content": f"Say {number}."}]},
        }
        for number in range(count)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def results(path: Path) -> dict[str, Any]:
    """Read a file of results; each name may stand there once."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    found = {line["custom_id"]: line for line in lines}
    assert len(found) == len(lines)
    return found


def run(*arguments: object) -> int:
    """Run the command in this process."""
    return main(["run", *map(str, arguments)])
