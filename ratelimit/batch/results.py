"""What came back: one `Result` for each request, and its line in a file of results.

Owns how an answer or an exception becomes a result, and the form of the line, which is
the Batch API's: ``{"id", "custom_id", "response": {"status_code", "request_id",
"body"}, "error"}``. As there, an HTTP error is a response with its status and body, and
``error`` is for what never became an HTTP answer. Must never read files or send.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from ratelimit.batch.requests import Request
from ratelimit.errors import InvalidArgument
from ratelimit.feedback import Usage, read_usage
from ratelimit.feedback.answers import error_by_shape, with_status

OPENING: Final = b'{"id":"batch_req_'
"""What every line that is written here begins with."""

UNREADABLE: Final = "unreadable_answer"
"""The code of a success without a JSON body, such as the page of a proxy."""

_LONGEST_TEXT: Final = 2_000
"""Characters that are kept of an answer that is not JSON."""


@dataclass(frozen=True, slots=True, repr=False)
class Result:
    """What became of one request."""

    request: Request
    status: int | None = None
    """Of the HTTP answer; None where there was none."""
    body: Any = None
    """The answer's JSON, also of an HTTP error."""
    request_id: str = ""
    error: Mapping[str, str] | None = None
    """``code`` and ``message`` of what failed without an answer (the connection broke,
    the request can never fit its limit), else None.
    """

    @property
    def custom_id(self) -> str:
        """The request's name."""
        return self.request.custom_id

    @property
    def ok(self) -> bool:
        """Whether there is an answer, and not an error.

        A success with an error object as its body, as some servers send, is no
        answer.
        """
        return (
            self.error is None
            and self.status is not None
            and 200 <= self.status < 300
            and error_in(self.body) is None
        )

    @property
    def usage(self) -> Usage | None:
        """What it was billed, in tokens; None where the answer does not say."""
        return read_usage(self.body) if isinstance(self.body, Mapping) else None

    @property
    def code(self) -> str:
        """Why it failed, in a word: the error's code or type, else "HTTP 500"."""
        if self.ok:
            return ""

        if self.error is not None:
            return self.error["code"]

        said = error_in(self.body)
        for name in ("code", "type"):
            code = said.get(name) if isinstance(said, Mapping) else None
            if isinstance(code, (str, int)) and code:
                return str(code)
        return f"HTTP {self.status}"

    @property
    def reason(self) -> str:
        """Why it failed, in a few words; empty when it did not."""
        if self.ok:
            return ""

        if self.error is not None:
            return f"{self.error['code']}: {self.error['message']}"

        said = error_in(self.body)
        message = said.get("message") if isinstance(said, Mapping) else said
        return f"HTTP {self.status}" + (f": {message}" if message else "")

    def line(self) -> bytes:
        """Return its line in a file of results, line end included.

        It is ASCII, so that every reader splits the file into the same lines. NaN is no
        JSON, and becomes null.
        """
        response = None
        if self.status is not None:
            response = {
                "status_code": self.status,
                "request_id": self.request_id,
                "body": self.body,
            }
        line = {
            "id": f"batch_req_{uuid4().hex}",
            "custom_id": self.custom_id,
            "response": response,
            "error": self.error,
        }
        try:
            text = json.dumps(line, separators=(",", ":"), allow_nan=False)
        except ValueError:  # as Python reads it, and some servers write it
            text = json.dumps(_without_nan(line), separators=(",", ":"))
        return text.encode() + b"\n"

    def __repr__(self) -> str:
        if self.ok:
            return f"<Result {self.custom_id!r}: answered>"

        status = "" if self.status is None else f" (HTTP {self.status})"
        return f"<Result {self.custom_id!r}: failed by {self.code}{status}>"


def _without_nan(value: Any) -> Any:
    """Put None in the place of NaN and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None

    if isinstance(value, list):
        return [_without_nan(item) for item in value]

    if isinstance(value, Mapping):
        return {name: _without_nan(item) for name, item in value.items()}

    return value


def error_in(body: object) -> object:
    """Return the error that an answer's body reports, or None.

    The forms: ``{"error": {...}}`` (OpenAI; a Response that failed has it beside its
    output), the same in a list (Gemini), ``{"object": "error", ...}`` (vLLM), and an
    ``error`` in every choice (OpenRouter), and those of `error_by_shape`.
    """
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, Mapping):
        return None

    if body.get("error"):
        return with_status(body["error"], body)

    if body.get("object") == "error":
        return body

    choices = body.get("choices")
    if isinstance(choices, list) and choices:
        errors = [choice.get("error") for choice in choices if isinstance(choice, Mapping)]
        if len(errors) == len(choices) and all(errors):
            return errors[0]
    return error_by_shape(body)


def answered(request: Request, response: Any) -> Result:
    """Make the result of an HTTP answer, good or bad."""
    request_id = response.headers.get("x-request-id") or ""
    try:
        body = response.json()
    except (ValueError, RecursionError):  # not JSON: a proxy's page, an answer cut short
        text = response.text[:_LONGEST_TEXT]
        if 200 <= response.status_code < 300:
            return Result(
                request,
                error={"code": UNREADABLE, "message": f"the answer is not JSON: {text}"},
            )
        body = {"error": {"message": text}}
    if body is None and 200 <= response.status_code < 300:
        return Result(request, error={"code": UNREADABLE, "message": "the answer is null"})

    return Result(request, status=response.status_code, body=body, request_id=request_id)


def failed(request: Request, error: Exception) -> Result:
    """Make the result of an exception: of its HTTP answer, else of its text."""
    response = getattr(error, "response", None)
    if isinstance(getattr(error, "status_code", None), int) and response is not None:
        return answered(request, response)

    cause = f" ({error.__cause__})" if error.__cause__ is not None and str(error.__cause__) else ""
    return Result(request, error={"code": type(error).__name__, "message": f"{error}{cause}"})


def read_result(raw: bytes) -> tuple[str, bool]:
    """Read (custom_id, whether it has an answer) of a line of results.

    The line may be ours or the Batch API's own; raises `InvalidArgument` if it is none.
    """
    try:
        line = json.loads(raw)
        custom_id, response = line["custom_id"], line["response"]
        is_answered = (
            response is not None
            and line.get("error") is None
            and 200 <= response["status_code"] < 300
            and error_in(response.get("body")) is None
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        custom_id = None
    if not isinstance(custom_id, str):
        raise InvalidArgument("it is no line of results")

    return custom_id, is_answered


def read_bill(raw: bytes) -> tuple[str, Usage | None]:
    """Read the model and the usage of a line of results; None where none is shown."""
    response = json.loads(raw).get("response") or {}
    body = response.get("body")
    model = body.get("model") if isinstance(body, dict) else None
    return model if isinstance(model, str) else "", read_usage(body)
