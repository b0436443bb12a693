"""What came back: one `Result` for each request, and its line in a file of results.

Owns how an answer or an exception becomes a result, and the form of the line, which is
the Batch API's: ``{"id", "custom_id", "response": {"status_code", "request_id",
"body"}, "error"}``. As there, an HTTP error is a response with its status and body, and
``error`` is for what never became an HTTP answer. Must never come in: files, sending.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from ratelimit.batch.requests import Request
from ratelimit.errors import InvalidArgument
from ratelimit.feedback import Usage, read_usage

OPENING: Final = b'{"id":"ratelimit_req_'
"""What every line that is written here begins with."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one request.

    `status`: of the HTTP answer, None where there was none. `body`: the answer's JSON,
    also of an HTTP error. `error`: ``code`` and ``message`` of what failed without an
    answer (the connection broke, the request can never fit its limit), else None.
    """

    request: Request
    status: int | None = None
    body: Any = None
    request_id: str = ""
    error: Mapping[str, str] | None = None

    @property
    def custom_id(self) -> str:
        """The request's name."""
        return self.request.custom_id

    @property
    def ok(self) -> bool:
        """Whether there is an answer, and not an error."""
        return self.error is None and self.status is not None and 200 <= self.status < 300

    @property
    def usage(self) -> Usage | None:
        """What it was billed, in tokens; None where the answer does not say."""
        return read_usage(self.body) if isinstance(self.body, Mapping) else None

    @property
    def reason(self) -> str:
        """Why it failed, in a few words; "" when it did not."""
        if self.ok:
            return ""
        if self.error is not None:
            return f"{self.error['code']}: {self.error['message']}"
        said = self.body.get("error") if isinstance(self.body, Mapping) else None
        message = said.get("message") if isinstance(said, Mapping) else said
        return f"HTTP {self.status}" + (f": {message}" if message else "")

    def line(self) -> bytes:
        """Its line in a file of results, line end included: ASCII, so that any reader's
        idea of a line is ours.
        """
        response = None
        if self.status is not None:
            response = {
                "status_code": self.status,
                "request_id": self.request_id,
                "body": self.body,
            }
        line = {
            "id": f"ratelimit_req_{uuid4().hex}",
            "custom_id": self.custom_id,
            "response": response,
            "error": self.error,
        }
        return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def answered(request: Request, response: Any) -> Result:
    """The result of an HTTP answer, good or bad."""
    request_id = response.headers.get("x-request-id") or ""
    try:
        body = response.json()
    except (ValueError, RecursionError):  # not JSON: a proxy's page, an answer cut short
        text = response.text[:2_000]
        if 200 <= response.status_code < 300:
            return Result(
                request,
                error={"code": "unreadable_answer", "message": f"the answer is not JSON: {text}"},
            )
        body = {"error": {"message": text}}
    return Result(request, status=response.status_code, body=body, request_id=request_id)


def failed(request: Request, error: Exception) -> Result:
    """The result of an exception: of the HTTP answer that it carries, else of what it
    says.
    """
    response = getattr(error, "response", None)
    if isinstance(getattr(error, "status_code", None), int) and response is not None:
        return answered(request, response)
    cause = f" ({error.__cause__})" if error.__cause__ is not None and str(error.__cause__) else ""
    return Result(request, error={"code": type(error).__name__, "message": f"{error}{cause}"})


def read_result(raw: bytes) -> tuple[str, bool]:
    """Read (custom_id, whether it has an answer) of a line of results, ours or the
    Batch API's own; raise `InvalidArgument` if it is none.
    """
    try:
        line = json.loads(raw)
        custom_id, response = line["custom_id"], line["response"]
        ok = (
            line.get("error") is None and 200 <= response["status_code"] < 300
            if response is not None
            else False
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        custom_id = None
    if not isinstance(custom_id, str):
        raise InvalidArgument("it is no line of results")
    return custom_id, ok
