"""Results that the tests of the journal write, and the names in a file of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ratelimit.batch import Request, Result


def result(name: str, status: int | None = 200, body: Any = None) -> Result:
    """Make one."""
    error = {"code": "APIConnectionError", "message": "cut off"} if status is None else None
    return Result(
        Request(name, "chat.completions", {}),
        status,
        {"text": "é\n\u2028 ok"} if body is None else body,
        "req_1",
        error,
    )


def names(path: Path) -> list[str]:
    """What a file holds, by whole lines."""
    return [json.loads(raw)["custom_id"] for raw in path.read_bytes().split(b"\n") if raw]
